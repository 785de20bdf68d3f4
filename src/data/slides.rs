//! The section `[slides]`: where the bags of each patient lie.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::bags::{Bags, Piece};
use super::bytes::Reading;
use super::clinical::{Clinical, Patient};
use super::features::FeatureFile;
use super::file::SlidesFile;
use super::problem::{Problem, Problems};
use super::store::{Store, StoreIndex};
use super::tensors::TensorFile;
use crate::error::said;
use crate::features::FeatureType;

/// What was found: the bags (empty for a patient without slides) and the files they lie in.
pub(crate) struct Slides {
    pub(crate) bags: Bags,
    pub(crate) files: Vec<PathBuf>,
    /// Slides that the clinical table names and the folder has not, each with the index of its patient.
    pub(crate) missing: Vec<(usize, String)>,
    /// Patients with a slide that was refused.
    pub(crate) refused: BTreeSet<usize>,
    /// Slides whose file has no instances.
    pub(crate) empty: Vec<String>,
    /// What was done to features while they were read, in sentences.
    pub(crate) notes: Vec<String>,
}

impl Slides {
    /// Finds the bags of the patients of a clinical table; without that table, only checks the packed file.
    pub(crate) fn read(
        folder: &Path,
        section: &SlidesFile,
        clinical: Option<&Clinical>,
        reading: Reading,
        problems: &mut Problems,
    ) -> Option<Slides> {
        match (&section.file, &section.dir, &section.store) {
            (Some(file), None, None) => packed(&folder.join(file), clinical, reading, problems),
            (None, Some(dir), None) => one_file_a_slide(&folder.join(dir), clinical?, reading, problems),
            (None, None, Some(store)) => stored(&folder.join(store), clinical?, reading, problems),
            // Refused when the cohort file was read.
            _ => None,
        }
    }
}

fn packed(path: &Path, clinical: Option<&Clinical>, reading: Reading, problems: &mut Problems) -> Option<Slides> {
    let file = TensorFile::open(path, reading, problems)?;
    let matrix = match FeatureFile::of_tensors(&file) {
        Ok(features) => Some(Arc::new(features)),
        Err(problem) => {
            problems.push(problem);
            None
        }
    };
    let info = file.tensor("offsets", problems)?;
    let offsets = file.integers("offsets", info, problems)?;
    file.file().rest();
    let patients = clinical.map(|c| c.patients.len());
    if info.shape.len() != 1 || patients.is_some_and(|p| p + 1 != info.shape[0]) || offsets.is_empty() {
        let want = patients.map_or("[patients + 1]".into(), |p| format!("[{}], one more than the patients", p + 1));
        let (file, tensor) = (path.into(), "offsets".into());
        problems.push(Problem::TensorShape { file, tensor, want, got: info.shape.clone() });
        return None;
    }
    let matrix = matrix?;
    let before = problems.0.len();
    let mut wrong = |index, value, want| problems.push(Problem::Offset { file: path.into(), index, value, want });
    if offsets[0] != 0 {
        wrong(0, offsets[0], "0".into());
    }
    for i in 1..offsets.len() {
        if offsets[i] < offsets[i - 1] {
            wrong(i, offsets[i], format!("at least {}, the one before", offsets[i - 1]));
        } else if offsets[i] > matrix.rows() as i128 {
            wrong(i, offsets[i], format!("at most {}, the rows of features", matrix.rows()));
        }
    }
    let last = offsets.len() - 1;
    if offsets[last] < matrix.rows() as i128 {
        wrong(last, offsets[last], format!("{}, the rows of features", matrix.rows()));
    }
    if problems.0.len() > before {
        return None;
    }
    let pieces = clinical?.patients.iter().zip(offsets.windows(2)).map(|(patient, w)| {
        let (first_row, rows) = (w[0] as usize, (w[1] - w[0]) as usize);
        let piece = Piece { file: matrix.clone(), name: patient.case.clone(), first_row, rows };
        if rows == 0 { Vec::new() } else { vec![piece] }
    });
    let bags = Bags::new(matrix.width(), matrix.dtype(), pieces.collect());
    let notes = notes(&[path.into()], &[matrix.notes().to_vec()]);
    Some(Slides {
        bags,
        files: vec![path.into()],
        missing: Vec::new(),
        refused: BTreeSet::new(),
        empty: Vec::new(),
        notes,
    })
}

