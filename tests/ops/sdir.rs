//! The rebalancer: mask, rescue, scaling and gain.

use std::slice::from_ref;

use onkos::ops::BagDraws;
use onkos::ops::sdir::{Gain, Rescue, Scale, Sdir};
use onkos::rng::Draws;
use onkos::{Device, Error, Ragged, Real, Result, Tape, Tensor, Var};

use crate::harness::*;

const GAUSSIAN: Gain = Gain::Gaussian { gamma: 1.0, k: 1.0 };
const FERMI: Gain = Gain::FermiDirac { gamma: 0.7, k: 1.1, temperature: 0.1 };

fn draws(patients: &[u32]) -> BagDraws {
    BagDraws::new(Draws::new(3, 1, "sdir.test"), patients)
}

/// The formulas of value and gradient, with every sum in the type itself.
fn naive<T: Real>(
    op: Sdir,
    x: &Tensor<T>,
    bags: &Ragged,
    draws: &BagDraws,
    scale: &Tensor<T>,
    grad: &Tensor<T>,
) -> [Tensor<T>; 2] {
    let columns = x.matrix().1;
    let d = T::of(columns as f64);
    let [mut y, mut dx] = [Tensor::zeros(x.shape()), Tensor::zeros(x.shape())];
    for (bag, rows) in bags.iter().enumerate() {
        let (stream, n) = (draws.of(bag), rows.len() as u64);
        let mut keep: Vec<bool> = (0..n).map(|i| stream.uniform(i) >= op.p).collect();
        if n > 0 && op.rescue == Rescue::Uniform && !keep.contains(&true) {
            keep[stream.below(n, n as u32) as usize] = true;
        }
        for (row, _) in rows.zip(keep).filter(|(_, keep)| *keep) {
            let at = row * columns..(row + 1) * columns;
            let (x, r) = (&x.host()[at.clone()], &grad.host()[at.clone()]);
            let e = (x.iter().map(|x| *x * *x).sum::<T>() / d + T::of(1e-12)).sqrt();
            let scale = scale.host()[bag];
            // g(e) and g'(e).
            let (gain, slope) = match op.gain {
                Gain::None => (T::one(), T::zero()),
                Gain::Gaussian { gamma, k } => {
                    let w = T::of(k) * scale;
                    let bump = T::of(gamma) * (-e * e / (T::of(2.0) * w * w)).exp();
                    (T::one() + bump, -bump * e / (w * w))
                }
                Gain::FermiDirac { gamma, k, temperature } => {
                    let c = T::of(k) * scale;
                    let t = T::of(temperature) * c;
                    let n = T::one() / (T::one() + ((e - c) / t).exp());
                    (T::one() + T::of(gamma) * n, -T::of(gamma) / t * n * (T::one() - n))
                }
            };
            let factor = if op.scale == Scale::Inverse { T::of(1.0 / (1.0 - op.p)) } else { T::one() };
            let along = slope / (d * e) * r.iter().zip(x).map(|(r, x)| *r * *x).sum::<T>();
            for (i, (x, r)) in at.zip(x.iter().zip(r)) {
                y.host_mut()[i] = factor * gain * *x;
                dx.host_mut()[i] = factor * (gain * *r + along * *x);
            }
        }
    }
    [y, dx]
}

fn apply<T: Real>(
    op: Sdir,
    bags: Ragged,
    draws: Option<BagDraws>,
    scale: Option<Tensor<T>>,
) -> impl Fn(&Tape<T>, &[Var<T>]) -> Result<Vec<Var<T>>> + Sync {
    move |tape, v| Ok(vec![op.forward(tape, &v[0], &bags, draws.as_ref(), scale.as_ref())?])
}

fn variants() -> Vec<Sdir> {
    let mut all = Vec::new();
    for gain in [Gain::None, GAUSSIAN, FERMI] {
        for scale in [Scale::None, Scale::Inverse] {
            all.push(Sdir { p: 0.4, scale, gain, ..Sdir::default() });
        }
    }
    all
}

/// One number a bag, near the energy of normal numbers.
fn scales<T: Real>(bags: &Ragged) -> Tensor<T> {
    Tensor::from_fn(&[bags.bags()], |b| T::of(0.75 + 0.125 * b as f64))
}

