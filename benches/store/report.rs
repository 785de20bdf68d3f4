//! What is timed in turn, and what came out.

use std::fs;
use std::path::Path;
use std::time::Instant;

use onkos::FeatureType;
use onkos::data::StoreIndex;
use serde::Serialize;

use crate::read::{self, median};
use crate::{cohort, train};

/// A reading: medians over the rounds.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) what: &'static str,
    pub(crate) cache: &'static str,
    pub(crate) seconds: f64,
    pub(crate) gb_per_s: f64,
    pub(crate) patches_per_s: f64,
    /// How much of the files came from the disk meanwhile.
    pub(crate) share_from_disk: f64,
    /// Its rate by that of the other side in the same round: the median, the least and the most of the rounds.
    pub(crate) ratio: [f64; 3],
    pub(crate) rounds: usize,
}

/// A packing.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Packing {
    pub(crate) from: &'static str,
    pub(crate) dtype: FeatureType,
    pub(crate) seconds: f64,
    pub(crate) read_gb_per_s: f64,
    pub(crate) written_gb_per_s: f64,
    /// Seconds to copy the source with `cp` and have it written, in the same rounds.
    pub(crate) copy_seconds: Option<f64>,
    pub(crate) rounds: usize,
}

/// A whole run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) command: String,
    pub(crate) threads: usize,
    pub(crate) store_gib: f64,
    pub(crate) slides: usize,
    pub(crate) patches: usize,
    /// By the rate of `cat`.
    pub(crate) store: Vec<Row>,
    pub(crate) h5_gib: f64,
    pub(crate) h5_slides: usize,
    pub(crate) h5_patches: usize,
    /// By the patches of h5py in a second.
    pub(crate) h5: Vec<Row>,
    pub(crate) packing: Vec<Packing>,
    pub(crate) trainings: Vec<train::Training>,
    pub(crate) limited: Option<train::Limited>,
}

/// One thing to time: what it is called, the files that it reads, and the work, which gives seconds and rows.
struct Way<'a> {
    what: &'static str,
    files: Vec<std::path::PathBuf>,
    /// Told whether the files are in memory.
    work: Box<dyn FnMut(bool) -> (f64, usize) + 'a>,
}

fn bytes_of(files: &[std::path::PathBuf]) -> u64 {
    files.iter().map(|file| fs::metadata(file).expect("a file that was made").len()).sum()
}

/// Times all ways in turn, cold and then warm, in an order that changes from round to round. Each way must give as many rows as
/// the others that count them.
///
/// Each is run before it is timed cold, and what it read is forgotten in between: memory that was free for some seconds is the host's
/// again on a virtual machine, and to get it back takes longer than to fill it from a disk. So each way finds as much as it needs.
fn in_turn(mut ways: Vec<Way<'_>>, rounds: usize, patches: usize) -> Vec<Row> {
    let bytes: Vec<f64> = ways.iter().map(|way| bytes_of(&way.files) as f64).collect();
    // For each way cold and warm: seconds, and bytes from the disk.
    let mut times = vec![[Vec::new(), Vec::new()]; ways.len()];
    let mut disk = vec![[0.0; 2]; ways.len()];
    for round in 0..rounds {
        // Warm after everything was cold: where in memory the files came to lie makes a difference of two, and is then the
        // same for all ways that read the same files.
        let n = ways.len();
        for (warm, i) in (0..2).flat_map(|warm| (0..n).map(move |i| (warm, i))) {
            let w = (i + round) % n;
            let way = &mut ways[w];
            if warm == 0 {
                (way.work)(false);
                cohort::forget(&way.files);
            }
            let before = read::from_disk();
            let (seconds, rows) = (way.work)(warm == 1);
            assert_eq!(rows, patches, "{} reads every patch once", way.what);
            times[w][warm].push(seconds);
            disk[w][warm] += (read::from_disk() - before) as f64;
        }
    }
    let mut rows = Vec::new();
    for (w, way) in ways.iter().enumerate() {
        for (warm, cache) in ["cold", "warm"].into_iter().enumerate() {
            let mut ratios: Vec<f64> =
                times[w][warm].iter().zip(&times[0][warm]).map(|(own, other)| other / own).collect();
            ratios.sort_by(f64::total_cmp);
            let seconds = median(times[w][warm].clone());
            rows.push(Row {
                what: way.what,
                cache,
                seconds,
                gb_per_s: bytes[w] / seconds / 1e9,
                patches_per_s: patches as f64 / seconds,
                share_from_disk: disk[w][warm] / (bytes[w] * rounds as f64),
                ratio: [median(ratios.clone()), ratios[0], ratios[rounds - 1]],
                rounds,
            });
        }
    }
    rows
}

