//! The discrete-time survival likelihood.

use onkos::ops::NllSurvival;
use onkos::ops::nll_survival::{Reduction, risk, survival};
use onkos::{Device, Error, Real, Tape, Tensor, Var};
use proptest::prelude::*;

use crate::golden;
use crate::harness::*;

type Outputs<T> = onkos::Result<Vec<Var<T>>>;

/// The loss as published, padded survival and all, in the type itself: the oracle in f64, plain arithmetic in f32.
fn naive<T: Real>(op: &NllSurvival, logits: &Tensor<T>, bin: &[u32], censored: &[bool]) -> Vec<T> {
    let (one, alpha, eps) = (T::one(), T::of(op.alpha), T::of(op.eps));
    let (_, bins) = logits.matrix();
    let patient = |(b, (&y, &c)): (usize, (&u32, &bool))| {
        let hazard: Vec<T> = logits.host()[b * bins..][..bins].iter().map(|x| one / (one + (-*x).exp())).collect();
        let mut padded = vec![one];
        hazard.iter().for_each(|h| padded.push(*padded.last().expect("starts with one") * (one - *h)));
        let (y, c) = (y as usize, if c { one } else { T::zero() });
        let log = |x: T| x.max(eps).ln();
        let dead = -(one - c) * (log(padded[y]) + log(hazard[y]));
        let alive = -c * log(padded[y + 1]);
        (one - alpha) * (dead + alive) + alpha * dead
    };
    bin.iter().zip(censored).enumerate().map(patient).collect()
}

fn apply<T: Real>(op: NllSurvival, bin: &[u32], censored: &[bool]) -> impl Fn(&Tape<T>, &[Var<T>]) -> Outputs<T> {
    move |tape, v| Ok(vec![op.forward(tape, &v[0], bin, censored)?])
}

fn outcomes(patients: usize, bins: usize) -> (Vec<u32>, Vec<bool>) {
    ((0..patients).map(|b| (b % bins) as u32).collect(), (0..patients).map(|b| b % 3 == 0).collect())
}

fn with(alpha: f64, reduction: Reduction) -> NllSurvival {
    NllSurvival { alpha, reduction, ..NllSurvival::default() }
}

#[test]
fn values_are_as_good_as_plain_arithmetic() {
    for (patients, bins) in [(1, 1), (1, 4), (31, 4), (127, 7), (1025, 20)] {
        for alpha in [0.0, 0.3, 1.0] {
            let (bin, censored) = outcomes(patients, bins);
            let op = with(alpha, Reduction::Sum);
            let single: Tensor<f32> = normal("logits", &[patients, bins]);
            let double: Tensor<f64> = cast(&single);
            let oracle: Vec<f64> = naive(&op, &double, &bin, &censored);
            let plain = naive(&op, &single, &bin, &censored);
            let rows: Vec<f32> = op.losses(&single, &bin, &censored).unwrap().into_iter().map(|x| x as f32).collect();
            let what = format!("{patients}x{bins}, alpha {alpha}");
            assert_as_good_as_plain(&what, &rows, &plain, &oracle);
            let sum = values(apply(op, &bin, &censored), &[single]).remove(0);
            let (plain, oracle) = (plain.into_iter().sum::<f32>(), oracle.into_iter().sum::<f64>());
            assert_as_good_as_plain(&what, sum.host(), &[plain], &[oracle]);
        }
    }
}

