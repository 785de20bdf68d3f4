//! What is refused, and what each undefined metric says.

use onkos::metrics::*;
use onkos::{Error, Result};

#[track_caller]
fn says<T: std::fmt::Debug>(result: Result<T>, sentence: &str) {
    assert_eq!(result.unwrap_err().to_string(), sentence);
}

const TIME: [f64; 3] = [1.0, 2.0, 3.0];
const EVENT: [bool; 3] = [true, false, true];

fn outcome() -> Outcome<'static> {
    Outcome::new(&TIME, &EVENT).unwrap()
}

#[test]
fn wrong_outcomes_are_refused() {
    says(Outcome::new(&TIME, &[true]), "outcome: event must have shape [3], but has [1]");
    let want = "outcome: time must be finite and not negative, but time[1] is";
    says(Outcome::new(&[0.0, -1.0], &[true; 2]), &format!("{want} -1"));
    says(Outcome::new(&[0.0, f64::INFINITY], &[true; 2]), &format!("{want} inf"));
    says(Outcome::new(&[0.0, f64::NAN], &[true; 2]), &format!("{want} NaN"));
}

#[test]
fn a_time_of_zero_is_legal() {
    let outcome = Outcome::new(&[0.0, 1.0], &[true, false]).unwrap();
    assert_eq!(harrell(outcome, &[1.0, 0.0]).unwrap().index(), Ok(1.0));
    assert_eq!(KaplanMeier::fit(outcome).survival_at(0.0), Ok(0.5));
}

#[test]
fn wrong_risks_are_refused() {
    says(harrell(outcome(), &[1.0]), "harrell: risk must have shape [3], but has [1]");
    says(harrell(outcome(), &[1.0, f64::NAN, 0.0]), "harrell: risk must be finite, but risk[1] is NaN");
    let infinite = [1.0, 0.0, f64::INFINITY];
    says(uno(outcome(), outcome(), &infinite, None), "uno: risk must be finite, but risk[2] is inf");
    let auc = cumulative_dynamic_auc(outcome(), outcome(), &infinite, &[1.0]);
    says(auc, "cumulative_dynamic_auc: risk must be finite, but risk[2] is inf");
}

#[test]
fn wrong_times_probabilities_and_settings_are_refused() {
    let score = |times: &[f64], survival: &[f64]| brier(outcome(), outcome(), times, survival);
    says(score(&[1.0], &[0.5; 2]), "brier: survival must have shape [3], but has [2]");
    let sentence = "brier: survival must be a probability in [0, 1], but survival[2] is 1.5";
    says(score(&[1.0], &[0.5, 0.5, 1.5]), sentence);
    says(score(&[-1.0], &[0.5; 3]), "brier: times must be finite and not negative, but times[0] is -1");
    says(score(&[2.0, 2.0], &[0.5; 6]), "brier: times must be larger than the time before, but times[1] is 2");
    says(uno(outcome(), outcome(), &[0.0; 3], Some(0.0)), "uno.tau must be above 0, but is 0");
    says(uno(outcome(), outcome(), &[0.0; 3], Some(f64::NAN)), "uno.tau must be above 0, but is NaN");
    let rho = log_rank(outcome(), &[0, 1, 0], None, -1.0);
    says(rho, "log_rank.rho must be finite and not negative, but is -1");
    says(log_rank(outcome(), &[0], None, 0.0), "log_rank: group must have shape [3], but has [1]");
    says(log_rank(outcome(), &[0; 3], Some(&[0]), 0.0), "log_rank: strata must have shape [3], but has [1]");
    let bounds = KaplanMeier::fit(outcome()).bounds(0, 1.0, Bounds::Log);
    says(bounds, "kaplan_meier.level must be above 0 and below 1, but is 1");
    let entry = KaplanMeier::fit_rows(outcome(), Some(&[0.0, 2.0, 0.0]), None);
    says(entry, "kaplan_meier: entry must be below the time of the same patient, but entry[1] is 2");
    let weight = KaplanMeier::fit_rows(outcome(), None, Some(&[1.0, 1.0, -2.0]));
    says(weight, "kaplan_meier: weight must be finite and not negative, but weight[2] is -2");
    let heavy = KaplanMeier::fit_rows(outcome(), None, Some(&[1.0, f64::MAX, f64::MAX]));
    let sentence = format!("kaplan_meier: weight must be small enough for a finite sum, but weight[2] is {}", f64::MAX);
    says(heavy, &sentence);
    says(StepFunction::new(1.0, vec![1.0], vec![]), "step_function: values must have shape [1], but has [0]");
}

