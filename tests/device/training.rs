//! Whole trainings: losses, bits, predictions, model files, and how often the device is waited for.

use onkos::config::{Loss, RiskSet, RunConfig, Select};
use onkos::data::{Cohort, Modality, Split};
use onkos::model::{FusionConfig, ModelConfig, Predictor, Recipe};
use onkos::optim::{AdamWConfig, OptimizerConfig};
use onkos::train::{Progress, Trained, train};
use onkos::{Device, Result};

use crate::gpu;
use crate::study::{BATCHING, Study, everybody, thirds};

/// The defaults but for their size: masks, gain, entanglement and dropout are on.
fn config(epochs: u32) -> RunConfig {
    let mut config = crate::study::config(epochs);
    config.model = ModelConfig::Fusion(FusionConfig {
        width: 8,
        gene_hidden: 4,
        attention_width: 8,
        patch_dropout: 0.1,
        ..FusionConfig::default()
    });
    // Adam divides a gradient by its own size: of one that is zero but for rounding it would make a whole step, in a
    // direction that says nothing. From this size on it does not.
    config.train.optimizer = OptimizerConfig::AdamW(AdamWConfig { eps: 1e-3, ..AdamWConfig::default() });
    config
}

fn on(device: Device, config: &RunConfig, cohort: &Cohort, split: &Split) -> Result<Trained> {
    let recipe = Recipe::fit(config, cohort, &split.train)?;
    train(config, device, cohort, split, recipe, |_| ())
}

/// Agreement of figures of a training to a few units in the last place: those of one step are as good as the CPU's (see
/// `step`), and a few steps of a smooth optimiser add little.
#[track_caller]
fn assert_close(what: &str, got: f64, want: f64) {
    let bound = 16.0 * f64::from(f32::EPSILON) * want.abs().max(1.0);
    assert!((got - want).abs() <= bound, "{what}: {got} on the device, {want} on the CPU");
}

#[track_caller]
fn assert_same_story(what: &str, got: &Trained, want: &Trained) {
    assert_eq!(got.history.len(), want.history.len(), "{what}");
    for (got, want) in got.history.iter().zip(&want.history) {
        let what = format!("{what}, epoch {}", want.epoch);
        assert_eq!((got.steps, got.batches_without_event), (want.steps, want.batches_without_event), "{what}");
        assert_close(&format!("{what}, loss"), got.loss, want.loss);
        assert_close(&format!("{what}, norm"), got.gradient_norm, want.gradient_norm);
        if let (Some(got), Some(want)) = (&got.validation, &want.validation) {
            assert_close(&format!("{what}, validation loss"), got.loss, want.loss);
        }
    }
}

/// The same bits: every figure of every epoch, and every parameter.
#[track_caller]
fn assert_same_bits(got: &Trained, want: &Trained) {
    let figures = |t: &Trained| -> Vec<[f64; 3]> {
        let validation = |v: Option<f64>| v.unwrap_or(0.0);
        let of = |e: &onkos::train::EpochRecord| {
            [e.loss, e.gradient_norm, validation(e.validation.as_ref().map(|v| v.loss))]
        };
        t.history.iter().map(of).collect()
    };
    assert_eq!(figures(got), figures(want));
    assert!(got.predictor.params == want.predictor.params, "other parameters");
}

#[test]
fn losses_are_those_of_the_cpu_to_rounding() {
    let Some((gpu, _one)) = gpu() else { return };
    let study = Study::new(18);
    let (cohort, split) = (study.north(), thirds(18));
    let both = &[Modality::Genes, Modality::Patches][..];
    for (loss, risk_set, modalities, hidden) in [
        (Loss::Cox, RiskSet::Batch, both, 0.0),
        (Loss::Cox, RiskSet::Cohort, both, 0.3),
        (Loss::Nll, RiskSet::Batch, both, 0.3),
        (Loss::Cox, RiskSet::Batch, &both[..1], 0.0),
        (Loss::Nll, RiskSet::Batch, &both[1..], 0.0),
    ] {
        let mut config = config(2);
        (config.train.loss, config.train.risk_set, config.train.bins) = (loss, risk_set, 3);
        (config.inputs.modalities, config.train.modality_dropout) = (modalities.to_vec(), hidden);
        let [here, there] =
            [Device::Cpu, Device::Cuda(gpu)].map(|device| on(device, &config, &cohort, &split).unwrap());
        assert_same_story(&format!("{loss:?} {risk_set:?} {modalities:?}"), &there, &here);
    }
}

