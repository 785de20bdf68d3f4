//! A cohort in memory.

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::bags::Bags;
use super::bytes::Reading;
use super::choose;
use super::clinical::{Clinical, Patient};
use super::dialect::TimeUnit;
use super::file::{CohortFile, MissingRna, MissingSlides, PerPatient};
use super::hash::FileHash;
use super::problem::{Problem, Problems};
use super::rna::Rna;
use super::signatures::{self, Signature};
use super::slides::Slides;
use crate::error::Result;

/// Patients with their outcome and whichever of gene expression and slides the cohort has.
///
/// The rows of all parts are those of `patients`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Cohort {
    /// What the cohort is called.
    pub name: String,
    /// The patients, in the order of the clinical table.
    pub patients: Vec<Patient>,
    /// The names of the covariates of each patient.
    pub covariates: Vec<String>,
    /// Gene expression.
    pub rna: Option<Rna>,
    /// Sets of genes, empty if the cohort file names none.
    pub signatures: Vec<Signature>,
    /// Patch features.
    pub slides: Option<Bags>,
    /// The unit of the times, if the cohort file or its preset says it.
    pub time_unit: Option<TimeUnit>,
    /// Patients of the clinical table that were left out as the cohort file asks: they have no slides, no gene
    /// expression or no outcome, or are redacted.
    pub dropped: Vec<String>,
    /// Those, for splits that name them or their slides.
    pub(super) left_out: Vec<Patient>,
    /// Every file that was read, the cohort file first.
    pub files: Vec<PathBuf>,
    /// How files of features are read.
    pub(super) reading: Reading,
}

impl Cohort {
    /// Reads the cohort that a cohort file describes, and refuses it with everything that is wrong in one list.
    ///
    /// Feature files are mapped, not read into memory, but each of their elements is looked at once for NaN and
    /// infinity. They must not be shortened while the cohort lives; replace such a file by renaming a new one over it, or
    /// open the cohort by [`open_by`](Self::open_by).
    ///
    /// # Errors
    /// [`Error::Data`](crate::Error::Data) with all problems.
    pub fn open(path: impl AsRef<Path>) -> Result<Cohort> {
        Cohort::open_by(path, Reading::default())
    }

    /// Like [`open`](Self::open), with a choice of how files of features are read.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_by(path: impl AsRef<Path>, reading: Reading) -> Result<Cohort> {
        tracing::debug!(file = %path.as_ref().display(), "opening a cohort");
        let mut loaded = Loaded::read(path.as_ref(), reading);
        if let Some(slides) = &loaded.slides {
            slides.bags.scan(&mut loaded.problems);
        }
        loaded.into_cohort()
    }

    /// Like [`open`](Self::open), but does not look for NaN in the features, which reads all of them.
    ///
    /// For files that `onkos check` has passed.
    ///
    /// # Errors
    /// [`Error::Data`](crate::Error::Data) with all problems but those in the features.
    pub fn open_unscanned(path: impl AsRef<Path>) -> Result<Cohort> {
        Cohort::open_unscanned_by(path, Reading::default())
    }

    /// Like [`open_unscanned`](Self::open_unscanned), with a choice of how files of features are read.
    ///
    /// # Errors
    /// As [`open_unscanned`](Self::open_unscanned).
    pub fn open_unscanned_by(path: impl AsRef<Path>, reading: Reading) -> Result<Cohort> {
        Loaded::read(path.as_ref(), reading).into_cohort()
    }

    /// The number of patients.
    pub fn len(&self) -> usize {
        self.patients.len()
    }

    /// Whether there is no patient.
    pub fn is_empty(&self) -> bool {
        self.patients.is_empty()
    }

    /// The times of all patients.
    pub fn times(&self) -> Vec<f64> {
        self.patients.iter().map(|p| p.time).collect()
    }

    /// Whether the event was observed, of all patients.
    pub fn events(&self) -> Vec<bool> {
        self.patients.iter().map(|p| p.event).collect()
    }

    /// Refuses a cohort that nothing can be learnt from because no patient has an event.
    ///
    /// # Errors
    /// [`Problem::NoEvents`].
    pub fn require_events(&self) -> Result<()> {
        let mut problems = Problems::default();
        if !self.patients.iter().any(|p| p.event) {
            problems.push(Problem::NoEvents { cohort: self.name.clone(), patients: self.len() });
        }
        problems.or(())
    }

    /// The SHA-256 of every file that was read, for the record of a run. Reads them all.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) if a file cannot be read any more.
    pub fn hashes(&self) -> Result<Vec<FileHash>> {
        self.files.par_iter().map(|file| FileHash::of(file)).collect()
    }
}

/// What could be read of a cohort, and what is wrong with it.
pub(super) struct Loaded {
    pub(super) file: Option<CohortFile>,
    pub(super) clinical: Option<Clinical>,
    pub(super) rna: Option<Rna>,
    pub(super) signatures: Option<Vec<Signature>>,
    pub(super) slides: Option<Slides>,
    pub(super) problems: Problems,
    /// Cases without a single row of features.
    pub(super) without_slides: Vec<usize>,
    files: Vec<PathBuf>,
    reading: Reading,
}

impl Loaded {
    pub(super) fn read(path: &Path, reading: Reading) -> Loaded {
        let mut problems = Problems::default();
        let file = CohortFile::read(path, &mut problems);
        let mut loaded = Loaded {
            file: None,
            clinical: None,
            rna: None,
            signatures: None,
            slides: None,
            problems,
            without_slides: Vec::new(),
            files: vec![path.into()],
            reading,
        };
        let Some(file) = file else { return loaded };
        let folder = path.parent().unwrap_or(Path::new(""));
        loaded.read_tables(folder, &file);
        loaded.file = Some(file);
        let patients = loaded.clinical.as_ref().map_or(usize::MAX, |clinical| clinical.patients.len());
        if loaded.problems.is_empty() && loaded.dropped().len() == patients {
            loaded.problems.push(Problem::EverybodyDropped { file: path.into() });
        }
        loaded
    }

