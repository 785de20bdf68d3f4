//! The loop: it learns, chooses, stops and refuses.

use onkos::Error;
use onkos::config::{Loss, RiskSet, Sampling, Select};
use onkos::data::Cohort;
use onkos::evaluate::Figure;
use onkos::features::Features;
use onkos::metrics::{Outcome, harrell};
use onkos::model::{Attended, ModelConfig, SurvPathConfig};
use onkos::optim::{AdamWConfig, OptimizerConfig, RAdamConfig};
use onkos::train::{EpochRecord, Trained};
use safetensors::Dtype;
use safetensors::tensor::{TensorView, serialize};

use crate::study::*;

fn concordance(trained: &Trained, cohort: &Cohort, patients: &[usize]) -> f64 {
    let risk = trained.predictor.predict(cohort, BATCHING).unwrap().risk;
    let risk: Vec<f64> = patients.iter().map(|&p| risk[p]).collect();
    let time: Vec<f64> = patients.iter().map(|&p| cohort.patients[p].time).collect();
    let event: Vec<bool> = patients.iter().map(|&p| cohort.patients[p].event).collect();
    harrell(Outcome::new(&time, &event).unwrap(), &risk).unwrap().index().unwrap()
}

#[test]
fn every_loss_and_optimiser_learns_a_small_cohort_by_heart() {
    let study = Study::new(24);
    let (cohort, split) = (study.north(), everybody(24));
    // The published rectification holds back for hundreds of steps; this one for a dozen.
    let radam = OptimizerConfig::RAdam(RAdamConfig { beta2: 0.95, ..RAdamConfig::default() });
    let adamw = OptimizerConfig::AdamW(AdamWConfig::default());
    for (loss, risk_set, optimizer, clip) in [
        (Loss::Cox, RiskSet::Batch, adamw, 1.0),
        (Loss::Cox, RiskSet::Cohort, adamw, 0.0),
        (Loss::Cox, RiskSet::Batch, radam, 0.0),
        (Loss::Nll, RiskSet::Batch, adamw, 0.0),
        (Loss::Nll, RiskSet::Batch, radam, 1.0),
    ] {
        let mut config = config(60);
        let train = &mut config.train;
        (train.loss, train.risk_set, train.optimizer, train.clip_norm) = (loss, risk_set, optimizer, clip);
        (train.bins, train.learning_rate) = (3, 2e-2);
        let trained = super::study::train(&config, &cohort, &split).unwrap();
        let what = format!("{loss:?} {risk_set:?} {optimizer:?}");
        let (first, last) = (&trained.history[0], trained.history.last().unwrap());
        assert!(last.loss < 0.7 * first.loss, "{what}: {} to {}", first.loss, last.loss);
        assert_eq!((trained.kept_epoch, trained.history.len()), (60, 60));
        let steps = if risk_set == RiskSet::Cohort { 1 } else { 3 };
        assert!(trained.history.iter().all(|e| e.steps == steps && e.batches_without_event == 0), "{what}");
        let c = concordance(&trained, &cohort, &split.train);
        assert!(c > 0.9, "{what}: {c}");
    }
}

#[test]
fn a_rare_event_is_in_every_batch_of_a_balanced_epoch() {
    let study = Study::new(24);
    let mut cohort = study.north();
    let earliest = (0..24).min_by(|&a, &b| cohort.patients[a].time.total_cmp(&cohort.patients[b].time)).unwrap();
    cohort.patients.iter_mut().enumerate().for_each(|(p, patient)| patient.event = p == earliest);
    let mut config = config(3);
    config.train.sampling = Sampling::EventBalanced;
    let trained = super::study::train(&config, &cohort, &everybody(24)).unwrap();
    assert!(trained.history.iter().all(|epoch| (epoch.steps, epoch.batches_without_event) == (3, 0)));
}

