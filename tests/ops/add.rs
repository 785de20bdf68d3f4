//! The element-wise sum.

use onkos::ops::Add;
use onkos::{Device, Real, Result, Tape, Tensor, Var};

use crate::harness::*;

fn apply<T: Real>(tape: &Tape<T>, v: &[Var<T>]) -> Result<Vec<Var<T>>> {
    Ok(vec![Add.forward(tape, &v[0], &v[1])?])
}

#[test]
fn each_element_is_the_rounded_sum() {
    for shape in [&[][..], &[0, 3], &[1], &[33, 2], &[1025, 7]] {
        let (a, b): (Tensor<f32>, Tensor<f32>) = (normal("a", shape), normal("b", shape));
        let want = Tensor::from_fn(shape, |i| a.host()[i] + b.host()[i]);
        assert_eq!(values(apply, &[a, b])[0], want);
    }
}

#[test]
fn gradient_matches_finite_differences() {
    assert_gradients_match_finite_differences("add", apply, &[normal("a", &[3, 2]), normal("b", &[3, 2])]);
    let twice = |tape: &Tape<f64>, v: &[Var<f64>]| Ok(vec![Add.forward(tape, &v[0], &v[0])?]);
    assert_gradients_match_finite_differences("x + x", twice, &[normal("x", &[4])]);
}

#[test]
fn shapes_that_differ_are_refused() {
    let tape = Tape::<f32>::inference(Device::Cpu);
    let var = |shape: &[usize]| Var::constant(Tensor::zeros(shape));
    let error = Add.forward(&tape, &var(&[2, 3]), &var(&[3, 2])).unwrap_err();
    assert_eq!(error.to_string(), "add: b must have shape [2, 3], but has [3, 2]");
}
