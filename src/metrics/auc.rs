//! Time-dependent area under the ROC curve.

use super::outcome::ascending;
use super::{Censoring, KaplanMeier, Outcome, Undefined, check_risk, check_times};
use crate::Result;

/// The cumulative/dynamic AUC at several times.
#[derive(Clone, Debug, PartialEq)]
pub struct DynamicAuc {
    /// The times.
    pub times: Vec<f64>,
    /// The AUC at each time: 1 is a perfect separation, 1/2 that of chance.
    pub auc: Vec<Result<f64, Undefined>>,
    /// The mean over the times, weighted by the fall of the Kaplan-Meier curve from one time to the next. If an AUC is undefined, so
    /// is the mean, for the same reason.
    pub mean: Result<f64, Undefined>,
}

/// How well the risk tells those with an event by t (cases) from those who are followed beyond t (controls): H. Uno et al., "Evaluating
/// prediction rules for t-year survivors with censored regression models", JASA 102 (2007) 527-537; H. Hung and C. T. Chiang,
/// Canadian Journal of Statistics 38 (2010) 8-26.
///
/// ```text
/// AUC(t) = sum_i [time_i <= t, event_i] w_i sum_j [time_j > t] ([risk_i > risk_j] + [risk_i = risk_j] / 2)
///          / (sum_i [time_i <= t, event_i] w_i  sum_j [time_j > t]),   w_i = 1 / G(time_i)
/// mean = sum_k (S(t_(k-1)) - S(t_k)) AUC(t_k) / (1 - S(t_last)),   S(t_0) = 1
/// ```
///
/// with G the [`Censoring`] survival of `train` and S the [`KaplanMeier`] estimate of `outcome`. The `risk` is one finite number for each
/// patient, higher for a worse prognosis; ties in risk count one half. A patient whose time is t is a case, or is censored and
/// neither; `times` increase and have the unit of the outcome.
///
/// Only the events by t need a weight. scikit-survival refuses all times if any event has none, even after the last of the times.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) or [`Error::Value`](crate::Error::Value) for a wrong risk and for times that are
/// negative, not finite or do not increase. An AUC without a value says why: [`Undefined::NoCase`], [`Undefined::NoControl`],
/// [`Undefined::CensoringReachesZero`], [`Undefined::BeyondFollowUp`]; so does the mean, or [`Undefined::NoTime`].
pub fn cumulative_dynamic_auc(train: Outcome, outcome: Outcome, risk: &[f64], times: &[f64]) -> Result<DynamicAuc> {
    check_risk("cumulative_dynamic_auc", outcome, risk)?;
    check_times("cumulative_dynamic_auc", times)?;
    let weights = Censoring::fit(train).event_weights(outcome);
    let order = ascending(risk);
    let auc_at = |&t: &f64| {
        weights.check(|time| time <= t)?;
        let (mut cases, mut controls, mut right) = (0.0, 0_usize, 0.0);
        for tied in order.chunk_by(|&a, &b| risk[a] == risk[b]) {
            let (mut tied_cases, mut tied_controls) = (0.0, 0);
            for &i in tied {
                if outcome.time()[i] > t {
                    tied_controls += 1;
                } else {
                    // The weight of a censored patient is 0.
                    tied_cases += weights.of(i);
                }
            }
            right += tied_cases * (controls as f64 + 0.5 * tied_controls as f64);
            cases += tied_cases;
            controls += tied_controls;
        }
        match (cases > 0.0, controls) {
            (false, _) => Err(Undefined::NoCase { time: t }),
            (_, 0) => Err(Undefined::NoControl { time: t }),
            _ => Ok(right / (cases * controls as f64)),
        }
    };
    let auc: Vec<_> = times.iter().map(auc_at).collect();
    let mean = mean(&KaplanMeier::fit(outcome), times, &auc);
    Ok(DynamicAuc { times: times.to_vec(), auc, mean })
}

fn mean(curve: &KaplanMeier, times: &[f64], auc: &[Result<f64, Undefined>]) -> Result<f64, Undefined> {
    let (mut before, mut sum) = (1.0, 0.0);
    for (&t, &auc) in times.iter().zip(auc) {
        let (auc, survival) = (auc?, curve.survival_at(t)?);
        sum += (before - survival) * auc;
        before = survival;
    }
    // An AUC has a case, so survival has fallen below 1.
    if before < 1.0 { Ok(sum / (1.0 - before)) } else { Err(Undefined::NoTime) }
}
