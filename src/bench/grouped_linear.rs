//! Shapes of the grouped layer: the first layer of networks for sets of genes.

use std::hint::black_box;

use super::{Case, Pass, Place};
use crate::device::Precision;
use crate::ops::{Activation, GroupedLinear};
use crate::{Ragged, Var};

pub(super) fn cases() -> Vec<Case> {
    let passes = [Pass::Forward, Pass::ForwardBackward];
    let many = [1, 16].into_iter().flat_map(|b| passes.map(|pass| case(b, sets(), 256, pass)));
    many.chain(passes.map(|pass| case(16, few(), 256, pass))).collect()
}

/// 331 sets of 1 to 199 genes, most of them small, about 9,700 in all: as Hallmark and Reactome sets are.
pub(super) fn sets() -> Ragged {
    Ragged::from_lengths((0..331).map(|s| 1 + (198.0 * (f64::from(s) / 330.0).powi(6)).round() as usize))
}

/// 50 sets of 32 to 200 genes, most of them large, about 7,000 in all: as the Hallmark sets alone are.
fn few() -> Ragged {
    Ragged::from_lengths((0..50).map(|s| 200 - (168.0 * (f64::from(s) / 49.0).powi(2)).round() as usize))
}

fn case(b: usize, groups: Ragged, o: usize, pass: Pass) -> Case {
    let (inputs, sets) = (groups.rows(), groups.bags());
    let op = GroupedLinear { activation: Activation::Elu };
    let setup = move |place: Place| -> Box<dyn FnMut()> {
        let groups = groups.clone();
        let x = Var::constant(place.normal("x", &[b, inputs], 1.0));
        let weight = place.normal("weight", &[o * inputs], 0.1);
        let (bias, ones) = (place.full(&[sets, o], 0.0), place.full(&[b * sets, o], 1.0));
        Box::new(move || {
            let tape = place.tape(pass);
            let (weight, bias) = (tape.leaf(weight.clone()), tape.leaf(bias.clone()));
            let y = op.forward(&tape, &x, &groups, o, &weight, Some(&bias)).expect("the shapes fit");
            if pass == Pass::ForwardBackward {
                black_box(tape.backward(&[(&y, ones.clone())]).expect("the shapes fit").of(&weight));
            }
            black_box(y);
        })
    };
    let passes = if pass == Pass::Forward { 1.0 } else { 2.0 };
    let (size, io) = ((o * inputs) as f64, (b * (inputs + sets * o)) as f64);
    Case {
        op: "grouped_linear",
        shape: format!("B {b} S {sets} I {inputs} O {o} elu"),
        dtype: "F32",
        pass,
        bytes: passes * 4.0 * (size + io),
        flops: passes * 2.0 * b as f64 * size,
        precision: Precision::F32,
        setup: Box::new(setup),
    }
}
