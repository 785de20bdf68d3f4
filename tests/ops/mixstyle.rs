//! The mixing of channel statistics between patients.

use std::ops::Range;

use onkos::ops::mixstyle::{Blend, MixStyle};
use onkos::ops::{BagDraws, SegmentMean};
use onkos::rng::Draws;
use onkos::{Device, Error, Ragged, Real, Result, Tape, Tensor, Var};

use crate::golden::{Tensors, path};
use crate::harness::*;

/// Always fires, with shares that are seldom near 0 or 1.
const ON: MixStyle = MixStyle { alpha: 0.8, p: 1.0, eps: 1e-6 };

fn draws(epoch: u32, patients: &[u32]) -> BagDraws {
    BagDraws::new(Draws::new(3, epoch, "mixstyle.test"), patients)
}

fn patients(n: usize) -> Vec<u32> {
    (0..n as u32).map(|b| 50 + 7 * b).collect()
}

/// What is drawn for such bags.
fn drawn(bags: &Ragged) -> Blend {
    ON.draw(bags, &draws(1, &patients(bags.bags()))).unwrap().unwrap_or_else(|| Blend::new(vec![], vec![]).unwrap())
}

/// Mean and deviation of a channel over some rows, with sums in the type itself.
fn statistics<T: Real>(x: &Tensor<T>, rows: Range<usize>, j: usize, eps: f64) -> [T; 2] {
    let (_, d) = x.matrix();
    let n = T::of(rows.len() as f64);
    let mean = rows.clone().map(|i| x.host()[i * d + j]).sum::<T>() / n;
    let squares = rows.map(|i| (x.host()[i * d + j] - mean).powi(2)).sum::<T>();
    [mean, (squares / (n - T::one()) + T::of(eps)).sqrt()]
}

/// The formula with the statistics of `known`, and the gradient of it for statistics that are constants.
fn naive<T: Real>(
    eps: f64,
    known: &Tensor<T>,
    x: &Tensor<T>,
    bags: &Ragged,
    blend: &Blend,
    grad: &Tensor<T>,
) -> [Tensor<T>; 2] {
    let (_, d) = x.matrix();
    let each = |i: usize, j: usize| -> (T, T) {
        let b = bags.bag_of(i);
        let (own, partner) = (bags.bag(b), bags.bag(blend.partner()[b] as usize));
        let (x, grad, share) = (x.host()[i * d + j], grad.host()[i * d + j], T::of(blend.lambda()[b]));
        if own.len() < 2 || partner.len() < 2 {
            return (x, grad);
        }
        let [[mean, deviation], [mean_p, deviation_p]] = [own, partner].map(|rows| statistics(known, rows, j, eps));
        let mixed = share * deviation + (T::one() - share) * deviation_p;
        let y = (x - mean) / deviation * mixed + share * mean + (T::one() - share) * mean_p;
        (y, grad * mixed / deviation)
    };
    let all: Vec<(T, T)> = (0..x.len()).map(|k| each(k / d, k % d)).collect();
    [Tensor::from_fn(x.shape(), |k| all[k].0), Tensor::from_fn(x.shape(), |k| all[k].1)]
}

fn apply<T: Real>(bags: &Ragged, blend: &Blend) -> impl Fn(&Tape<T>, &[Var<T>]) -> Result<Vec<Var<T>>> + Sync {
    let (bags, blend) = (bags.clone(), blend.clone());
    move |tape, v| Ok(vec![ON.forward_with(tape, &v[0], &bags, &blend)?])
}

