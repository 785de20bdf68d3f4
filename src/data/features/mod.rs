//! Files of patch features, in the layouts that the tools of the field write.
//!
//! A file is told by what is in it, never by its name: HDF5 of TRIDENT, CLAM, STAMP and MMP, `.pt` of torch, npy, npz
//! and safetensors. All of them are the same from here on: a [`FeatureFile`] has rows of features, maybe a place for each
//! row, and what the file says of its making. Nothing in a file is executed, and no extent that it claims is believed
//! before it was compared with the length of the file.

mod coords;
mod h5;
mod hdf5;
mod hdf5_out;
mod matrix;
mod npy;
mod pickle;
mod safetensors;
mod statistics;
mod torch;
mod zip;

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::bytes::{Bytes, Reading};
use super::problem::{Problem, Problems};
use super::tensors::TensorFile;
use crate::element::Feature;
use crate::error::{Result, said};
use crate::features::FeatureType;
pub use coords::{CoordUnit, Coords};
pub(crate) use hdf5_out::{DataSet, Kind as DataKind, write_hdf5};
use matrix::{Array, Matrix, Number};
pub use statistics::Statistics;

/// What a tensor of features must be like, for messages.
const WANT: &str = "[instances, features]";
/// Wider than the features of any encoder; keeps absurd widths from overflowing.
const MAX_WIDTH: usize = 1 << 24;

/// The tool and the format that a file of features is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub enum Dialect {
    /// HDF5 of TRIDENT: `features` and `coords`, a chunk a row, attributes.
    Trident,
    /// HDF5 of CLAM: `features` and `coords`, no attributes.
    Clam,
    /// HDF5 of STAMP, from 2.1 on: `feats`, places in micrometres.
    Stamp,
    /// HDF5 of STAMP 2.0.
    #[serde(rename = "Stamp 2.0")]
    Stamp20,
    /// HDF5 of STAMP before 2.0, without attributes.
    StampHistoric,
    /// HDF5 of STAMP with `patch_embeddings` in place of `feats`.
    StampEmbeddings,
    /// HDF5 of MMP and PANTHER: `features` with a leading dimension of 1.
    Mmp,
    /// HDF5 with `Res_feature`, of a fixed number of rows.
    ResFeature,
    /// Other HDF5 with `features`.
    Hdf5,
    /// A tensor that torch saved.
    Torch,
    /// A dictionary of tensors that torch saved.
    TorchDictionary,
    /// A numpy array that torch pickled, as `--saveas pt` of TRIDENT does.
    TorchNumpy,
    /// One array of numpy.
    Npy,
    /// Several arrays of numpy.
    Npz,
    /// safetensors.
    Safetensors,
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Dialect::Trident => "HDF5 of TRIDENT",
            Dialect::Clam => "HDF5 of CLAM",
            Dialect::Stamp => "HDF5 of STAMP",
            Dialect::Stamp20 => "HDF5 of STAMP 2.0",
            Dialect::StampHistoric => "HDF5 of STAMP before 2.0",
            Dialect::StampEmbeddings => "HDF5 of STAMP with patch_embeddings",
            Dialect::Mmp => "HDF5 of MMP or PANTHER",
            Dialect::ResFeature => "HDF5 with Res_feature",
            Dialect::Hdf5 => "HDF5",
            Dialect::Torch => "tensor of torch",
            Dialect::TorchDictionary => "dictionary of torch",
            Dialect::TorchNumpy => "numpy array pickled by torch",
            Dialect::Npy => "npy",
            Dialect::Npz => "npz",
            Dialect::Safetensors => "safetensors",
        })
    }
}

/// The sides of a patch, as far as a file says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PatchSize {
    /// In pixels, as the encoder saw it.
    pub pixels: Option<f64>,
    /// In pixels of level 0 of the slide.
    pub level0_pixels: Option<f64>,
    /// In micrometres.
    pub microns: Option<f64>,
}

/// What a reader made of a file.
struct Found {
    dialect: Dialect,
    features: Array,
    coords: Option<(Array, CoordUnit, f64)>,
    encoder: Option<String>,
    patch: PatchSize,
    notes: Vec<String>,
}

