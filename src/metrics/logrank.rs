//! The log-rank test and its Fleming-Harrington family.

use statrs::distribution::{ChiSquared, ContinuousCDF};

use super::{Outcome, Undefined, check_len};
use crate::{Error, Result};

/// Observed and expected events of one group.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Group {
    /// The label, as it was given.
    pub label: usize,
    /// The number of patients.
    pub patients: usize,
    /// The (weighted) number of events, O.
    pub observed: f64,
    /// The (weighted) number of events expected if all groups had the same hazard, E.
    pub expected: f64,
}

/// The result of [`log_rank`].
#[derive(Clone, Debug, PartialEq)]
pub struct LogRank {
    /// The groups, in ascending order of label.
    pub groups: Vec<Group>,
    /// The test statistic.
    pub chi2: f64,
    /// Its degrees of freedom: the groups with E above 0, less one.
    pub degrees: usize,
    /// The probability of a statistic at least as large if all groups have the same hazard.
    pub p: f64,
}

/// Tests whether k groups have the same hazard: N. Mantel (1966) and R. Peto and J. Peto (1972), weighted as in D. P. Harrington and
/// T. R. Fleming, "A class of rank test procedures for censored survival data", Biometrika 69 (1982) 553-566.
///
/// ```text
/// O_g = sum_u W(u) d_gu     E_g = sum_u W(u) d_u n_gu / n_u     W(u) = S(u-)^rho
/// V_gh = sum_u W(u)^2 d_u (n_u - d_u) / (n_u - 1) (n_gu / n_u) ([g = h] - n_hu / n_u)
/// chi2 = (O - E)' V^-1 (O - E),  one group left out
/// ```
///
/// over the distinct times u, with S the pooled Kaplan-Meier estimate of the stratum. `rho` = 0 is the log-rank test, `rho` = 1 the
/// Peto-Peto modification of Gehan's and Wilcoxon's test, which stresses early differences. With `strata`, the sums are over strata
/// too and patients are compared only within their stratum. Tied events share one hypergeometric term; censorings tied with events
/// are still at risk. `group` and `strata` are labels: any numbers. Cost O(n log n + k^2 events).
///
/// # Errors
/// [`Error::Shape`] for another length, [`Error::Setting`] for a `rho` that is negative or not finite.
/// [`Error::Undefined`]: [`Undefined::TooFewGroups`] if fewer than two groups are at risk at an event (so also without an event),
/// [`Undefined::SingularVariance`] if some groups are never at risk together.
pub fn log_rank(outcome: Outcome, group: &[usize], strata: Option<&[usize]>, rho: f64) -> Result<LogRank> {
    check_len("log_rank", "group", outcome.len(), group.len())?;
    if let Some(strata) = strata {
        check_len("log_rank", "strata", outcome.len(), strata.len())?;
    }
    if !(rho.is_finite() && rho >= 0.0) {
        return Err(Error::Setting { name: "log_rank.rho", want: "finite and not negative", value: rho.to_string() });
    }
    let (group, labels) = dense(group);
    let mut sums = Sums::new(labels.len());
    let (stratum, strata) = strata.map_or((vec![0; outcome.len()], 1), |labels| {
        let (dense, labels) = dense(labels);
        (dense, labels.len())
    });
    let mut members = vec![Vec::new(); strata];
    outcome.order().into_iter().for_each(|i| members[stratum[i]].push(i));
    members.iter().for_each(|order| sums.add_stratum(outcome, order, &group, rho));

    let informative: Vec<usize> = (0..labels.len()).filter(|&g| sums.expected[g] > 0.0).collect();
    let chi2 = sums.statistic(&informative, outcome.len())?;
    let degrees = informative.len() - 1;
    let p = upper_tail(chi2, degrees);
    let groups = labels.iter().enumerate().map(|(g, &label)| Group {
        label,
        patients: group.iter().filter(|&&other| other == g).count(),
        observed: sums.observed[g],
        expected: sums.expected[g],
    });
    Ok(LogRank { groups: groups.collect(), chi2, degrees, p })
}

/// The probability that a chi-squared variable with `degrees` above 0 exceeds `chi2`.
fn upper_tail(chi2: f64, degrees: usize) -> f64 {
    ChiSquared::new(degrees as f64).expect("at least one degree of freedom").sf(chi2)
}

