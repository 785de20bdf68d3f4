//! Against the libraries that the tools use, where the Python in use has them.

use std::process::Command;

use onkos::FeatureType;
use onkos::data::FeatureFile;

use crate::fixtures::{all, path};

/// Reads each file as Python does and prints `name kind shape sum-of-bytes`: features as little-endian bytes.
const SCRIPT: &str = r#"
import hashlib, sys
import h5py, numpy as np, torch
for path in sys.argv[1:]:
    if path.endswith(".h5"):
        with h5py.File(path) as f:
            found = [f[k][()] for k in ("features", "feats", "patch_embeddings", "Res_feature") if k in f]
            x = found[0] if found else None
    elif path.endswith(".pt"):
        x = torch.load(path, weights_only=False)
        if isinstance(x, dict):
            x = x.get("features", next(iter(x.values())))
        if torch.is_tensor(x):
            x = x.view(torch.int16).numpy().view("V2") if x.dtype == torch.bfloat16 else x.numpy()
    elif path.endswith(".npy"):
        x = np.load(path)
    else:
        x = np.load(path)
        x = x["features"] if "features" in x.files else x[x.files[0]]
    x = x[0] if x.ndim == 3 else x
    x = x.astype(np.float32) if x.dtype == np.float64 else x
    print(x.shape[0], x.shape[1] if x.ndim == 2 else 0, hashlib.sha256(np.ascontiguousarray(x).tobytes()).hexdigest())
"#;

/// The Python that has h5py, numpy and torch: that of `ONKOS_PYTHON`, else the one on the path.
fn python() -> Option<Command> {
    let named = std::env::var("ONKOS_PYTHON");
    let program = named.clone().unwrap_or_else(|_| "python3".into());
    let found = Command::new(&program).args(["-c", "import h5py, numpy, torch"]).output();
    if found.is_ok_and(|out| out.status.success()) {
        return Some(Command::new(program));
    }
    assert!(named.is_err(), "ONKOS_PYTHON lacks h5py, numpy or torch");
    println!("skipped: no Python with h5py, numpy and torch here");
    None
}

#[test]
fn every_file_that_is_read_is_read_as_python_reads_it() {
    let Some(mut python) = python() else { return };
    let opened: Vec<FeatureFile> = all().iter().filter_map(|path| FeatureFile::open(path).ok()).collect();
    assert!(opened.len() >= 25);
    let output = python.arg("-c").arg(SCRIPT).args(opened.iter().map(FeatureFile::path)).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().count(), opened.len());
    for (file, line) in opened.iter().zip(text.lines()) {
        let mut bytes = vec![0; file.rows() * file.row_bytes()];
        file.read_rows(0..file.rows(), &mut bytes).unwrap();
        let ours = format!("{} {} {}", file.rows(), file.width(), sha256(&bytes));
        assert_eq!(ours, line, "{}", file.path().display());
    }
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_script_writes_the_files_that_are_in_the_repository() {
    let Some(mut python) = python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let made = python.arg(path("make.py")).arg(folder.path()).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    for file in all() {
        let again = folder.path().join(file.file_name().unwrap());
        let read = |path: &std::path::Path| {
            FeatureFile::open(path).ok().map(|file| {
                let mut bytes = vec![0; file.rows() * file.row_bytes()];
                file.read_rows(0..file.rows(), &mut bytes).unwrap();
                (bytes, file.dialect(), file.dtype() == FeatureType::F32, file.encoder().map(String::from))
            })
        };
        assert!(again.is_file() && read(&again) == read(&file), "{}", file.display());
    }
}
