//! Shapes of the grouped layer: the first layer of networks for sets of genes.

use std::hint::black_box;

use super::{Case, Pass, normal, tape};
use crate::ops::{Activation, GroupedLinear};
use crate::{Ragged, Tensor, Var};

pub(super) fn cases() -> Vec<Case> {
    [1, 16].into_iter().flat_map(|b| [case(b, 256, Pass::Forward), case(b, 256, Pass::ForwardBackward)]).collect()
}

/// 331 sets of 1 to 199 genes, most of them small, about 9,700 in all: as Hallmark and Reactome sets are.
fn sets() -> Ragged {
    Ragged::from_lengths((0..331).map(|s| 1 + (198.0 * (f64::from(s) / 330.0).powi(6)).round() as usize))
}

fn case(b: usize, o: usize, pass: Pass) -> Case {
    let (inputs, sets) = (sets().rows(), sets().bags());
    let op = GroupedLinear { activation: Activation::Elu };
    let setup = move || -> Box<dyn FnMut()> {
        let groups = self::sets();
        let x = Var::constant(normal("x", &[b, inputs], 1.0));
        let weight = normal("weight", &[o * inputs], 0.1);
        let (bias, ones) = (Tensor::zeros(&[sets, o]), Tensor::full(&[b * sets, o], 1.0));
        Box::new(move || {
            let tape = tape(pass);
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
        setup: Box::new(setup),
    }
}
