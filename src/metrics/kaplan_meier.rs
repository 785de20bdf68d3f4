//! The Kaplan-Meier curve with Greenwood's variance, and the Nelson-Aalen cumulative hazard.

use statrs::distribution::{ContinuousCDF, Normal};

use super::outcome::ascending;
use super::{Outcome, StepFunction, Undefined, check_each, check_len, check_level};
use crate::{Error, Result};

/// What happened at one distinct time, and the estimates from that time on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// The time u.
    pub time: f64,
    /// n: the (weighted) number at risk at u.
    pub at_risk: f64,
    /// d: the (weighted) number of events at u.
    pub events: f64,
    /// The (weighted) number of patients censored at u, who are still at risk at u.
    pub censored: f64,
    /// S(u): the estimated probability of living beyond u.
    pub survival: f64,
    /// H(u): the Nelson-Aalen cumulative hazard, sum of d / n.
    pub hazard: f64,
    /// The variance of H(u): sum of d / n^2.
    pub hazard_variance: f64,
    /// Greenwood's sum of d / (n (n - d)), infinite once survival is 0.
    greenwood: f64,
}

impl Step {
    /// The standard error of log S(u): the root of Greenwood's sum of d / (n (n - d)).
    ///
    /// # Errors
    /// [`Undefined::SurvivalIsZero`].
    pub fn log_standard_error(&self) -> Result<f64, Undefined> {
        if self.survival > 0.0 { Ok(self.greenwood.sqrt()) } else { Err(Undefined::SurvivalIsZero { time: self.time }) }
    }

    /// The standard error of S(u) by Greenwood's formula: S(u) times [`log_standard_error`](Self::log_standard_error).
    ///
    /// # Errors
    /// [`Undefined::SurvivalIsZero`].
    pub fn standard_error(&self) -> Result<f64, Undefined> {
        Ok(self.survival * self.log_standard_error()?)
    }
}

/// The scale on which the bounds of S are symmetric. `s` is the standard error of log S, `z` the normal quantile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bounds {
    /// S ± z s S, cut to [0, 1].
    Plain,
    /// exp(log S ± z s), cut to at most 1. The default of R's `survfit`.
    Log,
    /// exp(-exp(log(-log S) ± z s / log S)): always inside (0, 1), the default of lifelines.
    LogLog,
}

/// The Kaplan-Meier estimate of survival and the Nelson-Aalen estimate of the cumulative hazard.
///
/// ```text
/// S(t) = prod_{u <= t} (1 - d_u / n_u)              H(t) = sum_{u <= t} d_u / n_u
/// var log S(t) = sum_{u <= t} d_u / (n_u (n_u - d_u))   var H(t) = sum_{u <= t} d_u / n_u^2
/// ```
///
/// over the distinct times u, with `d_u` events and `n_u` patients at risk. Sources: E. L. Kaplan and P. Meier, JASA 53 (1958)
/// 457-481; M. Greenwood (1926); O. Aalen, Annals of Statistics 6 (1978) 701-726. Times are in the caller's unit. Events tied with
/// censorings come first; tied events are one step. Cost O(n log n).
#[derive(Clone, Debug, PartialEq)]
pub struct KaplanMeier {
    steps: Vec<Step>,
}

impl KaplanMeier {
    /// The estimate of these patients: one step for each distinct time, also where only censorings lie.
    pub fn fit(outcome: Outcome) -> KaplanMeier {
        KaplanMeier::estimate(outcome, None, None)
    }

