//! Attention pooling on a CUDA device.

use super::{AttentionMil, Dims, Given};
use crate::device::{Gpu, Grid, In, Out, Precision, kernels};
use crate::element::{Element, Real};
use crate::error::Result;
use crate::features::{Kept, with_tensor};
use crate::shape::Ragged;
use crate::tensor::Tensor;

kernels! { "attention_mil":
    /// Of rows `first` to `first + rows`: what each tile of columns gives to their scores, and tanh and sigmoid.
    fn attention_mil_score<F in f32, f16, bf16>(x: In<F> = n * l, v: In<f32> = d * l, v_bias: Option<In<f32>> = d,
        u: Option<In<f32>> = d * l, u_bias: Option<In<f32>> = d, w: In<f32> = heads * d,
        part: Option<Out<f32>> = tiles * rows * heads, gates: Option<Out<f32>> = rows * width,
        n: u32, first: u32, rows: u32, l: u32, d: u32, width: u32, tiles: u32, heads: u32, grade: u32);
    /// The scores, and each segment pooled with the softmax of its own.
    fn attention_mil_pool<F in f32, f16, bf16>(x: In<F> = n * l, part: In<f32> = parts * n * heads,
        w_bias: Option<In<f32>> = heads, start: In<u32> = segments + 1, scores: Out<f32> = n * heads,
        segment_max: Out<f32> = segments * heads, segment_sum: Out<f32> = segments * heads,
        pooled: Out<f32> = segments * heads * l, n: u32, segments: u32, l: u32, parts: u32, heads: u32);
    /// The segments of each bag put together in order.
    fn attention_mil_combine(segment_max: In<f32> = segments * heads, segment_sum: In<f32> = segments * heads,
        part: In<f32> = segments * heads * l, of_bag: In<u32> = bags + 1, pooled: Out<f32> = bags * heads * l,
        bag_max: Out<f32> = bags * heads, bag_sum: Out<f32> = bags * heads,
        bags: u32, segments: u32, l: u32, heads: u32);
    /// The softmax of the scores over each bag.
    fn attention_mil_weights(scores: In<f32> = n * heads, bag_max: In<f32> = bags * heads,
        bag_sum: In<f32> = bags * heads, offset: In<u32> = bags + 1, weights: Out<f32> = n * heads,
        n: u32, bags: u32, heads: u32);
    /// The sum over each bag of weight times its gradient.
    fn attention_mil_means(grad_pooled: Option<In<f32>> = bags * heads * l, pooled: In<f32> = bags * heads * l,
        grad_weights: Option<In<f32>> = n * heads, weights: In<f32> = n * heads, offset: In<u32> = bags + 1,
        mean: Out<f32> = bags * heads, n: u32, bags: u32, l: u32, heads: u32);
    /// The gradient of the scores.
    fn attention_mil_score_gradient<F in f32, f16, bf16>(x: In<F> = n * l, weights: In<f32> = n * heads,
        mean: In<f32> = bags * heads, grad_pooled: Option<In<f32>> = bags * heads * l,
        grad_weights: Option<In<f32>> = n * heads, grad_scores: Option<In<f32>> = n * heads,
        offset: In<u32> = bags + 1, grad: Out<f32> = n * heads, n: u32, bags: u32, l: u32, heads: u32);
    /// From gates to the gradient of their arguments, in place, and its sums over chunks of rows; `part` has those of
    /// all rows of the call.
    fn attention_mil_gate_gradient<F in f32, f16, bf16>(grad_score: In<f32> = n * heads, w: In<f32> = heads * d,
        gates: Out<F> = rows * stride, part: Out<f32> = n.div_ceil(256) * (width + heads * d + heads),
        n: u32, first: u32, rows: u32, d: u32, width: u32, stride: u32, heads: u32);
    /// The gradient of `v` and `u`, summed over splits of the rows.
    fn attention_mil_inner_gradient<F in f32, f16, bf16>(x: In<F> = n * l, grad_gates: In<f32> = rows * width,
        part: Out<f32> = n.div_ceil(split_rows) * width * l,
        n: u32, first: u32, rows: u32, split_rows: u32, l: u32, d: u32, width: u32, grade: u32);
    /// Partial sums added in order.
    fn attention_mil_sum(part: In<f32> = parts * stride, sum: Out<f32> = count,
        parts: u32, stride: u64, first: u64, count: u32);
    /// The gradient of rows `first` to `first + rows` of `x`.
    fn attention_mil_input_gradient(grad_gates: In<f32> = rows * width, v: In<f32> = d * l,
        u: Option<In<f32>> = d * l, weights: In<f32> = n * heads, grad_pooled: Option<In<f32>> = bags * heads * l,
        offset: In<u32> = bags + 1, grad_x: Out<f32> = n * l,
        n: u32, first: u32, rows: u32, bags: u32, l: u32, d: u32, width: u32, heads: u32, grade: u32);
}