    fn read_tables(&mut self, folder: &Path, file: &CohortFile) {
        let problems = &mut self.problems;
        let clinical_path = folder.join(&file.clinical.file);
        self.clinical = Clinical::read(&clinical_path, &file.clinical, problems);
        self.files.push(clinical_path);
        if let Some(section) = &file.rna {
            self.rna = Rna::read(folder, section, self.clinical.as_ref(), problems);
            self.files.push(folder.join(&section.file));
            self.files.extend(section.genes.iter().map(|genes| folder.join(genes)));
            if let Some(path) = section.signatures.as_ref().map(|s| folder.join(s)) {
                self.signatures = signatures::read(&path, section.family.as_deref(), problems);
                if let (Some(signatures), Some(rna)) = (&self.signatures, &self.rna) {
                    signatures::check(&path, signatures, &rna.genes, problems);
                }
                self.files.push(path);
            }
        }
        if let Some(section) = &file.slides {
            if let Some(clinical) = &mut self.clinical {
                if let Some(table) = &section.table {
                    let path = folder.join(&table.file);
                    choose::read_table(&path, table, &file.clinical, clinical, problems);
                    self.files.push(path);
                }
                if let Some(dir) = section.dir.as_ref().or(section.store.as_ref()) {
                    choose::by_names(&folder.join(dir), section, clinical, problems);
                }
            }
            self.slides = Slides::read(folder, section, self.clinical.as_ref(), self.reading, problems);
            let (Some(slides), Some(clinical)) = (&mut self.slides, &mut self.clinical) else { return };
            self.files.extend(slides.files.iter().cloned());
            if section.per_patient == PerPatient::Largest {
                choose::keep_largest(&mut slides.bags, clinical);
            }
            slides.missing.retain(|(patient, _)| clinical.left_out[*patient].is_none());
            let empty = slides.bags.ragged().iter().enumerate().filter(|(_, rows)| rows.is_empty());
            let empty = empty.filter(|(patient, _)| clinical.left_out[*patient].is_none());
            self.without_slides = empty.map(|(patient, _)| patient).collect();
            let source = section.file.as_ref().or(section.dir.as_ref()).or(section.store.as_ref());
            let source = source.map_or_else(|| folder.into(), |s| folder.join(s));
            if section.missing == MissingSlides::Error {
                // Of a patient whose slides were refused that is said already.
                for &patient in self.without_slides.iter().filter(|patient| !slides.refused.contains(patient)) {
                    let case = clinical.patients[patient].case.clone();
                    problems.push(Problem::NoSlides { file: source.clone(), case });
                }
                let partly = |patient: &usize| self.without_slides.binary_search(patient).is_err();
                for (_, slide) in slides.missing.iter().filter(|(patient, _)| partly(patient)) {
                    problems.push(Problem::MissingSlide { file: source.clone(), slide: slide.clone() });
                }
            } else if self.without_slides.len() + clinical.dropped().count() == clinical.patients.len() {
                problems.push(Problem::NobodyLeft { file: source });
            }
        }
    }

    /// The patients that are left out as the cohort file asks, ascending.
    pub(super) fn dropped(&self) -> Vec<usize> {
        let (Some(file), Some(clinical)) = (&self.file, &self.clinical) else { return Vec::new() };
        let mut dropped: Vec<usize> = clinical.dropped().collect();
        if file.slides.as_ref().is_some_and(|s| s.missing == MissingSlides::Drop) {
            dropped.extend(&self.without_slides);
        }
        if let (Some(MissingRna::Drop), Some(rna)) = (file.rna.as_ref().map(|r| r.missing), &self.rna) {
            dropped.extend((0..rna.present.len()).filter(|&p| !rna.present[p]));
        }
        dropped.sort_unstable();
        dropped.dedup();
        dropped
    }

    fn into_cohort(self) -> Result<Cohort> {
        let dropped = self.dropped();
        let (Some(file), Some(clinical)) = (self.file, self.clinical) else { return Err(self.problems.into()) };
        let mut cohort = Cohort {
            name: file.name,
            patients: clinical.patients,
            covariates: file.clinical.covariates,
            rna: self.rna,
            signatures: self.signatures.unwrap_or_default(),
            slides: self.slides.map(|s| s.bags),
            time_unit: clinical.unit,
            dropped: Vec::new(),
            left_out: Vec::new(),
            files: self.files,
            reading: self.reading,
        };
        self.problems.or(())?;
        if !dropped.is_empty() {
            cohort.drop_patients(&dropped);
        }
        Ok(cohort)
    }
}

impl Cohort {
    /// Leaves out the patients of the given ascending indices.
    fn drop_patients(&mut self, without: &[usize]) {
        let keep: Vec<usize> = (0..self.len()).filter(|p| without.binary_search(p).is_err()).collect();
        self.left_out = without.iter().map(|&p| self.patients[p].clone()).collect();
        self.dropped = self.left_out.iter().map(|p| p.case.clone()).collect();
        self.patients = keep.iter().map(|&p| self.patients[p].clone()).collect();
        self.slides = self.slides.as_ref().map(|bags| bags.select(&keep));
        self.rna = self.rna.as_ref().map(|rna| rna.select(&keep));
    }
}
