//! The fusion model: gene tokens and patch tokens, rebalanced, entangled, pooled and joined.
//!
//! ```text
//! expression [P, sum of genes]           patches [N, L]
//!   | one small self-normalising net       | standardise, linear, activation, dropout
//!   |   a signature (ELU, alpha dropout)   |
//! gene tokens [P S, D]                   patch tokens [N, D]
//!   |                                      | MixStyle: channel statistics of other patients, if it is switched on
//!   |---- SDIR: token mask, gain ----------|
//!   |---- CADE: token statistics mixed ----|      training only
//! gated attention pooling                gated attention pooling
//!   |                                      |
//! [ z_genes | z_patches | has genes | has patches ]  [B, 2 H D + 2]
//!   | head: dropout, linear (hidden layer if asked for)
//! log risk [B, 1] or hazard logits [B, K]
//! ```
//!
//! A patient without one modality has an empty bag of it: its pooled vector is zero and its flag says so. With
//! `train.modality_dropout` one modality is hidden at random from patients who have both, so that the head has seen what
//! a cohort without it will bring.
//!
//! There is no layer norm between CADE and the pooling: CADE replaces a token `m + s z` by `m' + s' z`, and a layer norm
//! gives nearly the same of both, so that little but a shrinkage is left of the entanglement. In the published host a
//! layer norm follows at once; `docs/numerics.md` derives what passes it.

use serde::{Deserialize, Serialize};

use super::plugins::{Plugins, SdirConfig, Tokens};
use super::{Attention, Batch, InputShape, Output};
use crate::element::Real;
use crate::error::{Error, Result};
use crate::nn::{AttentionPool, Builder, Dense, GeneNets, Pass};
use crate::ops::{Activation, BagDraws, Cade, Concat, Dropout, DropoutKind, MixStyle};
use crate::shape::Ragged;
use crate::tape::Var;
use crate::tensor::Tensor;

/// Sizes and settings of the fusion model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FusionConfig {
    /// Width of a token, `D`.
    pub width: usize,
    /// Width of the hidden layer of each gene net.
    pub gene_hidden: usize,
    /// Width of the attention's hidden layer.
    pub attention_width: usize,
    /// Attention heads, `H`.
    pub heads: usize,
    /// Whether the attention is gated.
    pub gated: bool,
    /// Activation of the patch projection.
    pub patch_activation: Activation,
    /// Width of the head's hidden layer; 0 has none.
    pub head_hidden: usize,
    /// Alpha dropout inside the gene nets.
    pub gene_dropout: f64,
    /// Dropout of the elements of patch tokens.
    pub patch_dropout: f64,
    /// Dropout before each layer of the head.
    pub head_dropout: f64,
    /// The token mask and gain of each modality.
    pub sdir: SdirConfig,
    /// The mixing of token statistics between the modalities. `cade = false` in a run file switches it off; a table
    /// starts from the published settings; absent it is ours, [`Cade::smooth`].
    #[serde(with = "super::off")]
    pub cade: Option<Cade>,
    /// The mixing of channel statistics of patch tokens between the patients of a batch (Zhou et al. 2021); off unless it is
    /// given. A table starts from the published settings: alpha 0.1, a batch is mixed with probability 1/2. Published it
    /// follows on early layers of a convolutional network; here it is the unimodal ancestor of CADE, for comparison.
    #[serde(with = "super::off")]
    pub mixstyle: Option<MixStyle>,
}

impl Default for FusionConfig {
    fn default() -> FusionConfig {
        FusionConfig {
            width: 32,
            gene_hidden: 8,
            attention_width: 32,
            heads: 1,
            gated: true,
            patch_activation: Activation::Elu,
            head_hidden: 0,
            gene_dropout: 0.25,
            patch_dropout: 0.0,
            head_dropout: 0.25,
            sdir: SdirConfig::default(),
            cade: Some(Cade::smooth()),
            mixstyle: None,
        }
    }
}

impl FusionConfig {
    /// Refuses settings outside their range.
    ///
    /// # Errors
    /// [`Error::Setting`] names the first that is.
    pub fn check(&self) -> Result<()> {
        for (name, size) in [
            ("model.width", self.width),
            ("model.gene_hidden", self.gene_hidden),
            ("model.attention_width", self.attention_width),
            ("model.heads", self.heads),
        ] {
            super::size(name, size)?;
        }
        if self.head_hidden > 65_536 {
            let (name, want) = ("model.head_hidden", "at most 65536");
            return Err(Error::Setting { name, want, value: self.head_hidden.to_string() });
        }
        if self.heads * self.width > 65_536 {
            let (name, want) = ("model.heads", "such that heads times width is at most 65536");
            return Err(Error::Setting { name, want, value: self.heads.to_string() });
        }
        for (name, p) in [
            ("model.gene_dropout", self.gene_dropout),
            ("model.patch_dropout", self.patch_dropout),
            ("model.head_dropout", self.head_dropout),
        ] {
            super::probability(name, p)?;
        }
        self.sdir.check()?;
        self.cade.as_ref().map_or(Ok(()), Cade::check)?;
        self.mixstyle.as_ref().map_or(Ok(()), MixStyle::check)
    }
}

/// The layers of the fusion model.
#[derive(Clone, Debug)]
pub struct Fusion<T> {
    config: FusionConfig,
    genes: Option<(GeneNets, AttentionPool)>,
    patches: Option<(Dense<T>, AttentionPool)>,
    hidden: Option<Dense<T>>,
    risk: Dense<T>,
}

