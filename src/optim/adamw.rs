//! AdamW: Adam with weight decay that is not scaled by the gradients (Loshchilov and Hutter 2019).

use serde::{Deserialize, Serialize};

use super::moments::{Factors, Moments, Rule, check_settings};
use super::{Norm, Optimizer, Parameter};
use crate::element::Real;
use crate::error::Result;
use crate::tensor::Tensor;

/// The settings of [`AdamW`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdamWConfig {
    /// How much of the mean of the gradients a step keeps.
    pub beta1: f64,
    /// How much of the mean of their squares a step keeps.
    pub beta2: f64,
    /// Added to the root of the latter.
    pub eps: f64,
    /// The share of a parameter that a step with learning rate 1 would remove.
    pub weight_decay: f64,
}

impl Default for AdamWConfig {
    fn default() -> AdamWConfig {
        AdamWConfig { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 1e-2 }
    }
}

/// `p <- p - lr wd p`, then `p <- p - lr m' / (sqrt(v') + eps)`, where `m' = m / (1 - beta1^t)` and
/// `v' = v / (1 - beta2^t)` are the running means of gradients and squares, freed of their start at 0.
#[derive(Clone, Debug)]
pub struct AdamW<T> {
    config: AdamWConfig,
    moments: Moments<T>,
}

impl<T: Real> AdamW<T> {
    /// An optimiser before its first step.
    ///
    /// # Errors
    /// [`Error::Setting`](crate::Error::Setting) if a setting is out of range.
    pub fn new(config: AdamWConfig, params: Vec<Parameter>) -> Result<AdamW<T>> {
        let names = ["adamw.beta1", "adamw.beta2", "adamw.eps", "adamw.weight_decay"];
        check_settings(names, config.beta1, config.beta2, config.eps, config.weight_decay)?;
        Ok(AdamW { config, moments: Moments::new("adamw", params) })
    }
}

impl<T: Real> Optimizer<T> for AdamW<T> {
    fn step_clipped(
        &mut self,
        lr: f64,
        most: Option<f64>,
        params: &mut [Tensor<T>],
        grads: &mut [Option<Tensor<T>>],
    ) -> Result<Option<Norm>> {
        let AdamWConfig { beta1, beta2, eps, weight_decay } = self.config;
        let rule = Rule { beta1, beta2, eps, rectified: false };
        self.moments.step(&rule, params, grads, most, |step, decays| Factors {
            keep: T::of(if decays { 1.0 - lr * weight_decay } else { 1.0 }),
            rate: T::of(lr / (1.0 - beta1.powf(step as f64))),
            root: T::of((1.0 - beta2.powf(step as f64)).sqrt()),
        })
    }

    fn state(&self) -> Vec<(String, Tensor<T>)> {
        self.moments.state()
    }

    fn load_state(&mut self, state: &[(String, Tensor<T>)]) -> Result<()> {
        self.moments.load_state(state)
    }
}