#[test]
fn gradients_are_as_good_as_plain_arithmetic() {
    // More patients than one chunk of a device has.
    for (patients, bins) in [(1, 1), (3, 4), (33, 7), (1500, 5)] {
        for (alpha, reduction) in [(0.0, Reduction::Sum), (0.3, Reduction::Mean), (1.0, Reduction::Sum)] {
            let (bin, censored) = outcomes(patients, bins);
            let op = with(alpha, reduction);
            let single: Tensor<f32> = normal("logits", &[patients, bins]);
            let cot = [Tensor::scalar(1.5f32)];
            let (loss, grads) = gradients(apply(op, &bin, &censored), std::slice::from_ref(&single), &cot);
            let divisor = if reduction == Reduction::Mean { patients as f64 } else { 1.0 };
            let oracle = naive_gradient(&op, &cast::<f32, f64>(&single), &bin, &censored, 1.5 / divisor);
            let plain = naive_gradient(&op, &single, &bin, &censored, 1.5 / divisor as f32);
            let what = format!("{patients}x{bins}, {op:?}");
            assert_as_good_as_plain(&what, grads[0].host(), &plain, &oracle);
            let (plain, oracle): (f32, f64) = (
                naive(&op, &single, &bin, &censored).into_iter().sum(),
                naive(&op, &cast::<f32, f64>(&single), &bin, &censored).into_iter().sum(),
            );
            assert_as_good_as_plain(&what, loss[0].host(), &[plain / divisor as f32], &[oracle / divisor]);
        }
    }
}

/// The gradient by the formula of the page, in the type itself, of factors above `eps`.
fn naive_gradient<T: Real>(op: &NllSurvival, logits: &Tensor<T>, bin: &[u32], censored: &[bool], by: T) -> Vec<T> {
    let (_, bins) = logits.matrix();
    let slope = |(i, x): (usize, &T)| {
        let (k, y, c) = ((i % bins) as u32, bin[i / bins], censored[i / bins]);
        let hazard = T::one() / (T::one() + (-*x).exp());
        let weight = if c { T::of(1.0 - op.alpha) } else { T::one() };
        let slope = match k {
            _ if k < y || k == y && c => weight * hazard,
            _ if k == y => -T::one() / (T::one() + x.exp()),
            _ => T::zero(),
        };
        by * slope
    };
    logits.host().iter().enumerate().map(slope).collect()
}

#[test]
fn f32_has_no_slope_below_eps_and_is_nan_where_a_logit_is() {
    let op = with(0.0, Reduction::Sum);
    let one = |logits: [f32; 2], bin: u32, censored: bool| {
        let (bin, logits) = ([bin], [Tensor::new(&[1, 2], logits.to_vec()).unwrap()]);
        let f = apply(op, &bin, std::slice::from_ref(&censored));
        let (loss, grads) = gradients(f, &logits, &[Tensor::scalar(1.0)]);
        (loss[0].host()[0], grads[0].host().to_vec())
    };
    let limit = -(op.eps.ln()) as f32;
    assert_eq!(one([-40.0, 0.0], 0, false), (limit, vec![0.0, 0.0]));
    assert_eq!(one([40.0, 0.0], 0, true), (limit, vec![0.0, 0.0]));
    assert_eq!(one([40.0, 0.0], 1, false).1, [0.0, -0.5]);
    assert!(one([f32::NAN, 0.0], 1, false).0.is_nan() && one([0.0, f32::NAN], 1, true).0.is_nan());
    if matches!(device::<f32>(), Device::Cuda(_)) {
        // There nobody looks at the logits themselves: the loss tells of any, in bins that the patient never saw too.
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(one([0.0, bad], 0, false).0.is_nan() && one([bad, 0.0], 0, true).0.is_nan(), "{bad}");
        }
    }
}

#[test]
fn gradient_matches_finite_differences() {
    let (bin, censored) = outcomes(9, 4);
    for alpha in [0.0, 0.5, 1.0] {
        for reduction in [Reduction::Sum, Reduction::Mean] {
            let op = with(alpha, reduction);
            let logits = [normal("logits", &[9, 4])];
            assert_gradients_match_finite_differences(&format!("{op:?}"), apply(op, &bin, &censored), &logits);
        }
    }
}

fn bins_of(file: &golden::Tensors, y: &str, c: &str) -> (Vec<u32>, Vec<bool>) {
    (file.get(y).iter().map(|&y| y as u32).collect(), file.get(c).iter().map(|&c| c == 1.0).collect())
}

fn tensor(file: &golden::Tensors, name: &str) -> Tensor<f64> {
    Tensor::new(file.shape(name), file.get(name).to_vec()).unwrap()
}

/// README of the golden files: agreement with autograd to 7e-14, relative.
const AGREEMENT: f64 = 7e-14;

