//! A store: the features of the slides of a cohort, packed once so that every later reading is a copy out of a map.
//!
//! A store is a folder of shards, which are safetensors files with `features` `[rows, width]` and, if a slide has places,
//! `coords` `[rows, 2]` in f64 (NaN for slides without), and of `store.json`, the [`StoreIndex`]: which rows of which shard are a slide's,
//! what they were made of, and the sums of the shards. The features of a shard start at a whole page of the file.
//!
//! A shard appears when it is complete, and the index names it after that. So a packing that was killed goes on with the
//! shard that it was at, and the finished store is the same as if nothing had happened.

mod pack;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::bytes::Reading;
use super::features::{CoordUnit, FeatureFile, PatchSize};
use super::problem::{Problem, Problems};
use super::table::read_text;
use crate::features::FeatureType;
pub use pack::{PackOptions, Packed, pack, verify};

/// The file of a store that says what is in it.
pub(super) const INDEX: &str = "store.json";
/// The form of the index that is written and read.
const FORM: u32 = 1;

/// The index of a store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreIndex {
    /// The form of the index: 1.
    pub onkos_store: u32,
    /// The element type of the features.
    pub dtype: FeatureType,
    /// Features of an instance.
    pub width: usize,
    /// The shards, in order.
    pub shards: Vec<Shard>,
}

/// A file of a store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shard {
    /// Its name in the folder.
    pub file: String,
    /// Its length.
    pub bytes: u64,
    /// The SHA-256 of it in hexadecimal digits.
    pub sha256: String,
    /// The slides in it, one after another.
    pub slides: Vec<StoredSlide>,
}

/// A slide in a shard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredSlide {
    /// The slide, or the case where a bag is not told apart by slides.
    pub name: String,
    /// The first of its rows.
    pub first_row: usize,
    /// How many they are.
    pub rows: usize,
    /// What they were made of.
    pub source: StoredSource,
    /// The encoder, if the source says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encoder: Option<String>,
    /// What the places are measured in, if the source has places.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub coords: Option<CoordUnit>,
    /// The sides of a patch, as far as the source says.
    #[serde(default)]
    pub patch: PatchSize,
    /// Values that are not zero in the source and zero here.
    #[serde(default)]
    pub rounded_to_zero: u64,
}

/// The file that a slide was packed from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredSource {
    /// Its name, without folders.
    pub file: String,
    /// Its length.
    pub bytes: u64,
    /// When it was last written, in nanoseconds of the Unix time; a file with another time is read to see whether it
    /// differs.
    pub modified: i128,
    /// The SHA-256 of it in hexadecimal digits.
    pub sha256: String,
    /// The row that the slide starts with.
    pub first_row: usize,
}

impl StoreIndex {
    /// The index of the store in a folder.
    pub(super) fn read(folder: &Path) -> Result<StoreIndex, Problem> {
        let path = folder.join(INDEX);
        let mut problems = Problems::default();
        let Some(text) = read_text(&path, &mut problems) else {
            return Err(problems.0.pop().unwrap_or(Problem::Store { file: path, why: "cannot be read".into() }));
        };
        let wrong = |why: String| Problem::Store { file: path.clone(), why };
        let index: StoreIndex =
            serde_json::from_str(&text).map_err(|e| wrong(format!("is not the index of a store: {e}")))?;
        if index.onkos_store != FORM {
            return Err(wrong(format!("is of form {}, but this program reads form {FORM}", index.onkos_store)));
        }
        for shard in &index.shards {
            if Path::new(&shard.file).file_name().is_none_or(|name| name != shard.file.as_str()) {
                return Err(wrong(format!("names the shard {:?}, which is no file of this folder", shard.file)));
            }
            let mut end = 0usize;
            for slide in &shard.slides {
                let next = if slide.first_row == end { end.checked_add(slide.rows) } else { None };
                end = next.ok_or_else(|| wrong(format!("has {:?} in rows that do not follow the last", slide.name)))?;
            }
        }
        Ok(index)
    }

    /// The number of rows of all slides.
    pub fn rows(&self) -> usize {
        self.shards.iter().flat_map(|shard| &shard.slides).map(|slide| slide.rows).sum()
    }
}

/// A store that was opened: its slides by name.
pub(super) struct Store {
    pub(super) index: StoreIndex,
    /// The shards that slides were asked for of.
    files: Vec<Option<Arc<FeatureFile>>>,
    folder: PathBuf,
    reading: Reading,
    places: HashMap<String, (usize, usize)>,
}

impl Store {
    pub(super) fn open(folder: &Path, reading: Reading) -> Result<Store, Problem> {
        let index = StoreIndex::read(folder)?;
        let mut places = HashMap::new();
        for (s, shard) in index.shards.iter().enumerate() {
            for (i, slide) in shard.slides.iter().enumerate() {
                if places.insert(slide.name.clone(), (s, i)).is_some() {
                    let why = format!("has {:?} twice; pack the cohort again into a new folder", slide.name);
                    return Err(Problem::Store { file: folder.join(INDEX), why });
                }
            }
        }
        Ok(Store { files: vec![None; index.shards.len()], index, folder: folder.into(), reading, places })
    }

    /// Whether the store has a slide.
    pub(super) fn has(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    /// Where a slide lies: the opened shard and its entry. None if the store has not the slide.
    pub(super) fn find(&mut self, name: &str) -> Option<Result<(Arc<FeatureFile>, StoredSlide), Problem>> {
        let &(s, i) = self.places.get(name)?;
        let slide = self.index.shards[s].slides[i].clone();
        Some(self.shard(s).map(|file| (file, slide)))
    }

    /// A shard, opened once and compared with what the index says of it.
    fn shard(&mut self, s: usize) -> Result<Arc<FeatureFile>, Problem> {
        if let Some(file) = &self.files[s] {
            return Ok(file.clone());
        }
        let shard = &self.index.shards[s];
        let path = self.folder.join(&shard.file);
        let file = FeatureFile::read(&path, self.reading)?;
        let rows: usize = shard.slides.iter().map(|slide| slide.rows).sum();
        if (file.rows(), file.width(), file.dtype()) != (rows, self.index.width, self.index.dtype) {
            let why = format!(
                "has [{}, {}] in {}, but the index of the store says [{rows}, {}] in {}; pack the cohort again",
                file.rows(),
                file.width(),
                file.dtype(),
                self.index.width,
                self.index.dtype
            );
            return Err(Problem::Store { file: path, why });
        }
        let file = Arc::new(file);
        self.files[s] = Some(file.clone());
        Ok(file)
    }

    /// The files that were opened.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        self.files.iter().flatten().map(|file| file.path().into()).chain([self.folder.join(INDEX)]).collect()
    }
}
