//! Attention pooling on a CUDA device.

use half::{bf16, f16};

use super::half::Rounded;
pub(super) use super::room::TILE;
use super::room::{GATE_ROWS, LIMITS, Limits, split_rows};
use super::{AttentionMil, Backward, Dims, Given, hopper};
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

/// Threads of the block of a tile of a product.
pub(super) const THREADS: u32 = 256;

/// Rows `first` to `first + rows`.
#[derive(Clone, Copy)]
pub(super) struct Span {
    pub(super) first: usize,
    pub(super) rows: usize,
}

/// The parameters, on the device.
pub(super) struct Layer<T> {
    pub(super) dims: Dims,
    pub(super) v: Tensor<T>,
    pub(super) u: Option<Tensor<T>>,
    pub(super) w: Tensor<T>,
    pub(super) v_bias: Option<Tensor<T>>,
    pub(super) u_bias: Option<Tensor<T>>,
    pub(super) w_bias: Option<Tensor<T>>,
}

impl<T: Real> Layer<T> {
    fn new(dims: Dims, op: &AttentionMil<'_, T>) -> Layer<T> {
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

    /// The tiles of these columns.
    pub(super) fn tiles(&self) -> usize {
        self.width().div_ceil(TILE)
    }
}

/// What the gradient of `x` is made of besides that of the gates.
pub(super) struct ToInput<'a, T> {
    pub(super) weights: &'a Tensor<T>,
    pub(super) grad_pooled: Option<&'a Tensor<T>>,
    pub(super) offset: &'a Tensor<u32>,
    pub(super) bags: usize,
}

/// The scores, and each segment pooled with the softmax of its own.
pub(super) struct Segments<T> {
    pub(super) scores: Tensor<T>,
    /// The largest score of each segment and head, the sum of `e^(score - max)`, and the rows weighted with that.
    pub(super) max: Tensor<T>,
    pub(super) sum: Tensor<T>,
    pub(super) pooled: Tensor<T>,
}

/// How the large products are calculated, by the precision of the device.
pub(super) trait Products<T: Real>: 'static {
    /// The type that gates are kept in.
    type Gate: Element;
    /// The columns of a row of gates in memory.
    fn stride(&self, width: usize) -> usize;
    /// Whether Hopper's kernel is used. Its gates are always kept: others would not be the same bits.
    fn fused<F: Element>(&self, gpu: Gpu, layer: &Layer<T>) -> bool {
        hopper::takes::<T, F, Self::Gate>(gpu, layer)
    }
    /// The parts of the scores of some rows, and their gates.
    fn score<F: Element>(
        &self,
        gpu: Gpu,
        layer: &Layer<T>,
        x: &Tensor<F>,
        span: Span,
        part: Option<&mut Tensor<T>>,
        gates: Option<&mut Tensor<Self::Gate>>,
    ) -> Result<()>;
    /// The gradients of `v` and `u` of some rows, summed over splits.
    fn inner_gradient<F: Element>(
        &self,
        gpu: Gpu,
        layer: &Layer<T>,
        x: &Tensor<F>,
        span: Span,
        split: usize,
        grad_gates: &Tensor<Self::Gate>,
        part: &mut Tensor<T>,
    ) -> Result<()>;
    /// The gradient of some rows of `x`.
    fn input_gradient(
        &self,
        gpu: Gpu,
        layer: &Layer<T>,
        span: Span,
        grad_gates: &Tensor<Self::Gate>,
        from: &ToInput<'_, T>,
        grad_x: &mut Tensor<T>,
    ) -> Result<()>;
}

/// Products of f32, as good as plain arithmetic or, if `tf32`, of factors rounded to 11 bits.
struct Single {
    tf32: bool,
}

impl Single {
    /// How a sum over `k` products is calculated: as numbered in `kernels/attention_tile.cuh`. Short ones are plain,
    /// because operands split in two lose as much as the additions of a long one.
    fn grade(&self, k: usize) -> u32 {
        let (plain, split, tf32) = (0, 1, 2);
        if self.tf32 {
            tf32
        } else if k < 64 {
            plain
        } else {
            split
        }
    }
}

impl<T: Real> Products<T> for Single {
    type Gate = T;

    fn stride(&self, width: usize) -> usize {
        width
    }

