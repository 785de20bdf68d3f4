//! Outside witnesses: each case of tests/golden/survival (README in the golden set: R survival 3.5, scikit-survival 0.28,
//! lifelines 0.30).
//!
//! No tolerance is chosen: the bound is the number of roundings in the longest chain of each formula, for both sides.

use std::path::Path;

use onkos::metrics::*;
use onkos::{Error, Result};
use serde_json::Value;

use crate::{assert_close, naive};

struct Case {
    name: String,
    time: Vec<f64>,
    event: Vec<bool>,
    risk: Vec<f64>,
    json: Value,
}

impl Case {
    fn outcome(&self) -> Outcome<'_> {
        Outcome::new(&self.time, &self.event).unwrap()
    }

    fn input(&self, name: &str) -> Option<Vec<f64>> {
        self.json["input"].get(name).map(numbers)
    }

    fn labels(&self, name: &str) -> Option<Vec<usize>> {
        self.input(name).map(|labels| labels.iter().map(|&label| label as usize).collect())
    }
}

/// The cases that have what is asked for. Large files are not kept in the repository: they are read from beside it.
fn cases(has: &str) -> Vec<Case> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let here = root.join("tests/golden/survival");
    let mut paths: Vec<_> = std::fs::read_dir(here).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let large = root.join("../shared/golden/survival/real_gbsg2.json");
    if large.exists() {
        paths.push(large);
    } else {
        println!("skipped: real_gbsg2, as {} is not there", large.display());
    }
    let read = |path: &std::path::PathBuf| {
        let json: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        Case {
            name: path.file_stem().unwrap().to_str().unwrap().to_owned(),
            time: numbers(&json["input"]["time"]),
            event: numbers(&json["input"]["event"]).iter().map(|&e| e == 1.0).collect(),
            risk: numbers(&json["input"]["eta"]),
            json,
        }
    };
    let cases: Vec<Case> = paths.iter().map(read).filter(|case| case.json.get(has).is_some()).collect();
    assert!(!cases.is_empty(), "no golden case has {has}");
    cases
}

/// R writes a vector of one element as a number.
fn list(value: &Value) -> Vec<Option<f64>> {
    match value {
        Value::Array(values) => values.iter().map(number).collect(),
        value => vec![number(value)],
    }
}

/// None where the golden has null or "inf": where there is no finite value.
fn number(value: &Value) -> Option<f64> {
    value.as_f64().filter(|v| v.is_finite())
}

fn numbers(value: &Value) -> Vec<f64> {
    list(value).into_iter().map(|v| v.expect("a number")).collect()
}

/// Why there is no value.
#[track_caller]
fn why<T: std::fmt::Debug>(result: Result<T>) -> Undefined {
    match result {
        Err(Error::Undefined(why)) => why,
        other => panic!("must be undefined, but is {other:?}"),
    }
}

#[test]
fn harrell_counts_and_index_are_those_of_r_and_scikit_survival() {
    for case in cases("harrell_c") {
        let golden = &case.json["harrell_c"];
        let pairs = harrell(case.outcome(), &case.risk).unwrap();
        let counts = [pairs.concordant, pairs.discordant, pairs.tied_risk, pairs.tied_time];
        let names = ["concordant", "discordant", "tied_score", "tied_event_time"];
        assert_eq!(counts, names.map(|name| golden[name].as_u64().unwrap()), "{}", case.name);
        match number(&golden["cindex"]) {
            // One division of integers on both sides.
            Some(want) => assert_close(pairs.index().unwrap(), want, 1, &case.name),
            None => assert_eq!(pairs.index(), Err(Undefined::NoComparablePair), "{}", case.name),
        }
    }
}

/// Quantile 0.8 of all times, linear between order statistics: the golden files leave out their tau for the unsplit case, and
/// this is the one that gives their numbers (its 0.6 sibling is the tau that they state for the split case).
fn tau(time: &[f64]) -> f64 {
    let mut sorted = time.to_vec();
    sorted.sort_by(f64::total_cmp);
    let position = 0.8 * (sorted.len() - 1) as f64;
    let below = position as usize;
    sorted[below] + (position - below as f64) * (sorted[below + 1] - sorted[below])
}

