//! The study file: what is trained on what, and with which settings.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::preset::{Mode, Plugin, Preset};
use crate::config::{RunConfig, Select};
use crate::error::{Error, Result, toml_error, without_types};
use crate::model::SdirConfig;
use crate::ops::{Cade, MixStyle};
use crate::run::file_name;

/// A study file as it is written. Paths are relative to it. What is a choice of words is looked at later, so that all
/// that is wrong can be told at once.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StudyFile {
    name: Option<String>,
    pub(super) sources: Vec<PathBuf>,
    #[serde(default)]
    pub(super) targets: Option<Vec<PathBuf>>,
    #[serde(default = "yes")]
    pub(super) others: bool,
    hosts: Vec<HostEntry>,
    #[serde(default = "of_the_paper")]
    plugins: Vec<String>,
    seeds: Vec<u64>,
    #[serde(default = "strict")]
    mode: String,
    #[serde(default = "onkos")]
    preset: String,
    #[serde(default = "five")]
    folds: usize,
    #[serde(default = "thousand")]
    replicates: u32,
    #[serde(default)]
    resampling_seed: u64,
    #[serde(default)]
    patients: Vec<String>,
    out: Option<PathBuf>,
    #[serde(default)]
    sdir: Table,
    cade: Option<Table>,
    #[serde(default)]
    mixstyle: Table,
    #[serde(default)]
    train: Table,
    #[serde(default)]
    inputs: Table,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct HostEntry {
    name: String,
    plugins: Option<Vec<String>>,
    #[serde(default)]
    sdir: Table,
    #[serde(default)]
    cade: Table,
    #[serde(default)]
    mixstyle: Table,
    #[serde(default)]
    model: Table,
    #[serde(default)]
    train: Table,
    #[serde(default)]
    inputs: Table,
}

fn yes() -> bool {
    true
}
fn of_the_paper() -> Vec<String> {
    Plugin::OF_THE_PAPER.map(|plugin| plugin.name().to_owned()).into()
}
fn strict() -> String {
    Mode::Strict.name().into()
}
fn onkos() -> String {
    Preset::Onkos.name().into()
}
fn five() -> usize {
    5
}
fn thousand() -> u32 {
    1000
}

/// The settings of a study, all defaults written out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Settings {
    /// What the study is called.
    pub name: String,
    /// How models are judged.
    pub mode: Mode,
    /// What the settings of training and plug-ins start from.
    pub preset: Preset,
    /// The seeds, each of which trains every model anew.
    pub seeds: Vec<u64>,
    /// Folds of the cross-validation that gives the figures inside a source; mode `strict` alone.
    pub folds: usize,
    /// Bootstrap replicates of each interval.
    pub replicates: u32,
    /// Keys the resamples of the bootstrap; with the name of the cohort.
    pub resampling_seed: u64,
    /// Cases whose gene groups and attention the report shows.
    pub patients: Vec<String>,
    /// The host models.
    pub hosts: Vec<Host>,
}

/// A host model with its settings.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Host {
    /// What it is called in the study.
    pub name: String,
    /// What is plugged into it, one after the other.
    pub plugins: Vec<Plugin>,
    /// SDIR where it is plugged in.
    pub sdir: SdirConfig,
    /// CADE where it is plugged in.
    pub cade: Cade,
    /// MixStyle where it is plugged in.
    pub mixstyle: MixStyle,
    /// Its settings, with nothing plugged in. The seed is that of the cell.
    pub config: RunConfig,
}

/// What every host starts from.
struct Start {
    mode: Mode,
    preset: Preset,
    plugins: Vec<Plugin>,
    sdir: SdirConfig,
    cade: Cade,
    mixstyle: MixStyle,
}

impl StudyFile {
    /// Reads a study file.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Study`] for what is not TOML, lacks a key or has an unknown one.
    pub(super) fn read(path: &Path) -> Result<StudyFile> {
        let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
        toml::from_str(&text).map_err(|error| {
            let problem = match toml_error(&text, &error) {
                (Some(line), why) => format!("line {line}: {why}"),
                (None, why) => why,
            };
            Error::Study { path: path.into(), problems: vec![problem] }
        })
    }

