//! The files of `tests/fixtures`, and the formula that their values come from.

use std::path::{Path, PathBuf};

use half::{bf16, f16};
use onkos::FeatureType;
use onkos::data::FeatureFile;

pub(crate) const ROWS: usize = 37;
pub(crate) const WIDTH: usize = 24;

pub(crate) fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

pub(crate) fn open(name: &str) -> FeatureFile {
    FeatureFile::open(path(name)).unwrap_or_else(|e| panic!("{e}"))
}

/// What `make.py` writes in row `i`, column `j`.
pub(crate) fn feature(i: usize, j: usize) -> f32 {
    (((31 * i + 17 * j) % 257) as f32 - 128.0) / 16.0
}

/// The place of row `i`, `step` from the next.
pub(crate) fn place(i: usize, step: f64) -> [f64; 2] {
    [step * (i % 7) as f64, step * (i / 7) as f64]
}

pub(crate) fn bytes(dtype: FeatureType, value: f32) -> Vec<u8> {
    match dtype {
        FeatureType::F32 => value.to_le_bytes().to_vec(),
        FeatureType::F16 => f16::from_f32(value).to_le_bytes().to_vec(),
        FeatureType::Bf16 => bf16::from_f32(value).to_le_bytes().to_vec(),
    }
}

/// The bytes of rows by the formula.
pub(crate) fn rows(dtype: FeatureType, rows: std::ops::Range<usize>, width: usize) -> Vec<u8> {
    rows.flat_map(|i| (0..width).flat_map(move |j| bytes(dtype, feature(i, j)))).collect()
}

/// Every file of features in the folder, sorted.
pub(crate) fn all() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(path("")).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = entries.filter(|path| path.extension().is_none_or(|e| e != "py")).collect();
    files.sort();
    assert!(files.len() >= 40, "{files:?}");
    files
}
