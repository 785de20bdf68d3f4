//! The Cox partial likelihood.

use onkos::ops::Cox;
use onkos::ops::cox::{Normalisation, Outcomes, Plan, Ties};
use onkos::{Device, Error, Real, Tape, Tensor, Var};
use proptest::prelude::*;

use crate::harness::*;

#[path = "cox_golden.rs"]
mod cox_golden;

type Outputs<T> = onkos::Result<Vec<Var<T>>>;

const TIES: [Ties; 2] = [Ties::Breslow, Ties::Efron];

/// Outcomes that own their numbers.
#[derive(Clone, Debug, Default)]
struct Cohort {
    time: Vec<f64>,
    event: Vec<bool>,
    eta: Vec<f64>,
    weight: Option<Vec<f64>>,
    strata: Option<Vec<u32>>,
    entry: Option<Vec<f64>>,
}

impl Cohort {
    fn outcomes(&self) -> Outcomes<'_> {
        Outcomes {
            time: &self.time,
            event: &self.event,
            weight: self.weight.as_deref(),
            strata: self.strata.as_deref(),
            entry: self.entry.as_deref(),
        }
    }

    fn plan(&self) -> Plan {
        Plan::new(&self.outcomes()).expect("the outcomes of the test are valid")
    }

    fn sum(&self, ties: Ties) -> (f64, Vec<f64>) {
        sum(ties).loss_and_gradient(&self.plan(), &self.eta).expect("the log risks of the test are valid")
    }

    /// The patients of the given indices, in their order.
    fn choose(&self, of: &[usize]) -> Cohort {
        fn pick<T: Copy>(of: &[usize], from: &[T]) -> Vec<T> {
            of.iter().map(|&i| from[i]).collect()
        }
        Cohort {
            time: pick(of, &self.time),
            event: pick(of, &self.event),
            eta: pick(of, &self.eta),
            weight: self.weight.as_deref().map(|x| pick(of, x)),
            strata: self.strata.as_deref().map(|x| pick(of, x)),
            entry: self.entry.as_deref().map(|x| pick(of, x)),
        }
    }

    fn weight(&self, i: usize) -> f64 {
        self.weight.as_ref().map_or(1.0, |w| w[i])
    }

    fn at_risk(&self, j: usize, dead: usize) -> bool {
        let stratum = |i: usize| self.strata.as_ref().map_or(0, |s| s[i]);
        let entered = self.entry.as_ref().is_none_or(|entry| entry[j] < self.time[dead]);
        self.weight(j) > 0.0 && stratum(j) == stratum(dead) && entered && self.time[j] >= self.time[dead]
    }

    fn deaths(&self) -> Vec<usize> {
        (0..self.time.len()).filter(|&i| self.event[i] && self.weight(i) > 0.0).collect()
    }
}

fn sum(ties: Ties) -> Cox {
    Cox { ties, normalisation: Normalisation::Sum }
}

/// The formula with a loop over patients for each death, in the type itself: the oracle in f64, plain arithmetic in
/// f32. Loss, gradient, and the sizes of the terms that the loss was added up from.
fn naive<T: Real>(ties: Ties, cohort: &Cohort, eta: &[T]) -> (T, Vec<T>, T) {
    let w = |i: usize| T::of(cohort.weight(i));
    let risk = |i: usize| w(i) * eta[i].exp();
    let (mut loss, mut size, mut grad) = (T::zero(), T::zero(), vec![T::zero(); eta.len()]);
    let mut add = |term: T, most: T| {
        loss += term;
        size += most;
    };
    for i in cohort.deaths() {
        let at_risk: Vec<usize> = (0..eta.len()).filter(|&j| cohort.at_risk(j, i)).collect();
        let tied = |j: usize| cohort.event[j] && cohort.time[j] == cohort.time[i];
        let dead: Vec<usize> = at_risk.iter().copied().filter(|&j| tied(j)).collect();
        let d = T::of(dead.len() as f64);
        // The k-th of the deaths stands for the k-th term of Efron.
        let (gone, weight) = match ties {
            Ties::Breslow => (T::zero(), w(i)),
            Ties::Efron => {
                let k = dead.iter().position(|&j| j == i).expect("a death is at risk at its time");
                (T::of(k as f64) / d, dead.iter().map(|&j| w(j)).sum::<T>() / d)
            }
        };
        let here = |j: usize| risk(j) * if tied(j) { T::one() - gone } else { T::one() };
        let total: T = at_risk.iter().map(|&j| here(j)).sum();
        // What rounds a sum, relative to it, moves its logarithm as far: by as much where that is near 0 as elsewhere.
        add(weight * total.ln(), weight * (T::one() + total.ln().abs()));
        add(-w(i) * eta[i], w(i) * eta[i].abs());
        at_risk.iter().for_each(|&j| grad[j] += weight * here(j) / total);
        grad[i] -= w(i);
    }
    (loss, grad, size)
}

