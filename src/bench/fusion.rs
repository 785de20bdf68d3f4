//! A step of training of the fusion model, as published: both modalities masked, every patient entangled.

use std::hint::black_box;

use super::{Case, Pass, Place};
use crate::config::TrainConfig;
use crate::device::Precision;
use crate::error::Result;
use crate::model::{Batch, FusionConfig, Genes, InputShape, Model, ModelConfig, PatchShape, Patches, SdirConfig};
use crate::model::{Source, predict};
use crate::nn::{Builder, Noise};
use crate::ops::{Cade, Sdir};
use crate::optim::Parameter;
use crate::train::Objective;
use crate::{FeatureType, Ragged};

pub(super) fn cases() -> Vec<Case> {
    use Pass::{Forward, ForwardBackward};
    vec![
        case(8, 500, Precision::F32, Forward),
        case(8, 500, Precision::F32, ForwardBackward),
        case(32, 2000, Precision::F32, Forward),
        case(32, 2000, Precision::F32, ForwardBackward),
        case(1, 200_000, Precision::F32, ForwardBackward),
        // For a card.
        case(64, 15_000, Precision::F32, ForwardBackward),
        case(64, 15_000, Precision::Bf16, ForwardBackward),
    ]
}

/// Features of a patch.
const L: usize = 1024;

/// One batch that is always the same.
struct Fixed(Batch<f32>);

impl Source<f32> for Fixed {
    fn patients(&self) -> usize {
        self.0.size()
    }

    fn patches(&self, p: usize) -> usize {
        self.0.patches.as_ref().map_or(0, |patches| patches.bags.bag(p).len())
    }

    fn batch(&self, _: &[usize], _: Option<Noise>) -> Result<Batch<f32>> {
        Ok(self.0.clone())
    }
}

fn case(patients: usize, each: usize, precision: Precision, pass: Pass) -> Case {
    let sets = super::grouped_linear::sets();
    let config = FusionConfig {
        sdir: SdirConfig { genes: Some(Sdir::default()), patches: Some(Sdir::default()) },
        cade: Some(Cade { p_aug: 1.0, ..Cade::default() }),
        ..FusionConfig::default()
    };
    let (width, hidden, attention) = (config.width, config.gene_hidden, config.attention_width);
    let (genes, tokens) = (sets.rows(), sets.bags());
    let setup = move |place: Place| -> Box<dyn FnMut()> {
        let (n, genes) = (patients * each, sets.rows());
        let features = place.features("features", &[n, L], FeatureType::F16);
        let batch = Batch {
            patients: (0..patients as u32).collect(),
            genes: Some(Genes {
                values: place.normal("genes", &[patients, genes], 1.0),
                rows: Ragged::uniform(patients, 1),
            }),
            patches: Some(Patches { features, bags: Ragged::uniform(patients, each) }),
        };
        let shape = InputShape { genes: Some(sets.clone()), patches: Some(PatchShape { width: L, standard: None }) };
        let model = ModelConfig::Fusion(config.clone());
        let (model, mut params) = Model::build(&model, &shape, 1, Builder::new(0)).expect("proper settings");
        let train = TrainConfig::default();
        let parameters = params.iter().zip(params.decays()).map(|((name, value), &decay)| Parameter {
            name: name.into(),
            shape: value.shape().to_vec(),
            decay,
        });
        let mut optimizer = train.optimizer.build(parameters.collect()).expect("proper settings");
        // One alone is compared with nobody; its gradient is zero, at the price of any other.
        let time = (0..patients).map(|p| (1 + p) as f64).collect();
        let objective = Objective::new(&train, time, vec![true; patients], Vec::new());
        let (source, all, noise) = (Fixed(batch), (0..patients).collect::<Vec<_>>(), Noise { seed: 0, epoch: 0 });
        Box::new(move || {
            if pass == Pass::Forward {
                black_box(predict(&model, &params, &source, &all, None).expect("the shapes fit"));
                return;
            }
            let step = objective.step(&model, &params, &source, &all, noise).expect("the shapes fit");
            optimizer.step(1e-4, params.values_mut(), &step.grads).expect("finite gradients");
        })
    };
    let n = (patients * each) as f64;
    // Forward: the projection of patches, the nets of genes, the gated attention over both kinds of tokens. Backward
    // as much for what has data as its input, twice as much for the rest.
    let gene_tokens = (patients * tokens) as f64;
    let first = 2.0 * n * (L * width) as f64 + 2.0 * (patients * genes * hidden) as f64;
    let later = 2.0 * gene_tokens * (hidden * width) as f64 + 4.0 * (n + gene_tokens) * (width * attention) as f64;
    let (reads, flops) = match pass {
        Pass::Forward => (1.0, first + later),
        Pass::ForwardBackward => (2.0, 2.0 * first + 3.0 * later),
    };
    Case {
        op: "fusion",
        shape: format!("B {patients} N {} L {L} D {width}", patients * each),
        dtype: "F16",
        pass,
        bytes: reads * (2.0 * n * L as f64 + 4.0 * (patients * genes) as f64),
        flops,
        precision,
        setup: Box::new(setup),
    }
}