/// Rows and columns of a tile of a product, threads of its block; rows that a block of the gates' gradient sums over.
const TILE: usize = 128;
const THREADS: u32 = 256;
const GATE_ROWS: usize = 256;

/// How a tile is calculated: as in `kernels/attention_tile.cuh`.
mod grade {
    pub(super) const PLAIN: u32 = 0;
    pub(super) const SPLIT: u32 = 1;
    pub(super) const TF32: u32 = 2;
}

/// For sums over `k` products. Operands split in two lose what plain arithmetic loses over about ten additions.
fn grade_of(gpu: Gpu, k: usize) -> u32 {
    match gpu.precision() {
        Precision::F32 if k < 64 => grade::PLAIN,
        Precision::F32 => grade::SPLIT,
        _ => grade::TF32,
    }
}

/// The parameters, on the device.
pub(super) struct Layer<T> {
    dims: Dims,
    v: Tensor<T>,
    u: Option<Tensor<T>>,
    w: Tensor<T>,
    v_bias: Option<Tensor<T>>,
    u_bias: Option<Tensor<T>>,
    w_bias: Option<Tensor<T>>,
}

/// The sizes as kernels take them.
struct Sizes {
    n: u32,
    l: u32,
    d: u32,
    heads: u32,
    bags: u32,
}

impl<T: Real> Layer<T> {
    pub(super) fn new(dims: Dims, op: &AttentionMil<'_, T>) -> Layer<T> {
        let bias = |map: &super::Affine<'_, T>| map.bias.map(|b| b.value().clone());
        Layer {
            dims,
            v: op.v.weight.value().clone(),
            u: op.u.map(|u| u.weight.value().clone()),
            w: op.w.weight.value().clone(),
            v_bias: bias(&op.v),
            u_bias: op.u.as_ref().and_then(bias),
            w_bias: bias(&op.w),
        }
    }

    /// The columns of the products with `v` and `u` together.
    pub(super) fn width(&self) -> usize {
        self.dims.d * if self.u.is_some() { 2 } else { 1 }
    }

    fn sizes(&self, bags: &Ragged) -> Sizes {
        let Dims { n, l, d, k } = self.dims;
        Sizes { n: n as u32, l: l as u32, d: d as u32, heads: k as u32, bags: bags.bags() as u32 }
    }

    /// Rows that one sum of the gradient of `v` and `u` goes over: at most 32 sums, by the number of rows alone.
    fn split_rows(&self) -> usize {
        self.dims.n.div_ceil(32).next_multiple_of(GATE_ROWS).max(1024)
    }

    /// Scores and gates of some rows.
    fn score<F: Element>(
        &self,
        gpu: Gpu,
        x: &Tensor<F>,
        (first, rows): (usize, usize),
        part: Option<&mut Tensor<T>>,
        gates: Option<&mut Tensor<T>>,
    ) -> Result<()> {
        let (Dims { n, l, d, k }, width) = (self.dims, self.width());
        let tiles = width.div_ceil(TILE);
        attention_mil_score::<F>(
            gpu,
            Grid::new(rows.div_ceil(TILE) * tiles, THREADS),
            x,
            &self.v,
            self.v_bias.as_ref(),
            self.u.as_ref(),
            self.u_bias.as_ref(),
            &self.w,
            part,
            gates,
            n as u32,
            first as u32,
            rows as u32,
            l as u32,
            d as u32,
            width as u32,
            tiles as u32,
            k as u32,
            grade_of(gpu, l),
        )
    }
}

/// What is kept for the backward pass besides the inputs.
pub(super) struct Saved<T> {
    pooled: Tensor<T>,
    weights: Tensor<T>,
    /// `[N, D]`, or `[N, 2 D]` with tanh and sigmoid side by side; calculated again if it is not here.
    gates: Option<Tensor<T>>,
}

