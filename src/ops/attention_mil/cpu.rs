//! Attention pooling on the CPU: tiles of rows that stay in the second cache, each scored, exponentiated and pooled
//! while there; the parts of a bag in different tiles are joined afterwards, in order.

use std::ops::Range;

use rayon::prelude::*;

use super::{Affine, AttentionMil, Dims, Given};
use crate::element::{Feature, Real};
use crate::features::{Kept, widened, with_elements};
use crate::memory::zeroed;
use crate::ops::math;
use crate::ops::matmul::{Matrix, product, transposed};
use crate::ops::parallel::{ROWS, rows_mut, sum_rows_mut};
use crate::shape::Ragged;
use crate::tensor::Tensor;

/// The parameters as the tiles read them: `V` and `U` stacked, so that one product serves both.
pub(super) struct Layer<T> {
    dims: Dims,
    gated: bool,
    /// `[D or 2 D, L]`.
    inner: Vec<T>,
    /// Its transpose.
    inner_t: Vec<T>,
    /// `[D or 2 D]`.
    inner_bias: Vec<T>,
    /// `[K, D]`.
    w: Tensor<T>,
    /// `[K]`.
    w_bias: Vec<T>,
}

impl<T: Real> Layer<T> {
    pub(super) fn new(dims: Dims, op: &AttentionMil<'_, T>) -> Layer<T> {
        let maps: Vec<Affine<'_, T>> = [Some(op.v), op.u].into_iter().flatten().collect();
        let bias = |map: &Affine<'_, T>, len| match map.bias {
            Some(bias) => bias.value().host().to_vec(),
            None => vec![T::zero(); len],
        };
        let inner: Vec<T> = maps.iter().flat_map(|map| map.weight.value().host()).copied().collect();
        Layer {
            dims,
            gated: op.u.is_some(),
            inner_t: transposed(&inner, maps.len() * dims.d, dims.l),
            inner,
            inner_bias: maps.iter().flat_map(|map| bias(map, dims.d)).collect(),
            w: op.w.weight.value().clone(),
            w_bias: bias(&op.w, dims.k),
        }
    }

    /// The columns of `inner^T`: `D`, or `2 D` with the gate.
    pub(super) fn width(&self) -> usize {
        self.inner_bias.len()
    }

    fn inner(&self) -> Matrix<'_, T> {
        Matrix::new(&self.inner, self.width(), self.dims.l)
    }

    fn w(&self) -> Matrix<'_, T> {
        Matrix::new(self.w.host(), self.dims.k, self.dims.d)
    }

    /// `tanh(V x + b_V)` and, beside it in each row, `sigmoid(U x + b_U)`.
    fn gates(&self, x: &[T], gates: &mut [T]) {
        let (Dims { l, d, .. }, width) = (self.dims, self.width());
        if d == 0 {
            return;
        }
        let rows = gates.len() / width;
        product(gates, Matrix::new(x, rows, l), Matrix::new(&self.inner_t, l, width), false);
        for row in gates.chunks_exact_mut(width) {
            row.iter_mut().zip(&self.inner_bias).for_each(|(x, b)| *x += *b);
            let (t, s) = row.split_at_mut(d);
            math::tanh(t);
            math::sigmoid(s);
        }
    }

    /// The product of the gates, `[rows, D]`.
    fn both(&self, gates: &[T], both: &mut Vec<T>) {
        let (d, width) = (self.dims.d, self.width());
        both.clear();
        for row in gates.chunks_exact(width.max(1)) {
            let (t, s) = row.split_at(d);
            match self.gated {
                true => both.extend(t.iter().zip(s).map(|(t, s)| *t * *s)),
                false => both.extend_from_slice(t),
            }
        }
    }

    /// The scores of a tile, into `scores`.
    fn score(&self, both: &[T], scores: &mut [T]) {
        let Dims { d, k, .. } = self.dims;
        product(scores, Matrix::new(both, scores.len() / k, d), self.w().t(), false);
        for row in scores.chunks_exact_mut(k) {
            row.iter_mut().zip(&self.w_bias).for_each(|(score, b)| *score += *b);
        }
    }
}

