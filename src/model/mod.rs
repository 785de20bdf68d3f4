//! Prognosis models: composed of layers, no kernels here.
//!
//! A model is one file with a `*Config` (its settings, in the run file under `[model]`), a struct of layers built from
//! it, and `forward`. To add one: write that file, add a variant to [`ModelConfig`] and to [`Model`], and the
//! compiler names the few places that match on them.

mod batch;
mod cohort_source;
mod feed;
mod footprint;
mod fusion;
mod off;
mod predictor;
mod recipe;
mod source;

use serde::{Deserialize, Serialize};

pub use batch::{Batch, Genes, Patches};
pub use cohort_source::CohortSource;
pub use footprint::{BatchSize, Footprint};
pub use fusion::{Fusion, FusionConfig, SdirConfig};
pub use predictor::{Attended, Predictions, Predictor};
pub use recipe::{GeneInputs, PatchInputs, Recipe};
pub use source::{Batching, Source, forward, predict, predict_all};

use crate::element::Real;
use crate::error::Result;
use crate::nn::{Builder, Params, Pass};
use crate::shape::Ragged;
use crate::tape::Var;
use crate::tensor::Tensor;

/// Which model, with its settings; `name` tells them apart in a run file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case")]
pub enum ModelConfig {
    /// Gene and patch tokens, rebalanced, entangled, pooled and joined.
    Fusion(FusionConfig),
}

impl Default for ModelConfig {
    fn default() -> ModelConfig {
        ModelConfig::Fusion(FusionConfig::default())
    }
}

impl ModelConfig {
    /// Refuses settings outside their range.
    ///
    /// # Errors
    /// [`Error::Setting`](crate::Error::Setting) names the first that is.
    pub fn check(&self) -> Result<()> {
        match self {
            ModelConfig::Fusion(config) => config.check(),
        }
    }
}

/// The inputs that a model is built for.
#[derive(Clone, Debug)]
pub struct InputShape<T> {
    /// The genes of each signature as bags; `None` without gene expression.
    pub genes: Option<Ragged>,
    /// Patch features; `None` without slides.
    pub patches: Option<PatchShape<T>>,
}

/// The patch features that a model is built for.
#[derive(Clone, Debug)]
pub struct PatchShape<T> {
    /// Features of a patch, `L`.
    pub width: usize,
    /// Mean and deviation of each feature over the training patches, `[L]` each, if they are standardised.
    pub standard: Option<(Tensor<T>, Tensor<T>)>,
}

/// What a model gives for the patients of a batch.
#[derive(Clone, Debug)]
pub struct Output<T> {
    /// `[B, K]`: one log risk, or the logits of `K` hazards.
    pub prediction: Var<T>,
    /// Attention of each patch, `[N, H]`, and of each gene token, `[P S, H]`, where there are any.
    pub attention: Attention<T>,
}

/// Attention weights: they sum to one over each patient and head.
#[derive(Clone, Debug, Default)]
pub struct Attention<T> {
    /// Of each patch, `[N, H]`.
    pub patches: Option<Tensor<T>>,
    /// Of each gene token, `[P S, H]`.
    pub genes: Option<Tensor<T>>,
}

/// A model that was built: its layers know which parameters are theirs.
#[derive(Clone, Debug)]
pub enum Model<T> {
    /// See [`Fusion`].
    Fusion(Fusion<T>),
}

impl<T: Real> Model<T> {
    /// Builds the layers and, through the builder, draws or reads their parameters; `outputs` is 1 for a log risk, the
    /// number of bins for hazards.
    ///
    /// # Errors
    /// Settings out of range; what [`Builder::finish`] refuses.
    pub fn build(
        config: &ModelConfig,
        shape: &InputShape<T>,
        outputs: usize,
        mut builder: Builder<T>,
    ) -> Result<(Model<T>, Params<T>)> {
        config.check()?;
        let model = match config {
            ModelConfig::Fusion(config) => Model::Fusion(Fusion::new(&mut builder, config, shape, outputs)),
        };
        Ok((model, builder.finish()?))
    }

    /// The prediction for a batch.
    ///
    /// # Errors
    /// Inputs that do not fit what the model was built for.
    pub fn forward(&self, pass: &Pass<'_, T>, batch: &Batch<T>) -> Result<Output<T>> {
        match self {
            Model::Fusion(model) => model.forward(pass, batch),
        }
    }
}
