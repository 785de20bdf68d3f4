//! Layer normalisation on a CUDA device.

use super::LayerNorm;
use crate::device::{Gpu, Grid, In, Out, kernels};
use crate::element::Real;
use crate::error::Result;
use crate::tensor::Tensor;

kernels! { "layer_norm":
    /// Each row of `y` is that of `x`, normalised.
    fn layer_norm_forward(x: In<f32> = rows * columns, weight: Option<In<f32>> = columns, bias: Option<In<f32>> = columns,
        y: Out<f32> = rows * columns, rows: u32, columns: u32, eps: f32);
    /// The gradient of `x`, and the sums for weight and bias over each chunk of `chunk` rows.
    fn layer_norm_backward(x: In<f32> = rows * columns, weight: Option<In<f32>> = columns, grad: In<f32> = rows * columns,
        dx: Out<f32> = rows * columns, partials: Out<f32> = rows.div_ceil(chunk) * 2 * columns,
        rows: u32, columns: u32, chunk: u32, eps: f32);
    /// The partial sums, added in the order of their chunks.
    fn layer_norm_sum(partials: In<f32> = chunks * 2 * columns, dw: Out<f32> = columns, db: Out<f32> = columns,
        chunks: u32, columns: u32);
}

/// Warps of a block, each with a row at a time.
const WARPS: usize = 8;
const THREADS: u32 = 32 * WARPS as u32;

pub(super) fn forward<T: Real>(
    gpu: Gpu,
    op: LayerNorm,
    x: &Tensor<T>,
    weight: Option<&Tensor<T>>,
    bias: Option<&Tensor<T>>,
) -> Result<Tensor<T>> {
    let (rows, columns) = x.matrix();
    let mut y = gpu.alloc(x.shape())?;
    let grid = Grid::over(rows, WARPS, THREADS);
    layer_norm_forward(gpu, grid, x, weight, bias, &mut y, rows as u32, columns as u32, op.eps as f32)?;
    Ok(y)
}

pub(super) fn backward<T: Real>(
    gpu: Gpu,
    op: LayerNorm,
    x: &Tensor<T>,
    weight: Option<&Tensor<T>>,
    grad: &Tensor<T>,
) -> Result<(Tensor<T>, Tensor<T>, Tensor<T>)> {
    let (rows, columns) = x.matrix();
    // The chunks depend on the number of rows alone, not on the device: the same sums on every card.
    let chunk = rows.div_ceil(512).max(WARPS);
    let chunks = rows.div_ceil(chunk);
    let mut dx = gpu.alloc(x.shape())?;
    let mut partials = gpu.alloc::<T>(&[chunks, 2, columns])?;
    let (n, d, c) = (rows as u32, columns as u32, chunk as u32);
    let shared = WARPS * 2 * columns * size_of::<f32>();
    let grid = Grid::new(chunks, THREADS).shared(shared);
    layer_norm_backward(gpu, grid, x, weight, grad, &mut dx, &mut partials, n, d, c, op.eps as f32)?;
    let (mut dw, mut db) = (gpu.alloc(&[columns])?, gpu.alloc(&[columns])?);
    layer_norm_sum(gpu, Grid::over(columns, 256, 256), &partials, &mut dw, &mut db, chunks as u32, d)?;
    Ok((dx, dw, db))
}
