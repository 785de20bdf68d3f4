//! Laws that hold whatever the bags and the seed are, over random ones; proptest prints what failed and its seed.

use onkos::ops::cade::Cade;
use onkos::ops::sdir::{Rescue, Scale, Sdir};
use onkos::ops::{
    Activation, Affine, AttentionMil, BagDraws, Dropout, DropoutKind, GroupedLinear, LayerNorm, Linear, SegmentMean,
    Softmax,
};
use onkos::rng::Draws;
use onkos::{Device, Ragged, Tape, Tensor, Var};
use proptest::prelude::*;

use crate::harness::normal;

const WIDTH: usize = 5;

fn lengths() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(prop_oneof![Just(0usize), 1..6usize, 30..35usize], 1..6)
}

/// Rows of random numbers that depend on the seed.
fn rows(name: &str, seed: u64, rows: usize) -> Tensor<f32> {
    normal(&format!("{name} {seed}"), &[rows, WIDTH])
}

fn part(x: &Tensor<f32>, rows: std::ops::Range<usize>) -> Tensor<f32> {
    let data = x.host()[rows.start * WIDTH..rows.end * WIDTH].to_vec();
    Tensor::new(&[rows.len(), WIDTH], data).unwrap()
}

fn draws(seed: u64, patients: &[u32]) -> BagDraws {
    BagDraws::new(Draws::new(seed, 1, "laws"), patients)
}

fn tape() -> Tape<f32> {
    Tape::inference(Device::Cpu)
}

