//! Attention of gene and patch tokens.

use onkos::ops::PathwayAttention;
use onkos::{Device, Ragged, Real, Result, Tape, Tensor, Var};

use crate::harness::*;

/// Who attends to whom: everybody but patches among themselves, or genes to patches alone.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Joint,
    Guided,
}
use Kind::{Guided, Joint};

impl Kind {
    /// Queries, keys and values that a row of a side has, as first columns by the width.
    fn parts(self, side: usize) -> [usize; 3] {
        match (self, side) {
            (Joint, _) => [0, 1, 2],
            (Guided, 0) => [0, usize::MAX, usize::MAX],
            (Guided, _) => [usize::MAX, 0, 1],
        }
    }

    fn step(self, side: usize) -> usize {
        self.parts(side).iter().filter(|&&part| part != usize::MAX).count()
    }

    fn sides(self) -> &'static [usize] {
        if self == Joint { &[0, 1] } else { &[0] }
    }

    /// The sides that side `side` attends to.
    fn keys(self, side: usize) -> &'static [usize] {
        match (self, side) {
            (Joint, 0) => &[0, 1],
            (Joint, _) => &[0],
            (Guided, _) => &[1],
        }
    }
}

/// The formula, with whole rows of scores and sums in the type itself.
fn naive<T: Real>((kind, heads): (Kind, usize), x: &[Tensor<T>], bags: &[Ragged; 2]) -> Vec<Tensor<T>> {
    let width = x[0].matrix().1 / kind.step(0);
    let d = width / heads;
    let at = |of: usize, row: usize, part: usize, column: usize| {
        x[of].host()[(row * kind.step(of) + kind.parts(of)[part]) * width + column]
    };
    let of = |&side: &usize| {
        Tensor::from_fn(&[bags[side].rows(), width], |i| {
            let (row, column) = (i / width, i % width);
            let (bag, head) = (bags[side].bag_of(row), column / d);
            let keys = kind.keys(side).iter().flat_map(|&of| bags[of].bag(bag).map(move |j| (of, j)));
            let keys: Vec<(usize, usize)> = keys.collect();
            let score = |&(of, j): &(usize, usize)| {
                let each = (head * d..(head + 1) * d).map(|c| at(side, row, 0, c) * at(of, j, 1, c));
                each.sum::<T>() / T::of((d as f64).sqrt())
            };
            let scores: Vec<T> = keys.iter().map(score).collect();
            let max = scores.iter().fold(T::neg_infinity(), |max, s| max.max(*s));
            let weights: Vec<T> = scores.iter().map(|s| (*s - max).exp()).collect();
            let total = weights.iter().copied().sum::<T>();
            if keys.is_empty() {
                return T::zero();
            }
            weights.iter().zip(&keys).map(|(w, &(of, j))| *w / total * at(of, j, 2, column)).sum::<T>()
        })
    };
    kind.sides().iter().map(of).collect()
}

/// How much each patch counts by the formula: of each head the mean of its share in the softmax of each gene token.
fn naive_weights<T: Real>((kind, heads): (Kind, usize), x: &[Tensor<T>], bags: &[Ragged; 2]) -> Tensor<T> {
    let width = x[0].matrix().1 / kind.step(0);
    let d = width / heads;
    let at = |of: usize, row: usize, part: usize, column: usize| {
        x[of].host()[(row * kind.step(of) + kind.parts(of)[part]) * width + column]
    };
    let mut mean = Tensor::zeros(&[bags[1].rows(), heads]);
    for (bag, genes) in bags[0].iter().enumerate() {
        let count = T::of(genes.len() as f64);
        for (gene, head) in genes.flat_map(|gene| (0..heads).map(move |head| (gene, head))) {
            let keys = kind.keys(0).iter().flat_map(|&of| bags[of].bag(bag).map(move |j| (of, j)));
            let score = |(of, j): (usize, usize)| {
                let each = (head * d..(head + 1) * d).map(|c| at(0, gene, 0, c) * at(of, j, 1, c));
                (of, j, each.sum::<T>() / T::of((d as f64).sqrt()))
            };
            let scores: Vec<(usize, usize, T)> = keys.map(score).collect();
            let max = scores.iter().fold(T::neg_infinity(), |max, (.., s)| max.max(*s));
            let total = scores.iter().map(|(.., s)| (*s - max).exp()).sum::<T>();
            for (_, patch, score) in scores.iter().filter(|(of, ..)| *of == 1) {
                mean.host_mut()[patch * heads + head] += (*score - max).exp() / total / count;
            }
        }
    }
    mean
}

