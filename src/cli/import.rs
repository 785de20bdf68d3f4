//! `onkos import`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{Global, Outcome, check, print_json};
use crate::data::{Endpoint, Import, Imported, Preset, Tool};
use crate::error::Result;

/// Cohort files for a study that lies as another tool wants it.
#[derive(Clone, Debug, Args)]
pub(super) struct ImportStudy {
    /// The tool whose layout the study has
    #[arg(long, value_name = "TOOL")]
    from: From,
    /// The folder of the study: nothing in it is changed or copied
    #[arg(value_name = "STUDY")]
    study: PathBuf,
    /// The folder to make, with one cohort file for each cohort that is found
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The folder of patch features, or one with a folder for each cohort [default: looked for in the study]
    #[arg(long, value_name = "DIR")]
    slides: Option<PathBuf>,
    /// A table of outcomes, in place of the study's
    #[arg(long, value_name = "FILE")]
    clinical: Option<PathBuf>,
    /// The preset of that table
    #[arg(long, value_name = "NAME", value_parser = named::<Preset>)]
    preset: Option<Preset>,
    /// The endpoint, where a preset has several: os, dss, pfi, dfi, pfs or dfs
    #[arg(long, value_name = "NAME", value_parser = named::<Endpoint>)]
    endpoint: Option<Endpoint>,
    /// The column of times, where no preset knows it (STAMP)
    #[arg(long, value_name = "COLUMN", requires = "event")]
    time: Option<String>,
    /// The column of events, where no preset knows it (STAMP)
    #[arg(long, value_name = "COLUMN", requires = "time")]
    event: Option<String>,
    /// Which gene expression of SurvPath: combine, xena or hallmarks [default: the first that is there]
    #[arg(long, value_name = "KIND")]
    rna: Option<String>,
}

/// The tools that are known.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum From {
    Survpath,
    Mcat,
    Clam,
    Stamp,
}

/// A name as cohort files have it.
fn named<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_value(text.into()).map_err(|e| e.to_string())
}

impl ImportStudy {
    pub(super) fn run(&self, global: &Global) -> Result<Outcome> {
        let import = Import {
            from: match self.from {
                From::Survpath => Tool::Survpath,
                From::Mcat => Tool::Mcat,
                From::Clam => Tool::Clam,
                From::Stamp => Tool::Stamp,
            },
            study: self.study.clone(),
            slides: self.slides.clone(),
            clinical: self.clinical.clone(),
            preset: self.preset,
            endpoint: self.endpoint,
            time: self.time.clone(),
            event: self.event.clone(),
            rna: self.rna.clone(),
        };
        let imported = import.write(&self.out)?;
        if global.json {
            print_json(&imported);
        } else {
            print(&imported);
        }
        let sound = imported.cohorts.iter().all(|cohort| cohort.report.sound);
        Ok(if sound { Outcome::Done } else { Outcome::Refused })
    }
}

fn print(imported: &Imported) {
    for cohort in &imported.cohorts {
        check::print(&cohort.report);
        for split in &cohort.splits {
            say!("  splits: onkos train --split {} --fold 0", split.display());
        }
        for note in &cohort.notes {
            say!("  note: {note}");
        }
    }
    for note in &imported.notes {
        say!("note: {note}");
    }
    say!("cohort files: {}", imported.folder.display());
}
