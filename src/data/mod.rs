//! From files to tensors: cohorts of patients, their gene expression and the features of their slides.
//!
//! A cohort is described by one TOML file, [`CohortFile`]. [`Cohort::open`] reads it and everything it names, or
//! refuses it with all [`Problems`] at once.

mod archive;
mod atomic;
mod bags;
mod barcode;
mod bins;
mod bytes;
mod choose;
mod clinical;
mod cohort;
mod columns;
mod dialect;
mod features;
mod file;
mod hash;
mod import;
mod inspect;
mod map;
mod modality;
mod problem;
mod report;
mod rna;
mod rna_table;
mod scaler;
mod signatures;
mod slide;
mod slides;
mod split_files;
mod splits;
mod store;
mod synthetic;
mod table;
mod tensors;

pub use atomic::{RunDir, write_file};
pub use bags::Bags;
pub(crate) use bags::Part;
pub(crate) use barcode::{Ids, Match, slide_name};
pub use bins::{BinRule, Bins};
pub use bytes::Reading;
pub use clinical::Patient;
pub use cohort::Cohort;
pub use dialect::{Endpoint, Preset, TimeUnit};
pub use features::{CoordUnit, Coords, Dialect, FeatureFile, PatchSize, Statistics};
pub(crate) use features::{DataKind, DataSet, write_hdf5};
pub use file::{
    ClinicalFile, CohortFile, MissingOutcome, MissingRna, MissingSlides, PerPatient, RnaFile, SlideTable, SlidesFile,
    TimeZero,
};
pub use hash::FileHash;
pub use import::{Import, Imported, ImportedCohort, Tool};
pub use inspect::{CoordsInspection, FeaturesInspection, Inspection, TableInspection, inspect, inspect_by};
pub use modality::Modality;
pub use problem::{Problem, Problems};
pub use report::{
    CheckOptions, ClinicalReport, NonFinite, Report, SetReport, SlidesReport, SplitReport, check, check_by,
};
pub use rna::Rna;
pub use scaler::{MissingGenes, Scaler, Scaling};
pub use signatures::Signature;
pub use slide::Slide;
pub use splits::Split;
pub use store::{PackOptions, Packed, Shard, StoreIndex, StoredSlide, StoredSource, pack, verify};
pub use synthetic::SyntheticStudy;
pub(crate) use tensors::TensorFile;
