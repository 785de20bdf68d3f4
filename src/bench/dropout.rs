//! Shapes of dropout.

use std::hint::black_box;

use super::{Case, Pass, Place};
use crate::Ragged;
use crate::device::Precision;
use crate::ops::{BagDraws, Dropout, DropoutKind};
use crate::rng::Draws;

pub(super) fn cases() -> Vec<Case> {
    [Pass::Forward, Pass::ForwardBackward].map(|pass| case(32_768, 256, pass)).into()
}

fn case(n: usize, d: usize, pass: Pass) -> Case {
    let op = Dropout { p: 0.25, kind: DropoutKind::Plain };
    let setup = move |place: Place| -> Box<dyn FnMut()> {
        let (x, bags, ones) = (place.normal("x", &[n, d], 1.0), Ragged::uniform(16, n / 16), place.full(&[n, d], 1.0));
        let draws = BagDraws::new(Draws::new(0, 0, "dropout"), (0..16).collect::<Vec<u32>>());
        Box::new(move || {
            let tape = place.tape(pass);
            let x = tape.leaf(x.clone());
            let y = op.forward(&tape, &x, &bags, Some(&draws)).expect("the shapes fit");
            if pass == Pass::ForwardBackward {
                black_box(tape.backward(&[(&y, ones.clone())]).expect("the shapes fit").of(&x));
            }
            black_box(y);
        })
    };
    let passes = if pass == Pass::Forward { 1.0 } else { 2.0 };
    let size = (n * d) as f64;
    Case {
        op: "dropout",
        shape: format!("N {n} D {d} B 16"),
        dtype: "F32",
        pass,
        bytes: passes * 4.0 * 2.0 * size,
        flops: passes * size,
        precision: Precision::F32,
        setup: Box::new(setup),
    }
}
