//! Attention pooling on Hopper: scores and pools in one kernel what it takes, which is the common case.

use half::bf16;

use super::Dims;
use super::cuda::{Layer, Segments};
use crate::device::{Gpu, Grid, In, Out, kernels};
use crate::element::{Element, Real};
use crate::error::Result;
use crate::tensor::Tensor;

kernels! { "attention_mil_sm90":
    /// `v` and `u` rounded, in the order in which the products read them.
    fn attention_mil_sm90_pack(v: In<f32> = d * l, u: In<f32> = d * l, inner: Out<bf16> = chunks * 256 * l,
        l: u32, d: u32, chunks: u32);
    /// The scores, the gates, and each segment pooled with the softmax of its own.
    fn attention_mil_sm90_forward(x: In<bf16> = n * l, inner: In<bf16> = chunks * 256 * l, v_bias: Option<In<f32>> = d,
        u_bias: Option<In<f32>> = d, w: In<f32> = d, w_bias: Option<In<f32>> = 1, start: In<u32> = segments + 1,
        scores: Out<f32> = n, gates: Option<Out<bf16>> = n * gate_stride, segment_max: Out<f32> = segments,
        segment_sum: Out<f32> = segments, pooled: Out<f32> = segments * l,
        n: u32, segments: u32, l: u32, d: u32, chunks: u32, gate_stride: u32);
}

/// Bytes of shared memory of the four stages, each 128 rows of `x` and 256 of `v` and `u` by 64 columns.
const STAGES: usize = 4 * (128 + 256) * 64 * size_of::<bf16>();
/// The most columns whose sums fit beside them.
const MOST_COLUMNS: usize = 4096;

/// Whether the kernel takes features of type `F` and products in `H` of these sizes, on that device.
pub(super) fn takes<T: Real, F: Element, H: Element>(gpu: Gpu, layer: &Layer<T>) -> bool {
    let Dims { l, k, .. } = layer.dims;
    let types = F::NAME == bf16::NAME && H::NAME == bf16::NAME;
    gpu.capability() == (9, 0) && types && layer.u.is_some() && k == 1 && l > 0 && l % 64 == 0 && l <= MOST_COLUMNS
}

/// Writes what [`Segments`] holds, and the gates if they are to be kept.
pub(super) fn forward<T: Real, F: Element, H: Element>(
    gpu: Gpu,
    layer: &Layer<T>,
    x: &Tensor<F>,
    starts: &Tensor<u32>,
    gates: Option<&mut Tensor<H>>,
    to: &mut Segments<T>,
) -> Result<()> {
    let Dims { n, l, d, .. } = layer.dims;
    let u = layer.u.as_ref().expect("the kernel takes gated attention alone");
    let chunks = d.div_ceil(128);
    let mut inner = gpu.alloc::<bf16>(&[chunks, 256, l])?;
    let (columns, width, parts) = (l as u32, d as u32, chunks as u32);
    attention_mil_sm90_pack(
        gpu,
        Grid::over(inner.len() / 8, 256, 256),
        &layer.v,
        u,
        &mut inner,
        columns,
        width,
        parts,
    )?;
    let segments = starts.len() - 1;
    let grid = Grid::new(segments.min(gpu.multiprocessors() as usize), 384).shared(STAGES + l * size_of::<f32>());
    let (v_bias, u_bias, w_bias) = (layer.v_bias.as_ref(), layer.u_bias.as_ref(), layer.w_bias.as_ref());
    let gate_stride = (2 * d).next_multiple_of(8) as u32;
    attention_mil_sm90_forward(
        gpu,
        grid,
        x,
        &inner,
        v_bias,
        u_bias,
        &layer.w,
        w_bias,
        starts,
        &mut to.scores,
        gates,
        &mut to.max,
        &mut to.sum,
        &mut to.pooled,
        n as u32,
        segments as u32,
        columns,
        width,
        parts,
        gate_stride,
    )
}
