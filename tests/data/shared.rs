//! The cohorts of the project, where they lie beside the checkout.

use std::path::{Path, PathBuf};

use onkos::data::{Cohort, check};

fn shared(path: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared").join(path);
    if !path.exists() {
        println!("skipped: {} is not there", path.display());
        return None;
    }
    Some(path)
}

/// Patients, deaths and median follow-up (reverse Kaplan-Meier, two decimals) as the README of the tables states them.
const TCGA: [(&str, usize, usize, f64); 4] =
    [("brca", 956, 130, 32.03), ("blca", 373, 169, 29.47), ("stad", 349, 140, 24.38), ("hnsc", 416, 197, 37.16)];

#[test]
fn the_eight_cohorts_open_with_the_patients_and_deaths_of_their_readme() {
    let Some(folder) = shared("data/cohorts") else { return };
    for (name, patients, deaths, _) in TCGA {
        let real = Cohort::open(folder.join(format!("{name}.toml"))).unwrap();
        assert_eq!(real.name, name);
        assert_eq!((real.len(), real.events().iter().filter(|e| **e).count()), (patients, deaths));
        let rna = real.rna.as_ref().unwrap();
        assert_eq!(rna.values.shape(), [patients, 1526]);
        assert!(rna.present.iter().all(|p| *p));
        assert_eq!(rna.clip, Some([-6.0, 6.0]));
        assert_eq!(real.signatures.len(), 50);
        assert!(real.slides.is_none());
        assert_eq!(real.hashes().unwrap().len(), 5);

        let planted = Cohort::open(folder.join(format!("{name}-semisynthetic.toml"))).unwrap();
        assert_eq!(planted.patients, real.patients);
        let bags = planted.slides.as_ref().unwrap();
        assert_eq!((bags.ragged().bags(), bags.width(), bags.dtype().name()), (patients, 64, "F16"));
    }
}

#[test]
fn reports_of_the_cohorts_agree_with_their_readme() {
    let Some(folder) = shared("data/cohorts") else { return };
    for (name, patients, deaths, follow_up) in TCGA {
        let report = check(folder.join(format!("{name}-semisynthetic.toml")));
        assert!(report.sound, "{:?}", report.problems);
        assert_eq!((report.patients, report.events, report.genes), (patients, deaths, Some(1526)));
        assert!((report.median_follow_up.unwrap() - follow_up).abs() <= 0.005, "{:?}", report.median_follow_up);
        assert!(report.non_finite.is_empty() && report.without_rna.is_empty() && report.without_slides.is_empty());
        serde_json::to_string(&report).unwrap();
    }
}