/// Values and gradients of rows in bags against plain arithmetic.
#[track_caller]
fn assert_as_good(what: &str, x: &Tensor<f32>, bags: &Ragged, blend: &Blend) {
    let cot: Tensor<f32> = normal("cotangent", x.shape());
    let (y, dx) = gradients(apply(bags, blend), std::slice::from_ref(x), std::slice::from_ref(&cot));
    let plain = naive(ON.eps, x, x, bags, blend, &cot);
    let (x, cot): (Tensor<f64>, Tensor<f64>) = (cast(x), cast(&cot));
    let oracle = naive(ON.eps, &x, &x, bags, blend, &cot);
    assert_as_good_as_plain(what, y[0].host(), plain[0].host(), oracle[0].host());
    assert_as_good_as_plain(&format!("{what}, gradient"), dx[0].host(), plain[1].host(), oracle[1].host());
    let (y, dx) = gradients(apply(bags, blend), &[x], &[cot]);
    // Sums of so many terms in two orders.
    let relative = 100.0 * bags.longest() as f64 * f64::EPSILON;
    assert_golden(what, y[0].host(), oracle[0].host(), relative);
    assert_golden(&format!("{what}, gradient"), dx[0].host(), oracle[1].host(), relative);
}

#[test]
fn values_and_gradients_are_as_good_as_plain_arithmetic() {
    let cases: [(&[usize], usize); 8] = [
        (&[], 3),
        (&[0, 0], 5),
        (&[4, 3], 0),
        (&[2, 3], 1),
        (&[5, 0, 31, 1, 32, 33, 127, 2], 5),
        (&[128, 131, 2, 129, 300], 6),
        (&[257, 40, 1000], 33),
        (&[2, 130], 1100),
    ];
    for (lengths, width) in cases {
        let bags = Ragged::from_lengths(lengths.iter().copied());
        // Bags of their own mean and deviation, or mixing would change little.
        let mut x: Tensor<f32> = normal("x", &[bags.rows(), width]);
        for (b, rows) in bags.iter().enumerate() {
            let part = &mut x.host_mut()[rows.start * width..rows.end * width];
            part.iter_mut().for_each(|x| *x = *x * (0.5 + b as f32) + 3.0 * b as f32 - 4.0);
        }
        assert_as_good(&format!("{lengths:?} x {width}"), &x, &bags, &drawn(&bags));
    }
}

#[test]
fn little_is_lost_where_the_mean_is_far_larger_than_the_deviation() {
    let bags = Ragged::from_lengths([200, 70, 300]);
    let mut x: Tensor<f32> = normal("x", &[bags.rows(), 4]);
    x.host_mut().iter_mut().for_each(|x| *x = 1000.0 + *x * 0.125);
    assert_as_good("far from 0", &x, &bags, &drawn(&bags));
}

/// The deviation itself, which a bag with a given one shows: 1000 + 1/8 z has hardly three digits of the square.
#[test]
fn deviations_do_not_cancel() {
    let bags = Ragged::from_lengths([300, 300]);
    let x = Tensor::from_fn(&[600, 1], |i| if i < 300 { (i % 2) as f32 } else { 4096.0 + (i % 2) as f32 / 512.0 });
    // The first bag takes all from the second.
    let blend = Blend::new(vec![1, 1], vec![0.0, 1.0]).unwrap();
    let (_, dx) = gradients(apply(&bags, &blend), &[x], &[Tensor::full(&[600, 1], 1f32)]);
    let deviation = |high: f64| (high * high / 4.0 * 300.0 / 299.0 + ON.eps).sqrt();
    let want = deviation(1.0 / 512.0) / deviation(1.0);
    let got = f64::from(dx[0].host()[0]);
    assert!((got / want - 1.0).abs() <= 2.0 * f64::from(f32::EPSILON), "got {got}, want {want}");
}

