//! The entanglement of two modalities.

use onkos::ops::BagDraws;
use onkos::ops::cade::{Bandwidth, Cade, Mixing, Statistics};
use onkos::ops::sdir::{Scale, Sdir};
use onkos::rng::Draws;
use onkos::{Device, Error, Ragged, Real, Result, Tape, Tensor, Var};
use safetensors::SafeTensors;

use crate::cade_plain::{naive, numbered};
use crate::harness::*;

fn draws(patients: &[u32]) -> BagDraws {
    BagDraws::new(Draws::new(3, 1, "cade.test"), patients)
}

/// Always fires; for tests of what happens then.
pub(crate) const ON: Cade = Cade {
    alpha: 0.4,
    p_aug: 1.0,
    eps: 1e-6,
    skip_dead_donors: false,
    kappa: 0.0,
    bandwidth: Bandwidth::None,
    statistics: Statistics::Detached,
};

fn variants() -> Vec<Cade> {
    [
        (Bandwidth::None, 0.0),
        (Bandwidth::Fixed(0.5), 0.0),
        (Bandwidth::Fixed(0.3), 0.7),
        (Bandwidth::Relative(0.5), 0.5),
    ]
    .map(|(bandwidth, kappa)| Cade { bandwidth, kappa, ..ON })
    .to_vec()
}

fn apply<T: Real>(op: Cade, mixing: [Mixing; 2]) -> impl Fn(&Tape<T>, &[Var<T>]) -> Result<Vec<Var<T>>> + Sync {
    move |tape, v| Ok(op.forward_with(tape, [&v[0], &v[1]], [&mixing[0], &mixing[1]])?.into())
}

fn inputs<T: Real>([f, g]: [&Ragged; 2], columns: usize) -> Vec<Tensor<T>> {
    vec![normal("f", &[f.rows(), columns]), normal("g", &[g.rows(), columns])]
}

fn bags(f: &[usize], g: &[usize]) -> [Ragged; 2] {
    [f, g].map(|lengths| Ragged::from_lengths(lengths.iter().copied()))
}

fn patients(n: usize) -> Vec<u32> {
    (0..n as u32).map(|b| 50 - b).collect()
}

/// Values and gradients against plain arithmetic, for explicit draws or for those that `f` makes itself.
#[track_caller]
fn assert_as_good(
    op: Cade,
    mixing: [&Mixing; 2],
    columns: usize,
    f: impl Fn(&Tape<f32>, &[Var<f32>]) -> Result<Vec<Var<f32>>>,
) {
    let single = inputs::<f32>(mixing.map(Mixing::receivers), columns);
    let cot = cotangents(&single);
    let got = gradients(f, &single, &cot);
    let plain = naive(op, [&single[0], &single[1]], mixing, [&cot[0], &cot[1]]);
    let double: Vec<Tensor<f64>> = single.iter().chain(&cot).map(cast).collect();
    let oracle = naive(op, [&double[0], &double[1]], mixing, [&double[2], &double[3]]);
    let exact = gradients(apply(op, mixing.map(Mixing::clone)), &double[..2], &double[2..]);
    for k in [0, 1] {
        let what = format!("{op:?} set {k} of {columns}");
        assert_as_good_as_plain(&what, got.0[k].host(), plain[0][k].host(), oracle[0][k].host());
        assert_as_good_as_plain(&format!("gradient {what}"), got.1[k].host(), plain[1][k].host(), oracle[1][k].host());
        // Sums of up to 600 terms in two orders.
        assert_golden(&what, exact.0[k].host(), oracle[0][k].host(), 600.0 * f64::EPSILON);
    }
}

#[test]
fn values_and_gradients_are_as_good_as_plain_arithmetic() {
    for op in variants() {
        for (f, g, columns) in [
            (vec![5, 0, 31, 4, 1], vec![40, 3, 0, 4, 1], 7),
            (vec![33], vec![600], 64),
            (vec![127], vec![32], 2),
            (vec![3], vec![2], 1028),
            (vec![2], vec![3], 515),
            (vec![], vec![], 3),
        ] {
            let [f, g] = bags(&f, &g);
            for statistics in [Statistics::Detached, Statistics::Differentiated] {
                let (op, draws) = (Cade { statistics, ..op }, draws(&patients(f.bags())));
                let mixing = op.draw([&f, &g], None, &draws).unwrap();
                let mixing = [&mixing[0], &mixing[1]];
                assert_as_good(op, mixing, columns, apply(op, mixing.map(Mixing::clone)));
                // The same draws, made where the tokens lie.
                assert_as_good(op, mixing, columns, |tape, v| {
                    Ok(op.forward(tape, [&v[0], &v[1]], [&f, &g], None, Some(&draws))?.into())
                });
            }
        }
    }
}

