//! The run file: every setting of a training, with its default. Unknown keys are errors.
//!
//! A run folder holds the resolved file, all defaults written out, so that a run can be repeated from it.

use serde::{Deserialize, Serialize};

use crate::data::{BinRule, MissingGenes, Modality, Scaling};
use crate::device::{Precision, Products};
use crate::error::{Error, Result};
use crate::model::ModelConfig;
use crate::ops::cox::Ties;
use crate::optim::{AdamWConfig, OptimizerConfig, ScheduleConfig};

/// All settings of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RunConfig {
    /// Keys every random number of the run.
    pub seed: u64,
    /// What of the cohort the model sees.
    pub inputs: InputConfig,
    /// The model and its sizes.
    pub model: ModelConfig,
    /// How it is trained.
    pub train: TrainConfig,
}

/// What of the cohort the model sees, and how it is scaled. Whatever is fitted is fitted on the training patients.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct InputConfig {
    /// The modalities to use; all that the source has when empty.
    pub modalities: Vec<Modality>,
    /// How gene expression is scaled.
    pub rna_scaling: Scaling,
    /// What to do about genes of the source that a target has not.
    pub missing_genes: MissingGenes,
    /// Whether patch features are standardised by the mean and deviation of the training patches.
    pub standardize_patches: bool,
}

impl Default for InputConfig {
    fn default() -> InputConfig {
        InputConfig {
            modalities: Vec::new(),
            rna_scaling: Scaling::Zscore,
            missing_genes: MissingGenes::Refuse,
            standardize_patches: true,
        }
    }
}

/// What the model is trained to minimise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    /// The Cox partial likelihood of one log risk a patient.
    #[default]
    Cox,
    /// The discrete-time likelihood of one hazard a time bin.
    Nll,
}

/// Among whom a patient's risk is compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RiskSet {
    /// The patients of the batch; one step a batch.
    #[default]
    Batch,
    /// All training patients, with the memory of one batch: the exact gradient of the whole cohort, one step an epoch.
    Cohort,
}

/// How often each patient comes in an epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sampling {
    /// Once.
    #[default]
    Uniform,
    /// Patients with and without event make up half of the epoch each, so that the rarer come several times.
    EventBalanced,
    /// Each pair of a time bin and of event or censoring makes up the same share; for the discrete-time loss.
    BinBalanced,
}

/// Which epoch's parameters are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Select {
    /// The epoch with the lowest loss on the validation patients.
    #[default]
    ValidationLoss,
    /// The epoch with the highest concordance on the validation patients.
    ValidationConcordance,
    /// The last epoch.
    Last,
}

/// How the model is trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainConfig {
    /// Passes over the training patients.
    pub epochs: u32,
    /// Patients in a batch.
    pub batch: usize,
    /// Patches in a batch: it is closed early when the next patient would exceed this.
    pub patches_per_batch: usize,
    /// Patches of a patient that are trained on in an epoch, at most: of more, so many are drawn anew each epoch. 0 trains
    /// on all. Validation, evaluation and prediction see all patches in any case.
    pub patches_per_patient: usize,
    /// Rows of a patient with slides in training, at least: one with fewer patches has rows of zeros behind them, zeros of the
    /// features as they are stored, which are patches to the model, to its attention and to its means. 0 pads nothing.
    /// Validation, evaluation and prediction pad nothing in any case. The published training of SurvPath pads to 4096, as many
    /// as it shows at most.
    pub pad_to: usize,
    /// How often each patient comes in an epoch.
    pub sampling: Sampling,
    /// What is minimised.
    pub loss: Loss,
    /// How tied event times are treated by the Cox loss.
    pub ties: Ties,
    /// Among whom the Cox loss compares.
    pub risk_set: RiskSet,
    /// Time bins of the discrete-time loss.
    pub bins: usize,
    /// How their edges are placed.
    pub bin_rule: BinRule,
    /// How much less a censored patient weighs in the discrete-time loss, 0 to 1.
    pub nll_alpha: f64,
    /// The rule that turns gradients into steps, with its weight decay.
    pub optimizer: OptimizerConfig,
    /// The highest learning rate.
    pub learning_rate: f64,
    /// How it rises and falls over the training.
    pub schedule: ScheduleConfig,
    /// The largest gradient norm; 0 does not clip.
    pub clip_norm: f64,
    /// The share of the source's patients that are held out to choose the epoch, 0 to below 1. With 0 the last epoch is
    /// kept.
    pub validation: f64,
    /// Probability of hiding one modality from a patient who has both, in training.
    pub modality_dropout: f64,
    /// Which epoch's parameters are kept.
    pub select: Select,
    /// How matrix products are calculated on a device; the CPU knows only f32.
    pub precision: Precision,
    /// Whose kernels calculate those of fully connected layers on a device: `"own"`, or `"cublaslt"` where that library is.
    /// Which is faster depends on card and shapes: `onkos bench` and `onkos bench --products cublaslt` tell.
    pub products: Products,
    /// Stop after this many epochs without a better validation figure; 0 never stops early.
    pub patience: u32,
}

