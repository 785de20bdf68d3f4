//! Gated attention pooling.

use half::{bf16, f16};
use onkos::device::Precision;
use onkos::ops::{Affine, AttentionMil};
use onkos::{Device, Error, Features, Ragged, Real, Result, Tape, Tensor, Var};

use crate::harness::*;

/// The formula, bag by bag: pooled, weights, scores. Sums in the type itself: the oracle in f64, plain arithmetic in
/// f32. The order of `inputs` is that of [`inputs`].
fn naive<T: Real>(bags: &Ragged, inputs: &[Tensor<T>], gated: bool) -> [Vec<T>; 3] {
    let (x, v, bv, u, bu, w, bw) = match inputs {
        [x, v, bv, u, bu, w, bw] => (x, v, bv, u, bu, w, bw),
        [x, v, bv, w, bw] => (x, v, bv, v, bv, w, bw),
        _ => panic!("five or seven inputs"),
    };
    let ((n, l), (d, k)) = (x.matrix(), (bv.len(), bw.len()));
    let affine = |m: &Tensor<T>, b: &Tensor<T>, i: usize, row: usize| {
        (0..l).map(|c| m.host()[row * l + c] * x.host()[i * l + c]).sum::<T>() + b.host()[row]
    };
    let one = T::one();
    let mut scores = vec![T::zero(); n * k];
    for i in 0..n {
        let gate = |j: usize| if gated { one / (one + (-affine(u, bu, i, j)).exp()) } else { one };
        let h: Vec<T> = (0..d).map(|j| affine(v, bv, i, j).tanh() * gate(j)).collect();
        for head in 0..k {
            scores[i * k + head] = (0..d).map(|j| w.host()[head * d + j] * h[j]).sum::<T>() + bw.host()[head];
        }
    }
    let (mut pooled, mut weights) = (vec![T::zero(); bags.bags() * k * l], scores.clone());
    for (b, rows) in bags.iter().enumerate() {
        for head in 0..k {
            let max = rows.clone().map(|i| scores[i * k + head]).fold(T::neg_infinity(), T::max);
            let sum: T = rows.clone().map(|i| (scores[i * k + head] - max).exp()).sum();
            for i in rows.clone() {
                weights[i * k + head] = (scores[i * k + head] - max).exp() / sum;
                for c in 0..l {
                    pooled[(b * k + head) * l + c] += weights[i * k + head] * x.host()[i * l + c];
                }
            }
        }
    }
    [pooled, weights, scores]
}

/// `x`, then weight and bias of `v`, `u` (with a gate) and `w`; the scores have a spread of about one.
fn inputs<T: Real>(n: usize, l: usize, d: usize, k: usize, gated: bool) -> Vec<Tensor<T>> {
    let scaled = |name: &str, shape: &[usize], by: usize| {
        let (t, scale): (Tensor<T>, f64) = (normal(name, shape), 0.5f64.powi((by as f64).log2() as i32 / 2));
        Tensor::from_fn(shape, |i| t.host()[i] * T::of(scale))
    };
    let mut all = vec![normal("x", &[n, l]), scaled("v", &[d, l], l), scaled("v.bias", &[d], 1)];
    if gated {
        all.extend([scaled("u", &[d, l], l), scaled("u.bias", &[d], 1)]);
    }
    all.extend([scaled("w", &[k, d], d), scaled("w.bias", &[k], 1)]);
    all
}

/// The op on the variables of [`inputs`], whatever `x` comes from.
fn op<'a, T: Real>(rest: &'a [Var<T>]) -> AttentionMil<'a, T> {
    let map = |at: usize| Affine { weight: &rest[at], bias: Some(&rest[at + 1]) };
    AttentionMil { v: map(0), u: (rest.len() == 6).then(|| map(2)), w: map(rest.len() - 2) }
}

pub(crate) fn apply<T: Real>(bags: &Ragged) -> impl Fn(&Tape<T>, &[Var<T>]) -> Result<Vec<Var<T>>> + '_ {
    move |tape, v| {
        let out = op(&v[1..]).forward(tape, &v[0], bags)?;
        Ok(vec![out.pooled, out.weights, out.scores])
    }
}