#[test]
fn weights_of_donors_are_as_good_as_plain_arithmetic() {
    let [f, g] = bags(&[3, 50], &[4, 37]);
    let draws = draws(&[1, 2]);
    for op in &variants()[1..] {
        let op = Cade { statistics: Statistics::Differentiated, ..*op };
        let weight = [0.0, 1.0, 0.25, 2.0].into_iter().chain((0..37).map(|j| f64::from(j % 3))).collect();
        let drawn = op.draw([&f, &g], None, &draws).unwrap();
        let (donor, lambda) = (drawn[0].donor().to_vec(), drawn[0].lambda().to_vec());
        let into_f = Mixing::new(&f, &g, vec![true; 2], donor, lambda, Some(weight)).unwrap();
        let mixing = [&into_f, &drawn[1]];
        assert_as_good(op, mixing, 6, apply(op, mixing.map(Mixing::clone)));

        let op = Cade { skip_dead_donors: true, ..op };
        let keep = [&f, &g].map(|bags| Sdir::default().keep_mask(bags, Some(&draws)).unwrap());
        let keep = Some([&keep[0][..], &keep[1][..]]);
        let mixing = op.draw([&f, &g], keep, &draws).unwrap();
        assert_as_good(op, [&mixing[0], &mixing[1]], 6, |tape, v| {
            Ok(op.forward(tape, [&v[0], &v[1]], [&f, &g], keep, Some(&draws))?.into())
        });
    }
}

#[test]
fn draws_are_the_same_on_both_devices() {
    // Orders of one bucket and of hundreds, whole and cut short, gone through once and several times.
    let [f, g] = bags(&[600, 40, 3, 0, 33, 2, 9, 2100], &[2000, 9, 300, 4, 33, 1, 7, 700]);
    let mut keep = [&f, &g].map(|bags| Sdir::default().keep_mask(bags, Some(&draws(&patients(8)))).unwrap());
    keep[1][g.bag(6)].fill(false);
    let keep = Some([&keep[0][..], &keep[1][..]]);
    for (alpha, p_aug, skip_dead_donors, told) in [(2.0, 1.0, false, 0.99), (0.1, 0.6, true, 0.3)] {
        let op = Cade { alpha, p_aug, skip_dead_donors, ..ON };
        let draws = draws(&patients(8));
        let mixing = op.draw([&f, &g], keep, &draws).unwrap();
        assert!(p_aug == 1.0 || (mixing[0].active().contains(&true) && mixing[0].active()[..7].contains(&false)));
        let given = [numbered::<f32>(&f), numbered(&g)];
        let run = |tape: &Tape<f32>, v: &[Var<f32>]| -> Result<Vec<Var<f32>>> {
            Ok(op.forward(tape, [&v[0], &v[1]], [&f, &g], keep, Some(&draws))?.into())
        };
        let got = values(run, &given);
        for k in [0, 1] {
            let (mut known, mut all) = (0, 0);
            for (bag, rows) in mixing[k].receivers().iter().enumerate() {
                let start = rows.start;
                for row in rows {
                    let (out, own) = (&got[k].host()[2 * row..][..2], (row - start) as f64);
                    if !mixing[k].active()[bag] {
                        assert_eq!(out, &given[k].host()[2 * row..][..2], "the gate of bag {bag}");
                        continue;
                    }
                    let (lambda, donor) = (mixing[k].lambda()[row], f64::from(mixing[k].donor()[row]));
                    let mean = 0.5 * (f64::from(out[0]) + f64::from(out[1]));
                    // Roundings to f32 of numbers up to 2100: of the mean, of the mixed mean and of two results.
                    let bound = 4.0 * 2100.0 * f64::from(f32::EPSILON);
                    let off = mean - (lambda * own + (1.0 - lambda) * donor);
                    assert!(off.abs() <= bound, "set {k} row {row}: {mean}, off by {off}");
                    // Another donor would be off by 1 - lambda at least.
                    known += u32::from(1.0 - lambda > 2.0 * bound);
                    all += 1;
                }
            }
            assert!(f64::from(known) >= told * f64::from(all), "{known} of {all} rows tell their donor");
        }
    }
}

#[test]
fn gradient_matches_finite_differences() {
    let [f, g] = bags(&[3, 0, 2, 1], &[4, 2, 0, 1]);
    // The relative bandwidth is a constant to the gradient; its own test is below.
    for op in &variants()[..3] {
        let op = Cade { statistics: Statistics::Differentiated, ..*op };
        let mixing = op.draw([&f, &g], None, &draws(&patients(4))).unwrap();
        assert_gradients_match_finite_differences(&format!("{op:?}"), apply(op, mixing), &inputs([&f, &g], 5));
    }
    // One direction only, and donors that weigh nothing or a fraction.
    let one = |op: Cade| {
        let weight = Some(vec![0.0, 1.0, 0.25, 2.0]);
        let [f, g] = bags(&[3], &[4]);
        let into_f = Mixing::new(&f, &g, vec![true], vec![1, 3, 2], vec![0.2, 0.0, 0.9], weight).unwrap();
        let into_g = Mixing::new(&g, &f, vec![false], vec![0; 4], vec![1.0; 4], None).unwrap();
        assert_gradients_match_finite_differences("weights", apply(op, [into_f, into_g]), &inputs([&f, &g], 5));
    };
    variants()[1..3].iter().for_each(|op| one(Cade { statistics: Statistics::Differentiated, ..*op }));
}

