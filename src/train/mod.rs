//! Training: batches in, parameters out.

mod batches;
mod objective;

use std::time::Instant;

use serde::Serialize;

pub use batches::epoch;
pub use objective::{Objective, Step};

use crate::config::{RiskSet, RunConfig, Sampling, Select, TrainConfig, word};
use crate::data::{Cohort, Split};
use crate::device::{Device, Precision, Products};
use crate::error::{Error, Result};
use crate::evaluate::{Figure, median};
use crate::metrics::{Outcome, harrell};
use crate::model::{Batching, CohortSource, Model, Predictor, Recipe, Source, predict_all};
use crate::nn::{Builder, Noise, Params};
use crate::ops::cox::{Baseline, Cox, Normalisation, Outcomes, Plan};
use crate::optim::{Norm, Parameter};

/// What one epoch did.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EpochRecord {
    /// From 1.
    pub epoch: u32,
    /// The mean training loss, over events (Cox) or patients (discrete time).
    pub loss: f64,
    /// The learning rate of the last step.
    pub learning_rate: f64,
    /// The mean norm of the gradient before clipping.
    pub gradient_norm: f64,
    /// Steps taken.
    pub steps: usize,
    /// Batches in which nobody had an event that another outlived, so that the Cox loss was 0 and no step was taken.
    pub batches_without_event: usize,
    /// The figures of the validation patients, if any are held out.
    pub validation: Option<ValidationRecord>,
    /// Seconds that it took, validation included.
    pub seconds: f64,
    /// Of these, the seconds in which nothing was calculated because patch features were not there yet.
    pub waiting_seconds: f64,
}

/// The figures of the validation patients after an epoch.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ValidationRecord {
    /// The loss.
    pub loss: f64,
    /// Harrell's C.
    pub concordance: Figure<f64>,
}

/// What a training tells while it runs.
#[derive(Clone, Debug)]
pub enum Progress<'a> {
    /// The training begins.
    Start {
        /// Where it runs.
        device: Device,
        /// The bytes of patch features that stay there; 0 if batches are copied there one by one, or on the CPU.
        resident: u64,
    },
    /// A batch was done: its number, from 1, of how many, and its loss.
    Batch {
        /// From 1.
        epoch: u32,
        /// From 1.
        batch: usize,
        /// Of the epoch.
        batches: usize,
        /// Of this batch.
        loss: f64,
    },
    /// An epoch was done.
    Epoch(&'a EpochRecord),
}

/// A trained model with the story of its training.
#[derive(Debug)]
pub struct Trained {
    /// The model, ready to predict.
    pub predictor: Predictor,
    /// The epochs, in order.
    pub history: Vec<EpochRecord>,
    /// The epoch whose parameters were kept, from 1.
    pub kept_epoch: u32,
}

/// A device that calculates its products as a run file asks for.
///
/// # Errors
/// [`Error::Setting`] for what the CPU does not have, [`Error::Products`] if there is no library that the device can use.
pub(crate) fn place(t: &TrainConfig, device: Device) -> Result<Device> {
    if device == Device::Cpu && t.precision != Precision::F32 {
        let want = "\"f32\" on the CPU, which has no tensor cores; use --device cuda:0";
        return Err(Error::Setting { name: "train.precision", want, value: word(&t.precision) });
    }
    if device == Device::Cpu && t.products != Products::Own {
        let want = "\"own\" on the CPU, which has no cuBLASLt; use --device cuda:0";
        return Err(Error::Setting { name: "train.products", want, value: word(&t.products) });
    }
    device.with_precision(t.precision).with_products(t.products)
}

