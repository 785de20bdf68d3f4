//! MixStyle on the CPU: statistics of bags out of pieces of them, then one pass over the rows.

use std::ops::Range;

use rayon::prelude::*;

use super::{Blend, MixStyle};
use crate::element::Real;
use crate::ops::parallel::{ROWS, rows_mut};
use crate::ops::tokens::segments;
use crate::shape::Ragged;
use crate::tensor::Tensor;

/// Count, mean and sum of squared differences from it, of one channel over some rows.
#[derive(Clone, Copy, Default)]
struct Moments {
    rows: f64,
    mean: f64,
    squares: f64,
}

impl Moments {
    /// Of both sets of rows.
    fn join(self, other: Moments) -> Moments {
        let (rows, apart) = (self.rows + other.rows, other.mean - self.mean);
        Moments {
            rows,
            mean: self.mean + apart * (other.rows / rows),
            squares: self.squares + other.squares + apart * apart * (self.rows * other.rows / rows),
        }
    }
}

/// The moments of each channel over some rows, of which there is at least one. The rounding of the mean is taken out, so
/// that nothing cancels however far it is from 0.
fn moments<T: Real>(x: &[T], d: usize, rows: Range<usize>) -> Vec<Moments> {
    let n = T::of(rows.len() as f64);
    let mut mean = vec![T::zero(); d];
    let (mut rest, mut squares) = (mean.clone(), mean.clone());
    for i in rows.clone() {
        mean.iter_mut().zip(&x[i * d..][..d]).for_each(|(sum, x)| *sum += *x);
    }
    mean.iter_mut().for_each(|sum| *sum /= n);
    for i in rows {
        for (((rest, square), mean), x) in rest.iter_mut().zip(&mut squares).zip(&mean).zip(&x[i * d..][..d]) {
            let off = *x - *mean;
            *rest += off;
            *square += off * off;
        }
    }
    let of = |((mean, rest), square): ((&T, &T), &T)| {
        let (rows, left) = (n.f64(), rest.f64() / n.f64());
        let squares = square.f64() - left * left * rows;
        // Below 0 by rounding alone.
        Moments { rows, mean: mean.f64() + left, squares: squares.max(0.0) }
    };
    mean.iter().zip(&rest).zip(&squares).map(of).collect()
}

/// Mean and deviation of each channel of each bag; of a bag of fewer than two rows they are not looked at.
fn statistics<T: Real>(op: &MixStyle, x: &Tensor<T>, bags: &Ragged) -> Vec<[f64; 2]> {
    let (_, d) = x.matrix();
    let pieces = |(b, bag): (usize, Range<usize>)| {
        let end = bag.end;
        bag.step_by(ROWS).map(move |start| (b, start..(start + ROWS).min(end)))
    };
    let pieces: Vec<(usize, Range<usize>)> = bags.iter().enumerate().flat_map(pieces).collect();
    let found: Vec<Vec<Moments>> = pieces.par_iter().map(|(_, rows)| moments(x.host(), d, rows.clone())).collect();
    let mut all = vec![Moments::default(); bags.bags() * d];
    for ((b, _), found) in pieces.into_iter().zip(found) {
        all[b * d..][..d].iter_mut().zip(found).for_each(|(all, part)| *all = all.join(part));
    }
    all.into_iter().map(|m| [m.mean, (m.squares / (m.rows - 1.0) + op.eps).sqrt()]).collect()
}

/// What a channel of a bag has taken off, is multiplied by, and has added.
#[derive(Clone, Copy)]
struct Change<T> {
    own: T,
    scale: T,
    shift: T,
}

fn changes<T: Real>(op: &MixStyle, x: &Tensor<T>, bags: &Ragged, blend: &Blend) -> Vec<Change<T>> {
    let (_, d) = x.matrix();
    let statistics = statistics(op, x, bags);
    let change = |b: usize, j: usize| {
        let partner = blend.partner()[b] as usize;
        if bags.bag(b).len() < 2 || bags.bag(partner).len() < 2 {
            // Passes bit for bit, a zero with its sign.
            return Change { own: T::zero(), scale: T::one(), shift: -T::zero() };
        }
        let (own, given, share) = (statistics[b * d + j], statistics[partner * d + j], blend.lambda()[b]);
        let [mean, deviation] = [0, 1].map(|k| share * own[k] + (1.0 - share) * given[k]);
        Change { own: T::of(own[0]), scale: T::of(deviation / own[1]), shift: T::of(mean) }
    };
    (0..bags.bags() * d).map(|i| change(i / d, i % d)).collect()
}

/// The result, and what each channel of each bag was multiplied by.
pub(super) fn forward<T: Real>(op: &MixStyle, x: &Tensor<T>, bags: &Ragged, blend: &Blend) -> (Tensor<T>, Tensor<T>) {
    let (_, d) = x.matrix();
    let changes = changes(op, x, bags, blend);
    let mut y = Tensor::zeros(x.shape());
    rows_mut(y.host_mut(), d, |first, y| {
        for (b, rows) in segments(bags, first..first + y.len() / d) {
            for i in rows {
                let (y, x) = (&mut y[(i - first) * d..][..d], &x.host()[i * d..][..d]);
                for ((y, x), by) in y.iter_mut().zip(x).zip(&changes[b * d..][..d]) {
                    *y = (*x - by.own) * by.scale + by.shift;
                }
            }
        }
    });
    let scale = Tensor::from_fn(&[bags.bags(), d], |i| changes[i].scale);
    (y, scale)
}

pub(super) fn backward<T: Real>(bags: &Ragged, scale: &Tensor<T>, grad: &Tensor<T>) -> Tensor<T> {
    let (_, d) = grad.matrix();
    let mut dx = Tensor::zeros(grad.shape());
    rows_mut(dx.host_mut(), d, |first, dx| {
        for (b, rows) in segments(bags, first..first + dx.len() / d) {
            for i in rows {
                let (dx, grad) = (&mut dx[(i - first) * d..][..d], &grad.host()[i * d..][..d]);
                dx.iter_mut().zip(grad).zip(&scale.host()[b * d..][..d]).for_each(|((dx, g), s)| *dx = *g * *s);
            }
        }
    });
    dx
}