/// Lengths of bags, `L`, `D`, `K`.
fn cases() -> Vec<(Vec<usize>, usize, usize, usize)> {
    vec![
        (vec![], 3, 2, 1),
        (vec![0, 0], 3, 2, 2),
        (vec![1], 1, 1, 1),
        (vec![0, 31, 0, 1, 32], 6, 5, 1),
        (vec![33, 1, 127, 0], 17, 9, 3),
        (vec![1, 2, 1025, 3], 40, 16, 2),
        (vec![300; 7], 33, 32, 1),
        (vec![2, 33], 130, 7, 1),
        (vec![33, 127], 17, 9, 6),
        (vec![127, 40], 384, 64, 3),
        (vec![600, 5], 64, 130, 1),
    ]
}

/// The gradients of `inputs` for cotangents of pooled, weights and scores, from the page. `product` is what a factor of
/// a large product is rounded to, `gate` what tanh, sigmoid are: the identity, but for narrow precisions.
fn naive_gradients<T: Real>(
    bags: &Ragged,
    inputs: &[Tensor<T>],
    cotangents: &[Tensor<T>],
    product: impl Fn(T) -> T,
    gate: impl Fn(T) -> T,
) -> ([Vec<T>; 3], Vec<Vec<T>>) {
    let gated = inputs.len() == 7;
    let [x, v, bv, w, bw] = [0, 1, 2, inputs.len() - 2, inputs.len() - 1].map(|i| inputs[i].host());
    let (u, bu) = if gated { (inputs[3].host(), inputs[4].host()) } else { (v, bv) };
    let ((n, l), (d, k), one) = (inputs[0].matrix(), (bv.len(), bw.len()), T::one());
    let dot = |m: &[T], j: usize, i: usize| (0..l).map(|c| product(m[j * l + c]) * product(x[i * l + c])).sum::<T>();
    let (mut tanh, mut sigmoid) = (vec![one; n * d], vec![one; n * d]);
    for at in 0..n * d {
        tanh[at] = gate((dot(v, at % d, at / d) + bv[at % d]).tanh());
        if gated {
            sigmoid[at] = gate(one / (one + (-(dot(u, at % d, at / d) + bu[at % d])).exp()));
        }
    }
    let both = |i: usize, j: usize| tanh[i * d + j] * sigmoid[i * d + j];
    let score = |at: usize| (0..d).map(|j| w[at % k * d + j] * both(at / k, j)).sum::<T>() + bw[at % k];
    let scores: Vec<T> = (0..n * k).map(score).collect();
    let (mut weights, mut d_score) = (vec![T::zero(); n * k], vec![T::zero(); n * k]);
    let mut pooled = vec![T::zero(); bags.bags() * k * l];
    let mut grads: Vec<Vec<T>> = inputs.iter().map(|t| vec![T::zero(); t.len()]).collect();
    for (b, rows) in bags.iter().enumerate() {
        for head in 0..k {
            let max = rows.clone().map(|i| scores[i * k + head]).fold(T::neg_infinity(), T::max);
            let sum: T = rows.clone().map(|i| (scores[i * k + head] - max).exp()).sum();
            let g = &cotangents[0].host()[(b * k + head) * l..][..l];
            let mut mean = T::zero();
            let mut h = vec![T::zero(); rows.len()];
            for (i, h) in rows.clone().zip(&mut h) {
                let a = (scores[i * k + head] - max).exp() / sum;
                weights[i * k + head] = a;
                *h = (0..l).map(|c| g[c] * x[i * l + c]).sum::<T>() + cotangents[1].host()[i * k + head];
                mean += a * *h;
                for c in 0..l {
                    pooled[(b * k + head) * l + c] += a * x[i * l + c];
                    grads[0][i * l + c] += a * g[c];
                }
            }
            for (i, h) in rows.clone().zip(h) {
                d_score[i * k + head] = weights[i * k + head] * (h - mean) + cotangents[2].host()[i * k + head];
            }
        }
    }
    let last = inputs.len() - 2;
    for i in 0..n {
        for j in 0..d {
            let (t, s) = (tanh[i * d + j], sigmoid[i * d + j]);
            let mut grad = T::zero();
            for head in 0..k {
                grad += d_score[i * k + head] * w[head * d + j];
                grads[last][head * d + j] += d_score[i * k + head] * t * s;
            }
            let arguments = [(1, v, grad * s * (one - t * t)), (3, u, grad * t * s * (one - s))];
            for (at, m, grad) in arguments.into_iter().take(if gated { 2 } else { 1 }) {
                grads[at + 1][j] += grad;
                for c in 0..l {
                    grads[at][j * l + c] += product(grad) * product(x[i * l + c]);
                    grads[0][i * l + c] += product(grad) * product(m[j * l + c]);
                }
            }
        }
        for head in 0..k {
            grads[last + 1][head] += d_score[i * k + head];
        }
    }
    ([pooled, weights, scores], grads)
}

