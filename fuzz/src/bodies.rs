//! What is done with an input: it is written where the program would find such a file, opened as the program opens it, and
//! read to the end. A body panics if the reader breaks a promise; to refuse a file is none.
//!
//! Inputs of targets with several kinds of files start with a byte that chooses one, by its remainder: the digits and
//! letters from `0` on stand for the entries of the tables below, in their order.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use onkos::data::{Cohort, FeatureFile, Patient, Split, check, inspect, verify};
use onkos::model::Predictor;
use onkos::{Error, run};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// A target: its name, which is that of its folder of kept inputs, and its body.
pub type Target = (&'static str, fn(&Scratch, &[u8]));

/// All targets.
#[allow(dead_code)]
pub const TARGETS: [Target; 8] = [
    ("h5", h5),
    ("pt", pt),
    ("npy", npy),
    ("safetensors", safetensors),
    ("csv", csv),
    ("split", split),
    ("toml", toml),
    ("packed", packed),
];

const CLINICAL: &str =
    "case,months,died,age,sex,site,slide\nA,1.5,1,60,F,x,a1\nB,2,0,61.5,M,,b\nC,30,1.0,59,male,y,c\n";
const RNA: &str = "case,TP53,EGFR\nA,0.5,1\nB,-1,0\nC,9,2\n";
const PLAIN: &str = "file = \"clinical.csv\"\ncase = \"case\"\ntime = \"months\"\nevent = \"died\"";

/// A folder with a sound cohort of three patients, in which one file after another is replaced by the input.
pub struct Scratch {
    folder: TempDir,
    patients: OnceLock<Vec<Patient>>,
}

impl Default for Scratch {
    fn default() -> Scratch {
        Scratch::new()
    }
}

impl Scratch {
    /// In memory where the system has such a folder.
    pub fn new() -> Scratch {
        let memory = Path::new("/dev/shm");
        let builder = tempfile::Builder::new();
        let folder = builder.tempdir_in(memory).or_else(|_| builder.tempdir()).expect("a temporary folder");
        let scratch = Scratch { folder, patients: OnceLock::new() };
        scratch.write("clinical.csv", CLINICAL.as_bytes());
        scratch.write("rna.csv", RNA.as_bytes());
        scratch.write("genes.txt", b"TP53\nEGFR\n");
        scratch.write("signatures.csv", b"family,signature,gene\nh,S,EGFR\n");
        // A table of slides of the patients.
        scratch.write("slides.csv", b"case,slide\nA,a1\nB,b\nC,c\n");
        for folder in ["dir", "split", "store"] {
            fs::create_dir(scratch.path(folder)).expect("a folder in it");
        }
        for slide in ["a1", "b", "c"] {
            scratch.write(&format!("dir/{slide}.safetensors"), &tensors(2));
        }
        scratch.write("store/shard-000.safetensors", &tensors(6));
        scratch
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, bytes).expect("room for a file");
        path
    }

    /// Opens the cohort that a cohort file describes, twice: the list of problems and the cohort must be of one mind.
    fn cohort(&self, text: &str) {
        let file = self.write("cohort.toml", text.as_bytes());
        let report = check(&file);
        match Cohort::open(&file) {
            Ok(cohort) => {
                assert!(report.sound, "a cohort opens that the check refuses: {:?}", report.problems);
                assert!(cohort.times().iter().all(|time| time.is_finite() && *time > 0.0), "{:?}", cohort.times());
                if let Some(rna) = &cohort.rna {
                    (0..cohort.len()).for_each(|p| assert_eq!(rna.row(p).len(), rna.genes.len()));
                }
                if let Some(bags) = &cohort.slides {
                    let all: Vec<usize> = (0..cohort.len()).collect();
                    let (rows, ragged) = bags.gather(&all).expect("rows that were looked at");
                    assert_eq!(rows.rows(), ragged.rows());
                }
            }
            Err(error) => {
                assert!(!report.sound, "the check passes a cohort that does not open: {error}");
                assert!(matches!(error, Error::Data(_)), "{error:?}");
                assert!(!error.to_string().is_empty());
            }
        }
    }

    /// The patients of the sound cohort.
    fn patients(&self) -> &[Patient] {
        self.patients.get_or_init(|| {
            let text = format!("name = \"x\"\n[clinical]\n{PLAIN}\nslides = \"slide\"\n");
            Cohort::open(self.write("cohort.toml", text.as_bytes())).expect("a sound cohort").patients
        })
    }
}