#[test]
fn a_relative_bandwidth_is_a_constant_to_the_gradient() {
    let [f, g] = bags(&[6], &[6]);
    let given = inputs::<f64>([&f, &g], 5);
    // The same tokens on both sides have one spread; found here by its definition.
    let given = [given[0].clone(), given[0].clone()];
    let statistics: Vec<[f64; 2]> = given[0]
        .host()
        .chunks(5)
        .map(|x| {
            let mean = x.iter().sum::<f64>() / 5.0;
            [mean, (x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 4.0 + 1e-6).sqrt()]
        })
        .collect();
    let mean = [0, 1].map(|k| statistics.iter().map(|y| y[k]).sum::<f64>() / 6.0);
    let mut squares: Vec<f64> =
        statistics.iter().map(|y| (y[0] - mean[0]).powi(2) + (y[1] - mean[1]).powi(2)).collect();
    squares.sort_by(f64::total_cmp);
    let h = 0.5 * (0.5 * (squares[2] + squares[3])).sqrt();
    let run = |bandwidth| {
        let op = Cade { bandwidth, kappa: 0.5, statistics: Statistics::Differentiated, ..ON };
        let mixing = op.draw([&f, &g], None, &draws(&[1])).unwrap();
        gradients(apply(op, mixing), &given, &cotangents(&given))
    };
    let (relative, fixed) = (run(Bandwidth::Relative(0.5)), run(Bandwidth::Fixed(h)));
    for k in [0, 1] {
        // A bandwidth that is off by a rounding moves the result by a few.
        assert_golden("value", relative.0[k].host(), fixed.0[k].host(), 64.0 * f64::EPSILON);
        assert_golden("gradient", relative.1[k].host(), fixed.1[k].host(), 1024.0 * f64::EPSILON);
    }
}

#[test]
fn detached_statistics_give_donors_nothing() {
    let [f, g] = bags(&[3], &[4]);
    for op in variants() {
        let mixing = op.draw([&f, &g], None, &draws(&[1])).unwrap();
        let given = inputs::<f64>([&f, &g], 5);
        let cot = [normal("cotangent", &[3, 5]), Tensor::zeros(&[4, 5])];
        let (out, grads) = gradients(apply(op, mixing), &given, &cot);
        assert!(grads[1].host().iter().all(|g| *g == 0.0));
        // The map of each row is affine with the slope that its result shows.
        for row in 0..3 {
            let at = |x: &Tensor<f64>, d: usize| x.host()[row * 5 + d];
            let slope = (at(&out[0], 0) - at(&out[0], 1)) / (at(&given[0], 0) - at(&given[0], 1));
            let want: Vec<f64> = (0..5).map(|d| slope * at(&cot[0], d)).collect();
            assert_golden("slope", &grads[0].host()[row * 5..][..5], &want, 256.0 * f64::EPSILON);
        }
    }
}

struct Golden(Vec<u8>);

impl Golden {
    fn open(name: &str) -> Golden {
        let path = format!("{}/tests/golden/mil/{name}.safetensors", env!("CARGO_MANIFEST_DIR"));
        Golden(std::fs::read(&path).unwrap_or_else(|e| panic!("{path}: {e}")))
    }

    /// A tensor as a matrix; a vector as one column.
    fn get(&self, name: &str) -> Tensor<f64> {
        let file = SafeTensors::deserialize(&self.0).expect("a golden file");
        let view = file.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
        let data: Vec<f64> = match view.dtype() {
            safetensors::Dtype::F64 => view.data().as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b)).collect(),
            safetensors::Dtype::I64 => {
                view.data().as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b) as f64).collect()
            }
            safetensors::Dtype::U8 => view.data().iter().map(|b| f64::from(*b)).collect(),
            other => panic!("{name}: {other:?}"),
        };
        let columns = if view.shape().len() > 1 { *view.shape().last().unwrap() } else { 1 };
        Tensor::new(&[data.len() / columns, columns], data).unwrap()
    }

    fn index(&self, name: &str) -> Vec<usize> {
        self.get(name).host().iter().map(|x| *x as usize).collect()
    }
}

