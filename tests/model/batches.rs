//! A batch of ragged bags is its bags one by one.

use onkos::config::Loss;
use onkos::model::predict;
use onkos::model::{Model, ModelConfig};
use onkos::nn::{Builder, Noise};
use onkos::{Ragged, Real};

use crate::fixture::*;
use crate::harness::*;

fn seven() -> Memory {
    Memory::new([(true, 5), (false, 33), (true, 0), (true, 1), (false, 1), (true, 300), (true, 17)])
}

fn together<T: Real>(
    source: &Memory,
    config: &(impl Clone + Into<ModelConfig>),
    outputs: usize,
    noise: Option<Noise>,
) -> Vec<T> {
    let (model, params) = source.build::<T>(config, outputs);
    let all: Vec<usize> = (0..source.patients.len()).collect();
    predict(&model, &params, source, &all, noise).unwrap().host().to_vec()
}

fn alone<T: Real>(
    source: &Memory,
    config: &(impl Clone + Into<ModelConfig>),
    outputs: usize,
    noise: Option<Noise>,
) -> Vec<T> {
    let (model, params) = source.build::<T>(config, outputs);
    let one = |p| predict(&model, &params, source, &[p], noise).unwrap().host().to_vec();
    (0..source.patients.len()).flat_map(one).collect()
}

#[test]
fn a_batch_of_ragged_bags_equals_the_bags_one_by_one() {
    let mut source = seven();
    source.modality_dropout = 0.5;
    let both = [ModelConfig::from(everything()), everything_of_survpath().into()];
    for model in both.into_iter().chain(of_one_modality()) {
        for (noise, outputs) in [(None, 1), (None, 3), (Some(NOISE), 1), (Some(NOISE), 3)] {
            let oracle: Vec<f64> = alone(&source, &model, outputs, noise);
            let plain: Vec<f32> = alone(&source, &model, outputs, noise);
            let got: Vec<f32> = together(&source, &model, outputs, noise);
            let what = format!("{}, {noise:?}, {outputs} outputs", model.name());
            assert_as_good_as_plain(&what, &got, &plain, &oracle);
        }
    }
}

#[test]
fn training_differs_from_evaluation_and_one_epoch_from_the_next() {
    let source = seven();
    let of = |noise| together::<f64>(&source, &everything(), 1, noise);
    let next = Noise { epoch: NOISE.epoch + 1, ..NOISE };
    assert_eq!(of(Some(NOISE)), of(Some(NOISE)));
    assert_ne!(of(Some(NOISE)), of(Some(next)));
    assert_ne!(of(Some(NOISE)), of(None));
}

#[test]
fn the_order_of_a_batch_permutes_its_predictions() {
    let source = seven();
    // Also where patients are mixed: who takes from whom depends on who is there, not on the order.
    for config in [ModelConfig::from(everything()), mixed_mcat()].into_iter().chain(mixed()) {
        let (model, params) = source.build::<f64>(&config, 1);
        let of = |patients: &[usize]| predict(&model, &params, &source, patients, Some(NOISE)).unwrap().host().to_vec();
        let (forward, backward) = (of(&[0, 1, 2, 3, 4, 5, 6]), of(&[6, 5, 4, 3, 2, 1, 0]));
        let single: Vec<f32> = together(&source, &config, 1, Some(NOISE));
        // As close as f32 is to f64, by the ratio of their roundings.
        let error = single.iter().zip(&forward).fold(0f64, |m, (s, f)| m.max((f64::from(*s) - f).abs()));
        let reversed: Vec<f64> = backward.into_iter().rev().collect();
        let what = format!("{}, reversed", config.name());
        assert_within(&what, &reversed, &forward, 2.0 * error * f64::EPSILON / f64::from(f32::EPSILON));
    }
}

#[test]
fn a_patient_with_neither_modality_has_the_prediction_of_the_head_alone() {
    let source = Memory::new([(false, 0), (true, 4)]);
    let mut config = everything();
    config.head_hidden = 0;
    // Pooled vectors and flags are zero, and the log risk has no bias.
    assert_eq!(together::<f32>(&source, &config, 1, None)[0], 0.0);
    assert_eq!(alone::<f32>(&source, &config, 1, None)[0], 0.0);
}

#[test]
fn signatures_without_genes_and_of_one_gene_give_finite_risks_and_gradients() {
    for widths in [vec![0, 0], vec![1], vec![0, 1, 0]] {
        let source = Memory::sized([(true, 2), (true, 3), (false, 1), (true, 0)], &widths, FEATURES);
        let (model, params) = source.build::<f32>(&everything(), 1);
        let step = source.objective(Loss::Cox).step(&model, &params, &source, &[0, 1, 2, 3], NOISE).unwrap();
        assert!(step.loss.is_finite(), "{widths:?}");
        for (name, grad) in params.names().iter().zip(&step.grads) {
            let grad = grad.as_ref().unwrap_or_else(|| panic!("{widths:?}: {name}"));
            assert!(grad.host().iter().all(|g| g.is_finite()), "{widths:?}: {name}");
        }
    }
}

#[test]
fn mean_and_maximum_agree_for_a_patient_of_one_patch_alone() {
    // They have the same parameters, one as the other.
    let source = Memory::new([(false, 1), (false, 0), (false, 9)]);
    let of = |pool: &str| {
        let text = format!("name = \"abmil\"\npool = \"{pool}\"\nwidth = 4\n");
        let config: ModelConfig = toml::from_str(&text).unwrap();
        together::<f32>(&source, &config, 1, None)
    };
    let (mean, max) = (of("mean"), of("max"));
    assert_eq!(mean[..2], max[..2]);
    assert_ne!(mean[2], max[2]);
}

#[test]
fn inputs_of_another_width_are_refused_by_name() {
    let config = ModelConfig::Fusion(everything());
    let mut shape = seven().shape::<f32>();
    shape.genes = Some(Ragged::from_lengths([3, 1, 3]));
    let (model, params) = Model::build(&config, &shape, 1, Builder::new(1)).unwrap();
    let error = predict(&model, &params, &seven(), &[0], None).unwrap_err().to_string();
    assert!(error.starts_with("grouped_linear: "), "{error}");
}
