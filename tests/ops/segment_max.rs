//! Maxima of bags.

use onkos::ops::SegmentMax;
use onkos::{Device, Ragged, Real, Result, Tape, Tensor, Var};

use crate::harness::*;

/// The formula: the first row of each bag whose element no other exceeds, `None` for an empty bag.
fn rows_of_maxima(x: &Tensor<f64>, bags: &Ragged) -> Vec<Option<usize>> {
    let (_, d) = x.matrix();
    let at = |i: usize, j: usize| x.host()[i * d + j];
    let first = |b: usize, j: usize| {
        let all = |i: &usize| bags.bag(b).all(|other| at(other, j) <= at(*i, j));
        bags.bag(b).find(all)
    };
    (0..bags.bags() * d).map(|k| first(k / d, k % d)).collect()
}

fn naive(x: &Tensor<f64>, bags: &Ragged) -> Vec<f64> {
    let (_, d) = x.matrix();
    let rows = rows_of_maxima(x, bags).into_iter().enumerate();
    rows.map(|(k, row)| row.map_or(0.0, |i| x.host()[i * d + k % d])).collect()
}

/// Of the gradient of the result, what each element gets.
fn naive_gradient(x: &Tensor<f64>, bags: &Ragged, grad: &Tensor<f64>) -> Vec<f64> {
    let (_, d) = x.matrix();
    let mut dx = vec![0.0; x.len()];
    for (k, row) in rows_of_maxima(x, bags).into_iter().enumerate() {
        if let Some(i) = row {
            dx[i * d + k % d] += grad.host()[k];
        }
    }
    dx
}

fn apply<T: Real>(bags: &Ragged) -> impl Fn(&Tape<T>, &[Var<T>]) -> Result<Vec<Var<T>>> + '_ {
    move |tape, v| Ok(vec![SegmentMax.forward(tape, &v[0], bags)?])
}

/// Values and gradient of one input, for a gradient of the result of ones.
fn both(bags: &Ragged, x: &Tensor<f32>) -> (Vec<f32>, Vec<f32>) {
    let ones = Tensor::full(&[bags.bags(), x.matrix().1], 1.0);
    let (y, dx) = gradients(apply(bags), std::slice::from_ref(x), &[ones]);
    (y[0].host().to_vec(), dx[0].host().to_vec())
}

/// Nothing is rounded, so the tolerance is zero.
#[test]
fn values_and_gradients_are_exactly_those_of_the_formula() {
    let cases: [(Vec<usize>, usize); 9] = [
        (vec![], 3),
        (vec![0, 0], 5),
        (vec![1], 5),
        (vec![4], 0),
        (vec![0, 31, 0, 32, 33, 127], 5),
        (vec![0, 131, 0, 1, 128, 129, 300], 6),
        (vec![257, 2, 0, 130], 32),
        (vec![2, 0, 130], 1100),
        (vec![2, 9000, 1, 4096, 4097], 1),
    ];
    for (lengths, width) in cases {
        let bags = Ragged::from_lengths(lengths.iter().copied());
        let single: Tensor<f32> = normal("x", &[bags.rows(), width]);
        let double: Tensor<f64> = cast(&single);
        let what = format!("{lengths:?} x {width}");
        let grad: Tensor<f32> = normal("grad", &[bags.bags(), width]);
        let (want, owed) = (naive(&double, &bags), naive_gradient(&double, &bags, &cast(&grad)));
        let (y, dx) = gradients(apply(&bags), &[single], std::slice::from_ref(&grad));
        assert_within(&what, y[0].host(), &want, 0.0);
        assert_within(&format!("{what}: gradient"), dx[0].host(), &owed, 0.0);
        let (y, dx) = gradients(apply(&bags), &[double], &[cast(&grad)]);
        assert_within(&what, y[0].host(), &want, 0.0);
        assert_within(&format!("{what}: gradient"), dx[0].host(), &owed, 0.0);
    }
}

#[test]
fn gradient_matches_finite_differences() {
    let bags = Ragged::from_lengths([2, 0, 1, 4]);
    assert_gradients_match_finite_differences("segment max", apply(&bags), &[normal("x", &[7, 3])]);
}