/// Rows times their keep bit.
fn masked(x: &Tensor<f64>, keep: &[bool]) -> Tensor<f64> {
    let columns = x.matrix().1;
    Tensor::from_fn(x.shape(), |i| if keep[i / columns] { x.host()[i] } else { 0.0 })
}

/// Both modalities: tokens, keep bits, donors and shares, cotangents; the golden result and gradients.
struct Case {
    x: [Tensor<f64>; 2],
    keep: [Vec<bool>; 2],
    donor: [Vec<u32>; 2],
    lambda: [Vec<f64>; 2],
    cot: [Tensor<f64>; 2],
    out: [Tensor<f64>; 2],
    grad: [Tensor<f64>; 2],
}

impl Case {
    #[track_caller]
    fn check(&self, what: &str, statistics: Statistics, relative: f64) {
        let bags = [0, 1].map(|k| Ragged::uniform(1, self.x[k].matrix().0));
        let mixing = [0, 1].map(|k| {
            let (donor, lambda) = (self.donor[k].clone(), self.lambda[k].clone());
            Mixing::new(&bags[k], &bags[1 - k], vec![true], donor, lambda, None).unwrap()
        });
        let given = [0, 1].map(|k| masked(&self.x[k], &self.keep[k]));
        let (out, grad) = gradients(apply(Cade { statistics, ..Cade::default() }, mixing), &given, &self.cot);
        for k in [0, 1] {
            assert_golden(&format!("{what}: set {k}"), out[k].host(), self.out[k].host(), relative);
            let grad = masked(&grad[k], &self.keep[k]);
            assert_golden(&format!("{what}: gradient {k}"), grad.host(), self.grad[k].host(), relative);
        }
    }
}

#[test]
fn golden_files_are_met_with_detached_and_differentiated_statistics() {
    for name in ["cade_const_rows", "cade_d2", "cade_equal_n", "cade_equal_n_mask", "cade_unequal_n"] {
        let file = Golden::open(name);
        let both = |stem: &str| [1, 2].map(|k| file.get(&format!("{stem}{k}")));
        for (statistics, kind) in [(Statistics::Detached, "stopgrad"), (Statistics::Differentiated, "full")] {
            let case = Case {
                x: both("f"),
                keep: both("keep").map(|k| k.host().iter().map(|k| *k != 0.0).collect()),
                donor: both("partner").map(|d| d.host().iter().map(|d| *d as u32).collect()),
                lambda: both("lam").map(|l| l.host().to_vec()),
                cot: both("cot"),
                out: both("out"),
                grad: [1, 2].map(|k| file.get(&format!("df{k}_{kind}"))),
            };
            // The agreement that the README of the files states.
            case.check(&format!("{name} {kind}"), statistics, 7e-14);
        }
    }
}

#[test]
fn equal_lengths_match_the_published_code() {
    let file = Golden::open("mccsdg");
    let keep = [1, 2].map(|k| {
        let (u, order) = (file.get(&format!("in.draw.mask_u{k}")), file.index(&format!("in.draw.mask_perm{k}")));
        order.iter().map(|&i| u.host()[i] >= 0.5).collect::<Vec<bool>>()
    });
    let case = Case {
        x: [1, 2].map(|k| file.get(&format!("in.f{k}"))),
        keep,
        // Modality 1 takes from modality 2 in the order of permutation 2, modulo its own length: the same 9.
        donor: [2, 1].map(|k| file.index(&format!("in.draw.perm{k}")).iter().map(|i| (i % 9) as u32).collect()),
        lambda: [1, 2].map(|k| file.get(&format!("in.draw.beta{k}")).host().to_vec()),
        cot: [1, 2].map(|k| file.get(&format!("in.cotangent{k}"))),
        out: [1, 2].map(|k| file.get(&format!("out.f{k}"))),
        grad: [1, 2].map(|k| file.get(&format!("grad.f{k}"))),
    };
    // The agreement that the README of the file states.
    case.check("mccsdg", Statistics::Detached, 1e-12);
}

