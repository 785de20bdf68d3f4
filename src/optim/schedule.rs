//! Learning rates over a training.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// What becomes of the learning rate after the warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decay {
    /// It stays.
    Constant,
    /// It falls to 0 on a line.
    Linear,
    /// It falls to 0 on half a wave of the cosine (Loshchilov and Hutter 2017).
    #[default]
    Cosine,
}

/// A schedule as a training file gives it, in epochs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScheduleConfig {
    /// What follows the warm-up.
    pub decay: Decay,
    /// Epochs in which the rate grows from 0 on a line; need not be a whole number.
    pub warmup_epochs: f64,
}

impl Default for ScheduleConfig {
    fn default() -> ScheduleConfig {
        ScheduleConfig { decay: Decay::Cosine, warmup_epochs: 1.0 }
    }
}

impl ScheduleConfig {
    /// The schedule of a training of so many epochs and steps in each.
    ///
    /// # Errors
    /// [`Error::Setting`] if `warmup_epochs` is negative or not finite.
    pub fn over(&self, epochs: u64, steps_per_epoch: u64) -> Result<Schedule> {
        if !(self.warmup_epochs.is_finite() && self.warmup_epochs >= 0.0) {
            let (name, want) = ("schedule.warmup_epochs", "finite and not negative");
            return Err(Error::Setting { name, want, value: self.warmup_epochs.to_string() });
        }
        let warmup = (self.warmup_epochs * steps_per_epoch as f64).round() as u64;
        Ok(Schedule { decay: self.decay, warmup, total: epochs * steps_per_epoch })
    }
}

/// The factor of the learning rate at each step, counted from 0.
///
/// As in SurvPath's training, the first step of a warm-up has rate 0. Steps after `total` keep the last rate; the
/// published cosine would rise again there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// What follows the warm-up.
    pub decay: Decay,
    /// Steps of the warm-up.
    pub warmup: u64,
    /// Steps of the whole training.
    pub total: u64,
}

impl Schedule {
    /// What the base rate is multiplied by at a step.
    pub fn factor(&self, step: u64) -> f64 {
        if step < self.warmup {
            return step as f64 / self.warmup as f64;
        }
        let length = self.total.saturating_sub(self.warmup).max(1);
        let left = self.total.saturating_sub(step) as f64 / length as f64;
        let done = ((step - self.warmup) as f64 / length as f64).min(1.0);
        match self.decay {
            Decay::Constant => 1.0,
            Decay::Linear => left,
            Decay::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * done).cos()),
        }
    }
}
