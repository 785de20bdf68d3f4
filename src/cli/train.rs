//! `onkos train`.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use serde::Serialize;

use super::progress::{Bar, gib};
use super::{Global, Outcome, from_one, open_all, print_json, table};
use crate::config::RunConfig;
use crate::data::{Cohort, RunDir, Split};
use crate::device::{Device, Gpu};
use crate::error::{Error, Result};
use crate::evaluate::Figures;
use crate::model::{Batching, CohortSource, Recipe};
use crate::run::{self, Manifest};
use crate::train::{Progress, place, train};

/// Train on one cohort, test on others.
#[derive(Clone, Debug, Args)]
pub(super) struct Train {
    /// The cohort file of the source: its patients are split into training and validation
    #[arg(long, value_name = "COHORT.toml")]
    pub(super) source: PathBuf,
    /// A cohort file to test on; may be given several times
    #[arg(long, value_name = "COHORT.toml")]
    pub(super) target: Vec<PathBuf>,
    /// A run file with settings; without it the defaults
    #[arg(long, value_name = "RUN.toml")]
    pub(super) config: Option<PathBuf>,
    /// Passes over the training patients, instead of the run file's
    #[arg(long, value_name = "N")]
    pub(super) epochs: Option<u32>,
    /// Patches in a batch, at most, unless one patient alone has more; instead of the run file's
    #[arg(long, value_name = "N", value_parser = from_one)]
    pub(super) patches_per_batch: Option<usize>,
    /// The seed, instead of the run file's
    #[arg(long, value_name = "N")]
    pub(super) seed: Option<u64>,
    /// A split of the source: a table with columns train, val and maybe test (CLAM, SurvPath), STAMP's JSON, k=all.tsv of
    /// Patho-Bench, split.csv of a run, or a folder with splits_K.csv or with train.csv and test.csv (MMP, PANTHER)
    #[arg(long, value_name = "FILE")]
    pub(super) split: Option<PathBuf>,
    /// Which split of a file or folder that has several
    #[arg(long, value_name = "K", default_value_t = 0, requires = "split")]
    pub(super) fold: usize,
    /// The run folder to make [default: runs/SOURCE-seedN]
    ///
    /// It appears when everything is in it. A training that was killed leaves a hidden folder .RUN.* beside it, which
    /// nothing reads and which you may delete.
    #[arg(long, value_name = "RUN")]
    pub(super) out: Option<PathBuf>,
    /// Bootstrap replicates of each interval
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) replicates: u32,
}

/// What a training is summed up by.
#[derive(Debug, Serialize)]
struct Summary {
    run: PathBuf,
    kept_epoch: u32,
    training_seconds: f64,
    waiting_seconds: f64,
    peak_memory_bytes: Option<u64>,
    figures: Vec<Figures>,
}

impl Train {
    pub(super) fn run(&self, global: &Global, device: Device) -> Result<Outcome> {
        let summary = self.train(global, device)?;
        if global.json {
            print_json(&summary);
        } else {
            table::print_figures(&summary.figures);
            let memory = summary.peak_memory_bytes.map_or(String::new(), |b| format!(", {:.2} GiB at most", gib(b)));
            let Summary { kept_epoch, training_seconds, waiting_seconds, .. } = summary;
            say!(
                "epoch {kept_epoch} was kept; {training_seconds:.1} s of training, {waiting_seconds:.1} of them waiting for features{memory}"
            );
            say!("run: {}", summary.run.display());
        }
        Ok(Outcome::Done)
    }

    fn config(&self) -> Result<RunConfig> {
        let mut config = self.config.as_deref().map(run::read_config).transpose()?.unwrap_or_default();
        config.seed = self.seed.unwrap_or(config.seed);
        config.train.epochs = self.epochs.unwrap_or(config.train.epochs);
        config.train.patches_per_batch = self.patches_per_batch.unwrap_or(config.train.patches_per_batch);
        config.check()?;
        Ok(config)
    }

    fn split(&self, config: &RunConfig, source: &Cohort) -> Result<Split> {
        match &self.split {
            Some(file) => Split::read_for(file, self.fold, source),
            None if config.train.validation == 0.0 => {
                Ok(Split { train: (0..source.len()).collect(), ..Split::default() })
            }
            None => Split::random(&source.patients, config.train.validation, config.seed),
        }
    }

