//! A few patients in memory and a small model with everything on.

use std::cell::RefCell;

use onkos::config::{Loss, TrainConfig};
use onkos::model::Source;
use onkos::model::{AbmilConfig, Join, McatConfig, Pool, SnnConfig, SurvPathConfig, TransMilConfig};
use onkos::model::{Batch, FusionConfig, Genes, InputShape, Model, ModelConfig, PatchShape, Patches, SdirConfig};
use onkos::nn::{Builder, Noise, Params};
use onkos::ops::MixStyle;
use onkos::ops::cade::{Bandwidth, Cade, Statistics};
use onkos::ops::sdir::{Gain, Rescue, Scale, Sdir};
use onkos::rng::{Draws, name32};
use onkos::train::Objective;
use onkos::{Features, Ragged, Real, Result, Tensor};

use crate::harness::normal;

pub const NOISE: Noise = Noise { seed: 5, epoch: 2 };

/// The genes of each signature, one of which has a single gene.
pub const SIGNATURES: [usize; 3] = [3, 1, 2];
pub const FEATURES: usize = 3;

/// What a patient has: expression or not, and a number of patches.
#[derive(Clone, Copy)]
pub struct Has {
    pub genes: bool,
    pub patches: usize,
}

/// Patients in memory. Remembers which patients each batch was asked for.
pub struct Memory {
    pub patients: Vec<Has>,
    pub widths: Vec<usize>,
    pub features: usize,
    pub modality_dropout: f64,
    pub asked: RefCell<Vec<Vec<usize>>>,
}

impl Memory {
    pub fn new(patients: impl IntoIterator<Item = (bool, usize)>) -> Memory {
        Memory::sized(patients, &SIGNATURES, FEATURES)
    }

    pub fn sized(patients: impl IntoIterator<Item = (bool, usize)>, widths: &[usize], features: usize) -> Memory {
        let patients = patients.into_iter().map(|(genes, patches)| Has { genes, patches }).collect();
        Memory { patients, widths: widths.into(), features, modality_dropout: 0.0, asked: RefCell::default() }
    }

    /// The four of the gradient tests: both modalities, no genes, no patches, both with one patch.
    pub fn four() -> Memory {
        Memory::new([(true, 5), (false, 3), (true, 0), (true, 1)])
    }

    /// The model that sees these patients, patch features standardised.
    pub fn shape<T: Real>(&self) -> InputShape<T> {
        let deviation = Tensor::from_fn(&[self.features], |i| T::of(0.5 + 0.25 * i as f64));
        let standard = Some((normal("mean", &[self.features]), deviation));
        InputShape {
            genes: Some(Ragged::from_lengths(self.widths.iter().copied())),
            patches: Some(PatchShape { width: self.features, standard }),
        }
    }

    pub fn build<T: Real>(&self, config: &(impl Clone + Into<ModelConfig>), outputs: usize) -> (Model<T>, Params<T>) {
        // Drawn in f32, so that both precisions have the same model.
        let model = config.clone().into();
        let (_, params) = Model::<f32>::build(&model, &self.shape(), outputs, Builder::new(1)).unwrap();
        let (model, mut own) = Model::<T>::build(&model, &self.shape(), outputs, Builder::new(1)).unwrap();
        let names = own.names().to_vec();
        for ((own, drawn), name) in own.values_mut().iter_mut().zip(params.values()).zip(&names) {
            // Biases start at zero, where a wrong gradient of them might hide.
            let offset: Tensor<f64> = normal(name, own.shape());
            let bias = name.ends_with("bias");
            let shift = |i: usize| if bias { f64::from(offset.host()[i] as f32) * 0.25 } else { 0.0 };
            *own = Tensor::from_fn(drawn.shape(), |i| T::of(f64::from((f64::from(drawn.host()[i]) + shift(i)) as f32)));
        }
        (model, own)
    }

    /// Times in an order that mixes events, censored patients and a tie.
    pub fn objective(&self, loss: Loss) -> Objective {
        let n = self.patients.len();
        let time = (0..n).map(|i| 1.0 + ((i * 7) % n) as f64 - if i == 3 { 0.5 } else { 0.0 }).collect();
        let event = (0..n).map(|i| i % 3 != 1).collect();
        let bin = (0..n).map(|i| (i % 3) as u32).collect();
        Objective::new(&TrainConfig { loss, nll_alpha: 0.25, ..TrainConfig::default() }, time, event, bin)
    }
}

impl<T: Real> Source<T> for Memory {
    fn patients(&self) -> usize {
        self.patients.len()
    }

    fn patches(&self, p: usize) -> usize {
        self.patients[p].patches
    }

