//! Cohorts from files to memory, and every way in which files are wrong.

#[path = "data/study.rs"]
mod study;

#[path = "data/shared.rs"]
mod shared;