impl Report {
    pub(crate) fn new(arguments: Vec<String>) -> Report {
        let command = ["cargo bench --bench store --".to_owned()].into_iter().chain(arguments);
        Report {
            command: command.collect::<Vec<_>>().join(" "),
            threads: onkos::device::threads(),
            store_gib: 0.0,
            slides: 0,
            patches: 0,
            store: Vec::new(),
            h5_gib: 0.0,
            h5_slides: 0,
            h5_patches: 0,
            h5: Vec::new(),
            packing: Vec::new(),
            trainings: Vec::new(),
            limited: None,
        }
    }

    /// The loader over a store in f16, beside `cat` of its files and beside a plain reading into memory.
    pub(crate) fn store(&mut self, folder: &Path, bytes: u64, rounds: usize) {
        let file = folder.join("packed.toml");
        if !file.exists() {
            let files = cohort::of_safetensors(folder, bytes);
            let (_, packed, seconds) = cohort::stored(&files, FeatureType::F16, "packed");
            let rate = packed.bytes as f64 / seconds / 1e9;
            self.packing.push(Packing {
                from: "safetensors in F16",
                dtype: packed.dtype,
                seconds,
                read_gb_per_s: rate,
                written_gb_per_s: rate,
                copy_seconds: None,
                rounds: 1,
            });
        }
        let index = fs::read_to_string(folder.join("packed/store.json")).expect("a store that was packed");
        let index: StoreIndex = serde_json::from_str(&index).expect("a store that was packed");
        let shards = cohort::feature_files(&folder.join("packed"));
        let (bytes, patches) = (bytes_of(&shards), index.rows());
        (self.slides, self.patches) = (index.shards.iter().map(|shard| shard.slides.len()).sum(), patches);
        self.store_gib = bytes as f64 / (1u64 << 30) as f64;
        if rounds == 0 {
            return;
        }
        let mut memory = vec![1u8; (bytes as usize).min(512 << 20)];
        let way = |what, work| Way { what, files: shards.clone(), work };
        let ways = vec![
            way("cat", Box::new(|_| (read::cat(&shards), patches)) as Box<dyn FnMut(bool) -> _>),
            way("loader", Box::new(|warm| read::loader(&file, warm))),
            way("gather", Box::new(|_| read::gather(&file))),
            way("read into memory", Box::new(|_| (read::into_memory(&shards, &mut memory), patches))),
        ];
        self.store = in_turn(ways, rounds, patches);
    }