#[test]
fn values_and_gradients_are_as_good_as_plain_arithmetic() {
    for op in variants() {
        for (lengths, columns) in [
            (vec![0, 1, 31, 0, 600, 5], 7),
            (vec![33, 127], 64),
            (vec![], 3),
            (vec![1025], 1),
            (vec![4, 2], 700),
            (vec![3], 1027),
        ] {
            let bags = Ragged::from_lengths(lengths);
            let patients: Vec<u32> = (0..bags.bags() as u32).collect();
            let x: Tensor<f32> = normal("x", &[bags.rows(), columns]);
            let cot: Tensor<f32> = normal("cotangent", &[bags.rows(), columns]);
            let f = apply(op, bags.clone(), Some(draws(&patients)), Some(scales(&bags)));
            let got = gradients(f, std::slice::from_ref(&x), std::slice::from_ref(&cot));
            let oracle = naive::<f64>(op, &cast(&x), &bags, &draws(&patients), &scales(&bags), &cast(&cot));
            let plain = naive(op, &x, &bags, &draws(&patients), &scales(&bags), &cot);
            let what = format!("{op:?} of {columns}");
            assert_as_good_as_plain(&what, got.0[0].host(), plain[0].host(), oracle[0].host());
            assert_as_good_as_plain(&format!("gradient {what}"), got.1[0].host(), plain[1].host(), oracle[1].host());
            let f = apply(op, bags.clone(), Some(draws(&patients)), Some(scales(&bags)));
            // Sums of up to 1027 terms in another order.
            assert_golden(&what, values(f, &[cast(&x)])[0].host(), oracle[0].host(), 1027.0 * f64::EPSILON);
        }
    }
}

#[test]
fn masks_are_the_same_on_both_devices() {
    // Beside long bags, short ones of which many need a rescue.
    let lengths = [0, 1, 2, 3, 700, 129, 128, 0, 513].into_iter().chain((0..60).map(|i| i % 5));
    let bags = Ragged::from_lengths(lengths);
    let patients: Vec<u32> = (0..bags.bags() as u32).map(|b| b.wrapping_mul(0x9E37_79B9)).collect();
    for (p, rescue) in [(0.5, Rescue::Uniform), (0.97, Rescue::Uniform), (0.97, Rescue::None), (0.0, Rescue::None)] {
        let op = Sdir { p, rescue, ..Sdir::default() };
        let draws = BagDraws::new(Draws::new(u64::MAX - 2, 7, "sdir.both"), patients.clone());
        let keep = op.keep_mask(&bags, Some(&draws)).unwrap();
        let ones = Tensor::full(&[bags.rows(), 2], 1f32);
        let (y, dx) = gradients(apply(op, bags.clone(), Some(draws), None), from_ref(&ones), from_ref(&ones));
        for (row, keep) in keep.iter().enumerate() {
            let want = [f32::from(u8::from(*keep)); 2];
            assert_eq!((&y[0].host()[2 * row..][..2], &dx[0].host()[2 * row..][..2]), (&want[..], &want[..]), "{row}");
        }
    }
}

#[test]
fn a_masked_token_is_not_read() {
    let bags = Ragged::from_lengths([40, 60]);
    for gain in [Gain::None, GAUSSIAN] {
        let op = Sdir { gain, ..Sdir::default() };
        let keep = op.keep_mask(&bags, Some(&draws(&[1, 2]))).unwrap();
        let given: Tensor<f32> = normal("x", &[100, 5]);
        let poisoned = Tensor::from_fn(&[100, 5], |i| if keep[i / 5] { given.host()[i] } else { f32::NAN });
        let run = |x: &Tensor<f32>| {
            let scale = op.strong_scale(&placed(x), &bags, Some(&draws(&[1, 2]))).unwrap();
            let f = apply(op, bags.clone(), Some(draws(&[1, 2])), Some(scale.clone()));
            (fetched(&scale), gradients(f, std::slice::from_ref(x), std::slice::from_ref(x)))
        };
        assert_eq!(run(&given).0, run(&poisoned).0);
        assert_eq!(run(&given).1.0, run(&poisoned).1.0);
        assert!(run(&poisoned).1.1[0].host().iter().all(|dx| dx.is_finite()));
    }
}

#[test]
fn gradient_matches_finite_differences() {
    for op in variants() {
        let bags = Ragged::from_lengths([3, 0, 4]);
        let f = apply(op, bags.clone(), Some(draws(&[4, 5, 6])), Some(scales(&bags)));
        assert_gradients_match_finite_differences(&format!("{op:?}"), f, &[normal("x", &[7, 5])]);
        let f = apply(op, bags.clone(), None, Some(scales(&bags)));
        assert_gradients_match_finite_differences(&format!("evaluation {op:?}"), f, &[normal("x", &[7, 5])]);
    }
}

