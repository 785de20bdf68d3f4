//! Standardisation folded into weights.

use onkos::ops::{Linear, Standardize};
use onkos::{Device, Error, Tape, Tensor, Var};

use crate::harness::*;

fn statistics() -> (Tensor<f64>, Tensor<f64>) {
    (normal("mean", &[4]), Tensor::new(&[4], vec![0.5, 2.0, 1.0, 0.1]).unwrap())
}

#[test]
fn folded_weights_do_what_standardised_inputs_do() {
    let (mean, deviation) = statistics();
    let (x, w, b): (Tensor<f64>, _, _) = (normal("x", &[9, 4]), normal("w", &[3, 4]), normal("b", &[3]));
    let tape = Tape::inference(Device::Cpu);
    let [x, w, b] = [x, w, b].map(Var::constant);
    let (fw, fb) = Standardize.forward(&tape, &w, &b, &mean, &deviation).unwrap();
    let got = Linear::default().forward(&tape, &x, &fw, Some(&fb)).unwrap();
    let standard = Tensor::from_fn(&[9, 4], |i| (x.value().host()[i] - mean.host()[i % 4]) / deviation.host()[i % 4]);
    let want = Linear::default().forward(&tape, &Var::constant(standard), &w, Some(&b)).unwrap();
    assert_golden("y", got.value().host(), want.value().host(), 1e-14);
}

#[test]
fn gradient_matches_finite_differences() {
    let (mean, deviation) = statistics();
    let f = |tape: &Tape<f64>, v: &[Var<f64>]| {
        let (w, b) = Standardize.forward(tape, &v[0], &v[1], &mean, &deviation)?;
        Ok(vec![w, b])
    };
    assert_gradients_match_finite_differences("standardize", f, &[normal("w", &[3, 4]), normal("b", &[3])]);
}

#[test]
fn a_deviation_of_zero_is_refused() {
    let tape = Tape::<f64>::inference(Device::Cpu);
    let var = |shape: &[usize]| Var::constant(Tensor::zeros(shape));
    let error = Standardize.forward(&tape, &var(&[2, 1]), &var(&[2]), &Tensor::zeros(&[1]), &Tensor::zeros(&[1]));
    assert!(matches!(error, Err(Error::Value { arg: "deviation", index: 0, .. })));
}