    /// The folder of the results.
    pub(super) fn out(&self, path: &Path) -> PathBuf {
        let stem = path.file_stem().map_or("study".into(), |stem| stem.to_string_lossy().into_owned());
        let named = self.out.clone().unwrap_or_else(|| format!("{stem}-results").into());
        path.parent().unwrap_or(Path::new("")).join(named)
    }

    /// The resolved settings; what is wrong goes into the list.
    pub(super) fn resolve(&self, path: &Path, problems: &mut Vec<String>) -> Settings {
        let mut wrong = |problem: Option<String>| problems.extend(problem);
        let mode = choice("mode", &self.mode, &Mode::ALL, Mode::name, &mut wrong).unwrap_or(Mode::Strict);
        let preset = choice("preset", &self.preset, &Preset::ALL, Preset::name, &mut wrong).unwrap_or(Preset::Onkos);
        let plugins = plugins("plugins", &self.plugins, &mut wrong);
        wrong(none("seeds", self.seeds.is_empty()));
        wrong(twice("seeds", &self.seeds));
        wrong(twice("patients", &self.patients));
        wrong(none("hosts", self.hosts.is_empty()));
        wrong(none("sources", self.sources.is_empty()));
        wrong(none("targets", self.targets.as_ref().is_some_and(Vec::is_empty)));
        wrong(twice("hosts", &self.hosts.iter().map(|host| file_name(&host.name)).collect::<Vec<_>>()));
        wrong((self.replicates == 0).then(|| "replicates must be at least 1, but is 0".into()));
        let folds = format!("folds must be at least 2, but is {}", self.folds);
        wrong((mode == Mode::Strict && self.folds < 2).then_some(folds));

        let mut sdir = preset.sdir();
        lay(&mut sdir, &self.sdir);
        let sdir: SdirConfig = section("[sdir]", sdir, &mut wrong).unwrap_or_default();
        let cade = match &self.cade {
            None => preset.cade(),
            Some(table) => section("[cade]", table.clone(), &mut wrong).unwrap_or_default(),
        };
        let mixstyle = section("[mixstyle]", self.mixstyle.clone(), &mut wrong).unwrap_or_default();
        let start = Start { mode, preset, plugins, sdir, cade, mixstyle };
        let hosts = self.hosts.iter().filter_map(|host| self.host(host, &start, &mut wrong)).collect();
        let stem = path.file_stem().map_or("study".into(), |stem| stem.to_string_lossy().into_owned());
        Settings {
            name: self.name.clone().unwrap_or(stem),
            mode,
            preset,
            seeds: self.seeds.clone(),
            folds: self.folds,
            replicates: self.replicates,
            resampling_seed: self.resampling_seed,
            patients: self.patients.clone(),
            hosts,
        }
    }

