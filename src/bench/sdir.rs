//! Shapes of the rebalancer: half of a slide's tokens masked.

use std::hint::black_box;

use super::{Case, Pass, Place};
use crate::Ragged;
use crate::device::Precision;
use crate::ops::sdir::Gain;
use crate::ops::{BagDraws, Sdir};
use crate::rng::Draws;

pub(super) fn cases() -> Vec<Case> {
    let passes = [Pass::Forward, Pass::ForwardBackward];
    let gain = Gain::Gaussian { gamma: 1.0, k: 1.0 };
    let sizes = [(100_000, Gain::None), (1_000_000, Gain::None), (4427, gain)];
    sizes.into_iter().flat_map(|(n, gain)| passes.map(|pass| case(n, 256, gain, pass))).collect()
}

fn case(n: usize, d: usize, gain: Gain, pass: Pass) -> Case {
    let op = Sdir { gain, ..Sdir::default() };
    let setup = move |place: Place| -> Box<dyn FnMut()> {
        let (x, bags) = (place.normal("x", &[n, d], 1.0), Ragged::uniform(1, n));
        let (ones, scale) = (place.full(&[n, d], 1.0), place.full(&[1], 1.0));
        let draws = BagDraws::new(Draws::new(0, 0, "sdir"), vec![1]);
        Box::new(move || {
            let tape = place.tape(pass);
            let x = tape.leaf(x.clone());
            let y = op.forward(&tape, &x, &bags, Some(&draws), Some(&scale)).expect("the shapes fit");
            if pass == Pass::ForwardBackward {
                black_box(tape.backward(&[(&y, ones.clone())]).expect("the shapes fit").of(&x));
            }
            black_box(y);
        })
    };
    // Kept rows are read and all are written, each way; a gain reads x again on the way back.
    let (kept, all) = (op.p * (n * d) as f64, (n * d) as f64);
    let gains = gain.is_active();
    let again = if gains { kept } else { 0.0 };
    let (forward, backward) = if gains { (3.0, 7.0) } else { (0.0, 0.0) };
    let (bytes, flops) = match pass {
        Pass::Forward => (kept + all, forward),
        Pass::ForwardBackward => (2.0 * (kept + all) + again, forward + backward),
    };
    Case {
        op: "sdir",
        shape: format!("N {n} D {d} B 1{}", if gains { " gain" } else { "" }),
        dtype: "F32",
        pass,
        bytes: 4.0 * bytes,
        flops: flops * kept,
        precision: Precision::F32,
        setup: Box::new(setup),
    }
}