#[test]
fn a_bootstrap_refuses_nan_and_hands_on_errors_that_are_not_undefined() {
    let run = |bootstrap: Bootstrap, value: fn(&[usize]) -> Result<f64>| bootstrap.interval(3, value);
    let sentence = "bootstrap: statistic must be finite, or an error that says why not, but statistic[0] is NaN";
    says(run(Bootstrap::new(0), |_| Ok(f64::NAN)), sentence);
    let sentence = "bootstrap.replicates must be at least 1, but is 0";
    says(run(Bootstrap::new(0).replicates(0), |_| Ok(1.0)), sentence);
    let sentence = "bootstrap.level must be above 0 and below 1, but is NaN";
    says(run(Bootstrap::new(0).level(f64::NAN), |_| Ok(1.0)), sentence);
    let failing = |rows: &[usize]| match rows {
        [0, 1, 2] => Ok(1.0),
        _ => Err(Error::Setting { name: "x", want: "y", value: "z".into() }),
    };
    says(Bootstrap::new(0).interval(3, failing), "x must be y, but is z");
    let only_all =
        |rows: &[usize]| if rows == [0, 1, 2] { Ok(1.0) } else { Err(Undefined::NoCase { time: 1.0 }.into()) };
    let sentence = "the statistic is undefined in each of the 5 bootstrap replicates";
    says(Bootstrap::new(1).replicates(5).interval(3, only_all), sentence);
    says(Bootstrap::new(1).interval(0, |_| Ok(1.0)), "there is no patient");
}

/// One row for each reason that is not met elsewhere in a test of its metric.
#[test]
fn each_undefined_metric_says_why() {
    let none = Outcome::new(&[], &[]).unwrap();
    let censored = Outcome::new(&TIME, &[false; 3]).unwrap();
    let died = Outcome::new(&TIME, &[true; 3]).unwrap();
    let risk = [0.0, 1.0, 2.0];
    let auc = |train, outcome, t: f64| cumulative_dynamic_auc(train, outcome, &risk, &[t]).unwrap();

    assert_eq!(KaplanMeier::fit(none).survival_at(1.0), Err(Undefined::NoPatient));
    assert_eq!(Censoring::fit(none).at(1.0), Err(Undefined::NoPatient));
    assert_eq!(brier(died, none, &[1.0], &[]).unwrap().scores, [Err(Undefined::NoPatient)]);
    assert_eq!(harrell(censored, &risk).unwrap().index(), Err(Undefined::NoComparablePair));
    assert!(matches!(uno(censored, censored, &risk, None), Err(Error::Undefined(Undefined::NoComparablePair))));
    let early = uno(died, died, &risk, Some(0.5));
    assert!(matches!(early, Err(Error::Undefined(Undefined::NoComparablePairBefore { tau: 0.5 }))));

    assert_eq!(auc(died, died, 0.5).auc, [Err(Undefined::NoCase { time: 0.5 })]);
    assert_eq!(auc(died, died, 0.5).mean, Err(Undefined::NoCase { time: 0.5 }));
    assert_eq!(auc(died, died, 3.0).auc, [Err(Undefined::NoControl { time: 3.0 })]);
    let no_time = cumulative_dynamic_auc(died, died, &risk, &[]).unwrap();
    assert_eq!(no_time.mean, Err(Undefined::NoTime));

    // All training patients are censored by 2: nothing is known of censoring later.
    let short = Outcome::new(&[1.0, 2.0], &[false; 2]).unwrap();
    let zero = Undefined::CensoringReachesZero { time: 2.0 };
    assert_eq!(auc(short, died, 2.5).auc, [Err(zero)]);
    assert!(matches!(uno(short, died, &risk, None), Err(Error::Undefined(why)) if why == zero));
    assert!(uno(short, died, &risk, Some(2.0)).is_ok());
    let scores = brier(short, died, &[1.5, 2.0], &[0.5; 6]).unwrap();
    assert!(scores.scores[0].is_ok());
    assert_eq!(scores.scores[1], Err(zero));
    assert_eq!(scores.integrated(), Err(zero));
    // The last training patient died at 2 and was followed until then.
    let dead = Outcome::new(&[1.0, 2.0], &[false, true]).unwrap();
    assert_eq!(auc(dead, died, 3.0).auc, [Err(Undefined::BeyondFollowUp { time: 3.0, last: 2.0 })]);

    let one = log_rank(died, &[5; 3], None, 0.0);
    assert!(matches!(one, Err(Error::Undefined(Undefined::TooFewGroups { groups: 1 }))));
    let no_event = log_rank(censored, &[0, 1, 0], None, 0.0);
    assert!(matches!(no_event, Err(Error::Undefined(Undefined::TooFewGroups { groups: 0 }))));

    let sentence = "the censoring survival of the training patients reaches 0 at time 2, so there is no weight from then on; \
                    ask for earlier times";
    assert_eq!(zero.to_string(), sentence);
}
