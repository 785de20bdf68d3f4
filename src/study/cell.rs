//! One training of a study: made once, kept in a folder of its own, believed only if it is whole.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::plan::{Cell, Part, Plan};
use super::preset::Mode;
use crate::data::{Cohort, FileHash, Split, write_file};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::model::{Batching, Predictor, Recipe};
use crate::run::{self, file_name, sets};
use crate::train::{EpochRecord, Progress, train};

/// The folder of the cells below that of the results.
const CELLS: &str = "cells";
/// The file that says that a cell is finished. It is written last.
const RESULT: &str = "result.json";
const CURVES: &str = run::METRICS;
/// Changes when the meaning of a cell does: cells of another layout are made anew.
const LAYOUT: u32 = 1;

/// What is kept of a cell besides risks and curves.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct CellResult {
    /// The hash of everything that the cell depends on.
    pub(super) key: String,
    /// The epoch whose parameters were kept.
    pub(super) kept_epoch: u32,
    /// Scalars of the model.
    pub(super) parameters: usize,
    /// Training, validation and test patients of the source.
    pub(super) patients: [usize; 3],
    /// The median risk of the training patients.
    pub(super) cut: f64,
    /// Seconds of the training and of all predictions.
    seconds: f64,
    /// The other files of the folder.
    files: Vec<FileHash>,
}

/// One epoch of a training, as far as its figures repeat.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    /// From 1.
    pub epoch: u32,
    /// The training loss.
    pub loss: f64,
    /// The loss of the validation patients, if there are any.
    pub validation: Option<Validation>,
}

/// The validation patients after an epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Validation {
    /// Their loss.
    pub loss: f64,
}

/// A finished cell, as it lies on the disk.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) result: CellResult,
    pub(super) curve: Vec<Epoch>,
    /// Of each cohort that was judged: the risk of each of its patients, and the set it was in.
    pub(super) risks: HashMap<usize, Vec<(String, f64)>>,
}

/// The cohorts that a cell has risks of.
fn judged(plan: &Plan, cell: &Cell) -> Vec<usize> {
    match cell.part {
        Part::Whole => std::iter::once(cell.source).chain(plan.targets(cell.source)).collect(),
        Part::Fold(_) => vec![cell.source],
    }
}

/// Where a cell lies.
pub(super) fn folder(plan: &Plan, cell: &Cell) -> PathBuf {
    plan.names(cell).iter().fold(plan.out.join(CELLS), |path, name| path.join(name))
}

fn hex(bytes: impl AsRef<[u8]>) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The hash of everything that the numbers of a cell depend on: settings, seed, part, mode and the contents of all files,
/// wherever they lie; the kind of device, which rounds in its own way.
pub(super) fn key(plan: &Plan, cell: &Cell, device: Device) -> String {
    let sums = |&cohort: &usize| {
        let sums: Vec<&str> = plan.inputs[cohort].iter().map(|file| file.sha256.as_str()).collect();
        (plan.cohorts[cohort].name.clone(), sums)
    };
    let cohorts: Vec<_> = judged(plan, cell).iter().map(sums).collect();
    let folds = match cell.part {
        Part::Whole => 0,
        Part::Fold(_) => plan.settings.folds,
    };
    let part = (cell.part.to_string(), folds, plan.settings.mode);
    let kind = if device == Device::Cpu { "cpu" } else { "cuda" };
    let all = (LAYOUT, env!("CARGO_PKG_VERSION"), kind, plan.config(cell), part, keeps_model(plan, cell), cohorts);
    hex(serde_json::to_vec(&all).expect("settings are plain data"))
}

/// The cell, if it is finished and of these settings and inputs.
pub(super) fn finished(plan: &Plan, cell: &Cell, key: &str) -> Option<CellResult> {
    let folder = folder(plan, cell);
    let result: CellResult = serde_json::from_slice(&fs::read(folder.join(RESULT)).ok()?).ok()?;
    let whole = |file: &FileHash| FileHash::of(&folder.join(&file.file)).is_ok_and(|now| now.sha256 == file.sha256);
    (result.key == key && result.files.iter().all(whole)).then_some(result)
}