/// A safetensors file of rows of three features.
fn tensors(rows: usize) -> Vec<u8> {
    let bytes = rows * 3 * 4;
    let header = format!(r#"{{"features":{{"dtype":"F32","shape":[{rows},3],"data_offsets":[0,{bytes}]}}}}"#);
    let values = (0..rows * 3).flat_map(|i| (i as f32).to_le_bytes());
    (header.len() as u64).to_le_bytes().into_iter().chain(header.into_bytes()).chain(values).collect()
}

/// The first byte, which chooses, and the rest.
fn choice(bytes: &[u8], of: usize) -> Option<(usize, &[u8])> {
    let (first, rest) = bytes.split_first()?;
    Some((usize::from(first.wrapping_sub(b'0')) % of, rest))
}

/// Opens a file of features and reads all of it.
fn features(scratch: &Scratch, bytes: &[u8]) {
    /// DEFLATE makes a byte at most so many.
    const MOST: usize = 1032;
    const BLOCK: usize = 16 << 20;
    let path = scratch.write("slide", bytes);
    let sentence = |error: &Error| {
        let text = error.to_string();
        assert!(matches!(error, Error::Data(_)) && text.contains("slide") && text.lines().count() == 1, "{text}");
    };
    let file = match FeatureFile::open(&path) {
        Ok(file) => file,
        Err(error) => {
            sentence(&error);
            assert!(!inspect(&path).is_read() || std::str::from_utf8(bytes).is_ok());
            return;
        }
    };
    let (rows, row_bytes) = (file.rows(), file.row_bytes());
    let all = rows.checked_mul(row_bytes).expect("a size that can be counted");
    assert!(all <= MOST * bytes.len(), "{rows} rows of {row_bytes} bytes out of {}", bytes.len());
    let step = (BLOCK / row_bytes.max(1)).max(1);
    let mut block = vec![0; step.min(rows) * row_bytes];
    let mut whole = true;
    for first in (0..rows).step_by(step) {
        let some = first..(first + step).min(rows);
        let to = &mut block[..some.len() * row_bytes];
        if let Err(error) = file.read_rows(some.clone(), to) {
            sentence(&error);
            whole = false;
            break;
        }
        // The last row alone is the last row of the block.
        let mut alone = vec![0; row_bytes];
        file.read_rows(some.end - 1..some.end, &mut alone).expect("a row that was read");
        assert!(to.ends_with(&alone), "rows differ when they are read alone");
    }
    match file.statistics() {
        Ok(found) => assert!(whole && found.nan_rows <= rows && found.zero_rows <= rows),
        Err(error) => sentence(&error),
    }
    if let Some(coords) = file.coords() {
        match coords.range() {
            Ok(range) => assert_eq!(range.is_some(), rows > 0),
            Err(error) => sentence(&error),
        }
    }
    let _ = inspect(&path);
}

/// HDF5 of all tools.
pub fn h5(scratch: &Scratch, bytes: &[u8]) {
    features(scratch, bytes);
}

/// `.pt`: archives with a pickle.
pub fn pt(scratch: &Scratch, bytes: &[u8]) {
    features(scratch, bytes);
}

/// npy and npz.
pub fn npy(scratch: &Scratch, bytes: &[u8]) {
    features(scratch, bytes);
}

/// safetensors: one slide; packed bags; expression; a model; a model whose sum was made to fit.
pub fn safetensors(scratch: &Scratch, bytes: &[u8]) {
    let Some((kind, bytes)) = choice(bytes, 5) else { return };
    match kind {
        0 => features(scratch, bytes),
        1 => {
            scratch.write("bags.safetensors", bytes);
            scratch.cohort(&format!("name = \"x\"\n[clinical]\n{PLAIN}\n[slides]\nfile = \"bags.safetensors\"\n"));
        }
        2 => {
            scratch.write("rna.safetensors", bytes);
            scratch.cohort(&format!(
                "name = \"x\"\n[clinical]\n{PLAIN}\n[rna]\nfile = \"rna.safetensors\"\ngenes = \"genes.txt\"\nmissing = \"keep\"\n"
            ));
        }
        3 => model(&scratch.write("model", bytes)),
        _ => {
            let forged = forged(bytes);
            model(&scratch.write("model", forged.as_deref().unwrap_or(bytes)));
        }
    }
}

/// Loads a model file; what is loaded is written as it was read.
fn model(path: &Path) {
    match Predictor::load(path) {
        Ok(predictor) => {
            let again = path.with_extension("again");
            predictor.save(&again).expect("a model that was read can be written");
            Predictor::load(&again).expect("a model that was written can be read");
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// A model file with the sum that belongs to what is in it, as one writes it who knows how.
fn forged(bytes: &[u8]) -> Option<Vec<u8>> {
    let length = usize::try_from(u64::from_le_bytes(*bytes.first_chunk()?)).ok()?;
    let header = bytes.get(8..)?.get(..length)?;
    let payload = &bytes[8 + length..];
    let mut header: Value = serde_json::from_slice(header).ok()?;
    let mut sum = Sha256::new();
    sum.update(header.get("__metadata__")?.get("onkos.recipe")?.as_str()?);
    for (name, entry) in header.as_object()?.iter().filter(|(name, _)| *name != "__metadata__") {
        let shape: Vec<u64> = serde_json::from_value(entry.get("shape")?.clone()).ok()?;
        let [from, to]: [usize; 2] = serde_json::from_value(entry.get("data_offsets")?.clone()).ok()?;
        sum.update(format!("\0{name} {shape:?}\0"));
        sum.update(payload.get(from..to)?);
    }
    let sum: String = sum.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    header["__metadata__"]["onkos.checksum"] = Value::String(sum);
    let header = serde_json::to_vec(&header).ok()?;
    Some([&(header.len() as u64).to_le_bytes()[..], &header, payload].concat())
}

/// The clinical tables: sections below `[clinical]`.
const TABLES: [&str; 12] = [
    "case = \"case\"\ntime = \"months\"\nevent = \"died\"\nslides = \"slide\"\ncovariates = [\"age\", \"sex\"]\nstrata = \"site\"",
    "preset = \"mcat\"\nmissing = \"drop\"\ntime_zero = \"drop\"",
    "preset = \"survpath\"\nmissing = \"drop\"\ntime_zero = \"smallest\"",
    "preset = \"mmp\"\nmissing = \"drop\"\ntime_zero = \"drop\"",
    "preset = \"tcga-cdr\"\nendpoint = \"pfi\"\nmissing = \"drop\"",
    "preset = \"xena\"\nmissing = \"drop\"\ntime_zero = \"smallest\"",
    "preset = \"cbioportal\"\nmissing = \"drop\"\nconvert_to = \"days\"",
    "preset = \"gdc\"\nmissing = \"drop\"\ntime_zero = \"drop\"",
    "preset = \"stamp\"\ntime = \"t\"\nevent = \"e\"\nmissing = \"drop\"",
    "preset = \"porpoise\"",
    "preset = \"panther\"\nendpoint = \"dss\"",
    "case = \"case\"\ntime = \"t\"\ntime_unit = \"months\"\nconvert_to = \"years\"\ntime_censored = \"u\"\nevent = \"e\"\n\
     event_values = [\"dead\"]\ncensored_values = [\"alive\"]\nrepeats = true\nredaction = \"r\"",
];

/// Other tables of a cohort: the file and the sections that name it.
const OTHERS: [(&str, &str); 8] = [
    ("table", "[rna]\nfile = \"table\"\n"),
    ("table", "[rna]\nfile = \"table\"\nsuffix = \"_rnaseq\"\ncase = \"case_id\"\nmissing = \"drop\"\n"),
    ("table", "[rna]\nfile = \"table\"\ncase = \"case\"\ngene = \"gene\"\nvalue = \"value\"\nmissing = \"keep\"\n"),
    ("table", "[rna]\nfile = \"table\"\nsample = \"01\"\nmissing = \"drop\"\nclip = [-6.0, 6.0]\n"),
    ("table", "[rna]\nfile = \"rna.csv\"\nsignatures = \"table\"\n"),
    ("table", "[rna]\nfile = \"rna.csv\"\nsignatures = \"table\"\nfamily = \"h\"\n"),
    (
        "table",
        "[slides]\ndir = \"dir\"\nper_patient = \"first\"\n[slides.table]\nfile = \"table\"\ncase = \"case\"\nslide = \"slide\"\n",
    ),
    (
        "table",
        "[slides]\ndir = \"dir\"\nmissing = \"drop\"\nper_patient = \"largest\"\n[slides.table]\nfile = \"table\"\ncase = \"case\"\nslide = \"slide\"\n",
    ),
];

/// Clinical tables of every preset, tables of expression, signatures and slides.
pub fn csv(scratch: &Scratch, bytes: &[u8]) {
    let Some((kind, bytes)) = choice(bytes, TABLES.len() + OTHERS.len()) else { return };
    table(scratch, kind, bytes);
}

fn table(scratch: &Scratch, kind: usize, bytes: &[u8]) {
    match TABLES.get(kind) {
        Some(section) => {
            scratch.write("table", bytes);
            scratch.cohort(&format!("name = \"x\"\n[clinical]\nfile = \"table\"\n{section}\n"));
        }
        None => {
            let (name, sections) = OTHERS[kind - TABLES.len()];
            scratch.write(name, bytes);
            scratch.cohort(&format!("name = \"x\"\n[clinical]\n{PLAIN}\n{sections}"));
        }
    }
}

/// Files that say who is trained on: a table, JSON, the folds of Patho-Bench, and a folder of sets.
pub fn split(scratch: &Scratch, bytes: &[u8]) {
    const FILES: [(&str, &str); 4] =
        [("split.csv", ""), ("split.json", ""), ("k=all.tsv", ""), ("split/train.csv", "split")];
    let Some((kind, bytes)) = choice(bytes, FILES.len()) else { return };
    let patients = scratch.patients();
    let (name, folder) = FILES[kind];
    let file = scratch.write(name, bytes);
    if !folder.is_empty() {
        scratch.write("split/val.csv", b"case_id\nC\n");
    }
    let path = if folder.is_empty() { file } else { scratch.path(folder) };
    for fold in [0, 1] {
        match Split::read(&path, fold, patients) {
            Ok(split) => {
                let mut all = [split.train, split.validation, split.test].concat();
                assert!(all.iter().all(|&patient| patient < patients.len()));
                all.sort_unstable();
                all.dedup();
                assert!(!all.is_empty());
            }
            Err(error) => assert!(matches!(error, Error::Data(_)), "{error:?}"),
        }
    }
}

/// Cohort files, run files, and the index of a store.
pub fn toml(scratch: &Scratch, bytes: &[u8]) {
    let Some((kind, bytes)) = choice(bytes, 3) else { return };
    match kind {
        0 => {
            // A cohort file may name any file; none but those of the folder is to be read here.
            if bytes.windows(2).any(|pair| pair == b"..") || bytes.windows(2).any(|pair| pair == b"\"/") {
                return;
            }
            if let Ok(text) = std::str::from_utf8(bytes) {
                scratch.cohort(text);
            } else {
                assert!(Cohort::open(scratch.write("cohort.toml", bytes)).is_err());
            }
        }
        1 => match run::read_config(&scratch.write("run.toml", bytes))
            .and_then(|config| config.check().map(|()| config))
        {
            Ok(config) => assert!(config.train.epochs > 0),
            Err(error) => assert!(!error.to_string().is_empty()),
        },
        _ => {
            scratch.write("store/store.json", bytes);
            scratch.cohort(&format!(
                "name = \"x\"\n[clinical]\n{PLAIN}\nslides = \"slide\"\n[slides]\nstore = \"store\"\nmissing = \"drop\"\n"
            ));
            let text = format!("name = \"x\"\n[clinical]\n{PLAIN}\nslides = \"slide\"\n[slides]\ndir = \"dir\"\n");
            let whole = Cohort::open(scratch.write("cohort.toml", text.as_bytes())).expect("a sound cohort");
            if let Err(error) = verify(&whole, &scratch.path("store"), &|_, _| {}) {
                assert!(!error.to_string().is_empty());
            }
        }
    }
}

/// Tables in ZIP or gzip, and splits in them.
pub fn packed(scratch: &Scratch, bytes: &[u8]) {
    let Some((kind, bytes)) = choice(bytes, 4) else { return };
    match kind {
        0 => table(scratch, 0, bytes),
        1 => table(scratch, TABLES.len(), bytes),
        2 => {
            scratch.write("table", bytes);
            let _ = inspect(scratch.path("table"));
        }
        _ => {
            if let Ok(split) = Split::read(&scratch.write("split.csv", bytes), 0, scratch.patients()) {
                assert!(!split.train.is_empty());
            }
        }
    }
}
