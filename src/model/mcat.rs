//! MCAT: gene tokens that guide what is taken from the patches (Chen et al. 2021); and MOTCat, where optimal transport does (Xu and
//! Chen 2023).
//!
//! ```text
//! expression [P, sum of genes]           patches [N, L]
//!   | one small self-normalising net       | standardise, linear, ReLU, dropout
//!   |   a signature (ELU, alpha dropout)   |
//! gene tokens [P S, D]                   patch tokens [N, D]
//!   |---- SDIR: token mask, gain ----------|      if they are switched on
//!   |---- CADE: token statistics mixed ----|
//!   |---- mcat: queries --- keys, values --|
//!   |      each gene token attends to all patch tokens of its patient
//!   |---- motcat: patches are taken to gene tokens by a transport plan
//!   |                                      |
//! gene tokens [P S, D]                   patches as the genes see them [P S, D]
//!   | transformer layers, of their own     | transformer layers, of their own
//!   | gated attention pooling              | gated attention pooling
//!   | linear, ReLU, dropout                | linear, ReLU, dropout
//! [ patches | genes ]  [B, 2 D], or bilinear: a gate of both on D / 8 numbers of each, and all products of two of them
//!   | head: linear, ReLU, linear, ReLU, linear
//! log risk [B, 1] or hazard logits [B, K]
//! ```
//!
//! The co-attention of `mcat` is 6 queries by as many keys as there are patches: it is calculated without their matrix. The plan of
//! `motcat` ([`Transport`]) has no parameters.
//!
//! # Where it deviates from the published code
//! - Any number of signatures; the published code has six groups.
//! - Bags are ragged, several patients a step.
//! - Dropout is on what attention gives and not on its probabilities, which are never there as a whole, nor inside the gates of
//!   the pooling.
//! - Gradients go through the plan of `motcat`, to the gene tokens, too, unless `ot_gradient = false`, as published and as a study with
//!   the preset `published` has it.
//! - The plan of `motcat` is of all patches of a patient, in training too, where the published code takes some thousand at a time.
//! - Patches are standardised unless `inputs.standardize_patches = false`.
//! - A patient without expression has no tokens, and both branches pool nothing, which gives zeros; one without slides has gene
//!   tokens that attend to nothing.
//! - For a log risk the last layer has no bias.

use serde::{Deserialize, Serialize};

use super::plugins::{Plugins, SdirConfig, Tokens};
use super::{Attention, Batch, InputShape, Output};
use crate::element::Real;
use crate::error::{Error, Result};
use crate::nn::{AttentionPool, Builder, Dense, Encoder, EncoderSize, GeneNets, Pass};
use crate::ops::{
    Activation, BagDraws, Cade, Concat, Dropout, DropoutKind, MixStyle, Outer, PathwayAttention, Transport,
};
use crate::shape::Ragged;
use crate::tape::Var;
use crate::tensor::Tensor;

/// How the modalities are joined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Join {
    /// Side by side.
    #[default]
    Concat,
    /// By all products of a number of one and a number of the other, each gated by both (Chen et al. 2020, Pathomic Fusion).
    Bilinear,
}

/// Sizes and settings of MCAT and of MOTCat. The defaults are the published ones but for `ot_gradient`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct McatConfig {
    /// Width of a token, `D`, of the gates of the pooling and of the head.
    pub width: usize,
    /// Heads of the co-attention; 1 in MOTCat.
    pub heads: usize,
    /// Weight of the entropy of the transport, in MOTCat.
    pub ot_reg: f64,
    /// Weight of its marginals.
    pub ot_tau: f64,
    /// Whether gradients go through the plan of MOTCat. Ours do; published they do not, so that no gene token learns which patches
    /// it should have.
    pub ot_gradient: bool,
    /// Transformer layers of each branch.
    pub encoder_layers: usize,
    /// Heads of their self-attention.
    pub encoder_heads: usize,
    /// Width of their hidden layer.
    pub encoder_hidden: usize,
    /// How the modalities are joined: `"concat"` or `"bilinear"`; published are both, the former for the results of the paper.
    pub join: Join,
    /// Alpha dropout inside the gene nets.
    pub gene_dropout: f64,
    /// Dropout of patch tokens, in the transformer layers, behind the pooling and in a bilinear join.
    pub dropout: f64,
    /// The token mask and gain of each modality; off on both unless they are given.
    pub sdir: SdirConfig,
    /// The mixing of token statistics between the modalities; off unless it is given.
    #[serde(with = "super::off")]
    pub cade: Option<Cade>,
    /// The mixing of channel statistics of patch tokens between the patients of a batch (Zhou et al. 2021); off unless it is
    /// given. A table starts from the published settings: alpha 0.1, a batch is mixed with probability 1/2. Published it
    /// follows on early layers of a convolutional network; here it is the unimodal ancestor of CADE, for comparison.
    #[serde(with = "super::off")]
    pub mixstyle: Option<MixStyle>,
}

