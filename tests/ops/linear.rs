//! The fully connected layer.

use half::{bf16, f16};
use onkos::ops::{Activation, Linear};
use onkos::{Device, Error, Features, Real, Tape, Tensor, Var};

use crate::harness::*;

/// The formula, with sums in the type itself: the oracle in f64, plain arithmetic in f32.
fn naive<T: Real>(f: Activation, x: &Tensor<T>, w: &Tensor<T>, b: &Tensor<T>) -> Tensor<T> {
    let ((n, i), o) = (x.matrix(), b.len());
    let (x, w, b) = (x.host(), w.host(), b.host());
    Tensor::from_fn(&[n, o], |at| {
        let (row, out) = (at / o, at % o);
        f.value((0..i).map(|k| x[row * i + k] * w[out * i + k]).sum::<T>() + b[out])
    })
}

fn inputs<T: Real>(n: usize, i: usize, o: usize) -> Vec<Tensor<T>> {
    vec![normal("x", &[n, i]), normal("weight", &[o, i]), normal("bias", &[o])]
}

fn apply<T: Real>(f: Activation) -> impl Fn(&Tape<T>, &[Var<T>]) -> onkos::Result<Vec<Var<T>>> {
    move |tape, v| Ok(vec![Linear { activation: f }.forward(tape, &v[0], &v[1], v.get(2))?])
}

const SHAPES: [(usize, usize, usize); 7] =
    [(0, 3, 2), (1, 1, 1), (31, 5, 3), (33, 17, 9), (127, 64, 32), (257, 33, 1), (1025, 130, 7)];

#[test]
fn values_are_as_good_as_plain_arithmetic() {
    for f in Activation::ALL {
        for (n, i, o) in SHAPES {
            let single = inputs::<f32>(n, i, o);
            let double: Vec<Tensor<f64>> = single.iter().map(cast).collect();
            let oracle = naive(f, &double[0], &double[1], &double[2]);
            let plain = naive(f, &single[0], &single[1], &single[2]);
            let what = format!("{f:?} {n}x{i}x{o}");
            assert_as_good_as_plain(&what, values(apply(f), &single)[0].host(), plain.host(), oracle.host());
            let exact: Vec<f64> = oracle.host().to_vec();
            assert_golden(&what, values(apply(f), &double)[0].host(), &exact, 1e-13);
        }
    }
}

#[test]
fn gradient_matches_finite_differences() {
    for f in Activation::ALL {
        assert_gradients_match_finite_differences(&format!("{f:?}"), apply(f), &inputs(5, 4, 3));
    }
    assert_gradients_match_finite_differences("no bias", apply(Activation::Tanh), &inputs(3, 4, 2)[..2]);
}

#[test]
fn gelu_slope_is_the_exact_one() {
    // At x = 1: Phi(1) + phi(1), the case in which another library's gradient lacks a factor.
    let (phi, density) = (0.841_344_746_068_542_9, 0.241_970_724_519_143_37);
    assert!((Activation::Gelu.slope(1f64) - (phi + density)).abs() < 1e-12);
}

#[test]
fn nan_in_one_row_stays_in_its_row() {
    for f in Activation::ALL {
        let mut given = inputs::<f32>(3, 2, 2);
        given[0].host_mut()[2] = f32::NAN;
        let y = &values(apply(f), &given)[0];
        assert!(y.host()[..2].iter().chain(&y.host()[4..]).all(|y| y.is_finite()), "{f:?}");
        assert!(y.host()[2..4].iter().all(|y| y.is_nan()), "{f:?}");
    }
}

#[test]
fn stored_features_give_what_their_widened_values_give() {
    let (n, i, o) = (600, 20, 6);
    let x: Tensor<f32> = normal("x", &[n, i]);
    let halves = Tensor::from_fn(&[n, i], |k| f16::from_f32(x.host()[k]));
    let brains = Tensor::from_fn(&[n, i], |k| bf16::from_f32(x.host()[k]));
    let wide_half = Tensor::from_fn(&[n, i], |k| halves.host()[k].to_f32());
    let wide_brain = Tensor::from_fn(&[n, i], |k| brains.host()[k].to_f32());
    for (stored, wide) in
        [(Features::F16(halves), wide_half), (Features::Bf16(brains), wide_brain), (Features::F32(x.clone()), x)]
    {
        let rest = inputs::<f32>(n, i, o)[1..].to_vec();
        let op = Linear { activation: Activation::Elu };
        let from_stored = |tape: &Tape<f32>, v: &[Var<f32>]| Ok(vec![op.forward(tape, &stored, &v[0], Some(&v[1]))?]);
        let from_wide = |tape: &Tape<f32>, v: &[Var<f32>]| {
            Ok(vec![op.forward(tape, &Var::constant(wide.clone()), &v[0], Some(&v[1]))?])
        };
        let cot = cotangents(&values(from_wide, &rest));
        assert_eq!(gradients(from_stored, &rest, &cot), gradients(from_wide, &rest, &cot));
    }
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let given = inputs::<f32>(5000, 40, 24);
    let cot = [normal("cotangent", &[5000, 24])];
    assert_same_on_any_number_of_threads(|| gradients(apply(Activation::Gelu), &given, &cot));
}

#[test]
fn shapes_that_do_not_fit_are_named() {
    let tape = Tape::<f32>::inference(Device::Cpu);
    let var = |shape: &[usize]| Var::constant(Tensor::zeros(shape));
    let op = Linear::default();
    let error = op.forward(&tape, &var(&[2, 3]), &var(&[4, 5]), None).unwrap_err();
    assert_eq!(error.to_string(), "linear: weight must have shape [4, 3], but has [4, 5]");
    let error = op.forward(&tape, &var(&[2, 3]), &var(&[4, 3]), Some(&var(&[3]))).unwrap_err();
    assert!(matches!(error, Error::Shape { arg: "bias", .. }));
}