/// What sums of `n` terms may be off by, relative to the sizes of the terms: half a unit in the last place for each
/// addition, and as much for each of the about eight operations that make a term.
fn rounding(n: usize) -> f64 {
    (n + 8) as f64 * f64::EPSILON
}

/// Small cohorts with many ties, and everything that an outcome can have. Log risks are multiples of 1/1024, so that
/// adding a whole number to them is exact.
fn cohorts() -> impl Strategy<Value = Cohort> {
    let patient = (
        (0..12i32, any::<bool>(), -4096..4096i32),
        (prop::sample::select(vec![0.0, 0.25, 1.0, 2.5]), 0..3u32, prop::sample::select(vec![0.5, 1.0, 3.0, 20.0])),
    );
    let has = (any::<bool>(), any::<bool>(), any::<bool>());
    (prop::collection::vec(patient, 0..40), has).prop_map(|(patients, (weighted, stratified, truncated))| {
        let time: Vec<f64> = patients.iter().map(|p| f64::from(p.0.0)).collect();
        let entry = time.iter().zip(&patients).map(|(time, p)| time - p.1.2).collect();
        Cohort {
            event: patients.iter().map(|p| p.0.1).collect(),
            eta: patients.iter().map(|p| f64::from(p.0.2) / 1024.0).collect(),
            weight: weighted.then(|| patients.iter().map(|p| p.1.0).collect()),
            strata: stratified.then(|| patients.iter().map(|p| p.1.1).collect()),
            entry: truncated.then_some(entry),
            time,
        }
    })
}

proptest! {
    // Each case is a few launches, which take long on an emulated device.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn late_entry_strata_and_weights_in_f32_round_what_f64_gives(cohort in cohorts()) {
        for ties in TIES {
            let ((want, want_gradient), (loss, gradient)) = (cohort.sum(ties), single(sum(ties), &cohort, 1.0));
            let (n, ulp) = (cohort.time.len(), f64::from(f32::EPSILON));
            let size = naive(ties, &cohort, &cohort.eta).2;
            assert_within("loss", &[loss], &[want], ulp * want.abs() + 2.0 * rounding(n) * size);
            let most = want_gradient.iter().fold(0f64, |m, g| m.max(g.abs()));
            let terms = 2.0 * cohort.plan().event_weight();
            assert_within("gradient", &gradient, &want_gradient, ulp * most + 2.0 * rounding(n) * terms);
        }
    }
}

