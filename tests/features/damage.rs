//! Files that are cut, flipped, or made to do harm: read or refused with a sentence, never a panic, and never more
//! memory than the file accounts for.

use std::fs;
use std::path::Path;

use onkos::data::{FeatureFile, Reading};

use crate::fixtures::{all, path};

/// Opens and reads all of a file in blocks, as far as it can be: mapped or not, with the same end.
fn exercise(file: &Path) -> Result<(), String> {
    let mapped = exercise_by(file, Reading::Mapped);
    let positioned = exercise_by(file, Reading::Positioned);
    assert_eq!(mapped.is_ok(), positioned.is_ok(), "{mapped:?} by a map, {positioned:?} in pieces");
    mapped.and(positioned)
}

fn exercise_by(file: &Path, reading: Reading) -> Result<(), String> {
    /// The rows of the test files are far below this; a claim beyond it is not followed.
    const MOST: usize = 64 << 20;
    let opened = FeatureFile::open_by(file, reading).map_err(|e| e.to_string())?;
    assert!(opened.rows().saturating_mul(opened.row_bytes()) <= MOST, "{file:?} claims {} rows", opened.rows());
    if let Some(coords) = opened.coords() {
        coords.range().map_err(|e| e.to_string())?;
    }
    opened.statistics().map_err(|e| e.to_string()).map(drop)
}

/// A file with these bytes is read or refused in one sentence.
fn survives(folder: &Path, bytes: &[u8], what: &str) -> bool {
    let file = folder.join("slide.h5");
    fs::write(&file, bytes).unwrap();
    match exercise(&file) {
        Ok(()) => true,
        Err(sentence) => {
            assert!(sentence.contains("slide.h5") && sentence.lines().count() == 1, "{what}: {sentence}");
            assert!(sentence.len() < 2000, "{what}: {sentence}");
            false
        }
    }
}

/// Pseudorandom numbers that are the same each time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % n as u64) as usize
    }
}

/// What this process took at most, all tests of it together.
fn assert_modest_memory() {
    const MOST: usize = 512 << 10;
    let Ok(status) = fs::read_to_string("/proc/self/status") else { return };
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux says");
    let kilobytes: usize = line.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(kilobytes < MOST, "{kilobytes} kB for files of kilobytes");
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for file in all() {
        let whole = fs::read(&file).unwrap();
        let opens = FeatureFile::open(&file).is_ok();
        for end in (0..whole.len()).step_by(17) {
            let read = survives(folder.path(), &whole[..end], &format!("{} cut at {end}", file.display()));
            assert!(!(read && opens), "{} cut at {end} was read", file.display());
        }
    }
}

#[test]
fn flipped_bits_are_no_panic() {
    /// Of each file; where all would take too long.
    const FLIPS: usize = 300;
    let folder = tempfile::tempdir().unwrap();
    let mut numbers = Numbers(1);
    for file in all() {
        let whole = fs::read(&file).unwrap();
        for _ in 0..FLIPS {
            // Half of them at the start, where headers are.
            let range = if numbers.below(2) == 0 { whole.len() } else { whole.len().min(2048) };
            let (at, bit) = (numbers.below(range), numbers.below(8));
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << bit;
            survives(folder.path(), &bytes, &format!("{} with bit {bit} of byte {at} flipped", file.display()));
        }
    }
    assert_modest_memory();
}

#[test]
fn bytes_of_all_ones_or_zeros_in_headers_are_no_panic() {
    let folder = tempfile::tempdir().unwrap();
    for file in all() {
        let whole = fs::read(&file).unwrap();
        for at in (0..whole.len().min(4096)).step_by(29) {
            for fill in [0x00, 0x7f, 0xff] {
                let mut bytes = whole.clone();
                let end = (at + 8).min(bytes.len());
                bytes[at..end].fill(fill);
                survives(folder.path(), &bytes, &format!("{} with {fill:#x} from byte {at} on", file.display()));
            }
        }
    }
    assert_modest_memory();
}

/// Replaces bytes that must be there, all of them.
fn replaced(name: &str, from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut bytes = fs::read(path(name)).unwrap();
    let places: Vec<usize> = (0..bytes.len() - from.len()).filter(|&at| bytes[at..].starts_with(from)).collect();
    assert!(!places.is_empty(), "{name} lacks {from:?}");
    places.into_iter().for_each(|at| bytes[at..at + to.len()].copy_from_slice(to));
    bytes
}

#[test]
fn extents_that_the_file_cannot_hold_are_refused_before_memory_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let huge = |name: &str, from: &[u8], to: &[u8]| {
        let file = folder.path().join("slide.h5");
        fs::write(&file, replaced(name, from, to)).unwrap();
        let sentence = FeatureFile::open(&file).map(|file| file.rows()).unwrap_err().to_string();
        assert!(sentence.contains("fit") || sentence.contains("asks for") || sentence.contains("shape"), "{sentence}");
    };
    let shape = |rows: u64, width: u64| [rows.to_le_bytes(), width.to_le_bytes()].concat();
    for rows in [1 << 20, 1 << 40, (1 << 63) - 1, u64::MAX - 1] {
        for name in ["trident.h5", "clam.h5", "stamp_historic.h5", "plain.h5"] {
            huge(name, &shape(37, 24), &shape(rows, 24));
        }
    }
    // The shape of a tensor in a pickle, and that in a header of numpy.
    huge("clam.pt", b"K\x25K\x18\x86", b"K\xffK\xff\x86");
    huge("plain.npy", b"(37, 24)", b"(9999,9)");
    huge("plain.npy", b"(37, 24), }        ", b"(99999999999,24), }");
}

