//! What must hold for any patients.

use onkos::Error;
use onkos::metrics::*;
use proptest::prelude::*;

use crate::{assert_close, naive, patients};

/// Harrell's index of some rows, as a statistic for the bootstrap.
fn index_of(rows: &[usize], outcome: Outcome, risk: &[f64]) -> onkos::Result<f64> {
    let (time, event) = outcome.select(rows);
    let risk: Vec<f64> = rows.iter().map(|&i| risk[i]).collect();
    Ok(harrell(Outcome::new(&time, &event)?, &risk)?.index()?)
}

/// The two agree on whether there is a value, and on the value.
#[track_caller]
fn assert_same(got: Option<f64>, want: Option<f64>, n: usize, what: &str) {
    assert_eq!(got.is_some(), want.is_some(), "{what}: {got:?}, not {want:?}");
    if let (Some(got), Some(want)) = (got, want) {
        // 2 n roundings in G, twice in its square, n^2 + 4 in the sums over pairs.
        assert_close(got, want, 4 * n + n * n + 4, what);
    }
}

proptest! {
    #[test]
    fn harrell_counts_are_those_of_all_pairs((time, event, risk) in patients(60)) {
        let pairs = harrell(Outcome::new(&time, &event).unwrap(), &risk).unwrap();
        let counts = [pairs.concordant, pairs.discordant, pairs.tied_risk, pairs.tied_time];
        prop_assert_eq!(counts, naive::harrell(&time, &event, &risk));
        prop_assert_eq!(pairs.index().is_err(), pairs.comparable() == 0);
    }

    #[test]
    fn uno_is_that_of_all_pairs((time, event, risk) in patients(40), tau in 0.25..7.0_f64) {
        let outcome = Outcome::new(&time, &event).unwrap();
        let got = uno(outcome, outcome, &risk, Some(tau)).ok();
        assert_same(got, naive::uno(&time, &event, &risk, tau), time.len(), "uno");
        let got = uno(outcome, outcome, &risk, None).ok();
        assert_same(got, naive::uno(&time, &event, &risk, f64::INFINITY), time.len(), "uno without tau");
    }

    #[test]
    fn auc_is_that_of_all_pairs((time, event, risk) in patients(40)) {
        let outcome = Outcome::new(&time, &event).unwrap();
        let times = [0.0, 0.5, 1.75, 3.0, 5.5];
        let got = cumulative_dynamic_auc(outcome, outcome, &risk, &times).unwrap();
        for (&t, auc) in times.iter().zip(got.auc) {
            assert_same(auc.ok(), naive::auc(&time, &event, &risk, t), time.len(), "auc");
        }
    }

    #[test]
    fn censoring_and_survival_curves_are_their_products((time, event, _) in patients(40), t in 0.0..7.0_f64) {
        let outcome = Outcome::new(&time, &event).unwrap();
        let (curve, censoring) = (KaplanMeier::fit(outcome), Censoring::fit(outcome));
        // 1 - d / n has the absolute error of two roundings of numbers up to 1, and is at least 1 / n if it is not 0.
        let roundings = 2 * time.len() * (time.len() + 2);
        assert_close(curve.survival().at(t), naive::survival(&time, &event, t), roundings, "S");
        assert_close(censoring.survival().at(t), naive::censoring(&time, &event, t), roundings, "G");
    }

    #[test]
    fn reversed_risk_gives_one_minus_c_without_ties((time, event, _) in patients(40), seed in any::<u64>()) {
        let order = onkos::rng::Draws::new(seed, 0, "risk").of(0).permutation(time.len());
        let risk: Vec<f64> = order.iter().map(|&r| f64::from(r) - 3.0).collect();
        let reversed: Vec<f64> = risk.iter().map(|r| -r).collect();
        let outcome = Outcome::new(&time, &event).unwrap();
        let (a, b) = (harrell(outcome, &risk).unwrap(), harrell(outcome, &reversed).unwrap());
        prop_assert_eq!(a.tied_risk, 0);
        prop_assert_eq!((a.concordant, a.discordant), (b.discordant, b.concordant));
        if let (Ok(a), Ok(b)) = (a.index(), b.index()) {
            assert_close(a + b, 1.0, 2, "sum of both");
        }
    }

    #[test]
    fn monotone_transforms_of_risk_change_no_bit((time, event, risk) in patients(40)) {
        let outcome = Outcome::new(&time, &event).unwrap();
        // exp is strictly increasing on eighths in f64.
        let other: Vec<f64> = risk.iter().map(|r| 3.0 * r.exp() - 7.0).collect();
        prop_assert_eq!(harrell(outcome, &risk).unwrap(), harrell(outcome, &other).unwrap());
        prop_assert_eq!(uno(outcome, outcome, &risk, Some(4.0)).ok(), uno(outcome, outcome, &other, Some(4.0)).ok());
        let auc = |risk: &[f64]| cumulative_dynamic_auc(outcome, outcome, risk, &[1.0, 2.5]).unwrap();
        prop_assert_eq!(auc(&risk), auc(&other));
    }

    #[test]
    fn without_censoring_kaplan_meier_is_the_share_still_alive((time, _, _) in patients(60), t in 0.0..7.0_f64) {
        let event = vec![true; time.len()];
        let curve = KaplanMeier::fit(Outcome::new(&time, &event).unwrap());
        let alive = time.iter().filter(|&&u| u > t).count() as f64;
        let share = if time.is_empty() { 1.0 } else { alive / time.len() as f64 };
        assert_close(curve.survival().at(t), share, 2 * time.len(), "S");
        // The median is then the order statistic at half of n, rounded up.
        let mut sorted = time.clone();
        sorted.sort_by(f64::total_cmp);
        prop_assert_eq!(curve.median(), time.len().checked_sub(1).map(|last| sorted[last / 2]));
    }

    #[test]
    fn without_censoring_brier_is_the_mean_square_and_uno_is_harrell((time, _, risk) in patients(40)) {
        prop_assume!(!time.is_empty());
        let event = vec![true; time.len()];
        let outcome = Outcome::new(&time, &event).unwrap();
        let t = time[0];
        let predicted: Vec<f64> = risk.iter().map(|r| 0.5 + 0.5 * r).collect();
        let square = |i: usize| (f64::from(time[i] > t) - predicted[i]).powi(2);
        let want = (0..time.len()).map(square).sum::<f64>() / time.len() as f64;
        let got = brier(outcome, outcome, &[t], &predicted).unwrap();
        assert_close(got.scores[0].unwrap(), want, time.len() + 4, "Brier");
        prop_assert_eq!(got.integrated(), Err(Undefined::TooFewTimes { times: 1 }));
        let pairs = harrell(outcome, &risk).unwrap();
        assert_same(uno(outcome, outcome, &risk, None).ok(), pairs.index().ok(), time.len(), "uno");
    }

    #[test]
    fn rows_of_weight_two_are_rows_that_occur_twice((time, event, _) in patients(30), heavy in any::<u32>()) {
        let weight: Vec<f64> = (0..time.len()).map(|i| f64::from(heavy >> i & 1) + 1.0).collect();
        let rows: Vec<usize> = (0..time.len()).flat_map(|i| vec![i; weight[i] as usize]).collect();
        let outcome = Outcome::new(&time, &event).unwrap();
        let (twice_time, twice_event) = outcome.select(&rows);
        let weighted = KaplanMeier::fit_rows(outcome, None, Some(&weight)).unwrap();
        prop_assert_eq!(weighted, KaplanMeier::fit(Outcome::new(&twice_time, &twice_event).unwrap()));
    }

    #[test]
    fn log_rank_of_two_groups_is_the_square_of_their_difference((time, event, _) in patients(40), split in any::<u64>(), rho in 0..3_u8) {
        let group: Vec<usize> = (0..time.len()).map(|i| 10 + (split >> i & 1) as usize).collect();
        let outcome = Outcome::new(&time, &event).unwrap();
        let (mut difference, mut variance, mut pair_at_risk) = (0.0, 0.0, false);
        let (mut magnitude, mut seen) = (0.0, [false; 2]);
        let mut times: Vec<f64> = (0..time.len()).filter(|&i| event[i]).map(|i| time[i]).collect();
        times.sort_by(f64::total_cmp);
        times.dedup();
        let mut survival = 1.0_f64;
        for u in times {
            let count = |wanted: &dyn Fn(usize) -> bool| (0..time.len()).filter(|&i| wanted(i)).count() as f64;
            let (n, d) = (count(&|i| time[i] >= u), count(&|i| time[i] == u && event[i]));
            let (n1, d1) = (count(&|i| time[i] >= u && group[i] == 11), count(&|i| time[i] == u && event[i] && group[i] == 11));
            let w = survival.powi(i32::from(rho));
            difference += w * (d1 - d * n1 / n);
            magnitude += w * (d1 + d * n1 / n);
            seen = [seen[0] || n1 < n, seen[1] || n1 > 0.0];
            if n > 1.0 {
                variance += w * w * d * (n - d) * n1 * (n - n1) / (n * n * (n - 1.0));
                pair_at_risk |= n1 > 0.0 && n1 < n && d < n;
            }
            survival *= (n - d) / n;
        }
        match log_rank(outcome, &group, None, f64::from(rho)) {
            Ok(got) => {
                prop_assert_eq!(got.degrees, 1);
                // The difference of O and E loses what cancels, so its error is that of their size.
                let error = 8.0 * (3 * time.len() + 4) as f64 * f64::EPSILON;
                let off = 2.0 * difference.abs() * error * magnitude + (error * magnitude).powi(2);
                let bound = off / variance + 2.0 * error * got.chi2;
                prop_assert!((got.chi2 - difference * difference / variance).abs() <= bound);
                prop_assert!((0.0..=1.0).contains(&got.p));
            }
            Err(Error::Undefined(Undefined::TooFewGroups { groups })) => {
                prop_assert_eq!(groups, seen.iter().filter(|&&seen| seen).count());
                prop_assert!(groups < 2);
            }
            Err(Error::Undefined(Undefined::SingularVariance)) => prop_assert!(!pair_at_risk && seen == [true; 2]),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn log_rank_does_not_depend_on_the_names_of_groups_and_strata((time, event, risk) in patients(40)) {
        let outcome = Outcome::new(&time, &event).unwrap();
        let group: Vec<usize> = risk.iter().map(|r| ((r + 1.0) * 8.0) as usize % 3).collect();
        let strata: Vec<usize> = time.iter().zip(&risk).map(|(t, r)| usize::from(t + r > 3.0)).collect();
        let renamed: Vec<usize> = group.iter().map(|g| [7, 0, 4][*g]).collect();
        let swapped: Vec<usize> = strata.iter().map(|s| 9 - s).collect();
        let a = log_rank(outcome, &group, Some(&strata), 0.0);
        let b = log_rank(outcome, &renamed, Some(&swapped), 0.0);
        prop_assert_eq!(a.is_ok(), b.is_ok());
        if let (Ok(a), Ok(b)) = (a, b) {
            prop_assert_eq!(a.degrees, b.degrees);
            // Another group is left out: both solve a 2 x 2 system, whose error grows with 1 / (1 - r^2), at most n^4 for counts of n.
            let n = time.len() as f64;
            prop_assert!((a.chi2 - b.chi2).abs() <= f64::EPSILON * n.powi(4) * (1.0 + a.chi2));
        }
    }
}

#[test]
fn bootstrap_gives_the_same_bits_on_one_thread_and_on_two() {
    let n = 60;
    let stream = onkos::rng::Draws::new(3, 0, "test").of(0);
    let time: Vec<f64> = (0..n).map(|i| 1.0 + 9.0 * stream.uniform(i)).collect();
    let event: Vec<bool> = (0..n).map(|i| stream.uniform(n + i) < 0.5).collect();
    let risk: Vec<f64> = time.iter().zip(n..).map(|(t, i)| stream.uniform(n + i) - 0.1 * t).collect();
    let outcome = Outcome::new(&time, &event).unwrap();
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let interval = pool.install(|| Bootstrap::new(11).interval(time.len(), |rows| index_of(rows, outcome, &risk)));
        let interval = interval.unwrap();
        [interval.estimate, interval.lower, interval.upper].map(f64::to_bits)
    };
    assert_eq!(run(1), run(2));
    assert_eq!(run(1), run(5));
}

#[test]
fn bootstrap_draws_by_seed_and_replicate_and_interpolates_between_order_statistics() {
    let value = |rows: &[usize]| rows.iter().map(|&i| (i * i) as f64).sum::<f64>();
    let replicates = |seed: u64, count: u32| {
        let draws = onkos::rng::Draws::new(seed, 0, "bootstrap");
        let rows = |r: u32| (0..20).map(|i| draws.of(r).below(i, 20) as usize).collect::<Vec<_>>();
        let mut values: Vec<f64> = (0..count).map(|r| value(&rows(r))).collect();
        values.sort_by(f64::total_cmp);
        values
    };
    for seed in [1, 1 << 40] {
        // With five replicates the quartiles are the second and the fourth; with four they lie a quarter inside the gaps.
        let got = Bootstrap::new(seed).replicates(5).level(0.5).interval(20, |rows| Ok(value(rows))).unwrap();
        let five = replicates(seed, 5);
        assert_eq!((got.lower, got.upper, got.level), (five[1], five[3], 0.5));
        let got = Bootstrap::new(seed).replicates(4).level(0.5).interval(20, |rows| Ok(value(rows))).unwrap();
        let four = replicates(seed, 4);
        assert_eq!(got.lower, 0.25 * four[0] + 0.75 * four[1]);
        assert_eq!(got.upper, 0.75 * four[2] + 0.25 * four[3]);
    }
    assert_ne!(replicates(1, 5), replicates(1 << 40, 5));
}

#[test]
fn bootstrap_of_a_mean_has_the_width_of_its_standard_error() {
    let n = 400;
    let stream = onkos::rng::Draws::new(5, 0, "test").of(0);
    let values: Vec<f64> = (0..n).map(|i| stream.normal(i)).collect();
    let mean = |rows: &[usize]| rows.iter().map(|&i| values[i]).sum::<f64>() / rows.len() as f64;
    let all: Vec<usize> = (0..values.len()).collect();
    let centre = mean(&all);
    let error = (values.iter().map(|v| (v - centre).powi(2)).sum::<f64>()).sqrt() / n as f64;
    let replicates = 4000;
    let interval = Bootstrap::new(1).replicates(replicates).interval(values.len(), |rows| Ok(mean(rows))).unwrap();
    assert_eq!((interval.estimate, interval.replicates, interval.undefined), (centre, replicates, 0));
    // A normal quantile q of p has the standard error sqrt(p (1 - p) / replicates) / density(q), here in units of the error of the mean;
    // four of these, and the density at 1.96 is exp(-1.96^2 / 2) / sqrt(2 pi).
    let density = (-0.5 * 1.96_f64.powi(2)).exp() / std::f64::consts::TAU.sqrt();
    let bound = 4.0 * (0.025 * 0.975 / f64::from(replicates)).sqrt() / density;
    assert!(((interval.upper - centre) / error - 1.96).abs() < bound);
    assert!(((interval.lower - centre) / error + 1.96).abs() < bound);
}

#[test]
fn bootstrap_counts_the_replicates_without_a_value() {
    // One event among three: a resample without patient 0 has no comparable pair, nor has one with patient 0 alone.
    let outcome = Outcome::new(&[1.0, 2.0, 3.0], &[true, false, false]).unwrap();
    let risk = [1.0, 0.0, 0.0];
    let interval = Bootstrap::new(2).interval(3, |rows| index_of(rows, outcome, &risk)).unwrap();
    assert_eq!((interval.estimate, interval.lower, interval.upper), (1.0, 1.0, 1.0));
    // (2/3)^3 + (1/3)^3 = 1/3 of all resamples, within five standard errors.
    let share = f64::from(interval.undefined) / 1000.0;
    assert!((share - 1.0 / 3.0).abs() < 5.0 * (1.0 / 3.0 * 2.0 / 3.0 / 1000.0_f64).sqrt());
}

#[test]
fn difference_of_a_statistic_and_itself_is_zero_and_both_see_the_same_resample() {
    let sum = |rows: &[usize]| Ok(rows.iter().map(|&i| (i * i) as f64).sum::<f64>());
    let shifted = |rows: &[usize]| Ok(rows.iter().map(|&i| (i * i) as f64).sum::<f64>() + 3.0);
    let same = Bootstrap::new(4).difference(30, sum, sum).unwrap();
    assert_eq!((same.estimate, same.lower, same.upper), (0.0, 0.0, 0.0));
    let apart = Bootstrap::new(4).difference(30, shifted, sum).unwrap();
    assert_eq!((apart.estimate, apart.lower, apart.upper), (3.0, 3.0, 3.0));
}

#[test]
fn a_censoring_tied_with_an_event_counts_as_living_longer() {
    let outcome = Outcome::new(&[4.0, 4.0], &[true, false]).unwrap();
    assert_eq!(harrell(outcome, &[1.0, 0.0]).unwrap().index(), Ok(1.0));
    // The one who dies leaves first, so the one censored is the only one left to be censored.
    assert_eq!(Censoring::fit(outcome).survival().at(4.0), 0.0);
    assert_eq!(KaplanMeier::fit(outcome).survival_at(4.0), Ok(0.5));
}

#[test]
fn groups_that_are_never_at_risk_together_share_no_variance() {
    // Two strata with two groups each: three differences, but only two of them can be seen.
    let outcome = Outcome::new(&[1.0, 2.0, 3.0, 4.0, 1.0, 2.0, 3.0, 4.0], &[true; 8]).unwrap();
    let group = [0, 1, 0, 1, 2, 3, 2, 3];
    let strata = [0, 0, 0, 0, 1, 1, 1, 1];
    let got = log_rank(outcome, &group, Some(&strata), 0.0);
    assert!(matches!(got, Err(Error::Undefined(Undefined::SingularVariance))), "{got:?}");
}

#[test]
fn zero_and_minus_zero_are_a_tie() {
    let outcome = Outcome::new(&[0.0, -0.0, 0.0, 1.0], &[true, true, false, true]).unwrap();
    let pairs = harrell(outcome, &[0.0, 1.0, -0.0, -1.0]).unwrap();
    assert_eq!((pairs.concordant, pairs.discordant, pairs.tied_risk, pairs.tied_time), (3, 0, 1, 1));
    assert_eq!(KaplanMeier::fit(outcome).steps().len(), 2);
}

#[test]
fn survival_is_exactly_zero_when_all_weight_has_died_and_never_negative() {
    // These weights have another sum from the front than from the back: n - d is not 0 in floating point.
    let outcome = Outcome::new(&[1.0; 3], &[true; 3]).unwrap();
    let curve = KaplanMeier::fit_rows(outcome, None, Some(&[0.1, 0.2, 0.3])).unwrap();
    assert_eq!((curve.steps()[0].survival, curve.steps()[0].hazard), (0.0, 1.0));
    // The light patient is lost in the sum with the heavy one, who enters after it has died.
    let outcome = Outcome::new(&[1.0, 1.0, 3.0], &[true, false, true]).unwrap();
    let (entry, weight) = ([0.0, 0.0, 2.0], [1e-20, 1e-20, 1.0]);
    let curve = KaplanMeier::fit_rows(outcome, Some(&entry), Some(&weight)).unwrap();
    assert_eq!(curve.steps().iter().map(|step| step.survival).collect::<Vec<_>>(), [0.5, 0.0]);
}

#[test]
fn median_follow_up_is_that_of_the_censored() {
    // Nobody dies: half of the four are still followed until the second leaves.
    assert_eq!(median_follow_up(Outcome::new(&[1.0, 2.0, 3.0, 4.0], &[false; 4]).unwrap()), Some(2.0));
    // Nobody is censored: follow-up would have gone on.
    assert_eq!(median_follow_up(Outcome::new(&[1.0, 2.0], &[true; 2]).unwrap()), None);
    assert_eq!(median_follow_up(Outcome::new(&[], &[]).unwrap()), None);
}

#[test]
fn a_curve_has_no_value_beyond_the_follow_up_unless_everyone_has_died() {
    let alive = KaplanMeier::fit(Outcome::new(&[1.0, 2.0], &[true, false]).unwrap());
    assert_eq!(alive.survival_at(0.5), Ok(1.0));
    assert_eq!(alive.survival_at(2.0), Ok(0.5));
    assert_eq!(alive.survival_at(2.5), Err(Undefined::BeyondFollowUp { time: 2.5, last: 2.0 }));
    let dead = KaplanMeier::fit(Outcome::new(&[1.0, 2.0], &[false, true]).unwrap());
    assert_eq!(dead.survival_at(2.5), Ok(0.0));
    assert_eq!(dead.quantile(0.25), Some(2.0));
    assert_eq!((dead.survival().at(2.0), dead.survival().before(2.0)), (0.0, 1.0));
    assert_eq!((dead.hazard().at(1.5), dead.hazard().at(2.0)), (0.0, 1.0));
}

#[test]
fn a_death_that_ties_with_a_censoring_is_still_followed_then() {
    // Two die and one is censored at 1: of four followed 3/4 are left. Were the deaths to leave first, it would be 1/2.
    let outcome = Outcome::new(&[1.0, 1.0, 1.0, 2.0], &[true, true, false, false]).unwrap();
    assert_eq!(median_follow_up(outcome), Some(2.0));
}
