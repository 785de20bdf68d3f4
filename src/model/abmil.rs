//! Attention MIL on slides alone (Ilse et al. 2018), and as its floors the mean and the maximum of all patches.
//!
//! ```text
//! patches [N, L]
//!   | standardise, linear, ReLU, dropout
//! patch tokens [N, D]
//!   | MixStyle: channel statistics of other patients, if it is switched on
//!   | gated attention, attention without the gate, the mean, or the maximum of each channel
//! [B, D]
//!   | linear, ReLU, dropout; head: linear
//! log risk [B, 1] or hazard logits [B, K]
//! ```
//!
//! The defaults are the sizes of the ABMIL in the SurvPath repository. With `L = 1024` and four bins it has 461,060 parameters,
//! one less than published: a bias of the scores moves all of them together and changes nothing.
//!
//! # Where it deviates from the published code
//! - Bags are ragged, several patients a batch. A patient without slides has an empty bag, whose pooled row is zero.
//! - Patches are standardised unless `inputs.standardize_patches = false`.
//! - No dropout inside the two branches of the gate.
//! - For a log risk the last layer has no bias.

use serde::{Deserialize, Serialize};

use super::plugins::{Tokens, mix};
use super::{Attention, Batch, InputShape, Output};
use crate::element::Real;
use crate::error::Result;
use crate::nn::{AttentionPool, Builder, Dense, Pass};
use crate::ops::{Activation, BagDraws, Dropout, DropoutKind, MixStyle, SegmentMax, SegmentMean};
use crate::shape::Ragged;
use crate::tape::Var;

/// How the patch tokens of a patient become one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pool {
    /// Gated attention.
    #[default]
    Gated,
    /// Attention without the gate.
    Plain,
    /// The mean of all tokens.
    Mean,
    /// The largest element of each channel over all tokens.
    Max,
}

/// Sizes and settings of attention MIL.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AbmilConfig {
    /// How the tokens of a patient are pooled: `"gated"`, `"plain"`, `"mean"` or `"max"`.
    pub pool: Pool,
    /// Width of a token, `D`, and of the layer behind the pooling.
    pub width: usize,
    /// Width of the attention's hidden layer.
    pub attention_width: usize,
    /// Dropout of the elements of patch tokens and before the last layer.
    pub dropout: f64,
    /// The mixing of channel statistics of patch tokens between the patients of a batch (Zhou et al. 2021); off unless it is
    /// given. A table starts from the published settings: alpha 0.1, a batch is mixed with probability 1/2. Published it
    /// follows on early layers of a convolutional network; here it is the unimodal ancestor of CADE, for comparison.
    #[serde(with = "super::off")]
    pub mixstyle: Option<MixStyle>,
}

impl Default for AbmilConfig {
    fn default() -> AbmilConfig {
        AbmilConfig { pool: Pool::Gated, width: 256, attention_width: 256, dropout: 0.25, mixstyle: None }
    }
}

impl AbmilConfig {
    /// Whether tokens are weighed by an attention, of which there are weights to look at.
    pub(super) fn attends(&self) -> bool {
        matches!(self.pool, Pool::Gated | Pool::Plain)
    }

    /// Refuses settings outside their range.
    ///
    /// # Errors
    /// [`Error::Setting`](crate::Error::Setting) names the first that is.
    pub fn check(&self) -> Result<()> {
        for (name, size) in [("model.width", self.width), ("model.attention_width", self.attention_width)] {
            super::size(name, size)?;
        }
        super::probability("model.dropout", self.dropout)?;
        self.mixstyle.as_ref().map_or(Ok(()), MixStyle::check)
    }
}

/// The layers of attention MIL.
#[derive(Clone, Debug)]
pub struct Abmil<T> {
    config: AbmilConfig,
    project: Dense<T>,
    pool: Option<AttentionPool>,
    hidden: Dense<T>,
    risk: Dense<T>,
}

impl<T: Real> Abmil<T> {
    pub(super) fn new(
        b: &mut Builder<T>,
        config: &AbmilConfig,
        shape: &InputShape<T>,
        outputs: usize,
    ) -> Result<Abmil<T>> {
        let (c, d) = (config.clone(), config.width);
        let patches = shape.slides("abmil")?;
        let (project, pool) = b.scope("patches", |b| {
            let project = patches.project(b, d, Activation::Relu);
            let pool = |b: &mut Builder<T>, gated| AttentionPool::new(b, "pool", d, c.attention_width, 1, gated);
            let pool = match c.pool {
                Pool::Mean | Pool::Max => None,
                attention => Some(pool(b, attention == Pool::Gated)),
            };
            (project, pool)
        });
        let (hidden, risk) =
            b.scope("head", |b| (Dense::new(b, "hidden", d, d, Activation::Relu), super::risk_layer(b, d, outputs)));
        Ok(Abmil { config: c, project, pool, hidden, risk })
    }

    pub(super) fn forward(&self, pass: &Pass<'_, T>, batch: &Batch<T>) -> Result<Output<T>> {
        let c = &self.config;
        let patients = pass.draws("").map(|d| BagDraws::new(d, batch.patients.as_slice()));
        let draws = |purpose: &str| pass.draws(purpose).zip(patients.as_ref()).map(|(d, p)| p.of_purpose(d));
        let drop = |x: &Var<T>, bags: &Ragged, name: &str| {
            let dropout = Dropout { p: c.dropout, kind: DropoutKind::Plain };
            dropout.forward(pass.tape, x, bags, draws(name).as_ref())
        };
        let mut weights = None;
        let pooled = match &batch.patches {
            None => Var::constant(pass.tape.device().zeros(&[batch.size(), c.width])?),
            Some(patches) => {
                let bags = &patches.bags;
                let rows = drop(&self.project.forward(pass, &patches.features)?, bags, "patches.dropout")?;
                let tokens = mix(pass, c.mixstyle.as_ref(), Tokens { rows, bags: bags.clone() }, &draws)?.rows;
                match &self.pool {
                    None if c.pool == Pool::Max => SegmentMax.forward(pass.tape, &tokens, bags)?,
                    None => SegmentMean.forward(pass.tape, &tokens, bags)?,
                    Some(pool) => {
                        let (pooled, attention) = pool.forward(pass, &tokens, bags)?;
                        weights = Some(attention.value().clone());
                        pass.tape.reshape(&pooled, &[batch.size(), c.width])?
                    }
                }
            }
        };
        let each = Ragged::uniform(batch.size(), 1);
        let x = drop(&self.hidden.forward(pass, &pooled)?, &each, "head.dropout")?;
        let attention = Attention { patches: weights, genes: None };
        Ok(Output { prediction: self.risk.forward(pass, &x)?, attention })
    }
}
