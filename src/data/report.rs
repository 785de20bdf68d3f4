//! What a cohort holds and what is wrong with it, without failing: `onkos check`.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::bytes::Reading;
use super::clinical::{Clinical, LeftOut};
use super::cohort::Loaded;
use super::problem::Problem;
use super::splits::Split;
use crate::error::Error;
use crate::features::FeatureType;
use crate::metrics::{Outcome, median_follow_up};

/// More events than this are likelier a column of censoring than a cohort.
const SUSPICIOUS_RATE: f64 = 0.95;
/// Expression beyond this is an outlier that should be clipped before it is scaled.
const SUSPICIOUS_EXPRESSION: f32 = 100.0;

/// What [`check`] found.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// The cohort file.
    pub file: PathBuf,
    /// What the cohort is called.
    pub name: Option<String>,
    /// Whether [`Cohort::open`](super::Cohort::open) accepts it, and the split is one of it.
    pub sound: bool,
    /// How the clinical table was understood.
    pub clinical: Option<ClinicalReport>,
    /// The patients, without those that are left out.
    pub patients: usize,
    /// Those with an event.
    pub events: usize,
    /// Those without.
    pub censored: usize,
    /// Events per patient.
    pub event_rate: Option<f64>,
    /// The shortest and the longest time.
    pub time_range: Option<[f64; 2]>,
    /// The median time of follow-up, by the reverse Kaplan-Meier estimate; none if fewer than half are censored late
    /// enough for it to be reached.
    pub median_follow_up: Option<f64>,
    /// The measured genes.
    pub genes: Option<usize>,
    /// The sets of genes.
    pub signatures: usize,
    /// Cases without gene expression.
    pub without_rna: Vec<String>,
    /// The bags.
    pub slides: Option<SlidesReport>,
    /// Cases without slides.
    pub without_slides: Vec<String>,
    /// Slides that the clinical table names and the folder has not.
    pub missing_slides: Vec<String>,
    /// Slides with NaN or infinity in their features.
    pub non_finite: Vec<NonFinite>,
    /// The sets of a split that was looked at too, if it can be used.
    pub split: Option<SplitReport>,
    /// What keeps the cohort from being opened, or the split from being used, in sentences.
    pub problems: Vec<String>,
    /// What is allowed but likely not meant, in sentences.
    pub warnings: Vec<String>,
}

/// How a clinical table was understood, and whom the cohort file leaves out.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ClinicalReport {
    /// The preset of the cohort file.
    pub preset: Option<&'static str>,
    /// The endpoint that a preset read.
    pub endpoint: Option<&'static str>,
    /// The unit of all times of the report.
    pub time_unit: Option<&'static str>,
    /// The rows of the table, of which a patient may have several.
    pub rows: usize,
    /// The slides that the tables name or the folder has, after those of `per_patient` were chosen.
    pub slides: usize,
    /// Patients left out because they are marked as redacted.
    pub redacted: usize,
    /// Patients left out because time or outcome is blank.
    pub without_outcome: usize,
    /// Patients left out because their time is not above 0.
    pub time_zero_dropped: usize,
    /// Patients whose time of 0 was made the smallest.
    pub time_zero_kept: usize,
}

/// The bags of a cohort in numbers.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct SlidesReport {
    /// The features of an instance.
    pub width: usize,
    /// The element type.
    pub dtype: FeatureType,
    /// Which slides of a patient are used.
    pub per_patient: &'static str,
    /// The instances of all bags.
    pub instances: usize,
    /// Those of the shortest bag that has any.
    pub shortest: usize,
    /// Those of the longest bag.
    pub longest: usize,
}

/// The patients of one set of a split.
#[derive(Clone, Copy, Debug, Serialize)]
#[non_exhaustive]
pub struct SetReport {
    /// All of them.
    pub patients: usize,
    /// Those with an event.
    pub events: usize,
}

/// A split in numbers.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct SplitReport {
    /// The file or folder.
    pub file: PathBuf,
    /// Which of its splits.
    pub fold: usize,
    /// To learn from.
    pub train: SetReport,
    /// To choose by.
    pub validation: SetReport,
    /// To report on.
    pub test: SetReport,
    /// Patients of the cohort that are in none of them.
    pub unused: usize,
}