fn apply_as<T: Real>(
    (kind, heads): (Kind, usize),
    bags: &[Ragged; 2],
) -> impl Fn(&Tape<T>, &[Var<T>]) -> Result<Vec<Var<T>>> + '_ {
    move |tape, v| {
        let (op, genes, patches) = (PathwayAttention { heads }, (&v[0], &bags[0]), (&v[1], &bags[1]));
        match kind {
            Joint => Ok(op.forward(tape, genes, patches)?.into()),
            Guided => Ok(vec![op.guided(tape, genes, patches)?]),
        }
    }
}

/// What is attended to, and the weights of the patches behind it.
fn weighed<T: Real>(
    (kind, heads): (Kind, usize),
    bags: &[Ragged; 2],
) -> impl Fn(&Tape<T>, &[Var<T>]) -> Result<Vec<Var<T>>> + '_ {
    move |tape, v| {
        let (op, genes, patches) = (PathwayAttention { heads }, (&v[0], &bags[0]), (&v[1], &bags[1]));
        let (mut out, weights) = match kind {
            Joint => op.weighed(tape, genes, patches).map(|(out, weights)| (Vec::from(out), weights))?,
            Guided => op.guided_weighed(tape, genes, patches).map(|(out, weights)| (vec![out], weights))?,
        };
        out.push(Var::constant(weights));
        Ok(out)
    }
}

fn apply<T: Real>(heads: usize, bags: &[Ragged; 2]) -> impl Fn(&Tape<T>, &[Var<T>]) -> Result<Vec<Var<T>>> + '_ {
    apply_as((Joint, heads), bags)
}

/// Scores of either sign, some of them large, so that a key that should not be there would be seen.
fn inputs_of<T: Real>(kind: Kind, width: usize, bags: &[Ragged; 2]) -> Vec<Tensor<T>> {
    let of = |name: &str, side: usize| {
        let shape = [bags[side].rows(), kind.step(side) * width];
        let x: Tensor<T> = normal(name, &shape);
        Tensor::from_fn(&shape, |i| x.host()[i] + T::of(if i % 7 == 0 { 1.0 } else { 0.0 }))
    };
    vec![of("genes", 0), of("patches", 1)]
}

fn inputs<T: Real>(width: usize, bags: &[Ragged; 2]) -> Vec<Tensor<T>> {
    inputs_of(Joint, width, bags)
}

/// Genes and patches of each patient, width, who attends, heads: no patient, no genes, no patches, tiles and chunks with and
/// without a rest, heads of one slice and of two.
fn cases() -> Vec<([Ragged; 2], usize, (Kind, usize))> {
    let bags = |genes: &[usize], patches: &[usize]| [genes, patches].map(|n| Ragged::from_lengths(n.iter().copied()));
    vec![
        (bags(&[], &[]), 4, (Joint, 1)),
        (bags(&[0, 1, 3], &[2, 0, 0]), 3, (Joint, 1)),
        (bags(&[33, 0, 5], &[31, 32, 70]), 8, (Joint, 2)),
        (bags(&[7, 1, 32], &[0, 1025, 33]), 12, (Joint, 3)),
        // Heads of which no 16 bytes are a whole number.
        (bags(&[5, 2], &[9, 40]), 12, (Joint, 2)),
        (bags(&[40], &[540]), 128, (Joint, 1)),
        (bags(&[3, 35], &[34, 2]), 256, (Joint, 1)),
        (bags(&[], &[]), 4, (Guided, 1)),
        (bags(&[0, 1, 3], &[2, 0, 0]), 3, (Guided, 1)),
        (bags(&[6, 33], &[1025, 70]), 12, (Guided, 2)),
        (bags(&[6, 2], &[40, 33]), 266, (Guided, 2)),
        // More queries than one task has, as where tokens attend to landmarks.
        (bags(&[2100, 3, 0, 1025], &[33, 5, 7, 0]), 4, (Guided, 2)),
    ]
}

