//! Standardisation folded into weights.

use onkos::ops::{Linear, Standardize};
use onkos::{Device, Error, Real, Tape, Tensor, Var};

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

/// Weight, bias, and the gradient of the weight, by the formulas.
fn naive<T: Real>(given: &[Tensor<T>; 6]) -> [Vec<T>; 3] {
    let [w, b, mean, deviation, gw, gb] = [0, 1, 2, 3, 4, 5].map(|k| given[k].host());
    let i = mean.len();
    let scaled: Vec<T> = (0..w.len()).map(|at| w[at] / deviation[at % i]).collect();
    let shift = |o: usize| (0..i).map(|k| scaled[o * i + k] * mean[k]).sum::<T>();
    let bias = (0..b.len()).map(|o| b[o] - shift(o)).collect();
    let dw = (0..w.len()).map(|at| (gw[at] - gb[at / i] * mean[at % i]) / deviation[at % i]).collect();
    [scaled, bias, dw]
}

#[test]
fn values_and_gradients_are_as_good_as_plain_arithmetic() {
    for (o, i) in [(0, 3), (2, 0), (1, 1), (3, 127), (5, 129), (2, 1025)] {
        let names = ["w", "b", "mean", "deviation", "grad w", "grad b"];
        let shapes = [vec![o, i], vec![o], vec![i], vec![i], vec![o, i], vec![o]];
        let mut given: [Tensor<f32>; 6] = std::array::from_fn(|k| normal(names[k], &shapes[k]));
        given[3].host_mut().iter_mut().for_each(|s| *s = s.abs() + 0.5);
        let oracle = naive(&given.each_ref().map(cast::<f32, f64>));
        let plain = naive(&given);
        let f = |tape: &Tape<f32>, v: &[Var<f32>]| {
            let (w, b) = Standardize.forward(tape, &v[0], &v[1], &given[2], &given[3])?;
            Ok(vec![w, b])
        };
        let (out, grads) = gradients(f, &given[..2], &given[4..]);
        for (part, got) in [&out[0], &out[1], &grads[0]].into_iter().enumerate() {
            let what = format!("{o}x{i}: {}", ["weight", "bias", "dw"][part]);
            assert_as_good_as_plain(&what, got.host(), &plain[part], &oracle[part]);
        }
        assert_eq!(grads[1], given[5], "the gradient of the bias is that of the new one");
    }
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