proptest! {
    #[test]
    fn loss_and_gradient_are_those_of_the_formula(cohort in cohorts()) {
        for ties in TIES {
            let (loss, gradient) = cohort.sum(ties);
            let (want, want_gradient, size) = naive(ties, &cohort, &cohort.eta);
            let n = cohort.time.len();
            assert_within("loss", &[loss], &[want], 2.0 * rounding(n) * size);
            let terms = 2.0 * cohort.plan().event_weight();
            assert_within("gradient", &gradient, &want_gradient, 2.0 * rounding(n) * terms);
        }
    }

    #[test]
    fn events_and_pairs_are_those_of_a_count(cohort in cohorts()) {
        let deaths = cohort.deaths();
        let others = |&i: &usize| (0..cohort.time.len()).filter(|&j| j != i && cohort.at_risk(j, i)).count();
        let plan = cohort.plan();
        prop_assert_eq!(plan.events(), deaths.len());
        prop_assert_eq!(plan.pairs(), deaths.iter().map(others).sum::<usize>() as u64);
        prop_assert_eq!(plan.len(), cohort.time.len());
    }

    #[test]
    fn gradient_sums_to_zero(cohort in cohorts()) {
        for ties in TIES {
            let (_, gradient) = cohort.sum(ties);
            let total: f64 = gradient.iter().sum();
            prop_assert!(total.abs() <= 2.0 * rounding(gradient.len()) * 2.0 * cohort.plan().event_weight());
        }
    }

    #[test]
    fn a_common_shift_of_the_log_risks_changes_no_bit(cohort in cohorts(), shift in -800..800i32) {
        let mut shifted = cohort.clone();
        shifted.eta.iter_mut().for_each(|eta| *eta += f64::from(shift));
        for ties in TIES {
            prop_assert_eq!(cohort.sum(ties), shifted.sum(ties));
        }
    }

    #[test]
    fn only_the_order_of_times_counts(cohort in cohorts()) {
        let mut warped = cohort.clone();
        // Entries may be negative; e^x keeps any order, and the result is positive.
        let warp = |x: &mut f64| *x = (*x / 4.0).exp();
        warped.time.iter_mut().for_each(warp);
        warped.entry.iter_mut().flatten().for_each(warp);
        for ties in TIES {
            prop_assert_eq!(cohort.sum(ties), warped.sum(ties));
        }
    }

    #[test]
    fn the_order_of_patients_does_not_count(cohort in cohorts(), by in 1..7usize) {
        let n = cohort.time.len();
        // Reversed and turned.
        let order: Vec<usize> = (0..n).map(|i| n - 1 - (i + by) % n).collect();
        for ties in TIES {
            let ((loss, gradient), (moved_loss, moved)) = (cohort.sum(ties), cohort.choose(&order).sum(ties));
            let size = naive(ties, &cohort, &cohort.eta).2;
            assert_within("loss", &[moved_loss], &[loss], 2.0 * rounding(n) * size);
            let want: Vec<f64> = order.iter().map(|&i| gradient[i]).collect();
            assert_within("gradient", &moved, &want, 4.0 * rounding(n) * cohort.plan().event_weight());
        }
    }

    #[test]
    fn strata_are_separate_losses(cohort in cohorts()) {
        let Some(strata) = &cohort.strata else { return Ok(()) };
        for ties in TIES {
            let (loss, gradient) = cohort.sum(ties);
            let (mut sum, mut want) = (0.0, vec![0.0; gradient.len()]);
            for label in 0..3 {
                let of: Vec<usize> = (0..strata.len()).filter(|&i| strata[i] == label).collect();
                let part = Cohort { strata: None, ..cohort.choose(&of) };
                let (loss, gradient) = part.sum(ties);
                sum += loss;
                of.iter().zip(gradient).for_each(|(&i, g)| want[i] = g);
            }
            assert_within("loss", &[loss], &[sum], rounding(want.len()) * naive(ties, &cohort, &cohort.eta).2);
            // A tree over more moments adds up in another order.
            assert_within("gradient", &gradient, &want, 4.0 * rounding(want.len()) * cohort.plan().event_weight());
        }
    }

    #[test]
    fn weight_zero_is_the_same_as_absence(cohort in cohorts()) {
        let of: Vec<usize> = (0..cohort.time.len()).filter(|&i| cohort.weight(i) > 0.0).collect();
        for ties in TIES {
            let ((loss, gradient), (want, rest)) = (cohort.sum(ties), cohort.choose(&of).sum(ties));
            prop_assert_eq!(loss, want);
            let mut padded = vec![0.0; gradient.len()];
            of.iter().zip(rest).for_each(|(&i, g)| padded[i] = g);
            prop_assert_eq!(gradient, padded);
        }
    }

    #[test]
    fn a_whole_weight_is_as_many_copies_under_breslow(cohort in cohorts(), copies in prop::collection::vec(1..4usize, 40)) {
        let once = Cohort { weight: None, ..cohort };
        let n = once.time.len();
        let of: Vec<usize> = (0..n).flat_map(|i| vec![i; copies[i]]).collect();
        let weight = copies[..n].iter().map(|&c| c as f64).collect();
        let (want, _, size) = naive(Ties::Breslow, &once.choose(&of), &once.choose(&of).eta);
        let (loss, _) = Cohort { weight: Some(weight), ..once }.sum(Ties::Breslow);
        assert_within("loss", &[loss], &[want], 2.0 * rounding(of.len()) * size);
    }

    #[test]
    fn who_is_censored_before_the_first_death_has_no_effect(cohort in cohorts(), eta in -800.0..800.0) {
        let mut more = cohort.clone();
        // All times move on by one; the new patient leaves before any of them.
        more.time.iter_mut().chain(more.entry.iter_mut().flatten()).for_each(|t| *t += 1.0);
        more.time.push(0.5);
        more.event.push(false);
        more.eta.push(eta);
        more.weight.iter_mut().for_each(|w| w.push(1.0));
        more.strata.iter_mut().for_each(|s| s.push(0));
        more.entry.iter_mut().for_each(|e| e.push(0.0));
        for ties in TIES {
            let ((loss, mut gradient), (with, gradient_with)) = (cohort.sum(ties), more.sum(ties));
            gradient.push(0.0);
            prop_assert_eq!((loss, gradient), (with, gradient_with));
        }
    }

    #[test]
    fn when_the_last_are_censored_does_not_count(cohort in cohorts(), later in 0.0..100.0) {
        let mut moved = cohort.clone();
        let last = cohort.deaths().iter().map(|&i| cohort.time[i]).fold(0.0, f64::max);
        for i in 0..moved.time.len() {
            if !moved.event[i] && moved.time[i] >= last {
                moved.time[i] += later;
            }
        }
        for ties in TIES {
            prop_assert_eq!(cohort.sum(ties), moved.sum(ties));
        }
    }

    #[test]
    fn the_baseline_charges_in_total_what_was_lost(cohort in cohorts()) {
        // Under Breslow the sum of w_i e^eta_i (H(time_i) - H(entry_i)) is the weight of the deaths.
        let plan = cohort.plan();
        let strata = sum(Ties::Breslow).baseline(&plan, &cohort.eta).unwrap();
        let charged = |i: usize| {
            let label = cohort.strata.as_ref().map_or(0, |s| s[i]);
            let hazard = strata.iter().find(|b| b.stratum == label).expect("each label has a baseline");
            let before = cohort.entry.as_ref().map_or(0.0, |entry| hazard.cumulative(entry[i]));
            cohort.weight(i) * cohort.eta[i].exp() * (hazard.cumulative(cohort.time[i]) - before)
        };
        let size: f64 = (0..cohort.time.len())
            .map(|i| cohort.weight(i) * cohort.eta[i].exp() * strata.iter().map(|b| b.cumulative(1e9)).sum::<f64>())
            .sum();
        let total: f64 = (0..cohort.time.len()).map(charged).sum();
        assert_within("charged", &[total], &[plan.event_weight()], 2.0 * rounding(cohort.time.len()) * size);
    }
}