/// What the golden loss of a patient is off by itself: it has `1 - h` from a rounded `h`, which is half a unit of 1,
/// relative to what is left. Factors below `eps` are not seen.
fn golden_rounding(logits: &[f64], eps: f64) -> f64 {
    let left = logits.iter().map(|x| 1.0 / (1.0 + x.exp())).filter(|left| *left >= eps);
    left.map(|left| f64::EPSILON / 2.0 / left).sum()
}

#[test]
fn golden_losses_gradients_and_risks_are_met() {
    for name in ["a0", "a05", "extreme", "one_bin"] {
        let file = golden::Tensors::read(&golden::path(&format!("mil/nll_{name}.safetensors")));
        let (bin, censored) = bins_of(&file, "y", "c");
        let op = NllSurvival { alpha: file.text("alpha"), eps: file.text("eps"), reduction: Reduction::Sum };
        let logits = tensor(&file, "h");
        let (_, bins) = logits.matrix();
        let want = file.get("loss_per_sample");
        let slack: Vec<f64> =
            (0..bin.len()).map(|b| golden_rounding(&logits.host()[b * bins..][..bins], op.eps)).collect();
        for (b, got) in op.losses(&logits, &bin, &censored).unwrap().into_iter().enumerate() {
            assert_within(&format!("{name} {b}"), &[got], &want[b..=b], AGREEMENT * want[b].abs().max(1.0) + slack[b]);
        }
        assert_golden(name, &risk(&logits).unwrap(), file.get("risk"), AGREEMENT);
        let (loss, grads) = gradients(apply(op, &bin, &censored), &[logits], &[Tensor::scalar(1.0)]);
        let (want, slack) = (file.get("loss_sum"), slack.iter().sum::<f64>());
        assert_within(name, loss[0].host(), want, AGREEMENT * want[0] + slack);
        assert_golden(name, grads[0].host(), file.get("dh_sum"), AGREEMENT);
    }
}

#[test]
fn published_losses_and_gradients_are_met() {
    let file = golden::Tensors::read(&golden::path("models/nll_loss.safetensors"));
    let (bin, censored) = bins_of(&file, "in.y", "in.c");
    let logits = tensor(&file, "in.logits");
    assert_golden("risk", &risk(&logits).unwrap(), file.get("out.risk"), AGREEMENT);
    assert_golden("survival", survival(&logits).unwrap().host(), file.get("out.survival"), AGREEMENT);
    for percent in [0, 25, 50, 100] {
        for (name, reduction) in [("sum", Reduction::Sum), ("mean", Reduction::Mean)] {
            let op = with(f64::from(percent) / 100.0, reduction);
            let what = format!("alpha{percent}_{name}");
            let rows = file.get(&format!("out.rows_alpha{percent}"));
            assert_golden(&what, &op.losses(&logits, &bin, &censored).unwrap(), rows, AGREEMENT);
            let cot = [Tensor::scalar(1.0)];
            let (loss, grads) = gradients(apply(op, &bin, &censored), std::slice::from_ref(&logits), &cot);
            assert_golden(&what, loss[0].host(), file.get(&format!("out.loss_{what}")), AGREEMENT);
            assert_golden(&what, grads[0].host(), file.get(&format!("grad.logits_{what}")), AGREEMENT);
        }
    }
}

#[test]
fn a_factor_below_eps_costs_its_limit_and_has_no_slope() {
    let limit = -(1e-7f64).ln();
    let loss = |logits: [f64; 2], bin: u32, censored: bool| {
        let f = apply(with(0.0, Reduction::Sum), &[bin], std::slice::from_ref(&censored)).into_gradient(logits);
        (f.0, f.1)
    };
    // Dead in an interval of no hazard: only having lived until then is still pulled at, and that is 1.
    let (value, slope) = loss([-40.0, 0.0], 0, false);
    assert_eq!((value, slope), (limit, vec![0.0, 0.0]));
    // Lived through an interval of sure death, as dead later and as censored.
    let (value, slope) = loss([40.0, 0.0], 1, false);
    assert_eq!(slope, [0.0, -0.5]);
    assert_within("dead later", &[value], &[limit + 2f64.ln()], 8.0 * f64::EPSILON * limit);
    assert_eq!(loss([40.0, 0.0], 0, true), (limit, vec![0.0, 0.0]));
}

