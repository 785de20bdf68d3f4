//! One conformance suite an op: against the formula in f64, finite differences, golden files and the op's own laws.

mod attention_mil;
mod harness;
mod linear;