/// Memory that a thread uses for one tile after the other.
#[derive(Default)]
struct Scratch<T> {
    x: Vec<T>,
    gates: Vec<T>,
    both: Vec<T>,
    small: Vec<T>,
}

/// What is kept for the backward pass besides the inputs.
pub(super) struct Saved<T> {
    pub(super) pooled: Tensor<T>,
    pub(super) weights: Tensor<T>,
    /// `[N, D or 2 D]`: tanh and sigmoid, unless that is too much; then they are calculated again.
    pub(super) gates: Option<Vec<T>>,
}

/// The part of one bag that lies in one tile.
struct Part<T> {
    bag: usize,
    /// The largest score by head.
    max: Vec<T>,
    /// Sum of `e^(score - max)` by head.
    sum: Vec<T>,
    /// `[K, L]`: the rows weighted with `e^(score - max)`.
    pooled: Vec<T>,
}

/// The bags that have rows in `range`, with those rows.
fn runs(bags: &Ragged, range: Range<usize>) -> impl Iterator<Item = (usize, Range<usize>)> + '_ {
    let mut at = range.start;
    std::iter::from_fn(move || {
        (at < range.end).then(|| {
            let bag = bags.bag_of(at);
            let run = at..bags.bag(bag).end.min(range.end);
            at = run.end;
            (bag, run)
        })
    })
}

/// The pooled rows, the weights and the scores; and the gates where they shall be kept for the backward pass.
pub(super) fn forward<T: Real>(
    layer: &Layer<T>,
    x: &Kept<T>,
    bags: &Ragged,
    keep_gates: bool,
) -> ([Tensor<T>; 3], Option<Vec<T>>) {
    let Dims { n, l, k, .. } = layer.dims;
    let mut scores = Tensor::zeros(&[n, k]);
    let mut gates = keep_gates.then(|| zeroed(n * layer.width()));
    let parts: Vec<Part<T>> = with_elements!(x, x => tiles(layer, x, bags, scores.host_mut(), gates.as_deref_mut()));
    let first_part: Vec<usize> = (0..=bags.bags()).map(|b| parts.partition_point(|part| part.bag < b)).collect();
    let parts_of = |bag: usize| &parts[first_part[bag]..first_part[bag + 1]];

    // The softmax of a bag and head: the largest score, and the sum relative to it.
    let total = |at: usize| {
        let (parts, head) = (parts_of(at / k), at % k);
        let max = parts.iter().map(|p| p.max[head]).fold(T::neg_infinity(), T::max);
        (max, parts.iter().map(|p| (p.max[head] - max).exp() * p.sum[head]).sum::<T>())
    };
    let totals: Vec<(T, T)> = (0..bags.bags() * k).map(total).collect();

    let mut pooled = Tensor::zeros(&[bags.bags(), k, l]);
    rows_mut(pooled.host_mut(), l, |first, pooled| {
        for (at, pooled) in (first..).zip(pooled.chunks_exact_mut(l)) {
            let (parts, head, (max, sum)) = (parts_of(at / k), at % k, totals[at]);
            for part in parts {
                math::axpy(pooled, (part.max[head] - max).exp(), &part.pooled[head * l..(head + 1) * l]);
            }
            if !parts.is_empty() {
                pooled.iter_mut().for_each(|x| *x /= sum);
            }
        }
    });

    let mut weights = scores.clone();
    rows_mut(weights.host_mut(), k, |first, weights| {
        let rows = first..first + weights.len() / k;
        for (bag, run) in runs(bags, rows) {
            let weights = &mut weights[(run.start - first) * k..(run.end - first) * k];
            let totals = &totals[bag * k..(bag + 1) * k];
            for row in weights.chunks_exact_mut(k) {
                row.iter_mut().zip(totals).for_each(|(x, (max, _))| *x -= *max);
            }
            math::exp(weights);
            for row in weights.chunks_exact_mut(k) {
                row.iter_mut().zip(totals).for_each(|(x, (_, sum))| *x /= *sum);
            }
        }
    });
    ([pooled, weights, scores], gates)
}

