//! The folder that a training leaves behind.
//!
//! ```text
//! config.toml          every setting, defaults written out
//! manifest.json        versions, input hashes, seed, threads, time and memory
//! metrics.jsonl        one line an epoch
//! model.safetensors    parameters and recipe: all that predicts
//! split.csv            case_id, set
//! risks/COHORT.csv     case_id, set, time, event, risk, group
//! figures/COHORT.json  the figures of a cohort (COHORT.SET.json for the sets of the source)
//! ```
//!
//! It appears by rename when it is complete; until then it is a hidden folder beside its name, `.NAME.` and some letters.
//! A training that is killed leaves that behind: nothing reads it, and it may be deleted.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::config::{RunConfig, Select};
use crate::data::{Cohort, FileHash, Split, write_file};
use crate::device::{Device, Precision, Products};
use crate::error::{Error, Result, toml_error};
use crate::evaluate::{Evaluation, Figures};
use crate::model::{Predictions, Predictor};

/// The names of the files of a run.
pub const CONFIG: &str = "config.toml";
/// See [`CONFIG`].
pub const MANIFEST: &str = "manifest.json";
/// See [`CONFIG`].
pub const METRICS: &str = "metrics.jsonl";
/// See [`CONFIG`].
pub const MODEL: &str = "model.safetensors";
/// See [`CONFIG`].
pub const SPLIT: &str = "split.csv";

/// What was trained with what, and what it took.
#[derive(Clone, Debug, Serialize)]
pub struct Manifest {
    /// The version of onkos.
    pub onkos: &'static str,
    /// The arguments of the command.
    pub command: Vec<String>,
    /// The device.
    pub device: String,
    /// Its name, if it has one of its own.
    pub device_name: Option<&'static str>,
    /// How matrix products were calculated on it.
    pub precision: Precision,
    /// Whose kernels calculated those of fully connected layers on it.
    pub products: Products,
    /// The version of the library that did; absent if it was onkos itself. Another one may round differently.
    pub products_version: Option<String>,
    /// The SIMD level of the machine: another one may round differently.
    pub simd: &'static str,
    /// Threads; the result does not depend on them.
    pub threads: usize,
    /// The seed.
    pub seed: u64,
    /// The source and the targets, by name.
    pub source: String,
    /// See `source`.
    pub targets: Vec<String>,
    /// Every file that was read, with its SHA-256.
    pub inputs: Vec<FileHash>,
    /// Training and validation patients.
    pub patients: [usize; 2],
    /// Scalars of the model.
    pub parameters: usize,
    /// The epoch whose parameters were kept.
    pub kept_epoch: u32,
    /// Seconds of the training.
    pub training_seconds: f64,
    /// Of these, the seconds in which the epochs had nothing to calculate because patch features were not there yet.
    pub waiting_seconds: f64,
    /// The most memory that the process held, in bytes; absent where the system does not tell.
    pub peak_memory_bytes: Option<u64>,
    /// The most memory that tensors took on the device, in bytes; absent on the CPU.
    pub peak_device_memory_bytes: Option<u64>,
}

/// Reads a run file.
///
/// # Errors
/// [`Error::Io`]; [`Error::RunFile`] for what is not TOML, has an unknown key or a setting out of range.
pub fn read_config(path: &Path) -> Result<RunConfig> {
    let refuse = |why| Error::RunFile { path: path.into(), why };
    let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
    let mut config: RunConfig = toml::from_str(&text).map_err(|error| match toml_error(&text, &error) {
        (Some(line), why) => refuse(format!("line {line}: {why}")),
        (None, why) => refuse(why),
    })?;
    if config.train.validation == 0.0 {
        // Nobody is there to choose another.
        config.train.select = Select::Last;
    }
    config.check().map_err(|why| refuse(why.to_string()))?;
    Ok(config)
}

/// Writes the resolved run file.
///
/// # Errors
/// [`Error::Io`].
pub fn write_config(folder: &Path, config: &RunConfig) -> Result<()> {
    let text = toml::to_string(config).expect("a run file is plain data");
    write_file(&folder.join(CONFIG), |out| out.write_all(text.as_bytes()))
}

/// Writes a value as indented JSON.
///
/// # Errors
/// [`Error::Io`].
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    write_file(path, |out| {
        serde_json::to_writer_pretty(&mut *out, value)?;
        out.write_all(b"\n")
    })
}

/// Writes which patient is in which set.
///
/// # Errors
/// [`Error::Io`].
pub fn write_split(folder: &Path, cohort: &Cohort, split: &Split) -> Result<()> {
    write_csv(&folder.join(SPLIT), &["case_id", "set"], |out| {
        for (set, patients) in sets(split) {
            for &p in patients {
                out.write_record([cohort.patients[p].case.as_str(), set])?;
            }
        }
        Ok(())
    })
}

