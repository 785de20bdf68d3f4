//! The section `[slides]`: where the bags of each patient lie.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::bags::{Bags, Piece};
use super::clinical::Clinical;
use super::file::SlidesFile;
use super::problem::{Problem, Problems};
use super::tensors::TensorFile;
use crate::error::said;
use crate::features::FeatureType;

/// The tensor of patch features in every file.
const FEATURES: &str = "features";
/// Wider than the features of any encoder; keeps a header of no rows and absurd columns from overflowing.
const MAX_WIDTH: usize = 1 << 24;

/// What was found: the bags (empty for a patient without slides) and the files they lie in.
pub(crate) struct Slides {
    pub(crate) bags: Bags,
    pub(crate) files: Vec<PathBuf>,
    /// Slides that the clinical table names and the folder has not, each with the index of its patient.
    pub(crate) missing: Vec<(usize, String)>,
}

impl Slides {
    /// Finds the bags of the patients of a clinical table; without that table, only checks the packed file.
    pub(crate) fn read(
        folder: &Path,
        section: &SlidesFile,
        clinical: Option<&Clinical>,
        problems: &mut Problems,
    ) -> Option<Slides> {
        match (&section.file, &section.dir) {
            (Some(file), None) => packed(&folder.join(file), clinical, problems),
            (None, Some(dir)) => one_file_a_slide(&folder.join(dir), clinical?, problems),
            // Refused when the cohort file was read.
            _ => None,
        }
    }
}

/// The features of a file: rows, width, element type and first byte.
struct Matrix {
    rows: usize,
    width: usize,
    dtype: FeatureType,
    start: usize,
}

fn features(file: &TensorFile, problems: &mut Problems) -> Option<Matrix> {
    let info = file.tensor(FEATURES, problems)?;
    let (path, tensor) = (file.path.clone(), FEATURES.to_owned());
    let Some(dtype) = FeatureType::from_name(&info.dtype) else {
        let want = "F32, F16 or BF16";
        problems.push(Problem::Dtype { file: path, tensor, want, got: info.dtype.clone() });
        return None;
    };
    match info.shape[..] {
        [_, 0] => problems.push(Problem::WidthZero { file: path, tensor }),
        // Some tools keep a leading 1 for the batch.
        [rows, width] | [1, rows, width] if width <= MAX_WIDTH => {
            return Some(Matrix { rows, width, dtype, start: info.range.start });
        }
        [_] => {
            let want = "[instances, features]; one vector is a whole slide, not its patches".into();
            problems.push(Problem::TensorShape { file: path, tensor, want, got: info.shape.clone() });
        }
        _ => {
            let want = "[instances, features]".into();
            problems.push(Problem::TensorShape { file: path, tensor, want, got: info.shape.clone() });
        }
    }
    None
}

fn check_coords(file: &TensorFile, rows: usize, problems: &mut Problems) {
    let mut absent = Problems::default();
    if let Some(info) = file.tensor("coords", &mut absent)
        && info.shape != [rows, 2]
    {
        let want = format!("[{rows}, 2], one place for each row of features");
        let (file, tensor) = (file.path.clone(), "coords".into());
        problems.push(Problem::TensorShape { file, tensor, want, got: info.shape.clone() });
    }
}