/// Differences from the rounded mean of such a channel are all alike: their squares cancel, and those of tiny elements
/// vanish in f32, so that what is taken from them leaves less than 0, which a small epsilon does not make up for.
#[test]
fn channels_that_are_constant_stay_finite_however_large_or_small_they_are() {
    let bags = Ragged::from_lengths([7, 129, 300]);
    let blend = Blend::new(vec![1, 2, 0], vec![0.3; 3]).unwrap();
    for (size, eps) in [(1e12, 1e-6), (1e-30, 1e-300)] {
        let value = |i: usize| f64::from((size * (1.0 + (i % 40) as f64 / 41.0)) as f32);
        let op = MixStyle { eps, ..ON };
        let mix = |tape: &Tape<f32>, v: &[Var<f32>]| Ok(vec![op.forward_with(tape, &v[0], &bags, &blend)?]);
        let y = &values(mix, &[Tensor::from_fn(&[436, 40], |i| value(i) as f32)])[0];
        // All bags have the same mean, and every row is at its bag's: within the rounding of that mean.
        for (i, y) in y.host().iter().enumerate() {
            let want = value(i);
            assert!((f64::from(*y) - want).abs() <= want.abs() * f64::from(f32::EPSILON), "{i}: {y}, not {want}");
        }
    }
}

/// The published implementation in f64, PyTorch: rows of a bag are the places of an image.
#[test]
fn explicit_draws_give_what_the_published_code_gives() {
    let file = Tensors::read(&path("models/mixstyle.safetensors"));
    for case in ["random", "crossdomain"] {
        let shape = file.shape(&format!("in.{case}.x"));
        let (bags, channels, places) = (shape[0], shape[1], shape[2] * shape[3]);
        let rows = |name: &str| {
            let all = file.get(name);
            let from = |k: usize| {
                let (row, j) = (k / channels, k % channels);
                all[(row / places * channels + j) * places + row % places]
            };
            Tensor::from_fn(&[bags * places, channels], from)
        };
        let partner = file.get(&format!("in.{case}.perm")).iter().map(|&p| p as u32).collect();
        let blend = Blend::new(partner, file.get(&format!("in.{case}.lambda")).to_vec()).unwrap();
        let (x, cot) = (rows(&format!("in.{case}.x")), rows(&format!("in.{case}.cotangent")));
        let (y, dx) = gradients(apply(&Ragged::uniform(bags, places), &blend), &[x], &[cot]);
        assert_golden(case, y[0].host(), rows(&format!("out.{case}.y")).host(), 1e-13);
        assert_golden(&format!("{case}, gradient"), dx[0].host(), rows(&format!("grad.{case}.x")).host(), 1e-13);
    }
}

/// With the statistics frozen the result is a linear function of the rows, so a central difference has no error but
/// rounding.
#[test]
fn gradient_matches_finite_differences_of_frozen_statistics() {
    let bags = Ragged::from_lengths([3, 0, 4, 1, 2, 5]);
    let blend = Blend::new(vec![2, 0, 5, 4, 0, 3], vec![0.2, 0.5, 0.9, 0.1, 0.4, 0.7]).unwrap();
    let x: Tensor<f64> = normal("x", &[15, 3]);
    let cot: Tensor<f64> = normal("cotangent", &[15, 3]);
    let (_, dx) = gradients(apply(&bags, &blend), std::slice::from_ref(&x), std::slice::from_ref(&cot));
    let terms = |moved: &Tensor<f64>| -> Vec<f64> {
        let [y, _] = naive(ON.eps, &x, moved, &bags, &blend, &cot);
        y.host().iter().zip(cot.host()).map(|(y, c)| y * c).collect()
    };
    let size: f64 = terms(&x).iter().map(|t| t.abs()).sum();
    for k in 0..x.len() {
        let side = |h: f64| {
            let mut moved = x.clone();
            moved.host_mut()[k] += h;
            terms(&moved).iter().sum::<f64>()
        };
        let h = 0.125;
        let want = (side(h) - side(-h)) / (2.0 * h);
        assert!((dx[0].host()[k] - want).abs() <= 100.0 * f64::EPSILON * size / h, "element {k}: want {want}");
    }
}

