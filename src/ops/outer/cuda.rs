//! The outer product of rows on a CUDA device.

use super::Dims;
use crate::device::{Gpu, Grid, In, Out, kernels};
use crate::element::Real;
use crate::error::Result;
use crate::tensor::Tensor;

kernels! { "outer":
    /// The products.
    fn outer_forward(u: In<f32> = rows * p, v: In<f32> = rows * q, y: Out<f32> = rows * (p + ones) * (q + ones), rows: u32, p: u32,
        q: u32, ones: u32);
    /// The gradient of `u`.
    fn outer_left(v: In<f32> = rows * q, grad: In<f32> = rows * (p + ones) * (q + ones), du: Out<f32> = rows * p, rows: u32, p: u32,
        q: u32, ones: u32);
    /// The gradient of `v`.
    fn outer_right(u: In<f32> = rows * p, grad: In<f32> = rows * (p + ones) * (q + ones), dv: Out<f32> = rows * q, rows: u32, p: u32,
        q: u32, ones: u32);
}

/// Threads of a block.
const THREADS: u32 = 256;
/// Warps of it.
const WARPS: usize = 8;

fn sizes(dims: Dims) -> [u32; 4] {
    [dims.rows, dims.p, dims.q, usize::from(dims.ones)].map(|n| n as u32)
}

pub(super) fn forward<T: Real>(gpu: Gpu, dims: Dims, u: &Tensor<T>, v: &Tensor<T>) -> Result<Tensor<T>> {
    let ([rows, p, q, ones], [whole_p, whole_q]) = (sizes(dims), dims.whole());
    let mut y = gpu.alloc(&[dims.rows, whole_p * whole_q])?;
    outer_forward(gpu, Grid::over(y.len(), THREADS as usize, THREADS), u, v, &mut y, rows, p, q, ones)?;
    Ok(y)
}

pub(super) fn backward<T: Real>(
    gpu: Gpu,
    dims: Dims,
    u: &Tensor<T>,
    v: &Tensor<T>,
    grad: &Tensor<T>,
) -> Result<[Tensor<T>; 2]> {
    let [rows, p, q, ones] = sizes(dims);
    let (mut du, mut dv) = (gpu.alloc(u.shape())?, gpu.alloc(v.shape())?);
    outer_left(gpu, Grid::over(u.len(), WARPS, THREADS), v, grad, &mut du, rows, p, q, ones)?;
    outer_right(gpu, Grid::over(v.len(), THREADS as usize, THREADS), u, grad, &mut dv, rows, p, q, ones)?;
    Ok([du, dv])
}
