//! Shapes of the softmax of rows.

use std::hint::black_box;

use super::{Case, Pass, Place};
use crate::device::Precision;
use crate::ops::Softmax;

pub(super) fn cases() -> Vec<Case> {
    [Pass::Forward, Pass::ForwardBackward].map(|pass| case(32_768, 256, pass)).into()
}

fn case(n: usize, d: usize, pass: Pass) -> Case {
    let setup = move |place: Place| -> Box<dyn FnMut()> {
        let (x, ones) = (place.normal("x", &[n, d], 1.0), place.full(&[n, d], 1.0));
        Box::new(move || {
            let tape = place.tape(pass);
            let x = tape.leaf(x.clone());
            let y = Softmax.forward(&tape, &x).expect("any matrix has a softmax");
            if pass == Pass::ForwardBackward {
                black_box(tape.backward(&[(&y, ones.clone())]).expect("the shapes fit").of(&x));
            }
            black_box(y);
        })
    };
    // An exponential counts as one operation; backward reads y and the gradient, and writes one.
    let (moved, flops) = if pass == Pass::Forward { (2.0, 5.0) } else { (5.0, 9.0) };
    let size = (n * d) as f64;
    Case {
        op: "softmax",
        shape: format!("N {n} D {d}"),
        dtype: "F32",
        pass,
        bytes: 4.0 * moved * size,
        flops: flops * size,
        precision: Precision::F32,
        setup: Box::new(setup),
    }
}
