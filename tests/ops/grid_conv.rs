//! Convolutions over the grids of bags.

use onkos::ops::{Depthwise, GridConv};
use onkos::{Device, Ragged, Real, Result, Tape, Tensor, Var};

use crate::golden::{Tensors, shared};
use crate::harness::*;

/// The sides of the weights of each convolution, and whether it has a bias.
type Sides = [(usize, bool)];
const PUBLISHED: &Sides = &[(7, true), (5, true), (3, true)];

/// Bags whose grids have these sides; none is an empty bag.
fn bags_of(sides: &[Option<usize>], lead: usize) -> Ragged {
    Ragged::from_lengths(sides.iter().map(|side| side.map_or(0, |side| lead + side * side)))
}

/// Weights and biases as the op takes them, one behind another.
fn parameters<T: Real>(d: usize, sides: &Sides) -> Vec<Tensor<T>> {
    let mut all = Vec::new();
    for (m, &(side, bias)) in sides.iter().enumerate() {
        all.push(normal(&format!("weight {m}"), &[d, side * side]));
        all.extend(bias.then(|| normal(&format!("bias {m}"), &[d])));
    }
    all
}

/// One convolution after another and the gradients of each, product by product: the result, then the gradients of the
/// inputs in their order.
fn naive<T: Real>(bags: &Ragged, lead: usize, sides: &Sides, inputs: &[Tensor<T>], grad: &Tensor<T>) -> Vec<Tensor<T>> {
    let (x, d) = (inputs[0].host(), inputs[0].matrix().1);
    let (mut y, grad) = (inputs[0].clone(), grad.host());
    let mut grads: Vec<Tensor<T>> = inputs.iter().map(|t| Tensor::zeros(t.shape())).collect();
    grads[0].host_mut().copy_from_slice(grad);
    let mut at = 1;
    for &(size, bias) in sides {
        for bag in bags.iter().filter(|bag| !bag.is_empty()) {
            let (origin, side) = (bag.start + lead, (bag.len() - lead).isqrt());
            for (cell, j) in (0..side * side).flat_map(|cell| (0..d).map(move |j| (cell, j))) {
                let (here, mut sum) = ((origin + cell) * d + j, T::zero());
                for t in 0..size * size {
                    let [p, q] = [cell / side + t / size, cell % side + t % size];
                    let inside = |at: usize| at.checked_sub(size / 2).filter(|at| *at < side);
                    let (Some(p), Some(q)) = (inside(p), inside(q)) else { continue };
                    let (there, w) = ((origin + p * side + q) * d + j, j * size * size + t);
                    sum += inputs[at].host()[w] * x[there];
                    grads[0].host_mut()[there] += inputs[at].host()[w] * grad[here];
                    grads[at].host_mut()[w] += grad[here] * x[there];
                }
                if bias {
                    sum += inputs[at + 1].host()[j];
                    grads[at + 1].host_mut()[j] += grad[here];
                }
                y.host_mut()[here] += sum;
            }
        }
        at += 1 + usize::from(bias);
    }
    [y].into_iter().chain(grads).collect()
}

fn apply<'a, T: Real>(
    bags: &'a Ragged,
    lead: usize,
    sides: &'a Sides,
) -> impl Fn(&Tape<T>, &[Var<T>]) -> Result<Vec<Var<T>>> + Sync + 'a {
    move |tape, v| {
        let mut rest = v[1..].iter();
        let mut next = || rest.next().expect("weights and biases");
        let convolutions: Vec<Depthwise<'_, T>> =
            sides.iter().map(|&(_, bias)| Depthwise { weight: next(), bias: bias.then(&mut next) }).collect();
        Ok(vec![GridConv { lead }.forward(tape, &v[0], bags, &convolutions)?])
    }
}

