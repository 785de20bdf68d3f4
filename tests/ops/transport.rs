//! Unbalanced optimal transport from patches to gene tokens.

use onkos::ops::Transport;
use onkos::{Device, Ragged, Real, Result, Tape, Tensor, Var};

use crate::harness::*;

/// So many iterations, whatever changes: in f32 and f64 the same.
fn fixed(iterations: u32) -> Transport {
    Transport { tolerance: 0.0, iterations, ..Transport::default() }
}

/// The plan by the formula, in the type itself, of one patient.
fn plan<T: Real>(op: &Transport, x: &[Vec<T>], y: &[Vec<T>]) -> Vec<Vec<T>> {
    let least = |row: &Vec<T>| row.iter().fold(T::infinity(), |m, x| m.min(*x));
    let distance = |x: &Vec<T>, y: &Vec<T>| {
        let (a, b) = (least(x), least(y));
        x.iter().zip(y).map(|(x, y)| ((*x - a) - (*y - b)).powi(2)).sum::<T>()
    };
    let cost: Vec<Vec<T>> = x.iter().map(|x| y.iter().map(|y| distance(x, y)).collect()).collect();
    let max = cost.iter().flatten().fold(T::zero(), |m, x| m.max(*x));
    let scaled = |c: T| if max > T::zero() { c / max / T::of(op.reg) } else { T::zero() };
    let k: Vec<Vec<T>> = cost.iter().map(|row| row.iter().map(|c| (-scaled(*c)).exp()).collect()).collect();
    let (mut u, mut v) = (vec![T::one(); x.len()], vec![T::one(); y.len()]);
    let power = T::of(op.tau / (op.tau + op.reg));
    for _ in 0..op.iterations {
        for (u, k) in u.iter_mut().zip(&k) {
            let sum = k.iter().zip(&v).map(|(k, v)| *k * *v).sum::<T>();
            *u = (T::of(1.0 / x.len() as f64) / sum).powf(power);
        }
        for (j, v) in v.iter_mut().enumerate() {
            let sum = k.iter().zip(&u).map(|(k, u)| k[j] * *u).sum::<T>();
            *v = (T::of(1.0 / y.len() as f64) / sum).powf(power);
        }
    }
    k.iter().zip(&u).map(|(k, u)| k.iter().zip(&v).map(|(k, v)| *u * *k * *v).collect()).collect()
}

fn rows<T: Real>(x: &Tensor<T>, range: std::ops::Range<usize>) -> Vec<Vec<T>> {
    let columns = x.matrix().1;
    range.map(|r| x.host()[r * columns..(r + 1) * columns].to_vec()).collect()
}

fn naive<T: Real>(op: &Transport, x: &[Tensor<T>], bags: &[Ragged; 2]) -> Vec<Tensor<T>> {
    let columns = x[0].matrix().1;
    let mut out = Vec::new();
    for bag in 0..bags[0].bags() {
        let (y, x) = (rows(&x[0], bags[0].bag(bag)), rows(&x[1], bags[1].bag(bag)));
        let plan = plan(op, &x, &y);
        for j in 0..y.len() {
            out.extend((0..columns).map(|c| plan.iter().zip(&x).map(|(p, x)| p[j] * x[c]).sum::<T>()));
        }
    }
    vec![Tensor::new(&[bags[0].rows(), columns], out).unwrap()]
}

fn apply<T: Real>(op: Transport, bags: &[Ragged; 2]) -> impl Fn(&Tape<T>, &[Var<T>]) -> Result<Vec<Var<T>>> + '_ {
    move |tape, v| Ok(vec![op.forward(tape, (&v[0], &bags[0]), (&v[1], &bags[1]))?.0])
}

fn inputs<T: Real>(columns: usize, bags: &[Ragged; 2]) -> Vec<Tensor<T>> {
    vec![normal("genes", &[bags[0].rows(), columns]), normal("patches", &[bags[1].rows(), columns])]
}

/// Genes and patches of each patient, and columns: no patient, no genes, no patches, several chunks and tiles, more genes
/// than are summed at once.
fn cases() -> Vec<([Ragged; 2], usize)> {
    let bags = |genes: &[usize], patches: &[usize]| [genes, patches].map(|n| Ragged::from_lengths(n.iter().copied()));
    vec![
        (bags(&[], &[]), 4),
        (bags(&[0, 2, 3, 1], &[2, 0, 1, 5]), 3),
        (bags(&[6, 1, 6], &[600, 33, 40]), 12),
        (bags(&[11, 19], &[20, 515]), 5),
        (bags(&[6], &[1100]), 130),
    ]
}

