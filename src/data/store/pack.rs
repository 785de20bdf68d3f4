//! Packing: from whatever files a cohort has to the shards of a store.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::UNIX_EPOCH;

use half::{bf16, f16};
use rayon::prelude::*;
use serde::Serialize;

use super::{FORM, INDEX, Shard, Store, StoreIndex, StoredSlide, StoredSource};
use crate::data::bags::{Bags, Piece};
use crate::data::problem::{Problem, Problems};
use crate::data::{Cohort, FeatureFile, FileHash, write_file};
use crate::error::{Error, Result};
use crate::features::FeatureType;

/// What features start at a multiple of: a page of any machine in use.
const PAGE: usize = 4096;
/// The bytes of a place, two f64.
const PLACE: usize = 16;
/// What is converted and written at once.
const BLOCK: usize = 4 << 20;

/// How a store is made.
#[derive(Clone, Copy, Debug)]
pub struct PackOptions {
    /// The element type; that of the files if none is asked for.
    pub dtype: Option<FeatureType>,
    /// A shard is closed before it has more bytes of features, unless one slide alone has more.
    pub shard_bytes: u64,
}

impl Default for PackOptions {
    fn default() -> PackOptions {
        PackOptions { dtype: None, shard_bytes: 4 << 30 }
    }
}

/// What a packing did.
#[derive(Clone, Debug, Serialize)]
pub struct Packed {
    /// Slides in the store.
    pub slides: usize,
    /// Rows of all of them.
    pub rows: usize,
    /// The element type.
    pub dtype: FeatureType,
    /// Features of a row.
    pub width: usize,
    /// Shards in the store.
    pub shards: usize,
    /// Of these, the shards that were there already, of sources that have not changed.
    pub kept: usize,
    /// The bytes of all shards.
    pub bytes: u64,
    /// Values that are not zero in their file and zero in the store, which has fewer exponents.
    pub rounded_to_zero: u64,
}

/// What is packed.
struct Slide<'a> {
    piece: &'a Piece,
    entry: StoredSlide,
}

/// Packs the features of a cohort into the folder `out`, which is made or gone on with: shards whose sources have not
/// changed stay. `observe` is told the rows that are done and all rows, from several threads.
///
/// The cohort is best opened without looking at its features ([`Cohort::open_unscanned`]); that is done here.
///
/// # Errors
/// [`Error::Data`] with all that is wrong with the features: what is not finite, and values that the element type does
/// not reach, of which none is rounded to infinity; the store then has no shard with them. [`Error::Exists`] for a folder
/// that has something else in it. [`Error::Io`], as on a full disk.
pub fn pack(
    cohort: &Cohort,
    out: &Path,
    options: PackOptions,
    observe: &(dyn Fn(usize, usize) + Sync),
) -> Result<Packed> {
    let bags = cohort.slides.as_ref().ok_or_else(|| Error::NoInputs { cohort: cohort.name.clone() })?;
    let _turn = prepare(out)?;
    let dtype = options.dtype.unwrap_or(bags.dtype());
    let plan = plan(bags, dtype, options.shard_bytes)?;
    let old = StoreIndex::read(out).ok().filter(|old| (old.dtype, old.width) == (dtype, bags.width()));
    // Those that were not come to yet.
    let mut old: BTreeMap<String, Shard> =
        old.into_iter().flat_map(|old| old.shards).map(|shard| (shard.file.clone(), shard)).collect();

    let total = plan.iter().flatten().map(|slide| slide.entry.rows).sum();
    let (done, mut sums) = (AtomicU64::new(0), Sums::default());
    let told = |rows: usize| observe(done.fetch_add(rows as u64, Ordering::Relaxed) as usize + rows, total);
    let mut index = StoreIndex { onkos_store: FORM, dtype, width: bags.width(), shards: Vec::new() };
    let (mut kept, mut problems) = (0, Problems::default());
    for (number, mut slides) in plan.into_iter().enumerate() {
        let name = format!("shard-{number:05}.safetensors");
        let before = old.remove(&name);
        let replaces = before.is_some();
        let current = before.filter(|_| problems.is_empty()).filter(|shard| is_current(shard, &slides, out, &mut sums));
        if let Some(shard) = current {
            told(slides.iter().map(|slide| slide.entry.rows).sum());
            index.shards.push(shard);
            kept += 1;
            continue;
        }
        let writer = Writer { bags, dtype, told: &told };
        if !problems.is_empty() {
            // Nothing is written any more; what else is wrong is told with the rest.
            problems.0.extend(writer.check(&slides));
            continue;
        }
        if replaces {
            // The index never tells of a shard what was true of an earlier one.
            write_index(out, &index, &old)?;
        }
        match writer.shard(&out.join(&name), &mut slides, &mut sums) {
            Ok(hash) => {
                let slides = slides.into_iter().map(|slide| slide.entry).collect();
                index.shards.push(Shard { file: name, bytes: hash.bytes, sha256: hash.sha256, slides });
                write_index(out, &index, &old)?;
            }
            Err(Error::Data(wrong)) => problems.0.extend(wrong.0),
            Err(other) => return Err(other),
        }
    }
    problems.or(())?;
    write_index(out, &index, &BTreeMap::new())?;
    remove_others(out, &index)?;
    Ok(Packed {
        slides: index.shards.iter().map(|shard| shard.slides.len()).sum(),
        rows: index.rows(),
        dtype,
        width: index.width,
        shards: index.shards.len(),
        kept,
        bytes: index.shards.iter().map(|shard| shard.bytes).sum(),
        rounded_to_zero: index.shards.iter().flat_map(|shard| &shard.slides).map(|slide| slide.rounded_to_zero).sum(),
    })
}

