//! Shapes of the entanglement, with the masks applied on the way in: 331 gene tokens and the patches of a slide.

use std::hint::black_box;

use super::{Case, Pass, Place};
use crate::Ragged;
use crate::device::Precision;
use crate::ops::{BagDraws, Cade, Sdir};
use crate::rng::Draws;

pub(super) fn cases() -> Vec<Case> {
    let passes = [Pass::Forward, Pass::ForwardBackward];
    [100_000, 1_000_000].into_iter().flat_map(|n| passes.map(|pass| case(331, n, 256, pass))).collect()
}

fn case(n1: usize, n2: usize, d: usize, pass: Pass) -> Case {
    // Every patient is mixed.
    let (op, sdir) = (Cade { p_aug: 1.0, ..Cade::default() }, Sdir::default());
    let setup = move |place: Place| -> Box<dyn FnMut()> {
        let (f, g) = (place.normal("f", &[n1, d], 1.0), place.normal("g", &[n2, d], 1.0));
        let bags = [n1, n2].map(|n| Ragged::uniform(1, n));
        let ones = [n1, n2].map(|n| place.full(&[n, d], 1.0));
        let draws = ["sdir.genes", "sdir.patches", "cade"].map(|name| BagDraws::new(Draws::new(0, 0, name), vec![1]));
        Box::new(move || {
            let tape = place.tape(pass);
            let (f, g) = (tape.leaf(f.clone()), tape.leaf(g.clone()));
            let masks = [0, 1].map(|k| sdir.mask(&bags[k], Some(&draws[k])).expect("one patient a bag"));
            let [f_out, g_out] = op
                .forward_masked(&tape, [&f, &g], [&bags[0], &bags[1]], [&masks[0], &masks[1]], Some(&draws[2]))
                .expect("the shapes fit");
            if pass == Pass::ForwardBackward {
                let roots = [(&f_out, ones[0].clone()), (&g_out, ones[1].clone())];
                black_box(tape.backward(&roots).expect("the shapes fit").of(&g));
            }
            black_box((f_out, g_out));
        })
    };
    // Masked tokens are not read; the smaller set is read twice. Backward reads the gradient of kept tokens.
    let (d, n) = (d as f64, (n1 + n2) as f64);
    let forward = sdir.p * (n + n1 as f64) + n;
    let backward = sdir.p * n + n;
    let (rows, flops) = match pass {
        Pass::Forward => (forward, 7.0),
        Pass::ForwardBackward => (forward + backward, 8.0),
    };
    Case {
        op: "cade",
        shape: format!("N {n1} + {n2} D {d} B 1 masked"),
        dtype: "F32",
        pass,
        bytes: 4.0 * d * rows,
        // Mean 1, variance 3, mixing 3, the slope 1 for each element that is kept.
        flops: flops * sdir.p * n * d,
        precision: Precision::F32,
        setup: Box::new(setup),
    }
}
