//! The ops: one folder each, with its page, its CPU path and (later) its launch on the device.

pub mod activation;
pub mod add;
pub mod attention_mil;
pub mod concat;
pub mod grouped_linear;
pub mod layer_norm;
pub mod linear;
mod math;
pub(crate) mod matmul;
mod parallel;
pub mod segment_mean;
pub mod softmax;

pub use activation::Activation;
pub use add::Add;
pub use attention_mil::{Affine, AttentionMil, Pooling};
pub use concat::Concat;
pub use grouped_linear::GroupedLinear;
pub use layer_norm::LayerNorm;
pub use linear::Linear;
pub use segment_mean::SegmentMean;
pub use softmax::Softmax;
