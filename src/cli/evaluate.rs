//! `onkos evaluate`.

use std::path::PathBuf;

use clap::Args;

use super::{Global, Outcome, from_one, open_all, print_json, table};
use crate::device::Device;
use crate::error::Result;
use crate::model::Batching;
use crate::run::{self, Run};

/// Figures of a trained model on cohorts.
#[derive(Clone, Debug, Args)]
pub(super) struct Evaluate {
    /// The run folder of a training
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// The cohort files to evaluate on
    #[arg(value_name = "COHORT.toml", required = true)]
    cohorts: Vec<PathBuf>,
    /// Bootstrap replicates of each interval
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    replicates: u32,
    /// Patches in a batch, at most, unless one patient alone has more; instead of the training's
    #[arg(long, value_name = "N", value_parser = from_one)]
    patches_per_batch: Option<usize>,
}

impl Evaluate {
    pub(super) fn run(&self, global: &Global, device: Device) -> Result<Outcome> {
        let Run { config, predictor, .. } = Run::open_on(&self.run, device)?;
        let patches = self.patches_per_batch.unwrap_or(config.train.patches_per_batch);
        let batching = Batching { patients: config.train.batch, patches };
        let mut all = Vec::new();
        for cohort in open_all(&self.cohorts, global.reading())? {
            let predictions = predictor.predict(&cohort, batching)?;
            let patients: Vec<usize> = (0..cohort.len()).collect();
            let replicates = self.replicates;
            all.push(run::figures(
                &cohort.name,
                &cohort,
                &patients,
                &predictor,
                &predictions,
                replicates,
                config.seed,
            )?);
        }
        if global.json {
            print_json(&all);
        } else {
            table::print_figures(&all);
        }
        Ok(Outcome::Done)
    }
}
