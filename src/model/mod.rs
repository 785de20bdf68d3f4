//! Prognosis models: composed of layers, no kernels here.
//!
//! A model is one file with a `*Config` (its settings, in the run file under `[model]`), a struct of layers built from
//! it, and `forward`. To add one: write that file, add a variant to [`ModelConfig`] and to [`Model`], and the
//! compiler names the few places that match on them.

mod abmil;
mod batch;
mod cohort_source;
mod feed;
mod footprint;
mod fusion;
mod mcat;
mod off;
mod plugins;
mod predictor;
pub mod published;
mod recipe;
mod snn;
mod source;
mod survpath;
mod transmil;

use serde::{Deserialize, Serialize};

pub use abmil::{Abmil, AbmilConfig, Pool};
pub use batch::{Batch, Genes, Patches};
pub use cohort_source::CohortSource;
pub use footprint::{BatchSize, Footprint};
pub use fusion::{Fusion, FusionConfig};
pub use mcat::{Join, Mcat, McatConfig};
pub use plugins::SdirConfig;
pub use predictor::{Attended, Predictions, Predictor};
pub use recipe::{GeneInputs, PatchInputs, Recipe};
pub use snn::{Snn, SnnConfig};
pub use source::{Batching, Source, forward, predict, predict_all};
pub use survpath::{SurvPath, SurvPathConfig};
pub use transmil::{TransMil, TransMilConfig};

use crate::data::Modality;
use crate::element::Real;
use crate::error::{Error, Result};
use crate::nn::{Builder, Dense, Params, Pass};
use crate::ops::{Activation, Cade, MixStyle};
use crate::shape::Ragged;
use crate::tape::Var;
use crate::tensor::Tensor;

/// Which model, with its settings; `name` tells them apart in a run file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case")]
pub enum ModelConfig {
    /// Gene and patch tokens, rebalanced, entangled, pooled and joined.
    Fusion(FusionConfig),
    /// Gene tokens that attend to all tokens, patch tokens that attend to gene tokens (Jaume et al. 2024).
    #[serde(rename = "survpath")]
    SurvPath(SurvPathConfig),
    /// Gene tokens that guide what is taken from the patches (Chen et al. 2021).
    Mcat(McatConfig),
    /// The same with optimal transport in place of attention (Xu and Chen 2023).
    Motcat(McatConfig),
    /// Attention MIL on slides alone (Ilse et al. 2018), or the mean or maximum of the patches.
    Abmil(AbmilConfig),
    /// All patches of a slide attend to each other by way of landmarks (Shao et al. 2021).
    #[serde(rename = "transmil")]
    TransMil(TransMilConfig),
    /// A self-normalising network on genes alone (Klambauer et al. 2017).
    Snn(SnnConfig),
}

impl From<FusionConfig> for ModelConfig {
    fn from(config: FusionConfig) -> ModelConfig {
        ModelConfig::Fusion(config)
    }
}

impl From<SurvPathConfig> for ModelConfig {
    fn from(config: SurvPathConfig) -> ModelConfig {
        ModelConfig::SurvPath(config)
    }
}

impl From<McatConfig> for ModelConfig {
    fn from(config: McatConfig) -> ModelConfig {
        ModelConfig::Mcat(config)
    }
}

impl From<AbmilConfig> for ModelConfig {
    fn from(config: AbmilConfig) -> ModelConfig {
        ModelConfig::Abmil(config)
    }
}

impl From<TransMilConfig> for ModelConfig {
    fn from(config: TransMilConfig) -> ModelConfig {
        ModelConfig::TransMil(config)
    }
}

impl From<SnnConfig> for ModelConfig {
    fn from(config: SnnConfig) -> ModelConfig {
        ModelConfig::Snn(config)
    }
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
    /// [`Error::Setting`] names the first that is.
    pub fn check(&self) -> Result<()> {
        match self {
            ModelConfig::Fusion(config) => config.check(),
            ModelConfig::SurvPath(config) => config.check(),
            ModelConfig::Mcat(config) | ModelConfig::Motcat(config) => config.check(),
            ModelConfig::Abmil(config) => config.check(),
            ModelConfig::TransMil(config) => config.check(),
            ModelConfig::Snn(config) => config.check(),
        }
    }