    /// h5py over files of TRIDENT, beside the loader over stores of the same features; and how fast these are packed.
    pub(crate) fn h5(&mut self, folder: &Path, python: &str, script: &Path, bytes: u64, rounds: usize) {
        let files = cohort::of_trident(folder, python, script, bytes);
        let sources = cohort::feature_files(&folder.join("slides"));
        let from = bytes_of(&sources) as f64;
        (self.h5_gib, self.h5_slides) = (from / (1u64 << 30) as f64, sources.len());
        for (dtype, name) in [(FeatureType::F16, "half"), (FeatureType::F32, "single")] {
            let (mut seconds, mut copies, mut written) = (Vec::new(), Vec::new(), 0);
            for round in 0..rounds {
                if round > 0 {
                    fs::remove_dir_all(folder.join(name)).expect("it was just made");
                }
                let (_, packed, took) = cohort::stored(&files, dtype, name);
                seconds.push(took);
                (self.h5_patches, written) = (packed.rows, packed.bytes);
                copies.push(copied(&sources, &folder.join("copy")));
            }
            let (seconds, copy_seconds) = (median(seconds), median(copies));
            self.packing.push(Packing {
                from: "HDF5 of TRIDENT in F32",
                dtype,
                seconds,
                read_gb_per_s: from / seconds / 1e9,
                written_gb_per_s: written as f64 / seconds / 1e9,
                copy_seconds: Some(copy_seconds),
                rounds,
            });
        }
        let mut h5py = read::H5py::start(python, script);
        let (half, single) = (folder.join("half.toml"), folder.join("single.toml"));
        let shards = |name: &str| cohort::feature_files(&folder.join(name));
        let h5 = Box::new(|_| h5py.read(&sources)) as Box<dyn FnMut(bool) -> _>;
        let ways = vec![
            Way { what: "h5py", files: sources.clone(), work: h5 },
            Way {
                what: "loader, store in F16",
                files: shards("half"),
                work: Box::new(|warm| read::loader(&half, warm)),
            },
            Way {
                what: "loader, store in F32",
                files: shards("single"),
                work: Box::new(|warm| read::loader(&single, warm)),
            },
        ];
        self.h5 = in_turn(ways, rounds, self.h5_patches);
        fs::remove_dir_all(folder).expect("it was made above");
    }

    /// The tables, for people; the report has all of it.
    pub(crate) fn print(&self) {
        for (other, rows) in [("cat", &self.store), ("h5py", &self.h5)] {
            eprintln!(
                "{:<24} {:<5} {:>8} {:>7} {:>11} {:>5} {other:>8}",
                "reading", "cache", "s", "GB/s", "patches/s", "disk"
            );
            for r in rows {
                let Row {
                    what,
                    cache,
                    seconds,
                    gb_per_s,
                    patches_per_s,
                    share_from_disk,
                    ratio: [ratio, low, high],
                    ..
                } = r;
                eprintln!(
                    "{what:<24} {cache:<5} {seconds:>8.3} {gb_per_s:>7.2} {patches_per_s:>11.0} {share_from_disk:>5.2} {ratio:>8.2} ({low:.2} to {high:.2})"
                );
            }
        }
        for p in &self.packing {
            eprintln!(
                "packing {} to {}: {:.2} s, {:.2} GB/s read, {:.2} GB/s written{}",
                p.from,
                p.dtype,
                p.seconds,
                p.read_gb_per_s,
                p.written_gb_per_s,
                p.copy_seconds.map_or(String::new(), |seconds| format!("; cp {seconds:.2} s"))
            );
        }
        for train::Training { model, epochs } in &self.trainings {
            for (i, e) in epochs.iter().enumerate() {
                eprintln!(
                    "{model}, epoch {}: {:.2} s, {:.3} s waiting, {:.2} %",
                    i + 1,
                    e.seconds,
                    e.waiting_seconds,
                    100.0 * e.share
                );
            }
            // An epoch from a cold disk cannot wait less than what the disk takes longer than the model.
            if let Some((cat, warm)) =
                self.store.iter().find(|row| row.cache == "cold").zip(epochs.iter().skip(1).last())
            {
                let alone = warm.seconds - warm.waiting_seconds;
                eprintln!(
                    "the disk alone: {:.2} s with {} ({}); {model} alone: {alone:.2} s",
                    cat.seconds, cat.what, cat.cache
                );
            }
        }
        if let Some(limited) = &self.limited {
            eprintln!("{limited:#?}");
        }
    }
}

/// Seconds to copy files with `cp` and have the system write them to the disk.
fn copied(files: &[std::path::PathBuf], to: &Path) -> f64 {
    fs::create_dir_all(to).expect("a folder can be made");
    let start = Instant::now();
    let ran = |mut command: std::process::Command| assert!(command.status().is_ok_and(|s| s.success()), "{command:?}");
    let mut cp = std::process::Command::new("cp");
    cp.args(files).arg(to);
    ran(cp);
    let mut sync = std::process::Command::new("sync");
    sync.args(cohort::feature_files(to));
    ran(sync);
    let seconds = start.elapsed().as_secs_f64();
    fs::remove_dir_all(to).expect("it was just made");
    seconds
}
