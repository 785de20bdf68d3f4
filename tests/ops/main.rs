//! One conformance suite an op: against the formula in f64, finite differences, golden files and the op's own laws.

mod cade;
mod dropout;
mod harness;
mod linear;
mod sdir;
