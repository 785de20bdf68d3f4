//! The fully connected layer.

use half::{bf16, f16};
use onkos::device::{Gpu, Precision, Products};
use onkos::ops::{Activation, Linear};
use onkos::{Device, Error, Features, Real, Tape, Tensor, Var};

use crate::device::{again, assert_passed};
use crate::harness::*;

/// A device of lower precision rounds the factors of its products.
pub(crate) type Rounding<T> = fn(T) -> T;

/// Value and gradients by the formulas, with sums in the type itself and factors of products rounded by `round`.
fn naive_gradients<T: Real>(
    f: Activation,
    round: Rounding<T>,
    given: &[Tensor<T>],
    grad: &Tensor<T>,
) -> [Tensor<T>; 4] {
    let ((n, i), o) = (given[0].matrix(), given[2].len());
    let rounded = |x: &[T]| x.iter().map(|x| round(*x)).collect::<Vec<T>>();
    let (x, w, b) = (rounded(given[0].host()), rounded(given[1].host()), given[2].host());
    let argument: Vec<T> =
        (0..n * o).map(|at| (0..i).map(|k| x[at / o * i + k] * w[at % o * i + k]).sum::<T>() + b[at % o]).collect();
    let kept = |a: T| if f.keeps_argument() { a } else { f.value(a) };
    let g: Vec<T> = argument.iter().zip(grad.host()).map(|(a, grad)| *grad * f.slope(kept(*a))).collect();
    let h = rounded(&g);
    [
        Tensor::from_fn(&[n, o], |at| f.value(argument[at])),
        Tensor::from_fn(&[n, i], |at| (0..o).map(|k| h[at / i * o + k] * w[k * i + at % i]).sum()),
        Tensor::from_fn(&[o, i], |at| (0..n).map(|k| h[k * o + at / i] * x[k * i + at % i]).sum()),
        Tensor::from_fn(&[o], |at| (0..n).map(|k| g[k * o + at]).sum()),
    ]
}

/// Value and gradients are at most twice as far off as plain arithmetic with factors rounded like this.
#[track_caller]
pub(crate) fn assert_products(
    what: &str,
    f: Activation,
    on: Device,
    round: Rounding<f32>,
    (n, i, o): (usize, usize, usize),
) {
    let (given, cot) = (inputs::<f32>(n, i, o), normal::<f32>("cotangent", &[n, o]));
    let plain = naive_gradients(f, round, &given, &cot);
    let double: Vec<Tensor<f64>> = given.iter().map(cast).collect();
    let oracle = naive_gradients(f, |x| x, &double, &cast(&cot));
    let (y, grads) = gradients_on(on, apply(f), &given, &[cot]);
    for (part, got) in y.iter().chain(&grads).enumerate() {
        let what = format!("{what} {f:?} {n}x{i}x{o}: {}", ["y", "dx", "dw", "db"][part]);
        assert_as_good_as_plain(&what, got.host(), plain[part].host(), oracle[part].host());
    }
}

/// The formula, with sums in the type itself: the oracle in f64, plain arithmetic in f32.
fn naive<T: Real>(f: Activation, x: &Tensor<T>, w: &Tensor<T>, b: &Tensor<T>) -> Tensor<T> {
    let ((n, i), o) = (x.matrix(), b.len());
    let (x, w, b) = (x.host(), w.host(), b.host());
    Tensor::from_fn(&[n, o], |at| {
        let (row, out) = (at / o, at % o);
        f.value((0..i).map(|k| x[row * i + k] * w[out * i + k]).sum::<T>() + b[out])
    })
}

pub(crate) fn inputs<T: Real>(n: usize, i: usize, o: usize) -> Vec<Tensor<T>> {
    vec![normal("x", &[n, i]), normal("weight", &[o, i]), normal("bias", &[o])]
}

pub(crate) fn apply<T: Real>(f: Activation) -> impl Fn(&Tape<T>, &[Var<T>]) -> onkos::Result<Vec<Var<T>>> {
    move |tape, v| Ok(vec![Linear { activation: f }.forward(tape, &v[0], &v[1], v.get(2))?])
}

