//! A small made-up study to try onkos on: two cohorts with one signal in common.
//!
//! Each patient has two hidden numbers, `a` and `b`, standard normal with correlation 1/2, and the hazard
//! `exp(a + b)`. Expression shows `a`: the genes of the signature `proliferation` rise with it, those of `immune` fall.
//! Slides show `b`: the share of patches of one tissue grows with it. Neither modality tells the other's whole part, so
//! using both pays. Between the cohorts every gene and every feature is shifted and stretched, and the times are of
//! another scale: what holds in both is the signal alone.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use half::f16;
use safetensors::Dtype;
use safetensors::tensor::{TensorView, serialize};

use super::atomic::write_file;
use super::dialect::TimeUnit;
use super::file::{ClinicalFile, CohortFile, RnaFile, SlidesFile};
use crate::error::{Error, Result};
use crate::rng::{Draws, Stream, name32};

/// Features of a patch.
const WIDTH: usize = 32;
/// Measured genes: seven in each signature, and four in none.
const GENES: usize = 60;
const SIGNATURES: [&str; 8] =
    ["proliferation", "immune", "hypoxia", "stroma", "metabolism", "adhesion", "repair", "signalling"];
const GENES_PER_SIGNATURE: usize = 7;
/// Patches of a bag: at least, and at most.
const PATCHES: [u32; 2] = [20, 120];
/// Kinds of tissue; the share of the first depends on the prognosis.
const TISSUES: u32 = 4;

/// A made-up study. The same numbers give the same files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyntheticStudy {
    /// The seed of everything in it.
    pub seed: u64,
    /// The patients of each cohort.
    pub patients: usize,
}

impl Default for SyntheticStudy {
    fn default() -> SyntheticStudy {
        SyntheticStudy { seed: 1, patients: 240 }
    }
}

impl SyntheticStudy {
    /// Writes the study into a folder, which is made if need be: `north.toml` and `south.toml`, the cohort files that
    /// are returned, and what they name.
    ///
    /// # Errors
    /// [`Error::Io`] if a file cannot be written.
    pub fn write(&self, folder: impl AsRef<Path>) -> Result<[PathBuf; 2]> {
        let folder = folder.as_ref();
        let genes: String = (0..GENES).map(|g| format!("{}\n", gene(g))).collect();
        let mut signatures = String::from("family,signature,gene\n");
        for g in 0..SIGNATURES.len() * GENES_PER_SIGNATURE {
            let _ = writeln!(signatures, "synthetic,{},{}", SIGNATURES[g / GENES_PER_SIGNATURE], gene(g));
        }
        for site in ["north", "south"] {
            let folder = folder.join(site);
            fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
        }
        text(&folder.join("genes.txt"), &genes)?;
        text(&folder.join("signatures.csv"), &signatures)?;
        Ok([self.write_cohort(folder, "north", 40.0)?, self.write_cohort(folder, "south", 25.0)?])
    }

    /// Writes one cohort, whose times are of the given scale in months.
    fn write_cohort(&self, folder: &Path, site: &str, months: f64) -> Result<PathBuf> {
        let patients: Vec<Patient> = (0..self.patients).map(|i| Patient::new(self.seed, site, i, months)).collect();
        let shift = Shift::new(self.seed, site);

        let mut clinical = String::from("case_id,months,died,age,sex\n");
        for p in &patients {
            let _ = writeln!(clinical, "{},{:.2},{},{},{}", p.case, p.time, u8::from(p.event), p.age, p.sex);
        }
        text(&folder.join(site).join("clinical.csv"), &clinical)?;

        let rna: Vec<f32> = patients.iter().flat_map(|p| p.expression(&shift)).collect();
        let rna = [("rna", Dtype::F32, vec![self.patients, GENES], bytemuck::cast_slice(&rna))];
        self.tensors(&folder.join(site).join("rna.safetensors"), &rna)?;

        let (mut features, mut coords, mut offsets) = (Vec::<f16>::new(), Vec::<i32>::new(), vec![0i64]);
        let tissues = tissues(self.seed);
        for p in &patients {
            p.bag(&tissues, &shift, &mut features, &mut coords);
            offsets.push((features.len() / WIDTH) as i64);
        }
        let rows = features.len() / WIDTH;
        let bags = [
            ("features", Dtype::F16, vec![rows, WIDTH], bytemuck::cast_slice(&features)),
            ("coords", Dtype::I32, vec![rows, 2], bytemuck::cast_slice(&coords)),
            ("offsets", Dtype::I64, vec![offsets.len()], bytemuck::cast_slice(&offsets)),
        ];
        self.tensors(&folder.join(site).join("bags.safetensors"), &bags)?;

        let cohort = CohortFile {
            name: site.into(),
            clinical: ClinicalFile {
                file: Path::new(site).join("clinical.csv"),
                case: Some("case_id".into()),
                time: Some("months".into()),
                time_unit: Some(TimeUnit::Months),
                event: Some("died".into()),
                covariates: vec!["age".into(), "sex".into()],
                ..ClinicalFile::default()
            },
            rna: Some(RnaFile {
                file: Path::new(site).join("rna.safetensors"),
                tensor: Some("rna".into()),
                genes: Some("genes.txt".into()),
                clip: Some([-6.0, 6.0]),
                signatures: Some("signatures.csv".into()),
                family: Some("synthetic".into()),
                ..RnaFile::default()
            }),
            slides: Some(SlidesFile { file: Some(Path::new(site).join("bags.safetensors")), ..SlidesFile::default() }),
        };
        let path = folder.join(format!("{site}.toml"));
        let toml = toml::to_string(&cohort).expect("a cohort file is plain tables of texts and numbers");
        text(&path, &format!("# Made up by onkos from seed {}: no real patients.\n{toml}", self.seed))?;
        Ok(path)
    }

