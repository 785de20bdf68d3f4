//! One conformance suite an op, and that of the optimisers: against the formula in f64, finite differences, golden files
//! and the op's own laws.

mod add;
mod arrange;
mod attention_mil;
mod attention_mil_golden;
mod cade;
mod cade_norm;
mod cade_plain;
mod concat;
mod cox;
mod device;
mod dropout;
mod gather;
#[path = "../common/golden.rs"]
#[allow(dead_code, reason = "shared by several test programs, each of which uses a part")]
mod golden;
mod grid_conv;
mod grouped_linear;
mod harness;
mod landmark_inverse;
mod laws;
mod layer_norm;
mod linear;
mod linear_cublaslt;
mod mixstyle;
mod nll_survival;
mod optim;
mod outer;
mod pathway_attention;
mod sdir;
mod segment_max;
mod segment_mean;
mod sequence_conv;
mod softmax;
mod standardize;
mod transport;
