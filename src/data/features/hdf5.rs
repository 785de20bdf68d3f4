//! HDF5 as onkos needs it: names, attributes and rows of data sets. The one file that knows the crate that reads it.
//!
//! A file is opened anew for each read: what the crate remembers of chunks and headers would otherwise grow with the
//! number of slides of a cohort, and opening one costs little beside reading a block of its rows.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use hdf5_reader::error::ByteOrder;
use hdf5_reader::messages::HdfMessage;
use hdf5_reader::messages::layout::DataLayout;
use hdf5_reader::storage::{BlockCacheStorage, Storage, StorageBuffer};
use hdf5_reader::{Attribute, Dataset, Datatype, H5Type, Hdf5File, OpenOptions, SliceInfo, SliceInfoElem};

use super::matrix::{Array, Elements, Number, extent, row_major};
use crate::data::bytes::Bytes;

const MAGIC: &[u8] = b"\x89HDF\r\n\x1a\n";
/// No chunk that a tool writes is near this; a thread holds one at a time.
const MAX_CHUNK: usize = 256 << 20;
/// A header of some attributes has kilobytes.
const MAX_HEADER: usize = 1 << 20;
/// The longest text or array of an attribute that is read.
const MAX_ATTRIBUTE: u64 = 1 << 16;
/// Filters that are undone: gzip, shuffle and checksums. None but gzip makes data larger, and that at most so much.
const FILTERS: [u16; 3] = [1, 2, 3];
const MAX_DEFLATE: u128 = 1032;

