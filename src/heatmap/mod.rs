//! Heat maps: where on a slide a model looked when it gave a patient's risk.
//!
//! Three things are told here that are easily confused.
//!
//! - **Places** are pixels of level 0 of the slide, its largest level, and name the upper left corner of a patch, unless
//!   `unit` says something else: what a file gives in micrometres is written as micrometres.
//! - **Weights** are those of the head that was asked for, or the mean of all heads. There is no class: a model has one
//!   attention, whatever it predicts.
//! - **One pass** gives the risk and the weights, by the code that `onkos predict` runs, in evaluation: nothing is masked or
//!   dropped.
//!
//! Weights are a patient's: they sum to one over all slides of the patient together. The share of a slide is the sum of its
//! own. Where gene tokens say what is looked at, a weight is the mean over those of the patient (`survpath`, `mcat`), or the
//! part of the transport plan that a patch has (`motcat`), as the model has it: in `survpath` gene tokens attend to gene tokens
//! and to patches together, so that patches have what the former leave, and sum to less than one; and a patient without
//! expression has no gene tokens, so that all weights are 0.
//!
//! Weights are after the softmax, and say nothing about better or worse, only about how much a patch counted.
//!
//! The percentile of a patch is within its slide, by the mean rank of ties: `100 (less + (same + 1) / 2) / n` for `less`
//! patches with a smaller weight and `same` with this one, itself included. The highest of many is 100; all alike are in the
//! middle.

mod choose;
mod colour;
mod geojson;
mod ground;
mod image;
mod rank;
mod table;

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::Serialize;

pub use choose::{Chosen, choose};
pub use colour::colour;
pub use ground::{Ground, Side, Units};
pub use image::Picture;
pub use rank::percentiles;

use crate::data::{Cohort, CoordUnit, DataKind, DataSet, RunDir, write_file, write_hdf5};
use crate::error::{Error, Result};
use crate::model::{Attended, Batching};
use crate::run::{Run, file_name, write_json};

/// The file that says what is in a folder of heat maps.
pub const INDEX: &str = "attention.json";

/// A format of heat maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One row a patch.
    Csv,
    /// HDF5 as CLAM writes its heat maps: `attention_scores` and `coords`.
    H5,
    /// Squares for QuPath.
    Geojson,
    /// An image, a block of pixels a patch.
    Png,
}

impl Format {
    /// All formats.
    pub const ALL: [Format; 4] = [Format::Csv, Format::H5, Format::Geojson, Format::Png];

    /// The name, which is how files of it end.
    pub fn name(self) -> &'static str {
        match self {
            Format::Csv => "csv",
            Format::H5 => "h5",
            Format::Geojson => "geojson",
            Format::Png => "png",
        }
    }
}

/// Which attention is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// The mean of all heads.
    Mean,
    /// One head, from 1.
    One(usize),
}

impl FromStr for Head {
    type Err = String;

    fn from_str(text: &str) -> Result<Head, String> {
        match (text, text.parse()) {
            ("mean", _) => Ok(Head::Mean),
            (_, Ok(head)) if head > 0 => Ok(Head::One(head)),
            _ => Err("must be mean or the number of a head, from 1".into()),
        }
    }
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Head::Mean => f.write_str("mean"),
            Head::One(head) => write!(f, "{head}"),
        }
    }
}

/// What to write, and how to read places that a file says too little of.
#[derive(Clone, Debug)]
pub struct Options {
    /// The formats; those that a slide cannot have are left out, and told.
    pub formats: Vec<Format>,
    /// Which attention.
    pub head: Head,
    /// What places and sides are measured in.
    pub units: Units,
    /// Whether files that are there may be replaced.
    pub force: bool,
}

/// What is in a folder of heat maps, as `attention.json` says it.
#[derive(Clone, Debug, Serialize)]
pub struct Index {
    /// The run folder.
    pub run: PathBuf,
    /// The cohort.
    pub cohort: String,
    /// Which attention is shown: `mean`, or the number of a head.
    pub head: String,
    /// Attention heads of the model.
    pub heads: usize,
    /// The slides, in the order of the cohort.
    pub slides: Vec<Map>,
}

/// What was written of a slide.
#[derive(Clone, Debug, Serialize)]
pub struct Map {
    /// The patient.
    pub case: String,
    /// The slide; the case where a bag is not told apart by slides.
    pub slide: String,
    /// The risk of the patient, higher for worse.
    pub risk: f64,
    /// `high` above the median risk of the training patients, else `low`.
    pub group: &'static str,
    /// Patches of the slide.
    pub patches: usize,
    /// Patches of all slides of the patient.
    pub patches_of_case: usize,
    /// The part of the patient's attention that lies on this slide: the sum of its weights.
    pub share: f64,
    /// What places are measured in; none without places.
    pub unit: Option<CoordUnit>,
    /// The side of a patch in that unit.
    pub patch_size: Option<f64>,
    /// How the side is known.
    pub patch_size_from: Option<Side>,
    /// How the image lies on the slide.
    pub png: Option<Picture>,
    /// The files, beside this one.
    pub files: Vec<String>,
    /// Why there are not more, in sentences.
    pub refused: Vec<String>,
}

