//! The Brier score of predicted survival probabilities, and its integral over time.

use super::{Censoring, Outcome, Undefined, check_each, check_len, check_times};
use crate::Result;

/// Brier scores at several times.
#[derive(Clone, Debug, PartialEq)]
pub struct Brier {
    /// The times.
    pub times: Vec<f64>,
    /// The score at each time: 0 is perfect, 1/4 that of saying 1/2 to everyone.
    pub scores: Vec<Result<f64, Undefined>>,
}

impl Brier {
    /// The integrated Brier score: the trapezoid rule over the times, divided by the last less the first.
    ///
    /// # Errors
    /// [`Undefined::TooFewTimes`]; if a score is undefined, so is the integral, for the same reason.
    pub fn integrated(&self) -> Result<f64, Undefined> {
        let (first, last) = match self.times[..] {
            [first, .., last] => (first, last),
            _ => return Err(Undefined::TooFewTimes { times: self.times.len() }),
        };
        let mut area = 0.0;
        for (time, score) in self.times.windows(2).zip(self.scores.windows(2)) {
            area += (time[1] - time[0]) * 0.5 * (score[0]? + score[1]?);
        }
        Ok(area / (last - first))
    }
}

/// The Brier score under censoring: E. Graf et al., "Assessment and comparison of prognostic classification schemes for survival data",
/// Statistics in Medicine 18 (1999) 2529-2545.
///
/// ```text
/// BS(t) = 1/n sum_i [time_i <= t, event_i] S_i(t)^2 / G(time_i) + [time_i > t] (1 - S_i(t))^2 / G(t)
/// ```
///
/// with S_i(t) the predicted probability that patient i lives beyond t and G the [`Censoring`] survival of `train`, right-continuous as
/// in scikit-survival (R's pec takes the left limit for the events). Patients censored by t count in n
/// alone. `survival` holds one row for each patient and one column for each of the `times`, which increase.
///
/// Each time needs G(t) above 0, and a weight for each event by t; scikit-survival takes a weight of 0 for G = 0, which
/// lowers the score without saying so.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) for a `survival` of another size; [`Error::Value`](crate::Error::Value) for a
/// probability outside [0, 1] or times that are negative, not finite or do not increase. A score without a value says why:
/// [`Undefined::CensoringReachesZero`], [`Undefined::BeyondFollowUp`], [`Undefined::NoPatient`].
pub fn brier(train: Outcome, outcome: Outcome, times: &[f64], survival: &[f64]) -> Result<Brier> {
    check_times("brier", times)?;
    check_len("brier", "survival", outcome.len() * times.len(), survival.len())?;
    check_each("brier", "survival", survival, "a probability in [0, 1]", |s| (0.0..=1.0).contains(&s))?;
    let censoring = Censoring::fit(train);
    let weights = censoring.event_weights(outcome);
    let score = |(k, &t): (usize, &f64)| {
        if outcome.is_empty() {
            return Err(Undefined::NoPatient);
        }
        weights.check(|time| time <= t)?;
        let followed = 1.0 / censoring.at(t)?;
        let terms = (0..outcome.len()).map(|i| {
            let s = survival[i * times.len() + k];
            // The weight of a censored patient is 0.
            if outcome.time()[i] > t { (1.0 - s) * (1.0 - s) * followed } else { s * s * weights.of(i) }
        });
        Ok(terms.sum::<f64>() / outcome.len() as f64)
    };
    Ok(Brier { times: times.to_vec(), scores: times.iter().enumerate().map(score).collect() })
}
