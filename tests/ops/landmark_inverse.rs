//! The inverse between landmarks.

use onkos::ops::LandmarkInverse;
use onkos::{Device, Ragged, Real, Result, Tape, Tensor, Var};

use crate::harness::*;

type Square<T> = Vec<Vec<T>>;

fn product<T: Real>(a: &Square<T>, b: &Square<T>) -> Square<T> {
    let columns = b.first().map_or(0, Vec::len);
    let element = |row: &Vec<T>, j: usize| row.iter().zip(b).map(|(a, b)| *a * b[j]).sum::<T>();
    a.iter().map(|row| (0..columns).map(|j| element(row, j)).collect()).collect()
}

/// `diagonal I - x`.
fn less<T: Real>(diagonal: f64, x: &Square<T>) -> Square<T> {
    let of = |i: usize, j: usize| if i == j { T::of(diagonal) } else { T::zero() };
    x.iter().enumerate().map(|(i, row)| row.iter().enumerate().map(|(j, x)| of(i, j) - *x).collect()).collect()
}

/// The columns of a head of the rows of a bag.
fn part<T: Real>(x: &Tensor<T>, rows: std::ops::Range<usize>, head: usize, d: usize) -> Square<T> {
    let width = x.matrix().1;
    rows.map(|r| x.host()[r * width + head * d..][..d].to_vec()).collect()
}

fn softmax<T: Real>(q: &Square<T>, k: &Square<T>, d: usize) -> Square<T> {
    let score =
        |q: &Vec<T>, k: &Vec<T>| q.iter().zip(k).map(|(q, k)| *q * *k).sum::<T>() / T::of((d.max(1) as f64).sqrt());
    let row = |q: &Vec<T>| {
        let scores: Vec<T> = k.iter().map(|k| score(q, k)).collect();
        let max = scores.iter().fold(T::neg_infinity(), |m, x| m.max(*x));
        let exps: Vec<T> = scores.iter().map(|x| (*x - max).exp()).collect();
        let sum: T = exps.iter().copied().sum();
        exps.into_iter().map(|x| x / sum).collect()
    };
    q.iter().map(row).collect()
}

/// The formula, in the type itself.
fn naive<T: Real>(op: LandmarkInverse, x: &[Tensor<T>], bags: &Ragged) -> Tensor<T> {
    let width = x[0].matrix().1;
    let d = width / op.heads;
    let each: Vec<_> = (0..bags.bags()).flat_map(|b| (0..op.heads).map(move |h| (bags.bag(b), h))).collect();
    let soft: Vec<Square<T>> = each
        .iter()
        .map(|(rows, h)| softmax(&part(&x[0], rows.clone(), *h, d), &part(&x[1], rows.clone(), *h, d), d))
        .collect();
    let largest = |a: &Square<T>| {
        let sum = |j: usize| a.iter().map(|row| row[j]).sum::<T>();
        (0..a.len()).map(sum).fold(T::zero(), T::max)
    };
    let most = soft.iter().map(largest).fold(T::zero(), T::max);
    let mut y = Tensor::zeros(&[bags.rows(), width]);
    for ((rows, h), a) in each.into_iter().zip(&soft) {
        let divisor = if op.together { most } else { largest(a) };
        let mut z: Square<T> = (0..a.len()).map(|i| a.iter().map(|row| row[i] / divisor).collect()).collect();
        for _ in 0..op.iterations {
            let p = product(a, &z);
            let inner = less(15.0, &product(&p, &less(7.0, &p)));
            z = product(&z, &less(13.0, &product(&p, &inner)));
            z.iter_mut().flatten().for_each(|z| *z *= T::of(0.25));
        }
        for (row, of) in rows.clone().zip(product(&z, &part(&x[2], rows, h, d))) {
            y.host_mut()[row * width + h * d..][..d].copy_from_slice(&of);
        }
    }
    y
}

