//! What a study will do, and everything that is wrong with it, before anything is trained.

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};

use super::file::{Settings, StudyFile};
use super::preset::{Mode, Plugin};
use crate::config::{Loss, RunConfig, Select};
use crate::data::{Cohort, FileHash, Modality, Reading, Split};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::metrics::{Outcome, harrell};
use crate::model::{CohortSource, Recipe};
use crate::run::file_name;
use crate::train::place;

/// A study that can be run.
#[derive(Debug)]
pub struct Plan {
    /// All settings.
    pub settings: Settings,
    /// The cohorts: the sources in their order, then the targets that are no source.
    pub cohorts: Vec<Cohort>,
    /// How many of them are sources.
    pub sources: usize,
    /// The files that were read of each cohort.
    pub inputs: Vec<Vec<FileHash>>,
    /// The folder of the results.
    pub out: PathBuf,
    /// Whether sources are tested on each other.
    others: bool,
}

/// One training of a study.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    /// The source, among the cohorts of the plan.
    pub source: usize,
    /// The host, among those of the settings.
    pub host: usize,
    /// What is plugged in.
    pub plugin: Plugin,
    /// The seed.
    pub seed: u64,
    /// Which part of the source it is trained on.
    pub part: Part,
}

/// Which part of a source a model is trained on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The whole source, less its validation patients in mode `strict`; judged on the targets.
    Whole,
    /// All but this fold, from 0; judged on the fold.
    Fold(usize),
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Part::Whole => f.write_str("whole"),
            Part::Fold(fold) => write!(f, "fold-{}", fold + 1),
        }
    }
}

impl Plan {
    /// Reads a study file and all cohorts that it names.
    ///
    /// # Errors
    /// [`Error::Study`] with all that is wrong in one list; [`Error::Io`] for a file that cannot be read.
    pub fn open(path: &Path, reading: Reading, device: Device) -> Result<Plan> {
        let file = StudyFile::read(path)?;
        let mut problems = Vec::new();
        let settings = file.resolve(path, &mut problems);
        let folder = path.parent().unwrap_or(Path::new(""));
        let extra = file.targets.as_deref().unwrap_or_default();
        let paths: Vec<PathBuf> = file.sources.iter().chain(extra).map(|cohort| folder.join(cohort)).collect();
        let sources = file.sources.len();
        same_files(&paths, sources, &mut problems);
        if sources == 1 && file.targets.is_none() {
            problems.push("there is nothing to test on; name a second source, or targets".into());
        }
        if !file.others && file.targets.is_none() {
            problems.push("there is nothing to test on; name targets, or leave others = false out".into());
        }
        let mut opened = Vec::new();
        let mut seen = HashSet::new();
        for path in paths.iter().filter(|path| seen.insert(real(path))) {
            match Cohort::open_by(path, reading) {
                Ok(cohort) => opened.push(cohort),
                Err(Error::Data(of_this)) => problems.extend(of_this.sentences()),
                Err(other) => problems.push(other.to_string()),
            }
        }
        for host in &settings.hosts {
            problems.extend(place(&host.config.train, device).err().map(|e| format!("host {:?}: {e}", host.name)));
        }
        // Of cohorts that could not be read nothing more can be told.
        let complete = opened.len() == paths.len();
        let mut plan =
            Plan { settings, cohorts: opened, sources, inputs: Vec::new(), out: file.out(path), others: file.others };
        if complete {
            plan.look(&mut problems);
        }
        if !problems.is_empty() {
            return Err(Error::Study { path: path.into(), problems });
        }
        plan.inputs = plan.cohorts.iter().map(Cohort::hashes).collect::<Result<_>>()?;
        Ok(plan)
    }

    /// The cohorts that models of a source are tested on.
    pub fn targets(&self, source: usize) -> Vec<usize> {
        let others = (0..self.sources).filter(|&other| self.others && other != source);
        others.chain(self.sources..self.cohorts.len()).collect()
    }

    /// Every training, in the order of sources, hosts, plug-ins, seeds and parts.
    pub fn cells(&self) -> Vec<Cell> {
        let parts: Vec<Part> = match self.settings.mode {
            Mode::Strict => std::iter::once(Part::Whole).chain((0..self.settings.folds).map(Part::Fold)).collect(),
            Mode::Published => vec![Part::Whole],
        };
        let mut cells = Vec::new();
        for source in 0..self.sources {
            for (number, host) in self.settings.hosts.iter().enumerate() {
                for &plugin in &host.plugins {
                    for &seed in &self.settings.seeds {
                        cells.extend(parts.iter().map(|&part| Cell { source, host: number, plugin, seed, part }));
                    }
                }
            }
        }
        cells
    }

