//! Models over cohorts, the memory that a batch of each takes, and what is foretold of it. Shared by the suite of devices and that
//! of the CPU.

use half::{bf16, f16};
use onkos::config::{Loss, TrainConfig};
use onkos::data::{Cohort, Modality};
use onkos::model::{
    AbmilConfig, BatchSize, CohortSource, Footprint, FusionConfig, McatConfig, Model, ModelConfig, Pool, Recipe,
    SdirConfig, Source, SurvPathConfig, TransMilConfig, forward,
};
use onkos::nn::{Builder, Noise};
use onkos::ops::cade::{Cade, Statistics};
use onkos::ops::{Activation, MixStyle, Sdir};
use onkos::train::Objective;
use onkos::{Device, FeatureType};
use safetensors::Dtype;
use safetensors::tensor::{TensorView, serialize};

use crate::study::{Study, config};

/// One model over one cohort.
#[derive(Clone)]
pub(crate) struct Case {
    pub(crate) what: &'static str,
    pub(crate) model: ModelConfig,
    modalities: Vec<Modality>,
    /// Patches of each patient, features of a patch, their type.
    pub(crate) rows: usize,
    width: usize,
    dtype: Dtype,
    patients: usize,
    /// Rows that training gives of a patient, at least.
    padded: usize,
    cohort: bool,
}

impl Case {
    fn new(what: &'static str, rows: usize, width: usize, model: impl Into<ModelConfig>) -> Case {
        let (dtype, patients, model) = (Dtype::F16, 6, model.into());
        Case { what, model, modalities: Vec::new(), rows, width, dtype, patients, padded: 0, cohort: false }
    }
}

fn sized(width: usize, attention_width: usize, heads: usize) -> FusionConfig {
    FusionConfig { width, attention_width, heads, patch_dropout: 0.1, ..FusionConfig::default() }
}