/// Trains on the training patients of a split and keeps the epoch that the validation patients choose. The recipe is
/// what [`Recipe::fit`] made of the same configuration, cohort and training patients.
///
/// On a device parameters, activations and the state of the optimiser lie there, with the features of the cohort if they
/// fit, and the model stays there when it is trained. A step waits for the device once, to read its loss.
///
/// The result depends on the configuration, the cohort, the split and the kind of device alone: not on the number of
/// threads, and not on whether the features fitted.
///
/// # Errors
/// Settings out of range, a split without an event among its training patients, validation patients or batches that
/// compare nobody, a modality that the source has not, a training that diverges; [`Error::BatchMemory`] for a batch that
/// does not fit on the device.
pub fn train(
    config: &RunConfig,
    device: Device,
    cohort: &Cohort,
    split: &Split,
    mut recipe: Recipe,
    mut observe: impl FnMut(&Progress<'_>),
) -> Result<Trained> {
    config.check()?;
    let t = &config.train;
    let device = place(t, device)?;
    if !split.train.iter().any(|&p| cohort.patients[p].event) {
        return Err(Error::Setting {
            name: "training patients",
            want: "such that one has an event",
            value: "none".into(),
        });
    }
    let source = CohortSource::new(&recipe, cohort)?.hiding(t.modality_dropout);
    let source = source.showing(t.patches_per_patient).padding(t.pad_to);
    let builder = Builder::<f32>::new(config.seed);
    let (model, params) = Model::build(&recipe.model, &recipe.shape(), recipe.outputs(), builder)?;
    let mut params = params.to(device)?;
    let bin: Vec<u32> = match &recipe.bins {
        Some(bins) => cohort.patients.iter().map(|p| bins.bin(p.time) as u32).collect(),
        None => Vec::new(),
    };
    let objective = Objective::new(t, cohort.times(), cohort.events(), bin.clone());
    check_selection(config, &recipe, &objective, split)?;

    let batching = Batching { patients: t.batch, patches: t.patches_per_batch };
    // A time bin if they are balanced by bins, and whether there was an event.
    let kind = |&p: &usize| {
        let bin = if t.sampling == Sampling::BinBalanced { bin.get(p).copied().unwrap_or(0) } else { 0 };
        (bin, cohort.patients[p].event)
    };
    let kind: Vec<(u32, bool)> = split.train.iter().map(kind).collect();
    let patches: Vec<usize> = split.train.iter().map(|&p| source.training_patches(p)).collect();
    let batches_of = |number: u32| -> Vec<Vec<usize>> {
        let batches = epoch(batching, config.seed, number, &kind, t.sampling != Sampling::Uniform, &patches);
        batches.into_iter().map(|batch| batch.into_iter().map(|i| split.train[i]).collect()).collect()
    };
    let predicted = |set: &Vec<usize>| {
        let patches: Vec<usize> = set.iter().map(|&p| source.patches(p)).collect();
        let named = |batch: Vec<usize>| batch.into_iter().map(|i| set[i]).collect::<Vec<_>>();
        batching.in_order(&patches).into_iter().map(named).collect::<Vec<_>>()
    };
    let predicted = [&split.train, &split.validation].map(predicted).concat();
    let room = source.room(device, &batches_of(0), &predicted)?;
    let source = source.on(device, room)?;
    observe(&Progress::Start { device, resident: source.resident() });
    let fit = Fit { config, model: &model, source: &source, recipe: &recipe, objective: &objective, split };
    let steps_per_epoch = match t.risk_set {
        RiskSet::Batch => batches_of(0).len(),
        RiskSet::Cohort => 1,
    };
    let schedule = t.schedule.over(u64::from(t.epochs), steps_per_epoch as u64)?;
    let describe = |((name, value), &decay): ((&str, &crate::Tensor<f32>), &bool)| Parameter {
        name: name.into(),
        shape: value.shape().to_vec(),
        decay,
    };
    let mut optimizer = t.optimizer.build(params.iter().zip(params.decays()).map(describe).collect())?;

    let (mut history, mut step, mut best) = (Vec::<EpochRecord>::new(), 0u64, None::<(f64, u32, Params<f32>)>);
    for number in 0..t.epochs {
        let start = Instant::now();
        let batches = batches_of(number);
        let noise = Noise { seed: config.seed, epoch: number };
        let mut record = EpochRecord {
            epoch: number + 1,
            loss: 0.0,
            learning_rate: 0.0,
            gradient_norm: 0.0,
            steps: 0,
            batches_without_event: 0,
            validation: None,
            seconds: 0.0,
            waiting_seconds: 0.0,
        };
        let waited = source.waited();
        // Whole-cohort risk sets take one step over all batches, the others one step a batch.
        let groups: Vec<&[Vec<usize>]> = match t.risk_set {
            RiskSet::Batch => batches.chunks(1).collect(),
            RiskSet::Cohort => vec![&batches],
        };
        let passes = if t.risk_set == RiskSet::Cohort { 2 } else { 1 };
        // What comes after the batches of this epoch, and after its validation: nobody waits where one ends.
        let next = (number + 1 < t.epochs).then(|| batches_of(number + 1).swap_remove(0));
        let next = next.map(|batch| (batch, Some(Noise { seed: config.seed, epoch: number + 1 })));
        let validation = batching.first(&source, &split.validation).map(|batch| (batch, None));
        let (after, last) = if validation.is_some() { (validation, next) } else { (next, None) };
        if let Some((batch, noise)) = &after {
            source.then(batch, *noise);
        }
        source.upcoming(&batches, passes, Some(noise))?;
        let (mut weight, mut norms) = (0.0, Vec::with_capacity(groups.len()));
        for (done, group) in groups.iter().enumerate() {
            let mut result = fit.step(&params, group, noise)?;
            observe(&Progress::Batch { epoch: number + 1, batch: done + 1, batches: groups.len(), loss: result.loss });
            let rate = t.learning_rate * schedule.factor(step);
            step += 1;
            record.learning_rate = rate;
            if result.weight == 0.0 {
                record.batches_without_event += 1;
                continue;
            }
            record.loss += result.loss * result.weight;
            weight += result.weight;
            let limit = if t.clip_norm > 0.0 { t.clip_norm } else { f64::INFINITY };
            let norm = optimizer.step_clipped(rate, Some(limit), params.values_mut(), &mut result.grads)?;
            norms.extend(norm);
            record.steps += 1;
        }
        if record.steps == 0 {
            return Err(Error::Setting {
                name: "train.batch (with train.patches_per_batch)",
                want: "large enough that a patient of a batch outlives the event of another",
                value: format!("{} ({})", t.batch, t.patches_per_batch),
            });
        }
        // Here and not after each step, so that a step waits for nothing but its loss. A gradient that is not finite has
        // moved nothing.
        let norms = Norm::read_all(&norms)?;
        if norms.iter().any(|norm| !norm.is_finite()) {
            return Err(Error::Diverged { what: "the gradient" });
        }
        record.loss /= f64::max(weight, 1.0);
        record.gradient_norm = norms.iter().sum::<f64>() / record.steps.max(1) as f64;
        if let Some((batch, noise)) = &last {
            source.then(batch, *noise);
        }
        record.validation = fit.validate(&params, batching)?;
        record.seconds = start.elapsed().as_secs_f64();
        record.waiting_seconds = (source.waited() - waited).as_secs_f64();
        tracing::debug!(epoch = record.epoch, loss = record.loss, seconds = record.seconds, "epoch done");
        observe(&Progress::Epoch(&record));
        let score = fit.score(&record);
        if best.as_ref().is_none_or(|(least, ..)| score < *least) {
            best = Some((score, number + 1, params.clone()));
        }
        history.push(record);
        let since = number + 1 - best.as_ref().map_or(0, |(_, kept, _)| *kept);
        if t.patience > 0 && t.select != Select::Last && since >= t.patience {
            break;
        }
    }
    let (_, kept_epoch, params) = best.expect("a training has at least one epoch");
    let (median_risk, baseline) = fit.references(&params, batching)?;
    (recipe.median_risk, recipe.baseline) = (median_risk, baseline);
    Ok(Trained { predictor: Predictor { recipe, model, params }, history, kept_epoch })
}

/// What an op refuses of a model's own values while it trains: the inputs were finite when the cohort was opened, so the
/// parameters have left the numbers.
fn diverged(error: Error) -> Error {
    match error {
        Error::Value { .. } => Error::Diverged { what: "a token" },
        other => other,
    }
}

/// Refuses validation patients whose figure is the same for every epoch: the first would be kept.
fn check_selection(config: &RunConfig, recipe: &Recipe, objective: &Objective, split: &Split) -> Result<()> {
    let patients = &split.validation;
    let (time, event) = objective.outcome(patients);
    let chooses = match config.train.select {
        _ if patients.is_empty() => true,
        Select::ValidationLoss => {
            let prediction = crate::Tensor::<f32>::zeros(&[patients.len(), recipe.outputs()]);
            objective.of_predictions(patients, &prediction)?.1 > 0.0
        }
        Select::ValidationConcordance => {
            harrell(Outcome::new(&time, &event)?, &vec![0.0; patients.len()])?.index().is_ok()
        }
        Select::Last => true,
    };
    if chooses {
        return Ok(());
    }
    let want = "large enough that a validation patient outlives the event of another, or train.select \"last\"";
    Err(Error::Setting { name: "train.validation", want, value: config.train.validation.to_string() })
}

/// What every epoch of one training looks at.
struct Fit<'a> {
    config: &'a RunConfig,
    model: &'a Model<f32>,
    source: &'a CohortSource<'a>,
    recipe: &'a Recipe,
    objective: &'a Objective,
    split: &'a Split,
}