    /// The settings of a cell.
    pub fn config(&self, cell: &Cell) -> RunConfig {
        let host = &self.settings.hosts[cell.host];
        let mut config = host.config.clone();
        config.seed = cell.seed;
        cell.plugin.plug_into(&mut config.model, &host.sdir, host.cade, host.mixstyle);
        config
    }

    /// Who of the source is trained on, who chooses the epoch, and who is tested, in a part. It depends on the seed and on
    /// the share of validation patients alone, so it is the same for every host and plug-in that leaves that alone.
    ///
    /// # Errors
    /// [`Error::Setting`] for a source that is too small to be divided so.
    pub fn split(&self, source: usize, config: &RunConfig, part: Part) -> Result<Split> {
        let patients = &self.cohorts[source].patients;
        let share = config.train.validation;
        match (self.settings.mode, part) {
            (Mode::Published, _) => Ok(Split { train: (0..patients.len()).collect(), ..Split::default() }),
            (Mode::Strict, Part::Whole) => Split::random(patients, share, config.seed),
            (Mode::Strict, Part::Fold(fold)) => {
                let outer = Split::folds(patients, self.settings.folds, config.seed)?.swap_remove(fold);
                let inside: Vec<_> = outer.train.iter().map(|&p| patients[p].clone()).collect();
                let inner = Split::random(&inside, share, config.seed)?;
                let named = |set: Vec<usize>| set.into_iter().map(|i| outer.train[i]).collect();
                Ok(Split { train: named(inner.train), validation: named(inner.validation), test: outer.validation })
            }
        }
    }

    /// The names of the folders of a cell below that of the results, outermost first.
    pub fn names(&self, cell: &Cell) -> [String; 5] {
        [
            file_name(&self.cohorts[cell.source].name),
            file_name(&self.settings.hosts[cell.host].name),
            cell.plugin.name().into(),
            format!("seed-{}", cell.seed),
            cell.part.to_string(),
        ]
    }

    /// What is wrong with the cohorts for this study.
    fn look(&self, problems: &mut Vec<String>) {
        let mut found = BTreeSet::new();
        let mut tell = |problem: String| {
            if found.insert(problem.clone()) {
                problems.push(problem);
            }
        };
        let names: Vec<String> = self.cohorts.iter().map(|cohort| file_name(&cohort.name)).collect();
        for (number, name) in names.iter().enumerate() {
            if names[..number].contains(name) {
                let what = if number < self.sources { "two sources" } else { "a target and another cohort" };
                tell(format!("{what} are called {name:?}; a model is tested on other cohorts than its source"));
            }
        }
        super::explain::unknown(self).into_iter().for_each(&mut tell);
        for source in 0..self.sources {
            let cohort = &self.cohorts[source];
            if let Err(error) = cohort.require_events() {
                tell(error.to_string());
            }
            for target in self.targets(source) {
                for problem in self.strangers(cohort, &self.cohorts[target]) {
                    tell(problem);
                }
            }
            for number in 0..self.settings.hosts.len() {
                self.look_at_host(source, number, &mut tell);
            }
        }
    }

    /// Whether a host looks at a modality, where there is one.
    fn some_host_sees(&self, modality: Modality) -> bool {
        self.settings.hosts.iter().any(|host| {
            let chosen = &host.config.inputs.modalities;
            host.config.model.sees().contains(&modality) && (chosen.is_empty() || chosen.contains(&modality))
        })
    }

    /// What two cohorts have not in common that they must.
    fn strangers(&self, source: &Cohort, target: &Cohort) -> Vec<String> {
        let mut problems = Vec::new();
        if self.some_host_sees(Modality::Genes) && no_gene_in_common(source, target) {
            let (source, target) = (&source.name, &target.name);
            problems.push(format!("{source} and {target} have no gene in common; are genes named alike in both?"));
        }
        if let (Some(want), Some(got)) = (source.time_unit, target.time_unit)
            && want != got
        {
            let (cohort, source_cohort) = (target.name.clone(), source.name.clone());
            let error = Error::TimeUnits { cohort, got: got.name(), source_cohort, want: want.name() };
            problems.push(error.to_string());
        }
        problems
    }