fn apply<T: Real>(op: LandmarkInverse, bags: &Ragged) -> impl Fn(&Tape<T>, &[Var<T>]) -> Result<Vec<Var<T>>> + '_ {
    move |tape, v| Ok(vec![op.forward(tape, &v[0], &v[1], &v[2], bags)?])
}

fn inputs<T: Real>(rows: usize, width: usize) -> Vec<Tensor<T>> {
    ["queries", "keys", "values"].map(|name| normal(name, &[rows, width])).into()
}

fn op(heads: usize, together: bool) -> LandmarkInverse {
    LandmarkInverse { heads, iterations: 6, together }
}

/// Landmarks of each bag, heads, features of a head: no bag, empty ones, one landmark, fewer, as many and more than a tile of a
/// product has, its depth of 16 and its 64 rows not reached and passed.
fn cases() -> Vec<(Vec<usize>, usize, usize)> {
    vec![
        (vec![], 2, 3),
        (vec![0, 1, 0], 2, 3),
        (vec![5, 0, 17, 2], 2, 5),
        (vec![31, 64, 9], 1, 16),
        (vec![33, 70], 3, 66),
        (vec![4], 2, 0),
    ]
}

#[test]
fn values_are_as_good_as_plain_arithmetic() {
    for (lengths, heads, d) in cases() {
        for together in [false, true] {
            let (bags, op) = (Ragged::from_lengths(lengths.iter().copied()), op(heads, together));
            let single = inputs::<f32>(bags.rows(), heads * d);
            let double: Vec<Tensor<f64>> = single.iter().map(cast).collect();
            let (oracle, plain) = (naive(op, &double, &bags), naive(op, &single, &bags));
            let what = format!("{lengths:?}, {heads} heads of {d}, together {together}");
            assert_as_good_as_plain(&what, values(apply(op, &bags), &single)[0].host(), plain.host(), oracle.host());
            assert_golden(&what, values(apply(op, &bags), &double)[0].host(), oracle.host(), 1e-12);
        }
    }
}

#[test]
fn gradients_match_finite_differences() {
    // Few iterations, many, none; with and without a divisor of all.
    for (iterations, together) in [(0, false), (1, true), (2, false), (6, true), (6, false)] {
        let bags = Ragged::from_lengths([3, 0, 1, 4]);
        let op = LandmarkInverse { iterations, ..op(2, together) };
        let what = format!("{iterations} iterations, together {together}");
        assert_gradients_match_finite_differences(&what, apply(op, &bags), &inputs(8, 6));
    }
}

#[test]
fn gradients_are_as_good_as_plain_arithmetic() {
    for (lengths, heads, d) in cases() {
        for together in [false, true] {
            let (bags, op) = (Ragged::from_lengths(lengths.iter().copied()), op(heads, together));
            let what = format!("{lengths:?}, {heads} heads of {d}, together {together}");
            let x = inputs(bags.rows(), heads * d);
            assert_gradients_as_good_as_plain(&what, apply(op, &bags), apply(op, &bags), &x);
        }
    }
}

/// With sharp scores the softmax is nearly the identity, and its inverse gives the values back.
#[test]
fn more_iterations_come_nearer_to_the_inverse() {
    let bags = Ragged::uniform(1, 6);
    let mut x = inputs::<f64>(6, 6);
    for i in 0..2 {
        x[i] = Tensor::from_fn(&[6, 6], |at| if at / 6 == at % 6 { 3.0 } else { 0.1 * x[i].host()[at] });
    }
    let a = softmax(&part(&x[0], 0..6, 0, 6), &part(&x[1], 0..6, 0, 6), 6);
    let off = |iterations: usize| {
        let y = &values(apply(LandmarkInverse { iterations, ..op(1, false) }, &bags), &x)[0];
        let back = product(&a, &part(y, 0..6, 0, 6));
        back.iter().flatten().zip(x[2].host()).map(|(b, v)| (b - v).abs()).fold(0.0, f64::max)
    };
    assert!(off(6) < 0.1 * off(1), "{} after one, {} after six", off(1), off(6));
    assert!(off(20) < 1e-9, "{} after twenty", off(20));
}

