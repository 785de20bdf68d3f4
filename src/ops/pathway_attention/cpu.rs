//! Attention between tokens on the CPU: a task a chunk of patches, whose scores are calculated a tile at a time. What
//! tasks give for the same gene tokens is joined in the order of the chunks. Where gene tokens are queries alone there may be
//! many of them, and tasks have a piece each.

use std::ops::Range;

use rayon::prelude::*;

use super::{Attended, Both, Dims};
use crate::element::Real;
use crate::memory::zeroed;
use crate::ops::math;
use crate::ops::matmul::{Matrix, product_strided};
use crate::shape::Ragged;
use crate::tensor::Tensor;

/// Patches of one task.
const CHUNK: usize = 4096;

/// Gene tokens of one task where they are queries alone.
const PIECE: usize = 1024;

/// Queries and keys whose scores are there at once: they fit into the second cache.
const TILE: usize = 128;

/// Packed rows of one modality, a head of them at a time.
#[derive(Clone, Copy)]
struct Rows<'a, T> {
    packed: &'a [T],
    dims: Dims,
    /// From one row to the next.
    step: usize,
}

/// Which columns of packed rows.
#[derive(Clone, Copy)]
enum Part {
    Query,
    Key,
    Value,
}

impl Part {
    /// Its first column for a head.
    fn column(self, dims: Dims, head: usize) -> usize {
        let first = match self {
            Part::Query => 0,
            Part::Key => dims.keys(),
            Part::Value => dims.keys() + dims.width(),
        };
        first + head * dims.d
    }
}

impl<'a, T: Real> Rows<'a, T> {
    fn of(self, part: Part, head: usize, rows: &Range<usize>) -> Matrix<'a, T> {
        let (dims, step) = (self.dims, self.step);
        Matrix::strided(&self.packed[rows.start * step + part.column(dims, head)..], rows.len(), dims.d, step)
    }
}

/// Tiles of some rows, in order.
fn tiles(rows: &Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let end = rows.end;
    rows.clone().step_by(TILE).map(move |start| start..(start + TILE).min(end))
}

/// The softmax so far of some queries of one head: the largest score, the sum of exponentials, the sum of values.
struct Running<T> {
    max: Vec<T>,
    sum: Vec<T>,
    out: Vec<T>,
}

impl<T: Real> Running<T> {
    fn new(rows: usize, d: usize) -> Running<T> {
        Running { max: vec![T::neg_infinity(); rows], sum: vec![T::zero(); rows], out: vec![T::zero(); rows * d] }
    }

    /// Rescales row `r` for scores of which `max` may be larger.
    fn raise(&mut self, r: usize, max: T, d: usize) {
        if max > self.max[r] {
            let factor = (self.max[r] - max).exp();
            self.max[r] = max;
            self.sum[r] *= factor;
            self.out[r * d..(r + 1) * d].iter_mut().for_each(|x| *x *= factor);
        }
    }

    /// Takes in keys from `keys` for the queries of `rows`.
    fn attend(&mut self, head: usize, rows: &Range<usize>, of: Rows<'_, T>, keys: &Range<usize>, to: Rows<'_, T>) {
        let d = of.dims.d;
        let mut scores: Vec<T> = zeroed(TILE * TILE);
        for (block, rows) in tiles(rows).enumerate() {
            for keys in tiles(keys) {
                let scores = &mut scores[..rows.len() * keys.len()];
                exponents(scores, head, (&rows, of), (&keys, to));
                for (r, scores) in scores.chunks_exact_mut(keys.len()).enumerate() {
                    let r = block * TILE + r;
                    // A NaN is passed over here and goes into the sum.
                    let max = scores.iter().fold(T::neg_infinity(), |max, x| if *x > max { *x } else { max });
                    self.raise(r, max, d);
                    let max = self.max[r];
                    scores.iter_mut().for_each(|x| *x -= max);
                    math::exp(scores);
                    self.sum[r] += scores.iter().fold(T::zero(), |sum, x| sum + *x);
                }
                let weights = Matrix::new(scores, rows.len(), keys.len());
                product_strided(&mut self.out[block * TILE * d..], d, weights, to.of(Part::Value, head, &keys), true);
            }
        }
    }

    fn join(&mut self, other: &Running<T>, d: usize) {
        for r in 0..self.max.len() {
            self.raise(r, other.max[r], d);
            if other.max[r] == T::neg_infinity() && other.sum[r] == T::zero() {
                continue;
            }
            let factor = (other.max[r] - self.max[r]).exp();
            self.sum[r] += other.sum[r] * factor;
            let from = &other.out[r * d..(r + 1) * d];
            self.out[r * d..(r + 1) * d].iter_mut().zip(from).for_each(|(x, other)| *x += *other * factor);
        }
    }

