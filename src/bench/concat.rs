//! Shapes of concatenation.

use std::hint::black_box;

use super::{Case, Pass, Place};
use crate::device::Precision;
use crate::ops::Concat;

pub(super) fn cases() -> Vec<Case> {
    [Pass::Forward, Pass::ForwardBackward].map(|pass| case(32_768, 128, pass)).into()
}

fn case(n: usize, d: usize, pass: Pass) -> Case {
    let setup = move |place: Place| -> Box<dyn FnMut()> {
        let (a, b, ones) =
            (place.normal("a", &[n, d], 1.0), place.normal("b", &[n, d], 1.0), place.full(&[n, 2 * d], 1.0));
        Box::new(move || {
            let tape = place.tape(pass);
            let (a, b) = (tape.leaf(a.clone()), tape.leaf(b.clone()));
            let y = Concat.forward(&tape, &[&a, &b]).expect("as many rows in each");
            if pass == Pass::ForwardBackward {
                black_box(tape.backward(&[(&y, ones.clone())]).expect("the shapes fit").of(&a));
            }
            black_box(y);
        })
    };
    let passes = if pass == Pass::Forward { 1.0 } else { 2.0 };
    Case {
        op: "concat",
        shape: format!("N {n} D {d} + {d}"),
        dtype: "F32",
        pass,
        bytes: passes * 4.0 * 2.0 * (2 * n * d) as f64,
        flops: 0.0,
        precision: Precision::F32,
        setup: Box::new(setup),
    }
}
