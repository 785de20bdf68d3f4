//! The gradient of the whole model against finite differences in f64.
//!
//! Draws are counted, not consumed, so a training pass is a function of the parameters and can be differentiated as it
//! is: masks, donors and dropout stay the same from call to call. Two things stand outside the gradient on purpose and
//! are left out of the comparison where they act: the scale of a gain, which is a constant to the gradient although it
//! is made of patch tokens, and the statistics of a detached CADE.

use onkos::config::Loss;
use onkos::model::predict;
use onkos::model::{FusionConfig, McatConfig, ModelConfig, SdirConfig};
use onkos::nn::Params;
use onkos::ops::cade::Statistics;

use crate::fixture::*;

#[track_caller]
fn assert_gradient(
    what: &str,
    config: &(impl Clone + Into<ModelConfig>),
    loss: Loss,
    outputs: usize,
    compared: impl Fn(&str) -> bool,
) {
    assert_gradient_over(&Memory::four(), what, config, loss, outputs, compared);
}

/// The rule of the harness, for one objective of many parameters: Richardson's derivative with its own error estimate.
#[track_caller]
fn assert_gradient_over(
    source: &Memory,
    what: &str,
    config: &(impl Clone + Into<ModelConfig>),
    loss: Loss,
    outputs: usize,
    compared: impl Fn(&str) -> bool,
) {
    let (model, params) = source.build::<f64>(config, outputs);
    let objective = source.objective(loss);
    let all = [0, 1, 2, 3];
    let step = objective.step(&model, &params, source, &all, NOISE).unwrap();
    // The loss, and the size of what it is made of: the latter scales the rounding error.
    let value = |params: &Params<f64>| {
        let prediction = predict(&model, params, source, &all, Some(NOISE)).unwrap();
        let loss = objective.of_predictions(&all, &prediction).unwrap().0;
        (loss, prediction.host().iter().fold(loss.abs(), |size, x| size + x.abs()))
    };
    assert_eq!(value(&params).0, step.loss, "{what}: recorded or not, the loss is the same");
    let mut moved = params.clone();
    let mut moving = 0;
    for (n, name) in params.names().iter().enumerate().filter(|(_, name)| compared(name)) {
        let grad = step.grads[n].as_ref().unwrap_or_else(|| panic!("{what}: nothing depends on {name}"));
        for i in 0..grad.len() {
            let at = params.values()[n].host()[i];
            let h = 1e-4 * at.abs().max(1.0);
            let mut slope = |h: f64| {
                let mut side = |x: f64| {
                    moved.values_mut()[n].host_mut()[i] = x;
                    value(&moved)
                };
                let ((up, size), (down, _)) = (side(at + h), side(at - h));
                moved.values_mut()[n].host_mut()[i] = at;
                ((up - down) / (2.0 * h), 100.0 * f64::EPSILON * size / h)
            };
            let ((coarse, _), (fine, rounding)) = (slope(h), slope(h / 2.0));
            let want = fine + (fine - coarse) / 3.0;
            let bound = 10.0 * ((fine - coarse).abs() / 3.0 + rounding);
            let got = grad.host()[i];
            assert!((got - want).abs() <= bound, "{what}: {name}[{i}]: got {got}, want {want} +- {bound:e}");
            moving += usize::from(want.abs() > 100.0 * bound);
        }
    }
    assert!(moving > 0, "{what}: no element moves the loss visibly, so nothing was compared");
}

#[test]
fn gradient_of_every_parameter_matches_finite_differences_in_training() {
    for (loss, outputs) in [(Loss::Cox, 1), (Loss::Nll, 3)] {
        let mut config = everything_but_the_gain();
        assert_gradient(&format!("{loss:?}, gated"), &config, loss, outputs, |_| true);
        (config.gated, config.head_hidden, config.heads) = (false, 0, 1);
        assert_gradient(&format!("{loss:?}, plain"), &config, loss, outputs, |_| true);
    }
}

/// A host with all plugged in but the gain, for both losses, and with nothing.
#[track_caller]
fn assert_gradient_of_host(mut config: ModelConfig) {
    let (sdir, _) = config.plugins_mut().expect("a host of both modalities");
    sdir.genes = sdir.patches;
    for (loss, outputs) in [(Loss::Cox, 1), (Loss::Nll, 3)] {
        assert_gradient(&format!("{loss:?}, plugged in"), &config, loss, outputs, |_| true);
    }
    let (sdir, cade) = config.plugins_mut().expect("as above");
    (*sdir, *cade) = (SdirConfig::OFF, None);
    assert_gradient("plain", &config, Loss::Cox, 1, |_| true);
}

#[test]
fn gradient_of_survpath_matches_finite_differences_in_training() {
    assert_gradient_of_host(everything_of_survpath().into());
}

#[test]
fn gradient_of_mcat_matches_finite_differences_in_training() {
    assert_gradient_of_host(everything_of_mcat().into());
    assert_gradient_of_host(bilinear_mcat().into());
}

