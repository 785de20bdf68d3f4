//! `onkos quickstart`.

use std::path::PathBuf;

use clap::Args;

use super::train::Train;
use super::{Global, Outcome};
use crate::data::{RunDir, SyntheticStudy};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::run::write_config;

/// Make a small synthetic study, train and test.
#[derive(Clone, Debug, Args)]
pub(super) struct Quickstart {
    /// The folder to make: the study and the run
    #[arg(long, value_name = "DIR", default_value = "onkos-quickstart")]
    out: PathBuf,
    /// The seed of the study and of the training
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Patients of each cohort
    #[arg(long, value_name = "N", default_value_t = SyntheticStudy::default().patients, value_parser = enough)]
    patients: usize,
    /// Passes over the training patients [default: those of an ordinary run]
    #[arg(long, value_name = "N")]
    epochs: Option<u32>,
}

/// Fewer patients might have no event among those who are held out.
fn enough(text: &str) -> Result<usize, String> {
    let number = text.parse::<usize>().ok().filter(|n| (20..=100_000).contains(n));
    number.ok_or_else(|| "must be a number from 20 to 100000".into())
}

impl Quickstart {
    pub(super) fn run(&self, global: &Global, device: Device) -> Result<Outcome> {
        let study = RunDir::create(self.out.clone())?;
        let cohorts = SyntheticStudy { seed: self.seed, patients: self.patients }.write(study.path())?;
        write_config(study.path(), &Default::default())?;
        let names = cohorts.map(|path| path.strip_prefix(study.path()).map(PathBuf::from).unwrap_or(path));
        let folder = study.finish()?;
        let [source, target] = names.map(|name| folder.join(name));
        if !global.json {
            say!("a synthetic study of two cohorts, made in {}", folder.display());
            say!("training on {}, testing on {}, which is never trained on\n", show(&source)?, show(&target)?);
        }
        let train = Train {
            source,
            target: vec![target],
            config: Some(folder.join(crate::run::CONFIG)),
            epochs: self.epochs,
            patches_per_batch: None,
            seed: Some(self.seed),
            split: None,
            fold: 0,
            out: Some(folder.join("run")),
            replicates: 1000,
        };
        train.run(global, device)
    }
}

fn show(path: &std::path::Path) -> Result<String> {
    path.file_name().map(|n| n.to_string_lossy().into_owned()).ok_or_else(|| Error::Exists { path: path.into() })
}
