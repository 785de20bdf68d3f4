//! The table of patients.

use std::collections::HashMap;
use std::path::Path;

use super::barcode::slide_name;
use super::columns::{Columns, Flag};
use super::dialect::{Endpoint, TimeUnit, is_absent};
use super::file::{ClinicalFile, MissingOutcome, TimeZero};
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

/// Why a patient is left out of the cohort, as the cohort file asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LeftOut {
    /// Marked in the column `redaction`.
    Redacted,
    /// The time or the outcome is blank.
    NoOutcome,
    /// The time is not above 0.
    TimeZero,
}

/// The clinical table as read: patients in the order of their first rows, also those whose rows have problems and those
/// that are left out, so that tables in that order align.
pub(crate) struct Clinical {
    pub(crate) patients: Vec<Patient>,
    /// Whether time and outcome were sound.
    pub(crate) sound: Vec<bool>,
    pub(crate) left_out: Vec<Option<LeftOut>>,
    /// Of the times, after they were converted.
    pub(crate) unit: Option<TimeUnit>,
    pub(crate) endpoint: Option<Endpoint>,
    /// The rows of the table.
    pub(crate) rows: usize,
    /// Patients whose time was 0 and is now the smallest.
    pub(crate) zeros_kept: usize,
}

impl Clinical {
    /// Reads the table `file`, described by the section `section`.
    pub(crate) fn read(file: &Path, section: &ClinicalFile, problems: &mut Problems) -> Option<Clinical> {
        let comment = section.preset.and_then(|preset| preset.dialect().comment);
        let table = Table::read_below(file, false, comment, problems)?;
        let columns = Columns::find(&table, section, problems);
        let case = columns.case.as_ref()?.0;

        let groups = groups(&table, case, &columns, problems);
        let mut clinical = Clinical {
            patients: Vec::with_capacity(groups.len()),
            sound: Vec::new(),
            left_out: Vec::new(),
            unit: columns.unit,
            endpoint: columns.endpoint,
            rows: table.rows.len(),
            zeros_kept: 0,
        };
        let mut zeros = Vec::new();
        for group in &groups {
            let reader = Reader { file, group, section, columns: &columns };
            let (patient, found) = reader.patient(problems);
            if found == Found::Zero {
                zeros.push((clinical.patients.len(), group.rows[0].line));
            }
            clinical.sound.push(!matches!(found, Found::Wrong | Found::LeftOut(_)));
            clinical.left_out.push(if let Found::LeftOut(why) = found { Some(why) } else { None });
            clinical.patients.push(patient);
        }
        clinical.keep_zeros(file, &columns, &zeros, problems);
        clinical.refuse_shared_slides(file, problems);
        Some(clinical)
    }

    /// Times of 0 become half of the smallest one above 0.
    fn keep_zeros(&mut self, file: &Path, columns: &Columns, zeros: &[(usize, usize)], problems: &mut Problems) {
        let sound = self.patients.iter().zip(&self.sound).filter(|(_, sound)| **sound).map(|(p, _)| p.time);
        let smallest = sound.filter(|&time| time > 0.0).fold(f64::INFINITY, f64::min);
        for &(patient, line) in zeros {
            if smallest.is_finite() && smallest / 2.0 > 0.0 {
                self.patients[patient].time = smallest / 2.0;
                self.zeros_kept += 1;
            } else {
                self.sound[patient] = false;
                let (case, column) = (self.patients[patient].case.clone(), columns.time_name());
                problems.push(Problem::Time { file: file.into(), line, column, case, value: "0".into() });
            }
        }
    }

    /// Reports slides that two patients have.
    pub(crate) fn refuse_shared_slides(&self, file: &Path, problems: &mut Problems) {
        let mut owner: HashMap<&str, &str> = HashMap::new();
        for patient in &self.patients {
            for slide in &patient.slides {
                let first = *owner.entry(slide).or_insert(&patient.case);
                if first != patient.case {
                    let (slide, first, second) = (slide.clone(), first.to_owned(), patient.case.clone());
                    problems.push(Problem::SlideOfTwo { file: file.into(), slide, first, second });
                }
            }
        }
    }

    /// The patients that are left out, ascending.
    pub(crate) fn dropped(&self) -> impl Iterator<Item = usize> {
        self.left_out.iter().enumerate().filter(|(_, why)| why.is_some()).map(|(patient, _)| patient)
    }

    /// How many patients are left out for a reason.
    pub(crate) fn count(&self, why: LeftOut) -> usize {
        self.left_out.iter().filter(|w| **w == Some(why)).count()
    }
}

/// The rows of one case.
struct Group<'a> {
    case: &'a str,
    rows: Vec<&'a Row>,
}

