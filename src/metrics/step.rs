//! Step functions of time.

use super::{check_each, check_len, check_times};
use crate::Result;

/// A right-continuous step function: `start` before the first time, `values[k]` from `times[k]` up to the next time, the last
/// value for ever after.
#[derive(Clone, Debug, PartialEq)]
pub struct StepFunction {
    start: f64,
    times: Vec<f64>,
    values: Vec<f64>,
}

impl StepFunction {
    /// From strictly increasing times, the value from each time on, and the value before the first.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) for unequal lengths, [`Error::Value`](crate::Error::Value) for times that are
    /// negative, not finite or do not increase, and for a value that is NaN.
    pub fn new(start: f64, times: Vec<f64>, values: Vec<f64>) -> Result<StepFunction> {
        check_len("step_function", "values", times.len(), values.len())?;
        check_times("step_function", &times)?;
        check_each("step_function", "start", &[start], "a number", |v| !v.is_nan())?;
        check_each("step_function", "values", &values, "a number", |v| !v.is_nan())?;
        Ok(StepFunction { start, times, values })
    }

    /// The value at `t`, the jump at `t` included.
    pub fn at(&self, t: f64) -> f64 {
        self.value(self.times.partition_point(|&time| time <= t))
    }

    /// The value just before `t`: the left limit.
    pub fn before(&self, t: f64) -> f64 {
        self.value(self.times.partition_point(|&time| time < t))
    }

    /// The times of the steps.
    pub fn times(&self) -> &[f64] {
        &self.times
    }

    /// The value from each time on.
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// The value after `k` steps.
    fn value(&self, k: usize) -> f64 {
        if k == 0 { self.start } else { self.values[k - 1] }
    }

    /// The first time at which the value is at most `level`, of a function that never increases.
    pub(super) fn first_at_most(&self, level: f64) -> Option<f64> {
        self.times.get(self.values.partition_point(|&v| v > level)).copied()
    }
}
