//! Compiled kernels on the disk, so that each is compiled once on a machine.
//!
//! A cache may vanish, be full or be damaged at any time: nothing in it is believed without its sum, and nothing that
//! goes wrong with it is more than a warning.

use std::fmt::Write;
use std::path::PathBuf;

use sha2::{Digest, Sha256};

use crate::data::write_file;
use crate::error::said;

/// The first bytes of a file: what it is, and in which version of this format. The sum of the content follows.
const MAGIC: &[u8] = b"onkos kernel 1\n";
const SUM: usize = 32;

/// The folder of compiled kernels.
#[derive(Clone, Debug)]
pub(super) struct Cache {
    folder: Option<PathBuf>,
}

/// What was found under a name.
#[derive(Debug, PartialEq)]
pub(super) enum Entry {
    /// What was put there.
    Found(Vec<u8>),
    /// Nothing yet.
    Absent,
    /// Something else than what was put there, or nothing that can be read; the sentence says what.
    Damaged(String),
}

impl Cache {
    /// `ONKOS_CACHE`, else the folder of this program in the user's cache; none where the system has no such place.
    pub(super) fn of_this_user() -> Cache {
        let set = |name| std::env::var_os(name).filter(|path| !path.is_empty()).map(PathBuf::from);
        let users = || set("XDG_CACHE_HOME").filter(|path| path.is_absolute());
        let cached = || users().or_else(|| set("LOCALAPPDATA")).or_else(|| Some(set("HOME")?.join(".cache")));
        Cache { folder: set("ONKOS_CACHE").or_else(|| Some(cached()?.join("onkos"))) }
    }

    #[cfg(test)]
    pub(super) fn in_folder(folder: &std::path::Path) -> Cache {
        Cache { folder: Some(folder.into()) }
    }

    /// The name of what is made of these parts: different for any difference in any of them.
    pub(super) fn name<'a>(stem: &str, parts: impl IntoIterator<Item = &'a str>) -> String {
        let mut hasher = Sha256::new();
        for part in parts {
            // The length first, so that no text can move from one part into the next.
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        let mut name = format!("{stem}-");
        for byte in hasher.finalize() {
            let _ = write!(name, "{byte:02x}");
        }
        name + ".kernel"
    }

    pub(super) fn read(&self, name: &str) -> Entry {
        let Some(folder) = &self.folder else { return Entry::Absent };
        let path = folder.join(name);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(why) if why.kind() == std::io::ErrorKind::NotFound => return Entry::Absent,
            Err(why) => return Entry::Damaged(format!("{}: {}", path.display(), said(&why))),
        };
        let content = bytes.strip_prefix(MAGIC).and_then(|rest| rest.split_first_chunk::<SUM>());
        match content {
            Some((sum, content)) if Sha256::digest(content).as_slice() == sum => Entry::Found(content.to_vec()),
            _ => Entry::Damaged(format!("{}: not what was written there", path.display())),
        }
    }

    /// # Errors
    /// Why the file could not be written, as a sentence.
    pub(super) fn write(&self, name: &str, content: &[u8]) -> Result<(), String> {
        let Some(folder) = &self.folder else { return Ok(()) };
        std::fs::create_dir_all(folder).map_err(|why| format!("{}: {}", folder.display(), said(&why)))?;
        let put = |file: &mut dyn std::io::Write| {
            file.write_all(MAGIC)?;
            file.write_all(&Sha256::digest(content))?;
            file.write_all(content)
        };
        write_file(&folder.join(name), put).map_err(|why| why.to_string())
    }

    /// What the folder holds and whether it takes more, as a sentence.
    pub(super) fn state(&self) -> String {
        let Some(folder) = &self.folder else {
            return "none: neither ONKOS_CACHE nor HOME is set, so kernels are compiled anew by every process".into();
        };
        let entries = match std::fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(why) if why.kind() == std::io::ErrorKind::NotFound => {
                return format!("{} is made when the first kernel is compiled", folder.display());
            }
            Err(why) => return format!("{} cannot be read: {}", folder.display(), said(&why)),
        };
        let kernels = entries.flatten().filter(|entry| entry.path().extension().is_some_and(|end| end == "kernel"));
        let (mut count, mut bytes) = (0, 0);
        for kernel in kernels {
            count += 1;
            bytes += kernel.metadata().map_or(0, |known| known.len());
        }
        let held = format!("{} holds {count} compiled kernel files, {} kB", folder.display(), bytes.div_ceil(1000));
        match tempfile::tempfile_in(folder) {
            Ok(_) => held,
            Err(why) => format!("{held}, and takes no more: {}", said(&why)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_in_comes_out() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::in_folder(&folder.path().join("made/when/needed"));
        assert_eq!(cache.read("a"), Entry::Absent);
        for content in [&b"some code"[..], b"", b"other code"] {
            cache.write("a", content).unwrap();
            assert_eq!(cache.read("a"), Entry::Found(content.into()));
        }
        assert_eq!(cache.read("b"), Entry::Absent);
    }

    #[test]
    fn every_damage_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::in_folder(folder.path());
        cache.write("a", b"machine code").unwrap();
        let whole = std::fs::read(folder.path().join("a")).unwrap();
        let put = |bytes: &[u8]| std::fs::write(folder.path().join("a"), bytes).unwrap();
        for end in 0..whole.len() {
            put(&whole[..end]);
            assert!(matches!(cache.read("a"), Entry::Damaged(_)), "cut off at {end}");
        }
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            put(&bytes);
            assert!(matches!(cache.read("a"), Entry::Damaged(_)), "changed at {at}");
        }
        put(&[&whole[..], b"\0"].concat());
        assert!(matches!(cache.read("a"), Entry::Damaged(_)));
        cache.write("a", b"machine code").unwrap();
        assert_eq!(cache.read("a"), Entry::Found(b"machine code".into()));
        std::fs::create_dir(folder.path().join("b")).unwrap();
        assert!(matches!(cache.read("b"), Entry::Damaged(_)));
    }

    #[test]
    fn a_folder_that_takes_nothing_gives_a_reason() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("file"), "").unwrap();
        let cache = Cache::in_folder(&folder.path().join("file/cache"));
        assert!(cache.write("a", b"code").unwrap_err().contains("file"));
        assert!(cache.state().contains("cannot be read"), "{}", cache.state());
        let none = Cache { folder: None };
        assert_eq!((none.read("a"), none.write("a", b"code")), (Entry::Absent, Ok(())));
        assert!(none.state().starts_with("none"));
    }

    #[test]
    fn names_differ_for_any_difference() {
        let name = |parts: &[&str]| Cache::name("op", parts.iter().copied());
        assert_eq!(name(&["ab", "c"]), name(&["ab", "c"]));
        let all = [&["ab", "c"][..], &["a", "bc"], &["abc"], &["ab", "c", ""], &["ab", "d"], &["c", "ab"], &[]];
        let names: std::collections::BTreeSet<String> = all.iter().map(|parts| name(parts)).collect();
        assert_eq!(names.len(), all.len());
        assert!(names.iter().all(|name| name.starts_with("op-") && name.ends_with(".kernel")));
    }

    #[test]
    fn the_state_of_a_folder_is_a_sentence() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::in_folder(&folder.path().join("c"));
        assert!(cache.state().contains("is made when"));
        cache.write(&Cache::name("op", ["x"]), &[0; 5000]).unwrap();
        assert!(cache.state().ends_with("holds 1 compiled kernel files, 6 kB"), "{}", cache.state());
    }
}
