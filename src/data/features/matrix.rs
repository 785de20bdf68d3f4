//! Arrays in files, and reading rows of them.

use std::io::Read;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use flate2::read::DeflateDecoder;

use super::hdf5::Hdf5Rows;
use super::{MAX_WIDTH, WANT, why};
use crate::data::map::Map;
use crate::data::problem::Problem;

/// The types of elements that are told apart in feature files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Number {
    F64,
    F32,
    F16,
    Bf16,
    I64,
    I32,
    I16,
    I8,
    U64,
    U32,
    U16,
    U8,
}

impl Number {
    const ALL: [(Number, &'static str, usize); 12] = [
        (Number::F64, "F64", 8),
        (Number::F32, "F32", 4),
        (Number::F16, "F16", 2),
        (Number::Bf16, "BF16", 2),
        (Number::I64, "I64", 8),
        (Number::I32, "I32", 4),
        (Number::I16, "I16", 2),
        (Number::I8, "I8", 1),
        (Number::U64, "U64", 8),
        (Number::U32, "U32", 4),
        (Number::U16, "U16", 2),
        (Number::U8, "U8", 1),
    ];

    /// The name, as safetensors writes it.
    pub(super) fn name(self) -> &'static str {
        Number::ALL[self as usize].1
    }

    pub(super) fn bytes(self) -> usize {
        Number::ALL[self as usize].2
    }

    pub(super) fn from_name(name: &str) -> Option<Number> {
        Number::ALL.iter().find(|row| row.1 == name).map(|row| row.0)
    }

    /// One element out of exactly its bytes, little-endian.
    pub(super) fn value(self, bytes: &[u8]) -> f64 {
        fn of<const N: usize>(bytes: &[u8]) -> [u8; N] {
            *bytes.first_chunk().expect("the bytes of an element")
        }
        match self {
            Number::F64 => f64::from_le_bytes(of(bytes)),
            Number::F32 => f32::from_le_bytes(of(bytes)).into(),
            Number::F16 => half::f16::from_le_bytes(of(bytes)).into(),
            Number::Bf16 => half::bf16::from_le_bytes(of(bytes)).into(),
            Number::I64 => i64::from_le_bytes(of(bytes)) as f64,
            Number::I32 => i32::from_le_bytes(of(bytes)).into(),
            Number::I16 => i16::from_le_bytes(of(bytes)).into(),
            Number::I8 => i8::from_le_bytes(of(bytes)).into(),
            Number::U64 => u64::from_le_bytes(of(bytes)) as f64,
            Number::U32 => u32::from_le_bytes(of(bytes)).into(),
            Number::U16 => u16::from_le_bytes(of(bytes)).into(),
            Number::U8 => bytes[0].into(),
        }
    }
}

/// Where the elements of an array lie.
#[derive(Debug)]
pub(super) enum Elements {
    /// In the file as they are: `start`, and the bytes from one index to the next, a dimension each.
    Mapped { map: Arc<Map>, start: usize, strides: Vec<usize> },
    /// In the file as characters below 256, row after row.
    Latin1(Latin1),
    /// In the file as a DEFLATE stream, row after row.
    Inflated(Inflated),
    /// In chunks of an HDF5 file.
    Hdf5(Hdf5Rows),
}

/// An array as a file has it, its extents compared with the file.
#[derive(Debug)]
pub(super) struct Array {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    pub(super) number: Number,
    pub(super) elements: Elements,
}

/// The bytes of an array without gaps, if they can be counted.
pub(super) fn extent(shape: &[usize], number: Number) -> Option<usize> {
    if shape.contains(&0) {
        return Some(0);
    }
    shape.iter().try_fold(number.bytes(), |n, &d| n.checked_mul(d))
}

/// The strides in bytes of rows that lie one after another, the last index first.
pub(super) fn row_major(shape: &[usize], number: Number) -> Vec<usize> {
    let mut strides = vec![number.bytes(); shape.len()];
    for i in (1..shape.len()).rev() {
        strides[i - 1] = strides[i].saturating_mul(shape[i].max(1));
    }
    strides
}

