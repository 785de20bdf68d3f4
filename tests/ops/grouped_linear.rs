//! Many small layers at once.

use onkos::ops::{Activation, GroupedLinear, Linear};
use onkos::{Device, Error, Ragged, Real, Result, Tape, Tensor, Var};

use crate::harness::*;

/// The formula, with sums in the type itself.
fn naive<T: Real>(f: Activation, groups: &Ragged, x: &Tensor<T>, w: &Tensor<T>, b: &Tensor<T>) -> Tensor<T> {
    let ((samples, inputs), (s, o)) = (x.matrix(), b.matrix());
    Tensor::from_fn(&[samples * s, o], |at| {
        let (row, out) = (at / o, at % o);
        let (sample, group) = (row / s, row % s);
        let columns = groups.bag(group);
        let first = columns.start * o + out * columns.len();
        let terms = columns.clone().map(|c| x.host()[sample * inputs + c] * w.host()[first + c - columns.start]);
        f.value(terms.sum::<T>() + b.host()[group * o + out])
    })
}

fn inputs<T: Real>(samples: usize, groups: &Ragged, o: usize) -> Vec<Tensor<T>> {
    let i = groups.rows();
    vec![normal("x", &[samples, i]), normal("weight", &[o * i]), normal("bias", &[groups.bags(), o])]
}

fn apply<T: Real>(
    f: Activation,
    groups: &Ragged,
    o: usize,
) -> impl Fn(&Tape<T>, &[Var<T>]) -> Result<Vec<Var<T>>> + '_ {
    move |tape, v| Ok(vec![GroupedLinear { activation: f }.forward(tape, &v[0], groups, o, &v[1], v.get(2))?])
}

#[test]
fn values_are_as_good_as_plain_arithmetic() {
    let widths = [vec![], vec![0], vec![1], vec![3, 0, 31, 1, 127, 0], vec![8; 40]];
    for widths in widths {
        for (samples, o) in [(0, 2), (1, 16), (5, 3), (33, 1), (2, 65)] {
            for f in Activation::ALL {
                let groups = Ragged::from_lengths(widths.iter().copied());
                let single = inputs::<f32>(samples, &groups, o);
                let double: Vec<Tensor<f64>> = single.iter().map(cast).collect();
                let oracle = naive(f, &groups, &double[0], &double[1], &double[2]);
                let plain = naive(f, &groups, &single[0], &single[1], &single[2]);
                let what = format!("{f:?} {widths:?} B {samples} O {o}");
                let got = values(apply(f, &groups, o), &single);
                assert_as_good_as_plain(&what, got[0].host(), plain.host(), oracle.host());
                assert_golden(&what, values(apply(f, &groups, o), &double)[0].host(), oracle.host(), 1e-13);
            }
        }
    }
}

/// The gradients by the formula, with sums in the type itself.
fn naive_gradients<T: Real>(f: Activation, groups: &Ragged, given: &[Tensor<T>], grad: &Tensor<T>) -> [Tensor<T>; 3] {
    let ((samples, inputs), (s, o)) = (given[0].matrix(), given[2].matrix());
    let (x, w) = (given[0].host(), given[1].host());
    let argument = naive(Activation::Identity, groups, &given[0], &given[1], &given[2]);
    let kept = |a: T| if f.keeps_argument() { a } else { f.value(a) };
    let g: Vec<T> = argument.host().iter().zip(grad.host()).map(|(a, grad)| *grad * f.slope(kept(*a))).collect();
    // The element of the weight for an output and a column, and the place of a gradient.
    let place = |group: usize, out: usize, column: usize| {
        let columns = groups.bag(group);
        columns.start * o + out * columns.len() + column - columns.start
    };
    let at = |sample: usize, group: usize, out: usize| g[(sample * s + group) * o + out];
    let mut dw = Tensor::zeros(given[1].shape());
    for (group, columns) in groups.iter().enumerate() {
        for (out, column) in (0..o).flat_map(|out| columns.clone().map(move |c| (out, c))) {
            dw.host_mut()[place(group, out, column)] =
                (0..samples).map(|b| at(b, group, out) * x[b * inputs + column]).sum();
        }
    }
    let dx = Tensor::from_fn(&[samples, inputs], |i| {
        let (b, column) = (i / inputs, i % inputs);
        let group = groups.bag_of(column);
        (0..o).map(|out| at(b, group, out) * w[place(group, out, column)]).sum()
    });
    [dx, dw, Tensor::from_fn(&[s, o], |i| (0..samples).map(|b| at(b, i / o, i % o)).sum())]
}

