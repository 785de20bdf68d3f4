//! Convolution along the tokens of each bag.

use onkos::ops::SequenceConv;
use onkos::{Device, Ragged, Real, Result, Tape, Tensor, Var};

use crate::harness::*;

/// The formula and the gradients of it, product by product: result, gradient of `x`, gradient of `weight`.
fn naive<T: Real>(x: &Tensor<T>, bags: &Ragged, weight: &Tensor<T>, grad: &Tensor<T>) -> [Tensor<T>; 3] {
    let ((_, e), (heads, length)) = (x.matrix(), weight.matrix());
    let [mut y, mut dx, mut dw] = [x, x, weight].map(|t| Tensor::zeros(t.shape()));
    for bag in bags.iter() {
        for (i, c) in bag.clone().flat_map(|i| (0..e).map(move |c| (i, c))) {
            for k in 0..length {
                let (row, w) = (i + k, c / (e / heads) * length + k);
                let Some(row) = row.checked_sub(length / 2).filter(|row| bag.contains(row)) else { continue };
                let (here, there) = (i * e + c, row * e + c);
                y.host_mut()[here] += weight.host()[w] * x.host()[there];
                dx.host_mut()[there] += weight.host()[w] * grad.host()[here];
                dw.host_mut()[w] += grad.host()[here] * x.host()[there];
            }
        }
    }
    [y, dx, dw]
}

fn apply<T: Real>(bags: &Ragged) -> impl Fn(&Tape<T>, &[Var<T>]) -> Result<Vec<Var<T>>> + Sync {
    let bags = bags.clone();
    move |tape, v| Ok(vec![SequenceConv.forward(tape, &v[0], &bags, &v[1])?])
}

#[test]
fn values_and_gradients_are_as_good_as_plain_arithmetic() {
    // Lengths of bags, columns, heads, and weights of a head.
    let cases: [(&[usize], usize, usize, usize); 12] = [
        (&[], 4, 2, 3),
        (&[0, 0], 5, 1, 5),
        (&[4, 3], 0, 1, 3),
        (&[1], 5, 5, 33),
        (&[2, 1, 3], 6, 2, 1),
        (&[0, 31, 0, 32, 33, 127, 16, 17], 6, 3, 33),
        (&[128, 131, 2, 129, 300], 36, 9, 5),
        (&[257, 1, 0, 1000, 2], 64, 8, 33),
        (&[2, 130, 260], 33, 11, 127),
        (&[40, 300], 31, 1, 17),
        (&[3, 0, 20], 1100, 4, 3),
        (&[9000, 5], 2, 1, 15),
    ];
    for (lengths, e, h, k) in cases {
        let (bags, what) = (Ragged::from_lengths(lengths.iter().copied()), format!("{lengths:?} x {e}, {h} x {k}"));
        let (x, weight): (Tensor<f32>, Tensor<f32>) = (normal("x", &[bags.rows(), e]), normal("weight", &[h, k]));
        let cot: Tensor<f32> = normal("cotangent", x.shape());
        let wide: [Tensor<f64>; 3] = [&x, &weight, &cot].map(cast);
        let oracle = naive(&wide[0], &bags, &wide[1], &wide[2]);
        let plain = naive(&x, &bags, &weight, &cot);
        let (y, grads) = gradients(apply(&bags), &[x, weight], &[cot]);
        let terms = [k, k, bags.rows() * e / h];
        for (i, got) in y.iter().chain(&grads).enumerate() {
            let what = format!("{what}: {}", ["result", "gradient of x", "gradient of weight"][i]);
            assert_sums_as_good_as_plain(&what, got.host(), plain[i].host(), oracle[i].host(), terms[i].max(1));
        }
        let [x, weight, cot] = wide;
        let (y, grads) = gradients(apply(&bags), &[x, weight], &[cot]);
        for (i, got) in y.iter().chain(&grads).enumerate() {
            // So many terms in two orders.
            assert_golden(&what, got.host(), oracle[i].host(), (1 + terms[i]) as f64 * f64::EPSILON);
        }
    }
}

#[test]
fn gradients_match_finite_differences() {
    let bags = Ragged::from_lengths([3, 0, 1, 6]);
    let inputs = [normal("x", &[10, 4]), normal("weight", &[2, 5])];
    assert_gradients_match_finite_differences("sequence_conv", apply(&bags), &inputs);
}

/// At the first row of a bag, the last, within, and on either side of the end of a tile.
#[test]
fn parts_of_an_impulse_come_back_as_the_kernel_backwards() {
    let (bags, weight) = (Ragged::from_lengths([7, 300, 40]), normal::<f32>("weight", &[2, 33]));
    for row in [7, 8, 20, 100, 134, 135, 263, 290, 306] {
        let mut x = Tensor::zeros(&[347, 4]);
        x.host_mut()[4 * row + 2] = 1f32;
        let y = &values(apply(&bags), &[x, weight.clone()])[0];
        let want = |i: usize| {
            let term = (row + 16).checked_sub(i / 4).filter(|k| *k < 33 && i % 4 == 2 && (7..307).contains(&(i / 4)));
            term.map_or(0.0, |k| weight.host()[33 + k])
        };
        assert_eq!(y.host(), Tensor::from_fn(&[347, 4], want).host(), "an impulse in row {row}");
    }
}