#[test]
fn large_scores_do_not_overflow() {
    let bags = Ragged::from_lengths([9, 40]);
    let mut x = inputs::<f32>(49, 8);
    x[0].host_mut().iter_mut().for_each(|x| *x *= 300.0);
    let double: Vec<Tensor<f64>> = x.iter().map(cast).collect();
    let (oracle, plain) = (naive(op(2, false), &double, &bags), naive(op(2, false), &x, &bags));
    let y = values(apply(op(2, false), &bags), &x);
    assert_as_good_as_plain("large", y[0].host(), plain.host(), oracle.host());
}

#[test]
fn a_bag_gives_the_same_bits_in_any_batch_unless_they_go_together() {
    let bags = Ragged::from_lengths([7, 0, 40, 3]);
    let x = inputs::<f32>(50, 8);
    let part = |i: usize, rows: std::ops::Range<usize>| {
        Tensor::new(&[rows.len(), 8], x[i].host()[rows.start * 8..rows.end * 8].to_vec()).unwrap()
    };
    for together in [false, true] {
        let all = values(apply(op(2, together), &bags), &x);
        let mut same = Vec::new();
        for rows in bags.iter().filter(|rows| !rows.is_empty()) {
            let one = [0, 1, 2].map(|i| part(i, rows.clone()));
            let alone = values(apply(op(2, together), &Ragged::uniform(1, rows.len())), &one);
            same.push(alone[0].host() == &all[0].host()[rows.start * 8..rows.end * 8]);
        }
        // One of them has the largest sum of a column, and the others another divisor.
        assert_eq!(same.iter().filter(|same| **same).count(), if together { 1 } else { 3 });
    }
}

#[test]
fn nan_of_one_bag_reaches_no_other() {
    let bags = Ragged::from_lengths([3, 4]);
    let mut x = inputs::<f32>(7, 4);
    x[1].host_mut()[5] = f32::NAN;
    let (y, grads) = gradients(apply(op(2, false), &bags), &x, &[normal("cotangent", &[7, 4])]);
    assert!(y[0].host()[..12].iter().any(|x| x.is_nan()));
    for x in std::iter::once(&y[0]).chain(&grads) {
        assert!(x.host()[12..].iter().all(|x| x.is_finite()));
    }
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let bags = Ragged::from_lengths([30, 1, 0, 50]);
    let cot = [normal("cotangent", &[81, 12])];
    for together in [false, true] {
        let x = inputs::<f32>(81, 12);
        assert_same_on_any_number_of_threads(|| gradients(apply(op(3, together), &bags), &x, &cot));
    }
}

#[test]
fn what_does_not_fit_is_named() {
    let tape = Tape::<f32>::inference(Device::Cpu);
    let var = |shape: &[usize]| Var::constant(Tensor::zeros(shape));
    let error = |op: LandmarkInverse, x: [&[usize]; 3], bags: usize| {
        let [q, k, v] = x.map(var);
        op.forward(&tape, &q, &k, &v, &Ragged::uniform(1, bags)).unwrap_err().to_string()
    };
    let square: [&[usize]; 3] = [&[4, 6]; 3];
    assert_eq!(error(op(4, false), square, 4), "landmark_inverse.heads must be a divisor of the width, but is 4");
    assert_eq!(error(op(0, false), square, 4), "landmark_inverse.heads must be a divisor of the width, but is 0");
    let many = LandmarkInverse { iterations: 65, ..op(2, false) };
    assert_eq!(error(many, square, 4), "landmark_inverse.iterations must be at most 64, but is 65");
    assert_eq!(
        error(op(2, false), [&[4, 6], &[4, 8], &[4, 6]], 4),
        "landmark_inverse: keys must have shape [4, 6], the landmarks of all bags, but has [4, 8]"
    );
    assert_eq!(
        error(op(2, false), [&[1025, 2]; 3], 1025),
        "landmark_inverse: bags must have shape at most 1024 landmarks a bag, but has [1025]"
    );
}
