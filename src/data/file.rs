//! The cohort file: one TOML file that says where the tables of a cohort lie and what their columns mean.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::dialect::{Endpoint, Preset, TimeUnit};
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

/// The section `[clinical]`: a table of patients.
///
/// With a `preset`, everything but `file` may be absent; what is stated goes before what the preset says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClinicalFile {
    /// The table: text separated by commas, tabs or semicolons, plain or alone in a ZIP archive.
    pub file: PathBuf,
    /// The tool whose columns the table has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preset: Option<Preset>,
    /// The endpoint, of a preset that has several. Overall survival if not said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<Endpoint>,
    /// The column of case ids.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub case: Option<String>,
    /// The column of times.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// The column of times of those without an event, if it is another; `time` is then read for the others alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_censored: Option<String>,
    /// The unit of the times.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_unit: Option<TimeUnit>,
    /// The unit to convert the times to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub convert_to: Option<TimeUnit>,
    /// The column in which 1 means an event. Either this or `censored`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
    /// The column in which 1 means censored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub censored: Option<String>,
    /// Words that mean an event in the column `event`, in place of a 1.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub event_values: Vec<String>,
    /// Words that mean that there was none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub censored_values: Vec<String>,
    /// A column of slide names, separated by `;`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slides: Option<String>,
    /// Whether a case may have several rows, as in tables with one row a slide. They must agree.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repeats: Option<bool>,
    /// Columns of numbers to use beside the features, such as age.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub covariates: Vec<String>,
    /// A column of strata, such as the hospital.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strata: Option<String>,
    /// A column that is filled in the rows to leave out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redaction: Option<String>,
    /// What to do with a patient whose time or outcome is blank.
    #[serde(default, skip_serializing_if = "is_default")]
    pub missing: MissingOutcome,
    /// What to do with a time that is not above 0.
    #[serde(default, skip_serializing_if = "is_default")]
    pub time_zero: TimeZero,
}

/// What to do with a patient whose time or outcome is blank.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MissingOutcome {
    /// Report it as a problem.
    #[default]
    Error,
    /// Leave the patient out of the cohort.
    Drop,
}

/// What to do with a patient whose time is 0 or negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TimeZero {
    /// Report it as a problem.
    #[default]
    Error,
    /// Leave the patient out of the cohort.
    Drop,
    /// Make a time of 0 half of the smallest time above 0 in the table, so that it stays before all others. A negative
    /// time is still a problem.
    Smallest,
}

/// The section `[rna]`: a safetensors file with a list of genes, or a table.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RnaFile {
    /// A safetensors file, or a table (`.csv`, `.tsv`, `.txt`, also packed as `.zip` or `.gz`) whose first column is the
    /// case and whose header holds the genes.
    pub file: PathBuf,
    /// The column of cases in a table; the first if not said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub case: Option<String>,
    /// The column of gene names, of a table with one row for each case and gene.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gene: Option<String>,
    /// The column of values, of a table with one row for each case and gene.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Only columns whose name ends so are genes, and are called by what is before it. A case may then have several
    /// rows, which must agree.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suffix: Option<String>,
    /// The type of the sample in barcodes of TCGA, such as `01`: rows of other samples are passed over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample: Option<String>,
    /// The tensor, `[patients, genes]`, rows in the order of the clinical table. `rna` if not said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tensor: Option<String>,
    /// The names of the columns of the tensor, one a line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub genes: Option<PathBuf>,
    /// The range that values are clipped to before they are scaled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip: Option<[f32; 2]>,
    /// Sets of genes: `family,signature,gene` rows, one column a set, or genes and sets with 0 and 1.
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
    /// Leave the patient out of the cohort.
    Drop,
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
    /// Which slides of a patient with several.
    #[serde(default, skip_serializing_if = "is_default")]
    pub per_patient: PerPatient,
    /// A table that says whose the slides are, if the clinical table does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table: Option<SlideTable>,
}

/// Which slides of a patient with several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PerPatient {
    /// All, one after another.
    #[default]
    All,
    /// The first by name, numbers by their size; of TCGA, diagnostic slides (`DX1`) before frozen ones.
    First,
    /// The one with the most patches, of several such the first by name.
    Largest,
}

impl PerPatient {
    /// As it is written in a cohort file.
    pub fn name(self) -> &'static str {
        match self {
            PerPatient::All => "all",
            PerPatient::First => "first",
            PerPatient::Largest => "largest",
        }
    }
}

/// A table with one row a slide.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlideTable {
    /// The table.
    pub file: PathBuf,
    /// The column of case ids. The preset of `[clinical]` may know it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub case: Option<String>,
    /// The column of slide names; `.svs` and `.h5` are taken off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slide: Option<String>,
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

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
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
            rna.check(&mut key);
        }
        if let Some(slides) = &self.slides {
            slides.check(&self.clinical, &mut key);
        }
        self.clinical.check(path, problems);
    }
}