/// Nothing of these was fitted: the estimate counts tensors, and each case has others of them.
pub(crate) fn cases() -> Vec<Case> {
    let plain = |c: FusionConfig| FusionConfig { sdir: SdirConfig::OFF, cade: None, patch_dropout: 0.0, ..c };
    let base = sized(32, 32, 1);
    let differentiated = Cade { statistics: Statistics::Differentiated, ..Cade::smooth() };
    let mask = Sdir::default();
    let survpath = SurvPathConfig { width: 32, attention_width: 16, head_hidden: 8, ..SurvPathConfig::default() };
    let plugged = SurvPathConfig { sdir: SdirConfig::default(), cade: Some(Cade::smooth()), ..survpath.clone() };
    let (sizes, off) = ((32, 4, 40), McatConfig::default());
    let mcat = McatConfig { width: sizes.0, encoder_heads: sizes.1, encoder_hidden: sizes.2, ..off };
    let guided = McatConfig { sdir: SdirConfig::default(), cade: Some(Cade::smooth()), ..mcat.clone() };
    // Every batch is mixed.
    let mixstyle = Some(MixStyle { p: 1.0, ..MixStyle::default() });
    let max = AbmilConfig { pool: Pool::Max, width: 32, ..AbmilConfig::default() };
    let attention = AbmilConfig { attention_width: 48, ..AbmilConfig::default() };
    let transmil = TransMilConfig { width: 32, heads: 4, landmarks: 12, ..TransMilConfig::default() };
    let many = TransMilConfig { landmarks: 48, dropout: 0.0, mixstyle, ..transmil.clone() };
    vec![
        Case::new("many patches of few features", 300, 16, base.clone()),
        Case::new("few of many", 100, 512, sized(16, 16, 1)),
        Case::new("wide", 100, 64, sized(64, 32, 2)),
        Case::new("gates far wider than tokens", 200, 16, sized(16, 160, 1)),
        Case::new("tokens far wider than gates", 150, 32, sized(96, 4, 1)),
        Case::new("many heads", 150, 32, sized(16, 16, 8)),
        Case::new("not gated", 200, 24, FusionConfig { gated: false, ..sized(24, 48, 3) }),
        Case::new(
            "a layer that keeps its argument",
            200,
            24,
            FusionConfig { patch_activation: Activation::Gelu, ..base.clone() },
        ),
        Case::new("no dropout", 200, 24, FusionConfig { patch_dropout: 0.0, gene_dropout: 0.0, ..base.clone() }),
        Case::new("no masks and no entanglement", 200, 24, plain(base.clone())),
        Case::new(
            "masks alone",
            200,
            24,
            FusionConfig { sdir: SdirConfig { genes: Some(mask), patches: Some(mask) }, cade: None, ..base.clone() },
        ),
        Case::new(
            "statistics that are differentiated",
            200,
            24,
            FusionConfig { cade: Some(differentiated), ..base.clone() },
        ),
        Case::new("a hidden layer in the head", 200, 24, FusionConfig { head_hidden: 64, ..base.clone() }),
        Case { dtype: Dtype::BF16, ..Case::new("features in bf16", 120, 200, base.clone()) },
        Case { dtype: Dtype::F32, ..Case::new("features in f32", 120, 200, base.clone()) },
        Case { cohort: true, ..Case::new("risk sets of the cohort", 200, 24, base.clone()) },
        Case { modalities: vec![Modality::Patches], ..Case::new("patches alone", 200, 24, base.clone()) },
        Case { modalities: vec![Modality::Genes], patients: 40, ..Case::new("genes alone", 1, 8, base.clone()) },
        Case { patients: 40, ..Case::new("little but genes", 1, 8, base.clone()) },
        Case { patients: 2, ..Case::new("two long bags", 1300, 12, sized(20, 20, 1)) },
        Case::new("attention alone", 200, 24, AbmilConfig { width: 32, attention_width: 48, ..AbmilConfig::default() }),
        Case::new("the mean alone", 200, 24, AbmilConfig { pool: Pool::Mean, width: 32, ..AbmilConfig::default() }),
        Case::new("the maximum alone", 200, 24, max.clone()),
        Case::new("survpath", 200, 24, survpath.clone()),
        Case { patients: 2, ..Case::new("two long bags of survpath", 1300, 12, survpath.clone()) },
        Case { padded: 400, ..Case::new("short bags of survpath, padded", 30, 24, survpath.clone()) },
        Case { padded: 400, ..Case::new("short bags, padded", 30, 24, base.clone()) },
        Case::new("the maximum alone, of mixed tokens", 200, 24, AbmilConfig { mixstyle, ..max }),
        Case::new("attention alone, of mixed tokens", 200, 24, AbmilConfig { mixstyle, width: 32, ..attention }),
        Case::new("mixed tokens, and all else", 200, 24, FusionConfig { mixstyle, ..base.clone() }),
        Case::new("mixed tokens alone", 200, 24, FusionConfig { mixstyle, ..plain(base) }),
        Case::new("survpath of mixed tokens", 200, 24, SurvPathConfig { mixstyle, ..survpath }),
        Case::new("survpath, all plugged into", 200, 24, SurvPathConfig { mixstyle, ..plugged.clone() }),
        Case::new("survpath, plugged into", 200, 24, plugged),
        Case::new("transmil", 200, 24, transmil.clone()),
        Case::new("transmil of many landmarks, and of mixed tokens", 100, 24, many),
        Case::new("transmil, padded", 200, 24, TransMilConfig { padded: true, ..transmil.clone() }),
        Case { patients: 2, ..Case::new("two long bags of transmil", 1300, 12, transmil) },
        Case::new("mcat", 200, 24, mcat.clone()),
        Case { patients: 2, ..Case::new("two long bags of mcat", 1300, 12, mcat.clone()) },
        Case::new("motcat", 200, 24, ModelConfig::Motcat(mcat.clone())),
        Case::new(
            "motcat of a constant plan",
            200,
            24,
            ModelConfig::Motcat(McatConfig { ot_gradient: false, ..mcat.clone() }),
        ),
        Case { patients: 2, ..Case::new("two long bags of motcat", 1300, 12, ModelConfig::Motcat(mcat)) },
        Case::new("motcat, plugged into", 200, 24, ModelConfig::Motcat(guided.clone())),
        Case::new("mcat, plugged into", 200, 24, guided.clone()),
        Case::new("mcat, all plugged into", 200, 24, McatConfig { mixstyle, ..guided }),
    ]
}