/// Trains a cell and keeps what it gives. What lay in its folder goes first: it is of other settings, or not whole.
pub(super) fn make(
    plan: &Plan,
    cell: &Cell,
    key: &str,
    device: Device,
    mut observe: impl FnMut(&Progress<'_>),
) -> Result<()> {
    let start = Instant::now();
    let folder = folder(plan, cell);
    match fs::remove_dir_all(&folder) {
        Err(why) if why.kind() != std::io::ErrorKind::NotFound => return Err(Error::io(&folder)(why)),
        _ => {}
    }
    fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
    let (config, source) = (plan.config(cell), &plan.cohorts[cell.source]);
    let split = plan.split(cell.source, &config, cell.part)?;
    let recipe = Recipe::fit(&config, source, &split.train)?;
    let trained = train(&config, device, source, &split, recipe, &mut observe)?;

    let mut files = Vec::new();
    let mut kept = |name: String| {
        let hash = FileHash::of(&folder.join(&name))?;
        files.push(FileHash { file: name.into(), ..hash });
        Ok::<(), Error>(())
    };
    write_curves(&folder.join(CURVES), &trained.history)?;
    kept(CURVES.into())?;
    if keeps_model(plan, cell) {
        trained.predictor.save(&folder.join(run::MODEL))?;
        kept(run::MODEL.into())?;
        run::write_config(&folder, &config)?;
        kept(run::CONFIG.into())?;
    }
    let batching = Batching { patients: config.train.batch, patches: config.train.patches_per_batch };
    let mut predictor = trained.predictor;
    let (cut, own) = (predictor.recipe.median_risk, predictor.recipe.genes.clone());
    for cohort in judged(plan, cell) {
        predictor.recipe.genes.clone_from(&own);
        if plan.settings.mode == Mode::Published && cohort != cell.source {
            scale_by_target(&mut predictor, &plan.cohorts[cohort])?;
        }
        let predictions = predictor.predict(&plan.cohorts[cohort], batching)?;
        let name = risks_of(&plan.cohorts[cohort]);
        let set = |p: usize| if cohort == cell.source { set_of(&split, p) } else { "target" };
        run::write_risks(&folder.join(&name), &plan.cohorts[cohort], &predictions, cut, set)?;
        kept(name)?;
    }
    let result = CellResult {
        key: key.into(),
        kept_epoch: trained.kept_epoch,
        parameters: predictor.params.count(),
        patients: sets(&split).map(|(_, set)| set.len()),
        cut,
        seconds: start.elapsed().as_secs_f64(),
        files,
    };
    run::write_json(&folder.join(RESULT), &result)
}

/// Whether the model of a cell stays, with its run file: the folder of the cell is then one that `onkos predict` and
/// `onkos attend` take.
pub(super) fn keeps_model(plan: &Plan, cell: &Cell) -> bool {
    cell.part == Part::Whole && plan.settings.seeds.first() == Some(&cell.seed)
}

/// The model file of a cell that keeps it.
pub(super) fn model(plan: &Plan, cell: &Cell) -> PathBuf {
    folder(plan, cell).join(run::MODEL)
}

/// Fits the scaling of expression anew on all patients of a target, as published code does.
pub(super) fn scale_by_target(predictor: &mut Predictor, target: &Cohort) -> Result<()> {
    if let (Some(genes), Some(rna)) = (&mut predictor.recipe.genes, &target.rna) {
        genes.scaler = genes.scaler.refit(rna, &(0..target.len()).collect::<Vec<_>>())?;
    }
    Ok(())
}

fn set_of(split: &Split, patient: usize) -> &'static str {
    sets(split).iter().find(|(_, set)| set.binary_search(&patient).is_ok()).map_or("none", |(set, _)| set)
}

fn risks_of(cohort: &Cohort) -> String {
    format!("risks-{}.csv", file_name(&cohort.name))
}

fn write_curves(path: &Path, history: &[EpochRecord]) -> Result<()> {
    write_file(path, |out| {
        history.iter().try_for_each(|record| writeln!(out, "{}", serde_json::to_string(record).expect("plain data")))
    })
}

/// Reads a finished cell.
///
/// # Errors
/// [`Error::Study`] for what was changed since the cell was looked at.
pub(super) fn read(plan: &Plan, cell: &Cell, result: CellResult) -> Result<Stored> {
    let folder = folder(plan, cell);
    let changed = |file: &str| Error::Study {
        path: folder.join(file),
        problems: vec!["it changed while it was read; run the study again".into()],
    };
    let text = fs::read_to_string(folder.join(CURVES)).map_err(Error::io(folder.join(CURVES)))?;
    let curve: Result<Vec<Epoch>, _> = text.lines().map(serde_json::from_str).collect();
    let curve = curve.map_err(|_| changed(CURVES))?;
    let mut risks = HashMap::new();
    for cohort in judged(plan, cell) {
        let file = risks_of(&plan.cohorts[cohort]);
        let rows = read_risks(&folder.join(&file), &plan.cohorts[cohort]).ok_or_else(|| changed(&file))?;
        risks.insert(cohort, rows);
    }
    Ok(Stored { result, curve, risks })
}

/// Set and risk of each patient of a cohort, in its order; `None` if the table is not of these patients.
fn read_risks(path: &Path, cohort: &Cohort) -> Option<Vec<(String, f64)>> {
    let mut table = csv::Reader::from_path(path).ok()?;
    let mut rows = Vec::with_capacity(cohort.len());
    for (record, patient) in table.records().zip(&cohort.patients) {
        let record = record.ok()?;
        if record.get(0)? != patient.case {
            return None;
        }
        rows.push((record.get(1)?.to_owned(), record.get(4)?.parse().ok()?));
    }
    (rows.len() == cohort.len()).then_some(rows)
}