impl Array {
    /// An array whose elements lie in some bytes of a mapped file, `offset` bytes after their start.
    pub(super) fn mapped(
        name: &str,
        shape: Vec<usize>,
        number: Number,
        map: &Arc<Map>,
        within: Range<usize>,
        offset: usize,
        strides: Vec<usize>,
    ) -> Result<Array, String> {
        let outside =
            || format!("{name} of shape {shape:?} does not fit into the bytes that hold it; write the file again");
        let room = within.len();
        let bytes = extent(&shape, number).ok_or_else(outside)?;
        if bytes > room {
            return Err(outside());
        }
        if bytes > 0 {
            // The last byte of the last element.
            let steps = shape.iter().zip(&strides);
            let last = steps.map(|(&d, &stride)| (d - 1).checked_mul(stride));
            let last = last.chain([Some(offset), Some(number.bytes())]).try_fold(0usize, |n, x| n.checked_add(x?));
            if last.is_none_or(|end| end > room) {
                return Err(outside());
            }
        }
        let start = within.start + if bytes > 0 { offset } else { 0 };
        Ok(Array { name: name.into(), shape, number, elements: Elements::Mapped { map: map.clone(), start, strides } })
    }

    /// The array as rows of features; a leading dimension of 1 is left out.
    pub(super) fn matrix(self, path: &Path) -> Result<Matrix, Problem> {
        let Array { name, shape, number, elements } = self;
        let (file, tensor) = (path.to_path_buf(), name);
        let (rows, width) = match shape[..] {
            // A slide in which no tissue was found.
            [0] => (0, 0),
            [_, 0] | [1, _, 0] => return Err(Problem::WidthZero { file, tensor }),
            [rows, width] | [1, rows, width] if width <= MAX_WIDTH => (rows, width),
            [_] => {
                let want = format!("{WANT}; one vector is a whole slide, not its patches");
                return Err(Problem::TensorShape { file, tensor, want, got: shape });
            }
            _ => return Err(Problem::TensorShape { file, tensor, want: WANT.into(), got: shape }),
        };
        if extent(&[rows, width], number).is_none_or(|bytes| bytes > isize::MAX as usize) {
            return Err(why(path, format!("{tensor} of shape {shape:?} is larger than any memory")));
        }
        let elements = match elements {
            Elements::Mapped { map, start, mut strides } if shape.len() == 3 => {
                strides.remove(0);
                Elements::Mapped { map, start, strides }
            }
            other => other,
        };
        Ok(Matrix { rows, width, number, elements })
    }
}

/// Rows of an array of two dimensions.
#[derive(Debug)]
pub(super) struct Matrix {
    pub(super) rows: usize,
    pub(super) width: usize,
    pub(super) number: Number,
    elements: Elements,
}

impl Matrix {
    fn row_bytes(&self) -> usize {
        self.width * self.number.bytes()
    }

    /// Rows as they lie in the file.
    pub(super) fn slice(&self, rows: Range<usize>) -> Option<&[u8]> {
        let row = self.row_bytes();
        match &self.elements {
            Elements::Mapped { map, start, strides } if strides[..] == [row, self.number.bytes()] => {
                Some(&map[start + rows.start * row..start + rows.end * row])
            }
            _ => None,
        }
    }

    /// The bytes that are best read at once.
    pub(super) fn block(&self) -> usize {
        match self.elements {
            // Large enough to be worth a task, small enough to share a long bag among threads.
            Elements::Mapped { .. } | Elements::Latin1(_) => 1 << 20,
            // Each block looks for its chunks anew.
            Elements::Hdf5(_) => 8 << 20,
            // Each block inflates all that lies before it.
            Elements::Inflated(_) => 64 << 20,
        }
    }

    /// Copies rows into exactly as many bytes.
    pub(super) fn read(&self, rows: Range<usize>, to: &mut [u8]) -> Result<(), String> {
        if to.is_empty() {
            return Ok(());
        }
        if let Some(bytes) = self.slice(rows.clone()) {
            to.copy_from_slice(bytes);
            return Ok(());
        }
        match &self.elements {
            Elements::Mapped { map, start, strides } => {
                let bytes = self.number.bytes();
                for (row, to) in rows.zip(to.chunks_exact_mut(self.row_bytes())) {
                    let first = start + row * strides[0];
                    if strides[1] == bytes {
                        to.copy_from_slice(&map[first..first + to.len()]);
                        continue;
                    }
                    for (column, to) in to.chunks_exact_mut(bytes).enumerate() {
                        let at = first + column * strides[1];
                        to.copy_from_slice(&map[at..at + bytes]);
                    }
                }
                Ok(())
            }
            Elements::Latin1(text) => text.read(rows.start * self.row_bytes(), to),
            Elements::Inflated(stream) => stream.read(rows.start * self.row_bytes(), to),
            Elements::Hdf5(chunks) => chunks.read(rows, self.number.bytes(), to),
        }
    }
}