#[test]
fn uno_is_that_of_scikit_survival() {
    for case in cases("uno_c") {
        let (outcome, n) = (case.outcome(), case.time.len());
        // 2 n roundings in G, twice in its square, n + 4 in the sums.
        let roundings = 2 * (5 * n + 4);
        let golden = &case.json["uno_c"];
        let got = uno(outcome, outcome, &case.risk, Some(tau(&case.time))).unwrap();
        assert_close(got, golden["tau"]["sksurv"].as_f64().unwrap(), roundings, &case.name);
        let got = uno(outcome, outcome, &case.risk, None);
        match golden["no_tau"].get("sksurv") {
            Some(want) => assert_close(got.unwrap(), want.as_f64().unwrap(), roundings, &case.name),
            None => {
                assert!(golden["no_tau"]["sksurv_error"].as_str().unwrap().contains("zero at one or more"));
                assert!(matches!(why(got), Undefined::CensoringReachesZero { .. }), "{}", case.name);
            }
        }
    }
}

#[test]
fn uno_takes_its_weights_from_the_training_patients() {
    for case in cases("uno_c_split") {
        let golden = &case.json["uno_c_split"];
        let rows = |parity: usize| (parity..case.time.len()).step_by(2).collect::<Vec<_>>();
        let ((train_time, train_event), (time, event)) =
            (case.outcome().select(&rows(0)), case.outcome().select(&rows(1)));
        let risk: Vec<f64> = rows(1).iter().map(|&i| case.risk[i]).collect();
        let train = Outcome::new(&train_time, &train_event).unwrap();
        let got = uno(train, Outcome::new(&time, &event).unwrap(), &risk, golden["tau"].as_f64()).unwrap();
        assert_close(got, golden["sksurv"].as_f64().unwrap(), 2 * (5 * time.len() + 4), &case.name);
    }
}

#[test]
fn dynamic_auc_and_its_mean_are_those_of_scikit_survival() {
    for case in cases("cumulative_dynamic_auc") {
        let (golden, outcome, n) = (&case.json["cumulative_dynamic_auc"], case.outcome(), case.time.len());
        let times = numbers(&golden["times"]);
        let got = cumulative_dynamic_auc(outcome, outcome, &case.risk, &times).unwrap();
        // 2 n roundings in G, n + 4 in the sums.
        let roundings = 2 * (3 * n + 4);
        if let Some(error) = golden.get("error") {
            assert!(error.as_str().unwrap().contains("zero at one or more"));
            // scikit-survival refuses for the sake of an event after the times asked for; at that event the AUC is undefined.
            let last = case.time.iter().copied().fold(0.0, f64::max);
            let at_last = cumulative_dynamic_auc(outcome, outcome, &case.risk, &[times[0], last]).unwrap();
            assert_eq!(at_last.auc[1], Err(Undefined::CensoringReachesZero { time: last }));
            assert_eq!(at_last.mean, Err(Undefined::CensoringReachesZero { time: last }));
            for (&t, &auc) in times.iter().zip(&got.auc) {
                let want = naive::auc(&case.time, &case.event, &case.risk, t).unwrap();
                assert_close(auc.unwrap(), want, roundings, &format!("{} at {t}", case.name));
            }
            continue;
        }
        for (k, want) in numbers(&golden["auc"]).into_iter().enumerate() {
            assert_close(got.auc[k].unwrap(), want, roundings, &format!("{} at {}", case.name, times[k]));
        }
        // The falls of S are differences: a rounding of S <= 1 (2 n of them) is at most EPSILON n, and there are two in each of
        // the falls, whose sum divides.
        let fall = 1.0 - KaplanMeier::fit(outcome).survival_at(times[times.len() - 1]).unwrap();
        let mean = roundings + (4.0 * (n * times.len()) as f64 / fall).ceil() as usize;
        assert_close(got.mean.unwrap(), golden["mean_auc"].as_f64().unwrap(), mean, &case.name);
    }
}

