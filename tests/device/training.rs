//! Whole trainings: losses, bits, predictions, model files, and how often the device is waited for.

use onkos::config::{Loss, RiskSet, RunConfig, Select};
use onkos::data::{Cohort, Modality, Split};
use onkos::model::{Attended, FusionConfig, McatConfig, ModelConfig, Predictor, Recipe, SurvPathConfig};
use onkos::train::{Progress, Trained, train};
use onkos::{Device, Result};

use crate::gpu;
use crate::harness::{assert_as_good_as_plain, assert_sums_as_good_as_plain, assert_within};
use crate::story;
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
    config
}

pub fn on(device: Device, config: &RunConfig, cohort: &Cohort, split: &Split) -> Result<Trained> {
    let recipe = Recipe::fit(config, cohort, &split.train)?;
    train(config, device, cohort, split, recipe, |_| ())
}

/// The same bits: every figure of every epoch, and every parameter.
#[track_caller]
pub fn assert_same_bits(got: &Trained, want: &Trained) {
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
fn losses_are_as_near_to_those_in_f64_as_the_losses_of_the_cpu_are() {
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
        if let (Loss::Cox, ModelConfig::Fusion(model)) = (loss, &mut config.model)
            && hidden == 0.0
        {
            // Everybody has everything: the flags that say so are owed nothing but rounding, where no dropout hides one. Of
            // that Adam makes a whole step, which shows as soon as one is hidden.
            model.head_dropout = 0.0;
        }
        let [here, there] =
            [Device::Cpu, Device::Cuda(gpu)].map(|device| on(device, &config, &cohort, &split).unwrap());
        let what = format!("{loss:?} {risk_set:?} {modalities:?}");
        let bits = |t: &Trained| t.history.iter().map(story::figures).collect::<Vec<_>>();
        assert_eq!(
            bits(&here),
            story::follow::<f32>(&config, &cohort, &split, 0).0,
            "{what}: the CPU tells that story"
        );
        for (there, here) in there.history.iter().zip(&here.history) {
            let counts = |epoch: &onkos::train::EpochRecord| (epoch.steps, epoch.batches_without_event);
            assert_eq!(counts(there), counts(here), "{what}");
        }
        story::assert_same_story(&what, &there.history, &config, &cohort, &split);
    }
}

/// The quickstart, with fewer patients and epochs: trained on the device it has risks for the patients of both cohorts that
/// are as near to those of a training in f64 as the risks of the CPU.
#[test]
fn the_quickstart_gives_the_risks_of_the_cpu() {
    let Some((gpu, _one)) = gpu() else { return };
    let study = Study::new(24);
    let (cohorts, split) = ([study.north(), study.south()], thirds(24));
    let mut config = RunConfig { seed: 0, ..RunConfig::default() };
    (config.train.epochs, config.train.select) = (2, Select::Last);
    config.train.schedule = onkos::optim::ScheduleConfig { decay: onkos::optim::Decay::Constant, warmup_epochs: 0.0 };
    let there = on(Device::Cuda(gpu), &config, &cohorts[0], &split).unwrap().predictor;
    let recipe = &there.recipe;
    let (_, oracle) = story::follow::<f64>(&config, &cohorts[0], &split, 0);
    let sibling = |sibling| story::follow::<f32>(&config, &cohorts[0], &split, sibling).1;
    let siblings: Vec<_> = (0..story::SIBLINGS).map(sibling).collect();
    for cohort in &cohorts {
        let risks = there.predict(cohort, BATCHING).unwrap().raw;
        let want: Vec<f64> = story::predicted(recipe, &oracle, cohort, BATCHING);
        let off = |got: &[f32]| got.iter().zip(&want).map(|(g, w)| (f64::from(*g) - w).abs()).fold(0.0, f64::max);
        let spread = want.iter().fold(f64::MIN, |m, x| m.max(*x)) - want.iter().fold(f64::MAX, |m, x| m.min(*x));
        let plain = siblings.iter().map(|params| off(&story::predicted(recipe, params, cohort, BATCHING)));
        let bound = 2.0 * plain.fold(0.0, f64::max);
        println!("{}: off by {:.1e} of {bound:.1e}, risks over {spread:.2}", cohort.name, off(risks.host()));
        assert!(bound <= 1e-2 * spread, "a bound of {bound} beside risks over {spread} compares nothing");
        assert!(off(risks.host()) <= bound, "{}: off by {}, allowed {bound}", cohort.name, off(risks.host()));
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
        let oracle = story::predicted::<f64, f32>(&loaded.recipe, &loaded.params, cohort, BATCHING);
        assert_as_good_as_plain(&cohort.name, there.raw.host(), here.raw.host(), &oracle);
        let again = loaded.to(Device::Cuda(gpu)).unwrap().predict(cohort, BATCHING).unwrap();
        assert!(again.raw == there.raw, "the same model on the same device");
    }
}

/// Of models whose gene tokens say where to look, and on the device by kernels of its own.
#[test]
fn weights_of_patches_are_those_of_the_cpu() {
    let Some((gpu, _one)) = gpu() else { return };
    let study = Study::new(18);
    let (cohort, split) = (study.north(), everybody(18));
    let survpath =
        SurvPathConfig { width: 16, attention_width: 8, heads: 2, head_hidden: 4, ..SurvPathConfig::default() };
    let mcat = McatConfig { width: 16, encoder_heads: 2, encoder_hidden: 8, ..McatConfig::default() };
    for model in [ModelConfig::SurvPath(survpath), ModelConfig::Mcat(mcat.clone()), ModelConfig::Motcat(mcat)] {
        let mut config = config(1);
        config.model = model;
        let trained = on(Device::Cuda(gpu), &config, &cohort, &split).unwrap().predictor;
        let mut there = Vec::new();
        let all: Vec<usize> = (0..18).collect();
        let each = |attended: Attended| {
            there.extend(attended.weights);
            Ok(())
        };
        trained.attend(&cohort, &all, BATCHING, each).unwrap();
        let here = story::weights::<f32, f32>(&trained.recipe, &trained.params, &cohort);
        let oracle = story::weights::<f64, f32>(&trained.recipe, &trained.params, &cohort);
        if trained.recipe.model.name() == "motcat" {
            // On the CPU the plan is in f64 whatever the tokens are: what its own suite allows on a device.
            let largest = oracle.iter().fold(0f64, |m, x| m.max(*x));
            assert_within("motcat", &there, &oracle, 2e-5 * largest);
        } else {
            // Each is a part of a sum over all patches of its patient.
            let terms = cohort.slides.as_ref().unwrap().ragged().longest();
            assert_sums_as_good_as_plain(trained.recipe.model.name(), &there, &here, &oracle, terms);
        }
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