/// The plain gradients of `inputs`; of each parameter those of that order of bags and of rows in which they are farthest
/// from the oracle. A sum over rows of few elements is exact by luck in some order, which must not become the tolerance.
fn plain_gradients(
    bags: &Ragged,
    inputs: &[Tensor<f32>],
    cotangents: &[Tensor<f32>],
    oracle: &[Vec<f64>],
    rounding: [&dyn Fn(f32) -> f32; 2],
) -> Vec<Vec<f32>> {
    let error = |got: &[f32], want: &[f64]| got.iter().zip(want).map(|(g, w)| (g.f64() - w).abs()).fold(0.0, f64::max);
    let mut worst = naive_gradients(bags, inputs, cotangents, rounding[0], rounding[1]).1;
    for (turn_bags, turn_rows) in [(false, true), (true, false), (true, true)] {
        let order: Vec<usize> = if turn_bags { (0..bags.bags()).rev().collect() } else { (0..bags.bags()).collect() };
        let turned =
            |b: &usize| if turn_rows { bags.bag(*b).rev().collect::<Vec<_>>() } else { bags.bag(*b).collect() };
        let rows: Vec<usize> = order.iter().flat_map(turned).collect();
        let mut given = inputs.to_vec();
        given[0] = rows_of(&inputs[0], &rows);
        let cot = [rows_of(&cotangents[0], &order), rows_of(&cotangents[1], &rows), rows_of(&cotangents[2], &rows)];
        let moved = Ragged::from_lengths(order.iter().map(|&b| bags.bag(b).len()));
        let grads = naive_gradients(&moved, &given, &cot, rounding[0], rounding[1]).1;
        for ((worst, grad), want) in worst.iter_mut().zip(grads).zip(oracle).skip(1) {
            if error(&grad, want) > error(worst, want) {
                *worst = grad;
            }
        }
    }
    worst
}

const GATED: [&str; 7] = ["x", "v", "v.bias", "u", "u.bias", "w", "w.bias"];

/// The lengths of `cases` that are worth a backward pass on every device, and long ones where they take no time.
#[test]
fn gradients_are_as_good_as_plain_arithmetic() {
    for (lengths, l, d, k) in cases() {
        let bags = Ragged::from_lengths(lengths.iter().copied());
        for gated in [true, false] {
            let single = inputs::<f32>(bags.rows(), l, d, k, gated);
            let double: Vec<Tensor<f64>> = single.iter().map(cast).collect();
            let shapes = [vec![bags.bags(), k, l], vec![bags.rows(), k], vec![bags.rows(), k]];
            let cot: Vec<Tensor<f32>> = cotangents(&shapes.map(|s| Tensor::<f32>::zeros(&s)));
            let wide: Vec<Tensor<f64>> = cot.iter().map(cast).collect();
            let (_, oracle) = naive_gradients(&bags, &double, &wide, |x| x, |x| x);
            let plain = plain_gradients(&bags, &single, &cot, &oracle, [&|x| x, &|x| x]);
            let (_, exact) = gradients(apply(&bags), &double, &wide);
            let (_, fast) = gradients(apply(&bags), &single, &cot);
            for i in 0..single.len() {
                let name = if gated { GATED[i] } else { ["x", "v", "v.bias", "w", "w.bias"][i] };
                let what = format!("gradient of {name} {lengths:?} L {l} D {d} K {k} gated {gated}");
                assert_golden(&what, exact[i].host(), &oracle[i], 1e-12);
                let terms = if i == 0 { 1 } else { bags.rows() };
                assert_sums_as_good_as_plain(&what, fast[i].host(), &plain[i], &oracle[i], terms);
            }
        }
    }
}

/// Values and gradients on a device of some precision.
fn on(
    device: Device,
    x: Option<&Features>,
    inputs: &[Tensor<f32>],
    bags: &Ragged,
    cot: &[Tensor<f32>],
) -> (Vec<Tensor<f32>>, Vec<Tensor<f32>>) {
    let tape = Tape::recording(device);
    let vars: Vec<_> = inputs.iter().map(|x| tape.leaf(placed(x))).collect();
    let op = op(&vars[1..]);
    let out = match x {
        Some(x) => op.forward(&tape, &placed_features::<f32>(x), bags),
        None => op.forward(&tape, &vars[0], bags),
    };
    let out = out.expect("the inputs of the test are valid");
    let out = [out.pooled, out.weights, out.scores];
    let roots: Vec<_> = out.iter().zip(cot).map(|(v, c)| (v, placed(c))).collect();
    let grads = tape.backward(&roots).expect("backward of valid inputs");
    let grad = |v: &Var<f32>| grads.of(v).map_or_else(|| Tensor::zeros(v.shape()), fetched);
    (out.iter().map(|v| fetched(v.value())).collect(), vars.iter().map(grad).collect())
}

