//! Layer normalisation.

use onkos::ops::LayerNorm;
use onkos::{Device, Error, Real, Result, Tape, Tensor, Var};

use crate::harness::*;

const OP: LayerNorm = LayerNorm { eps: 1e-5 };

/// The formula, with sums in the type itself.
fn naive<T: Real>(x: &Tensor<T>, weight: &Tensor<T>, bias: &Tensor<T>) -> Tensor<T> {
    let (_, d) = x.matrix();
    let n = T::of(d as f64);
    Tensor::from_fn(x.shape(), |at| {
        let row = &x.host()[at / d * d..][..d];
        let mean = row.iter().copied().sum::<T>() / n;
        let var = row.iter().map(|x| (*x - mean).powi(2)).sum::<T>() / n;
        (x.host()[at] - mean) / (var + T::of(OP.eps)).sqrt() * weight.host()[at % d] + bias.host()[at % d]
    })
}

/// The mean of a row is not 0, so that what lies behind its end matters to its variance.
fn inputs<T: Real>(n: usize, d: usize) -> Vec<Tensor<T>> {
    let x: Tensor<T> = normal("x", &[n, d]);
    let x = Tensor::from_fn(&[n, d], |i| x.host()[i] + T::one());
    vec![x, normal("weight", &[d]), normal("bias", &[d])]
}

fn apply<T: Real>(tape: &Tape<T>, v: &[Var<T>]) -> Result<Vec<Var<T>>> {
    Ok(vec![OP.forward(tape, &v[0], v.get(1), v.get(2))?])
}

/// Every way to spread a row over threads, with and without a tail; many rows, of which each block has several.
const SHAPES: [(usize, usize); 14] = [
    (0, 3),
    (3, 0),
    (1, 1),
    (70, 5),
    (31, 32),
    (40, 48),
    (33, 127),
    (9, 128),
    (600, 33),
    (17, 132),
    (3, 1023),
    (19, 1024),
    (2, 1025),
    (530, 1028),
];

#[test]
fn values_are_as_good_as_plain_arithmetic() {
    for (n, d) in SHAPES {
        let single = inputs::<f32>(n, d);
        let double: Vec<Tensor<f64>> = single.iter().map(cast).collect();
        let oracle = naive(&double[0], &double[1], &double[2]);
        let plain = naive(&single[0], &single[1], &single[2]);
        let what = format!("{n}x{d}");
        assert_as_good_as_plain(&what, values(apply, &single)[0].host(), plain.host(), oracle.host());
        assert_golden(&what, values(apply, &double)[0].host(), oracle.host(), 1e-13);
    }
}

#[test]
fn gradients_are_as_good_as_plain_arithmetic() {
    for (n, d) in SHAPES {
        let all = inputs(n, d);
        for given in [&all[..1], &all[..2], &all[..]] {
            assert_gradients_as_good_as_plain(&format!("{n}x{d} of {}", given.len()), apply, apply, given);
        }
    }
}

#[test]
fn gradient_matches_finite_differences() {
    let all = inputs(4, 5);
    assert_gradients_match_finite_differences("weight and bias", apply, &all);
    assert_gradients_match_finite_differences("weight", apply, &all[..2]);
    assert_gradients_match_finite_differences("plain", apply, &all[..1]);
}

#[test]
fn weight_and_bias_may_each_be_left_out() {
    let given = inputs::<f32>(5, 33);
    let of = |weight: Option<usize>, bias: Option<usize>| {
        let f = |tape: &Tape<f32>, v: &[Var<f32>]| {
            Ok(vec![OP.forward(tape, &v[0], weight.map(|i| &v[i]), bias.map(|i| &v[i]))?])
        };
        values(f, &given)[0].clone()
    };
    let (ones, zeros) = (Tensor::full(&[33], 1.0), Tensor::zeros(&[33]));
    let full = |weight: &Tensor<f32>, bias: &Tensor<f32>| {
        values(apply, &[given[0].clone(), weight.clone(), bias.clone()])[0].clone()
    };
    assert_eq!(of(Some(1), None), full(&given[1], &zeros));
    assert_eq!(of(None, Some(2)), full(&ones, &given[2]));
    assert_eq!(of(None, None), full(&ones, &zeros));
}

#[test]
fn rows_have_mean_zero_and_variance_just_below_one() {
    let x: Tensor<f64> = normal("x", &[9, 64]);
    let y = values(apply, std::slice::from_ref(&x));
    for (x, y) in x.host().chunks(64).zip(y[0].host().chunks(64)) {
        let mean = x.iter().sum::<f64>() / 64.0;
        let var = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 64.0;
        let found = y.iter().map(|y| y * y).sum::<f64>() / 64.0;
        // Sums of 64 terms of about one each.
        let rounding = 64.0 * f64::EPSILON;
        assert!((y.iter().sum::<f64>() / 64.0).abs() <= rounding);
        assert!((found - var / (var + OP.eps)).abs() <= rounding);
    }
}

#[test]
fn a_constant_row_gives_the_bias() {
    let mut given = inputs::<f32>(1, 8);
    given[0] = Tensor::full(&[1, 8], 3.0);
    assert_eq!(values(apply, &given)[0].host(), given[2].host());
}

#[test]
fn nan_in_one_row_stays_in_its_row() {
    let mut given = inputs::<f32>(3, 4);
    given[0].host_mut()[5] = f32::NAN;
    let y = &values(apply, &given)[0];
    assert!(y.host()[..4].iter().chain(&y.host()[8..]).all(|y| y.is_finite()));
    assert!(y.host()[4..8].iter().all(|y| y.is_nan()));
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let given = inputs::<f32>(5000, 24);
    let cot = [normal("cotangent", &[5000, 24])];
    assert_same_on_any_number_of_threads(|| gradients(apply, &given, &cot));
}

#[test]
fn what_does_not_fit_is_named() {
    let tape = Tape::<f32>::inference(Device::Cpu);
    let var = |shape: &[usize]| Var::constant(Tensor::zeros(shape));
    let error = OP.forward(&tape, &var(&[2, 3]), Some(&var(&[4])), None).unwrap_err();
    assert_eq!(error.to_string(), "layer_norm: weight must have shape [3], but has [4]");
    let error = OP.forward(&tape, &var(&[2, 3]), None, Some(&var(&[3, 1]))).unwrap_err();
    assert!(matches!(error, Error::Shape { arg: "bias", .. }));
    let error = LayerNorm { eps: 0.0 }.forward(&tape, &var(&[2, 3]), None, None).unwrap_err();
    assert_eq!(error.to_string(), "layer_norm.eps must be positive and finite, but is 0");
}