#[test]
fn a_training_gives_the_same_bits_twice() {
    let Some((gpu, _one)) = gpu() else { return };
    let study = Study::new(18);
    let (cohort, split) = (study.north(), thirds(18));
    let mut config = config(2);
    config.train.select = Select::ValidationLoss;
    let [first, second] = [(); 2].map(|()| on(Device::Cuda(gpu), &config, &cohort, &split).unwrap());
    assert_same_bits(&second, &first);
}

#[test]
fn a_model_of_the_device_is_saved_and_predicts_on_the_cpu() {
    let Some((gpu, _one)) = gpu() else { return };
    let study = Study::new(18);
    let (cohort, south, split) = (study.north(), study.south(), everybody(18));
    let trained = on(Device::Cuda(gpu), &config(1), &cohort, &split).unwrap().predictor;
    assert_eq!(trained.params.device(), Device::Cuda(gpu));
    let files = [study.path("there"), study.path("here")];
    trained.save(&files[0]).unwrap();
    let loaded = Predictor::load(&files[0]).unwrap();
    assert_eq!(loaded.params.device(), Device::Cpu);
    assert!(loaded.params == trained.params);
    loaded.save(&files[1]).unwrap();
    assert_eq!(std::fs::read(&files[0]).unwrap(), std::fs::read(&files[1]).unwrap());
    for cohort in [&cohort, &south] {
        let (here, there) = (loaded.predict(cohort, BATCHING).unwrap(), trained.predict(cohort, BATCHING).unwrap());
        for (p, (got, want)) in there.risk.iter().zip(&here.risk).enumerate() {
            assert_close(&format!("{}, patient {p}", cohort.name), *got, *want);
        }
        let again = loaded.to(Device::Cuda(gpu)).unwrap().predict(cohort, BATCHING).unwrap();
        assert!(again.raw == there.raw, "the same model on the same device");
    }
}

#[test]
fn a_step_waits_for_the_device_once() {
    let Some((gpu, _one)) = gpu() else { return };
    let study = Study::new(24);
    let (cohort, split) = (study.north(), everybody(24));
    for risk_set in [RiskSet::Batch, RiskSet::Cohort] {
        let waits = |epochs: u32| {
            let mut config = config(epochs);
            config.train.risk_set = risk_set;
            let before = gpu.usage().waits;
            let steps = on(Device::Cuda(gpu), &config, &cohort, &split).unwrap().history[0].steps;
            (gpu.usage().waits - before, steps as u64)
        };
        let ((one, steps), (two, _)) = (waits(1), waits(2));
        // The norms of all gradients of an epoch are read together at its end.
        assert_eq!(two - one, steps + 1, "{risk_set:?}: {steps} steps an epoch");
    }
}

#[test]
fn a_training_leaves_nothing_but_its_model_on_the_device() {
    let Some((gpu, _one)) = gpu() else { return };
    let study = Study::new(12);
    let (cohort, split) = (study.north(), everybody(12));
    let before = gpu.usage().bytes;
    let trained = on(Device::Cuda(gpu), &config(1), &cohort, &split).unwrap();
    let params = 4 * trained.predictor.params.count() as u64;
    // Constants of the layers that went along: mean and deviation of each feature.
    let left = gpu.usage().bytes - before;
    assert!((params..=params + 2 * 4 * 32 + 4096).contains(&left), "{left} bytes, {params} of them parameters");
    drop(trained);
    assert_eq!(gpu.usage().bytes, before);
}

#[test]
fn where_a_training_runs_is_told_before_its_first_batch() {
    let Some((gpu, _one)) = gpu() else { return };
    let study = Study::new(12);
    let (cohort, split, config) = (study.north(), everybody(12), config(1));
    let recipe = Recipe::fit(&config, &cohort, &split.train).unwrap();
    let mut told: Vec<(Device, u64)> = Vec::new();
    let mut batches = 0;
    train(&config, Device::Cuda(gpu), &cohort, &split, recipe, |progress| match progress {
        Progress::Start { device, resident } => {
            assert_eq!(batches, 0);
            told.push((*device, *resident));
        }
        Progress::Batch { .. } => batches += 1,
        Progress::Epoch(_) => {}
    })
    .unwrap();
    let (rows, width) = cohort.slides.as_ref().unwrap().gather(&split.train).unwrap().0.matrix();
    assert_eq!(told, [(Device::Cuda(gpu), 2 * (rows * width) as u64)], "a small cohort stays there whole");
    assert!(batches > 0);
}