    fn score<F: Element>(
        &self,
        gpu: Gpu,
        layer: &Layer<T>,
        x: &Tensor<F>,
        Span { first, rows }: Span,
        part: Option<&mut Tensor<T>>,
        gates: Option<&mut Tensor<T>>,
    ) -> Result<()> {
        let Dims { n, l, d, k } = layer.dims;
        let (grid, width) = (Grid::new(rows.div_ceil(TILE) * layer.tiles(), THREADS), layer.width() as u32);
        let (v_bias, u_bias, tiles) = (layer.v_bias.as_ref(), layer.u_bias.as_ref(), layer.tiles() as u32);
        attention_mil_score::<F>(
            gpu,
            grid,
            x,
            &layer.v,
            v_bias,
            layer.u.as_ref(),
            u_bias,
            &layer.w,
            part,
            gates,
            n as u32,
            first as u32,
            rows as u32,
            l as u32,
            d as u32,
            width,
            tiles,
            k as u32,
            self.grade(l),
        )
    }

    fn inner_gradient<F: Element>(
        &self,
        gpu: Gpu,
        layer: &Layer<T>,
        x: &Tensor<F>,
        Span { first, rows }: Span,
        split: usize,
        grad_gates: &Tensor<T>,
        part: &mut Tensor<T>,
    ) -> Result<()> {
        let Dims { n, l, d, .. } = layer.dims;
        let grid = Grid::new(l.div_ceil(TILE), THREADS).times(layer.tiles()).layers(rows.div_ceil(split));
        attention_mil_inner_gradient::<F>(
            gpu,
            grid,
            x,
            grad_gates,
            part,
            n as u32,
            first as u32,
            rows as u32,
            split as u32,
            l as u32,
            d as u32,
            layer.width() as u32,
            self.grade(split.min(n)),
        )
    }

    fn input_gradient(
        &self,
        gpu: Gpu,
        layer: &Layer<T>,
        Span { first, rows }: Span,
        grad_gates: &Tensor<T>,
        from: &ToInput<'_, T>,
        grad_x: &mut Tensor<T>,
    ) -> Result<()> {
        let Dims { n, l, d, k } = layer.dims;
        let grid = Grid::new(rows.div_ceil(TILE) * l.div_ceil(TILE), THREADS);
        attention_mil_input_gradient(
            gpu,
            grid,
            grad_gates,
            &layer.v,
            layer.u.as_ref(),
            from.weights,
            from.grad_pooled,
            from.offset,
            grad_x,
            n as u32,
            first as u32,
            rows as u32,
            from.bags as u32,
            l as u32,
            d as u32,
            layer.width() as u32,
            k as u32,
            self.grade(layer.width()),
        )
    }
}

/// The pooled rows, the weights and the scores; and the way back, from the gradients of these to those of the inputs.
pub(super) fn forward<T: Real>(
    gpu: Gpu,
    dims: Dims,
    op: &AttentionMil<'_, T>,
    x: &Kept<T>,
    bags: &Ragged,
    wants_grad: bool,
    wants_x: bool,
) -> Result<([Tensor<T>; 3], Backward<T>)> {
    let layer = Layer::new(dims, op);
    with_tensor!(x, x => match gpu.precision() {
        Precision::Bf16 => {
            let packed = Rounded::<bf16>::of(gpu, &layer)?;
            Call { gpu, layer, products: packed, x: x.clone(), bags: bags.clone() }.run(LIMITS, wants_grad, wants_x)
        }
        Precision::F16 => {
            let packed = Rounded::<f16>::of(gpu, &layer)?;
            Call { gpu, layer, products: packed, x: x.clone(), bags: bags.clone() }.run(LIMITS, wants_grad, wants_x)
        }
        other => {
            let products = Single { tf32: other == Precision::Tf32 };
            Call { gpu, layer, products, x: x.clone(), bags: bags.clone() }.run(LIMITS, wants_grad, wants_x)
        }
    })
}

/// One call, with the element type of the features and the type of the products known.
struct Call<T, F, P> {
    gpu: Gpu,
    layer: Layer<T>,
    products: P,
    x: Tensor<F>,
    bags: Ragged,
}

/// What is kept for the backward pass besides the inputs.
struct Saved<T, G> {
    pooled: Tensor<T>,
    weights: Tensor<T>,
    /// `[N, D]`, or `[N, 2 D]` with tanh and sigmoid side by side; calculated again if it is not here.
    gates: Option<Tensor<G>>,
}