#[test]
fn values_and_gradients_are_as_good_as_plain_arithmetic() {
    let few: &Sides = &[(3, true)];
    let rising: &Sides = &[(3, false), (5, true)];
    let twice: &Sides = &[(7, false), (3, true), (7, true)];
    // Sides of grids, leading rows, channels, convolutions.
    let cases: [(&[Option<usize>], usize, usize, &Sides); 15] = [
        (&[], 1, 3, PUBLISHED),
        (&[None, None], 1, 5, PUBLISHED),
        (&[Some(0), None, Some(0)], 2, 5, PUBLISHED),
        (&[Some(3), Some(2)], 1, 0, PUBLISHED),
        (&[Some(1)], 1, 1, PUBLISHED),
        (&[Some(2), Some(3), None, Some(16), Some(17), Some(0), Some(5)], 1, 5, PUBLISHED),
        (&[Some(31), None, Some(1), Some(33)], 2, 3, PUBLISHED),
        (&[Some(40), Some(4)], 0, 8, few),
        (&[Some(18), Some(32)], 70, 18, rising),
        (&[Some(6), Some(1), Some(8)], 1, 33, twice),
        (&[Some(7)], 1, 32, &[(5, false)]),
        (&[Some(9), None, Some(15)], 1, 31, PUBLISHED),
        (&[Some(4)], 3, 1100, PUBLISHED),
        // Several tiles a chunk.
        (&[Some(3), Some(100)], 1, 2, PUBLISHED),
        (&[Some(2); 75], 1, 17, rising),
    ];
    for (grids, lead, d, sides) in cases {
        let (bags, what) = (bags_of(grids, lead), format!("{grids:?} behind {lead}, {d} channels, {sides:?}"));
        let mut inputs: Vec<Tensor<f32>> = vec![normal("x", &[bags.rows(), d])];
        inputs.extend(parameters(d, sides));
        let cot: Tensor<f32> = normal("cotangent", inputs[0].shape());
        let (wide, wide_cot): (Vec<Tensor<f64>>, Tensor<f64>) = (inputs.iter().map(cast).collect(), cast(&cot));
        let oracle = naive(&bags, lead, sides, &wide, &wide_cot);
        let plain = naive(&bags, lead, sides, &inputs, &cot);
        let terms = |i: usize| if i < 2 { 98 } else { bags.rows().max(1) };
        let (y, grads) = gradients(apply(&bags, lead, sides), &inputs, &[cot]);
        for (i, got) in y.iter().chain(&grads).enumerate() {
            let what = format!("{what}: {}", if i == 0 { "result".into() } else { format!("gradient {}", i - 1) });
            assert_sums_as_good_as_plain(&what, got.host(), plain[i].host(), oracle[i].host(), terms(i));
        }
        let (y, grads) = gradients(apply(&bags, lead, sides), &wide, &[wide_cot]);
        for (i, got) in y.iter().chain(&grads).enumerate() {
            // So many terms in two orders.
            assert_golden(&what, got.host(), oracle[i].host(), terms(i) as f64 * f64::EPSILON);
        }
    }
}

#[test]
fn gradients_match_finite_differences() {
    let bags = bags_of(&[Some(3), None, Some(0), Some(2)], 1);
    for sides in [PUBLISHED, &[(3, false), (5, true)]] {
        let mut inputs = vec![normal("x", &[bags.rows(), 2])];
        inputs.extend(parameters(2, sides));
        assert_gradients_match_finite_differences("grid_conv", apply(&bags, 1, sides), &inputs);
    }
}

/// The published implementation, PyTorch: the layer between its two attentions.
#[test]
fn the_positional_layer_is_that_of_the_published_code() {
    for name in ["transmil_n37", "transmil_n130"] {
        let Some(file) = shared(&format!("models/{name}.safetensors")) else { continue };
        let file = Tensors::read(&file);
        let &[batch, rows, d] = file.shape("act.layer1") else { panic!("not of a batch of bags") };
        let tensor = |name: &str, shape: &[usize]| Tensor::new(shape, file.get(name).to_vec()).unwrap();
        let mut inputs = vec![tensor("act.layer1", &[batch * rows, d])];
        for (layer, side) in [("proj", 7), ("proj1", 5), ("proj2", 3)] {
            inputs.push(tensor(&format!("param.pos_layer.{layer}.weight"), &[d, side * side]));
            inputs.push(tensor(&format!("param.pos_layer.{layer}.bias"), &[d]));
        }
        let y = &values(apply(&Ragged::uniform(batch, rows), 1, PUBLISHED), &inputs)[0];
        assert_golden(name, y.host(), file.get("act.pos_layer"), 1e-14);
    }
}

/// Whole numbers, so nothing is rounded.
#[test]
fn an_impulse_leaves_the_weights_around_it_in_reverse_order() {
    let (bags, d) = (bags_of(&[Some(2), Some(35), Some(3)], 1), 3);
    let whole = |name: &str, shape: &[usize]| {
        let drawn = normal::<f32>(name, shape);
        Tensor::from_fn(shape, |i| (8.0 * drawn.host()[i]).round())
    };
    let (largest, smallest) = (whole("largest", &[d, 49]), whole("smallest", &[d, 9]));
    for (p, q) in [(0, 0), (34, 34), (2, 33), (15, 16), (16, 15), (17, 31), (20, 20)] {
        let mut x = Tensor::zeros(&[bags.rows(), d]);
        let origin = 6;
        x.host_mut()[(origin + 35 * p + q) * d + 1] = 1f32;
        let want = |i: usize| {
            let Some(cell) = (i / d).checked_sub(origin).filter(|cell| *cell < 35 * 35 && i % d == 1) else {
                return 0.0;
            };
            let at = |size: usize, weight: &Tensor<f32>| {
                let [u, v] = [(p, cell / 35), (q, cell % 35)].map(|(from, to)| (from + size / 2).wrapping_sub(to));
                if u < size && v < size { weight.host()[size * (size + u) + v] } else { 0.0 }
            };
            at(7, &largest) + at(3, &smallest) + f32::from(cell == 35 * p + q)
        };
        let want = Tensor::from_fn(x.shape(), want);
        let inputs = [x, smallest.clone(), largest.clone()];
        let y = &values(apply(&bags, 1, &[(3, false), (7, false)]), &inputs)[0];
        assert_eq!(y.host(), want.host(), "an impulse in cell {p}, {q}");
    }
}