#[test]
fn a_narrow_kernel_is_the_drawn_donor_and_a_wide_one_the_mean_of_all() {
    let [f, g] = bags(&[5, 3], &[40, 6]);
    let given = inputs::<f64>([&f, &g], 6);
    let mixing = ON.draw([&f, &g], None, &draws(&[1, 2])).unwrap();
    let run = |bandwidth| values(apply(Cade { bandwidth, ..ON }, mixing.clone()), &given);
    assert_eq!(run(Bandwidth::None), run(Bandwidth::Fixed(0.0)));
    // Donors other than the drawn one have weights below e^-(10^10).
    for (narrow, gather) in run(Bandwidth::Fixed(1e-9)).iter().zip(run(Bandwidth::None)) {
        assert_golden("narrow", narrow.host(), gather.host(), 64.0 * f64::EPSILON);
    }
    // In f32, and narrower than the root of the smallest number, too: the nearest donor alone.
    let single: Vec<Tensor<f32>> = given.iter().map(cast).collect();
    let run_f32 = |bandwidth| values(apply(Cade { bandwidth, ..ON }, mixing.clone()), &single);
    assert_eq!(run_f32(Bandwidth::Fixed(1e-9)), run_f32(Bandwidth::None));
    assert_eq!(run_f32(Bandwidth::Fixed(1e-29)), run_f32(Bandwidth::None));
    // With all of its own statistics given away, each receiver has the mean of the donors' means; weights differ from
    // equal ones by less than |a - y|^2 / h^2 < 1e-14.
    let lambda = vec![0.0; 8];
    let into_f = Mixing::new(&f, &g, vec![true; 2], vec![0; 8], lambda, None).unwrap();
    let wide = values(apply(Cade { bandwidth: Bandwidth::Fixed(1e8), ..ON }, [into_f, mixing[1].clone()]), &given);
    for bag in 0..2 {
        let donors = &given[1].host()[g.bag(bag).start * 6..g.bag(bag).end * 6];
        let mean = donors.iter().sum::<f64>() / donors.len() as f64;
        for row in f.bag(bag) {
            let got = wide[0].host()[row * 6..][..6].iter().sum::<f64>() / 6.0;
            assert!((got - mean).abs() < 1e-13, "bag {bag}: {got} and {mean}");
        }
    }
}

#[test]
fn a_masked_token_becomes_a_constant_row() {
    let [f, g] = bags(&[50], &[80]);
    let keep = [&f, &g].map(|bags| Sdir::default().keep_mask(bags, Some(&draws(&[4]).part(".sdir"))).unwrap());
    let given: Vec<_> = inputs::<f64>([&f, &g], 6).iter().zip(&keep).map(|(x, keep)| masked(x, keep)).collect();
    let mixing = ON.draw([&f, &g], None, &draws(&[4])).unwrap();
    for (out, keep) in values(apply(ON, mixing), &given).iter().zip(&keep) {
        for (row, keep) in out.host().chunks(6).zip(keep) {
            assert_eq!(row.iter().all(|x| *x == row[0]), !keep);
        }
    }
}

#[test]
fn a_batch_gives_what_its_bags_give_one_by_one() {
    let [f, g] = bags(&[3, 0, 300, 17], &[600, 9, 20, 17]);
    let cut = |x: &Tensor<f32>, bags: &Ragged, b: usize| {
        Tensor::new(&[bags.bag(b).len(), 9], x.host()[bags.bag(b).start * 9..bags.bag(b).end * 9].to_vec()).unwrap()
    };
    for op in variants() {
        for statistics in [Statistics::Detached, Statistics::Differentiated] {
            let op = Cade { statistics, p_aug: 0.7, ..op };
            let given = inputs::<f32>([&f, &g], 9);
            let cot = cotangents(&given);
            let mixing = op.draw([&f, &g], None, &draws(&[5, 6, 7, 8])).unwrap();
            assert!(mixing[0].active().contains(&true), "a draw that shows something");
            let together = gradients(apply(op, mixing), &given, &cot);
            for b in 0..4 {
                let one = [&f, &g].map(|bags| Ragged::uniform(1, bags.bag(b).len()));
                let own = |x: &[Tensor<f32>]| [cut(&x[0], &f, b), cut(&x[1], &g, b)];
                let mixing = op.draw([&one[0], &one[1]], None, &draws(&[5 + b as u32])).unwrap();
                let alone = gradients(apply(op, mixing), &own(&given), &own(&cot));
                assert_eq!(alone.0, own(&together.0), "{op:?} bag {b}");
                assert_eq!(alone.1, own(&together.1), "{op:?} bag {b}");
            }
        }
    }
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let [f, g] = bags(&[600, 300], &[700, 500]);
    for op in [ON, Cade { kappa: 0.5, bandwidth: Bandwidth::Relative(0.5), ..ON }] {
        let op = Cade { statistics: Statistics::Differentiated, ..op };
        let given = inputs::<f32>([&f, &g], 5);
        let cot = cotangents(&given);
        assert_same_on_any_number_of_threads(|| {
            let mixing = op.draw([&f, &g], None, &draws(&[1, 2])).unwrap();
            gradients(apply(op, mixing), &given, &cot)
        });
    }
}