/// Reads a store back: the sum of every shard, and every value and place of every slide of the cohort against its file.
/// Gives the number of rows that were compared.
///
/// # Errors
/// [`Error::Data`] with every shard that is damaged and every slide that is missing or differs.
pub fn verify(cohort: &Cohort, out: &Path, observe: &(dyn Fn(usize, usize) + Sync)) -> Result<usize> {
    let bags = cohort.slides.as_ref().ok_or_else(|| Error::NoInputs { cohort: cohort.name.clone() })?;
    let mut store = Store::open(out, cohort.reading).map_err(|problem| Error::from(Problems(vec![problem])))?;
    let mut problems = Problems::default();
    for shard in &store.index.shards {
        let path = out.join(&shard.file);
        let why = match FileHash::of(&path) {
            Ok(hash) if (hash.bytes, &hash.sha256) == (shard.bytes, &shard.sha256) => continue,
            Ok(_) => "is not what was packed: its sum differs; pack the cohort again".into(),
            Err(e) => e.to_string(),
        };
        problems.push(Problem::Store { file: path, why });
    }
    let (dtype, index) = (store.index.dtype, out.join(INDEX));
    let mut found = Vec::new();
    for piece in unique(bags)? {
        match store.find(&piece.name) {
            None => {
                let why = format!("has not the slide {:?}; pack the cohort again", piece.name);
                problems.push(Problem::Store { file: index.clone(), why });
            }
            Some(Err(problem)) => problems.push(problem),
            Some(Ok((file, entry))) => found.push((piece, file, entry)),
        }
    }
    let total = found.iter().map(|(piece, ..)| piece.rows).sum();
    let done = AtomicU64::new(0);
    let told = |rows: usize| observe(done.fetch_add(rows as u64, Ordering::Relaxed) as usize + rows, total);
    let compare = |(piece, file, entry): &(&Piece, Arc<FeatureFile>, StoredSlide)| {
        difference(bags, dtype, piece, file, entry, &told)
    };
    let differences: Vec<Option<Problem>> = found.par_iter().map(compare).collect();
    problems.0.extend(differences.into_iter().flatten());
    problems.or(total)
}

