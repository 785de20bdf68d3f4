//! RAdam: Adam whose step is small while the mean of the squares is still uncertain (Liu et al. 2020).

use serde::{Deserialize, Serialize};

use super::moments::{Factors, Moments, Rule, check_settings};
use super::{Norm, Optimizer, Parameter};
use crate::element::Real;
use crate::error::Result;
use crate::tensor::Tensor;

/// The settings of [`RAdam`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RAdamConfig {
    /// How much of the mean of the gradients a step keeps.
    pub beta1: f64,
    /// How much of the mean of their squares a step keeps.
    pub beta2: f64,
    /// Added to the root of the latter, before any correction.
    pub eps: f64,
    /// The share of a parameter that a step with learning rate 1 would remove.
    pub weight_decay: f64,
}

impl Default for RAdamConfig {
    /// The recipe of MCCSDG and SurvPath.
    fn default() -> RAdamConfig {
        RAdamConfig { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 1e-3 }
    }
}

impl RAdamConfig {
    /// `r` at a step; `None` while the step is momentum alone.
    fn rectification(&self, step: u64) -> Option<f64> {
        let (t, beta2) = (step as f64, self.beta2);
        let faded = beta2.powf(t);
        let limit = 2.0 / (1.0 - beta2) - 1.0;
        let rho = limit - 2.0 * t * faded / (1.0 - faded);
        let certainty = (rho - 4.0) / (limit - 4.0) * ((rho - 2.0) / rho) * (limit / (limit - 2.0));
        (rho >= 5.0).then(|| ((1.0 - faded) * certainty).sqrt())
    }
}

/// `p <- p - lr wd p`, then at step `t`, with `rho_inf = 2 / (1 - beta2) - 1` and
/// `rho = rho_inf - 2 t beta2^t / (1 - beta2^t)`:
/// - `rho < 5` (the first five steps if `beta2 = 0.999`): `p <- p - lr m / (1 - beta1^t)`, momentum alone;
/// - else `p <- p - lr r / (1 - beta1^t) m / (sqrt(v) + eps)`, where
///   `r^2 = (1 - beta2^t) (rho - 4) (rho - 2) rho_inf / ((rho_inf - 4) (rho_inf - 2) rho)`.
///
/// As in the code that SurvPath and MCCSDG publish, which takes the early steps that the paper's authors made optional,
/// switches at `rho >= 5` (PyTorch: above 5) and adds `eps` to the root of the uncorrected `v`.
#[derive(Clone, Debug)]
pub struct RAdam<T> {
    config: RAdamConfig,
    moments: Moments<T>,
}

impl<T: Real> RAdam<T> {
    /// An optimiser before its first step.
    ///
    /// # Errors
    /// [`Error::Setting`](crate::Error::Setting) if a setting is out of range.
    pub fn new(config: RAdamConfig, params: Vec<Parameter>) -> Result<RAdam<T>> {
        let names = ["radam.beta1", "radam.beta2", "radam.eps", "radam.weight_decay"];
        check_settings(names, config.beta1, config.beta2, config.eps, config.weight_decay)?;
        Ok(RAdam { config, moments: Moments::new("radam", params) })
    }
}

impl<T: Real> Optimizer<T> for RAdam<T> {
    fn step_clipped(
        &mut self,
        lr: f64,
        most: Option<f64>,
        params: &mut [Tensor<T>],
        grads: &mut [Option<Tensor<T>>],
    ) -> Result<Option<Norm>> {
        let config = self.config;
        let RAdamConfig { beta1, beta2, eps, weight_decay } = config;
        let rule = Rule { beta1, beta2, eps, rectified: true };
        self.moments.step(&rule, params, grads, most, |step, decays| {
            let rectification = config.rectification(step);
            Factors {
                keep: T::of(if decays { 1.0 - lr * weight_decay } else { 1.0 }),
                rate: T::of(lr * rectification.unwrap_or(1.0) / (1.0 - beta1.powf(step as f64))),
                root: if rectification.is_some() { T::one() } else { T::zero() },
            }
        })
    }

    fn state(&self) -> Vec<(String, Tensor<T>)> {
        self.moments.state()
    }

    fn load_state(&mut self, state: &[(String, Tensor<T>)]) -> Result<()> {
        self.moments.load_state(state)
    }
}
