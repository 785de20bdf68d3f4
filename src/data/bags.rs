//! The patch features of a cohort, in their files: read when they are gathered, never as a whole.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use rayon::prelude::*;

use super::features::{CoordUnit, FeatureFile, PatchSize};
use super::problem::{Problem, Problems};
use crate::element::{Element, Feature};
use crate::error::Result;
use crate::features::{FeatureType, Features};
use crate::memory::{CACHES, copy_past_caches, zeroed};
use crate::shape::Ragged;
use crate::tensor::Tensor;

/// The bags of the patients of a cohort. A bag is all slides of a patient, one after another.
///
/// Files may be larger than the memory of the machine: only the bags that are gathered are read.
#[derive(Clone, Debug)]
pub struct Bags {
    pub(super) width: usize,
    pub(super) dtype: FeatureType,
    /// The pieces of each patient.
    pub(super) pieces: Vec<Vec<Piece>>,
    pub(super) ragged: Ragged,
}

/// Consecutive rows of one file.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub(super) file: Arc<FeatureFile>,
    /// The slide, or the case where a bag is not told apart by slides.
    pub(super) name: String,
    /// The row of the file that the piece starts with.
    pub(super) first_row: usize,
    pub(super) rows: usize,
    /// What its places are measured in, if it has any. A shard of a store has places for slides without, too.
    pub(super) places: Option<CoordUnit>,
    /// The sides of its patches, as far as its file says.
    pub(super) patch: PatchSize,
}

impl Piece {
    /// All rows of a file that says of itself what is in it.
    pub(super) fn whole(file: Arc<FeatureFile>, name: &str) -> Piece {
        let rows = file.rows();
        Piece::part(file, name, 0, rows)
    }

    /// Some rows of such a file.
    pub(super) fn part(file: Arc<FeatureFile>, name: &str, first_row: usize, rows: usize) -> Piece {
        let (places, patch) = (file.coords().map(|coords| coords.unit()), file.patch_size());
        Piece { file, name: name.into(), first_row, rows, places, patch }
    }

    /// Its rows of the file in blocks, each as many as are best read at once.
    fn blocks(&self) -> impl Iterator<Item = Range<usize>> {
        let (step, end) = (self.file.block_rows(), self.first_row + self.rows);
        (self.first_row..end).step_by(step).map(move |first| first..(first + step).min(end))
    }

    /// The bytes of some of them: as they lie in the file, or read into `memory`.
    fn bytes<'a>(&'a self, rows: Range<usize>, memory: &'a mut Vec<u8>) -> Result<&'a [u8], Problem> {
        let row_bytes = self.file.row_bytes();
        if let Some(bytes) = self.file.slice(rows.start * row_bytes..rows.end * row_bytes) {
            return Ok(bytes);
        }
        memory.resize(rows.len() * row_bytes, 0);
        self.file.bytes_into(rows.start * row_bytes, memory)?;
        Ok(memory)
    }
}

/// What is wanted of the bag of a patient: all of it, or some rows, ascending; and so many rows of zeros behind them.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Part {
    pub(crate) patient: usize,
    pub(crate) rows: Option<Vec<usize>>,
    pub(crate) padding: usize,
}

impl Part {
    pub(crate) fn all(patient: usize) -> Part {
        Part { patient, rows: None, padding: 0 }
    }
}

/// Consecutive rows that are wanted: a piece, and rows of its file; without a piece so many rows of zeros.
#[derive(Clone, Debug)]
pub(crate) struct Run<'a> {
    piece: Option<&'a Piece>,
    rows: Range<usize>,
}

/// What one task reads: ranges of bytes of a file; without a piece, zeros.
struct Job<'a> {
    piece: Option<&'a Piece>,
    spans: Vec<Range<usize>>,
    bytes: usize,
}

impl Job<'_> {
    /// Copies into exactly as many bytes, past the caches if they cannot hold what this is a part of.
    fn copy(&self, to: &mut [u8], passing: bool) -> Option<Problem> {
        let Some(Piece { file, .. }) = self.piece else {
            to.fill(0);
            return None;
        };
        match &self.spans[..] {
            [span] => match file.slice(span.clone()).filter(|_| passing) {
                Some(bytes) => {
                    copy_past_caches(bytes, to);
                    None
                }
                None => file.bytes_into(span.start, to).err(),
            },
            spans => file.runs_into(spans, to).err(),
        }
    }
}

