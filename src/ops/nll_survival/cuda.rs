//! The discrete-time likelihood on a CUDA device.

use super::NllSurvival;
use crate::device::{Gpu, Grid, In, Out, kernels};
use crate::element::Real;
use crate::error::Result;
use crate::tensor::Tensor;

kernels! { "nll_survival":
    /// The gradient, and the sum of the losses of each chunk of patients; the loss if there is one chunk.
    fn nll_survival_forward(logits: In<f32> = patients * bins, outcome: In<u32> = patients,
        gradient: Out<f32> = patients * bins, partials: Out<f64> = patients.div_ceil(chunk).max(1), loss: Out<f32> = 1,
        patients: u32, bins: u32, chunk: u32, alpha: f64, eps: f64, divisor: f64);
    /// The loss of several chunks.
    fn nll_survival_sum(partials: In<f64> = chunks, loss: Out<f32> = 1, chunks: u32, divisor: f64);
    /// `dx = gradient grad`, where `grad` is what the loss is owed.
    fn nll_survival_backward(gradient: In<f32> = n, grad: In<f32> = 1, dx: Out<f32> = n, n: u64);
}

const THREADS: u32 = 256;
/// Patients of a chunk: one launch does for as many.
const CHUNK: usize = 4 * THREADS as usize;

/// The loss, a scalar, and its gradient. What was reduced is divided by `divisor`.
pub(super) fn evaluate<T: Real>(
    gpu: Gpu,
    op: &NllSurvival,
    divisor: f64,
    logits: &Tensor<T>,
    bin: &[u32],
    censored: &[bool],
) -> Result<(Tensor<T>, Tensor<T>)> {
    let (patients, bins) = logits.matrix();
    let outcome: Vec<u32> = bin.iter().zip(censored).map(|(&y, &censored)| 2 * y + u32::from(censored)).collect();
    let outcome = gpu.upload(&[patients], &outcome)?;
    let chunks = patients.div_ceil(CHUNK).max(1);
    let (mut gradient, mut loss) = (gpu.alloc(logits.shape())?, gpu.alloc(&[])?);
    let mut partials = gpu.alloc::<f64>(&[chunks])?;
    let (g, p, l) = (&mut gradient, &mut partials, &mut loss);
    let (n, k, chunk) = (patients as u32, bins as u32, CHUNK as u32);
    let grid = Grid::new(chunks, THREADS);
    nll_survival_forward(gpu, grid, logits, &outcome, g, p, l, n, k, chunk, op.alpha, op.eps, divisor)?;
    if chunks > 1 {
        nll_survival_sum(gpu, Grid::new(1, THREADS), &partials, &mut loss, chunks as u32, divisor)?;
    }
    Ok((loss, gradient))
}

/// The gradient for what the loss is owed, a scalar.
pub(super) fn backward<T: Real>(gpu: Gpu, gradient: &Tensor<T>, grad: &Tensor<T>) -> Result<Tensor<T>> {
    let (mut dx, n) = (gpu.alloc(gradient.shape())?, gradient.len());
    let grid = Grid::over(n, THREADS as usize, THREADS);
    nll_survival_backward(gpu, grid, gradient, grad, &mut dx, n as u64)?;
    Ok(dx)
}