    fn train(&self, global: &Global, device: Device) -> Result<Summary> {
        // Everything that can be refused is refused before anything is trained or made.
        let config = self.config()?;
        let device = place(&config.train, device)?;
        if let Some(out) = self.out.as_ref().filter(|out| std::fs::symlink_metadata(out).is_ok()) {
            return Err(Error::Exists { path: out.clone() });
        }
        let paths: Vec<PathBuf> = std::iter::once(&self.source).chain(&self.target).cloned().collect();
        let cohorts = open_all(&paths, global.reading())?;
        let (source, targets) = cohorts.split_first().expect("the source is one of them");
        source.require_events()?;
        refuse_same_names(&cohorts, &paths)?;
        refuse_other_units(source, targets)?;
        let split = self.split(&config, source)?;
        let recipe = Recipe::fit(&config, source, &split.train)?;
        for target in targets {
            CohortSource::new(&recipe, target)?;
        }
        // Now, because they say what was trained on: a file may be replaced while the training runs.
        let hashes: Vec<_> = cohorts.iter().map(Cohort::hashes).collect::<Result<_>>()?;
        let inputs = hashes.concat();
        let out = self.out.clone().unwrap_or_else(|| {
            PathBuf::from("runs").join(format!("{}-seed{}", run::file_name(&source.name), config.seed))
        });
        let folder = RunDir::create(out)?;
        let path = folder.path().to_path_buf();

        let metrics_path = path.join(run::METRICS);
        let mut metrics = BufWriter::new(File::create(&metrics_path).map_err(Error::io(&metrics_path))?);
        let mut written = Ok(());
        let bar = Bar::new(config.train.epochs, global.json);
        let start = Instant::now();
        let trained = train(&config, device, source, &split, recipe, |progress| {
            bar.show(progress);
            if let (Progress::Epoch(record), Ok(())) = (progress, &written) {
                let line = serde_json::to_string(record).expect("plain data");
                written = writeln!(metrics, "{line}").and_then(|()| metrics.flush());
            }
        });
        bar.finish();
        let trained = trained?;
        written.map_err(Error::io(&metrics_path))?;
        let training_seconds = start.elapsed().as_secs_f64();
        let waiting_seconds = trained.history.iter().map(|record| record.waiting_seconds).sum();

        let predictor = &trained.predictor;
        predictor.save(&path.join(run::MODEL))?;
        run::write_config(&path, &config)?;
        run::write_split(&path, source, &split)?;
        for sub in ["risks", "figures"] {
            std::fs::create_dir(path.join(sub)).map_err(Error::io(path.join(sub)))?;
        }
        let batching = Batching { patients: config.train.batch, patches: config.train.patches_per_batch };
        let mut all = Vec::new();
        for (number, cohort) in cohorts.iter().enumerate() {
            let name = run::file_name(&cohort.name);
            let predictions = predictor.predict(cohort, batching)?;
            let set = |p: usize| match number {
                0 => run::sets(&split).iter().find(|(_, set)| set.binary_search(&p).is_ok()).map_or("none", |s| s.0),
                _ => "target",
            };
            let risks = path.join("risks").join(format!("{name}.csv"));
            run::write_risks(&risks, cohort, &predictions, predictor.recipe.median_risk, set)?;
            let parts: Vec<(String, Vec<usize>)> = match number {
                0 => {
                    let parts = run::sets(&split).into_iter().filter(|(_, set)| !set.is_empty());
                    parts.map(|(set, patients)| (format!("{name}.{set}"), patients.to_vec())).collect()
                }
                _ => vec![(name, (0..cohort.len()).collect())],
            };
            for (name, patients) in parts {
                let figures =
                    run::figures(&name, cohort, &patients, predictor, &predictions, self.replicates, config.seed)?;
                run::write_json(&path.join("figures").join(format!("{name}.json")), &figures)?;
                all.push(figures);
            }
        }
        let gpu = match device {
            Device::Cpu => None,
            Device::Cuda(gpu) => Some(gpu),
        };
        let peak_memory_bytes = crate::device::peak_memory_bytes();
        let manifest = Manifest {
            onkos: env!("CARGO_PKG_VERSION"),
            command: std::env::args().collect(),
            device: device.to_string(),
            device_name: gpu.map(Gpu::name),
            precision: config.train.precision,
            products: config.train.products,
            products_version: gpu.and_then(Gpu::products_version),
            simd: crate::device::simd_level(),
            threads: crate::device::threads(),
            seed: config.seed,
            source: source.name.clone(),
            targets: targets.iter().map(|t| t.name.clone()).collect(),
            inputs,
            patients: [split.train.len(), split.validation.len()],
            parameters: predictor.params.count(),
            kept_epoch: trained.kept_epoch,
            training_seconds,
            waiting_seconds,
            peak_memory_bytes,
            peak_device_memory_bytes: gpu.map(|gpu| gpu.usage().peak_bytes),
        };
        run::write_json(&path.join(run::MANIFEST), &manifest)?;
        drop(metrics);
        let run = folder.finish()?;
        let kept_epoch = trained.kept_epoch;
        Ok(Summary { run, kept_epoch, training_seconds, waiting_seconds, peak_memory_bytes, figures: all })
    }
}

/// Refuses targets that count time in another unit than the source, where both say in which.
fn refuse_other_units(source: &Cohort, targets: &[Cohort]) -> Result<()> {
    for target in targets {
        if let (Some(want), Some(got)) = (source.time_unit, target.time_unit)
            && want != got
        {
            let (cohort, source_cohort) = (target.name.clone(), source.name.clone());
            return Err(Error::TimeUnits { cohort, got: got.name(), source_cohort, want: want.name() });
        }
    }
    Ok(())
}

/// Refuses cohorts of which one would write over the results of another. The first is the source, whose figures carry
/// the names of its sets.
fn refuse_same_names(cohorts: &[Cohort], paths: &[PathBuf]) -> Result<()> {
    let mut seen = HashMap::new();
    for (number, (cohort, path)) in cohorts.iter().zip(paths).enumerate() {
        let name = run::file_name(&cohort.name);
        let sets = run::sets(&Split::default()).map(|(set, _)| format!("{name}.{set}"));
        for name in std::iter::once(name).chain(sets.into_iter().filter(|_| number == 0)) {
            if let Some(first) = seen.insert(name.clone(), path) {
                return Err(Error::SameName { name, files: [first.clone(), path.clone()] });
            }
        }
    }
    Ok(())
}
