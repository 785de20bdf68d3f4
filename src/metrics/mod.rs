//! Survival metrics: pure functions on slices, f64 inside.
//!
//! | question | function | undefined when |
//! |---|---|---|
//! | does the risk order the patients? | [`harrell`], [`uno`] | no pair is comparable; a weight is missing |
//! | does it tell who dies by time t? | [`cumulative_dynamic_auc`] | nobody has died by t, nobody is followed beyond t, a weight is missing |
//! | are the predicted probabilities right? | [`brier`] | a weight is missing; one time has no integral |
//! | how do patients fare? | [`KaplanMeier`], [`median_follow_up`] | beyond the end of follow-up |
//! | do groups differ? | [`log_rank`] | fewer than two groups are at risk at an event |
//! | how sure is any of these? | [`Bootstrap`] | each replicate is undefined |
//!
//! # What is common to all
//! - **Outcome.** [`Outcome`] holds a time and an event (true) or censoring (false) for each patient and is checked when it is
//!   made. The unit of time is the caller's: days, months and years give the same concordance, and hazards per such unit.
//! - **Risk.** Higher means a worse prognosis. A risk must be finite: one that overflowed to infinity has lost its order, so
//!   pass the linear predictor and not its exponential. Two risks are tied when they are equal as numbers; there is no
//!   tolerance.
//! - **Undefined is not a number.** A metric that has no value gives [`Undefined`], whose sentence says why; it is never
//!   0, never NaN, and never left out of a mean. Where several values are asked for, each has its own `Result`.
//!   Wrong *arguments* (another length, a NaN) are refused by the outer [`Result`].
//! - **Tie of an event and a censoring.** The patient whose follow-up ends at t is known to have lived through t, so deaths
//!   come first: the pair is comparable, the censored patient is at risk for the death, and the dead one is not at
//!   risk for the censoring ([`Censoring`]).
//! - **Weights** for censoring come from a `train` outcome, which may be the same as the evaluated one.
//!
//! ```
//! use onkos::metrics::{Outcome, harrell};
//!
//! let outcome = Outcome::new(&[2.0, 5.0, 7.0, 9.0], &[true, false, true, true])?;
//! let pairs = harrell(outcome, &[1.5, 0.2, -0.3, -0.1])?;
//! assert_eq!((pairs.concordant, pairs.discordant), (3, 1));
//! assert_eq!(pairs.index()?, 0.75);
//! # Ok::<(), onkos::Error>(())
//! ```

mod auc;
mod bootstrap;
mod brier;
mod censoring;
mod concordance;
mod kaplan_meier;
mod logrank;
mod outcome;
mod step;
mod undefined;

pub use auc::{DynamicAuc, cumulative_dynamic_auc};
pub use bootstrap::{Bootstrap, Interval, Resampled};
pub use brier::{Brier, brier};
pub use censoring::{Censoring, median_follow_up};
pub use concordance::{Concordance, harrell, uno};
pub use kaplan_meier::{Bounds, KaplanMeier, Step};
pub use logrank::{Group, LogRank, log_rank};
pub use outcome::Outcome;
pub use step::StepFunction;
pub use undefined::Undefined;

use crate::{Error, Result};

/// Refuses an argument that has not one element for each of `n` patients.
fn check_len(op: &'static str, arg: &'static str, n: usize, got: usize) -> Result<()> {
    if got == n { Ok(()) } else { Err(Error::Shape { op, arg, want: format!("[{n}]"), got: vec![got] }) }
}

/// Refuses the first element that is not `want`.
fn check_each(
    op: &'static str,
    arg: &'static str,
    values: &[f64],
    want: &'static str,
    right: impl Fn(f64) -> bool,
) -> Result<()> {
    match values.iter().position(|&v| !right(v)) {
        None => Ok(()),
        Some(index) => Err(Error::Value { op, arg, want, index, value: values[index] }),
    }
}

/// Refuses a risk of another length, or one that is NaN or infinite.
fn check_risk(op: &'static str, outcome: Outcome, risk: &[f64]) -> Result<()> {
    check_len(op, "risk", outcome.len(), risk.len())?;
    check_each(op, "risk", risk, "finite", f64::is_finite)
}

/// Refuses evaluation times that are negative, not finite or do not increase.
fn check_times(op: &'static str, times: &[f64]) -> Result<()> {
    check_each(op, "times", times, "finite and not negative", |t| t.is_finite() && t >= 0.0)?;
    match times.windows(2).position(|w| w[1] <= w[0]) {
        None => Ok(()),
        Some(i) => Err(Error::Value {
            op,
            arg: "times",
            want: "larger than the time before",
            index: i + 1,
            value: times[i + 1],
        }),
    }
}

/// Refuses a confidence level outside (0, 1).
fn check_level(name: &'static str, level: f64) -> Result<()> {
    if level > 0.0 && level < 1.0 {
        Ok(())
    } else {
        Err(Error::Setting { name, want: "above 0 and below 1", value: level.to_string() })
    }
}