    /// Writes a head of rows of width `heads d` and of their logarithms.
    fn finish(&self, dims: Dims, head: usize, out: &mut [T], log_sum: &mut [T]) {
        let (d, width) = (dims.d, dims.width());
        for r in 0..self.max.len() {
            log_sum[r * dims.heads + head] = self.max[r] + self.sum[r].ln();
            // Where there is nothing to attend to, 0 by 1.
            let sum = if self.sum[r] == T::zero() { T::one() } else { self.sum[r] };
            let to = &mut out[r * width + head * d..][..d];
            to.iter_mut().zip(&self.out[r * d..]).for_each(|(to, x)| *to = *x / sum);
        }
    }
}

/// The scaled scores of a tile.
fn exponents<T: Real>(
    scores: &mut [T],
    head: usize,
    (rows, of): (&Range<usize>, Rows<'_, T>),
    (keys, to): (&Range<usize>, Rows<'_, T>),
) {
    product_strided(scores, keys.len(), of.of(Part::Query, head, rows), to.of(Part::Key, head, keys).t(), false);
    let scale = of.dims.scale::<T>();
    scores.iter_mut().for_each(|x| *x *= scale);
}

/// A chunk of the patches of a bag and a piece of its gene tokens; the first chunk of a bag has its gene tokens among
/// themselves, too.
struct Task {
    genes: Range<usize>,
    patches: Range<usize>,
    first: bool,
    /// It has the first piece: what it alone writes of arrays of the patches is its.
    owns: bool,
}

/// Rows in parts of so many, one of them if there are no rows.
fn parts_of(rows: &Range<usize>, size: usize) -> impl Iterator<Item = Range<usize>> {
    let Range { start, end } = *rows;
    (0..rows.len().div_ceil(size).max(1)).map(move |i| start + i * size..(start + (i + 1) * size).min(end))
}

/// All chunks with the first piece of a bag, then all with the next one.
fn tasks(pieces: bool, bags: Both<&Ragged>) -> Vec<Task> {
    let mut tasks = Vec::new();
    for bag in 0..bags[0].bags() {
        let [all, patches] = [0, 1].map(|i| bags[i].bag(bag));
        for genes in parts_of(&all, if pieces { PIECE } else { usize::MAX / 2 }) {
            tasks.extend(parts_of(&patches, CHUNK).map(|chunk| Task {
                first: chunk.start == patches.start,
                owns: genes.start == all.start,
                genes: genes.clone(),
                patches: chunk,
            }));
        }
    }
    tasks
}

/// Tasks, each with what it alone writes of arrays of the patches, of so many columns.
fn shared_out<T>(tasks: Vec<Task>, arrays: Both<(&mut [T], usize)>) -> Vec<(Task, Both<&mut [T]>)> {
    let [(mut a, a_columns), (mut b, b_columns)] = arrays;
    let mut shared = Vec::with_capacity(tasks.len());
    for task in tasks {
        let rows = if task.owns { task.patches.len() } else { 0 };
        let (here_a, rest_a) = a.split_at_mut(rows * a_columns);
        let (here_b, rest_b) = b.split_at_mut(rows * b_columns);
        (a, b) = (rest_a, rest_b);
        shared.push((task, [here_a, here_b]));
    }
    shared
}

/// Gives what consecutive tasks gave for the same gene tokens to `join`.
fn each_piece<P>(parts: Vec<(Range<usize>, P)>, mut join: impl FnMut(Range<usize>, Vec<P>)) {
    let mut parts = parts.into_iter().peekable();
    while let Some((genes, first)) = parts.next() {
        let mut all = vec![first];
        while let Some((_, next)) = parts.next_if(|(of, _)| *of == genes && !genes.is_empty()) {
            all.push(next);
        }
        join(genes, all);
    }
}

pub(super) fn forward<T: Real>(dims: Dims, packed: &Both<Tensor<T>>, bags: &Both<Ragged>) -> Attended<T> {
    let [genes, patches] = [0, 1].map(|i| Rows { packed: packed[i].host(), dims, step: dims.steps()[i] });
    let results = dims.results();
    let heads = results.map(|columns| if columns > 0 { dims.heads } else { 0 });
    let [mut out, mut patch_out] = [0, 1].map(|i| Tensor::zeros(&[bags[i].rows(), results[i]]));
    let [mut log_sum, mut patch_log_sum] = [0, 1].map(|i| Tensor::zeros(&[bags[i].rows(), heads[i]]));
    let arrays = [(patch_out.host_mut(), results[1]), (patch_log_sum.host_mut(), heads[1])];
    let parts =
        shared_out(tasks(dims.guided, bags.each_ref()), arrays).into_par_iter().map(|(task, [out, log_sum])| {
            let heads = (0..dims.heads).map(|head| {
                if !dims.guided {
                    let mut of_patches = Running::new(task.patches.len(), dims.d);
                    of_patches.attend(head, &task.patches, patches, &task.genes, genes);
                    of_patches.finish(dims, head, out, log_sum);
                }
                let mut of_genes = Running::new(task.genes.len(), dims.d);
                if task.first && !dims.guided {
                    of_genes.attend(head, &task.genes, genes, &task.genes, genes);
                }
                of_genes.attend(head, &task.genes, genes, &task.patches, patches);
                of_genes
            });
            let heads = heads.collect::<Vec<_>>();
            (task.genes, heads)
        });
    let (to, to_log) = (out.host_mut(), log_sum.host_mut());
    each_piece(parts.collect(), |rows, parts| {
        let mut parts = parts.into_iter();
        let mut heads = parts.next().expect("a bag has a task");
        for part in parts {
            heads.iter_mut().zip(&part).for_each(|(head, other)| head.join(other, dims.d));
        }
        for (head, running) in heads.iter().enumerate() {
            running.finish(dims, head, &mut to[rows.start * dims.width()..], &mut to_log[rows.start * dims.heads..]);
        }
    });
    Attended { out: [out, patch_out], log_sum: [log_sum, patch_log_sum] }
}

/// How much each patch counts for the gene tokens of its bag: a task a chunk of patches, gene tokens in their order.
pub(super) fn weights<T: Real>(
    dims: Dims,
    packed: Both<&Tensor<T>>,
    bags: Both<&Ragged>,
    log_sum: &Tensor<T>,
) -> Tensor<T> {
    let [genes, patches] = [0, 1].map(|i| Rows { packed: packed[i].host(), dims, step: dims.steps()[i] });
    let mut weights = Tensor::zeros(&[bags[1].rows(), dims.heads]);
    let arrays = [(weights.host_mut(), dims.heads), (&mut [][..], 0)];
    shared_out(tasks(false, bags), arrays).into_par_iter().for_each(|(task, [to, _])| {
        let mut tile: Vec<T> = zeroed(TILE * TILE);
        for head in 0..dims.heads {
            for rows in tiles(&task.genes) {
                for keys in tiles(&task.patches) {
                    let scores = &mut tile[..rows.len() * keys.len()];
                    exponents(scores, head, (&rows, genes), (&keys, patches));
                    let to = &mut to[(keys.start - task.patches.start) * dims.heads..];
                    for (row, scores) in rows.clone().zip(scores.chunks_exact_mut(keys.len())) {
                        let log_sum = log_sum.host()[row * dims.heads + head];
                        scores.iter_mut().for_each(|x| *x -= log_sum);
                        math::exp(scores);
                        to.chunks_mut(dims.heads).zip(&*scores).for_each(|(to, w)| to[head] += *w);
                    }
                }
            }
        }
        let count = T::of(task.genes.len().max(1) as f64);
        to.iter_mut().for_each(|w| *w /= count);
    });
    weights
}

/// Rows of queries in the backward pass: what they are, what is owed to them, and sums of it a row and head.
#[derive(Clone, Copy)]
struct Owed<'a, T> {
    rows: Rows<'a, T>,
    grad: &'a [T],
    log_sum: &'a [T],
    /// `<dL/do_i, o_i>`.
    dot: &'a [T],
}

/// `<dL/do_i, o_i>` of each row and head.
fn dots<T: Real>(dims: Dims, out: &Tensor<T>, grad: &Tensor<T>) -> Vec<T> {
    let of = |at: usize| math::dot(&out.host()[at * dims.d..][..dims.d], &grad.host()[at * dims.d..][..dims.d]);
    (0..out.len() / dims.d.max(1)).map(of).collect()
}

/// Gradients of packed rows, the first of which is row `first`.
struct Gradient<'a, T> {
    packed: &'a mut [T],
    first: usize,
    step: usize,
}

