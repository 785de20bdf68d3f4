//! Archives: where their members lie. Used for `.pt` and npz, which are archives of members that are not compressed.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::{Found, npy, torch, why};
use crate::data::bytes::Bytes;
use crate::data::problem::Problem;

/// More members than any archive of tensors has.
const MAX_MEMBERS: u64 = 1 << 20;
/// The directory of so many members with names of usual lengths.
const MAX_DIRECTORY: usize = 256 << 20;
/// A member begins with so many bytes, its name and fields that some tools add.
const LOCAL_HEADER: usize = 30;
const END: &[u8] = b"PK\x05\x06";
const END_64: &[u8] = b"PK\x06\x06";
const LOCATOR_64: &[u8] = b"PK\x06\x07";
const CENTRAL: &[u8] = b"PK\x01\x02";
const LOCAL: &[u8] = b"PK\x03\x04";

/// A file in an archive.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) name: String,
    /// Its bytes in the archive.
    pub(super) bytes: Range<usize>,
    /// How long it is; if that is not the number of its bytes, they are a DEFLATE stream.
    pub(super) size: u64,
    pub(super) deflated: bool,
}

/// Whichever of torch and numpy wrote the archive.
pub(super) fn found(path: &Path, bytes: &Arc<Bytes>) -> Result<Found, Problem> {
    let members = members(bytes).map_err(|e| why(path, format!("is an archive that cannot be read: {e}")))?;
    if members.iter().any(|m| torch::is_pickle(&m.name)) {
        torch::found(path, bytes, &members)
    } else if members.iter().any(|m| m.name.ends_with(".npy")) {
        npy::archive(path, bytes, &members)
    } else {
        Err(why(path, "is a zip archive with neither tensors of torch nor arrays of numpy"))
    }
}

/// A whole number of two, four or eight bytes at a place of the file.
fn number<const N: usize>(file: &[u8], at: usize) -> Option<u64> {
    let bytes = file.get(at..)?.first_chunk::<N>()?;
    Some(bytes.iter().rev().fold(0, |n, &byte| n << 8 | u64::from(byte)))
}

/// The members of an archive, in its order.
pub(super) fn members(file: &Bytes) -> Result<Vec<Member>, String> {
    let cut = || "its end is missing; copy or write the file again".to_owned();
    let damaged = |what: &str| format!("{what}; copy or write the file again");
    // The end record is followed by a comment of at most 65,535 bytes, and a locator may stand before it.
    let tail = file.len().saturating_sub(20 + 22 + 0xffff);
    let tail = file.get(tail..file.len())?;
    let earliest = tail.len().saturating_sub(22 + 0xffff);
    let mut ends = (earliest..(tail.len() + 1).saturating_sub(22)).rev();
    let end = ends.find(|&at| tail[at..].starts_with(END)).ok_or_else(cut)?;
    let field = |at: usize| number::<4>(&tail, end + at).ok_or_else(cut);
    let (mut count, mut size, mut start) = (number::<2>(&tail, end + 10).ok_or_else(cut)?, field(12)?, field(16)?);
    if let Some(locator) = end.checked_sub(20).filter(|&at| tail[at..].starts_with(LOCATOR_64)) {
        let record = number::<8>(&tail, locator + 8).and_then(|at| usize::try_from(at).ok()).ok_or_else(cut)?;
        let record = file.up_to(record, 56)?;
        if !record.starts_with(END_64) {
            return Err(damaged("its directory is not where it should be"));
        }
        let field = |at: usize| number::<8>(&record, at).ok_or_else(cut);
        (count, size, start) = (field(32)?, field(40)?, field(48)?);
    }
    let directory = usize::try_from(start).ok().zip(usize::try_from(size).ok());
    let directory = directory.and_then(|(start, size)| Some(start..start.checked_add(size)?));
    let directory = directory.filter(|directory| directory.end <= file.len());
    let directory = directory.ok_or_else(|| damaged("its directory lies outside of it"))?;
    if directory.len() > MAX_DIRECTORY {
        return Err(format!("its directory has {} bytes, at most {MAX_DIRECTORY} are read", directory.len()));
    }
    if count > MAX_MEMBERS {
        return Err(format!("it claims {count} members, at most {MAX_MEMBERS} are read"));
    }
    let directory = file.get(directory)?;
    let (mut found, mut at) = (Vec::new(), 0);
    for _ in 0..count {
        let (member, next) = member(file, &directory, at)?;
        found.push(member);
        at = next;
    }
    Ok(found)
}

/// The entry at a place of the directory, and where the next one starts.
fn member(file: &Bytes, directory: &[u8], at: usize) -> Result<(Member, usize), String> {
    let cut = || "its directory is damaged; copy or write the file again".to_owned();
    let short = |offset: usize| number::<2>(directory, at + offset).ok_or_else(cut);
    let long = |offset: usize| number::<4>(directory, at + offset).ok_or_else(cut);
    if !directory.get(at..).is_some_and(|rest| rest.starts_with(CENTRAL)) {
        return Err(cut());
    }
    let (flags, method) = (short(8)?, short(10)?);
    let (mut packed, mut size, mut local) = (long(20)?, long(24)?, long(42)?);
    let name_end = at + 46 + short(28)? as usize;
    let extra_end = name_end + short(30)? as usize;
    let next = extra_end + short(32)? as usize;
    let name = directory.get(at + 46..name_end).ok_or_else(cut)?;
    let name = String::from_utf8_lossy(name).into_owned();
    let extra = directory.get(name_end..extra_end).ok_or_else(cut)?;
    if directory.len() < next {
        return Err(cut());
    }
    // Values that do not fit into four bytes stand in a field of their own, in this order.
    let mut wide = wide(extra);
    for value in [&mut size, &mut packed, &mut local] {
        if *value == 0xffff_ffff {
            *value = wide.next().ok_or_else(cut)?;
        }
    }
    let refused = |what: &str| Err(format!("its member {name:?} is {what}"));
    if flags & 1 != 0 {
        return refused("encrypted");
    }
    let deflated = match method {
        0 => false,
        8 => true,
        _ => return refused("compressed in a way that is not read; write it without compression"),
    };
    if !deflated && packed != size {
        return Err(cut());
    }
    let outside = || format!("its member {name:?} lies outside of it; copy or write the file again");
    let local = usize::try_from(local).ok().ok_or_else(outside)?;
    let fields = file.up_to(local, LOCAL_HEADER)?;
    if !fields.starts_with(LOCAL) {
        return Err(outside());
    }
    let header = |offset: usize| number::<2>(&fields, offset).ok_or_else(outside);
    let start = local + LOCAL_HEADER + header(26)? as usize + header(28)? as usize;
    let end = usize::try_from(packed).ok().and_then(|n| start.checked_add(n)).filter(|&end| end <= file.len());
    Ok((Member { bytes: start..end.ok_or_else(outside)?, name, size, deflated }, next))
}

/// The numbers of eight bytes in the field 1 of what an entry has besides.
fn wide(mut extra: &[u8]) -> impl Iterator<Item = u64> {
    let mut found = Vec::new();
    while let (Some(kind), Some(length)) = (number::<2>(extra, 0), number::<2>(extra, 2)) {
        let Some(field) = extra.get(4..4 + length as usize) else { break };
        if kind == 1 {
            found = field.as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect();
        }
        extra = &extra[4 + length as usize..];
    }
    found.into_iter()
}
