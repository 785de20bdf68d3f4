//! Shapes of the discrete-time likelihood.

use std::hint::black_box;

use super::{Case, Pass, Place};
use crate::device::Precision;
use crate::ops::NllSurvival;

pub(super) fn cases() -> Vec<Case> {
    let sizes = [(1000, 4), (100_000, 4)];
    let passes = [Pass::Forward, Pass::ForwardBackward];
    sizes.into_iter().flat_map(|(b, k)| passes.map(|pass| case(b, k, pass))).collect()
}

fn case(b: usize, k: usize, pass: Pass) -> Case {
    let setup = move |place: Place| -> Box<dyn FnMut()> {
        let logits = place.normal("logits", &[b, k], 1.0);
        let bin: Vec<u32> = (0..b).map(|i| (i % k) as u32).collect();
        let censored: Vec<bool> = (0..b).map(|i| i % 3 > 0).collect();
        Box::new(move || {
            let tape = place.tape(pass);
            let logits = tape.leaf(logits.clone());
            let loss = NllSurvival::default().forward(&tape, &logits, &bin, &censored).expect("the shapes fit");
            if pass == Pass::ForwardBackward {
                black_box(tape.backward(&[(&loss, place.full(&[], 1.0))]).expect("a scalar").of(&logits));
            }
            black_box(loss);
        })
    };
    let (bf, size) = (b as f64, (b * k) as f64);
    let moved = if pass == Pass::Forward { 1.0 } else { 2.0 };
    Case {
        op: "nll_survival",
        shape: format!("B {b} K {k}"),
        dtype: "F32",
        pass,
        bytes: moved * 4.0 * size + 5.0 * bf,
        // An exponential counts as one operation.
        flops: 2.0 * size,
        precision: Precision::F32,
        setup: Box::new(setup),
    }
}