    /// The same with left truncation and weights.
    ///
    /// `entry[i]`: patient i is at risk at u if `entry[i] < u <= time[i]`. `weight[i]`: how many patients the row stands for;
    /// d and n become sums of weights, and variances are those of R's `survfit` for such (case) weights.
    ///
    /// # Errors
    /// [`Error::Shape`] for another length; [`Error::Value`] for an entry that is NaN or not below the time of its patient,
    /// for a weight that is negative or not finite, and for the first weight whose sum with those before is not finite.
    pub fn fit_rows(outcome: Outcome, entry: Option<&[f64]>, weight: Option<&[f64]>) -> Result<KaplanMeier> {
        if let Some(entry) = entry {
            check_len("kaplan_meier", "entry", outcome.len(), entry.len())?;
            if let Some(index) = (0..entry.len()).find(|&i| entry[i].is_nan() || entry[i] >= outcome.time()[i]) {
                let (op, arg, want) = ("kaplan_meier", "entry", "below the time of the same patient");
                return Err(Error::Value { op, arg, want, index, value: entry[index] });
            }
        }
        if let Some(weight) = weight {
            check_len("kaplan_meier", "weight", outcome.len(), weight.len())?;
            check_each("kaplan_meier", "weight", weight, "finite and not negative", |w| w.is_finite() && w >= 0.0)?;
            let mut total = 0.0;
            for (index, &value) in weight.iter().enumerate() {
                total += value;
                if total == f64::INFINITY {
                    let (op, arg, want) = ("kaplan_meier", "weight", "small enough for a finite sum");
                    return Err(Error::Value { op, arg, want, index, value });
                }
            }
        }
        Ok(KaplanMeier::estimate(outcome, entry, weight))
    }

    fn estimate(outcome: Outcome, entry: Option<&[f64]>, weight: Option<&[f64]>) -> KaplanMeier {
        let (order, time) = (outcome.order(), outcome.time());
        let tail = Tail::new(time, &order, weight);
        let late = entry.map(|entry| (entry, ascending(entry)));
        let late = late.as_ref().map(|(entry, order)| Tail::new(entry, order, weight));
        let mut step = Step {
            time: 0.0,
            at_risk: 0.0,
            events: 0.0,
            censored: 0.0,
            survival: 1.0,
            hazard: 0.0,
            hazard_variance: 0.0,
            greenwood: 0.0,
        };
        let mut steps = Vec::new();
        for tied in order.chunk_by(|&a, &b| time[a] == time[b]) {
            step.time = time[tied[0]];
            let (rows, at_risk) = tail.from(step.time);
            // Those who enter at this time or later are not yet at risk.
            let (late_rows, late_weight) = late.as_ref().map_or((0, 0.0), |late| late.from(step.time));
            let (rows, at_risk) = (rows - late_rows, at_risk - late_weight);
            let (events, event_rows) = sum(tied, weight, |i| outcome.event()[i]);
            let (censored, _) = sum(tied, weight, |i| !outcome.event()[i]);
            // What leaves at this time was at risk, which a difference of large sums may miss by its rounding.
            let at_risk = at_risk.max(events + censored);
            (step.at_risk, step.events, step.censored) = (at_risk, events, censored);
            if events > 0.0 {
                // Told from the number of rows: with weights, n - d may miss 0 by a rounding.
                let left = if rows == event_rows { 0.0 } else { at_risk - events };
                step.survival *= left / at_risk;
                step.hazard += events / at_risk;
                step.hazard_variance += events / at_risk / at_risk;
                step.greenwood += events / at_risk / left;
            }
            steps.push(step);
        }
        KaplanMeier { steps }
    }

    /// The steps, in ascending order of time.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// S as a step function, 1 before the first time; its last value continues, also where [`survival_at`](Self::survival_at)
    /// is undefined.
    pub fn survival(&self) -> StepFunction {
        self.curve(1.0, |step| step.survival)
    }

    /// H as a step function, 0 before the first time.
    pub fn hazard(&self) -> StepFunction {
        self.curve(0.0, |step| step.hazard)
    }

    fn curve(&self, start: f64, value: impl Fn(&Step) -> f64) -> StepFunction {
        let times = self.steps.iter().map(|step| step.time).collect();
        let values = self.steps.iter().map(value).collect();
        StepFunction::new(start, times, values).expect("distinct times in ascending order and no NaN")
    }

