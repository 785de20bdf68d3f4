//! SurvPath: gene tokens that attend to all tokens, patch tokens that attend to gene tokens (Jaume et al. 2024).
//!
//! ```text
//! expression [P, sum of genes]           patches [N, L]
//!   | one small self-normalising net       | standardise, linear
//!   |   a signature (ELU, alpha dropout)   |
//! gene tokens [P S, D]                   patch tokens [N, D]
//!   |                                      | MixStyle: channel statistics of other patients
//!   |---- SDIR: token mask, gain ----------|      if they are switched on
//!   |---- CADE: token statistics mixed ----|
//!   |---- one layer norm for both ---------|
//!   |---- queries, keys, values [., 3 E], without bias
//!   |     gene tokens attend to all tokens, patch tokens to the gene tokens
//! [P S, E]                               [N, E]
//!   |---- layer norm, linear, GELU, dropout, linear, layer norm; the same for both
//! mean of the gene tokens                mean of the patch tokens
//!   |                                      |
//! [ genes | patches ]  [B, 2 E]
//!   | head: linear, ReLU, linear
//! log risk [B, 1] or hazard logits [B, K]
//! ```
//!
//! As published there is no residual connection and no projection behind the attention, and the width is halved there
//! (`E = D / 2`). With 331 signatures of 9,745 genes in all, `L = 768` and four bins it has 24,702,532 parameters at its default
//! sizes, 98.6 % of them in the gene nets.
//!
//! # Where it deviates from the published code
//! - Bags are ragged. The published training cuts a slide to 4096 patches and pads shorter ones with rows of zeros that take part in
//!   the attention and in the mean; its evaluation does neither. `train.patches_per_patient = 4096` and `train.pad_to = 4096` do
//!   the same, and are off unless they are asked for.
//! - Patches are standardised unless `inputs.standardize_patches = false`.
//! - A patient without slides, or without expression, has an empty bag of it, whose mean is zero.
//! - For a log risk the last layer has no bias.
//!
//! A layer norm follows at once on the plug-ins, as in the published host: it undoes much of what CADE does
//! (`docs/numerics.md`).

use serde::{Deserialize, Serialize};

use super::plugins::{Plugins, SdirConfig, Tokens};
use super::{Attention, Batch, InputShape, Output};
use crate::element::Real;
use crate::error::Result;
use crate::nn::{Builder, Dense, GeneNets, Norm, Pass};
use crate::ops::{Activation, BagDraws, Cade, Concat, Dropout, DropoutKind, MixStyle, PathwayAttention, SegmentMean};

/// Sizes and settings of SurvPath. The defaults are the published ones.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SurvPathConfig {
    /// Width of a token, `D`, and of the hidden layer of each gene net.
    pub width: usize,
    /// Width of the attention and of all that follows, `E`.
    pub attention_width: usize,
    /// Heads that it is divided into.
    pub heads: usize,
    /// Width of the head's hidden layer.
    pub head_hidden: usize,
    /// Alpha dropout inside the gene nets.
    pub gene_dropout: f64,
    /// Dropout inside the feed-forward layers.
    pub feed_forward_dropout: f64,
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

impl Default for SurvPathConfig {
    fn default() -> SurvPathConfig {
        SurvPathConfig {
            width: 256,
            attention_width: 128,
            heads: 1,
            head_hidden: 64,
            gene_dropout: 0.25,
            feed_forward_dropout: 0.1,
            sdir: SdirConfig::OFF,
            cade: None,
            mixstyle: None,
        }
    }
}

impl SurvPathConfig {
    /// Refuses settings outside their range.
    ///
    /// # Errors
    /// [`Error::Setting`](crate::Error::Setting) names the first that is.
    pub fn check(&self) -> Result<()> {
        for (name, size) in [
            ("model.width", self.width),
            ("model.attention_width", self.attention_width),
            ("model.head_hidden", self.head_hidden),
        ] {
            super::size(name, size)?;
        }
        let want = "a divisor of model.attention_width, with at most 256 features a head";
        super::heads("model.heads", self.heads, self.attention_width, want)?;
        for (name, p) in
            [("model.gene_dropout", self.gene_dropout), ("model.feed_forward_dropout", self.feed_forward_dropout)]
        {
            super::probability(name, p)?;
        }
        self.sdir.check()?;
        self.cade.as_ref().map_or(Ok(()), Cade::check)?;
        self.mixstyle.as_ref().map_or(Ok(()), MixStyle::check)
    }
}

