//! Models as a whole: their gradients, batches, trainings, files, and what the published implementations give.

#![allow(unreachable_pub)]

mod batches;
mod cohort_step;
mod figures;
mod fixture;
#[path = "../common/golden.rs"]
#[allow(dead_code, reason = "shared, of which this uses a part")]
mod golden;
mod gradient;
#[path = "../ops/harness.rs"]
#[allow(clippy::neg_cmp_op_on_partial_ord, reason = "a NaN is off, too")]
#[allow(dead_code, reason = "shared with the suite of the ops, of which this uses a part")]
mod harness;
mod leakage;
mod modalities;
mod model_file;
mod published;
mod study;
mod threads;
mod training;
