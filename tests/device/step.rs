//! One step of a model with everything on: its loss and its gradient are as good as those of the CPU.

use onkos::config::Loss;
use onkos::model::{Batch, ModelConfig, Source};
use onkos::nn::Noise;
use onkos::train::Step;
use onkos::{Device, Real, Result};

use crate::fixture::*;
use crate::gpu;
use crate::harness::{assert_as_good_as_plain, assert_sums_as_good_as_plain};

/// The same patients with their batches on a device.
struct Placed(Memory, Device);

impl Source<f32> for Placed {
    fn patients(&self) -> usize {
        Source::<f32>::patients(&self.0)
    }

    fn patches(&self, p: usize) -> usize {
        Source::<f32>::patches(&self.0, p)
    }

    fn batch(&self, patients: &[usize], noise: Option<Noise>) -> Result<Batch<f32>> {
        Source::<f32>::batch(&self.0, patients, noise)?.to(self.1)
    }
}

fn patients() -> Memory {
    Memory::new([(true, 5), (false, 33), (true, 0), (true, 1), (true, 40), (true, 127)])
}

/// The gradients of all parameters, in their order, those of each divided by its largest element in `f64`: small ones
/// count as much as large ones.
fn flat<T: Real>(step: &Step<T>, scales: &[f64]) -> Vec<T> {
    let read = |grad: &Option<onkos::Tensor<T>>| grad.as_ref().map_or_else(Vec::new, |grad| grad.read().unwrap());
    let grads = step.grads.iter().map(read).zip(scales);
    grads.flat_map(|(grad, scale)| grad.into_iter().map(move |g| T::of(g.f64() / scale))).collect()
}

fn scales(step: &Step<f64>) -> Vec<f64> {
    let largest = |grad: &Option<onkos::Tensor<f64>>| {
        grad.as_ref().map_or(1.0, |grad| grad.host().iter().fold(f64::MIN_POSITIVE, |m, g| m.max(g.abs())))
    };
    step.grads.iter().map(largest).collect()
}

#[test]
fn loss_and_gradient_are_as_good_as_those_of_the_cpu() {
    let Some((gpu, _one)) = gpu() else { return };
    let there = Device::Cuda(gpu);
    let memory = patients();
    let all: Vec<usize> = (0..6).collect();
    let each = [(Loss::Cox, 1), (Loss::Nll, 3)];
    let mcat = [ModelConfig::from(everything_of_mcat()), bilinear_mcat().into(), motcat()];
    let both = [ModelConfig::from(everything()), everything_of_survpath().into()].into_iter().chain(mcat);
    let models: Vec<ModelConfig> = both.chain(of_one_modality()).chain(mixed()).collect();
    for (config, (loss, outputs)) in models.iter().flat_map(|model| each.map(|loss| (model, loss))) {
        for cohort in [false, true] {
            if cohort && loss == Loss::Nll {
                continue;
            }
            let objective = memory.objective(loss);
            let batches = [vec![0, 1, 2], vec![3, 4], vec![5]];
            let (model, params) = memory.build::<f32>(config, outputs);
            let (oracle_model, oracle_params) = memory.build::<f64>(config, outputs);
            let placed = Placed(patients(), there);
            let params_there = params.to(there).unwrap();
            let (oracle, plain, got) = if cohort {
                (
                    objective.cohort_step(&oracle_model, &oracle_params, &memory, &batches, NOISE).unwrap(),
                    objective.cohort_step(&model, &params, &memory, &batches, NOISE).unwrap(),
                    objective.cohort_step(&model, &params_there, &placed, &batches, NOISE).unwrap(),
                )
            } else {
                (
                    objective.step(&oracle_model, &oracle_params, &memory, &all, NOISE).unwrap(),
                    objective.step(&model, &params, &memory, &all, NOISE).unwrap(),
                    objective.step(&model, &params_there, &placed, &all, NOISE).unwrap(),
                )
            };
            let what = format!("{}, {loss:?}, cohort {cohort}", config.name());
            assert_eq!(got.weight, plain.weight, "{what}");
            let one = |step: f64| [step as f32];
            assert_as_good_as_plain(&format!("{what}, loss"), &one(got.loss), &one(plain.loss), &[oracle.loss]);
            let scales = scales(&oracle);
            let [got, plain] = [&got, &plain].map(|step| flat(step, &scales));
            // Gradients are sums over the patients at least.
            assert_sums_as_good_as_plain(&format!("{what}, gradient"), &got, &plain, &flat(&oracle, &scales), 6);
        }
    }
}
