//! The files that other tools keep splits in.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use super::problem::{Problem, Problems};
use super::table::{Row, Table, read_text};

/// An id of a split: where it stands and in which set.
pub(super) struct Named {
    pub(super) file: Arc<Path>,
    pub(super) line: usize,
    pub(super) set: &'static str,
    pub(super) id: String,
}

/// What the sets are called in columns and cells.
fn set_called(name: &str) -> Option<&'static str> {
    match name.to_ascii_lowercase().as_str() {
        "train" => Some("train"),
        "val" | "valid" | "validation" => Some("val"),
        "test" => Some("test"),
        _ => None,
    }
}

/// Reads a file or a folder, of several splits the one of a fold.
pub(super) fn read(path: &Path, fold: usize, problems: &mut Problems) -> Option<Vec<Named>> {
    if path.is_dir() {
        return from_folder(path, fold, problems);
    }
    if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("json")) {
        return from_json(path, fold, problems);
    }
    let table = Table::read(path, true, problems)?;
    let form = Form { table: &table, file: path.into() };
    let has = |name: &str| table.header.iter().any(|h| h == name);
    if table.header.iter().any(|name| name.starts_with("fold_")) {
        let case = if has("case_id") { table.column("case_id", problems)? } else { 0 };
        let column = table.column(&format!("fold_{fold}"), problems)?;
        return Some(form.sets_in_cells(case, column, problems));
    }
    if has("case_id") && has("set") {
        let (case, set) = (table.column("case_id", problems)?, table.column("set", problems)?);
        return Some(form.sets_in_cells(case, set, problems));
    }
    let mut columns = Vec::new();
    for set in ["train", "val", "test"] {
        if set != "test" || has(set) {
            columns.push((set, table.column(set, problems)?));
        }
    }
    Some(if form.is_of_flags(&columns) { form.flags(&columns, problems) } else { form.lists(&columns) })
}

struct Form<'a> {
    table: &'a Table,
    file: Arc<Path>,
}