/// How a slide of a store differs from what its file gives.
fn difference(
    bags: &Bags,
    dtype: FeatureType,
    piece: &Piece,
    file: &FeatureFile,
    entry: &StoredSlide,
    told: &(dyn Fn(usize) + Sync),
) -> Option<Problem> {
    let differs = |what: &str| {
        let why = format!("has other {what} of {:?} than {}", piece.name, piece.file.path().display());
        Some(Problem::Store { file: file.path().into(), why: why + "; pack the cohort again" })
    };
    let unreadable = |error: Error| match error {
        Error::Data(mut wrong) => wrong.0.pop(),
        other => Some(Problem::Store { file: file.path().into(), why: other.to_string() }),
    };
    if entry.rows != piece.rows {
        return differs("rows");
    }
    let (mut got, mut wanted) = (Vec::new(), Converter::new(bags.dtype(), dtype));
    for rows in blocks(piece.rows, bags.width() * dtype.bytes().max(bags.dtype().bytes())) {
        let from = piece.first_row + rows.start..piece.first_row + rows.end;
        let there = entry.first_row + rows.start..entry.first_row + rows.end;
        let want = match wanted.rows(piece, from.clone(), bags.width()) {
            Ok(want) => want,
            Err(problem) => return Some(problem),
        };
        got.resize(want.len(), 0);
        if let Err(error) = file.read_rows(there.clone(), &mut got) {
            return unreadable(error);
        }
        if want != got {
            return differs("features");
        }
        if let (Some(got), Some(want)) = (file.coords(), piece.file.coords()) {
            match (got.read(there), want.read(from)) {
                (Ok(got), Ok(want)) if got == want => {}
                (Ok(_), Ok(_)) => return differs("places"),
                (Err(error), _) | (_, Err(error)) => return unreadable(error),
            }
        }
        told(rows.len());
    }
    None
}

/// Makes the folder or refuses it, and keeps others from packing into it at the same time.
fn prepare(out: &Path) -> Result<Option<File>> {
    fs::create_dir_all(out).map_err(Error::io(out))?;
    let mut entries = fs::read_dir(out).map_err(Error::io(out))?;
    let ours = |name: &str| name == INDEX || name.starts_with("shard-") || name.starts_with('.');
    let strange = entries.any(|entry| entry.is_ok_and(|entry| !entry.file_name().to_str().is_some_and(ours)));
    if strange {
        return Err(Error::Exists { path: out.into() });
    }
    if !cfg!(unix) {
        return Ok(None);
    }
    let folder = File::open(out).map_err(Error::io(out))?;
    match folder.try_lock() {
        Ok(()) => Ok(Some(folder)),
        Err(fs::TryLockError::WouldBlock) => {
            let why = io::Error::new(io::ErrorKind::ResourceBusy, "another onkos packs into it; wait for that one");
            Err(Error::io(out)(why))
        }
        // A file system without locks.
        Err(fs::TryLockError::Error(_)) => Ok(Some(folder)),
    }
}

/// Every slide of the bags once.
fn unique(bags: &Bags) -> Result<Vec<&Piece>> {
    let mut seen: HashMap<&str, &Piece> = HashMap::new();
    let (mut all, mut problems) = (Vec::new(), Problems::default());
    for piece in bags.pieces.iter().flatten() {
        match seen.insert(&piece.name, piece) {
            None => all.push(piece),
            Some(first) if (first.file.path(), first.first_row) == (piece.file.path(), piece.first_row) => {}
            Some(first) => {
                let why = format!("and {} are both called {:?}; rename one", first.file.path().display(), piece.name);
                problems.push(Problem::Store { file: piece.file.path().into(), why });
            }
        }
    }
    problems.or(all)
}

