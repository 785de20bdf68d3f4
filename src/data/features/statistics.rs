//! What the values of a file of features look like.

use rayon::prelude::*;
use serde::Serialize;

use super::FeatureFile;
use crate::error::Result;
use crate::features::FeatureType;

/// Rows of a file of features that are likely wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Statistics {
    /// Rows with a NaN in them.
    pub nan_rows: usize,
    /// Rows with an infinity in them.
    pub infinite_rows: usize,
    /// Rows that are zero throughout.
    pub zero_rows: usize,
}

impl FeatureFile {
    /// Looks at every element. The work is divided by blocks of rows.
    ///
    /// # Errors
    /// [`Error::Data`](crate::Error::Data) if a part of the file is damaged.
    pub fn statistics(&self) -> Result<Statistics> {
        let step = self.block_rows();
        let blocks: Vec<usize> = (0..self.rows()).step_by(step).collect();
        let counted: Vec<Result<Statistics>> = blocks
            .into_par_iter()
            .map(|first| {
                let rows = first..(first + step).min(self.rows());
                let mut bytes = vec![0; rows.len() * self.row_bytes()];
                self.read_rows(rows, &mut bytes)?;
                Ok(Statistics::of(&bytes, self.row_bytes(), self.dtype()))
            })
            .collect();
        let mut all = Statistics::default();
        for block in counted {
            let block = block?;
            all.nan_rows += block.nan_rows;
            all.infinite_rows += block.infinite_rows;
            all.zero_rows += block.zero_rows;
        }
        Ok(all)
    }
}

impl Statistics {
    fn of(rows: &[u8], row_bytes: usize, dtype: FeatureType) -> Statistics {
        let mut all = Statistics::default();
        for row in rows.chunks_exact(row_bytes) {
            let values = || row.chunks_exact(dtype.bytes()).map(|bytes| dtype.read(bytes));
            all.nan_rows += usize::from(values().any(f32::is_nan));
            all.infinite_rows += usize::from(values().any(f32::is_infinite));
            all.zero_rows += usize::from(values().all(|x| x == 0.0));
        }
        all
    }
}
