//! Shapes of gathering: the patches of a batch out of a cohort.

use std::hint::black_box;

use super::{Case, Pass, Place};
use crate::device::Precision;
use crate::features::FeatureType;
use crate::ops::gather::Gather;
use crate::shape::Ragged;

pub(super) fn cases() -> Vec<Case> {
    // The second for a card.
    vec![case(16, 2000, 1024), case(64, 15_000, 1024)]
}

fn case(bags: usize, each: usize, l: usize) -> Case {
    let n = bags * each;
    let setup = move |place: Place| -> Box<dyn FnMut()> {
        let x = place.features("x", &[n, l], FeatureType::F16);
        // Every bag, in another order.
        let starts: Vec<usize> = (0..bags).map(|b| (b * 7 + 3) % bags * each).collect();
        let bags = Ragged::uniform(bags, each);
        Box::new(move || {
            black_box(Gather.features(&x, &starts, &bags).expect("the bags lie within"));
        })
    };
    Case {
        op: "gather",
        shape: format!("N {n} B {bags} L {l}"),
        dtype: "F16",
        pass: Pass::Forward,
        bytes: 4.0 * (n * l) as f64,
        flops: 0.0,
        precision: Precision::F32,
        setup: Box::new(setup),
    }
}
