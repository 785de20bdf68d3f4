//! Patients and cohorts that lack a modality, and modalities that are hidden.

use onkos::Error;
use onkos::data::Modality;
use onkos::model::{Attended, CohortSource, McatConfig, ModelConfig, Recipe, Source, SurvPathConfig};
use onkos::nn::Noise;

use crate::study::*;

#[test]
fn targets_without_slides_or_without_expression_are_predicted() {
    let study = Study::new(18);
    let trained = train(&config(2), &study.north(), &everybody(18)).unwrap();
    let whole = trained.predictor.predict(&study.south(), BATCHING).unwrap();
    let (mut genes_only, mut patches_only) = (study.south(), study.south());
    genes_only.slides = None;
    patches_only.rna = None;
    for cohort in [&genes_only, &patches_only] {
        let risk = trained.predictor.predict(cohort, BATCHING).unwrap().risk;
        assert!(risk.iter().all(|r| r.is_finite()));
        assert_ne!(risk, whole.risk);
    }
    let mut neither = study.south();
    (neither.slides, neither.rna) = (None, None);
    assert!(matches!(trained.predictor.predict(&neither, BATCHING), Err(Error::NoInputs { .. })));
}

#[test]
fn a_patient_without_expression_is_predicted_as_in_a_cohort_without_any() {
    let study = Study::new(18);
    let trained = train(&config(2), &study.north(), &everybody(18)).unwrap();
    let (mut some, mut none) = (study.south(), study.south());
    none.rna = None;
    let lacking = [0, 7, 8, 17];
    for p in lacking {
        some.rna.as_mut().unwrap().present[p] = false;
    }
    let (some, none) = (
        trained.predictor.predict(&some, BATCHING).unwrap().risk,
        trained.predictor.predict(&none, BATCHING).unwrap().risk,
    );
    for p in 0..18 {
        assert_eq!(some[p] == none[p], lacking.contains(&p), "patient {p}");
    }
}

#[test]
fn without_gene_tokens_nothing_says_where_to_look() {
    let study = Study::new(18);
    let mcat = McatConfig { width: 8, encoder_heads: 2, encoder_hidden: 8, ..McatConfig::default() };
    let survpath = SurvPathConfig { width: 8, attention_width: 8, head_hidden: 4, ..SurvPathConfig::default() };
    for model in [ModelConfig::SurvPath(survpath), ModelConfig::Mcat(mcat.clone()), ModelConfig::Motcat(mcat)] {
        let name = model.name();
        let mut config = config(1);
        config.model = model;
        let trained = train(&config, &study.north(), &everybody(18)).unwrap();
        let mut south = study.south();
        south.rna.as_mut().unwrap().present[7] = false;
        let mut seen = 0;
        let each = |attended: Attended| {
            let sum: f64 = attended.weights.iter().map(|&w| f64::from(w)).sum();
            match (attended.patient, name) {
                (7, _) => assert_eq!(sum, 0.0, "{name}"),
                (p, "survpath") => assert!(0.0 < sum && sum < 1.0, "patient {p}: {sum}"),
                (p, _) => assert!((sum - 1.0).abs() < 1e-5, "{name}, patient {p}: {sum}"),
            }
            seen += 1;
            Ok(())
        };
        let all: Vec<usize> = (0..18).collect();
        trained.predictor.attend(&south, &all, BATCHING, each).unwrap();
        assert_eq!(seen, 18);
    }
}

#[test]
fn patients_who_lack_expression_are_trained_on() {
    let study = Study::new(18);
    let mut cohort = study.north();
    for p in 0..9 {
        cohort.rna.as_mut().unwrap().present[p] = false;
    }
    let mut config = config(3);
    config.train.modality_dropout = 0.5;
    let trained = train(&config, &cohort, &everybody(18)).unwrap();
    assert!(trained.history.iter().all(|e| e.loss.is_finite()));
}

#[test]
fn modalities_that_only_a_target_has_are_refused_unless_the_run_file_named_its_own() {
    let study = Study::new(12);
    let mut north = study.north();
    north.slides = None;
    let mut config = config(1);
    let trained = train(&config, &north, &everybody(12)).unwrap();
    let error = trained.predictor.predict(&study.south(), BATCHING).unwrap_err();
    assert!(matches!(error, Error::UnseenModality { modality: Modality::Patches, .. }), "{error}");
    config.inputs.modalities = vec![Modality::Genes];
    let trained = train(&config, &study.north(), &everybody(12)).unwrap();
    assert_eq!(trained.predictor.predict(&study.south(), BATCHING).unwrap().risk.len(), 12);
    config.inputs.modalities = vec![Modality::Patches];
    assert!(matches!(Recipe::fit(&config, &north, &[0]), Err(Error::NoModality { .. })));
}

#[test]
fn modality_dropout_hides_one_of_two_at_its_rate_and_the_same_on_every_pass_of_an_epoch() {
    let study = Study::new(20);
    let mut cohort = study.north();
    let lacking = [3, 11];
    for p in lacking {
        cohort.rna.as_mut().unwrap().present[p] = false;
    }
    let recipe = Recipe::fit(&config(1), &cohort, &(0..20).collect::<Vec<_>>()).unwrap();
    let rate = 0.3;
    let source = CohortSource::new(&recipe, &cohort).unwrap().hiding(rate);
    let shown = |patients: &[usize], noise| -> Vec<(bool, bool)> {
        let batch = source.batch(patients, noise).unwrap();
        let (genes, patches) = (batch.genes.unwrap(), batch.patches.unwrap());
        assert_eq!(patches.features.rows(), patches.bags.rows());
        assert_eq!(genes.values.matrix().0, genes.rows.rows());
        genes.rows.iter().zip(patches.bags.iter()).map(|(g, p)| (!g.is_empty(), !p.is_empty())).collect()
    };
    let all: Vec<usize> = (0..20).collect();
    let full: Vec<(bool, bool)> = all.iter().map(|p| (!lacking.contains(p), true)).collect();
    assert_eq!(shown(&all, None), full, "nothing is hidden in evaluation");
    let epochs = 300;
    let (mut hidden_genes, mut hidden_patches) = (0, 0);
    for epoch in 0..epochs {
        let noise = Some(Noise { seed: 4, epoch });
        let of_all = shown(&all, noise);
        let alone: Vec<(bool, bool)> =
            if epoch < 10 { all.iter().map(|&p| shown(&[p], noise)[0]).collect() } else { of_all.clone() };
        assert_eq!(of_all, alone, "a patient's draw depends on patient and epoch alone");
        for (&p, &(genes, patches)) in all.iter().zip(&of_all) {
            assert!(genes || patches, "patient {p} has nothing left");
            if lacking.contains(&p) {
                assert!(patches, "patient {p} has one modality, which stays");
            } else {
                hidden_genes += u32::from(!genes);
                hidden_patches += u32::from(!patches);
            }
        }
    }
    let n = f64::from(epochs) * 18.0;
    for (what, count) in [("genes", hidden_genes), ("patches", hidden_patches)] {
        // Six standard errors of a binomial count.
        let (want, p) = (n * rate / 2.0, rate / 2.0);
        let bound = 6.0 * (n * p * (1.0 - p)).sqrt();
        assert!((f64::from(count) - want).abs() < bound, "{what} hidden {count} times, want {want} +- {bound}");
    }
}