impl<T: Real, F: Element, P: Products<T>> Call<T, F, P> {
    fn run(self, limits: Limits, wants_grad: bool, wants_x: bool) -> Result<([Tensor<T>; 3], Backward<T>)> {
        let row = self.products.stride(self.layer.width()) * size_of::<P::Gate>();
        let fused = self.products.fused::<F>(self.gpu, &self.layer);
        let keep = fused || limits.keep(self.layer.dims.n, row);
        let (outputs, saved) = self.forward(fused, wants_grad && keep)?;
        Ok((outputs, Box::new(move |given| self.backward(saved, given, wants_x, limits))))
    }

    fn forward(&self, fused: bool, keep_gates: bool) -> Result<([Tensor<T>; 3], Saved<T, P::Gate>)> {
        let (gpu, layer, x, bags) = (self.gpu, &self.layer, &self.x, &self.bags);
        let Dims { n, l, k, .. } = layer.dims;
        let (rows, columns, heads, b) = (n as u32, l as u32, k as u32, bags.bags() as u32);
        let (starts, of_bag) = bags.segments(gpu)?;
        let segments = starts.len() - 1;
        let mut parts = Segments {
            scores: gpu.alloc(&[n, k])?,
            max: gpu.alloc(&[segments, k])?,
            sum: gpu.alloc(&[segments, k])?,
            pooled: gpu.alloc(&[segments, k, l])?,
        };
        let stride = self.products.stride(layer.width());
        let mut gates = keep_gates.then(|| gpu.alloc::<P::Gate>(&[n, stride])).transpose()?;
        if fused {
            hopper::forward(gpu, layer, x, &starts, gates.as_mut(), &mut parts)?;
        } else {
            self.segments(&starts, gates.as_mut(), &mut parts)?;
        }

        let mut whole = gpu.alloc::<T>(&[bags.bags(), k, l])?;
        let [mut bag_max, mut bag_sum] = [gpu.alloc::<T>(&[bags.bags(), k])?, gpu.alloc::<T>(&[bags.bags(), k])?];
        let grid = Grid::new(bags.bags() * k, 512).times(l.div_ceil(32).max(1));
        attention_mil_combine(
            gpu,
            grid,
            &parts.max,
            &parts.sum,
            &parts.pooled,
            &of_bag,
            &mut whole,
            &mut bag_max,
            &mut bag_sum,
            b,
            segments as u32,
            columns,
            heads,
        )?;
        let (scores, mut weights) = (parts.scores, gpu.alloc::<T>(&[n, k])?);
        let grid = Grid::over(n * k, 256, 256);
        attention_mil_weights(gpu, grid, &scores, &bag_max, &bag_sum, &bags.on(gpu)?, &mut weights, rows, b, heads)?;
        let saved = Saved { pooled: whole.clone(), weights: weights.clone(), gates };
        Ok(([whole, weights, scores], saved))
    }

    /// Scores and pools in two passes over the features.
    fn segments(&self, starts: &Tensor<u32>, gates: Option<&mut Tensor<P::Gate>>, to: &mut Segments<T>) -> Result<()> {
        let (gpu, layer, x) = (self.gpu, &self.layer, &self.x);
        let Dims { n, l, k, .. } = layer.dims;
        let (tiles, segments) = (layer.tiles(), starts.len() - 1);
        let mut part = gpu.alloc::<T>(&[tiles, n, k])?;
        self.products.score(gpu, layer, x, Span { first: 0, rows: n }, Some(&mut part), gates)?;
        // Rows of 32 lanes with 16 bytes each; one of them writes the scores even where there are no features.
        let grid = Grid::new(segments, THREADS).times(l.div_ceil(32 * 16 / size_of::<F>()).max(1));
        attention_mil_pool::<F>(
            gpu,
            grid,
            x,
            &part,
            layer.w_bias.as_ref(),
            starts,
            &mut to.scores,
            &mut to.max,
            &mut to.sum,
            &mut to.pooled,
            n as u32,
            segments as u32,
            l as u32,
            tiles as u32,
            k as u32,
        )
    }