/// The slides of each shard, in the order of the cohort.
fn plan(bags: &Bags, dtype: FeatureType, shard_bytes: u64) -> Result<Vec<Vec<Slide<'_>>>> {
    let row_bytes = (bags.width() * dtype.bytes()) as u64;
    let (mut shards, mut shard, mut bytes, mut first_row) = (Vec::new(), Vec::<Slide<'_>>::new(), 0, 0);
    for piece in unique(bags)? {
        let of_slide = piece.rows as u64 * row_bytes;
        if !shard.is_empty() && bytes + of_slide > shard_bytes {
            shards.push(std::mem::take(&mut shard));
            (bytes, first_row) = (0, 0);
        }
        let path = piece.file.path();
        let told = fs::metadata(path).map_err(Error::io(path))?;
        let modified = told.modified().map_err(Error::io(path))?;
        let modified = match modified.duration_since(UNIX_EPOCH) {
            Ok(after) => after.as_nanos() as i128,
            Err(before) => -(before.duration().as_nanos() as i128),
        };
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let source =
            StoredSource { file, bytes: told.len(), modified, sha256: String::new(), first_row: piece.first_row };
        let entry = StoredSlide {
            name: piece.name.clone(),
            first_row,
            rows: piece.rows,
            source,
            encoder: piece.file.encoder().map(str::to_owned),
            coords: piece.file.coords().map(|coords| coords.unit()),
            patch: piece.file.patch_size(),
            rounded_to_zero: 0,
        };
        bytes += of_slide;
        first_row += piece.rows;
        shard.push(Slide { piece, entry });
    }
    if !shard.is_empty() {
        shards.push(shard);
    }
    Ok(shards)
}

