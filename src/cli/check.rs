//! `onkos check`.

use std::path::PathBuf;

use clap::Args;

use super::{Global, Outcome, print_json};
use crate::data::{self, CheckOptions, Report};
use crate::error::{Error, Result};

/// Everything that is wrong with a cohort, and what is in it.
#[derive(Clone, Debug, Args)]
pub(super) struct Check {
    /// The cohort files
    #[arg(value_name = "COHORT.toml", required = true)]
    cohorts: Vec<PathBuf>,
    /// A split to look at with the cohort, as `train` takes it; of one cohort
    #[arg(long, value_name = "FILE")]
    split: Option<PathBuf>,
    /// Which split of a file or folder that has several
    #[arg(long, value_name = "K", default_value_t = 0, requires = "split")]
    fold: usize,
}

impl Check {
    pub(super) fn run(&self, global: &Global) -> Result<Outcome> {
        if self.split.is_some() && self.cohorts.len() > 1 {
            let value = format!("given with {} cohorts", self.cohorts.len());
            return Err(Error::Setting {
                name: "--split",
                want: "of one cohort: check the others on their own",
                value,
            });
        }
        let split = self.split.as_deref().map(|file| (file, self.fold));
        let options = CheckOptions { reading: global.reading(), split };
        let reports: Vec<Report> = self.cohorts.iter().map(|file| data::check_by(file, options)).collect();
        if global.json {
            print_json(&reports);
        } else {
            reports.iter().for_each(print);
        }
        Ok(if reports.iter().all(|r| r.sound) { Outcome::Done } else { Outcome::Refused })
    }
}

pub(super) fn print(report: &Report) {
    let name = report.name.as_deref().unwrap_or("?");
    say!("{name} ({})", report.file.display());
    let percent = report.event_rate.map_or(String::new(), |r| format!(" ({:.1} %)", 100.0 * r));
    let clinical = report.clinical.as_ref();
    let slides = clinical.map(|c| c.slides).filter(|&n| n > 0).map_or(String::new(), |n| format!(", {n} slides"));
    say!("  {} patients{slides}, {} events{percent}, {} censored", report.patients, report.events, report.censored);
    if let Some(clinical) = clinical {
        let told = [clinical.preset.map(|p| format!("preset {p}")), clinical.endpoint.map(|e| format!("endpoint {e}"))];
        let told: Vec<String> = told.into_iter().flatten().collect();
        if !told.is_empty() {
            say!("  read by {}", told.join(", "));
        }
        let left_out = [
            (clinical.redacted, "redacted"),
            (clinical.without_outcome, "without time or outcome"),
            (clinical.time_zero_dropped, "with a time that is not above 0"),
        ];
        for (count, why) in left_out.iter().filter(|(count, _)| *count > 0) {
            say!("  left out: {count} {why}");
        }
        if clinical.time_zero_kept > 0 {
            say!("  {} times of 0 are half the smallest", clinical.time_zero_kept);
        }
    }
    if let Some([first, last]) = report.time_range {
        let unit = clinical.and_then(|c| c.time_unit).map_or(String::new(), |unit| format!(" {unit}"));
        let follow_up = report.median_follow_up.map_or("not reached".into(), |m| format!("{m:.4}"));
        say!("  times {first} to {last}{unit}, median follow-up {follow_up}");
    }
    match report.genes {
        Some(genes) => say!("  {genes} genes in {} signatures", report.signatures),
        None => say!("  no gene expression"),
    }
    match &report.slides {
        Some(s) => say!(
            "  {} patches of {} {} features, {} to {} a patient, {} of its slides",
            s.instances,
            s.width,
            s.dtype,
            s.shortest,
            s.longest,
            s.per_patient
        ),
        None => say!("  no slides"),
    }
    if let Some(split) = &report.split {
        let sets = [("training", split.train), ("validation", split.validation), ("test", split.test)];
        let sets = sets.map(|(name, set)| format!("{} for {name} ({} events)", set.patients, set.events));
        say!("  split {}, fold {}: {}, {} unused", split.file.display(), split.fold, sets.join(", "), split.unused);
    }
    for warning in &report.warnings {
        say!("  warning: {warning}");
    }
    for problem in &report.problems {
        say!("  wrong: {problem}");
    }
    say!("  {}", if report.sound { "nothing is wrong" } else { "correct what is wrong and check again" });
}