/// The device under test in each precision but that of the other tests, and the significant bits of its factors; empty
/// on the CPU, which has one precision.
fn narrow() -> Vec<(Device, Precision, i32)> {
    let Device::Cuda(gpu) = device::<f32>() else {
        println!("skipped: the CPU calculates in f32 alone");
        return vec![];
    };
    [(Precision::Tf32, 11), (Precision::Bf16, 8), (Precision::F16, 11)]
        .map(|(p, bits)| (Device::Cuda(gpu.with_precision(p)), p, bits))
        .to_vec()
}

/// To nearest with so many significant bits.
fn rounded(x: f32, bits: i32) -> f32 {
    let low = 24 - bits;
    let (half, odd) = (1u32 << (low - 1), x.to_bits() >> low & 1);
    f32::from_bits((x.to_bits() + half - 1 + odd) & !((1 << low) - 1))
}

/// Plain arithmetic whose factors are rounded to the type of the precision is wrong by so much, and the device may be
/// by twice as much. In 16 bits tanh and sigmoid are rounded once more: they are kept in that type. The device's own
/// approximations are off by 2^-11, which adds a quarter to that rounding in bf16 (2^-9) and is twice as much as that
/// of f16 (2^-12): there plain arithmetic keeps one bit less of them, and twice that covers both.
#[test]
fn narrow_precisions_are_as_good_as_plain_arithmetic_with_rounded_factors() {
    for (device, precision, bits) in narrow() {
        for (lengths, l, d, k, gated) in
            [(vec![33, 0, 1, 90], 33, 70, 1, true), (vec![130, 2], 72, 20, 3, true), (vec![50, 31], 64, 33, 2, false)]
        {
            let bags = Ragged::from_lengths(lengths.iter().copied());
            let single = inputs::<f32>(bags.rows(), l, d, k, gated);
            let double: Vec<Tensor<f64>> = single.iter().map(cast).collect();
            let shapes = [vec![bags.bags(), k, l], vec![bags.rows(), k], vec![bags.rows(), k]];
            let cot: Vec<Tensor<f32>> = cotangents(&shapes.map(|s| Tensor::<f32>::zeros(&s)));
            let wide: Vec<Tensor<f64>> = cot.iter().map(cast).collect();
            let (oracle, oracle_grads) = naive_gradients(&bags, &double, &wide, |x| x, |x| x);
            let product = |x| rounded(x, bits);
            let gate = |x| match precision {
                Precision::F32 | Precision::Tf32 => x,
                Precision::Bf16 => rounded(x, 8),
                Precision::F16 => rounded(x, 10),
            };
            let (plain, _) = naive_gradients(&bags, &single, &cot, product, gate);
            let plain_grads = plain_gradients(&bags, &single, &cot, &oracle_grads, [&product, &gate]);
            let (out, grads) = on(device, None, &single, &bags, &cot);
            let what = |name: &str| format!("{precision:?} {name} {lengths:?} L {l} D {d} K {k} gated {gated}");
            for (i, name) in ["pooled", "weights", "scores"].iter().enumerate() {
                assert_as_good_as_plain(&what(name), out[i].host(), &plain[i], &oracle[i]);
            }
            for i in 0..single.len() {
                let (what, terms) = (what(&format!("d{i}")), if i == 0 { 1 } else { bags.rows() });
                assert_sums_as_good_as_plain(&what, grads[i].host(), &plain_grads[i], &oracle_grads[i], terms);
            }
            assert_eq!(on(device, None, &single, &bags, &cot), (out, grads), "the same bits again");
        }
    }
}