impl SplitReport {
    /// Reads a split for the patients that were read, whatever else is wrong with the cohort; what is wrong with it goes
    /// to the problems of the cohort.
    fn of(file: &Path, fold: usize, loaded: &mut Loaded) -> Option<SplitReport> {
        let dropped = loaded.dropped();
        // Of a table that cannot be read no id would be a patient's.
        let all = &loaded.clinical.as_ref()?.patients;
        let (mut patients, mut left_out) = (Vec::new(), Vec::new());
        for (p, patient) in all.iter().enumerate() {
            if dropped.binary_search(&p).is_ok() { &mut left_out } else { &mut patients }.push(patient.clone());
        }
        let split = match Split::read_without(file, fold, &patients, &left_out) {
            Ok(split) => split,
            Err(Error::Data(wrong)) => {
                loaded.problems.0.extend(wrong.0);
                return None;
            }
            Err(other) => {
                loaded.problems.push(Problem::Unreadable { file: file.into(), why: other.to_string() });
                return None;
            }
        };
        let set = |set: &[usize]| {
            let events = set.iter().filter(|&&p| patients[p].event).count();
            SetReport { patients: set.len(), events }
        };
        let used = split.train.len() + split.validation.len() + split.test.len();
        Some(SplitReport {
            file: file.into(),
            fold,
            train: set(&split.train),
            validation: set(&split.validation),
            test: set(&split.test),
            unused: patients.len() - used,
        })
    }
}

/// What [`check_by`] looks at, and how.
#[derive(Clone, Copy, Debug, Default)]
pub struct CheckOptions<'a> {
    /// How files of features are read.
    pub reading: Reading,
    /// A file or folder of splits, and which of them, to be looked at with the cohort.
    pub split: Option<(&'a Path, usize)>,
}

/// A slide with NaN or infinity in it.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct NonFinite {
    /// The file.
    pub file: PathBuf,
    /// The slide, or the case in a packed file.
    pub name: String,
    /// The first such row of the tensor.
    pub row: usize,
    /// The first such column in it.
    pub column: usize,
    /// What stands there, as text: JSON has no such numbers.
    pub value: String,
    /// How many rows of the slide have one.
    pub rows: usize,
}

/// Reads everything a cohort file names and reports on it, whatever is wrong.
pub fn check(path: impl AsRef<Path>) -> Report {
    check_by(path, CheckOptions::default())
}

/// Like [`check`], with a choice of what else is looked at and how.
pub fn check_by(path: impl AsRef<Path>, options: CheckOptions<'_>) -> Report {
    let mut loaded = Loaded::read(path.as_ref(), options.reading);
    if let Some(slides) = &loaded.slides {
        slides.bags.scan(&mut loaded.problems);
    }
    let split = options.split.and_then(|(file, fold)| SplitReport::of(file, fold, &mut loaded));
    Report { split, ..Report::of(path.as_ref(), &loaded) }
}

/// Like [`check`], but does not look at the features, which reads all of them.
pub(super) fn report_without_scan(path: &Path) -> Report {
    // Only headers are read, for which there is nothing to gain from a map.
    Report::of(path, &Loaded::read(path, Reading::Positioned))
}

impl Report {
    fn of(path: &Path, loaded: &Loaded) -> Report {
        let file = loaded.file.as_ref();
        let dropped = loaded.dropped();
        let all = loaded.clinical.as_ref().map_or(&[][..], |c| &c.patients);
        let case = |&patient: &usize| all[patient].case.clone();
        let kept: Vec<usize> = (0..all.len()).filter(|p| dropped.binary_search(p).is_err()).collect();
        let named = kept.iter().map(|&p| all[p].slides.len()).sum();
        let sound = |p: &&usize| loaded.clinical.as_ref().is_some_and(|c| c.sound[**p]);
        let (times, outcomes): (Vec<f64>, Vec<bool>) =
            kept.iter().filter(sound).map(|&p| (all[p].time, all[p].event)).unzip();
        let events = outcomes.iter().filter(|event| **event).count();
        let absent = |rna: &super::Rna| kept.iter().filter(|&&p| !rna.present[p]).map(case).collect();
        let mut report = Report {
            file: path.into(),
            name: file.map(|f| f.name.clone()),
            sound: loaded.problems.is_empty(),
            clinical: file.zip(loaded.clinical.as_ref()).map(|(file, c)| {
                let preset = file.clinical.preset.map(|preset| preset.name());
                ClinicalReport { preset, slides: named, ..ClinicalReport::of(c) }
            }),
            patients: kept.len(),
            events,
            censored: times.len() - events,
            event_rate: (!times.is_empty()).then(|| events as f64 / times.len() as f64),
            time_range: (!times.is_empty()).then(|| {
                let fold = |start, pick: fn(f64, f64) -> f64| times.iter().copied().fold(start, pick);
                [fold(f64::INFINITY, f64::min), fold(f64::NEG_INFINITY, f64::max)]
            }),
            median_follow_up: Outcome::new(&times, &outcomes).ok().and_then(median_follow_up),
            genes: loaded.rna.as_ref().map(|rna| rna.genes.len()),
            signatures: loaded.signatures.as_ref().map_or(0, Vec::len),
            without_rna: loaded.rna.as_ref().map_or_else(Vec::new, absent),
            slides: loaded.slides.as_ref().map(|slides| SlidesReport {
                width: slides.bags.width(),
                dtype: slides.bags.dtype(),
                per_patient: file.and_then(|f| f.slides.as_ref()).map_or("all", |s| s.per_patient.name()),
                instances: slides.bags.ragged().rows(),
                shortest: slides.bags.ragged().iter().map(|b| b.len()).filter(|&n| n > 0).min().unwrap_or(0),
                longest: slides.bags.ragged().longest(),
            }),
            without_slides: loaded.without_slides.iter().map(case).collect(),
            missing_slides: loaded
                .slides
                .as_ref()
                .map_or_else(Vec::new, |s| s.missing.iter().map(|(_, slide)| slide.clone()).collect()),
            non_finite: loaded.problems.0.iter().filter_map(NonFinite::of).collect(),
            split: None,
            problems: loaded.problems.sentences(),
            warnings: Vec::new(),
        };
        report.warn(loaded);
        report
    }