impl Found {
    fn plain(dialect: Dialect, features: Array) -> Found {
        let patch = PatchSize::default();
        Found { dialect, features, coords: None, encoder: None, patch, notes: Vec::new() }
    }

    /// With places of which the file does not say what they are in.
    fn places(mut self, coords: Option<Array>) -> Found {
        self.coords = coords.map(|array| (array, CoordUnit::Unknown, 1.0));
        self
    }
}

/// An opened file of patch features, `[rows, width]`. Rows are read when they are asked for.
#[derive(Debug)]
pub struct FeatureFile {
    path: PathBuf,
    dialect: Dialect,
    tensor: String,
    shape: Vec<usize>,
    matrix: Matrix,
    dtype: FeatureType,
    coords: Option<Coords>,
    encoder: Option<String>,
    patch: PatchSize,
    notes: Vec<String>,
}

/// The formats, by how they begin.
enum Kind {
    Safetensors,
    Hdf5,
    Zip,
    Npy,
    /// None that is read, and what it is.
    Other(&'static str),
}

impl Kind {
    fn of(file: &Bytes) -> Result<Kind, String> {
        /// More than any beginning that is looked for.
        const BEGINNING: usize = 64;
        const PROTOCOL: u8 = 0x80;
        // The number 0x1950a86a20f9469cfc6c that torch wrote first, as a pickle.
        const LEGACY: &[u8] = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";
        let start = file.up_to(0, BEGINNING)?;
        Ok(match &*start {
            [] => Kind::Other("is empty; copy or write the file again"),
            [b'P', b'K', 3 | 5, 4 | 6, ..] => Kind::Zip,
            [0x93, b'N', b'U', b'M', b'P', b'Y', ..] => Kind::Npy,
            [PROTOCOL, _, rest @ ..] if rest.starts_with(LEGACY) => Kind::Other(
                "was saved by torch in the form before 1.6, which is not read; load it in Python and save it again with \
                 torch.save",
            ),
            [PROTOCOL, 0..=5, ..] => Kind::Other(
                "is a pickle of Python on its own, which is not read; save the array with numpy.save or torch.save",
            ),
            _ if start.starts_with(b"version https://git-lfs") => {
                Kind::Other("is a pointer of git-lfs and not the file; get the file with git lfs pull")
            }
            _ if hdf5::begins(file)? => Kind::Hdf5,
            [_, _, _, _, _, _, _, _, b'{', ..] => Kind::Safetensors,
            _ => Kind::Other("is none of HDF5, .pt of torch, npy, npz and safetensors"),
        })
    }
}

/// A problem of a file of features. A sentence is one line, whatever the names in the file have in them.
fn why(path: &Path, why: impl Into<String>) -> Problem {
    let printable = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    Problem::Features { file: path.into(), why: why.into().chars().map(printable).collect() }
}

impl FeatureFile {
    /// Opens a file of patch features, whichever format it has.
    ///
    /// # Errors
    /// [`Error::Data`](crate::Error::Data) with one problem that says what the file is and what to do.
    pub fn open(path: impl AsRef<Path>) -> Result<FeatureFile> {
        FeatureFile::open_by(path, Reading::default())
    }

    /// Like [`open`](Self::open), with a choice of how it is read.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_by(path: impl AsRef<Path>, reading: Reading) -> Result<FeatureFile> {
        FeatureFile::read(path.as_ref(), reading).map_err(|problem| Problems(vec![problem]).into())
    }

    pub(super) fn read(path: &Path, reading: Reading) -> Result<FeatureFile, Problem> {
        let unreadable = |why| Problem::Unreadable { file: path.into(), why };
        let bytes = Arc::new(Bytes::open(path, reading).map_err(|e| unreadable(said(&e)))?);
        let found = match Kind::of(&bytes).map_err(unreadable)? {
            Kind::Safetensors => safetensors::found(&TensorFile::of(path, bytes.clone())?)?,
            Kind::Hdf5 => h5::found(path, bytes.clone())?,
            Kind::Zip => zip::found(path, &bytes)?,
            Kind::Npy => npy::found(path, &bytes)?,
            Kind::Other(sentence) => return Err(why(path, sentence)),
        };
        let file = FeatureFile::of(path, found);
        bytes.rest();
        file
    }