/// Threads that wait for disks, each for a large page at most: together they ask for as much at a time as a fast disk can give.
const WAITING: usize = 8;

/// A row and a column of a block, and what stands there.
type Place = (usize, usize, f32);

impl Bags {
    pub(super) fn new(width: usize, dtype: FeatureType, pieces: Vec<Vec<Piece>>) -> Bags {
        let ragged = Ragged::from_lengths(pieces.iter().map(|p| p.iter().map(|piece| piece.rows).sum()));
        Bags { width, dtype, pieces, ragged }
    }

    /// The number of features of an instance, `L`.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The element type of the files.
    pub fn dtype(&self) -> FeatureType {
        self.dtype
    }

    /// The number of instances of each patient, as offsets of all bags in the order of the patients.
    pub fn ragged(&self) -> &Ragged {
        &self.ragged
    }

    /// Only the bags of the given patients, in that order.
    pub(super) fn select(&self, patients: &[usize]) -> Bags {
        Bags::new(self.width, self.dtype, patients.iter().map(|&p| self.pieces[p].clone()).collect())
    }

    /// Copies the bags of the given patients, in that order, into one matrix.
    ///
    /// A patient may occur more than once. Patients are indices into those of the cohort.
    ///
    /// # Errors
    /// [`Error::Data`](crate::Error::Data) if a file is damaged where it is compressed or in chunks. What has been
    /// looked through by [`Cohort::open`](super::Cohort::open) is not, unless it was changed since.
    pub fn gather(&self, patients: &[usize]) -> Result<(Features, Ragged)> {
        self.gather_parts(&patients.iter().copied().map(Part::all).collect::<Vec<_>>())
    }

    /// The same of parts of bags.
    pub(crate) fn gather_parts(&self, parts: &[Part]) -> Result<(Features, Ragged)> {
        let ragged = Ragged::from_lengths(parts.iter().map(|part| self.rows(part)));
        Ok((self.gather_into(parts, None, 0)?, ragged))
    }

    /// The features of parts of bags, in the memory of `spare` if nobody else holds that and it is large enough, else in
    /// new memory with room for `room` rows if these are more. Reading costs less than having fresh memory filled in.
    pub(crate) fn gather_into(&self, parts: &[Part], spare: Option<Features>, room: usize) -> Result<Features> {
        Ok(match (self.dtype, spare) {
            (FeatureType::F32, Some(Features::F32(x))) => Features::F32(self.copy(parts, Some(x), room)?),
            (FeatureType::F16, Some(Features::F16(x))) => Features::F16(self.copy(parts, Some(x), room)?),
            (FeatureType::Bf16, Some(Features::Bf16(x))) => Features::Bf16(self.copy(parts, Some(x), room)?),
            (FeatureType::F32, _) => Features::F32(self.copy(parts, None, room)?),
            (FeatureType::F16, _) => Features::F16(self.copy(parts, None, room)?),
            (FeatureType::Bf16, _) => Features::Bf16(self.copy(parts, None, room)?),
        })
    }

    /// The number of rows of a part.
    pub(crate) fn rows(&self, part: &Part) -> usize {
        part.rows.as_ref().map_or_else(|| self.ragged.bag(part.patient).len(), Vec::len) + part.padding
    }

    /// The parts as elements of `T`, whose size must be that of the element type.
    fn copy<T: Element>(&self, parts: &[Part], spare: Option<Tensor<T>>, room: usize) -> Result<Tensor<T>> {
        let rows: usize = parts.iter().map(|part| self.rows(part)).sum();
        let count = rows * self.width;
        let spare = spare.and_then(Tensor::into_unshared).filter(|spare| spare.len() >= count);
        let mut elements = spare.unwrap_or_else(|| zeroed(rows.max(room) * self.width));
        self.read(&self.runs(parts), 0, bytemuck::cast_slice_mut(&mut elements[..count]))?;
        // What is behind it is kept for a larger batch.
        Ok(Tensor::first_of(&[rows, self.width], elements))
    }

