//! Gene expression out of tables: one column a gene, or one row for each case and gene.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use super::barcode::{Ids, Match, sample_type};
use super::clinical::Clinical;
use super::file::RnaFile;
use super::problem::{Problem, Problems};
use super::rna::Matrix;
use super::table::{Row, Table, refuse_duplicate_genes};

/// Matrices with more elements than this (1 GiB) are only made where the table has this part of their values or more.
const LARGE: usize = 1 << 28;
const SPARSE: usize = 8;
/// Cases with gaps that are looked into.
const GAPS: usize = 20;

/// The genes of a table and the rows it has of each case.
struct Expression<'a> {
    genes: Vec<String>,
    cases: Vec<Case<'a>>,
    form: Form,
}

/// One case of a table.
struct Case<'a> {
    id: &'a str,
    rows: Vec<&'a Row>,
}

/// Where the values of a case stand.
enum Form {
    /// In these columns of its row.
    Wide(Vec<usize>),
    /// In the column `value` of the row that names the gene.
    Long { gene: usize, value: usize },
}

pub(super) fn from_table(
    file: &Path,
    section: &RnaFile,
    clinical: Option<&Clinical>,
    problems: &mut Problems,
) -> Option<Matrix> {
    let table = Table::read(file, false, problems)?;
    let wanted = |row: &&Row, case: usize| {
        section.sample.as_deref().is_none_or(|s| sample_type(row.cell(case)).is_none_or(|t| t == s))
    };
    let case = match &section.case {
        Some(name) => table.column(name, problems)?,
        None => 0,
    };
    let rows: Vec<&Row> = table.rows.iter().filter(|row| wanted(row, case)).collect();
    let expression = match (&section.gene, &section.value) {
        (Some(gene), Some(value)) => {
            let (gene, value) = (table.column(gene, problems), table.column(value, problems));
            long(&rows, case, gene?, value?)
        }
        _ => wide(&table, &rows, case, section.suffix.as_deref(), problems)?,
    };
    if expression.genes.is_empty() {
        problems.push(Problem::WidthZero { file: file.into(), tensor: "rna".into() });
        return None;
    }
    expression.of_patients(file, clinical?, problems)
}

fn wide<'a>(
    table: &'a Table,
    rows: &[&'a Row],
    case: usize,
    suffix: Option<&str>,
    problems: &mut Problems,
) -> Option<Expression<'a>> {
    // A column without a name is the index that pandas writes.
    let named = table.header.iter().enumerate().filter(|(place, name)| *place != case && !name.is_empty());
    let (columns, genes): (Vec<usize>, Vec<String>) = match suffix {
        None => named.map(|(place, name)| (place, name.clone())).unzip(),
        Some(suffix) => {
            let gene = |name: &'a String| name.strip_suffix(suffix).filter(|gene| !gene.is_empty());
            named.filter_map(|(place, name)| Some((place, gene(name)?.to_owned()))).unzip()
        }
    };
    if let Some(suffix) = suffix.filter(|_| genes.is_empty()) {
        problems.push(Problem::NoSuffix { file: table.file.clone(), suffix: suffix.into() });
        return None;
    }
    refuse_duplicate_genes(&table.file, genes.iter().map(|gene| (1, gene.as_str())), problems);
    let cases = by_case(rows, case);
    for group in &cases {
        let first = group.rows[0];
        for row in &group.rows[1..] {
            let file = table.file.clone();
            if suffix.is_none() {
                let (line, first, case) = (row.line, first.line, group.id.into());
                problems.push(Problem::DuplicatePatient { file, line, first, case });
            } else if let Some(place) = columns.iter().position(|&c| row.cell(c) != first.cell(c)) {
                problems.push(Problem::RowsDisagree {
                    file,
                    line: row.line,
                    first: first.line,
                    column: table.header[columns[place]].clone(),
                    case: group.id.into(),
                    value: row.cell(columns[place]).into(),
                    before: first.cell(columns[place]).into(),
                });
            }
        }
    }
    Some(Expression { genes, cases, form: Form::Wide(columns) })
}

fn long<'a>(rows: &[&'a Row], case: usize, gene: usize, value: usize) -> Expression<'a> {
    let mut seen = HashSet::new();
    let genes = rows.iter().map(|row| row.cell(gene)).filter(|gene| !gene.is_empty() && seen.insert(*gene));
    let genes = genes.map(str::to_owned).collect();
    Expression { genes, cases: by_case(rows, case), form: Form::Long { gene, value } }
}

