//! How far a training may be from the same training in another precision: `docs/numerics.md` derives it.

use onkos::config::{RiskSet, RunConfig};
use onkos::data::{Cohort, Split};
use onkos::model::{Batch, Batching, CohortSource, Genes, Model, Recipe, Source, forward, predict_all};
use onkos::nn::{Builder, Noise, Params};
use onkos::optim::Parameter;
use onkos::rng::Draws;
use onkos::train::{EpochRecord, Objective, epoch};
use onkos::{Device, Real, Result, Tensor};

use crate::harness::cast;

/// Trainings in f32 whose first parameters differ in their last place.
pub const SIBLINGS: u32 = 8;

/// A cohort in another precision. Patch features are as stored in any.
pub struct Wide<'a>(pub CohortSource<'a>);

impl<T: Real> Source<T> for Wide<'_> {
    fn patients(&self) -> usize {
        Source::<f32>::patients(&self.0)
    }

    fn patches(&self, p: usize) -> usize {
        Source::<f32>::patches(&self.0, p)
    }

    fn batch(&self, patients: &[usize], noise: Option<Noise>) -> Result<Batch<T>> {
        let Batch { patients, genes, patches } = Source::<f32>::batch(&self.0, patients, noise)?;
        let genes = genes.map(|g| Genes { values: cast(&g.values), rows: g.rows });
        Ok(Batch { patients, genes, patches })
    }
}

/// The model of a recipe with parameters that were drawn in f32. Sibling 0 has them as they are, each other one has every
/// parameter moved to one of its neighbours in f32, or left, by draws of its own.
pub fn model<T: Real>(recipe: &Recipe, seed: u64, sibling: u32) -> (Model<T>, Params<T>) {
    let (_, drawn) = Model::<f32>::build(&recipe.model, &recipe.shape(), recipe.outputs(), Builder::new(seed)).unwrap();
    let (model, mut own) =
        Model::<T>::build(&recipe.model, &recipe.shape(), recipe.outputs(), Builder::new(seed)).unwrap();
    for (number, (own, drawn)) in own.values_mut().iter_mut().zip(drawn.values()).enumerate() {
        let stream = Draws::new(u64::from(sibling), 0, "neighbours").of(number as u32);
        let neighbour = |i: usize, x: f32| match (stream.uniform(i as u64) * 3.0) as u32 {
            _ if sibling == 0 => x,
            0 => x.next_down(),
            1 => x.next_up(),
            _ => x,
        };
        *own = Tensor::from_fn(drawn.shape(), |i| T::of(f64::from(neighbour(i, drawn.host()[i]))));
    }
    (model, own)
}

/// The figures of an epoch: loss, norm of the gradient, and loss of the validation patients, if there are any.
pub fn figures(record: &EpochRecord) -> Vec<f64> {
    let validation = record.validation.as_ref().map(|v| v.loss);
    [record.loss, record.gradient_norm].into_iter().chain(validation).collect()
}

/// A training on the CPU, written down as `train` is meant to work, in any precision and at a constant rate: the figures of
/// each epoch, and the last parameters.
pub fn follow<T: Real>(config: &RunConfig, cohort: &Cohort, split: &Split, sibling: u32) -> (Vec<Vec<f64>>, Params<T>) {
    let (t, recipe) = (&config.train, Recipe::fit(config, cohort, &split.train).unwrap());
    let source = Wide(CohortSource::new(&recipe, cohort).unwrap().hiding(t.modality_dropout));
    let (model, mut params) = model::<T>(&recipe, config.seed, sibling);
    let times = cohort.times();
    let bin = recipe.bins.as_ref().map_or_else(Vec::new, |b| times.iter().map(|&time| b.bin(time) as u32).collect());
    let objective = Objective::new(t, times, cohort.events(), bin);
    let batching = Batching { patients: t.batch, patches: t.patches_per_batch };
    let event: Vec<bool> = split.train.iter().map(|&p| cohort.patients[p].event).collect();
    let patches: Vec<usize> = split.train.iter().map(|&p| Source::<T>::patches(&source, p)).collect();
    let named = params.iter().zip(params.decays()).map(|((name, value), &decay)| Parameter {
        name: name.into(),
        shape: value.shape().to_vec(),
        decay,
    });
    let mut optimizer = t.optimizer.build::<T>(named.collect()).unwrap();
    let mut story = Vec::new();
    for number in 0..t.epochs {
        let noise = Noise { seed: config.seed, epoch: number };
        let batches = epoch(batching, config.seed, number, &event, false, &patches);
        let batches: Vec<Vec<usize>> =
            batches.into_iter().map(|batch| batch.into_iter().map(|i| split.train[i]).collect()).collect();
        let steps = if t.risk_set == RiskSet::Cohort { 1 } else { batches.len() };
        let (mut loss, mut weight, mut norms) = (0.0, 0.0, Vec::new());
        for number in 0..steps {
            let mut step = match t.risk_set {
                RiskSet::Cohort => objective.cohort_step(&model, &params, &source, &batches, noise),
                RiskSet::Batch => objective.step(&model, &params, &source, &batches[number], noise),
            }
            .unwrap();
            if step.weight == 0.0 {
                continue;
            }
            loss += step.loss * step.weight;
            weight += step.weight;
            let limit = if t.clip_norm > 0.0 { t.clip_norm } else { f64::INFINITY };
            let norm = optimizer.step_clipped(t.learning_rate, Some(limit), params.values_mut(), &mut step.grads);
            norms.extend(norm.unwrap().map(|norm| norm.read().unwrap()));
        }
        let mut epoch = vec![loss / weight.max(1.0), norms.iter().sum::<f64>() / norms.len() as f64];
        if !split.validation.is_empty() {
            let of = &split.validation;
            let all = predict_all(&model, &params, &source, of, batching).unwrap();
            let prediction = Tensor::new(&[of.len(), all.len() / of.len()], all).unwrap();
            epoch.push(objective.of_predictions(of, &prediction).unwrap().0);
        }
        story.push(epoch);
    }
    (story, params)
}

