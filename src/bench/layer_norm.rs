//! Shapes of layer normalisation.

use std::hint::black_box;

use super::{Case, Pass, Place};
use crate::device::Precision;
use crate::ops::LayerNorm;

pub(super) fn cases() -> Vec<Case> {
    [Pass::Forward, Pass::ForwardBackward].map(|pass| case(32_768, 256, pass)).into()
}

fn case(n: usize, d: usize, pass: Pass) -> Case {
    let setup = move |place: Place| -> Box<dyn FnMut()> {
        let (x, ones) = (place.normal("x", &[n, d], 1.0), place.full(&[n, d], 1.0));
        let (weight, bias) = (place.normal("weight", &[d], 1.0), place.normal("bias", &[d], 1.0));
        Box::new(move || {
            let tape = place.tape(pass);
            let [x, weight, bias] = [&x, &weight, &bias].map(|v| tape.leaf(v.clone()));
            let y = LayerNorm::default().forward(&tape, &x, Some(&weight), Some(&bias)).expect("the shapes fit");
            if pass == Pass::ForwardBackward {
                black_box(tape.backward(&[(&y, ones.clone())]).expect("the shapes fit").of(&x));
            }
            black_box(y);
        })
    };
    // Backward reads x and the gradient, and writes one.
    let (moved, flops) = if pass == Pass::Forward { (2.0, 8.0) } else { (5.0, 22.0) };
    let size = (n * d) as f64;
    Case {
        op: "layer_norm",
        shape: format!("N {n} D {d}"),
        dtype: "F32",
        pass,
        bytes: 4.0 * moved * size,
        flops: flops * size,
        precision: Precision::F32,
        setup: Box::new(setup),
    }
}
