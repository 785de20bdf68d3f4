//! Cox partial likelihood: a loss for log risks, from patients of whom some are censored.
//!
//! # Math
//! At each time `t` of a death in a stratum, `D` are the deaths at `t` and `R` the patients at risk: those of the
//! stratum with `entry < t <= time`. With `S(A) = sum of w_j e^(eta_j) over A`, the negative logarithm of the partial
//! likelihood (Cox 1975) is the sum over strata and times of
//! - Breslow (1974): `sum_D w_i (log S(R) - eta_i)`;
//! - Efron (1977): `wbar sum_k log(S(R) - k/d S(D)) - sum_D w_i eta_i`, `k = 0 .. d - 1`, where `d` counts the deaths
//!   and `wbar` is the mean of their weights.
//!
//! The baseline hazard grows at `t` by `sum_D w_i / S(R)` or by `wbar sum_k 1 / (S(R) - k/d S(D))`.
//!
//! # Arguments
//! | name | shape | unit | constraint |
//! |---|---|---|---|
//! | `log_risk` (`eta`) | `[n]` or `[n, 1]` | log hazard ratio | finite; higher is worse |
//! | `plan` | `n` patients | | made of [`Outcomes`] by [`Plan::new`] |
//!
//! # Result
//! The loss, a scalar: the sum above, divided by the weight of all deaths (their number where there are no weights) or
//! not, as [`Normalisation`] says. It is 0 where nobody died.
//!
//! # Gradient
//! `w_i (e^(eta_i) H(i) - [i died])`, where `H(i)` is the increments of the baseline hazard while `i` was at risk; at
//! the own death Efron charges `wbar sum_k (1 - k/d) / (S(R) - k/d S(D))`. It sums to 0 in each stratum, and is 0 for
//! all where [`Plan::pairs`] is.
//!
//! # Numerics
//! In f64 whatever the type of `log_risk`; the bits do not depend on the number of threads. Sums of exponentials are scaled by the largest one as they
//! grow, and nothing is ever subtracted from them (the deaths of Efron's terms are added in shares, truncated risk
//! sets come out of a tree of sums), so log risks of 800 and of -800 in one risk set are right to rounding.
//!
//! On a device too the sums are in f64, with exponents in steps of `2^64`, so that scaling one to another is exact;
//! weights must lie between `1e-290` and `1e290` there. Log risks are not looked at before they are used, since that
//! would mean to wait for them: one that is not finite makes the loss NaN there, whoever the patient is.
//!
//! # Cost
//! `O(n log n)` for the plan, once. Then `O(n)`, one exponential a patient and a few a time of death; `O(n log n)` if a
//! patient enters after the first death. The gradient is calculated with the loss and kept: `n` numbers.
//!
//! On a device one launch for up to 13,824 patients, else five, and one for the gradient of a loss on a tape; the order
//! of the risk sets is copied there once a plan. Five launches with late entry, where each patient is a member of up to
//! `2 log2(moments)` nodes of a tree: as many words of four bytes lie there with the plan.
//!
//! # Deviations
//! A patient of weight 0 is removed, under Efron too (R refuses weight 0): counting a removed death in `d` would change
//! the likelihood of the others (`weight_zero_is_the_same_as_absence`). Entry is exclusive as in R; statsmodels 0.14
//! includes it.

mod baseline;
mod cpu;
mod cuda;
mod layout;
mod plan;
mod scaled;

use serde::{Deserialize, Serialize};

pub use baseline::{Baseline, Step};
pub(crate) use cuda::KERNELS;
pub use plan::{Outcomes, Plan};

use crate::device::{Device, Gpu};
use crate::element::Real;
use crate::error::{Error, Result};
use crate::tape::{Tape, Var};
use crate::tensor::Tensor;

/// Cox partial likelihood: see the [module page](self).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cox {
    /// How deaths at the same time share a risk set.
    pub ties: Ties,
    /// What the sum over deaths is divided by.
    pub normalisation: Normalisation,
}

/// How deaths at the same time share a risk set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ties {
    /// Each sees the whole risk set: simple, and biased towards 0 where ties are many.
    Breslow,
    /// The average over the orders in which they may have happened, nearly; what R does unless told otherwise.
    #[default]
    Efron,
}

/// What the sum over deaths is divided by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Normalisation {
    /// Nothing: minus the log-likelihood that statistics packages print.
    Sum,
    /// The weight of all deaths, so that losses and step sizes compare between batches and cohorts.
    #[default]
    PerEvent,
}

