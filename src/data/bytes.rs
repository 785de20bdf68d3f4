//! The bytes of a file that is too large to be read as a whole: out of a map, or piece by piece.

use std::borrow::Cow;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use super::map::Map;
use crate::error::said;

/// How files of features are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reading {
    /// They are mapped: the fastest, and safe where nobody shortens a file and the drive stays. If a mapped file gets
    /// shorter, or its drive goes away, the system ends the process.
    #[default]
    Mapped,
    /// They are read at the places that are needed, for network drives: what cannot be read is an error of that file. A
    /// file is opened anew for each read, so that there are never more open than threads, and refused if it has changed.
    Positioned,
}

/// What a sequential reader asks for at once.
const PIECE: usize = 256 << 10;

/// An opened file.
#[derive(Debug)]
pub(crate) struct Bytes {
    len: usize,
    source: Source,
}

#[derive(Debug)]
enum Source {
    Map(Map),
    File(Positioned),
}

/// A file that is not mapped.
#[derive(Debug)]
struct Positioned {
    path: PathBuf,
    modified: Option<SystemTime>,
    /// Open while headers are read, which takes many small reads.
    open: Mutex<Option<Arc<File>>>,
}

impl Bytes {
    /// Opens a file. What is not a regular file (a folder, a pipe, a device without end) is refused.
    pub(crate) fn open(path: &Path, reading: Reading) -> io::Result<Bytes> {
        if reading == Reading::Mapped {
            let map = Map::open(path)?;
            return Ok(Bytes { len: map.len(), source: Source::Map(map) });
        }
        // Before it is opened: that of a pipe would wait for someone to write to it.
        if !fs::metadata(path)?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        let file = File::open(path)?;
        let told = file.metadata()?;
        let len = usize::try_from(told.len()).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        let open = Mutex::new(Some(Arc::new(file)));
        let source = Source::File(Positioned { path: path.into(), modified: told.modified().ok(), open });
        Ok(Bytes { len, source })
    }

    /// The length that the file had when it was opened.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Bytes that are there already, if the file is mapped.
    pub(crate) fn slice(&self, range: Range<usize>) -> Option<&[u8]> {
        match &self.source {
            Source::Map(map) => Some(&map[range]),
            Source::File(_) => None,
        }
    }

    /// Whether the system has yet to read bytes of a mapped file.
    pub(crate) fn is_absent(&self, range: Range<usize>) -> bool {
        matches!(&self.source, Source::Map(map) if map.is_absent(range))
    }

    /// Waits until bytes of a mapped file are in memory.
    pub(crate) fn wait(&self, range: Range<usize>) {
        if let Source::Map(map) = &self.source {
            map.wait(range);
        }
    }

    /// Whether the file is mapped.
    pub(crate) fn is_mapped(&self) -> bool {
        matches!(self.source, Source::Map(_))
    }

    /// Some bytes, for headers: the caller bounds how many.
    pub(crate) fn get(&self, range: Range<usize>) -> Result<Cow<'_, [u8]>, String> {
        if range.start > range.end || range.end > self.len {
            return Err(format!("it has {} bytes and not {}", self.len, range.end));
        }
        if let Some(bytes) = self.slice(range.clone()) {
            return Ok(Cow::Borrowed(bytes));
        }
        let mut bytes = vec![0; range.len()];
        self.session()?.read(range.start, &mut bytes)?;
        Ok(Cow::Owned(bytes))
    }

    /// The bytes from `at` on, at most `most` of them and none behind the end.
    pub(crate) fn up_to(&self, at: usize, most: usize) -> Result<Cow<'_, [u8]>, String> {
        let at = at.min(self.len);
        self.get(at..at.saturating_add(most).min(self.len))
    }

    /// For several reads one after another.
    pub(crate) fn session(&self) -> Result<Session<'_>, String> {
        let file = match &self.source {
            Source::Map(_) => None,
            Source::File(file) => Some(file.opened(self.len)?),
        };
        Ok(Session { bytes: self, file })
    }

    /// Some bytes in order, a piece at a time.
    pub(crate) fn reader(&self, range: Range<usize>) -> Result<Box<dyn BufRead + '_>, String> {
        if let Some(bytes) = self.slice(range.clone()) {
            return Ok(Box::new(bytes));
        }
        let session = self.session()?;
        Ok(Box::new(BufReader::with_capacity(PIECE.min(range.len()), InOrder { session, left: range })))
    }

    /// Says that the headers have been read: nothing stays open.
    pub(crate) fn rest(&self) {
        if let Source::File(file) = &self.source {
            *file.open.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }
}