impl Form<'_> {
    fn named(&self, row: &Row, set: &'static str, id: &str) -> Named {
        Named { file: self.file.clone(), line: row.line, set, id: id.into() }
    }

    /// One column a set, with ids below it.
    fn lists(&self, columns: &[(&'static str, usize)]) -> Vec<Named> {
        let filled = |&(set, column): &(&'static str, usize)| {
            let rows = self.table.rows.iter().filter(move |row| !row.cell(column).is_empty());
            rows.map(move |row| self.named(row, set, row.cell(column))).collect::<Vec<_>>()
        };
        columns.iter().flat_map(filled).collect()
    }

    /// Whether the columns of sets hold nothing but true and false.
    fn is_of_flags(&self, columns: &[(&'static str, usize)]) -> bool {
        let is_flag = |cell: &str| cell.is_empty() || flag(cell).is_some();
        let mut cells = self.table.rows.iter().flat_map(|row| columns.iter().map(|&(_, column)| row.cell(column)));
        // The ids stand in the first column then, which is none of the sets.
        columns.iter().all(|&(_, column)| column > 0) && cells.all(is_flag)
    }

    /// One row an id, with true under its set.
    fn flags(&self, columns: &[(&'static str, usize)], problems: &mut Problems) -> Vec<Named> {
        let mut named = Vec::new();
        for row in &self.table.rows {
            let id = row.cell(0);
            if id.is_empty() {
                let (file, column) = (self.table.file.clone(), self.table.header[0].clone());
                problems.push(Problem::Blank { file, line: row.line, column });
                continue;
            }
            let sets = columns.iter().filter(|&&(_, column)| flag(row.cell(column)) == Some(true));
            named.extend(sets.map(|&(set, _)| self.named(row, set, id)));
        }
        named
    }

    /// One row an id, with the name of its set. Ids may occur again, as where a patient has several slides.
    fn sets_in_cells(&self, case: usize, column: usize, problems: &mut Problems) -> Vec<Named> {
        let (mut named, mut seen) = (Vec::new(), HashSet::new());
        for row in self.table.rows.iter().filter(|row| !row.cell(column).is_empty()) {
            let (id, cell) = (row.cell(case), row.cell(column));
            match set_called(cell) {
                Some(set) if seen.insert((id, set)) => named.push(self.named(row, set, id)),
                Some(_) => {}
                // What our own runs write of patients who are in no set.
                _ if cell == "none" => {}
                _ => {
                    let why = format!("line {}: {cell:?} is no set; write train, val or test", row.line);
                    problems.push(Problem::SplitForm { file: self.table.file.clone(), why });
                }
            }
        }
        named
    }
}

fn flag(cell: &str) -> Option<bool> {
    match cell.to_ascii_lowercase().as_str() {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

/// A folder with one file a fold (CLAM, SurvPath), one folder a fold, or one file a set (MMP, PANTHER).
fn from_folder(path: &Path, fold: usize, problems: &mut Problems) -> Option<Vec<Named>> {
    let of_fold = path.join(format!("splits_{fold}.csv"));
    if of_fold.is_file() {
        return read(&of_fold, fold, problems);
    }
    let file = |set: &str| ["csv", "tsv"].map(|e| path.join(format!("{set}.{e}"))).into_iter().find(|f| f.is_file());
    let Some(train) = file("train") else {
        let ending = format!("_k={fold}");
        let folders = std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
        let is_fold = |p: &PathBuf| p.is_dir() && p.file_name().is_some_and(|n| n.to_string_lossy().ends_with(&ending));
        let mut folders: Vec<PathBuf> = folders.filter(is_fold).collect();
        folders.sort();
        if let [folder] = &folders[..]
            && (folder.join("train.csv").is_file() || folder.join("train.tsv").is_file())
        {
            return from_folder(folder, fold, problems);
        }
        let why = match folders.len() {
            0 | 1 => {
                format!("the folder has neither splits_{fold}.csv nor train.csv, nor one folder {ending} with them")
            }
            n => format!("{n} folders end in {ending}; name the one to use"),
        };
        problems.push(Problem::SplitForm { file: path.into(), why });
        return None;
    };
    let mut named = Vec::new();
    for (set, file) in [("train", Some(train)), ("val", file("val")), ("test", file("test"))] {
        let Some(file) = file else { continue };
        let table = Table::read(&file, true, problems)?;
        let column = if table.header.iter().any(|h| h == "case_id") { "case_id" } else { "slide_id" };
        let column = table.column(column, problems)?;
        let (form, mut seen) = (Form { table: &table, file: file.as_path().into() }, HashSet::new());
        let ids = table.rows.iter().filter(|row| !row.cell(column).is_empty() && seen.insert(row.cell(column)));
        named.extend(ids.map(|row| form.named(row, set, row.cell(column))));
    }
    Some(named)
}

#[derive(Deserialize)]
struct Stamp {
    splits: Vec<StampSplit>,
}

#[derive(Deserialize)]
struct StampSplit {
    train_patients: Vec<String>,
    test_patients: Vec<String>,
}

fn from_json(path: &Path, fold: usize, problems: &mut Problems) -> Option<Vec<Named>> {
    let text = read_text(path, problems)?;
    let mut wrong = |line, why| {
        problems.push(Problem::Config { file: path.into(), line, why });
        None
    };
    let stamp: Stamp = match serde_json::from_str(&text) {
        Ok(stamp) => stamp,
        Err(e) => return wrong(e.line(), e.to_string()),
    };
    let Some(split) = stamp.splits.get(fold) else {
        return wrong(1, format!("fold {fold} is asked for, but there are {} splits", stamp.splits.len()));
    };
    let file: Arc<Path> = path.into();
    // Where in the text an id stands is not known, nor does it matter: a list is searched by the id.
    let named = |set, ids: &[String]| {
        ids.iter().map(|id| Named { file: file.clone(), line: 1, set, id: id.clone() }).collect::<Vec<_>>()
    };
    Some(named("train", &split.train_patients).into_iter().chain(named("test", &split.test_patients)).collect())
}