/// The pooled rows, the weights and the scores; and what the backward pass needs of them.
pub(super) fn forward<T: Real>(
    gpu: Gpu,
    layer: &Layer<T>,
    x: &Kept<T>,
    bags: &Ragged,
    keep_gates: bool,
) -> Result<([Tensor<T>; 3], Saved<T>)> {
    with_tensor!(x, x => forward_rows(gpu, layer, x, bags, keep_gates))
}

fn forward_rows<T: Real, F: Element>(
    gpu: Gpu,
    layer: &Layer<T>,
    x: &Tensor<F>,
    bags: &Ragged,
    keep_gates: bool,
) -> Result<([Tensor<T>; 3], Saved<T>)> {
    let (Dims { n, l, k, .. }, width) = (layer.dims, layer.width());
    let Sizes { n: rows, l: columns, heads, bags: b, .. } = layer.sizes(bags);
    let tiles = width.div_ceil(TILE);
    let mut part = gpu.alloc::<T>(&[tiles, n, k])?;
    let mut gates = keep_gates.then(|| gpu.alloc::<T>(&[n, width])).transpose()?;
    layer.score(gpu, x, (0, n), Some(&mut part), gates.as_mut())?;

    let (starts, of_bag) = bags.segments(gpu)?;
    let segments = starts.len() - 1;
    let mut scores = gpu.alloc::<T>(&[n, k])?;
    let [mut max, mut sum] = [gpu.alloc::<T>(&[segments, k])?, gpu.alloc::<T>(&[segments, k])?];
    let mut pooled = gpu.alloc::<T>(&[segments, k, l])?;
    // Blocks of rows of 32 lanes with 16 bytes each; one of them writes the scores even where there are no features.
    let grid = Grid::new(segments, THREADS).times(l.div_ceil(32 * 16 / size_of::<F>()).max(1));
    attention_mil_pool::<F>(
        gpu,
        grid,
        x,
        &part,
        layer.w_bias.as_ref(),
        &starts,
        &mut scores,
        &mut max,
        &mut sum,
        &mut pooled,
        rows,
        segments as u32,
        columns,
        tiles as u32,
        heads,
    )?;
    drop(part);
    let mut whole = gpu.alloc::<T>(&[bags.bags(), k, l])?;
    let [mut bag_max, mut bag_sum] = [gpu.alloc::<T>(&[bags.bags(), k])?, gpu.alloc::<T>(&[bags.bags(), k])?];
    let grid = Grid::new(bags.bags() * k, 512).times(l.div_ceil(32).max(1));
    attention_mil_combine(
        gpu,
        grid,
        &max,
        &sum,
        &pooled,
        &of_bag,
        &mut whole,
        &mut bag_max,
        &mut bag_sum,
        b,
        segments as u32,
        columns,
        heads,
    )?;
    let mut weights = gpu.alloc::<T>(&[n, k])?;
    let grid = Grid::over(n * k, 256, 256);
    attention_mil_weights(gpu, grid, &scores, &bag_max, &bag_sum, &bags.on(gpu)?, &mut weights, rows, b, heads)?;
    let saved = Saved { pooled: whole.clone(), weights: weights.clone(), gates };
    Ok(([whole, weights, scores], saved))
}

/// The gradients in the order of the inputs: `x`, then weight and bias of `v`, `u` and `w`. Gates that were not kept are
/// calculated again, `most_bytes` of them at a time.
pub(super) fn backward<T: Real>(
    gpu: Gpu,
    layer: &Layer<T>,
    x: &Kept<T>,
    bags: &Ragged,
    saved: Saved<T>,
    given: Given<'_, T>,
    wants_x: bool,
    most_bytes: usize,
) -> Result<Vec<Option<Tensor<T>>>> {
    with_tensor!(x, x => backward_rows(gpu, layer, x, bags, saved, given, wants_x, most_bytes))
}

