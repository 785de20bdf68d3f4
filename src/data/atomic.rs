//! Files and folders that appear whole or not at all.

use std::fs::{self, File, Permissions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use tempfile::{Builder, TempDir};

use crate::error::{Error, Result};

/// Writes a file by way of a temporary one beside it, which takes its name once it is on the disk.
///
/// Whoever opens the file sees the old one or the new one, also after a crash, and a map of the old one stays valid.
///
/// # Errors
/// [`Error::Io`], as on a full disk; the file is then as it was before.
pub fn write_file(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    let folder = parent(path);
    let mut builder = Builder::new();
    if let Some(permissions) = shared_permissions(0o666) {
        builder.permissions(permissions);
    }
    let file = builder.prefix(".").suffix(".part").tempfile_in(folder).map_err(Error::io(folder))?;
    let mut writer = BufWriter::new(file);
    let written = write(&mut writer).and_then(|()| writer.flush());
    written.map_err(Error::io(path))?;
    let file = writer.into_inner().map_err(|e| Error::io(path)(e.into_error()))?;
    file.as_file().sync_all().map_err(Error::io(path))?;
    file.persist(path).map_err(|e| Error::io(path)(e.error))?;
    sync_folder(folder)
}

/// A folder that is filled under a hidden name and takes its own name when it is finished.
///
/// Dropped before that, it is removed with all that is in it.
#[derive(Debug)]
pub struct RunDir {
    building: TempDir,
    target: PathBuf,
}

impl RunDir {
    /// Starts a folder that will be `target`; folders above it are made.
    ///
    /// # Errors
    /// [`Error::Exists`] if the target is there already, [`Error::Io`] if the folder cannot be made.
    pub fn create(target: impl Into<PathBuf>) -> Result<RunDir> {
        let target = target.into();
        refuse_existing(&target)?;
        let folder = parent(&target);
        fs::create_dir_all(folder).map_err(Error::io(folder))?;
        let mut builder = Builder::new();
        if let Some(permissions) = shared_permissions(0o777) {
            builder.permissions(permissions);
        }
        let name = target.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let building = builder.prefix(&format!(".{name}.")).tempdir_in(folder).map_err(Error::io(folder))?;
        Ok(RunDir { building, target })
    }

    /// Where to write while the folder is built.
    pub fn path(&self) -> &Path {
        self.building.path()
    }

    /// Gives the folder its name, and returns it.
    ///
    /// # Errors
    /// [`Error::Exists`] if something took the name meanwhile, [`Error::Io`] if the folder cannot be renamed.
    pub fn finish(self) -> Result<PathBuf> {
        // A rename would silently replace an empty folder.
        refuse_existing(&self.target)?;
        sync_folder(self.path())?;
        fs::rename(self.path(), &self.target).map_err(Error::io(&self.target))?;
        // The hidden name is gone, so there is nothing left to remove.
        let _ = self.building.keep();
        sync_folder(parent(&self.target))?;
        Ok(self.target)
    }
}

fn refuse_existing(target: &Path) -> Result<()> {
    // A link that leads nowhere is something, too.
    if fs::symlink_metadata(target).is_ok() { Err(Error::Exists { path: target.into() }) } else { Ok(()) }
}

/// The folder a path lies in; the current one for a bare name.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}

/// What the user's mask leaves of `mode`, rather than the privacy of temporary files.
#[cfg(unix)]
fn shared_permissions(mode: u32) -> Option<Permissions> {
    use std::os::unix::fs::PermissionsExt;
    Some(Permissions::from_mode(mode))
}
#[cfg(not(unix))]
fn shared_permissions(_: u32) -> Option<Permissions> {
    None
}

/// Makes the names in a folder last through a crash. Only Unix can open a folder for that.
fn sync_folder(folder: &Path) -> Result<()> {
    if cfg!(unix) { File::open(folder).and_then(|f| f.sync_all()).map_err(Error::io(folder)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_replaced_whole_or_left_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        write_file(&path, |w| w.write_all(b"old")).unwrap();
        let failed = write_file(&path, |w| {
            w.write_all(b"half")?;
            Err(io::ErrorKind::StorageFull.into())
        });
        assert!(matches!(failed, Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::StorageFull));
        assert_eq!((fs::read(&path).unwrap(), names(folder.path())), (b"old".to_vec(), vec!["a.txt".into()]));
        write_file(&path, |w| w.write_all(b"new")).unwrap();
        assert_eq!((fs::read(&path).unwrap(), names(folder.path())), (b"new".to_vec(), vec!["a.txt".into()]));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_an_error_and_not_a_short_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let written = write_file(&path, |_| (&full).write_all(b"x"));
        assert!(matches!(written, Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::StorageFull));
        assert!(names(folder.path()).is_empty());
    }

    #[cfg(unix)]
    #[test]
    fn files_and_folders_have_the_permissions_of_any_other() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        fs::write(folder.path().join("plain"), "").unwrap();
        fs::create_dir(folder.path().join("dir")).unwrap();
        write_file(&folder.path().join("ours"), |_| Ok(())).unwrap();
        let run = RunDir::create(folder.path().join("run")).unwrap().finish().unwrap();
        assert_eq!(mode(&folder.path().join("ours")), mode(&folder.path().join("plain")));
        assert_eq!(mode(&run), mode(&folder.path().join("dir")));
    }

    #[test]
    fn a_run_appears_when_it_is_finished() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("deep/run");
        let run = RunDir::create(&target).unwrap();
        write_file(&run.path().join("a"), |w| w.write_all(b"1")).unwrap();
        assert!(!target.exists());
        assert_eq!(run.finish().unwrap(), target);
        assert_eq!((names(&target), names(&folder.path().join("deep"))), (vec!["a".into()], vec!["run".into()]));
    }

    #[test]
    fn a_run_that_fails_leaves_nothing_and_one_that_is_there_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("run");
        let run = RunDir::create(&target).unwrap();
        fs::write(run.path().join("a"), "1").unwrap();
        drop(run);
        assert!(names(folder.path()).is_empty());

        let run = RunDir::create(&target).unwrap();
        fs::create_dir(&target).unwrap();
        assert!(matches!(RunDir::create(&target), Err(Error::Exists { .. })));
        assert!(matches!(run.finish(), Err(Error::Exists { .. })));
        assert_eq!(names(folder.path()), ["run"]);
    }

    #[test]
    fn a_folder_that_is_not_there_is_an_io_error() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(write_file(&folder.path().join("no/a"), |_| Ok(())), Err(Error::Io { .. })));
        fs::write(folder.path().join("file"), "").unwrap();
        assert!(matches!(RunDir::create(folder.path().join("file/run")), Err(Error::Io { .. })));
    }
}
