//! A small study in a temporary folder in which the program runs, and what it answers.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use onkos::data::SyntheticStudy;
use serde_json::Value;
use tempfile::TempDir;

/// Two cohorts, `north.toml` and `south.toml`. Commands run in the folder, so that they name files as a user would.
pub(crate) struct Study {
    folder: TempDir,
}

/// What a command said and how it ended.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Study {
    pub(crate) fn new() -> Study {
        Study::of(60)
    }

    pub(crate) fn of(patients: usize) -> Study {
        let study = Study { folder: tempfile::tempdir().unwrap() };
        SyntheticStudy { seed: 5, patients }.write(study.folder.path()).unwrap();
        study
    }

    /// With the run folder `run` of a short training, and what the training printed.
    pub(crate) fn trained() -> (Study, Value) {
        let study = Study::new();
        let summary = study.run(&format!("{TRAIN} --epochs 2 --out run --json")).succeeded().json();
        (study, summary)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    pub(crate) fn text(&self, name: &str) -> String {
        String::from_utf8(self.read(name)).unwrap()
    }

    pub(crate) fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&self.read(name)).unwrap()
    }

    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.path(name), bytes).unwrap();
    }

    /// Replaces text in a file, which must be there.
    pub(crate) fn edit(&self, name: &str, from: &str, to: &str) {
        let text = self.text(name);
        assert!(text.contains(from), "{name} has no {from:?}");
        self.write(name, text.replacen(from, to, 1));
    }

    /// Sets a cell of a table; rows and columns count from 0, row 0 is the header.
    pub(crate) fn cell(&self, name: &str, row: usize, column: usize, value: &str) {
        let mut rows: Vec<Vec<String>> =
            self.text(name).lines().map(|line| line.split(',').map(String::from).collect()).collect();
        rows[row][column] = value.into();
        self.write(name, rows.iter().map(|cells| cells.join(",") + "\n").collect::<String>());
    }

    /// Changes the bytes of one tensor of a safetensors file.
    pub(crate) fn tensor(&self, name: &str, tensor: &str, change: impl FnOnce(&mut [u8])) {
        let mut bytes = self.read(name);
        let start = 8 + u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
        let header: Value = serde_json::from_slice(&bytes[8..start]).unwrap();
        let at = |i: usize| start + header[tensor]["data_offsets"][i].as_u64().unwrap() as usize;
        change(&mut bytes[at(0)..at(1)]);
        self.write(name, bytes);
    }

    /// Replaces text in the header of a safetensors file by text that may be longer or shorter.
    pub(crate) fn header(&self, name: &str, from: &str, to: &str) {
        let bytes = self.read(name);
        let (header, rest) = bytes[8..].split_at(u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize);
        let header = std::str::from_utf8(header).unwrap();
        assert!(header.contains(from), "{name} has no {from:?} in {header}");
        let header = header.replacen(from, to, 1);
        self.write(name, [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), rest].concat());
    }

    /// A command with these words as arguments.
    pub(crate) fn command(&self, words: &str) -> Command {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("onkos"));
        command.current_dir(self.folder.path()).env_remove("ONKOS_LOG").args(words.split_whitespace());
        command
    }

    pub(crate) fn run(&self, words: &str) -> Answer {
        Answer::of(&mut self.command(words))
    }

    /// Every file and folder, hidden ones too.
    pub(crate) fn names(&self) -> BTreeSet<PathBuf> {
        fn walk(folder: &Path, found: &mut BTreeSet<PathBuf>) {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() && !path.is_symlink() {
                    walk(&path, found);
                }
                found.insert(path);
            }
        }
        let mut found = BTreeSet::new();
        walk(self.folder.path(), &mut found);
        found
    }

    /// The command must be refused with a sentence in which these words stand, in text and in JSON, and must leave
    /// nothing behind.
    #[track_caller]
    pub(crate) fn refuses(&self, words: &str, sentence: &[&str]) {
        let before = self.names();
        self.run(words).refused(sentence);
        let json = self.run(&format!("{words} --json"));
        let said: Value = serde_json::from_str(&json.out).unwrap_or_else(|e| panic!("{e}: {json:?}"));
        let said = said["error"].as_str().unwrap_or_else(|| panic!("no error in {said}"));
        assert_eq!(json.err.trim_end(), format!("onkos: {said}"), "both say the same");
        json.refused(sentence);
        assert_eq!(self.names(), before, "nothing is left behind");
    }
}

/// The training that most tests start from.
pub(crate) const TRAIN: &str = "train --source north.toml --target south.toml --replicates 20";

impl Answer {
    pub(crate) fn of(command: &mut Command) -> Answer {
        let output = command.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        Answer { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }

    #[track_caller]
    pub(crate) fn succeeded(self) -> Answer {
        assert_eq!(self.code, Some(0), "{}\n{}", self.out, self.err);
        self
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e} in {}", self.out))
    }

    /// Ended with code 2 and a sentence for a user in which these words stand.
    #[track_caller]
    pub(crate) fn refused(self, words: &[&str]) {
        assert_eq!(self.code, Some(2), "{}\n{}", self.out, self.err);
        // A training may have told before where it runs, and of some epochs.
        let tells = |line: &&str| ["training on ", "epoch "].iter().any(|start| line.starts_with(start));
        let told = self.err.lines().take_while(tells).map(|line| line.len() + 1).sum();
        let sentence = self.err[told..].strip_prefix("onkos: ");
        let sentence = sentence.unwrap_or_else(|| panic!("another voice: {}", self.err));
        for word in words {
            assert!(sentence.contains(word), "no {word:?} in: {sentence}");
        }
        plain(sentence);
    }
}

/// Nothing in it is for programmers: no panic, no value of Rust, no number of the system; a few lines at most.
#[track_caller]
pub(crate) fn plain(sentence: &str) {
    for strange in ["panicked", "os error", "Some(", "None", "Error", "{ ", "::", "usize", "f64", "unwrap"] {
        assert!(!sentence.contains(strange), "{strange:?} in: {sentence}");
    }
    assert!(sentence.lines().count() <= 8 && !sentence.trim().is_empty(), "{sentence}");
}