#[test]
fn brier_scores_and_their_integral_are_those_of_scikit_survival() {
    for case in cases("brier") {
        let (golden, outcome, n) = (&case.json["brier"], case.outcome(), case.time.len());
        let times = numbers(&golden["times"]);
        // The model of the golden: S(t|i) = exp(-H0(t) exp(eta_i)), H0 by Breslow.
        let steps = case.json["cox"]["breslow"]["baseline_cumhaz"].as_array().unwrap();
        let pick = |name: &str| steps.iter().map(|step| step[name].as_f64().unwrap()).collect::<Vec<_>>();
        let baseline = StepFunction::new(0.0, pick("time"), pick("cumhaz")).unwrap();
        let predict = |&eta: &f64| times.iter().map(|&t| (-baseline.at(t) * eta.exp()).exp()).collect::<Vec<_>>();
        let survival: Vec<f64> = case.risk.iter().flat_map(predict).collect();
        let got = brier(outcome, outcome, &times, &survival).unwrap();
        // 2 n roundings in G, n + 4 in the sum, and those of exp(-x): a relative error of x in the exponent, three roundings each,
        // which moves S by x exp(-x) < 1/2 of one; squares double it. Relative to the score, as its terms are squares of at most 1.
        let bound = |want: f64| 2 * (3 * n + 4) + (12.0 / want).ceil() as usize;
        for (k, want) in numbers(&golden["brier"]).into_iter().enumerate() {
            assert_close(got.scores[k].unwrap(), want, bound(want), &format!("{} at {}", case.name, times[k]));
        }
        let want = golden["integrated_brier_score"].as_f64().unwrap();
        assert_close(got.integrated().unwrap(), want, bound(want) + 2 * times.len(), &case.name);
    }
}

#[test]
fn kaplan_meier_and_nelson_aalen_are_those_of_r() {
    for case in cases("kaplan_meier") {
        let (entry, weight) = (case.input("entry"), case.input("weight"));
        let curve = KaplanMeier::fit_rows(case.outcome(), entry.as_deref(), weight.as_deref()).unwrap();
        if entry.is_none() && weight.is_none() {
            assert_eq!(curve, KaplanMeier::fit(case.outcome()));
        }
        let golden = &case.json["kaplan_meier"];
        let n = case.time.len();
        for (name, scale) in [("plain", Bounds::Plain), ("log", Bounds::Log), ("log_log", Bounds::LogLog)] {
            let golden = &golden[name];
            assert_eq!(curve.steps().len(), list(&golden["time"]).len(), "{}", case.name);
            for (k, step) in curve.steps().iter().enumerate() {
                let what = |name: &str| format!("{} {scale:?} {name} at {}", case.name, step.time);
                let golden = |name: &str| list(&golden[name])[k];
                // Sums of at most n weights, with entries a difference of two such sums, then n quotients and products.
                let counts = 4 * n * amplification(&case, step);
                assert_eq!(Some(step.time), golden("time"));
                assert_close(step.at_risk, golden("n.risk").unwrap(), counts, &what("at risk"));
                assert_close(step.events, golden("n.event").unwrap(), counts, &what("events"));
                assert_close(step.censored, golden("n.censor").unwrap(), counts, &what("censored"));
                let roundings = counts + 4 * n;
                assert_close(step.survival, golden("surv").unwrap(), roundings, &what("S"));
                assert_close(step.hazard, golden("cumhaz").unwrap(), roundings, &what("H"));
                let (got, want) = (step.hazard_variance.sqrt(), golden("std.chaz").unwrap());
                assert_close(got, want, roundings, &what("standard error of H"));
                let zero = Err(Undefined::SurvivalIsZero { time: step.time });
                match golden("std.err") {
                    Some(want) => assert_close(step.log_standard_error().unwrap(), want, roundings, &what("error")),
                    None => assert_eq!(step.log_standard_error(), zero, "{}", case.name),
                }
                match (curve.bounds(k, 0.95, scale), golden("lower"), golden("upper")) {
                    (Ok(got), Some(lower), Some(upper)) => {
                        // A bound is S times exp(z s), or S to a power: an error of the exponent is multiplied by the exponent.
                        let width = 2.0 * step.log_standard_error().unwrap();
                        let roundings = roundings * (2.0 + width.exp() * (1.0 - step.survival.ln())).ceil() as usize;
                        assert_close_below_one(got.0, lower, roundings, &what("lower bound"));
                        assert_close_below_one(got.1, upper, roundings, &what("upper bound"));
                    }
                    (got, None, None) => match why(got) {
                        Undefined::SurvivalIsZero { time } => assert_eq!((time, step.survival), (step.time, 0.0)),
                        Undefined::SurvivalIsOne { time } => {
                            assert_eq!((time, step.survival, scale), (step.time, 1.0, Bounds::LogLog));
                        }
                        other => panic!("{}: {other}", what("bounds")),
                    },
                    (got, lower, upper) => panic!("{}: {got:?}, not {lower:?} and {upper:?}", what("bounds")),
                }
            }
        }
    }
}