/// Each note once, with how many files it is about.
fn notes(files: &[PathBuf], of_files: &[Vec<String>]) -> Vec<String> {
    let mut found: Vec<(&String, &PathBuf, usize)> = Vec::new();
    for (file, note) in files.iter().zip(of_files).flat_map(|(file, notes)| notes.iter().map(move |note| (file, note)))
    {
        match found.iter_mut().find(|(known, ..)| *known == note) {
            Some((_, _, count)) => *count += 1,
            None => found.push((note, file, 1)),
        }
    }
    let sentence = |(note, file, count): (&String, &PathBuf, usize)| match count {
        1 => format!("{}: {note}", file.display()),
        2 => format!("{} and 1 more file: {note}", file.display()),
        _ => format!("{} and {} more files: {note}", file.display(), count - 1),
    };
    found.into_iter().map(sentence).collect()
}

/// What feature files are called behind the name of the slide. Of several of one slide the first is read; what is in it
/// is told by its contents.
const EXTENSIONS: [&str; 5] = ["safetensors", "h5", "pt", "npy", "npz"];
/// The folders that tools make for features below the one that was named, which comes first.
const FOLDERS: [&str; 5] = ["", "h5_files", "pt_files", "feats_h5", "feats_pt"];

/// The files of a folder and of those below it that are looked for, by name.
struct Folder(Vec<(PathBuf, BTreeSet<OsString>)>);

impl Folder {
    fn list(dir: &Path) -> std::io::Result<Folder> {
        let mut found = Vec::new();
        for below in FOLDERS {
            let folder = if below.is_empty() { dir.to_path_buf() } else { dir.join(below) };
            match std::fs::read_dir(&folder) {
                Ok(entries) => {
                    let names = entries.map(|entry| entry.map(|entry| entry.file_name())).collect::<Result<_, _>>()?;
                    found.push((folder, names));
                }
                Err(e) if below.is_empty() => return Err(e),
                // Most folders have none of these.
                Err(_) => {}
            }
        }
        Ok(Folder(found))
    }

    /// The file of a slide. Only names that were listed are found, so none leads out of the folder.
    fn find(&self, slide: &str) -> Option<PathBuf> {
        let named = EXTENSIONS.map(|extension| OsString::from(format!("{slide}.{extension}")));
        let all = self.0.iter().flat_map(|(folder, names)| named.iter().map(move |name| (folder, names, name)));
        all.filter(|(_, names, name)| names.contains(*name)).map(|(folder, _, name)| folder.join(name)).next()
    }
}

/// The names of the slides in a folder or a store, sorted. None if it cannot be read, which is reported when they are.
pub(super) fn names_in(source: &Path, is_store: bool) -> Vec<String> {
    let mut names: Vec<String> = if is_store {
        let shards = StoreIndex::read(source).map_or_else(|_| Vec::new(), |index| index.shards);
        shards.into_iter().flat_map(|shard| shard.slides).map(|slide| slide.name).collect()
    } else {
        let folders = Folder::list(source).map_or_else(|_| Vec::new(), |folder| folder.0);
        let files = folders.into_iter().flat_map(|(_, names)| names).filter_map(|name| name.into_string().ok());
        let slide = |name: String| {
            let known = name.rsplit_once('.').filter(|(_, extension)| EXTENSIONS.contains(extension));
            known.map(|(stem, _)| stem.to_owned())
        };
        files.filter_map(slide).collect()
    };
    names.sort_unstable();
    names.dedup();
    names
}

