//! Whether a store feeds a model faster than it eats: `cargo bench --bench store -- --help`.
//!
//! Everything is made below `target/store-bench` and removed at the end. What is compared is timed in turn, round after
//! round, each with nothing of its files in memory ("cold") and then all of them again ("warm"); every number is a median.

mod cohort;
mod read;
mod report;
mod train;

use std::path::{Path, PathBuf};

use clap::Parser;
use onkos::model::ModelConfig;

/// Times reading a made-up store beside what the machine can do at all, and beside h5py.
#[derive(Clone, Debug, Parser)]
struct Options {
    /// GiB of the store that is read through the loader, and beside it with cat
    #[arg(long, default_value_t = 0.125)]
    gib: f64,
    /// GiB of files as TRIDENT writes them, to pack and to read with h5py; 0 leaves that out
    #[arg(long, default_value_t = 0.125)]
    h5: f64,
    /// Rounds; 0 makes the store and reads it by trainings alone
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Epochs to train each model over the store; 0 leaves that out
    #[arg(long, default_value_t = 2)]
    epochs: u32,
    /// The models to train over it, with their default settings: those that see slides alone
    #[arg(long, value_delimiter = ',', default_value = "fusion,abmil", value_parser = train::model)]
    models: Vec<ModelConfig>,
    /// GiB of memory for a training of one epoch by the program, with its default settings; 0 leaves that out
    #[arg(long, default_value_t = 0.0)]
    limit: f64,
    /// Where everything is made
    #[arg(long, default_value = "target/store-bench")]
    dir: PathBuf,
    /// Leave the store in the folder `kept` of that, or use the one that was left there
    #[arg(long)]
    keep: bool,
    /// The Python that has h5py
    #[arg(long)]
    python: Option<String>,
    /// The report as JSON, to this file
    #[arg(long)]
    json: Option<PathBuf>,
    /// Only train this model over the store that lies in the folder: a process of its own
    #[arg(long, hide = true, value_parser = train::model)]
    training: Option<ModelConfig>,
    /// What cargo tells a benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let options = Options::parse();
    if let Some(model) = &options.training {
        return train::as_program(&options.dir, model, options.epochs);
    }
    let kept = options.dir.join("kept");
    std::fs::create_dir_all(if options.keep { &kept } else { &options.dir }).expect("a folder can be made");
    // Removed again when it is dropped.
    let scratch = tempfile::tempdir_in(&options.dir).expect("a folder can be made");
    let folder = scratch.path().canonicalize().expect("it was just made");
    let bytes = |gib: f64| (gib * (1u64 << 30) as f64) as u64;
    let mut report = report::Report::new(std::env::args().skip(1).filter(|word| word != "--bench").collect());
    let python = options.python.or_else(|| std::env::var("ONKOS_PYTHON").ok()).unwrap_or_else(|| "python3".into());
    if options.h5 > 0.0 && options.rounds > 0 {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/store/h5.py");
        report.h5(&folder.join("h5"), &python, &script, bytes(options.h5), options.rounds);
    }
    let store =
        if options.keep { kept.canonicalize().expect("it was just made") } else { folder.clone() }.join("store");
    report.store(&store, bytes(options.gib), options.rounds);
    let (file, store) = (store.join("packed.toml"), cohort::feature_files(&store.join("packed")));
    if options.epochs > 0 {
        let folder = file.parent().expect("it lies in one");
        report.trainings = options.models.iter().map(|model| train::apart(folder, model, options.epochs)).collect();
    }
    if options.limit > 0.0 {
        let onkos = env!("CARGO_BIN_EXE_onkos");
        report.limited = Some(train::limited(onkos, &file, &store, options.limit, 1, &folder.join("run")));
    }
    let text = serde_json::to_string_pretty(&report).expect("plain data") + "\n";
    match &options.json {
        Some(path) => std::fs::write(path, &text).expect("a place for the report"),
        None => print!("{text}"),
    }
    report.print();
}