    fn host(&self, host: &HostEntry, start: &Start, wrong: &mut impl FnMut(Option<String>)) -> Option<Host> {
        let &Start { mode, preset, .. } = start;
        let name = &host.name;
        let of_host = |what: &str| format!("host {name:?}: {what}");
        let mut failed = false;
        // Of the host, so that a long list says whose each line is.
        let mut wrong = |problem: Option<String>| {
            failed |= problem.is_some();
            wrong(problem.map(|problem| of_host(&problem)));
        };
        let plugins = match &host.plugins {
            Some(words) => plugins("plugins", words, &mut wrong),
            None => start.plugins.clone(),
        };
        for key in ["sdir", "cade", "mixstyle"] {
            let here = host.model.contains_key(key);
            wrong(here.then(|| format!("take {key} out of [model]; in a study it is [{key}], or {key} of the host")));
        }
        let written = "settings are plain tables";
        let mut sdir = Table::try_from(&start.sdir).expect(written);
        lay(&mut sdir, &host.sdir);
        let mut cade = Table::try_from(start.cade).expect(written);
        lay(&mut cade, &host.cade);
        let sdir: Option<SdirConfig> = section("[sdir]", sdir, &mut wrong);
        let cade: Option<Cade> = section("[cade]", cade, &mut wrong);
        let mut mixstyle = Table::try_from(start.mixstyle).expect(written);
        lay(&mut mixstyle, &host.mixstyle);
        let mixstyle: Option<MixStyle> = section("[mixstyle]", mixstyle, &mut wrong);
        let off = sdir.as_ref().is_some_and(|sdir| *sdir == SdirConfig::OFF);
        let nothing = "sdir is plugged in, but [sdir] is switched off for both modalities";
        wrong((off && plugins.iter().any(|plugin| plugin.has_sdir())).then(|| nothing.into()));
        let model_name = host.model.get("name").and_then(Value::as_str).unwrap_or(name);
        let mut model = preset.model(model_name);
        model.insert("name".into(), Value::String(name.clone()));
        lay(&mut model, &host.model);
        let [mut train, mut inputs] = [preset.train(), preset.inputs()];
        for over in [&self.train, &host.train] {
            lay(&mut train, over);
            if mode == Mode::Published {
                let key = ["validation", "select", "patience"].into_iter().find(|key| over.contains_key(*key));
                wrong(key.map(|key| {
                    format!("take {key} out of [train]; mode \"published\" holds nobody out and keeps the last epoch")
                }));
            }
        }
        for over in [&self.inputs, &host.inputs] {
            lay(&mut inputs, over);
        }
        let model = section("[model]", model, &mut wrong);
        let train = section("[train]", train, &mut wrong);
        let inputs = section("[inputs]", inputs, &mut wrong);
        let (model, train, inputs) = (model?, train?, inputs?);
        let mut config = RunConfig { seed: 0, model, train, inputs };
        match mode {
            Mode::Published => {
                (config.train.validation, config.train.select, config.train.patience) = (0.0, Select::Last, 0);
            }
            Mode::Strict if config.train.validation == 0.0 || config.train.select == Select::Last => wrong(Some(
                "mode \"strict\" chooses the epoch by validation patients; set train.validation above 0 and \
                 train.select to one of theirs"
                    .into(),
            )),
            Mode::Strict => {}
        }
        Plugin::None.plug_into(&mut config.model, &SdirConfig::OFF, start.cade, start.mixstyle);
        let fits = |plugin: &&Plugin| plugin.fits(config.model.sees());
        let strange: Vec<&str> = plugins.iter().filter(|plugin| !fits(plugin)).map(|plugin| plugin.name()).collect();
        wrong((!strange.is_empty()).then(|| {
            let fitting: Vec<Plugin> = Plugin::ALL.iter().filter(fits).copied().collect();
            let (strange, fitting) = (strange.join(", "), words(&fitting, Plugin::name));
            format!("it sees one modality, so {strange} cannot be plugged in; write plugins = [{fitting}] for it")
        }));
        let (sdir, cade, mixstyle) = (sdir?, cade?, mixstyle?);
        let faults = [cade.check().err(), mixstyle.check().err()].map(|fault| fault.map(|error| error.to_string()));
        let faultless = faults.iter().all(Option::is_none);
        faults.into_iter().for_each(&mut wrong);
        // Only the first of what a run file would be refused for is told, so what is told already is not.
        let refused = |plugin: Plugin| {
            let mut plugged = config.clone();
            plugin.plug_into(&mut plugged.model, &sdir, cade, mixstyle);
            plugged.check().err()
        };
        let mut acting = [Plugin::Both].iter().chain(plugins.iter().filter(|plugin| **plugin == Plugin::MixStyle));
        let refused = config.check().err().or_else(|| acting.find_map(|plugin| refused(*plugin)).filter(|_| faultless));
        wrong(refused.map(|error| error.to_string()));
        (!failed).then(|| Host { name: name.clone(), plugins, sdir, cade, mixstyle, config })
    }
}

fn none(what: &str, empty: bool) -> Option<String> {
    empty.then(|| format!("{what} is an empty list; name at least one"))
}

fn twice<T: PartialEq + std::fmt::Display>(what: &str, of: &[T]) -> Option<String> {
    let again = of.iter().enumerate().find(|(i, x)| of[..*i].contains(x));
    again.map(|(_, x)| format!("{what} has {x} twice; each of them once"))
}

fn plugins(what: &str, words: &[String], wrong: &mut impl FnMut(Option<String>)) -> Vec<Plugin> {
    wrong(none(what, words.is_empty()));
    wrong(twice(what, words));
    words.iter().filter_map(|word| choice(what, word, &Plugin::ALL, Plugin::name, wrong)).collect()
}