/// Scores every tile and pools its parts, which come in the order of the rows.
fn tiles<F: Feature, T: Real>(
    layer: &Layer<T>,
    x: &[F],
    bags: &Ragged,
    scores: &mut [T],
    gates: Option<&mut [T]>,
) -> Vec<Part<T>> {
    let (Dims { l, k, .. }, width) = (layer.dims, layer.width());
    let kept: Vec<Option<&mut [T]>> = match gates {
        Some(gates) if width > 0 => gates.chunks_mut(ROWS * width).map(Some).collect(),
        _ => std::iter::repeat_with(|| None).take(scores.len().div_ceil(ROWS * k)).collect(),
    };
    let tile = |scratch: &mut Scratch<T>, (tile, (scores, kept)): (usize, (&mut [T], Option<&mut [T]>))| {
        let (first, rows) = (tile * ROWS, scores.len() / k);
        let x = widened(&x[first * l..(first + rows) * l], &mut scratch.x);
        let gates = kept.unwrap_or_else(|| {
            scratch.gates.resize(rows * width, T::zero());
            &mut scratch.gates
        });
        layer.gates(x, gates);
        layer.both(gates, &mut scratch.both);
        layer.score(&scratch.both, scores);
        let part = |(bag, run): (usize, Range<usize>)| {
            let run = run.start - first..run.end - first;
            let scores = &scores[run.start * k..run.end * k];
            pool(bag, &x[run.start * l..run.end * l], scores, layer.dims, &mut scratch.small)
        };
        runs(bags, first..first + rows).map(part).collect::<Vec<_>>()
    };
    let parts: Vec<Vec<Part<T>>> =
        scores.par_chunks_mut(ROWS * k).zip(kept).enumerate().map_init(Scratch::default, tile).collect();
    parts.into_iter().flatten().collect()
}

/// Pools some rows of one bag relative to their largest score.
fn pool<T: Real>(bag: usize, x: &[T], scores: &[T], Dims { l, k, .. }: Dims, scaled: &mut Vec<T>) -> Part<T> {
    let mut part =
        Part { bag, max: vec![T::neg_infinity(); k], sum: vec![T::zero(); k], pooled: vec![T::zero(); k * l] };
    for row in scores.chunks_exact(k) {
        part.max.iter_mut().zip(row).for_each(|(max, score)| *max = max.max(*score));
    }
    scaled.clear();
    scaled.extend(scores.iter().enumerate().map(|(i, score)| *score - part.max[i % k]));
    math::exp(scaled);
    for (i, row) in scaled.chunks_exact(k).enumerate() {
        for (head, e) in row.iter().enumerate() {
            part.sum[head] += *e;
            math::axpy(&mut part.pooled[head * l..(head + 1) * l], *e, &x[i * l..(i + 1) * l]);
        }
    }
    part
}

