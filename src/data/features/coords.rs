//! Where the patches of a slide lie.

use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::matrix::{Array, Matrix};
use super::why;
use crate::data::problem::{Problem, Problems};
use crate::error::Result;

/// What places are measured in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum CoordUnit {
    /// Pixels of level 0 of the slide, the largest.
    #[serde(rename = "level-0 pixels")]
    Level0Pixels,
    /// Micrometres.
    #[serde(rename = "microns")]
    Microns,
    /// The file does not say.
    #[serde(rename = "unknown")]
    Unknown,
}

impl CoordUnit {
    /// The unit in words.
    pub fn name(self) -> &'static str {
        match self {
            CoordUnit::Level0Pixels => "level-0 pixels",
            CoordUnit::Microns => "microns",
            CoordUnit::Unknown => "an unknown unit",
        }
    }
}

/// The place of each instance of a file: the upper left corner of its patch, x to the right and y down.
#[derive(Debug)]
pub struct Coords {
    path: PathBuf,
    matrix: Matrix,
    unit: CoordUnit,
    scale: f64,
}

impl Coords {
    pub(super) fn new(path: &Path, array: Array, rows: usize, unit: CoordUnit, scale: f64) -> Result<Coords, Problem> {
        let fits = matches!(array.shape[..], [n, 2] | [1, n, 2] if n == rows) || (array.shape == [0] && rows == 0);
        if !fits {
            let want = format!("[{rows}, 2], one place for each row of features");
            return Err(Problem::TensorShape { file: path.into(), tensor: array.name, want, got: array.shape });
        }
        Ok(Coords { path: path.into(), matrix: array.matrix(path)?, unit, scale })
    }

    /// What the places are measured in, after what [`read`](Self::read) does to them.
    pub fn unit(&self) -> CoordUnit {
        self.unit
    }

    /// The element type as it is stored, as safetensors names it.
    pub fn stored_type(&self) -> &'static str {
        self.matrix.number.name()
    }

    /// The places of some instances, x and y, in [`unit`](Self::unit).
    ///
    /// # Errors
    /// [`Error::Data`](crate::Error::Data) if that part of the file is damaged.
    ///
    /// # Panics
    /// If the file has no such instances.
    pub fn read(&self, rows: Range<usize>) -> Result<Vec<[f64; 2]>> {
        assert!(rows.start <= rows.end && rows.end <= self.matrix.rows, "rows that the file has");
        let bytes = self.matrix.number.bytes();
        let mut stored = vec![0; 2 * bytes * rows.len()];
        self.matrix
            .read(rows, &mut stored)
            .map_err(|e| Problems(vec![why(&self.path, format!("coords cannot be read: {e}"))]))?;
        let value =
            |at: usize, place: &[u8]| self.scale * self.matrix.number.value(&place[at * bytes..(at + 1) * bytes]);
        Ok(stored.chunks_exact(2 * bytes).map(|place| [value(0, place), value(1, place)]).collect())
    }

    /// The range of x and that of y; none for a file without instances.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn range(&self) -> Result<Option<[[f64; 2]; 2]>> {
        /// Places that are looked at together.
        const BLOCK: usize = 1 << 16;
        let mut range: Option<[[f64; 2]; 2]> = None;
        for first in (0..self.matrix.rows).step_by(BLOCK) {
            for place in self.read(first..(first + BLOCK).min(self.matrix.rows))? {
                let range = range.get_or_insert(place.map(|x| [x, x]));
                for (range, x) in range.iter_mut().zip(place) {
                    *range = [range[0].min(x), range[1].max(x)];
                }
            }
        }
        Ok(range)
    }
}