/// The loss of one patient and its gradient.
trait IntoGradient {
    fn into_gradient(self, logits: [f64; 2]) -> (f64, Vec<f64>);
}

impl<F: Fn(&Tape<f64>, &[Var<f64>]) -> Outputs<f64>> IntoGradient for F {
    fn into_gradient(self, logits: [f64; 2]) -> (f64, Vec<f64>) {
        let logits = Tensor::new(&[1, 2], logits.to_vec()).unwrap();
        let (loss, grads) = gradients(self, &[logits], &[Tensor::scalar(1.0)]);
        (loss[0].host()[0], grads[0].host().to_vec())
    }
}

proptest! {
    #[test]
    fn a_higher_logit_is_a_higher_risk(logits in prop::collection::vec(-5.0..5.0f64, 4), k in 0..4usize) {
        let mut worse = logits.clone();
        worse[k] += 0.1;
        let of = |x: Vec<f64>| risk(&Tensor::new(&[1, 4], x).unwrap()).unwrap()[0];
        let (before, after) = (of(logits), of(worse));
        prop_assert!(-4.0 <= before && before < after && after <= 0.0);
    }
}

#[test]
fn survival_only_falls_and_starts_anew_for_each_patient() {
    let logits: Tensor<f32> = normal("logits", &[50, 6]);
    let s = survival(&logits).unwrap();
    for (row, logit) in s.host().chunks_exact(6).zip(logits.host().chunks_exact(6)) {
        let first = 1.0 / (1.0 + f64::from(logit[0]).exp());
        assert_within("first", &row[..1], &[first], 4.0 * f64::EPSILON);
        assert!(row.windows(2).all(|pair| pair[1] < pair[0] && pair[1] > 0.0));
    }
}

#[test]
fn no_patient_costs_nothing() {
    for reduction in [Reduction::Sum, Reduction::Mean] {
        let none = values(apply::<f32>(with(0.5, reduction), &[], &[]), &[Tensor::zeros(&[0, 4])]);
        assert_eq!(none[0].host(), [0.0]);
    }
}

#[test]
fn a_patient_without_a_number_costs_none_and_leaves_the_others_alone() {
    let mut logits: Tensor<f64> = normal("logits", &[3, 2]);
    logits.host_mut()[2] = f64::NAN;
    let op = with(0.5, Reduction::Sum);
    let losses = op.losses(&logits, &[1, 1, 1], &[false, true, true]).unwrap();
    assert!(losses[0].is_finite() && losses[1].is_nan() && losses[2].is_finite());
}

#[test]
fn settings_and_arguments_out_of_range_are_named() {
    let tape = Tape::<f32>::inference(Device::Cpu);
    let logits = Var::constant(Tensor::zeros(&[2, 4]));
    let op = NllSurvival::default();
    let error = op.forward(&tape, &logits, &[0, 4], &[true, true]).unwrap_err().to_string();
    assert_eq!(error, "nll_survival: bin must be below the number of columns of logits, but bin[1] is 4");
    let error = op.forward(&tape, &logits, &[0, 1], &[true]).unwrap_err();
    assert!(matches!(error, Error::Shape { arg: "censored", .. }));
    let flat = Var::constant(Tensor::zeros(&[8]));
    assert!(matches!(op.forward(&tape, &flat, &[], &[]).unwrap_err(), Error::Shape { arg: "logits", .. }));
    for (op, name) in [
        (NllSurvival { alpha: 1.5, ..op }, "nll_survival.alpha"),
        (NllSurvival { eps: 0.0, ..op }, "nll_survival.eps"),
        (NllSurvival { eps: f64::NAN, ..op }, "nll_survival.eps"),
    ] {
        let error = op.forward(&tape, &logits, &[0, 1], &[true, true]).unwrap_err();
        assert!(matches!(error, Error::Setting { name: n, .. } if n == name));
    }
}