/// What is known of a slide before anything is calculated.
struct Plan<'a> {
    chosen: Chosen,
    slide: crate::data::Slide<'a>,
    ground: Ground,
    name: String,
}

/// Calculates the attention of slides and writes it into a folder, which appears when it is complete; with `force`, a folder
/// that is there keeps what else is in it. `told` hears of patches done and of all.
///
/// # Errors
/// [`Error::Exists`]; [`Error::NoMap`] if no slide can have any of the formats; [`Error::NoHead`]; what
/// [`Predictor::attend`](crate::model::Predictor::attend) refuses, and files that cannot be read or written.
///
/// # Panics
/// If the cohort has not a slide that was chosen.
pub fn attend(
    run: &Run,
    cohort: &Cohort,
    chosen: &[Chosen],
    options: &Options,
    out: &Path,
    told: &dyn Fn(usize, usize),
) -> Result<Index> {
    let folder = Folder::open(out, options.force)?;
    let Some(bags) = &cohort.slides else {
        let (who, advice) = (format!("cohort {}", cohort.name), "add [slides] to its cohort file");
        return Err(Error::NoAttention { who, advice });
    };
    let plans = plan(cohort, chosen, options)?;
    let mut patients: Vec<usize> = plans.iter().map(|plan| plan.chosen.patient).collect();
    patients.sort_unstable();
    patients.dedup();
    bags.look_through(&patients)?;
    let total = patients.iter().map(|&p| bags.ragged().bag(p).len()).sum();
    let median = run.predictor.recipe.median_risk;
    let mut index = Index {
        run: run.path.clone(),
        cohort: cohort.name.clone(),
        head: options.head.to_string(),
        heads: 0,
        slides: Vec::new(),
    };
    let mut done = 0;
    told(done, total);
    run.predictor.attend(
        cohort,
        &patients,
        Batching { patients: run.config.train.batch, patches: run.config.train.patches_per_batch },
        |attended| {
            if let Head::One(head) = options.head
                && head > attended.heads
            {
                return Err(Error::NoHead { head, heads: attended.heads });
            }
            index.heads = attended.heads;
            for plan in plans.iter().filter(|plan| plan.chosen.patient == attended.patient) {
                let map = draw(plan, cohort, &attended, options, folder.path(), median)?;
                index.slides.push(map);
            }
            done += bags.ragged().bag(attended.patient).len();
            told(done, total);
            Ok(())
        },
    )?;
    write_json(&folder.path().join(INDEX), &index)?;
    folder.finish()?;
    Ok(index)
}

/// Looks at the places of all slides, and refuses if nothing can be written.
fn plan<'a>(cohort: &'a Cohort, chosen: &[Chosen], options: &Options) -> Result<Vec<Plan<'a>>> {
    let mut names = Names::default();
    let (mut plans, mut why, mut some) = (Vec::new(), Vec::new(), false);
    for &chosen in chosen {
        let Some(bags) = &cohort.slides else { continue };
        let slide = bags.slides(chosen.patient).swap_remove(chosen.slide);
        let ground = Ground::of(&slide, options.units)?;
        some |= options.formats.iter().any(|&format| ground.refusal(format).is_none());
        why.extend(ground.refusals(&options.formats).into_iter().map(|why| format!("{}: {why}", slide.name())));
        let name = names.of(slide.name());
        plans.push(Plan { chosen, slide, ground, name });
    }
    if some { Ok(plans) } else { Err(Error::NoMap { why }) }
}

/// Names of files, no two alike on any file system.
#[derive(Default)]
struct Names {
    taken: BTreeSet<String>,
    next: HashMap<String, usize>,
}

impl Names {
    fn of(&mut self, slide: &str) -> String {
        let base = file_name(slide);
        let mut name = base.clone();
        while !self.taken.insert(name.to_lowercase()) {
            let next = self.next.entry(base.clone()).or_insert(1);
            *next += 1;
            name = format!("{base}_{next}");
        }
        name
    }
}

