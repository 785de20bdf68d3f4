//! The slides of a patient, and where their patches lie.

use std::ops::Range;

use super::bags::{Bags, Piece};
use super::features::{CoordUnit, PatchSize};
use super::problem::Problems;
use crate::error::Result;

/// A slide of a patient of a cohort.
#[derive(Clone, Debug)]
pub struct Slide<'a> {
    piece: &'a Piece,
    rows: Range<usize>,
}

impl Slide<'_> {
    /// What the slide is called; the case where a bag is not told apart by slides.
    pub fn name(&self) -> &str {
        &self.piece.name
    }

    /// Its rows among those of the patient.
    pub fn rows(&self) -> Range<usize> {
        self.rows.clone()
    }

    /// What its places are measured in; none without places.
    pub fn unit(&self) -> Option<CoordUnit> {
        self.piece.places
    }

    /// The sides of a patch, as far as its file says.
    pub fn patch_size(&self) -> PatchSize {
        self.piece.patch
    }

    /// The upper left corner of each patch, x and y, in [`unit`](Self::unit); none without places.
    ///
    /// # Errors
    /// [`Error::Data`](crate::Error::Data) if that part of the file is damaged.
    pub fn places(&self) -> Result<Option<Vec<[f64; 2]>>> {
        let (first, rows) = (self.piece.first_row, self.piece.rows);
        let coords = self.piece.places.and_then(|_| self.piece.file.coords());
        coords.map(|coords| coords.read(first..first + rows)).transpose()
    }
}

impl Bags {
    /// The slides of a patient, in the order of the rows of the bag.
    ///
    /// # Panics
    /// If there is no such patient.
    pub fn slides(&self, patient: usize) -> Vec<Slide<'_>> {
        let starts = self.pieces[patient].iter().scan(0, |next, piece| {
            let start = *next;
            *next += piece.rows;
            Some((piece, start))
        });
        starts.map(|(piece, start)| Slide { piece, rows: start..start + piece.rows }).collect()
    }

    /// Looks at every feature of some patients, for a cohort that was opened without that.
    ///
    /// # Errors
    /// [`Error::Data`](crate::Error::Data) names each slide with a NaN or an infinity, and each that cannot be read.
    pub fn look_through(&self, patients: &[usize]) -> Result<()> {
        let mut problems = Problems::default();
        self.select(patients).scan(&mut problems);
        problems.or(())
    }
}
