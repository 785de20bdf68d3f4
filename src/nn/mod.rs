//! Layers: parameters with names, and the ops that read them.
//!
//! A layer is a small struct of [`ParamId`]s. It is built once with a [`Builder`], which draws the initial values, and
//! called with a [`Pass`], which binds the parameters to a tape and says whether this is training.

mod encoder;
mod layers;
mod nystrom;
mod params;

pub use encoder::{Encoder, EncoderSize};
pub use layers::{AttentionPool, Dense, GeneNets, Norm};
pub use nystrom::{Landmarks, Nystrom, NystromSize};
pub use params::{Builder, Init, Noise, ParamId, Params, Pass, grads_of};
