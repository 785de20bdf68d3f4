//! The benchmark of stores in small, so that it still runs when somebody wants figures: `benches/store`.
#![cfg(target_os = "linux")]
#![allow(dead_code)]

#[path = "../benches/store/cohort.rs"]
mod cohort;
#[path = "../benches/store/read.rs"]
mod read;
#[path = "../benches/store/report.rs"]
mod report;
#[path = "../benches/store/train.rs"]
mod train;

use std::cell::Cell;
use std::path::Path;
use std::process::Command;

use rayon::prelude::*;
use report::{Report, Row};

/// A few slides of a few dozen patches.
const BYTES: u64 = 2 << 20;

fn assert_whole(rows: &[Row], ways: &[&str]) {
    let named: Vec<(&str, &str)> = rows.iter().map(|row| (row.what, row.cache)).collect();
    let wanted: Vec<(&str, &str)> = ways.iter().flat_map(|&way| [(way, "cold"), (way, "warm")]).collect();
    assert_eq!(named, wanted);
    for row in rows {
        assert!(row.seconds > 0.0 && row.ratio[1] <= row.ratio[0] && row.ratio[0] <= row.ratio[2], "{row:?}");
    }
    assert_eq!((rows[0].ratio, rows[1].ratio), ([1.0; 3], [1.0; 3]), "the first is compared with itself");
}

#[test]
fn a_small_store_is_read_by_every_way_and_trained_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut report = Report::new(Vec::new());
    report.store(folder.path(), BYTES, 2);
    assert_whole(&report.store, &["cat", "loader", "gather", "read into memory"]);
    let shards = cohort::feature_files(&folder.path().join("packed"));
    let sizes: u64 = shards.iter().map(|shard| shard.metadata().unwrap().len()).sum();
    assert!(sizes > (report.patches * 2 * cohort::WIDTH) as u64, "{sizes} bytes of {} patches", report.patches);

    // Read by the system while it is gathered, and out of its memory.
    let file = folder.path().join("packed.toml");
    let gathered = || {
        let cohort = onkos::data::Cohort::open_unscanned(&file).unwrap();
        let everybody: Vec<usize> = (0..cohort.len()).collect();
        cohort.slides.as_ref().unwrap().gather(&everybody).unwrap().0
    };
    let warm = gathered();
    cohort::forget(&shards);
    assert_eq!(warm.rows(), report.patches);
    assert_eq!(gathered(), warm);

    for name in ["fusion", "abmil"] {
        let train::Training { model, epochs } = train::training(&file, &shards, &train::model(name).unwrap(), 2);
        assert_eq!((model.as_str(), epochs.len()), (name, 2));
        assert!(epochs.iter().all(|e| (0.0..=1.0).contains(&e.share)), "{epochs:?}");
    }
    assert!(train::model("cox").unwrap_err().contains("abmil"), "what is not a model is told with those that are");
    let run = folder.path().join("run");
    // Enough of them to be looked at many times: a training of one epoch can be over before the second look.
    let limited = train::limited(env!("CARGO_BIN_EXE_onkos"), &file, &shards, 0.0, 100, &run);
    assert!(limited.epochs.len() == 100 && limited.anonymous_mib_by_tenth.iter().any(|&mib| mib > 0), "{limited:?}");
    let written = serde_json::to_value(&report).unwrap();
    assert_eq!(written["store"].as_array().unwrap().len(), 8);
}

#[test]
fn a_thread_of_the_pool_that_waits_for_a_bag_takes_up_no_other() {
    thread_local!(static HELD: Cell<usize> = const { Cell::new(0) });
    let folder = tempfile::tempdir().unwrap();
    let mut report = Report::new(Vec::new());
    report.store(folder.path(), 32 * BYTES, 0);
    cohort::forget(&cohort::feature_files(&folder.path().join("packed")));
    let cohort = onkos::data::Cohort::open_unscanned(folder.path().join("packed.toml")).unwrap();
    let gather = |patient: usize| {
        let held = HELD.replace(HELD.get() + 1);
        cohort.slides.as_ref().unwrap().gather(&[patient]).unwrap();
        HELD.set(held);
        held
    };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    let most = pool.install(|| (0..cohort.len()).into_par_iter().map(gather).max());
    assert_eq!(most, Some(0), "bags that a thread held when it took up another");
}

#[test]
fn a_store_has_as_many_patches_as_the_files_of_trident_that_h5py_reads() {
    let named = std::env::var("ONKOS_PYTHON");
    let python = named.clone().unwrap_or_else(|_| "python3".into());
    if !Command::new(&python).args(["-c", "import h5py"]).output().is_ok_and(|out| out.status.success()) {
        assert!(named.is_err(), "ONKOS_PYTHON lacks h5py");
        println!("skipped: no Python with h5py here");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/store/h5.py");
    let mut report = Report::new(Vec::new());
    report.h5(&folder.path().join("h5"), &python, &script, BYTES, 1);
    assert_whole(&report.h5, &["h5py", "loader, store in F16", "loader, store in F32"]);
    assert_eq!(report.packing.len(), 2);
}