#[test]
fn values_are_as_good_as_plain_arithmetic() {
    let op = fixed(25);
    for (bags, columns) in cases() {
        let single = inputs::<f32>(columns, &bags);
        let double: Vec<Tensor<f64>> = single.iter().map(cast).collect();
        let (oracle, plain) = (naive(&op, &double, &bags), naive(&op, &single, &bags));
        let (got, exact) = (values(apply(op, &bags), &single), values(apply(op, &bags), &double));
        let what = format!("{:?}, {columns} columns", bags[1].offsets());
        let terms = bags[1].longest();
        assert_sums_as_good_as_plain(&what, got[0].host(), plain[0].host(), oracle[0].host(), terms);
        assert_golden(&what, exact[0].host(), oracle[0].host(), 1e-12);
    }
}

#[test]
fn the_plan_has_a_column_a_gene_token_and_zeros_behind() {
    let op = fixed(25);
    for (bags, columns) in cases() {
        let x = inputs::<f32>(columns, &bags);
        let apply = |tape: &Tape<f32>, v: &[Var<f32>]| {
            let (_, plan) = op.forward(tape, (&v[0], &bags[0]), (&v[1], &bags[1]))?;
            Ok(vec![Var::constant(plan)])
        };
        let (got, width) = (values(apply, &x), bags[0].longest());
        let double: Vec<Tensor<f64>> = x.iter().map(cast).collect();
        let mut want = Vec::new();
        for bag in 0..bags[0].bags() {
            let (y, x) = (rows(&double[0], bags[0].bag(bag)), rows(&double[1], bags[1].bag(bag)));
            for row in plan(&op, &x, &y) {
                want.extend(row.iter().copied().chain(std::iter::repeat_n(0.0, width - row.len())));
            }
        }
        let largest = want.iter().fold(0f64, |m, x| m.max(*x));
        // As for gradients; what is not there is exactly zero.
        assert_within(&format!("{:?}", bags[1].offsets()), got[0].host(), &want, largest * 2e-5);
        assert!(got[0].host().iter().zip(&want).all(|(got, want)| *want != 0.0 || *got == 0.0));
    }
}

#[test]
fn weights_are_the_parts_of_the_plan_that_patches_have() {
    let op = fixed(25);
    for (bags, columns) in cases() {
        let x = inputs::<f32>(columns, &bags);
        let apply = |tape: &Tape<f32>, v: &[Var<f32>]| {
            let (_, plan) = op.forward(tape, (&v[0], &bags[0]), (&v[1], &bags[1]))?;
            Ok(vec![Var::constant(Transport::weights(tape.device(), &plan, &bags[1])?)])
        };
        let got = values(apply, &x).remove(0);
        assert_eq!(got.shape(), [bags[1].rows(), 1]);
        let double: Vec<Tensor<f64>> = x.iter().map(cast).collect();
        let mut want = Vec::new();
        for bag in 0..bags[0].bags() {
            let (y, x) = (rows(&double[0], bags[0].bag(bag)), rows(&double[1], bags[1].bag(bag)));
            let sums: Vec<f64> = plan(&op, &x, &y).iter().map(|row| row.iter().sum()).collect();
            let total: f64 = sums.iter().sum();
            want.extend(sums.iter().map(|sum| if y.is_empty() { 0.0 } else { sum / total }));
            let sum: f64 = bags[1].bag(bag).map(|i| f64::from(got.host()[i])).sum();
            let whole = if y.is_empty() || x.is_empty() { 0.0 } else { 1.0 };
            // Each weight is rounded once, and the sum of its row as the plan.
            assert!((sum - whole).abs() < 1e-6, "bag {bag} of {:?}: {sum}", bags[1].offsets());
        }
        let largest = want.iter().fold(0f64, |m, x| m.max(*x));
        // As for gradients.
        assert_within(&format!("{:?}", bags[1].offsets()), got.host(), &want, largest * 2e-5);
    }
}

#[test]
fn weights_do_not_depend_on_the_size_of_a_plan_nor_on_the_number_of_threads() {
    let bags = Ragged::from_lengths([3, 0, 2000]);
    let plan = Tensor::from_fn(&[2003, 2], |i| if i < 6 { 0.0 } else { 2f32.powi(-40 - (i % 3) as i32) });
    let weights = |plan: &Tensor<f32>| {
        let apply = |tape: &Tape<f32>, v: &[Var<f32>]| {
            Ok(vec![Var::constant(Transport::weights(tape.device(), v[0].value(), &bags)?)])
        };
        values(apply, std::slice::from_ref(plan)).remove(0)
    };
    let larger = Tensor::from_fn(plan.shape(), |i| plan.host()[i] * 2f32.powi(60));
    let got = weights(&plan);
    assert_eq!(got.host(), weights(&larger).host());
    assert!(got.host()[..3].iter().all(|w| *w == 0.0), "of an empty plan");
    assert_same_on_any_number_of_threads(|| weights(&plan));
}

