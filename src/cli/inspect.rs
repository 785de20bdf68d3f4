//! `onkos inspect`.

use std::path::PathBuf;

use clap::Args;

use super::{Global, Outcome, print_json};
use crate::data::{self, FeaturesInspection, Inspection, TableInspection};
use crate::error::Result;

/// What files are, and what onkos would do with them: patch features of any tool, and tables.
#[derive(Clone, Debug, Args)]
pub(super) struct Inspect {
    /// The files
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
}

impl Inspect {
    pub(super) fn run(&self, global: &Global) -> Result<Outcome> {
        let found: Vec<Inspection> = self.files.iter().map(|file| data::inspect_by(file, global.reading())).collect();
        if global.json {
            print_json(&found);
        } else {
            found.iter().for_each(print);
        }
        Ok(if found.iter().all(Inspection::is_read) { Outcome::Done } else { Outcome::Refused })
    }
}

fn print(found: &Inspection) {
    match found {
        Inspection::Features(found) => print_features(found),
        Inspection::Table(found) => print_table(found),
        Inspection::Refused { file, why } => {
            say!("{}", file.display());
            say!("  refused: {why}");
        }
    }
}

fn print_features(found: &FeaturesInspection) {
    say!("{}", found.file.display());
    say!("  {}: {} of shape {:?} in {}", found.dialect, found.tensor, found.shape, found.stored_type);
    say!("  encoder: {}", found.encoder.as_deref().unwrap_or("not said"));
    let sides = [
        (found.patch.pixels, "pixels"),
        (found.patch.level0_pixels, "level-0 pixels"),
        (found.patch.microns, "microns"),
    ];
    let sides: Vec<String> =
        sides.iter().filter_map(|(side, unit)| side.map(|side| format!("{side} {unit}"))).collect();
    say!("  patch size: {}", if sides.is_empty() { "not said".into() } else { sides.join(", ") });
    match &found.coords {
        Some(coords) => match coords.x.zip(coords.y) {
            Some(([left, right], [top, bottom])) => say!(
                "  places in {}, stored in {}: x {left} to {right}, y {top} to {bottom}",
                coords.unit.name(),
                coords.stored_type
            ),
            None => say!("  no places, as there are no instances"),
        },
        None => say!("  no places"),
    }
    let rows = &found.statistics;
    say!("  rows with NaN: {}, with infinities: {}, all zero: {}", rows.nan_rows, rows.infinite_rows, rows.zero_rows);
    for note in &found.notes {
        say!("  note: {note}");
    }
    if found.rows == 0 {
        say!("  refused: a slide without instances; a patient needs one with some");
    } else if found.sound {
        say!("  read as {} instances of {} features in {}", found.rows, found.width, found.dtype);
    } else {
        say!("  refused: every feature must be finite; extract this slide again");
    }
}

fn print_table(found: &TableInspection) {
    /// Columns that are named before the rest is counted.
    const SHOWN: usize = 12;
    say!("{}", found.file.display());
    say!("  table of {} rows and {} columns", found.rows, found.columns.len());
    let named: Vec<&str> = found.columns.iter().take(SHOWN).map(String::as_str).collect();
    let more = found.columns.len().saturating_sub(SHOWN);
    say!("  columns: {}{}", named.join(", "), if more > 0 { format!(" and {more} more") } else { String::new() });
}