/// Gives the source of a study the bags of `cohort`, each with zeros behind up to `length` rows.
fn write_with_zeros(study: &Study, cohort: &Cohort, length: usize) {
    let bags = cohort.slides.as_ref().unwrap();
    let mut bytes = Vec::new();
    for p in 0..cohort.len() {
        let Features::F16(rows) = bags.gather(&[p]).unwrap().0 else { panic!("the study is in F16") };
        bytes.extend(rows.host().iter().flat_map(|x| x.to_le_bytes()));
        bytes.resize((p + 1) * length * bags.width() * 2, 0);
    }
    let offsets: Vec<u8> = (0..=cohort.len()).flat_map(|p| ((p * length) as i64).to_le_bytes()).collect();
    let tensors = [
        ("features", TensorView::new(Dtype::F16, vec![cohort.len() * length, bags.width()], &bytes).unwrap()),
        ("offsets", TensorView::new(Dtype::I64, vec![cohort.len() + 1], &offsets).unwrap()),
    ];
    let file = study.folder.path().join("north/bags.safetensors");
    std::fs::write(file, serialize(tensors, None).unwrap()).unwrap();
}

/// What is trained with rows of zeros is what is trained on a cohort whose files have them.
#[test]
fn padding_is_training_on_bags_with_rows_of_zeros() {
    let study = Study::new(12);
    let (cohort, mut config) = (study.north(), config(3));
    let longest = cohort.slides.as_ref().unwrap().ragged().longest();
    let survpath = SurvPathConfig { width: 8, attention_width: 8, head_hidden: 4, ..SurvPathConfig::default() };
    config.model = ModelConfig::SurvPath(survpath);
    config.inputs.standardize_patches = false;
    let plain = super::study::train(&config, &cohort, &everybody(12)).unwrap();
    let other = Study::new(12);
    write_with_zeros(&other, &cohort, longest + 2);
    let zeros = other.north();
    let want = super::study::train(&config, &zeros, &everybody(12)).unwrap();
    config.train.pad_to = longest + 2;
    let padded = super::study::train(&config, &cohort, &everybody(12)).unwrap();
    let losses = |trained: &Trained| trained.history.iter().map(|epoch| epoch.loss).collect::<Vec<_>>();
    assert_eq!(losses(&padded), losses(&want));
    assert!(padded.predictor.params == want.predictor.params && padded.predictor.params != plain.predictor.params);
    // The same model sees no zeros when it predicts: neither in a risk nor in a weight.
    let risk = |of: &Cohort| padded.predictor.predict(of, BATCHING).unwrap().risk;
    assert_ne!(risk(&cohort), risk(&zeros));
    let bags = cohort.slides.as_ref().unwrap().ragged();
    let each = |attended: Attended| {
        assert_eq!(attended.weights.len(), bags.bag(attended.patient).len());
        Ok(())
    };
    padded.predictor.attend(&cohort, &[0, 5, 11], BATCHING, each).unwrap();
}

/// Batches by patches count what is shown, so that they hold more patients.
#[test]
fn fewer_patches_of_a_patient_make_fewer_batches_with_either_risk_set() {
    let study = Study::new(24);
    let (cohort, mut config) = (study.north(), config(3));
    let shortest = cohort.slides.as_ref().unwrap().ragged().iter().map(|bag| bag.len()).min().unwrap();
    config.train.patches_per_batch = 12 * shortest;
    (config.train.batch, config.train.patches_per_patient) = (24, shortest);
    let sampled = super::study::train(&config, &cohort, &everybody(24)).unwrap();
    assert!(sampled.history.iter().all(|epoch| epoch.steps == 2), "{:?}", sampled.history);
    config.train.patches_per_patient = 0;
    let all = super::study::train(&config, &cohort, &everybody(24)).unwrap();
    assert!(all.history[0].steps > 2 && all.history[0].loss != sampled.history[0].loss);

    // With the risk set of a cohort batches do not matter but for rounding: the patches are those of the epoch, in the
    // pass that predicts and in the one that is recorded.
    config.train.risk_set = RiskSet::Cohort;
    config.train.patches_per_patient = shortest;
    let loss = |patches_per_batch| {
        let mut config = config.clone();
        config.train.patches_per_batch = patches_per_batch;
        super::study::train(&config, &cohort, &everybody(24)).unwrap().history[2].loss
    };
    let (few, many) = (loss(usize::MAX), loss(2 * shortest));
    // Three steps of f32, in which each sum is rounded otherwise: its unit, some hundred times over.
    assert!((few - many).abs() < 1e3 * f64::from(f32::EPSILON) * few.abs(), "{few} and {many}");
}