impl Default for TrainConfig {
    fn default() -> TrainConfig {
        TrainConfig {
            epochs: 40,
            batch: 64,
            patches_per_batch: 262_144,
            patches_per_patient: 0,
            pad_to: 0,
            sampling: Sampling::Uniform,
            loss: Loss::Cox,
            ties: Ties::Efron,
            risk_set: RiskSet::Batch,
            bins: 4,
            bin_rule: BinRule::default(),
            nll_alpha: 0.0,
            optimizer: OptimizerConfig::AdamW(AdamWConfig { weight_decay: 1.0, ..AdamWConfig::default() }),
            learning_rate: 3e-3,
            schedule: ScheduleConfig::default(),
            clip_norm: 1.0,
            validation: 0.2,
            modality_dropout: 0.0,
            select: Select::ValidationLoss,
            precision: Precision::F32,
            products: Products::Own,
            patience: 0,
        }
    }
}

impl RunConfig {
    /// Refuses settings outside their range, all of them by name.
    ///
    /// # Errors
    /// [`Error::Setting`] for the first that is.
    pub fn check(&self) -> Result<()> {
        let t = &self.train;
        let finite_positive = |x: f64| x.is_finite() && x > 0.0;
        let finite_not_negative = |x: f64| x.is_finite() && x >= 0.0;
        for (name, ok, want, value) in [
            ("train.epochs", t.epochs > 0, "at least 1", t.epochs.to_string()),
            ("train.batch", t.batch > 0, "at least 1", t.batch.to_string()),
            (
                "train.batch",
                t.batch > 1 || !self.model.mixes_patients(),
                "at least 2 with model.mixstyle, which mixes the patients of a batch",
                t.batch.to_string(),
            ),
            ("train.patches_per_batch", t.patches_per_batch > 0, "at least 1", t.patches_per_batch.to_string()),
            ("train.pad_to", t.pad_to <= 1_000_000, "at most 1000000", t.pad_to.to_string()),
            (
                "train.pad_to",
                t.patches_per_patient == 0 || t.pad_to <= t.patches_per_patient,
                "at most train.patches_per_patient, unless that is 0",
                t.pad_to.to_string(),
            ),
            ("train.bins", (2..=1000).contains(&t.bins), "between 2 and 1000", t.bins.to_string()),
            ("train.nll_alpha", (0.0..=1.0).contains(&t.nll_alpha), "between 0 and 1", t.nll_alpha.to_string()),
            (
                "train.learning_rate",
                finite_positive(t.learning_rate),
                "finite and positive",
                t.learning_rate.to_string(),
            ),
            ("train.clip_norm", finite_not_negative(t.clip_norm), "finite and not negative", t.clip_norm.to_string()),
            (
                "train.validation",
                (0.0..1.0).contains(&t.validation),
                "at least 0 and below 1",
                t.validation.to_string(),
            ),
            (
                "train.modality_dropout",
                (0.0..1.0).contains(&t.modality_dropout),
                "at least 0 and below 1",
                t.modality_dropout.to_string(),
            ),
            (
                "train.select",
                t.validation > 0.0 || t.select == Select::Last,
                "\"last\" when train.validation is 0",
                word(&t.select),
            ),
            (
                "train.risk_set",
                t.loss == Loss::Cox || t.risk_set == RiskSet::Batch,
                "\"batch\" when train.loss is \"nll\", which has no risk sets",
                word(&t.risk_set),
            ),
            (
                "train.sampling",
                t.sampling == Sampling::Uniform || t.risk_set == RiskSet::Batch,
                "\"uniform\" when train.risk_set is \"cohort\", whose risk sets hold every patient once",
                word(&t.sampling),
            ),
            (
                "train.sampling",
                t.sampling != Sampling::BinBalanced || t.loss == Loss::Nll,
                "\"uniform\" or \"event_balanced\" when train.loss is \"cox\", which has no time bins",
                word(&t.sampling),
            ),
        ] {
            if !ok {
                return Err(Error::Setting { name, want, value });
            }
        }
        self.model.check()
    }
}

/// A choice as a run file spells it.
pub(crate) fn word(choice: &impl Serialize) -> String {
    serde_json::to_string(choice).expect("a choice is one word")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resolved_file_reads_back_as_itself_and_unknown_keys_are_refused() {
        let config = RunConfig::default();
        config.check().unwrap();
        let text = toml::to_string(&config).unwrap();
        assert_eq!(toml::from_str::<RunConfig>(&text).unwrap(), config);
        for text in ["sed = 1", "[train]\nepoch = 3", "[model.sdir]\np = 0.5"] {
            assert!(toml::from_str::<RunConfig>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let mut config = RunConfig::default();
        config.train.validation = 1.0;
        assert_eq!(
            config.check().unwrap_err().to_string(),
            "train.validation must be at least 0 and below 1, but is 1"
        );
        let mut config = RunConfig::default();
        (config.train.patches_per_patient, config.train.pad_to) = (100, 101);
        let want = "train.pad_to must be at most train.patches_per_patient, unless that is 0, but is 101";
        assert_eq!(config.check().unwrap_err().to_string(), want);
        for (most, pad_to) in [(101, 101), (0, 101), (100, 0)] {
            (config.train.patches_per_patient, config.train.pad_to) = (most, pad_to);
            config.check().unwrap();
        }
        (config.train.patches_per_patient, config.train.pad_to) = (0, 1_000_001);
        assert!(config.check().unwrap_err().to_string().starts_with("train.pad_to must be at most 1000000"));
    }
}
