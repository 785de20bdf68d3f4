//! Trainings with products by cuBLASLt.

use onkos::config::{Loss, RiskSet};
use onkos::data::Modality;
use onkos::device::{Gpu, Precision, Products};
use onkos::model::{FusionConfig, ModelConfig};
use onkos::{Device, Error};

use crate::gpu;
use crate::story;
use crate::study::{Study, config, thirds};
use crate::training::{assert_same_bits, on};

/// Whether the device has the library; the emulated one has it.
fn is_there(gpu: Gpu) -> bool {
    match gpu.with_products(Products::CublasLt) {
        Ok(_) => true,
        Err(why @ Error::Products { .. }) if gpu.name() != "emulated" => {
            println!("skipped: {why}");
            false
        }
        Err(why) => panic!("{why}"),
    }
}

#[test]
fn losses_with_products_of_cublaslt_are_as_near_to_those_in_f64_as_the_losses_of_the_cpu_are() {
    let Some((gpu, _one)) = gpu() else { return };
    if !is_there(gpu) {
        return;
    }
    let study = Study::new(18);
    let (cohort, split) = (study.north(), thirds(18));
    for (loss, risk_set) in [(Loss::Cox, RiskSet::Batch), (Loss::Cox, RiskSet::Cohort), (Loss::Nll, RiskSet::Batch)] {
        let mut config = config(2);
        (config.train.loss, config.train.risk_set, config.train.bins) = (loss, risk_set, 3);
        config.train.products = Products::CublasLt;
        let there = on(Device::Cuda(gpu), &config, &cohort, &split).unwrap();
        story::assert_same_story(&format!("{loss:?} {risk_set:?}"), &there.history, &config, &cohort, &split);
        assert_same_bits(&on(Device::Cuda(gpu), &config, &cohort, &split).unwrap(), &there);
        // It was the library that multiplied, and it alone was asked to.
        let Device::Cuda(of_model) = there.predictor.params.device() else { panic!("the model lies on the device") };
        assert_eq!(of_model.products(), Products::CublasLt);
        assert_eq!(gpu.with_products(Products::Own).unwrap().products(), Products::Own);
    }
}

#[test]
fn a_step_in_every_precision_is_that_of_our_own_products() {
    let Some((gpu, _one)) = gpu() else { return };
    if !is_there(gpu) {
        return;
    }
    let study = Study::new(12);
    let (cohort, split) = (study.north(), thirds(12));
    for precision in [Precision::Tf32, Precision::Bf16, Precision::F16] {
        let first = |products| {
            let mut config = config(1);
            // Odd widths and a hidden layer in the head.
            config.model = ModelConfig::Fusion(FusionConfig { width: 9, head_hidden: 5, ..FusionConfig::default() });
            config.inputs.modalities = vec![Modality::Genes, Modality::Patches];
            (config.train.precision, config.train.products) = (precision, products);
            let trained = on(Device::Cuda(gpu), &config, &cohort, &split).unwrap();
            assert_eq!(trained.history[0].steps, 1, "nothing was amplified by another step yet");
            [trained.history[0].loss, trained.history[0].gradient_norm]
        };
        // Both round the same factors, and differ in the order of sums: by far less than a factor is rounded.
        let unit = if precision == Precision::Bf16 { 2f64.powi(-8) } else { 2f64.powi(-11) };
        for (own, library) in first(Products::Own).into_iter().zip(first(Products::CublasLt)) {
            assert!(own.is_finite() && (own - library).abs() <= unit * own.abs(), "{precision:?}: {own} and {library}");
        }
    }
}

#[test]
fn the_cpu_has_products_of_its_own_alone() {
    let study = Study::new(12);
    let mut config = config(1);
    config.train.products = Products::CublasLt;
    let error = on(Device::Cpu, &config, &study.north(), &thirds(12)).unwrap_err();
    assert!(matches!(error, Error::Setting { name: "train.products", .. }), "{error}");
    assert_eq!(Device::Cpu.with_products(Products::CublasLt).unwrap(), Device::Cpu);
}