#[test]
fn an_epoch_tells_how_long_it_waited_for_features() {
    let study = Study::new(24);
    let trained = super::study::train(&config(2), &study.north(), &everybody(24)).unwrap();
    let told = |epoch: &EpochRecord| 0.0 < epoch.waiting_seconds && epoch.waiting_seconds < epoch.seconds;
    assert!(trained.history.iter().all(told), "{:?}", trained.history);
}

#[test]
fn the_kept_parameters_are_those_of_the_epoch_that_validation_chose() {
    let study = Study::new(45);
    let (cohort, split) = (study.north(), thirds(45));
    for select in [Select::ValidationLoss, Select::ValidationConcordance, Select::Last] {
        let mut config = config(12);
        (config.train.select, config.train.learning_rate) = (select, 2e-2);
        let trained = super::study::train(&config, &cohort, &split).unwrap();
        let figures: Vec<(f64, f64)> = trained
            .history
            .iter()
            .map(|e| e.validation.as_ref().unwrap())
            .map(|v| (v.loss, *v.concordance.value().unwrap()))
            .collect();
        let best = match select {
            Select::ValidationLoss => (0..12).min_by(|&a, &b| figures[a].0.total_cmp(&figures[b].0)),
            // Of equals the first.
            Select::ValidationConcordance => (0..12).rev().max_by(|&a, &b| figures[a].1.total_cmp(&figures[b].1)),
            Select::Last => Some(11),
        };
        let best = best.unwrap();
        assert_eq!(trained.kept_epoch as usize, best + 1, "{select:?}: {figures:?}");
        assert_eq!(concordance(&trained, &cohort, &split.validation), figures[best].1, "{select:?}");
    }
}

#[test]
fn patience_ends_a_training_that_no_longer_gets_better() {
    let study = Study::new(30);
    let mut config = config(60);
    (config.train.select, config.train.patience, config.train.learning_rate) = (Select::ValidationLoss, 4, 2e-2);
    let trained = super::study::train(&config, &study.north(), &thirds(30)).unwrap();
    let epochs = trained.history.len();
    assert!(epochs < 60);
    assert_eq!(epochs, trained.kept_epoch as usize + 4);
    config.train.patience = 0;
    config.train.epochs = epochs as u32 + 1;
    let patient = super::study::train(&config, &study.north(), &thirds(30)).unwrap();
    assert_eq!(patient.history.len(), epochs + 1);
}

#[test]
fn batches_that_compare_nobody_are_counted_and_take_no_step() {
    let study = Study::new(24);
    let mut cohort = study.north();
    let earliest = (0..24).min_by(|&a, &b| cohort.patients[a].time.total_cmp(&cohort.patients[b].time)).unwrap();
    cohort.patients.iter_mut().enumerate().for_each(|(p, patient)| patient.event = p == earliest);
    let trained = super::study::train(&config(2), &cohort, &everybody(24)).unwrap();
    for epoch in &trained.history {
        assert_eq!((epoch.steps, epoch.batches_without_event), (1, 2));
        assert!(epoch.loss > 0.0);
    }
}

