//! Trainings over a store: how long they wait for features, and the memory that they take while they read more than they
//! may hold.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use onkos::Device;
use onkos::config::RunConfig;
use onkos::data::{Cohort, Split};
use onkos::model::{ModelConfig, Recipe};
use serde::{Deserialize, Serialize};

use crate::cohort;

/// An epoch: its seconds, and those that it waited for features.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Epoch {
    pub(crate) seconds: f64,
    pub(crate) waiting_seconds: f64,
    pub(crate) share: f64,
}

fn epoch(seconds: f64, waiting_seconds: f64) -> Epoch {
    Epoch { seconds, waiting_seconds, share: waiting_seconds / seconds }
}

/// A training with default settings.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Training {
    pub(crate) model: String,
    pub(crate) epochs: Vec<Epoch>,
}

/// The model of that name, with its default settings.
pub(crate) fn model(name: &str) -> Result<ModelConfig, String> {
    serde_json::from_value(serde_json::json!({ "name": name })).map_err(|e| e.to_string())
}

/// A training with default settings, whose first epoch begins with nothing of the store in memory.
pub(crate) fn training(file: &Path, store: &[PathBuf], model: &ModelConfig, epochs: u32) -> Training {
    let mut config = RunConfig { model: model.clone(), ..RunConfig::default() };
    config.train.epochs = epochs;
    let split = |cohort: &Cohort| Split::random(&cohort.patients, config.train.validation, config.seed);
    let recipe = {
        let cohort = Cohort::open_unscanned(file).expect("a store that was just packed");
        let split = split(&cohort).expect("patients with events");
        Recipe::fit(&config, &cohort, &split.train).expect("a cohort with slides")
    };
    // What is mapped is not forgotten.
    cohort::forget(store);
    let cohort = Cohort::open_unscanned(file).expect("a store that was just packed");
    let split = split(&cohort).expect("patients with events");
    let trained = onkos::train::train(&config, Device::Cpu, &cohort, &split, recipe, |_| ()).expect("a training");
    let epochs = trained.history.iter().map(|record| epoch(record.seconds, record.waiting_seconds)).collect();
    Training { model: model.name().into(), epochs }
}

/// A training over the store of a folder in a process of its own.
pub(crate) fn apart(folder: &Path, model: &ModelConfig, epochs: u32) -> Training {
    let mut command = Command::new(std::env::current_exe().expect("the system tells"));
    command.arg("--dir").arg(folder).args(["--training", model.name(), "--epochs", &epochs.to_string()]);
    let out = command.stderr(Stdio::inherit()).output().expect("this program runs");
    assert!(out.status.success(), "the training of {} ended with {}", model.name(), out.status);
    serde_json::from_slice(&out.stdout).expect("what it prints")
}

/// That process: it keeps freed memory as the program does, which readings that are timed alone are better without.
pub(crate) fn as_program(folder: &Path, model: &ModelConfig, epochs: u32) {
    onkos::device::keep_freed_memory();
    let store = cohort::feature_files(&folder.join("packed"));
    let training = training(&folder.join("packed.toml"), &store, model, epochs);
    println!("{}", serde_json::to_string(&training).expect("plain data"));
}

/// What a process held at some time.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Held {
    pub(crate) seconds: f64,
    pub(crate) anonymous_mib: u64,
    pub(crate) mapped_mib: u64,
}

/// A training by the program.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Limited {
    pub(crate) limit_gib: f64,
    pub(crate) store_gib: f64,
    /// How the process was held to it.
    pub(crate) by: &'static str,
    pub(crate) epochs: Vec<Epoch>,
    pub(crate) training_seconds: f64,
    pub(crate) all_seconds: f64,
    /// The most anonymous memory in each tenth of the whole run, and in each tenth of the training alone.
    pub(crate) anonymous_mib_by_tenth: Vec<u64>,
    pub(crate) anonymous_mib_by_tenth_of_training: Vec<u64>,
    /// The most that the system counted for the process, its share of the page cache included.
    pub(crate) most_counted_mib: u64,
    /// How often it was at its limit and the system made room.
    pub(crate) reclaims: u64,
}

/// A group of processes that may take so much memory together, page cache included. Removed when it is dropped.
struct Group {
    folder: PathBuf,
    second: bool,
}

impl Group {
    /// None where this process may not make one.
    fn new(bytes: u64) -> Option<Group> {
        let name = format!("onkos-bench-{}", std::process::id());
        for (above, limit, second) in
            [("/sys/fs/cgroup/memory", "memory.limit_in_bytes", false), ("/sys/fs/cgroup", "memory.max", true)]
        {
            let folder = Path::new(above).join(&name);
            if fs::create_dir(&folder).is_ok() {
                let group = Group { folder, second };
                if fs::write(group.folder.join(limit), bytes.to_string()).is_ok() {
                    return Some(group);
                }
            }
        }
        None
    }