#[test]
fn of_equal_elements_the_first_row_gets_the_gradient() {
    // Side by side, in different threads, in different tiles, and in different pieces of the CPU.
    let bags = Ragged::from_lengths([3, 10_000]);
    for rows in [[1, 2], [5, 6], [7, 136], [4, 5000], [4099, 9000], [130, 9999]] {
        let mut x = Tensor::full(&[10_003, 2], -1f32);
        for row in rows {
            x.host_mut()[2 * row + 1] = 4.0;
        }
        let (y, dx) = both(&bags, &x);
        let bag = usize::from(rows[0] > 2);
        assert_eq!(y[2 * bag + 1], 4.0, "{rows:?}");
        let column: Vec<usize> = (0..10_003).filter(|i| dx[2 * i + 1] != 0.0).collect();
        // In the other bag all are equal.
        let mut want = [rows[0], if bag == 0 { 3 } else { 0 }];
        want.sort_unstable();
        assert_eq!(column, want, "{rows:?}");
    }
}

#[test]
fn zeros_of_either_sign_are_equal() {
    let x = Tensor::new(&[3, 1], vec![-0f32, 0.0, -0.0]).unwrap();
    let (y, dx) = both(&Ragged::uniform(1, 3), &x);
    assert_eq!((y[0].to_bits(), dx), ((-0f32).to_bits(), vec![1.0, 0.0, 0.0]));
}

#[test]
fn an_empty_bag_has_maximum_zero_and_passes_no_gradient() {
    let bags = Ragged::from_lengths([0, 1, 0]);
    let (y, dx) = both(&bags, &Tensor::full(&[1, 2], -3.0));
    assert_eq!((y, dx), (vec![0.0, 0.0, -3.0, -3.0, 0.0, 0.0], vec![1.0, 1.0]));
}

#[test]
fn elements_below_zero_and_infinities_are_elements_too() {
    for n in [1, 3, 300] {
        let bags = Ragged::uniform(2, n);
        let low = f32::NEG_INFINITY;
        let x = Tensor::from_fn(&[2 * n, 1], |i| if i < n { low } else { -1.0 - i as f32 });
        let (y, dx) = both(&bags, &x);
        assert_eq!(y, [low, -1.0 - n as f32]);
        assert_eq!((0..2 * n).filter(|&i| dx[i] != 0.0).collect::<Vec<_>>(), [0, n], "the first row of each");
    }
}

#[test]
fn nan_is_the_maximum_of_its_bag_and_column_and_reaches_no_other() {
    let bags = Ragged::from_lengths([300, 5000, 1]);
    // A column has a row a thread in the narrow one, several rows a thread in the wide one.
    for width in [2, 40] {
        for nans in [vec![300], vec![301, 302], vec![301, 332], vec![5299], vec![437, 4800], vec![309, 310, 5000]] {
            let mut x: Tensor<f32> = normal("x", &[5301, width]);
            x.host_mut()[width * 303] = f32::INFINITY;
            for row in &nans {
                x.host_mut()[width * row] = f32::NAN;
            }
            let (y, dx) = both(&bags, &x);
            assert_eq!((0..3 * width).filter(|&i| y[i].is_nan()).collect::<Vec<_>>(), [width]);
            let owed: Vec<usize> = (300..5300).filter(|i| dx[width * i] != 0.0).collect();
            assert_eq!(owed, nans[..1], "the first NaN of {nans:?} gets the gradient");
        }
    }
}

#[test]
fn a_bag_gives_the_same_bits_in_any_batch_and_in_any_order_of_its_rows() {
    let bags = Ragged::from_lengths([77, 500, 0, 129]);
    let x: Tensor<f32> = normal("x", &[706, 8]);
    let together = &values(apply(&bags), std::slice::from_ref(&x))[0];
    for (b, rows) in bags.iter().enumerate() {
        let alone = Tensor::new(&[rows.len(), 8], x.host()[rows.start * 8..rows.end * 8].to_vec()).unwrap();
        let backwards = rows_of(&alone, &(0..rows.len()).rev().collect::<Vec<_>>());
        for bag in [alone, backwards] {
            let y = &values(apply(&Ragged::uniform(1, rows.len())), &[bag])[0];
            assert_eq!(y.host(), &together.host()[b * 8..(b + 1) * 8], "bag {b}");
        }
    }
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let bags = Ragged::from_lengths([9000, 1, 0, 5000]);
    let (x, cot) = (normal::<f32>("x", &[14_001, 6]), [normal("cotangent", &[4, 6])]);
    assert_same_on_any_number_of_threads(|| gradients(apply(&bags), std::slice::from_ref(&x), &cot));
}

#[test]
fn rows_that_do_not_fit_are_refused() {
    let tape = Tape::<f32>::inference(Device::Cpu);
    let x = Var::constant(Tensor::zeros(&[4, 2]));
    let error = SegmentMax.forward(&tape, &x, &Ragged::from_lengths([3])).unwrap_err();
    assert_eq!(error.to_string(), "segment_max: x must have shape [3, D], the rows of all bags, but has [4, 2]");
}