#[test]
fn gradients_of_patches_are_what_the_plan_gives_them() {
    let op = fixed(25);
    for (bags, columns) in cases() {
        let x = inputs::<f32>(columns, &bags);
        let cot: Tensor<f32> = normal("cotangent", &[bags[0].rows(), columns]);
        let (_, grads) = gradients(apply(op, &bags), &x, std::slice::from_ref(&cot));
        let of = |x: &[Tensor<f64>], cot: &Tensor<f64>| {
            let mut dx = Vec::new();
            for bag in 0..bags[0].bags() {
                let (y, x) = (rows(&x[0], bags[0].bag(bag)), rows(&x[1], bags[1].bag(bag)));
                let cot = rows(cot, bags[0].bag(bag));
                for plan in plan(&op, &x, &y) {
                    dx.extend((0..columns).map(|c| plan.iter().zip(&cot).map(|(p, cot)| p * cot[c]).sum::<f64>()));
                }
            }
            dx
        };
        let want = of(&x.iter().map(cast).collect::<Vec<_>>(), &cast(&cot));
        let largest = want.iter().fold(0f64, |m, x| m.max(x.abs()));
        // A few roundings of f32 in the costs, by reg, and those of powers and sums.
        assert_within(&format!("{:?}", bags[1].offsets()), grads[1].host(), &want, largest * 2e-5);
        assert!(grads[0].host().iter().all(|x| *x == 0.0), "the plan is a constant");
    }
}

/// So that the equations that the gradient goes by hold.
fn through() -> Transport {
    Transport { differentiated: true, ..fixed(300) }
}

#[test]
fn a_plan_that_is_differentiated_has_the_gradient_of_the_value() {
    let bags = [[0, 2, 3, 1, 4], [2, 0, 4, 5, 1]].map(Ragged::from_lengths);
    for op in [through(), Transport { reg: 0.5, tau: 3.0, ..through() }] {
        assert_gradients_match_finite_differences(&format!("{op:?}"), apply(op, &bags), &inputs(3, &bags));
    }
}

/// Of the CPU, which calculates in f64 whatever the type.
#[test]
fn gradients_through_the_plan_are_those_of_f64() {
    for (bags, columns) in cases() {
        let x = inputs::<f32>(columns, &bags);
        let cot: Tensor<f32> = normal("cotangent", &[bags[0].rows(), columns]);
        let (_, got) = gradients(apply(through(), &bags), &x, std::slice::from_ref(&cot));
        let double: Vec<Tensor<f64>> = x.iter().map(cast).collect();
        let (_, want) = gradients(apply(through(), &bags), &double, &[cast(&cot)]);
        for (of, (got, want)) in ["genes", "patches"].into_iter().zip(got.iter().zip(&want)) {
            let largest = want.host().iter().fold(0f64, |m, x| m.max(x.abs()));
            // As for a plan that is a constant, and a division by reg.
            let what = format!("{:?}: {of}", bags[1].offsets());
            assert_within(&what, got.host(), want.host(), largest * 2e-5 / through().reg);
        }
    }
}

#[test]
fn what_goes_through_the_plan_is_the_same_bits_in_any_batch_and_on_any_number_of_threads() {
    let bags = [[5, 9], [1300, 40]].map(Ragged::from_lengths);
    let (x, cot) = (inputs::<f32>(8, &bags), normal::<f32>("cotangent", &[14, 8]));
    let (_, together) = gradients(apply(through(), &bags), &x, std::slice::from_ref(&cot));
    for b in 0..2 {
        let one = [0, 1].map(|i| Ragged::uniform(1, bags[i].bag(b).len()));
        let part =
            |x: &Tensor<f32>, i: usize| Tensor::new(&[one[i].rows(), 8], rows(x, bags[i].bag(b)).concat()).unwrap();
        let (_, alone) = gradients(apply(through(), &one), &[part(&x[0], 0), part(&x[1], 1)], &[part(&cot, 0)]);
        for i in 0..2 {
            let here = bags[i].bag(b);
            assert_eq!(alone[i].host(), &together[i].host()[here.start * 8..here.end * 8], "bag {b}, {i}");
        }
    }
    assert_same_on_any_number_of_threads(|| gradients(apply(through(), &bags), &x, std::slice::from_ref(&cot)));
}

#[test]
fn equal_tokens_have_a_gradient_without_what_cannot_be_divided() {
    let bags = [[2], [3]].map(Ragged::from_lengths);
    let x = [Tensor::full(&[2, 4], 1.0f32), Tensor::full(&[3, 4], 1.0)];
    let (_, grads) = gradients(apply(through(), &bags), &x, &[normal("cotangent", &[2, 4])]);
    assert!(grads.iter().flat_map(|g| g.host()).all(|x| x.is_finite()));
    assert!(grads[0].host().iter().all(|x| *x == 0.0), "all costs are 0, wherever the tokens go");
}