impl ClinicalFile {
    fn check(&self, path: &Path, problems: &mut Problems) {
        let file = || path.to_path_buf();
        let mut key = |key, why| problems.push(Problem::Key { file: file(), key, why });
        let dialect = self.preset.map(Preset::dialect);
        let own = self.time.is_some() || self.event.is_some() || self.censored.is_some();
        if self.case.is_none() && dialect.is_none() {
            key(
                "clinical.case",
                "is missing; name the column of case ids, or the preset of the tool that wrote the table",
            );
        }
        if self.endpoint.is_some() && dialect.is_none_or(|d| d.endpoints.is_empty()) {
            key(
                "clinical.endpoint",
                "chooses among the columns of a preset that has several; name time and event instead",
            );
        } else if self.endpoint.is_some() && own {
            key("clinical.endpoint", "chooses columns, as time and event or censored do; keep one of the two");
        }
        if dialect.is_some_and(|d| self.repeats == Some(false) && d.repeats) {
            key("clinical.repeats", "is false, but tables of this preset have several rows a case; take it out");
        }
        if self.time_censored.is_some() && self.time.is_none() {
            key("clinical.time_censored", "belongs to time, which is missing");
        }
        if self.event_values.is_empty() != self.censored_values.is_empty() {
            key(
                "clinical.event_values",
                "and censored_values go together: a word in neither is a mistake, not an answer",
            );
        } else if !self.event_values.is_empty() && self.event.is_none() {
            key("clinical.event_values", "are words of the column event, which is missing");
        } else if self.event_values.iter().any(|word| self.censored_values.contains(word)) {
            key("clinical.event_values", "and censored_values have a word in common");
        }
        let preset_unit = dialect.and_then(|d| d.unit).filter(|_| !own);
        if self.time_unit.zip(preset_unit).is_some_and(|(own, preset)| own != preset) {
            key(
                "clinical.time_unit",
                "is not the unit of the preset's columns; take it out, or name time and event too",
            );
        }
        if self.convert_to.is_some() && self.time_unit.or(preset_unit).is_none() {
            key("clinical.convert_to", "needs time_unit, the unit of the column");
        }
        let preset_chooses = dialect.is_some_and(|d| !d.endpoints.is_empty()) && !own;
        if !preset_chooses {
            if self.time.is_none() {
                key("clinical.time", "is missing; name the column of times");
            }
            match (&self.event, &self.censored) {
                (Some(_), Some(_)) => problems.push(Problem::EventAndCensored { file: file() }),
                (None, None) => problems.push(Problem::NeitherEventNorCensored { file: file() }),
                _ => {}
            }
        }
    }
}

impl SlidesFile {
    fn check(&self, clinical: &ClinicalFile, key: &mut impl FnMut(&'static str, &'static str)) {
        match (&self.file, &self.dir, &self.store) {
            (None, None, None) => {
                key("slides", "needs file (packed), dir (one file a slide) or store (made by onkos pack)");
            }
            (Some(_), None, None) if self.per_patient != PerPatient::All => {
                key(
                    "slides.per_patient",
                    "belongs to dir; in a packed file the slides of a patient are not told apart",
                );
            }
            (Some(_), None, None) if self.table.is_some() => {
                key("slides.table", "belongs to dir; a packed file has its own order of patients");
            }
            (Some(_), None, None) | (None, Some(_), None) | (None, None, Some(_)) => {}
            _ => key("slides", "has several of file, dir and store; keep one"),
        }
        if let Some(table) = &self.table {
            let known = clinical.preset.is_some_and(|preset| preset.dialect().slide_table.is_some());
            if !known && (table.case.is_none() || table.slide.is_none()) {
                key("slides.table", "needs case and slide, the columns of case ids and of slide names");
            }
            if clinical.slides.is_some() {
                key("slides.table", "says whose the slides are, as clinical.slides does; keep one of the two");
            }
        }
    }
}

impl RnaFile {
    fn check(&self, key: &mut impl FnMut(&'static str, &'static str)) {
        let of_table = self.case.is_some() || self.suffix.is_some() || self.sample.is_some();
        if self.is_table() {
            if self.tensor.is_some() || self.genes.is_some() {
                key("rna.tensor and rna.genes", "belong to a safetensors file; a table has the genes in its header");
            }
            if self.gene.is_some() != self.value.is_some() {
                key("rna.gene", "and value go together: a table with one row for each case and gene");
            } else if self.gene.is_some() && self.suffix.is_some() {
                key("rna.suffix", "belongs to a table with one column a gene, and gene and value to one with one row");
            }
            if self.gene.is_some() && self.case.is_none() {
                key("rna.case", "is missing; name the column of case ids beside gene and value");
            }
        } else {
            if self.genes.is_none() {
                key("rna.genes", "is missing; name the text file with one gene a line");
            }
            if of_table || self.gene.is_some() || self.value.is_some() {
                key("rna.case, gene, value, suffix and sample", "belong to a table, not to a safetensors file");
            }
        }
        if self.clip.is_some_and(|[low, high]| !(low.is_finite() && high.is_finite() && low < high)) {
            key("rna.clip", "must be two finite numbers, the smaller first");
        }
        if self.family.is_some() && self.signatures.is_none() {
            key("rna.family", "chooses among rna.signatures, which is missing");
        }
        if self.sample.as_ref().is_some_and(|s| s.len() != 2 || !s.bytes().all(|b| b.is_ascii_digit())) {
            key("rna.sample", "must be two digits, such as \"01\" for primary tumours");
        }
    }

    /// Whether the file is a table rather than safetensors, by its name.
    pub(crate) fn is_table(&self) -> bool {
        let extension = self.file.extension().and_then(|e| e.to_str()).unwrap_or("");
        ["csv", "tsv", "txt", "zip", "gz"].iter().any(|known| extension.eq_ignore_ascii_case(known))
    }
}