fn one_file_a_slide(dir: &Path, clinical: &Clinical, reading: Reading, problems: &mut Problems) -> Option<Slides> {
    let folder = match Folder::list(dir) {
        Ok(folder) => folder,
        Err(e) => {
            problems.push(Problem::Unreadable { file: dir.into(), why: said(&e) });
            return None;
        }
    };
    let mut first: Option<(PathBuf, Kind)> = None;
    let (mut files, mut missing, mut empty) = (Vec::new(), Vec::new(), Vec::new());
    let (mut pieces, mut said, mut refused) = (Vec::new(), Vec::new(), BTreeSet::new());
    for (index, patient) in clinical.patients.iter().enumerate() {
        let mut bag = Vec::new();
        for name in names(patient, |name| folder.find(name).is_some()) {
            let Some(path) = folder.find(name) else {
                missing.push((index, name.to_owned()));
                continue;
            };
            let file = FeatureFile::read(&path, reading);
            files.push(path.clone());
            said.push(file.as_ref().map_or_else(|_| Vec::new(), |file| file.notes().to_vec()));
            let file = match file {
                Ok(file) => file,
                Err(problem) => {
                    problems.push(problem);
                    refused.insert(index);
                    continue;
                }
            };
            if file.rows() == 0 {
                empty.push(name.to_owned());
                continue;
            }
            let kind = Kind::of(&file);
            let (known, want) = first.get_or_insert_with(|| (path.clone(), kind.clone()));
            if !want.agrees(&kind) {
                let (want, got) = (want.to_string(), kind.to_string());
                problems.push(Problem::SlideDiffers { file: path, first: known.clone(), want, got });
                refused.insert(index);
                continue;
            }
            bag.push(Piece { name: name.to_owned(), first_row: 0, rows: file.rows(), file: Arc::new(file) });
        }
        pieces.push(bag);
    }
    let kind = first.map_or(Kind { width: 0, dtype: FeatureType::F32, encoder: None }, |(_, kind)| kind);
    let bags = Bags::new(kind.width, kind.dtype, pieces);
    Some(Slides { bags, notes: notes(&files, &said), files, missing, refused, empty })
}

/// What the slides of a patient may be called: by the clinical table, or by the case if that alone is there.
fn names(patient: &Patient, is_there: impl Fn(&str) -> bool) -> Vec<&str> {
    let named: Vec<&str> = patient.slides.iter().map(String::as_str).collect();
    let by_case = named.is_empty() || !named.iter().any(|name| is_there(name)) && is_there(&patient.case);
    if by_case { vec![&patient.case] } else { named }
}

fn stored(dir: &Path, clinical: &Clinical, reading: Reading, problems: &mut Problems) -> Option<Slides> {
    let mut store = match Store::open(dir, reading) {
        Ok(store) => store,
        Err(problem) => {
            problems.push(problem);
            return None;
        }
    };
    let (mut missing, mut empty, mut pieces, mut refused) = (Vec::new(), Vec::new(), Vec::new(), BTreeSet::new());
    for (index, patient) in clinical.patients.iter().enumerate() {
        let mut bag = Vec::new();
        for name in names(patient, |name| store.has(name)) {
            match store.find(name) {
                None => missing.push((index, name.to_owned())),
                Some(Err(problem)) => {
                    refused.insert(index);
                    // A shard that cannot be read is told once.
                    if !problems.0.contains(&problem) {
                        problems.push(problem);
                    }
                }
                Some(Ok((_, slide))) if slide.rows == 0 => empty.push(name.to_owned()),
                Some(Ok((file, slide))) => {
                    bag.push(Piece { file, name: name.to_owned(), first_row: slide.first_row, rows: slide.rows });
                }
            }
        }
        pieces.push(bag);
    }
    let bags = Bags::new(store.index.width, store.index.dtype, pieces);
    Some(Slides { bags, files: store.files(), missing, refused, empty, notes: Vec::new() })
}

/// What all slides of a cohort must have in common.
#[derive(Clone, Debug)]
struct Kind {
    width: usize,
    dtype: FeatureType,
    encoder: Option<String>,
}

impl Kind {
    fn of(file: &FeatureFile) -> Kind {
        Kind { width: file.width(), dtype: file.dtype(), encoder: file.encoder().map(str::to_owned) }
    }

    /// Not every file names its encoder.
    fn agrees(&self, other: &Kind) -> bool {
        let encoders = self.encoder.as_ref().zip(other.encoder.as_ref());
        (self.width, self.dtype) == (other.width, other.dtype) && encoders.is_none_or(|(a, b)| a == b)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} wide in {}", self.width, self.dtype)?;
        self.encoder.as_ref().map_or(Ok(()), |encoder| write!(f, " of {encoder}"))
    }
}