/// A cohort for tests of precision: ties, censoring, and log risks that f32 holds exactly.
fn cohort(n: usize) -> Cohort {
    let draw: Tensor<f64> = normal("time", &[n]);
    let eta: Tensor<f64> = normal("eta", &[n]);
    let time: Vec<f64> = draw.host().iter().map(|x| (x.abs() * 8.0).ceil()).collect();
    Cohort { event: (0..n).map(|i| i % 3 != 0).collect(), eta: eta.host().to_vec(), time, ..Cohort::default() }
}

fn apply<T: Real>(cox: Cox, plan: &Plan) -> impl Fn(&Tape<T>, &[Var<T>]) -> Outputs<T> {
    move |tape, v| Ok(vec![cox.forward(tape, &v[0], plan)?])
}

#[test]
fn f32_is_as_good_as_plain_arithmetic() {
    for n in [1, 2, 31, 32, 33, 127, 1025] {
        for ties in TIES {
            let cohort = cohort(n);
            let single = Tensor::<f32>::from_fn(&[n, 1], |i| cohort.eta[i] as f32);
            let cot = [Tensor::scalar(1f32)];
            let (out, grads) = gradients(apply(sum(ties), &cohort.plan()), std::slice::from_ref(&single), &cot);
            let (plain, plain_gradient, _) = naive(ties, &cohort, single.host());
            let (oracle, gradient, _) = naive(ties, &cohort, &cohort.eta);
            let what = format!("{ties:?} {n}");
            assert_as_good_as_plain(&what, out[0].host(), &[plain], &[oracle]);
            assert_as_good_as_plain(&what, grads[0].host(), &plain_gradient, &gradient);
            assert_eq!(grads[0].shape(), [n, 1]);
        }
    }
}

/// Loss and gradient in f32 on the device under test, for a loss that is owed `grad`.
fn single(cox: Cox, cohort: &Cohort, grad: f32) -> (f32, Vec<f32>) {
    let eta = Tensor::<f32>::from_fn(&[cohort.eta.len()], |i| cohort.eta[i] as f32);
    let (out, grads) = gradients(apply(cox, &cohort.plan()), &[eta], &[Tensor::scalar(grad)]);
    (out[0].host()[0], grads[0].host().to_vec())
}