/// The layers of SurvPath.
#[derive(Clone, Debug)]
pub struct SurvPath<T> {
    config: SurvPathConfig,
    genes: GeneNets,
    project: Dense<T>,
    norm: Norm,
    qkv: Dense<T>,
    feed_norm: Norm,
    feed: [Dense<T>; 2],
    last_norm: Norm,
    hidden: Dense<T>,
    risk: Dense<T>,
}

impl<T: Real> SurvPath<T> {
    pub(super) fn new(
        b: &mut Builder<T>,
        config: &SurvPathConfig,
        shape: &InputShape<T>,
        outputs: usize,
    ) -> Result<SurvPath<T>> {
        let c = config.clone();
        let (widths, patches) = shape.both("survpath")?;
        let (d, e) = (c.width, c.attention_width);
        let genes = b.scope("genes", |b| GeneNets::new(b, widths.clone(), d, d, c.gene_dropout));
        let project = b.scope("patches", |b| patches.project(b, d, Activation::Identity));
        let (norm, qkv) = b.scope("attention", |b| (Norm::new(b, "norm", d), Dense::without_bias(b, "qkv", d, 3 * e)));
        let (feed_norm, feed, last_norm) = b.scope("feed_forward", |b| {
            let norm = Norm::new(b, "norm", e);
            let feed = [("first", Activation::Gelu), ("second", Activation::Identity)];
            (norm, feed.map(|(name, activation)| Dense::new(b, name, e, e, activation)), Norm::new(b, "last_norm", e))
        });
        let (hidden, risk) = b.scope("head", |b| {
            let hidden = Dense::new(b, "hidden", 2 * e, c.head_hidden, Activation::Relu);
            (hidden, super::risk_layer(b, c.head_hidden, outputs))
        });
        Ok(SurvPath { config: c, genes, project, norm, qkv, feed_norm, feed, last_norm, hidden, risk })
    }

    pub(super) fn forward(&self, pass: &Pass<'_, T>, batch: &Batch<T>) -> Result<Output<T>> {
        let c = &self.config;
        // The patients of all draws of the pass are the same.
        let patients = pass.draws("").map(|d| BagDraws::new(d, batch.patients.as_slice()));
        let draws = |purpose: &str| pass.draws(purpose).zip(patients.as_ref()).map(|(d, p)| p.of_purpose(d));
        let genes = batch.genes.as_ref().map(|genes| Tokens::of_genes(pass, &self.genes, genes, patients.as_ref()));
        let genes = genes.transpose()?;
        let patches = match &batch.patches {
            Some(patches) => {
                let rows = self.project.forward(pass, &patches.features)?;
                Some(Tokens { rows, bags: patches.bags.clone() })
            }
            None => None,
        };
        let plugins = Plugins { sdir: &c.sdir, cade: c.cade.as_ref(), mixstyle: c.mixstyle.as_ref() };
        let (genes, patches) = plugins.apply(pass, genes, patches, &draws)?;
        let genes = genes.map_or_else(|| Tokens::none(pass, batch.size(), c.width), Ok)?;
        let patches = patches.map_or_else(|| Tokens::none(pass, batch.size(), c.width), Ok)?;
        let bags = [genes.bags.clone(), patches.bags.clone()];
        // Tokens are let go of as soon as they are normalised: without a record nothing else holds them.
        let packed = |tokens: Tokens<T>| self.qkv.forward(pass, &self.norm.forward(pass, &tokens.rows)?);
        let (attended, weights) = {
            let (genes, patches) = (packed(genes)?, packed(patches)?);
            let (genes, patches) = ((&genes, &bags[0]), (&patches, &bags[1]));
            let attention = PathwayAttention { heads: c.heads };
            if pass.weighs() {
                let (attended, weights) = attention.weighed(pass.tape, genes, patches)?;
                (attended, Some(weights))
            } else {
                (attention.forward(pass.tape, genes, patches)?, None)
            }
        };
        let mut means = Vec::new();
        for ((rows, bags), name) in attended.iter().zip(&bags).zip(["genes", "patches"]) {
            let x = self.feed[0].forward(pass, &self.feed_norm.forward(pass, rows)?)?;
            let dropout = Dropout { p: c.feed_forward_dropout, kind: DropoutKind::Plain };
            let x = dropout.forward(pass.tape, &x, bags, draws(&format!("{name}.feed_forward.dropout")).as_ref())?;
            let x = self.last_norm.forward(pass, &self.feed[1].forward(pass, &x)?)?;
            means.push(SegmentMean.forward(pass.tape, &x, bags)?);
        }
        let joined = Concat.forward(pass.tape, &means.iter().collect::<Vec<_>>())?;
        let prediction = self.risk.forward(pass, &self.hidden.forward(pass, &joined)?)?;
        Ok(Output { prediction, attention: Attention { patches: weights, genes: None } })
    }
}
