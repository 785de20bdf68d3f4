//! Arrays of numpy: npy, and npz, which is an archive of them.

use std::io::Read;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use flate2::bufread::DeflateDecoder;

use super::matrix::{Array, Elements, Inflated, Number, extent, row_major};
use super::zip::Member;
use super::{Dialect, Found, why};
use crate::data::bytes::Bytes;
use crate::data::problem::Problem;

const MAGIC: &[u8] = b"\x93NUMPY";
/// Longer than the header of any array of numbers.
const MAX_HEADER: usize = 1 << 16;
/// DEFLATE makes a byte at most so many.
const MAX_DEFLATE: u64 = 1032;
/// What is inflated anew for each block should not take for ever.
const MAX_INFLATED: u64 = 1 << 30;

/// One array in a file.
pub(super) fn found(path: &Path, bytes: &Arc<Bytes>) -> Result<Found, Problem> {
    let array = array("the array", bytes, 0..bytes.len()).map_err(|e| why(path, e))?;
    Ok(Found::plain(Dialect::Npy, array))
}

/// The arrays of an archive: the features are called so, or are the only one besides `coords`.
pub(super) fn archive(path: &Path, bytes: &Arc<Bytes>, members: &[Member]) -> Result<Found, Problem> {
    let stem = |member: &Member| member.name.strip_suffix(".npy").map(str::to_owned);
    let arrays: Vec<(String, &Member)> = members.iter().filter_map(|m| Some((stem(m)?, m))).collect();
    let open = |(name, member): &(String, &Member)| {
        if member.deflated { inflated(name, bytes, member) } else { array(name, bytes, member.bytes.clone()) }
            .map_err(|e| why(path, e))
    };
    let features = super::torch::choose(arrays.iter().map(|(name, _)| name.as_str()));
    let Some(features) = features else {
        let has = arrays.into_iter().map(|(name, _)| name).collect();
        return Err(Problem::MissingTensor { file: path.into(), tensor: "features".into(), has });
    };
    let coords = arrays.iter().find(|(name, _)| name == "coords").map(open).transpose()?;
    Ok(Found::plain(Dialect::Npz, open(&arrays[features])?).places(coords))
}

/// What the header of an array says, and where the elements start.
struct Header {
    shape: Vec<usize>,
    number: Number,
    by_columns: bool,
    start: usize,
}

fn array(name: &str, bytes: &Arc<Bytes>, within: Range<usize>) -> Result<Array, String> {
    let header = header(name, &bytes.get(within.start..within.end.min(within.start + MAX_HEADER))?)?;
    let want = extent(&header.shape, header.number).and_then(|n| n.checked_add(header.start));
    if want != Some(within.len()) {
        let want = want.map_or("more than any file has".into(), |n| n.to_string());
        return Err(format!(
            "{name} has {} bytes, but its header asks for {want}; copy or write the file again",
            within.len()
        ));
    }
    let Header { shape, number, by_columns, start } = header;
    let strides = if by_columns {
        let reversed: Vec<usize> = shape.iter().rev().copied().collect();
        row_major(&reversed, number).into_iter().rev().collect()
    } else {
        row_major(&shape, number)
    };
    Array::plain(name, shape, number, bytes, within.start + start..within.end, 0, strides)
}

fn inflated(name: &str, bytes: &Arc<Bytes>, member: &Member) -> Result<Array, String> {
    let packed = member.bytes.len() as u64;
    if member.size > packed.saturating_mul(MAX_DEFLATE) {
        return Err(format!("{name} claims {} bytes out of {packed}, more than its compression can give", member.size));
    }
    if member.size > MAX_INFLATED {
        return Err(format!("{name} is compressed, which is read up to 1 GiB; save it with numpy.savez"));
    }
    let mut start = Vec::new();
    let stream = DeflateDecoder::new(bytes.reader(member.bytes.clone())?);
    let read = stream.take(member.size.min(MAX_HEADER as u64)).read_to_end(&mut start);
    read.map_err(|_| format!("the compression of {name} is damaged; write the file again"))?;
    let Header { shape, number, by_columns, start: skip } = header(name, &start)?;
    if by_columns && shape.len() > 1 {
        return Err(format!("{name} is compressed column by column, which is not read; save it with numpy.savez"));
    }
    let want = extent(&shape, number).and_then(|n| n.checked_add(skip)).map(|n| n as u64);
    if want != Some(member.size) {
        return Err(format!("{name} has {} bytes, but its header asks for others; write the file again", member.size));
    }
    let elements = Elements::Inflated(Inflated { bytes: bytes.clone(), deflated: member.bytes.clone(), skip });
    Ok(Array { name: name.into(), shape, number, elements })
}

/// Reads the start of an npy file: a magic word, a version, a length, and a dictionary of Python.
fn header(name: &str, file: &[u8]) -> Result<Header, String> {
    let cut = || format!("the header of {name} is damaged; write the file again");
    let (length, start): (usize, usize) = match file.strip_prefix(MAGIC).ok_or_else(cut)? {
        [1, 0, a, b, ..] => (usize::from(u16::from_le_bytes([*a, *b])), 10),
        [2 | 3, 0, a, b, c, d, ..] => (u32::from_le_bytes([*a, *b, *c, *d]) as usize, 12),
        _ => return Err(cut()),
    };
    let text = file
        .get(start..start.saturating_add(length))
        .and_then(|text| std::str::from_utf8(text).ok())
        .ok_or_else(cut)?;
    let value = |key: &str| text.split_once(&format!("'{key}':")).map(|(_, rest)| rest.trim_start());
    let (descr, order, shape) =
        value("descr").zip(value("fortran_order")).zip(value("shape")).map(|((d, o), s)| (d, o, s)).ok_or_else(cut)?;
    let descr = match descr.strip_prefix('\'').and_then(|rest| rest.split_once('\'')) {
        Some((descr, _)) => descr,
        None => return Err(format!("{name} is a table of several fields, not of numbers alone")),
    };
    let number = number(name, descr)?;
    let shape = shape.strip_prefix('(').and_then(|rest| rest.split_once(')')).ok_or_else(cut)?.0;
    let sizes = shape.split(',').map(str::trim).filter(|size| !size.is_empty());
    let shape = sizes.map(|size| size.trim_end_matches('L').parse().map_err(|_| cut())).collect::<Result<_, _>>()?;
    Ok(Header { shape, number, by_columns: order.starts_with("True"), start: start + length })
}

/// The element type that numpy calls so, as in `<f4`.
pub(super) fn number(name: &str, descr: &str) -> Result<Number, String> {
    let (order, kind) = descr.split_at_checked(1).filter(|(order, _)| "<>|=".contains(order)).unwrap_or(("<", descr));
    let number = match kind {
        "f8" => Number::F64,
        "f4" => Number::F32,
        "f2" => Number::F16,
        "i8" => Number::I64,
        "i4" => Number::I32,
        "i2" => Number::I16,
        "i1" => Number::I8,
        "u8" => Number::U64,
        "u4" => Number::U32,
        "u2" => Number::U16,
        "u1" => Number::U8,
        "O" | "O8" => {
            return Err(format!(
                "{name} holds pickled objects of Python, which are not read; load it in Python with allow_pickle=True and \
                 save the array that is in it"
            ));
        }
        _ => return Err(format!("{name} is of type {descr:?}, which is not read; save it as float32 or float16")),
    };
    if order == ">" && number.bytes() > 1 {
        return Err(format!("{name} is big-endian, which is not read; save it with the byte order of this machine"));
    }
    Ok(number)
}