    /// The gradients in the order of the inputs: `x`, then weight and bias of `v`, `u` and `w`. Gates that were not kept
    /// are calculated again, as many at a time as the limits say.
    fn backward(
        &self,
        saved: Saved<T, P::Gate>,
        given: Given<'_, T>,
        wants_x: bool,
        limits: Limits,
    ) -> Result<Vec<Option<Tensor<T>>>> {
        let (gpu, layer, x, bags) = (self.gpu, &self.layer, &self.x, &self.bags);
        let (Dims { n, l, d, k }, width) = (layer.dims, layer.width());
        let (all, columns, heads, b) = (n as u32, l as u32, k as u32, bags.bags() as u32);
        let (offset, stride) = (bags.on(gpu)?, self.products.stride(width));
        let Saved { pooled, weights, mut gates } = saved;
        let mut mean = gpu.alloc::<T>(&[bags.bags(), k])?;
        let grid = Grid::new(bags.bags() * k, 256);
        attention_mil_means(
            gpu,
            grid,
            given.pooled,
            &pooled,
            given.weights,
            &weights,
            &offset,
            &mut mean,
            all,
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
            all,
            b,
            columns,
            heads,
        )?;

        let (split, sums) = (split_rows(n), width + k * d + k);
        let mut small = gpu.alloc::<T>(&[n.div_ceil(GATE_ROWS), sums])?;
        let mut large = gpu.alloc::<T>(&[n.div_ceil(split), width, l])?;
        let mut dx = wants_x.then(|| gpu.alloc::<T>(&[n, l])).transpose()?;
        let to_input = ToInput { weights: &weights, grad_pooled: given.pooled, offset: &offset, bags: bags.bags() };
        let row = stride * size_of::<P::Gate>();
        let at_a_time = if gates.is_some() { n.max(1) } else { limits.at_a_time(n, row) };
        for first in (0..n).step_by(at_a_time) {
            let span = Span { first, rows: at_a_time.min(n - first) };
            let mut gates = match gates.take() {
                Some(gates) => gates,
                None => {
                    let mut gates = gpu.alloc(&[span.rows, stride])?;
                    self.products.score(gpu, layer, x, span, None, Some(&mut gates))?;
                    gates
                }
            };
            let grid = Grid::over(d.max(k), 128, 128).times(span.rows.div_ceil(GATE_ROWS));
            attention_mil_gate_gradient::<P::Gate>(
                gpu,
                grid,
                &d_score,
                &layer.w,
                &mut gates,
                &mut small,
                all,
                first as u32,
                span.rows as u32,
                d as u32,
                width as u32,
                stride as u32,
                heads,
            )?;
            self.products.inner_gradient(gpu, layer, x, span, split, &gates, &mut large)?;
            if let Some(dx) = &mut dx {
                self.products.input_gradient(gpu, layer, span, &gates, &to_input, dx)?;
            }
        }

        let summed = |part: &Tensor<T>, first: usize, shape: &[usize]| {
            let (parts, count): (_, usize) = (part.shape()[0], shape.iter().product());
            if parts == 0 {
                return gpu.zeros::<T>(shape).map(Some);
            }
            let mut sum = gpu.alloc::<T>(shape)?;
            let (grid, stride) = (Grid::over(count, 32, 256), (part.len() / parts) as u64);
            attention_mil_sum(gpu, grid, part, &mut sum, parts as u32, stride, first as u64, count as u32)?;
            Ok(Some(sum))
        };
        let of_gate = |part: &Tensor<T>, first: usize, shape: &[usize]| match layer.u {
            Some(_) => summed(part, first, shape),
            None => Ok(None),
        };
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
}

#[cfg(test)]
mod tests {
    use super::super::{Affine, Room};
    use super::*;
    use crate::device::Device;
    use crate::device::tests::gpu;
    use crate::rng::Draws;
    use crate::tape::Var;

    /// Three splits, the last one short, and bags of several segments.
    const N: usize = 2100;
    const LENGTHS: [usize; 4] = [1500, 0, 1, 599];

    fn normal(name: &str, shape: &[usize]) -> Tensor<f32> {
        let stream = Draws::new(0, 0, name).of(0);
        Tensor::from_fn(shape, |i| stream.normal(i as u64) as f32)
    }

