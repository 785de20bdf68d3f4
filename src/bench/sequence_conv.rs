//! Shapes of the convolution along tokens.

use std::hint::black_box;

use super::{Case, Pass, Place};
use crate::Ragged;
use crate::device::Precision;
use crate::ops::SequenceConv;

pub(super) fn cases() -> Vec<Case> {
    // The heads, columns and kernel of TransMIL.
    [Pass::Forward, Pass::ForwardBackward].map(|pass| case(16_384, 2, 512, 8, 33, pass)).into()
}

fn case(n: usize, bags: usize, e: usize, h: usize, k: usize, pass: Pass) -> Case {
    let setup = move |place: Place| -> Box<dyn FnMut()> {
        let (x, ones) = (place.normal("x", &[n, e], 1.0), place.full(&[n, e], 1.0));
        let weight = place.normal("weight", &[h, k], 0.1);
        let bags = Ragged::uniform(bags, n / bags);
        Box::new(move || {
            let tape = place.tape(pass);
            let [x, weight] = [&x, &weight].map(|v| tape.leaf(v.clone()));
            let y = SequenceConv.forward(&tape, &x, &bags, &weight).expect("the shapes fit");
            if pass == Pass::ForwardBackward {
                black_box(tape.backward(&[(&y, ones.clone())]).expect("the shapes fit").of(&x));
            }
            black_box(y);
        })
    };
    // Backward reads x and the gradient, and writes one; both gradients take what the result takes.
    let (moved, sums) = if pass == Pass::Forward { (2.0, 1.0) } else { (5.0, 3.0) };
    let size = (n * e) as f64;
    Case {
        op: "sequence_conv",
        shape: format!("N {n} B {bags} E {e} H {h} K {k}"),
        dtype: "F32",
        pass,
        bytes: 4.0 * moved * size,
        flops: sums * 2.0 * k as f64 * size,
        precision: Precision::F32,
        setup: Box::new(setup),
    }
}
