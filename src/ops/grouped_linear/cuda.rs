//! The grouped layer on a CUDA device: all groups in one launch.

use super::{Dims, GroupedLinear};
use crate::device::{Gpu, Grid, In, Out, kernels};
use crate::element::Real;
use crate::error::Result;
use crate::ops::linear;
use crate::tensor::Tensor;

kernels! { "grouped_linear":
    /// `y_s = f(x_s W_s^T + bias_s)` for all groups; the argument of `f` too, if asked for.
    fn grouped_linear_forward(x: In<f32> = samples * inputs, offsets: In<u32> = groups + 1, weight: In<f32> = outputs * inputs,
        bias: Option<In<f32>> = groups * outputs, y: Out<f32> = samples * groups * outputs,
        argument: Option<Out<f32>> = samples * groups * outputs,
        samples: u32, groups: u32, inputs: u32, outputs: u32, function: u32);
    /// The gradient of `x`.
    fn grouped_linear_input(inner: In<f32> = samples * groups * outputs, offsets: In<u32> = groups + 1,
        weight: In<f32> = outputs * inputs, dx: Out<f32> = samples * inputs,
        samples: u32, groups: u32, inputs: u32, outputs: u32);
    /// The gradient of the weights.
    fn grouped_linear_weight(inner: In<f32> = samples * groups * outputs, offsets: In<u32> = groups + 1,
        x: In<f32> = samples * inputs, dw: Out<f32> = outputs * inputs,
        samples: u32, groups: u32, inputs: u32, outputs: u32);
}

/// Tiles of a block.
const ROWS: usize = 32;
const COLUMNS: usize = 64;
const THREADS: u32 = 128;

/// Blocks for tiles of samples: a block takes more than one if there are very many.
fn sample_tiles(dims: &Dims) -> usize {
    dims.samples.div_ceil(ROWS).min(65_535)
}

/// The result, and what the slope of the activation is taken from.
pub(super) fn forward<T: Real>(
    gpu: Gpu,
    op: GroupedLinear,
    dims: &Dims,
    x: &Tensor<T>,
    weight: &Tensor<T>,
    bias: Option<&Tensor<T>>,
) -> Result<(Tensor<T>, Tensor<T>)> {
    let (samples, groups, outputs) = (dims.samples, dims.groups.bags(), dims.outputs);
    let mut y = gpu.alloc(&[samples * groups, outputs])?;
    let mut argument = op.activation.keeps_argument().then(|| gpu.alloc(y.shape())).transpose()?;
    let offsets = dims.groups.on(gpu)?;
    let grid = Grid::new(groups, THREADS).times(outputs.div_ceil(COLUMNS)).layers(sample_tiles(dims));
    let (b, s, i, o) = (samples as u32, groups as u32, dims.groups.rows() as u32, outputs as u32);
    let f = op.activation as u32;
    grouped_linear_forward(gpu, grid, x, &offsets, weight, bias, &mut y, argument.as_mut(), b, s, i, o, f)?;
    let kept = argument.unwrap_or_else(|| y.clone());
    Ok((y, kept))
}

/// The gradients of `x` (if wanted), weight and bias.
pub(super) fn backward<T: Real>(
    gpu: Gpu,
    op: GroupedLinear,
    dims: &Dims,
    x: &Tensor<T>,
    weight: &Tensor<T>,
    kept: &Tensor<T>,
    grad: &Tensor<T>,
    wants_x: bool,
) -> Result<(Option<Tensor<T>>, Tensor<T>, Tensor<T>)> {
    let (samples, groups, outputs) = (dims.samples, dims.groups.bags(), dims.outputs);
    let (inner, db) = linear::inner(gpu, op.activation, samples, groups * outputs, Some(kept), grad)?;
    let offsets = dims.groups.on(gpu)?;
    let (b, s, i, o) = (samples as u32, groups as u32, dims.groups.rows() as u32, outputs as u32);
    let grid = Grid::new(groups, THREADS).times(dims.groups.longest().div_ceil(COLUMNS));
    let mut dw = gpu.alloc(weight.shape())?;
    grouped_linear_weight(gpu, grid.layers(outputs.div_ceil(ROWS)), &inner, &offsets, x, &mut dw, b, s, i, o)?;
    let mut dx = None;
    if wants_x {
        let dx = dx.insert(gpu.alloc(x.shape())?);
        grouped_linear_input(gpu, grid.layers(sample_tiles(dims)), &inner, &offsets, weight, dx, b, s, i, o)?;
    }
    Ok((dx, dw, db.reshape(&[groups, outputs])?))
}