    /// S(t), the step at t included.
    ///
    /// # Errors
    /// [`Undefined::BeyondFollowUp`] after the last time, unless survival is 0 by then; [`Undefined::NoPatient`].
    pub fn survival_at(&self, t: f64) -> Result<f64, Undefined> {
        let last = self.steps.last().ok_or(Undefined::NoPatient)?;
        if t > last.time && last.survival > 0.0 {
            return Err(Undefined::BeyondFollowUp { time: t, last: last.time });
        }
        let k = self.steps.partition_point(|step| step.time <= t);
        Ok(if k == 0 { 1.0 } else { self.steps[k - 1].survival })
    }

    /// The bounds of S after step `k` at a confidence level such as 0.95, on the scale of `bounds`.
    ///
    /// # Errors
    /// [`Error::Setting`] for a level outside (0, 1). [`Error::Undefined`]: [`Undefined::SurvivalIsZero`] where S is 0,
    /// [`Undefined::SurvivalIsOne`] for log-log bounds where S is still 1.
    ///
    /// # Panics
    /// If there is no step `k`.
    pub fn bounds(&self, k: usize, level: f64, bounds: Bounds) -> Result<(f64, f64)> {
        check_level("kaplan_meier.level", level)?;
        let Step { time, survival: s, .. } = self.steps[k];
        let z = Normal::standard().inverse_cdf(0.5 + 0.5 * level);
        let width = z * self.steps[k].log_standard_error()?;
        Ok(match bounds {
            Bounds::Plain => ((s - s * width).max(0.0), (s + s * width).min(1.0)),
            Bounds::Log => (s * (-width).exp(), (s * width.exp()).min(1.0)),
            Bounds::LogLog if s == 1.0 => return Err(Undefined::SurvivalIsOne { time }.into()),
            // log S is negative: the power above 1 gives the lower bound.
            Bounds::LogLog => (s.powf((-width / s.ln()).exp()), s.powf((width / s.ln()).exp())),
        })
    }

    /// The first time at which the probability of an event reaches `p`, that is S(t) <= 1 - p; `None` if it never does.
    ///
    /// Equality is judged within the rounding of the product (one rounding for each division and multiplication), so the median of
    /// two deaths is the first of them. Where S equals 1 - p over an interval, its start is given; R gives its middle.
    pub fn quantile(&self, p: f64) -> Option<f64> {
        let level = (1.0 - p) * slack(self.steps.len());
        self.steps.iter().find(|step| step.survival <= level).map(|step| step.time)
    }

    /// The median survival time, or `None` if more than half live beyond the follow-up.
    pub fn median(&self) -> Option<f64> {
        self.quantile(0.5)
    }
}

/// 1 and the largest relative error of a product of `steps` rounded quotients: two roundings of EPSILON / 2 each.
pub(super) fn slack(steps: usize) -> f64 {
    1.0 + steps as f64 * f64::EPSILON
}

/// The weight and number of the rows (of positive weight) that are `wanted`.
fn sum(rows: &[usize], weight: Option<&[f64]>, wanted: impl Fn(usize) -> bool) -> (f64, usize) {
    let of = |i: usize| weight.map_or(1.0, |w| w[i]);
    let wanted = rows.iter().filter(|&&i| wanted(i) && of(i) > 0.0);
    (wanted.clone().map(|&i| of(i)).sum(), wanted.count())
}

/// How many rows of positive weight, and how much weight, lie at or after a time.
struct Tail {
    keys: Vec<f64>,
    from: Vec<(usize, f64)>,
}

impl Tail {
    fn new(keys: &[f64], order: &[usize], weight: Option<&[f64]>) -> Tail {
        let mut from = vec![(0, 0.0); order.len() + 1];
        for k in (0..order.len()).rev() {
            let w = weight.map_or(1.0, |w| w[order[k]]);
            from[k] = (from[k + 1].0 + usize::from(w > 0.0), from[k + 1].1 + w);
        }
        Tail { keys: order.iter().map(|&i| keys[i]).collect(), from }
    }

    fn from(&self, time: f64) -> (usize, f64) {
        self.from[self.keys.partition_point(|&key| key < time)]
    }
}
