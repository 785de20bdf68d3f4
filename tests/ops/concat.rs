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
fn each_part_gets_its_columns_back() {
    // Fewer parts and more than one launch takes, with and without 16-byte rows; none may be touched by another.
    let cases = [
        vec![4],
        vec![8, 4],
        vec![5, 3],
        vec![4, 8, 1, 3],
        vec![36, 4, 8, 12, 4, 132],
        vec![4, 4, 4, 1, 4, 4, 4, 8, 3],
        vec![1, 2, 3, 40, 5, 6, 7, 8, 9],
    ];
    for widths in cases {
        for n in [0, 1, 65] {
            let parts: Vec<Tensor<f32>> =
                widths.iter().enumerate().map(|(i, d)| normal(&i.to_string(), &[n, *d])).collect();
            let columns: usize = widths.iter().sum();
            let owed: Tensor<f32> = normal("owed", &[n, columns]);
            let (y, grads) = gradients(apply, &parts, std::slice::from_ref(&owed));
            let mut at = 0;
            for ((part, grad), d) in parts.iter().zip(&grads).zip(&widths) {
                let cut = |whole: &Tensor<f32>| -> Vec<f32> {
                    (0..n).flat_map(|i| whole.host()[i * columns + at..][..*d].to_vec()).collect()
                };
                assert_eq!((cut(&y[0]), cut(&owed)), (part.host().to_vec(), grad.host().to_vec()));
                at += d;
            }
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