/// The sets of a split by name.
pub fn sets(split: &Split) -> [(&'static str, &[usize]); 3] {
    [("train", &split.train), ("validation", &split.validation), ("test", &split.test)]
}

fn write_csv(
    path: &Path,
    header: &[&str],
    rows: impl FnOnce(&mut csv::Writer<&mut dyn Write>) -> csv::Result<()>,
) -> Result<()> {
    write_file(path, |out| {
        let mut table = csv::Writer::from_writer(out);
        table.write_record(header)?;
        rows(&mut table)?;
        table.flush()
    })
}

/// Writes the risks of a cohort: one row a patient, in the order of the cohort. `set` says which set of the source each
/// belongs to, if it is the source.
///
/// # Errors
/// [`Error::Io`].
pub fn write_risks(
    path: &Path,
    cohort: &Cohort,
    predictions: &Predictions,
    median_risk: f64,
    set: impl Fn(usize) -> &'static str,
) -> Result<()> {
    write_csv(path, &["case_id", "set", "time", "event", "risk", "group"], |out| {
        for (p, (patient, &risk)) in cohort.patients.iter().zip(&predictions.risk).enumerate() {
            let group = if risk > median_risk { "high" } else { "low" };
            let event = if patient.event { "1" } else { "0" };
            let (time, risk) = (patient.time.to_string(), risk.to_string());
            out.write_record([patient.case.as_str(), set(p), &time, event, &risk, group])?;
        }
        Ok(())
    })
}

/// A name of a cohort as that of a file: letters, digits, dots, dashes and underscores stay, others become `_`.
pub fn file_name(cohort: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
    let name: String = cohort.chars().map(safe).take(100).collect();
    if name.trim_matches('.').is_empty() { "cohort".into() } else { name }
}

/// The figures of some patients of a cohort.
///
/// # Errors
/// Risks that are not finite.
pub fn figures(
    name: &str,
    cohort: &Cohort,
    patients: &[usize],
    predictor: &Predictor,
    predictions: &Predictions,
    replicates: u32,
    seed: u64,
) -> Result<Figures> {
    let time: Vec<f64> = patients.iter().map(|&p| cohort.patients[p].time).collect();
    let event: Vec<bool> = patients.iter().map(|&p| cohort.patients[p].event).collect();
    let risk: Vec<f64> = patients.iter().map(|&p| predictions.risk[p]).collect();
    let width = predictions.raw.matrix().1;
    let recipe = &predictor.recipe;
    let survival = |i: usize, t: f64| {
        let p = patients[i];
        recipe.survival(&predictions.raw.host()[p * width..(p + 1) * width], t).unwrap_or(f64::NAN)
    };
    let gives_survival = recipe.baseline.is_some() || recipe.bins.is_some();
    let survival: Option<&(dyn Fn(usize, f64) -> f64 + Sync)> = gives_survival.then_some(&survival);
    let cut = recipe.median_risk;
    Evaluation { cohort: name, time: &time, event: &event, risk: &risk, survival, cut, seed, replicates }.figures()
}

/// A run folder that is complete.
#[derive(Clone, Debug)]
pub struct Run {
    /// The folder.
    pub path: PathBuf,
    /// Its configuration.
    pub config: RunConfig,
    /// Its model.
    pub predictor: Predictor,
}

impl Run {
    /// Opens a run folder.
    ///
    /// # Errors
    /// A file that is missing or damaged.
    pub fn open(path: &Path) -> Result<Run> {
        let config = read_config(&path.join(CONFIG))?;
        Ok(Run { path: path.into(), config, predictor: Predictor::load(&path.join(MODEL))? })
    }

    /// Opens a run folder to predict on a device, there with the precision that the model was trained in, and with the
    /// same products. Where cuBLASLt is not to be had our own products take its place, with a warning: the same to
    /// rounding.
    ///
    /// # Errors
    /// As [`open`](Self::open), and [`Predictor::to`].
    pub fn open_on(path: &Path, device: Device) -> Result<Run> {
        let run = Run::open(path)?;
        let device = device.with_precision(run.config.train.precision);
        let device = device.with_products(run.config.train.products).or_else(|why| match why {
            Error::Products { why, .. } => {
                tracing::warn!("predicting with products of onkos instead of cuBLASLt: {why}");
                Ok(device)
            }
            other => Err(other),
        })?;
        let predictor = run.predictor.to(device)?;
        Ok(Run { predictor, ..run })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cohort_name_cannot_leave_the_folder() {
        assert_eq!(file_name("../../etc/passwd"), ".._.._etc_passwd");
        assert_eq!(file_name(".."), "cohort");
        assert_eq!(file_name("tcga brca-1.0"), "tcga_brca-1.0");
    }
}