    /// The features of a safetensors file whose other tensors are used too.
    pub(super) fn of_tensors(file: &TensorFile) -> Result<FeatureFile, Problem> {
        FeatureFile::of(&file.path, safetensors::found(file)?)
    }

    fn of(path: &Path, found: Found) -> Result<FeatureFile, Problem> {
        let Found { dialect, features, coords, encoder, patch, mut notes } = found;
        let (tensor, shape) = (features.name.clone(), features.shape.clone());
        let dtype = match features.number {
            Number::F32 | Number::F64 => FeatureType::F32,
            Number::F16 => FeatureType::F16,
            Number::Bf16 => FeatureType::Bf16,
            other => {
                let (want, got) = ("F32, F16, BF16 or F64", other.name().to_owned());
                return Err(Problem::Dtype { file: path.into(), tensor, want, got });
            }
        };
        if features.number == Number::F64 {
            notes.push("features are stored as F64 and rounded to F32".into());
        }
        let matrix = features.matrix(path)?;
        let coords =
            coords.map(|(array, unit, scale)| Coords::new(path, array, matrix.rows, unit, scale)).transpose()?;
        Ok(FeatureFile { path: path.into(), dialect, tensor, shape, matrix, dtype, coords, encoder, patch, notes })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The tool and the format.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// What the features are called in the file.
    pub fn tensor(&self) -> &str {
        &self.tensor
    }

    /// The shape as it is stored, with a leading 1 where the tool keeps one.
    pub fn stored_shape(&self) -> &[usize] {
        &self.shape
    }

    /// The element type as it is stored, as safetensors names it.
    pub fn stored_type(&self) -> &'static str {
        self.matrix.number.name()
    }

    /// The number of instances.
    pub fn rows(&self) -> usize {
        self.matrix.rows
    }

    /// The number of features of an instance; 0 for a slide without instances whose file does not say.
    pub fn width(&self) -> usize {
        self.matrix.width
    }

    /// The element type that rows are read in: the stored one, but F32 for F64.
    pub fn dtype(&self) -> FeatureType {
        self.dtype
    }

    /// The place of each instance, if the file has them.
    pub fn coords(&self) -> Option<&Coords> {
        self.coords.as_ref()
    }

    /// The encoder, if the file says.
    pub fn encoder(&self) -> Option<&str> {
        self.encoder.as_deref()
    }

    /// The sides of a patch, as far as the file says.
    pub fn patch_size(&self) -> PatchSize {
        self.patch
    }

    /// What was done to the features, or guessed, in sentences.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The bytes of a row as it is read.
    pub fn row_bytes(&self) -> usize {
        self.matrix.width * self.dtype.bytes()
    }

    /// Reads rows into `to`, which has [`row_bytes`](Self::row_bytes) for each: little-endian elements of
    /// [`dtype`](Self::dtype).
    ///
    /// # Errors
    /// [`Error::Data`](crate::Error::Data) if that part of the file is damaged.
    ///
    /// # Panics
    /// If the rows are not in the file, or `to` has another length.
    pub fn read_rows(&self, rows: Range<usize>, to: &mut [u8]) -> Result<()> {
        self.rows_into(rows, to).map_err(|problem| Problems(vec![problem]).into())
    }

    pub(super) fn rows_into(&self, rows: Range<usize>, to: &mut [u8]) -> Result<(), Problem> {
        assert!(rows.start <= rows.end && rows.end <= self.matrix.rows, "rows that the file has");
        assert_eq!(to.len(), rows.len() * self.row_bytes(), "room for the rows");
        if self.matrix.number != Number::F64 {
            return self.matrix.read(rows, to).map_err(|e| self.damaged(&e));
        }
        if to.is_empty() {
            return Ok(());
        }
        let step = (self.matrix.block() / (size_of::<f64>() * self.matrix.width)).max(1);
        let mut doubles = vec![0f64; step.min(rows.len()) * self.matrix.width];
        let mut floats = vec![0f32; doubles.len()];
        for (first, to) in rows.clone().step_by(step).zip(to.chunks_mut(step * self.row_bytes())) {
            let n = to.len() / size_of::<f32>();
            let some = first..(first + step).min(rows.end);
            let read = self.matrix.read(some, bytemuck::cast_slice_mut(&mut doubles[..n]));
            read.map_err(|e| self.damaged(&e))?;
            f64::to_f32(&doubles[..n], &mut floats[..n]);
            to.copy_from_slice(bytemuck::cast_slice(&floats[..n]));
        }
        Ok(())
    }

