//! The ops: one folder each, with its page, its CPU path and (later) its launch on the device.

pub mod activation;
pub mod linear;
mod matmul;
mod parallel;
pub mod standardize;

pub use activation::Activation;
pub use linear::Linear;
pub use standardize::Standardize;
