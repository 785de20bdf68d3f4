//! The Cox partial likelihood against outside witnesses.

use std::fs;
use std::path::Path;

use super::*;
use crate::golden;

#[test]
fn golden_likelihoods_gradients_and_baselines_are_met() {
    let mut files: Vec<_> = fs::read_dir(golden::path("survival")).unwrap().map(|f| f.unwrap().path()).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "json"));
    files.extend(golden::shared("survival/real_gbsg2.json"));
    files.sort();
    let checked: usize = files.iter().map(|file| check_golden(file)).sum();
    // Every file has both rules for ties, but that of zero weights.
    assert_eq!(checked, 2 * files.len() - 1);
}

fn check_golden(file: &Path) -> usize {
    let json = golden::json(file);
    let input = &json["input"];
    let optional = |name: &str| input.get(name).map(golden::numbers);
    let cohort = Cohort {
        time: golden::numbers(&input["time"]),
        event: golden::numbers(&input["event"]).into_iter().map(|d| d == 1.0).collect(),
        eta: golden::numbers(&input["eta"]),
        weight: optional("weight"),
        strata: optional("strata").map(|s| s.into_iter().map(|s| s as u32).collect()),
        entry: optional("entry"),
    };
    let (plan, n) = (cohort.plan(), cohort.time.len());
    let mut checked = 0;
    for (name, ties) in [("breslow", Ties::Breslow), ("efron", Ties::Efron)] {
        let Some(want) = json["cox"].get(name) else { continue };
        let what = format!("{} {name}", file.file_name().unwrap().display());
        let (loss, gradient) = cohort.sum(ties);
        assert_golden(&what, &[-loss], &[golden::number(&want["loglik"])], rounding(n));
        assert_golden(
            &what,
            &gradient.iter().map(|g| -g).collect::<Vec<_>>(),
            &golden::numbers(&want["grad_eta"]),
            rounding(n),
        );

        // The same on the device under test, as far as log risks in f32 are the same.
        let single = Cohort { eta: cohort.eta.iter().map(|&eta| f64::from(eta as f32)).collect(), ..cohort.clone() };
        assert_rounded(&what, sum(ties), &single);

        let baseline = sum(ties).baseline(&plan, &cohort.eta).unwrap();
        let steps: Vec<_> = baseline.iter().flat_map(|b| b.steps.iter().map(move |s| (b.stratum, s))).collect();
        let rows = want["baseline_cumhaz"].as_array().unwrap();
        assert_eq!(steps.len(), rows.len(), "{what}: steps of the baseline");
        for ((stratum, step), row) in steps.into_iter().zip(rows) {
            let of = |key: &str| golden::number(&row[key]);
            assert_eq!((f64::from(stratum), step.time), (of("stratum"), of("time")), "{what}");
            for (got, want) in [(step.log_increment, of("log_increment")), (step.log_cumulative, of("log_cumhaz"))] {
                // A relative error of the hazard is an absolute one of its logarithm, which then rounds itself.
                assert_within(&what, &[got], &[want], rounding(n) + f64::EPSILON * want.abs());
            }
        }
        if let Some(fit) = json["cox_fit"].get(name) {
            check_fit(&what, &cohort, ties, &input["X"], fit);
        }
        checked += 1;
    }
    checked
}

/// The fit that R's coxph made of covariates: its log-likelihoods are ours, and where it stopped our gradient vanishes.
fn check_fit(what: &str, cohort: &Cohort, ties: Ties, x: &serde_json::Value, fit: &serde_json::Value) {
    let x: Vec<Vec<f64>> = x.as_array().unwrap().iter().map(golden::numbers).collect();
    let coef = golden::numbers(&fit["coef"]);
    let at = |coef: &[f64]| {
        let eta = x.iter().map(|x| x.iter().zip(coef).map(|(x, c)| x * c).sum()).collect();
        Cohort { eta, ..cohort.clone() }.sum(ties)
    };
    let loglik = golden::number(&fit["loglik"]);
    let (start, _) = at(&vec![0.0; coef.len()]);
    let (loss, gradient) = at(&coef);
    // R sums in f64 too: twice the rounding of one side.
    let bound = 2.0 * rounding(x.len());
    assert_golden(what, &[-start, -loss], &[golden::number(&fit["loglik0"]), loglik], bound);
    // R stops when a step changes the log-likelihood by less than 1e-13 of it. Half the squared norm of the gradient in the
    // metric of the inverse information is that change, and the information of a covariate is at most its squared range
    // over four, for each death by its weight (Popoviciu).
    let deaths: f64 = cohort.deaths().iter().map(|&i| cohort.weight(i)).sum();
    for k in 0..coef.len() {
        let column = || x.iter().map(|x| x[k]);
        let range = column().fold(f64::MIN, f64::max) - column().fold(f64::MAX, f64::min);
        let information = deaths * range * range / 4.0;
        let slope: f64 = column().zip(&gradient).map(|(x, g)| x * g).sum();
        let most = (2e-13 * loglik.abs() * information).sqrt();
        assert!(slope.abs() <= most, "{what}: slope {slope} along covariate {k} where R stopped, at most {most}");
    }
}

#[test]
fn golden_values_of_twenty_thousand_patients_are_met() {
    for name in ["noties", "ties"] {
        let Some(path) = golden::shared(&format!("survival/cox_large_n20000_{name}.safetensors")) else { continue };
        let file = golden::Tensors::read(&path);
        let cohort = Cohort {
            time: file.get("time").to_vec(),
            event: file.get("event").iter().map(|&d| d == 1.0).collect(),
            eta: file.get("eta").to_vec(),
            weight: file.has("weight").then(|| file.get("weight").to_vec()),
            ..Cohort::default()
        };
        for (rule, ties) in [("breslow", Ties::Breslow), ("efron", Ties::Efron)] {
            let (loss, gradient) = cohort.sum(ties);
            let gradient: Vec<f64> = gradient.iter().map(|g| -g).collect();
            let relative = rounding(cohort.time.len());
            assert_golden(name, &[-loss], file.get(&format!("{rule}_loglik")), relative);
            assert_golden(name, &gradient, file.get(&format!("{rule}_grad")), relative);
        }
    }
}
