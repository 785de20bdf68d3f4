//! Shapes of the mean of bags, and of what else makes one row of each bag.

use std::hint::black_box;

use super::{Case, Pass, Place};
use crate::device::Precision;
use crate::ops::SegmentMean;
use crate::{Ragged, Result, Tape, Var};

/// Rows, bags and columns.
pub(super) const SHAPE: [usize; 3] = [32_768, 16, 256];

pub(super) fn cases() -> Vec<Case> {
    let mean = |tape: &Tape<f32>, x: &Var<f32>, bags: &Ragged| SegmentMean.forward(tape, x, bags);
    [Pass::Forward, Pass::ForwardBackward].map(|pass| case("segment_mean", mean, pass)).into()
}

/// The case of an op that reads all rows, writes one of each bag, and goes back the other way.
pub(super) fn case(
    op: &'static str,
    of: impl Fn(&Tape<f32>, &Var<f32>, &Ragged) -> Result<Var<f32>> + Copy + 'static,
    pass: Pass,
) -> Case {
    let [n, bags, d] = SHAPE;
    let setup = move |place: Place| -> Box<dyn FnMut()> {
        let (x, ones) = (place.normal("x", &[n, d], 1.0), place.full(&[bags, d], 1.0));
        // All but one of them short.
        let bags = Ragged::from_lengths((0..bags).map(|b| if b == 0 { n - (bags - 1) * 1000 } else { 1000 }));
        Box::new(move || {
            let tape = place.tape(pass);
            let x = tape.leaf(x.clone());
            let y = of(&tape, &x, &bags).expect("the shapes fit");
            if pass == Pass::ForwardBackward {
                black_box(tape.backward(&[(&y, ones.clone())]).expect("the shapes fit").of(&x));
            }
            black_box(y);
        })
    };
    let passes = if pass == Pass::Forward { 1.0 } else { 2.0 };
    Case {
        op,
        shape: format!("N {n} B {bags} D {d}"),
        dtype: "F32",
        pass,
        bytes: passes * 4.0 * ((n + bags) * d) as f64,
        flops: passes * (n * d) as f64,
        precision: Precision::F32,
        setup: Box::new(setup),
    }
}
