//! The table of patients.

use std::collections::HashMap;
use std::path::Path;

use super::file::ClinicalFile;
use super::problem::{Problem, Problems};
use super::table::{Row, Table};

/// One patient of a cohort.
#[derive(Clone, Debug, PartialEq)]
pub struct Patient {
    /// The case id.
    pub case: String,
    /// The time of the event or of censoring: finite and above 0.
    pub time: f64,
    /// Whether the event was observed.
    pub event: bool,
    /// The stratum, if the cohort has them and this patient's is known.
    pub strata: Option<String>,
    /// The covariates, in the order of the cohort's.
    pub covariates: Vec<f64>,
    /// The names of the patient's slides, without `.svs`.
    pub slides: Vec<String>,
}

/// The clinical table as read: one patient a row, also where the row has problems, so that tables in row order align.
pub(crate) struct Clinical {
    pub(crate) patients: Vec<Patient>,
    /// Whether time and outcome of the row were sound.
    pub(crate) sound: Vec<bool>,
}

impl Clinical {
    /// Reads the table `file`, described by the section `columns`.
    pub(crate) fn read(file: &Path, columns: &ClinicalFile, problems: &mut Problems) -> Option<Clinical> {
        let table = Table::read(file, false, problems)?;
        let case = table.column(&columns.case, problems);
        let time = table.column(&columns.time, problems);
        // Which of the two the cohort file gives was checked when it was read.
        let (outcome, one_is_event) = match (&columns.event, &columns.censored) {
            (Some(event), _) => (Some((table.column(event, problems), event)), true),
            (None, Some(censored)) => (Some((table.column(censored, problems), censored)), false),
            (None, None) => (None, true),
        };
        let slides = columns.slides.as_ref().map(|c| table.column(c, problems));
        let strata = columns.strata.as_ref().map(|c| table.column(c, problems));
        let covariates: Vec<_> = columns.covariates.iter().map(|c| (table.column(c, problems), c)).collect();
        let case = case?;

        let mut lines: HashMap<&str, usize> = HashMap::new();
        let (mut patients, mut sound) = (Vec::new(), Vec::new());
        for row in &table.rows {
            let id = row.cell(case);
            let line = row.line;
            if id.is_empty() {
                problems.push(Problem::Blank { file: file.into(), line, column: columns.case.clone() });
            } else if let Some(&first) = lines.get(id) {
                problems.push(Problem::DuplicatePatient { file: file.into(), line, first, case: id.into() });
            } else {
                lines.insert(id, line);
            }
            let cell = Cell { file, row, case: id };
            let time = time.and_then(|c| cell.time(c, &columns.time, problems));
            let flag = outcome.and_then(|(column, name)| cell.flag(column?, name, problems));
            sound.push(time.is_some() && flag.is_some());
            patients.push(Patient {
                case: id.into(),
                time: time.unwrap_or(f64::NAN),
                event: flag.unwrap_or(false) == one_is_event,
                strata: strata.flatten().map(|c| row.cell(c)).filter(|s| !s.is_empty()).map(str::to_owned),
                covariates: covariates
                    .iter()
                    .map(|&(column, name)| column.and_then(|c| cell.covariate(c, name, problems)).unwrap_or(f64::NAN))
                    .collect(),
                slides: slides.flatten().map_or_else(Vec::new, |c| slide_names(row.cell(c))),
            });
        }
        Some(Clinical { patients, sound })
    }
}

/// `;`-separated names, each without the suffix `.svs`.
fn slide_names(cell: &str) -> Vec<String> {
    let names = cell.split(';').map(str::trim).filter(|s| !s.is_empty());
    names.map(|s| s.strip_suffix(".svs").unwrap_or(s).to_owned()).collect()
}

/// A row, for the sentences about its cells.
struct Cell<'a> {
    file: &'a Path,
    row: &'a Row,
    case: &'a str,
}

impl Cell<'_> {
    fn blank(&self, name: &str) -> Problem {
        Problem::Blank { file: self.file.into(), line: self.row.line, column: name.into() }
    }

    fn time(&self, column: usize, name: &str, problems: &mut Problems) -> Option<f64> {
        let text = self.row.cell(column);
        let (file, line, column) = (self.file.into(), self.row.line, name.to_owned());
        let problem = match text.parse::<f64>() {
            Ok(time) if time.is_finite() && time > 0.0 => return Some(time),
            _ if text.is_empty() => self.blank(name),
            Ok(_) => Problem::Time { file, line, column, case: self.case.into(), value: text.into() },
            Err(_) => Problem::NotANumber { file, line, column, value: text.into() },
        };
        problems.push(problem);
        None
    }

    /// 0 or 1, also written 0.0 or 1.0 as tables do whose column had blanks once. Words are refused: which of
    /// `alive`, `yes` and `true` means an event is not ours to guess.
    fn flag(&self, column: usize, name: &str, problems: &mut Problems) -> Option<bool> {
        let text = self.row.cell(column);
        let problem = match text.parse::<f64>() {
            Ok(0.0) => return Some(false),
            Ok(1.0) => return Some(true),
            _ if text.is_empty() => self.blank(name),
            _ => Problem::Event {
                file: self.file.into(),
                line: self.row.line,
                column: name.into(),
                case: self.case.into(),
                value: text.into(),
            },
        };
        problems.push(problem);
        None
    }

    /// A number, or one of the words for a sex. The words have fixed values, so that every cohort codes them alike.
    fn covariate(&self, column: usize, name: &str, problems: &mut Problems) -> Option<f64> {
        let text = self.row.cell(column);
        match text.to_ascii_lowercase().as_str() {
            "f" | "female" => return Some(0.0),
            "m" | "male" => return Some(1.0),
            _ => {}
        }
        let problem = match text.parse::<f64>() {
            Ok(number) if number.is_finite() => return Some(number),
            _ if text.is_empty() => self.blank(name),
            _ => Problem::NotANumber {
                file: self.file.into(),
                line: self.row.line,
                column: name.into(),
                value: text.into(),
            },
        };
        problems.push(problem);
        None
    }
}
