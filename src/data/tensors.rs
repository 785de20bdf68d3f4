//! Tensors in a safetensors file.
//!
//! The header is checked here with arithmetic that cannot overflow, before anything believes it: a claimed extent is
//! compared with the length of the file, never allocated. Elements are read by copying, since the format does not
//! promise any alignment.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use super::bytes::{Bytes, Reading};
use super::problem::{Problem, Problems};
use crate::error::said;

// Features are copied out of a file as bytes; the format is little-endian.
const _: () = assert!(cfg!(target_endian = "little"), "onkos reads safetensors on little-endian machines only");

/// The length of the header length.
const PREFIX: usize = 8;
/// No header is longer than this in the reference implementation either.
const MAX_HEADER: u64 = 100_000_000;

#[derive(Deserialize)]
struct Header {
    #[serde(rename = "__metadata__")]
    metadata: Option<BTreeMap<String, String>>,
    #[serde(flatten)]
    tensors: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

/// The bytes of one element, for the types that are read anywhere in onkos.
fn bytes_of(dtype: &str) -> Option<u64> {
    Some(match dtype {
        "BOOL" | "U8" | "I8" => 1,
        "I16" | "U16" | "F16" | "BF16" => 2,
        "I32" | "U32" | "F32" => 4,
        "I64" | "U64" | "F64" => 8,
        _ => return None,
    })
}

/// One tensor of a file: its type, its shape and where its bytes lie.
#[derive(Clone, Debug)]
pub(crate) struct Info {
    pub(crate) dtype: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) range: Range<usize>,
}

type Tensors = BTreeMap<String, Info>;
type Metadata = BTreeMap<String, String>;

/// A safetensors file whose header has been checked.
#[derive(Debug)]
pub(crate) struct TensorFile {
    pub(crate) path: PathBuf,
    file: Arc<Bytes>,
    tensors: Tensors,
    metadata: Metadata,
}

impl TensorFile {
    /// Opens a file and checks its header.
    pub(crate) fn open(path: &Path, reading: Reading, problems: &mut Problems) -> Option<TensorFile> {
        let file = Bytes::open(path, reading).map_err(|e| Problem::Unreadable { file: path.into(), why: said(&e) });
        match file.and_then(|file| TensorFile::of(path, Arc::new(file))) {
            Ok(file) => Some(file),
            Err(problem) => {
                problems.push(problem);
                None
            }
        }
    }

    /// Checks the header of an opened file.
    pub(crate) fn of(path: &Path, file: Arc<Bytes>) -> Result<TensorFile, Problem> {
        let (tensors, metadata) = header(path, &file)?;
        Ok(TensorFile { path: path.into(), file, tensors, metadata })
    }

    /// The whole file.
    pub(super) fn file(&self) -> &Arc<Bytes> {
        &self.file
    }

    /// A text of the header's metadata.
    pub(crate) fn metadata(&self, key: &str) -> Option<&str> {
        self.metadata.get(key).map(String::as_str)
    }

    /// Every tensor by name, in order.
    pub(crate) fn tensors(&self) -> impl Iterator<Item = (&str, &Info)> {
        self.tensors.iter().map(|(name, info)| (name.as_str(), info))
    }

    /// A tensor by name.
    pub(crate) fn tensor(&self, name: &str, problems: &mut Problems) -> Option<&Info> {
        let found = self.tensors.get(name);
        if found.is_none() {
            let has = self.tensors.keys().cloned().collect();
            problems.push(Problem::MissingTensor { file: self.path.clone(), tensor: name.into(), has });
        }
        found
    }

    /// The elements of a tensor as integers, or a problem if it is of another type.
    pub(crate) fn integers(&self, name: &str, info: &Info, problems: &mut Problems) -> Option<Vec<i128>> {
        let found = match info.dtype.as_str() {
            "I32" => self.elements(info, |b| i32::from_le_bytes(b).into()),
            "U32" => self.elements(info, |b| u32::from_le_bytes(b).into()),
            "I64" => self.elements(info, |b| i64::from_le_bytes(b).into()),
            "U64" => self.elements(info, |b| u64::from_le_bytes(b).into()),
            got => {
                let want = "I32, I64, U32 or U64";
                problems.push(Problem::Dtype { file: self.path.clone(), tensor: name.into(), want, got: got.into() });
                return None;
            }
        };
        found.map_err(|why| problems.push(Problem::Unreadable { file: self.path.clone(), why })).ok()
    }

