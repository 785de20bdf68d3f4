//! The made-up study: it opens, is the same for the same seed, and can be learnt from.

use std::path::Path;

use onkos::Features;
use onkos::data::{Cohort, MissingGenes, Scaler, Scaling, SyntheticStudy, check};

fn study(seed: u64) -> (tempfile::TempDir, [Cohort; 2]) {
    let folder = tempfile::tempdir().unwrap();
    let files = SyntheticStudy { seed, ..SyntheticStudy::default() }.write(folder.path()).unwrap();
    let cohorts = files.map(|file| Cohort::open(file).unwrap());
    (folder, cohorts)
}

/// Harrell's concordance by its definition: of the pairs whose order is known, those in which the earlier event had the
/// higher risk.
fn concordance(cohort: &Cohort, risk: &[f64]) -> f64 {
    let (mut pairs, mut right) = (0.0, 0.0);
    for (i, a) in cohort.patients.iter().enumerate().filter(|(_, p)| p.event) {
        for (j, b) in cohort.patients.iter().enumerate() {
            if a.time < b.time {
                pairs += 1.0;
                right += if risk[i] > risk[j] {
                    1.0
                } else if risk[i] == risk[j] {
                    0.5
                } else {
                    0.0
                };
            }
        }
    }
    right / pairs
}

/// Two standard errors above a coin. That of a useless score is at most sqrt(1 / (3 deaths)), as for Kendall's tau; twelve
/// of them are never all that lucky.
fn informative(cohort: &Cohort, risk: &[f64]) -> bool {
    let deaths = cohort.events().iter().filter(|event| **event).count() as f64;
    concordance(cohort, risk) > 0.5 + 2.0 / (3.0 * deaths).sqrt()
}

/// Mean of the genes of one signature less that of another.
fn risk_of_expression(cohort: &Cohort) -> Vec<f64> {
    let rna = cohort.rna.as_ref().unwrap();
    let all: Vec<usize> = (0..cohort.len()).collect();
    let scaled = Scaler::fit(Scaling::Zscore, rna, &all).unwrap().apply("x", rna, MissingGenes::Refuse).unwrap();
    let [up, down] = [0, 1].map(|s: usize| cohort.signatures[s].columns(&rna.genes));
    let sum = |row: &[f32], columns: &[usize]| columns.iter().map(|&c| f64::from(row[c])).sum::<f64>();
    scaled.host().chunks(rna.genes.len()).map(|row| sum(row, &up) - sum(row, &down)).collect()
}

/// The mean patch of each patient.
fn mean_patches(cohort: &Cohort) -> Vec<Vec<f64>> {
    let all: Vec<usize> = (0..cohort.len()).collect();
    let (features, ragged) = cohort.slides.as_ref().unwrap().gather(&all).unwrap();
    let Features::F16(tensor) = features else { panic!("the study is written in F16") };
    let row = |r: usize| &tensor.host()[r * 32..(r + 1) * 32];
    let mean = |bag: std::ops::Range<usize>| {
        let n = bag.len() as f64;
        (0..32).map(|l| bag.clone().map(|r| row(r)[l].to_f64()).sum::<f64>() / n).collect()
    };
    ragged.iter().map(mean).collect()
}

/// The covariance over patients of each feature of the mean patch with the rank of survival, as a direction.
fn direction(cohort: &Cohort) -> Vec<f64> {
    let patches = mean_patches(cohort);
    let dead = |c: &Cohort, i: usize| f64::from(u8::from(c.patients[i].event)) - c.patients[i].time / 40.0;
    let n = cohort.len() as f64;
    let centre = (0..cohort.len()).map(|i| dead(cohort, i)).sum::<f64>() / n;
    (0..32).map(|l| (0..cohort.len()).map(|i| (dead(cohort, i) - centre) * patches[i][l]).sum::<f64>() / n).collect()
}

#[test]
fn both_cohorts_open_without_a_warning() {
    let (folder, cohorts) = study(1);
    for (cohort, site) in cohorts.iter().zip(["north", "south"]) {
        assert_eq!((cohort.name.as_str(), cohort.len(), cohort.signatures.len()), (site, 240, 8));
        assert_eq!(cohort.rna.as_ref().unwrap().genes.len(), 60);
        let bags = cohort.slides.as_ref().unwrap();
        assert!(bags.width() == 32 && bags.ragged().iter().all(|bag| (20..=120).contains(&bag.len())));
        let report = check(folder.path().join(format!("{site}.toml")));
        assert!(report.warnings.is_empty(), "{:?}", report.warnings);
        assert!((0.3..0.8).contains(&report.event_rate.unwrap()), "{:?}", report.event_rate);
    }
}

#[test]
fn the_same_seed_gives_the_same_files_and_another_does_not() {
    let hashes = |seed| {
        let (folder, cohorts) = study(seed);
        let relative = |file: &Path| file.strip_prefix(folder.path()).unwrap().to_owned();
        let hashes = cohorts.iter().flat_map(|c| c.hashes().unwrap());
        hashes.map(|h| (relative(&h.file), h.sha256)).collect::<Vec<_>>()
    };
    assert_eq!(hashes(5), hashes(5));
    assert_ne!(hashes(5), hashes(6));
}

#[test]
fn each_modality_tells_of_the_outcome_in_both_cohorts() {
    for seed in [1, 2, 3] {
        let (_folder, [north, south]) = study(seed);
        for cohort in [&north, &south] {
            assert!(informative(cohort, &risk_of_expression(cohort)));
        }
        // What is learnt from the slides of one cohort holds in the other.
        let learnt = direction(&north);
        for cohort in [&north, &south] {
            let score = |patch: &Vec<f64>| patch.iter().zip(&learnt).map(|(x, w)| x * w).sum();
            let risk: Vec<f64> = mean_patches(cohort).iter().map(score).collect();
            assert!(informative(cohort, &risk));
        }
    }
}

#[test]
fn the_cohorts_are_shifted_against_each_other() {
    let (_folder, [north, south]) = study(1);
    let mean = |cohort: &Cohort, gene: usize| {
        let rna = cohort.rna.as_ref().unwrap();
        (0..cohort.len()).map(|p| f64::from(rna.row(p)[gene])).sum::<f64>() / cohort.len() as f64
    };
    // Values have a standard deviation of at most 1.2, so that of a difference of two means is below 0.11.
    let shifted = (0..60).filter(|&gene| (mean(&north, gene) - mean(&south, gene)).abs() > 6.0 * 0.11).count();
    assert!(shifted >= 10, "{shifted} of 60 genes");
}
