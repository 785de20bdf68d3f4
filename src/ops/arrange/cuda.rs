//! Rows in another order on a CUDA device.

use super::Standing;
use crate::device::{Gpu, Grid, In, Out, kernels};
use crate::element::Real;
use crate::error::Result;
use crate::tensor::Tensor;

kernels! { "arrange":
    /// The rows of one source at their places.
    fn arrange_forward(x: In<f32> = rows * columns, row: In<u32> = places, y: Out<f32> = places * columns, rows: u32, places: u32,
        columns: u32);
    /// What came to the places of each row of one source.
    fn arrange_backward(grad: In<f32> = places * columns, starts: In<u32> = rows + 1, at: In<u32> = stands,
        dx: Out<f32> = rows * columns, rows: u32, places: u32, stands: u32, columns: u32);
}

/// Warps of a block, each with a row.
const WARPS: usize = 8;
const THREADS: u32 = 32 * WARPS as u32;

pub(super) fn forward<T: Real>(
    gpu: Gpu,
    shape: &[usize; 2],
    sources: &[&Tensor<T>],
    standing: &[Standing],
) -> Result<Tensor<T>> {
    let mut y = gpu.alloc(shape)?;
    let [places, columns] = shape.map(|n| n as u32);
    for (x, standing) in sources.iter().zip(standing) {
        let (grid, row) = (Grid::over(shape[0], WARPS, THREADS), standing.row.on(gpu)?);
        arrange_forward(gpu, grid, *x, &row, &mut y, standing.rows as u32, places, columns)?;
    }
    Ok(y)
}

pub(super) fn backward<T: Real>(gpu: Gpu, standing: &Standing, grad: &Tensor<T>) -> Result<Tensor<T>> {
    let (places, columns) = grad.matrix();
    let (starts, at) = (standing.starts.on(gpu)?, standing.places.on(gpu)?);
    let mut dx = gpu.alloc(&[standing.rows, columns])?;
    let grid = Grid::over(standing.rows, WARPS, THREADS);
    let [rows, places, stands, columns] = [standing.rows, places, standing.places.len(), columns].map(|n| n as u32);
    arrange_backward(gpu, grid, grad, &starts, &at, &mut dx, rows, places, stands, columns)?;
    Ok(dx)
}
