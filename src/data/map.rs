//! A file as memory, read by the system as it is touched: files may be larger than the memory of the machine.
#![allow(unsafe_code)]

use std::fs::{self, File};
use std::io;
use std::ops::{Deref, Range};
use std::path::Path;
#[cfg(target_os = "linux")]
use std::sync::LazyLock;

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
        #[cfg(target_os = "linux")]
        in_large_pages(&map);
        Ok(Map(map))
    }

    /// Whether the system has yet to read bytes. It is asked about the last of them alone.
    #[cfg(target_os = "linux")]
    pub(crate) fn is_absent(&self, range: Range<usize>) -> bool {
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

/// The page that the advice below and the question above are made for.
#[cfg(target_os = "linux")]
const PAGE: usize = 4096;

/// Has the system read a file in large pages, 2 MiB each: the one that is touched and nothing around it. That is a fraction of the
/// work of bringing and forgetting pages of 4 KiB, which a processor that calculates has no time for (`ARCHITECTURE.md` has what it did).
///
/// Systems that do not read so, of which the advice to read nothing around makes single small pages, are left as they are.
#[cfg(target_os = "linux")]
fn in_large_pages(map: &memmap2::Mmap) {
    use memmap2::Advice;

    static READS_SO: LazyLock<bool> = LazyLock::new(|| {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        // SAFETY: a question with a number for an answer.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        reads_large_pages(&release) && page == PAGE as libc::c_long
    });
    if *READS_SO && map.advise(Advice::HugePage).is_ok() {
        // A refusal leaves a reading of two large pages for one.
        let _ = map.advise(Advice::Random);
    }
}

/// Whether a release of Linux reads a large page of a file where memory is to have some: from 5.18 on.
#[cfg(target_os = "linux")]
fn reads_large_pages(release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|word| word.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(5), Some(18))
}

impl Deref for Map {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    /// The flags of the part of memory that a map lies in, as the system tells them.
    fn flags(map: &Map) -> Vec<String> {
        let at = map.as_ptr() as usize;
        let told = fs::read_to_string("/proc/self/smaps").unwrap();
        let starts_at = |line: &&str| {
            let bounds = line.split_whitespace().next().and_then(|word| word.split_once('-'));
            let number = |word| usize::from_str_radix(word, 16).ok();
            bounds.and_then(|(from, to)| Some((number(from)?..number(to)?).contains(&at))).unwrap_or(false)
        };
        let mut lines = told.lines().skip_while(|line| !starts_at(line));
        let flags = lines.find_map(|line| line.strip_prefix("VmFlags:")).expect("a map has flags");
        flags.split_whitespace().map(String::from).collect()
    }

    #[test]
    fn a_file_is_read_in_large_pages_where_the_system_does_so_and_else_as_before() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), vec![7; 5 << 20]).unwrap();
        let map = Map::open(file.path()).unwrap();
        let flags = flags(&map);
        let [large, alone] = ["hg", "rr"].map(|flag| flags.iter().any(|f| f == flag));
        // Nothing around a page alone would make single small ones.
        assert_eq!(large, alone, "{flags:?}");
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        let has_large = fs::exists("/sys/kernel/mm/transparent_hugepage").unwrap();
        if cfg!(target_arch = "x86_64") {
            assert_eq!(large, has_large && reads_large_pages(&release), "{release}");
        }
        assert!(map.iter().all(|&byte| byte == 7));
    }

    #[test]
    fn only_releases_that_read_large_pages_are_asked_to() {
        for release in ["5.18.0", "6.1.0-13-amd64", "6.18.5\n", "10.0"] {
            assert!(reads_large_pages(release), "{release}");
        }
        // Those of RHEL 8 and 9, Ubuntu 20.04 and 22.04, and what is no release.
        for release in
            ["4.18.0-553.el8.x86_64", "5.14.0-427.el9.x86_64", "5.4.0-1", "5.15.0-91-generic", "", "x", "next"]
        {
            assert!(!reads_large_pages(release), "{release}");
        }
    }
}
