//! The ops: one folder each, with its page, its CPU path and (later) its launch on the device.

pub mod activation;
pub mod attention_mil;
pub mod linear;
mod math;
mod matmul;
mod parallel;

pub use activation::Activation;
pub use attention_mil::{Affine, AttentionMil, Pooling};
pub use linear::Linear;
