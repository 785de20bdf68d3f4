//! Convolution along tokens on the CPU: some columns at a time, so that their weights and rows stay in the first cache.

use std::ops::Range;

use crate::element::Real;
use crate::ops::lanes;
use crate::ops::parallel::{rows_mut, sum_rows};
use crate::ops::strips::{over_strips, packed, strip};
use crate::ops::tokens::segments;
use crate::shape::Ragged;
use crate::tensor::Tensor;

/// Rows whose products are summed in registers before they join the others.
const RUN: usize = 64;

/// The kernel of each column, `[K, E]`, in strips: elements that are used together lie together.
fn of_columns<T: Real>(weight: &Tensor<T>, columns: usize, backwards: bool) -> Vec<T> {
    let (heads, length) = weight.matrix();
    let at = |i: usize| {
        let (k, head) = (i / columns, i % columns / (columns / heads));
        weight.host()[head * length + if backwards { length - 1 - k } else { k }]
    };
    packed(&(0..length * columns).map(at).collect::<Vec<T>>(), length, columns)
}

/// The result, or with kernels backwards the gradient of the input.
pub(super) fn convolved<T: Real>(x: &Tensor<T>, bags: &Ragged, weight: &Tensor<T>, backwards: bool) -> Tensor<T> {
    let ((_, columns), (_, length)) = (x.matrix(), weight.matrix());
    let kernels = of_columns(weight, columns, backwards);
    let mut y = Tensor::zeros(x.shape());
    rows_mut(y.host_mut(), columns, |first, y| {
        for (b, rows) in segments(bags, first..first + y.len() / columns) {
            let (bag, y) = (bags.bag(b), &mut y[(rows.start - first) * columns..(rows.end - first) * columns]);
            over_strips!(columns, rows_of::<T>(x.host(), &kernels, columns, length, &bag, &rows, y));
        }
    });
    y
}

/// `W` columns of some rows of a bag.
fn rows_of<T: Real, const W: usize>(
    x: &[T],
    kernels: &[T],
    columns: usize,
    length: usize,
    bag: &Range<usize>,
    rows: &Range<usize>,
    y: &mut [T],
    column: usize,
) {
    let (kernels, reach) = (kernels[length * column..].as_chunks::<W>().0, length / 2);
    for i in rows.clone() {
        let mut sum = [T::zero(); W];
        // Those whose row lies in the bag.
        for k in (bag.start + reach).saturating_sub(i)..length.min(bag.end + reach - i) {
            let (w, x): (&[T; W], &[T; W]) = (&kernels[k], strip(x, i + k - reach, columns, column));
            for j in 0..W {
                sum[j] += w[j] * x[j];
            }
        }
        y[(i - rows.start) * columns + column..][..W].copy_from_slice(&sum);
    }
}

/// The gradient of the weights, `[H, K]`.
pub(super) fn of_weight<T: Real>(x: &Tensor<T>, bags: &Ragged, shape: &[usize], grad: &Tensor<T>) -> Tensor<T> {
    let ((n, columns), (heads, length)) = (x.matrix(), (shape[0], shape[1]));
    let sums = sum_rows(n, length * columns, |rows, sums| {
        for (b, rows) in segments(bags, rows) {
            for start in rows.clone().step_by(RUN) {
                let (bag, run) = (bags.bag(b), start..(start + RUN).min(rows.end));
                over_strips!(columns, products_of::<T>(x.host(), grad.host(), columns, length, &bag, &run, sums));
            }
        }
    });
    let width = columns / heads;
    let of_head = |i: usize| lanes::sum(&sums[i % length * columns + i / length * width..][..width], |x| x);
    Tensor::from_fn(shape, of_head)
}

/// Adds the products of some rows and those that the kernel reaches from them, of `W` columns.
fn products_of<T: Real, const W: usize>(
    x: &[T],
    grad: &[T],
    columns: usize,
    length: usize,
    bag: &Range<usize>,
    rows: &Range<usize>,
    sums: &mut [T],
    column: usize,
) {
    let reach = length / 2;
    for k in 0..length {
        let mut sum = [T::zero(); W];
        let within =
            rows.start.max((bag.start + reach).saturating_sub(k))..rows.end.min((bag.end + reach).saturating_sub(k));
        for i in within {
            let (g, x): (&[T; W], &[T; W]) =
                (strip(grad, i, columns, column), strip(x, i + k - reach, columns, column));
            for j in 0..W {
                sum[j] += g[j] * x[j];
            }
        }
        let to = &mut sums[k * columns + column..][..W];
        to.iter_mut().zip(sum).for_each(|(to, sum)| *to += sum);
    }
}
