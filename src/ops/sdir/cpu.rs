//! SDIR on the CPU: one visit a row.

use rayon::prelude::*;

use super::{Gain, Rescue};
use crate::element::Real;
use crate::ops::lanes::{sum, sum2};
use crate::ops::parallel::{rows_mut, sum_rows};
use crate::ops::tokens::{BagDraws, Coin, segments};
use crate::shape::Ragged;
use crate::tensor::Tensor;

/// Added to the mean square, so that the energy of a zero token has a derivative.
const E0: f64 = 1e-12;

/// The squared energy of a row.
fn energy2<T: Real>(row: &[T]) -> f64 {
    sum(row, |x| x * x).f64() / row.len() as f64 + E0
}

pub(super) fn keep_mask(p: f64, rescue: Rescue, bags: &Ragged, draws: &BagDraws) -> Vec<bool> {
    let coin = Coin::drops(p);
    let mut keep = vec![false; bags.rows()];
    rows_mut(&mut keep, 1, |first, keep| {
        let mut words = vec![0; keep.len()];
        for (bag, rows) in segments(bags, first..first + keep.len()) {
            let words = &mut words[..rows.len()];
            draws.of(bag).words((rows.start - bags.bag(bag).start) as u64, words);
            let keep = &mut keep[rows.start - first..rows.end - first];
            keep.iter_mut().zip(words).for_each(|(keep, word)| *keep = coin.keeps(*word));
        }
    });
    if rescue == Rescue::Uniform {
        for (bag, rows) in bags.iter().enumerate() {
            let (start, n) = (rows.start, rows.len());
            if n > 0 && !keep[rows].contains(&true) {
                keep[start + draws.of(bag).below(n as u64, n as u32) as usize] = true;
            }
        }
    }
    keep
}

/// Kept rows times the factor and their gain, zeros elsewhere.
pub(super) fn forward<T: Real>(
    gain: Gain,
    factor: T,
    x: &Tensor<T>,
    bags: &Ragged,
    keep: &[bool],
    scale: Option<&Tensor<T>>,
) -> Tensor<T> {
    each_kept_row(x, bags, keep, |bag, _, x, y| {
        let gain = scale.map_or(1.0, |scale| gain.at(energy2(x), scale.host()[bag].f64(), x.len()).0);
        scaled(factor * T::of(gain), x, y);
    })
}

/// The gradient of `x`; `kept` holds the scale and `x` if there is a gain.
pub(super) fn backward<T: Real>(
    gain: Gain,
    factor: T,
    grad: &Tensor<T>,
    bags: &Ragged,
    keep: &[bool],
    kept: Option<(&Tensor<T>, &Tensor<T>)>,
) -> Tensor<T> {
    each_kept_row(grad, bags, keep, |bag, row, grad, dx| {
        let Some((scale, x)) = kept else { return scaled(factor, grad, dx) };
        let x = &x.host()[row * grad.len()..][..grad.len()];
        let (g, c) = gain.at(energy2(x), scale.host()[bag].f64(), x.len());
        let along = factor * T::of(c * sum2(grad, x, |r, x| r * x).f64());
        let g = factor * T::of(g);
        for (dx, (r, x)) in dx.iter_mut().zip(grad.iter().zip(x)) {
            *dx = g * *r + along * *x;
        }
    })
}

fn scaled<T: Real>(factor: T, from: &[T], to: &mut [T]) {
    if factor == T::one() {
        to.copy_from_slice(from);
    } else {
        to.iter_mut().zip(from).for_each(|(to, from)| *to = factor * *from);
    }
}

/// Calls `f(bag, row, from, to)` for each kept row; the others of the result are zero.
fn each_kept_row<T: Real>(
    from: &Tensor<T>,
    bags: &Ragged,
    keep: &[bool],
    f: impl Fn(usize, usize, &[T], &mut [T]) + Sync,
) -> Tensor<T> {
    let columns = from.matrix().1;
    let mut to = Tensor::zeros(from.shape());
    rows_mut(to.host_mut(), columns, |first, to| {
        for (bag, rows) in segments(bags, first..first + to.len() / columns) {
            for row in rows.filter(|&row| keep[row]) {
                let to = &mut to[(row - first) * columns..][..columns];
                f(bag, row, &from.host()[row * columns..][..columns], to);
            }
        }
    });
    to
}

pub(super) fn strong_scale<T: Real>(strong: &Tensor<T>, bags: &Ragged, keep: &[bool]) -> Tensor<T> {
    let columns = strong.matrix().1;
    // Sums inside a bag are cut by the bag's own rows, so they do not depend on the batch.
    let scales = (0..bags.bags()).into_par_iter().map(|bag| {
        let start = bags.bag(bag).start;
        let sums = sum_rows(bags.bag(bag).len(), 2, |rows, sums: &mut [f64]| {
            for row in rows.map(|row| start + row).filter(|&row| keep[row]) {
                sums[0] += energy2(&strong.host()[row * columns..][..columns]);
                sums[1] += 1.0;
            }
        });
        T::of(if sums[1] > 0.0 { (sums[0] / sums[1]).sqrt() } else { 0.0 })
    });
    let scales: Vec<T> = scales.collect();
    Tensor::new(&[bags.bags()], scales).expect("one a bag")
}
