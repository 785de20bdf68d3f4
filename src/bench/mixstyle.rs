//! Shapes of the mixing of channel statistics between patients.

use std::hint::black_box;

use super::{Case, Pass, Place};
use crate::Ragged;
use crate::device::Precision;
use crate::ops::{BagDraws, MixStyle};
use crate::rng::Draws;

pub(super) fn cases() -> Vec<Case> {
    [Pass::Forward, Pass::ForwardBackward].map(|pass| case(32_768, 16, 256, pass)).into()
}

fn case(n: usize, bags: usize, d: usize, pass: Pass) -> Case {
    // Every batch is mixed.
    let op = MixStyle { p: 1.0, ..MixStyle::default() };
    let setup = move |place: Place| -> Box<dyn FnMut()> {
        let (x, ones) = (place.normal("x", &[n, d], 1.0), place.full(&[n, d], 1.0));
        // All but one of them short.
        let lengths = Ragged::from_lengths((0..bags).map(|b| if b == 0 { n - (bags - 1) * 1000 } else { 1000 }));
        let draws = BagDraws::new(Draws::new(0, 0, "mixstyle"), (0..bags as u32).collect::<Vec<_>>());
        Box::new(move || {
            let tape = place.tape(pass);
            let x = tape.leaf(x.clone());
            let y = op.forward(&tape, &x, &lengths, Some(&draws)).expect("the shapes fit");
            if pass == Pass::ForwardBackward {
                black_box(tape.backward(&[(&y, ones.clone())]).expect("the shapes fit").of(&x));
            }
            black_box(y);
        })
    };
    // Read for the statistics and for the result, which is written; back, a gradient is read and one written. Mean 1,
    // variance 4, mixing 3, the slope 1 for each element.
    let (passes, flops) = if pass == Pass::Forward { (3.0, 8.0) } else { (5.0, 9.0) };
    Case {
        op: "mixstyle",
        shape: format!("N {n} B {bags} D {d}"),
        dtype: "F32",
        pass,
        bytes: passes * 4.0 * (n * d) as f64,
        flops: flops * (n * d) as f64,
        precision: Precision::F32,
        setup: Box::new(setup),
    }
}