    fn look_at_host(&self, source: usize, number: usize, tell: &mut impl FnMut(String)) {
        let (host, cohort) = (&self.settings.hosts[number], &self.cohorts[source]);
        let chosen = &host.config.inputs.modalities;
        let sees = |modality, has: bool| has && (chosen.is_empty() || chosen.contains(&modality));
        let there = [(Modality::Genes, cohort.rna.is_some()), (Modality::Patches, cohort.slides.is_some())];
        let seen: Vec<Modality> =
            there.into_iter().filter(|(modality, has)| sees(*modality, *has)).map(|(modality, _)| modality).collect();
        // What the model itself has no place for is told already.
        let strange = |plugin: &Plugin| plugin.fits(host.config.model.sees()) && !plugin.fits(&seen);
        if host.plugins.iter().any(strange) {
            let what = if Plugin::MixStyle.fits(&seen) { "nothing but mixstyle" } else { "nothing" };
            tell(format!(
                "host {:?} sees one modality of {}, so {what} can be plugged in; write plugins = [\"none\"] for it, or \
                 add [rna] or [slides] to the cohort file",
                host.name, cohort.name
            ));
        }
        // What is fitted and how patients are divided depends on these settings alone.
        let same =
            |other: &super::Host| other.config.inputs == host.config.inputs && other.config.train == host.config.train;
        if self.settings.hosts[..number].iter().any(same) {
            return;
        }
        let mut config = host.config.clone();
        // Mean and deviation of patches are fitted whatever the patches are, and to see them all takes long.
        config.inputs.standardize_patches = false;
        let about = |error: Error| format!("host {:?} on {}: {error}", host.name, cohort.name);
        let mut parts = vec![Part::Whole];
        if self.settings.mode == Mode::Strict {
            parts.extend((0..self.settings.folds).map(Part::Fold));
        }
        let mut recipe = None;
        for &seed in &self.settings.seeds {
            config.seed = seed;
            for &part in &parts {
                let fitted = self.split(source, &config, part).and_then(|split| {
                    let fitted = Recipe::fit(&config, cohort, &split.train)?;
                    can_choose(cohort, &split, &config)?;
                    some_event(cohort, &split, part)?;
                    Ok(fitted)
                });
                match fitted {
                    Ok(fitted) => recipe = recipe.or(Some(fitted)),
                    Err(error) => return tell(about(error)),
                }
            }
        }
        let Some(recipe) = recipe else { return };
        for target in self.targets(source) {
            let target = &self.cohorts[target];
            if !no_gene_in_common(cohort, target)
                && let Err(error) = CohortSource::new(&recipe, target)
            {
                tell(about(error));
            }
        }
    }
}

/// Refuses validation patients whose figure would be the same for every epoch.
fn can_choose(cohort: &Cohort, split: &Split, config: &RunConfig) -> Result<()> {
    let by_pairs = config.train.loss == Loss::Cox || config.train.select == Select::ValidationConcordance;
    if split.validation.is_empty() || !by_pairs {
        return Ok(());
    }
    let patients = || split.validation.iter().map(|&p| &cohort.patients[p]);
    let (time, event): (Vec<f64>, Vec<bool>) = patients().map(|p| (p.time, p.event)).unzip();
    let pairs = harrell(Outcome::new(&time, &event)?, &vec![0.0; time.len()])?;
    if pairs.index().is_ok() {
        return Ok(());
    }
    let want = "large enough that a validation patient outlives the event of another";
    Err(Error::Setting { name: "train.validation", want, value: config.train.validation.to_string() })
}

/// Refuses training patients without an event: nothing could be learnt.
fn some_event(cohort: &Cohort, split: &Split, part: Part) -> Result<()> {
    if split.train.iter().any(|&p| cohort.patients[p].event) {
        return Ok(());
    }
    let value = format!("none in part {part}");
    Err(Error::Setting { name: "training patients", want: "such that one has an event", value })
}

/// The file itself, whatever way leads there.
fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.into())
}

fn same_files(paths: &[PathBuf], sources: usize, problems: &mut Vec<String>) {
    let files: Vec<PathBuf> = paths.iter().map(|path| real(path)).collect();
    for (number, path) in paths.iter().enumerate() {
        let Some(first) = files[..number].iter().position(|file| *file == files[number]) else { continue };
        let path = path.display();
        problems.push(match (first < sources, number < sources) {
            (true, true) => format!("{path} is named twice among sources; each of them once"),
            (true, false) => {
                format!("{path} is a source and a target; a model is tested on other cohorts than its source")
            }
            _ => format!("{path} is named twice among targets; each of them once"),
        });
    }
}

fn no_gene_in_common(source: &Cohort, target: &Cohort) -> bool {
    let (Some(ours), Some(theirs)) = (&source.rna, &target.rna) else { return false };
    let ours: HashSet<&str> = ours.genes.iter().map(String::as_str).collect();
    !theirs.genes.iter().any(|gene| ours.contains(gene.as_str()))
}
