//! The ops: one folder each, with its page, its CPU path and (later) its launch on the device.

pub mod activation;
pub mod add;
pub mod attention_mil;
pub mod cade;
pub mod concat;
pub mod cox;
pub mod dropout;
pub mod grouped_linear;
mod lanes;
pub mod layer_norm;
pub mod linear;
mod math;
pub(crate) mod matmul;
pub mod nll_survival;
mod parallel;
pub mod sdir;
pub mod segment_mean;
pub mod softmax;
pub mod standardize;
pub mod tokens;

pub use activation::Activation;
pub use add::Add;
pub use attention_mil::{Affine, AttentionMil, Pooling};
pub use cade::Cade;
pub use concat::Concat;
pub use cox::Cox;
pub use dropout::{Dropout, DropoutKind};
pub use grouped_linear::GroupedLinear;
pub use layer_norm::LayerNorm;
pub use linear::Linear;
pub use nll_survival::NllSurvival;
pub use sdir::Sdir;
pub use segment_mean::SegmentMean;
pub use softmax::Softmax;
pub use standardize::Standardize;
pub use tokens::BagDraws;

use crate::device::Signature;

/// Every kernel that an op declares, file by file.
pub(crate) fn kernels() -> impl Iterator<Item = &'static Signature> {
    [add::KERNELS, cox::KERNELS, layer_norm::KERNELS, nll_survival::KERNELS, crate::optim::KERNELS]
        .into_iter()
        .flatten()
}

/// The error of an op that has no kernel.
pub(crate) fn missing(gpu: crate::device::Gpu, op: &str) -> crate::Error {
    crate::Error::Device { name: gpu.to_string(), why: format!("{op} does not run there yet") }
}
