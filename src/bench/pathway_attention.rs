//! Shapes of the attention between gene tokens and patch tokens: SurvPath's, of one patient and of a batch.

use std::hint::black_box;

use super::{Case, Pass, Place};
use crate::Ragged;
use crate::device::Precision;
use crate::ops::PathwayAttention;

/// Signatures, and the width of the attention.
const GENES: usize = 331;
const WIDTH: usize = 128;

pub(super) fn cases() -> Vec<Case> {
    let passes = [Pass::Forward, Pass::ForwardBackward];
    let sizes = [(1, 1024), (1, 4096), (16, 4096)];
    sizes.into_iter().flat_map(|(patients, patches)| passes.map(|pass| case(patients, patches, pass))).collect()
}

fn case(patients: usize, patches: usize, pass: Pass) -> Case {
    let setup = move |place: Place| -> Box<dyn FnMut()> {
        let bags = [GENES, patches].map(|n| Ragged::uniform(patients, n));
        let packed = |name: &str, bags: &Ragged| place.normal(name, &[bags.rows(), 3 * WIDTH], 1.0);
        let (genes, patches) = (packed("genes", &bags[0]), packed("patches", &bags[1]));
        let ones = [0, 1].map(|i| place.full(&[bags[i].rows(), WIDTH], 1.0));
        Box::new(move || {
            let tape = place.tape(pass);
            let (g, p) = (tape.leaf(genes.clone()), tape.leaf(patches.clone()));
            let op = PathwayAttention { heads: 1 };
            let [of_genes, of_patches] = op.forward(&tape, (&g, &bags[0]), (&p, &bags[1])).expect("the shapes fit");
            if pass == Pass::ForwardBackward {
                let roots = [(&of_genes, ones[0].clone()), (&of_patches, ones[1].clone())];
                black_box(tape.backward(&roots).expect("the shapes fit").of(&p));
            }
            black_box((of_genes, of_patches));
        })
    };
    // Scores and what is weighed by them, of gene tokens among themselves and of both sides with each other; five products of
    // that size on the way back.
    let pairs = (patients * GENES * (GENES + 2 * patches)) as f64;
    let (forward, backward) = (4.0 * pairs * WIDTH as f64, 10.0 * pairs * WIDTH as f64);
    let rows = (patients * (GENES + patches) * 4 * WIDTH) as f64;
    let both = pass == Pass::ForwardBackward;
    Case {
        op: "pathway_attention",
        shape: format!("S {GENES} N {patches} B {patients} E {WIDTH}"),
        dtype: "F32",
        pass,
        bytes: 4.0 * rows * if both { 3.0 } else { 1.0 },
        flops: forward + if both { backward } else { 0.0 },
        precision: Precision::F32,
        setup: Box::new(setup),
    }
}
