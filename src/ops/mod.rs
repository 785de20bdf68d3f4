//! The ops: one folder each, with its page, its CPU path and (later) its launch on the device.

pub mod activation;
pub mod cox;
pub mod linear;
mod matmul;
pub mod nll_survival;
mod parallel;

pub use activation::Activation;
pub use cox::Cox;
pub use linear::Linear;
pub use nll_survival::NllSurvival;