#[test]
fn it_ends_when_nothing_changes() {
    let bags = [[6], [200]].map(Ragged::from_lengths);
    let x = inputs::<f64>(8, &bags);
    let long = values(apply(fixed(3000), &bags), &x);
    let got = values(apply(Transport::default(), &bags), &x);
    assert_golden("default", got[0].host(), long[0].host(), 1e-4);
    // What is asked for more exactly is nearer, and one step is far off.
    let fine = values(apply(Transport { tolerance: 1e-13, ..Transport::default() }, &bags), &x);
    assert_golden("fine", fine[0].host(), long[0].host(), 1e-11);
    let once = values(apply(fixed(1), &bags), &x);
    let off = |a: &Tensor<f64>| a.host().iter().zip(long[0].host()).fold(0f64, |m, (a, b)| m.max((a - b).abs()));
    assert!(off(&once[0]) > 100.0 * off(&got[0]) && off(&got[0]) > 0.0);
}

#[test]
fn a_patient_gives_the_same_bits_in_any_batch() {
    let bags = [[5, 9], [1300, 40]].map(Ragged::from_lengths);
    let x = inputs::<f32>(8, &bags);
    let together = values(apply(Transport::default(), &bags), &x);
    for b in 0..2 {
        let one = [0, 1].map(|i| Ragged::uniform(1, bags[i].bag(b).len()));
        let part = |i: usize| Tensor::new(&[one[i].rows(), 8], rows(&x[i], bags[i].bag(b)).concat()).unwrap();
        let alone = values(apply(Transport::default(), &one), &[part(0), part(1)]);
        let genes = bags[0].bag(b);
        assert_eq!(alone[0].host(), &together[0].host()[genes.start * 8..genes.end * 8], "bag {b}");
    }
}

#[test]
fn equal_tokens_share_evenly() {
    let bags = [[2], [3]].map(Ragged::from_lengths);
    let x = [Tensor::full(&[2, 4], 1.0f32), Tensor::full(&[3, 4], 1.0)];
    let tape = Tape::<f32>::inference(Device::Cpu);
    let v = x.clone().map(Var::constant);
    let (_, plan) = Transport::default().forward(&tape, (&v[0], &bags[0]), (&v[1], &bags[1])).unwrap();
    assert!(plan.host().iter().all(|p| *p > 0.0 && *p == plan.host()[0]), "{plan:?}");
    let got = values(apply(Transport::default(), &bags), &x);
    assert!(got[0].host().iter().all(|x| x.is_finite() && *x > 0.0));
}

#[test]
fn nan_of_one_patient_reaches_no_other() {
    let bags = [[3, 2], [4, 5]].map(Ragged::from_lengths);
    let mut x = inputs::<f32>(4, &bags);
    x[1].host_mut()[5] = f32::NAN;
    let got = values(apply(Transport::default(), &bags), &x);
    assert!(got[0].host()[..12].iter().all(|x| x.is_nan()));
    assert!(got[0].host()[12..].iter().all(|x| x.is_finite()));
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let bags = [[6, 7, 0], [4200, 100, 5]].map(Ragged::from_lengths);
    let x = inputs::<f32>(4, &bags);
    let cot = [normal("cotangent", &[13, 4])];
    assert_same_on_any_number_of_threads(|| gradients(apply(fixed(30), &bags), &x, &cot));
}

#[test]
fn what_does_not_fit_is_named() {
    let tape = Tape::<f32>::inference(Device::Cpu);
    let var = |shape: &[usize]| Var::constant(Tensor::zeros(shape));
    let bags = |n: usize| Ragged::uniform(1, n);
    let error = |op: Transport, genes: &[usize], patches: &[usize], bags: [&Ragged; 2]| {
        op.forward(&tape, (&var(genes), bags[0]), (&var(patches), bags[1])).unwrap_err().to_string()
    };
    let op = Transport::default();
    assert_eq!(
        error(op, &[2, 5], &[3, 6], [&bags(2), &bags(3)]),
        "transport: genes must have shape [2, 6], the rows of all bags, but has [2, 5]"
    );
    assert_eq!(
        error(op, &[2, 6], &[4, 6], [&bags(2), &Ragged::uniform(2, 2)]),
        "transport: patch_bags must have shape 1 bags, as of genes, but has [2]"
    );
    for (op, want) in [
        (Transport { reg: 0.001, ..op }, "transport.reg must be between 0.02 and 100, but is 0.001"),
        (Transport { tau: 0.0, ..op }, "transport.tau must be above 0, but is 0"),
        (Transport { tolerance: f64::NAN, ..op }, "transport.tolerance must be at least 0, but is NaN"),
    ] {
        assert_eq!(error(op, &[1, 2], &[1, 2], [&bags(1), &bags(1)]), want);
    }
}
