//! Cohort files for studies that lie as another tool wants them. Nothing is copied: the files name the user's tables.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};

use serde::Serialize;

use super::atomic::{RunDir, write_file};
use super::bytes::Reading;
use super::cohort::Loaded;
use super::dialect::{Endpoint, Preset};
use super::file::{
    ClinicalFile, CohortFile, MissingOutcome, MissingRna, MissingSlides, RnaFile, SlideTable, SlidesFile,
};
use super::problem::{Problem, Problems};
use super::report::{Report, report_without_scan};
use super::table::Table;
use crate::error::{Error, Result};

/// The tool whose layout a study has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    /// `datasets_csv/metadata`, `raw_rna_data`, `splits`.
    Survpath,
    /// `datasets_csv/tcga_*_all_clean.csv.zip`, also PORPOISE.
    Mcat,
    /// `dataset_csv/*.csv` with cases and slides; the outcome stands in a table that the user names.
    Clam,
    /// A table of patients, one of slides, and a folder of `.h5`.
    Stamp,
}

impl Tool {
    fn name(self) -> &'static str {
        match self {
            Tool::Survpath => "SurvPath",
            Tool::Mcat => "MCAT",
            Tool::Clam => "CLAM",
            Tool::Stamp => "STAMP",
        }
    }
}

/// What to import, and what only the user can say.
#[derive(Clone, Debug)]
pub struct Import {
    /// The tool.
    pub from: Tool,
    /// The folder of the study.
    pub study: PathBuf,
    /// A folder of patch features, if it lies elsewhere or is not found.
    pub slides: Option<PathBuf>,
    /// A table of outcomes in place of the study's.
    pub clinical: Option<PathBuf>,
    /// Its preset.
    pub preset: Option<Preset>,
    /// The endpoint of the preset.
    pub endpoint: Option<Endpoint>,
    /// The column of times.
    pub time: Option<String>,
    /// The column in which 1, or a word that the preset knows, means an event.
    pub event: Option<String>,
    /// Which gene expression of SurvPath: `combine`, `xena` or `hallmarks`.
    pub rna: Option<String>,
}

/// One cohort file that was written.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ImportedCohort {
    /// Splits for `onkos train --split`.
    pub splits: Vec<PathBuf>,
    /// What was not found or was decided, in sentences.
    pub notes: Vec<String>,
    /// What the cohort holds. Features were not looked at for NaN.
    pub report: Report,
}

/// What was written.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Imported {
    /// The folder.
    pub folder: PathBuf,
    /// The cohorts in the order of their names.
    pub cohorts: Vec<ImportedCohort>,
    /// What of the study was not understood, in sentences.
    pub notes: Vec<String>,
}

/// A cohort as found; its paths are as the study is named, and made relative when it is written.
struct Draft {
    file: CohortFile,
    splits: Vec<PathBuf>,
    notes: Vec<String>,
}

impl Import {
    /// Writes one cohort file for each cohort that is found into a new folder, which appears when all are written.
    ///
    /// Patients without slides, gene expression or outcome are left out by the files where there are any, and that is
    /// told.
    ///
    /// # Errors
    /// [`Error::Import`] if nothing is found, with what was looked for; [`Error::Exists`], [`Error::Io`].
    pub fn write(&self, out: &Path) -> Result<Imported> {
        fs::read_dir(&self.study).map_err(Error::io(&self.study))?;
        let mut notes = Vec::new();
        let mut drafts = match self.from {
            Tool::Survpath => self.survpath(&mut notes),
            Tool::Mcat => self.mcat(&mut notes),
            Tool::Clam => self.clam(&mut notes),
            Tool::Stamp => self.stamp(&mut notes),
        };
        drafts.sort_by(|a, b| a.file.name.cmp(&b.file.name));
        if drafts.is_empty() {
            let why = if notes.is_empty() { self.looked_for().to_owned() } else { notes.join("; ") };
            return Err(Error::Import { study: self.study.clone(), tool: self.from.name(), why });
        }
        let folder = RunDir::create(out)?;
        for draft in &mut drafts {
            draft.make_relative(folder.path())?;
            let path = draft.write(folder.path(), self.from)?;
            if draft.leave_out(&Loaded::read(&path, Reading::Positioned).problems) {
                draft.write(folder.path(), self.from)?;
            }
        }
        let folder = folder.finish()?;
        let cohorts = drafts
            .into_iter()
            .map(|draft| ImportedCohort {
                report: report_without_scan(&folder.join(draft.file_name())),
                splits: draft.splits,
                notes: draft.notes,
            })
            .collect();
        Ok(Imported { folder, cohorts, notes })
    }

