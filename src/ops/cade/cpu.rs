//! CADE on the CPU: one visit a row forward; the statistics of the smaller set are taken first.

use rayon::prelude::*;

use super::kernel::{Kernel, Statistics, add};
use super::{Cade, Mixing};
use crate::element::Real;
use crate::ops::lanes::{sum, sum2};
use crate::ops::parallel::{ROWS, rows_mut};
use crate::ops::sdir::Mask;
use crate::ops::tokens::segments;
use crate::tensor::Tensor;

/// What the backward pass knows of a token.
#[derive(Clone, Copy)]
pub(super) struct Row<T> {
    /// Its own mean and deviation.
    own: [T; 2],
    /// The deviation it was given, over its own.
    stretch: T,
}

/// One set of tokens as it enters: masked and scaled on the way, so that no masked copy is made.
#[derive(Clone, Copy)]
pub(super) struct Tokens<'a, T> {
    x: &'a Tensor<T>,
    /// Which tokens are kept: all, if there is no mask.
    keep: Option<&'a [bool]>,
    /// What kept tokens are multiplied by.
    factor: T,
    columns: usize,
}

impl<'a, T: Real> Tokens<'a, T> {
    pub(super) fn new(x: &'a Tensor<T>, mask: Option<&'a Mask>) -> Tokens<'a, T> {
        let factor = mask.map_or(T::one(), |mask| T::of(mask.factor()));
        Tokens { x, keep: mask.map(Mask::keep), factor, columns: x.matrix().1 }
    }

    /// The row before scaling; `None` if it is masked, and then it is not read.
    #[inline]
    fn row(&self, row: usize) -> Option<&'a [T]> {
        self.keep.is_none_or(|keep| keep[row]).then(|| &self.x.host()[row * self.columns..][..self.columns])
    }

    /// Mean and deviation `sqrt(unbiased variance + eps)`, in two passes over what then lies in the first cache.
    #[inline]
    fn statistics(&self, row: usize, eps: f64) -> [T; 2] {
        let (c, d) = (self.factor, T::of(self.columns as f64));
        let Some(x) = self.row(row) else { return [T::zero(), T::of(eps).sqrt()] };
        let mean = sum(x, |x| c * x) / d;
        let square = sum(x, |x| (c * x - mean) * (c * x - mean));
        [mean, (square / (d - T::one()) + T::of(eps)).sqrt()]
    }
}

/// The statistics of every row of the bags that `wanted` names; zeros elsewhere.
fn all_statistics<T: Real>(op: &Cade, x: Tokens<'_, T>, mixing: &Mixing, wanted: &[bool]) -> Vec<[T; 2]> {
    let mut all = vec![[T::zero(); 2]; mixing.receivers().rows()];
    rows_mut(&mut all, 1, |first, all| {
        for (_, rows) in segments(mixing.receivers(), first..first + all.len()).filter(|(bag, _)| wanted[*bag]) {
            for row in rows {
                all[row - first] = x.statistics(row, op.eps);
            }
        }
    });
    all
}