impl<T: Real> Fusion<T> {
    pub(super) fn new(b: &mut Builder<T>, config: &FusionConfig, shape: &InputShape<T>, outputs: usize) -> Fusion<T> {
        let c = config.clone();
        let pool = |b: &mut Builder<T>| AttentionPool::new(b, "pool", c.width, c.attention_width, c.heads, c.gated);
        let genes = shape.genes.as_ref().map(|widths| {
            b.scope("genes", |b| (GeneNets::new(b, widths.clone(), c.gene_hidden, c.width, c.gene_dropout), pool(b)))
        });
        let patches = shape.patches.as_ref().map(|patches| {
            b.scope("patches", |b| {
                let project = patches.project(b, c.width, c.patch_activation);
                (project, pool(b))
            })
        });
        let modalities = usize::from(genes.is_some()) + usize::from(patches.is_some());
        let joined = modalities * (c.heads * c.width + 1);
        let (hidden, last) = b.scope("head", |b| match c.head_hidden {
            0 => (None, joined),
            hidden => (Some(Dense::new(b, "hidden", joined, hidden, Activation::Elu)), hidden),
        });
        let risk = b.scope("head", |b| super::risk_layer(b, last, outputs));
        Fusion { config: c, genes, patches, hidden, risk }
    }

    pub(super) fn forward(&self, pass: &Pass<'_, T>, batch: &Batch<T>) -> Result<Output<T>> {
        let c = &self.config;
        // The patients of all draws of the pass are the same.
        let patients = pass.draws("").map(|d| BagDraws::new(d, batch.patients.as_slice()));
        let draws = |purpose: &str| pass.draws(purpose).zip(patients.as_ref()).map(|(d, p)| p.of_purpose(d));
        let genes = self.gene_tokens(pass, batch, patients.as_ref())?;
        let patches = self.patch_tokens(pass, batch, &draws)?;
        let plugins = Plugins { sdir: &c.sdir, cade: c.cade.as_ref(), mixstyle: c.mixstyle.as_ref() };
        let (genes, patches) = plugins.apply(pass, genes, patches, &draws)?;
        let mut attention = Attention { patches: None, genes: None };
        let mut parts = Vec::new();
        if let Some((_, pool)) = &self.genes {
            attention.genes = self.pool(pass, pool, genes, batch.size(), &mut parts)?;
        }
        if let Some((_, pool)) = &self.patches {
            attention.patches = self.pool(pass, pool, patches, batch.size(), &mut parts)?;
        }
        let joined = Concat.forward(pass.tape, &parts.iter().collect::<Vec<_>>())?;
        let each = Ragged::uniform(batch.size(), 1);
        let drop = |x: &Var<T>, name: &str| {
            let dropout = Dropout { p: c.head_dropout, kind: DropoutKind::Plain };
            dropout.forward(pass.tape, x, &each, draws(name).as_ref())
        };
        let mut x = drop(&joined, "head.dropout")?;
        if let Some(hidden) = &self.hidden {
            x = drop(&hidden.forward(pass, &x)?, "head.hidden.dropout")?;
        }
        Ok(Output { prediction: self.risk.forward(pass, &x)?, attention })
    }

    fn gene_tokens(
        &self,
        pass: &Pass<'_, T>,
        batch: &Batch<T>,
        patients: Option<&BagDraws>,
    ) -> Result<Option<Tokens<T>>> {
        let (Some((nets, _)), Some(genes)) = (&self.genes, &batch.genes) else { return Ok(None) };
        Tokens::of_genes(pass, nets, genes, patients).map(Some)
    }

    fn patch_tokens(
        &self,
        pass: &Pass<'_, T>,
        batch: &Batch<T>,
        draws: &impl Fn(&str) -> Option<BagDraws>,
    ) -> Result<Option<Tokens<T>>> {
        let (Some((project, _)), Some(patches)) = (&self.patches, &batch.patches) else { return Ok(None) };
        let rows = project.forward(pass, &patches.features)?;
        let dropout = Dropout { p: self.config.patch_dropout, kind: DropoutKind::Plain };
        let rows = dropout.forward(pass.tape, &rows, &patches.bags, draws("patches.dropout").as_ref())?;
        Ok(Some(Tokens { rows, bags: patches.bags.clone() }))
    }

    /// Pools the tokens of each patient into `parts`, with a flag that says who has any; gives the attention.
    fn pool(
        &self,
        pass: &Pass<'_, T>,
        pool: &AttentionPool,
        tokens: Option<Tokens<T>>,
        patients: usize,
        parts: &mut Vec<Var<T>>,
    ) -> Result<Option<Tensor<T>>> {
        let width = self.config.heads * self.config.width;
        let Some(tokens) = tokens else {
            parts.push(Var::constant(pass.tape.device().zeros(&[patients, width + 1])?));
            return Ok(None);
        };
        let (pooled, attention) = pool.forward(pass, &tokens.rows, &tokens.bags)?;
        let has = |b: usize| if tokens.bags.bag(b).is_empty() { T::zero() } else { T::one() };
        parts.push(pass.tape.reshape(&pooled, &[patients, width])?);
        parts.push(Var::constant(Tensor::from_fn(&[patients, 1], has).to(pass.tape.device())?));
        Ok(Some(attention.value().clone()))
    }
}
