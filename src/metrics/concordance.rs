//! Concordance between risk and outcome: Harrell's C and Uno's C.

use super::outcome::ascending;
use super::{Censoring, Outcome, Undefined, check_risk};
use crate::{Error, Result};

/// How the risks order the pairs of patients whose order of events is known.
///
/// A pair is comparable if the patient with the shorter time had the event, or if the times are equal and exactly one of the two
/// had the event (the censored one lived longer).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Concordance {
    /// Comparable pairs in which the patient with the earlier event has the higher risk.
    pub concordant: u64,
    /// Comparable pairs in which the patient with the earlier event has the lower risk.
    pub discordant: u64,
    /// Comparable pairs with equal risks.
    pub tied_risk: u64,
    /// Pairs with events at the same time, whatever their risks: these are not comparable.
    pub tied_time: u64,
}

impl Concordance {
    /// The number of comparable pairs.
    pub fn comparable(&self) -> u64 {
        self.concordant + self.discordant + self.tied_risk
    }

    /// C = (concordant + tied_risk / 2) / comparable: 1 is a perfect order, 1/2 that of chance, 0 the reverse of perfect.
    ///
    /// # Errors
    /// [`Undefined::NoComparablePair`].
    pub fn index(&self) -> Result<f64, Undefined> {
        match self.comparable() {
            0 => Err(Undefined::NoComparablePair),
            pairs => Ok((2 * self.concordant + self.tied_risk) as f64 / (2 * pairs) as f64),
        }
    }
}

/// Harrell's concordance: F. E. Harrell et al., "Evaluating the yield of medical tests", JAMA 247 (1982) 2543-2546.
///
/// ```text
/// C = sum_ij comparable(i, j) ([risk_i > risk_j] + [risk_i = risk_j] / 2) / sum_ij comparable(i, j)
/// comparable(i, j) = event_i and (time_i < time_j or (time_i = time_j and not event_j))
/// ```
///
/// `risk`: one finite number for each patient, higher for a worse prognosis, without a unit: a monotone transform changes nothing.
/// Ties in risk count one half, ties between two events are not comparable; both are counted. The counts are exact
/// integers. Cost O(n log n) by a Fenwick tree over the ranks of the risk.
///
/// # Errors
/// [`Error::Shape`] or [`Error::Value`] for a risk of another length or one that is not finite. That no pair is comparable
/// shows in [`Concordance::index`]; the counts are defined even then.
pub fn harrell(outcome: Outcome, risk: &[f64]) -> Result<Concordance> {
    check_risk("harrell", outcome, risk)?;
    let mut pairs = Concordance { concordant: 0, discordant: 0, tied_risk: 0, tied_time: 0 };
    for_each_event(outcome, risk, |_, others| {
        pairs.concordant += others.lower;
        pairs.discordant += others.higher;
        pairs.tied_risk += others.equal;
        pairs.tied_time += others.tied_time;
    });
    Ok(pairs)
}