    /// Outputs and gradients as bits, and the most memory that there was at once beyond the inputs.
    fn pooled(gpu: Gpu, limits: Limits, gated: bool, precision: Precision) -> (Vec<Vec<u32>>, u64) {
        let gpu = gpu.with_precision(precision);
        let there = |name: &str, shape: &[usize]| normal(name, shape).to(Device::Cuda(gpu)).unwrap();
        let (l, d, k) = (12, 5, 2);
        let [v, u, w] = [("v", [d, l]), ("u", [d, l]), ("w", [k, d])].map(|(n, s)| Var::constant(there(n, &s)));
        let bias = Var::constant(there("bias", &[d]));
        let map = |weight| Affine { weight, bias: Some(&bias) };
        let op = AttentionMil { v: map(&v), u: gated.then(|| map(&u)), w: Affine { weight: &w, bias: None } };
        let (dims, bags) = (Dims { n: N, l, d, k }, Ragged::from_lengths(LENGTHS));
        let (x, g) = (there("x", &[N, l]), there("g", &[LENGTHS.len(), k, l]));
        bags.segments(gpu).unwrap();
        bags.on(gpu).unwrap();
        gpu.synchronize().unwrap();
        gpu.forget_peak();
        let before = gpu.usage().bytes;
        fn run<P: Products<f32>>(
            products: P,
            gpu: Gpu,
            layer: Layer<f32>,
            (x, g, bags): (Tensor<f32>, Tensor<f32>, Ragged),
            limits: Limits,
        ) -> Vec<Tensor<f32>> {
            let (outputs, backward) = Call { gpu, layer, products, x, bags }.run(limits, true, true).unwrap();
            let grads = backward(Given { pooled: Some(&g), weights: None, scores: None }).unwrap();
            outputs.into_iter().chain(grads.into_iter().flatten()).collect()
        }
        let (layer, given) = (Layer::new(dims, &op), (x, g, bags));
        let all = match precision {
            Precision::Bf16 => run(Rounded::<bf16>::of(gpu, &layer).unwrap(), gpu, layer, given, limits),
            _ => run(Single { tf32: precision == Precision::Tf32 }, gpu, layer, given, limits),
        };
        let peak = gpu.usage().peak_bytes - before;
        let bits = |t: &Tensor<f32>| t.read().unwrap().into_iter().map(f32::to_bits).collect();
        (all.iter().map(bits).collect(), peak)
    }

    #[test]
    fn gates_that_are_calculated_again_give_the_bits_of_those_that_were_kept_on_a_device_too() {
        let Some((gpu, _one)) = gpu() else { return };
        for gated in [true, false] {
            let keep = Limits { kept: usize::MAX, again: 0 };
            for precision in [Precision::F32, Precision::Tf32, Precision::Bf16] {
                let (kept, _) = pooled(gpu, keep, gated, precision);
                assert!(kept.iter().all(|tensor| tensor.iter().any(|bits| *bits != 0)), "all of it is calculated");
                // One split at a time, and two.
                for again in [0, 2 * split_rows(N) * if gated { 40 } else { 20 }] {
                    let (got, _) = pooled(gpu, Limits { kept: 0, again }, gated, precision);
                    assert!(got == kept, "{precision:?}, gated {gated}, {again} bytes at a time");
                }
            }
        }
    }

    #[test]
    fn the_room_is_what_is_taken() {
        let Some((gpu, _one)) = gpu() else { return };
        let (dims, word) = (Dims { n: N, l: 12, d: 5, k: 2 }, size_of::<f32>());
        for (gated, width) in [(true, 10), (false, 5)] {
            for limits in [Limits { kept: usize::MAX, again: 0 }, Limits { kept: 0, again: 0 }] {
                let room = Room::within(limits, dims, LENGTHS.len(), width);
                assert_eq!(room.kept > 0, limits.kept > 0);
                let (_, peak) = pooled(gpu, limits, gated, Precision::F32);
                // Pooled rows, weights and scores, which the caller holds; the gradients of x and of the parameters.
                let outputs = LENGTHS.len() * 2 * 12 + 2 * N * 2;
                let gradients = N * 12 + width * (12 + 1) + 2 * 5 + 2;
                let foretold = room.kept + room.back + (outputs + gradients) * word;
                let peak = peak as usize;
                assert!(peak <= foretold && foretold <= peak + peak / 20, "{peak} of {foretold}, gated {gated}");
            }
        }
    }
}
