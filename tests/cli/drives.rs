//! `--no-mmap`: the same results, and drives and files that go away while they are read.

use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::study::{Answer, Study, TRAIN};

#[test]
fn the_same_model_and_figures_come_out_without_maps() {
    let study = Study::new();
    let bags = study.path("north/bags.safetensors");
    assert!(bags.is_file());
    for (out, words) in [("mapped", ""), ("pieces", "--no-mmap")] {
        study.run(&format!("{TRAIN} --epochs 2 --out {out} {words}")).succeeded();
        study.run(&format!("predict {out} south.toml --out {out}.csv {words}")).succeeded();
    }
    assert!(study.read("mapped/model.safetensors") == study.read("pieces/model.safetensors"));
    assert_eq!(study.text("mapped.csv"), study.text("pieces.csv"));
    for words in ["check north.toml", "inspect north/bags.safetensors", "evaluate mapped south.toml --replicates 2"] {
        let [mapped, pieces] = ["", " --no-mmap"].map(|option| study.run(&format!("{words}{option}")).succeeded().out);
        assert_eq!(mapped, pieces);
    }
    study.run("pack north.toml --out mapped.store --verify").succeeded();
    study.run("pack north.toml --out pieces.store --verify --no-mmap").succeeded();
    assert!(study.read("mapped.store/shard-00000.safetensors") == study.read("pieces.store/shard-00000.safetensors"));
}

/// With a map this would be the end of the process by a signal.
#[test]
fn a_file_that_is_shortened_under_a_training_ends_it_with_a_sentence_and_no_run() {
    let study = Study::new();
    let before = study.names();
    let words = format!("{TRAIN} --no-mmap --epochs 1000000 --out run");
    let child = study.command(&words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let told = || {
        let is_metrics = |path: &std::path::PathBuf| path.ends_with("metrics.jsonl");
        study.names().into_iter().find(is_metrics).is_some_and(|path| path.metadata().is_ok_and(|told| told.len() > 0))
    };
    let start = Instant::now();
    while !told() {
        assert!(start.elapsed() < Duration::from_secs(120), "it trains");
        std::thread::sleep(Duration::from_millis(5));
    }
    let bags = std::fs::OpenOptions::new().write(true).open(study.path("north/bags.safetensors")).unwrap();
    bags.set_len(100).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let answer = Answer { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) };
    answer.refused(&["north/bags.safetensors: features cannot be read: it has 100 bytes now", "copy the file again"]);
    assert_eq!(study.names(), before, "nothing is left behind");
}

#[test]
fn the_patches_of_a_batch_are_chosen_on_the_command_line() {
    let (study, _) = Study::trained();
    study.run("predict run south.toml --out all.csv").succeeded();
    study.run("predict run south.toml --out few.csv --patches-per-batch 1").succeeded();
    // Sums are rounded otherwise, so the last digits of a risk may differ; whose they are may not.
    let cases = |name: &str| -> Vec<String> {
        study.text(name).lines().map(|line| line.split(',').take(4).collect::<Vec<_>>().join(",")).collect()
    };
    assert_eq!(cases("all.csv"), cases("few.csv"));
    study.run("evaluate run south.toml --replicates 2 --patches-per-batch 100").succeeded();
    study.run(&format!("{TRAIN} --epochs 1 --patches-per-batch 50 --out small")).succeeded();
    assert!(study.text("small/config.toml").contains("patches_per_batch = 50\n"));
    let none = study.run("evaluate run south.toml --patches-per-batch 0");
    assert!(none.code == Some(2) && none.err.contains("--patches-per-batch") && none.err.contains("at least 1"));
}
