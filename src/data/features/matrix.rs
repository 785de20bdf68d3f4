//! Arrays in files, and reading rows of them.

use std::io::{BufRead, Read};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use flate2::bufread::DeflateDecoder;

use super::hdf5::Hdf5Rows;
use super::{MAX_WIDTH, WANT, why};
use crate::data::bytes::{Bytes, Session};
use crate::data::problem::Problem;
use crate::error::said;

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
    Plain { bytes: Arc<Bytes>, start: usize, strides: Vec<usize> },
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
    /// An array whose elements lie in some bytes of a file as they are, `offset` bytes after their start.
    pub(super) fn plain(
        name: &str,
        shape: Vec<usize>,
        number: Number,
        bytes: &Arc<Bytes>,
        within: Range<usize>,
        offset: usize,
        strides: Vec<usize>,
    ) -> Result<Array, String> {
        let outside =
            || format!("{name} of shape {shape:?} does not fit into the bytes that hold it; write the file again");
        let room = within.len();
        let size = extent(&shape, number).ok_or_else(outside)?;
        if size > room {
            return Err(outside());
        }
        if size > 0 {
            // The last byte of the last element.
            let steps = shape.iter().zip(&strides);
            let last = steps.map(|(&d, &stride)| (d - 1).checked_mul(stride));
            let last = last.chain([Some(offset), Some(number.bytes())]).try_fold(0usize, |n, x| n.checked_add(x?));
            if last.is_none_or(|end| end > room) {
                return Err(outside());
            }
        }
        let start = within.start + if size > 0 { offset } else { 0 };
        Ok(Array {
            name: name.into(),
            shape,
            number,
            elements: Elements::Plain { bytes: bytes.clone(), start, strides },
        })
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
            Elements::Plain { bytes, start, mut strides } if shape.len() == 3 => {
                strides.remove(0);
                Elements::Plain { bytes, start, strides }
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

    /// Where the first row lies in the file, if rows lie there one after another.
    fn in_order(&self) -> Option<(&Arc<Bytes>, usize)> {
        match &self.elements {
            Elements::Plain { bytes, start, strides } if strides[..] == [self.row_bytes(), self.number.bytes()] => {
                Some((bytes, *start))
            }
            _ => None,
        }
    }

    /// Bytes of rows that lie one after another in a mapped file.
    pub(super) fn slice(&self, range: Range<usize>) -> Option<&[u8]> {
        self.place(range).and_then(|(bytes, range)| bytes.slice(range))
    }

    /// Where bytes of rows lie in their file, if they lie there one after another.
    pub(super) fn place(&self, range: Range<usize>) -> Option<(&Bytes, Range<usize>)> {
        let (bytes, start) = self.in_order()?;
        Some((bytes, start + range.start..start + range.end))
    }

    /// Copies bytes of rows that lie one after another, from byte `from` of all on; none if they do not lie so.
    pub(super) fn bytes(&self, from: usize, to: &mut [u8]) -> Option<Result<(), String>> {
        let (bytes, start) = self.in_order()?;
        Some(bytes.session().and_then(|session| session.read(start + from, to)))
    }

    /// The bytes that are best read at once.
    pub(super) fn block(&self) -> usize {
        match &self.elements {
            // Large enough to be worth a task, small enough to share a long bag among threads.
            Elements::Plain { bytes, .. } if bytes.is_mapped() => 1 << 20,
            Elements::Latin1(_) => 1 << 20,
            // Each block opens the file anew.
            Elements::Plain { .. } => 4 << 20,
            // Each block looks for its chunks anew.
            Elements::Hdf5(_) => 8 << 20,
            // Each block inflates all that lies before it.
            Elements::Inflated(_) => 64 << 20,
        }
    }

    /// Copies rows into exactly as many bytes.
    pub(super) fn read(&self, rows: Range<usize>, to: &mut [u8]) -> Result<(), String> {
        self.pick(&[rows], to)
    }

    /// Copies some ranges of rows, ascending and apart, one after another into exactly as many bytes.
    pub(super) fn pick(&self, runs: &[Range<usize>], to: &mut [u8]) -> Result<(), String> {
        if to.is_empty() {
            return Ok(());
        }
        let row = self.row_bytes();
        match &self.elements {
            Elements::Plain { bytes, start, strides } => {
                let (session, mut left) = (bytes.session()?, to);
                for run in runs {
                    let (to, rest) = left.split_at_mut(run.len() * row);
                    left = rest;
                    if self.in_order().is_some() {
                        session.read(start + run.start * row, to)?;
                    } else {
                        self.strided(&session, *start, [strides[0], strides[1]], run.clone(), to)?;
                    }
                }
                Ok(())
            }
            Elements::Latin1(text) => text.read(runs, row, to),
            Elements::Inflated(stream) => stream.read(runs, row, to),
            Elements::Hdf5(chunks) => chunks.read(runs, self.number.bytes(), row, to),
        }
    }

    /// Copies rows that do not lie one after another.
    fn strided(
        &self,
        session: &Session<'_>,
        start: usize,
        [by_row, by_column]: [usize; 2],
        rows: Range<usize>,
        to: &mut [u8],
    ) -> Result<(), String> {
        let (bytes, row) = (self.number.bytes(), self.row_bytes());
        if by_row == bytes && by_column != bytes {
            // Column after column: what is wanted of each lies together.
            let mut column = vec![0; rows.len() * bytes];
            for c in 0..self.width {
                session.read(start + rows.start * by_row + c * by_column, &mut column)?;
                for (from, to) in column.chunks_exact(bytes).zip(to.chunks_exact_mut(row)) {
                    to[c * bytes..(c + 1) * bytes].copy_from_slice(from);
                }
            }
            return Ok(());
        }
        for (r, to) in rows.zip(to.chunks_exact_mut(row)) {
            let first = start + r * by_row;
            if by_column == bytes {
                session.read(first, to)?;
                continue;
            }
            for (c, to) in to.chunks_exact_mut(bytes).enumerate() {
                session.read(first + c * by_column, to)?;
            }
        }
        Ok(())
    }
}

/// Bytes that were written as characters: UTF-8 of the first 256.
#[derive(Debug)]
pub(super) struct Latin1 {
    bytes: Arc<Bytes>,
    /// Where every [`MARK`](Self::MARK)th character starts in the file, and the end.
    marks: Vec<usize>,
}

impl Latin1 {
    const MARK: usize = 1 << 16;

    /// Looks at the whole text once: it must hold exactly `size` characters below 256.
    pub(super) fn new(bytes: &Arc<Bytes>, text: Range<usize>, size: usize) -> Result<Latin1, String> {
        let (mut marks, mut count) = (Vec::new(), 0);
        characters(&mut *bytes.reader(text.clone())?, |_, at| {
            if count % Latin1::MARK == 0 {
                marks.push(text.start + at);
            }
            count += 1;
            true
        })?;
        marks.push(text.end);
        if count != size {
            return Err(format!("{count} bytes of an array that needs {size}; write the file again"));
        }
        Ok(Latin1 { bytes: bytes.clone(), marks })
    }

    fn read(&self, runs: &[Range<usize>], row: usize, to: &mut [u8]) -> Result<(), String> {
        let (end, mut left, mut runs) = (self.marks[self.marks.len() - 1], to, runs);
        while let [first, ..] = runs {
            // Runs between which no mark lies are read in one go.
            let go_on = |pair: &&[Range<usize>]| (pair[1].start - pair[0].end) * row < Latin1::MARK;
            let together = 1 + runs.windows(2).take_while(go_on).count();
            let (now, later) = runs.split_at(together);
            let (to, rest) = left.split_at_mut(now.iter().map(|run| run.len() * row).sum());
            let mark = first.start * row / Latin1::MARK;
            let (mut at, mut wanted) = (mark * Latin1::MARK, now.iter().flat_map(|run| run.start * row..run.end * row));
            let (mut next, mut to) = (wanted.next(), to.iter_mut());
            characters(&mut *self.bytes.reader(self.marks[mark]..end)?, |byte, _| {
                if next == Some(at) {
                    *to.next().expect("room for what is wanted") = byte;
                    next = wanted.next();
                }
                at += 1;
                next.is_some()
            })?;
            if next.is_some() {
                return Err("the file has changed".into());
            }
            (left, runs) = (rest, later);
        }
        Ok(())
    }
}

/// Gives each character below 256 and where it starts, until `each` wants no more.
fn characters(text: &mut dyn BufRead, mut each: impl FnMut(u8, usize) -> bool) -> Result<(), String> {
    let other = || Err("the array is not written as bytes".to_owned());
    let (mut at, mut lead) = (0, None);
    loop {
        let piece = text.fill_buf().map_err(|e| said(&e))?;
        if piece.is_empty() {
            return if lead.is_none() { Ok(()) } else { other() };
        }
        for &byte in piece {
            let more = match (lead.take(), byte) {
                (None, 0..0x80) => each(byte, at),
                (None, 0xc2..=0xc3) => {
                    lead = Some(byte);
                    true
                }
                (Some(lead), 0x80..0xc0) => each(lead << 6 | byte & 0x3f, at - 1),
                _ => return other(),
            };
            if !more {
                return Ok(());
            }
            at += 1;
        }
        let read = piece.len();
        text.consume(read);
    }
}

/// A DEFLATE stream in a file. There is no way into its middle: what lies before is inflated and thrown away.
#[derive(Debug)]
pub(super) struct Inflated {
    pub(super) bytes: Arc<Bytes>,
    pub(super) deflated: Range<usize>,
    /// The bytes of the stream before the first element.
    pub(super) skip: usize,
}

impl Inflated {
    fn read(&self, runs: &[Range<usize>], row: usize, to: &mut [u8]) -> Result<(), String> {
        let mut stream = DeflateDecoder::new(self.bytes.reader(self.deflated.clone())?);
        let wrong = |e: std::io::Error| format!("its compression is damaged: {}", said(&e));
        let (mut at, mut left) = (0, to);
        for run in runs {
            let before = (self.skip + run.start * row - at) as u64;
            let skipped = std::io::copy(&mut stream.by_ref().take(before), &mut std::io::sink()).map_err(wrong)?;
            if skipped < before {
                return Err("its compressed part ends too early".into());
            }
            let (to, rest) = left.split_at_mut(run.len() * row);
            stream.read_exact(to).map_err(wrong)?;
            (at, left) = (self.skip + run.end * row, rest);
        }
        Ok(())
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
        // Read in pieces of three bytes, so that characters are cut.
        let bytes_of = |text: &[u8]| {
            let mut found = Vec::new();
            characters(&mut std::io::BufReader::with_capacity(3, text), |byte, at| {
                found.push((byte, at));
                true
            })
            .map(|()| found)
        };
        let starts = text.char_indices().map(|(at, _)| at);
        assert_eq!(bytes_of(text.as_bytes()).unwrap(), (0..=255).zip(starts).collect::<Vec<_>>());
        assert!(["\u{100}", "€"].iter().all(|text| bytes_of(text.as_bytes()).is_err()));
        assert!(bytes_of(&[0xc3]).is_err() && bytes_of(&[0x80]).is_err());
    }
}