/// The gradients in the order of the inputs: `x`, then weight and bias of `v`, `u` and `w`.
pub(super) fn backward<T: Real>(
    layer: &Layer<T>,
    x: &Kept<T>,
    bags: &Ragged,
    saved: &Saved<T>,
    given: Given<'_, T>,
    wants_x: bool,
) -> Vec<Option<Tensor<T>>> {
    let Dims { n, l, d, k } = layer.dims;
    let width = layer.width();
    let means = means(layer.dims, bags, saved, given);
    let mut dx = wants_x.then(|| Tensor::zeros(&[n, l]));
    let columns = if wants_x { l } else { 0 };
    let dx_rows = dx.as_mut().map_or(&mut [] as &mut [T], |dx| dx.host_mut());

    let sizes = [width * l, width, k * d, k];
    let sums = with_elements!(x, x => sum_rows_mut(n, sizes.iter().sum(), dx_rows, columns, |range, sum, dx| {
        let mut scratch = Scratch::default();
        let (d_inner, rest) = sum.split_at_mut(sizes[0]);
        let (d_inner_bias, rest) = rest.split_at_mut(sizes[1]);
        let (d_w, d_w_bias) = rest.split_at_mut(sizes[2]);
        let rows = range.len();
        let x = widened(&x[range.start * l..range.end * l], &mut scratch.x);
        let d_score = &mut scratch.small;
        score_gradients(layer.dims, x, bags, range.clone(), saved, given, &means, d_score);
        let d_scores = Matrix::new(d_score, rows, k);

        match &saved.gates {
            Some(gates) => scratch.gates.extend_from_slice(&gates[range.start * width..range.end * width]),
            None => {
                scratch.gates.resize(rows * width, T::zero());
                layer.gates(x, &mut scratch.gates);
            }
        }
        layer.both(&scratch.gates, &mut scratch.both);
        product(d_w, d_scores.t(), Matrix::new(&scratch.both, rows, d), true);
        for row in d_score.chunks_exact(k) {
            d_w_bias.iter_mut().zip(row).for_each(|(sum, g)| *sum += *g);
        }
        // From here `both` is the gradient of the product of the gates, and `gates` that of their arguments.
        product(&mut scratch.both, d_scores, layer.w(), false);
        if d > 0 {
            for (row, grad) in scratch.gates.chunks_exact_mut(width).zip(scratch.both.chunks_exact(d)) {
                through_gates(row, grad);
                d_inner_bias.iter_mut().zip(row).for_each(|(sum, g)| *sum += *g);
            }
        }
        let d_gates = Matrix::new(&scratch.gates, rows, width);
        product(d_inner, d_gates.t(), Matrix::new(x, rows, l), true);
        if wants_x {
            product(dx, d_gates, layer.inner(), false);
            if let Some(grad) = given.pooled {
                for (bag, run) in runs(bags, range.clone()) {
                    for i in run {
                        let row = &mut dx[(i - range.start) * l..(i - range.start + 1) * l];
                        for head in 0..k {
                            let g = &grad.host()[(bag * k + head) * l..(bag * k + head + 1) * l];
                            math::axpy(row, saved.weights.host()[i * k + head], g);
                        }
                    }
                }
            }
        }
    }));

    let (inner, rest) = sums.split_at(sizes[0]);
    let (inner_bias, rest) = rest.split_at(sizes[1]);
    let (w, w_bias) = rest.split_at(sizes[2]);
    let tensor = |shape: &[usize], data: &[T]| Some(Tensor::new(shape, data.to_vec()).expect("sized above"));
    let map = |part: usize| {
        let some = part == 0 || layer.gated;
        let weight = some.then(|| tensor(&[d, l], &inner[part * d * l..(part + 1) * d * l])).flatten();
        [weight, some.then(|| tensor(&[d], &inner_bias[part * d..(part + 1) * d])).flatten()]
    };
    [dx].into_iter().chain(map(0)).chain(map(1)).chain([tensor(&[k, d], w), tensor(&[k], w_bias)]).collect()
}