#[test]
fn gradients_are_as_good_as_plain_arithmetic() {
    let cases = [
        (vec![3, 0, 65, 1, 129], 70, 65),
        (vec![64, 33], 33, 3),
        (vec![5], 0, 4),
        (vec![0, 0], 2, 1),
        (vec![17; 9], 1, 130),
    ];
    for (at, (widths, samples, o)) in cases.into_iter().enumerate() {
        let (f, groups) = (Activation::ALL[at], Ragged::from_lengths(widths.iter().copied()));
        let given = inputs::<f32>(samples, &groups, o);
        let cot: Tensor<f32> = normal("cotangent", &[samples * groups.bags(), o]);
        let double: Vec<Tensor<f64>> = given.iter().map(cast).collect();
        let oracle = naive_gradients(f, &groups, &double, &cast(&cot));
        let plain = naive_gradients(f, &groups, &given, &cot);
        let (y, grads) = gradients(apply(f, &groups, o), &given, std::slice::from_ref(&cot));
        for (part, got) in grads.iter().enumerate() {
            let what = format!("{f:?} {widths:?} B {samples} O {o}: {}", ["dx", "dw", "db"][part]);
            // Each goes through an argument that is a sum over the columns of a group, and is a sum itself.
            let terms = widths.iter().copied().chain([samples, o]).max().unwrap_or(1);
            assert_sums_as_good_as_plain(&what, got.host(), plain[part].host(), oracle[part].host(), terms);
        }
        assert_eq!((y, grads), gradients(apply(f, &groups, o), &given, &[cot]), "{f:?}: another run");
    }
}

#[test]
fn gradient_matches_finite_differences() {
    let groups = Ragged::from_lengths([2, 0, 3]);
    for f in Activation::ALL {
        let given = inputs(2, &groups, 2);
        assert_gradients_match_finite_differences(&format!("{f:?}"), apply(f, &groups, 2), &given);
    }
    let given = inputs(2, &groups, 2);
    assert_gradients_match_finite_differences("no bias", apply(Activation::Elu, &groups, 2), &given[..2]);
}

#[test]
fn one_group_is_a_fully_connected_layer() {
    let groups = Ragged::from_lengths([20]);
    let given = inputs::<f64>(7, &groups, 5);
    let linear = |tape: &Tape<f64>, v: &[Var<f64>]| {
        let op = Linear { activation: Activation::Elu };
        Ok(vec![op.forward(tape, &v[0], &v[1], Some(&v[2]))?])
    };
    let plain =
        [given[0].clone(), given[1].clone().reshape(&[5, 20]).unwrap(), given[2].clone().reshape(&[5]).unwrap()];
    let cot = [normal("cotangent", &[7, 5])];
    let (out, grads) = gradients(apply(Activation::Elu, &groups, 5), &given, &cot);
    let (want, want_grads) = gradients(linear, &plain, &cot);
    assert_golden("y", out[0].host(), want[0].host(), 1e-14);
    for (got, want) in grads.iter().zip(&want_grads) {
        assert_golden("gradient", got.host(), want.host(), 1e-14);
    }
}

#[test]
fn an_empty_group_gives_its_bias() {
    let groups = Ragged::from_lengths([2, 0]);
    let given = inputs::<f32>(2, &groups, 3);
    let y = &values(apply(Activation::Identity, &groups, 3), &given)[0];
    assert_eq!(y.host()[3..6], given[2].host()[3..]);
    assert_eq!(y.host()[9..12], given[2].host()[3..]);
}

#[test]
fn nan_in_one_group_stays_in_its_group_and_sample() {
    let groups = Ragged::from_lengths([2, 3]);
    let mut given = inputs::<f32>(2, &groups, 1);
    given[0].host_mut()[2] = f32::NAN;
    let y = &values(apply(Activation::Tanh, &groups, 1), &given)[0];
    assert_eq!(y.host().iter().map(|y| y.is_nan()).collect::<Vec<_>>(), [false, true, false, false]);
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let groups = Ragged::from_lengths((0..300).map(|s| s % 17));
    let given = inputs::<f32>(4, &groups, 32);
    let cot = [normal("cotangent", &[4 * 300, 32])];
    assert_same_on_any_number_of_threads(|| gradients(apply(Activation::Elu, &groups, 32), &given, &cot));
}

#[test]
fn shapes_that_do_not_fit_are_named() {
    let groups = Ragged::from_lengths([2, 3]);
    let refused = |change: usize, shape: &[usize]| {
        let mut given = inputs::<f32>(2, &groups, 4);
        given[change] = Tensor::zeros(shape);
        let vars: Vec<_> = given.into_iter().map(Var::constant).collect();
        apply(Activation::Elu, &groups, 4)(&Tape::inference(Device::Cpu), &vars).unwrap_err()
    };
    assert_eq!(refused(1, &[4, 5]).to_string(), "grouped_linear: weight must have shape [20], but has [4, 5]");
    for (change, shape, name) in [(0, &[2, 4][..], "x"), (2, &[4, 2], "bias")] {
        assert!(matches!(refused(change, shape), Error::Shape { arg, .. } if arg == name), "{name}");
    }
}
