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

#[test]
fn values_are_as_good_as_plain_arithmetic() {
    for (n, d) in [(0, 3), (3, 0), (1, 1), (31, 32), (33, 127), (600, 33), (2, 1025)] {
        let single: Tensor<f32> = normal("x", &[n, d]);
        let double: Tensor<f64> = cast(&single);
        let (oracle, plain) = (naive(&double), naive(&single));
        let what = format!("{n}x{d}");
        assert_as_good_as_plain(&what, values(apply, &[single])[0].host(), plain.host(), oracle.host());
        assert_golden(&what, values(apply, &[double])[0].host(), oracle.host(), 1e-13);
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
    let mut x: Tensor<f32> = normal("x", &[3, 4]);
    x.host_mut()[5] = f32::NAN;
    let y = &values(apply, &[x])[0];
    assert!(y.host()[..4].iter().chain(&y.host()[8..]).all(|y| y.is_finite()));
    assert!(y.host()[4..8].iter().all(|y| y.is_nan()));
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let (x, cot) = (normal::<f32>("x", &[5000, 24]), [normal("cotangent", &[5000, 24])]);
    assert_same_on_any_number_of_threads(|| gradients(apply, std::slice::from_ref(&x), &cot));
}