/// Rows by case, in the order of their first rows. Where a case has one row, a second is reported and stands alone.
fn groups<'a>(table: &'a Table, case: usize, columns: &Columns, problems: &mut Problems) -> Vec<Group<'a>> {
    let mut places: HashMap<&str, usize> = HashMap::new();
    let mut groups: Vec<Group<'a>> = Vec::new();
    for row in &table.rows {
        let (id, line) = (row.cell(case), row.line);
        let file = || table.file.clone();
        if id.is_empty() {
            problems.push(Problem::Blank { file: file(), line, column: columns.case_name() });
        } else if let Some(&place) = places.get(id) {
            if columns.repeats {
                groups[place].rows.push(row);
                continue;
            }
            let first = groups[place].rows[0].line;
            problems.push(Problem::DuplicatePatient { file: file(), line, first, case: id.into() });
        } else {
            places.insert(id, groups.len());
        }
        groups.push(Group { case: id, rows: vec![row] });
    }
    groups
}

/// What the rows of a case say of time and outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Sound,
    /// The time is 0, to be made the smallest.
    Zero,
    LeftOut(LeftOut),
    Wrong,
}

/// What the rows of a case say in one column: a value with its line, nothing, or something wrong, which was reported.
enum Said<T> {
    Value(T, usize),
    Nothing,
    Wrong,
}

/// The rows of one case, for what they say and for the sentences about their cells.
struct Reader<'a> {
    file: &'a Path,
    group: &'a Group<'a>,
    section: &'a ClinicalFile,
    columns: &'a Columns,
}

