//! From gradients to parameters: optimisers, learning-rate schedules, clipping.
//!
//! A model is a list of tensors to an optimiser, in an order that never changes; their names appear only in the state,
//! so that a checkpoint can be read by people and by other programs.
//!
//! On a device a step is one launch for all parameters, with the bits of the CPU's; with clipping three, whose norm is
//! added up in another order. Each writes and reads 28 bytes an element, the norm 4 more.

mod adamw;
mod clip;
mod cuda;
mod moments;
mod radam;
mod schedule;

use serde::{Deserialize, Serialize};

pub use adamw::{AdamW, AdamWConfig};
pub use clip::{Norm, clip_global_norm};
pub(crate) use cuda::KERNELS;
pub use radam::{RAdam, RAdamConfig};
pub use schedule::{Decay, Schedule, ScheduleConfig};

use crate::element::Real;
use crate::error::Result;
use crate::tensor::Tensor;

/// What an optimiser has to know of a parameter before the first step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Its name in the model: the key of its state.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Whether weight decay pulls on it; usually not for biases and normalisations.
    pub decay: bool,
}

/// A rule that moves parameters against their gradients.
pub trait Optimizer<T: Real>: Send {
    /// One step with learning rate `lr`. `params` and `grads` have the order of the [`Parameter`]s that the optimiser
    /// was made with; a parameter without a gradient is left alone, and so is its state. All lie on one device, and
    /// from the first step on the state lies beside them.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if a list or a tensor has the wrong size, before anything is changed;
    /// [`Error::Device`](crate::Error::Device) if a tensor lies elsewhere.
    fn step(&mut self, lr: f64, params: &mut [Tensor<T>], grads: &[Option<Tensor<T>>]) -> Result<()> {
        self.step_clipped(lr, None, params, &mut grads.to_vec()).map(|_| ())
    }

    /// One step with gradients that are scaled to a norm of at most `most`, as [`clip_global_norm`] does, and the norm
    /// that they had. On a device nobody waits for the norm: it is there when it is [read](Norm::read). The gradients
    /// are scaled in place or not, as suits the device.
    ///
    /// Where the norm is not finite no parameter and no mean moves; whether the step counts is left open, for a
    /// training is over then.
    ///
    /// # Errors
    /// As [`step`](Self::step).
    fn step_clipped(
        &mut self,
        lr: f64,
        most: Option<f64>,
        params: &mut [Tensor<T>],
        grads: &mut [Option<Tensor<T>>],
    ) -> Result<Option<Norm>>;

    /// Everything that the next step depends on besides its arguments, as named tensors.
    fn state(&self) -> Vec<(String, Tensor<T>)>;

    /// Takes up what [`state`](Self::state) gave, in any order.
    ///
    /// # Errors
    /// [`Error::State`](crate::Error::State) if a tensor is missing, has the wrong shape or belongs to no parameter;
    /// nothing is changed then.
    fn load_state(&mut self, state: &[(String, Tensor<T>)]) -> Result<()>;
}

/// An optimiser as a training file names it: `kind = "adamw"` and its settings.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum OptimizerConfig {
    /// Adam with decoupled weight decay.
    AdamW(AdamWConfig),
    /// Rectified Adam.
    RAdam(RAdamConfig),
}

impl Default for OptimizerConfig {
    fn default() -> OptimizerConfig {
        OptimizerConfig::AdamW(AdamWConfig::default())
    }
}

impl OptimizerConfig {
    /// The optimiser, before its first step.
    ///
    /// # Errors
    /// [`Error::Setting`](crate::Error::Setting) if a setting is out of range.
    pub fn build<T: Real>(&self, params: Vec<Parameter>) -> Result<Box<dyn Optimizer<T>>> {
        Ok(match self {
            OptimizerConfig::AdamW(config) => Box::new(AdamW::new(*config, params)?),
            OptimizerConfig::RAdam(config) => Box::new(RAdam::new(*config, params)?),
        })
    }
}
