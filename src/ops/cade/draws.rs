//! What CADE draws: which bags mix, each token's donor and its share.

use std::sync::Arc;

use super::Cade;
use crate::device::Mirror;
use crate::error::{Error, Result};
use crate::ops::parallel::rows_mut;
use crate::ops::tokens::{BagDraws, Coin, segments};
use crate::rng::{Stream, unit};
use crate::shape::Ragged;

/// How the tokens of one set (the receivers) take statistics from another (the donors): checked when it is made.
///
/// Cheap to clone.
#[derive(Clone, Debug, PartialEq)]
pub struct Mixing {
    receivers: Ragged,
    donors: Ragged,
    active: Arc<[bool]>,
    pub(super) donor: Mirror<u32>,
    pub(super) lambda: Mirror<f64>,
    weight: Option<Arc<[f64]>>,
}

impl Mixing {
    /// From explicit draws.
    ///
    /// `active`, `[B]`: whether the bag mixes at all. `donor`, `[receivers]`: the row of the donor inside the donors'
    /// bag. `lambda`, `[receivers]`: the share of the receiver's own statistics, in `[0, 1]`. `weight`, `[donors]`: at
    /// least 0, for a kernel; 1 each if `None`. A bag without receivers, without donors or whose donors weigh nothing
    /// is not active whatever `active` says; of a bag that is not active, `donor` and `lambda` are not looked at.
    ///
    /// # Errors
    /// [`Error::Shape`] if lengths do not fit, [`Error::Value`] for an element outside its range.
    pub fn new(
        receivers: &Ragged,
        donors: &Ragged,
        mut active: Vec<bool>,
        donor: Vec<u32>,
        lambda: Vec<f64>,
        weight: Option<Vec<f64>>,
    ) -> Result<Mixing> {
        let lengths = [
            ("donors", donors.bags(), receivers.bags()),
            ("active", active.len(), receivers.bags()),
            ("donor", donor.len(), receivers.rows()),
            ("lambda", lambda.len(), receivers.rows()),
            ("weight", weight.as_ref().map_or(donors.rows(), Vec::len), donors.rows()),
        ];
        for (arg, got, want) in lengths {
            if got != want {
                return Err(Error::Shape { op: "cade", arg, want: format!("[{want}]"), got: vec![got] });
            }
        }
        if let Some(weight) = &weight
            && let Some(index) = weight.iter().position(|w| !(w.is_finite() && *w >= 0.0))
        {
            let (want, value) = ("finite and at least 0", weight[index]);
            return Err(Error::Value { op: "cade", arg: "weight", want, index, value });
        }
        for (bag, active) in active.iter_mut().enumerate() {
            let (rows, count) = (receivers.bag(bag), donors.bag(bag).len());
            let weighs = weight.as_ref().is_none_or(|w| w[donors.bag(bag)].iter().any(|w| *w > 0.0));
            *active &= !rows.is_empty() && count > 0 && weighs;
            if !*active {
                continue;
            }
            if let Some(at) = donor[rows.clone()].iter().position(|d| *d as usize >= count) {
                let (index, want) = (rows.start + at, "a row of the donors' bag");
                return Err(Error::Value { op: "cade", arg: "donor", want, index, value: donor[index].into() });
            }
            if let Some(at) = lambda[rows.clone()].iter().position(|l| !(0.0..=1.0).contains(l)) {
                let (index, want) = (rows.start + at, "between 0 and 1");
                return Err(Error::Value { op: "cade", arg: "lambda", want, index, value: lambda[index] });
            }
        }
        Ok(Mixing {
            receivers: receivers.clone(),
            donors: donors.clone(),
            active: active.into(),
            donor: donor.into(),
            lambda: lambda.into(),
            weight: weight.map(Into::into),
        })
    }

    /// No bag mixes.
    pub(super) fn none(receivers: &Ragged, donors: &Ragged) -> Result<Mixing> {
        let rows = receivers.rows();
        Mixing::new(receivers, donors, vec![false; receivers.bags()], vec![0; rows], vec![1.0; rows], None)
    }

    /// The bags of the receivers.
    pub fn receivers(&self) -> &Ragged {
        &self.receivers
    }

    /// The bags of the donors.
    pub fn donors(&self) -> &Ragged {
        &self.donors
    }

    /// Whether each bag mixes.
    pub fn active(&self) -> &[bool] {
        &self.active
    }

