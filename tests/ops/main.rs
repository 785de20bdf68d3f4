//! One conformance suite an op: against the formula in f64, finite differences, golden files and the op's own laws.

mod cox;
#[path = "../common/golden.rs"]
#[allow(dead_code, reason = "shared by several test programs, each of which uses a part")]
mod golden;
mod harness;
mod linear;
mod nll_survival;
