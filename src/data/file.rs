//! The cohort file: one TOML file that says where the tables of a cohort lie and what their columns mean.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::problem::{Problem, Problems};
use super::table::read_text;
use crate::error::toml_error;

/// The contents of a cohort file. Paths are as written, relative to the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CohortFile {
    /// What the cohort is called in reports.
    pub name: String,
    /// The table of patients.
    pub clinical: ClinicalFile,
    /// Gene expression, if the cohort has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rna: Option<RnaFile>,
    /// Patch features, if the cohort has them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slides: Option<SlidesFile>,
}

/// The section `[clinical]`: a table with one row a patient.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClinicalFile {
    /// The table.
    pub file: PathBuf,
    /// The column of case ids.
    pub case: String,
    /// The column of times, in any positive unit.
    pub time: String,
    /// The column in which 1 means an event. Either this or `censored`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
    /// The column in which 1 means censored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub censored: Option<String>,
    /// A column of slide names, separated by `;`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slides: Option<String>,
    /// Columns of numbers to use beside the features, such as age.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub covariates: Vec<String>,
    /// A column of strata, such as the hospital.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strata: Option<String>,
}

/// The section `[rna]`: a safetensors file with a list of genes, or a table.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RnaFile {
    /// A safetensors file, or a `.csv` or `.tsv` whose first column is the case and whose header holds the genes.
    pub file: PathBuf,
    /// The tensor, `[patients, genes]`, rows in the order of the clinical table. `rna` if not said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tensor: Option<String>,
    /// The names of the columns of the tensor, one a line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub genes: Option<PathBuf>,
    /// The range that values are clipped to before they are scaled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip: Option<[f32; 2]>,
    /// Sets of genes: `family,signature,gene` rows, or one column a set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signatures: Option<PathBuf>,
    /// The family of sets to use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub family: Option<String>,
    /// What to do with a patient without RNA. In a tensor, such a patient has a row of NaN.
    #[serde(default)]
    pub missing: MissingRna,
}

/// What to do with a patient without RNA.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MissingRna {
    /// Report it as a problem.
    #[default]
    Error,
    /// Keep the patient, marked as having none.
    Keep,
}

/// The section `[slides]`: one packed file, a folder with one file a slide, or a store.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlidesFile {
    /// A packed safetensors file: `features`, `offsets` and maybe `coords`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// A folder with one file a slide or case, in any format that [`FeatureFile`](super::FeatureFile) opens; the folders
    /// `h5_files`, `pt_files`, `feats_h5` and `feats_pt` in it are looked into as well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dir: Option<PathBuf>,
    /// A store that [`pack`](super::pack) made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<PathBuf>,
    /// What to do with a patient without slides.
    #[serde(default)]
    pub missing: MissingSlides,
}

/// What to do with a patient without slides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MissingSlides {
    /// Report it as a problem.
    #[default]
    Error,
    /// Leave the patient out of the cohort.
    Drop,
}

impl CohortFile {
    /// Reads a cohort file and checks that its keys fit each other.
    pub(crate) fn read(path: &Path, problems: &mut Problems) -> Option<CohortFile> {
        let text = read_text(path, problems)?;
        match toml::from_str::<CohortFile>(&text) {
            Ok(file) => {
                file.check(path, problems);
                Some(file)
            }
            Err(e) => {
                let (line, why) = toml_error(&text, &e);
                problems.push(Problem::Config { file: path.into(), line: line.unwrap_or(1), why });
                None
            }
        }
    }

    fn check(&self, path: &Path, problems: &mut Problems) {
        let file = || path.to_path_buf();
        let mut key = |key, why| problems.push(Problem::Key { file: file(), key, why });
        if self.name.trim().is_empty() {
            key("name", "is blank; name the cohort");
        }
        if let Some(rna) = &self.rna {
            if rna.is_table() {
                if rna.tensor.is_some() || rna.genes.is_some() {
                    key(
                        "rna.tensor and rna.genes",
                        "belong to a safetensors file; a table has the genes in its header",
                    );
                }
            } else if rna.genes.is_none() {
                key("rna.genes", "is missing; name the text file with one gene a line");
            }
            if rna.clip.is_some_and(|[low, high]| !(low.is_finite() && high.is_finite() && low < high)) {
                key("rna.clip", "must be two finite numbers, the smaller first");
            }
            if rna.family.is_some() && rna.signatures.is_none() {
                key("rna.family", "chooses among rna.signatures, which is missing");
            }
        }
        if let Some(slides) = &self.slides {
            match [&slides.file, &slides.dir, &slides.store].into_iter().flatten().count() {
                0 => key("slides", "needs file (packed), dir (one file a slide) or store (made by onkos pack)"),
                1 => {}
                _ => key("slides", "has several of file, dir and store; keep one"),
            }
        }
        match (&self.clinical.event, &self.clinical.censored) {
            (Some(_), Some(_)) => problems.push(Problem::EventAndCensored { file: file() }),
            (None, None) => problems.push(Problem::NeitherEventNorCensored { file: file() }),
            _ => {}
        }
    }
}

impl RnaFile {
    /// Whether the file is a table rather than safetensors, by its name.
    pub(crate) fn is_table(&self) -> bool {
        let extension = self.file.extension().and_then(|e| e.to_str()).unwrap_or("");
        ["csv", "tsv", "txt"].iter().any(|known| extension.eq_ignore_ascii_case(known))
    }
}
