//! HDF5 that onkos writes: a few data sets at the top of a file, without chunks, filters or attributes.
//!
//! Only what is needed of the first version of the format (superblock 0), which every library reads: a root group as a
//! symbol table of one node, and an object header a data set with its extent, type and place. Crates that write HDF5 know
//! all of it; these are a hundred lines, and their bytes change when we change them.

use std::io::{self, Write};

/// The type of the elements of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    F32,
    F64,
    I64,
}

/// A data set to write: elements are little-endian, row after row.
pub(crate) struct DataSet<'a> {
    pub(crate) name: &'static str,
    pub(crate) shape: &'a [u64],
    pub(crate) kind: Kind,
    pub(crate) bytes: &'a [u8],
}

/// What an address or a size is that there is none of.
const NONE: u64 = u64::MAX;
/// A node of a symbol table has room for twice as many entries.
const LEAF: u16 = 4;
/// A node of a tree has room for twice as many children.
const INTERNAL: u16 = 16;
/// Bytes of an entry of a symbol table.
const ENTRY: u64 = 40;

/// Where things lie: superblock, header of the root, tree, heap, its data, node, then headers and data of the data sets.
const ROOT: u64 = 96;
const TREE: u64 = ROOT + 16 + 24;
const HEAP: u64 = TREE + 24 + 8 * (4 * INTERNAL as u64 + 1);
const NAMES: u64 = HEAP + 32;

/// Little-endian bytes, one after another.
#[derive(Default)]
struct Bytes(Vec<u8>);

impl Bytes {
    fn put(&mut self, bytes: &[u8]) -> &mut Bytes {
        self.0.extend(bytes);
        self
    }

    fn u16(&mut self, values: &[u16]) -> &mut Bytes {
        values.iter().for_each(|value| self.0.extend(value.to_le_bytes()));
        self
    }

    fn u32(&mut self, values: &[u32]) -> &mut Bytes {
        values.iter().for_each(|value| self.0.extend(value.to_le_bytes()));
        self
    }

    fn u64(&mut self, values: &[u64]) -> &mut Bytes {
        values.iter().for_each(|value| self.0.extend(value.to_le_bytes()));
        self
    }

    /// Zeros until there are so many bytes.
    fn until(&mut self, end: u64) -> &mut Bytes {
        debug_assert!(self.0.len() as u64 <= end, "room for what was put");
        self.0.resize(end as usize, 0);
        self
    }

    /// A message of an object header, its data filled up to whole words.
    fn message(&mut self, kind: u16, mut data: Vec<u8>) {
        data.resize(data.len().next_multiple_of(8), 0);
        self.u16(&[kind, data.len() as u16]).put(&[0; 4]).put(&data);
    }
}

/// An object header of messages that were put together.
fn header(count: u16, messages: &[u8]) -> Vec<u8> {
    let mut bytes = Bytes::default();
    bytes.put(&[1, 0]).u16(&[count]).u32(&[1, messages.len() as u32, 0]).put(messages);
    bytes.0
}

/// The type of elements: class and version, bits, size, then the places of sign, exponent and mantissa.
fn data_type(kind: Kind) -> Vec<u8> {
    let mut bytes = Bytes::default();
    match kind {
        Kind::F32 => {
            bytes.put(&[0x11, 0x20, 31, 0]).u32(&[4]).u16(&[0, 32]).put(&[23, 8, 0, 23]).u32(&[127]);
        }
        Kind::F64 => {
            bytes.put(&[0x11, 0x20, 63, 0]).u32(&[8]).u16(&[0, 64]).put(&[52, 11, 0, 52]).u32(&[1023]);
        }
        Kind::I64 => {
            bytes.put(&[0x10, 0x08, 0, 0]).u32(&[8]).u16(&[0, 64]);
        }
    }
    bytes.0
}