/// `sum_j weight_jk dL/dweight_jk` of each bag and head. The sum over `g . x_j` is `g . pooled`, which is at hand.
fn means<T: Real>(Dims { l, k, .. }: Dims, bags: &Ragged, saved: &Saved<T>, given: Given<'_, T>) -> Vec<T> {
    let mut means = vec![T::zero(); bags.bags() * k];
    rows_mut(&mut means, k, |first, means| {
        for (b, means) in means.chunks_exact_mut(k).enumerate() {
            let b = first + b;
            if let Some(g) = given.pooled
                && !bags.bag(b).is_empty()
            {
                for (head, mean) in means.iter_mut().enumerate() {
                    let at = (b * k + head) * l..(b * k + head + 1) * l;
                    *mean += math::dot(&g.host()[at.clone()], &saved.pooled.host()[at]);
                }
            }
            if let Some(g) = given.weights {
                for i in bags.bag(b) {
                    let row = i * k..(i + 1) * k;
                    let terms = g.host()[row.clone()].iter().zip(&saved.weights.host()[row]);
                    means.iter_mut().zip(terms).for_each(|(mean, (g, a))| *mean += *g * *a);
                }
            }
        }
    });
    means
}

/// `dL/dscore` of a tile, into `out`.
fn score_gradients<T: Real>(
    Dims { l, k, .. }: Dims,
    x: &[T],
    bags: &Ragged,
    range: Range<usize>,
    saved: &Saved<T>,
    given: Given<'_, T>,
    means: &[T],
    out: &mut Vec<T>,
) {
    out.clear();
    for (bag, run) in runs(bags, range.clone()) {
        for i in run {
            let x = &x[(i - range.start) * l..(i - range.start + 1) * l];
            for head in 0..k {
                let at = i * k + head;
                let mut grad = T::zero();
                if let Some(g) = given.pooled {
                    grad += math::dot(&g.host()[(bag * k + head) * l..(bag * k + head + 1) * l], x);
                }
                if let Some(g) = given.weights {
                    grad += g.host()[at];
                }
                let grad = saved.weights.host()[at] * (grad - means[bag * k + head]);
                out.push(given.scores.map_or(grad, |g| grad + g.host()[at]));
            }
        }
    }
}

/// From `tanh | sigmoid` of a row (or `tanh` alone) and the gradient of their product to that of their arguments.
fn through_gates<T: Real>(row: &mut [T], grad: &[T]) {
    let (tanh, gate) = row.split_at_mut(grad.len());
    if gate.is_empty() {
        tanh.iter_mut().zip(grad).for_each(|(t, g)| *t = *g * (T::one() - *t * *t));
        return;
    }
    for ((t, s), g) in tanh.iter_mut().zip(gate).zip(grad) {
        let (tanh, sigmoid) = (*t, *s);
        *t = *g * sigmoid * (T::one() - tanh * tanh);
        *s = *g * tanh * sigmoid * (T::one() - sigmoid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Draws;
    use crate::tape::Var;

    #[test]
    fn gates_that_are_calculated_again_give_the_bits_of_those_that_were_kept() {
        let (dims, bags) = (Dims { n: 700, l: 12, d: 5, k: 2 }, Ragged::from_lengths([600, 0, 100]));
        let normal = |name: &str, shape: &[usize]| {
            let stream = Draws::new(0, 0, name).of(0);
            Tensor::from_fn(shape, |i| stream.normal(i as u64) as f32)
        };
        let [v, u, w] = [("v", [5, 12]), ("u", [5, 12]), ("w", [2, 5])].map(|(n, s)| Var::constant(normal(n, &s)));
        let map = |weight| Affine { weight, bias: None };
        let layer = Layer::new(dims, &AttentionMil { v: map(&v), u: Some(map(&u)), w: map(&w) });
        let (x, g) = (Kept::Real(normal("x", &[700, 12])), normal("g", &[3, 2, 12]));
        let [kept, again] = [true, false].map(|keep| {
            let ([pooled, weights, scores], gates) = forward(&layer, &x, &bags, keep);
            assert_eq!(gates.is_some(), keep);
            let saved = Saved { pooled, weights, gates };
            let given = Given { pooled: Some(&g), weights: None, scores: None };
            (scores, backward(&layer, &x, &bags, &saved, given, true))
        });
        assert_eq!(kept, again);
    }
}