    fn tensors(&self, path: &Path, tensors: &[(&str, Dtype, Vec<usize>, &[u8])]) -> Result<()> {
        let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
            let view = TensorView::new(*dtype, shape.clone(), bytes);
            (*name, view.expect("a tensor has as many bytes as its shape says"))
        });
        let kind = HashMap::from([("onkos.synthetic".to_owned(), format!("seed {}", self.seed))]);
        let bytes = serialize(views, Some(kind)).expect("names and shapes are serialisable");
        write_file(path, |w| w.write_all(&bytes))
    }
}

fn text(path: &Path, contents: &str) -> Result<()> {
    write_file(path, |w| w.write_all(contents.as_bytes()))
}

fn gene(g: usize) -> String {
    format!("GENE{:02}", g + 1)
}

/// The mean features of each tissue, the same in both cohorts and far apart against the noise of a patch.
fn tissues(seed: u64) -> Vec<Vec<f64>> {
    let draws = Draws::new(seed, 0, "synthetic.tissue");
    (0..TISSUES).map(|t| (0..WIDTH as u64).map(|l| 0.5 * draws.of(t).normal(l)).collect()).collect()
}

/// What makes the cohorts differ: `x * (1 + stretch) + shift`, for each gene and each feature.
struct Shift {
    genes: Vec<[f64; 2]>,
    features: Vec<[f64; 2]>,
}

impl Shift {
    fn new(seed: u64, site: &str) -> Shift {
        let draw = |purpose, n: usize, shift: f64| {
            let stream = Draws::new(seed, 0, purpose).of(name32(site));
            (0..n as u64).map(|i| [1.0 + 0.2 * stream.uniform(2 * i), shift * stream.normal(n as u64 + i)]).collect()
        };
        Shift {
            genes: draw("synthetic.shift.genes", GENES, 0.5),
            features: draw("synthetic.shift.features", WIDTH, 0.3),
        }
    }
}

struct Patient {
    case: String,
    /// Part of the log-hazard, seen in expression.
    a: f64,
    /// Part of the log-hazard, seen in slides.
    b: f64,
    time: f64,
    event: bool,
    age: u32,
    sex: char,
    seed: u64,
}

impl Patient {
    fn new(seed: u64, site: &str, index: usize, months: f64) -> Patient {
        let case = format!("{}-{:04}", site.to_uppercase(), index + 1);
        let stream = Draws::new(seed, 0, "synthetic.patient").of(name32(&case));
        let a = stream.normal(0);
        let b = 0.5 * a + 0.75f64.sqrt() * stream.normal(1);
        // Words from 8 on: the normals took 0 to 3. 1 - u is above 0, so its logarithm is finite.
        let exponential = |word| -(1.0 - stream.uniform(word)).ln();
        let death = months * exponential(8) / (a + b).exp();
        let censoring = 2.0 * months * stream.uniform(9) + 3.0;
        // Two decimals stand in the table; a time of 0.00 would be none.
        let time = death.min(censoring).max(0.01);
        let sex = if stream.below(11, 2) == 0 { 'F' } else { 'M' };
        Patient { case, a, b, time, event: death <= censoring, age: 40 + stream.below(10, 45), sex, seed }
    }

    fn stream(&self, purpose: &str) -> Stream {
        Draws::new(self.seed, 0, purpose).of(name32(&self.case))
    }

    /// One value a gene: what the genes of its signature have in common, and its own noise.
    fn expression(&self, shift: &Shift) -> Vec<f32> {
        let (common, own) = (self.stream("synthetic.signature"), self.stream("synthetic.gene"));
        let value = |g: usize| {
            let factor = match g / GENES_PER_SIGNATURE {
                0 => self.a,
                1 => -self.a,
                signature if signature < SIGNATURES.len() => common.normal(signature as u64),
                _ => 0.0,
            };
            let [stretch, offset] = shift.genes[g];
            ((0.7 * factor + 0.7 * own.normal(g as u64)) * stretch + offset) as f32
        };
        (0..GENES).map(value).collect()
    }

    /// Patches in a square grid, each of some tissue.
    fn bag(&self, tissues: &[Vec<f64>], shift: &Shift, features: &mut Vec<f16>, coords: &mut Vec<i32>) {
        let (kind, noise) = (self.stream("synthetic.bag"), self.stream("synthetic.patch"));
        let patches = PATCHES[0] + kind.below(0, PATCHES[1] - PATCHES[0] + 1);
        let side = f64::from(patches).sqrt().ceil() as u32;
        let share = 1.0 / (1.0 + (1.0 - 1.2 * self.b).exp());
        for patch in 0..patches {
            let word = 1 + 2 * u64::from(patch);
            let telling = kind.uniform(word) < share;
            let tissue = if telling { 0 } else { 1 + kind.below(word + 1, TISSUES - 1) };
            for l in 0..WIDTH {
                let [stretch, offset] = shift.features[l];
                let x = tissues[tissue as usize][l] + 0.7 * noise.normal(u64::from(patch) * WIDTH as u64 + l as u64);
                features.push(f16::from_f64(x * stretch + offset));
            }
            coords.extend([256 * (patch % side) as i32, 256 * (patch / side) as i32]);
        }
    }
}