/// Whether a shard of an earlier packing is what would be written now.
fn is_current(shard: &Shard, slides: &[Slide<'_>], out: &Path, sums: &mut Sums) -> bool {
    let whole = fs::metadata(out.join(&shard.file)).is_ok_and(|told| told.len() == shard.bytes);
    let mut same = |(old, new): (&StoredSlide, &Slide<'_>)| {
        let mut wanted = new.entry.clone();
        wanted.rounded_to_zero = old.rounded_to_zero;
        wanted.source.sha256.clone_from(&old.source.sha256);
        if *old == wanted {
            return true;
        }
        // Touched, copied or taken out of an archive: what is in it decides.
        wanted.source.modified = old.source.modified;
        *old == wanted && sums.of(new.piece.file.path()).is_ok_and(|sum| sum == old.source.sha256)
    };
    whole && shard.slides.len() == slides.len() && shard.slides.iter().zip(slides).all(&mut same)
}

/// The SHA-256 of sources, each read once however many slides are in it.
#[derive(Default)]
struct Sums(HashMap<PathBuf, String>);

impl Sums {
    fn of(&mut self, path: &Path) -> Result<String> {
        if let Some(sum) = self.0.get(path) {
            return Ok(sum.clone());
        }
        let sum = FileHash::of(path)?.sha256;
        self.0.insert(path.into(), sum.clone());
        Ok(sum)
    }

    /// Reads all files that some slides are from, several at a time.
    fn prepare(&mut self, slides: &[Slide<'_>]) -> Result<()> {
        let paths: BTreeSet<&Path> = slides.iter().map(|slide| slide.piece.file.path()).collect();
        let new: Vec<&Path> = paths.into_iter().filter(|path| !self.0.contains_key(*path)).collect();
        let hashes: Vec<FileHash> = new.into_par_iter().map(FileHash::of).collect::<Result<_>>()?;
        self.0.extend(hashes.into_iter().map(|hash| (hash.file, hash.sha256)));
        Ok(())
    }
}

/// The index as far as it is made, and the shards of an earlier packing that were not come to yet.
fn write_index(out: &Path, index: &StoreIndex, old: &BTreeMap<String, Shard>) -> Result<()> {
    let mut index = index.clone();
    index.shards.extend(old.values().cloned());
    write_file(&out.join(INDEX), |to| {
        serde_json::to_writer_pretty(&mut *to, &index)?;
        to.write_all(b"\n")
    })
}

/// Removes what earlier or killed packings left.
fn remove_others(out: &Path, index: &StoreIndex) -> Result<()> {
    for entry in fs::read_dir(out).map_err(Error::io(out))? {
        let name = entry.map_err(Error::io(out))?.file_name();
        let Some(name) = name.to_str() else { continue };
        let ours =
            name.trim_start_matches('.').starts_with("shard-") || name.starts_with('.') && name.ends_with(".part");
        if ours && !index.shards.iter().any(|shard| shard.file == name) {
            fs::remove_file(out.join(name)).map_err(Error::io(out.join(name)))?;
        }
    }
    Ok(())
}

/// Ranges of rows of at most [`BLOCK`] bytes.
fn blocks(rows: usize, row_bytes: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    let step = (BLOCK / row_bytes.max(1)).max(1);
    (0..rows).step_by(step).map(move |first| first..(first + step).min(rows))
}

/// Rows of a file in another element type.
struct Converter {
    from: FeatureType,
    to: FeatureType,
    stored: Vec<u8>,
    converted: Vec<u8>,
    /// Values that became infinite, the largest of them, and values that became 0.
    beyond: (u64, f32),
    to_zero: u64,
}

impl Converter {
    fn new(from: FeatureType, to: FeatureType) -> Converter {
        Converter { from, to, stored: Vec::new(), converted: Vec::new(), beyond: (0, 0.0), to_zero: 0 }
    }

    fn rows(&mut self, piece: &Piece, rows: std::ops::Range<usize>, width: usize) -> Result<&[u8], Problem> {
        self.stored.resize(rows.len() * width * self.from.bytes(), 0);
        piece.file.rows_into(rows, &mut self.stored)?;
        if self.from == self.to {
            return Ok(&self.stored);
        }
        self.converted.clear();
        for bytes in self.stored.chunks_exact(self.from.bytes()) {
            let value = self.from.read(bytes);
            let (zero, infinite) = match self.to {
                FeatureType::F32 => {
                    self.converted.extend(value.to_le_bytes());
                    (false, false)
                }
                FeatureType::F16 => {
                    let rounded = f16::from_f32(value);
                    self.converted.extend(rounded.to_le_bytes());
                    (rounded.to_f32() == 0.0, rounded.is_infinite())
                }
                FeatureType::Bf16 => {
                    let rounded = bf16::from_f32(value);
                    self.converted.extend(rounded.to_le_bytes());
                    (rounded.to_f32() == 0.0, rounded.is_infinite())
                }
            };
            if infinite {
                self.beyond = (self.beyond.0 + 1, self.beyond.1.max(value.abs()));
            }
            self.to_zero += u64::from(zero && value != 0.0);
        }
        Ok(&self.converted)
    }

    /// What this slide has that the element type does not reach.
    fn problem(&self, piece: &Piece) -> Option<Problem> {
        let (values, largest) = self.beyond;
        let (file, name, dtype) = (piece.file.path().into(), piece.name.clone(), self.to);
        (values > 0).then_some(Problem::BeyondType { file, name, values, largest, dtype })
    }
}

/// What writes shards.
struct Writer<'a> {
    bags: &'a Bags,
    dtype: FeatureType,
    told: &'a (dyn Fn(usize) + Sync),
}

impl Writer<'_> {
    /// Writes a shard under a hidden name and gives it its own when it is on the disk. Fills in the sums of the sources.
    fn shard(&self, path: &Path, slides: &mut [Slide<'_>], sums: &mut Sums) -> Result<FileHash> {
        let rows: usize = slides.iter().map(|slide| slide.entry.rows).sum();
        let places = slides.iter().any(|slide| slide.entry.coords.is_some());
        let header = header(self.dtype, rows, self.bags.width(), places);
        let row_bytes = self.bags.width() * self.dtype.bytes();
        let length = header.len() + rows * (row_bytes + if places { PLACE } else { 0 });
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let part = path.with_file_name(format!(".{name}.part"));
        let file = File::create(&part).map_err(Error::io(&part))?;
        let written = (|| {
            let io = |e| Error::io(&part)(e);
            file.set_len(length as u64).map_err(io)?;
            write_at(&file, &header, 0).map_err(io)?;
            let zeros: Vec<Result<u64>> = slides
                .par_iter()
                .map(|slide| {
                    self.slide(slide, &mut |what, row, bytes| {
                        let row = slide.entry.first_row + row;
                        let at = match what {
                            What::Features => header.len() + row * row_bytes,
                            What::Places if places => header.len() + rows * row_bytes + row * PLACE,
                            What::Places => return Ok(()),
                        };
                        write_at(&file, bytes, at as u64).map_err(io)
                    })
                })
                .collect();
            let mut problems = Problems::default();
            for (slide, zeros) in slides.iter_mut().zip(zeros) {
                match zeros {
                    Ok(zeros) => slide.entry.rounded_to_zero = zeros,
                    Err(Error::Data(wrong)) => problems.0.extend(wrong.0),
                    Err(other) => return Err(other),
                }
            }
            problems.or(())?;
            sums.prepare(slides)?;
            for slide in slides.iter_mut() {
                slide.entry.source.sha256 = sums.of(slide.piece.file.path())?;
            }
            file.sync_all().map_err(io)?;
            FileHash::of(&part)
        })();
        let done = written.and_then(|hash| fs::rename(&part, path).map_err(Error::io(path)).map(|()| hash));
        if done.is_err() {
            // What stays of it is removed by the next packing.
            let _ = fs::remove_file(&part);
        }
        done
    }

    /// Everything that is wrong with some slides, without writing them.
    fn check(&self, slides: &[Slide<'_>]) -> Vec<Problem> {
        let wrong = |slide: &Slide<'_>| match self.slide(slide, &mut |_, _, _| Ok(())) {
            Err(Error::Data(wrong)) => wrong.0,
            _ => Vec::new(),
        };
        slides.par_iter().map(wrong).flatten().collect()
    }

    /// Gives the rows of a slide to `write`, each block with its first row, and returns how many values became 0.
    fn slide(&self, slide: &Slide<'_>, write: &mut (dyn FnMut(What, usize, &[u8]) -> Result<()> + '_)) -> Result<u64> {
        let (piece, width) = (slide.piece, self.bags.width());
        if let Some(problem) = self.bags.scan_piece(piece) {
            return Err(Problems(vec![problem]).into());
        }
        let mut converter = Converter::new(self.bags.dtype(), self.dtype);
        for rows in blocks(piece.rows, width * self.dtype.bytes().max(self.bags.dtype().bytes())) {
            let from = piece.first_row + rows.start..piece.first_row + rows.end;
            let bytes = converter.rows(piece, from.clone(), width).map_err(|p| Error::from(Problems(vec![p])))?;
            write(What::Features, rows.start, bytes)?;
            let places = match piece.file.coords() {
                Some(coords) => coords.read(from)?,
                None => vec![[f64::NAN; 2]; rows.len()],
            };
            let places: Vec<u8> = places.iter().flatten().flat_map(|x| x.to_le_bytes()).collect();
            write(What::Places, rows.start, &places)?;
            (self.told)(rows.len());
        }
        match converter.problem(piece) {
            Some(problem) => Err(Problems(vec![problem]).into()),
            None => Ok(converter.to_zero),
        }
    }
}