/// Labels as 0, 1, ... in ascending order of label, and the distinct labels.
fn dense(labels: &[usize]) -> (Vec<usize>, Vec<usize>) {
    let mut distinct = labels.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    (labels.iter().map(|label| distinct.partition_point(|other| other < label)).collect(), distinct)
}

/// O, E and V of k groups, V row by row.
struct Sums {
    observed: Vec<f64>,
    expected: Vec<f64>,
    variance: Vec<f64>,
}

impl Sums {
    fn new(k: usize) -> Sums {
        Sums { observed: vec![0.0; k], expected: vec![0.0; k], variance: vec![0.0; k * k] }
    }

    /// Adds the events of one stratum, whose patients come in ascending order of time.
    fn add_stratum(&mut self, outcome: Outcome, order: &[usize], group: &[usize], rho: f64) {
        let k = self.observed.len();
        let mut at_risk = vec![0.0; k];
        order.iter().for_each(|&i| at_risk[group[i]] += 1.0);
        let (mut n, mut survival) = (order.len() as f64, 1.0_f64);
        for tied in order.chunk_by(|&a, &b| outcome.time()[a] == outcome.time()[b]) {
            let weight = survival.powf(rho);
            let mut events = 0.0;
            for &i in tied.iter().filter(|&&i| outcome.event()[i]) {
                self.observed[group[i]] += weight;
                events += 1.0;
            }
            if events > 0.0 {
                // With one patient at risk there is nothing to vary: (n - d) is 0, and so would be (n - 1).
                let spread = if n > 1.0 { weight * weight * events * (n - events) / (n - 1.0) } else { 0.0 };
                for g in 0..k {
                    let share = at_risk[g] / n;
                    self.expected[g] += weight * events * share;
                    for h in 0..k {
                        let same = if g == h { 1.0 } else { 0.0 };
                        self.variance[g * k + h] += spread * share * (same - at_risk[h] / n);
                    }
                }
                survival *= (n - events) / n;
            }
            tied.iter().for_each(|&i| at_risk[group[i]] -= 1.0);
            n -= tied.len() as f64;
        }
    }

    /// (O - E)' V^-1 (O - E) over the informative groups but the first, by V = L D L'.
    fn statistic(&self, informative: &[usize], patients: usize) -> Result<f64, Undefined> {
        let k = self.observed.len();
        let kept = informative.get(1..).filter(|kept| !kept.is_empty());
        let kept = kept.ok_or(Undefined::TooFewGroups { groups: informative.len() })?;
        let m = kept.len();
        let mut lower = vec![0.0; m * m];
        let mut pivots: Vec<f64> = Vec::with_capacity(m);
        let mut solved: Vec<f64> = Vec::with_capacity(m);
        let mut chi2 = 0.0;
        for (row, &g) in kept.iter().enumerate() {
            for col in 0..row {
                let mut value = self.variance[g * k + kept[col]];
                (0..col).for_each(|c| value -= lower[row * m + c] * pivots[c] * lower[col * m + c]);
                lower[row * m + col] = value / pivots[col];
            }
            let (mut pivot, mut difference) = (self.variance[g * k + g], self.observed[g] - self.expected[g]);
            for c in 0..row {
                pivot -= lower[row * m + c] * lower[row * m + c] * pivots[c];
                difference -= lower[row * m + c] * solved[c];
            }
            // V sums one term for each event time, at most one for each patient, and m more leave it here: what remains below the
            // rounding of these sums is 0.
            let rounding = (patients + m) as f64 * f64::EPSILON * self.variance[g * k + g];
            if pivot <= rounding {
                return Err(Undefined::SingularVariance);
            }
            chi2 += difference * difference / pivot;
            pivots.push(pivot);
            solved.push(difference);
        }
        Ok(chi2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_p_values_do_not_vanish_in_a_difference_from_one() {
        for half in [0.01_f64, 0.5, 2.0, 10.0, 40.0, 150.0, 600.0] {
            // exp(-x) is off by x roundings of the exponent; the series and fractions of the incomplete gamma function by some hundred.
            let bound = (half + 256.0) * f64::EPSILON;
            for (degrees, want) in [(2, (-half).exp()), (4, (-half).exp() * (1.0 + half))] {
                let got = upper_tail(2.0 * half, degrees);
                assert!((got / want - 1.0).abs() <= bound, "{degrees} at {half}: {got:e}, not {want:e}");
            }
        }
        assert_eq!(upper_tail(0.0, 1), 1.0);
    }
}