    fn looked_for(&self) -> &'static str {
        match self.from {
            Tool::Survpath => "no datasets_csv/metadata/tcga_*.csv there",
            Tool::Mcat => "no tcga_*_all_clean.csv or .csv.zip in a folder dataset_csv* or datasets_csv* there",
            Tool::Clam => "no table with case_id and slide_id in dataset_csv there",
            Tool::Stamp => "no table with a column PATIENT there, or one of its folders",
        }
    }

    /// A cohort of a clinical table of the study, or of the one that the user names.
    fn draft(&self, name: &str, table: &Path, preset: Preset) -> Draft {
        let clinical = ClinicalFile {
            file: self.clinical.clone().unwrap_or_else(|| table.into()),
            preset: Some(self.preset.unwrap_or(preset)),
            endpoint: self.endpoint,
            time: self.time.clone(),
            event: self.event.clone(),
            ..ClinicalFile::default()
        };
        let file = CohortFile { name: name.into(), clinical, rna: None, slides: None };
        Draft { file, splits: Vec::new(), notes: Vec::new() }
    }

    fn survpath(&self, notes: &mut Vec<String>) -> Vec<Draft> {
        let tables = [self.study.join("datasets_csv"), self.study.clone()];
        let Some(tables) = tables.into_iter().find(|folder| folder.join("metadata").is_dir()) else {
            return Vec::new();
        };
        let metadata = tables.join("metadata");
        let mut drafts = Vec::new();
        for table in list(&metadata) {
            let stem = stem(&table);
            let Some(name) = stem.strip_prefix("tcga_").filter(|_| is_table(&table)) else {
                if !stem.ends_with("signatures") {
                    notes.push(format!("{} was not understood", table.display()));
                }
                continue;
            };
            let mut draft = self.draft(name, &table, Preset::Survpath);
            self.survpath_rna(&mut draft, &tables, name);
            self.features(&mut draft, name);
            draft.splits = splits(&self.study, &[&stem, name]);
            drafts.push(draft);
        }
        drafts
    }

    fn survpath_rna(&self, draft: &mut Draft, tables: &Path, name: &str) {
        const KINDS: [&str; 3] = ["combine", "xena", "hallmarks"];
        let kinds = self.rna.as_deref().map_or_else(|| KINDS.to_vec(), |kind| vec![kind]);
        let raw = tables.join("raw_rna_data");
        let file = |kind: &str| {
            let folders = [name.to_owned(), format!("tcga_{name}")];
            folders.iter().map(|n| raw.join(kind).join(n).join("rna_clean.csv")).find(|file| file.is_file())
        };
        let Some((kind, file)) = kinds.iter().find_map(|kind| Some((*kind, file(kind)?))) else {
            let wanted = kinds.join(" or ");
            draft.notes.push(format!("no gene expression: no rna_clean.csv of {wanted} in {}", raw.display()));
            return;
        };
        let signatures = [
            tables.join("metadata").join(format!("{kind}_signatures.csv")),
            tables.join("pathway_compositions").join(format!("{kind}_comps.csv")),
        ];
        let signatures = signatures.into_iter().find(|file| file.is_file());
        if signatures.is_none() {
            draft.notes.push(format!("no signatures of {kind}: name some with signatures in [rna]"));
        }
        draft.file.rna = Some(RnaFile { file, signatures, ..RnaFile::default() });
    }

    fn mcat(&self, notes: &mut Vec<String>) -> Vec<Draft> {
        let is_folder =
            |path: &PathBuf| ["dataset_csv", "datasets_csv"].iter().any(|start| stem(path).starts_with(start));
        let mut folders: Vec<PathBuf> = list(&self.study).into_iter().filter(is_folder).collect();
        let signatures = folders.iter().map(|f| f.join("signatures.csv")).find(|file| file.is_file());
        folders.push(self.study.clone());
        let (mut drafts, mut names) = (Vec::new(), BTreeSet::new());
        for table in folders.iter().flat_map(|folder| list(folder)) {
            let file = table.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let stem = file.strip_suffix(".zip").unwrap_or(&file).strip_suffix(".csv");
            let Some(stem) = stem.and_then(|stem| stem.strip_suffix("_all_clean")) else { continue };
            let name = stem.strip_prefix("tcga_").unwrap_or(stem);
            if !names.insert(name.to_owned()) {
                notes.push(format!("{} is another table of {name}: only the first is imported", table.display()));
                continue;
            }
            let mut draft = self.draft(name, &table, Preset::Mcat);
            let has_genes = header(&table).is_some_and(|header| header.iter().any(|h| h.ends_with("_rnaseq")));
            if has_genes {
                let (case, suffix) = (Some("case_id".into()), Some("_rnaseq".into()));
                draft.file.rna = Some(RnaFile {
                    file: table.clone(),
                    case,
                    suffix,
                    signatures: signatures.clone(),
                    ..RnaFile::default()
                });
                if signatures.is_none() {
                    draft.notes.push("no signatures.csv: name some with signatures in [rna]".into());
                }
            } else {
                draft.notes.push("no gene expression: no column of the table ends with _rnaseq".into());
            }
            self.features(&mut draft, name);
            draft.splits = splits(&self.study, &[stem, name]);
            drafts.push(draft);
        }
        drafts
    }

    fn clam(&self, notes: &mut Vec<String>) -> Vec<Draft> {
        let mut drafts = Vec::new();
        for table in list(&self.study.join("dataset_csv")) {
            let has = |names: [&str; 2]| {
                header(&table).is_some_and(|header| names.iter().all(|name| header.iter().any(|h| h == name)))
            };
            if !is_table(&table) || !has(["case_id", "slide_id"]) {
                notes.push(format!("{} has no columns case_id and slide_id", table.display()));
                continue;
            }
            let Some(preset) = self.preset else {
                notes.push(format!(
                    "{} says whose the slides are and nothing of survival: name a table of outcomes with --clinical and \
                     its --preset, or the --preset of this one if it has them",
                    table.display()
                ));
                continue;
            };
            let name = stem(&table);
            let mut draft = self.draft(&name, &table, preset);
            self.features(&mut draft, &name);
            if self.clinical.is_some() {
                draft.slide_table(&table, "case_id", "slide_id");
            }
            draft.splits = splits(&self.study, &[&name]);
            drafts.push(draft);
        }
        drafts
    }

    fn stamp(&self, notes: &mut Vec<String>) -> Vec<Draft> {
        let mut tables: Vec<(PathBuf, Vec<String>)> = Vec::new();
        for path in below(&self.study, 2) {
            if path.extension().is_some_and(|e| e == "xlsx") {
                notes.push(format!("{} is a spreadsheet; save it as CSV", path.display()));
            } else if is_table(&path) && tables.len() < 100 {
                tables.extend(header(&path).filter(|h| h.iter().any(|h| h == "PATIENT")).map(|h| (path.clone(), h)));
            }
        }
        let is_of_slides = |(_, header): &&(PathBuf, Vec<String>)| header.iter().any(|h| h == "FILENAME");
        let slide_table = tables.iter().find(is_of_slides).map(|(path, _)| path.clone());
        let mut of_patients = tables.iter().filter(|table| !is_of_slides(table)).map(|(path, _)| path.clone());
        let Some(clinical) = self.clinical.clone().or_else(|| of_patients.next()) else { return Vec::new() };
        notes.extend(of_patients.map(|path| format!("{} was not used; name it with --clinical", path.display())));
        if self.time.is_none() || self.event.is_none() {
            notes.push(format!("name the columns of {} with --time and --event", clinical.display()));
            return Vec::new();
        }
        let study = self.study.canonicalize().unwrap_or_else(|_| self.study.clone());
        let mut draft = self.draft(&stem(&study), &clinical, Preset::Stamp);
        self.features(&mut draft, "");
        match slide_table {
            Some(table) => draft.slide_table(&table, "PATIENT", "FILENAME"),
            None => {
                draft.notes.push("no table with PATIENT and FILENAME: slides are found by the names of patients".into())
            }
        }
        draft.splits = below(&self.study, 2).into_iter().filter(|path| path.ends_with("splits.json")).collect();
        vec![draft]
    }

    /// Where the features of a cohort lie: below what the user names, else in the study.
    fn features(&self, draft: &mut Draft, name: &str) {
        let of_cohort = |folder: &PathBuf| {
            let names = [format!("tcga_{name}"), name.to_owned()];
            names.iter().map(|n| folder.join(n)).find(|f| !name.is_empty() && f.is_dir()).unwrap_or(folder.clone())
        };
        let has_slides = |folder: &PathBuf| {
            let extension = if self.from == Tool::Stamp { "h5" } else { "pt" };
            let inside = list(folder);
            ["h5_files", "pt_files"].iter().any(|n| folder.join(n).is_dir())
                || inside.iter().any(|file| file.extension().is_some_and(|e| e == extension))
        };
        let found = || below(&self.study, 2).into_iter().filter(|path| path.is_dir()).find(has_slides);
        match self.slides.as_ref().map(of_cohort).or_else(found) {
            Some(dir) => draft.file.slides = Some(SlidesFile { dir: Some(dir), ..SlidesFile::default() }),
            None => draft.notes.push("no patch features: name their folder with --slides".into()),
        }
    }
}