impl Reader<'_> {
    fn patient(&self, problems: &mut Problems) -> (Patient, Found) {
        let mut patient = Patient {
            case: self.group.case.into(),
            time: f64::NAN,
            event: false,
            strata: None,
            covariates: vec![f64::NAN; self.columns.covariates.len()],
            slides: self.slides(),
        };
        let redacted = |column: &(usize, String)| self.group.rows.iter().any(|row| !self.is_absent(row.cell(column.0)));
        if self.columns.redaction.as_ref().is_some_and(redacted) {
            return (patient, Found::LeftOut(LeftOut::Redacted));
        }
        let found = self.outcome(&mut patient, problems);
        if let Found::LeftOut(_) = found {
            return (patient, found);
        }
        for (value, column) in patient.covariates.iter_mut().zip(&self.columns.covariates) {
            let Some((place, name)) = column else { continue };
            match self.agreed(*place, name, problems, |text| covariate(text).ok_or(())) {
                Said::Value(number, _) => *value = number,
                Said::Nothing => problems.push(self.blank(name)),
                Said::Wrong => {}
            }
        }
        if let Some((place, name)) = &self.columns.strata
            && let Said::Value(stratum, _) = self.agreed(*place, name, problems, |text| Ok(text.to_owned()))
        {
            patient.strata = Some(stratum);
        }
        (patient, found)
    }

    /// Reads time and outcome into a patient.
    fn outcome(&self, patient: &mut Patient, problems: &mut Problems) -> Found {
        let columns = self.columns;
        let mut column = &columns.time;
        let (time, event) = if columns.time_censored.is_some() {
            // Which column has the time depends on the outcome.
            let event = self.event(problems);
            if let Some(Said::Value(false, _)) = event {
                column = &columns.time_censored;
            }
            (self.time(column, problems), event)
        } else {
            let time = self.time(column, problems);
            (time, self.event(problems))
        };
        // A column that is not there was reported once for the whole table.
        let (Some(time), Some(event)) = (time, event) else { return Found::Wrong };
        if matches!(time, Said::Nothing) || matches!(event, Said::Nothing) {
            if self.section.missing == MissingOutcome::Drop {
                return Found::LeftOut(LeftOut::NoOutcome);
            }
            let both = [(matches!(time, Said::Nothing), column), (matches!(event, Said::Nothing), &columns.outcome)];
            for (_, name) in both.into_iter().filter(|(blank, _)| *blank).filter_map(|(_, column)| column.as_ref()) {
                problems.push(self.blank(name));
            }
        }
        let mut sound = false;
        if let Said::Value(event, _) = event {
            (patient.event, sound) = (event, true);
        }
        let Said::Value(time, _) = time else { return Found::Wrong };
        patient.time = time * columns.factor;
        if time > 0.0 {
            return if sound { Found::Sound } else { Found::Wrong };
        }
        match self.section.time_zero {
            TimeZero::Drop => Found::LeftOut(LeftOut::TimeZero),
            _ if sound => Found::Zero,
            _ => Found::Wrong,
        }
    }

    /// The time in its own unit. One that is not above 0 is wrong unless the cohort file says what to do with it.
    fn time(&self, column: &Option<(usize, String)>, problems: &mut Problems) -> Option<Said<f64>> {
        let (place, name) = column.as_ref()?;
        let said = self.agreed(*place, name, problems, |text| text.parse::<f64>().map_err(drop));
        let Said::Value(time, line) = said else { return Some(said) };
        let fits = match self.section.time_zero {
            TimeZero::Drop if time <= 0.0 => time.is_finite(),
            TimeZero::Smallest if time == 0.0 => true,
            _ => {
                let converted = time * self.columns.factor;
                converted.is_finite() && converted > 0.0
            }
        };
        if fits {
            return Some(Said::Value(time, line));
        }
        let cell = self.group.rows.iter().find(|row| row.line == line).map(|row| row.cell(*place));
        problems.push(Problem::Time {
            file: self.file.into(),
            line,
            column: name.clone(),
            case: self.group.case.into(),
            value: cell.unwrap_or_default().to_owned(),
        });
        Some(Said::Wrong)
    }

    /// 0 or 1, also written 0.0 or 1.0 as tables do whose column had blanks once, or a word that preset or cohort file
    /// define. Other words are refused: which of `alive`, `yes` and `true` means an event is not ours to guess.
    fn event(&self, problems: &mut Problems) -> Option<Said<bool>> {
        let (place, name) = self.columns.outcome.as_ref()?;
        let flag: &Flag = &self.columns.flag;
        let mut wrong = None;
        let said = self.agreed_or(*place, name, problems, |text| flag.read(text).ok_or(()), &mut wrong);
        if let Some((line, value)) = wrong {
            let (file, case, column) = (self.file.into(), self.group.case.into(), name.clone());
            problems.push(Problem::Event { file, line, column, case, value, want: flag.want().into() });
        }
        Some(said)
    }

    /// Whether a cell has no value. Words for that are known of presets, and asked for where blanks are dropped.
    fn is_absent(&self, cell: &str) -> bool {
        let words = self.section.preset.is_some() || self.section.missing == MissingOutcome::Drop;
        if words { is_absent(cell) } else { cell.is_empty() }
    }

    /// What all rows that say something in a column say; a cell that cannot be read is no number.
    fn agreed<T: PartialEq>(
        &self,
        column: usize,
        name: &str,
        problems: &mut Problems,
        read: impl Fn(&str) -> Result<T, ()>,
    ) -> Said<T> {
        let mut wrong = None;
        let said = self.agreed_or(column, name, problems, read, &mut wrong);
        if let Some((line, value)) = wrong {
            let (file, column) = (self.file.into(), name.to_owned());
            problems.push(Problem::NotANumber { file, line, column, value });
        }
        said
    }

    fn agreed_or<T: PartialEq>(
        &self,
        column: usize,
        name: &str,
        problems: &mut Problems,
        read: impl Fn(&str) -> Result<T, ()>,
        wrong: &mut Option<(usize, String)>,
    ) -> Said<T> {
        let mut said: Option<(T, &Row)> = None;
        let mut sound = true;
        for row in &self.group.rows {
            let text = row.cell(column);
            if self.is_absent(text) {
                continue;
            }
            match (read(text), &said) {
                (Err(()), _) => {
                    sound = false;
                    *wrong = wrong.take().or_else(|| Some((row.line, text.to_owned())));
                }
                (Ok(value), None) => said = Some((value, row)),
                (Ok(value), Some((before, first))) if value != *before => {
                    sound = false;
                    problems.push(Problem::RowsDisagree {
                        file: self.file.into(),
                        line: row.line,
                        first: first.line,
                        column: name.into(),
                        case: self.group.case.into(),
                        value: text.into(),
                        before: first.cell(column).into(),
                    });
                    break;
                }
                _ => {}
            }
        }
        match said {
            _ if !sound => Said::Wrong,
            Some((value, row)) => Said::Value(value, row.line),
            None => Said::Nothing,
        }
    }

    /// The slides of all rows, each once.
    fn slides(&self) -> Vec<String> {
        let Some((column, _)) = self.columns.slides else { return Vec::new() };
        let mut slides: Vec<String> = Vec::new();
        for row in &self.group.rows {
            let names = row.cell(column).split(';').map(str::trim).filter(|s| !self.is_absent(s)).map(slide_name);
            for name in names {
                if !slides.iter().any(|slide| slide == name) {
                    slides.push(name.to_owned());
                }
            }
        }
        slides
    }

    fn blank(&self, name: &str) -> Problem {
        Problem::Blank { file: self.file.into(), line: self.group.rows[0].line, column: name.into() }
    }
}

/// A number, or one of the words for a sex. The words have fixed values, so that every cohort codes them alike.
fn covariate(text: &str) -> Option<f64> {
    match text.to_ascii_lowercase().as_str() {
        "f" | "female" => Some(0.0),
        "m" | "male" => Some(1.0),
        other => other.parse().ok().filter(|number: &f64| number.is_finite()),
    }
}