/// Rows by the id in a column, in the order of the first of each.
fn by_case<'a>(rows: &[&'a Row], case: usize) -> Vec<Case<'a>> {
    let mut places: HashMap<&str, usize> = HashMap::new();
    let mut cases: Vec<Case<'a>> = Vec::new();
    for row in rows {
        let id = row.cell(case);
        let place = *places.entry(id).or_insert_with(|| {
            cases.push(Case { id, rows: Vec::new() });
            cases.len() - 1
        });
        cases[place].rows.push(row);
    }
    cases
}

impl Expression<'_> {
    /// One row a patient.
    fn of_patients(self, file: &Path, clinical: &Clinical, problems: &mut Problems) -> Option<Matrix> {
        let patients = &clinical.patients;
        let ids = Ids::new(self.cases.iter().map(|case| case.id));
        let mut owners: HashMap<usize, usize> = HashMap::new();
        let mut found: Vec<Option<usize>> = Vec::with_capacity(patients.len());
        for (index, patient) in patients.iter().enumerate() {
            let mut ambiguous = |id: &str, like: Vec<String>| {
                problems.push(Problem::Ambiguous { file: file.into(), id: id.into(), like });
            };
            found.push(match ids.find(&patient.case) {
                Match::Nothing => None,
                Match::One(case) => {
                    let first = &patients[*owners.entry(case).or_insert(index)].case;
                    if *first != patient.case {
                        ambiguous(self.cases[case].id, vec![first.clone(), patient.case.clone()]);
                    }
                    Some(case)
                }
                Match::Several(cases) => {
                    ambiguous(&patient.case, cases.iter().map(|&c| self.cases[c].id.to_owned()).collect());
                    cases.first().copied()
                }
            });
        }
        let present: Vec<bool> = found.iter().map(Option::is_some).collect();
        let size = patients.len().saturating_mul(self.genes.len());
        let values_of = |case: usize| match self.form {
            Form::Wide(_) => self.genes.len(),
            Form::Long { .. } => self.cases[case].rows.len(),
        };
        let present_values: usize = owners.keys().map(|&case| values_of(case)).sum();
        if size > LARGE && present_values < size / SPARSE {
            problems.push(Problem::FewRna { file: file.into(), present: present_values, want: size });
            return None;
        }
        let mut values = vec![0.0; size];
        let mut fill = Fill { file, genes: &self.genes, places: HashMap::new(), gaps: 0, problems };
        for (row, case) in values.chunks_exact_mut(self.genes.len()).zip(found) {
            let Some(case) = case.map(|case| &self.cases[case]) else { continue };
            match &self.form {
                Form::Wide(columns) => fill.wide(case.rows[0], columns, row),
                Form::Long { gene, value } => fill.long(case, *gene, *value, row),
            }
        }
        Some((self.genes, values, present))
    }
}

/// Puts the values of cases in their rows.
struct Fill<'a> {
    file: &'a Path,
    genes: &'a [String],
    /// Of the genes, made when it is needed first.
    places: HashMap<&'a str, usize>,
    gaps: usize,
    problems: &'a mut Problems,
}

impl<'a> Fill<'a> {
    fn number(&mut self, text: &str, line: usize, gene: usize) -> Option<f32> {
        let number = text.parse().ok();
        if number.is_none() {
            let (file, column, value) = (self.file.into(), self.genes[gene].clone(), text.to_owned());
            self.problems.push(Problem::NotANumber { file, line, column, value });
        }
        number
    }

    fn wide(&mut self, row: &Row, columns: &[usize], to: &mut [f32]) {
        for (gene, (&column, to)) in columns.iter().zip(to).enumerate() {
            match self.number(row.cell(column), row.line, gene) {
                Some(number) => *to = number,
                // One gene of a row that is damaged says it all.
                None => return,
            }
        }
    }

    fn long(&mut self, case: &Case<'_>, gene: usize, value: usize, to: &mut [f32]) {
        if self.places.is_empty() {
            self.places = self.genes.iter().enumerate().map(|(place, gene)| (gene.as_str(), place)).collect();
        }
        let mut filled = vec![false; to.len()];
        for row in &case.rows {
            let Some(&place) = self.places.get(row.cell(gene)) else {
                let (file, column) = (self.file.into(), "the gene".into());
                self.problems.push(Problem::Blank { file, line: row.line, column });
                continue;
            };
            if filled[place] {
                self.wrong(case, place, "is there twice");
            }
            filled[place] = true;
            if let Some(number) = self.number(row.cell(value), row.line, place) {
                to[place] = number;
            }
        }
        if let Some(place) = filled.iter().position(|filled| !filled)
            && self.gaps < GAPS
        {
            self.gaps += 1;
            self.wrong(case, place, "is missing");
        }
    }

    fn wrong(&mut self, case: &Case<'_>, gene: usize, why: &'static str) {
        let (file, case, gene) = (self.file.into(), case.id.into(), self.genes[gene].clone());
        self.problems.push(Problem::LongRna { file, case, gene, why });
    }
}
