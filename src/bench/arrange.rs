//! Shapes of rows in another order: a class token and the patches of a bag, some of them twice, as TransMIL has them.

use std::hint::black_box;

use super::{Case, Pass, Place};
use crate::device::Precision;
use crate::ops::{Arrange, Arrangement};

pub(super) fn cases() -> Vec<Case> {
    [Pass::Forward, Pass::ForwardBackward].map(|pass| case(32_400, 181, 256, pass)).into()
}

/// `n` patches in a square of `side`.
fn case(n: usize, side: usize, d: usize, pass: Pass) -> Case {
    let places = 1 + side * side;
    let setup = move |place: Place| -> Box<dyn FnMut()> {
        let rows = (0..side * side).map(|i| Some((1, i % n)));
        let at = Arrangement::new(&[1, n], [Some((0, 0))].into_iter().chain(rows)).expect("every row is there");
        let (class, x) = (place.normal("class", &[1, d], 1.0), place.normal("x", &[n, d], 1.0));
        let ones = place.full(&[places, d], 1.0);
        Box::new(move || {
            let tape = place.tape(pass);
            let (class, x) = (tape.leaf(class.clone()), tape.leaf(x.clone()));
            let y = Arrange.forward(&tape, &[&class, &x], &at).expect("the shapes fit");
            if pass == Pass::ForwardBackward {
                black_box(tape.backward(&[(&y, ones.clone())]).expect("the shapes fit").of(&x));
            }
            black_box(y);
        })
    };
    let passes = if pass == Pass::Forward { 1.0 } else { 2.0 };
    Case {
        op: "arrange",
        shape: format!("N {n} places {places} D {d}"),
        dtype: "F32",
        pass,
        bytes: passes * 4.0 * ((n + 1 + places) * d) as f64,
        flops: if pass == Pass::Forward { 0.0 } else { (places * d) as f64 },
        precision: Precision::F32,
        setup: Box::new(setup),
    }
}