    /// The rows of parts of bags, in order, consecutive ones together.
    pub(crate) fn runs(&self, parts: &[Part]) -> Vec<Run<'_>> {
        let mut runs = Vec::new();
        for part in parts {
            self.runs_of(part, &mut runs);
            if part.padding > 0 {
                runs.push(Run { piece: None, rows: 0..part.padding });
            }
        }
        runs
    }

    /// Those of a bag.
    fn runs_of<'a>(&'a self, part: &Part, runs: &mut Vec<Run<'a>>) {
        let pieces = &self.pieces[part.patient];
        match &part.rows {
            None => runs.extend(pieces.iter().map(|piece| {
                let rows = piece.first_row..piece.first_row + piece.rows;
                Run { piece: Some(piece), rows }
            })),
            Some(rows) => {
                let (mut wanted, mut end) = (rows.iter().copied().peekable(), 0);
                for piece in pieces {
                    let start = end;
                    end += piece.rows;
                    while let Some(row) = wanted.next_if(|&row| row < end) {
                        let mut rows = row..row + 1;
                        while wanted.next_if(|&next| next == rows.end && next < end).is_some() {
                            rows.end += 1;
                        }
                        let in_file = |row: usize| row - start + piece.first_row;
                        runs.push(Run { piece: Some(piece), rows: in_file(rows.start)..in_file(rows.end) });
                    }
                }
            }
        }
    }

    /// Copies bytes of some runs, one after another, from byte `from` of all of them on.
    pub(crate) fn read(&self, runs: &[Run<'_>], from: usize, to: &mut [u8]) -> Result<()> {
        // The caches would not hold it until it is used.
        let passing = to.len() > CACHES;
        let mut left = to;
        let (mut here, mut absent) = (Vec::new(), Vec::new());
        let jobs = self.jobs(runs, from, left.len());
        let mut wrong: Vec<Option<Problem>> = jobs.iter().map(|_| None).collect();
        for (job, wrong) in jobs.into_iter().zip(&mut wrong) {
            let (to, rest) = left.split_at_mut(job.bytes);
            let waits = job.piece.is_some_and(|piece| piece.file.is_absent(&job.spans));
            if waits { &mut absent } else { &mut here }.push((job, to, wrong));
            left = rest;
        }
        assert!(left.is_empty(), "more bytes were asked for than the bags have");
        if rayon::current_thread_index().is_some() {
            // A thread of the pool would take up other work while it waits, such as the next bag, and while it waits for that the
            // next one, and hold the memory of all of them: it reads alone.
            for (job, to, wrong) in here.drain(..).chain(absent.drain(..)) {
                *wrong = job.copy(to, passing);
            }
        }
        rayon::in_place_scope(|pool| {
            for (job, to, wrong) in here {
                pool.spawn(move |_| *wrong = job.copy(to, passing));
            }
            // These wait for the disk, and the threads of the pool go on with the model.
            let waiting = absent.len().min(WAITING);
            let absent = Mutex::new(absent.into_iter());
            std::thread::scope(|threads| {
                for _ in 0..waiting {
                    threads.spawn(|| {
                        let next = || absent.lock().unwrap_or_else(PoisonError::into_inner).next();
                        while let Some((job, to, wrong)) = next() {
                            if let Some(piece) = job.piece {
                                piece.file.wait(&job.spans);
                            }
                            pool.spawn(move |_| *wrong = job.copy(to, passing));
                        }
                    });
                }
            });
        });
        let mut problems = Problems::default();
        for problem in wrong.into_iter().flatten() {
            // A file that is gone is told once, not by every task.
            if !problems.0.contains(&problem) {
                problems.push(problem);
            }
        }
        problems.or(())
    }

    /// Cuts bytes of some runs into tasks: large enough to be worth one, small enough to share a long bag among threads.
    fn jobs<'a>(&self, runs: &[Run<'a>], from: usize, len: usize) -> Vec<Job<'a>> {
        let row_bytes = self.width * self.dtype.bytes();
        let (mut skip, mut left, mut jobs) = (from, len, Vec::<Job<'a>>::new());
        for &Run { piece, ref rows } in runs {
            let bytes = rows.len() * row_bytes;
            if bytes <= skip {
                skip -= bytes;
                continue;
            }
            if left == 0 {
                break;
            }
            let start = rows.start * row_bytes + skip;
            let span = start..start + (bytes - skip).min(left);
            (skip, left) = (0, left - span.len());
            let Some(file) = piece.map(|piece| &piece.file) else {
                jobs.push(Job { piece, bytes: span.len(), spans: vec![span] });
                continue;
            };
            let block = file.block_rows() * row_bytes;
            let whole =
                |span: &Range<usize>| span.start.is_multiple_of(row_bytes) && span.end.is_multiple_of(row_bytes);
            if let Some(job) = jobs.last_mut().filter(|job| {
                let last = &job.spans[job.spans.len() - 1];
                let apart = whole(&span) && whole(&job.spans[0]) && last.end <= span.start;
                job.piece.zip(piece).is_some_and(|(last, this)| std::ptr::eq(last, this))
                    && apart
                    && job.bytes + span.len() <= block
            }) {
                job.bytes += span.len();
                job.spans.push(span);
                continue;
            }
            let cut = span.clone().step_by(block).map(|start| start..(start + block).min(span.end));
            jobs.extend(cut.map(|span| Job { piece, bytes: span.len(), spans: vec![span] }));
        }
        jobs
    }

    /// The rows of a bag as they lie in its files, in order, as many at a time as are best read at once: little-endian elements.
    /// Nothing of a file that is mapped and neither packed nor in f64 is copied.
    pub(crate) fn look_at(&self, patient: usize, mut look: impl FnMut(&[u8])) -> Result<()> {
        let mut memory = Vec::new();
        for piece in &self.pieces[patient] {
            for rows in piece.blocks() {
                let bytes = piece.bytes(rows, &mut memory).map_err(|problem| Problems(vec![problem]))?;
                look(bytes);
            }
        }
        Ok(())
    }

    /// Looks at every element of every bag and reports each slide with a NaN or an infinity in it, and each that cannot
    /// be read.
    ///
    /// Reads all files once; the work is divided by slides and blocks of rows.
    pub(super) fn scan(&self, problems: &mut Problems) {
        let found: Vec<Option<Problem>> = self.pieces.par_iter().flatten().map(|p| self.scan_piece(p)).collect();
        problems.0.extend(found.into_iter().flatten());
    }

    pub(super) fn scan_piece(&self, piece: &Piece) -> Option<Problem> {
        let row_bytes = self.width * self.dtype.bytes();
        let look = |bytes: &[u8]| {
            if self.dtype.has_non_finite(bytes) { self.wrong_rows(bytes, row_bytes) } else { (None, 0) }
        };
        let ranges: Vec<Range<usize>> = piece.blocks().collect();
        let blocks: Vec<Result<(Option<Place>, usize), Problem>> =
            ranges.par_iter().map(|rows| piece.bytes(rows.clone(), &mut Vec::new()).map(look)).collect();
        let mut wrong = (None, 0);
        for (block, Range { start: first, .. }) in blocks.into_iter().zip(ranges) {
            match block {
                Ok((place, rows)) => {
                    let place = place.map(|(row, column, value)| (first + row, column, value));
                    wrong = (wrong.0.or(place), wrong.1 + rows);
                }
                Err(problem) => return Some(problem),
            }
        }
        let ((row, column, value), rows) = (wrong.0?, wrong.1);
        let (file, name) = (piece.file.path().into(), piece.name.clone());
        Some(Problem::FeatureNotFinite { file, name, row, column, value, rows })
    }

    /// The first element of a block that is not finite, and how many of its rows have any.
    fn wrong_rows(&self, block: &[u8], row_bytes: usize) -> (Option<Place>, usize) {
        let mut first = None;
        let mut rows = 0;
        for (row, bytes) in block.chunks(row_bytes).enumerate() {
            let mut elements = bytes.chunks(self.dtype.bytes()).map(|b| self.dtype.read(b)).enumerate();
            if let Some((column, value)) = elements.find(|(_, x)| !x.is_finite()) {
                first = first.or(Some((row, column, value)));
                rows += 1;
            }
        }
        (first, rows)
    }
}

