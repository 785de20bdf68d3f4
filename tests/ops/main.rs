//! One conformance suite an op: against the formula in f64, finite differences, golden files and the op's own laws.

#![allow(unreachable_pub)]

mod add;
mod attention_mil;
mod cade;
mod concat;
mod dropout;
mod grouped_linear;
mod harness;
mod layer_norm;
mod linear;
mod sdir;
mod segment_mean;
mod softmax;
mod standardize;