/// Both directions: the results, and what the backward pass needs of each row.
pub(super) fn forward<T: Real>(
    op: &Cade,
    x: [Tokens<'_, T>; 2],
    mixing: [&Mixing; 2],
) -> [(Tensor<T>, Vec<Row<T>>); 2] {
    // A bag's statistics are wanted if it receives or gives.
    let wanted: Vec<bool> = mixing[0].active().iter().zip(mixing[1].active()).map(|(a, b)| a | b).collect();
    // The smaller set is read twice; the larger one's statistics come out of its own visit.
    let small = usize::from(x[1].x.len() < x[0].x.len());
    let donors = all_statistics(op, x[small], mixing[small], &wanted);
    let large = mix(op, x[1 - small], mixing[1 - small], &wanted, &donors);
    let donors: Vec<[T; 2]> = large.1.iter().map(|row| row.own).collect();
    let small_result = mix(op, x[small], mixing[small], &wanted, &donors);
    if small == 0 { [small_result, large] } else { [large, small_result] }
}

/// One direction.
fn mix<T: Real>(
    op: &Cade,
    x: Tokens<'_, T>,
    mixing: &Mixing,
    wanted: &[bool],
    donors: &[[T; 2]],
) -> (Tensor<T>, Vec<Row<T>>) {
    let (columns, kernel) = (x.columns, Kernel::new(op, mixing, donors));
    let mut out = Tensor::zeros(x.x.shape());
    let mut all = vec![Row { own: [T::zero(); 2], stretch: T::one() }; mixing.receivers().rows()];
    let chunks = out.host_mut().par_chunks_mut(ROWS * columns).zip(all.par_chunks_mut(ROWS));
    chunks.enumerate().for_each(|(chunk, (out, all))| {
        let first = chunk * ROWS;
        for (bag, rows) in segments(mixing.receivers(), first..first + all.len()) {
            for row in rows {
                let out = &mut out[(row - first) * columns..][..columns];
                let this = &mut all[row - first];
                if wanted[bag] {
                    this.own = x.statistics(row, op.eps);
                }
                if !mixing.active()[bag] {
                    // Masked rows stay zero.
                    let row = x.row(row).unwrap_or_default();
                    out.iter_mut().zip(row).for_each(|(out, x_d)| *out = x.factor * *x_d);
                    continue;
                }
                let own = this.own.map(Real::f64);
                let given = match &kernel {
                    Some(kernel) => kernel.smoothed(mixing, bag, row, own),
                    None => donors[mixing.donor_row(bag, row)].map(Real::f64),
                };
                let lambda = mixing.lambda()[row];
                let [mean, deviation] = [0, 1].map(|k| T::of(lambda * own[k] + (1.0 - lambda) * given[k]));
                let (own_mean, stretch) = (this.own[0], deviation / this.own[1]);
                this.stretch = stretch;
                match x.row(row) {
                    Some(row) => {
                        let each = out.iter_mut().zip(row);
                        each.for_each(|(out, x_d)| *out = (x.factor * *x_d - own_mean) * stretch + mean);
                    }
                    // z = 0
                    None => out.fill(mean),
                }
            }
        }
    });
    (out, all)
}

/// What each row's gradient is multiplied by with its statistics taken as constants: 0 for masked rows.
pub(super) fn slopes<T: Real>(rows: &[Row<T>], mask: Option<&Mask>) -> Vec<T> {
    let Some(mask) = mask else { return rows.iter().map(|row| row.stretch).collect() };
    let factor = T::of(mask.factor());
    rows.iter().zip(mask.keep()).map(|(row, keep)| if *keep { factor * row.stretch } else { T::zero() }).collect()
}

/// The gradient of one set with its statistics taken as constants.
pub(super) fn backward_detached<T: Real>(slopes: &[T], grad: &Tensor<T>) -> Tensor<T> {
    let columns = grad.matrix().1;
    let mut dx = Tensor::zeros(grad.shape());
    rows_mut(dx.host_mut(), columns, |first, dx| {
        let grad = &grad.host()[first * columns..][..dx.len()];
        let rows = dx.chunks_exact_mut(columns).zip(grad.chunks_exact(columns));
        for ((dx, grad), slope) in rows.zip(&slopes[first..]).filter(|(_, slope)| **slope != T::zero()) {
            dx.iter_mut().zip(grad).for_each(|(dx, grad)| *dx = *slope * *grad);
        }
    });
    dx
}

/// The gradients of both sets through everything but shares and bandwidth.
pub(super) fn backward_full<T: Real>(
    op: &Cade,
    x: [Tokens<'_, T>; 2],
    mixing: [&Mixing; 2],
    rows: [&[Row<T>]; 2],
    grad: [&Tensor<T>; 2],
) -> [Tensor<T>; 2] {
    let own = rows.map(|rows| rows.iter().map(|row| row.own).collect::<Vec<_>>());
    let given = [0, 1].map(|k| to_given(x[k], mixing[k], rows[k], grad[k]));
    // What is owed to the statistics of each set: as receivers, and as donors of the other set.
    let mut owed = rows.map(|rows| vec![[0.0; 2]; rows.len()]);
    for k in [0, 1] {
        let kernel = Kernel::new(op, mixing[k], &own[1 - k]);
        let [first, second] = &mut owed;
        let (receivers, donors) = if k == 0 { (first, second) } else { (second, first) };
        for bag in (0..mixing[k].active().len()).filter(|bag| mixing[k].active()[*bag]) {
            let (here, there) = (mixing[k].receivers().bag(bag), mixing[k].donors().bag(bag));
            // Of the mixed statistics, the share lambda goes to the receiver and the rest to what it was given.
            let shares = here.clone().map(|row| (mixing[k].lambda()[row], given[k][row]));
            let rest: Vec<Statistics> = shares.clone().map(|(l, g)| g.map(|g| (1.0 - l) * g)).collect();
            receivers[here.clone()].iter_mut().zip(shares).for_each(|(to, (l, g))| add(to, g.map(|g| l * g)));
            match &kernel {
                Some(kernel) => {
                    let (receivers, donors) = (&mut receivers[here], &mut donors[there]);
                    kernel.backward(mixing[k], bag, &own[k], &rest, receivers, donors);
                }
                None => here.zip(rest).for_each(|(row, g)| add(&mut donors[mixing[k].donor_row(bag, row)], g)),
            }
        }
    }
    [0, 1].map(|k| to_tokens(x[k], mixing[k], rows[k], grad[k], &given[k], &owed[k]))
}

/// The gradient of the mixed statistics: `(sum R, sum R z)` of each row; 0 where the bag is not active.
fn to_given<T: Real>(x: Tokens<'_, T>, mixing: &Mixing, rows: &[Row<T>], grad: &Tensor<T>) -> Vec<Statistics> {
    let columns = x.columns;
    let mut given = vec![[0.0; 2]; rows.len()];
    rows_mut(&mut given, 1, |first, given| {
        let here = first..first + given.len();
        for (_, range) in segments(mixing.receivers(), here).filter(|(bag, _)| mixing.active()[*bag]) {
            for row in range {
                let grad = &grad.host()[row * columns..][..columns];
                let [mean, deviation] = rows[row].own;
                // A masked row has z = 0, but its mean is given like any other.
                let along =
                    x.row(row).map_or(T::zero(), |x_row| sum2(grad, x_row, |r, x_d| r * (x.factor * x_d - mean)));
                given[row - first] = [sum(grad, |r| r).f64(), (along / deviation).f64()];
            }
        }
    });
    given
}

/// From the gradients of the result and of the statistics to that of the tokens.
fn to_tokens<T: Real>(
    x: Tokens<'_, T>,
    mixing: &Mixing,
    rows: &[Row<T>],
    grad: &Tensor<T>,
    given: &[Statistics],
    owed: &[Statistics],
) -> Tensor<T> {
    let (columns, d) = (x.columns, x.columns as f64);
    let mut dx = Tensor::zeros(grad.shape());
    rows_mut(dx.host_mut(), columns, |first, dx| {
        for (bag, range) in segments(mixing.receivers(), first..first + dx.len() / columns) {
            for row in range {
                let Some(x_row) = x.row(row) else { continue };
                let grad = &grad.host()[row * columns..][..columns];
                let dx = &mut dx[(row - first) * columns..][..columns];
                let Row { own: [mean, deviation], stretch } = rows[row];
                if deviation == T::zero() {
                    // Neither receives nor gives.
                    dx.iter_mut().zip(grad).for_each(|(dx, r)| *dx = x.factor * *r);
                    continue;
                }
                // Through z, if it was mixed at all, and through the statistics.
                let through = if mixing.active()[bag] { stretch.f64() } else { 0.0 };
                let shift = T::of((owed[row][0] - through * given[row][0]) / d);
                let along = T::of((owed[row][1] - through * given[row][1]) / (d - 1.0)) / deviation;
                for (dx, (r, x_d)) in dx.iter_mut().zip(grad.iter().zip(x_row)) {
                    *dx = x.factor * (stretch * *r + shift + along * (x.factor * *x_d - mean));
                }
            }
        }
    });
    dx
}