impl Draft {
    fn slide_table(&mut self, table: &Path, case: &str, slide: &str) {
        let Some(slides) = &mut self.file.slides else { return };
        slides.table = Some(SlideTable { file: table.into(), case: Some(case.into()), slide: Some(slide.into()) });
    }

    fn file_name(&self) -> String {
        format!("{}.toml", crate::run::file_name(&self.file.name))
    }

    fn paths(&mut self) -> Vec<&mut PathBuf> {
        let mut paths = vec![&mut self.file.clinical.file];
        if let Some(rna) = &mut self.file.rna {
            paths.push(&mut rna.file);
            paths.extend(&mut rna.signatures);
        }
        if let Some(slides) = &mut self.file.slides {
            paths.extend(&mut slides.dir);
            paths.extend(slides.table.as_mut().map(|table| &mut table.file));
        }
        paths
    }

    fn make_relative(&mut self, folder: &Path) -> Result<()> {
        let folder = folder.canonicalize().map_err(Error::io(folder))?;
        for path in self.paths() {
            *path = relative(&path.canonicalize().map_err(Error::io(&*path))?, &folder);
        }
        Ok(())
    }

    fn write(&self, folder: &Path, tool: Tool) -> Result<PathBuf> {
        let toml = toml::to_string(&self.file).expect("a cohort file is plain tables of texts and numbers");
        let path = folder.join(self.file_name());
        let head = format!("# Made by onkos import of a study of {}. Paths are relative to this file.\n", tool.name());
        write_file(&path, |w| w.write_all(head.as_bytes()).and_then(|()| w.write_all(toml.as_bytes())))?;
        Ok(path)
    }

