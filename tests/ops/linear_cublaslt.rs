//! The fully connected layer with its products by cuBLASLt, where the device under test has that library.

use half::{bf16, f16};
use onkos::device::{Gpu, Precision, Products};
use onkos::ops::{Activation, Linear};
use onkos::{Device, Error, Features, Tape, Tensor, Var};

use crate::device::{again, assert_passed};
use crate::harness::*;
use crate::linear::{PRODUCTS, Rounding, apply, assert_products, inputs, roundings, stored_is_as_widened};

/// The device under test with its products by cuBLASLt; the emulated machine has it.
fn with_cublaslt() -> Option<Gpu> {
    let Device::Cuda(gpu) = device::<f32>() else {
        println!("skipped: the CPU has products of its own");
        return None;
    };
    match gpu.with_products(Products::CublasLt) {
        Ok(gpu) => Some(gpu),
        Err(why @ Error::Products { .. }) if gpu.name() != "emulated" => {
            println!("skipped: {why}");
            None
        }
        Err(why) => panic!("{why}"),
    }
}

/// Values and gradients of a layer, each from and to a cotangent of its own shape.
fn run(on: Device, f: Activation, given: &[Tensor<f32>], [n, o]: [usize; 2]) -> (Vec<Tensor<f32>>, Vec<Tensor<f32>>) {
    gradients_on(on, apply::<f32>(f), given, &[normal("cotangent", &[n, o])])
}

#[test]
fn products_in_every_precision_are_as_good_as_plain_arithmetic_on_rounded_factors() {
    let Some(gpu) = with_cublaslt() else { return };
    let plain: (Precision, Rounding<f32>) = (Precision::F32, |x| x);
    for (precision, round) in roundings().into_iter().chain([plain]) {
        let on = Device::Cuda(gpu.with_precision(precision));
        for (at, shape) in PRODUCTS.into_iter().enumerate() {
            // The activations differ in what they keep; with factors of few bits the slope of some is all rounding.
            let f = if precision == Precision::F32 { Activation::ALL[at % 6] } else { Activation::Identity };
            assert_products(&format!("{precision:?}"), f, on, round, shape);
        }
        assert_products(&format!("{precision:?}"), Activation::Gelu, on, round, (70, 48, 72));
        assert_products(&format!("{precision:?}"), Activation::Gelu, on, round, (70, 47, 71));
    }
}

#[test]
fn a_layer_without_a_bias_and_one_with_no_inputs_are_what_they_say() {
    let Some(gpu) = with_cublaslt() else { return };
    let on = Device::Cuda(gpu);
    let given = inputs::<f32>(5, 4, 3);
    let (y, _) = run(on, Activation::Identity, &given[..2], [5, 3]);
    let (x, w) = (given[0].host(), given[1].host());
    let want =
        (0..15).map(|at| (0..4).map(|k| f64::from(x[at / 3 * 4 + k]) * f64::from(w[at % 3 * 4 + k])).sum::<f64>());
    assert_as_good_as_plain(
        "no bias",
        y[0].host(),
        &want.clone().map(|x| x as f32).collect::<Vec<_>>(),
        &want.collect::<Vec<_>>(),
    );
    let (y, grads) = run(on, Activation::Relu, &inputs(2, 0, 3), [2, 3]);
    let bias = inputs::<f32>(2, 0, 3)[2].host().repeat(2);
    assert_eq!(y[0].host(), bias.iter().map(|b| b.max(0.0)).collect::<Vec<_>>());
    assert_eq!((grads[0].shape(), grads[1].shape()), (&[2, 0][..], &[3, 0][..]));
}

#[test]
fn stored_features_give_what_their_widened_values_give() {
    let Some(gpu) = with_cublaslt() else { return };
    for precision in [Precision::F32, Precision::Tf32, Precision::Bf16, Precision::F16] {
        for (n, i, o) in [(40, 136, 3), (9, 67, 65), (1, 1, 1)] {
            stored_is_as_widened(Device::Cuda(gpu.with_precision(precision)), n, i, o);
        }
    }
}

#[test]
fn a_batch_has_the_same_bits_in_any_run() {
    let Some(gpu) = with_cublaslt() else { return };
    let given = inputs::<f32>(400, 520, 9);
    for precision in [Precision::F32, Precision::Bf16] {
        let on = Device::Cuda(gpu.with_precision(precision));
        // Other products come between, with the same workspace and the algorithms of their own shapes.
        let first = run(on, Activation::Elu, &given, [400, 9]);
        run(on, Activation::Relu, &inputs(33, 400, 20), [33, 20]);
        assert_eq!(first, run(on, Activation::Elu, &given, [400, 9]), "{precision:?}");
    }
}

