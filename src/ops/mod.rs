//! The ops: one folder each, with its page, its CPU path and (later) its launch on the device.

pub mod activation;
pub mod cade;
pub mod dropout;
mod lanes;
pub mod linear;
mod matmul;
mod parallel;
pub mod sdir;
pub mod tokens;

pub use activation::Activation;
pub use cade::Cade;
pub use dropout::{Dropout, DropoutKind};
pub use linear::Linear;
pub use sdir::Sdir;
pub use tokens::BagDraws;
