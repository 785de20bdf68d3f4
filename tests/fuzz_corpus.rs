//! Inputs that fuzzing kept, the smallest of what it found among them, through the bodies of the fuzz targets: no panic, no
//! endless reading, and no memory that the file does not account for. `fuzz/run` looks for more (CONTRIBUTING.md).

// They are public to the targets.
#[allow(unreachable_pub)]
#[path = "../fuzz/src/bodies.rs"]
mod bodies;

#[allow(unreachable_pub)]
#[path = "../fuzz/src/count.rs"]
mod count;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use bodies::{Scratch, TARGETS, Target};
use count::Count;

#[global_allocator]
static MEMORY: Count = Count::with_limit(usize::MAX);

/// A file of kilobytes inflates to some megabytes and is read in blocks; a claim that is believed takes gigabytes.
const MOST_MEMORY: usize = 256 << 20;
/// Inputs take milliseconds; the machine may be busy.
const MOST_TIME: Duration = Duration::from_secs(60);

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz_corpus")
}

/// The kept inputs of a target and the fixtures that it starts from, sorted.
fn inputs(target: &str) -> Vec<PathBuf> {
    let fixtures: &[&str] = match target {
        "h5" => &["h5"],
        "pt" => &["pt"],
        "npy" => &["npy", "npz"],
        _ => &[],
    };
    let listed = |folder: PathBuf| fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path());
    let is_fixture =
        |file: &PathBuf| fixtures.iter().any(|e| file.extension().is_some_and(|extension| extension == *e));
    let fixtures = listed(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")).filter(is_fixture);
    let mut files: Vec<PathBuf> = listed(folder().join(target)).chain(fixtures).collect();
    files.sort();
    files
}

/// What an input did wrong, if anything: a panic, or too much memory.
fn fault(scratch: &Scratch, body: fn(&Scratch, &[u8]), bytes: &[u8]) -> Option<String> {
    let held = MEMORY.held();
    MEMORY.peak_since(held);
    let ran = catch_unwind(AssertUnwindSafe(|| body(scratch, bytes)));
    let peak = MEMORY.peak_since(held);
    if ran.is_err() {
        Some("panics".into())
    } else if peak > MOST_MEMORY {
        Some(format!("takes {peak} bytes of memory"))
    } else {
        None
    }
}

/// Runs a target over its inputs in a thread of its own, which may be left behind if it does not end.
fn faults((target, body): Target) -> Vec<String> {
    let (started, ended) = channel();
    let files = inputs(target);
    let of_thread = files.clone();
    thread::spawn(move || {
        let scratch = Scratch::new();
        for file in of_thread {
            let found = fault(&scratch, body, &fs::read(&file).unwrap());
            if started.send(found).is_err() {
                return;
            }
        }
    });
    let mut faults = Vec::new();
    for file in &files {
        let name = file.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap().display();
        match ended.recv_timeout(MOST_TIME) {
            Ok(found) => faults.extend(found.map(|what| format!("{name} {what}"))),
            Err(RecvTimeoutError::Timeout) => {
                faults.push(format!("{name} takes more than {MOST_TIME:?}"));
                break;
            }
            Err(RecvTimeoutError::Disconnected) => {
                faults.push(format!("{name}: no sound cohort beside it"));
                break;
            }
        }
    }
    faults
}

// One test for all, since memory is counted for the whole program.
#[test]
fn kept_inputs_neither_panic_nor_hang_nor_take_memory_they_do_not_account_for() {
    let found: Vec<String> = TARGETS.into_iter().flat_map(faults).collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
    memory_and_panics_are_noticed();
}

/// The test above can fail.
fn memory_and_panics_are_noticed() {
    let scratch = Scratch::new();
    let greedy: fn(&Scratch, &[u8]) = |_, bytes| drop(vec![0u8; bytes.len() * MOST_MEMORY]);
    assert!(fault(&scratch, greedy, b"").is_none());
    assert!(fault(&scratch, greedy, b"12").is_some_and(|what| what.contains("memory")));
    assert!(fault(&scratch, |_, _| panic!("on purpose"), b"").is_some_and(|what| what == "panics"));
}

#[test]
fn every_target_has_inputs_and_a_file_that_fuzzes_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (target, _) in TARGETS {
        assert!(inputs(target).len() >= 5, "{target} has few inputs");
        for file in [format!("fuzz/targets/{target}.rs"), format!("fuzz/dict/{target}")] {
            assert!(root.join(&file).is_file(), "{file} is missing");
        }
    }
    let names = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name());
    for name in names {
        assert!(TARGETS.iter().any(|(target, _)| name == *target), "a folder of inputs without a target: {name:?}");
    }
}