    /// Leaves out patients that lack what others have, and tells of it. Returns whether there are any.
    fn leave_out(&mut self, problems: &Problems) -> bool {
        let count = |is: &dyn Fn(&Problem) -> bool| problems.0.iter().filter(|problem| is(problem)).count();
        let rna = count(&|p| matches!(p, Problem::NoRna { .. }));
        let slides = count(&|p| matches!(p, Problem::NoSlides { .. } | Problem::MissingSlide { .. }));
        let line = |problem: &Problem| if let Problem::Blank { line, .. } = problem { Some(*line) } else { None };
        let outcome = problems.0.iter().filter_map(line).collect::<BTreeSet<usize>>().len();
        if let (Some(section), true) = (&mut self.file.rna, rna > 0) {
            section.missing = MissingRna::Drop;
            let why = "patients have no gene expression and are left out; missing = \"keep\" in [rna] keeps them";
            self.notes.push(format!("{rna} {why}"));
        }
        if let (Some(section), true) = (&mut self.file.slides, slides > 0) {
            section.missing = MissingSlides::Drop;
            let why = "slides or patients have no features; patients without any are left out by missing = \"drop\"";
            self.notes.push(format!("{slides} {why}"));
        }
        if outcome > 0 {
            self.file.clinical.missing = MissingOutcome::Drop;
            self.notes.push(format!("{outcome} patients have no time or outcome and are left out"));
        }
        rna + slides + outcome > 0
    }
}

