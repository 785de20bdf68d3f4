//! `onkos attend`.

use std::path::PathBuf;

use clap::{ArgGroup, Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};

use super::{Global, Outcome, print_json, table};
use crate::data::{Cohort, CoordUnit};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::heatmap::{self, Format, Head, Index, Options, Side, Units};
use crate::run::Run;

/// Heat maps: the attention of a trained model over the patches of slides, of the pass that gives the risk.
///
/// Weights sum to one over all slides of a patient, in survpath to less, as genes look at genes too; percentiles are within a
/// slide. Places are level-0 pixels unless the unit says something else.
#[derive(Clone, Debug, Args)]
#[command(group = ArgGroup::new("which").required(true).multiple(true).args(["slides", "cases"]))]
pub(super) struct Attend {
    /// The run folder of a training
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// The cohort file
    #[arg(value_name = "COHORT.toml")]
    cohort: PathBuf,
    /// These slides
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    slides: Vec<String>,
    /// All slides of these patients
    #[arg(long, value_name = "CASE,...", value_delimiter = ',')]
    cases: Vec<String>,
    /// The folder to write: a file a slide and format, and attention.json
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Formats to write [default: all that a slide can have]
    #[arg(long, value_name = "FORMAT,...", value_delimiter = ',')]
    formats: Vec<Kind>,
    /// The attention head to show: mean, or a number from 1
    #[arg(long, value_name = "HEAD", default_value_t = Head::Mean)]
    head: Head,
    /// The side of a patch where the file does not say, in the unit that places are written in
    #[arg(long, value_name = "N", value_parser = positive)]
    patch_size: Option<f64>,
    /// What places are measured in where the file does not say
    #[arg(long, value_name = "UNIT")]
    unit: Option<Unit>,
    /// Micrometres of a level-0 pixel: places in micrometres are written in level-0 pixels
    #[arg(long, value_name = "X", value_parser = positive)]
    mpp: Option<f64>,
    /// Write into a folder that is there already, over files of the same names
    #[arg(long)]
    force: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    Csv,
    H5,
    Geojson,
    Png,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Unit {
    Level0,
    Microns,
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(number) if (1e-6..=1e9).contains(&number) => Ok(number),
        _ => Err("must be a number between 0.000001 and 1000000000".into()),
    }
}

impl Attend {
    pub(super) fn run(&self, global: &Global, device: Device) -> Result<Outcome> {
        if !self.force && std::fs::symlink_metadata(&self.out).is_ok() {
            return Err(Error::Exists { path: self.out.clone() });
        }
        let run = Run::open_on(&self.run, device)?;
        let cohort = Cohort::open_unscanned(&self.cohort)?;
        let chosen = heatmap::choose(&cohort, &self.cohort, &self.slides, &self.cases)?;
        let bar = bar(global.json);
        let show = |done: usize, total: usize| {
            bar.set_length(total as u64);
            bar.set_position(done as u64);
        };
        let index = heatmap::attend(&run, &cohort, &chosen, &self.options(), &self.out, &show);
        bar.finish_and_clear();
        let index = index?;
        if global.json {
            print_json(&index);
        } else {
            self.print(&index);
        }
        // What was asked for by its name and is not there is no success.
        let lacking = !self.formats.is_empty() && index.slides.iter().any(|map| !map.refused.is_empty());
        Ok(if lacking { Outcome::Refused } else { Outcome::Done })
    }

    fn options(&self) -> Options {
        let format = |kind: &Kind| match kind {
            Kind::Csv => Format::Csv,
            Kind::H5 => Format::H5,
            Kind::Geojson => Format::Geojson,
            Kind::Png => Format::Png,
        };
        let unit = self.unit.map(|unit| match unit {
            Unit::Level0 => CoordUnit::Level0Pixels,
            Unit::Microns => CoordUnit::Microns,
        });
        let all = self.formats.is_empty();
        let asked: Vec<Format> = self.formats.iter().map(format).collect();
        let formats = Format::ALL.into_iter().filter(|format| all || asked.contains(format)).collect();
        let units = Units { unit, microns_per_pixel: self.mpp, patch_size: self.patch_size };
        Options { formats, head: self.head, units, force: self.force }
    }

    fn print(&self, index: &Index) {
        let rows: Vec<Vec<String>> = index
            .slides
            .iter()
            .map(|map| {
                let size = map.patch_size.map_or("-".into(), |size| size.to_string());
                vec![
                    map.slide.clone(),
                    map.case.clone(),
                    format!("{:.4}", map.risk),
                    map.group.into(),
                    map.patches.to_string(),
                    format!("{:.3}", map.share),
                    map.unit.map_or("-".into(), |unit| unit.name().into()),
                    size,
                ]
            })
            .collect();
        table::print(&["slide", "case", "risk", "group", "patches", "share", "unit", "patch size"], &rows);
        for map in &index.slides {
            if map.patch_size_from == Some(Side::Step) {
                say!(
                    "{}: the patch size is the smallest step between places; say --patch-size if patches overlap",
                    map.slide
                );
            }
            map.refused.iter().for_each(|why| say!("{}: {why}", map.slide));
        }
        let files: usize = index.slides.iter().map(|map| map.files.len()).sum();
        say!("{files} files of head {}, and {}: {}", index.head, heatmap::INDEX, self.out.display());
    }
}

fn bar(hidden: bool) -> ProgressBar {
    let bar = if hidden { ProgressBar::hidden() } else { ProgressBar::no_length() };
    let style = ProgressStyle::with_template("{msg} {bar:40} {human_pos} of {human_len} patches, {eta} left");
    bar.with_message("attending").with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
