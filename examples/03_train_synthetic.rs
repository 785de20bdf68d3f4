//! A training from the library: a synthetic study, a split, a model, and its figures on a cohort that it never saw.
//!
//! `cargo run --release --example 03_train_synthetic`

use onkos::Device;
use onkos::config::RunConfig;
use onkos::data::{Cohort, Split, SyntheticStudy};
use onkos::metrics::{Outcome, harrell};
use onkos::model::{Batching, Recipe};
use onkos::train::{Progress, train};

fn main() -> onkos::Result<()> {
    let folder = tempfile::tempdir().map_err(onkos::Error::io("a temporary folder"))?;
    let [north, south] = SyntheticStudy::default().write(folder.path())?;
    let (north, south) = (Cohort::open(north)?, Cohort::open(south)?);

    let config = RunConfig::default();
    let split = Split::random(&north.patients, config.train.validation, config.seed)?;
    let recipe = Recipe::fit(&config, &north, &split.train)?;
    let trained = train(&config, Device::Cpu, &north, &split, recipe, |progress| {
        if let Progress::Epoch(record) = progress
            && record.epoch % 10 == 0
        {
            println!("epoch {}: training loss {:.3}", record.epoch, record.loss);
        }
    })?;

    let batching = Batching { patients: 64, patches: 100_000 };
    let predictions = trained.predictor.predict(&south, batching)?;
    let (time, event) = (south.times(), south.events());
    let pairs = harrell(Outcome::new(&time, &event)?, &predictions.risk)?;
    println!("concordance on the unseen cohort: {:.3} over {} pairs", pairs.index()?, pairs.comparable());
    Ok(())
}
