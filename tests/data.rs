//! Cohorts from files to memory, and every way in which files are wrong.

#[path = "data/study.rs"]
mod study;

#[path = "data/shared.rs"]
mod shared;

#[path = "data/golden.rs"]
mod golden;

#[path = "data/wrong.rs"]
mod wrong;

#[path = "data/slides.rs"]
mod slides;

#[path = "data/hostile.rs"]
mod hostile;

#[path = "data/synthetic.rs"]
mod synthetic;

#[path = "data/dialects.rs"]
mod dialects;

#[path = "data/expression.rs"]
mod expression;

#[path = "data/strange.rs"]
mod strange;