/// How much a difference of weights loses against the sum of all: 1 without entries, when nothing is subtracted.
fn amplification(case: &Case, step: &Step) -> usize {
    let total = case.input("weight").map_or(case.time.len() as f64, |weight| weight.iter().sum());
    if case.input("entry").is_some() { (total / step.at_risk).ceil() as usize } else { 1 }
}

/// Bounds are differences of numbers of at most 1 (plain), so their error is absolute.
#[track_caller]
fn assert_close_below_one(got: f64, want: f64, roundings: usize, what: &str) {
    assert_close(1.0 + got, 1.0 + want, roundings, what);
}

#[test]
fn log_rank_is_that_of_r() {
    for case in cases("logrank") {
        let group = case.labels("group").unwrap();
        let golden = &case.json["logrank"];
        for (name, rho) in [("R_rho0", 0.0), ("R_rho1_peto", 1.0)] {
            let got = log_rank(case.outcome(), &group, None, rho).unwrap();
            let golden = &golden[name];
            let roundings = roundings(&case, &got);
            for (k, group) in got.groups.iter().enumerate() {
                // Sums of one sign: the weights have 2 n roundings, the sums n.
                let sums = 2 * (3 * case.time.len() + 4);
                assert_close(group.observed, numbers(&golden["obs"])[k], sums, &case.name);
                assert_close(group.expected, numbers(&golden["exp"])[k], sums, &case.name);
            }
            assert_eq!(got.degrees as f64, golden["df"].as_f64().unwrap());
            assert_close(got.chi2, golden["chisq"].as_f64().unwrap(), roundings, &format!("{} chi2", case.name));
            // p is a function of chi2 whose relative slope is below (1 + chi2) / chi2 in units of the relative error of chi2,
            // times chi2; the function itself is good to a few hundred roundings.
            let slope = (1.0 + got.chi2).ceil() as usize;
            let p = golden["p"].as_f64().unwrap();
            assert_close(got.p, p, roundings * slope + 256, &format!("{} p", case.name));
        }
        if let Some(want) = golden.get("R_stratified") {
            let strata = case.labels("strata").unwrap();
            let got = log_rank(case.outcome(), &group, Some(&strata), 0.0).unwrap();
            assert_eq!(got.degrees as f64, want["df"].as_f64().unwrap());
            assert_close(got.chi2, want["chisq"].as_f64().unwrap(), roundings(&case, &got), "stratified");
        }
    }
}

/// The roundings of chi2: those of the sums O and E, enlarged by what their difference cancels, doubled by the square, and those of V.
fn roundings(case: &Case, got: &LogRank) -> usize {
    let cancelled = |g: &Group| (g.observed + g.expected) / (g.observed - g.expected).abs();
    let cancelled = got.groups.iter().map(cancelled).fold(1.0, f64::max);
    (2.0 * (3 * case.time.len() + 4) as f64 * (2.0 * cancelled + 2.0)).ceil() as usize
}