/// A cohort with bags of `rows` patches of `width` features.
fn cohort(study: &Study, case: &Case) -> Cohort {
    let (patients, rows, width) = (case.patients, case.rows, case.width);
    let values = (0..patients * rows * width).map(|i| (i * 31 % 97) as f32 / 97.0);
    let bytes: Vec<u8> = match case.dtype {
        Dtype::F16 => values.flat_map(|x| f16::from_f32(x).to_le_bytes()).collect(),
        Dtype::BF16 => values.flat_map(|x| bf16::from_f32(x).to_le_bytes()).collect(),
        _ => values.flat_map(f32::to_le_bytes).collect(),
    };
    let offsets: Vec<u8> = (0..=patients).flat_map(|p| ((p * rows) as i64).to_le_bytes()).collect();
    let tensors = [
        ("features", TensorView::new(case.dtype, vec![patients * rows, width], &bytes).unwrap()),
        ("offsets", TensorView::new(Dtype::I64, vec![patients + 1], &offsets).unwrap()),
    ];
    std::fs::write(study.folder.path().join("north/bags.safetensors"), serialize(tensors, None).unwrap()).unwrap();
    study.north()
}

/// Tells how many bytes some work takes at once.
pub(crate) type Measure<'a> = &'a dyn Fn(&mut dyn FnMut()) -> u64;

/// What a training step takes of the memory of a device, and what prediction does, each with what was foretold.
pub(crate) fn taken(device: Device, case: &Case, measure: Measure<'_>) -> [(u64, u64); 2] {
    let study = Study::new(case.patients.max(6));
    let cohort = cohort(&study, &Case { patients: case.patients.max(6), ..case.clone() });
    let everybody: Vec<usize> = (0..case.patients).collect();
    let mut config = config(1);
    config.model = case.model.clone();
    config.inputs.modalities.clone_from(&case.modalities);
    let recipe = Recipe::fit(&config, &cohort, &everybody).unwrap();
    let builder = Builder::<f32>::new(1);
    let (model, params) = Model::build(&recipe.model, &recipe.shape(), 1, builder).unwrap();
    let params = params.to(device).unwrap();
    let train = TrainConfig { loss: Loss::Cox, ..TrainConfig::default() };
    let objective = Objective::new(&train, cohort.times(), vec![true; cohort.len()], Vec::new());
    let dtype = match case.dtype {
        Dtype::F32 => FeatureType::F32,
        Dtype::BF16 => FeatureType::Bf16,
        _ => FeatureType::F16,
    };
    let footprint = Footprint::new(&recipe, dtype).on(device);
    // A step over the risk sets of the cohort has one half of it at a time.
    let batches: Vec<Vec<usize>> = if case.cohort {
        everybody.chunks(case.patients.div_ceil(2)).map(<[usize]>::to_vec).collect()
    } else {
        vec![everybody]
    };
    let noise = Noise { seed: 1, epoch: 0 };
    [true, false].map(|training| {
        // The memory that the CPU reads batches into is a part of what they take; on a device the features lie already.
        let source = CohortSource::new(&recipe, &cohort).unwrap().padding(case.padded).on(device, u64::MAX).unwrap();
        if let Device::Cuda(_) = device {
            // Constants of the layers, which stay, are there before anything is measured.
            drop(forward(&model, &params, &source, &batches[0], None, true).unwrap());
        }
        let taken = measure(&mut || match (training, case.cohort) {
            (true, true) => drop(objective.cohort_step(&model, &params, &source, &batches, noise).unwrap()),
            (true, false) => drop(objective.step(&model, &params, &source, &batches[0], noise).unwrap()),
            (false, _) => drop(forward(&model, &params, &source, &batches[0], None, true).unwrap()),
        });
        let of = |&p: &usize| if training { source.training_patches(p) } else { Source::<f32>::patches(&source, p) };
        let size = BatchSize { patients: batches[0].len(), patches: batches[0].iter().map(of).sum() };
        // Gradients of parameters are there in any case, those of a cohort beside those of a batch.
        let gradients = [0, 1, 2][usize::from(training) + usize::from(training && case.cohort)];
        let gradients = gradients * 4 * params.count() as u64;
        (taken, footprint.bytes(size, training) + gradients)
    })
}
