//! Survival prediction from whole-slide images and gene expression.

pub mod bench;
pub mod data;
pub mod device;
pub mod element;
pub mod error;
pub mod features;
pub mod metrics;
pub mod ops;
pub mod rng;
pub mod shape;
pub mod tape;
pub mod tensor;

pub use device::Device;
pub use element::{Element, Feature, Real};
pub use error::{Error, Result};
pub use features::{Features, Rows};
pub use shape::Ragged;
pub use tape::{Tape, Var};
pub use tensor::Tensor;