#[test]
fn a_kernel_with_a_single_one_shifts_each_bag_by_itself() {
    let bags = Ragged::from_lengths([1, 0, 129, 2, 300, 31]);
    let x: Tensor<f32> = normal("x", &[463, 40]);
    for k in [0, 1, 15, 16, 17, 18, 33, 34] {
        let weight = Tensor::from_fn(&[1, 35], |i| if i == k { 1f32 } else { 0.0 });
        let y = &values(apply(&bags), &[x.clone(), weight])[0];
        for (b, bag) in bags.iter().enumerate() {
            for i in bag.clone() {
                let from = (i + k).checked_sub(17).filter(|row| bag.contains(row));
                let want = from.map_or(vec![0.0; 40], |row| x.host()[40 * row..][..40].to_vec());
                assert_eq!(y.host()[40 * i..][..40], want, "row {i} of bag {b}, by {k}");
            }
        }
    }
}

#[test]
fn nan_reaches_the_rows_around_it_in_its_bag_and_column_alone() {
    let bags = Ragged::from_lengths([3, 200, 2, 40]);
    let weight: Tensor<f32> = normal("weight", &[2, 9]);
    for row in [3usize, 130, 131, 202] {
        let mut odd: Tensor<f32> = normal("x", &[245, 6]);
        odd.host_mut()[6 * row + 4] = f32::NAN;
        let even: Tensor<f32> = normal("even", &[245, 6]);
        let near: Vec<usize> = (3..203usize).filter(|i| i.abs_diff(row) <= 4).map(|i| 6 * i + 4).collect();
        let nans = |t: &Tensor<f32>| -> Vec<usize> { (0..t.len()).filter(|i| t.host()[*i].is_nan()).collect() };
        let (y, grads) = gradients(apply(&bags), &[odd.clone(), weight.clone()], std::slice::from_ref(&even));
        assert_eq!(nans(&y[0]), near, "NaN in row {row}");
        assert_eq!(nans(&grads[0]), [0; 0], "the gradient of x does not read x");
        assert!(nans(&grads[1]).iter().all(|i| *i >= 9) && grads[1].host()[9 + 4].is_nan(), "the other head");
        let (_, grads) = gradients(apply(&bags), &[even, weight.clone()], &[odd]);
        assert_eq!(nans(&grads[0]), near, "NaN in row {row} of the gradient");
        assert!(nans(&grads[1]).iter().all(|i| *i >= 9) && grads[1].host()[9 + 4].is_nan(), "the other head");
    }
}

#[test]
fn a_bag_gives_the_same_bits_in_any_batch() {
    let bags = Ragged::from_lengths([77, 500, 0, 129, 1]);
    let (x, cot) = (normal::<f32>("x", &[707, 8]), normal::<f32>("cotangent", &[707, 8]));
    let weight = normal::<f32>("weight", &[2, 33]);
    let (y, grads) = gradients(apply(&bags), &[x.clone(), weight.clone()], std::slice::from_ref(&cot));
    for (b, rows) in bags.iter().enumerate() {
        let own =
            |t: &Tensor<f32>| Tensor::new(&[rows.len(), 8], t.host()[8 * rows.start..8 * rows.end].to_vec()).unwrap();
        let alone = Ragged::uniform(1, rows.len());
        let (y_alone, grads_alone) = gradients(apply(&alone), &[own(&x), weight.clone()], &[own(&cot)]);
        assert_eq!((&y_alone[0], &grads_alone[0]), (&own(&y[0]), &own(&grads[0])), "bag {b}");
    }
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let bags = Ragged::from_lengths([900, 1, 0, 5000, 3]);
    let (inputs, cot) =
        ([normal::<f32>("x", &[5904, 6]), normal("weight", &[3, 9])], [normal("cotangent", &[5904, 6])]);
    assert_same_on_any_number_of_threads(|| gradients(apply(&bags), &inputs, &cot));
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    let tape = Tape::<f32>::inference(Device::Cpu);
    let say = |rows: usize, weight: &[usize]| {
        let [x, weight] = [Tensor::zeros(&[rows, 6]), Tensor::zeros(weight)].map(Var::constant);
        SequenceConv.forward(&tape, &x, &Ragged::uniform(1, 3), &weight).map(|_| ()).map_err(|e| e.to_string())
    };
    assert_eq!(
        say(4, &[2, 3]).unwrap_err(),
        "sequence_conv: x must have shape [3, D], the rows of its bags, but has [4, 6]"
    );
    for shape in [&[4, 3][..], &[0, 3], &[2, 4], &[2, 0], &[2, 129], &[3], &[7, 3]] {
        let want = "[H, K] with H a divisor of the 6 columns and K odd, at most 127";
        assert_eq!(
            say(3, shape).unwrap_err(),
            format!("sequence_conv: weight must have shape {want}, but has {shape:?}")
        );
    }
    for shape in [[1, 1], [6, 127], [3, 33]] {
        assert_eq!(say(3, &shape), Ok(()));
    }
}