    fn warn(&mut self, loaded: &Loaded) {
        let mut warn = |sentence: String| self.warnings.push(sentence);
        match self.event_rate {
            Some(rate) if rate > SUSPICIOUS_RATE => warn(format!(
                "{:.0} % of the patients have an event: is the column one of censoring (1 = censored)? then write censored = in place of event = in the cohort file",
                100.0 * rate
            )),
            Some(0.0) => warn("no patient has an event: nothing can be learnt from this cohort".into()),
            _ => {}
        }
        if let Some(rna) = &loaded.rna {
            let largest = rna.values.host().iter().fold(0f32, |m, x| m.max(x.abs()));
            if largest > SUSPICIOUS_EXPRESSION && rna.clip.is_none() {
                warn(format!("gene expression reaches {largest}: set clip in [rna], such as [-6.0, 6.0] for z-scores"));
            }
            let unmeasured: Vec<&str> = loaded
                .signatures
                .iter()
                .flatten()
                .filter(|s| s.columns(&rna.genes).is_empty())
                .map(|s| s.name.as_str())
                .collect();
            if !unmeasured.is_empty() {
                warn(format!("{} signatures have no measured gene: {}", unmeasured.len(), some_of(&unmeasured)));
            }
        }
        if let Some(slides) = &loaded.slides {
            slides.notes.iter().for_each(|note| warn(note.clone()));
            if !slides.empty.is_empty() {
                warn(format!("{} slides have no patches: {}", slides.empty.len(), some_of(&slides.empty)));
            }
        }
        if !self.missing_slides.is_empty() && self.sound {
            warn(format!("{} slides of the clinical table are not in the folder", self.missing_slides.len()));
        }
    }
}

/// As many names as one likes to read.
fn some_of(names: &[impl std::borrow::Borrow<str>]) -> String {
    const MOST: usize = 12;
    names[..names.len().min(MOST)].join(", ") + if names.len() > MOST { ", ..." } else { "" }
}

impl ClinicalReport {
    fn of(clinical: &Clinical) -> ClinicalReport {
        ClinicalReport {
            preset: None,
            endpoint: clinical.endpoint.map(|endpoint| endpoint.name()),
            time_unit: clinical.unit.map(|unit| unit.name()),
            rows: clinical.rows,
            slides: 0,
            redacted: clinical.count(LeftOut::Redacted),
            without_outcome: clinical.count(LeftOut::NoOutcome),
            time_zero_dropped: clinical.count(LeftOut::TimeZero),
            time_zero_kept: clinical.zeros_kept,
        }
    }
}

impl NonFinite {
    fn of(problem: &Problem) -> Option<NonFinite> {
        match problem {
            Problem::FeatureNotFinite { file, name, row, column, value, rows } => Some(NonFinite {
                file: file.clone(),
                name: name.clone(),
                row: *row,
                column: *column,
                value: value.to_string(),
                rows: *rows,
            }),
            _ => None,
        }
    }
}
