//! What is minimised, and its gradient: batch by batch, or over the risk sets of the whole cohort.

use crate::config::{Loss, TrainConfig};
use crate::device::Device;
use crate::element::Real;
use crate::error::{Error, Result};
use crate::model::{Model, Source, predict};
use crate::nn::{Noise, Params, Pass, grads_of};
use crate::ops::cox::{Cox, Normalisation, Outcomes, Plan};
use crate::ops::nll_survival::NllSurvival;
use crate::tape::Tape;
use crate::tensor::Tensor;

/// The outcomes of the patients of a source and the loss over them. Patients are indices into the source.
#[derive(Clone, Debug)]
pub struct Objective {
    time: Vec<f64>,
    event: Vec<bool>,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Cox(Cox),
    Nll { op: NllSurvival, bin: Vec<u32> },
}

/// A loss with the gradient of every parameter, `None` where nothing depends on one.
#[derive(Debug)]
pub struct Step<T> {
    /// The loss: a mean over events (Cox) or patients (discrete time).
    pub loss: f64,
    /// What the loss is a mean over; 0 if the batch had nothing to learn from.
    pub weight: f64,
    /// In the order of the parameters.
    pub grads: Vec<Option<Tensor<T>>>,
}

impl Objective {
    /// The loss of a run file. `bin` has the time bin of each patient and is looked at by the discrete-time loss alone.
    pub fn new(config: &TrainConfig, time: Vec<f64>, event: Vec<bool>, bin: Vec<u32>) -> Objective {
        let kind = match config.loss {
            Loss::Cox => Kind::Cox(Cox { ties: config.ties, normalisation: Normalisation::PerEvent }),
            Loss::Nll => Kind::Nll { op: NllSurvival { alpha: config.nll_alpha, ..NllSurvival::default() }, bin },
        };
        Objective { time, event, kind }
    }

    /// Times and events of the named patients.
    pub fn outcome(&self, patients: &[usize]) -> (Vec<f64>, Vec<bool>) {
        patients.iter().map(|&p| (self.time[p], self.event[p])).unzip()
    }

    fn plan(&self, patients: &[usize]) -> Result<Plan> {
        let (time, event) = self.outcome(patients);
        Plan::new(&Outcomes::new(&time, &event))
    }

    /// The loss of predictions, `[n, K]`, of the named patients, what it is a mean over, and its gradient, `[n, K]`,
    /// where the predictions lie. On a device the loss alone is read back.
    ///
    /// # Errors
    /// [`Error::Diverged`] for predictions that are not finite.
    pub fn of_predictions<T: Real>(&self, patients: &[usize], prediction: &Tensor<T>) -> Result<(f64, f64, Tensor<T>)> {
        let (loss, gradient, weight) = match &self.kind {
            Kind::Cox(cox) => {
                let plan = self.plan(patients)?;
                // An event that nobody outlives teaches as little as none.
                let weight = if plan.pairs() > 0 { plan.events() } else { 0 };
                let (loss, gradient) = match prediction.device() {
                    Device::Cpu => {
                        check_finite(prediction)?;
                        let log_risk: Vec<f64> = prediction.host().iter().map(|x| x.f64()).collect();
                        let (loss, gradient) = cox.loss_and_gradient(&plan, &log_risk)?;
                        (loss, Tensor::from_fn(prediction.shape(), |i| T::of(gradient[i])))
                    }
                    Device::Cuda(gpu) => read_loss(cox.loss_and_gradient_on(gpu, &plan, prediction)?)?,
                };
                (loss, gradient, weight)
            }
            Kind::Nll { op, bin } => {
                let bin: Vec<u32> = patients.iter().map(|&p| bin[p]).collect();
                let censored: Vec<bool> = patients.iter().map(|&p| !self.event[p]).collect();
                let (loss, gradient) = match prediction.device() {
                    Device::Cpu => {
                        check_finite(prediction)?;
                        nll_on_cpu(op, prediction, &bin, &censored)?
                    }
                    Device::Cuda(gpu) => read_loss(op.loss_and_gradient_on(gpu, prediction, &bin, &censored)?)?,
                };
                (loss, gradient, patients.len())
            }
        };
        Ok((loss, weight as f64, gradient))
    }

