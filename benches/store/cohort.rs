//! Made-up cohorts of slides of realistic sizes, and the stores of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use half::f16;
use onkos::FeatureType;
use onkos::data::{Cohort, PackOptions, Packed, pack};
use onkos::rng::Draws;
use safetensors::Dtype;
use safetensors::tensor::{TensorView, serialize};

/// Features of a patch.
pub(crate) const WIDTH: usize = 1024;
/// Slides that differ; a large cohort has each several times under other names, so that what it is packed from is small.
const DISTINCT: usize = 24;
/// So few patients can still be split into those to train on and those to choose the epoch by.
const FEWEST: usize = 40;

/// Rows of so many slides, spread evenly over their logarithms: from few to fifty times as many.
pub(crate) fn lengths(slides: usize, fewest: usize) -> Vec<usize> {
    let stream = Draws::new(0, 0, "bench.store.rows").of(0);
    (0..slides).map(|i| (fewest as f64 * 50f64.powf(stream.uniform(i as u64))) as usize).collect()
}

/// The slides that have together about so many bytes as f16, and how few rows one may have.
pub(crate) fn slides_of(bytes: u64) -> (usize, usize) {
    let rows = bytes / (2 * WIDTH as u64);
    // On average 49 / ln 50 times the fewest.
    let slides = (rows as f64 / 12_526.0).round() as usize;
    if slides >= FEWEST { (slides, 1000) } else { (FEWEST, (rows as f64 / (FEWEST as f64 * 12.526)).max(1.0) as usize) }
}

/// A cohort file in `folder` whose slides are in f16, one safetensors file each.
pub(crate) fn of_safetensors(folder: &Path, bytes: u64) -> PathBuf {
    let (slides, fewest) = slides_of(bytes);
    let dir = folder.join("slides");
    fs::create_dir_all(&dir).expect("a folder can be made");
    let stream = Draws::new(0, 0, "bench.store.features").of(0);
    // A period that is no multiple of the width, so that no two rows near each other are the same.
    let drawn: Vec<f16> = (0..65_521).map(|i| f16::from_f64(stream.normal(i))).collect();
    let named = |i: usize| dir.join(format!("SLIDE-{i:05}.safetensors"));
    for (i, rows) in lengths(slides.min(DISTINCT), fewest).into_iter().enumerate() {
        let features: Vec<f16> = (0..rows * WIDTH).map(|at| drawn[(at + 977 * i) % drawn.len()]).collect();
        let view = TensorView::new(Dtype::F16, vec![rows, WIDTH], bytemuck::cast_slice(&features));
        let bytes = serialize([("features", view.expect("sized above"))], None).expect("plain names");
        fs::write(named(i), bytes).expect("room on the disk");
    }
    for i in DISTINCT..slides {
        fs::hard_link(named(i % DISTINCT), named(i)).expect("a file system with hard links");
    }
    describe(folder, slides, "dir = \"slides\"", "files")
}

/// A cohort file in `folder` whose slides are as TRIDENT writes them, in f32. `python` has h5py.
pub(crate) fn of_trident(folder: &Path, python: &str, script: &Path, bytes: u64) -> PathBuf {
    let (slides, fewest) = slides_of(bytes / 2);
    let dir = folder.join("slides");
    fs::create_dir_all(&dir).expect("a folder can be made");
    let mut command = Command::new(python);
    command.arg(script).arg("make").arg(&dir).arg(WIDTH.to_string());
    let made = command.args(lengths(slides, fewest).iter().map(usize::to_string)).status();
    assert!(made.expect("Python runs").success(), "{} could not write", script.display());
    describe(folder, slides, "dir = \"slides\"", "files")
}

/// Writes the table of a cohort, if it is not there, and a cohort file with these slides.
fn describe(folder: &Path, patients: usize, slides: &str, name: &str) -> PathBuf {
    let stream = Draws::new(0, 0, "bench.store.outcome").of(0);
    let mut table = String::from("case_id,months,died\n");
    for p in 0..patients {
        let time = 1.0 + 60.0 * stream.uniform(2 * p as u64);
        table += &format!("SLIDE-{p:05},{time:.2},{}\n", u8::from(stream.uniform(2 * p as u64 + 1) < 0.6));
    }
    fs::write(folder.join("clinical.csv"), table).expect("room on the disk");
    let file = folder.join(format!("{name}.toml"));
    let clinical = "[clinical]\nfile = \"clinical.csv\"\ncase = \"case_id\"\ntime = \"months\"\nevent = \"died\"\n";
    fs::write(&file, format!("name = \"{name}\"\n{clinical}[slides]\n{slides}\n")).expect("room on the disk");
    file
}

/// Packs a cohort into a store beside it, and gives the cohort file of that, what was packed and in how many seconds.
pub(crate) fn stored(files: &Path, dtype: FeatureType, name: &str) -> (PathBuf, Packed, f64) {
    let folder = files.parent().expect("a file lies in a folder");
    let cohort = Cohort::open_unscanned(files).expect("what was just made can be read");
    let start = Instant::now();
    let options = PackOptions { dtype: Some(dtype), ..PackOptions::default() };
    let packed = pack(&cohort, &folder.join(name), options, &|_, _| ()).expect("room on the disk");
    let seconds = start.elapsed().as_secs_f64();
    (describe(folder, cohort.len(), &format!("store = \"{name}\""), name), packed, seconds)
}

/// The files below a folder that have features, in order.
pub(crate) fn feature_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder that was made").map(|entry| entry.expect("its entry").path());
    let mut files: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|e| e != "json")).collect();
    files.sort();
    files
}

/// Has the system forget what it holds of some files. Nobody may have them mapped.
pub(crate) fn forget(files: &[PathBuf]) {
    for file in files {
        let forgets = |out: std::process::Output| out.status.success();
        let mut input = std::ffi::OsString::from("if=");
        input.push(file);
        let dd = Command::new("dd").arg(input).args(["iflag=nocache", "count=0", "status=none"]).output();
        assert!(dd.is_ok_and(forgets), "dd of GNU, to have {} forgotten", file.display());
    }
}
