//! What can be wrong with the files of a cohort.

use std::fmt;
use std::mem::discriminant;
use std::path::PathBuf;

use crate::features::FeatureType;

/// How many problems of one kind in one file are spelled out before the rest is counted.
const SHOWN: usize = 5;
/// How many problems are kept.
const MOST: usize = 100_000;

/// One thing that is wrong with a file of a cohort, and what to change.
///
/// A `line` is that of a text editor, from 1; indices into a tensor count from 0.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the sentence of each variant names its fields")]
pub enum Problem {
    /// A file is missing or cannot be read.
    #[error("{}: cannot be read: {why}", file.display())]
    Unreadable { file: PathBuf, why: String },
    /// The cohort file is not TOML, or has an unknown, missing or mistyped key.
    #[error("{}: line {line}: {why}", file.display())]
    Config { file: PathBuf, line: usize, why: String },
    /// A key of the cohort file does not fit the others.
    #[error("{}: {key} {why}", file.display())]
    Key { file: PathBuf, key: &'static str, why: &'static str },
    /// Both spellings of the outcome are given.
    #[error("{}: [clinical] has both event and censored; keep the one that says what a 1 in its column means", file.display())]
    EventAndCensored { file: PathBuf },
    /// Neither spelling of the outcome is given.
    #[error("{}: [clinical] needs event = \"column\" (1 = event) or censored = \"column\" (1 = censored)", file.display())]
    NeitherEventNorCensored { file: PathBuf },