#[test]
fn the_statistics_of_the_result_are_the_mixed_ones() {
    let bags = Ragged::from_lengths([40, 9, 150]);
    let mut x: Tensor<f64> = normal("x", &[199, 3]);
    x.host_mut()[27 * 4..].iter_mut().for_each(|x| *x = 3.0 - 2.0 * *x);
    let (partner, lambda) = ([1, 2, 0], [0.0, 0.25, 1.0]);
    let y = &values(apply(&bags, &Blend::new(partner.into(), lambda.into()).unwrap()), std::slice::from_ref(&x))[0];
    for (b, rows) in bags.iter().enumerate() {
        for j in 0..3 {
            let of = |b: usize| statistics(&x, bags.bag(b), j, ON.eps);
            let (own, given) = (of(b), of(partner[b] as usize));
            // A deviation without eps is the share of its own with it, which the mixing keeps.
            let bare = statistics(&x, rows.clone(), j, 0.0)[1] / own[1];
            let got = statistics(y, rows.clone(), j, 0.0);
            let mixed = |k: usize| lambda[b] * own[k] + (1.0 - lambda[b]) * given[k];
            assert_golden(&format!("bag {b}"), &got, &[mixed(0), mixed(1) * bare], 1e-13);
        }
    }
}

#[test]
fn bags_without_a_variance_pass_bit_for_bit() {
    // One row; a partner of one row; a partner without rows; none of its own.
    let bags = Ragged::from_lengths([1, 3, 200, 0, 2]);
    let blend = Blend::new(vec![2, 0, 3, 4, 1], vec![0.5; 5]).unwrap();
    let mut x: Tensor<f32> = normal("x", &[206, 6]);
    for (place, odd) in [(0, -0.0), (1, f32::NAN), (7, f32::INFINITY), (8, -0.0), (30, -0.0), (31, f32::MAX)] {
        x.host_mut()[place] = odd;
    }
    let cot: Tensor<f32> = normal("cotangent", &[206, 6]);
    let (y, dx) = gradients(apply(&bags, &blend), std::slice::from_ref(&x), std::slice::from_ref(&cot));
    let bits = |x: &Tensor<f32>, rows: Range<usize>| -> Vec<u32> {
        x.host()[rows.start * 6..rows.end * 6].iter().map(|x| x.to_bits()).collect()
    };
    assert_eq!(bits(&y[0], 0..204), bits(&x, 0..204));
    assert_eq!(bits(&dx[0], 0..204), bits(&cot, 0..204));
    assert_ne!(bits(&y[0], 204..206), bits(&x, 204..206), "the last bag is mixed");
}

#[test]
fn nan_reaches_its_channel_of_its_bag_and_of_the_one_that_takes_from_it() {
    let bags = Ragged::from_lengths([3, 200, 2, 40]);
    let mut x: Tensor<f32> = normal("x", &[245, 2]);
    x.host_mut()[2 * 150 + 1] = f32::NAN;
    // Gradients too are of deviations that are not known.
    let (y, dx) = {
        let blend = Blend::new(vec![2, 0, 1, 3], vec![0.5; 4]).unwrap();
        gradients(apply(&bags, &blend), &[x], &[Tensor::full(&[245, 2], 1.0)])
    };
    for (b, rows) in bags.iter().enumerate() {
        for i in rows {
            let nan = [&y, &dx].map(|of| [0, 1].map(|j| of[0].host()[2 * i + j].is_nan()));
            assert_eq!(nan, [[false, b == 1 || b == 2]; 2], "row {i} of bag {b}");
        }
    }
}