impl Default for McatConfig {
    fn default() -> McatConfig {
        McatConfig {
            width: 256,
            heads: 1,
            ot_reg: Transport::default().reg,
            ot_tau: Transport::default().tau,
            ot_gradient: true,
            encoder_layers: 2,
            encoder_heads: 8,
            encoder_hidden: 512,
            join: Join::Concat,
            gene_dropout: 0.25,
            dropout: 0.25,
            sdir: SdirConfig::OFF,
            cade: None,
            mixstyle: None,
        }
    }
}

impl McatConfig {
    /// Refuses settings outside their range.
    ///
    /// # Errors
    /// [`Error::Setting`] names the first that is.
    pub fn check(&self) -> Result<()> {
        for (name, size) in [("model.width", self.width), ("model.encoder_hidden", self.encoder_hidden)] {
            super::size(name, size)?;
        }
        if self.encoder_layers > 64 {
            let value = self.encoder_layers.to_string();
            return Err(Error::Setting { name: "model.encoder_layers", want: "at most 64", value });
        }
        for (name, heads) in [("model.heads", self.heads), ("model.encoder_heads", self.encoder_heads)] {
            super::heads(name, heads, self.width, super::OF_WIDTH)?;
        }
        if self.join == Join::Bilinear && !self.width.is_multiple_of(SHARE) {
            let want = "a multiple of 8 with model.join = \"bilinear\", which multiplies an eighth of it";
            return Err(Error::Setting { name: "model.width", want, value: self.width.to_string() });
        }
        for (name, p) in [("model.gene_dropout", self.gene_dropout), ("model.dropout", self.dropout)] {
            super::probability(name, p)?;
        }
        self.transport().check()?;
        self.sdir.check()?;
        self.cade.as_ref().map_or(Ok(()), Cade::check)?;
        self.mixstyle.as_ref().map_or(Ok(()), MixStyle::check)
    }

    fn transport(&self) -> Transport {
        let (reg, tau, differentiated) = (self.ot_reg, self.ot_tau, self.ot_gradient);
        Transport { reg, tau, differentiated, ..Transport::default() }
    }
}

/// A bilinear join has one of so many numbers of each modality.
const SHARE: usize = 8;

/// The numbers of one modality for a bilinear join.
#[derive(Clone, Debug)]
struct Gate<T> {
    name: &'static str,
    /// Of its own row, and of those of both side by side.
    own: Dense<T>,
    gate: Dense<T>,
    out: Dense<T>,
}

impl<T: Real> Gate<T> {
    fn new(b: &mut Builder<T>, name: &'static str, d: usize) -> Gate<T> {
        let e = d / SHARE;
        b.scope(name, |b| Gate {
            name,
            own: Dense::new(b, "own", d, e, Activation::Relu),
            gate: Dense::new(b, "gate", 2 * d, e, Activation::Sigmoid),
            out: Dense::new(b, "out", e, e, Activation::Relu),
        })
    }

    fn forward(&self, pass: &Pass<'_, T>, row: &Var<T>, both: &Var<T>) -> Result<Var<T>> {
        let (own, gate) = (self.own.forward(pass, row)?, self.gate.forward(pass, both)?);
        let (shape, single) = (own.shape().to_vec(), [own.value().len(), 1]);
        let [own, gate] = [own, gate].map(|x| pass.tape.reshape(&x, &single));
        // Of single elements the outer product is their product.
        let gated = Outer { ones: false }.forward(pass.tape, &own?, &gate?)?;
        self.out.forward(pass, &pass.tape.reshape(&gated, &shape)?)
    }
}