    /// A text file is not UTF-8.
    #[error("{}: line {line}: not UTF-8; save the file as UTF-8", file.display())]
    NotUtf8 { file: PathBuf, line: usize },
    /// A file is packed, and not one text alone.
    #[error("{}: cannot be unpacked: {why}", file.display())]
    Archive { file: PathBuf, why: String },
    /// A table has no rows below its header.
    #[error("{}: the table has no rows below its header", file.display())]
    EmptyTable { file: PathBuf },
    /// A table is wider than anything sensible.
    #[error("{}: a row has more than {limit} cells, which is the most that is read; leave out columns", file.display())]
    TooManyColumns { file: PathBuf, limit: usize },
    /// A row has not as many cells as the header.
    #[error("{}: line {line}: {got} cells, but the header has {want}", file.display())]
    RaggedRow { file: PathBuf, line: usize, want: usize, got: usize },
    /// A column that the cohort file names is not there.
    #[error("{}: no column {column:?}; there are {}", file.display(), list(has))]
    MissingColumn { file: PathBuf, column: String, has: Vec<String> },
    /// A column that is read occurs twice.
    #[error("{}: two columns are called {column:?}; rename or remove one", file.display())]
    DuplicateColumn { file: PathBuf, column: String },
    /// A cell that must be filled is empty.
    #[error("{}: line {line}: {column} is blank; fill it or remove the row", file.display())]
    Blank { file: PathBuf, line: usize, column: String },
    /// A cell is not a number.
    #[error("{}: line {line}: {column} is {value:?}, which is not a finite number", file.display())]
    NotANumber { file: PathBuf, line: usize, column: String, value: String },
    /// A time is not positive and finite.
    #[error("{}: line {line}: {column} of {case} is {value}, but a time must be finite and above 0; correct it, remove the row or say time_zero = \"drop\" in [clinical]", file.display())]
    Time { file: PathBuf, line: usize, column: String, case: String, value: String },
    /// An outcome is neither 0 nor 1.
    #[error("{}: line {line}: {column} of {case} is {value:?}, but must be {want}", file.display())]
    Event { file: PathBuf, line: usize, column: String, case: String, value: String, want: Box<str> },
    /// The columns of an endpoint are not in the table.
    #[error("{}: no columns of endpoint {endpoint}, which are {}; {}", file.display(), list(want), if has.is_empty() { "is it a table of this preset?".into() } else { format!("there are those of {}: set endpoint in [clinical]", list(has)) })]
    NoEndpoint { file: PathBuf, endpoint: &'static str, want: Vec<String>, has: Vec<String> },
    /// Rows of one case say different things.
    #[error("{}: line {line}: {column} of {case} is {value:?}, but {before:?} in line {first}; the rows of a case must agree", file.display())]
    RowsDisagree {
        file: PathBuf,
        line: usize,
        first: usize,
        column: String,
        case: String,
        value: Box<str>,
        before: Box<str>,
    },
    /// A slide is said to be of two patients.
    #[error("{}: slide {slide:?} is of {first} and of {second}; a slide belongs to one patient", file.display())]
    SlideOfTwo { file: PathBuf, slide: String, first: String, second: String },
    /// Nobody is left after rows were dropped as the cohort file asks.
    #[error("{}: every patient is left out, as the cohort file asks; nobody remains", file.display())]
    EverybodyDropped { file: PathBuf },
    /// An id may stand for more than one of a list.
    #[error("{}: {id} could be any of {}; keep one of them, or write the id in full", file.display(), list(like))]
    Ambiguous { file: PathBuf, id: String, like: Vec<String> },
    /// A case occurs in two rows.
    #[error("{}: line {line}: {case} was in line {first} already; one row a patient", file.display())]
    DuplicatePatient { file: PathBuf, line: usize, first: usize, case: String },
    /// No patient has an event, so nothing can be learnt.
    #[error(
        "{cohort}: none of {patients} patients has an event; is the column of events one of censoring? then write censored = in place of event = in the cohort file"
    )]
    NoEvents { cohort: String, patients: usize },

    /// A safetensors file ends before its header says it does, or goes on after it.
    #[error("{}: {got} bytes, but its header asks for {want}; copy or write the file again", file.display())]
    Extent { file: PathBuf, want: u128, got: u64 },
    /// The header of a safetensors file is not one.
    #[error("{}: not a safetensors file: {why}", file.display())]
    Header { file: PathBuf, why: String },
    /// A tensor is not there.
    #[error("{}: no tensor {tensor:?}; there are {}", file.display(), list(has))]
    MissingTensor { file: PathBuf, tensor: String, has: Vec<String> },
    /// A tensor has the wrong element type.
    #[error("{}: tensor {tensor:?} is {got}, but must be {want}", file.display())]
    Dtype { file: PathBuf, tensor: String, want: &'static str, got: String },
    /// A tensor has the wrong shape.
    #[error("{}: tensor {tensor:?} has shape {got:?}, but must be {want}", file.display())]
    TensorShape { file: PathBuf, tensor: String, want: String, got: Vec<usize> },
    /// The features have no columns.
    #[error("{}: tensor {tensor:?} has width 0; extract the features again", file.display())]
    WidthZero { file: PathBuf, tensor: String },
    /// Offsets do not start at 0, decrease, or do not end at the last row of the features.
    #[error("{}: offsets[{index}] is {value}, but must be {want}", file.display())]
    Offset { file: PathBuf, index: usize, value: i128, want: String },

    /// A table with one row for each case and gene lacks some, or has one twice.
    #[error("{}: {gene} of {case} {why}; each case needs one value of each gene", file.display())]
    LongRna { file: PathBuf, case: String, gene: String, why: &'static str },
    /// Hardly any value is there of a matrix that is large.
    #[error("{}: {present} values are there of {want} that the patients need; are the ids written alike, and is every gene there?", file.display())]
    FewRna { file: PathBuf, present: usize, want: usize },
    /// No column ends as genes do.
    #[error("{}: no column ends with {suffix:?}; set suffix in [rna] to what the columns of genes end with", file.display())]
    NoSuffix { file: PathBuf, suffix: String },
    /// The list of genes has not the length of the RNA tensor.
    #[error("{}: {got} genes, but the RNA tensor has {want} columns; name each column in a line, in order", file.display())]
    GeneCount { file: PathBuf, want: usize, got: usize },
    /// A gene occurs twice.
    #[error("{}: line {line}: gene {gene} was there already; names must differ", file.display())]
    DuplicateGene { file: PathBuf, line: usize, gene: String },
    /// A patient has no RNA.
    #[error("{}: no RNA of {case}; add the row, or set missing = \"keep\" or \"drop\" in [rna]", file.display())]
    NoRna { file: PathBuf, case: String },
    /// RNA of a patient is NaN or infinite.
    #[error("{}: RNA of {case} is {value} in gene {gene} ({count} such values in the row); correct them, every value must be finite", file.display())]
    RnaNotFinite { file: PathBuf, case: String, gene: String, value: f32, count: usize },
    /// A table of signatures is neither of the two forms, or the family is not in it.
    #[error("{}: no signatures of family {family:?}; there are {}", file.display(), list(has))]
    UnknownFamily { file: PathBuf, family: String, has: Vec<String> },
    /// A cell of genes and signatures is neither 0 nor 1.
    #[error("{}: line {line}: {column} is {value:?}, but must be 0 or 1, as in the rows above", file.display())]
    Composition { file: PathBuf, line: usize, column: String, value: String },
    /// No gene of any signature was measured.
    #[error("{}: none of the genes of {signatures} signatures is in the RNA table; do both use gene symbols?", file.display())]
    NoGeneInCommon { file: PathBuf, signatures: usize },
    /// Genes that a scaler was fitted on are not in this cohort.
    #[error("{cohort}: {} genes of the training cohort are missing: {}; add them or let them be filled with the mean", genes.len(), list(genes))]
    MissingGenes { cohort: String, genes: Vec<String> },

    /// A patient has no slides.
    #[error("{}: no slides of {case}; add them, or set missing = \"drop\" in [slides]", file.display())]
    NoSlides { file: PathBuf, case: String },
    /// Every patient would be dropped.
    #[error("{}: no patient has slides, so missing = \"drop\" in [slides] leaves nobody", file.display())]
    NobodyLeft { file: PathBuf },
    /// A slide that the clinical table names is not in the folder.
    #[error("{}: no file of slide {slide}, whichever of .h5, .pt, .npy, .npz and .safetensors it is; add it or take the slide out of the clinical table", file.display())]
    MissingSlide { file: PathBuf, slide: String },
    /// A file of patch features cannot be read.
    #[error("{}: {why}", file.display())]
    Features { file: PathBuf, why: String },
    /// A slide has another width, element type or encoder than the first.
    #[error("{}: features are {got}, but those of {} are {want}; one encoder a cohort", file.display(), first.display())]
    SlideDiffers { file: PathBuf, first: PathBuf, want: String, got: String },
    /// A store or a shard of it is not what it should be.
    #[error("{}: {why}", file.display())]
    Store { file: PathBuf, why: String },
    /// Features cannot be packed in an element type.
    #[error("{}: {values} values of {name} are beyond {dtype}, up to {largest:e}; pack with --dtype bf16 or f32", file.display())]
    BeyondType { file: PathBuf, name: String, values: u64, largest: f32, dtype: FeatureType },
    /// Features are NaN or infinite.
    #[error("{}: features[{row}, {column}] of {name} is {value}; rows with any: {rows}; extract this slide again", file.display())]
    FeatureNotFinite { file: PathBuf, name: String, row: usize, column: usize, value: f32, rows: usize },

    /// Slides or cases were asked for that the cohort has not.
    #[error("{}: no {what} {}", file.display(), names.join(", "))]
    NotInCohort { file: PathBuf, what: &'static str, names: Vec<String> },

    /// A split names a case that the cohort has not.
    #[error("{}: line {line}: {id:?} in {set} is no patient of the cohort", file.display())]
    UnknownCase { file: PathBuf, line: usize, set: &'static str, id: String },
    /// A split names a case twice in one set.
    #[error("{}: line {line}: {id:?} is in {set} twice", file.display())]
    CaseTwice { file: PathBuf, line: usize, set: &'static str, id: String },
    /// A split has a case in two sets.
    #[error("{}: line {line}: {id:?} is in {first} and in {second}; a patient belongs to one of them", file.display())]
    CaseInTwoSets { file: PathBuf, line: usize, id: String, first: &'static str, second: &'static str },
    /// A table is none of the splits that are known.
    #[error("{}: {why}", file.display())]
    SplitForm { file: PathBuf, why: String },
    /// A set of a split is empty.
    #[error("{}: the set {set} of the split is empty", file.display())]
    EmptySet { file: PathBuf, set: &'static str },
}

/// At most the first twelve names, and how many there are beyond.
fn list(names: &[String]) -> String {
    const NAMES: usize = 12;
    let shown = names.iter().take(NAMES).map(|n| format!("{n:?}")).collect::<Vec<_>>().join(", ");
    match names.len() {
        0 => "none".into(),
        n if n > NAMES => format!("{shown} and {} more", n - NAMES),
        _ => shown,
    }
}

impl Problem {
    /// The sentence, cut if a file has put a cell of megabytes into it.
    pub(crate) fn sentence(&self) -> String {
        const CHARACTERS: usize = 2000;
        let mut text = self.to_string();
        if let Some((end, _)) = text.char_indices().nth(CHARACTERS) {
            text.truncate(end);
            text.push_str(" ...");
        }
        text
    }
}

/// Everything that is wrong with a cohort, in one list.
///
/// Shown one a line; of many problems of one kind the first five, and how many there are beyond.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    /// Adds one. A list that is longer than anybody reads, as of a table in which every row is wrong, grows no more.
    pub(crate) fn push(&mut self, problem: Problem) {
        if self.0.len() < MOST {
            self.0.push(problem);
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `value` if nothing is wrong, else everything that is.
    pub(crate) fn or<T>(self, value: T) -> crate::error::Result<T> {
        if self.is_empty() { Ok(value) } else { Err(self.into()) }
    }

    /// The sentences to show, kinds in the order of their first problem.
    pub fn sentences(&self) -> Vec<String> {
        let mut kinds: Vec<(&Problem, Vec<String>, usize)> = Vec::new();
        for problem in &self.0 {
            let known = kinds.iter_mut().find(|(first, ..)| discriminant(*first) == discriminant(problem));
            match known {
                Some((_, shown, _)) if shown.len() < SHOWN => shown.push(problem.sentence()),
                Some((_, _, more)) => *more += 1,
                None => kinds.push((problem, vec![problem.sentence()], 0)),
            }
        }
        kinds
            .into_iter()
            .flat_map(|(_, shown, more)| {
                shown.into_iter().chain((more > 0).then(|| format!("... and {more} more like this")))
            })
            .collect()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentences().join("\n"))
    }
}

impl std::error::Error for Problems {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_problems_of_one_kind_are_counted() {
        let blank = |line| Problem::Blank { file: "t.csv".into(), line, column: "time".into() };
        let mut problems = Problems((2..10).map(blank).collect());
        problems.push(Problem::EmptyTable { file: "u.csv".into() });
        let shown = problems.sentences();
        assert_eq!(shown.len(), 7);
        assert_eq!(shown[4], "t.csv: line 6: time is blank; fill it or remove the row");
        assert_eq!(shown[5], "... and 3 more like this");
    }

    #[test]
    fn long_lists_of_names_are_cut() {
        let genes: Vec<String> = (0..20).map(|i| format!("G{i}")).collect();
        let text = Problem::MissingGenes { cohort: "x".into(), genes }.to_string();
        assert!(text.contains("20 genes") && text.contains("\"G11\" and 8 more") && !text.contains("G12"));
    }
}