impl FeatureType {
    /// Whether any element has the exponent of NaN and infinity.
    fn has_non_finite(self, bytes: &[u8]) -> bool {
        // Looked at to its end, which a compiler makes vectors of, and short enough that a long array need not be.
        const SOME: usize = 16 << 10;
        let half = |bytes: &[u8], mask: u16| {
            let found = |found, &b: &[u8; 2]| found | (u16::from_le_bytes(b) & mask == mask);
            bytes.as_chunks().0.iter().fold(false, found)
        };
        let single = |found, &b: &[u8; 4]| found | (u32::from_le_bytes(b) & 0x7f80_0000 == 0x7f80_0000);
        bytes.chunks(SOME).any(|bytes| match self {
            FeatureType::F32 => bytes.as_chunks().0.iter().fold(false, single),
            FeatureType::F16 => half(bytes, 0x7c00),
            FeatureType::Bf16 => half(bytes, 0x7f80),
        })
    }

    /// One element out of exactly its bytes.
    pub(super) fn read(self, bytes: &[u8]) -> f32 {
        match (self, bytes) {
            (FeatureType::F32, &[a, b, c, d]) => f32::from_le_bytes([a, b, c, d]),
            (FeatureType::F16, &[a, b]) => half::f16::from_le_bytes([a, b]).to_f32(),
            (FeatureType::Bf16, &[a, b]) => half::bf16::from_le_bytes([a, b]).to_f32(),
            _ => unreachable!("rows are whole elements"),
        }
    }

