//! Rows in another order.

use onkos::ops::{Arrange, Arrangement};
use onkos::{Device, Real, Result, Tape, Tensor, Var};

use crate::harness::*;

type Places = Vec<Option<(usize, usize)>>;

/// Rows of each source, columns, and what stands where: nothing at all, one row everywhere, a row nowhere, zeros, more rows than a
/// block has, columns that are no multiple of four and more than a warp has at once.
fn cases() -> Vec<(Vec<usize>, usize, Places)> {
    let wrapped = |n: usize, places: usize| (0..places).map(move |i| Some((1, i % n)));
    let with_class = |n, places| [Some((0, 0))].into_iter().chain(wrapped(n, places)).collect();
    let mixed = vec![None, Some((1, 2)), Some((0, 1)), None, Some((1, 2)), Some((2, 0)), Some((0, 0)), Some((1, 2))];
    vec![
        (vec![0], 3, vec![]),
        (vec![3], 4, vec![]),
        (vec![0], 5, vec![None, None]),
        (vec![2, 3, 1], 5, mixed.clone()),
        (vec![2, 3, 1], 0, mixed),
        (vec![1, 31], 32, with_class(31, 36)),
        (vec![1, 33], 33, with_class(33, 49)),
        (vec![1, 700], 6, with_class(700, 729)),
        (vec![4], 131, vec![Some((0, 3)); 40]),
    ]
}

fn arrangement(case: &(Vec<usize>, usize, Places)) -> Arrangement {
    Arrangement::new(&case.0, case.2.iter().copied()).unwrap()
}

fn sources(case: &(Vec<usize>, usize, Places)) -> Vec<Tensor<f32>> {
    case.0.iter().enumerate().map(|(s, rows)| normal(&format!("x {s}"), &[*rows, case.1])).collect()
}

fn apply<T: Real>(arrangement: &Arrangement) -> impl Fn(&Tape<T>, &[Var<T>]) -> Result<Vec<Var<T>>> + '_ {
    move |tape, v| Ok(vec![Arrange.forward(tape, &v.iter().collect::<Vec<_>>(), arrangement)?])
}

/// Copies are exact, and so is the order of sums.
#[test]
fn values_and_gradients_are_exactly_those_of_the_formula() {
    for case in cases() {
        let (a, x, d) = (arrangement(&case), sources(&case), case.1);
        let row = |x: &Tensor<f32>, r: usize| x.host()[r * d..(r + 1) * d].to_vec();
        let want: Vec<f32> =
            case.2.iter().flat_map(|at| at.map_or(vec![0.0; d], |(source, r)| row(&x[source], r))).collect();
        let cot = normal::<f32>("cotangent", &[case.2.len(), d]);
        let (y, grads) = gradients(apply(&a), &x, std::slice::from_ref(&cot));
        assert_eq!((y[0].shape(), y[0].host()), (&[case.2.len(), d][..], &want[..]), "{case:?}");
        for (s, grad) in grads.iter().enumerate() {
            let mut want = vec![0f32; case.0[s] * d];
            for (i, at) in case.2.iter().enumerate() {
                if let Some((_, r)) = at.filter(|at| at.0 == s) {
                    (0..d).for_each(|c| want[r * d + c] += cot.host()[i * d + c]);
                }
            }
            assert_eq!(grad.host(), want, "gradient of source {s} of {case:?}");
        }
    }
}

#[test]
fn gradient_matches_finite_differences() {
    let case = &cases()[3];
    let x: Vec<Tensor<f64>> = sources(case).iter().map(cast).collect();
    assert_gradients_match_finite_differences("arrange", apply(&arrangement(case)), &x);
}

#[test]
fn a_source_that_wants_no_gradient_gets_none() {
    let a = Arrangement::new(&[1, 2], [Some((1, 1)), Some((0, 0))]).unwrap();
    let tape = Tape::<f32>::recording(Device::Cpu);
    let (x, z) = (Var::constant(normal("x", &[1, 2])), tape.leaf(normal("z", &[2, 2])));
    let y = Arrange.forward(&tape, &[&x, &z], &a).unwrap();
    let grads = tape.backward(&[(&y, Tensor::full(&[2, 2], 1.0))]).unwrap();
    assert_eq!(grads.of(&z).unwrap().host(), [0.0, 0.0, 1.0, 1.0]);
    assert!(grads.of(&x).is_none());
}

#[test]
fn nan_goes_where_its_row_stands_and_nowhere_else() {
    let a = Arrangement::new(&[3], [Some((0, 2)), Some((0, 1)), None, Some((0, 2))]).unwrap();
    let mut x = normal::<f32>("x", &[3, 4]);
    x.host_mut()[8] = f32::NAN;
    let y = &values(apply(&a), &[x])[0];
    assert_eq!((0..16).filter(|i| y.host()[*i].is_nan()).collect::<Vec<_>>(), [0, 12]);
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let a = Arrangement::new(&[900], (0..5000).map(|i| Some((0, i * 7 % 900)))).unwrap();
    let (x, cot) = ([normal::<f32>("x", &[900, 6])], [normal("cotangent", &[5000, 6])]);
    assert_same_on_any_number_of_threads(|| gradients(apply(&a), &x, &cot));
}

#[test]
fn what_does_not_fit_is_named() {
    let error = |rows: &[usize], at| Arrangement::new(rows, [Some((0, 0)), at]).unwrap_err().to_string();
    let row = "arrange: places must be a row that its source has, but places[1] is";
    assert_eq!(error(&[3], Some((0, 3))), format!("{row} 3"));
    assert_eq!(error(&[3], Some((1, 0))), format!("{row} 0"));
    let want = "arrange: rows must have shape a number of rows below 2^32 - 2 of one source or more, but has";
    assert_eq!(error(&[], None), format!("{want} []"));
    assert_eq!(error(&[u32::MAX as usize], None), format!("{want} [4294967295]"));
    let (tape, a) = (Tape::<f32>::inference(Device::Cpu), Arrangement::new(&[1, 2], [None]).unwrap());
    let var = |shape: &[usize]| Var::constant(Tensor::zeros(shape));
    let error = |x: &[&Var<f32>]| Arrange.forward(&tape, x, &a).unwrap_err().to_string();
    assert_eq!(error(&[&var(&[1, 4])]), "arrange: sources must have shape 2 sources, but has [1]");
    assert_eq!(
        error(&[&var(&[1, 4]), &var(&[2, 5])]),
        "arrange: sources must have shape [2, 4], as the arrangement has it, but has [2, 5]"
    );
    assert_eq!(
        error(&[&var(&[1, 4]), &var(&[3, 4])]),
        "arrange: sources must have shape [2, 4], as the arrangement has it, but has [3, 4]"
    );
}