/// Uno's concordance: H. Uno et al., "On the C-statistics for evaluating overall adequacy of risk prediction procedures with
/// censored survival data", Statistics in Medicine 30 (2011) 1105-1117.
///
/// ```text
/// C = sum_ij w_i comparable(i, j) ([risk_i > risk_j] + [risk_i = risk_j] / 2) / sum_ij w_i comparable(i, j)
/// w_i = [time_i < tau] G(time_i)^-2
/// ```
///
/// with `comparable` and `risk` as in [`harrell`] and G the [`Censoring`] survival of `train`, which takes away the dependence of
/// Harrell's C on who was censored. `tau` is in the unit of time; without it each event counts.
///
/// Ties: G is right-continuous, deaths leave before censorings, and `tau` itself is excluded, as in
/// scikit-survival. R's `concordance(timewt = "n/G2")` takes the left limit of G and includes `tau`; the two agree where
/// no death ties with a censoring or with `tau`.
///
/// # Errors
/// [`Error::Shape`] or [`Error::Value`] for a wrong risk, [`Error::Setting`] for a `tau` that is NaN or not positive.
/// [`Error::Undefined`]: [`Undefined::CensoringReachesZero`] or [`Undefined::BeyondFollowUp`] if an event before `tau` has no
/// weight (an earlier `tau` helps), [`Undefined::NoComparablePair`] or [`Undefined::NoComparablePairBefore`].
pub fn uno(train: Outcome, outcome: Outcome, risk: &[f64], tau: Option<f64>) -> Result<f64> {
    check_risk("uno", outcome, risk)?;
    let end = tau.unwrap_or(f64::INFINITY);
    if end.is_nan() || end <= 0.0 {
        return Err(Error::Setting { name: "uno.tau", want: "above 0", value: end.to_string() });
    }
    let weights = Censoring::fit(train).event_weights(outcome);
    weights.check(|time| time < end)?;
    let (mut right, mut total) = (0.0, 0.0);
    for_each_event(outcome, risk, |i, others| {
        if outcome.time()[i] < end {
            let weight = weights.of(i) * weights.of(i);
            right += weight * (others.lower as f64 + 0.5 * others.equal as f64);
            total += weight * (others.lower + others.equal + others.higher) as f64;
        }
    });
    if total > 0.0 {
        Ok(right / total)
    } else {
        Err(tau.map_or(Undefined::NoComparablePair, |tau| Undefined::NoComparablePairBefore { tau }).into())
    }
}

/// The patients that outlive one event, by their risk.
struct Outliving {
    lower: u64,
    equal: u64,
    higher: u64,
    /// Events at the same time that were visited before: summed over the events, each such pair once.
    tied_time: u64,
}

/// Visits the events from the last to the first, with the number of patients comparable to each.
fn for_each_event(outcome: Outcome, risk: &[f64], mut visit: impl FnMut(usize, Outliving)) {
    let (rank, ranks) = dense_ranks(risk);
    let mut outlived = Fenwick::new(ranks);
    let order = outcome.order();
    // From the end: when a time is reached, the tree holds the patients of all later times.
    for tied in order.chunk_by(|&a, &b| outcome.time()[a] == outcome.time()[b]).rev() {
        let (events, censored): (Vec<usize>, Vec<usize>) = tied.iter().partition(|&&i| outcome.event()[i]);
        censored.iter().for_each(|&j| outlived.add(rank[j]));
        for (before, &i) in events.iter().enumerate() {
            let lower = outlived.below(rank[i]);
            let up_to = outlived.below(rank[i] + 1);
            let (equal, higher) = (up_to - lower, outlived.len - up_to);
            visit(i, Outliving { lower, equal, higher, tied_time: before as u64 });
        }
        events.iter().for_each(|&j| outlived.add(rank[j]));
    }
}

/// The rank of each value among the distinct values, and how many there are of these.
fn dense_ranks(values: &[f64]) -> (Vec<usize>, usize) {
    let order = ascending(values);
    let (mut rank, mut ranks) = (vec![0; values.len()], 0);
    for tied in order.chunk_by(|&a, &b| values[a] == values[b]) {
        tied.iter().for_each(|&i| rank[i] = ranks);
        ranks += 1;
    }
    (rank, ranks)
}

/// Counts of ranks with prefix sums in O(log n) (P. M. Fenwick, 1994).
struct Fenwick {
    sums: Vec<u64>,
    len: u64,
}

impl Fenwick {
    fn new(ranks: usize) -> Fenwick {
        Fenwick { sums: vec![0; ranks + 1], len: 0 }
    }

    fn add(&mut self, rank: usize) {
        self.len += 1;
        let mut node = rank + 1;
        while node < self.sums.len() {
            self.sums[node] += 1;
            node += node & node.wrapping_neg();
        }
    }

    /// How many of the added ranks are below `rank`.
    fn below(&self, rank: usize) -> u64 {
        let (mut node, mut sum) = (rank, 0);
        while node > 0 {
            sum += self.sums[node];
            node &= node - 1;
        }
        sum
    }
}
