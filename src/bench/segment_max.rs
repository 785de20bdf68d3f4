//! Shapes of the maximum of bags.

use std::hint::black_box;

use super::{Case, Pass, Place};
use crate::Ragged;
use crate::device::Precision;
use crate::ops::SegmentMax;

pub(super) fn cases() -> Vec<Case> {
    [Pass::Forward, Pass::ForwardBackward].map(|pass| case(32_768, 16, 256, pass)).into()
}

fn case(n: usize, bags: usize, d: usize, pass: Pass) -> Case {
    let setup = move |place: Place| -> Box<dyn FnMut()> {
        let (x, ones) = (place.normal("x", &[n, d], 1.0), place.full(&[bags, d], 1.0));
        // All but one of them short.
        let bags = Ragged::from_lengths((0..bags).map(|b| if b == 0 { n - (bags - 1) * 1000 } else { 1000 }));
        Box::new(move || {
            let tape = place.tape(pass);
            let x = tape.leaf(x.clone());
            let y = SegmentMax.forward(&tape, &x, &bags).expect("the shapes fit");
            if pass == Pass::ForwardBackward {
                black_box(tape.backward(&[(&y, ones.clone())]).expect("the shapes fit").of(&x));
            }
            black_box(y);
        })
    };
    let passes = if pass == Pass::Forward { 1.0 } else { 2.0 };
    Case {
        op: "segment_max",
        shape: format!("N {n} B {bags} D {d}"),
        dtype: "F32",
        pass,
        // Back, zeros are written but where a result was.
        bytes: passes * 4.0 * ((n + 2 * bags) * d) as f64,
        flops: (n * d) as f64,
        precision: Precision::F32,
        setup: Box::new(setup),
    }
}