    /// The donor of each receiver, a row inside the donors' bag.
    pub fn donor(&self) -> &[u32] {
        &self.donor
    }

    /// The share of each receiver's own statistics.
    pub fn lambda(&self) -> &[f64] {
        &self.lambda
    }

    /// The weight of each donor under a kernel; 1 each if `None`.
    pub fn weight(&self) -> Option<&[f64]> {
        self.weight.as_deref()
    }

    /// The row of the donors' tensor that receiver row `row` of bag `bag` takes from.
    #[inline]
    pub(super) fn donor_row(&self, bag: usize, row: usize) -> usize {
        self.donors.bag(bag).start + self.donor[row] as usize
    }
}

/// Whether each patient's gate fires: word 0 of its `.gate` stream, as a number in `[0, 1)`, is below `p_aug`.
pub(super) fn gates(op: &Cade, draws: &BagDraws) -> Vec<bool> {
    let (draws, coin) = (draws.part(".gate"), Coin::drops(op.p_aug));
    (0..draws.bags()).map(|bag| !coin.keeps(draws.of(bag).word(0))).collect()
}

/// One direction. `set` is the letter of the receivers, `from` that of the donors; `keep` says which donors live.
pub(super) fn mixing(
    op: &Cade,
    [(receivers, set), (donors, from)]: [(&Ragged, &str); 2],
    keep: Option<&[bool]>,
    gates: &[bool],
    draws: &BagDraws,
) -> Result<Mixing> {
    let shares = draws.part(".lambda.").part(set);
    let mut lambda = vec![1.0; receivers.rows()];
    rows_mut(&mut lambda, 1, |first, lambda| {
        for (bag, rows) in segments(receivers, first..first + lambda.len()).filter(|(bag, _)| gates[*bag]) {
            let (stream, start) = (shares.of(bag), receivers.bag(bag).start);
            for row in rows {
                lambda[row - first] = beta(op.alpha, &stream, (row - start) as u32);
            }
        }
    });
    let orders = draws.part(".donors.").part(from);
    let mut donor = vec![0; receivers.rows()];
    for (bag, rows) in receivers.iter().enumerate().filter(|(bag, _)| gates[*bag]) {
        let keep = keep.map(|keep| &keep[donors.bag(bag)]);
        let order = first_of_order(&orders.of(bag), donors.bag(bag).len(), keep, rows.len());
        if !order.is_empty() {
            donor[rows].iter_mut().zip(order.iter().cycle()).for_each(|(donor, from)| *donor = *from);
        }
    }
    let weight = keep.map(|keep| keep.iter().map(|k| f64::from(u8::from(*k))).collect());
    Mixing::new(receivers, donors, gates.to_vec(), donor, lambda, weight)
}

/// The first `count` entries of the stream's [`permutation`](Stream::permutation) of `0..n`, without those that are
/// not kept: the same order, sorted no further than needed.
fn first_of_order(stream: &Stream, n: usize, keep: Option<&[bool]>, count: usize) -> Vec<u32> {
    if count == 0 {
        return Vec::new();
    }
    let mut words = vec![0; n];
    stream.words(0, &mut words);
    let mut keyed: Vec<u64> = words.iter().zip(0u64..).map(|(word, i)| u64::from(*word) << 32 | i).collect();
    if let Some(keep) = keep {
        keyed.retain(|key| keep[*key as u32 as usize]);
    }
    if (1..keyed.len()).contains(&count) {
        keyed.select_nth_unstable(count - 1);
        keyed.truncate(count);
    }
    keyed.sort_unstable();
    keyed.into_iter().map(|key| key as u32).collect()
}

/// Words that a token may use for its share.
const SHARE_WORDS: u32 = 64;

