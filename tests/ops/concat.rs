//! Concatenation of columns.

use onkos::ops::Concat;
use onkos::{Device, Real, Result, Tape, Tensor, Var};

use crate::harness::*;

fn apply<T: Real>(tape: &Tape<T>, v: &[Var<T>]) -> Result<Vec<Var<T>>> {
    Ok(vec![Concat.forward(tape, &v.iter().collect::<Vec<_>>())?])
}

#[test]
fn columns_come_in_the_order_of_the_parts() {
    for n in [0, 1, 31, 1025] {
        let widths = [3, 0, 1, 32];
        let parts: Vec<Tensor<f32>> =
            widths.iter().enumerate().map(|(i, d)| normal(&i.to_string(), &[n, *d])).collect();
        let y = &values(apply, &parts)[0];
        assert_eq!(y.shape(), [n, 36]);
        for i in 0..n {
            let want: Vec<f32> =
                parts.iter().zip(widths).flat_map(|(p, d)| p.host()[i * d..(i + 1) * d].to_vec()).collect();
            assert_eq!(y.host()[i * 36..(i + 1) * 36], want);
        }
    }
}

#[test]
fn gradient_matches_finite_differences() {
    let parts = [normal("a", &[3, 2]), normal("b", &[3, 1]), normal("c", &[3, 4])];
    assert_gradients_match_finite_differences("concat", apply, &parts);
}

#[test]
fn parts_that_do_not_fit_are_refused() {
    let tape = Tape::<f32>::inference(Device::Cpu);
    let (a, b) = (Var::constant(Tensor::zeros(&[2, 3])), Var::constant(Tensor::zeros(&[3, 3])));
    let error = Concat.forward(&tape, &[&a, &b]).unwrap_err();
    assert_eq!(error.to_string(), "concat: parts must have shape [2, D] each, but has [3, 3]");
    let error = Concat.forward(&tape, &[]).unwrap_err();
    assert_eq!(error.to_string(), "concat: parts must have shape [N, D], at least one of them, but has []");
}
