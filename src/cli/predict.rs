//! `onkos predict`.

use std::path::PathBuf;

use clap::Args;

use super::{Global, Outcome, from_one, open_all, print_json};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::model::Batching;
use crate::run::{self, Run};

/// Risks of the patients of a cohort.
#[derive(Clone, Debug, Args)]
pub(super) struct Predict {
    /// The run folder of a training
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// The cohort file
    #[arg(value_name = "COHORT.toml")]
    cohort: PathBuf,
    /// The table to write: case_id, set, time, event, risk, group
    #[arg(long, value_name = "risks.csv")]
    out: PathBuf,
    /// Write over a table that is there already
    #[arg(long)]
    force: bool,
    /// Patches in a batch, at most, unless one patient alone has more; instead of the training's
    #[arg(long, value_name = "N", value_parser = from_one)]
    patches_per_batch: Option<usize>,
}

impl Predict {
    pub(super) fn run(&self, global: &Global, device: Device) -> Result<Outcome> {
        // Writing over is renaming over, and that would replace a device such as /dev/stdout by a file.
        let replaceable = |there: std::fs::Metadata| self.force && (there.is_file() || there.is_symlink());
        if !std::fs::symlink_metadata(&self.out).map_or(true, replaceable) {
            return Err(Error::Exists { path: self.out.clone() });
        }
        let Run { config, predictor, .. } = Run::open_on(&self.run, device)?;
        let cohort = open_all(std::slice::from_ref(&self.cohort), global.reading())?.remove(0);
        let patches = self.patches_per_batch.unwrap_or(config.train.patches_per_batch);
        let batching = Batching { patients: config.train.batch, patches };
        let predictions = predictor.predict(&cohort, batching)?;
        run::write_risks(&self.out, &cohort, &predictions, predictor.recipe.median_risk, |_| "target")?;
        let high = predictions.risk.iter().filter(|&&r| r > predictor.recipe.median_risk).count();
        let (patients, out) = (cohort.len(), self.out.display().to_string());
        if global.json {
            print_json(&serde_json::json!({ "cohort": cohort.name, "patients": patients, "high": high, "out": out }));
        } else {
            say!("{patients} risks of {}, {high} above the training median: {out}", cohort.name);
        }
        Ok(Outcome::Done)
    }
}