proptest! {
    #[test]
    fn dropout_of_a_batch_is_that_of_its_bags(lengths in lengths(), seed: u64, p in 0.0..0.95f64, alpha: bool) {
        let op = Dropout { p, kind: if alpha { DropoutKind::Alpha } else { DropoutKind::Plain } };
        let bags = Ragged::from_lengths(lengths.clone());
        let x = rows("x", seed, bags.rows());
        let patients: Vec<u32> = (0..lengths.len() as u32).collect();
        let given = Var::constant(x.clone());
        let all = op.forward(&tape(), &given, &bags, Some(&draws(seed, &patients))).unwrap();
        for (b, range) in bags.iter().enumerate() {
            let one = Ragged::from_lengths([range.len()]);
            let x = Var::constant(part(&x, range.clone()));
            let alone = op.forward(&tape(), &x, &one, Some(&draws(seed, &patients[b..=b]))).unwrap();
            prop_assert_eq!(part(all.value(), range), alone.value().clone());
        }
    }

    #[test]
    fn sdir_keeps_whole_tokens_and_leaves_no_bag_without_one(
        lengths in lengths(), seed: u64, p in 0.0..0.99f64, inverse: bool,
    ) {
        let scale = if inverse { Scale::Inverse } else { Scale::None };
        let op = Sdir { p, rescue: Rescue::Uniform, scale, ..Sdir::default() };
        let bags = Ragged::from_lengths(lengths.clone());
        let x = rows("x", seed, bags.rows());
        let patients: Vec<u32> = (0..lengths.len() as u32).collect();
        let draws = draws(seed, &patients);
        let keep = op.keep_mask(&bags, Some(&draws)).unwrap();
        let y = op.forward(&tape(), &Var::constant(x.clone()), &bags, Some(&draws), None).unwrap();
        let factor = if inverse { (1.0 / (1.0 - p)) as f32 } else { 1.0 };
        for (i, &kept) in keep.iter().enumerate() {
            for at in i * WIDTH..(i + 1) * WIDTH {
                prop_assert_eq!(y.value().host()[at], if kept { factor * x.host()[at] } else { 0.0 });
            }
        }
        for range in bags.iter().filter(|r| !r.is_empty()) {
            prop_assert!(range.into_iter().any(|i| keep[i]));
        }
    }

    #[test]
    fn cade_of_a_batch_is_that_of_its_patients(
        pairs in prop::collection::vec((0..7usize, 0..40usize), 1..5), seed: u64, smooth: bool,
    ) {
        let op = Cade { p_aug: 0.7, ..if smooth { Cade::smooth() } else { Cade::default() } };
        let bags = [0, 1].map(|side| Ragged::from_lengths(pairs.iter().map(|p| if side == 0 { p.0 } else { p.1 })));
        let x = [rows("f", seed, bags[0].rows()), rows("g", seed, bags[1].rows())];
        let patients: Vec<u32> = (0..pairs.len() as u32).collect();
        let given = x.clone().map(Var::constant);
        let all = op
            .forward(&tape(), [&given[0], &given[1]], [&bags[0], &bags[1]], None, Some(&draws(seed, &patients)))
            .unwrap();
        for b in 0..pairs.len() {
            let one = [0, 1].map(|side| Ragged::from_lengths([bags[side].bag(b).len()]));
            let own = [0, 1].map(|side| Var::constant(part(&x[side], bags[side].bag(b))));
            let draws = draws(seed, &patients[b..=b]);
            let alone = op.forward(&tape(), [&own[0], &own[1]], [&one[0], &one[1]], None, Some(&draws)).unwrap();
            for side in 0..2 {
                prop_assert_eq!(part(all[side].value(), bags[side].bag(b)), alone[side].value().clone());
                if pairs[b].0 == 0 || pairs[b].1 == 0 {
                    prop_assert_eq!(alone[side].value(), own[side].value());
                }
            }
        }
    }

    #[test]
    fn attention_sums_to_one_and_pools_between_the_extremes(lengths in lengths(), seed: u64, gated: bool) {
        let bags = Ragged::from_lengths(lengths);
        let x = rows("x", seed, bags.rows());
        let weight = |name: &str, shape: &[usize]| Var::constant(normal::<f32>(&format!("{name} {seed}"), shape));
        let (v, u, w) = (weight("v", &[3, WIDTH]), weight("u", &[3, WIDTH]), weight("w", &[2, 3]));
        let affine = |weight| Affine { weight, bias: None };
        let op = AttentionMil { v: affine(&v), u: gated.then(|| affine(&u)), w: affine(&w) };
        let pooling = op.forward(&tape(), &Var::constant(x.clone()), &bags).unwrap();
        let (weights, pooled) = (pooling.weights.value().host(), pooling.pooled.value().host());
        for (b, range) in bags.iter().enumerate() {
            for k in 0..2 {
                let n = range.len() as f32;
                let sum: f64 = range.clone().map(|i| f64::from(weights[2 * i + k])).sum();
                // Each weight is rounded a few times; so is their sum below.
                let slack = (8.0 + 2.0 * n) * f32::EPSILON;
                prop_assert!(range.is_empty() || (sum - 1.0).abs() <= f64::from(slack), "sum {}", sum);
                for l in 0..WIDTH {
                    let column = || range.clone().map(|i| x.host()[i * WIDTH + l]);
                    // An empty bag pools to zero.
                    let low = column().reduce(f32::min).unwrap_or(0.0);
                    let high = column().reduce(f32::max).unwrap_or(0.0);
                    let got = pooled[(2 * b + k) * WIDTH + l];
                    let slack = slack * low.abs().max(high.abs());
                    prop_assert!((low - slack..=high + slack).contains(&got), "{} not in {}..{}", got, low, high);
                }
            }
        }
    }

    #[test]
    fn means_softmax_and_norms_do_what_their_names_say(lengths in lengths(), seed: u64) {
        let bags = Ragged::from_lengths(lengths);
        let x = rows("x", seed, bags.rows());
        let given = Var::constant(x.clone());
        let means = SegmentMean.forward(&tape(), &given, &bags).unwrap();
        for (b, range) in bags.iter().enumerate() {
            for l in 0..WIDTH {
                let terms = || range.clone().map(|i| f64::from(x.host()[i * WIDTH + l]));
                let n = range.len() as f64;
                let want = if range.is_empty() { 0.0 } else { terms().sum::<f64>() / n };
                let size = terms().map(f64::abs).fold(0.0, f64::max);
                let slack = (n + 2.0) * f64::from(f32::EPSILON) * size;
                prop_assert!((f64::from(means.value().host()[b * WIDTH + l]) - want).abs() <= slack);
            }
        }
        let slack = 16.0 * WIDTH as f32 * f32::EPSILON;
        let shares = Softmax.forward(&tape(), &given).unwrap();
        let normed = LayerNorm { eps: 1e-5 }.forward(&tape(), &given, None, None).unwrap();
        for (shares, normed) in shares.value().host().chunks(WIDTH).zip(normed.value().host().chunks(WIDTH)) {
            prop_assert!((shares.iter().sum::<f32>() - 1.0).abs() <= slack && shares.iter().all(|s| *s > 0.0));
            let squares: f32 = normed.iter().map(|y| y * y).sum();
            prop_assert!(normed.iter().sum::<f32>().abs() <= slack * WIDTH as f32);
            prop_assert!(squares <= WIDTH as f32 * (1.0 + slack));
        }
    }

    #[test]
    fn a_grouped_layer_is_its_groups_apart(widths in prop::collection::vec(0..6usize, 1..5), samples in 0..20usize, seed: u64) {
        let (groups, outputs) = (Ragged::from_lengths(widths), 3);
        let tensor = |name: &str, shape: &[usize]| normal::<f64>(&format!("{name} {seed}"), shape);
        let x = tensor("x", &[samples, groups.rows()]);
        let (weight, bias) = (tensor("w", &[outputs * groups.rows()]), tensor("b", &[groups.bags(), outputs]));
        let activation = Activation::Elu;
        let tape = Tape::<f64>::inference(Device::Cpu);
        let [given, w, b] = [&x, &weight, &bias].map(|t| Var::constant(t.clone()));
        let all = GroupedLinear { activation }.forward(&tape, &given, &groups, outputs, &w, Some(&b)).unwrap();
        for (s, range) in groups.iter().enumerate() {
            let (i, wide) = (range.len(), groups.rows());
            let own = Tensor::from_fn(&[samples, i], |at| x.host()[at / i * wide + range.start + at % i]);
            let w = Tensor::from_fn(&[outputs, i], |at| weight.host()[outputs * range.start + at]);
            let b = Tensor::from_fn(&[outputs], |o| bias.host()[s * outputs + o]);
            let [own, w, b] = [own, w, b].map(Var::constant);
            let alone = Linear { activation }.forward(&tape, &own, &w, Some(&b)).unwrap();
            for at in 0..samples * outputs {
                let got = all.value().host()[(at / outputs * groups.bags() + s) * outputs + at % outputs];
                let want = alone.value().host()[at];
                // Sums of at most five products of normal numbers, in any order.
                prop_assert!((got - want).abs() <= 64.0 * f64::EPSILON * want.abs().max(8.0), "{} {}", got, want);
            }
        }
    }
}
