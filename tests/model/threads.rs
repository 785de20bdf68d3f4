//! The same bits on one thread and on two.

use onkos::config::Loss;
use onkos::model::{ModelConfig, TransMilConfig};
use onkos::train::Step;

use crate::fixture::*;
use crate::harness::assert_same_on_any_number_of_threads;
use crate::study::{self, Study};

fn bits(step: &Step<f32>) -> Vec<u32> {
    let grads = step.grads.iter().flatten().flat_map(|g| g.host().to_vec());
    grads.chain([step.loss as f32]).map(f32::to_bits).collect()
}

#[test]
fn gradients_of_a_step_do_not_depend_on_the_number_of_threads() {
    // Bags and sums long enough to be cut: thousands of patches, hundreds of gene tokens.
    let has = [(true, 3000), (false, 700), (true, 0), (true, 1), (true, 900), (true, 40)];
    let source = Memory::sized(has, &[5; 150], 48);
    let mut config = everything();
    (config.width, config.attention_width, config.gene_hidden) = (24, 16, 6);
    let transmil = TransMilConfig { width: 24, heads: 2, landmarks: 40, ..transmil() };
    for config in [ModelConfig::from(config), transmil.into()] {
        let (model, params) = source.build::<f32>(&config, 1);
        let objective = source.objective(Loss::Cox);
        assert_same_on_any_number_of_threads(|| {
            // A source of its own, for it remembers what it was asked.
            let source = Memory::sized(has, &[5; 150], 48);
            let one = objective.step(&model, &params, &source, &[0, 1, 2, 3, 4, 5], NOISE).unwrap();
            let batches = [vec![0, 1], vec![2, 3, 4, 5]];
            let cohort = objective.cohort_step(&model, &params, &source, &batches, NOISE).unwrap();
            (bits(&one), bits(&cohort))
        });
    }
}

#[test]
fn a_training_leaves_the_same_file_on_any_number_of_threads() {
    let study = Study::new(30);
    let (cohort, split) = (study.north(), study::thirds(30));
    let mut config = study::config(3);
    config.model = onkos::model::ModelConfig::Fusion(everything());
    assert_same_on_any_number_of_threads(|| {
        let trained = study::train(&config, &cohort, &split).unwrap();
        let file = study.path("model");
        trained.predictor.save(&file).unwrap();
        std::fs::read(file).unwrap()
    });
}
