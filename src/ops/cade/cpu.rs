//! CADE on the CPU: one visit a row forward; the statistics of the smaller set are taken first.

use rayon::prelude::*;

use super::kernel::{Kernel, Statistics, add};
use super::{Cade, Mixing};
use crate::element::Real;
use crate::ops::lanes::{sum, sum2};
use crate::ops::parallel::{ROWS, rows_mut};
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

/// Mean and deviation `sqrt(unbiased variance + eps)` of a row, in two passes over what then lies in the first cache.
#[inline]
fn statistics<T: Real>(x: &[T], eps: f64) -> [T; 2] {
    let d = T::of(x.len() as f64);
    let mean = sum(x, |x| x) / d;
    let square = sum(x, |x| (x - mean) * (x - mean));
    [mean, (square / (d - T::one()) + T::of(eps)).sqrt()]
}

/// The statistics of every row of the bags that `wanted` names; zeros elsewhere.
fn all_statistics<T: Real>(op: &Cade, x: &Tensor<T>, mixing: &Mixing, wanted: &[bool]) -> Vec<[T; 2]> {
    let columns = x.matrix().1;
    let mut all = vec![[T::zero(); 2]; mixing.receivers().rows()];
    rows_mut(&mut all, 1, |first, all| {
        for (_, rows) in segments(mixing.receivers(), first..first + all.len()).filter(|(bag, _)| wanted[*bag]) {
            for row in rows {
                all[row - first] = statistics(&x.host()[row * columns..][..columns], op.eps);
            }
        }
    });
    all
}

/// Both directions: the results, and what the backward pass needs of each row.
pub(super) fn forward<T: Real>(op: &Cade, x: [&Tensor<T>; 2], mixing: [&Mixing; 2]) -> [(Tensor<T>, Vec<Row<T>>); 2] {
    // A bag's statistics are wanted if it receives or gives.
    let wanted: Vec<bool> = mixing[0].active().iter().zip(mixing[1].active()).map(|(a, b)| a | b).collect();
    // The smaller set is read twice; the larger one's statistics come out of its own visit.
    let small = usize::from(x[1].len() < x[0].len());
    let donors = all_statistics(op, x[small], mixing[small], &wanted);
    let large = mix(op, x[1 - small], mixing[1 - small], &wanted, &donors);
    let donors: Vec<[T; 2]> = large.1.iter().map(|row| row.own).collect();
    let small_result = mix(op, x[small], mixing[small], &wanted, &donors);
    if small == 0 { [small_result, large] } else { [large, small_result] }
}

