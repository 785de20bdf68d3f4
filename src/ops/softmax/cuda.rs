//! Softmax on a CUDA device.

use crate::device::{Gpu, Grid, In, Out, kernels};
use crate::element::Real;
use crate::error::Result;
use crate::ops::RowPlan;
use crate::tensor::Tensor;

kernels! { "softmax":
    /// Rows of at most 128 columns, each by 8, 16 or 32 lanes of a warp.
    fn softmax_forward_narrow(x: In<f32> = rows * columns, y: Out<f32> = rows * columns,
        rows: u32, columns: u32, lanes: u32);
    /// Rows of at most 1024 columns, each by a warp.
    fn softmax_forward(x: In<f32> = rows * columns, y: Out<f32> = rows * columns, rows: u32, columns: u32);
    /// The gradient of `x` for rows of at most 128 columns.
    fn softmax_backward_narrow(y: In<f32> = rows * columns, grad: In<f32> = rows * columns, dx: Out<f32> = rows * columns,
        rows: u32, columns: u32, lanes: u32);
    /// The gradient of `x` for rows of at most 1024 columns.
    fn softmax_backward(y: In<f32> = rows * columns, grad: In<f32> = rows * columns, dx: Out<f32> = rows * columns,
        rows: u32, columns: u32);
    /// Longer rows, each by a block.
    fn softmax_forward_wide(x: In<f32> = rows * columns, y: Out<f32> = rows * columns, rows: u32, columns: u32);
    /// The gradient of `x` for longer rows.
    fn softmax_backward_wide(y: In<f32> = rows * columns, grad: In<f32> = rows * columns, dx: Out<f32> = rows * columns,
        rows: u32, columns: u32);
}

const THREADS: u32 = 256;

pub(super) fn forward<T: Real>(gpu: Gpu, x: &Tensor<T>) -> Result<Tensor<T>> {
    let (rows, columns) = x.matrix();
    let mut y = gpu.alloc(x.shape())?;
    if y.is_empty() {
        return Ok(y);
    }
    let (n, d) = (rows as u32, columns as u32);
    let plan = RowPlan::of(columns);
    let grid = Grid::over(rows, plan.rows(THREADS), THREADS);
    match plan {
        RowPlan::Narrow { lanes } => softmax_forward_narrow(gpu, grid, x, &mut y, n, d, lanes)?,
        RowPlan::Warp => softmax_forward(gpu, grid, x, &mut y, n, d)?,
        RowPlan::Block => softmax_forward_wide(gpu, grid, x, &mut y, n, d)?,
    }
    Ok(y)
}

pub(super) fn backward<T: Real>(gpu: Gpu, y: &Tensor<T>, grad: &Tensor<T>) -> Result<Tensor<T>> {
    let (rows, columns) = y.matrix();
    let mut dx = gpu.alloc(y.shape())?;
    if dx.is_empty() {
        return Ok(dx);
    }
    let (n, d) = (rows as u32, columns as u32);
    let plan = RowPlan::of(columns);
    let grid = Grid::over(rows, plan.rows(THREADS), THREADS);
    match plan {
        RowPlan::Narrow { lanes } => softmax_backward_narrow(gpu, grid, y, grad, &mut dx, n, d, lanes)?,
        RowPlan::Warp => softmax_backward(gpu, grid, y, grad, &mut dx, n, d)?,
        RowPlan::Block => softmax_backward_wide(gpu, grid, y, grad, &mut dx, n, d)?,
    }
    Ok(dx)
}
