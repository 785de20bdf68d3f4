//! Text that lies compressed in a ZIP archive or in gzip, found by content. No name in an archive is ever used as a path.

use std::io::Read;

use flate2::Crc;
use flate2::read::{DeflateDecoder, MultiGzDecoder};

/// More than any table that people send each other compressed; what unpacks to more is unpacked by hand.
const MAX_UNPACKED: u64 = 1 << 30;
/// The end of the directory and the longest comment after it.
const END: usize = 22;
const MAX_COMMENT: usize = 0xffff;

/// Why an archive gives no text.
pub(super) type Why = String;

/// The bytes as they are, or what is packed in them.
pub(super) fn unpack(bytes: Vec<u8>) -> Result<Vec<u8>, Why> {
    unpack_at_most(bytes, MAX_UNPACKED)
}

fn unpack_at_most(bytes: Vec<u8>, limit: u64) -> Result<Vec<u8>, Why> {
    let unpacked = if is_zip(&bytes) {
        only_member(&bytes, limit)?
    } else if bytes.starts_with(&[0x1f, 0x8b]) {
        inflate(MultiGzDecoder::new(&bytes[..]), limit)?
    } else {
        return Ok(bytes);
    };
    if is_zip(&unpacked) {
        return Err("an archive lies in the archive; unpack it".into());
    }
    Ok(unpacked)
}

fn is_zip(bytes: &[u8]) -> bool {
    bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"PK\x05\x06")
}

fn inflate(reader: impl Read, limit: u64) -> Result<Vec<u8>, Why> {
    let mut out = Vec::new();
    // One byte more than is allowed tells that there is more.
    reader.take(limit + 1).read_to_end(&mut out).map_err(|_| damaged())?;
    if out.len() as u64 > limit {
        return Err(format!("it unpacks to more than {limit} bytes; unpack it"));
    }
    Ok(out)
}

fn damaged() -> Why {
    "it is damaged or cut short; copy it again".into()
}

/// A number of two or four bytes at a place, if the bytes go that far.
fn u16_at(bytes: &[u8], at: usize) -> Option<usize> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?).into())
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// What the directory says of one member.
struct Member<'a> {
    name: &'a [u8],
    encrypted: bool,
    method: usize,
    crc: u32,
    packed: u32,
    size: u32,
    header: u32,
}

/// The members of an archive, by the directory at its end.
fn members(bytes: &[u8]) -> Option<Vec<Member<'_>>> {
    let first = bytes.len().saturating_sub(END + MAX_COMMENT);
    let end = (first..=bytes.len().checked_sub(END)?).rev().find(|&at| bytes[at..].starts_with(b"PK\x05\x06"))?;
    let (count, mut at) = (u16_at(bytes, end + 10)?, u32_at(bytes, end + 16)? as usize);
    let mut found = Vec::new();
    for _ in 0..count {
        let entry = bytes.get(at..end)?;
        if !entry.starts_with(b"PK\x01\x02") {
            return None;
        }
        let [name, extra, comment] = [28, 30, 32].map(|place| u16_at(entry, place));
        let name = entry.get(46..46 + name?)?;
        found.push(Member {
            name,
            encrypted: u16_at(entry, 8)? & 1 == 1,
            method: u16_at(entry, 10)?,
            crc: u32_at(entry, 16)?,
            packed: u32_at(entry, 20)?,
            size: u32_at(entry, 24)?,
            header: u32_at(entry, 42)?,
        });
        at += 46 + name.len() + extra? + comment?;
    }
    Some(found)
}