/// One direction.
fn mix<T: Real>(
    op: &Cade,
    x: &Tensor<T>,
    mixing: &Mixing,
    wanted: &[bool],
    donors: &[[T; 2]],
) -> (Tensor<T>, Vec<Row<T>>) {
    let (columns, kernel) = (x.matrix().1, Kernel::new(op, mixing, donors));
    let mut out = Tensor::zeros(x.shape());
    let mut all = vec![Row { own: [T::zero(); 2], stretch: T::one() }; mixing.receivers().rows()];
    let chunks = out.host_mut().par_chunks_mut(ROWS * columns).zip(all.par_chunks_mut(ROWS));
    chunks.enumerate().for_each(|(chunk, (out, all))| {
        let first = chunk * ROWS;
        for (bag, rows) in segments(mixing.receivers(), first..first + all.len()) {
            for row in rows {
                let x = &x.host()[row * columns..][..columns];
                let out = &mut out[(row - first) * columns..][..columns];
                let this = &mut all[row - first];
                if wanted[bag] {
                    this.own = statistics(x, op.eps);
                }
                if !mixing.active()[bag] {
                    out.copy_from_slice(x);
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
                for (out, x) in out.iter_mut().zip(x) {
                    *out = (*x - own_mean) * stretch + mean;
                }
            }
        }
    });
    (out, all)
}

/// The gradient of one set with its statistics taken as constants.
pub(super) fn backward_detached<T: Real>(stretch: &[T], grad: &Tensor<T>) -> Tensor<T> {
    let columns = grad.matrix().1;
    let mut dx = Tensor::zeros(grad.shape());
    rows_mut(dx.host_mut(), columns, |first, dx| {
        let grad = &grad.host()[first * columns..][..dx.len()];
        let rows = dx.chunks_exact_mut(columns).zip(grad.chunks_exact(columns));
        for ((dx, grad), stretch) in rows.zip(&stretch[first..]) {
            dx.iter_mut().zip(grad).for_each(|(dx, grad)| *dx = *stretch * *grad);
        }
    });
    dx
}

/// The gradients of both sets through everything but shares and bandwidth.
pub(super) fn backward_full<T: Real>(
    op: &Cade,
    x: [&Tensor<T>; 2],
    mixing: [&Mixing; 2],
    rows: [&[Row<T>]; 2],
    grad: [&Tensor<T>; 2],
) -> [Tensor<T>; 2] {
    let own = rows.map(|rows| rows.iter().map(|row| row.own).collect::<Vec<_>>());
    let given = [0, 1].map(|k| to_given(x[k], mixing[k], rows[k], grad[k]));
    // What is owed to the statistics of each set: as receivers, and as donors of the other set.
    let mut owed = x.map(|x| vec![[0.0; 2]; x.matrix().0]);
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
fn to_given<T: Real>(x: &Tensor<T>, mixing: &Mixing, rows: &[Row<T>], grad: &Tensor<T>) -> Vec<Statistics> {
    let columns = x.matrix().1;
    let mut given = vec![[0.0; 2]; rows.len()];
    rows_mut(&mut given, 1, |first, given| {
        let here = first..first + given.len();
        for (_, range) in segments(mixing.receivers(), here).filter(|(bag, _)| mixing.active()[*bag]) {
            for row in range {
                let at = row * columns..(row + 1) * columns;
                let (x, grad, [mean, deviation]) = (&x.host()[at.clone()], &grad.host()[at], rows[row].own);
                let along = sum2(grad, x, |r, x| r * (x - mean)) / deviation;
                given[row - first] = [sum(grad, |r| r).f64(), along.f64()];
            }
        }
    });
    given
}

/// From the gradients of the result and of the statistics to that of the tokens.
fn to_tokens<T: Real>(
    x: &Tensor<T>,
    mixing: &Mixing,
    rows: &[Row<T>],
    grad: &Tensor<T>,
    given: &[Statistics],
    owed: &[Statistics],
) -> Tensor<T> {
    let columns = x.matrix().1;
    let d = columns as f64;
    let mut dx = Tensor::zeros(x.shape());
    rows_mut(dx.host_mut(), columns, |first, dx| {
        for (bag, range) in segments(mixing.receivers(), first..first + dx.len() / columns) {
            for row in range {
                let at = row * columns..(row + 1) * columns;
                let (x, grad) = (&x.host()[at.clone()], &grad.host()[at]);
                let dx = &mut dx[(row - first) * columns..][..columns];
                let Row { own: [mean, deviation], stretch } = rows[row];
                if deviation == T::zero() {
                    // Neither receives nor gives.
                    dx.copy_from_slice(grad);
                    continue;
                }
                // Through z, if it was mixed at all, and through the statistics.
                let through = if mixing.active()[bag] { stretch.f64() } else { 0.0 };
                let shift = T::of((owed[row][0] - through * given[row][0]) / d);
                let along = T::of((owed[row][1] - through * given[row][1]) / (d - 1.0)) / deviation;
                for (dx, (r, x)) in dx.iter_mut().zip(grad.iter().zip(x)) {
                    *dx = stretch * *r + shift + along * (*x - mean);
                }
            }
        }
    });
    dx
}

impl<T: Real> Row<T> {
    /// The deviation it was given over its own: all that detached statistics need.
    pub(super) fn stretch(&self) -> T {
        self.stretch
    }
}