/// A path as seen from a folder, both absolute; as it is if they have nothing but the root in common.
fn relative(path: &Path, folder: &Path) -> PathBuf {
    let common = path.components().zip(folder.components()).take_while(|(a, b)| a == b);
    let common = common.filter(|(part, _)| matches!(part, Component::Normal(_))).count();
    if common == 0 {
        return path.into();
    }
    let normal = |path: &Path| path.components().filter(|c| matches!(c, Component::Normal(_))).count();
    let skip = path.components().count() - normal(path) + common;
    let up = std::iter::repeat_n(Component::ParentDir, normal(folder) - common);
    up.chain(path.components().skip(skip)).collect()
}

/// The files and folders in a folder, sorted, without hidden ones.
fn list(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let visible = entries.filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"."));
    let mut paths: Vec<PathBuf> = visible.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

/// All that lies in a folder and in the folders in it, so many deep.
fn below(folder: &Path, depth: usize) -> Vec<PathBuf> {
    let mut found = list(folder);
    if depth > 1 {
        let deeper: Vec<PathBuf> = found.iter().filter(|p| p.is_dir()).flat_map(|p| below(p, depth - 1)).collect();
        found.extend(deeper);
    }
    found
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

fn is_table(path: &Path) -> bool {
    path.is_file() && path.extension().is_some_and(|e| e == "csv" || e == "tsv")
}

/// The header of a table, if it is one.
fn header(path: &Path) -> Option<Vec<String>> {
    Some(Table::read(path, true, &mut Problems::default())?.header)
}

/// Folders with splits of a cohort: those of its names, at most three deep in `splits`.
fn splits(study: &Path, names: &[&str]) -> Vec<PathBuf> {
    let is_named = |path: &PathBuf| {
        let folder = path.file_name().unwrap_or_default().to_string_lossy();
        let named = names.iter().any(|name| folder == *name || folder.starts_with(&format!("{name}_")));
        named && path.join("splits_0.csv").is_file()
    };
    below(&study.join("splits"), 3).into_iter().filter(is_named).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_relative_where_something_is_in_common() {
        let relative = |path: &str, folder: &str| relative(Path::new(path), Path::new(folder));
        assert_eq!(relative("/a/b/c.csv", "/a/out"), Path::new("../b/c.csv"));
        assert_eq!(relative("/a/b/c.csv", "/a/b"), Path::new("c.csv"));
        assert_eq!(relative("/a/b", "/a/b/c/d"), Path::new("../.."));
        assert_eq!(relative("/a/b", "/x/y"), Path::new("/a/b"));
    }
}