fn backward_rows<T: Real, F: Element>(
    gpu: Gpu,
    layer: &Layer<T>,
    x: &Tensor<F>,
    bags: &Ragged,
    saved: Saved<T>,
    given: Given<'_, T>,
    wants_x: bool,
    most_bytes: usize,
) -> Result<Vec<Option<Tensor<T>>>> {
    let (Dims { n, l, d, k }, width) = (layer.dims, layer.width());
    let Sizes { n: rows, l: columns, d: inner, heads, bags: b } = layer.sizes(bags);
    let offset = bags.on(gpu)?;
    let mut mean = gpu.alloc::<T>(&[bags.bags(), k])?;
    let Saved { pooled, weights, mut gates } = saved;
    attention_mil_means(
        gpu,
        Grid::new(bags.bags() * k, 256),
        given.pooled,
        &pooled,
        given.weights,
        &weights,
        &offset,
        &mut mean,
        rows,
        b,
        columns,
        heads,
    )?;
    let mut d_score = gpu.alloc::<T>(&[n, k])?;
    attention_mil_score_gradient::<F>(
        gpu,
        Grid::over(n, 8, 256),
        x,
        &weights,
        &mean,
        given.pooled,
        given.weights,
        given.scores,
        &offset,
        &mut d_score,
        rows,
        b,
        columns,
        heads,
    )?;

    let split = layer.split_rows();
    let (splits, chunks) = (n.div_ceil(split), n.div_ceil(GATE_ROWS));
    let sums = width + k * d + k;
    let mut small = gpu.alloc::<T>(&[chunks, sums])?;
    let mut large = gpu.alloc::<T>(&[splits, width, l])?;
    let mut dx = if wants_x { Some(gpu.alloc::<T>(&[n, l])?) } else { None };
    // Whole splits at a time, so that every sum is over the same rows whether or not the gates were kept.
    let at_a_time = match gates {
        Some(_) => n,
        None => (most_bytes / (split * width * size_of::<f32>()).max(1)).max(1) * split,
    };
    for first in (0..n).step_by(at_a_time.max(1)) {
        let some = at_a_time.min(n - first);
        let mut gates = match gates.take() {
            Some(gates) => gates,
            None => {
                let mut gates = gpu.alloc::<T>(&[some, width])?;
                layer.score(gpu, x, (first, some), None, Some(&mut gates))?;
                gates
            }
        };
        let (from, some32, width32) = (first as u32, some as u32, width as u32);
        attention_mil_gate_gradient::<f32>(
            gpu,
            Grid::over(d.max(k), 128, 128).times(some.div_ceil(GATE_ROWS)),
            &d_score,
            &layer.w,
            &mut gates,
            &mut small,
            rows,
            from,
            some32,
            inner,
            width32,
            width32,
            heads,
        )?;
        let tiles = Grid::new(l.div_ceil(TILE), THREADS);
        attention_mil_inner_gradient::<F>(
            gpu,
            tiles.times(width.div_ceil(TILE)).layers(some.div_ceil(split)),
            x,
            &gates,
            &mut large,
            rows,
            from,
            some32,
            split as u32,
            columns,
            inner,
            width32,
            grade_of(gpu, split.min(n)),
        )?;
        if let Some(dx) = &mut dx {
            attention_mil_input_gradient(
                gpu,
                tiles.times(some.div_ceil(TILE)),
                &gates,
                &layer.v,
                layer.u.as_ref(),
                &weights,
                given.pooled,
                &offset,
                dx,
                rows,
                from,
                some32,
                b,
                columns,
                inner,
                width32,
                heads,
                grade_of(gpu, width),
            )?;
        }
    }

    let summed = |part: &Tensor<T>, first: usize, shape: &[usize]| -> Result<Option<Tensor<T>>> {
        let ([parts, stride], count) = ([part.shape()[0], part.len() / part.shape()[0].max(1)], shape.iter().product());
        let mut sum = if parts == 0 { gpu.zeros::<T>(shape)? } else { gpu.alloc::<T>(shape)? };
        let blocks = if parts == 0 { 0 } else { usize::div_ceil(count, 32) };
        attention_mil_sum(
            gpu,
            Grid::new(blocks, 256),
            part,
            &mut sum,
            parts as u32,
            stride as u64,
            first as u64,
            count as u32,
        )?;
        Ok(Some(sum))
    };
    let gated = layer.u.is_some();
    let of_gate =
        |part: &Tensor<T>, first: usize, shape: &[usize]| if gated { summed(part, first, shape) } else { Ok(None) };
    Ok(vec![
        dx,
        summed(&large, 0, &[d, l])?,
        summed(&small, 0, &[d])?,
        of_gate(&large, d * l, &[d, l])?,
        of_gate(&small, d, &[d])?,
        summed(&small, width, &[k, d])?,
        summed(&small, width + k * d, &[k])?,
    ])
}
