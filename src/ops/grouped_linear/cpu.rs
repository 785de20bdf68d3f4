//! The grouped layer on the CPU: one task a group, on group-major copies of what samples share.

use rayon::prelude::*;

use super::{Dims, GroupedLinear};
use crate::element::Real;
use crate::memory::zeroed;
use crate::ops::matmul::{Matrix, product};
use crate::ops::parallel::rows_mut;
use crate::shape::Ragged;
use crate::tensor::Tensor;

/// Calls `task(group, part)` in parallel, `part` being `each` elements for every column of the group.
fn groups_mut<T: Send>(groups: &Ragged, each: usize, data: &mut [T], task: impl Fn(usize, &mut [T]) + Sync) {
    let mut rest = data;
    let mut parts = Vec::with_capacity(groups.bags());
    for columns in groups.iter() {
        let (part, after) = rest.split_at_mut(columns.len() * each);
        parts.push(part);
        rest = after;
    }
    parts.into_par_iter().enumerate().for_each(|(s, part)| task(s, part));
}

impl Dims {
    /// `x_s`, `[B, I_s]`.
    fn input<'a, T>(&self, x: &'a [T], s: usize) -> Matrix<'a, T> {
        let columns = self.groups.bag(s);
        let x = &x[columns.start.min(x.len())..];
        Matrix::strided(x, self.samples, columns.len(), self.groups.rows())
    }

    /// `W_s`, `[O, I_s]`.
    fn weight<'a, T>(&self, weight: &'a [T], s: usize) -> Matrix<'a, T> {
        let columns = self.groups.bag(s);
        Matrix::new(&weight[columns.start * self.outputs..columns.end * self.outputs], self.outputs, columns.len())
    }

    /// `[S, B, O]` as `[B S, O]`.
    fn sample_major<T: Real>(&self, from: &[T]) -> Tensor<T> {
        let (b, s, o) = (self.samples, self.groups.bags(), self.outputs);
        let mut to = Tensor::zeros(&[b * s, o]);
        rows_mut(to.host_mut(), o, |first, to| {
            for (row, to) in (first..).zip(to.chunks_exact_mut(o)) {
                to.copy_from_slice(&from[(row % s * b + row / s) * o..][..o]);
            }
        });
        to
    }
}

/// The result, and what the slope of the activation is taken from.
pub(super) fn forward<T: Real>(
    op: GroupedLinear,
    dims: &Dims,
    x: &Tensor<T>,
    weight: &Tensor<T>,
    bias: Option<&Tensor<T>>,
) -> (Tensor<T>, Tensor<T>) {
    let (b, o) = (dims.samples, dims.outputs);
    let mut y: Vec<T> = zeroed(dims.groups.bags() * b * o);
    if !y.is_empty() {
        y.par_chunks_mut(b * o).enumerate().for_each(|(s, y)| {
            product(y, dims.input(x.host(), s), dims.weight(weight.host(), s).t(), false);
            if let Some(bias) = bias {
                let bias = &bias.host()[s * o..(s + 1) * o];
                for row in y.chunks_exact_mut(o) {
                    row.iter_mut().zip(bias).for_each(|(y, b)| *y += *b);
                }
            }
            if !op.activation.keeps_argument() {
                op.activation.apply(y);
            }
        });
    }
    let y = dims.sample_major(&y);
    if !op.activation.keeps_argument() {
        return (y.clone(), y);
    }
    let (argument, mut y) = (y.clone(), y);
    rows_mut(y.host_mut(), o, |_, y| op.activation.apply(y));
    (y, argument)
}

/// The gradients of `x` (if wanted), weight and bias.
pub(super) fn backward<T: Real>(
    op: GroupedLinear,
    dims: &Dims,
    x: &Tensor<T>,
    weight: &Tensor<T>,
    kept: &Tensor<T>,
    grad: &Tensor<T>,
    wants_x: bool,
) -> (Option<Tensor<T>>, Tensor<T>, Tensor<T>) {
    let (b, o, groups) = (dims.samples, dims.outputs, dims.groups.bags());
    // dL/d(argument of the activation)
    let mut inner = grad.clone();
    rows_mut(inner.host_mut(), o, |first, g| {
        let kept = &kept.host()[first * o..][..g.len()];
        op.activation.chain(g, kept);
    });
    // Sample `b` of group `s` is row `b S + s`: a group is a matrix with a stride.
    let inner = inner.host();
    let of_group = |s: usize| Matrix::strided(&inner[(s * o).min(inner.len())..], b, o, groups * o);

    let mut dw = Tensor::zeros(weight.shape());
    groups_mut(&dims.groups, o, dw.host_mut(), |s, dw| product(dw, of_group(s).t(), dims.input(x.host(), s), false));

    let mut db = Tensor::zeros(&[groups, o]);
    for sample in inner.chunks_exact((groups * o).max(1)) {
        db.host_mut().iter_mut().zip(sample).for_each(|(db, g)| *db += *g);
    }

    let dx = wants_x.then(|| {
        let mut parts = vec![T::zero(); x.len()];
        groups_mut(&dims.groups, b, &mut parts, |s, part| {
            product(part, of_group(s), dims.weight(weight.host(), s), false);
        });
        let mut dx = Tensor::zeros(x.shape());
        let inputs = dims.groups.rows();
        rows_mut(dx.host_mut(), inputs, |first, dx| {
            for (sample, row) in (first..).zip(dx.chunks_exact_mut(inputs)) {
                for columns in dims.groups.iter() {
                    let from = columns.start * b + sample * columns.len();
                    row[columns.clone()].copy_from_slice(&parts[from..from + columns.len()]);
                }
            }
        });
        dx
    });
    (dx, dw, db)
}