    /// The loss over one batch and its gradient.
    ///
    /// # Errors
    /// A batch that cannot be read; a training that has diverged.
    pub fn step<T: Real>(
        &self,
        model: &Model<T>,
        params: &Params<T>,
        source: &impl Source<T>,
        patients: &[usize],
        noise: Noise,
    ) -> Result<Step<T>> {
        let mut figures = (0.0, 0.0);
        let grads = back(model, params, source, patients, noise, |prediction| {
            let (loss, weight, owed) = self.of_predictions(patients, prediction)?;
            figures = (loss, weight);
            Ok(owed)
        })?;
        Ok(Step { loss: figures.0, weight: figures.1, grads })
    }

    /// The loss over the risk sets of all patients of all batches and its gradient, with the memory of one batch.
    ///
    /// The risks of all patients are calculated first, keeping no activation; the loss over them says what gradient each
    /// patient's risk is owed; then each batch is calculated again, this time recorded, and that gradient goes back
    /// through it. The random draws depend on patient and epoch, not on the pass, so dropout and masks are the same in
    /// both; the sum over batches is the gradient that one batch of everybody would give, to rounding. Time: one and a
    /// half of the batch-wise step.
    ///
    /// # Errors
    /// As [`step`](Self::step).
    pub fn cohort_step<T: Real>(
        &self,
        model: &Model<T>,
        params: &Params<T>,
        source: &impl Source<T>,
        batches: &[Vec<usize>],
        noise: Noise,
    ) -> Result<Step<T>> {
        let predicted = |patients: &Vec<usize>| predict(model, params, source, patients, Some(noise));
        let predictions: Vec<Tensor<T>> = batches.iter().map(predicted).collect::<Result<_>>()?;
        let all: Vec<usize> = batches.concat();
        let width = predictions.first().map_or(0, |prediction| prediction.matrix().1);
        let (loss, weight, owed) = self.of_predictions(&all, &Tensor::stacked(width, &predictions)?)?;
        let mut sum: Vec<Option<Tensor<T>>> = vec![None; params.values().len()];
        let mut first = 0;
        for patients in batches {
            let owed = owed.rows(first..first + patients.len())?;
            first += patients.len();
            let grads = back(model, params, source, patients, noise, |_| Ok(owed))?;
            for (sum, grad) in sum.iter_mut().zip(grads) {
                match (sum.as_mut(), grad) {
                    (Some(sum), Some(grad)) => sum.add_assign(&grad)?,
                    (None, grad) => *sum = grad,
                    (_, None) => {}
                }
            }
        }
        Ok(Step { loss, weight, grads: sum })
    }
}

fn check_finite<T: Real>(prediction: &Tensor<T>) -> Result<()> {
    if prediction.host().iter().all(|x| x.is_finite()) { Ok(()) } else { Err(DIVERGED) }
}

/// Waits for a loss on a device. There a prediction that is not finite shows in the loss alone.
fn read_loss<T: Real>((loss, gradient): (Tensor<T>, Tensor<T>)) -> Result<(f64, Tensor<T>)> {
    let loss = loss.read()?[0].f64();
    if loss.is_finite() { Ok((loss, gradient)) } else { Err(DIVERGED) }
}

const DIVERGED: Error = Error::Diverged { what: "a prediction" };

fn nll_on_cpu<T: Real>(
    op: &NllSurvival,
    prediction: &Tensor<T>,
    bin: &[u32],
    censored: &[bool],
) -> Result<(f64, Tensor<T>)> {
    let tape = Tape::recording(Device::Cpu);
    let logits = tape.leaf(prediction.clone());
    let loss = op.forward(&tape, &logits, bin, censored)?;
    let value = loss.value().host()[0].f64();
    let grads = tape.backward(&[(&loss, Tensor::scalar(T::one()))])?;
    Ok((value, grads.of(&logits).cloned().unwrap_or_else(|| Tensor::zeros(prediction.shape()))))
}

/// The gradient of each parameter when the predictions of a training batch are owed what `owed` says of them.
fn back<T: Real>(
    model: &Model<T>,
    params: &Params<T>,
    source: &impl Source<T>,
    patients: &[usize],
    noise: Noise,
    owed: impl FnOnce(&Tensor<T>) -> Result<Tensor<T>>,
) -> Result<Vec<Option<Tensor<T>>>> {
    let batch = source.batch(patients, Some(noise))?;
    let tape = Tape::recording(params.device());
    let pass = Pass::new(&tape, params, Some(noise));
    let output = model.forward(&pass, &batch)?;
    let owed = owed(output.prediction.value())?;
    let vars = pass.into_vars();
    Ok(grads_of(&vars, &tape.backward(&[(&output.prediction, owed)])?))
}
