//! Shapes of the outer product: what MCAT joins its modalities with, for many patients.

use std::hint::black_box;

use super::{Case, Pass, Place};
use crate::device::Precision;
use crate::ops::Outer;

pub(super) fn cases() -> Vec<Case> {
    [Pass::Forward, Pass::ForwardBackward].map(|pass| case(4096, 32, pass)).into()
}

fn case(n: usize, d: usize, pass: Pass) -> Case {
    let each = (d + 1) * (d + 1);
    let setup = move |place: Place| -> Box<dyn FnMut()> {
        let (u, v) = (place.normal("u", &[n, d], 1.0), place.normal("v", &[n, d], 1.0));
        let ones = place.full(&[n, each], 1.0);
        Box::new(move || {
            let tape = place.tape(pass);
            let (u, v) = (tape.leaf(u.clone()), tape.leaf(v.clone()));
            let y = Outer { ones: true }.forward(&tape, &u, &v).expect("as many rows");
            if pass == Pass::ForwardBackward {
                black_box(tape.backward(&[(&y, ones.clone())]).expect("the shapes fit").of(&u));
            }
            black_box(y);
        })
    };
    let size = (n * each) as f64;
    // Back, the gradient is read for either side.
    let (moved, flops) = if pass == Pass::Forward { (1.0, 1.0) } else { (3.0, 5.0) };
    Case {
        op: "outer",
        shape: format!("N {n} P {d} Q {d} ones"),
        dtype: "F32",
        pass,
        bytes: 4.0 * moved * size,
        flops: flops * size,
        precision: Precision::F32,
        setup: Box::new(setup),
    }
}