    fn number(&self, first: &str, second: &str) -> u64 {
        let text = fs::read_to_string(self.folder.join(if self.second { second } else { first })).unwrap_or_default();
        text.trim().parse().unwrap_or(0)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The last of it leaves a moment after it has ended.
        for _ in 0..50 {
            if fs::remove_dir(&self.folder).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Trains for some epochs over a store with the program `onkos`, in a control group with a limit of memory; without one
/// where the system does not let us make one.
pub(crate) fn limited(onkos: &str, file: &Path, store: &[PathBuf], limit_gib: f64, epochs: u32, out: &Path) -> Limited {
    cohort::forget(store);
    let group = if limit_gib > 0.0 { Group::new((limit_gib * (1u64 << 30) as f64) as u64) } else { None };
    let mut command = Command::new("sh");
    let join =
        group.as_ref().map_or(":".into(), |group| format!("echo $$ > {}", group.folder.join("cgroup.procs").display()));
    command.args(["-c", &format!("{join}; exec \"$@\""), "sh", onkos, "--json", "train", "--source"]).arg(file);
    command.args(["--epochs", &epochs.to_string(), "--out"]).arg(out).stdout(Stdio::null());
    let start = Instant::now();
    let mut child = command.spawn().expect("a shell runs");
    let status = format!("/proc/{}/status", child.id());
    let mut held = Vec::new();
    let code = loop {
        if let Some(code) = child.try_wait().expect("it is our child") {
            break code;
        }
        let told = fs::read_to_string(&status).unwrap_or_default();
        let mib = |entry: &str| -> Option<u64> {
            let line = told.lines().find_map(|line| line.strip_prefix(entry))?;
            Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? / 1024)
        };
        if let (Some(anonymous_mib), Some(mapped_mib)) = (mib("RssAnon:"), mib("RssFile:")) {
            held.push(Held { seconds: start.elapsed().as_secs_f64(), anonymous_mib, mapped_mib });
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let all_seconds = start.elapsed().as_secs_f64();
    assert!(code.success(), "the training ended with {code}");
    let metrics = fs::read_to_string(out.join("metrics.jsonl")).expect("a run has metrics");
    let records: Vec<serde_json::Value> =
        metrics.lines().map(|line| serde_json::from_str(line).expect("a line is a record")).collect();
    let number = |record: &serde_json::Value, key: &str| record[key].as_f64().expect("a record has it");
    let manifest = fs::read_to_string(out.join("manifest.json")).expect("a run has a manifest");
    let manifest: serde_json::Value = serde_json::from_str(&manifest).expect("it is JSON");
    let training_seconds = number(&manifest, "training_seconds");
    // The predictions and figures after the training are a part of it here: they read the same store once more.
    let begun = all_seconds - training_seconds - training_seconds / f64::from(epochs);
    Limited {
        limit_gib: if group.is_some() { limit_gib } else { 0.0 },
        store_gib: store.iter().map(|f| fs::metadata(f).map_or(0, |m| m.len())).sum::<u64>() as f64
            / (1u64 << 30) as f64,
        by: match &group {
            None => "nothing",
            Some(group) if group.second => "a control group, version 2",
            Some(_) => "a control group, version 1",
        },
        epochs: records.iter().map(|r| epoch(number(r, "seconds"), number(r, "waiting_seconds"))).collect(),
        training_seconds,
        all_seconds,
        anonymous_mib_by_tenth: tenths(&held, 0.0, all_seconds),
        anonymous_mib_by_tenth_of_training: tenths(&held, begun, all_seconds),
        most_counted_mib: group.as_ref().map_or(0, |g| g.number("memory.max_usage_in_bytes", "memory.peak") >> 20),
        reclaims: group.as_ref().map_or(0, |g| g.number("memory.failcnt", "memory.events")),
    }
}

/// The most anonymous memory in each tenth of a time.
fn tenths(held: &[Held], from: f64, to: f64) -> Vec<u64> {
    let most = |tenth: usize| {
        let (after, before) = (tenth as f64 / 10.0, (tenth + 1) as f64 / 10.0);
        let share = |h: &&Held| (after..before).contains(&((h.seconds - from) / (to - from)));
        held.iter().filter(share).map(|h| h.anonymous_mib).max().unwrap_or(0)
    };
    (0..10).map(most).collect()
}