/// Choices as a list in a study file has them.
fn words<T: Copy>(all: &[T], name: impl Fn(T) -> &'static str) -> String {
    all.iter().map(|&choice| format!("{:?}", name(choice))).collect::<Vec<_>>().join(", ")
}

/// The choice that a word names.
fn choice<T: Copy>(
    what: &str,
    word: &str,
    all: &[T],
    name: impl Fn(T) -> &'static str,
    wrong: &mut impl FnMut(Option<String>),
) -> Option<T> {
    let found = all.iter().copied().find(|&choice| name(choice) == word);
    wrong(found.is_none().then(|| format!("{what}: {word:?} is none of {}", words(all, name))));
    found
}

/// A section of settings out of its table.
fn section<T: for<'de> Deserialize<'de>>(
    what: &str,
    table: Table,
    wrong: &mut impl FnMut(Option<String>),
) -> Option<T> {
    match Value::Table(table).try_into() {
        Ok(settings) => Some(settings),
        Err(error) => {
            let why = without_types(&error.to_string().trim().replace('\n', "; "));
            wrong(Some(format!("{what}: {why}")));
            None
        }
    }
}

/// Choices that have settings of their own: one replaces the other.
const CHOICES: [&str; 2] = ["gain", "bandwidth"];

/// Lays a table over another. A table that is told apart by its `name` or `kind` replaces one of another.
fn lay(under: &mut Table, over: &Table) {
    for (key, value) in over {
        match (under.get_mut(key), value) {
            (Some(Value::Table(below)), Value::Table(above))
                if !CHOICES.contains(&key.as_str()) && same_kind(below, above) =>
            {
                lay(below, above)
            }
            _ => {
                under.insert(key.clone(), value.clone());
            }
        }
    }
}

