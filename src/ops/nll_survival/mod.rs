//! Discrete-time survival likelihood: a loss for the hazards of a few intervals of time.
//!
//! # Math
//! `h_k = sigmoid(logit_k)` is the probability of dying in interval `k = 0 .. K - 1` for who is alive at its start, and
//! `S_k = prod of (1 - h_l) over l <= k`, `S_(-1) = 1`, that of surviving it. A patient with a death in interval `y`
//! contributes `-log S_(y-1) - log h_y`, one censored in interval `y` contributes `-(1 - alpha) log S_y` (Zadeh and
//! Schmid 2020, as the pathology literature uses it). Each factor is raised to `eps` where it is smaller.
//!
//! The risk of a patient is `-sum_k S_k`: higher is worse.
//!
//! # Arguments
//! | name | shape | unit | constraint |
//! |---|---|---|---|
//! | `logits` | `[B, K]` | log odds | |
//! | `bin` (`y`) | `B` | | less than `K` |
//! | `censored` | `B` | | |
//!
//! # Result
//! The sum or the mean over the patients, a scalar; 0 for no patient.
//!
//! # Gradient
//! Of a patient: death, `h_l` for `l < y`, `h_y - 1` at `y`; censored, `(1 - alpha) h_l` for `l <= y`; 0 elsewhere. A
//! factor below `eps` has no slope: a patient with a death in an interval whose hazard has vanished no longer pulls it
//! up.
//!
//! # Numerics
//! In f64 whatever the type of `logits`, with `1 - h` as `sigmoid(-logit)`, so that it keeps its digits where `h` is
//! close to 1. NaN in the logits of a patient gives NaN. On a device so does infinity, wherever it stands in the row:
//! there the loss is all that is looked at.
//!
//! # Cost
//! `2 B K` exponentials, one thread. The gradient is calculated with the loss and kept: `B K` numbers. On a device one
//! launch for up to 1024 patients, else two, and one for the gradient of a loss on a tape.
//!
//! # Deviations
//! None from the published loss, `(1 - alpha) (censored + uncensored) + alpha uncensored`: written out, alpha only
//! makes censored patients count less (`published_losses_and_gradients_are_met`).

mod cpu;
mod cuda;

pub(crate) use cuda::KERNELS;
use serde::{Deserialize, Serialize};

use crate::device::{Device, Gpu};
use crate::element::Real;
use crate::error::{Error, Result};
use crate::tape::{Tape, Var};
use crate::tensor::Tensor;

/// Discrete-time survival likelihood: see the [module page](self).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NllSurvival {
    /// How much less censored patients count: 0 is the likelihood, 1 ignores them.
    pub alpha: f64,
    /// The smallest value of a factor of the likelihood.
    pub eps: f64,
    /// Sum or mean over the patients.
    pub reduction: Reduction,
}

/// What becomes of the losses of the patients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reduction {
    /// Their sum.
    Sum,
    /// Their mean.
    #[default]
    Mean,
}

impl Default for NllSurvival {
    /// As published for SurvPath: `alpha = 0.5`, `eps = 1e-7`.
    fn default() -> NllSurvival {
        NllSurvival { alpha: 0.5, eps: 1e-7, reduction: Reduction::Mean }
    }
}

impl NllSurvival {
    /// The loss of logits on a tape.
    ///
    /// # Errors
    /// [`Error::Setting`] if `alpha` is not in `[0, 1]` or `eps` not in `(0, 1)`, [`Error::Shape`] if the shapes do not
    /// fit, [`Error::Value`] if a bin is not below `K`.
    pub fn forward<T: Real>(&self, tape: &Tape<T>, logits: &Var<T>, bin: &[u32], censored: &[bool]) -> Result<Var<T>> {
        let bins = self.check(logits.shape(), bin, censored)?;
        let (losses, mut gradient) = match tape.device() {
            Device::Cpu => cpu::evaluate(self, bins, logits.value().host(), bin, censored),
            Device::Cuda(gpu) => {
                let (loss, gradient) = self.loss_and_gradient_on(gpu, logits.value(), bin, censored)?;
                let [loss] = tape.record(&[logits], [loss], move |grads| {
                    let Some(grad) = &grads[0] else { return Ok(vec![None]) };
                    Ok(vec![Some(cuda::backward(gpu, &gradient, grad)?)])
                });
                return Ok(loss);
            }
        };
        let mut loss: f64 = losses.iter().sum();
        if self.reduction == Reduction::Mean && !losses.is_empty() {
            loss /= losses.len() as f64;
            gradient.iter_mut().for_each(|g| *g /= losses.len() as f64);
        }
        let shape = logits.shape().to_vec();
        let [loss] = tape.record(&[logits], [Tensor::scalar(T::of(loss))], move |grads| {
            let Some(grad) = &grads[0] else { return Ok(vec![None]) };
            let scale = grad.host()[0].f64();
            Ok(vec![Some(Tensor::from_fn(&shape, |i| T::of(scale * gradient[i])))])
        });
        Ok(loss)
    }