/// What f32 may be off by where plain arithmetic in it overflows: sums in f64 are rounded once, the gradient once more by
/// what the loss is owed.
#[track_caller]
fn assert_rounded(what: &str, cox: Cox, cohort: &Cohort) {
    let (want, gradient) = cox.loss_and_gradient(&cohort.plan(), &cohort.eta).unwrap();
    let grad = 3.0;
    let (loss, got) = single(cox, cohort, grad as f32);
    let ulp = f64::from(f32::EPSILON);
    // The terms of the loss may be larger than their sum.
    let n = cohort.eta.len();
    let largest = cohort.eta.iter().fold(1f64, |m, x| m.max(x.abs())) * n as f64;
    assert_within(what, &[loss], &[want], ulp * want.abs() + rounding(n) * largest);
    let gradient: Vec<f64> = gradient.iter().map(|g| grad * g).collect();
    let most = gradient.iter().fold(cohort.plan().event_weight() * rounding(n), |m, g| m.max(g.abs()));
    assert_within(what, &got, &gradient, 2.0 * ulp * most);
}

#[test]
fn f32_rounds_what_f64_gives_with_strata_weights_and_ties() {
    // The last is more than one block takes: tiles of a risk set, and of deaths at one time, that others go on with.
    for n in [0, 1, 33, 700, 5000, 14_500] {
        let mut cohort = cohort(n);
        for (strata, weights, ties_of) in [(1, false, 0), (3, true, 0), (2, true, 4000)] {
            cohort.strata = (strata > 1).then(|| (0..n as u32).map(|i| i * 7 % 11 % strata).collect());
            cohort.weight = weights.then(|| (0..n).map(|i| [0.0, 0.25, 1.0, 3.0][i % 4]).collect());
            // Thousands at one time, of whom two in three die.
            (0..n.min(ties_of)).for_each(|i| cohort.time[i] = 2.0);
            for ties in TIES {
                for normalisation in [Normalisation::Sum, Normalisation::PerEvent] {
                    let what = format!("{n} {ties:?} {strata} strata, weights {weights}, {ties_of} at one time");
                    assert_rounded(&what, Cox { ties, normalisation }, &cohort);
                }
            }
        }
    }
}

#[test]
fn f32_at_the_ends_of_tiles() {
    // Deaths and their ties that begin and end where the runs of threads, the tiles of the one block, and those of many do.
    for (n, ends) in [(4700, [9, 288, 4608, 4609]), (14_000, [2304, 2305, 4608, 13_824])] {
        let mut cohort = cohort(n);
        for end in ends {
            // Later is earlier in the order of risk sets.
            cohort.time = (0..n).map(|i| if i < end { 7.0 } else { 3.0 - (i - end).min(2) as f64 }).collect();
            cohort.event = (0..n).map(|i| i >= end || i % 2 == 0 && end % 2 == 0).collect();
            TIES.iter().for_each(|&ties| assert_rounded(&format!("{n} {ties:?} {end}"), sum(ties), &cohort));
        }
    }
}

#[test]
fn f32_with_log_risks_from_end_to_end_of_its_range() {
    let n = 300;
    let mut cohort = cohort(n);
    let event = cohort.event.clone();
    for large in [80.0, 800.0, 1e6, 1e12] {
        // Large and small ones early and late, so that each sort is alone in some risk sets.
        cohort.eta = (0..n).map(|i| f64::from((large * [0.0, 1.0, -1.0, 0.5][i % 4]) as f32)).collect();
        cohort.event.clone_from(&event);
        TIES.iter().for_each(|&ties| assert_rounded(&format!("{ties:?} {large}"), sum(ties), &cohort));
        cohort.event = (0..n).map(|i| i % 4 == 2 || i == 7).collect();
        TIES.iter().for_each(|&ties| assert_rounded(&format!("{ties:?} {large}, the safest die"), sum(ties), &cohort));
    }
}

#[test]
fn f32_where_nobody_or_everybody_dies_or_all_at_once() {
    for n in [1, 40, 14_000] {
        let mut cohort = cohort(n);
        for (what, event, time) in [
            ("nobody dies", false, None),
            ("everybody dies", true, None),
            ("all at one time", true, Some(3.0)),
            ("all censored at one time", false, Some(3.0)),
        ] {
            cohort.event = vec![event; n];
            if let Some(time) = time {
                cohort.time = vec![time; n];
            }
            TIES.iter().for_each(|&ties| assert_rounded(&format!("{n}: {what}, {ties:?}"), sum(ties), &cohort));
        }
    }
}