#[test]
fn leading_rows_pass_bit_for_bit_and_reach_no_cell() {
    let (bags, d) = (bags_of(&[Some(3), None, Some(0), Some(20)], 3), 5);
    let leading: Vec<usize> = [0, 12, 15].into_iter().flat_map(|row| d * row..d * (row + 3)).collect();
    let odd = |name: &str| {
        let mut t: Tensor<f32> = normal(name, &[bags.rows(), d]);
        let specials = [-0.0, f32::NAN, f32::INFINITY, f32::MIN_POSITIVE / 4.0];
        leading.iter().zip(specials.into_iter().cycle()).for_each(|(&i, odd)| t.host_mut()[i] = odd);
        t
    };
    let (x, cot) = (odd("x"), odd("cotangent"));
    let inputs: Vec<Tensor<f32>> = [x.clone()].into_iter().chain(parameters(d, PUBLISHED)).collect();
    let (y, grads) = gradients(apply(&bags, 3, PUBLISHED), &inputs, std::slice::from_ref(&cot));
    for (got, given) in [(&y[0], &x), (&grads[0], &cot)] {
        for i in 0..got.len() {
            if leading.contains(&i) {
                assert_eq!(got.host()[i].to_bits(), given.host()[i].to_bits(), "element {i}");
            } else {
                assert!(got.host()[i].is_finite(), "element {i}");
            }
        }
    }
    assert!(grads[1..].iter().all(|t| t.host().iter().all(|x| x.is_finite())));
}

#[test]
fn nan_reaches_the_cells_around_it_in_its_bag_and_channel_alone() {
    let (bags, d) = (bags_of(&[Some(4), Some(20), Some(3)], 1), 3);
    for (sides, reach) in [(PUBLISHED, 3), (&[(3, true), (5, true)], 2), (&[(3, true)], 1)] {
        for (p, q) in [(0usize, 0usize), (19, 10), (15, 16), (8, 19)] {
            let at = |p: usize, q: usize| (18 + 20 * p + q) * d + 1;
            let mut x: Tensor<f32> = normal("x", &[bags.rows(), d]);
            x.host_mut()[at(p, q)] = f32::NAN;
            let even: Tensor<f32> = normal("even", x.shape());
            let cells = (0..20usize).flat_map(|p| (0..20usize).map(move |q| (p, q)));
            let near: Vec<usize> = cells
                .filter(|cell| cell.0.abs_diff(p) <= reach && cell.1.abs_diff(q) <= reach)
                .map(|(p, q)| at(p, q))
                .collect();
            let nans = |t: &Tensor<f32>| -> Vec<usize> { (0..t.len()).filter(|i| t.host()[*i].is_nan()).collect() };
            let with =
                |x: &Tensor<f32>| -> Vec<Tensor<f32>> { [x.clone()].into_iter().chain(parameters(d, sides)).collect() };
            let (y, of_x) = gradients(apply(&bags, 1, sides), &with(&x), std::slice::from_ref(&even));
            let (_, of_grad) = gradients(apply(&bags, 1, sides), &with(&even), &[x]);
            assert_eq!(nans(&y[0]), near, "{sides:?}, NaN in cell {p}, {q}");
            assert_eq!(nans(&of_grad[0]), near, "{sides:?}, NaN in cell {p}, {q} of the gradient");
            assert_eq!(nans(&of_x[0]), [0; 0], "the gradient of x does not read x");
            for t in of_x[1..].iter().chain(&of_grad[1..]) {
                let of_channel = t.len() / d;
                assert!(nans(t).iter().all(|i| i / of_channel == 1), "other channels");
            }
        }
    }
}

