//! Shapes of the standardisation that is folded into weights.

use std::hint::black_box;

use super::{Case, Pass, Place};
use crate::device::Precision;
use crate::ops::Standardize;

pub(super) fn cases() -> Vec<Case> {
    [Pass::Forward, Pass::ForwardBackward].map(|pass| case(256, 1024, pass)).into()
}

fn case(o: usize, i: usize, pass: Pass) -> Case {
    let setup = move |place: Place| -> Box<dyn FnMut()> {
        let (weight, bias) = (place.normal("weight", &[o, i], 1.0), place.full(&[o], 0.0));
        let (mean, deviation) = (place.normal("mean", &[i], 1.0), place.full(&[i], 2.0));
        let ones = (place.full(&[o, i], 1.0), place.full(&[o], 1.0));
        Box::new(move || {
            let tape = place.tape(pass);
            let (weight, bias) = (tape.leaf(weight.clone()), tape.leaf(bias.clone()));
            let (w, b) = Standardize.forward(&tape, &weight, &bias, &mean, &deviation).expect("the shapes fit");
            if pass == Pass::ForwardBackward {
                let roots = [(&w, ones.0.clone()), (&b, ones.1.clone())];
                black_box(tape.backward(&roots).expect("the shapes fit").of(&weight));
            }
            black_box((w, b));
        })
    };
    let passes = if pass == Pass::Forward { 1.0 } else { 2.0 };
    let size = (o * i) as f64;
    Case {
        op: "standardize",
        shape: format!("O {o} I {i}"),
        dtype: "F32",
        pass,
        bytes: passes * 4.0 * 2.0 * size,
        flops: passes * 3.0 * size,
        precision: Precision::F32,
        setup: Box::new(setup),
    }
}