const SHAPES: [(usize, usize, usize); 7] =
    [(0, 3, 2), (1, 1, 1), (31, 5, 3), (33, 17, 9), (127, 64, 32), (257, 33, 1), (1025, 130, 7)];

#[test]
fn values_are_as_good_as_plain_arithmetic() {
    for f in Activation::ALL {
        for (n, i, o) in SHAPES {
            let single = inputs::<f32>(n, i, o);
            let double: Vec<Tensor<f64>> = single.iter().map(cast).collect();
            let oracle = naive(f, &double[0], &double[1], &double[2]);
            let plain = naive(f, &single[0], &single[1], &single[2]);
            let what = format!("{f:?} {n}x{i}x{o}");
            assert_as_good_as_plain(&what, values(apply(f), &single)[0].host(), plain.host(), oracle.host());
            let exact: Vec<f64> = oracle.host().to_vec();
            assert_golden(&what, values(apply(f), &double)[0].host(), &exact, 1e-13);
        }
    }
}

/// Sums of a few terms and of many, tails of every tile and chunk, widths that no 16 bytes divide.
pub(crate) const PRODUCTS: [(usize, usize, usize); 14] = [
    (0, 3, 2),
    (0, 128, 3),
    (1, 1, 1),
    (1, 1025, 5),
    (31, 128, 1),
    (32, 132, 128),
    (33, 127, 129),
    (127, 33, 65),
    (129, 70, 257),
    (129, 256, 31),
    (129, 257, 70),
    (257, 131, 150),
    (300, 40, 160),
    (1025, 136, 7),
];

#[test]
fn gradients_are_as_good_as_plain_arithmetic() {
    for (at, shape) in PRODUCTS.into_iter().enumerate() {
        let f = Activation::ALL[at % Activation::ALL.len()];
        assert_products("f32", f, device::<f32>(), |x| x, shape);
    }
}

/// How each precision below f32 rounds its factors.
pub(crate) fn roundings() -> [(Precision, Rounding<f32>); 3] {
    [
        // To the nearest with ten bits behind the point, ties away from zero.
        (Precision::Tf32, |x| f32::from_bits((x.to_bits() + 0x1000) & !0x1fff)),
        (Precision::Bf16, |x| bf16::from_f32(x).to_f32()),
        (Precision::F16, |x| f16::from_f32(x).to_f32()),
    ]
}

#[test]
fn other_precisions_are_as_good_as_plain_arithmetic_on_rounded_factors() {
    let Device::Cuda(gpu) = device::<f32>() else {
        println!("skipped: the CPU calculates in f32 alone");
        return;
    };
    for (precision, round) in roundings() {
        let on = Device::Cuda(gpu.with_precision(precision));
        for shape in PRODUCTS {
            assert_products(&format!("{precision:?}"), Activation::Identity, on, round, shape);
        }
        assert_products(&format!("{precision:?}"), Activation::Gelu, on, round, (70, 48, 72));
        // Many tiles, of which a block calculates several.
        assert_products(&format!("{precision:?}"), Activation::Elu, on, round, (700, 24, 3));
    }
}

/// The device if it is the emulated one, which can be another card, and can let a kernel fail.
fn emulated_card(capability: (u32, u32)) -> Option<Gpu> {
    match device::<f32>() {
        Device::Cuda(gpu) if gpu.name() == "emulated" && gpu.capability() == capability => Some(gpu),
        _ => {
            println!("skipped: for an emulated card of capability {capability:?} alone");
            None
        }
    }
}

/// On a Hopper these products are calculated by kernels that other cards do not have.
#[test]
fn other_precisions_are_as_good_on_cards_without_the_kernels_of_hopper() {
    if emulated_card((9, 0)).is_some() {
        for test in ["other_precisions_are_as_good_as", "a_row_has_the_same_bits", "stored_features_are_rounded"] {
            assert_passed(test, &again(&[&format!("linear::{test}")], &[("EMU_CAPABILITY", "80")]));
        }
    }
}