impl<T: Real> Gradient<'_, T> {
    fn add(&mut self, dims: Dims, part: Part, head: usize, row: usize, a: Matrix<'_, T>, b: Matrix<'_, T>) {
        let at = (row - self.first) * self.step + part.column(dims, head);
        product_strided(&mut self.packed[at..], self.step, a, b, true);
    }
}

/// What queries of `rows` owe to keys of `keys`: adds to the gradients of the first's queries and the second's keys and values.
fn attend_back<T: Real>(
    (rows, of): (&Range<usize>, Owed<'_, T>),
    (keys, to): (&Range<usize>, Rows<'_, T>),
    mut add: impl FnMut(bool, Part, usize, usize, Matrix<'_, T>, Matrix<'_, T>),
) {
    let dims = of.rows.dims;
    let (width, scale) = (dims.width(), dims.scale::<T>());
    let [mut weights, mut owed]: Both<Vec<T>> = [zeroed(TILE * TILE), zeroed(TILE * TILE)];
    for head in 0..dims.heads {
        for rows in tiles(rows) {
            let grad = Matrix::strided(&of.grad[rows.start * width + head * dims.d..], rows.len(), dims.d, width);
            for keys in tiles(keys) {
                let (weights, owed) = (&mut weights[..rows.len() * keys.len()], &mut owed[..rows.len() * keys.len()]);
                exponents(weights, head, (&rows, of.rows), (&keys, to));
                product_strided(owed, keys.len(), grad, to.of(Part::Value, head, &keys).t(), false);
                let each = weights.chunks_exact_mut(keys.len()).zip(owed.chunks_exact_mut(keys.len()));
                for (row, (weights, owed)) in rows.clone().zip(each) {
                    let (log_sum, dot) = (of.log_sum[row * dims.heads + head], of.dot[row * dims.heads + head]);
                    weights.iter_mut().for_each(|w| *w -= log_sum);
                    math::exp(weights);
                    owed.iter_mut().zip(&*weights).for_each(|(owed, w)| *owed = *w * (*owed - dot) * scale);
                }
                let [weights, owed] = [&*weights, &*owed].map(|x| Matrix::new(x, rows.len(), keys.len()));
                add(false, Part::Query, head, rows.start, owed, to.of(Part::Key, head, &keys));
                add(true, Part::Key, head, keys.start, owed.t(), of.rows.of(Part::Query, head, &rows));
                add(true, Part::Value, head, keys.start, weights.t(), grad);
            }
        }
    }
}

pub(super) fn backward<T: Real>(
    dims: Dims,
    packed: &Both<Tensor<T>>,
    bags: &Both<Ragged>,
    kept: &Attended<T>,
    grads: &Both<Tensor<T>>,
) -> Both<Tensor<T>> {
    let steps = dims.steps();
    let rows = [0, 1].map(|i| Rows { packed: packed[i].host(), dims, step: steps[i] });
    let dot = [0, 1].map(|i| dots(dims, &kept.out[i], &grads[i]));
    let [genes, patches] =
        [0, 1].map(|i| Owed { rows: rows[i], grad: grads[i].host(), log_sum: kept.log_sum[i].host(), dot: &dot[i] });
    let [mut to_genes, mut to_patches] = [0, 1].map(|i| Tensor::zeros(packed[i].shape()));
    let arrays = [(to_patches.host_mut(), steps[1]), (&mut [][..], 0)];
    let parts =
        shared_out(tasks(dims.guided, bags.each_ref()), arrays).into_par_iter().map(|(task, [to_patches, _])| {
            let mut to_genes = vec![T::zero(); task.genes.len() * steps[0]];
            let mut apart = if task.owns { Vec::new() } else { zeroed(task.patches.len() * steps[1]) };
            let to_patches = if task.owns { to_patches } else { &mut apart };
            let mut of_genes = Gradient { packed: &mut to_genes, first: task.genes.start, step: steps[0] };
            let mut of_patches = Gradient { packed: to_patches, first: task.patches.start, step: steps[1] };
            if task.first && !dims.guided {
                attend_back((&task.genes, genes), (&task.genes, genes.rows), |_, part, head, row, a, b| {
                    of_genes.add(dims, part, head, row, a, b);
                });
            }
            attend_back((&task.genes, genes), (&task.patches, patches.rows), |keys, part, head, row, a, b| {
                if keys { &mut of_patches } else { &mut of_genes }.add(dims, part, head, row, a, b);
            });
            if !dims.guided {
                attend_back((&task.patches, patches), (&task.genes, genes.rows), |keys, part, head, row, a, b| {
                    if keys { &mut of_genes } else { &mut of_patches }.add(dims, part, head, row, a, b);
                });
            }
            (task.genes, (task.patches, to_genes, apart))
        });
    let parts: Vec<_> = parts.collect();
    let add = |to: &mut [T], part: &[T]| to.iter_mut().zip(part).for_each(|(sum, x)| *sum += *x);
    let (to, to_patches_of_all) = (to_genes.host_mut(), to_patches.host_mut());
    each_piece(parts, |genes, parts| {
        for (patches, of_genes, apart) in parts {
            add(&mut to[genes.start * steps[0]..], &of_genes);
            add(&mut to_patches_of_all[patches.start * steps[1]..], &apart);
        }
    });
    [to_genes, to_patches]
}