/// Fails unless each figure of a training in f32 is at most twice as far from that of the same training in f64 as the
/// farthest of some trainings in f32 on the CPU, whose first parameters differ in their last place; and never more than a
/// thousandth, which would say that nothing is compared any more.
#[track_caller]
pub fn assert_same_story(what: &str, got: &[EpochRecord], config: &RunConfig, cohort: &Cohort, split: &Split) {
    let (oracle, _) = follow::<f64>(config, cohort, split, 0);
    let siblings: Vec<_> = (0..SIBLINGS).map(|sibling| follow::<f32>(config, cohort, split, sibling).0).collect();
    assert_eq!(got.len(), oracle.len(), "{what}: epochs");
    for (number, (got, oracle)) in got.iter().map(figures).zip(&oracle).enumerate() {
        assert_eq!(got.len(), oracle.len(), "{what}: figures of an epoch");
        for (index, (got, want)) in got.iter().zip(oracle).enumerate() {
            let figure = ["loss", "norm", "validation loss"][index];
            let errors = siblings.iter().map(|story| (story[number][index] - want).abs());
            // Where all of them happen to be exact: half a unit in the last place of one.
            let least = f64::from(f32::EPSILON) / 2.0 * want.abs();
            let bound = 2.0 * errors.fold(least, f64::max);
            let off = (got - want).abs();
            println!("{what}, epoch {}, {figure}: {want}, off by {off:.1e} of {bound:.1e}", number + 1);
            assert!(bound <= 1e-3 * want.abs().max(1.0), "{what}, {figure}: a bound of {bound} compares nothing");
            assert!(off <= bound, "{what}, epoch {}, {figure}: {got}, in f64 {want} +- {bound:e}", number + 1);
        }
    }
}

/// Predictions of all patients of a cohort by a model with these parameters, on the CPU.
pub fn predicted<T: Real, U: Real>(recipe: &Recipe, params: &Params<U>, cohort: &Cohort, batching: Batching) -> Vec<T> {
    let source = Wide(CohortSource::new(recipe, cohort).unwrap());
    let (model, own) = here(recipe, params);
    predict_all(&model, &own, &source, &(0..cohort.len()).collect::<Vec<_>>(), batching).unwrap()
}

/// How much each patch of all patients counts in a model with these parameters, on the CPU.
pub fn weights<T: Real, U: Real>(recipe: &Recipe, params: &Params<U>, cohort: &Cohort) -> Vec<T> {
    let source = Wide(CohortSource::new(recipe, cohort).unwrap());
    let (model, own) = here(recipe, params);
    let all: Vec<usize> = (0..cohort.len()).collect();
    forward(&model, &own, &source, &all, None, true).unwrap().attention.patches.unwrap().read().unwrap()
}

fn here<T: Real, U: Real>(recipe: &Recipe, params: &Params<U>) -> (Model<T>, Params<T>) {
    let (model, mut own) = model::<T>(recipe, 0, 0);
    for (own, trained) in own.values_mut().iter_mut().zip(params.to(Device::Cpu).unwrap().values()) {
        *own = cast(trained);
    }
    (model, own)
}