    /// The elements of a tensor as `f32`, or a problem if it is of another type.
    pub(crate) fn floats(&self, name: &str, info: &Info, problems: &mut Problems) -> Option<Vec<f32>> {
        let found = match info.dtype.as_str() {
            "F32" => self.elements(info, f32::from_le_bytes),
            "F64" => self.elements(info, |b| f64::from_le_bytes(b) as f32),
            "F16" => self.elements(info, |b| half::f16::from_le_bytes(b).to_f32()),
            "BF16" => self.elements(info, |b| half::bf16::from_le_bytes(b).to_f32()),
            got => {
                let want = "F32, F64, F16 or BF16";
                problems.push(Problem::Dtype { file: self.path.clone(), tensor: name.into(), want, got: got.into() });
                return None;
            }
        };
        found.map_err(|why| problems.push(Problem::Unreadable { file: self.path.clone(), why })).ok()
    }

    /// Copies elements out of bytes of any alignment.
    fn elements<const W: usize, T>(&self, info: &Info, read: impl Fn([u8; W]) -> T) -> Result<Vec<T>, String> {
        /// Elements that are read at once where the file is not mapped.
        const PIECE: usize = 1 << 16;
        let mut all = Vec::with_capacity(info.range.len() / W);
        for start in info.range.clone().step_by(PIECE * W) {
            let bytes = self.file.up_to(start, (PIECE * W).min(info.range.end - start))?;
            all.extend(bytes.as_chunks::<W>().0.iter().map(|chunk| read(*chunk)));
        }
        Ok(all)
    }
}

/// Reads and checks the header of a file: tensors lie one after another and fill the file exactly.
fn header(path: &Path, file: &Bytes) -> Result<(Tensors, Metadata), Problem> {
    let wrong = |why: String| Problem::Header { file: path.into(), why };
    let got = file.len() as u64;
    let unreadable = |why: String| Problem::Unreadable { file: path.into(), why };
    let prefix = file.up_to(0, PREFIX).map_err(unreadable)?;
    let prefix = prefix.first_chunk::<PREFIX>();
    let length = u64::from_le_bytes(*prefix.ok_or(Problem::Extent { file: path.into(), want: PREFIX as u128, got })?);
    if length > MAX_HEADER {
        return Err(wrong(format!("a header of {length} bytes is claimed, at most {MAX_HEADER} are read")));
    }
    let start = PREFIX + length as usize;
    if start > file.len() {
        return Err(Problem::Extent { file: path.into(), want: start as u128, got });
    }
    let text = file.get(PREFIX..start).map_err(unreadable)?;
    let header: Header = serde_json::from_slice(&text).map_err(|e| wrong(format!("its header: {e}")))?;

    let mut order: Vec<(&String, &Entry)> = header.tensors.iter().collect();
    order.sort_by_key(|(_, entry)| entry.data_offsets);
    let mut end = 0;
    for (name, entry) in &order {
        let (from, to) = entry.data_offsets;
        let size = to.checked_sub(from);
        let elements = entry.shape.iter().try_fold(1u64, |n, &d| n.checked_mul(d));
        let claimed = bytes_of(&entry.dtype).map_or(size, |bytes| elements.and_then(|n| n.checked_mul(bytes)));
        if from != end || size.is_none() || size != claimed {
            return Err(wrong(format!(
                "tensor {name:?} of {} {:?} cannot lie in bytes {from}..{to} after byte {end}",
                entry.dtype, entry.shape
            )));
        }
        end = to;
    }
    let want = start as u128 + u128::from(end);
    if want != u128::from(got) {
        return Err(Problem::Extent { file: path.into(), want, got });
    }
    // From here on every offset is known to be at most the length of the file, hence a usize.
    let infos = header.tensors.into_iter().map(|(name, entry)| {
        let (from, to) = entry.data_offsets;
        let shape = entry.shape.iter().map(|&d| usize::try_from(d).unwrap_or(usize::MAX)).collect();
        (name, Info { dtype: entry.dtype, shape, range: start + from as usize..start + to as usize })
    });
    Ok((infos.collect(), header.metadata.unwrap_or_default()))
}