    /// The name, as in a run file.
    pub fn name(&self) -> &'static str {
        match self {
            ModelConfig::Fusion(_) => "fusion",
            ModelConfig::SurvPath(_) => "survpath",
            ModelConfig::Mcat(_) => "mcat",
            ModelConfig::Motcat(_) => "motcat",
            ModelConfig::Abmil(_) => "abmil",
            ModelConfig::TransMil(_) => "transmil",
            ModelConfig::Snn(_) => "snn",
        }
    }

    /// The modalities that it sees, where there are any.
    pub fn sees(&self) -> &'static [Modality] {
        match self {
            ModelConfig::Fusion(_) => &[Modality::Genes, Modality::Patches],
            _ => self.needs(),
        }
    }

    /// The modalities that it cannot do without. Patients may lack one of them all the same.
    pub fn needs(&self) -> &'static [Modality] {
        match self {
            ModelConfig::Fusion(_) => &[],
            ModelConfig::SurvPath(_) | ModelConfig::Mcat(_) | ModelConfig::Motcat(_) => {
                &[Modality::Genes, Modality::Patches]
            }
            ModelConfig::Abmil(_) | ModelConfig::TransMil(_) => &[Modality::Patches],
            ModelConfig::Snn(_) => &[Modality::Genes],
        }
    }

    /// The settings of SDIR and CADE, of a model in which two sets of tokens meet; `None` for one that sees one modality.
    pub fn plugins_mut(&mut self) -> Option<(&mut SdirConfig, &mut Option<Cade>)> {
        match self {
            ModelConfig::Fusion(config) => Some((&mut config.sdir, &mut config.cade)),
            ModelConfig::SurvPath(config) => Some((&mut config.sdir, &mut config.cade)),
            ModelConfig::Mcat(config) | ModelConfig::Motcat(config) => Some((&mut config.sdir, &mut config.cade)),
            ModelConfig::Abmil(_) | ModelConfig::TransMil(_) | ModelConfig::Snn(_) => None,
        }
    }

    /// The setting of MixStyle, of a model that has patch tokens; `None` for one that has none.
    pub fn mixstyle_mut(&mut self) -> Option<&mut Option<MixStyle>> {
        match self {
            ModelConfig::Fusion(config) => Some(&mut config.mixstyle),
            ModelConfig::SurvPath(config) => Some(&mut config.mixstyle),
            ModelConfig::Mcat(config) | ModelConfig::Motcat(config) => Some(&mut config.mixstyle),
            ModelConfig::Abmil(config) => Some(&mut config.mixstyle),
            ModelConfig::TransMil(config) => Some(&mut config.mixstyle),
            ModelConfig::Snn(_) => None,
        }
    }

    /// Whether what a patient is trained with depends on who else is in the batch.
    pub fn mixes_patients(&self) -> bool {
        match self {
            ModelConfig::Fusion(config) => config.mixstyle.is_some(),
            ModelConfig::SurvPath(config) => config.mixstyle.is_some(),
            ModelConfig::Mcat(config) | ModelConfig::Motcat(config) => config.mixstyle.is_some(),
            ModelConfig::Abmil(config) => config.mixstyle.is_some(),
            ModelConfig::TransMil(config) => config.mixstyle.is_some(),
            ModelConfig::Snn(_) => false,
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

impl<T> InputShape<T> {
    /// The patches for a model of this name that cannot do without.
    fn slides(&self, model: &str) -> Result<&PatchShape<T>> {
        let want = "\"snn\" or \"fusion\" where there are no patches";
        let refused = || Error::Setting { name: "model.name", want, value: model.into() };
        self.patches.as_ref().ok_or_else(refused)
    }

    /// The genes of each signature and the patches for a model of this name that cannot do without either.
    fn both(&self, model: &str) -> Result<(&Ragged, &PatchShape<T>)> {
        let want = "\"fusion\" where there is one modality";
        let refused = || Error::Setting { name: "model.name", want, value: model.into() };
        self.genes.as_ref().zip(self.patches.as_ref()).ok_or_else(refused)
    }
}

/// The patch features that a model is built for.
#[derive(Clone, Debug)]
pub struct PatchShape<T> {
    /// Features of a patch, `L`.
    pub width: usize,
    /// Mean and deviation of each feature over the training patches, `[L]` each, if they are standardised.
    pub standard: Option<(Tensor<T>, Tensor<T>)>,
}

impl<T: Real> PatchShape<T> {
    /// The layer `project` that makes tokens of patches, standardised if these are.
    fn project(&self, b: &mut Builder<T>, width: usize, activation: Activation) -> Dense<T> {
        let project = Dense::new(b, "project", self.width, width, activation);
        match &self.standard {
            Some((mean, deviation)) => project.standardized(mean.clone(), deviation.clone()),
            None => project,
        }
    }
}

/// The last layer: `risk` for one log risk, which needs no bias, `hazards` for those of time bins.
fn risk_layer<T: Real>(b: &mut Builder<T>, inputs: usize, outputs: usize) -> Dense<T> {
    match outputs {
        1 => Dense::without_bias(b, "risk", inputs, 1),
        bins => Dense::new(b, "hazards", inputs, bins, Activation::Identity),
    }
}

/// Refuses the width of a layer, or a number of heads, that nothing can be built of.
fn size(name: &'static str, size: usize) -> Result<()> {
    if (1..=65_536).contains(&size) {
        return Ok(());
    }
    Err(Error::Setting { name, want: "between 1 and 65536", value: size.to_string() })
}

/// Refuses heads that do not divide a width, or have more features than an attention takes; `want` says which width.
fn heads(name: &'static str, heads: usize, width: usize, want: &'static str) -> Result<()> {
    size(name, heads)?;
    if width.is_multiple_of(heads) && width / heads <= 256 {
        return Ok(());
    }
    Err(Error::Setting { name, want, value: heads.to_string() })
}

/// What heads of the width of a token must be.
const OF_WIDTH: &str = "a divisor of model.width, with at most 256 features a head";

/// Refuses what is no probability of dropping something.
fn probability(name: &'static str, p: f64) -> Result<()> {
    if (0.0..1.0).contains(&p) {
        return Ok(());
    }
    Err(Error::Setting { name, want: "at least 0 and below 1", value: p.to_string() })
}

/// What a model gives for the patients of a batch.
#[derive(Clone, Debug)]
pub struct Output<T> {
    /// `[B, K]`: one log risk, or the logits of `K` hazards.
    pub prediction: Var<T>,
    /// Attention of each patch, `[N, H]`, and of each gene token, `[P S, H]`, where there are any. Models whose gene tokens attend
    /// to patches tell that of the patches if the pass [asks](Pass::weighing).
    pub attention: Attention<T>,
}

/// Attention weights: they sum to one over each patient and head, but for two exceptions.
#[derive(Clone, Debug, Default)]
pub struct Attention<T> {
    /// Of each patch, `[N, H]`. In `survpath` the gene tokens attend to themselves, too, so that patches sum to less; and where gene
    /// tokens say what is looked at, as there and in `mcat` and `motcat`, the patches of a patient without expression sum to 0.
    pub patches: Option<Tensor<T>>,
    /// Of each gene token, `[P S, H]`.
    pub genes: Option<Tensor<T>>,
}

/// A model that was built: its layers know which parameters are theirs.
#[derive(Clone, Debug)]
pub enum Model<T> {
    /// See [`Fusion`].
    Fusion(Box<Fusion<T>>),
    /// See [`SurvPath`].
    SurvPath(Box<SurvPath<T>>),
    /// See [`Mcat`].
    Mcat(Box<Mcat<T>>),
    /// See [`Abmil`].
    Abmil(Box<Abmil<T>>),
    /// See [`TransMil`].
    TransMil(Box<TransMil<T>>),
    /// See [`Snn`].
    Snn(Snn<T>),
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
            ModelConfig::Fusion(config) => Model::Fusion(Box::new(Fusion::new(&mut builder, config, shape, outputs))),
            ModelConfig::SurvPath(config) => {
                Model::SurvPath(Box::new(SurvPath::new(&mut builder, config, shape, outputs)?))
            }
            ModelConfig::Mcat(c) => Model::Mcat(Box::new(Mcat::new(&mut builder, c, shape, outputs, false)?)),
            ModelConfig::Motcat(c) => Model::Mcat(Box::new(Mcat::new(&mut builder, c, shape, outputs, true)?)),
            ModelConfig::Abmil(config) => Model::Abmil(Box::new(Abmil::new(&mut builder, config, shape, outputs)?)),
            ModelConfig::TransMil(c) => Model::TransMil(Box::new(TransMil::new(&mut builder, c, shape, outputs)?)),
            ModelConfig::Snn(config) => Model::Snn(Snn::new(&mut builder, config, shape, outputs)?),
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
            Model::SurvPath(model) => model.forward(pass, batch),
            Model::Mcat(model) => model.forward(pass, batch),
            Model::Abmil(model) => model.forward(pass, batch),
            Model::TransMil(model) => model.forward(pass, batch),
            Model::Snn(model) => model.forward(pass, batch),
        }
    }
}