#[test]
fn donors_are_a_permutation_and_are_used_again_when_they_run_out() {
    let [f, g] = bags(&[300, 7], &[300, 1000]);
    let [into_f, into_g] = ON.draw([&f, &g], None, &draws(&[1, 2])).unwrap();
    let sorted = |donor: &[u32]| {
        let mut donor = donor.to_vec();
        donor.sort_unstable();
        donor
    };
    // As many receivers as donors: each gives once, in both directions, in two different orders.
    assert_eq!(sorted(&into_f.donor()[f.bag(0)]), (0..300).collect::<Vec<u32>>());
    assert_eq!(sorted(&into_g.donor()[g.bag(0)]), (0..300).collect::<Vec<u32>>());
    assert_ne!(into_f.donor()[f.bag(0)], into_g.donor()[g.bag(0)]);
    // Fewer receivers: no donor twice. More: one cycle after the other.
    let few = sorted(&into_f.donor()[f.bag(1)]);
    assert!(few.windows(2).all(|w| w[0] < w[1]) && few.iter().all(|d| *d < 1000));
    let many = &into_g.donor()[g.bag(1)];
    assert_eq!(sorted(&many[..7]), (0..7).collect::<Vec<u32>>());
    assert!(many.iter().enumerate().all(|(i, d)| *d == many[i % 7]));
}

#[test]
fn dead_tokens_never_give_when_they_are_skipped() {
    let [f, g] = bags(&[40, 5, 3], &[60, 9, 4]);
    let op = Cade { skip_dead_donors: true, ..ON };
    let mut keep = [&f, &g].map(|bags| Sdir::default().keep_mask(bags, Some(&draws(&[1, 2, 3]))).unwrap());
    keep[0][f.bag(2)].fill(false);
    let [into_f, into_g] = op.draw([&f, &g], Some([&keep[0], &keep[1]]), &draws(&[1, 2, 3])).unwrap();
    assert_eq!((into_f.active(), into_g.active()), (&[true; 3][..], &[true, true, false][..]));
    for (mixing, donors, keep) in [(&into_f, &g, &keep[1]), (&into_g, &f, &keep[0])] {
        for (bag, rows) in mixing.receivers().iter().enumerate().filter(|(bag, _)| mixing.active()[*bag]) {
            assert!(rows.clone().all(|row| keep[donors.bag(bag).start + mixing.donor()[row] as usize]));
        }
        assert_eq!(mixing.weight().unwrap().iter().map(|w| *w == 1.0).collect::<Vec<_>>(), *keep);
    }
    // The order of the living is that of all donors without the dead.
    let all = ON.draw([&f, &g], None, &draws(&[1, 2, 3])).unwrap();
    let alive: Vec<u32> = all[0].donor()[f.bag(0)].iter().copied().filter(|d| keep[1][*d as usize]).collect();
    assert_eq!(into_f.donor()[..alive.len()], alive);
}

#[test]
fn the_gate_fires_at_its_rate_for_both_directions_at_once() {
    let n = 20_000;
    let [f, g] = [Ragged::uniform(n, 1), Ragged::uniform(n, 2)];
    for p_aug in [0.0, 0.3, 1.0] {
        let op = Cade { p_aug, ..ON };
        let [into_f, into_g] = op.draw([&f, &g], None, &draws(&(0..n as u32).collect::<Vec<_>>())).unwrap();
        assert_eq!(into_f.active(), into_g.active());
        let rate = into_f.active().iter().filter(|a| **a).count() as f64 / n as f64;
        // Six standard errors of a proportion.
        assert!((rate - p_aug).abs() <= 6.0 * (p_aug * (1.0 - p_aug) / n as f64).sqrt(), "{p_aug}: {rate}");
    }
}

#[test]
fn a_patient_that_is_not_mixed_keeps_its_bits() {
    let [f, g] = bags(&[3, 0, 4, 2], &[4, 3, 0, 5]);
    for statistics in [Statistics::Detached, Statistics::Differentiated] {
        let op = Cade { statistics, ..ON };
        let whole = op.draw([&f, &g], None, &draws(&patients(4))).unwrap();
        assert_eq!(whole[0].active(), [true, false, false, true]);
        // The last bag only gives, the first only receives.
        let part = |m: &Mixing, active: [bool; 4]| {
            let (r, d) = (m.receivers(), m.donors());
            Mixing::new(r, d, active.to_vec(), m.donor().to_vec(), m.lambda().to_vec(), None).unwrap()
        };
        let mixing = [part(&whole[0], [true, false, false, false]), part(&whole[1], [false; 4])];
        let given = inputs::<f32>([&f, &g], 4);
        let cot = cotangents(&given);
        let (out, grads) = gradients(apply(op, mixing), &given, &cot);
        assert_ne!(out[0].host()[..12], given[0].host()[..12]);
        assert_eq!((&out[0].host()[12..], &grads[0].host()[12..]), (&given[0].host()[12..], &cot[0].host()[12..]));
        assert_eq!((&out[1], &grads[1].host()[16..]), (&given[1], &cot[1].host()[16..]));
    }
    let tape = Tape::<f32>::recording(Device::Cpu);
    let [x, y] = inputs::<f32>([&f, &g], 1).try_into().unwrap();
    let (x, y) = (tape.leaf(x), tape.leaf(y));
    let out = ON.forward(&tape, [&x, &y], [&f, &g], None, None).unwrap();
    assert_eq!((out[0].value(), out[1].value()), (x.value(), y.value()));
}

