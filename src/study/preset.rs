//! The words of a study file: modes, presets, plug-ins.

use serde::Serialize;
use toml::Table;

use crate::data::Modality;
use crate::model::{ModelConfig, SdirConfig};
use crate::ops::{Cade, MixStyle};

/// How models are judged. A study has one mode, so figures of the two never stand in one table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Validation patients of the source choose the epoch; scaling, bins and cuts are fitted on the training patients of
    /// the source and no number of a target is used. Figures inside a source come from cross-validation, each fold with
    /// validation patients of its own.
    Strict,
    /// As the paper's code does it: trained on the whole source, the last epoch is kept, and expression of a target is
    /// scaled by what is fitted on that target. Figures inside a source are those of the training patients.
    Published,
}

impl Mode {
    pub(super) const ALL: [Mode; 2] = [Mode::Strict, Mode::Published];

    /// As a study file spells it.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Strict => "strict",
            Mode::Published => "published",
        }
    }
}

/// What the settings of a study start from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Preset {
    /// Our defaults.
    Onkos,
    /// The recipe of arXiv 2507.08340 as its training script has it, and SDIR and CADE as its code has them.
    Published,
}

/// The published recipe, as far as a run file can say it. Which epoch is kept is said by the mode.
const PUBLISHED_TRAIN: &str = r#"
epochs = 100
batch = 1
loss = "nll"
bins = 4
bin_rule = "survpath"
nll_alpha = 0.5
sampling = "bin_balanced"
learning_rate = 5e-4
clip_norm = 0.0
patches_per_patient = 4096
pad_to = 4096
optimizer = { kind = "radam", beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 1e-3 }
schedule = { decay = "cosine", warmup_epochs = 1.0 }
"#;
const PUBLISHED_INPUTS: &str = "rna_scaling = \"minmax-global\"\nstandardize_patches = false\n";
/// What published models do that ours do not unless they are asked to.
const PUBLISHED_TRANSMIL: &str = "padded = true\ntogether = true\n";
const PUBLISHED_MOTCAT: &str = "ot_gradient = false\n";
/// An empty table is the published setting: half of the tokens masked, no gain.
const PUBLISHED_SDIR: &str = "genes = {}\npatches = {}\n";

impl Preset {
    pub(super) const ALL: [Preset; 2] = [Preset::Onkos, Preset::Published];

    /// As a study file spells it.
    pub fn name(self) -> &'static str {
        match self {
            Preset::Onkos => "onkos",
            Preset::Published => "published",
        }
    }

    pub(super) fn train(self) -> Table {
        self.table(PUBLISHED_TRAIN)
    }

    pub(super) fn inputs(self) -> Table {
        self.table(PUBLISHED_INPUTS)
    }

    /// What the settings of a model of this name start from.
    pub(super) fn model(self, name: &str) -> Table {
        self.table(match name {
            "transmil" => PUBLISHED_TRANSMIL,
            "motcat" => PUBLISHED_MOTCAT,
            _ => "",
        })
    }

    pub(super) fn sdir(self) -> Table {
        self.table(PUBLISHED_SDIR)
    }

    pub(super) fn cade(self) -> Cade {
        match self {
            Preset::Onkos => Cade::smooth(),
            Preset::Published => Cade::default(),
        }
    }

    fn table(self, published: &str) -> Table {
        match self {
            Preset::Onkos => Table::new(),
            Preset::Published => published.parse().expect("the preset is TOML"),
        }
    }
}

/// What is plugged into a host: where its two sets of tokens meet, or into its patch tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Plugin {
    /// Nothing.
    None,
    /// SDIR alone.
    Sdir,
    /// CADE alone.
    Cade,
    /// SDIR and CADE.
    Both,
    /// MixStyle, the unimodal ancestor of CADE, alone.
    #[serde(rename = "mixstyle")]
    MixStyle,
}

impl Plugin {
    pub(super) const ALL: [Plugin; 5] = [Plugin::None, Plugin::Sdir, Plugin::Cade, Plugin::Both, Plugin::MixStyle];
    /// Those of arXiv 2507.08340, which a study has unless it names others.
    pub(super) const OF_THE_PAPER: [Plugin; 4] = [Plugin::None, Plugin::Sdir, Plugin::Cade, Plugin::Both];

    /// As a study file spells it.
    pub fn name(self) -> &'static str {
        match self {
            Plugin::None => "none",
            Plugin::Sdir => "sdir",
            Plugin::Cade => "cade",
            Plugin::Both => "both",
            Plugin::MixStyle => "mixstyle",
        }
    }

    /// Sets a host to have this plugged in and nothing else. A host without a place for it stays as it is.
    pub(super) fn plug_into(self, host: &mut ModelConfig, sdir: &SdirConfig, cade: Cade, mixstyle: MixStyle) {
        if let Some((place_of_sdir, place_of_cade)) = host.plugins_mut() {
            *place_of_sdir = if self.has_sdir() { sdir.clone() } else { SdirConfig::OFF };
            *place_of_cade = self.has_cade().then_some(cade);
        }
        if let Some(place) = host.mixstyle_mut() {
            *place = (self == Plugin::MixStyle).then_some(mixstyle);
        }
    }

    /// Whether a host that sees these modalities has a place for it.
    pub(super) fn fits(self, sees: &[Modality]) -> bool {
        let [genes, patches] = [Modality::Genes, Modality::Patches].map(|modality| sees.contains(&modality));
        match self {
            Plugin::None => true,
            Plugin::Sdir | Plugin::Cade | Plugin::Both => genes && patches,
            Plugin::MixStyle => patches,
        }
    }

    pub(super) fn has_sdir(self) -> bool {
        matches!(self, Plugin::Sdir | Plugin::Both)
    }

    pub(super) fn has_cade(self) -> bool {
        matches!(self, Plugin::Cade | Plugin::Both)
    }
}