/// How patches come to gene tokens.
#[derive(Clone, Debug)]
enum CoAttention<T> {
    /// Each gene token attends to them: its queries, their keys and values, and the layer behind.
    Attention(Box<[Dense<T>; 3]>),
    Transport(Transport),
}

impl<T: Real> CoAttention<T> {
    /// Rows of the gene tokens, and how much each patch counts if the pass asks. Patch tokens are let go of as soon as nothing
    /// needs them: without a record nothing else holds them.
    fn forward(
        &self,
        pass: &Pass<'_, T>,
        heads: usize,
        genes: &Tokens<T>,
        patches: Tokens<T>,
    ) -> Result<(Var<T>, Option<Tensor<T>>)> {
        let Tokens { rows, bags } = patches;
        match self {
            CoAttention::Attention(layers) => {
                let [queries, keys, out] = &**layers;
                let (queries, keys) = (queries.forward(pass, &genes.rows)?, keys.forward(pass, &rows)?);
                drop(rows);
                let (attention, genes, patches) = (PathwayAttention { heads }, (&queries, &genes.bags), (&keys, &bags));
                let (guided, weights) = if pass.weighs() {
                    let (guided, weights) = attention.guided_weighed(pass.tape, genes, patches)?;
                    (guided, Some(weights))
                } else {
                    (attention.guided(pass.tape, genes, patches)?, None)
                };
                Ok((out.forward(pass, &guided)?, weights))
            }
            CoAttention::Transport(transport) => {
                let (guided, plan) = transport.forward(pass.tape, (&genes.rows, &genes.bags), (&rows, &bags))?;
                let weights = pass.weighs().then(|| Transport::weights(pass.tape.device(), &plan, &bags));
                Ok((guided, weights.transpose()?))
            }
        }
    }
}

/// What becomes of the tokens of one side: transformer layers, pooling and a layer.
#[derive(Clone, Debug)]
struct Branch<T> {
    name: &'static str,
    encoder: Encoder<T>,
    pool: AttentionPool,
    last: Dense<T>,
}

impl<T: Real> Branch<T> {
    fn new(b: &mut Builder<T>, name: &'static str, c: &McatConfig) -> Branch<T> {
        let size = EncoderSize {
            layers: c.encoder_layers,
            width: c.width,
            heads: c.encoder_heads,
            hidden: c.encoder_hidden,
            dropout: c.dropout,
        };
        let encoder = Encoder::new(b, "encoder", size);
        let pool = AttentionPool::new(b, "pool", c.width, c.width, 1, true);
        Branch { name, encoder, pool, last: Dense::new(b, "last", c.width, c.width, Activation::Relu) }
    }
}

/// The layers of MCAT or MOTCat.
#[derive(Clone, Debug)]
pub struct Mcat<T> {
    config: McatConfig,
    genes: GeneNets,
    project: Dense<T>,
    attention: CoAttention<T>,
    /// Of the patches as the genes see them, and of the genes.
    branches: [Branch<T>; 2],
    /// For a bilinear join.
    gates: Option<Box<[Gate<T>; 2]>>,
    hidden: [Dense<T>; 2],
    risk: Dense<T>,
}

impl<T: Real> Mcat<T> {
    pub(super) fn new(
        b: &mut Builder<T>,
        config: &McatConfig,
        shape: &InputShape<T>,
        outputs: usize,
        transport: bool,
    ) -> Result<Mcat<T>> {
        let (c, d) = (config.clone(), config.width);
        if transport && c.heads != 1 {
            let want = "1 in motcat, whose plan has no heads";
            return Err(Error::Setting { name: "model.heads", want, value: c.heads.to_string() });
        }
        let (widths, patches) = shape.both(if transport { "motcat" } else { "mcat" })?;
        let linear = Activation::Identity;
        let genes = b.scope("genes", |b| GeneNets::new(b, widths.clone(), d, d, c.gene_dropout));
        let project = b.scope("patches", |b| patches.project(b, d, Activation::Relu));
        let attention = if transport {
            CoAttention::Transport(c.transport())
        } else {
            let layers = [("queries", d), ("keys", 2 * d), ("out", d)];
            let layer = |b: &mut Builder<T>| layers.map(|(name, outputs)| Dense::new(b, name, d, outputs, linear));
            CoAttention::Attention(Box::new(b.scope("attention", layer)))
        };
        let branches = ["patches", "genes"].map(|name| b.scope(name, |b| Branch::new(b, name, &c)));
        let (gates, hidden, risk) = b.scope("head", |b| {
            let bilinear = c.join == Join::Bilinear;
            let gates = bilinear.then(|| Box::new(["patches", "genes"].map(|name| Gate::new(b, name, d))));
            let joined = if bilinear { (d / SHARE + 1).pow(2) } else { 2 * d };
            let hidden =
                [("first", joined), ("second", d)].map(|(name, i)| Dense::new(b, name, i, d, Activation::Relu));
            (gates, hidden, super::risk_layer(b, d, outputs))
        });
        Ok(Mcat { config: c, genes, project, attention, branches, gates, hidden, risk })
    }