#[test]
fn on_hopper_factors_of_16_bits_are_multiplied_by_its_own_kernels() {
    const FAILS: &str = "EMU_LAUNCH_FAILS";
    if std::env::var_os(FAILS).is_some() {
        let Device::Cuda(gpu) = device::<f32>() else { panic!("there was a device") };
        for precision in [Precision::Bf16, Precision::F16] {
            for n in [3, 400] {
                let cot = normal::<f32>("cotangent", &[n, 2]);
                // The card is lost with the kernel that fails, so whatever is read first panics.
                gradients_on(
                    Device::Cuda(gpu.with_precision(precision)),
                    apply(Activation::Relu),
                    &inputs(n, 5, 2),
                    &[cot],
                );
            }
        }
        return;
    }
    if emulated_card((9, 0)).is_none_or(|gpu| gpu.products() != Products::Own) {
        return;
    }
    let passes = |capability: &str, kernel: &str| {
        let test = ["linear::on_hopper_factors_of_16_bits_are_multiplied_by_its_own_kernels", "--exact"];
        again(&test, &[("EMU_CAPABILITY", capability), (FAILS, kernel)]).status.success()
    };
    for mode in ["bf16", "f16"] {
        for layout in
            ["nt_*_sm90_f32", "nt_*_sm90_small_f32", "nn_*_sm90", "nn_*_sm90_small", "pack_*_sm90", "tn_*_sm90_f32"]
        {
            let kernel = format!("matmul_{}", layout.replace('*', mode));
            assert!(!passes("90", &kernel), "{kernel} is not launched");
        }
        let elsewhere = format!("matmul_tn_{mode}_f32");
        assert!(passes("90", &elsewhere) && !passes("80", &elsewhere), "{elsewhere}");
    }
    assert!(passes("80", "matmul_nt_bf16_sm90_f32"));
}

#[test]
fn sums_over_very_many_rows_are_as_good_as_plain_arithmetic() {
    // Several chunks of the sum over rows.
    assert_products("f32", Activation::Tanh, device::<f32>(), |x| x, (3100, 9, 4));
}

#[test]
fn a_row_has_the_same_bits_in_any_batch_and_any_run() {
    let Device::Cuda(gpu) = device::<f32>() else {
        println!("skipped: the CPU does not promise it");
        return;
    };
    for precision in [Precision::F32, Precision::Tf32, Precision::Bf16, Precision::F16] {
        for i in [24, 200] {
            let given = inputs::<f32>(260, i, 130);
            let run = |rows: usize| {
                let mut given = given.clone();
                given[0] = Tensor::new(&[rows, i], given[0].host()[..rows * i].to_vec()).unwrap();
                let cot: Tensor<f32> = normal("cotangent", &[rows, 130]);
                gradients_on(Device::Cuda(gpu.with_precision(precision)), apply(Activation::Elu), &given, &[cot])
            };
            let (y, grads) = run(260);
            let again = run(260);
            assert_eq!((&y, &grads), (&again.0, &again.1), "{precision:?} {i}: another run");
            if gpu.products() != Products::Own {
                continue; // the library does not promise the rest
            }
            for rows in [1, 33] {
                let (part, part_grads) = run(rows);
                assert_eq!(part[0].host(), &y[0].host()[..rows * 130], "{precision:?} {i}: y of {rows} rows");
                assert_eq!(part_grads[0].host(), &grads[0].host()[..rows * i], "{precision:?} {i}: dx of {rows} rows");
            }
        }
    }
}

#[test]
fn gradient_matches_finite_differences() {
    for f in Activation::ALL {
        assert_gradients_match_finite_differences(&format!("{f:?}"), apply(f), &inputs(5, 4, 3));
    }
    assert_gradients_match_finite_differences("no bias", apply(Activation::Tanh), &inputs(3, 4, 2)[..2]);
}