    /// Many elements out of exactly their bytes, exact.
    pub(crate) fn read_all(self, bytes: &[u8], to: &mut [f32]) {
        fn aligned<F: Feature>(bytes: &[u8], to: &mut [f32]) -> bool {
            bytemuck::try_cast_slice(bytes).map(|from| F::to_f32(from, to)).is_ok()
        }
        let read = match self {
            FeatureType::F32 => aligned::<f32>(bytes, to),
            FeatureType::F16 => aligned::<half::f16>(bytes, to),
            FeatureType::Bf16 => aligned::<half::bf16>(bytes, to),
        };
        if !read {
            bytes.chunks_exact(self.bytes()).zip(to).for_each(|(bytes, to)| *to = self.read(bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_elements_are_read_from_any_place_as_one_is() {
        let memory: Vec<u8> = (0..4 * 50 + 3).map(|i| (i * 37 % 251) as u8).collect();
        for dtype in [FeatureType::F32, FeatureType::F16, FeatureType::Bf16] {
            for start in 0..4 {
                let bytes = &memory[start..][..dtype.bytes() * 49];
                let mut read = [0.0f32; 49];
                dtype.read_all(bytes, &mut read);
                let each = bytes.chunks_exact(dtype.bytes()).map(|bytes| dtype.read(bytes).to_bits());
                assert!(read.iter().map(|x| x.to_bits()).eq(each), "{dtype} {start}");
            }
        }
    }

    #[test]
    fn the_fast_look_finds_exactly_what_is_not_finite() {
        for bits in 0..=u16::MAX {
            let bytes = bits.to_le_bytes();
            for dtype in [FeatureType::F16, FeatureType::Bf16] {
                assert_eq!(dtype.has_non_finite(&bytes), !dtype.read(&bytes).is_finite(), "{dtype} {bits:#x}");
            }
            // The upper half decides for f32; the lower half makes a NaN out of an infinity.
            for lower in [0, 1, u16::MAX] {
                let x = f32::from_bits(u32::from(bits) << 16 | u32::from(lower));
                assert_eq!(FeatureType::F32.has_non_finite(&x.to_le_bytes()), !x.is_finite(), "{x}");
            }
        }
    }

    #[test]
    fn one_that_is_not_finite_is_found_anywhere_in_a_long_array() {
        let mut array = vec![f32::MAX; 20_000];
        assert!(!FeatureType::F32.has_non_finite(bytemuck::cast_slice(&array)));
        for at in [0, 4095, 4096, 4097, 8191, 19_998, 19_999] {
            array[at] = f32::INFINITY;
            assert!(FeatureType::F32.has_non_finite(bytemuck::cast_slice(&array)), "{at}");
            array[at] = f32::MAX;
        }
    }
}
