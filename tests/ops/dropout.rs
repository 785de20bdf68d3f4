//! Dropout, plain and alpha.

use onkos::ops::{BagDraws, Dropout, DropoutKind};
use onkos::rng::Draws;
use onkos::{Device, Error, Ragged, Real, Result, Tape, Tensor, Var};

use crate::harness::*;

const KINDS: [DropoutKind; 2] = [DropoutKind::Plain, DropoutKind::Alpha];

fn draws(patients: &[u32]) -> BagDraws {
    BagDraws::new(Draws::new(7, 2, "dropout.test"), patients)
}

/// The formula, element by element, the words asked for one at a time.
fn naive<T: Real>(op: Dropout, x: &Tensor<T>, bags: &Ragged, draws: &BagDraws) -> Tensor<T> {
    let (columns, p) = (x.matrix().1, op.p);
    let limit = -1.7580993408473766;
    let a = ((1.0 - p) * (1.0 + p * limit * limit)).powf(-0.5);
    let c = -a * limit * p;
    Tensor::from_fn(x.shape(), |at| {
        let (row, column) = (at / columns, at % columns);
        let bag = bags.bag_of(row);
        let word = (row - bags.bag(bag).start) * columns + column;
        let keep = draws.of(bag).uniform(word as u64) >= p;
        match op.kind {
            DropoutKind::Plain if keep => x.host()[at] * T::of(1.0 / (1.0 - p)),
            DropoutKind::Plain => T::zero(),
            DropoutKind::Alpha if keep => T::of(a) * x.host()[at] + T::of(c),
            DropoutKind::Alpha => T::of(a * limit + c),
        }
    })
}

fn apply<T: Real>(
    op: Dropout,
    bags: Ragged,
    draws: BagDraws,
) -> impl Fn(&Tape<T>, &[Var<T>]) -> Result<Vec<Var<T>>> + Sync {
    move |tape, v| Ok(vec![op.forward(tape, &v[0], &bags, Some(&draws))?])
}

#[test]
fn every_element_follows_its_own_word() {
    for kind in KINDS {
        let cases = [
            (vec![0, 1, 31, 0, 600, 5], 7),
            (vec![33], 128),
            (vec![1; 40], 1),
            (vec![], 3),
            (vec![2, 1, 0, 1, 3, 900], 6),
            (vec![40, 0, 130, 7], 32),
        ];
        for (lengths, columns) in cases {
            let op = Dropout { p: 0.3, kind };
            let bags = Ragged::from_lengths(lengths);
            let patients: Vec<u32> = (0..bags.bags() as u32).map(|b| 100 - b).collect();
            let x: Tensor<f32> = normal("x", &[bags.rows(), columns]);
            let got = &values(apply(op, bags.clone(), draws(&patients)), std::slice::from_ref(&x))[0];
            let oracle = naive::<f64>(op, &cast(&x), &bags, &draws(&patients));
            let plain = naive(op, &x, &bags, &draws(&patients));
            assert_as_good_as_plain(&format!("{kind:?}"), got.host(), plain.host(), oracle.host());
            let (single, double) =
                (apply(op, bags.clone(), draws(&patients)), apply(op, bags.clone(), draws(&patients)));
            assert_gradients_as_good_as_plain(&format!("{kind:?}"), single, double, &[x]);
        }
    }
}

#[test]
fn gradient_matches_finite_differences() {
    for kind in KINDS {
        let f = apply(Dropout { p: 0.4, kind }, Ragged::from_lengths([2, 0, 3]), draws(&[4, 5, 6]));
        assert_gradients_match_finite_differences("dropout", f, &[normal("x", &[5, 6])]);
    }
}

#[test]
fn evaluation_and_p_zero_are_the_identity() {
    let (tape, bags) = (Tape::<f32>::recording(Device::Cpu), Ragged::from_lengths([3, 4]));
    let x = tape.leaf(normal("x", &[7, 5]));
    for kind in KINDS {
        let eval = Dropout { p: 0.5, kind }.forward(&tape, &x, &bags, None).unwrap();
        let zero = Dropout { p: 0.0, kind }.forward(&tape, &x, &bags, Some(&draws(&[1, 2]))).unwrap();
        assert_eq!((eval.value(), zero.value()), (x.value(), x.value()));
    }
}

#[test]
fn the_share_of_dropped_elements_is_p() {
    let (n, p) = (200_000, 0.25);
    let op = Dropout { p, kind: DropoutKind::Plain };
    let y = &values(apply(op, Ragged::uniform(1, n / 8), draws(&[9])), &[Tensor::full(&[n / 8, 8], 1f64)])[0];
    let dropped = y.host().iter().filter(|y| **y == 0.0).count() as f64 / n as f64;
    // Six standard errors of a proportion.
    assert!((dropped - p).abs() < 6.0 * (p * (1.0 - p) / n as f64).sqrt(), "{dropped}");
}

