//! From files to tensors.

mod problem;

pub use problem::{Problem, Problems};
