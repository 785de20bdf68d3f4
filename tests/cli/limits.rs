//! Batches beyond the memory that a process may take: refused before anything is calculated, and not ended by the system.
#![cfg(target_os = "linux")]

use std::process::Command;

use crate::study::{Answer, Study};

/// A command that may take so many KiB, by a limit of the shell.
fn run(study: &Study, kib: usize, words: &str) -> Answer {
    let command = study.command(words);
    let mut limited = Command::new("sh");
    limited.args(["-c", &format!("ulimit -d {kib} && exec \"$@\""), "sh"]).arg(command.get_program());
    limited.args(command.get_args()).current_dir(study.path("")).env_remove("ONKOS_LOG");
    Answer::of(&mut limited)
}

/// More than the program takes by itself, and far less than 48 patients of 4,000 patches of 256 numbers each.
const KIB: usize = 256 << 10;

/// Attention MIL on many patches, most of them zeros.
const MANY: &str =
    "[model]\nname = \"abmil\"\n[inputs]\nmodalities = [\"patches\"]\n[train]\nepochs = 1\npad_to = 4000\n";

#[test]
fn a_batch_beyond_the_limit_of_a_process_is_named_with_what_to_do() {
    let study = Study::new();
    study.write("many.toml", MANY);
    let train = "train --source north.toml --config many.toml --replicates 2 --device cpu --threads 2 --out run";
    let before = study.names();
    run(&study, KIB, train).refused(&[
        "the CPU has not enough memory for batch 1 of 1 of epoch 1: its 48 patients with 192000 patches",
        "need about",
        "256.0 MiB are what this process may take",
        "--patches-per-batch",
    ]);
    assert_eq!(study.names(), before, "nothing is left behind");
    // As advised.
    run(&study, KIB, &format!("{train} --patches-per-batch 16000")).succeeded();
}

#[test]
fn doctor_tells_what_a_process_may_take() {
    let answer = run(&Study::new(), KIB, "doctor --threads 2").succeeded();
    assert!(answer.out.contains("GiB, of which this process may take 0.2"), "{}", answer.out);
    let json = run(&Study::new(), KIB, "doctor --threads 2 --json").succeeded().json();
    assert_eq!(json["memory_limit_bytes"], KIB << 10);
    assert!(json["memory_bytes"].as_u64() > json["memory_limit_bytes"].as_u64(), "{json}");
}