#[test]
fn an_infinity_and_a_nan_stay_in_their_rows() {
    let Some(gpu) = with_cublaslt() else { return };
    let mut given = inputs::<f32>(3, 140, 2);
    (given[0].host_mut()[140], given[0].host_mut()[280]) = (f32::NAN, f32::INFINITY);
    let (y, _) = run(Device::Cuda(gpu), Activation::Identity, &given, [3, 2]);
    let y = y[0].host();
    assert!(y[..2].iter().all(|y| y.is_finite()) && y[2..4].iter().all(|y| y.is_nan()), "{y:?}");
    assert!(y[4..].iter().all(|y| y.is_infinite()), "{y:?}");
}

#[test]
fn a_tensor_that_another_shares_is_not_written_to() {
    let Some(gpu) = with_cublaslt() else { return };
    let tape = Tape::<f32>::inference(Device::Cuda(gpu));
    let var = |x: &Tensor<f32>| Var::constant(x.to(Device::Cuda(gpu)).unwrap());
    let given = inputs::<f32>(5, 8, 3);
    let [x, w, b] = [var(&given[0]), var(&given[1]), var(&given[2])];
    let op = Linear { activation: Activation::Gelu };
    let first = op.forward(&tape, &x, &w, Some(&b)).unwrap().value().read().unwrap();
    assert_eq!(op.forward(&tape, &x, &w, Some(&b)).unwrap().value().read().unwrap(), first);
    assert_eq!(x.value().read().unwrap(), given[0].host());
    // Nor are features that are taken as they are.
    let stored = Tensor::from_fn(&[5, 8], |i| bf16::from_f32(given[0].host()[i]));
    let there = Features::Bf16(stored.clone()).to(Device::Cuda(gpu)).unwrap();
    op.forward(&tape, &there, &w, Some(&b)).unwrap();
    assert_eq!(there.to(Device::Cpu).unwrap(), Features::Bf16(stored));
}

/// Whether the products of a device are still right when launches of one name fail.
fn passes_without(kernel: &str) -> bool {
    let test = ["linear_cublaslt::every_product_is_one_of_the_library", "--exact"];
    again(&test, &[("EMU_LAUNCH_FAILS", kernel)]).status.success()
}

#[test]
fn every_product_is_one_of_the_library() {
    let Some(gpu) = with_cublaslt() else { return };
    if std::env::var_os("EMU_LAUNCH_FAILS").is_some() {
        for precision in [Precision::F32, Precision::Bf16] {
            let on = Device::Cuda(gpu.with_precision(precision));
            // The card is lost with the launch that fails, so whatever is read first panics.
            run(on, Activation::Relu, &inputs(400, 200, 2), [400, 2]);
        }
        return;
    }
    if gpu.name() == "emulated" {
        assert!(!passes_without("cublasLtMatmul") && !passes_without("matmul_cublaslt_to_bf16_f32"));
        for own in ["matmul_nt_split_f32", "matmul_nn_plain", "matmul_tn_bf16_sm90_f32"] {
            assert!(passes_without(own), "{own} is launched");
        }
    }
}

#[test]
fn a_product_without_an_algorithm_is_an_error_that_says_what_to_change() {
    const NONE: (&str, &str) = ("EMU_CUBLASLT", "none");
    let Some(gpu) = with_cublaslt() else { return };
    if gpu.name() != "emulated" {
        return;
    }
    if std::env::var_os(NONE.0).is_none() {
        let test = ["linear_cublaslt::a_product_without_an_algorithm_is_an_error_that_says_what_to_change", "--exact"];
        assert_passed("without an algorithm", &again(&test, &[NONE]));
        return;
    }
    let tape = Tape::<f32>::inference(Device::Cuda(gpu.with_precision(Precision::F16)));
    let given: Vec<_> = inputs::<f32>(3, 5, 2).iter().map(|x| Var::constant(placed(x))).collect();
    let error = Linear::default().forward(&tape, &given[0], &given[1], Some(&given[2])).unwrap_err();
    let sentence = error.to_string();
    for word in
        ["cuda:0: ", "cublasLtMatmul of 3 x 2 over 5 in f16 failed", "not supported", "train.products = \"own\""]
    {
        assert!(sentence.contains(word), "no {word:?} in {sentence}");
    }
}

#[test]
fn half_features_of_large_values_are_rounded_once() {
    let Some(gpu) = with_cublaslt() else { return };
    // Above what f16 holds: an infinity in f16, kept by bf16.
    let x = Tensor::full(&[2, 8], 1e5f32);
    let of = |precision| {
        let on = Device::Cuda(gpu.with_precision(precision));
        run(on, Activation::Identity, &[x.clone(), Tensor::full(&[1, 8], 1f32)], [2, 1]).0[0].host()[0]
    };
    assert_eq!(of(Precision::F16), f32::INFINITY);
    assert_eq!(of(Precision::Bf16), 8.0 * bf16::from_f32(1e5).to_f32());
    assert_eq!(of(Precision::F32), 8e5);
    assert_eq!(f16::from_f32(1e5), f16::INFINITY);
}
