//! Where libraries of CUDA may lie that are not part of the driver, and what the loader says of them.

use std::path::{Path, PathBuf};

/// What is in a folder, sorted; nothing if it cannot be read.
pub(super) fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        std::fs::read_dir(folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())).collect();
    found.sort();
    found
}

/// The folders `inner` of the wheels of CUDA in the Python environment in use, and of a conda environment itself.
pub(super) fn wheel_folders(inner: &str) -> Vec<PathBuf> {
    let prefixes = ["VIRTUAL_ENV", "CONDA_PREFIX"].map(|name| std::env::var_os(name).filter(|path| !path.is_empty()));
    prefixes.into_iter().flatten().flat_map(|prefix| folders_below(Path::new(&prefix), inner)).collect()
}

fn folders_below(prefix: &Path, inner: &str) -> Vec<PathBuf> {
    let is_python = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("python"));
    let pythons = entries(&prefix.join("lib")).into_iter().filter(is_python);
    let wheels = pythons.flat_map(|python| entries(&python.join("site-packages/nvidia")));
    let own = [prefix.join(inner), prefix.join("targets/x86_64-linux").join(inner)];
    // Newer wheels first: cu13 sorts before cuda_nvrtc of CUDA 12 by chance of its name.
    wheels.map(|wheel| wheel.join(inner)).chain(own).filter(|folder| folder.is_dir()).collect()
}

/// The last part of what the loader said: the file is known.
pub(super) fn short(why: &libloading::Error) -> String {
    let text = std::error::Error::source(why).map_or_else(|| why.to_string(), ToString::to_string);
    text.split(": ").skip(1).last().unwrap_or(&text).to_string()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A folder with these files, each with its content.
    pub(in crate::device) fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let file = folder.path().join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, content).unwrap();
        }
        folder
    }

    #[test]
    fn folders_of_wheels_are_found_below_an_environment() {
        let nvidia = "lib/python3.12/site-packages/nvidia";
        let [new, old] = ["cu13", "cuda_nvrtc"].map(|wheel| format!("{nvidia}/{wheel}/lib"));
        let files = [new.clone() + "/libnvrtc.so.13", old.clone() + "/libnvrtc.so.12", "bin/python".into()];
        let prefix = folder(&files.each_ref().map(|file| (file.as_str(), "")));
        let expected = [new.as_str(), &old, "lib"].map(|folder| prefix.path().join(folder));
        assert_eq!(folders_below(prefix.path(), "lib"), expected);
        assert!(folders_below(&prefix.path().join("bin"), "lib").is_empty());
    }
}
