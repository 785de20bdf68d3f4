//! Means of bags.

use onkos::ops::SegmentMean;
use onkos::{Device, Ragged, Real, Result, Tape, Tensor, Var};

use crate::harness::*;

/// The formula, with sums in the type itself.
fn naive<T: Real>(x: &Tensor<T>, bags: &Ragged) -> Tensor<T> {
    let (_, d) = x.matrix();
    Tensor::from_fn(&[bags.bags(), d], |at| {
        let rows = bags.bag(at / d);
        let n = T::of(rows.len().max(1) as f64);
        rows.map(|i| x.host()[i * d + at % d]).sum::<T>() / n
    })
}

fn apply<T: Real>(bags: &Ragged) -> impl Fn(&Tape<T>, &[Var<T>]) -> Result<Vec<Var<T>>> + '_ {
    move |tape, v| Ok(vec![SegmentMean.forward(tape, &v[0], bags)?])
}

#[test]
fn values_are_as_good_as_plain_arithmetic() {
    let cases = [vec![], vec![0, 0], vec![1], vec![0, 31, 0, 32, 33, 127], vec![2, 10_000, 1, 4096]];
    for lengths in cases {
        let bags = Ragged::from_lengths(lengths.iter().copied());
        for width in [5, 32] {
            let single: Tensor<f32> = normal("x", &[bags.rows(), width]);
            let double: Tensor<f64> = cast(&single);
            let (oracle, plain) = (naive(&double, &bags), naive(&single, &bags));
            let what = format!("{lengths:?} x {width}");
            assert_as_good_as_plain(&what, values(apply(&bags), &[single])[0].host(), plain.host(), oracle.host());
            assert_golden(&what, values(apply(&bags), &[double])[0].host(), oracle.host(), 1e-12);
        }
    }
}

#[test]
fn gradients_and_wide_rows_are_as_good_as_plain_arithmetic() {
    for (lengths, width) in [(vec![], 3), (vec![0, 131, 0, 1, 128, 129, 300], 6), (vec![2, 0, 130], 1100), (vec![4], 0)]
    {
        let bags = Ragged::from_lengths(lengths);
        let x = normal("x", &[bags.rows(), width]);
        let what = format!("{} x {width}", bags.rows());
        assert_gradients_as_good_as_plain(&what, apply(&bags), apply(&bags), std::slice::from_ref(&x));
        let (oracle, plain) = (naive::<f64>(&cast(&x), &bags), naive(&x, &bags));
        assert_as_good_as_plain(&what, values(apply(&bags), &[x])[0].host(), plain.host(), oracle.host());
    }
}

#[test]
fn a_bag_gives_the_same_bits_in_any_batch() {
    let bags = Ragged::from_lengths([77, 500, 0, 129]);
    let x: Tensor<f32> = normal("x", &[706, 8]);
    let together = &values(apply(&bags), std::slice::from_ref(&x))[0];
    for (b, rows) in bags.iter().enumerate() {
        let alone = Tensor::new(&[rows.len(), 8], x.host()[rows.start * 8..rows.end * 8].to_vec()).unwrap();
        let alone = &values(apply(&Ragged::uniform(1, rows.len())), &[alone])[0];
        assert_eq!(alone.host(), &together.host()[b * 8..(b + 1) * 8], "bag {b}");
    }
}

#[test]
fn gradient_matches_finite_differences() {
    let bags = Ragged::from_lengths([2, 0, 1, 4]);
    assert_gradients_match_finite_differences("segment mean", apply(&bags), &[normal("x", &[7, 3])]);
}

#[test]
fn an_empty_bag_has_mean_zero() {
    let bags = Ragged::from_lengths([0, 1, 0]);
    let y = &values(apply(&bags), &[Tensor::full(&[1, 2], 3f32)])[0];
    assert_eq!(y.host(), [0.0, 0.0, 3.0, 3.0, 0.0, 0.0]);
}

#[test]
fn nan_in_one_bag_reaches_no_other() {
    let bags = Ragged::from_lengths([3, 2, 1]);
    let mut x: Tensor<f32> = normal("x", &[6, 1]);
    x.host_mut()[3] = f32::NAN;
    let y = &values(apply(&bags), &[x])[0];
    assert_eq!(y.host().iter().map(|y| y.is_nan()).collect::<Vec<_>>(), [false, true, false]);
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
    let error = SegmentMean.forward(&tape, &x, &Ragged::from_lengths([3])).unwrap_err();
    assert_eq!(error.to_string(), "segment_mean: x must have shape [3, D], the rows of all bags, but has [4, 2]");
}
