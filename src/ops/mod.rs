//! The ops: one folder each, with its page, its CPU path and (later) its launch on the device.

pub mod activation;
pub mod attention_mil;
pub mod dropout;
mod lanes;
pub mod linear;
mod math;
mod matmul;
mod parallel;
pub mod sdir;
pub mod standardize;
pub mod tokens;

pub use activation::Activation;
pub use attention_mil::{Affine, AttentionMil, Pooling};
pub use dropout::{Dropout, DropoutKind};
pub use linear::Linear;
pub use sdir::Sdir;
pub use standardize::Standardize;
pub use tokens::BagDraws;
