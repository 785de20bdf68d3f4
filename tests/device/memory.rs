//! What a batch takes of the device's memory is foretold: never less than it does, and not much more.

use half::f16;
use onkos::Device;
use onkos::config::{Loss, TrainConfig};
use onkos::data::Cohort;
use onkos::model::predict;
use onkos::model::{BatchSize, CohortSource, Footprint, FusionConfig, Model, ModelConfig, Recipe};
use onkos::nn::{Builder, Noise};
use onkos::train::Objective;
use safetensors::Dtype;
use safetensors::tensor::{TensorView, serialize};

use crate::gpu;
use crate::study::{Study, config};

/// How much more than is taken may be foretold.
const FACTOR: u64 = 2;

/// A cohort with bags of `rows` patches of `width` features.
fn cohort(study: &Study, patients: usize, rows: usize, width: usize) -> Cohort {
    let count = patients * rows * width;
    let bytes: Vec<u8> = (0..count).flat_map(|i| f16::from_f32((i * 31 % 97) as f32 / 97.0).to_le_bytes()).collect();
    let offsets: Vec<u8> = (0..=patients).flat_map(|p| ((p * rows) as i64).to_le_bytes()).collect();
    let tensors = [
        ("features", TensorView::new(Dtype::F16, vec![patients * rows, width], &bytes).unwrap()),
        ("offsets", TensorView::new(Dtype::I64, vec![patients + 1], &offsets).unwrap()),
    ];
    std::fs::write(study.folder.path().join("north/bags.safetensors"), serialize(tensors, None).unwrap()).unwrap();
    study.north()
}

#[test]
fn a_batch_takes_at_most_what_is_foretold_and_at_least_half() {
    let Some((gpu, _one)) = gpu() else { return };
    let patients = 6;
    let mut wrong = Vec::new();
    let everybody: Vec<usize> = (0..patients).collect();
    // Many patches of few features, few of many, a wide model, and patients with little but genes.
    for (rows, width, d, a, heads) in
        [(300, 16, 32, 32, 1), (100, 512, 16, 16, 1), (100, 64, 64, 32, 2), (1, 8, 32, 32, 1)]
    {
        let study = Study::new(patients);
        let cohort = cohort(&study, patients, rows, width);
        let mut config = config(1);
        let defaults = FusionConfig::default();
        config.model =
            ModelConfig::Fusion(FusionConfig { width: d, attention_width: a, heads, patch_dropout: 0.1, ..defaults });
        let recipe = Recipe::fit(&config, &cohort, &everybody).unwrap();
        let device = Device::Cuda(gpu);
        let source = CohortSource::new(&recipe, &cohort).unwrap().on(device, u64::MAX).unwrap();
        let builder = Builder::<f32>::new(1);
        let (model, params) = Model::build(&recipe.model, &recipe.shape(), 1, builder).unwrap();
        let params = params.to(device).unwrap();
        let train = TrainConfig { loss: Loss::Cox, ..TrainConfig::default() };
        let objective = Objective::new(&train, cohort.times(), vec![true; patients], Vec::new());
        let footprint = Footprint::new(&recipe, size_of::<f16>());
        let size = BatchSize { patients, patches: patients * rows };
        for training in [true, false] {
            gpu.synchronize().unwrap();
            gpu.forget_peak();
            let before = gpu.usage().bytes;
            if training {
                drop(objective.step(&model, &params, &source, &everybody, Noise { seed: 1, epoch: 0 }).unwrap());
            } else {
                drop(predict(&model, &params, &source, &everybody, None).unwrap());
            }
            // Gradients of parameters are there in any case.
            let taken = gpu.usage().peak_bytes - before;
            let foretold = footprint.bytes(size, training) + if training { 8 * params.count() as u64 } else { 0 };
            let what = format!("{rows} x {width}, D {d} A {a} H {heads}, training {training}: {taken} of {foretold}");
            if !(taken <= foretold && foretold <= FACTOR * taken) {
                wrong.push(what);
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
