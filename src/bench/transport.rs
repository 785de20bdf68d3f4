//! Shapes of the transport from patches to gene tokens: MOTCat's, of one patient and of a batch.

use std::hint::black_box;

use super::{Case, Pass, Place};
use crate::Ragged;
use crate::device::Precision;
use crate::ops::Transport;

/// Groups of genes, and the width of a token.
const GENES: usize = 6;
const WIDTH: usize = 256;
/// So that every case does the same work.
const ITERATIONS: u32 = 40;

pub(super) fn cases() -> Vec<Case> {
    let passes = [Pass::Forward, Pass::ForwardBackward];
    [(1, 4096), (16, 4096)].into_iter().flat_map(|(patients, n)| passes.map(|pass| case(patients, n, pass))).collect()
}

fn case(patients: usize, patches: usize, pass: Pass) -> Case {
    let setup = move |place: Place| -> Box<dyn FnMut()> {
        let bags = [GENES, patches].map(|n| Ragged::uniform(patients, n));
        let tokens = |name: &str, bags: &Ragged| place.normal(name, &[bags.rows(), WIDTH], 1.0);
        let (genes, patches) = (tokens("genes", &bags[0]), tokens("patches", &bags[1]));
        let ones = place.full(&[bags[0].rows(), WIDTH], 1.0);
        Box::new(move || {
            let tape = place.tape(pass);
            let (g, p) = (tape.leaf(genes.clone()), tape.leaf(patches.clone()));
            let op = Transport { tolerance: 0.0, iterations: ITERATIONS, ..Transport::default() };
            let (out, _) = op.forward(&tape, (&g, &bags[0]), (&p, &bags[1])).expect("the shapes fit");
            if pass == Pass::ForwardBackward {
                black_box(tape.backward(&[(&out, ones.clone())]).expect("the shapes fit").of(&p));
            }
            black_box(out);
        })
    };
    let rows = patients * patches;
    let pairs = (rows * GENES) as f64;
    let both = pass == Pass::ForwardBackward;
    let of_costs_and_sums = pairs * WIDTH as f64 * if both { 7.0 } else { 5.0 };
    // Tokens are read for the costs and for the sums, and their gradient is written; the plan goes by in each iteration.
    let tokens = (rows * WIDTH) as f64 * if both { 3.0 } else { 2.0 };
    Case {
        op: "transport",
        shape: format!("S {GENES} N {patches} B {patients} D {WIDTH}"),
        dtype: "F32",
        pass,
        bytes: 4.0 * (tokens + pairs * f64::from(ITERATIONS)),
        flops: of_costs_and_sums + 4.0 * pairs * f64::from(ITERATIONS),
        precision: Precision::F32,
        setup: Box::new(setup),
    }
}
