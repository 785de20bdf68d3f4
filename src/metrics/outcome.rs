//! Follow-up times and events, checked once.

use super::{check_each, check_len};
use crate::Result;

/// What became of each patient: the time of the event or of the end of follow-up, and which of the two it was.
///
/// Times are finite and not negative; all in one unit, which is the caller's choice. A time of 0 is legal: the metrics are
/// defined for it (the patient belongs to each risk set that starts at 0), and whether such a patient belongs into a
/// study is decided where the cohort is read, not here. Cheap to copy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome<'a> {
    time: &'a [f64],
    event: &'a [bool],
}

impl<'a> Outcome<'a> {
    /// From times and events (true: the event was seen; false: censored) of the same patients.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) for slices of unequal length, [`Error::Value`](crate::Error::Value) for the
    /// first time that is negative or not finite.
    pub fn new(time: &'a [f64], event: &'a [bool]) -> Result<Outcome<'a>> {
        check_len("outcome", "event", time.len(), event.len())?;
        check_each("outcome", "time", time, "finite and not negative", |t| t.is_finite() && t >= 0.0)?;
        Ok(Outcome { time, event })
    }

    /// The time of each patient.
    pub fn time(&self) -> &'a [f64] {
        self.time
    }

    /// Whether each patient had the event at that time.
    pub fn event(&self) -> &'a [bool] {
        self.event
    }

    /// The number of patients.
    pub fn len(&self) -> usize {
        self.time.len()
    }

    /// Whether there is no patient.
    pub fn is_empty(&self) -> bool {
        self.time.is_empty()
    }

    /// The number of patients with an event.
    pub fn events(&self) -> usize {
        self.event.iter().filter(|&&e| e).count()
    }

    /// Times and events of some rows, in their order and as often as they occur: what a bootstrap replicate or a subgroup
    /// needs to make its own [`Outcome`].
    ///
    /// # Panics
    /// If a row is not below [`len`](Self::len).
    pub fn select(&self, rows: &[usize]) -> (Vec<f64>, Vec<bool>) {
        (rows.iter().map(|&i| self.time[i]).collect(), rows.iter().map(|&i| self.event[i]).collect())
    }

    /// The patients in ascending order of time; those with equal times next to each other.
    pub(super) fn order(&self) -> Vec<usize> {
        ascending(self.time)
    }
}

/// Indices that sort finite values, ties by index (-0 before 0, which equality takes together).
pub(super) fn ascending(values: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    order
}