/// The object header of a data set whose elements lie at `at`.
fn of_data(set: &DataSet<'_>, at: u64) -> Vec<u8> {
    let mut messages = Bytes::default();
    let mut extent = Bytes::default();
    extent.put(&[1, set.shape.len() as u8, 0, 0, 0, 0, 0, 0]).u64(set.shape);
    messages.message(0x0001, extent.0);
    messages.message(0x0003, data_type(set.kind));
    // Filled when it was allocated, and with nothing.
    messages.message(0x0005, vec![2, 2, 2, 0]);
    let mut layout = Bytes::default();
    let place = if set.bytes.is_empty() { NONE } else { at };
    layout.put(&[3, 1]).u64(&[place, set.bytes.len() as u64]);
    messages.message(0x0008, layout.0);
    header(4, &messages.0)
}

/// Writes an HDF5 file with these data sets, at most eight and sorted by name.
pub(crate) fn write_hdf5(out: &mut dyn Write, sets: &[DataSet<'_>]) -> io::Result<()> {
    assert!(sets.len() <= 2 * LEAF as usize && sets.is_sorted_by_key(|set| set.name), "one sorted node");
    // Names in the heap: an empty one first, each at a whole word.
    let mut heap = Bytes::default();
    heap.put(&[0; 8]);
    let mut names = Vec::new();
    for set in sets {
        names.push(heap.0.len() as u64);
        heap.put(set.name.as_bytes()).put(&[0]);
        let end = heap.0.len().next_multiple_of(8) as u64;
        heap.until(end);
    }
    let node = NAMES + heap.0.len() as u64;
    let headers = node + 8 + 2 * u64::from(LEAF) * ENTRY;
    let sizes: Vec<u64> = sets.iter().map(|set| of_data(set, 0).len() as u64).collect();
    let first = headers + sizes.iter().sum::<u64>();
    let starts: Vec<u64> = sets
        .iter()
        .scan(first, |next, set| {
            let start = *next;
            *next += (set.bytes.len() as u64).next_multiple_of(8);
            Some(start)
        })
        .collect();
    let end = first + sets.iter().map(|set| (set.bytes.len() as u64).next_multiple_of(8)).sum::<u64>();

    let mut file = Bytes::default();
    file.put(b"\x89HDF\r\n\x1a\n").put(&[0, 0, 0, 0, 0, 8, 8, 0]).u16(&[LEAF, INTERNAL]).u32(&[0]);
    file.u64(&[0, NONE, end, NONE]);
    // The entry of the root, which remembers its tree and heap.
    file.u64(&[0, ROOT]).u32(&[1, 0]).u64(&[TREE, HEAP]);
    let mut table = Bytes::default();
    let mut place = Bytes::default();
    place.u64(&[TREE, HEAP]);
    table.message(0x0011, place.0);
    file.until(ROOT).put(&header(1, &table.0)).until(TREE);
    let used = u16::from(!sets.is_empty());
    file.put(b"TREE").put(&[0, 0]).u16(&[used]).u64(&[NONE, NONE, 0, node, names.last().copied().unwrap_or(0)]);
    // No free block in the heap: 1 says so.
    file.until(HEAP).put(b"HEAP").put(&[0; 4]).u64(&[heap.0.len() as u64, 1, NAMES]).put(&heap.0);
    file.put(b"SNOD").put(&[1, 0]).u16(&[sets.len() as u16]);
    let mut at = headers;
    for (&name, &size) in names.iter().zip(&sizes) {
        file.u64(&[name, at]).u32(&[0, 0]).u64(&[0, 0]);
        at += size;
    }
    file.until(headers);
    for (set, &start) in sets.iter().zip(&starts) {
        file.put(&of_data(set, start));
    }
    out.write_all(&file.0)?;
    for set in sets {
        out.write_all(set.bytes)?;
        out.write_all(&[0; 8][..set.bytes.len().next_multiple_of(8) - set.bytes.len()])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::Command;
    use std::sync::Arc;

    use super::super::hdf5::Hdf5;
    use super::super::matrix::Number;
    use super::*;
    use crate::data::bytes::{Bytes, Reading};
    use crate::data::write_file;

    fn written(path: &Path, scores: &[f32], places: &[i64]) {
        let (rows, n) = (scores.len() as u64, places.len() as u64 / 2);
        let sets = [
            DataSet {
                name: "attention_scores",
                shape: &[rows, 1],
                kind: Kind::F32,
                bytes: bytemuck::cast_slice(scores),
            },
            DataSet { name: "coords", shape: &[n, 2], kind: Kind::I64, bytes: bytemuck::cast_slice(places) },
            DataSet { name: "doubles", shape: &[1], kind: Kind::F64, bytes: &0.1f64.to_le_bytes() },
        ];
        write_file(path, |out| write_hdf5(out, &sets)).unwrap();
    }

    #[test]
    fn what_is_written_is_what_our_reader_reads() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.h5");
        let (scores, places) = ([0.25f32, 0.5, -1.0], [0i64, 256, 1 << 40, 0, -7, 3]);
        written(&path, &scores, &places);
        let file = Hdf5::open(Arc::new(Bytes::open(&path, Reading::default()).unwrap())).unwrap();
        assert_eq!(file.names().unwrap(), ["attention_scores", "coords", "doubles"]);
        let read = |name: &str, bytes: usize| {
            let (array, _, chunk) = file.array(name).unwrap();
            assert_eq!(chunk, None);
            let (shape, number) = (array.shape.clone(), array.number);
            let matrix = array.matrix(&path);
            let mut all = vec![0; bytes];
            if let Ok(matrix) = matrix {
                matrix.read(0..matrix.rows, &mut all).unwrap();
            }
            (shape, number, all)
        };
        assert_eq!(
            read("attention_scores", 12),
            (vec![3, 1], Number::F32, bytemuck::cast_slice::<_, u8>(&scores).to_vec())
        );
        assert_eq!(read("coords", 48), (vec![3, 2], Number::I64, bytemuck::cast_slice::<_, u8>(&places).to_vec()));
        assert_eq!(file.array("doubles").unwrap().0.number, Number::F64);
    }

    #[test]
    fn data_sets_without_elements_are_there_and_empty() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.h5");
        written(&path, &[], &[]);
        let file = Hdf5::open(Arc::new(Bytes::open(&path, Reading::default()).unwrap())).unwrap();
        assert_eq!(file.array("coords").unwrap().0.shape, [0, 2]);
    }

    #[test]
    fn h5py_reads_the_same() {
        let named = std::env::var("ONKOS_PYTHON");
        let program = named.clone().unwrap_or_else(|_| "python3".into());
        let found = Command::new(&program).args(["-c", "import h5py"]).output();
        if !found.is_ok_and(|out| out.status.success()) {
            assert!(named.is_err(), "ONKOS_PYTHON lacks h5py");
            println!("skipped: no Python with h5py here");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let (full, empty) = (folder.path().join("a.h5"), folder.path().join("b.h5"));
        written(&full, &[0.25, 0.5, -1.0], &[0, 256, 1 << 40, 0, -7, 3]);
        written(&empty, &[], &[]);
        let script = "import h5py, sys\nfor p in sys.argv[1:]:\n  f = h5py.File(p)\n  for k in f: print(k, f[k].dtype, f[k].shape, f[k][()].tolist())\n  assert 'coord' not in f";
        let out = Command::new(&program).args(["-c", script]).args([&full, &empty]).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let said = String::from_utf8(out.stdout).unwrap();
        let want = "attention_scores float32 (3, 1) [[0.25], [0.5], [-1.0]]\n\
                    coords int64 (3, 2) [[0, 256], [1099511627776, 0], [-7, 3]]\n\
                    doubles float64 (1,) [0.1]\n\
                    attention_scores float32 (0, 1) []\ncoords int64 (0, 2) []\ndoubles float64 (1,) [0.1]\n";
        assert_eq!(said, want);
    }
}