fn same_kind(below: &Table, above: &Table) -> bool {
    ["name", "kind"].into_iter().all(|key| above.get(key).is_none_or(|kind| below.get(key) == Some(kind)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Loss, Sampling};
    use crate::data::Scaling;
    use crate::model::{ModelConfig, TransMilConfig};
    use crate::ops::Sdir;
    use crate::ops::cade::Bandwidth;
    use crate::optim::OptimizerConfig;

    const LEAST: &str = "sources = [\"a.toml\", \"b.toml\"]\nseeds = [1]\n";

    fn resolve(text: &str) -> (Settings, Vec<String>) {
        let mut problems = Vec::new();
        let file: StudyFile = toml::from_str(&format!("{LEAST}{text}")).unwrap();
        (file.resolve(Path::new("x/tcga.toml"), &mut problems), problems)
    }

    #[test]
    fn the_least_study_has_our_settings_and_the_plugins_of_the_paper() {
        let (settings, problems) = resolve("[[hosts]]\nname = \"fusion\"");
        assert_eq!(problems, Vec::<String>::new());
        assert_eq!((settings.name.as_str(), settings.mode, settings.preset), ("tcga", Mode::Strict, Preset::Onkos));
        assert_eq!(settings.hosts[0].plugins, Plugin::OF_THE_PAPER);
        assert_eq!((&settings.hosts[0].sdir, settings.hosts[0].cade), (&SdirConfig::default(), Cade::smooth()));
        let mut ours = RunConfig::default();
        ours.model.plugins_mut().map(|(sdir, cade)| (*sdir, *cade) = (SdirConfig::OFF, None)).unwrap();
        assert_eq!(settings.hosts[0].config, ours);
    }

    #[test]
    fn the_published_preset_is_the_recipe_of_the_paper_in_both_modes() {
        for (mode, validation) in [("published", 0.0), ("strict", 0.2)] {
            let text = format!("mode = \"{mode}\"\npreset = \"published\"\n[[hosts]]\nname = \"fusion\"");
            let (settings, problems) = resolve(&text);
            assert_eq!(problems, Vec::<String>::new());
            let RunConfig { train, inputs, .. } = &settings.hosts[0].config;
            assert_eq!((train.epochs, train.batch, train.learning_rate, train.bins), (100, 1, 5e-4, 4));
            assert_eq!((train.patches_per_patient, train.pad_to), (4096, 4096));
            assert_eq!((train.loss, train.sampling, train.nll_alpha), (Loss::Nll, Sampling::BinBalanced, 0.5));
            assert!(matches!(train.optimizer, OptimizerConfig::RAdam(c) if c.weight_decay == 1e-3));
            assert_eq!((train.schedule.warmup_epochs, train.clip_norm, train.validation), (1.0, 0.0, validation));
            assert_eq!((train.select == Select::Last, inputs.rna_scaling), (validation == 0.0, Scaling::MinmaxGlobal));
            let Host { sdir, cade, .. } = &settings.hosts[0];
            assert_eq!((sdir.genes, sdir.patches, *cade), (sdir.patches, Some(Sdir::default()), Cade::default()));
        }
    }

    #[test]
    fn the_published_preset_has_what_published_models_do() {
        let text = |preset| {
            let of = "model = { name = \"transmil\", together = false }\nplugins = [\"none\"]";
            format!("{preset}plugins = [\"none\"]\n[[hosts]]\nname = \"transmil\"\n[[hosts]]\nname = \"own\"\n{of}")
        };
        for (preset, padded, together) in [("preset = \"published\"\n", true, [true, false]), ("", false, [false; 2])] {
            let (settings, problems) = resolve(&text(preset));
            assert_eq!(problems, Vec::<String>::new());
            for (host, together) in settings.hosts.iter().zip(together) {
                let want = TransMilConfig { padded, together, ..TransMilConfig::default() };
                assert_eq!(host.config.model, want.into(), "{preset}");
            }
            let (settings, problems) = resolve(&format!("{preset}[[hosts]]\nname = \"motcat\""));
            assert_eq!(problems, Vec::<String>::new());
            let ModelConfig::Motcat(config) = &settings.hosts[0].config.model else { panic!("another model") };
            assert_eq!(config.ot_gradient, preset.is_empty());
        }
    }

    #[test]
    fn tables_are_laid_over_the_preset_and_the_host_has_the_last_word() {
        let text = "preset = \"published\"\n[train]\nepochs = 7\noptimizer = { kind = \"adamw\", weight_decay = 0.5 }\n\
                    [sdir.patches]\np = 0.3\n[cade]\nalpha = 0.2\n\
                    [[hosts]]\nname = \"wide\"\nplugins = [\"none\"]\nmodel = { name = \"fusion\", width = 64 }\n\
                    train = { epochs = 3 }\n[[hosts]]\nname = \"fusion\"";
        let (settings, problems) = resolve(text);
        assert_eq!(problems, Vec::<String>::new());
        let [wide, fusion] = &settings.hosts[..] else { panic!("{:?}", settings.hosts) };
        assert_eq!((wide.config.train.epochs, fusion.config.train.epochs), (3, 7));
        assert!(matches!(&fusion.config.train.optimizer, OptimizerConfig::AdamW(c) if c.weight_decay == 0.5));
        let model = serde_json::to_value(&wide.config.model).unwrap();
        assert_eq!((model["width"].as_u64(), wide.plugins.as_slice()), (Some(64), &[Plugin::None][..]));
        assert_eq!((fusion.sdir.patches.unwrap().p, fusion.sdir.genes.unwrap().p), (0.3, 0.5));
        assert_eq!(fusion.cade, Cade { alpha: 0.2, ..Cade::default() });
    }

    #[test]
    fn a_host_may_have_settings_of_a_plugin_of_its_own() {
        let text = "[[hosts]]\nname = \"narrow\"\nmodel = { name = \"fusion\" }\ncade = { bandwidth = { fixed = 0.1 } }\n\
                    sdir = { patches = { p = 0.1 }, genes = false }\n[[hosts]]\nname = \"fusion\"";
        let (settings, problems) = resolve(text);
        assert_eq!(problems, Vec::<String>::new());
        let [narrow, fusion] = &settings.hosts[..] else { panic!("{:?}", settings.hosts) };
        assert_eq!(narrow.cade, Cade { bandwidth: Bandwidth::Fixed(0.1), ..Cade::smooth() });
        assert_eq!((narrow.sdir.genes, narrow.sdir.patches.unwrap().p), (None, 0.1));
        assert_eq!((&fusion.sdir, fusion.cade), (&SdirConfig::default(), Cade::smooth()));
        let (_, problems) = resolve("[sdir]\ngenes = false\npatches = false\n[[hosts]]\nname = \"fusion\"");
        assert!(problems[0].contains("[sdir] is switched off"), "{problems:?}");
    }

    #[test]
    fn mixstyle_is_plugged_into_what_has_patches_with_settings_of_its_own() {
        let text = "plugins = [\"none\", \"mixstyle\"]\n[mixstyle]\nalpha = 0.3\n[[hosts]]\nname = \"abmil\"\n\
                    [[hosts]]\nname = \"always\"\nmodel = { name = \"fusion\" }\nmixstyle = { p = 1.0 }";
        let (settings, problems) = resolve(text);
        assert_eq!(problems, Vec::<String>::new());
        let drawn = MixStyle { alpha: 0.3, ..MixStyle::default() };
        for (host, want) in settings.hosts.iter().zip([drawn, MixStyle { p: 1.0, ..drawn }]) {
            assert_eq!(host.mixstyle, want);
            for (plugin, want) in [(Plugin::MixStyle, Some(want)), (Plugin::Both, None), (Plugin::None, None)] {
                let mut model = host.config.model.clone();
                plugin.plug_into(&mut model, &host.sdir, host.cade, host.mixstyle);
                assert_eq!(*model.mixstyle_mut().unwrap(), want, "{plugin:?}");
                let both = model.plugins_mut().map(|(sdir, cade)| (*sdir == SdirConfig::OFF, cade.is_none()));
                assert!(both.is_none_or(|off| off == (plugin != Plugin::Both, plugin != Plugin::Both)), "{plugin:?}");
            }
        }
        for (more, want) in [
            (
                "[[hosts]]\nname = \"snn\"",
                "one modality, so mixstyle cannot be plugged in; write plugins = [\"none\"] for it",
            ),
            (
                "[[hosts]]\nname = \"abmil\"\nplugins = [\"cade\"]",
                "so cade cannot be plugged in; write plugins = [\"none\", \"mixstyle\"] for it",
            ),
            ("[train]\nbatch = 1\n[[hosts]]\nname = \"abmil\"", "train.batch must be at least 2 with model.mixstyle"),
            ("[mixstyle]\np = 2.0\n[[hosts]]\nname = \"abmil\"", "mixstyle.p must be between 0 and 1"),
            ("[[hosts]]\nname = \"abmil\"\nmodel = { mixstyle = false }", "take mixstyle out of [model]"),
        ] {
            let (_, problems) = resolve(&format!("plugins = [\"none\", \"mixstyle\"]\n{more}"));
            assert!(matches!(&problems[..], [one] if one.contains(want)), "{problems:#?}");
        }
        // Batches of one patient are refused for what is plugged in, not for what is not.
        assert_eq!(resolve("[train]\nbatch = 1\n[[hosts]]\nname = \"fusion\"").1, Vec::<String>::new());
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once() {
        let text = "mode = \"strickt\"\nplugins = [\"none\", \"sdri\"]\nreplicates = 0\nfolds = 1\n[cade]\nalpha = -1.0\n\
                    [[hosts]]\nname = \"survpth\"\n[[hosts]]\nname = \"fusion\"\nmodel = { widht = 3 }\n\
                    [[hosts]]\nname = \"fusion\"\nmodel = { cade = false }\ntrain = { validation = 0.0 }";
        let (_, problems) = resolve(text);
        for part in [
            "mode: \"strickt\" is none of \"strict\", \"published\"",
            "plugins: \"sdri\" is none of",
            "replicates must be at least 1",
            "folds must be at least 2",
            "cade.alpha must be finite and positive",
            "hosts has fusion twice",
            "host \"survpth\": [model]: unknown variant",
            "host \"fusion\": [model]: unknown field `widht`",
            "host \"fusion\": take cade out of [model]",
            "host \"fusion\": mode \"strict\" chooses the epoch",
        ] {
            assert!(problems.iter().any(|problem| problem.contains(part)), "no {part:?} in {problems:#?}");
        }
    }

    #[test]
    fn a_published_study_holds_nobody_out() {
        let text = "mode = \"published\"\n[train]\npatience = 3\n[[hosts]]\nname = \"fusion\"";
        assert!(resolve(text).1[0].contains("take patience out of [train]"));
    }
}