#[test]
fn alpha_dropout_keeps_mean_and_variance_of_standard_numbers() {
    let n = 200_000;
    let op = Dropout { p: 0.25, kind: DropoutKind::Alpha };
    let y = &values(apply(op, Ragged::uniform(1, n), draws(&[9])), &[normal::<f64>("x", &[n, 1])])[0];
    let mean = |f: &dyn Fn(f64) -> f64| y.host().iter().map(|y| f(*y)).sum::<f64>() / n as f64;
    // Six standard errors, with the fourth moment of the sample itself for that of the variance.
    let (first, second, fourth) = (mean(&|y| y), mean(&|y| y * y), mean(&|y| y.powi(4)));
    assert!(first.abs() < 6.0 / (n as f64).sqrt(), "mean {first}");
    assert!((second - 1.0).abs() < 6.0 * ((fourth - second * second) / n as f64).sqrt(), "variance {second}");
}

#[test]
fn alpha_dropout_has_the_constants_of_the_literature() {
    // A kept 0 gives C and a kept 1 gives A + C; method of SELU networks at p = 0.25, six digits.
    let op = Dropout { p: 0.25, kind: DropoutKind::Alpha };
    let at = |x: f64| {
        let y = &values(apply(op, Ragged::uniform(1, 64), draws(&[9])), &[Tensor::full(&[64, 1], x)])[0];
        y.host().iter().copied().fold(f64::MIN, f64::max)
    };
    assert!((at(0.0) - 0.381_181).abs() < 5e-7 && (at(1.0) - at(0.0) - 0.867_258).abs() < 5e-7);
}

#[test]
fn a_batch_gives_what_its_bags_give_one_by_one_in_any_order() {
    let bags = Ragged::from_lengths([3, 0, 300, 17]);
    let x: Tensor<f32> = normal("x", &[320, 9]);
    let op = Dropout { p: 0.5, kind: DropoutKind::Alpha };
    let together = &values(apply(op, bags.clone(), draws(&[5, 6, 7, 8])), std::slice::from_ref(&x))[0];
    for b in 0..4 {
        let rows = bags.bag(b);
        let (n, cut) = (rows.len(), rows.start * 9..rows.end * 9);
        let alone = Tensor::new(&[n, 9], x.host()[cut.clone()].to_vec()).unwrap();
        let alone = &values(apply(op, Ragged::uniform(1, n), draws(&[5 + b as u32])), &[alone])[0];
        assert_eq!(alone.host(), &together.host()[cut]);
    }
}

#[test]
fn nan_in_a_dropped_element_does_not_spread() {
    let op = Dropout { p: 0.5, kind: DropoutKind::Plain };
    let y = &values(apply(op, Ragged::uniform(1, 64), draws(&[9])), &[Tensor::full(&[64, 1], f32::NAN)])[0];
    let zeros = y.host().iter().filter(|y| **y == 0.0).count();
    let nans = y.host().iter().filter(|y| y.is_nan()).count();
    assert!(zeros > 0 && nans > 0 && zeros + nans == 64);
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let given = [normal::<f32>("x", &[3000, 21])];
    let cot = [normal("cotangent", &[3000, 21])];
    let f = apply(Dropout { p: 0.1, kind: DropoutKind::Plain }, Ragged::from_lengths([1000, 2000]), draws(&[1, 2]));
    assert_same_on_any_number_of_threads(|| gradients(&f, &given, &cot));
}

#[test]
fn settings_and_shapes_that_do_not_fit_are_named() {
    let tape = Tape::<f32>::inference(Device::Cpu);
    let x = Var::constant(Tensor::zeros(&[3, 2]));
    let op = |p| Dropout { p, kind: DropoutKind::Plain };
    for p in [1.0, -0.1, f64::NAN] {
        let error = op(p).forward(&tape, &x, &Ragged::uniform(1, 3), None).unwrap_err();
        assert!(matches!(error, Error::Setting { name: "dropout.p", .. }), "{error}");
    }
    let error = op(0.5).forward(&tape, &x, &Ragged::uniform(1, 4), None).unwrap_err();
    assert_eq!(error.to_string(), "dropout: x must have shape [4, D], the rows of its bags, but has [3, 2]");
    let error = op(0.5).forward(&tape, &x, &Ragged::uniform(1, 3), Some(&draws(&[1, 2]))).unwrap_err();
    assert!(matches!(error, Error::Shape { arg: "patients", .. }));
}