/// An archive with one member, whose size may be a lie.
fn archive(name: &str, method: u16, packed: &[u8], size: u32) -> Vec<u8> {
    let fields = |local: bool| {
        let mut bytes = if local { b"PK\x03\x04".to_vec() } else { b"PK\x01\x02\x14\x00".to_vec() };
        bytes.extend([20, 0, 0, 0]);
        bytes.extend(method.to_le_bytes());
        bytes.extend([0; 8]);
        bytes.extend((packed.len() as u32).to_le_bytes());
        bytes.extend(size.to_le_bytes());
        bytes.extend((name.len() as u16).to_le_bytes());
        bytes.extend([0, 0]);
        if !local {
            bytes.extend([0; 14]);
        }
        bytes.extend(name.as_bytes());
        bytes
    };
    let mut bytes = [&fields(true)[..], packed].concat();
    let (start, directory) = (bytes.len() as u32, fields(false));
    bytes.extend(&directory);
    bytes.extend(b"PK\x05\x06\0\0\0\0\x01\0\x01\0");
    bytes.extend((directory.len() as u32).to_le_bytes());
    bytes.extend(start.to_le_bytes());
    bytes.extend([0, 0]);
    bytes
}

#[test]
fn archives_that_promise_more_than_they_can_hold_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("slide.npz");
    let sentence = |bytes: &[u8]| {
        fs::write(&file, bytes).unwrap();
        FeatureFile::open(&file).map(|file| file.rows()).unwrap_err().to_string()
    };
    let packed = [0x01, 0, 0, 0xff, 0xff];
    assert!(sentence(&archive("x.npy", 8, &packed, u32::MAX - 1)).contains("more than its compression can give"));
    // The directory names a field for the true size, which is not there.
    assert!(sentence(&archive("x.npy", 8, &packed, u32::MAX)).contains("directory is damaged"));
    assert!(sentence(&archive("x.npy", 0, &packed, 1 << 30)).contains("directory is damaged"));
    assert!(sentence(&archive("x/data.pkl", 8, &packed, 4)).contains("compressed, which torch does not do"));
    assert!(sentence(&archive("x.npy", 99, &packed, 5)).contains("compressed in a way that is not read"));
    // The same member, said to be at the end of the file.
    let mut bytes = archive("x.npy", 0, &packed, 5);
    let end = bytes.len() as u32 - 4;
    let start = bytes.len() - 6;
    bytes[start..start + 4].copy_from_slice(&end.to_le_bytes());
    assert!(sentence(&bytes).contains("directory"));
}

#[test]
fn pickles_that_build_without_end_or_call_anything_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("slide.pt");
    let sentence = |pickle: &[u8]| {
        fs::write(&file, archive("x/data.pkl", 0, pickle, pickle.len() as u32)).unwrap();
        FeatureFile::open(&file).map(|file| file.rows()).unwrap_err().to_string()
    };
    for (pickle, words) in [
        (&b"\x80\x02cos\nsystem\nX\x02\0\0\0id\x85R."[..], "os.system"),
        (b"\x80\x02cbuiltins\neval\nX\x01\0\0\x001\x85R.", "builtins.eval"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "os.system"),
        (b"\x80\x02ctorch._utils\n_rebuild_tensor\n.", "torch._utils._rebuild_tensor"),
        (b"\x80\x02cnumpy\nload\n.", "numpy.load"),
        (b"\x80\x02ccollections\nOrderedDict\n)\x81.", "NEWOBJ"),
        (b"(icollections\nOrderedDict\n.", "INST"),
        (b"\x80\x02]q\0h\0a.", "a list of 1 values"),
        (b"\x80\x02N.", "neither a tensor nor an array"),
        (b"\x80\x02\x8a\x09\xff\xff\xff\xff\xff\xff\xff\xff\xff.", "larger than any size"),
        (b"\x80\x02X\xff\xff\xff\xffabc", "damaged"),
        (b"\x80\x02h\x07.", "damaged"),
        (b"\x80\x02t.", "damaged"),
        (b"\x80\x02(0.", "damaged"),
        (b"\x80\x02", "damaged"),
        (b"\x80\x09.", "protocol 9"),
    ] {
        let said = sentence(pickle);
        assert!(said.contains(words), "{words}: {said}");
    }
    // Lists of themselves ten times over, thirty times: the memory is that of the operations.
    let mut bomb = b"\x80\x02]".to_vec();
    for _ in 0..30 {
        bomb.extend(b"](");
        bomb.extend(b"2".repeat(10));
        bomb.extend(b"e");
    }
    bomb.push(b'.');
    sentence(&bomb);
    let many = [&b"\x80\x02"[..], &b"N0".repeat(600_000), b"."].concat();
    assert!(sentence(&many).contains("more than 1000000 operations"));
}