/// A cohort of whom most enter after the first death, some of them after many, and some were there from the start.
fn late(n: usize) -> Cohort {
    let mut cohort = cohort(n);
    // A third of the times between the others: moments with few deaths, and moments with many.
    cohort.time.iter_mut().enumerate().for_each(|(i, time)| *time += [0.0, 0.0, (i % 4) as f64 / 4.0][i / 4 % 3]);
    cohort.entry = Some(cohort.time.iter().enumerate().map(|(i, t)| t - [0.5, 1.0, 4.0, 30.0][i % 4]).collect());
    cohort
}

#[test]
fn late_entry_in_f32_rounds_what_f64_gives() {
    // With many at one time a node of the tree has more members, and a moment more deaths, than threads for them.
    for n in [2, 33, 129, 2000] {
        let mut cohort = late(n);
        for (strata, weights, ties_of) in [(1, false, 0), (3, true, 0), (2, true, 1500)] {
            cohort.strata = (strata > 1).then(|| (0..n as u32).map(|i| i * 7 % 11 % strata).collect());
            cohort.weight = weights.then(|| (0..n).map(|i| [0.0, 0.25, 1.0, 3.0][i % 4]).collect());
            for i in 0..n.min(ties_of) {
                cohort.time[i] = 31.0;
                cohort.entry.as_mut().expect("they enter late")[i] = [0.0, 2.0, 30.0][i % 3];
            }
            for ties in TIES {
                for normalisation in [Normalisation::Sum, Normalisation::PerEvent] {
                    let what = format!("{n} {ties:?} {strata} strata, weights {weights}, {ties_of} at one time");
                    assert_rounded(&what, Cox { ties, normalisation }, &cohort);
                }
            }
        }
    }
}

#[test]
fn late_entry_of_large_risks_in_f32_takes_no_digit_from_the_others() {
    for large in [80.0, 800.0, 1e12] {
        let mut cohort = late(300);
        cohort.eta = (0..300).map(|i| f64::from((large * [0.0, 1.0, -1.0, 0.5][i / 5 % 4]) as f32)).collect();
        TIES.iter().for_each(|&ties| assert_rounded(&format!("{ties:?} {large}"), sum(ties), &cohort));
        // The large ones enter just before they die, among others who survive them.
        for i in (0..300).filter(|i| i / 5 % 4 == 1) {
            cohort.event[i] = true;
            cohort.entry.as_mut().expect("they enter late")[i] = cohort.time[i] - 0.125;
        }
        TIES.iter().for_each(|&ties| assert_rounded(&format!("{ties:?} {large}, alone"), sum(ties), &cohort));
    }
    // The first leaves before, the last enters after the others die: each is alone at the own death.
    let cohort = Cohort {
        time: vec![1.0, 3.0, 4.0, 5.0, 7.0],
        event: vec![true; 5],
        eta: vec![800.0, 0.25, -0.5, 0.125, 800.0],
        entry: Some(vec![0.0, 1.0, 1.0, 2.0, 6.0]),
        ..Cohort::default()
    };
    for ties in TIES {
        let (_, gradient) = single(sum(ties), &cohort, 1.0);
        let (_, want) = cohort.choose(&[1, 2, 3]).sum(ties);
        assert_within("gradient", &gradient[1..4], &want, f64::from(f32::EPSILON));
        assert_eq!((gradient[0], gradient[4]), (0.0, 0.0));
    }
}

#[test]
fn f32_has_the_same_bits_every_time() {
    let n = 14_500;
    let mut cohort = cohort(n);
    cohort.strata = Some((0..n as u32).map(|i| i % 2).collect());
    let bits = |(loss, grad): (f32, Vec<f32>)| (loss.to_bits(), grad.into_iter().map(f32::to_bits).collect::<Vec<_>>());
    for cohort in [cohort, late(1000)] {
        for ties in TIES {
            assert_eq!(bits(single(sum(ties), &cohort, 1.0)), bits(single(sum(ties), &cohort, 1.0)));
        }
    }
}

/// A log risk that is not finite, of patient `who` of `n`: the first is censored before anybody dies, the last outlives all.
#[track_caller]
fn assert_refused_or_nan(n: usize, who: usize, entry: Option<Vec<f64>>) {
    let outcomes = Cohort {
        time: (0..n).map(|i| i as f64).collect(),
        event: (0..n).map(|i| i > 0 && i + 1 < n).collect(),
        eta: vec![0.5; n],
        entry,
        ..Cohort::default()
    };
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut eta = Tensor::<f32>::full(&[n], 0.5);
        eta.host_mut()[who] = bad;
        let tape = Tape::inference(device::<f32>());
        let loss = Cox::default().forward(&tape, &Var::constant(placed(&eta)), &outcomes.plan());
        match device::<f32>() {
            Device::Cpu => {
                assert!(matches!(loss, Err(Error::Value { arg: "log_risk", index, .. }) if index == who));
            }
            Device::Cuda(_) => {
                let loss = loss.unwrap().value().read().unwrap()[0];
                assert!(loss.is_nan(), "{bad} of patient {who} of {n} gives {loss}");
            }
        }
    }
}

