//! Risk sets of the whole cohort with the memory of one batch.

use onkos::config::Loss;
use onkos::train::{Objective, Step};
use onkos::{Real, Tensor};

use crate::fixture::*;
use crate::harness::*;

/// Ten patients, some of whom lack a modality, and their batches.
fn ten() -> (Memory, Vec<Vec<usize>>) {
    let has = [(true, 5), (false, 3), (true, 0), (true, 1), (true, 9), (true, 2), (false, 4), (true, 6), (true, 3)];
    let mut source = Memory::new(has.into_iter().chain([(true, 7)]));
    source.modality_dropout = 0.5;
    (source, vec![vec![4, 0, 9], vec![1], vec![2, 3, 5, 6], vec![8, 7]])
}

fn both<T: Real>(loss: Loss, outputs: usize) -> [Step<T>; 2] {
    let (source, batches) = ten();
    let (model, params) = source.build::<T>(&everything(), outputs);
    let objective: Objective = source.objective(loss);
    let cohort = objective.cohort_step(&model, &params, &source, &batches, NOISE).unwrap();
    [cohort, objective.step(&model, &params, &source, &batches.concat(), NOISE).unwrap()]
}

/// Loss and all gradients in one row.
fn flat<T: Real>(step: &Step<T>) -> Vec<T> {
    let grads = step.grads.iter().flat_map(|g| g.as_ref().expect("all parameters are used").host().to_vec());
    [T::of(step.loss)].into_iter().chain(grads).collect()
}

#[test]
fn batches_with_cohort_risk_sets_add_up_to_one_batch_of_everybody() {
    for (loss, outputs) in [(Loss::Cox, 1), (Loss::Nll, 3)] {
        let [cohort, one] = both::<f64>(loss, outputs).map(|step| flat(&step));
        let [single, plain] = both::<f32>(loss, outputs).map(|step| flat(&step));
        // The two sum the same terms in another order: as close as f32 is to f64, by the ratio of their roundings.
        let largest = one.iter().fold(0f64, |m, x| m.max(x.abs()));
        let error = plain.iter().zip(&one).fold(0f64, |m, (p, o)| m.max((f64::from(*p) - o).abs())) / largest;
        let bound = 2.0 * error * f64::EPSILON / f64::from(f32::EPSILON);
        assert!(error < 1e-3 && bound < 1e-12, "{loss:?}: f32 is off by {error:e}, which bounds nothing");
        assert_golden(&format!("{loss:?} in f64"), &cohort, &one, bound);
        assert_as_good_as_plain(&format!("{loss:?} in f32"), &single, &plain, &one);
    }
}

#[test]
fn the_loss_of_a_cohort_step_is_not_that_of_its_batches() {
    let (source, batches) = ten();
    let (model, params) = source.build::<f64>(&everything(), 1);
    let objective = source.objective(Loss::Cox);
    let [cohort, _] = both::<f64>(Loss::Cox, 1);
    let parts = batches.iter().map(|b| objective.step(&model, &params, &source, b, NOISE).unwrap());
    let (sum, weight) = parts.fold((0.0, 0.0), |(sum, w), step| (sum + step.loss * step.weight, w + step.weight));
    assert!((sum / weight - cohort.loss).abs() > 0.1 * cohort.loss);
}

/// No batch is asked for that is larger than the largest, and each is recorded on a tape of its own, which is consumed
/// before the next is made: that is all the memory there is. Twice each, first all without a tape.
#[test]
fn a_cohort_step_asks_for_each_batch_twice_and_for_no_larger_one() {
    let (source, batches) = ten();
    let (model, params) = source.build::<f32>(&everything(), 1);
    source.objective(Loss::Cox).cohort_step(&model, &params, &source, &batches, NOISE).unwrap();
    assert_eq!(*source.asked.borrow(), [batches.clone(), batches].concat());
}

#[test]
fn a_cohort_without_an_event_that_another_outlives_has_weight_zero() {
    let (source, _) = ten();
    let config = onkos::config::TrainConfig::default();
    let last = Objective::new(
        &config,
        (0..10).map(|i| f64::from(i) + 1.0).collect(),
        (0..10).map(|i| i == 9).collect(),
        vec![],
    );
    let zeros = Tensor::<f32>::zeros(&[10, 1]);
    let all: Vec<usize> = (0..source.patients.len()).collect();
    let (loss, weight, owed) = last.of_predictions(&all, &zeros).unwrap();
    assert_eq!((loss, weight, owed), (0.0, 0.0, zeros));
}