/// Features in bf16 and rows of a multiple of 64: what the kernel for Hopper takes, where the device is one.
#[test]
fn features_in_bf16_are_as_good_as_plain_arithmetic_with_rounded_factors() {
    for (device, _, bits) in narrow().into_iter().filter(|(_, precision, _)| *precision == Precision::Bf16) {
        for (lengths, l, d) in [(vec![33, 0, 1, 90], 64, 70), (vec![513, 2], 128, 20)] {
            let bags = Ragged::from_lengths(lengths.iter().copied());
            let mut single = inputs::<f32>(bags.rows(), l, d, 1, true);
            let x: Tensor<bf16> = Tensor::from_fn(single[0].shape(), |i| bf16::from_f32(single[0].host()[i]));
            single[0] = Tensor::from_fn(x.shape(), |i| x.host()[i].to_f32());
            let double: Vec<Tensor<f64>> = single.iter().map(cast).collect();
            let shapes = [vec![bags.bags(), 1, l], vec![bags.rows(), 1], vec![bags.rows(), 1]];
            let cot: Vec<Tensor<f32>> = cotangents(&shapes.map(|s| Tensor::<f32>::zeros(&s)));
            let wide: Vec<Tensor<f64>> = cot.iter().map(cast).collect();
            let (oracle, oracle_grads) = naive_gradients(&bags, &double, &wide, |x| x, |x| x);
            let round = |x| rounded(x, bits);
            let (plain, _) = naive_gradients(&bags, &single, &cot, round, round);
            let plain_grads = plain_gradients(&bags, &single, &cot, &oracle_grads, [&round, &round]);
            let (out, grads) = on(device, Some(&Features::Bf16(x)), &single, &bags, &cot);
            for (i, name) in ["pooled", "weights", "scores"].iter().enumerate() {
                let what = format!("{name} {lengths:?} L {l} D {d}");
                assert_as_good_as_plain(&what, out[i].host(), &plain[i], &oracle[i]);
            }
            for i in 1..single.len() {
                let (what, terms) = (format!("gradient of {} {lengths:?} L {l} D {d}", GATED[i]), bags.rows());
                assert_sums_as_good_as_plain(&what, grads[i].host(), &plain_grads[i], &oracle_grads[i], terms);
            }
        }
    }
}

#[test]
fn a_bag_has_the_same_bits_whatever_else_is_in_the_batch() {
    let Device::Cuda(gpu) = device::<f32>() else {
        println!("skipped: on the CPU tiles do not begin with bags, so the last bits may differ");
        return;
    };
    let (lengths, l, d, k) = ([31, 0, 600, 1, 128], 24, 12, 2);
    let bags = Ragged::from_lengths(lengths);
    let all = inputs::<f32>(bags.rows(), l, d, k, true);
    let cot: [Tensor<f32>; 3] =
        [normal("p", &[5, k, l]), normal("a", &[bags.rows(), k]), normal("s", &[bags.rows(), k])];
    let slice = |t: &Tensor<f32>, width: usize, rows: std::ops::Range<usize>| {
        Tensor::new(&[rows.len(), width], t.host()[rows.start * width..rows.end * width].to_vec()).unwrap()
    };
    for precision in [Precision::F32, Precision::Bf16] {
        let device = Device::Cuda(gpu.with_precision(precision));
        let (out, grads) = on(device, None, &all, &bags, &cot);
        for (b, rows) in bags.iter().enumerate() {
            let mut given = all.clone();
            given[0] = slice(&all[0], l, rows.clone());
            let cot = [
                slice(&cot[0], k * l, b..b + 1).reshape(&[1, k, l]).unwrap(),
                slice(&cot[1], k, rows.clone()),
                slice(&cot[2], k, rows.clone()),
            ];
            let (alone, alone_grads) = on(device, None, &given, &Ragged::from_lengths([rows.len()]), &cot);
            assert_eq!(alone[0].host(), slice(&out[0], k * l, b..b + 1).host(), "pooled of bag {b}");
            assert_eq!(alone[1].host(), slice(&out[1], k, rows.clone()).host(), "weights of bag {b}");
            assert_eq!(alone[2].host(), slice(&out[2], k, rows.clone()).host(), "scores of bag {b}");
            assert_eq!(alone_grads[0].host(), slice(&grads[0], l, rows.clone()).host(), "gradient of bag {b}");
        }
    }
}

#[test]
fn a_very_long_bag_beside_bags_of_one() {
    if emulated() {
        println!("skipped: too long for the emulated device");
        return;
    }
    let (l, d, k) = (16, 8, 1);
    let bags = Ragged::from_lengths([1, 1, 100_000, 1]);
    let single = inputs::<f32>(bags.rows(), l, d, k, true);
    let double: Vec<Tensor<f64>> = single.iter().map(cast).collect();
    let (oracle, plain) = (naive(&bags, &double, true), naive(&bags, &single, true));
    let out = values(apply(&bags), &single);
    for (i, name) in ["pooled", "weights", "scores"].iter().enumerate() {
        assert_as_good_as_plain(name, out[i].host(), &plain[i], &oracle[i]);
    }
}

