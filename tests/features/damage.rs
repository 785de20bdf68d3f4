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
        // Headers byte by byte, and the rest here and there.
        for end in (0..whole.len().min(256)).chain((256..whole.len()).step_by(17)) {
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

#[test]
fn a_shape_of_many_sizes_is_not_copied_for_each_tensor_that_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("slide.pt");
    let head = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\nq\x00(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000NK\x01tQq\x01";
    let shape = [&b"K\x01q\x03("[..], &b"h\x03".repeat(200_000), b"tq\x02"].concat();
    // A hundred thousand tensors of that shape: 320 gigabytes if each has its own.
    let tensors = b"h\0(h\x01K\0h\x02h\x02tR".repeat(100_000);
    let pickle = [&head[..], &shape, &tensors, b"."].concat();
    fs::write(&file, archive("x/data.pkl", 0, &pickle, pickle.len() as u32)).unwrap();
    let sentence = FeatureFile::open(&file).map(|file| file.rows()).unwrap_err().to_string();
    assert!(sentence.contains("200000 dimensions"), "{sentence}");
    assert_modest_memory();
}

#[test]
fn pickles_in_unusual_orders_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("slide.pt");
    for pickle in [
        // What takes from an empty stack, or takes a mark for a value.
        &b"\x80\x02Q."[..],
        b"\x80\x02(Q.",
        b"\x80\x02R.",
        b"\x80\x02)R.",
        b"\x80\x02(R.",
        b"\x80\x02N)R.",
        b"\x80\x02b.",
        b"\x80\x02Nb.",
        b"\x80\x02NNb.",
        b"\x80\x02}(NNb.",
        b"\x80\x02s.",
        b"\x80\x02}Ns.",
        b"\x80\x02(u.",
        b"\x80\x02N(NNu.",
        b"\x80\x02}(Nu.",
        b"\x80\x02(Ne.",
        b"\x80\x02\x85\x86\x87.",
        b"\x80\x04\x93.",
        b"\x80\x04K\x01K\x02\x93.",
        b"\x80\x04\x8c\x02os(\x93.",
        b"\x80\x04\x94.",
        b"\x80\x04\x81.",
        b"\x80\x04NNN\x92.",
        b"(cos\nsystem\nX\x02\0\0\0ido.",
        b"(o.",
        b"o.",
        b"(iposix\nsystem\n.",
        b"ios\nsystem\n.",
        // Names that are read, called with what does not belong to them.
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\nNR.",
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.",
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(NNNNNNtR.",
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}b.",
        b"\x80\x02(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x01tQQ.",
        b"\x80\x02ccollections\nOrderedDict\n)Rh\0b.",
        b"\x80\x02ccollections\nOrderedDict\n)R(NNtR.",
        // Persistent identities of text, next buffers, extensions, bytes without end.
        b"P0\n.",
        b"\x80\x05\x97.",
        b"\x80\x05\x98.",
        b"\x80\x02\x82\x01.",
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\xff.",
        b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7f.",
        b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x7f.",
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\xff.",
        b"\x80\x02\x8b\xff\xff\xff\x7f.",
    ] {
        fs::write(&file, archive("x/data.pkl", 0, pickle, pickle.len() as u32)).unwrap();
        let sentence = FeatureFile::open(&file).map(|file| file.rows()).unwrap_err().to_string();
        assert!(sentence.contains("slide.pt") && sentence.lines().count() == 1, "{pickle:?}: {sentence}");
    }
}

#[test]
fn an_array_that_inflates_to_more_than_it_says_is_read_as_far_as_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("slide.npz");
    let mut header = b"\x93NUMPY\x01\0\x76\0{'descr': '<f4', 'fortran_order': False, 'shape': (37, 24), }".to_vec();
    header.resize(128, b' ');
    let mut packer = flate2::Compress::new(flate2::Compression::best(), false);
    let (mut first, mut part) = (Vec::with_capacity(1 << 16), Vec::with_capacity(1 << 16));
    packer.compress_vec(&header, &mut first, flate2::FlushCompress::Full).unwrap();
    packer.compress_vec(&vec![0; 1 << 20], &mut part, flate2::FlushCompress::Full).unwrap();
    let stream = [first, part.repeat(5 << 10)].concat();
    fs::write(&file, archive("x.npy", 8, &stream, 128 + 37 * 24 * 4)).unwrap();
    let found = FeatureFile::open(&file).unwrap();
    assert_eq!((found.rows(), found.statistics().unwrap().zero_rows), (37, 37));
    // One that claims as much as its compression can give, and as much as is read.
    fs::write(&file, archive("x.npy", 8, &stream, 1 << 30)).unwrap();
    assert!(FeatureFile::open(&file).unwrap_err().to_string().contains("its header asks for others"));
    fs::write(&file, archive("x.npy", 8, &stream, u32::MAX - 1)).unwrap();
    assert!(FeatureFile::open(&file).unwrap_err().to_string().contains("up to 1 GiB"));
    assert_modest_memory();
}
