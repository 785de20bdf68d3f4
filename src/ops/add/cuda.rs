//! The element-wise sum on a CUDA device.

use crate::device::{Gpu, Grid, In, Out, kernels};
use crate::element::Real;
use crate::error::Result;
use crate::tensor::Tensor;

kernels! { "add":
    /// `y = a + b`.
    fn add_forward(a: In<f32> = n, b: In<f32> = n, y: Out<f32> = n, n: u64);
    /// `sum += x`.
    fn add_accumulate(x: In<f32> = n, sum: Out<f32> = n, n: u64);
}

/// Threads of a block, and elements of a block.
const THREADS: u32 = 256;
const EACH: usize = 4 * THREADS as usize;

pub(super) fn forward<T: Real>(gpu: Gpu, a: &Tensor<T>, b: &Tensor<T>) -> Result<Tensor<T>> {
    let mut y = gpu.alloc(a.shape())?;
    add_forward(gpu, Grid::over(a.len(), EACH, THREADS), a, b, &mut y, a.len() as u64)?;
    Ok(y)
}

/// `sum += x`, in place: what the tape adds gradients with.
pub(crate) fn add_assign<T: Real>(gpu: Gpu, sum: &mut Tensor<T>, x: &Tensor<T>) -> Result<()> {
    let n = sum.len();
    add_accumulate(gpu, Grid::over(n, EACH, THREADS), x, sum, n as u64)
}
