//! From files to tensors: cohorts of patients, their gene expression and the features of their slides.
//!
//! A cohort is described by one TOML file, [`CohortFile`]. [`Cohort::open`] reads it and everything it names, or
//! refuses it with all [`Problems`] at once.

mod bags;
mod clinical;
mod cohort;
mod file;
mod hash;
mod map;
mod problem;
mod rna;
mod signatures;
mod slides;
mod table;
mod tensors;

pub use bags::Bags;
pub use clinical::Patient;
pub use cohort::Cohort;
pub use file::{ClinicalFile, CohortFile, MissingRna, MissingSlides, RnaFile, SlidesFile};
pub use hash::FileHash;
pub use problem::{Problem, Problems};
pub use rna::Rna;
pub use signatures::Signature;