#[test]
fn gelu_slope_is_the_exact_one() {
    // At x = 1: Phi(1) + phi(1), the case in which another library's gradient lacks a factor.
    let (phi, density) = (0.841_344_746_068_542_9, 0.241_970_724_519_143_37);
    assert!((Activation::Gelu.slope(1f64) - (phi + density)).abs() < 1e-12);
}

#[test]
fn nan_in_one_row_stays_in_its_row() {
    for (f, i) in Activation::ALL.into_iter().flat_map(|f| [(f, 2), (f, 140)]) {
        let mut given = inputs::<f32>(3, i, 2);
        given[0].host_mut()[i] = f32::NAN;
        let y = &values(apply(f), &given)[0];
        assert!(y.host()[..2].iter().chain(&y.host()[4..]).all(|y| y.is_finite()), "{f:?}");
        assert!(y.host()[2..4].iter().all(|y| y.is_nan()), "{f:?}");
    }
}

#[test]
fn stored_features_give_what_their_widened_values_give() {
    for (n, i, o) in [(600, 20, 6), (150, 136, 9), (90, 133, 3)] {
        stored_is_as_widened(device::<f32>(), n, i, o);
    }
}

#[test]
fn stored_features_are_rounded_to_other_precisions_as_their_widened_values_are() {
    let Device::Cuda(gpu) = device::<f32>() else {
        println!("skipped: the CPU calculates in f32 alone");
        return;
    };
    for precision in [Precision::Bf16, Precision::F16] {
        for (n, i, o) in [(400, 136, 3), (90, 67, 65)] {
            stored_is_as_widened(Device::Cuda(gpu.with_precision(precision)), n, i, o);
        }
    }
}

pub(crate) fn stored_is_as_widened(on: Device, n: usize, i: usize, o: usize) {
    let x: Tensor<f32> = normal("x", &[n, i]);
    let halves = Tensor::from_fn(&[n, i], |k| f16::from_f32(x.host()[k]));
    let brains = Tensor::from_fn(&[n, i], |k| bf16::from_f32(x.host()[k]));
    let wide_half = Tensor::from_fn(&[n, i], |k| halves.host()[k].to_f32());
    let wide_brain = Tensor::from_fn(&[n, i], |k| brains.host()[k].to_f32());
    for (stored, wide) in
        [(Features::F16(halves), wide_half), (Features::Bf16(brains), wide_brain), (Features::F32(x.clone()), x)]
    {
        let (stored, wide) = (stored.to(on).unwrap(), wide.to(on).unwrap());
        let rest = inputs::<f32>(n, i, o)[1..].to_vec();
        let op = Linear { activation: Activation::Elu };
        let from_stored = |tape: &Tape<f32>, v: &[Var<f32>]| Ok(vec![op.forward(tape, &stored, &v[0], Some(&v[1]))?]);
        let from_wide = |tape: &Tape<f32>, v: &[Var<f32>]| {
            Ok(vec![op.forward(tape, &Var::constant(wide.clone()), &v[0], Some(&v[1]))?])
        };
        let cot: [Tensor<f32>; 1] = [normal("cotangent", &[n, o])];
        assert_eq!(gradients_on(on, from_stored, &rest, &cot), gradients_on(on, from_wide, &rest, &cot));
    }
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let given = inputs::<f32>(5000, 40, 24);
    let cot = [normal("cotangent", &[5000, 24])];
    assert_same_on_any_number_of_threads(|| gradients(apply(Activation::Gelu), &given, &cot));
}

#[test]
fn shapes_that_do_not_fit_are_named() {
    let tape = Tape::<f32>::inference(Device::Cpu);
    let var = |shape: &[usize]| Var::constant(Tensor::zeros(shape));
    let op = Linear::default();
    let error = op.forward(&tape, &var(&[2, 3]), &var(&[4, 5]), None).unwrap_err();
    assert_eq!(error.to_string(), "linear: weight must have shape [4, 3], but has [4, 5]");
    let error = op.forward(&tape, &var(&[2, 3]), &var(&[4, 3]), Some(&var(&[3]))).unwrap_err();
    assert!(matches!(error, Error::Shape { arg: "bias", .. }));
}
