//! Kernel smoothing of the donors' statistics: a softmax over the donors, streamed; no receivers x donors matrix.

use std::ops::Range;

use rayon::prelude::*;

use super::{Bandwidth, Cade, Mixing};
use crate::element::Real;
use crate::ops::parallel::{rows_mut, sum_rows};

/// Mean and deviation of a token.
pub(super) type Statistics = [f64; 2];

/// The narrowest kernel: squared distances in units of it stay finite. Below it the nearest donor is all there is.
pub(super) const NARROWEST: f64 = 1e-30;

/// The donors of one direction as a kernel sees them.
pub(super) struct Kernel {
    kappa: f64,
    /// One a bag; 0 where the bag has no width and each receiver takes its one donor.
    bandwidth: Vec<f64>,
    donors: Vec<Statistics>,
    log_weight: Option<Vec<f64>>,
}

/// What a receiver finds among its donors.
#[derive(Clone, Copy, Default)]
struct Found {
    /// The largest exponent, and the sum of `exp(exponent - largest)`.
    largest: f64,
    total: f64,
    /// Weighted mean and covariance (00, 01, 11) of the donors' statistics.
    mean: Statistics,
    covariance: [f64; 3],
}

impl Kernel {
    /// `None` if every receiver takes its one donor.
    pub(super) fn new<T: Real>(op: &Cade, mixing: &Mixing, donors: &[[T; 2]]) -> Option<Kernel> {
        if matches!(op.bandwidth, Bandwidth::None | Bandwidth::Fixed(0.0)) {
            return None;
        }
        let donors: Vec<Statistics> = donors.iter().map(|y| y.map(Real::f64)).collect();
        let bandwidth = (0..mixing.donors().bags()).into_par_iter().map(|bag| match op.bandwidth {
            _ if !mixing.active()[bag] => 0.0,
            Bandwidth::Relative(c) => {
                let rows = mixing.donors().bag(bag);
                let weight = mixing.weight().map(|w| &w[rows.clone()]);
                let width = c * spread(&donors[rows], weight);
                if width < NARROWEST { 0.0 } else { width }
            }
            Bandwidth::Fixed(h) => h,
            Bandwidth::None => 0.0,
        });
        let bandwidth = bandwidth.collect();
        let log_weight = mixing.weight().map(|w| w.iter().map(|w| w.ln()).collect());
        Some(Kernel { kappa: op.kappa, bandwidth, donors, log_weight })
    }

    /// The smoothed statistics that the receiver in `row` of bag `bag`, with statistics `x`, takes.
    pub(super) fn smoothed(&self, mixing: &Mixing, bag: usize, row: usize, x: Statistics) -> Statistics {
        let donor = self.donors[mixing.donor_row(bag, row)];
        if self.bandwidth[bag] == 0.0 {
            return donor;
        }
        self.find::<false>(mixing.donors().bag(bag), self.bandwidth[bag], self.anchor(donor, x)).mean
    }

    fn anchor(&self, donor: Statistics, x: Statistics) -> Statistics {
        [0, 1].map(|k| (1.0 - self.kappa) * donor[k] + self.kappa * x[k])
    }

    /// The exponent of donor row `j`: its log weight less half its squared distance in bandwidths.
    #[inline]
    fn exponent(&self, j: usize, anchor: Statistics, h: f64) -> f64 {
        let [u, v] = [0, 1].map(|k| (anchor[k] - self.donors[j][k]) / h);
        self.log_weight.as_ref().map_or(0.0, |w| w[j]) - 0.5 * (u * u + v * v)
    }

    /// Two passes over the donors: the largest exponent, then the sums. Moments are taken about the anchor, where the
    /// weight lies, so that no large numbers cancel.
    fn find<const COVARIANCE: bool>(&self, donors: Range<usize>, h: f64, anchor: Statistics) -> Found {
        let exponents = || donors.clone().map(|j| self.exponent(j, anchor, h));
        let largest = exponents().fold(f64::NEG_INFINITY, f64::max);
        let (mut total, mut first, mut second) = (0.0, [0.0; 2], [0.0; 3]);
        for (j, exponent) in donors.clone().zip(exponents()) {
            let w = (exponent - largest).exp();
            let d = [0, 1].map(|k| self.donors[j][k] - anchor[k]);
            total += w;
            first[0] += w * d[0];
            first[1] += w * d[1];
            if COVARIANCE {
                second[0] += w * d[0] * d[0];
                second[1] += w * d[0] * d[1];
                second[2] += w * d[1] * d[1];
            }
        }
        let off = first.map(|s| s / total);
        let square = [off[0] * off[0], off[0] * off[1], off[1] * off[1]];
        Found {
            largest,
            total,
            mean: [0, 1].map(|k| anchor[k] + off[k]),
            covariance: [0, 1, 2].map(|k| second[k] / total - square[k]),
        }
    }