impl Cox {
    /// The loss of log risks on a tape.
    ///
    /// # Errors
    /// [`Error::Shape`] if `log_risk` is not one number for each patient of the plan, [`Error::Value`] if one is not
    /// finite (on the CPU: elsewhere the loss is then NaN).
    pub fn forward<T: Real>(&self, tape: &Tape<T>, log_risk: &Var<T>, plan: &Plan) -> Result<Var<T>> {
        let (loss, gradient) = match tape.device() {
            Device::Cpu => {
                check_shape(plan, log_risk.shape())?;
                let log_risk: Vec<f64> = log_risk.value().host().iter().map(|x| x.f64()).collect();
                self.loss_and_gradient(plan, &log_risk)?
            }
            Device::Cuda(gpu) => {
                let (loss, gradient) = self.loss_and_gradient_on(gpu, plan, log_risk.value())?;
                let [loss] = tape.record(&[log_risk], [loss], move |grads| {
                    let Some(grad) = &grads[0] else { return Ok(vec![None]) };
                    Ok(vec![Some(cuda::backward(gpu, &gradient, grad)?)])
                });
                return Ok(loss);
            }
        };
        let shape = log_risk.shape().to_vec();
        let [loss] = tape.record(&[log_risk], [Tensor::scalar(T::of(loss))], move |grads| {
            let Some(grad) = &grads[0] else { return Ok(vec![None]) };
            let scale = grad.host()[0].f64();
            Ok(vec![Some(Tensor::from_fn(&shape, |i| T::of(scale * gradient[i])))])
        });
        Ok(loss)
    }

    /// The loss and its gradient with respect to each log risk, without a tape: for a risk set of patients whose
    /// predictions were made in several passes.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn loss_and_gradient(&self, plan: &Plan, log_risk: &[f64]) -> Result<(f64, Vec<f64>)> {
        check(plan, log_risk)?;
        let (loss, mut gradient) = cpu::evaluate(self.ties, plan, log_risk);
        let divisor = self.divisor(plan);
        if divisor != 1.0 {
            gradient.iter_mut().for_each(|g| *g /= divisor);
        }
        // A sum over no death is minus zero; the loss is then a plain 0.
        Ok((loss / divisor + 0.0, gradient))
    }

    /// The same of log risks on a device, a scalar and a tensor of their shape that stay there: nothing is waited for.
    ///
    /// # Errors
    /// [`Error::Shape`] as [`forward`](Self::forward); [`Error::Cuda`] of the device.
    pub(crate) fn loss_and_gradient_on<T: Real>(
        &self,
        gpu: Gpu,
        plan: &Plan,
        log_risk: &Tensor<T>,
    ) -> Result<(Tensor<T>, Tensor<T>)> {
        check_shape(plan, log_risk.shape())?;
        cuda::evaluate(gpu, self, plan, log_risk)
    }

    fn divisor(&self, plan: &Plan) -> f64 {
        match self.normalisation {
            Normalisation::PerEvent if plan.events() > 0 => plan.event_weight(),
            _ => 1.0,
        }
    }

    /// The baseline hazard of each stratum, in the order of their labels, given the log risks of the patients that it
    /// is estimated from.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn baseline(&self, plan: &Plan, log_risk: &[f64]) -> Result<Vec<Baseline>> {
        check(plan, log_risk)?;
        let (increments, sums) = cpu::baseline(self.ties, plan, log_risk);
        let step = |e: usize| Step {
            time: plan.moments[e].time,
            log_increment: increments[e].ln(),
            log_cumulative: sums[e].ln(),
        };
        let stratum = |s: &plan::Stratum| Baseline { stratum: s.label, steps: s.moments.clone().map(step).collect() };
        Ok(plan.strata.iter().map(stratum).collect())
    }
}

fn check_shape(plan: &Plan, log_risk: &[usize]) -> Result<()> {
    let n = plan.len();
    if log_risk != [n] && log_risk != [n, 1] {
        let (want, got) = (format!("[{n}] or [{n}, 1]"), log_risk.to_vec());
        return Err(Error::Shape { op: "cox", arg: "log_risk", want, got });
    }
    Ok(())
}

fn check(plan: &Plan, log_risk: &[f64]) -> Result<()> {
    let n = plan.len();
    if log_risk.len() != n {
        return Err(Error::Shape { op: "cox", arg: "log_risk", want: format!("[{n}]"), got: vec![log_risk.len()] });
    }
    match log_risk.iter().position(|x| !x.is_finite()) {
        Some(index) => Err(Error::Value { op: "cox", arg: "log_risk", want: "finite", index, value: log_risk[index] }),
        None => Ok(()),
    }
}