#[test]
fn values_are_as_good_as_plain_arithmetic() {
    for (lengths, l, d, k) in cases() {
        let bags = Ragged::from_lengths(lengths.iter().copied());
        for gated in [true, false] {
            let single = inputs::<f32>(bags.rows(), l, d, k, gated);
            let double: Vec<Tensor<f64>> = single.iter().map(cast).collect();
            let (oracle, plain) = (naive(&bags, &double, gated), naive(&bags, &single, gated));
            let (fast, exact) = (values(apply(&bags), &single), values(apply(&bags), &double));
            for (i, name) in ["pooled", "weights", "scores"].iter().enumerate() {
                let what = format!("{name} {lengths:?} L {l} D {d} K {k} gated {gated}");
                assert_as_good_as_plain(&what, fast[i].host(), &plain[i], &oracle[i]);
                assert_golden(&what, exact[i].host(), &oracle[i], 1e-13);
            }
        }
    }
}

#[test]
fn gradient_matches_finite_differences() {
    for gated in [true, false] {
        let bags = Ragged::from_lengths([3, 0, 1, 4]);
        assert_gradients_match_finite_differences("attention", apply(&bags), &inputs(8, 4, 3, 2, gated));
    }
    let bags = Ragged::from_lengths([2, 3]);
    let without_biases = |tape: &Tape<f64>, v: &[Var<f64>]| {
        let map = |weight| Affine { weight, bias: None };
        let op = AttentionMil { v: map(&v[1]), u: Some(map(&v[2])), w: map(&v[3]) };
        Ok(vec![op.forward(tape, &v[0], &bags)?.pooled])
    };
    let all = inputs(5, 3, 2, 1, true);
    let given = [0, 1, 3, 5].map(|i| all[i].clone());
    assert_gradients_match_finite_differences("no biases", without_biases, &given);
}

#[test]
fn weights_sum_to_one_over_each_bag_and_head() {
    let bags = Ragged::from_lengths([5, 0, 700, 1]);
    let weights = values(apply(&bags), &inputs::<f64>(706, 7, 4, 3, true)).remove(1);
    for rows in bags.iter().filter(|rows| !rows.is_empty()) {
        for head in 0..3 {
            let sum: f64 = rows.clone().map(|i| weights.host()[i * 3 + head]).sum();
            // Each weight is rounded once: half a unit in the last place of at most 1 in sum, and the sum itself.
            assert!((sum - 1.0).abs() <= rows.len() as f64 * f64::EPSILON, "{rows:?} {head}: {sum}");
        }
    }
}

#[test]
fn single_instance_bag_has_weight_one() {
    let bags = Ragged::from_lengths([1, 1, 1]);
    let given = inputs::<f32>(3, 5, 4, 2, true);
    let out = values(apply(&bags), &given);
    assert!(out[1].host().iter().all(|a| *a == 1.0));
    for b in 0..3 {
        for head in 0..2 {
            let at = (b * 2 + head) * 5;
            assert_eq!(out[0].host()[at..at + 5], given[0].host()[b * 5..b * 5 + 5]);
        }
    }
}

#[test]
fn empty_bag_pools_to_zero_and_takes_no_gradient() {
    let full = Ragged::from_lengths([4, 3]);
    let with_empty = Ragged::from_lengths([0, 4, 0, 3, 0]);
    let given = inputs::<f32>(7, 5, 4, 2, true);
    let cot: [Tensor<f32>; 3] = [normal("g", &[2, 2, 5]), normal("a", &[7, 2]), normal("s", &[7, 2])];
    let mut spread = Tensor::full(&[5, 2, 5], 1e9);
    spread.host_mut()[10..20].copy_from_slice(&cot[0].host()[..10]);
    spread.host_mut()[30..40].copy_from_slice(&cot[0].host()[10..]);
    let (out, grads) = gradients(apply(&full), &given, &cot);
    let (out_empty, grads_empty) = gradients(apply(&with_empty), &given, &[spread, cot[1].clone(), cot[2].clone()]);
    assert_eq!(grads, grads_empty);
    let pooled = out_empty[0].host();
    for b in [0, 2, 4] {
        assert!(pooled[b * 10..(b + 1) * 10].iter().all(|x| *x == 0.0));
    }
    assert_eq!([&pooled[10..20], &pooled[30..40]].concat(), out[0].host());
}

