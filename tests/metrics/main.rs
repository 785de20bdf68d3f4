//! The survival metrics against naive formulas, laws and what R, scikit-survival and lifelines computed.

mod errors;
mod golden;
mod laws;
mod naive;

use proptest::prelude::*;

/// Patients with ties in time and risk: few distinct values, so that each tie rule is met. Risks in eighths are exact.
pub(crate) fn patients(max: usize) -> impl Strategy<Value = (Vec<f64>, Vec<bool>, Vec<f64>)> {
    prop::collection::vec((0..12_u8, any::<bool>(), -8..8_i8), 0..max).prop_map(|rows| {
        let time = rows.iter().map(|row| f64::from(row.0) * 0.5).collect();
        let event = rows.iter().map(|row| row.1).collect();
        let risk = rows.iter().map(|row| f64::from(row.2) * 0.125).collect();
        (time, event, risk)
    })
}

/// Asserts that two numbers differ by no more than two computations, each of `roundings` roundings on terms of one sign,
/// can: each rounding is off by at most EPSILON / 2 of the value, to first order.
#[track_caller]
pub(crate) fn assert_close(got: f64, want: f64, roundings: usize, what: &str) {
    let bound = roundings as f64 * f64::EPSILON * got.abs().max(want.abs());
    assert!((got - want).abs() <= bound, "{what}: {got} is not {want} (off by {:e}, bound {bound:e})", got - want);
}
