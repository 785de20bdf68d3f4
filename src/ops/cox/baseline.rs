//! From log risks to probabilities of survival.

use serde::{Deserialize, Serialize};

/// The baseline hazard of one stratum: that of a patient of log risk 0, as a step function of time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Baseline {
    /// The stratum, as [`Outcomes::strata`](super::Outcomes::strata) has it.
    pub stratum: u32,
    /// One step for each time at which somebody died, in the order of time.
    pub steps: Vec<Step>,
}

/// One step of a [`Baseline`]. Hazards are kept as logarithms: at a log risk of 800 they are no f64 themselves.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// The time of the deaths.
    pub time: f64,
    /// The logarithm of what the hazard grows by.
    pub log_increment: f64,
    /// The logarithm of the hazard from here on, until the next step.
    pub log_cumulative: f64,
}

impl Baseline {
    /// The logarithm of the cumulative hazard at a time; `-inf` before the first death. After the last death it stays.
    pub fn log_cumulative(&self, time: f64) -> f64 {
        match self.steps.partition_point(|step| step.time <= time) {
            0 => f64::NEG_INFINITY,
            steps => self.steps[steps - 1].log_cumulative,
        }
    }

    /// The cumulative hazard at a time.
    pub fn cumulative(&self, time: f64) -> f64 {
        self.log_cumulative(time).exp()
    }

    /// The probability that a patient of a log risk lives beyond a time: `exp(-H0(t) e^log_risk)`.
    pub fn survival(&self, time: f64, log_risk: f64) -> f64 {
        // One exponential of the sum: either factor alone may overflow.
        (-(self.log_cumulative(time) + log_risk).exp()).exp()
    }
}
