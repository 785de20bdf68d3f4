//! Shapes of gated attention pooling.

use std::hint::black_box;

use half::f16;

use super::{Case, Pass, normal, tape};
use crate::features::Features;
use crate::ops::{Affine, AttentionMil};
use crate::{Ragged, Tensor};

pub(super) fn cases() -> Vec<Case> {
    use Pass::{Forward, ForwardBackward};
    vec![
        case(1024, 4, 1024, 256, Stored::F32, Forward),
        case(1024, 4, 1024, 256, Stored::F32, ForwardBackward),
        case(32_768, 16, 1024, 256, Stored::F32, Forward),
        case(32_768, 16, 1024, 256, Stored::F32, ForwardBackward),
        case(32_768, 16, 1024, 256, Stored::F16, Forward),
        case(32_768, 16, 1024, 256, Stored::F16, ForwardBackward),
    ]
}

/// How the features lie in memory.
#[derive(Clone, Copy, PartialEq)]
enum Stored {
    F32,
    F16,
}

fn case(n: usize, bags: usize, l: usize, d: usize, stored: Stored, pass: Pass) -> Case {
    let setup = move || -> Box<dyn FnMut()> {
        let x = normal("x", &[n, l], 1.0);
        let x = match stored {
            Stored::F32 => Features::F32(x),
            Stored::F16 => Features::F16(Tensor::from_fn(&[n, l], |i| f16::from_f32(x.host()[i]))),
        };
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
            .map(|(name, rows, columns)| normal(name, &[rows, columns], (columns as f32).sqrt().recip()));
        let ones = Tensor::full(&[bags.bags(), 1, l], 1.0);
        Box::new(move || {
            let tape = tape(pass);
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
    let bytes = match stored {
        Stored::F32 => 4.0,
        Stored::F16 => 2.0,
    };
    let passes = if pass == Pass::Forward { 1.0 } else { 2.0 };
    let (nf, ld) = (n as f64, (l * d) as f64);
    Case {
        op: "attention_mil",
        shape: format!("N {n} B {bags} L {l} D {d} K 1"),
        dtype: if stored == Stored::F32 { "F32" } else { "F16" },
        pass,
        bytes: passes * (bytes * nf * l as f64 + 4.0 * 2.0 * ld),
        // Without what a backward pass may choose to calculate again.
        flops: passes * 4.0 * nf * ld,
        setup: Box::new(setup),
    }
}