/// Beta(alpha, alpha), exactly: number `i` of a stream, out of the words `64 i .. 64 i + 64` and no others.
///
/// For `alpha < 1/2` Johnk's method (1964): `X = U^(1/alpha)`, `Y = V^(1/alpha)`, taken if `X + Y <= 1`, with the ratio
/// in log space because `U^10` underflows in f32 and for small `alpha` in f64; try `t` uses the words `2 t` and
/// `2 t + 1` of the 64. At least `pi / 4` of all tries succeed (0.986 at `alpha = 0.1`), so that 32 in a row fail less
/// often than once in `10^21`; the last is taken then. Otherwise the polar method of Ulrich (1984), words 0 and 1:
/// a projection of the disc on which `1 - r^2 = U^(1/(alpha - 1/2))`.
pub(in crate::ops) fn beta(alpha: f64, stream: &Stream, i: u32) -> f64 {
    let blocks = SHARE_WORDS / 4;
    // In (0, 1]: the logarithm is finite.
    let open = |word| 1.0 - unit(word);
    if alpha >= 0.5 {
        let [u, v, ..] = stream.block(i.wrapping_mul(blocks));
        let r = (1.0 - open(u).powf(1.0 / (alpha - 0.5))).sqrt();
        return (0.5 + 0.5 * r * (std::f64::consts::TAU * unit(v)).cos()).clamp(0.0, 1.0);
    }
    let mut ratio = 0.0;
    for block in 0..blocks {
        for pair in stream.block(i.wrapping_mul(blocks) + block).as_chunks::<2>().0 {
            let [x, y] = pair.map(|word| open(word).ln() / alpha);
            ratio = y - x;
            // Two numbers below 1/2 need no exponential.
            if x.max(y) < -std::f64::consts::LN_2 || x.exp() + y.exp() <= 1.0 {
                return 1.0 / (1.0 + ratio.exp());
            }
        }
    }
    1.0 / (1.0 + ratio.exp())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Draws;

    #[test]
    fn the_first_of_an_order_are_those_of_the_whole_permutation() {
        let stream = Draws::new(5, 0, "order").of(3);
        for n in [0, 1, 2, 7, 500] {
            let keep: Vec<bool> = (0..n).map(|i| i % 3 != 1).collect();
            let whole = stream.permutation(n);
            let alive: Vec<u32> = whole.iter().copied().filter(|i| keep[*i as usize]).collect();
            for count in [0, 1, 3, n, n + 5] {
                let first = |order: &[u32]| order[..count.min(order.len())].to_vec();
                assert_eq!(first_of_order(&stream, n, None, count), first(&whole), "{n} {count}");
                assert_eq!(first_of_order(&stream, n, Some(&keep), count), first(&alive), "{n} {count}");
            }
        }
    }

    #[test]
    fn beta_has_its_moments() {
        let (stream, n) = (Draws::new(5, 0, "beta").of(3), 100_000u32);
        for alpha in [0.01, 0.1, 0.3, 0.499, 0.5, 0.75, 1.0, 2.0, 10.0] {
            let mean = |f: &dyn Fn(f64) -> f64| (0..n).map(|i| f(beta(alpha, &stream, i))).sum::<f64>() / f64::from(n);
            let variance = 1.0 / (4.0 * (2.0 * alpha + 1.0));
            // Fourth central moment from the kurtosis of the symmetric beta distribution, 3 - 6 / (2 alpha + 3).
            let fourth = (3.0 - 6.0 / (2.0 * alpha + 3.0)) * variance * variance;
            // Six standard errors of mean and variance.
            let se = 6.0 / f64::from(n).sqrt();
            let (m, v) = (mean(&|l| l), mean(&|l| (l - 0.5).powi(2)));
            assert!((m - 0.5).abs() < se * variance.sqrt(), "alpha {alpha}: mean {m}");
            assert!((v - variance).abs() < se * (fourth - variance * variance).sqrt(), "alpha {alpha}: variance {v}");
        }
    }

    #[test]
    fn beta_has_its_distribution_function() {
        use statrs::distribution::{Beta, ContinuousCDF};
        let (stream, n) = (Draws::new(5, 0, "beta").of(4), 100_000u32);
        for alpha in [0.1, 0.4, 0.6, 1.0, 3.0] {
            let exact = Beta::new(alpha, alpha).unwrap();
            let draws: Vec<f64> = (0..n).map(|i| beta(alpha, &stream, i)).collect();
            for at in [1e-6, 0.01, 0.1, 0.3, 0.5, 0.9, 0.999] {
                let (want, below) = (exact.cdf(at), draws.iter().filter(|l| **l < at).count());
                let got = below as f64 / f64::from(n);
                // Six standard errors of a proportion.
                let bound = 6.0 * (want * (1.0 - want) / f64::from(n)).sqrt();
                assert!((got - want).abs() <= bound.max(6.0 / f64::from(n)), "alpha {alpha}, {at}: {got}, want {want}");
            }
        }
    }
}