/// The contents of the only file of an archive.
fn only_member(bytes: &[u8], limit: u64) -> Result<Vec<u8>, Why> {
    let members = members(bytes).ok_or_else(damaged)?;
    if members.iter().any(|m| m.name == b"[Content_Types].xml") {
        return Err("it is a spreadsheet; save it as CSV in UTF-8".into());
    }
    // Folders, and what macOS adds to a file, are none.
    let is_file = |m: &&Member<'_>| !m.name.ends_with(b"/") && !m.name.starts_with(b"__MACOSX/");
    let files: Vec<&Member<'_>> = members.iter().filter(is_file).collect();
    let &[member] = &files[..] else {
        return Err(format!("the archive has {} files, and one table is wanted; unpack it", files.len()));
    };
    if member.encrypted {
        return Err("the archive is encrypted; unpack it".into());
    }
    let data = || {
        let header = bytes.get(member.header as usize..)?;
        let (name, extra) = (u16_at(header, 26)?, u16_at(header, 28)?);
        let packed = header.get(30 + name + extra..)?.get(..member.packed as usize)?;
        header.starts_with(b"PK\x03\x04").then_some(packed)
    };
    let packed = data().ok_or_else(damaged)?;
    let out = match member.method {
        0 => packed.to_vec(),
        8 => inflate(DeflateDecoder::new(packed), limit)?,
        other => return Err(format!("its compression (method {other}) is not read; unpack it")),
    };
    let mut crc = Crc::new();
    crc.update(&out);
    if (out.len() as u64, crc.sum()) != (member.size.into(), member.crc) {
        return Err(damaged());
    }
    Ok(out)
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder};
    use proptest::prelude::*;

    use super::*;

    /// A ZIP archive of files, stored or deflated.
    pub(in crate::data) fn zip(files: &[(&str, &[u8])], deflated: bool) -> Vec<u8> {
        let (mut out, mut directory) = (Vec::new(), Vec::new());
        for (name, contents) in files {
            let mut crc = Crc::new();
            crc.update(contents);
            let packed = if deflated {
                let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
                encoder.write_all(contents).unwrap();
                encoder.finish().unwrap()
            } else {
                contents.to_vec()
            };
            let method: u16 = if deflated { 8 } else { 0 };
            let at = out.len() as u32;
            let mut common = Vec::new();
            common.extend([20, 0, 0, 0]);
            common.extend(method.to_le_bytes());
            common.extend([0; 4]);
            for number in [crc.sum(), packed.len() as u32, contents.len() as u32] {
                common.extend(number.to_le_bytes());
            }
            common.extend((name.len() as u16).to_le_bytes());
            out.extend(b"PK\x03\x04");
            out.extend(&common);
            out.extend([0; 2]);
            out.extend(name.as_bytes());
            out.extend(packed);
            directory.extend(b"PK\x01\x02\x14\x00");
            directory.extend(&common);
            directory.extend([0; 12]);
            directory.extend(at.to_le_bytes());
            directory.extend(name.as_bytes());
        }
        let (start, count) = (out.len() as u32, files.len() as u16);
        out.extend(&directory);
        out.extend(b"PK\x05\x06\0\0\0\0");
        out.extend(count.to_le_bytes());
        out.extend(count.to_le_bytes());
        out.extend((directory.len() as u32).to_le_bytes());
        out.extend(start.to_le_bytes());
        out.extend([0; 2]);
        out
    }

    const TABLE: &[u8] = b"case,months\nA,1\nA,1\nA,1\n";

    #[test]
    fn the_only_member_is_read_whatever_it_is_called() {
        for name in ["t.csv", "../dataset_csv/tcga_blca_all_clean.csv.zip", "/etc/passwd", "C:\\x"] {
            for deflated in [false, true] {
                assert_eq!(unpack(zip(&[(name, TABLE)], deflated)).unwrap(), TABLE);
                let mac: [(&str, &[u8]); 3] = [("d/", b""), (name, TABLE), ("__MACOSX/._t.csv", b"x")];
                assert_eq!(unpack(zip(&mac, deflated)).unwrap(), TABLE);
            }
        }
        assert_eq!(unpack(TABLE.to_vec()).unwrap(), TABLE, "plain text under any name");
        let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
        gzip.write_all(TABLE).unwrap();
        assert_eq!(unpack(gzip.finish().unwrap()).unwrap(), TABLE);
    }

    #[test]
    fn what_is_no_single_table_is_told() {
        let why = |files: &[(&str, &[u8])]| unpack(zip(files, true)).unwrap_err();
        assert!(why(&[("a", TABLE), ("b", TABLE)]).contains("2 files"));
        assert!(why(&[]).contains("0 files"));
        assert!(why(&[("[Content_Types].xml", b"<x/>"), ("xl/a.xml", b"")]).contains("spreadsheet"));
        assert!(why(&[("a.zip", &zip(&[("b", TABLE)], true))]).contains("archive lies in the archive"));
        let mut locked = zip(&[("a", TABLE)], true);
        let directory = locked.windows(4).position(|w| w == b"PK\x01\x02").unwrap();
        locked[directory + 8] |= 1;
        assert!(unpack(locked).unwrap_err().contains("encrypted"));
    }

    #[test]
    fn what_unpacks_to_more_than_allowed_is_not_unpacked() {
        let bomb = zip(&[("a", &vec![b'0'; 1 << 20])], true);
        assert!(bomb.len() < 1 << 12);
        assert!(unpack_at_most(bomb.clone(), (1 << 20) - 1).unwrap_err().contains("more than"));
        assert_eq!(unpack_at_most(bomb, 1 << 20).unwrap().len(), 1 << 20);
    }

    #[test]
    fn a_damaged_archive_is_refused_wherever_it_is_cut_or_changed() {
        let whole = zip(&[("a.csv", TABLE)], true);
        for end in 4..whole.len() {
            assert!(unpack(whole[..end].to_vec()).is_err(), "cut at {end}");
        }
        let data = 30 + "a.csv".len()..whole.windows(4).position(|w| w == b"PK\x01\x02").unwrap();
        for place in data {
            let mut bytes = whole.clone();
            bytes[place] ^= 1;
            assert!(unpack(bytes).is_err(), "changed at {place}");
        }
    }

    proptest! {
        #[test]
        fn no_archive_panics(noise in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6)) {
            let mut bytes = zip(&[("a.csv", TABLE), ("b", b"x")], true);
            for (place, value) in noise {
                let place = place.index(bytes.len());
                bytes[place] = value;
            }
            let _ = unpack(bytes);
        }
    }
}