/// Whether a file begins as HDF5 does, maybe after a block of the user.
pub(super) fn begins(file: &Bytes) -> Result<bool, String> {
    for at in std::iter::once(0).chain((9..20).map(|power| 1usize << power)) {
        if *file.up_to(at, MAGIC.len())? == *MAGIC {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The bytes of a mapped file, shared.
struct Shared(Arc<Bytes>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        self.0.slice(0..self.0.len()).expect("it is mapped")
    }
}

/// A file that is not mapped, opened.
struct Pieces(Arc<Bytes>, Arc<File>);

impl Storage for Pieces {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_range(&self, offset: u64, len: usize) -> hdf5_reader::error::Result<StorageBuffer> {
        let beyond = || {
            let (needed, available) = (len as u64, self.len().saturating_sub(offset));
            hdf5_reader::error::Error::UnexpectedEof { offset, needed, available }
        };
        let at = usize::try_from(offset).map_err(|_| beyond())?;
        if at.checked_add(len).is_none_or(|end| end > self.0.len()) {
            return Err(beyond());
        }
        let mut bytes = vec![0; len];
        self.0.read_from(&self.1, at, &mut bytes).map_err(std::io::Error::other)?;
        Ok(StorageBuffer::from_vec(bytes))
    }
}

/// Chunks of a row and nodes of trees are small and lie near each other: they are read together, and so much is kept.
const PIECE: usize = 64 << 10;
const PIECES: usize = 64;

fn open(bytes: &Arc<Bytes>) -> Result<Hdf5File, String> {
    let options = OpenOptions {
        chunk_cache_bytes: 0,
        max_chunk_bytes: MAX_CHUNK,
        max_read_bytes: MAX_CHUNK,
        max_object_header_bytes: MAX_HEADER,
        ..OpenOptions::default()
    };
    let opened = match bytes.session()?.into_file() {
        None => Hdf5File::from_owner(Shared(bytes.clone()), options),
        Some(file) => {
            let pieces = BlockCacheStorage::new(Arc::new(Pieces(bytes.clone(), file)), PIECE, PIECES);
            Hdf5File::from_storage_with_options(Arc::new(pieces), options)
        }
    };
    opened.map_err(said)
}

/// What the crate says, in one line.
fn said(e: hdf5_reader::error::Error) -> String {
    match e {
        hdf5_reader::error::Error::Io(e) => crate::error::said(&e),
        other => other.to_string().replace('\n', " "),
    }
}

/// An attribute: a number or a text.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Said {
    Number(f64),
    Text(String),
}

/// Attributes by name; those that are neither a number nor a text are left out.
pub(super) type Attributes = BTreeMap<String, Said>;

fn attributes(all: Vec<Attribute>) -> Attributes {
    let value = |a: &Attribute| {
        if a.num_elements().ok()? != 1 || a.raw_data.len() as u64 > MAX_ATTRIBUTE {
            return None;
        }
        a.read_as_f64().map(Said::Number).or_else(|_| a.read_string().map(Said::Text)).ok()
    };
    all.iter().filter_map(|a| Some((a.name.clone(), value(a)?))).collect()
}

/// An opened HDF5 file.
pub(super) struct Hdf5 {
    bytes: Arc<Bytes>,
    file: Hdf5File,
}

impl Hdf5 {
    pub(super) fn open(bytes: Arc<Bytes>) -> Result<Hdf5, String> {
        let file = open(&bytes)?;
        let superblock = file.superblock();
        let end = u128::from(superblock.eof_address) + u128::from(superblock.base_address);
        if end > bytes.len() as u128 {
            return Err(format!("has {} bytes of {end}; copy or write the file again", bytes.len()));
        }
        Ok(Hdf5 { bytes, file })
    }

    /// The data sets at the top.
    pub(super) fn names(&self) -> Result<Vec<String>, String> {
        let (_, mut names) = self.file.root_group().and_then(|root| root.member_names()).map_err(said)?;
        names.sort_unstable();
        Ok(names)
    }

    /// The attributes of the file.
    pub(super) fn attributes(&self) -> Result<Attributes, String> {
        self.file.root_group().and_then(|root| root.attributes()).map(attributes).map_err(said)
    }

    /// A data set, its attributes, and the rows of a chunk if it is in chunks.
    pub(super) fn array(&self, name: &str) -> Result<(Array, Attributes, Option<u32>), String> {
        let data = self.file.dataset(name).map_err(said)?;
        let number = number(&data)?;
        let shape: Vec<usize> = data.shape().iter().map(|&d| usize::try_from(d).unwrap_or(usize::MAX)).collect();
        let too_large = || format!("{name} of shape {shape:?} does not fit into the file; write the file again");
        let size = extent(&shape, number).ok_or_else(too_large)?;
        let header = self.file.get_or_parse_header(data.address()).map_err(said)?;
        let (mut layout, mut room) = (None, self.bytes.len() as u128);
        for message in &header.messages {
            match message {
                HdfMessage::DataLayout(message) => layout = Some(&message.layout),
                HdfMessage::ExternalFiles(_) => {
                    return Err(format!("{name} lies in other files, which are not followed"));
                }
                HdfMessage::FilterPipeline(pipeline) => {
                    let mut seen = [false; FILTERS.len()];
                    for filter in &pipeline.filters {
                        let known = FILTERS.iter().position(|&id| id == filter.id);
                        let Some(known) = known.filter(|&known| !std::mem::replace(&mut seen[known], true)) else {
                            let called = filter.name.as_deref().unwrap_or("no name");
                            let (id, called) = (filter.id, called.trim_end_matches('\0').to_owned());
                            return Err(format!(
                                "{name} is compressed by filter {id} ({called}), which is not read; write it with gzip or \
                                 without compression, as h5repack does"
                            ));
                        };
                        if filter.id == FILTERS[known] && filter.id == 1 {
                            room *= MAX_DEFLATE;
                        }
                    }
                }
                _ => {}
            }
        }
        // What is empty has nothing to claim.
        if size as u128 > room {
            return Err(too_large());
        }
        let (attributes, chunks) = (attributes(data.attributes()), data.chunks());
        let chunk_rows = chunks.as_ref().and_then(|chunks| chunks.first().copied());
        let unwritten =
            || format!("{name} was never written; the extraction was interrupted, extract this slide again");
        let elements = match layout {
            Some(DataLayout::Contiguous { address, size: stored }) if size > 0 => {
                // All bits set: no address was given.
                let start = self.file.superblock().base_address.checked_add(*address).ok_or_else(unwritten)?;
                let start =
                    usize::try_from(start).ok().filter(|&start| start < self.bytes.len()).ok_or_else(unwritten)?;
                let end = usize::try_from(*stored).ok().and_then(|stored| start.checked_add(stored));
                let end = end.filter(|&end| end <= self.bytes.len()).ok_or_else(too_large)?;
                let strides = row_major(&shape, number);
                let array = Array::plain(name, shape, number, &self.bytes, start..end, 0, strides)?;
                return Ok((array, attributes, chunk_rows));
            }
            Some(DataLayout::Chunked { address: u64::MAX, .. }) if size > 0 => return Err(unwritten()),
            _ => {
                let leading = shape.len() == 3;
                let in_chunk = chunks.as_ref().and_then(|chunks| chunks.get(usize::from(leading)).copied());
                let chunk_rows = in_chunk.map_or(1, |rows| rows as usize);
                Elements::Hdf5(Hdf5Rows { bytes: self.bytes.clone(), name: name.into(), leading, chunk_rows })
            }
        };
        Ok((Array { name: name.into(), shape, number, elements }, attributes, chunk_rows))
    }
}

/// The type of the elements of a data set.
fn number(data: &Dataset) -> Result<Number, String> {
    let other = || format!("{} is not made of numbers that are read here", data.name());
    let little = |order: &ByteOrder| {
        let refused = format!("{} is big-endian, which is not read; write it on another machine", data.name());
        if *order == ByteOrder::LittleEndian { Ok(()) } else { Err(refused) }
    };
    match data.dtype() {
        Datatype::FixedPoint { size, signed, byte_order } => {
            little(byte_order)?;
            Ok(match (size, signed) {
                (8, true) => Number::I64,
                (4, true) => Number::I32,
                (2, true) => Number::I16,
                (1, true) => Number::I8,
                (8, false) => Number::U64,
                (4, false) => Number::U32,
                (2, false) => Number::U16,
                (1, false) => Number::U8,
                _ => return Err(other()),
            })
        }
        Datatype::FloatingPoint { byte_order, .. } => {
            little(byte_order)?;
            let raw = data.raw_datatype().map_err(said)?;
            // Offset and precision in bits; place and bits of the exponent; those of the mantissa; bias.
            match raw.get(8..20) {
                Some([0, 0, 64, 0, 52, 11, 0, 52, 255, 3, 0, 0]) => Ok(Number::F64),
                Some([0, 0, 32, 0, 23, 8, 0, 23, 127, 0, 0, 0]) => Ok(Number::F32),
                Some([0, 0, 16, 0, 10, 5, 0, 10, 15, 0, 0, 0]) => Ok(Number::F16),
                Some([0, 0, 16, 0, 7, 8, 0, 7, 127, 0, 0, 0]) => Ok(Number::Bf16),
                _ => Err(other()),
            }
        }
        _ => Err(other()),
    }
}

/// The rows of a data set that lies in chunks.
#[derive(Debug)]
pub(super) struct Hdf5Rows {
    bytes: Arc<Bytes>,
    name: String,
    /// Whether there is a dimension of 1 before the rows.
    leading: bool,
    chunk_rows: usize,
}

/// An element whose bytes are taken as they are.
#[derive(Clone, Copy)]
struct Raw<const N: usize>([u8; N]);

impl<const N: usize> H5Type for Raw<N> {
    fn hdf5_type() -> Datatype {
        Datatype::Opaque { size: N as u32, tag: String::new() }
    }

    fn from_bytes(bytes: &[u8], _: &Datatype) -> hdf5_reader::error::Result<Raw<N>> {
        let bytes = bytes.first_chunk().copied().map(Raw);
        bytes.ok_or_else(|| hdf5_reader::error::Error::InvalidData("an element is cut".into()))
    }

    fn element_size(_: &Datatype) -> usize {
        N
    }

    fn decode_vec(raw: &[u8], _: &Datatype, count: usize) -> Option<hdf5_reader::error::Result<Vec<Raw<N>>>> {
        let (elements, rest) = raw.as_chunks::<N>();
        (elements.len() == count && rest.is_empty()).then(|| Ok(elements.iter().copied().map(Raw).collect()))
    }

    fn native_copy_compatible(dtype: &Datatype) -> bool {
        let (Datatype::FixedPoint { size, .. } | Datatype::FloatingPoint { size, .. }) = dtype else { return false };
        usize::from(*size) == N
    }
}

impl Hdf5Rows {
    /// Rows that are read together, if a row has so many bytes.
    const TOGETHER: usize = 8 << 20;

    /// Copies ranges of rows, ascending and apart, of elements of so many bytes, one after another.
    pub(super) fn read(&self, runs: &[Range<usize>], bytes: usize, row: usize, to: &mut [u8]) -> Result<(), String> {
        let data = open(&self.bytes)?.dataset(&self.name).map_err(said)?;
        let slice = |rows: Range<usize>, to: &mut [u8]| match bytes {
            1 => self.slice::<1>(&data, rows, to),
            2 => self.slice::<2>(&data, rows, to),
            4 => self.slice::<4>(&data, rows, to),
            8 => self.slice::<8>(&data, rows, to),
            _ => unreachable!("numbers have one of these sizes"),
        };
        let (mut left, mut runs, mut read) = (to, runs, Vec::new());
        while let [first, ..] = runs {
            // Runs in one chunk or in neighbours are read with what lies between them, so that no chunk is read for
            // each of them anew.
            let near = |pair: &&[Range<usize>]| {
                pair[1].start - pair[0].end < self.chunk_rows && (pair[1].end - first.start) * row <= Self::TOGETHER
            };
            let together = 1 + runs.windows(2).take_while(near).count();
            let (now, later) = runs.split_at(together);
            let (to, rest) = left.split_at_mut(now.iter().map(|run| run.len() * row).sum());
            if let [run] = now {
                slice(run.clone(), to)?;
            } else {
                let all = first.start..now[together - 1].end;
                read.resize(all.len() * row, 0);
                slice(all.clone(), &mut read)?;
                let mut to = to;
                for run in now {
                    let (here, rest) = to.split_at_mut(run.len() * row);
                    here.copy_from_slice(&read[(run.start - all.start) * row..(run.end - all.start) * row]);
                    to = rest;
                }
            }
            (left, runs) = (rest, later);
        }
        Ok(())
    }

    fn slice<const N: usize>(&self, data: &Dataset, rows: Range<usize>, to: &mut [u8]) -> Result<(), String> {
        let some = |start: usize, end: usize| SliceInfoElem::Slice { start: start as u64, end: end as u64, step: 1 };
        let mut selections = if self.leading { vec![some(0, 1)] } else { Vec::new() };
        selections.push(some(rows.start, rows.end));
        selections.push(SliceInfoElem::Slice { start: 0, end: u64::MAX, step: 1 });
        let read = data.read_slice::<Raw<N>>(&SliceInfo { selections }).map_err(said)?;
        let elements = read.as_slice().ok_or("its rows are not in order")?;
        if elements.len() * N != to.len() {
            return Err("its shape has changed".into());
        }
        for (Raw(from), to) in elements.iter().zip(to.as_chunks_mut::<N>().0) {
            *to = *from;
        }
        Ok(())
    }
}
