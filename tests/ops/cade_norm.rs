//! What a layer norm leaves of the entanglement.

use onkos::ops::LayerNorm;
use onkos::ops::cade::Mixing;
use onkos::{Ragged, Real, Tensor};

use crate::cade::ON;
use crate::cade_plain::naive;
use crate::harness::*;

/// The normalisation of a layer norm, row by row, in plain arithmetic.
fn plain_layer_norm<T: Real>(x: &Tensor<T>, eps: f64) -> Tensor<T> {
    let columns = x.matrix().1;
    let d = T::of(columns as f64);
    let mut out = x.clone();
    for row in out.host_mut().chunks_exact_mut(columns) {
        let mean = row.iter().copied().sum::<T>() / d;
        let variance = row.iter().map(|x| (*x - mean) * (*x - mean)).sum::<T>() / d;
        row.iter_mut().for_each(|x| *x = (*x - mean) / (variance + T::of(eps)).sqrt());
    }
    out
}

/// `docs/numerics.md` derives the factor; this is why the fusion model has no layer norm there.
#[test]
fn a_layer_norm_after_cade_leaves_a_factor_that_only_masked_donors_move_from_one() {
    let columns = 64;
    let f: Tensor<f32> = normal("norm.f", &[3, columns]);
    // The second donor was masked.
    let alive: Tensor<f32> = normal("norm.g", &[1, columns]);
    let g = Tensor::from_fn(&[2, columns], |i| if i < columns { alive.host()[i] } else { 0.0 });
    let [f_bags, g_bags] = [Ragged::from_lengths([3]), Ragged::from_lengths([2])];
    let (donor, lambda) = (vec![0, 0, 1], vec![0.3, 0.0, 0.0]);
    let into_f = Mixing::new(&f_bags, &g_bags, vec![true], donor, lambda, None).unwrap();
    let into_g = Mixing::new(&g_bags, &f_bags, vec![true], vec![0, 1], vec![0.5; 2], None).unwrap();
    let norm = LayerNorm::default();

    let got = values(
        |tape, v| {
            let [mixed, _] = ON.forward_with(tape, [&v[0], &v[1]], [&into_f, &into_g])?;
            Ok(vec![norm.forward(tape, &mixed, None, None)?])
        },
        &[f.clone(), g.clone()],
    );
    let [[mixed, _], _] = naive(ON, [&f, &g], [&into_f, &into_g], [&f, &g]);
    let plain = plain_layer_norm(&mixed, norm.eps);

    // The oracle never mixes: the norm of F alone, times c = sqrt((v + e) / (v + e (s / s')^2)).
    let (f, g) = (cast::<f32, f64>(&f), cast::<f32, f64>(&g));
    let variance = |x: &Tensor<f64>, row: usize, less: f64| {
        let x = &x.host()[row * columns..][..columns];
        let mean = x.iter().sum::<f64>() / columns as f64;
        x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (columns as f64 - less)
    };
    let factor: Vec<f64> = (0..3)
        .map(|i| {
            let own = (variance(&f, i, 1.0) + ON.eps).sqrt();
            let theirs = (variance(&g, into_f.donor()[i] as usize, 1.0) + ON.eps).sqrt();
            let given = into_f.lambda()[i] * own + (1.0 - into_f.lambda()[i]) * theirs;
            let v = variance(&f, i, 0.0);
            ((v + norm.eps) / (v + norm.eps * (own / given).powi(2))).sqrt()
        })
        .collect();
    let alone = plain_layer_norm(&f, norm.eps);
    let oracle: Vec<f64> = alone.host().iter().enumerate().map(|(i, x)| factor[i / columns] * x).collect();
    assert_as_good_as_plain("norm of mixed tokens", got[0].host(), plain.host(), &oracle);

    // Deviations near 1 leave a factor within the norm's epsilon of 1; a masked donor, of deviation sqrt(1e-6),
    // leaves 1 / sqrt(1 + 1e-5 / 1e-6).
    assert!(factor[..2].iter().all(|c| (c - 1.0).abs() < norm.eps), "{factor:?}");
    assert!((factor[2] * 11f64.sqrt() - 1.0).abs() < 0.01, "{factor:?}");
}
