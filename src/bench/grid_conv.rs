//! Shapes of the convolutions over grids.

use std::hint::black_box;

use super::{Case, Pass, Place};
use crate::Ragged;
use crate::device::Precision;
use crate::ops::{Depthwise, GridConv};

pub(super) fn cases() -> Vec<Case> {
    // The channels of TransMIL.
    [Pass::Forward, Pass::ForwardBackward].map(|pass| case(2, 90, 512, pass)).into()
}

/// As in TransMIL, a class token before the cells, and convolutions of these sides.
fn case(bags: usize, side: usize, d: usize, pass: Pass) -> Case {
    const SIDES: [usize; 3] = [7, 5, 3];
    let n = bags * (1 + side * side);
    let setup = move |place: Place| -> Box<dyn FnMut()> {
        let (x, ones) = (place.normal("x", &[n, d], 1.0), place.full(&[n, d], 1.0));
        let parameters = SIDES.map(|s| (place.normal("weight", &[d, s * s], 0.1), place.normal("bias", &[d], 0.1)));
        let bags = Ragged::uniform(bags, 1 + side * side);
        Box::new(move || {
            let tape = place.tape(pass);
            let leaves = parameters.each_ref().map(|(w, b)| (tape.leaf(w.clone()), tape.leaf(b.clone())));
            let convolutions = leaves.each_ref().map(|(weight, bias)| Depthwise { weight, bias: Some(bias) });
            let x = tape.leaf(x.clone());
            let y = GridConv::default().forward(&tape, &x, &bags, &convolutions).expect("the shapes fit");
            if pass == Pass::ForwardBackward {
                black_box(tape.backward(&[(&y, ones.clone())]).expect("the shapes fit").of(&x));
            }
            black_box(y);
        })
    };
    // Backward reads x and the gradient, and writes one; both gradients take what the result takes.
    let (moved, sums) = if pass == Pass::Forward { (2.0, 1.0) } else { (5.0, 3.0) };
    let size = (n * d) as f64;
    Case {
        op: "grid_conv",
        shape: format!("N {n} B {bags} D {d}"),
        dtype: "F32",
        pass,
        bytes: 4.0 * moved * size,
        flops: sums * 98.0 * size,
        precision: Precision::F32,
        setup: Box::new(setup),
    }
}
