//! Layer normalisation on a CUDA device.

use super::LayerNorm;
use crate::device::{Gpu, Grid, In, Out, kernels};
use crate::element::Real;
use crate::error::Result;
use crate::ops::RowPlan;
use crate::tensor::Tensor;

kernels! { "layer_norm":
    /// Each row of `y` is that of `x`, normalised: at most 128 columns, by 8, 16 or 32 lanes of a warp.
    fn layer_norm_forward_narrow(x: In<f32> = rows * columns, weight: Option<In<f32>> = columns,
        bias: Option<In<f32>> = columns, y: Out<f32> = rows * columns, rows: u32, columns: u32, lanes: u32, eps: f32);
    /// The same of at most 1024 columns, by a warp.
    fn layer_norm_forward(x: In<f32> = rows * columns, weight: Option<In<f32>> = columns, bias: Option<In<f32>> = columns,
        y: Out<f32> = rows * columns, rows: u32, columns: u32, eps: f32);
    /// The gradient of `x`, and the sums for weight and bias over each chunk of `chunk` rows; at most 128 columns.
    fn layer_norm_backward_narrow(x: In<f32> = rows * columns, weight: Option<In<f32>> = columns,
        grad: In<f32> = rows * columns, dx: Out<f32> = rows * columns,
        partials: Out<f32> = rows.div_ceil(chunk) * 2 * columns,
        rows: u32, columns: u32, chunk: u32, lanes: u32, eps: f32);
    /// The same of at most 1024 columns.
    fn layer_norm_backward(x: In<f32> = rows * columns, weight: Option<In<f32>> = columns, grad: In<f32> = rows * columns,
        dx: Out<f32> = rows * columns, partials: Out<f32> = rows.div_ceil(chunk) * 2 * columns,
        rows: u32, columns: u32, chunk: u32, eps: f32);
    /// The partial sums, added in a fixed order of their chunks.
    fn layer_norm_sum(partials: In<f32> = chunks * 2 * columns, dw: Out<f32> = columns, db: Out<f32> = columns,
        chunks: u32, columns: u32);
    /// Longer rows, each by a block.
    fn layer_norm_forward_wide(x: In<f32> = rows * columns, weight: Option<In<f32>> = columns,
        bias: Option<In<f32>> = columns, y: Out<f32> = rows * columns, rows: u32, columns: u32, eps: f32);
    /// The gradient of `x` for longer rows; `stats` are mean and inverse deviation of each.
    fn layer_norm_backward_wide(x: In<f32> = rows * columns, weight: Option<In<f32>> = columns,
        grad: In<f32> = rows * columns, dx: Out<f32> = rows * columns, stats: Out<f32> = 2 * rows,
        rows: u32, columns: u32, eps: f32);
    /// The sums for weight and bias over each chunk of longer rows.
    fn layer_norm_chunks_wide(x: In<f32> = rows * columns, grad: In<f32> = rows * columns, stats: In<f32> = 2 * rows,
        partials: Out<f32> = rows.div_ceil(chunk) * 2 * columns, rows: u32, columns: u32, chunk: u32);
}

const THREADS: u32 = 256;

pub(super) fn forward<T: Real>(
    gpu: Gpu,
    op: LayerNorm,
    x: &Tensor<T>,
    weight: Option<&Tensor<T>>,
    bias: Option<&Tensor<T>>,
) -> Result<Tensor<T>> {
    let (rows, columns) = x.matrix();
    let mut y = gpu.alloc(x.shape())?;
    if y.is_empty() {
        return Ok(y);
    }
    let (n, d, eps) = (rows as u32, columns as u32, op.eps as f32);
    let plan = RowPlan::of(columns);
    let grid = Grid::over(rows, plan.rows(THREADS), THREADS);
    match plan {
        RowPlan::Narrow { lanes } => layer_norm_forward_narrow(gpu, grid, x, weight, bias, &mut y, n, d, lanes, eps)?,
        RowPlan::Warp => layer_norm_forward(gpu, grid, x, weight, bias, &mut y, n, d, eps)?,
        RowPlan::Block => layer_norm_forward_wide(gpu, grid, x, weight, bias, &mut y, n, d, eps)?,
    }
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
    let (mut dx, mut dw, mut db) = (gpu.alloc(x.shape())?, gpu.alloc(&[columns])?, gpu.alloc(&[columns])?);
    if columns == 0 {
        return Ok((dx, dw, db));
    }
    // The chunks depend on the shape alone, not on the device: the same sums on every card.
    let plan = RowPlan::of(columns);
    let at_once = plan.rows(THREADS);
    let chunk = rows.div_ceil(512).next_multiple_of(at_once).max(at_once);
    let chunks = rows.div_ceil(chunk);
    let mut partials = gpu.alloc::<T>(&[chunks, 2, columns])?;
    let (n, d, c, eps) = (rows as u32, columns as u32, chunk as u32, op.eps as f32);
    let grid = Grid::new(chunks, THREADS);
    match plan {
        RowPlan::Narrow { lanes } => {
            layer_norm_backward_narrow(gpu, grid, x, weight, grad, &mut dx, &mut partials, n, d, c, lanes, eps)?;
        }
        RowPlan::Warp => layer_norm_backward(gpu, grid, x, weight, grad, &mut dx, &mut partials, n, d, c, eps)?,
        RowPlan::Block => {
            let mut stats = gpu.alloc::<T>(&[rows, 2])?;
            let each = Grid::new(rows, THREADS);
            layer_norm_backward_wide(gpu, each, x, weight, grad, &mut dx, &mut stats, n, d, eps)?;
            let grid = Grid::over(columns, THREADS as usize, THREADS).times(chunks);
            layer_norm_chunks_wide(gpu, grid, x, grad, &stats, &mut partials, n, d, c)?;
        }
    }
    layer_norm_sum(gpu, Grid::over(columns, 32, THREADS), &partials, &mut dw, &mut db, chunks as u32, d)?;
    Ok((dx, dw, db))
}
