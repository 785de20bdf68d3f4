//! Where results go: nothing is written over, and nothing is left half-written.

use std::process::Command;

use crate::study::{Answer, Study, TRAIN};

#[test]
fn whatever_has_the_name_of_a_run_is_left_alone() {
    let study = Study::new();
    study.write("file", "kept");
    std::fs::create_dir(study.path("folder")).unwrap();
    let mut taken = vec!["file", "folder"];
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("nowhere", study.path("link")).unwrap();
        taken.push("link");
    }
    for name in taken {
        let words = [&format!("{name}: is there already"), "choose another name"];
        study.refuses(&format!("{TRAIN} --epochs 1 --out {name}"), &words.map(|w: &str| w));
        study.refuses(&format!("quickstart --out {name}"), &words.map(|w: &str| w));
    }
    assert_eq!(study.text("file"), "kept");
    study.refuses(&format!("{TRAIN} --epochs 1 --out file/run"), &["file"]);
}

#[test]
fn predict_writes_over_a_table_only_when_told_to() {
    let (study, _) = Study::trained();
    study.write("risks.csv", "kept");
    study.refuses("predict run south.toml --out risks.csv", &["risks.csv: is there already"]);
    assert_eq!(study.text("risks.csv"), "kept");
    study.run("predict run south.toml --out risks.csv --force").succeeded();
    assert_eq!(study.read("risks.csv"), study.read("run/risks/south.csv"));
    study.refuses("predict run south.toml --out run --force", &["run: is there already"]);
    study.refuses("predict run south.toml --out no/risks.csv", &["no", "no such file or directory"]);
    study.refuses("predict run no.toml --out other.csv", &["no.toml", "no such file or directory"]);
    if cfg!(unix) {
        // Stands for anything that is no file: the test must not risk a device of this machine.
        let pipe = Command::new("mkfifo").arg(study.path("pipe")).status();
        if pipe.is_ok_and(|status| status.success()) {
            study.refuses("predict run south.toml --out pipe --force", &["pipe: is there already"]);
        }
    }
}

/// Runs a command that may write no file beyond so many kilobytes, as if the disk were full then.
#[cfg(unix)]
fn limited(study: &Study, kilobytes: u32, words: &str) -> Option<Answer> {
    let program = study.command("").get_program().to_owned();
    let there = Command::new("bash").args(["-c", "trap '' XFSZ"]).status();
    if !there.is_ok_and(|status| status.success()) {
        println!("skipped: no bash here that could set a limit");
        return None;
    }
    let mut bash = Command::new("bash");
    let line = format!("trap '' XFSZ; ulimit -f {kilobytes}; exec \"$0\" \"$@\"");
    bash.args(["-c", &line]).arg(program).args(words.split_whitespace()).current_dir(study.path(""));
    Some(Answer::of(&mut bash))
}

#[cfg(unix)]
#[test]
fn a_disk_that_is_full_is_named_and_nothing_stays_on_it() {
    let (study, _) = Study::trained();
    study.write("risks.csv", "kept");
    let before = study.names();
    // Full at the first line of the metrics, and in the middle of the model.
    for kilobytes in [0, 8] {
        let words = format!("{TRAIN} --epochs 1 --out full");
        let Some(answer) = limited(&study, kilobytes, &words) else { return };
        let file = if kilobytes == 0 { "metrics.jsonl" } else { "model.safetensors" };
        answer.refused(&[file, "file too large"]);
        assert_eq!(study.names(), before);
    }
    limited(&study, 1, "predict run south.toml --out risks.csv --force").unwrap().refused(&["risks.csv", "too large"]);
    limited(&study, 1, "predict run south.toml --out other.csv").unwrap().refused(&["other.csv", "too large"]);
    limited(&study, 1, "quickstart --out q").unwrap().refused(&["too large"]);
    assert_eq!((study.text("risks.csv").as_str(), study.names()), ("kept", before));
}
