//! The gathering of rows on a CUDA device.

use crate::device::{Gpu, Grid, In, Out, kernels};
use crate::element::Feature;
use crate::error::Result;
use crate::shape::Ragged;
use crate::tensor::Tensor;

kernels! { "gather":
    /// Row `offset[b] + i` of `y` is row `start[b] + i` of `x`.
    fn gather_rows<F in f32, f16, bf16>(x: In<F> = stored * columns, start: In<u32> = bags, offset: In<u32> = bags + 1,
        y: Out<F> = rows * columns, stored: u32, bags: u32, rows: u32, columns: u32);
}

/// Warps of a block, and the rows that a warp copies one after another.
const WARPS: usize = 8;
const ROWS: usize = 4;

pub(super) fn forward<F: Feature>(gpu: Gpu, x: &Tensor<F>, starts: &[usize], bags: &Ragged) -> Result<Tensor<F>> {
    let (stored, columns) = x.matrix();
    let narrow = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    assert!(u32::try_from(stored).is_ok(), "more than 2^32 - 1 rows in one matrix");
    let start: Vec<u32> = starts.iter().map(|&s| narrow(s)).collect();
    let start = gpu.upload(&[starts.len()], &start)?;
    let mut y = gpu.alloc(&[bags.rows(), columns])?;
    let grid = Grid::over(bags.rows(), WARPS * ROWS, 32 * WARPS as u32);
    let [m, b, n, l] = [stored, bags.bags(), bags.rows(), columns].map(narrow);
    gather_rows::<F>(gpu, grid, x, &start, &bags.on(gpu)?, &mut y, m, b, n, l)?;
    Ok(y)
}
