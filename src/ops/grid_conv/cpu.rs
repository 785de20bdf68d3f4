//! Convolutions over grids on the CPU: some channels at a time, so that their weights stay in the first cache.

use std::ops::Range;

use super::{Depthwise, Grids, Merged};
use crate::element::Real;
use crate::ops::parallel::{rows_mut, sum_rows};
use crate::ops::strips::{over_strips, packed, strip};
use crate::ops::tokens::segments;
use crate::tensor::Tensor;

/// All convolutions in one, centre on centre.
pub(super) fn merged<T: Real>(convolutions: &[Depthwise<'_, T>], size: usize) -> Merged<T> {
    let columns = convolutions.first().map_or(0, |first| first.weight.shape()[0]);
    let mut table = Tensor::zeros(&[size * size + 1, columns]);
    for Depthwise { weight, bias } in convolutions {
        let weights = weight.shape()[1];
        for (j, own) in weight.value().host().chunks_exact(weights).enumerate() {
            for (t, w) in own.iter().enumerate() {
                table.host_mut()[place(t, weights.isqrt(), size) * columns + j] += *w;
            }
        }
        if let Some(bias) = bias {
            let to = &mut table.host_mut()[size * size * columns..];
            to.iter_mut().zip(bias.value().host()).for_each(|(to, b)| *to += *b);
        }
    }
    Merged { table, size }
}

/// Which of `size * size` weights lies where weight `t` of a square of `side` does, centre on centre.
fn place(t: usize, side: usize, size: usize) -> usize {
    let ring = (size - side) / 2;
    (t / side + ring) * size + t % side + ring
}

/// The cells of a grid that lie side by side in a row of it.
struct Run {
    /// The row of the first cell of the grid.
    origin: usize,
    side: usize,
    /// The row of the grid.
    p: usize,
    /// Places in it.
    q: Range<usize>,
}

impl Grids {
    /// Leading rows and runs of cells in a range of rows: calls `lead` with the former, `run` with the latter.
    fn each(&self, rows: Range<usize>, mut lead: impl FnMut(Range<usize>), mut run: impl FnMut(Run)) {
        for (b, rows) in segments(&self.bags, rows) {
            let (side, origin) = (self.sides[b], self.bags.bag(b).start + self.lead);
            if rows.start < origin {
                lead(rows.start..rows.end.min(origin));
            }
            let mut row = rows.start.max(origin);
            while row < rows.end {
                let (p, q) = ((row - origin) / side, (row - origin) % side);
                let end = side.min(q + rows.end - row);
                run(Run { origin, side, p, q: q..end });
                row += end - q;
            }
        }
    }
}

/// The result, or with the weights backwards and no bias the gradient of the input.
pub(super) fn convolved<T: Real>(x: &Tensor<T>, grids: &Grids, merged: &Merged<T>, backwards: bool) -> Tensor<T> {
    let (_, columns) = x.matrix();
    let mut table = merged.table.clone();
    if backwards {
        let weights = merged.size * merged.size;
        for t in 0..weights {
            let from = merged.table.host()[(weights - 1 - t) * columns..][..columns].iter();
            table.host_mut()[t * columns..][..columns].iter_mut().zip(from).for_each(|(to, from)| *to = *from);
        }
        table.host_mut()[weights * columns..].fill(T::zero());
    }
    let (x, table) = (x.host(), &packed(table.host(), merged.size * merged.size + 1, columns));
    let mut y = Tensor::zeros(&[grids.bags.rows(), columns]);
    rows_mut(y.host_mut(), columns, |first, y| {
        let mut runs = Vec::new();
        let rows = first..first + y.len() / columns;
        let pass = |rows: Range<usize>| {
            let to = &mut y[(rows.start - first) * columns..(rows.end - first) * columns];
            to.copy_from_slice(&x[rows.start * columns..rows.end * columns]);
        };
        grids.each(rows, pass, |run| runs.push(run));
        over_strips!(columns, cells::<T>(x, table, columns, merged.size, &runs, first, y));
    });
    y
}

/// `W` channels of some runs of cells; row `first` is the first of `y`.
fn cells<T: Real, const W: usize>(
    x: &[T],
    table: &[T],
    columns: usize,
    size: usize,
    runs: &[Run],
    first: usize,
    y: &mut [T],
    column: usize,
) {
    let (table, reach) = (table[(size * size + 1) * column..].as_chunks::<W>().0, size / 2);
    let bias = &table[size * size];
    for &Run { origin, side, p, ref q } in runs {
        for q in q.clone() {
            let mut sum = [T::zero(); W];
            for u in reach.saturating_sub(p)..size.min(side + reach - p) {
                for v in reach.saturating_sub(q)..size.min(side + reach - q) {
                    let row = origin + (p + u - reach) * side + q + v - reach;
                    let (w, x): (&[T; W], &[T; W]) = (&table[u * size + v], strip(x, row, columns, column));
                    for j in 0..W {
                        sum[j] += w[j] * x[j];
                    }
                }
            }
            let row = origin + p * side + q;
            let own: &[T; W] = strip(x, row, columns, column);
            let to = &mut y[(row - first) * columns + column..][..W];
            for j in 0..W {
                to[j] = own[j] + (sum[j] + bias[j]);
            }
        }
    }
}

/// The gradients of weights and biases, of each convolution in turn; `sides` says how large it is and whether it has a bias.
pub(super) fn of_parameters<T: Real>(
    x: &Tensor<T>,
    grids: &Grids,
    size: usize,
    sides: &[(usize, bool)],
    grad: &Tensor<T>,
) -> Vec<Tensor<T>> {
    let ((n, columns), (x, grad)) = (x.matrix(), (x.host(), grad.host()));
    let sums = sum_rows(n, (size * size + 1) * columns, |rows, sums| {
        let of_run = |run: Run| over_strips!(columns, products::<T>(x, grad, columns, size, &run, sums));
        grids.each(rows, |_| (), of_run);
    });
    let mut all = Vec::new();
    for &(side, bias) in sides {
        let weights = side * side;
        let of = |i: usize| sums[place(i % weights, side, size) * columns + i / weights];
        all.push(Tensor::from_fn(&[columns, weights], of));
        if bias {
            all.push(Tensor::from_fn(&[columns], |j| sums[size * size * columns + j]));
        }
    }
    all
}

/// Adds the products of a run and the cells that the weights reach from it, and its sum, of `W` channels.
fn products<T: Real, const W: usize>(
    x: &[T],
    grad: &[T],
    columns: usize,
    size: usize,
    run: &Run,
    sums: &mut [T],
    column: usize,
) {
    let (reach, &Run { origin, side, p, ref q }) = (size / 2, run);
    let row = origin + p * side;
    let mut add = |t: usize, sum: [T; W]| {
        let to = &mut sums[t * columns + column..][..W];
        to.iter_mut().zip(sum).for_each(|(to, sum)| *to += sum);
    };
    for u in reach.saturating_sub(p)..size.min(side + reach - p) {
        for v in 0..size {
            let mut sum = [T::zero(); W];
            let other = origin + (p + u - reach) * side;
            for q in q.start.max(reach.saturating_sub(v))..q.end.min((side + reach).saturating_sub(v)) {
                let (g, x): (&[T; W], &[T; W]) =
                    (strip(grad, row + q, columns, column), strip(x, other + q + v - reach, columns, column));
                for j in 0..W {
                    sum[j] += g[j] * x[j];
                }
            }
            add(u * size + v, sum);
        }
    }
    let mut sum = [T::zero(); W];
    for q in q.clone() {
        let g: &[T; W] = strip(grad, row + q, columns, column);
        (0..W).for_each(|j| sum[j] += g[j]);
    }
    add(size * size, sum);
}