    /// Adds to the gradients of one bag's statistics: `grad` is owed to the smoothed statistics of each receiver
    /// (`dL/d yb`), `to_receivers` is that of the receivers through their anchors, `to_donors` that of the donors.
    pub(super) fn backward<T: Real>(
        &self,
        mixing: &Mixing,
        bag: usize,
        receivers: &[[T; 2]],
        grad: &[Statistics],
        to_receivers: &mut [Statistics],
        to_donors: &mut [Statistics],
    ) {
        let (rows, donors, h) = (mixing.receivers().bag(bag), mixing.donors().bag(bag), self.bandwidth[bag]);
        let donor = |i: usize| mixing.donor_row(bag, rows.start + i);
        let anchor = |i: usize| self.anchor(self.donors[donor(i)], receivers[rows.start + i].map(Real::f64));
        if h == 0.0 {
            for i in 0..rows.len() {
                add(&mut to_donors[donor(i) - donors.start], grad[i]);
            }
            return;
        }
        let mut found = vec![Found::default(); rows.len()];
        rows_mut(&mut found, 1, |first, found| {
            for (i, found) in (first..).zip(found) {
                *found = self.find::<true>(donors.clone(), h, anchor(i));
            }
        });
        let n = donors.len();
        let sums = sum_rows(rows.len(), 2 * n, |range, sums: &mut [f64]| {
            for i in range {
                let (a, found, g) = (anchor(i), &found[i], grad[i]);
                for (j, sum) in donors.clone().zip(sums.as_chunks_mut::<2>().0) {
                    let w = (self.exponent(j, a, h) - found.largest).exp() / found.total;
                    let y = self.donors[j];
                    let along = w * (g[0] * (y[0] - found.mean[0]) + g[1] * (y[1] - found.mean[1])) / (h * h);
                    sum[0] += w * g[0] + along * (a[0] - y[0]);
                    sum[1] += w * g[1] + along * (a[1] - y[1]);
                }
            }
        });
        to_donors.iter_mut().zip(sums.as_chunks::<2>().0).for_each(|(to, sum)| add(to, *sum));
        for (i, found) in found.iter().enumerate() {
            let ([c00, c01, c11], g) = (found.covariance, grad[i]);
            let to_anchor = [c00 * g[0] + c01 * g[1], c01 * g[0] + c11 * g[1]].map(|x| x / (h * h));
            add(&mut to_receivers[i], to_anchor.map(|x| self.kappa * x));
            add(&mut to_donors[donor(i) - donors.start], to_anchor.map(|x| (1.0 - self.kappa) * x));
        }
    }
}

#[inline]
pub(super) fn add(to: &mut Statistics, from: Statistics) {
    to[0] += from[0];
    to[1] += from[1];
}

/// `sqrt(median |y - mean y|^2)` over the donors that weigh anything; with an even number, the mean of the two in the
/// middle.
fn spread(donors: &[Statistics], weight: Option<&[f64]>) -> f64 {
    let donors = || donors.iter().enumerate().filter(|(j, _)| weight.is_none_or(|w| w[*j] > 0.0)).map(|(_, y)| y);
    let mut mean = [0.0; 2];
    donors().for_each(|y| add(&mut mean, *y));
    let n = donors().count();
    let mean = mean.map(|sum| sum / n as f64);
    let mut squares: Vec<f64> = donors().map(|y| (y[0] - mean[0]).powi(2) + (y[1] - mean[1]).powi(2)).collect();
    let (below, upper, _) = squares.select_nth_unstable_by(n / 2, f64::total_cmp);
    let lower = below.iter().copied().max_by(f64::total_cmp).filter(|_| n.is_multiple_of(2));
    lower.map_or(*upper, |lower| 0.5 * (lower + *upper)).sqrt()
}
