//! Shapes of the inverse between landmarks: few of them, and TransMIL's, of one patient and of a batch.

use std::hint::black_box;

use super::{Case, Pass, Place};
use crate::Ragged;
use crate::device::Precision;
use crate::ops::LandmarkInverse;

pub(super) fn cases() -> Vec<Case> {
    let passes = [Pass::Forward, Pass::ForwardBackward];
    let shapes = [(1, 64, 128), (1, 256, 512), (16, 256, 512)];
    shapes.into_iter().flat_map(|(bags, m, width)| passes.map(|pass| case(bags, m, width, pass))).collect()
}

/// Heads, and iterations.
const HEADS: usize = 8;
const ITERATIONS: usize = 6;

fn case(bags: usize, m: usize, width: usize, pass: Pass) -> Case {
    let setup = move |place: Place| -> Box<dyn FnMut()> {
        let bags = Ragged::uniform(bags, m);
        let shape = [bags.rows(), width];
        let (q, k, v) =
            (place.normal("q", &shape, 1.0), place.normal("k", &shape, 1.0), place.normal("v", &shape, 1.0));
        let ones = place.full(&shape, 1.0);
        Box::new(move || {
            let tape = place.tape(pass);
            let [q, k, v] = [&q, &k, &v].map(|x| tape.leaf(x.clone()));
            let op = LandmarkInverse { heads: HEADS, iterations: ITERATIONS, together: false };
            let y = op.forward(&tape, &q, &k, &v, &bags).expect("the shapes fit");
            if pass == Pass::ForwardBackward {
                black_box(tape.backward(&[(&y, ones.clone())]).expect("the shapes fit").of(&q));
            }
            black_box(y);
        })
    };
    let both = pass == Pass::ForwardBackward;
    let (squares, rows) = ((bags * HEADS * m * m) as f64, (bags * m * width) as f64);
    // Products between squares, and those of rows: scores and result, back their factors.
    let products = (ITERATIONS * if both { 4 + 11 } else { 4 }) as f64;
    let of_rows = if both { 6.0 } else { 2.0 };
    Case {
        op: "landmark_inverse",
        shape: format!("B {bags} m {m} E {width} H {HEADS}"),
        dtype: "F32",
        pass,
        // The arguments and results; what is between them is small enough for caches, one bag and head at a time.
        bytes: 4.0 * rows * if both { 8.0 } else { 4.0 },
        flops: 2.0 * m as f64 * (products * squares + of_rows * rows),
        precision: Precision::F32,
        setup: Box::new(setup),
    }
}