    fn batch(&self, patients: &[usize], noise: Option<Noise>) -> Result<Batch<T>> {
        self.asked.borrow_mut().push(patients.to_vec());
        let name = |p: usize| name32(&format!("patient {p}"));
        let shown: Vec<Has> = patients
            .iter()
            .map(|&p| {
                let has = self.patients[p];
                let Some(noise) = noise.filter(|_| has.genes && has.patches > 0) else { return has };
                let stream = Draws::new(noise.seed, noise.epoch, "modality.dropout").of(name(p));
                match (stream.uniform(0) < self.modality_dropout, stream.uniform(1) < 0.5) {
                    (false, _) => has,
                    (true, true) => Has { patches: 0, ..has },
                    (true, false) => Has { genes: false, ..has },
                }
            })
            .collect();
        let (mut values, mut features) = (Vec::new(), Vec::new());
        let genes: usize = self.widths.iter().sum();
        for (&p, has) in patients.iter().zip(&shown) {
            if has.genes {
                values.extend_from_slice(normal::<T>(&format!("genes {p}"), &[genes]).host());
            }
            features.extend_from_slice(normal::<f32>(&format!("patches {p}"), &[has.patches * self.features]).host());
        }
        let rows = Ragged::from_lengths(shown.iter().map(|has| usize::from(has.genes)));
        let bags = Ragged::from_lengths(shown.iter().map(|has| has.patches));
        // Who asks for nobody with a modality gets none of it, as a batch may.
        let genes = (rows.rows() > 0)
            .then(|| Tensor::new(&[rows.rows(), genes], values).map(|values| Genes { values, rows }))
            .transpose()?;
        let patches = (bags.rows() > 0)
            .then(|| Tensor::new(&[bags.rows(), self.features], features))
            .transpose()?
            .map(|features| Patches { features: Features::F32(features), bags });
        Ok(Batch { patients: patients.iter().map(|&p| name(p)).collect(), genes, patches })
    }
}

/// Small sizes, every setting on. Gradients flow through all of it but the scale of the gain.
pub fn everything() -> FusionConfig {
    let sdir = Sdir { p: 0.4, rescue: Rescue::Uniform, scale: Scale::Inverse, gain: Gain::None, gain_in_eval: true };
    FusionConfig {
        width: 4,
        gene_hidden: 3,
        attention_width: 3,
        heads: 2,
        gated: true,
        head_hidden: 3,
        gene_dropout: 0.25,
        patch_dropout: 0.2,
        head_dropout: 0.25,
        sdir: SdirConfig {
            genes: Some(Sdir { gain: Gain::Gaussian { gamma: 1.5, k: 0.8 }, ..sdir }),
            patches: Some(sdir),
        },
        cade: Some(Cade {
            alpha: 0.8,
            p_aug: 1.0,
            skip_dead_donors: true,
            kappa: 0.5,
            bandwidth: Bandwidth::Fixed(0.7),
            statistics: Statistics::Differentiated,
            ..Cade::default()
        }),
        ..FusionConfig::default()
    }
}

/// Small sizes of SurvPath, with the same plug-ins.
pub fn everything_of_survpath() -> SurvPathConfig {
    let FusionConfig { sdir, cade, .. } = everything();
    let sizes = SurvPathConfig { width: 6, attention_width: 4, heads: 2, head_hidden: 3, ..SurvPathConfig::default() };
    SurvPathConfig { sdir, cade, ..sizes }
}

/// Small sizes of MCAT, with the same plug-ins.
pub fn everything_of_mcat() -> McatConfig {
    let FusionConfig { sdir, cade, .. } = everything();
    let sizes = McatConfig {
        width: 4,
        heads: 2,
        encoder_layers: 2,
        encoder_heads: 2,
        encoder_hidden: 3,
        ..McatConfig::default()
    };
    McatConfig { sdir, cade, ..sizes }
}

/// The same, joined by products.
pub fn bilinear_mcat() -> McatConfig {
    McatConfig { width: 8, join: Join::Bilinear, ..everything_of_mcat() }
}

/// Small sizes of MOTCat, with the same plug-ins.
pub fn motcat() -> ModelConfig {
    ModelConfig::Motcat(McatConfig { heads: 1, ..everything_of_mcat() })
}

/// Small sizes of the models of one modality.
pub fn of_one_modality() -> [ModelConfig; 6] {
    let abmil = |pool| AbmilConfig { pool, width: 4, attention_width: 3, ..AbmilConfig::default() };
    let snn = SnnConfig { widths: vec![5, 3], ..SnnConfig::default() };
    let [gated, plain, mean, max] = [Pool::Gated, Pool::Plain, Pool::Mean, Pool::Max].map(|pool| abmil(pool).into());
    [gated, plain, mean, max, snn.into(), transmil().into()]
}

/// Small sizes of TransMIL.
pub fn transmil() -> TransMilConfig {
    TransMilConfig { width: 4, heads: 2, landmarks: 3, ..TransMilConfig::default() }
}

/// Small sizes of the models that have patch tokens, with these mixed between patients in every batch and little else.
pub fn mixed() -> [ModelConfig; 5] {
    let mixstyle = Some(MixStyle { alpha: 0.8, p: 1.0, ..MixStyle::default() });
    let abmil = |pool| AbmilConfig { pool, width: 4, attention_width: 3, mixstyle, ..AbmilConfig::default() };
    let fusion = FusionConfig { mixstyle, cade: None, sdir: SdirConfig::OFF, ..everything() };
    let survpath = SurvPathConfig { mixstyle, cade: None, sdir: SdirConfig::OFF, ..everything_of_survpath() };
    let transmil = TransMilConfig { mixstyle, ..transmil() };
    [fusion.into(), survpath.into(), abmil(Pool::Gated).into(), abmil(Pool::Max).into(), transmil.into()]
}

/// MCAT likewise. Not held against the CPU on a device: two encoders deep, rounding is all that there is to see.
pub fn mixed_mcat() -> ModelConfig {
    let mixstyle = Some(MixStyle { alpha: 0.8, p: 1.0, ..MixStyle::default() });
    McatConfig { mixstyle, cade: None, sdir: SdirConfig::OFF, ..everything_of_mcat() }.into()
}

/// The same without the gain, whose scale is a constant to the gradient and a function to finite differences.
pub fn everything_but_the_gain() -> FusionConfig {
    let mut config = everything();
    config.sdir.genes = config.sdir.patches;
    config
}
