//! Shapes of gated attention pooling.

use std::hint::black_box;

use super::{Case, Pass, Place};
use crate::device::Precision;
use crate::ops::{Affine, AttentionMil};
use crate::{FeatureType, Ragged};

pub(super) fn cases() -> Vec<Case> {
    use Pass::{Forward, ForwardBackward};
    let mut cases = vec![
        case(1024, 4, 1024, 256, FeatureType::F32, Precision::F32, Forward),
        case(1024, 4, 1024, 256, FeatureType::F32, Precision::F32, ForwardBackward),
        case(32_768, 16, 1024, 256, FeatureType::F32, Precision::F32, Forward),
        case(32_768, 16, 1024, 256, FeatureType::F32, Precision::F32, ForwardBackward),
        case(32_768, 16, 1024, 256, FeatureType::F16, Precision::F32, Forward),
        case(32_768, 16, 1024, 256, FeatureType::F16, Precision::F32, ForwardBackward),
    ];
    // What a card is for: a million patches in a hundred bags, and one slide of the largest kind.
    for pass in [Forward, ForwardBackward] {
        cases.push(case(1_000_000, 100, 1024, 256, FeatureType::Bf16, Precision::Bf16, pass));
        cases.push(case(1_000_000, 100, 1024, 256, FeatureType::F16, Precision::F16, pass));
        cases.push(case(1_000_000, 100, 1024, 256, FeatureType::F32, Precision::F32, pass));
        cases.push(case(1_000_000, 100, 1536, 256, FeatureType::Bf16, Precision::Bf16, pass));
        cases.push(case(1_000_000, 5, 1024, 256, FeatureType::Bf16, Precision::Bf16, pass));
    }
    cases
}

fn case(n: usize, bags: usize, l: usize, d: usize, stored: FeatureType, precision: Precision, pass: Pass) -> Case {
    let setup = move |place: Place| -> Box<dyn FnMut()> {
        let x = place.features("x", &[n, l], stored);
        // Lengths 1 : 2 : ... : B, the last bag takes what is left.
        let (unit, mut left) = (2 * n / (bags * (bags + 1)), n);
        let lengths: Vec<usize> = (1..=bags)
            .map(|b| {
                let length = if b == bags { left } else { b * unit };
                left -= length;
                length
            })
            .collect();
        let bags = Ragged::from_lengths(lengths);
        let parameters = [("v", d, l), ("u", d, l), ("w", 1, d)]
            .map(|(name, rows, columns)| place.normal(name, &[rows, columns], (columns as f32).sqrt().recip()));
        let ones = place.full(&[bags.bags(), 1, l], 1.0);
        Box::new(move || {
            let tape = place.tape(pass);
            let [v, u, w] = parameters.clone().map(|p| tape.leaf(p));
            let map = |weight| Affine { weight, bias: None };
            let op = AttentionMil { v: map(&v), u: Some(map(&u)), w: map(&w) };
            let out = op.forward(&tape, &x, &bags).expect("the shapes fit");
            if pass == Pass::ForwardBackward {
                black_box(tape.backward(&[(&out.pooled, ones.clone())]).expect("the shapes fit").of(&v));
            }
            black_box(out.pooled);
        })
    };
    let bytes = stored.bytes() as f64;
    let passes = if pass == Pass::Forward { 1.0 } else { 2.0 };
    let (nf, ld) = (n as f64, (l * d) as f64);
    Case {
        op: "attention_mil",
        shape: format!("N {n} B {bags} L {l} D {d} K 1"),
        dtype: stored.name(),
        pass,
        bytes: passes * (bytes * nf * l as f64 + 4.0 * 2.0 * ld),
        // Without what a backward pass may choose to calculate again.
        flops: passes * 4.0 * nf * ld,
        precision,
        setup: Box::new(setup),
    }
}