#[test]
fn evaluation_masks_nothing_and_gains_as_the_flag_says() {
    let bags = Ragged::from_lengths([3, 4]);
    let x: Tensor<f64> = normal("x", &[7, 5]);
    let run = |op| values(apply(op, bags.clone(), None, Some(scales(&bags))), std::slice::from_ref(&x)).remove(0);
    assert_eq!(run(Sdir { scale: Scale::Inverse, ..Sdir::default() }), x);
    assert_eq!(run(Sdir { gain: GAUSSIAN, gain_in_eval: false, ..Sdir::default() }), x);
    let gained = run(Sdir { gain: GAUSSIAN, ..Sdir::default() });
    assert!(gained.host().iter().zip(x.host()).all(|(y, x)| y.abs() > x.abs()));
}

#[test]
fn the_mask_keeps_its_rate() {
    let bags = Ragged::from_lengths([100_000, 50_000]);
    for p in [0.0, 0.1, 0.5, 0.9] {
        let op = Sdir { p, ..Sdir::default() };
        let keep = op.keep_mask(&bags, Some(&draws(&[1, 2]))).unwrap();
        for rows in bags.iter() {
            let n = rows.len() as f64;
            let rate = keep[rows].iter().filter(|k| **k).count() as f64 / n;
            // Six standard errors of a proportion.
            assert!((rate - (1.0 - p)).abs() <= 6.0 * (p * (1.0 - p) / n).sqrt(), "p {p}: kept {rate}");
        }
    }
}

#[test]
fn the_rescued_token_is_uniform() {
    // Three tokens at p near 1 are all masked in almost every bag.
    let (bags, n) = (Ragged::uniform(30_000, 3), 30_000f64);
    let patients: Vec<u32> = (0..30_000).collect();
    let op = Sdir { p: 0.999_999, ..Sdir::default() };
    let keep = op.keep_mask(&bags, Some(&draws(&patients))).unwrap();
    assert!(bags.iter().all(|rows| keep[rows].contains(&true)));
    for token in 0..3 {
        let share = (0..30_000).filter(|b| keep[3 * b + token]).count() as f64 / n;
        // Six standard errors, and a chance of 1e-6 for each of the three to be kept without a rescue.
        assert!((share - 1.0 / 3.0).abs() < 6.0 * (2.0 / 9.0 / n).sqrt() + 3e-6, "token {token}: {share}");
    }
    let none = Sdir { rescue: Rescue::None, ..op }.keep_mask(&bags, Some(&draws(&patients))).unwrap();
    assert!(bags.iter().filter(|rows| none[rows.clone()].contains(&true)).count() < 10);
}

#[test]
fn a_batch_gives_what_its_bags_give_one_by_one() {
    let bags = Ragged::from_lengths([3, 0, 700, 17]);
    let x: Tensor<f32> = normal("x", &[720, 9]);
    let op = Sdir { gain: GAUSSIAN, ..Sdir::default() };
    let scale = op.strong_scale(&placed(&x), &bags, Some(&draws(&[5, 6, 7, 8]))).unwrap();
    let f = apply(op, bags.clone(), Some(draws(&[5, 6, 7, 8])), Some(scale.clone()));
    let together = &values(f, std::slice::from_ref(&x))[0];
    for b in 0..4 {
        let rows = bags.bag(b);
        let (one, own) = (Ragged::uniform(1, rows.len()), draws(&[5 + b as u32]));
        let cut = rows.start * 9..rows.end * 9;
        let alone = Tensor::new(&[rows.len(), 9], x.host()[cut.clone()].to_vec()).unwrap();
        let own_scale = op.strong_scale(&placed(&alone), &one, Some(&own)).unwrap();
        assert_eq!(fetched(&own_scale).host()[0], fetched(&scale).host()[b]);
        let alone = &values(apply(op, one, Some(own), Some(own_scale)), &[alone])[0];
        assert_eq!(alone.host(), &together.host()[cut]);
    }
}

#[test]
fn strong_scale_is_the_root_mean_square_of_what_is_kept() {
    let bags = Ragged::from_lengths([600, 0, 5]);
    let x: Tensor<f64> = normal("x", &[605, 4]);
    let op = Sdir::default();
    let keep = op.keep_mask(&bags, Some(&draws(&[1, 2, 3]))).unwrap();
    let got = op.strong_scale(&x, &bags, Some(&draws(&[1, 2, 3]))).unwrap();
    let want: Vec<f64> = bags
        .iter()
        .map(|rows| {
            let kept: Vec<usize> = rows.filter(|&row| keep[row]).collect();
            let squares = kept.iter().flat_map(|row| &x.host()[row * 4..row * 4 + 4]).map(|x| x * x).sum::<f64>();
            if kept.is_empty() { 0.0 } else { (squares / (4 * kept.len()) as f64 + 1e-12).sqrt() }
        })
        .collect();
    // 2400 terms, added in two orders.
    assert_golden("scale", got.host(), &want, 2400.0 * f64::EPSILON);
    let single: Tensor<f32> = cast(&x);
    let got = op.strong_scale(&placed(&single), &bags, Some(&draws(&[1, 2, 3]))).unwrap();
    let plain: Vec<f32> = bags
        .iter()
        .map(|rows| {
            let kept: Vec<usize> = rows.filter(|&row| keep[row]).collect();
            let energy = |row: &usize| single.host()[row * 4..row * 4 + 4].iter().map(|x| x * x).sum::<f32>() / 4.0;
            let sum = kept.iter().map(|row| energy(row) + 1e-12).sum::<f32>();
            if kept.is_empty() { 0.0 } else { (sum / kept.len() as f32).sqrt() }
        })
        .collect();
    assert_as_good_as_plain("scale in f32", fetched(&got).host(), &plain, &want);
}

