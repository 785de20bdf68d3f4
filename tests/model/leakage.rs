//! What is fitted is fitted on the training patients.

use onkos::config::Loss;
use onkos::data::{Cohort, Scaling};
use onkos::model::Recipe;
use onkos::{Features, Result};
use safetensors::SafeTensors;
use safetensors::tensor::serialize;

use crate::study::*;

/// Other expression, times, events and patches for the patients that are not trained on.
fn change_others(study: &Study, train: &[usize]) -> Cohort {
    let file = study.folder.path().join("north").join("bags.safetensors");
    let bytes = std::fs::read(&file).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let before = study.north();
    let bags = before.slides.as_ref().unwrap();
    let mut features = tensors.tensor("features").unwrap().data().to_vec();
    for p in (0..before.len()).filter(|p| !train.contains(p)) {
        let rows = bags.ragged().bag(p);
        // Flips signs and lowest bits: other numbers, all finite.
        let start = 2 * bags.width() * rows.start;
        for half in features[start..2 * bags.width() * rows.end].chunks_exact_mut(2) {
            (half[0], half[1]) = (half[0] ^ 1, half[1] ^ 0x80);
        }
    }
    let view = |name: &str| tensors.tensor(name).unwrap();
    let shape = view("features").shape().to_vec();
    let changed = safetensors::tensor::TensorView::new(view("features").dtype(), shape, &features).unwrap();
    let parts = [("features", changed), ("coords", view("coords")), ("offsets", view("offsets"))];
    std::fs::write(&file, serialize(parts, None).unwrap()).unwrap();

    let mut cohort = study.north();
    let rna = cohort.rna.as_mut().unwrap();
    let genes = rna.genes.len();
    for p in (0..cohort.patients.len()).filter(|p| !train.contains(p)) {
        rna.values.host_mut()[p * genes..(p + 1) * genes].iter_mut().for_each(|x| *x = 5.0 - 3.0 * *x);
        cohort.patients[p].time = 1000.0 - cohort.patients[p].time;
        cohort.patients[p].event = !cohort.patients[p].event;
    }
    cohort
}

#[test]
fn recipe_and_model_depend_on_training_patients_alone() -> Result<()> {
    for (loss, scaling) in [(Loss::Cox, Scaling::Zscore), (Loss::Nll, Scaling::MinmaxGlobal)] {
        let study = Study::new(30);
        let split = thirds(30);
        let mut config = config(3);
        (config.train.loss, config.train.bins, config.inputs.rna_scaling) = (loss, 3, scaling);
        let before = study.north();
        let was = (Recipe::fit(&config, &before, &split.train)?, train(&config, &before, &split)?.predictor);
        drop(before);
        let after = change_others(&study, &split.train);
        let is = (Recipe::fit(&config, &after, &split.train)?, train(&config, &after, &split)?.predictor);
        assert_eq!(was.0, is.0, "{loss:?}: as fitted");
        // With the median risk and the baseline hazard.
        assert_eq!(was.1.recipe, is.1.recipe, "{loss:?}: as trained");
        assert_eq!(was.1.params, is.1.params, "{loss:?}");
        // The change was one: a recipe of everybody sees it.
        let everybody: Vec<usize> = (0..30).collect();
        let all = Recipe::fit(&config, &after, &everybody)?;
        assert_ne!(all.genes, is.0.genes);
        assert_ne!(all.patches, is.0.patches);
    }
    Ok(())
}

#[test]
fn patches_are_standardised_by_the_mean_and_deviation_of_the_training_patches() {
    let study = Study::new(12);
    let cohort = study.north();
    let split = thirds(12);
    let recipe = Recipe::fit(&config(1), &cohort, &split.train).unwrap();
    let (mean, deviation) = recipe.patches.unwrap().standard.unwrap();
    let bags = cohort.slides.as_ref().unwrap();
    let (Features::F16(features), ragged) = bags.gather(&split.train).unwrap() else {
        panic!("the study has f16 features")
    };
    for l in 0..bags.width() {
        let values: Vec<f64> = (0..ragged.rows()).map(|r| f64::from(features.host()[r * bags.width() + l])).collect();
        let n = values.len() as f64;
        let m = values.iter().sum::<f64>() / n;
        let s = (values.iter().map(|x| (x - m).powi(2)).sum::<f64>() / n).sqrt();
        // Both are f64 rounded to f32 at the end: within one unit of it.
        let near = |got: f32, want: f64, size: f64| (f64::from(got) - want).abs() <= f64::from(f32::EPSILON) * size;
        assert!(near(mean[l], m, m.abs() + s * 1e-3), "mean of {l}: {} and {m}", mean[l]);
        assert!(near(deviation[l], s, s), "deviation of {l}: {} and {s}", deviation[l]);
    }
}

#[test]
fn a_target_cohort_changes_nothing_of_the_recipe() {
    // Predicting is a function of recipe and parameters: a cohort of two is predicted as the same two among many.
    let study = Study::new(15);
    let trained = train(&config(1), &study.north(), &everybody(15)).unwrap();
    let south = study.south();
    let all = trained.predictor.predict(&south, BATCHING).unwrap();
    let mut stretched = study.south();
    let rna = stretched.rna.as_mut().unwrap();
    let genes = rna.genes.len();
    rna.values.host_mut()[genes..].iter_mut().for_each(|x| *x *= 3.0);
    let some = trained.predictor.predict(&stretched, BATCHING).unwrap();
    assert_eq!(all.risk[0], some.risk[0], "the first patient has the same data in both");
    assert_ne!(all.risk[1..], some.risk[1..]);
}