/// Of pieces of queries and chunks of patches each pair gives a part of the gradients.
#[test]
fn many_queries_and_many_patches_give_what_parts_of_the_queries_give_together() {
    let (genes, patches) = (1500, 4200);
    let x: [Tensor<f64>; 2] = [normal("genes", &[genes, 2]), normal("patches", &[patches, 4])];
    let cot: Tensor<f64> = normal("cotangent", &[genes, 2]);
    let part = |x: &Tensor<f64>, rows: std::ops::Range<usize>| {
        Tensor::new(&[rows.len(), 2], x.host()[2 * rows.start..2 * rows.end].to_vec()).unwrap()
    };
    let of = |rows: std::ops::Range<usize>| {
        let bags = [rows.len(), patches].map(|n| Ragged::uniform(1, n));
        gradients(apply_as((Guided, 1), &bags), &[part(&x[0], rows.clone()), x[1].clone()], &[part(&cot, rows)])
    };
    let (whole, parts) = (of(0..genes), [of(0..700), of(700..genes)]);
    let both = |x: fn(&(Vec<Tensor<f64>>, Vec<Tensor<f64>>)) -> &Tensor<f64>| {
        parts.iter().flat_map(|part| x(part).host().to_vec()).collect::<Vec<f64>>()
    };
    assert_golden("result", whole.0[0].host(), &both(|x| &x.0[0]), 1e-13);
    assert_golden("gradient of queries", whole.1[0].host(), &both(|x| &x.1[0]), 1e-13);
    let sum: Vec<f64> = parts[0].1[1].host().iter().zip(parts[1].1[1].host()).map(|(a, b)| a + b).collect();
    assert_golden("gradient of patches", whole.1[1].host(), &sum, 1e-13);
}

#[test]
fn values_are_as_good_as_plain_arithmetic() {
    for (bags, width, how) in cases() {
        let single = inputs_of::<f32>(how.0, width, &bags);
        let double: Vec<Tensor<f64>> = single.iter().map(cast).collect();
        let (oracle, plain) = (naive(how, &double, &bags), naive(how, &single, &bags));
        let (got, exact) = (values(apply_as(how, &bags), &single), values(apply_as(how, &bags), &double));
        for &side in how.0.sides() {
            let what = format!("side {side}, {:?}, width {width}, {how:?}", bags[side].offsets());
            // Of so many keys each value is a sum.
            let terms = how.0.keys(side).iter().map(|&of| bags[of].longest()).sum();
            assert_sums_as_good_as_plain(&what, got[side].host(), plain[side].host(), oracle[side].host(), terms);
            assert_golden(&what, exact[side].host(), oracle[side].host(), 1e-13);
        }
    }
}

#[test]
fn weights_of_patches_are_as_good_as_plain_arithmetic() {
    for (bags, width, how) in cases() {
        let single = inputs_of::<f32>(how.0, width, &bags);
        let double: Vec<Tensor<f64>> = single.iter().map(cast).collect();
        let (oracle, plain) = (naive_weights(how, &double, &bags), naive_weights(how, &single, &bags));
        let (got, exact) = (values(weighed(how, &bags), &single), values(weighed(how, &bags), &double));
        let what = format!("width {width}, {how:?}, {:?}", bags[1].offsets());
        let terms = how.0.keys(0).iter().map(|&of| bags[of].longest()).sum();
        let of = |all: &[Tensor<f32>]| all.last().unwrap().clone();
        assert_eq!(of(&got).shape(), [bags[1].rows(), how.1], "{what}");
        assert_sums_as_good_as_plain(&what, of(&got).host(), plain.host(), oracle.host(), terms);
        assert_golden(&what, exact.last().unwrap().host(), oracle.host(), 1e-13);
        // To be asked changes no bit of the rest.
        let rest = values(apply_as(how, &bags), &single);
        assert!(rest.iter().zip(&got).all(|(rest, got)| rest.host() == got.host()), "{what}");
    }
}

#[test]
fn weights_sum_to_one_where_only_patches_are_looked_at_and_to_zero_without_genes() {
    for (bags, width, how) in cases() {
        let x = inputs_of::<f64>(how.0, width, &bags);
        let weights = values(weighed(how, &bags), &x).pop().unwrap();
        for (genes, patches) in bags[0].iter().zip(bags[1].iter()) {
            for head in 0..how.1 {
                let of = |j: usize| weights.host()[j * how.1 + head];
                let sum: f64 = patches.clone().map(of).sum();
                assert!(patches.clone().all(|j| of(j) >= 0.0));
                match (genes.is_empty() || patches.is_empty(), how.0) {
                    (true, _) => assert_eq!(sum, 0.0),
                    (false, Guided) => assert!((sum - 1.0).abs() < 1e-12, "{sum}"),
                    (false, Joint) => assert!(sum > 0.0 && sum < 1.0, "{sum}"),
                }
            }
        }
    }
}

