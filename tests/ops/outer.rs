//! The outer product of rows.

use onkos::ops::Outer;
use onkos::{Device, Real, Result, Tape, Tensor, Var};

use crate::harness::*;

fn with_one<T: Real>(x: &Tensor<T>, row: usize, ones: bool) -> Vec<T> {
    let d = x.matrix().1;
    let mut all = x.host()[row * d..(row + 1) * d].to_vec();
    all.extend(ones.then(T::one));
    all
}

fn naive<T: Real>(x: &[Tensor<T>], ones: bool) -> Vec<T> {
    let product = |row: usize| {
        let (u, v) = (with_one(&x[0], row, ones), with_one(&x[1], row, ones));
        u.into_iter().flat_map(move |u| v.clone().into_iter().map(move |v| u * v))
    };
    (0..x[0].matrix().0).flat_map(product).collect()
}

fn apply<T: Real>(ones: bool) -> impl Fn(&Tape<T>, &[Var<T>]) -> Result<Vec<Var<T>>> {
    move |tape, v| Ok(vec![Outer { ones }.forward(tape, &v[0], &v[1])?])
}

fn inputs<T: Real>([rows, p, q]: [usize; 3]) -> Vec<Tensor<T>> {
    vec![normal("u", &[rows, p]), normal("v", &[rows, q])]
}

/// Rows, elements of the one and of the other.
const CASES: [[usize; 3]; 8] =
    [[0, 3, 2], [1, 1, 1], [3, 0, 4], [3, 4, 0], [31, 5, 7], [2, 33, 32], [5, 3, 71], [700, 1, 1]];

/// One rounding an element, so exactly so.
#[test]
fn each_element_is_the_rounded_product() {
    for case in CASES {
        for ones in [false, true] {
            let x = inputs::<f32>(case);
            let y = &values(apply(ones), &x)[0];
            let [p, q] = [case[1], case[2]].map(|n| n + usize::from(ones));
            assert_eq!((y.shape(), y.host()), (&[case[0], p * q][..], &naive(&x, ones)[..]), "{case:?}, ones {ones}");
        }
    }
}

#[test]
fn gradients_match_finite_differences() {
    for ones in [false, true] {
        assert_gradients_match_finite_differences(&format!("ones {ones}"), apply(ones), &inputs([3, 4, 2]));
    }
}

#[test]
fn gradients_are_as_good_as_plain_arithmetic() {
    for case in CASES {
        for ones in [false, true] {
            let what = format!("{case:?}, ones {ones}");
            assert_gradients_as_good_as_plain(&what, apply(ones), apply(ones), &inputs(case));
        }
    }
}

#[test]
fn nan_stays_in_its_row() {
    let mut x = inputs::<f32>([3, 2, 4]);
    x[0].host_mut()[2] = f32::NAN;
    let (y, grads) = gradients(apply(true), &x, &[normal("cotangent", &[3, 15])]);
    for x in [&y[0], &grads[0], &grads[1]] {
        let d = x.matrix().1;
        let rows: Vec<bool> = x.host().chunks(d).map(|row| row.iter().any(|x| x.is_nan())).collect();
        assert!(!rows[0] && !rows[2], "{rows:?}");
    }
    assert!(y[0].host()[15].is_nan());
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let (x, cot) = (inputs::<f32>([900, 5, 9]), [normal("cotangent", &[900, 60])]);
    assert_same_on_any_number_of_threads(|| gradients(apply(true), &x, &cot));
}

#[test]
fn rows_that_differ_are_refused() {
    let tape = Tape::<f32>::inference(Device::Cpu);
    let var = |shape: &[usize]| Var::constant(Tensor::zeros(shape));
    let error = Outer { ones: true }.forward(&tape, &var(&[2, 3]), &var(&[3, 3])).unwrap_err();
    assert_eq!(error.to_string(), "outer: v must have shape [2, Q], as many rows as u, but has [3, 3]");
}