/// Bytes that were written as characters: UTF-8 of the first 256.
#[derive(Debug)]
pub(super) struct Latin1 {
    map: Arc<Map>,
    /// Where every [`MARK`](Self::MARK)th character starts in the file, and the end.
    marks: Vec<usize>,
}

impl Latin1 {
    const MARK: usize = 1 << 16;

    /// Looks at the whole text once: it must hold exactly `bytes` characters below 256.
    pub(super) fn new(map: &Arc<Map>, text: Range<usize>, bytes: usize) -> Result<Latin1, String> {
        let mut marks = Vec::new();
        let (mut at, mut count) = (text.start, 0);
        while at < text.end {
            if count % Latin1::MARK == 0 {
                marks.push(at);
            }
            (_, at) = character(&map[..text.end], at).ok_or("the array is not written as bytes")?;
            count += 1;
        }
        marks.push(text.end);
        if count != bytes {
            return Err(format!("{count} bytes of an array that needs {bytes}; write the file again"));
        }
        Ok(Latin1 { map: map.clone(), marks })
    }

    fn read(&self, from: usize, to: &mut [u8]) -> Result<(), String> {
        let mut at = self.marks[from / Latin1::MARK];
        let end = self.marks[self.marks.len() - 1];
        let mut next = || {
            let (byte, after) = character(&self.map[..end], at)?;
            at = after;
            Some(byte)
        };
        for _ in 0..from % Latin1::MARK {
            next();
        }
        for to in to {
            *to = next().ok_or("the file has changed")?;
        }
        Ok(())
    }
}

/// The character below 256 that starts at a byte, and where the next one starts.
fn character(text: &[u8], at: usize) -> Option<(u8, usize)> {
    match *text.get(at..)? {
        [low @ 0..0x80, ..] => Some((low, at + 1)),
        [lead @ 0xc2..=0xc3, rest @ 0x80..0xc0, ..] => Some((lead << 6 | rest & 0x3f, at + 2)),
        _ => None,
    }
}

/// A DEFLATE stream in a file. There is no way into its middle: what lies before is inflated and thrown away.
#[derive(Debug)]
pub(super) struct Inflated {
    pub(super) map: Arc<Map>,
    pub(super) deflated: Range<usize>,
    /// The bytes of the stream before the first element.
    pub(super) skip: usize,
}

impl Inflated {
    fn read(&self, from: usize, to: &mut [u8]) -> Result<(), String> {
        let mut stream = DeflateDecoder::new(&self.map[self.deflated.clone()]);
        let before = (self.skip + from) as u64;
        let wrong = |e: std::io::Error| format!("its compression is damaged: {}", crate::error::said(&e));
        let skipped = std::io::copy(&mut stream.by_ref().take(before), &mut std::io::sink()).map_err(wrong)?;
        if skipped < before {
            return Err("its compressed part ends too early".into());
        }
        stream.read_exact(to).map_err(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_sizes_of_numbers_belong_together() {
        for (i, (number, name, bytes)) in Number::ALL.into_iter().enumerate() {
            assert_eq!((number as usize, number.name(), number.bytes()), (i, name, bytes));
            assert_eq!(Number::from_name(name), Some(number));
            assert_eq!(number.value(&[0; 8][..bytes]), 0.0);
        }
    }

    #[test]
    fn extents_that_overflow_are_none_and_those_of_nothing_0() {
        assert_eq!(extent(&[3, 5], Number::F16), Some(30));
        assert_eq!(extent(&[], Number::F16), Some(2));
        for shape in [&[0, 5][..], &[0, usize::MAX], &[1 << 40, 1 << 40, 0]] {
            assert_eq!(extent(shape, Number::F64), Some(0), "{shape:?}");
        }
        for shape in [&[usize::MAX, 2][..], &[1 << 61], &[1 << 40, 1 << 40]] {
            assert_eq!(extent(shape, Number::F64), None, "{shape:?}");
        }
    }

    #[test]
    fn characters_below_256_are_bytes_and_others_are_none() {
        let text: String = (0..=255u8).map(char::from).collect();
        let mut at = 0;
        for byte in 0..=255 {
            let (found, next) = character(text.as_bytes(), at).unwrap();
            assert_eq!(found, byte);
            at = next;
        }
        assert_eq!(at, text.len());
        assert!(["\u{100}", "€"].iter().all(|text| character(text.as_bytes(), 0).is_none()));
        assert!(character(&[0xc3], 0).is_none() && character(&[0x80], 0).is_none());
    }
}