/// The plan of the transport ends when little changes, which finite differences see: only what lies behind it can be held against
/// them. What goes through it is held against them in the suite of the op, and a plan that is a constant against the published model.
#[test]
fn gradient_of_motcat_behind_its_plan_matches_finite_differences_in_training() {
    let config = motcat();
    for (loss, outputs) in [(Loss::Cox, 1), (Loss::Nll, 3)] {
        let behind = |name: &str| ["encoder", "pool", "last", "head"].iter().any(|part| name.contains(part));
        assert_gradient(&format!("{loss:?}"), &config, loss, outputs, behind);
    }
}

#[test]
fn gene_tokens_of_motcat_learn_through_the_plan_unless_it_is_a_constant() {
    let source = Memory::new([(true, 5), (true, 3), (true, 4), (true, 6)]);
    let gradient = |ot_gradient: bool| {
        let ModelConfig::Motcat(config) = motcat() else { unreachable!("as its name says") };
        let (model, params) = source.build::<f64>(&ModelConfig::Motcat(McatConfig { ot_gradient, ..config }), 1);
        let step = source.objective(Loss::Cox).step(&model, &params, &source, &[0, 1, 2, 3], NOISE).unwrap();
        let each = params.names().iter().zip(step.grads);
        each.map(|(name, grad)| (name.clone(), grad.unwrap())).collect::<Vec<_>>()
    };
    for ((name, through), (_, constant)) in gradient(true).into_iter().zip(gradient(false)) {
        let before = name.starts_with("genes.first") || name.starts_with("genes.second") || name.contains("project");
        assert_eq!(through != constant, before, "{name}");
    }
}

#[test]
fn gradients_of_models_of_one_modality_match_finite_differences_in_training() {
    for config in of_one_modality() {
        assert_gradient(&format!("{config:?}"), &config, Loss::Nll, 3, |_| true);
    }
}

#[test]
fn gradient_with_a_gain_matches_finite_differences_where_its_scale_is_constant() {
    let config = everything();
    // The scale is made of projected patches: every other parameter leaves it alone.
    assert_gradient("gain", &config, Loss::Cox, 1, |name| !name.starts_with("patches.project"));
}

#[test]
fn gradient_behind_a_detached_cade_matches_finite_differences() {
    let mut config = everything();
    config.cade.as_mut().unwrap().statistics = Statistics::Detached;
    assert_gradient("detached", &config, Loss::Cox, 1, |name| name.contains("pool") || name.starts_with("head"));
}

/// Four patients with patches, so that the statistics of every two can be mixed.
fn with_patches() -> Memory {
    Memory::new([(true, 5), (false, 3), (true, 4), (true, 6)])
}

#[test]
fn gradient_behind_mixstyle_matches_finite_differences() {
    // Statistics are constants to the gradient, so only what follows on them is compared.
    for config in mixed().into_iter().chain([mixed_mcat()]) {
        let behind = |name: &str| {
            ["pool", "qkv", "feed_forward", "layer", "position", "head"].iter().any(|part| name.contains(part))
                && !name.contains("project")
        };
        assert_gradient_over(&with_patches(), &format!("{config:?}"), &config, Loss::Nll, 3, behind);
    }
}

#[test]
fn mixstyle_changes_training_and_nothing_else() {
    let (source, all) = (with_patches(), [0, 1, 2, 3]);
    for config in mixed().into_iter().chain([mixed_mcat()]) {
        let mut plain = config.clone();
        *plain.mixstyle_mut().unwrap() = None;
        let of = |config: &ModelConfig, noise| {
            let (model, params) = source.build::<f64>(config, 1);
            predict(&model, &params, &source, &all, noise).unwrap().host().to_vec()
        };
        assert_ne!(of(&config, Some(NOISE)), of(&plain, Some(NOISE)), "{config:?}");
        assert_eq!(of(&config, None), of(&plain, None), "{config:?}");
    }
}

type Change = fn(&mut FusionConfig);

#[test]
fn every_mask_and_mixing_of_the_fixture_acts() {
    // Each setting, taken away, changes the loss: the comparisons above have something in them.
    let source = Memory::four();
    let loss = |config: &FusionConfig| {
        let (model, params) = source.build::<f64>(config, 1);
        source.objective(Loss::Cox).step(&model, &params, &source, &[0, 1, 2, 3], NOISE).unwrap().loss
    };
    let all = loss(&everything());
    let without: [(&str, Change); 7] = [
        ("gene dropout", |c| c.gene_dropout = 0.0),
        ("patch dropout", |c| c.patch_dropout = 0.0),
        ("head dropout", |c| c.head_dropout = 0.0),
        ("sdir on genes", |c| c.sdir.genes = None),
        ("sdir on patches", |c| c.sdir.patches = None),
        ("the gain", |c| c.sdir.genes = c.sdir.patches),
        ("cade", |c| c.cade = None),
    ];
    for (name, change) in without {
        let mut config = everything();
        change(&mut config);
        assert_ne!(loss(&config), all, "{name} does nothing");
    }
}
