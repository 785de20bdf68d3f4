//! Rows of bags, gathered.

use onkos::ops::gather::Gather;
use onkos::{Element, Error, Feature, Features, Ragged, Tensor};

use crate::harness::*;

/// The formula.
fn naive<F: Element>(x: &Tensor<F>, starts: &[usize], bags: &Ragged) -> Tensor<F> {
    let (_, l) = x.matrix();
    Tensor::from_fn(&[bags.rows(), l], |at| {
        let (row, b) = (at / l, bags.bag_of(at / l));
        x.host()[(starts[b] + row - bags.bag(b).start) * l + at % l]
    })
}

/// Every element another value, as far as the type goes.
fn counted<F: Feature>(rows: usize, l: usize, of: impl Fn(f32) -> F) -> Tensor<F> {
    Tensor::from_fn(&[rows, l], |i| of((i % 251) as f32 - (i / 251 % 200) as f32 * 0.25))
}

fn check<F: Feature>(of: impl Fn(f32) -> F + Copy) {
    for l in [1, 7, 8, 36, 256, 1000, 1544] {
        for (starts, lengths) in [
            (vec![], vec![]),
            (vec![0, 3], vec![0, 0]),
            (vec![5], vec![1]),
            (vec![40, 70, 0, 3, 9], vec![31, 0, 3, 33, 1]),
            // Overlapping, out of order, empty ones at both ends, the last row.
            (vec![73, 10, 0, 9, 73, 73], vec![0, 63, 32, 1, 0, 0]),
        ] {
            let (x, bags) = (counted(73, l, of), Ragged::from_lengths(lengths));
            let want = naive(&x, &starts, &bags);
            let got = Gather.forward(&x.to(device::<f32>()).unwrap(), &starts, &bags).unwrap();
            assert_eq!(got.read().unwrap(), want.host(), "{} L {l} starts {starts:?}", F::NAME);
        }
    }
}

#[test]
fn rows_are_copied_bit_for_bit() {
    check(|x| x);
    check(half::f16::from_f32);
    check(half::bf16::from_f32);
}

#[test]
fn bags_of_one_row_are_found_in_a_long_list() {
    let (n, l) = (700, 4);
    let x = counted(n, l, |x| x);
    let starts: Vec<usize> = (0..n).map(|i| i * 37 % n).collect();
    let bags = Ragged::from_lengths((0..n).map(|i| usize::from(i % 5 != 2)));
    let want = naive(&x, &starts, &bags);
    let got = Gather.features(&Features::F32(placed(&x)), &starts, &bags).unwrap();
    assert_eq!(got.to(onkos::Device::Cpu).unwrap(), Features::F32(want));
}

#[test]
fn bags_outside_the_matrix_are_refused() {
    let x = Tensor::<f32>::zeros(&[4, 2]);
    let bags = Ragged::from_lengths([2, 3]);
    let error = Gather.forward(&x, &[0], &bags).unwrap_err();
    assert_eq!(error.to_string(), "gather: starts must have shape [2], one start a bag, but has [1]");
    for start in [2, usize::MAX] {
        assert!(matches!(Gather.forward(&x, &[2, start], &bags), Err(Error::Value { index: 1, .. })), "{start}");
    }
}