#[test]
fn the_order_of_a_batch_permutes_its_result_and_changes_no_bit() {
    let lengths = [77, 500, 0, 129, 1, 30];
    let bags = Ragged::from_lengths(lengths);
    let x: Tensor<f32> = normal("x", &[737, 7]);
    let of = |order: &[usize]| {
        let shuffled = Ragged::from_lengths(order.iter().map(|&b| lengths[b]));
        let rows: Vec<usize> = order.iter().flat_map(|&b| bags.bag(b)).collect();
        let who: Vec<u32> = order.iter().map(|&b| patients(6)[b]).collect();
        let mix =
            |tape: &Tape<f32>, v: &[Var<f32>]| Ok(vec![ON.forward(tape, &v[0], &shuffled, Some(&draws(2, &who)))?]);
        let y = values(mix, &[rows_of(&x, &rows)]).remove(0);
        // Back to where they were.
        let mut back = vec![0; rows.len()];
        rows.iter().enumerate().for_each(|(now, &then)| back[then] = now);
        rows_of(&y, &back)
    };
    let given = of(&[0, 1, 2, 3, 4, 5]);
    assert_ne!(given, x);
    assert_eq!(of(&[5, 3, 1, 4, 2, 0]), given);
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let bags = Ragged::from_lengths([900, 1, 0, 5000, 3]);
    let (x, cot) = (normal::<f32>("x", &[5904, 6]), [normal("cotangent", &[5904, 6])]);
    let blend = drawn(&bags);
    assert_same_on_any_number_of_threads(|| gradients(apply(&bags, &blend), std::slice::from_ref(&x), &cot));
}

#[test]
fn drawn_and_explicit_calls_agree_and_evaluation_changes_nothing() {
    let bags = Ragged::from_lengths([20, 3, 0, 40]);
    let x = normal::<f32>("x", &[63, 4]);
    let with = |draws: Option<BagDraws>| {
        let mix = |tape: &Tape<f32>, v: &[Var<f32>]| Ok(vec![ON.forward(tape, &v[0], &bags, draws.as_ref())?]);
        values(mix, std::slice::from_ref(&x)).remove(0)
    };
    let explicit = values(apply(&bags, &drawn(&bags)), std::slice::from_ref(&x)).remove(0);
    assert_ne!(explicit, x);
    assert_eq!(with(Some(draws(1, &patients(4)))), explicit);
    assert_ne!(with(Some(draws(2, &patients(4)))), explicit, "each epoch draws anew");
    assert_eq!(with(None), x);
}

#[test]
fn the_gate_fires_at_its_rate_for_a_batch_as_a_whole() {
    let bags = Ragged::uniform(5, 3);
    let epochs = 4000;
    for p in [0.0, 0.2, 0.5, 1.0] {
        let op = MixStyle { p, ..ON };
        let fired = (0..epochs).filter(|&e| op.draw(&bags, &draws(e, &patients(5))).unwrap().is_some()).count();
        // Six standard errors of a proportion.
        let bound = 6.0 * (p * (1.0 - p) / f64::from(epochs)).sqrt();
        assert!((fired as f64 / f64::from(epochs) - p).abs() <= bound, "p {p}: {fired} of {epochs}");
    }
    assert_eq!(ON.draw(&Ragged::uniform(0, 0), &draws(0, &[])).unwrap(), None, "nobody is there");
}

#[test]
fn every_order_of_partners_is_equally_likely() {
    let (bags, epochs) = (Ragged::uniform(3, 2), 6000);
    let mut counts = std::collections::BTreeMap::<Vec<u32>, usize>::new();
    for epoch in 0..epochs {
        let blend = ON.draw(&bags, &draws(epoch, &patients(3))).unwrap().unwrap();
        *counts.entry(blend.partner().to_vec()).or_default() += 1;
    }
    // Six permutations of three, whose frequencies lie within six standard errors of a sixth.
    assert_eq!(counts.len(), 6);
    let (each, bound) = (1.0 / 6.0, 6.0 * (5.0 / 36.0 / f64::from(epochs)).sqrt());
    for (partner, count) in counts {
        assert!((count as f64 / f64::from(epochs) - each).abs() < bound, "{partner:?}: {count} of {epochs}");
    }
}

