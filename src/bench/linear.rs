//! Shapes of the fully connected layer.

use std::hint::black_box;

use super::{Case, Pass, Place};
use crate::Var;
use crate::device::Precision;
use crate::ops::{Activation, Linear};

pub(super) fn cases() -> Vec<Case> {
    use Pass::{Forward, ForwardBackward};
    vec![
        // The projection of patch features.
        case(4096, 768, 256, Activation::Identity, Precision::F32, Forward),
        case(4096, 768, 256, Activation::Identity, Precision::F32, ForwardBackward),
        // A feed-forward layer on tokens.
        case(4427, 128, 128, Activation::Gelu, Precision::F32, Forward),
        case(4427, 128, 128, Activation::Gelu, Precision::F32, ForwardBackward),
        case(32_768, 1024, 512, Activation::Relu, Precision::F32, Forward),
        case(32_768, 1024, 512, Activation::Relu, Precision::F32, ForwardBackward),
        // The projection of a million patches, for a card.
        case(1_000_000, 1024, 512, Activation::Relu, Precision::F32, Forward),
        case(1_000_000, 1024, 512, Activation::Relu, Precision::Bf16, Forward),
        case(1_000_000, 1024, 512, Activation::Relu, Precision::Bf16, ForwardBackward),
    ]
}

fn case(n: usize, i: usize, o: usize, activation: Activation, precision: Precision, pass: Pass) -> Case {
    let op = Linear { activation };
    let setup = move |place: Place| -> Box<dyn FnMut()> {
        let x = Var::constant(place.normal("x", &[n, i], 1.0));
        let weight = place.normal("weight", &[o, i], (i as f32).sqrt().recip());
        let (bias, ones) = (place.full(&[o], 0.0), place.full(&[n, o], 1.0));
        Box::new(move || {
            let tape = place.tape(pass);
            let (weight, bias) = (tape.leaf(weight.clone()), tape.leaf(bias.clone()));
            let y = op.forward(&tape, &x, &weight, Some(&bias)).expect("the shapes fit");
            if pass == Pass::ForwardBackward {
                black_box(tape.backward(&[(&y, ones.clone())]).expect("the shapes fit").of(&weight));
            }
            black_box(y);
        })
    };
    let (nf, size) = (n as f64, (i * o) as f64);
    // Backward reads x and the gradient, and writes the gradient of the weight; x is data and gets none.
    let passes = if pass == Pass::Forward { 1.0 } else { 2.0 };
    Case {
        op: "linear",
        shape: format!("N {n} I {i} O {o} {}", format!("{activation:?}").to_lowercase()),
        dtype: "F32",
        pass,
        bytes: passes * 4.0 * (nf * (i + o) as f64 + size),
        flops: passes * 2.0 * nf * size,
        precision,
        setup: Box::new(setup),
    }
}