impl Positioned {
    /// The file, as it was when it was opened first.
    fn opened(&self, len: usize) -> Result<Arc<File>, String> {
        if let Some(file) = &*self.open.lock().unwrap_or_else(PoisonError::into_inner) {
            return Ok(file.clone());
        }
        let file = File::open(&self.path).map_err(|e| said(&e))?;
        let told = file.metadata().map_err(|e| said(&e))?;
        if told.len() < len as u64 {
            return Err(shortened(told.len(), len));
        }
        if told.len() != len as u64 || told.modified().ok() != self.modified {
            return Err("it was written to after it was opened; run this again".into());
        }
        Ok(Arc::new(file))
    }
}

fn shortened(now: u64, len: usize) -> String {
    format!("it has {now} bytes now and had {len} when it was opened; copy the file again")
}

/// A file for several reads.
pub(crate) struct Session<'a> {
    bytes: &'a Bytes,
    file: Option<Arc<File>>,
}

impl Session<'_> {
    /// Reads bytes that lie in the file.
    pub(crate) fn read(&self, at: usize, to: &mut [u8]) -> Result<(), String> {
        let Some(file) = &self.file else {
            let from = self.bytes.slice(at..at + to.len());
            to.copy_from_slice(from.expect("a file that is not opened is mapped"));
            return Ok(());
        };
        self.bytes.read_from(file, at, to)
    }

    /// The file, to go on with [`Bytes::read_from`]; none if it is mapped.
    pub(crate) fn into_file(self) -> Option<Arc<File>> {
        self.file
    }
}

impl Bytes {
    /// Reads bytes out of the file that a session opened.
    pub(crate) fn read_from(&self, file: &File, at: usize, to: &mut [u8]) -> Result<(), String> {
        read_exact_at(file, to, at as u64).map_err(|e| match (e.kind(), file.metadata()) {
            (io::ErrorKind::UnexpectedEof, Ok(told)) => shortened(told.len(), self.len),
            _ => said(&e),
        })
    }
}

/// Reads a range from its start to its end.
struct InOrder<'a> {
    session: Session<'a>,
    left: Range<usize>,
}

impl Read for InOrder<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let n = to.len().min(self.left.len());
        self.session.read(self.left.start, &mut to[..n]).map_err(io::Error::other)?;
        self.left.start += n;
        Ok(n)
    }
}

#[cfg(unix)]
fn read_exact_at(file: &File, to: &mut [u8], at: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, to, at)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut to: &mut [u8], mut at: u64) -> io::Result<()> {
    while !to.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, to, at) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => (to, at) = (&mut to[read..], at + read as u64),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both(contents: &[u8]) -> (tempfile::NamedTempFile, [Bytes; 2]) {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), contents).unwrap();
        let opened = [Reading::Mapped, Reading::Positioned].map(|reading| Bytes::open(file.path(), reading).unwrap());
        (file, opened)
    }

    #[test]
    fn a_map_and_pieces_give_the_same_bytes() {
        let contents: Vec<u8> = (0..3 * PIECE + 5).map(|i| (i * i % 251) as u8).collect();
        let (_file, opened) = both(&contents);
        for bytes in &opened {
            assert_eq!(bytes.len(), contents.len());
            for round in 0..2 {
                for range in [0..0, 0..1, 7..PIECE + 9, 0..contents.len(), contents.len()..contents.len()] {
                    assert_eq!(*bytes.get(range.clone()).unwrap(), contents[range.clone()], "{range:?}");
                    let mut read = Vec::new();
                    bytes.reader(range.clone()).unwrap().read_to_end(&mut read).unwrap();
                    assert_eq!(read, contents[range], "{round}");
                }
                assert!(bytes.get(0..contents.len() + 1).is_err());
                assert_eq!(bytes.up_to(contents.len() - 2, 9).unwrap().len(), 2);
                bytes.rest();
            }
        }
        assert!(opened[0].slice(0..1).is_some() && opened[1].slice(0..1).is_none());
    }

    #[test]
    fn a_file_that_was_shortened_replaced_or_removed_is_told_while_it_is_open_and_after() {
        let (file, [_, bytes]) = both(&[7; 100]);
        fs::OpenOptions::new().write(true).open(file.path()).unwrap().set_len(10).unwrap();
        let words = "it has 10 bytes now and had 100 when it was opened";
        assert!(bytes.get(50..60).unwrap_err().starts_with(words));
        assert_eq!(*bytes.get(0..10).unwrap(), [7; 10]);
        bytes.rest();
        assert!(bytes.get(0..10).unwrap_err().starts_with(words));

        let (file, [_, bytes]) = both(&[7; 100]);
        bytes.rest();
        fs::write(file.path(), [8; 101]).unwrap();
        assert!(bytes.get(0..10).unwrap_err().contains("written to after it was opened"));
        fs::remove_file(file.path()).unwrap();
        assert!(bytes.get(0..10).unwrap_err().starts_with("no such file"));
    }
}