/// Writes the files of a slide.
fn draw(
    plan: &Plan<'_>,
    cohort: &Cohort,
    attended: &Attended,
    options: &Options,
    folder: &Path,
    median: f64,
) -> Result<Map> {
    let Plan { slide, ground, name, .. } = plan;
    let (heads, rows) = (attended.heads, slide.rows());
    let of_heads = &attended.weights[rows.start * heads..rows.end * heads];
    let weights: Vec<f32> = of_heads
        .chunks(heads)
        .map(|weights| match options.head {
            Head::Mean => (weights.iter().map(|&w| f64::from(w)).sum::<f64>() / heads as f64) as f32,
            Head::One(head) => weights[head - 1],
        })
        .collect();
    let drawn = Drawn { ground, of_heads, heads, percentiles: percentiles(&weights), weights };
    let (mut files, mut png) = (Vec::new(), None);
    for &format in options.formats.iter().filter(|&&format| ground.refusal(format).is_none()) {
        let file = format!("{name}.{}", format.name());
        let path = folder.join(&file);
        match format {
            Format::Csv => table::write(&path, &drawn)?,
            Format::H5 => write_clam(&path, &drawn)?,
            Format::Geojson => geojson::write(&path, &drawn)?,
            Format::Png => png = Some(image::write(&path, &drawn)?),
        }
        files.push(file);
    }
    Ok(Map {
        case: cohort.patients[attended.patient].case.clone(),
        slide: slide.name().into(),
        risk: attended.risk,
        group: if attended.risk > median { "high" } else { "low" },
        patches: rows.len(),
        patches_of_case: attended.weights.len() / heads,
        share: drawn.weights.iter().map(|&w| f64::from(w)).sum(),
        unit: ground.unit(),
        patch_size: ground.side().map(|(side, _)| side),
        patch_size_from: ground.side().map(|(_, from)| from),
        png,
        files,
        refused: ground.refusals(&options.formats),
    })
}

/// The attention of a slide, ready to be written.
struct Drawn<'a> {
    ground: &'a Ground,
    /// `[rows, heads]`.
    of_heads: &'a [f32],
    heads: usize,
    /// Of the head that is shown, one a row.
    weights: Vec<f32>,
    percentiles: Vec<f64>,
}

/// The layout that CLAM reads its heat maps from: `attention_scores` `[rows, 1]` and `coords` `[rows, 2]`. Its own scores are
/// those before the softmax; the order of the patches is the same.
fn write_clam(path: &Path, drawn: &Drawn<'_>) -> Result<()> {
    let rows = drawn.weights.len() as u64;
    let places: Vec<f64> = drawn.ground.places().iter().flatten().copied().collect();
    let whole: Option<Vec<i64>> = places.iter().map(|&x| (x.fract() == 0.0).then_some(x as i64)).collect();
    let (kind, bytes): (DataKind, &[u8]) = match &whole {
        Some(whole) => (DataKind::I64, bytemuck::cast_slice(whole)),
        None => (DataKind::F64, bytemuck::cast_slice(&places)),
    };
    let scores = bytemuck::cast_slice(&drawn.weights);
    let sets = [
        DataSet { name: "attention_scores", shape: &[rows, 1], kind: DataKind::F32, bytes: scores },
        DataSet { name: "coords", shape: &[rows, 2], kind, bytes },
    ];
    write_file(path, |out| write_hdf5(out, &sets))
}

/// Where heat maps are written.
enum Folder {
    /// A new folder, which appears when it is complete.
    New(RunDir),
    /// One that is there, whose files are replaced one by one.
    There(PathBuf),
}

impl Folder {
    fn open(out: &Path, force: bool) -> Result<Folder> {
        // A link to a folder is as good as a folder here: what is in it is replaced, not the link.
        if force && std::fs::metadata(out).is_ok_and(|there| there.is_dir()) {
            return Ok(Folder::There(out.into()));
        }
        RunDir::create(out).map(Folder::New)
    }

    fn path(&self) -> &Path {
        match self {
            Folder::New(folder) => folder.path(),
            Folder::There(path) => path,
        }
    }

    fn finish(self) -> Result<()> {
        match self {
            Folder::New(folder) => folder.finish().map(|_| ()),
            Folder::There(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slides_whose_names_differ_in_case_or_in_signs_get_files_of_their_own() {
        let mut names = Names::default();
        let given = ["a/b", "a b", "A_B", "a_b_2", "c"].map(|slide| names.of(slide));
        assert_eq!(given.iter().map(|name| name.to_lowercase()).collect::<BTreeSet<_>>().len(), 5, "{given:?}");
        assert_eq!(given[0], "a_b");
    }

    #[test]
    fn a_head_is_mean_or_a_number_from_1() {
        assert_eq!(("mean".parse(), "2".parse()), (Ok(Head::Mean), Ok(Head::One(2))));
        for wrong in ["0", "-1", "max", ""] {
            assert!(wrong.parse::<Head>().is_err(), "{wrong}");
        }
    }
}
