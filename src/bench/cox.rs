//! Shapes of the Cox partial likelihood: follow-up in days over ten years, three in ten died.

use std::hint::black_box;

use super::{Case, Pass, Place};
use crate::device::Precision;
use crate::ops::Cox;
use crate::ops::cox::{Outcomes, Plan, Ties};
use crate::rng::Draws;

pub(super) fn cases() -> Vec<Case> {
    use Pass::{Forward, ForwardBackward};
    let mut cases = vec![case(10_000, Ties::Efron, false, Forward)];
    for n in [1000, 10_000, 100_000, 1_000_000] {
        cases.push(case(n, Ties::Efron, false, ForwardBackward));
        cases.push(case(n, Ties::Breslow, false, ForwardBackward));
        cases.push(case(n, Ties::Efron, true, ForwardBackward));
    }
    cases
}

/// Whole days, so that many die at the same time.
fn outcomes(n: usize) -> (Vec<f64>, Vec<bool>) {
    let stream = Draws::new(0, 0, "outcomes").of(0);
    (0..n as u64).map(|i| (f64::from(1 + stream.below(2 * i, 3650)), stream.uniform(2 * i + 1) < 0.3)).unzip()
}

/// With `plans` the risk sets are made anew in every call.
fn case(n: usize, ties: Ties, plans: bool, pass: Pass) -> Case {
    let op = Cox { ties, ..Cox::default() };
    let setup = move |place: Place| -> Box<dyn FnMut()> {
        let (log_risk, (time, event)) = (place.normal("log_risk", &[n], 1.0), outcomes(n));
        let plan = move || Plan::new(&Outcomes::new(&time, &event)).expect("proper outcomes");
        let kept = plan();
        Box::new(move || {
            let tape = place.tape(pass);
            let log_risk = tape.leaf(log_risk.clone());
            let made = plans.then(&plan);
            let loss = op.forward(&tape, &log_risk, made.as_ref().unwrap_or(&kept)).expect("finite risks");
            if pass == Pass::ForwardBackward {
                black_box(tape.backward(&[(&loss, place.full(&[], 1.0))]).expect("a scalar").of(&log_risk));
            }
            black_box(loss);
        })
    };
    let nf = n as f64;
    // Outcomes are 9 bytes a patient; sorting compares.
    let (outcomes, sorting) = if plans { (9.0, nf.log2()) } else { (0.0, 0.0) };
    Case {
        op: "cox",
        shape: format!("n {n} {}{}", format!("{ties:?}").to_lowercase(), if plans { " and plan" } else { "" }),
        dtype: "F32",
        pass,
        bytes: nf * (if pass == Pass::Forward { 4.0 } else { 8.0 } + outcomes),
        // An exponential counts as one operation.
        flops: nf * (1.0 + sorting),
        precision: Precision::F32,
        setup: Box::new(setup),
    }
}
