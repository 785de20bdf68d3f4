//! Shapes of the maximum of bags.

use super::segment_mean::{SHAPE, case};
use super::{Case, Pass};
use crate::ops::SegmentMax;
use crate::{Ragged, Tape, Var};

pub(super) fn cases() -> Vec<Case> {
    let max = |tape: &Tape<f32>, x: &Var<f32>, bags: &Ragged| SegmentMax.forward(tape, x, bags);
    let [n, bags, d] = SHAPE;
    let of_pass = |(pass, passes)| Case {
        // Back, zeros are written but where a result was.
        bytes: passes * 4.0 * ((n + 2 * bags) * d) as f64,
        flops: (n * d) as f64,
        ..case("segment_max", max, pass)
    };
    [(Pass::Forward, 1.0), (Pass::ForwardBackward, 2.0)].map(of_pass).into()
}