/// What a row is of.
#[derive(Clone, Copy)]
enum What {
    Features,
    Places,
}

/// The length and the header of a shard, so long that the features after it start at a whole page.
fn header(dtype: FeatureType, rows: usize, width: usize, places: bool) -> Vec<u8> {
    let features = rows * width * dtype.bytes();
    let mut tensors = serde_json::json!({
        "__metadata__": { "format": "pt", "onkos.store": FORM.to_string() },
        "features": { "dtype": dtype.name(), "shape": [rows, width], "data_offsets": [0, features] },
    });
    if places {
        tensors["coords"] = serde_json::json!({
            "dtype": "F64", "shape": [rows, 2], "data_offsets": [features, features + rows * PLACE],
        });
    }
    let text = tensors.to_string();
    let length = (8 + text.len()).next_multiple_of(PAGE) - 8;
    let mut header = (length as u64).to_le_bytes().to_vec();
    header.extend(text.bytes());
    header.resize(8 + length, b' ');
    header
}

#[cfg(unix)]
fn write_at(file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, at)
}

#[cfg(windows)]
fn write_at(file: &File, mut bytes: &[u8], mut at: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = std::os::windows::fs::FileExt::seek_write(file, bytes, at)?;
        (bytes, at) = (&bytes[written..], at + written as u64);
    }
    Ok(())
}
