//! Commands that are killed: the old file or the new one, a whole run folder or none.

use std::process::Stdio;
use std::time::{Duration, Instant};

use onkos::rng::Draws;

use crate::study::{Study, TRAIN};

/// Runs a command and kills it after a while, if it is still there then. Whether it was.
fn killed(study: &Study, words: &str, after: Duration) -> bool {
    let mut child = study.command(words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(after);
    let alive = child.try_wait().unwrap().is_none();
    child.kill().unwrap();
    child.wait().unwrap();
    alive
}

/// What a killed training left beside the run.
fn leftovers(study: &Study) -> Vec<std::path::PathBuf> {
    let hidden = |path: &std::path::PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with(".run.");
    study.names().into_iter().filter(hidden).collect()
}

#[test]
fn a_killed_training_leaves_a_whole_run_or_none() {
    let study = Study::new();
    let words = format!("{TRAIN} --epochs 3 --out run");
    let start = Instant::now();
    study.run(&words).succeeded();
    let whole = start.elapsed();
    let model = study.read("run/model.safetensors");
    std::fs::remove_dir_all(study.path("run")).unwrap();

    let stream = Draws::new(2, 0, "kills").of(0);
    let mut unfinished = 0;
    for kill in 0..10 {
        killed(&study, &words, whole.mul_f64(stream.uniform(kill)));
        if study.path("run").exists() {
            assert_eq!(study.read("run/model.safetensors"), model, "a run that has its name is complete");
            study.run("evaluate run south.toml --replicates 2").succeeded();
            std::fs::remove_dir_all(study.path("run")).unwrap();
        } else {
            unfinished += 1;
        }
    }
    assert!(unfinished > 0, "no kill of ten came in time");
    // What is left is hidden, hinders nobody, and goes with `rm -r .run.*`.
    let left = leftovers(&study);
    study.run(&words).succeeded();
    assert_eq!(leftovers(&study), left, "a finished training leaves nothing of its own");
    left.iter().for_each(|folder| std::fs::remove_dir_all(folder).unwrap());
    study.run("evaluate run south.toml --replicates 2").succeeded();
}

#[test]
fn a_training_of_very_many_epochs_is_not_refused() {
    let study = Study::new();
    let words = format!("{TRAIN} --epochs {} --out run", u32::MAX);
    assert!(killed(&study, &words, Duration::from_millis(1500)), "it ended by itself");
    assert!(!study.path("run").exists());
    let left = leftovers(&study);
    let metrics = std::fs::read_to_string(left[0].join("metrics.jsonl")).unwrap();
    assert!(metrics.contains("\"epoch\":1,"), "it had begun to train");
}

#[test]
fn a_killed_prediction_leaves_the_old_table_or_the_new_one() {
    let (study, _) = Study::trained();
    let words = "predict run south.toml --out risks.csv --force";
    let start = Instant::now();
    study.run(words).succeeded();
    let (whole, new) = (start.elapsed(), study.read("risks.csv"));
    let stream = Draws::new(3, 0, "kills").of(0);
    for kill in 0..15 {
        study.write("risks.csv", "old");
        killed(&study, words, whole.mul_f64(0.5 + 0.6 * stream.uniform(kill)));
        let found = study.read("risks.csv");
        assert!(found == b"old" || found == new, "{} bytes of {}", found.len(), new.len());
    }
}
