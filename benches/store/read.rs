//! Readings of the same bytes, each timed: through the loader, as training reads, and without any of it.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use onkos::Device;
use onkos::config::RunConfig;
use onkos::data::Cohort;
use onkos::model::{Batching, CohortSource, Recipe, Source};

/// The batches of the first epoch over all patients, as a training with the default settings cuts them.
fn batches(cohort: &Cohort) -> Vec<Vec<usize>> {
    let t = RunConfig::default().train;
    let batching = Batching { patients: t.batch, patches: t.patches_per_batch };
    let slides = cohort.slides.as_ref().expect("a cohort of slides");
    let patches: Vec<usize> = slides.ragged().iter().map(|bag| bag.len()).collect();
    let kinds: Vec<(u32, bool)> = cohort.patients.iter().map(|p| (0, p.event)).collect();
    onkos::train::epoch(batching, 0, 0, &kinds, false, &patches)
}

/// Seconds and rows of all batches of an epoch through the source that a training takes them from, of the opened cohort:
/// of the first epoch, or of the second, when the store is mapped and the memory of the batches is there.
pub(crate) fn loader(file: &Path, second: bool) -> (f64, usize) {
    let cohort = Cohort::open_unscanned(file).expect("a store that was just packed");
    let mut config = RunConfig::default();
    // Its mean and deviation would need a reading of their own.
    config.inputs.standardize_patches = false;
    let everybody: Vec<usize> = (0..cohort.len()).collect();
    let recipe = Recipe::fit(&config, &cohort, &everybody).expect("a cohort with slides");
    let source = CohortSource::new(&recipe, &cohort).and_then(|s| s.on(Device::Cpu, 0)).expect("its own recipe");
    let batches = batches(&cohort);
    let epoch = || {
        let start = Instant::now();
        source.upcoming(&batches, 1, None).expect("a worker");
        let rows = batches.iter().map(|batch| {
            let batch = source.batch(batch, None).expect("a store that can be read");
            batch.patches.expect("slides").features.rows()
        });
        let rows = rows.sum();
        (start.elapsed().as_secs_f64(), rows)
    };
    let first = epoch();
    if second { epoch() } else { first }
}

/// The same by [`onkos::data::Bags::gather`], into memory that is new for each batch.
pub(crate) fn gather(file: &Path) -> (f64, usize) {
    let cohort = Cohort::open_unscanned(file).expect("a store that was just packed");
    let slides = cohort.slides.as_ref().expect("a cohort of slides");
    let batches = batches(&cohort);
    let start = Instant::now();
    let rows = batches.iter().map(|batch| slides.gather(batch).expect("a store that can be read").0.rows()).sum();
    (start.elapsed().as_secs_f64(), rows)
}

/// Seconds of `cat FILES > /dev/null`, which reads into the same few kilobytes again and again.
pub(crate) fn cat(files: &[PathBuf]) -> f64 {
    let start = Instant::now();
    let cat = Command::new("cat").args(files).stdout(Stdio::null()).status();
    assert!(cat.is_ok_and(|status| status.success()), "cat");
    start.elapsed().as_secs_f64()
}

/// Seconds to read the files into memory as large as a batch, which was written to before, by one thread.
pub(crate) fn into_memory(files: &[PathBuf], memory: &mut [u8]) -> f64 {
    let start = Instant::now();
    let mut at = 0;
    for path in files {
        let mut file = File::open(path).expect("a file that was just made");
        loop {
            let end = (at + (1 << 20)).min(memory.len());
            match file.read(&mut memory[at..end]).expect("a file that was just made") {
                0 => break,
                n => at = (at + n) % memory.len(),
            }
        }
    }
    start.elapsed().as_secs_f64()
}

/// A Python with h5py that waits for files to read.
pub(crate) struct H5py {
    child: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
}

impl H5py {
    pub(crate) fn start(python: &str, script: &Path) -> H5py {
        let mut command = Command::new(python);
        command.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("Python runs");
        let (to, from) = (child.stdin.take(), BufReader::new(child.stdout.take().expect("it is piped")));
        H5py { child, to, from }
    }

    /// Seconds and rows of all files, `f["features"][:]` of one after another.
    pub(crate) fn read(&mut self, files: &[PathBuf]) -> (f64, usize) {
        let to = self.to.as_mut().expect("closed by drop alone");
        for file in files {
            writeln!(to, "{}", file.display()).expect("Python listens");
        }
        writeln!(to).and_then(|()| to.flush()).expect("Python listens");
        let mut line = String::new();
        self.from.read_line(&mut line).expect("Python answers");
        let words: Vec<&str> = line.split_whitespace().collect();
        (words[0].parse().expect("seconds"), words[1].parse().expect("rows"))
    }
}

impl Drop for H5py {
    fn drop(&mut self) {
        self.to = None;
        let _ = self.child.wait();
    }
}

/// The bytes that this process and its children that ended have had read from disks.
pub(crate) fn from_disk() -> u64 {
    let told = fs::read_to_string("/proc/self/io").unwrap_or_default();
    told.lines().find_map(|line| line.strip_prefix("read_bytes: ")?.parse().ok()).unwrap_or(0)
}

/// The middle value, or the mean of the two in the middle.
pub(crate) fn median(mut x: Vec<f64>) -> f64 {
    x.sort_by(f64::total_cmp);
    let (n, half) = (x.len(), x.len() / 2);
    if n % 2 == 1 { x[half] } else { (x[half - 1] + x[half]) / 2.0 }
}
