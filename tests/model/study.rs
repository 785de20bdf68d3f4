//! A small synthetic study on disk, and short trainings on it.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use onkos::config::{RunConfig, Select};
use onkos::data::{Cohort, Split, SyntheticStudy};
use onkos::model::Batching;
use onkos::model::{FusionConfig, ModelConfig, Recipe, SdirConfig};
use onkos::optim::{Decay, ScheduleConfig};
use onkos::train::Trained;
use tempfile::TempDir;

pub const BATCHING: Batching = Batching { patients: 8, patches: usize::MAX };

pub struct Study {
    pub folder: TempDir,
    files: AtomicU32,
    cohorts: [PathBuf; 2],
}

impl Study {
    pub fn new(patients: usize) -> Study {
        let folder = tempfile::tempdir().unwrap();
        let cohorts = SyntheticStudy { seed: 1, patients }.write(folder.path()).unwrap();
        Study { folder, cohorts, files: AtomicU32::new(0) }
    }

    pub fn north(&self) -> Cohort {
        Cohort::open(&self.cohorts[0]).unwrap()
    }

    pub fn south(&self) -> Cohort {
        Cohort::open(&self.cohorts[1]).unwrap()
    }

    /// A file that is not there yet.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}{}.safetensors", self.files.fetch_add(1, Ordering::Relaxed)))
    }
}

/// Every third patient for validation.
pub fn thirds(patients: usize) -> Split {
    let (validation, train) = (0..patients).partition(|p| p % 3 == 0);
    Split { train, validation, test: Vec::new() }
}

pub fn everybody(patients: usize) -> Split {
    Split { train: (0..patients).collect(), ..Split::default() }
}

/// A small model without noise, a constant rate from the first step on, the last epoch kept.
pub fn config(epochs: u32) -> RunConfig {
    let mut config = RunConfig { seed: 3, ..RunConfig::default() };
    config.model = ModelConfig::Fusion(FusionConfig {
        width: 8,
        gene_hidden: 4,
        attention_width: 8,
        gene_dropout: 0.0,
        head_dropout: 0.0,
        sdir: SdirConfig::OFF,
        cade: None,
        ..FusionConfig::default()
    });
    let train = &mut config.train;
    (train.epochs, train.batch, train.learning_rate, train.select) = (epochs, 8, 1e-2, Select::Last);
    train.schedule = ScheduleConfig { decay: Decay::Constant, warmup_epochs: 0.0 };
    config
}

pub fn train(config: &RunConfig, cohort: &Cohort, split: &Split) -> onkos::Result<Trained> {
    let recipe = Recipe::fit(config, cohort, &split.train)?;
    onkos::train::train(config, onkos::Device::Cpu, cohort, split, recipe, |_| ())
}
