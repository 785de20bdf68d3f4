#![doc = include_str!("../README.md")]

pub mod bench;
pub mod cli;
pub mod config;
pub mod data;
pub mod device;
pub mod element;
pub mod error;
pub mod evaluate;
pub mod features;
pub mod heatmap;
mod memory;
pub mod metrics;
pub mod model;
pub mod nn;
pub mod ops;
pub mod optim;
pub mod rng;
pub mod run;
pub mod shape;
pub mod study;
pub mod tape;
pub mod tensor;
pub mod train;
mod widen;

pub use device::Device;
pub use element::{Element, Feature, Real};
pub use error::{Error, Result};
pub use features::{FeatureType, Features, Rows};
pub use shape::Ragged;
pub use tape::{Tape, Var};
pub use tensor::Tensor;
