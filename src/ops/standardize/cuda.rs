//! The folded weights on a CUDA device.

use crate::device::{Device, Gpu, Grid, In, Out, kernels};
use crate::element::Real;
use crate::error::Result;
use crate::tensor::Tensor;

kernels! { "standardize":
    /// Weight and bias for inputs that are not standardised.
    fn standardize_forward(weight: In<f32>, bias: In<f32>, mean: In<f32> = inputs, deviation: In<f32> = inputs,
        w: Out<f32> = weight, b: Out<f32> = bias, inputs: u32);
    /// The gradient of the weight.
    fn standardize_backward(gw: In<f32>, gb: In<f32>, mean: In<f32> = inputs, deviation: In<f32> = inputs,
        dw: Out<f32> = gb * inputs, inputs: u32);
}

const THREADS: u32 = 128;

pub(super) fn forward<T: Real>(
    gpu: Gpu,
    weight: &Tensor<T>,
    bias: &Tensor<T>,
    mean: &Tensor<T>,
    deviation: &Tensor<T>,
) -> Result<(Tensor<T>, Tensor<T>)> {
    let (mut w, mut b) = (gpu.alloc(weight.shape())?, gpu.alloc(bias.shape())?);
    // Two short rows that belong to the model and may lie on the host.
    let (mean, deviation) = (mean.to(Device::Cuda(gpu))?, deviation.to(Device::Cuda(gpu))?);
    let grid = Grid::new(bias.len(), THREADS);
    standardize_forward(gpu, grid, weight, bias, &mean, &deviation, &mut w, &mut b, mean.len() as u32)?;
    Ok((w, b))
}

/// The gradient of the weight.
pub(super) fn backward<T: Real>(
    gpu: Gpu,
    gw: &Tensor<T>,
    gb: &Tensor<T>,
    mean: &Tensor<T>,
    deviation: &Tensor<T>,
) -> Result<Tensor<T>> {
    let mut dw = gpu.alloc(gw.shape())?;
    let (mean, deviation) = (mean.to(Device::Cuda(gpu))?, deviation.to(Device::Cuda(gpu))?);
    standardize_backward(gpu, Grid::new(gb.len(), THREADS), gw, gb, &mean, &deviation, &mut dw, mean.len() as u32)?;
    Ok(dw)
}
