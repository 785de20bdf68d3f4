//! The censoring distribution: who would still be followed, and the weights that make up for those who are not.

use super::{KaplanMeier, Outcome, StepFunction, Undefined};

/// The Kaplan-Meier estimate G of the censoring distribution ("reverse Kaplan-Meier").
///
/// ```text
/// G(t) = prod_{u <= t} (1 - c_u / (n_u - d_u))
/// ```
///
/// over the distinct times u, with `n_u` patients followed up to u, of whom `d_u` have the event at u and `c_u` are censored at u.
/// A death at u leaves before a censoring at u, which is why G is not the Kaplan-Meier estimate of the outcome with events
/// and censorings exchanged. G is right-continuous.
///
/// Source: J. M. Robins and A. Rotnitzky (1992) for the weights; the tie rule is the one of scikit-survival.
#[derive(Clone, Debug, PartialEq)]
pub struct Censoring {
    survival: StepFunction,
}

impl Censoring {
    /// Estimates G from these patients.
    pub fn fit(outcome: Outcome) -> Censoring {
        let (order, time) = (outcome.order(), outcome.time());
        let (mut times, mut values) = (Vec::new(), Vec::new());
        let (mut followed, mut survival) = (order.len(), 1.0);
        for tied in order.chunk_by(|&a, &b| time[a] == time[b]) {
            let events = tied.iter().filter(|&&i| outcome.event()[i]).count();
            let (staying, left) = (followed - events, followed - tied.len());
            if left < staying {
                survival *= left as f64 / staying as f64;
            }
            followed = left;
            times.push(time[tied[0]]);
            values.push(survival);
        }
        let survival =
            StepFunction::new(1.0, times, values).expect("distinct times in ascending order, products of ratios");
        Censoring { survival }
    }

    /// G(t), which is above 0.
    ///
    /// # Errors
    /// [`Undefined::CensoringReachesZero`] where G is 0 (nobody's follow-up shows what happens there),
    /// [`Undefined::BeyondFollowUp`] after a last time with G above 0 (that patient had the event),
    /// [`Undefined::NoPatient`].
    pub fn at(&self, t: f64) -> Result<f64, Undefined> {
        let last = *self.survival.times().last().ok_or(Undefined::NoPatient)?;
        let g = self.survival.at(t);
        if g == 0.0 {
            // G falls to 0 only with the last censoring, so its first zero is there.
            Err(Undefined::CensoringReachesZero { time: self.survival.first_at_most(0.0).unwrap_or(last) })
        } else if t > last {
            Err(Undefined::BeyondFollowUp { time: t, last })
        } else {
            Ok(g)
        }
    }

    /// G as a step function, zeros included.
    pub fn survival(&self) -> &StepFunction {
        &self.survival
    }

    /// The weight 1 / G(time_i) of each event of `outcome`.
    pub(super) fn event_weights(&self, outcome: Outcome) -> EventWeights {
        let (mut weight, mut missing) = (vec![0.0; outcome.len()], None);
        for i in outcome.order() {
            if outcome.event()[i] {
                match self.at(outcome.time()[i]) {
                    Ok(g) => weight[i] = 1.0 / g,
                    Err(why) => missing = missing.or(Some((outcome.time()[i], why))),
                }
            }
        }
        EventWeights { weight, missing }
    }
}

/// Inverse probability of censoring weights of the events; censored patients have weight 0.
pub(super) struct EventWeights {
    weight: Vec<f64>,
    /// The first event that has no weight: all later ones have none either, as G never increases.
    missing: Option<(f64, Undefined)>,
}

impl EventWeights {
    /// The weight of patient `i`.
    pub(super) fn of(&self, i: usize) -> f64 {
        self.weight[i]
    }

    /// Says why, if an event that is `needed` has no weight. `needed` holds for all times up to some time.
    pub(super) fn check(&self, needed: impl Fn(f64) -> bool) -> Result<(), Undefined> {
        match self.missing {
            Some((time, why)) if needed(time) => Err(why),
            _ => Ok(()),
        }
    }
}

/// The median time of follow-up by the reverse Kaplan-Meier estimate: the median of the [`KaplanMeier`] curve in which censoring
/// is the event, or `None` if it stays above 1/2.
///
/// Source: M. Schemper and T. L. Smith, "A note on quantifying follow-up in studies of failure time", Controlled Clinical
/// Trials 17 (1996) 343-346. In the unit of time. At a tie of a death and a censoring both are still followed, as in R's
/// `survfit(Surv(time, 1 - event) ~ 1)`: this is a description of the data and not the G of the weights ([`Censoring`]),
/// where deaths leave first.
pub fn median_follow_up(outcome: Outcome) -> Option<f64> {
    let censored: Vec<bool> = outcome.event().iter().map(|event| !event).collect();
    KaplanMeier::fit(Outcome::new(outcome.time(), &censored).ok()?).median()
}
