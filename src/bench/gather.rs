//! Shapes of gathering: the patches of a batch out of a cohort.

use std::hint::black_box;

use half::f16;

use super::{Case, Pass, normal};
use crate::ops::gather::Gather;
use crate::{Ragged, Tensor};

pub(super) fn cases() -> Vec<Case> {
    vec![case(16, 2000, 1024)]
}

fn case(bags: usize, each: usize, l: usize) -> Case {
    let n = bags * each;
    let setup = move || -> Box<dyn FnMut()> {
        let x = normal("x", &[n, l], 1.0);
        let x = Tensor::from_fn(&[n, l], |i| f16::from_f32(x.host()[i]));
        // Every bag, in another order.
        let starts: Vec<usize> = (0..bags).map(|b| (b * 7 + 3) % bags * each).collect();
        let bags = Ragged::uniform(bags, each);
        Box::new(move || {
            black_box(Gather.forward(&x, &starts, &bags).expect("the bags lie within"));
        })
    };
    Case {
        op: "gather",
        shape: format!("N {n} B {bags} L {l}"),
        dtype: "F16",
        pass: Pass::Forward,
        bytes: 4.0 * (n * l) as f64,
        flops: 0.0,
        setup: Box::new(setup),
    }
}