#[test]
fn drawn_and_explicit_calls_agree() {
    let [f, g] = bags(&[3, 6], &[40, 2]);
    let op = Cade { skip_dead_donors: true, ..ON };
    let keep = [&f, &g].map(|bags| Sdir::default().keep_mask(bags, Some(&draws(&[1, 2]))).unwrap());
    let given = inputs::<f32>([&f, &g], 4);
    let drawn = values(
        |tape, v| {
            let keep = Some([&keep[0][..], &keep[1][..]]);
            Ok(op.forward(tape, [&v[0], &v[1]], [&f, &g], keep, Some(&draws(&[1, 2])))?.into())
        },
        &given,
    );
    let mixing = op.draw([&f, &g], Some([&keep[0], &keep[1]]), &draws(&[1, 2])).unwrap();
    assert_eq!(drawn, values(apply(op, mixing), &given));
}

#[test]
fn a_set_without_live_donors_gives_and_lets_the_other_as_it_was() {
    let [f, g] = bags(&[4, 3], &[5, 6]);
    let keep = [vec![true; 7], [vec![false; 5], vec![true; 6]].concat()];
    let keep = Some([&keep[0][..], &keep[1][..]]);
    for statistics in [Statistics::Detached, Statistics::Differentiated] {
        let (op, draws) = (Cade { skip_dead_donors: true, statistics, ..ON }, draws(&patients(2)));
        let mixing = op.draw([&f, &g], keep, &draws).unwrap();
        let mixing = [&mixing[0], &mixing[1]];
        assert_as_good(op, mixing, 6, apply(op, mixing.map(Mixing::clone)));
        assert_as_good(op, mixing, 6, |tape, v| {
            Ok(op.forward(tape, [&v[0], &v[1]], [&f, &g], keep, Some(&draws))?.into())
        });
    }
}

#[test]
fn masks_applied_on_the_way_give_what_the_two_ops_give() {
    let [f, g] = bags(&[3, 6, 2, 0], &[400, 2, 0, 3]);
    let given = inputs::<f32>([&f, &g], 5);
    let cot = cotangents(&given);
    let draws = draws(&[1, 2, 3, 4]);
    let [weak, strong] = [draws.part(".weak"), draws.part(".strong")];
    for statistics in [Statistics::Detached, Statistics::Differentiated] {
        for (skip, p_aug, scale) in [
            (false, 1.0, Scale::None),
            (true, 1.0, Scale::None),
            (true, 0.0, Scale::None),
            (false, 1.0, Scale::Inverse),
        ] {
            let op = Cade { statistics, skip_dead_donors: skip, p_aug, ..ON };
            let sdir = Sdir { scale, ..Sdir::default() };
            let masks = [sdir.mask(&f, Some(&weak)).unwrap(), sdir.mask(&g, Some(&strong)).unwrap()];
            let fused = |tape: &Tape<f32>, v: &[Var<f32>]| -> Result<Vec<Var<f32>>> {
                Ok(op.forward_masked(tape, [&v[0], &v[1]], [&f, &g], [&masks[0], &masks[1]], Some(&draws))?.into())
            };
            let apart = |tape: &Tape<f32>, v: &[Var<f32>]| -> Result<Vec<Var<f32>>> {
                let x = sdir.forward(tape, &v[0], &f, Some(&weak), None)?;
                let y = sdir.forward(tape, &v[1], &g, Some(&strong), None)?;
                let keep = Some([masks[0].keep(), masks[1].keep()]);
                Ok(op.forward(tape, [&x, &y], [&f, &g], keep, Some(&draws))?.into())
            };
            let (fused, apart) = (gradients(fused, &given, &cot), gradients(apart, &given, &cot));
            assert_eq!(fused.0, apart.0);
            for k in [0, 1] {
                // The gradient's two factors are 2 and the stretch: a power of two, so their order does not show.
                assert_eq!(fused.1[k], apart.1[k], "{statistics:?} {skip} {p_aug} {scale:?}");
            }
            let again = |tape: &Tape<f32>, v: &[Var<f32>]| -> Result<Vec<Var<f32>>> {
                let x = sdir.forward(tape, &v[0], &f, Some(&weak), None)?;
                let masks = [&masks[0].applied(), &masks[1]];
                Ok(op.forward_masked(tape, [&x, &v[1]], [&f, &g], masks, Some(&draws))?.into())
            };
            assert_eq!(gradients(again, &given, &cot), fused);
        }
    }
    // Evaluation.
    let masks = [&f, &g].map(|bags| Sdir::default().mask(bags, None).unwrap());
    let still = |tape: &Tape<f32>, v: &[Var<f32>]| -> Result<Vec<Var<f32>>> {
        Ok(ON.forward_masked(tape, [&v[0], &v[1]], [&f, &g], [&masks[0], &masks[1]], None)?.into())
    };
    assert_eq!(values(still, &given), given);
}