    pub(super) fn forward(&self, pass: &Pass<'_, T>, batch: &Batch<T>) -> Result<Output<T>> {
        let c = &self.config;
        // The patients of all draws of the pass are the same.
        let patients = pass.draws("").map(|d| BagDraws::new(d, batch.patients.as_slice()));
        let draws = |purpose: &str| pass.draws(purpose).zip(patients.as_ref()).map(|(d, p)| p.of_purpose(d));
        let dropped = |x: &Var<T>, bags: &Ragged, name: &str| {
            let dropout = Dropout { p: c.dropout, kind: DropoutKind::Plain };
            dropout.forward(pass.tape, x, bags, draws(name).as_ref())
        };
        let genes = batch.genes.as_ref().map(|genes| Tokens::of_genes(pass, &self.genes, genes, patients.as_ref()));
        let genes = genes.transpose()?;
        let patches = match &batch.patches {
            Some(patches) => {
                let rows = self.project.forward(pass, &patches.features)?;
                let rows = dropped(&rows, &patches.bags, "patches.dropout")?;
                Some(Tokens { rows, bags: patches.bags.clone() })
            }
            None => None,
        };
        let plugins = Plugins { sdir: &c.sdir, cade: c.cade.as_ref(), mixstyle: c.mixstyle.as_ref() };
        let (genes, patches) = plugins.apply(pass, genes, patches, &draws)?;
        let genes = genes.map_or_else(|| Tokens::none(pass, batch.size(), c.width), Ok)?;
        let patches = patches.map_or_else(|| Tokens::none(pass, batch.size(), c.width), Ok)?;
        let (guided, of_patches) = self.attention.forward(pass, c.heads, &genes, patches)?;
        let bags = genes.bags;
        let each = Ragged::uniform(batch.size(), 1);
        let (mut pooled, mut weights) = (Vec::new(), None);
        for (branch, tokens) in self.branches.iter().zip([&guided, &genes.rows]) {
            let x = branch.encoder.forward(pass, tokens, &bags, patients.as_ref())?;
            let (x, attention) = branch.pool.forward(pass, &x, &bags)?;
            let x = branch.last.forward(pass, &pass.tape.reshape(&x, &[batch.size(), c.width])?)?;
            pooled.push(dropped(&x, &each, &format!("{}.last.dropout", branch.name))?);
            weights = Some(attention.value().clone());
        }
        let mut x = Concat.forward(pass.tape, &pooled.iter().collect::<Vec<_>>())?;
        if let Some(gates) = &self.gates {
            let mut gated = Vec::new();
            for (gate, row) in gates.iter().zip(&pooled) {
                gated.push(dropped(&gate.forward(pass, row, &x)?, &each, &format!("head.{}.dropout", gate.name))?);
            }
            x = dropped(&Outer { ones: true }.forward(pass.tape, &gated[0], &gated[1])?, &each, "head.joined.dropout")?;
        }
        for (i, hidden) in self.hidden.iter().enumerate() {
            x = hidden.forward(pass, &x)?;
            if self.gates.is_some() {
                x = dropped(&x, &each, &format!("head.hidden{i}.dropout"))?;
            }
        }
        let attention = Attention { patches: of_patches, genes: weights };
        Ok(Output { prediction: self.risk.forward(pass, &x)?, attention })
    }
}