#[test]
fn batches_of_one_patient_teach_hazards_and_are_refused_by_the_cox_loss() {
    let study = Study::new(12);
    let (cohort, split) = (study.north(), everybody(12));
    let mut config = config(2);
    config.train.batch = 1;
    let error = super::study::train(&config, &cohort, &split).unwrap_err();
    assert_eq!(
        error.to_string(),
        "train.batch (with train.patches_per_batch) must be large enough that a patient of a batch outlives the event of \
         another, but is 1 (262144)"
    );
    config.train.risk_set = RiskSet::Cohort;
    assert_eq!(super::study::train(&config, &cohort, &split).unwrap().history[0].steps, 1);
    (config.train.risk_set, config.train.loss, config.train.bins) = (RiskSet::Batch, Loss::Nll, 2);
    assert_eq!(super::study::train(&config, &cohort, &split).unwrap().history[0].steps, 12);
}

#[test]
fn validation_patients_that_cannot_choose_are_refused_before_anything_is_trained() {
    let study = Study::new(24);
    let (mut cohort, split) = (study.north(), thirds(24));
    for &p in &split.validation {
        cohort.patients[p].event = false;
    }
    for select in [Select::ValidationLoss, Select::ValidationConcordance] {
        let mut config = config(2);
        config.train.select = select;
        let recipe = onkos::model::Recipe::fit(&config, &cohort, &split.train).unwrap();
        let mut seen = 0;
        let error = onkos::train::train(&config, onkos::Device::Cpu, &cohort, &split, recipe, |_| seen += 1);
        let error = error.unwrap_err().to_string();
        assert!(error.starts_with("train.validation must be large enough that a validation patient"), "{error}");
        assert_eq!(seen, 0, "{select:?}");
    }
    let trained = super::study::train(&config(2), &cohort, &split).unwrap();
    let validation = trained.history[1].validation.as_ref().unwrap();
    assert!(matches!(validation.concordance, Figure::Undefined { .. }));
}

#[test]
fn training_patients_without_an_event_are_refused() {
    let study = Study::new(12);
    let mut cohort = study.north();
    cohort.patients.iter_mut().for_each(|p| p.event = false);
    assert!(matches!(super::study::train(&config(1), &cohort, &everybody(12)), Err(Error::Setting { .. })));
}

#[test]
fn a_training_that_diverges_says_so_and_what_to_change() {
    let study = Study::new(24);
    let (cohort, split) = (study.north(), everybody(24));
    for (loss, clip) in [(Loss::Cox, 1.0), (Loss::Cox, 0.0), (Loss::Nll, 1.0), (Loss::Nll, 0.0)] {
        for risk_set in [RiskSet::Batch, RiskSet::Cohort] {
            if loss == Loss::Nll && risk_set == RiskSet::Cohort {
                continue;
            }
            let mut config = config(60);
            let train = &mut config.train;
            (train.loss, train.clip_norm, train.learning_rate, train.bins) = (loss, clip, 1e6, 3);
            train.risk_set = risk_set;
            let error = super::study::train(&config, &cohort, &split).unwrap_err();
            assert!(matches!(error, Error::Diverged { .. }), "{loss:?} {clip}: {error}");
            let text = error.to_string();
            assert!(text.contains("diverged") && text.contains("train.learning_rate"), "{text}");
        }
    }
}

#[test]
fn a_training_whose_last_step_diverges_is_refused_too() {
    let study = Study::new(24);
    let mut config = config(1);
    // One step of this size leaves f32 in the products of the layers, and no later step would see it.
    (config.train.batch, config.train.learning_rate) = (24, 1e37);
    for loss in [Loss::Cox, Loss::Nll] {
        (config.train.loss, config.train.bins) = (loss, 3);
        let error = super::study::train(&config, &study.north(), &everybody(24)).unwrap_err();
        assert!(matches!(error, Error::Diverged { .. }), "{loss:?}: {error}");
    }
}

#[test]
fn two_trainings_with_one_seed_are_equal_and_with_another_differ() {
    let study = Study::new(18);
    let mut config = config(2);
    config.model = ModelConfig::Fusion(crate::fixture::everything());
    let params = |config: &_| super::study::train(config, &study.north(), &everybody(18)).unwrap().predictor.params;
    let first = params(&config);
    assert_eq!(first, params(&config));
    config.seed += 1;
    assert_ne!(first, params(&config));
}
