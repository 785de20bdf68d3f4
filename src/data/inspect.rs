//! What a file is and what onkos would do with it: `onkos inspect`.

use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::bytes::Reading;
use super::features::{CoordUnit, Dialect, FeatureFile, PatchSize, Statistics};
use super::problem::{Problem, Problems};
use super::table::Table;
use crate::error::Error;
use crate::features::FeatureType;

/// What a file is.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
#[non_exhaustive]
pub enum Inspection {
    /// Patch features that onkos reads.
    Features(Box<FeaturesInspection>),
    /// A table of text.
    Table(TableInspection),
    /// Something that onkos does not read.
    Refused {
        /// The file.
        file: PathBuf,
        /// What it is, and what to do, in a sentence.
        why: String,
    },
}

/// What a file of patch features holds.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct FeaturesInspection {
    /// The file.
    pub file: PathBuf,
    /// The tool and the format.
    pub dialect: Dialect,
    /// What the features are called in the file.
    pub tensor: String,
    /// Their shape as it is stored.
    pub shape: Vec<usize>,
    /// Their element type as it is stored.
    pub stored_type: &'static str,
    /// The number of instances.
    pub rows: usize,
    /// The number of features of an instance.
    pub width: usize,
    /// The element type that they are read in.
    pub dtype: FeatureType,
    /// The encoder, if the file says.
    pub encoder: Option<String>,
    /// The sides of a patch, as far as the file says.
    pub patch: PatchSize,
    /// The places of the instances, if the file has them.
    pub coords: Option<CoordsInspection>,
    /// Rows that are likely wrong.
    #[serde(flatten)]
    pub statistics: Statistics,
    /// Whether a cohort with this file opens: there are rows, and none has a NaN or an infinity.
    pub sound: bool,
    /// What is done to the features, or guessed, in sentences.
    pub notes: Vec<String>,
}

/// The places of a file of patch features.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct CoordsInspection {
    /// What they are measured in.
    pub unit: CoordUnit,
    /// Their element type as it is stored.
    pub stored_type: &'static str,
    /// The smallest and the largest x; none without instances.
    pub x: Option<[f64; 2]>,
    /// The smallest and the largest y.
    pub y: Option<[f64; 2]>,
}

/// What a table holds.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct TableInspection {
    /// The file.
    pub file: PathBuf,
    /// The names of the columns.
    pub columns: Vec<String>,
    /// The rows below the header.
    pub rows: usize,
}

/// Looks at a file, whatever it is. Reads all of a file of features.
pub fn inspect(path: impl AsRef<Path>) -> Inspection {
    inspect_by(path, Reading::default())
}

/// Like [`inspect`], with a choice of how files of features are read.
pub fn inspect_by(path: impl AsRef<Path>, reading: Reading) -> Inspection {
    let path = path.as_ref();
    let looked = match FeatureFile::read(path, reading) {
        Ok(file) => features(&file).map(|found| Inspection::Features(Box::new(found))),
        Err(Problem::Features { .. }) if is_text(path) => table(path),
        Err(problem) => Err(problem),
    };
    looked.unwrap_or_else(|problem| {
        let (file, sentence) = (path.to_path_buf(), problem.to_string());
        let named = format!("{}: ", path.display());
        let why = sentence.strip_prefix(&named).map(str::to_owned).unwrap_or(sentence);
        Inspection::Refused { file, why }
    })
}

impl Inspection {
    /// Whether onkos reads the file.
    pub fn is_read(&self) -> bool {
        match self {
            Inspection::Features(found) => found.sound,
            Inspection::Table(_) => true,
            Inspection::Refused { .. } => false,
        }
    }
}

/// The first problem of a reading that failed.
fn first(error: Error) -> Problem {
    match error {
        Error::Data(Problems(mut problems)) => problems.remove(0),
        other => Problem::Features { file: PathBuf::new(), why: other.to_string() },
    }
}

fn features(file: &FeatureFile) -> Result<FeaturesInspection, Problem> {
    let coords = file.coords().map(|coords| {
        let [x, y] = coords.range().map_err(first)?.map_or([None; 2], |range| range.map(Some));
        Ok(CoordsInspection { unit: coords.unit(), stored_type: coords.stored_type(), x, y })
    });
    let statistics = file.statistics().map_err(first)?;
    Ok(FeaturesInspection {
        file: file.path().into(),
        dialect: file.dialect(),
        tensor: file.tensor().into(),
        shape: file.stored_shape().into(),
        stored_type: file.stored_type(),
        rows: file.rows(),
        width: file.width(),
        dtype: file.dtype(),
        encoder: file.encoder().map(str::to_owned),
        patch: file.patch_size(),
        coords: coords.transpose()?,
        statistics,
        sound: file.rows() > 0 && statistics.nan_rows == 0 && statistics.infinite_rows == 0,
        notes: file.notes().to_vec(),
    })
}

/// Whether a file begins with a line of text that could be the header of a table.
fn is_text(path: &Path) -> bool {
    const START: u64 = 4096;
    let mut start = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(START).read_to_end(&mut start));
    // What is cut within a character at the end is text too.
    let text = |start: &[u8]| std::str::from_utf8(start).is_ok_and(|text| text.contains([',', '\t']));
    read.is_ok() && !start.contains(&0) && (0..4).any(|cut| text(&start[..start.len().saturating_sub(cut)]))
}

fn table(path: &Path) -> Result<Inspection, Problem> {
    let mut problems = Problems::default();
    match Table::read(path, true, &mut problems) {
        Some(table) if problems.is_empty() => {
            Ok(Inspection::Table(TableInspection { file: path.into(), columns: table.header, rows: table.rows.len() }))
        }
        _ => Err(problems.0.into_iter().next().unwrap_or(Problem::EmptyTable { file: path.into() })),
    }
}