fn packed(path: &Path, clinical: Option<&Clinical>, problems: &mut Problems) -> Option<Slides> {
    let file = Arc::new(TensorFile::open(path, problems)?);
    let matrix = features(&file, problems);
    if let Some(matrix) = &matrix {
        check_coords(&file, matrix.rows, problems);
    }
    let info = file.tensor("offsets", problems)?;
    let offsets = file.integers("offsets", info, problems)?;
    let patients = clinical.map(|c| c.patients.len());
    if info.shape.len() != 1 || patients.is_some_and(|p| p + 1 != info.shape[0]) || offsets.is_empty() {
        let want = patients.map_or("[patients + 1]".into(), |p| format!("[{}], one more than the patients", p + 1));
        let (file, tensor) = (path.into(), "offsets".into());
        problems.push(Problem::TensorShape { file, tensor, want, got: info.shape.clone() });
        return None;
    }
    let matrix = matrix?;
    let before = problems.0.len();
    let mut wrong = |index, value, want| problems.push(Problem::Offset { file: path.into(), index, value, want });
    if offsets[0] != 0 {
        wrong(0, offsets[0], "0".into());
    }
    for i in 1..offsets.len() {
        if offsets[i] < offsets[i - 1] {
            wrong(i, offsets[i], format!("at least {}, the one before", offsets[i - 1]));
        } else if offsets[i] > matrix.rows as i128 {
            wrong(i, offsets[i], format!("at most {}, the rows of features", matrix.rows));
        }
    }
    let last = offsets.len() - 1;
    if offsets[last] < matrix.rows as i128 {
        wrong(last, offsets[last], format!("{}, the rows of features", matrix.rows));
    }
    if problems.0.len() > before {
        return None;
    }
    let row_bytes = matrix.width * matrix.dtype.bytes();
    let pieces = clinical?.patients.iter().zip(offsets.windows(2)).map(|(patient, w)| {
        let (first_row, rows) = (w[0] as usize, (w[1] - w[0]) as usize);
        let start = matrix.start + first_row * row_bytes;
        let piece = Piece { file: file.clone(), name: patient.case.clone(), first_row, rows, start };
        if rows == 0 { Vec::new() } else { vec![piece] }
    });
    let bags = Bags::new(matrix.width, matrix.dtype, pieces.collect());
    Some(Slides { bags, files: vec![path.into()], missing: Vec::new() })
}

/// What the other formats are called, so that a slide in one of them is not said to be missing.
const OTHER_FORMATS: [&str; 4] = ["h5", "pt", "npy", "npz"];

fn one_file_a_slide(dir: &Path, clinical: &Clinical, problems: &mut Problems) -> Option<Slides> {
    if let Err(e) = std::fs::read_dir(dir) {
        problems.push(Problem::Unreadable { file: dir.into(), why: said(&e) });
        return None;
    }
    let mut first: Option<(PathBuf, usize, FeatureType)> = None;
    let (mut files, mut missing, mut pieces) = (Vec::new(), Vec::new(), Vec::new());
    for (index, patient) in clinical.patients.iter().enumerate() {
        let mut names: Vec<&str> = patient.slides.iter().map(String::as_str).collect();
        let there = |name: &str| named(dir, name, "safetensors").is_some_and(|path| path.exists());
        if !names.iter().any(|name| there(name)) && there(&patient.case) {
            names = vec![&patient.case];
        }
        let mut bag = Vec::new();
        for name in if names.is_empty() { vec![patient.case.as_str()] } else { names } {
            let Some(path) = named(dir, name, "safetensors").filter(|path| path.exists()) else {
                let other =
                    OTHER_FORMATS.iter().filter_map(|extension| named(dir, name, extension)).find(|p| p.exists());
                match other {
                    Some(file) => {
                        let want = "safetensors with a tensor \"features\" [instances, features] in F32, F16 or BF16";
                        problems.push(Problem::SlideFormat { file, want });
                    }
                    None => missing.push((index, name.to_owned())),
                }
                continue;
            };
            let Some(file) = TensorFile::open(&path, problems) else { continue };
            files.push(path.clone());
            let Some(matrix) = features(&file, problems) else { continue };
            check_coords(&file, matrix.rows, problems);
            let (known, width, dtype) = first.get_or_insert((path.clone(), matrix.width, matrix.dtype));
            if (*width, *dtype) != (matrix.width, matrix.dtype) {
                let want = format!("{width} wide in {dtype}");
                let got = format!("{} wide in {}", matrix.width, matrix.dtype);
                problems.push(Problem::SlideDiffers { file: path, first: known.clone(), want, got });
                continue;
            }
            let name = name.to_owned();
            if matrix.rows > 0 {
                bag.push(Piece { file: Arc::new(file), name, first_row: 0, rows: matrix.rows, start: matrix.start });
            }
        }
        pieces.push(bag);
    }
    let (_, width, dtype) = first.unwrap_or((PathBuf::new(), 0, FeatureType::F32));
    Some(Slides { bags: Bags::new(width, dtype, pieces), files, missing })
}

/// The file of that name in a folder; none if the name would lead out of it.
fn named(dir: &Path, name: &str, extension: &str) -> Option<PathBuf> {
    let plain = !name.is_empty() && !name.contains(['/', '\\', '\0']) && name != "." && name != "..";
    plain.then(|| dir.join(format!("{name}.{extension}")))
}