#[test]
fn permuting_the_instances_of_a_bag_permutes_the_weights() {
    let (n, l) = (300, 6);
    let bags = Ragged::from_lengths([n]);
    let given = inputs::<f64>(n, l, 4, 2, true);
    // 7 and 300 have no common divisor, so this is a permutation.
    let from = |i: usize| i * 7 % n;
    let mut moved = given.clone();
    moved[0] = Tensor::from_fn(&[n, l], |at| given[0].host()[from(at / l) * l + at % l]);
    let (out, out_moved) = (values(apply(&bags), &given), values(apply(&bags), &moved));
    let want: Vec<f64> = (0..n * 2).map(|at| out[1].host()[from(at / 2) * 2 + at % 2]).collect();
    assert_golden("weights", out_moved[1].host(), &want, 1e-13);
    assert_golden("pooled", out_moved[0].host(), out[0].host(), 1e-13);
}

#[test]
fn a_shift_of_the_last_bias_changes_nothing_but_the_scores() {
    let bags = Ragged::from_lengths([40, 300]);
    let given = inputs::<f64>(340, 6, 4, 2, true);
    let mut shifted = given.clone();
    shifted[6].host_mut().iter_mut().for_each(|b| *b += 3.0);
    let (out, moved) = (values(apply(&bags), &given), values(apply(&bags), &shifted));
    assert_golden("weights", moved[1].host(), out[1].host(), 1e-13);
    assert_golden("pooled", moved[0].host(), out[0].host(), 1e-13);
}

#[test]
fn a_batch_of_bags_equals_the_bags_one_by_one() {
    let lengths = [31, 0, 700, 1, 256];
    let (l, d, k) = (20, 8, 2);
    let bags = Ragged::from_lengths(lengths);
    let single = inputs::<f32>(bags.rows(), l, d, k, true);
    let double: Vec<Tensor<f64>> = single.iter().map(cast).collect();
    let (oracle, plain) = (naive(&bags, &double, true), naive(&bags, &single, true));
    let mut one_by_one = [vec![], vec![], vec![]];
    for rows in bags.iter() {
        let mut given = single.clone();
        let x = &single[0].host()[rows.start * l..rows.end * l];
        given[0] = Tensor::new(&[rows.len(), l], x.to_vec()).unwrap();
        let out = values(apply(&Ragged::from_lengths([rows.len()])), &given);
        one_by_one.iter_mut().zip(out).for_each(|(all, out)| all.extend_from_slice(out.host()));
    }
    for ((got, plain), oracle) in one_by_one.iter().zip(&plain).zip(&oracle) {
        assert_as_good_as_plain("one by one", got, plain, oracle);
    }
}

#[test]
fn large_scores_stay_finite_and_the_largest_takes_all() {
    let bags = Ragged::from_lengths([400]);
    let mut given = inputs::<f32>(400, 4, 3, 1, true);
    given[5].host_mut().iter_mut().for_each(|w| *w = 2e4 * w.signum());
    let out = values(apply(&bags), &given);
    let largest = out[2].host().iter().fold(0f32, |m, s| m.max(s.abs()));
    assert!(largest > 1e4, "the test must reach large scores, not {largest}");
    let cot = cotangents(&out);
    let (out, grads) = gradients(apply(&bags), &given, &cot);
    assert!(out.iter().chain(&grads).all(|t| t.host().iter().all(|x| x.is_finite())));
    let top = (0..400).max_by(|&a, &b| out[2].host()[a].total_cmp(&out[2].host()[b])).unwrap();
    assert!(out[1].host()[top] > 0.5);
}

#[test]
fn nan_in_one_bag_reaches_no_other() {
    let bags = Ragged::from_lengths([40, 3, 600]);
    let l = 5;
    let clean = inputs::<f32>(bags.rows(), l, 4, 2, true);
    let mut given = clean.clone();
    given[0].host_mut()[41 * l] = f32::NAN;
    let cot = cotangents(&values(apply(&bags), &clean));
    let (want, want_grads) = gradients(apply(&bags), &clean, &cot);
    let (out, grads) = gradients(apply(&bags), &given, &cot);
    let same = |got: &Tensor<f32>, want: &Tensor<f32>, spoiled: std::ops::Range<usize>| {
        assert!(got.host()[spoiled.clone()].iter().any(|x| x.is_nan()));
        assert_eq!(got.host()[..spoiled.start], want.host()[..spoiled.start]);
        assert_eq!(got.host()[spoiled.end..], want.host()[spoiled.end..]);
    };
    same(&out[0], &want[0], 2 * l..4 * l);
    same(&out[1], &want[1], 2 * 40..2 * 43);
    same(&out[2], &want[2], 2 * 41..2 * 42);
    same(&grads[0], &want_grads[0], 40 * l..43 * l);
}