#[test]
fn a_gaussian_gain_keeps_the_order_of_amplitudes_up_to_its_bound() {
    let op = Sdir { p: 0.0, gain: Gain::Gaussian { gamma: 2.24, k: 1.0 }, ..Sdir::default() };
    let bags = Ragged::uniform(1, 4000);
    let x = Tensor::from_fn(&[4000, 1], |i| i as f64 / 1000.0);
    let y = &values(apply(op, bags, None, Some(Tensor::full(&[1], 1.0))), &[x])[0];
    assert!(y.host().windows(2).all(|w| w[0] < w[1]));
    assert_eq!(y.host()[0], 0.0);
}

#[test]
fn without_a_strong_token_nothing_is_weak() {
    let bags = Ragged::uniform(1, 4);
    for gain in [GAUSSIAN, FERMI] {
        let op = Sdir { gain, ..Sdir::default() };
        let f = apply(op, bags.clone(), None, Some(Tensor::zeros(&[1])));
        let x = normal::<f64>("x", &[4, 3]);
        let (y, dx) = gradients(f, std::slice::from_ref(&x), std::slice::from_ref(&x));
        assert_eq!((&y[0], &dx[0]), (&x, &x));
    }
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let bags = Ragged::from_lengths([1000, 2000]);
    let given = [normal::<f32>("x", &[3000, 21])];
    let cot = [normal("cotangent", &[3000, 21])];
    let op = Sdir { gain: FERMI, ..Sdir::default() };
    assert_same_on_any_number_of_threads(|| {
        let scale = op.strong_scale(&placed(&given[0]), &bags, Some(&draws(&[1, 2]))).unwrap();
        gradients(apply(op, bags.clone(), Some(draws(&[1, 2])), Some(scale)), &given, &cot)
    });
}

#[test]
fn settings_and_shapes_that_do_not_fit_are_named() {
    let tape = Tape::<f32>::inference(Device::Cpu);
    let (x, bags) = (Var::constant(Tensor::zeros(&[3, 2])), Ragged::uniform(1, 3));
    let refuse = |op: Sdir, scale: Option<Tensor<f32>>| op.forward(&tape, &x, &bags, None, scale.as_ref()).unwrap_err();
    let one = || Some(Tensor::full(&[1], 1.0));
    for (op, at) in [
        (Sdir { p: 1.0, ..Sdir::default() }, "sdir.p"),
        (Sdir { gain: Gain::Gaussian { gamma: 2.25, k: 1.0 }, ..Sdir::default() }, "sdir.gain.gamma"),
        (Sdir { gain: Gain::Gaussian { gamma: f64::NAN, k: 1.0 }, ..Sdir::default() }, "sdir.gain.gamma"),
        (Sdir { gain: Gain::Gaussian { gamma: 1.0, k: 0.0 }, ..Sdir::default() }, "sdir.gain.k"),
        (
            Sdir { gain: Gain::FermiDirac { gamma: 1.0, k: 1.0, temperature: 0.0 }, ..Sdir::default() },
            "sdir.gain.temperature",
        ),
    ] {
        assert!(matches!(refuse(op, one()), Error::Setting { name, .. } if name == at), "{at}");
    }
    let op = Sdir { gain: GAUSSIAN, ..Sdir::default() };
    assert!(matches!(refuse(op, None), Error::Setting { name: "sdir.gain", .. }));
    assert!(matches!(refuse(op, Some(Tensor::zeros(&[2]))), Error::Shape { arg: "scale", .. }));
    assert!(matches!(refuse(op, Some(Tensor::full(&[1], -1.0))), Error::Value { arg: "scale", index: 0, .. }));
    let error = op.keep_mask(&bags, Some(&draws(&[1, 2]))).unwrap_err();
    assert!(matches!(error, Error::Shape { arg: "patients", .. }));
    let error = Sdir::default().forward(&tape, &x, &Ragged::uniform(2, 3), None, None).unwrap_err();
    assert!(matches!(error, Error::Shape { arg: "x", .. }));
}
