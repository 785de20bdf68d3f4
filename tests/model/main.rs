//! The fusion model as a whole: its gradient, its batches, its training, its file.

#![allow(unreachable_pub)]

mod cohort_step;
mod figures;
mod fixture;
#[path = "../ops/harness.rs"]
#[allow(dead_code, reason = "shared with the suite of the ops, of which this uses a part")]
mod harness;
mod model_file;
mod study;
mod training;
