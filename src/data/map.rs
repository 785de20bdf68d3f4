//! A file as memory, read by the system as it is touched: files may be larger than the memory of the machine.
#![allow(unsafe_code)]

use std::fs::{self, File};
use std::io;
use std::ops::{Deref, Range};
use std::path::Path;

/// A regular file, mapped read-only.
#[derive(Debug)]
pub(crate) struct Map(memmap2::Mmap);

impl Map {
    /// Maps a whole file. What is not a regular file (a folder, a pipe, a device without end) is refused.
    pub(crate) fn open(path: &Path) -> io::Result<Map> {
        // Before it is opened: that of a pipe would wait for someone to write to it.
        if !fs::metadata(path)?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        let file = File::open(path)?;
        // SAFETY: the map is read-only and its bytes are only ever read as plain numbers, for which every bit pattern
        // is valid, so the contents need no guarantee. That nobody shortens the file while the map lives is the user's
        // to guarantee: the documentation of `Cohort::open` asks for it and names `Reading::Positioned` for where
        // nobody can, and our own writers replace files by renaming, which leaves a mapped file as it was.
        let map = unsafe { memmap2::Mmap::map(&file)? };
        Ok(Map(map))
    }

    /// Whether the system has yet to read bytes. It is asked about the last of them alone.
    #[cfg(target_os = "linux")]
    pub(crate) fn is_absent(&self, range: Range<usize>) -> bool {
        const PAGE: usize = 4096;
        let Some(last) = self.0.get(range).and_then(<[u8]>::last) else { return false };
        let page = (std::ptr::from_ref(last) as usize / PAGE * PAGE) as *mut libc::c_void;
        let mut told = 1;
        // SAFETY: the page has a byte of the map in it, so that it is mapped, and the answer for one page is one byte. Where
        // pages are larger, the system says that the place is wrong.
        unsafe { libc::mincore(page, PAGE, &raw mut told) == 0 && told & 1 == 0 }
    }

    #[cfg(not(target_os = "linux"))]
    pub(crate) fn is_absent(&self, _range: Range<usize>) -> bool {
        false
    }

    /// Waits until bytes are in memory.
    pub(crate) fn wait(&self, range: Range<usize>) {
        // What the system maps around a page that is touched.
        const AROUND: usize = 64 << 10;
        for piece in self.0[range].chunks(AROUND) {
            std::hint::black_box(piece.first().copied().max(piece.last().copied()));
        }
    }
}

impl Deref for Map {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}