#[test]
fn permuting_patches_permutes_their_weights_and_a_nan_stays_with_its_patient() {
    let bags = [[9, 3], [200, 40]].map(Ragged::from_lengths);
    let mut x = inputs::<f64>(6, &bags);
    let want = values(weighed((Joint, 1), &bags), &x).pop().unwrap();
    let order: Vec<usize> = (0..200).rev().chain(200..240).collect();
    let got = values(weighed((Joint, 1), &bags), &[x[0].clone(), rows_of(&x[1], &order)]).pop().unwrap();
    assert_golden("weights", rows_of(&got, &order).host(), want.host(), 1e-13);
    x[1].host_mut()[5 * 18 + 6] = f64::NAN;
    let got = values(weighed((Joint, 1), &bags), &x).pop().unwrap();
    assert!(got.host()[..200].iter().all(|w| w.is_nan()) && got.host()[200..] == want.host()[200..]);
}

#[test]
fn gradients_are_as_good_as_plain_arithmetic() {
    for (bags, width, how) in cases() {
        let what = format!("width {width}, {how:?}, {:?}", bags[1].offsets());
        let x = inputs_of(how.0, width, &bags);
        // What keys get is a sum over queries, of which one case has thousands.
        let terms = if bags[0].longest() > 1000 { bags[0].longest() } else { 1 };
        let apply = apply_as(how, &bags);
        assert_gradients_of_sums_as_good_as_plain(&what, apply, apply_as(how, &bags), &x, terms);
    }
}

#[test]
fn gradient_matches_finite_differences() {
    let bags = [[2, 0, 3], [3, 2, 0]].map(Ragged::from_lengths);
    for how in [(Joint, 2), (Guided, 2)] {
        assert_gradients_match_finite_differences(
            "pathway attention",
            apply_as(how, &bags),
            &inputs_of(how.0, 4, &bags),
        );
    }
}

#[test]
fn tokens_among_themselves_are_tokens_without_patches() {
    let bags = [[5, 0, 34], [0, 0, 0]].map(Ragged::from_lengths);
    let x = inputs::<f64>(8, &bags);
    let among =
        |tape: &Tape<f64>, v: &[Var<f64>]| Ok(vec![PathwayAttention { heads: 2 }.among(tape, &v[0], &bags[0])?]);
    let cot = normal("cotangent", &[39, 8]);
    let (got, grads) = gradients(among, &x[..1], std::slice::from_ref(&cot));
    let (want, both) = gradients(apply(2, &bags), &x, &[cot, Tensor::zeros(&[0, 8])]);
    assert_eq!((got[0].host(), grads[0].host()), (want[0].host(), both[0].host()));
    assert_golden("the formula", got[0].host(), naive((Joint, 2), &x, &bags)[0].host(), 1e-13);
}

#[test]
fn a_patient_gives_the_same_bits_in_any_batch() {
    let bags = [[5, 33], [600, 40]].map(Ragged::from_lengths);
    let x = inputs::<f32>(8, &bags);
    let together = values(apply(1, &bags), &x);
    for b in 0..2 {
        let one = [0, 1].map(|i| Ragged::uniform(1, bags[i].bag(b).len()));
        let rows = |of: usize| {
            let order: Vec<usize> = bags[of].bag(b).collect();
            let data = order.iter().flat_map(|&r| x[of].host()[r * 24..(r + 1) * 24].iter().copied()).collect();
            Tensor::new(&[order.len(), 24], data).unwrap()
        };
        let alone = values(apply(1, &one), &[rows(0), rows(1)]);
        for of in 0..2 {
            let rows = bags[of].bag(b);
            assert_eq!(alone[of].host(), &together[of].host()[rows.start * 8..rows.end * 8], "bag {b}, side {of}");
        }
    }
}

#[test]
fn the_order_of_patches_does_not_matter_beyond_rounding() {
    let bags = [[9], [800]].map(Ragged::from_lengths);
    let x = inputs::<f64>(6, &bags);
    let reversed: Vec<usize> = (0..800).rev().collect();
    let got = values(apply(1, &bags), &[x[0].clone(), rows_of(&x[1], &reversed)]);
    let want = values(apply(1, &bags), &x);
    assert_golden("genes", got[0].host(), want[0].host(), 1e-14);
    assert_golden("patches", rows_of(&got[1], &reversed).host(), want[1].host(), 1e-14);
}