#[test]
fn gradient_through_masks_matches_finite_differences() {
    let [f, g] = bags(&[5, 2], &[6, 3]);
    let op = Cade { statistics: Statistics::Differentiated, kappa: 0.5, bandwidth: Bandwidth::Fixed(0.5), ..ON };
    let draws = draws(&[1, 2]);
    let sdir = Sdir { scale: Scale::Inverse, ..Sdir::default() };
    let masks = [&f, &g].map(|bags| sdir.mask(bags, Some(&draws.part(".sdir"))).unwrap());
    assert!(masks.iter().all(|mask| mask.keep().contains(&false) && mask.keep().contains(&true)));
    let fused = |tape: &Tape<f64>, v: &[Var<f64>]| -> Result<Vec<Var<f64>>> {
        Ok(op.forward_masked(tape, [&v[0], &v[1]], [&f, &g], [&masks[0], &masks[1]], Some(&draws))?.into())
    };
    assert_gradients_match_finite_differences("masked", fused, &inputs([&f, &g], 4));
}

#[test]
fn settings_and_shapes_that_do_not_fit_are_named() {
    let tape = Tape::<f32>::inference(Device::Cpu);
    let var = |shape: &[usize]| Var::constant(Tensor::<f32>::zeros(shape));
    let [f, g] = bags(&[3], &[4]);
    let run = |op: Cade, x: &[usize], y: &[usize]| {
        op.forward(&tape, [&var(x), &var(y)], [&f, &g], None, Some(&draws(&[1]))).unwrap_err()
    };
    for (op, at) in [
        (Cade { alpha: 0.0, ..ON }, "cade.alpha"),
        (Cade { p_aug: 1.1, ..ON }, "cade.p_aug"),
        (Cade { eps: f64::NAN, ..ON }, "cade.eps"),
        (Cade { kappa: 0.5, ..ON }, "cade.kappa"),
        (Cade { kappa: -0.5, bandwidth: Bandwidth::Fixed(1.0), ..ON }, "cade.kappa"),
        (Cade { bandwidth: Bandwidth::Fixed(-1.0), ..ON }, "cade.bandwidth"),
        (Cade { bandwidth: Bandwidth::Relative(f64::INFINITY), ..ON }, "cade.bandwidth"),
        (Cade { skip_dead_donors: true, ..ON }, "cade.skip_dead_donors"),
    ] {
        let error = run(op, &[3, 2], &[4, 2]);
        assert!(matches!(error, Error::Setting { name, .. } if name == at), "{at}: {error}");
    }
    for (x, y, at) in [([4, 2], [4, 2], "f"), ([3, 2], [3, 2], "g"), ([3, 2], [4, 3], "g"), ([3, 1], [4, 1], "f")] {
        let error = run(ON, &x, &y);
        assert!(matches!(error, Error::Shape { arg, .. } if arg == at), "{at}: {error}");
    }
    assert!(matches!(ON.draw([&f, &g], None, &draws(&[1, 2])), Err(Error::Shape { arg: "patients", .. })));
    let op = Cade { skip_dead_donors: true, ..ON };
    let error = op.draw([&f, &g], Some([&[true; 3], &[true; 3]]), &draws(&[1])).unwrap_err();
    assert!(matches!(error, Error::Shape { arg: "keep of g", .. }));

    let mix = |donor: [u32; 3], lambda: [f64; 3], weight: Option<Vec<f64>>| {
        Mixing::new(&f, &g, vec![true], donor.to_vec(), lambda.to_vec(), weight)
    };
    let (donor, lambda) = ([0, 3, 1], [0.0, 1.0, 0.5]);
    assert!(matches!(mix([0, 4, 1], lambda, None), Err(Error::Value { arg: "donor", index: 1, .. })));
    assert!(matches!(mix(donor, [0.0, 1.0, 1.5], None), Err(Error::Value { arg: "lambda", index: 2, .. })));
    assert!(matches!(mix(donor, lambda, Some(vec![-1.0; 4])), Err(Error::Value { arg: "weight", index: 0, .. })));
    assert!(matches!(mix(donor, lambda, Some(vec![1.0; 3])), Err(Error::Shape { arg: "weight", .. })));
    let into_f = mix(donor, lambda, None).unwrap();
    let error = ON.forward_with(&tape, [&var(&[3, 2]), &var(&[3, 2])], [&into_f, &into_f]).unwrap_err();
    assert!(matches!(error, Error::Shape { arg: "mixing", .. }), "{error}");
}