#[test]
fn shares_have_the_moments_of_beta_and_are_those_of_their_patient() {
    let n = 20_000;
    let (bags, who) = (Ragged::uniform(n, 2), patients(n));
    let op = MixStyle { alpha: 0.1, ..ON };
    let lambda = op.draw(&bags, &draws(1, &who)).unwrap().unwrap().lambda().to_vec();
    let variance = 1.0 / (4.0 * (2.0 * op.alpha + 1.0));
    let mean = |f: &dyn Fn(f64) -> f64| lambda.iter().map(|&l| f(l)).sum::<f64>() / n as f64;
    // Six standard errors, the fourth central moment from the kurtosis 3 - 6 / (2 alpha + 3).
    let se = 6.0 / (n as f64).sqrt();
    let fourth = (3.0 - 6.0 / (2.0 * op.alpha + 3.0)) * variance * variance;
    assert!((mean(&|l| l) - 0.5).abs() < se * variance.sqrt());
    assert!((mean(&|l| (l - 0.5).powi(2)) - variance).abs() < se * (fourth - variance * variance).sqrt());
    let few = op.draw(&Ragged::uniform(2, 2), &draws(1, &[who[7], who[3]])).unwrap().unwrap();
    assert_eq!(few.lambda(), [lambda[7], lambda[3]]);
}

/// A model that pools by the mean sees of a bag no more than its mixed mean.
#[test]
fn a_pooled_mean_moves_toward_that_of_the_partner() {
    let bags = Ragged::from_lengths([30, 50]);
    let x: Tensor<f64> = Tensor::from_fn(&[80, 1], |i| if i < 30 { i as f64 } else { 100.0 + i as f64 });
    let blend = Blend::new(vec![1, 0], vec![0.75, 0.25]).unwrap();
    let pool = |tape: &Tape<f64>, v: &[Var<f64>]| {
        let y = ON.forward_with(tape, &v[0], &bags, &blend)?;
        Ok(vec![SegmentMean.forward(tape, &y, &bags)?])
    };
    let (own, other) = (14.5, 100.0 + 54.5);
    let want = [0.75 * own + 0.25 * other, 0.25 * other + 0.75 * own];
    assert_golden("means", values(pool, &[x])[0].host(), &want, 1e-13);
}

#[test]
fn settings_and_shapes_that_do_not_fit_are_named() {
    let tape = Tape::<f32>::inference(Device::Cpu);
    let x = Var::constant(Tensor::zeros(&[4, 2]));
    let bags = Ragged::uniform(2, 2);
    let said = |result: Result<Var<f32>>| result.unwrap_err().to_string();
    for (op, want) in [
        (MixStyle { alpha: 0.0, ..ON }, "mixstyle.alpha must be finite and positive, but is 0"),
        (MixStyle { eps: f64::NAN, ..ON }, "mixstyle.eps must be finite and positive, but is NaN"),
        (MixStyle { p: 1.5, ..ON }, "mixstyle.p must be between 0 and 1, but is 1.5"),
    ] {
        assert_eq!(said(op.forward(&tape, &x, &bags, None)), want);
    }
    let rows = said(ON.forward(&tape, &x, &Ragged::uniform(1, 3), None));
    assert_eq!(rows, "mixstyle: x must have shape [3, D], the rows of its bags, but has [4, 2]");
    let who = said(ON.forward(&tape, &x, &bags, Some(&draws(1, &[4]))));
    assert_eq!(who, "mixstyle: patients must have shape [2], one patient a bag, but has [1]");
    let blend = Blend::new(vec![0], vec![1.0]).unwrap();
    let of_others = said(ON.forward_with(&tape, &x, &bags, &blend));
    assert_eq!(of_others, "mixstyle: partner must have shape [2], one a bag, but has [1]");
    assert!(matches!(Blend::new(vec![0, 1], vec![0.5]), Err(Error::Shape { arg: "lambda", .. })));
    assert!(matches!(Blend::new(vec![0, 2], vec![0.5; 2]), Err(Error::Value { arg: "partner", index: 1, .. })));
    assert!(matches!(Blend::new(vec![0, 1], vec![0.5, 1.5]), Err(Error::Value { arg: "lambda", index: 1, .. })));
}