#[test]
fn a_log_risk_that_is_not_finite_is_refused_or_makes_the_loss_nan() {
    for (n, who) in [(5, 0), (5, 2), (5, 4), (14_000, 0), (14_000, 13_999)] {
        assert_refused_or_nan(n, who, None);
    }
}

#[test]
fn late_entry_with_a_log_risk_that_is_not_finite_is_refused_or_makes_the_loss_nan() {
    for (n, who) in [(5, 0), (5, 2), (5, 4), (300, 0), (300, 299)] {
        assert_refused_or_nan(n, who, Some((0..n).map(|i| i as f64 - 1.5).collect()));
    }
}

#[test]
fn gradient_matches_finite_differences() {
    let n = 12;
    let mut cohort = cohort(n);
    for (strata, entry) in [(false, false), (true, false), (true, true)] {
        cohort.strata = strata.then(|| (0..n as u32).map(|i| i % 2).collect());
        cohort.entry =
            entry.then(|| cohort.time.iter().enumerate().map(|(i, t)| t - [1.0, 4.0, 30.0][i % 3]).collect());
        cohort.weight = Some((0..n).map(|i| [0.5, 1.0, 3.0][i % 3]).collect());
        for ties in TIES {
            for normalisation in [Normalisation::Sum, Normalisation::PerEvent] {
                let (cox, eta) = (Cox { ties, normalisation }, Tensor::new(&[n], cohort.eta.clone()).unwrap());
                let what = format!("{cox:?} strata {strata} entry {entry}");
                assert_gradients_match_finite_differences(&what, apply(cox, &cohort.plan()), &[eta]);
            }
        }
    }
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    // More patients than one task takes, and more times of death.
    let mut cohort = cohort(40_000);
    cohort.time.iter_mut().enumerate().for_each(|(i, time)| *time += (i % 9000) as f64);
    assert_same_on_any_number_of_threads(|| (cohort.plan(), TIES.map(|ties| cohort.sum(ties))));
}

#[test]
fn nobody_dying_and_one_patient_alone_teach_nothing() {
    for ties in TIES {
        for (time, event) in [(vec![], vec![]), (vec![3.0], vec![true]), (vec![1.0, 2.0], vec![false, false])] {
            let cohort = Cohort { eta: vec![0.7; time.len()], time, event, ..Cohort::default() };
            assert_eq!(cohort.plan().pairs(), 0);
            for normalisation in [Normalisation::Sum, Normalisation::PerEvent] {
                let cox = Cox { ties, normalisation };
                let (loss, gradient) = cox.loss_and_gradient(&cohort.plan(), &cohort.eta).unwrap();
                assert_eq!((loss, gradient), (0.0, vec![0.0; cohort.time.len()]));
            }
        }
    }
}

#[test]
fn a_large_risk_that_enters_late_or_leaves_early_takes_no_digit_from_the_others() {
    // The first leaves before, the last enters after the others die: each is alone at the own death.
    let eta = [800.0, 0.25, -0.5, 0.125, 800.0];
    let outcomes = Cohort {
        time: vec![1.0, 3.0, 4.0, 5.0, 7.0],
        event: vec![true; 5],
        eta: eta.to_vec(),
        entry: Some(vec![0.0, 1.0, 1.0, 2.0, 6.0]),
        ..Cohort::default()
    };
    let inner = outcomes.choose(&[1, 2, 3]);
    for ties in TIES {
        let ((loss, gradient), (want, others)) = (outcomes.sum(ties), inner.sum(ties));
        let size = naive(ties, &inner, &inner.eta).2;
        assert_within("loss", &[loss], &[want], rounding(5) * size);
        assert_within("gradient", &gradient[1..4], &others, 2.0 * rounding(5) * 3.0);
        assert_eq!((gradient[0], gradient[4]), (0.0, 0.0));
    }
}