    /// The loss of logits on a device, a scalar, and its gradient, which stay there: nothing is waited for.
    ///
    /// # Errors
    /// As [`forward`](Self::forward); [`Error::Cuda`] of the device.
    pub(crate) fn loss_and_gradient_on<T: Real>(
        &self,
        gpu: Gpu,
        logits: &Tensor<T>,
        bin: &[u32],
        censored: &[bool],
    ) -> Result<(Tensor<T>, Tensor<T>)> {
        self.check(logits.shape(), bin, censored)?;
        let divisor = match self.reduction {
            Reduction::Mean => bin.len().max(1) as f64,
            Reduction::Sum => 1.0,
        };
        cuda::evaluate(gpu, self, divisor, logits, bin, censored)
    }

    /// The loss of each patient, before the reduction. Calculated on the CPU.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn losses<T: Real>(&self, logits: &Tensor<T>, bin: &[u32], censored: &[bool]) -> Result<Vec<f64>> {
        let bins = self.check(logits.shape(), bin, censored)?;
        Ok(cpu::evaluate(self, bins, logits.to(Device::Cpu)?.host(), bin, censored).0)
    }

    fn check(&self, logits: &[usize], bin: &[u32], censored: &[bool]) -> Result<usize> {
        let setting = |name, want, value: f64| Err(Error::Setting { name, want, value: value.to_string() });
        if !(0.0..=1.0).contains(&self.alpha) {
            return setting("nll_survival.alpha", "between 0 and 1", self.alpha);
        }
        if !(self.eps > 0.0 && self.eps < 1.0) {
            return setting("nll_survival.eps", "above 0 and below 1", self.eps);
        }
        let shape = |arg, want: String, got: &[usize]| Err(Error::Shape { op: OP, arg, want, got: got.to_vec() });
        let &[patients, bins] = logits else { return shape("logits", "[B, K]".into(), logits) };
        for (arg, len) in [("bin", bin.len()), ("censored", censored.len())] {
            if len != patients {
                return shape(arg, format!("[{patients}]"), &[len]);
            }
        }
        match bin.iter().position(|&y| y as usize >= bins) {
            Some(index) => {
                let value = f64::from(bin[index]);
                Err(Error::Value { op: OP, arg: "bin", want: "below the number of columns of logits", index, value })
            }
            None => Ok(bins),
        }
    }
}

const OP: &str = "nll_survival";

/// The probability of surviving each interval, `[B, K]`, given logits of that shape. Calculated on the CPU.
///
/// # Errors
/// [`Error::Shape`] if `logits` is not a matrix.
pub fn survival<T: Real>(logits: &Tensor<T>) -> Result<Tensor<f64>> {
    let &[_, bins] = logits.shape() else {
        return Err(Error::Shape { op: OP, arg: "logits", want: "[B, K]".into(), got: logits.shape().to_vec() });
    };
    Tensor::new(logits.shape(), cpu::survival(bins, logits.to(Device::Cpu)?.host()))
}

/// The probability of surviving each interval for one patient, given its logits.
pub(crate) fn survival_of<T: Real>(logits: &[T]) -> Vec<f64> {
    cpu::survival(logits.len(), logits)
}

/// The risk of each patient, `-sum_k S_k`: between `-K` and 0, higher is worse.
///
/// # Errors
/// As [`survival`].
pub fn risk<T: Real>(logits: &Tensor<T>) -> Result<Vec<f64>> {
    let survival = survival(logits)?;
    let (patients, bins) = survival.matrix();
    Ok((0..patients).map(|b| -survival.host()[b * bins..(b + 1) * bins].iter().sum::<f64>()).collect())
}