    /// A sentence about rows that cannot be read.
    fn damaged(&self, e: &str) -> Problem {
        why(&self.path, format!("{} cannot be read: {e}", self.tensor))
    }

    /// Bytes as they lie in the file, where they can be used without being copied: a range of those that
    /// [`bytes_into`](Self::bytes_into) counts.
    pub(super) fn slice(&self, range: Range<usize>) -> Option<&[u8]> {
        if self.matrix.number == Number::F64 { None } else { self.matrix.slice(range) }
    }

    /// Whether to [`wait`](Self::wait) for bytes before they are copied: ranges of those that
    /// [`bytes_into`](Self::bytes_into) counts.
    pub(super) fn is_absent(&self, ranges: &[Range<usize>]) -> bool {
        let absent = |(file, range): (&Bytes, Range<usize>)| file.is_absent(range);
        self.matrix.number != Number::F64
            && ranges.iter().any(|range| self.matrix.place(range.clone()).is_some_and(absent))
    }

    /// Waits until bytes of a mapped file are in memory.
    pub(super) fn wait(&self, ranges: &[Range<usize>]) {
        for (file, range) in ranges.iter().filter_map(|range| self.matrix.place(range.clone())) {
            file.wait(range);
        }
    }

    /// How many rows are best read at once; at least one.
    pub(super) fn block_rows(&self) -> usize {
        (self.matrix.block() / self.row_bytes().max(1)).max(1)
    }

    /// Bytes of some rows, one run after another: ranges of the bytes that [`bytes_into`](Self::bytes_into) counts,
    /// ascending and apart, each of whole rows.
    pub(super) fn runs_into(&self, runs: &[Range<usize>], to: &mut [u8]) -> Result<(), Problem> {
        let row_bytes = self.row_bytes();
        let rows: Vec<Range<usize>> = runs.iter().map(|run| run.start / row_bytes..run.end / row_bytes).collect();
        if self.matrix.number != Number::F64 {
            return self.matrix.pick(&rows, to).map_err(|e| self.damaged(&e));
        }
        let mut doubles = vec![0f64; to.len() / size_of::<f32>()];
        self.matrix.pick(&rows, bytemuck::cast_slice_mut(&mut doubles)).map_err(|e| self.damaged(&e))?;
        let mut floats = vec![0f32; doubles.len()];
        f64::to_f32(&doubles, &mut floats);
        to.copy_from_slice(bytemuck::cast_slice(&floats));
        Ok(())
    }

    /// Bytes of the matrix of rows, one after another, from byte `from` on.
    pub(super) fn bytes_into(&self, from: usize, to: &mut [u8]) -> Result<(), Problem> {
        let row_bytes = self.row_bytes();
        if to.is_empty() {
            return Ok(());
        }
        if self.matrix.number != Number::F64
            && let Some(read) = self.matrix.bytes(from, to)
        {
            return read.map_err(|e| self.damaged(&e));
        }
        let (mut at, mut left) = (from, to);
        let mut row = vec![0; row_bytes];
        while !left.is_empty() {
            let (first, skip) = (at / row_bytes, at % row_bytes);
            let whole = left.len() / row_bytes;
            let take = if skip > 0 || whole == 0 {
                self.rows_into(first..first + 1, &mut row)?;
                let take = (row_bytes - skip).min(left.len());
                left[..take].copy_from_slice(&row[skip..skip + take]);
                take
            } else {
                self.rows_into(first..first + whole, &mut left[..whole * row_bytes])?;
                whole * row_bytes
            };
            (at, left) = (at + take, &mut left[take..]);
        }
        Ok(())
    }
}