#[test]
fn stored_features_give_what_their_widened_values_give() {
    let bags = Ragged::from_lengths([600, 0, 50]);
    let (n, l) = (650, 20);
    let all = inputs::<f32>(n, l, 6, 2, true);
    let (x, rest) = (&all[0], &all[1..]);
    let halves = Tensor::from_fn(&[n, l], |i| f16::from_f32(x.host()[i]));
    let brains = Tensor::from_fn(&[n, l], |i| bf16::from_f32(x.host()[i]));
    let wide_half = Tensor::from_fn(&[n, l], |i| halves.host()[i].to_f32());
    let wide_brain = Tensor::from_fn(&[n, l], |i| brains.host()[i].to_f32());
    for (stored, wide) in [
        (Features::F16(halves), wide_half),
        (Features::Bf16(brains), wide_brain),
        (Features::F32(x.clone()), x.clone()),
    ] {
        let (stored, wide) = (placed_features::<f32>(&stored), placed(&wide));
        let from_stored = |tape: &Tape<f32>, v: &[Var<f32>]| {
            let out = op(v).forward(tape, &stored, &bags)?;
            Ok(vec![out.pooled, out.weights, out.scores])
        };
        let from_wide = |tape: &Tape<f32>, v: &[Var<f32>]| {
            let out = op(v).forward(tape, &Var::constant(wide.clone()), &bags)?;
            Ok(vec![out.pooled, out.weights, out.scores])
        };
        let cot = cotangents(&values(from_wide, rest));
        assert_eq!(gradients(from_stored, rest, &cot), gradients(from_wide, rest, &cot));
    }
}

#[test]
fn stored_features_give_the_bits_of_their_widened_values_in_narrow_precisions_too() {
    let bags = Ragged::from_lengths([40, 0, 100]);
    for (device, precision, _) in narrow() {
        for l in [33, 40] {
            let mut all = inputs::<f32>(140, l, 12, 1, true);
            // Few digits, so that every type holds them.
            all[0] = Tensor::from_fn(&[140, l], |i| rounded(all[0].host()[i], 8));
            let stored = [
                Features::F16(Tensor::from_fn(&[140, l], |i| f16::from_f32(all[0].host()[i]))),
                Features::Bf16(Tensor::from_fn(&[140, l], |i| bf16::from_f32(all[0].host()[i]))),
                Features::F32(all[0].clone()),
            ];
            let cot: [Tensor<f32>; 3] = [normal("p", &[3, 1, l]), normal("a", &[140, 1]), normal("s", &[140, 1])];
            let (want, want_grads) = on(device, None, &all, &bags, &cot);
            for x in &stored {
                let (out, grads) = on(device, Some(x), &all, &bags, &cot);
                assert_eq!(out, want, "{precision:?} {}", x.dtype());
                assert_eq!(grads[1..], want_grads[1..], "{precision:?} {}", x.dtype());
            }
        }
    }
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let bags = Ragged::from_lengths([1, 3000, 0, 7, 2000]);
    let given = inputs::<f32>(bags.rows(), 24, 16, 2, true);
    let cot = cotangents(&values(apply(&bags), &given));
    assert_same_on_any_number_of_threads(|| gradients(apply(&bags), &given, &cot));
}

#[test]
fn shapes_that_do_not_fit_are_named() {
    let bags = Ragged::from_lengths([2, 3]);
    let refused = |change: usize, shape: &[usize]| {
        let mut given = inputs::<f32>(5, 4, 3, 2, true);
        given[change] = Tensor::zeros(shape);
        let tape = Tape::inference(Device::Cpu);
        let vars: Vec<_> = given.into_iter().map(Var::constant).collect();
        apply(&bags)(&tape, &vars).unwrap_err()
    };
    assert_eq!(refused(1, &[3, 5]).to_string(), "attention_mil: v must have shape [3, 4], but has [3, 5]");
    for (change, shape, name) in [
        (0, &[4, 4][..], "x"),
        (2, &[4], "v.bias"),
        (3, &[2, 4], "u"),
        (4, &[4], "u.bias"),
        (5, &[0, 3], "w"),
        (6, &[3], "w.bias"),
    ] {
        assert!(matches!(refused(change, shape), Error::Shape { arg, .. } if arg == name), "{name}");
    }
}
