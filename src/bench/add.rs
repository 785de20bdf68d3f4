//! Shapes of the element-wise sum.

use std::hint::black_box;

use super::{Case, Pass, Place};
use crate::device::Precision;
use crate::ops::Add;

pub(super) fn cases() -> Vec<Case> {
    [Pass::Forward, Pass::ForwardBackward].map(|pass| case(32_768, 256, pass)).into()
}

fn case(n: usize, d: usize, pass: Pass) -> Case {
    let setup = move |place: Place| -> Box<dyn FnMut()> {
        let (a, b, ones) = (place.normal("a", &[n, d], 1.0), place.normal("b", &[n, d], 1.0), place.full(&[n, d], 1.0));
        Box::new(move || {
            let tape = place.tape(pass);
            let (a, b) = (tape.leaf(a.clone()), tape.leaf(b.clone()));
            let y = Add.forward(&tape, &a, &b).expect("one shape");
            if pass == Pass::ForwardBackward {
                black_box(tape.backward(&[(&y, ones.clone())]).expect("the shapes fit").of(&a));
            }
            black_box(y);
        })
    };
    let size = (n * d) as f64;
    Case {
        op: "add",
        shape: format!("N {n} D {d}"),
        dtype: "F32",
        pass,
        // Backward shares the gradient.
        bytes: 4.0 * 3.0 * size,
        flops: size,
        precision: Precision::F32,
        setup: Box::new(setup),
    }
}