#[test]
fn per_event_divides_by_the_weight_of_the_deaths() {
    let mut cohort = cohort(40);
    for weight in [None, Some(vec![2.0; 40])] {
        cohort.weight = weight;
        let plan = cohort.plan();
        let (sum, gradient) = cohort.sum(Ties::Efron);
        let (mean, mean_gradient) = Cox::default().loss_and_gradient(&plan, &cohort.eta).unwrap();
        let weight = cohort.deaths().iter().map(|&i| cohort.weight(i)).sum::<f64>();
        assert_eq!(mean, sum / weight);
        assert!(mean_gradient.iter().zip(gradient).all(|(m, g)| *m == g / weight));
    }
}

#[test]
fn equal_risks_give_the_nelson_aalen_hazard_as_steps() {
    let cohort = Cohort {
        time: vec![2.0, 4.0, 4.0, 5.0, 9.0],
        event: vec![true, true, false, false, true],
        eta: vec![0.0; 5],
        ..Cohort::default()
    };
    let baseline = &Cox::default().baseline(&cohort.plan(), &cohort.eta).unwrap()[0];
    let hazards = [(1.9, 0.0), (2.0, 0.2), (3.9, 0.2), (4.0, 0.45), (8.0, 0.45), (9.0, 1.45), (1e9, 1.45)];
    for (time, want) in hazards {
        assert_within(&format!("at {time}"), &[baseline.cumulative(time)], &[want], rounding(5));
        let survival = (-want * 0.5f64.exp()).exp();
        assert_within(&format!("survival at {time}"), &[baseline.survival(time, 0.5)], &[survival], rounding(5));
    }
    assert_eq!((baseline.survival(1.0, 800.0), baseline.survival(4.0, 800.0)), (1.0, 0.0));
    assert_eq!(baseline.survival(9.0, -800.0), 1.0);
}

#[test]
fn a_baseline_far_from_zero_still_gives_probabilities() {
    // Everybody at a log risk near 800: the hazard itself is no f64, the probabilities are those of a shift to 0.
    let near = cohort(50);
    let far = Cohort { eta: near.eta.iter().map(|eta| eta + 1024.0).collect(), ..near.clone() };
    let of = |c: &Cohort| Cox::default().baseline(&c.plan(), &c.eta).unwrap().remove(0);
    let (near_base, far_base) = (of(&near), of(&far));
    for i in 0..50 {
        let (want, got) = (near_base.survival(5.0, near.eta[i]), far_base.survival(5.0, far.eta[i]));
        // 1024 + eta is rounded to 1024 eps, in the log risks and in the logarithm of the hazard.
        assert_within("survival", &[got], &[want], 4.0 * 1024.0 * f64::EPSILON);
    }
}

#[test]
fn outcomes_and_log_risks_that_make_no_sense_are_named() {
    let plan = |o: Outcomes<'_>| Plan::new(&o).unwrap_err().to_string();
    let (time, event) = ([1.0, 2.0], [true, false]);
    let good = Outcomes::new(&time, &event);
    let error = plan(Outcomes::new(&[1.0, -1.0], &event));
    assert_eq!(error, "cox: time must be finite and not negative, but time[1] is -1");
    assert!(plan(Outcomes::new(&[f64::NAN, 1.0], &event)).contains("time[0] is NaN"));
    assert!(plan(Outcomes { weight: Some(&[1.0, -2.0]), ..good }).contains("weight[1] is -2"));
    let error = plan(Outcomes { entry: Some(&[0.0, 2.0]), ..good });
    assert_eq!(error, "cox: entry must be before the time of its patient, but entry[1] is 2");
    assert_eq!(plan(Outcomes::new(&time, &[true])), "cox: event must have shape [2], but has [1]");
    assert!(plan(Outcomes { strata: Some(&[1]), ..good }).contains("strata"));

    let (plan, tape) = (Plan::new(&good).unwrap(), Tape::<f64>::inference(Device::Cpu));
    let error = Cox::default().forward(&tape, &Var::constant(Tensor::zeros(&[1, 2])), &plan).unwrap_err();
    assert_eq!(error.to_string(), "cox: log_risk must have shape [2] or [2, 1], but has [1, 2]");
    let nan = Var::constant(Tensor::new(&[2], vec![0.0, f64::NAN]).unwrap());
    let error = Cox::default().forward(&tape, &nan, &plan).unwrap_err();
    assert!(matches!(error, Error::Value { arg: "log_risk", index: 1, .. }));
    assert!(Cox::default().loss_and_gradient(&plan, &[0.0]).is_err());
}