impl Fit<'_> {
    fn step(&self, params: &Params<f32>, batches: &[Vec<usize>], noise: Noise) -> Result<Step<f32>> {
        let step = match (batches, self.config.train.risk_set) {
            ([batch], RiskSet::Batch) => self.objective.step(self.model, params, self.source, batch, noise),
            _ => self.objective.cohort_step(self.model, params, self.source, batches, noise),
        };
        step.map_err(|error| diverged(self.source.explain(error)))
    }

    /// Predictions of some patients of the source, in their order.
    fn predictions(&self, params: &Params<f32>, patients: &[usize], batching: Batching) -> Result<crate::Tensor<f32>> {
        let all = predict_all(self.model, params, self.source, patients, batching).map_err(diverged)?;
        if !all.iter().all(|x| x.is_finite()) {
            return Err(Error::Diverged { what: "a prediction" });
        }
        let width = all.len() / patients.len().max(1);
        crate::Tensor::new(&[patients.len(), width], all)
    }

    fn outcome(&self, patients: &[usize]) -> (Vec<f64>, Vec<bool>) {
        self.objective.outcome(patients)
    }

    fn validate(&self, params: &Params<f32>, batching: Batching) -> Result<Option<ValidationRecord>> {
        let patients = &self.split.validation;
        if patients.is_empty() {
            return Ok(None);
        }
        let prediction = self.predictions(params, patients, batching)?;
        let (loss, ..) = self.objective.of_predictions(patients, &prediction)?;
        let (time, event) = self.outcome(patients);
        let risk = self.risks(&prediction);
        let concordance = harrell(Outcome::new(&time, &event)?, &risk)?.index();
        Ok(Some(ValidationRecord { loss, concordance: Figure::of(concordance) }))
    }

    fn risks(&self, prediction: &crate::Tensor<f32>) -> Vec<f64> {
        let width = prediction.matrix().1.max(1);
        prediction.host().chunks(width).map(|row| self.recipe.risk(row)).collect()
    }

    /// What the kept epoch has least of.
    fn score(&self, record: &EpochRecord) -> f64 {
        match (self.config.train.select, &record.validation) {
            (Select::ValidationLoss, Some(validation)) => validation.loss,
            (Select::ValidationConcordance, Some(validation)) => {
                validation.concordance.value().map_or(f64::INFINITY, |c| -c)
            }
            _ => -f64::from(record.epoch),
        }
    }

    /// What later risks are read against: the median risk of the training patients and their baseline hazard.
    fn references(&self, params: &Params<f32>, batching: Batching) -> Result<(f64, Option<Baseline>)> {
        let patients = &self.split.train;
        let risk = self.risks(&self.predictions(params, patients, batching)?);
        let median = median(&risk).unwrap_or(0.0);
        if self.recipe.bins.is_some() {
            return Ok((median, None));
        }
        let (time, event) = self.outcome(patients);
        let cox = Cox { ties: self.config.train.ties, normalisation: Normalisation::PerEvent };
        let baselines = cox.baseline(&Plan::new(&Outcomes::new(&time, &event))?, &risk)?;
        Ok((median, baselines.into_iter().next()))
    }
}