#[test]
fn large_scores_stay_finite_and_the_largest_takes_all() {
    let bags = [[2], [40]].map(Ragged::from_lengths);
    let mut x = inputs::<f32>(4, &bags);
    x[0].host_mut()[..4].fill(300.0);
    x[1].host_mut()[12 * 39 + 4..12 * 39 + 8].fill(300.0);
    let got = values(apply(1, &bags), &x);
    assert_eq!(got[0].host()[..4], x[1].host()[12 * 39 + 8..12 * 40]);
    assert!(got.iter().all(|x| x.host().iter().all(|x| x.is_finite())));
}

#[test]
fn gradients_of_scores_far_below_zero_are_finite() {
    let bags = [[3], [37]].map(Ragged::from_lengths);
    let x = [0, 1].map(|i| {
        let (side, packed) = (if i == 0 { 200.0 } else { -200.0 }, &inputs::<f32>(4, &bags)[i]);
        // Queries and keys of opposite signs, of either side.
        let at = |j: usize| match j % 12 {
            0..4 => 200.0,
            4..8 => -200.0 + side / 200.0,
            _ => packed.host()[j],
        };
        Tensor::from_fn(packed.shape(), at)
    });
    let cot = [normal("genes cotangent", &[3, 4]), normal("patches cotangent", &[37, 4])];
    let (out, grads) = gradients(apply(1, &bags), &x, &cot);
    assert!(out.iter().chain(&grads).all(|x| x.host().iter().all(|x| x.is_finite())));
}

#[test]
fn nan_of_one_patient_reaches_no_other() {
    let bags = [[3, 2], [4, 5]].map(Ragged::from_lengths);
    let mut x = inputs::<f32>(4, &bags);
    x[1].host_mut()[5] = f32::NAN;
    let got = values(apply(1, &bags), &x);
    assert!(got[0].host()[..12].iter().all(|x| x.is_nan()));
    assert!(got[0].host()[12..].iter().chain(&got[1].host()[16..]).all(|x| x.is_finite()));
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let bags = [[9, 7, 0], [4200, 100, 5]].map(Ragged::from_lengths);
    let x = inputs::<f32>(4, &bags);
    let cot = [normal("genes cotangent", &[16, 4]), normal("patches cotangent", &[4305, 4])];
    assert_same_on_any_number_of_threads(|| gradients(apply(1, &bags), &x, &cot));
    assert_same_on_any_number_of_threads(|| values(weighed((Joint, 2), &bags), &x));
}

#[test]
fn what_does_not_fit_is_named() {
    let tape = Tape::<f32>::inference(Device::Cpu);
    let var = |shape: &[usize]| Var::constant(Tensor::zeros(shape));
    let bags = |n: usize| Ragged::uniform(1, n);
    let op = PathwayAttention { heads: 1 };
    let error = |op: PathwayAttention, genes: &[usize], patches: &[usize], bags: [&Ragged; 2]| {
        op.forward(&tape, (&var(genes), bags[0]), (&var(patches), bags[1])).unwrap_err().to_string()
    };
    assert_eq!(
        error(op, &[2, 6], &[3, 9], [&bags(2), &bags(3)]),
        "pathway_attention: patches must have shape [3, 6], queries, keys and values of the rows of all bags, but has [3, 9]"
    );
    let guided = op.guided(&tape, (&var(&[2, 6]), &bags(2)), (&var(&[3, 6]), &bags(3))).unwrap_err().to_string();
    assert_eq!(
        guided,
        "pathway_attention: patches must have shape [3, 12], keys and values of the rows of all bags, but has [3, 6]"
    );
    assert_eq!(
        error(op, &[2, 6], &[4, 6], [&bags(2), &Ragged::uniform(2, 2)]),
        "pathway_attention: patch_bags must have shape 1 bags, as of genes, but has [2]"
    );
    let want = "pathway_attention.heads must be a divisor of the width, with at most 256 features a head, but is";
    assert_eq!(error(PathwayAttention { heads: 3 }, &[2, 6], &[3, 6], [&bags(2), &bags(3)]), format!("{want} 3"));
    assert_eq!(error(op, &[1, 771], &[1, 771], [&bags(1), &bags(1)]), format!("{want} 1"));
}