#[test]
fn bags_have_grids_of_their_own() {
    let (bags, d) = (bags_of(&[Some(5), Some(23), None, Some(0), Some(16), Some(17)], 2), 8);
    let (x, cot) = (normal::<f32>("x", &[bags.rows(), d]), normal::<f32>("cotangent", &[bags.rows(), d]));
    let with =
        |x: &Tensor<f32>| -> Vec<Tensor<f32>> { [x.clone()].into_iter().chain(parameters(d, PUBLISHED)).collect() };
    let (y, grads) = gradients(apply(&bags, 2, PUBLISHED), &with(&x), std::slice::from_ref(&cot));
    for (b, rows) in bags.iter().enumerate() {
        let own =
            |t: &Tensor<f32>| Tensor::new(&[rows.len(), d], t.host()[d * rows.start..d * rows.end].to_vec()).unwrap();
        let alone = Ragged::uniform(1, rows.len());
        let (y_alone, grads_alone) = gradients(apply(&alone, 2, PUBLISHED), &with(&own(&x)), &[own(&cot)]);
        assert_eq!((&y_alone[0], &grads_alone[0]), (&own(&y[0]), &own(&grads[0])), "bag {b}");
    }
}

#[test]
fn gradients_of_smaller_weights_are_cut_out_of_that_of_the_largest() {
    let (bags, d) = (bags_of(&[Some(19), Some(6)], 1), 4);
    let inputs: Vec<Tensor<f32>> =
        [normal("x", &[bags.rows(), d])].into_iter().chain(parameters(d, PUBLISHED)).collect();
    let (_, grads) = gradients(apply(&bags, 1, PUBLISHED), &inputs, &[normal("cotangent", &[bags.rows(), d])]);
    for (weight, side) in [(3, 5), (5, 3)] {
        let ring = (7 - side) / 2;
        let cut = |i: usize| {
            let (j, u, v) = (i / (side * side), i / side % side, i % side);
            grads[1].host()[j * 49 + (u + ring) * 7 + v + ring]
        };
        assert_eq!(grads[weight], Tensor::from_fn(&[d, side * side], cut));
        assert_eq!(grads[weight + 1], grads[2], "the biases");
    }
}

#[test]
fn without_convolutions_nothing_changes() {
    let bags = bags_of(&[Some(2), Some(3)], 1);
    let x: Tensor<f32> = normal("x", &[15, 3]);
    assert_eq!(values(apply(&bags, 1, &[]), std::slice::from_ref(&x))[0], x);
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let bags = bags_of(&[Some(30), Some(1), None, Some(50)], 1);
    let inputs: Vec<Tensor<f32>> =
        [normal("x", &[bags.rows(), 6])].into_iter().chain(parameters(6, PUBLISHED)).collect();
    let cot = [normal("cotangent", &[bags.rows(), 6])];
    assert_same_on_any_number_of_threads(|| gradients(apply(&bags, 1, PUBLISHED), &inputs, &cot));
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    let tape = Tape::<f32>::inference(Device::Cpu);
    let say = |lead: usize, lengths: &[usize], weight: &[usize], bias: &[usize]| {
        let bags = Ragged::from_lengths(lengths.iter().copied());
        let [x, weight, bias] = [&[10, 4], weight, bias].map(|shape| Var::constant(Tensor::zeros(shape)));
        let convolution = Depthwise { weight: &weight, bias: Some(&bias) };
        GridConv { lead }.forward(&tape, &x, &bags, &[convolution]).map(|_| ()).map_err(|e| e.to_string())
    };
    assert_eq!(say(1, &[10], &[4, 9], &[4]), Ok(()));
    assert_eq!(say(1, &[0, 5, 5], &[4, 49], &[4]), Ok(()));
    assert_eq!(say(10, &[10], &[4, 25], &[4]), Ok(()));
    let refused = |lead: usize, lengths: &[usize], weight: &[usize], bias: &[usize], want: &str| {
        assert_eq!(say(lead, lengths, weight, bias).unwrap_err(), format!("grid_conv: {want}"));
    };
    refused(1, &[9], &[4, 9], &[4], "x must have shape [9, D], the rows of its bags, but has [10, 4]");
    let rows = "leading rows and a square number of others, but has";
    refused(0, &[0, 4, 6], &[4, 9], &[4], &format!("x must have shape [4 or 9, D] in bag 2, 0 {rows} [6, 4]"));
    refused(2, &[10], &[4, 9], &[4], &format!("x must have shape [6 or 11, D] in bag 0, 2 {rows} [10, 4]"));
    refused(11, &[10], &[4, 9], &[4], &format!("x must have shape [11, D] in bag 0, 11 {rows} [10, 4]"));
    for weight in [&[4, 1][..], &[4, 10], &[4, 81], &[3, 9], &[4, 3, 3], &[36]] {
        let want = format!("weight must have shape [4, 9], [4, 25] or [4, 49], but has {weight:?}");
        refused(1, &[10], weight, &[4], &want);
    }
    refused(1, &[10], &[4, 9], &[3], "bias must have shape [4], but has [3]");
}
