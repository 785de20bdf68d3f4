//! Softmax of rows.

use onkos::ops::Softmax;
use onkos::{Real, Result, Tape, Tensor, Var};

use crate::harness::*;

/// The formula, with sums in the type itself.
fn naive<T: Real>(x: &Tensor<T>) -> Tensor<T> {
    let (_, d) = x.matrix();
    Tensor::from_fn(x.shape(), |at| {
        let row = &x.host()[at / d * d..][..d];
        let max = row.iter().copied().fold(T::neg_infinity(), T::max);
        (x.host()[at] - max).exp() / row.iter().map(|x| (*x - max).exp()).sum::<T>()
    })
}

fn apply<T: Real>(tape: &Tape<T>, v: &[Var<T>]) -> Result<Vec<Var<T>>> {
    Ok(vec![Softmax.forward(tape, &v[0])?])
}

/// Every way to spread a row over threads, with and without a tail.
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
    (9, 1024),
    (2, 1025),
    (3, 2052),
];

#[test]
fn values_are_as_good_as_plain_arithmetic() {
    for (n, d) in SHAPES {
        let single: Tensor<f32> = normal("x", &[n, d]);
        let double: Tensor<f64> = cast(&single);
        let (oracle, plain) = (naive(&double), naive(&single));
        let what = format!("{n}x{d}");
        assert_as_good_as_plain(&what, values(apply, &[single])[0].host(), plain.host(), oracle.host());
        assert_golden(&what, values(apply, &[double])[0].host(), oracle.host(), 1e-13);
    }
}

#[test]
fn gradients_are_as_good_as_plain_arithmetic() {
    for (n, d) in SHAPES {
        assert_gradients_as_good_as_plain(&format!("{n}x{d}"), apply, apply, &[normal("x", &[n, d])]);
    }
}

#[test]
fn gradient_matches_finite_differences() {
    assert_gradients_match_finite_differences("softmax", apply, &[normal("x", &[3, 5])]);
}

#[test]
fn rows_sum_to_one_and_large_arguments_stay_finite() {
    let x: Tensor<f64> = normal("x", &[50, 33]);
    let y = &values(apply, &[Tensor::from_fn(&[50, 33], |i| x.host()[i] * 1e4)])[0];
    for row in y.host().chunks(33) {
        assert!((row.iter().sum::<f64>() - 1.0).abs() <= 33.0 * f64::EPSILON);
    }
}

#[test]
fn nan_in_one_row_stays_in_its_row() {
    for d in [4, 300, 1500] {
        for wrong in [f32::NAN, f32::INFINITY] {
            let mut x: Tensor<f32> = normal("x", &[3, d]);
            x.host_mut()[d + 1] = wrong;
            let y = &values(apply, &[x])[0];
            assert!(y.host()[..d].iter().chain(&y.host()[2 * d..]).all(|y| y.is_finite()));
            assert!(y.host()[d..2 * d].iter().all(|y| y.is_nan()));
        }
    }
}

#[test]
fn an_element_of_minus_infinity_gets_nothing() {
    for d in [4, 300, 1500] {
        let mut x: Tensor<f32> = normal("x", &[2, d]);
        x.host_mut()[1] = f32::NEG_INFINITY;
        let y = &values(apply, &[x])[0];
        assert!(y.host()[1] == 0.0 && y.host().iter().all(|y| y.is_finite()));
    }
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let (x, cot) = (normal::<f32>("x", &[5000, 24]), [normal("cotangent", &[5000, 24])]);
    assert_same_on_any_number_of_threads(|| gradients(apply, std::slice::from_ref(&x), &cot));
}
