//! Layer normalisation on the CPU, row by row.

use super::LayerNorm;
use crate::element::Real;
use crate::ops::parallel::{rows_mut, sum_rows_mut};
use crate::tensor::Tensor;

/// Mean and `1 / sqrt(var + eps)` of a row.
fn moments<T: Real>(op: LayerNorm, x: &[T]) -> (T, T) {
    let n = T::of(x.len() as f64);
    let mean = x.iter().copied().sum::<T>() / n;
    let var = x.iter().map(|x| (*x - mean) * (*x - mean)).sum::<T>() / n;
    (mean, T::one() / (var + T::of(op.eps)).sqrt())
}

pub(super) fn forward<T: Real>(
    op: LayerNorm,
    x: &Tensor<T>,
    weight: Option<&Tensor<T>>,
    bias: Option<&Tensor<T>>,
) -> Tensor<T> {
    let (_, d) = x.matrix();
    let mut y = x.clone();
    rows_mut(y.host_mut(), d, |_, y| {
        for row in y.chunks_exact_mut(d) {
            let (mean, inverse) = moments(op, row);
            row.iter_mut().for_each(|x| *x = (*x - mean) * inverse);
            if let Some(weight) = weight {
                row.iter_mut().zip(weight.host()).for_each(|(x, w)| *x *= *w);
            }
            if let Some(bias) = bias {
                row.iter_mut().zip(bias.host()).for_each(|(x, b)| *x += *b);
            }
        }
    });
    y
}

/// The gradients of `x`, weight and bias.
pub(super) fn backward<T: Real>(
    op: LayerNorm,
    x: &Tensor<T>,
    weight: Option<&Tensor<T>>,
    grad: &Tensor<T>,
) -> (Tensor<T>, Tensor<T>, Tensor<T>) {
    let (rows, d) = x.matrix();
    let mut dx = x.clone();
    let n = T::of(d as f64);
    let mut sums = sum_rows_mut(rows, 2 * d, dx.host_mut(), d, |range, sums, dx| {
        let (dw, db) = sums.split_at_mut(d);
        let grad = &grad.host()[range.start * d..range.end * d];
        // Rows without columns are not chunks.
        for (row, grad) in dx.chunks_exact_mut(d.max(1)).zip(grad.chunks_exact(d.max(1))) {
            let (mean, inverse) = moments(op, row);
            let g = |j: usize| weight.map_or(grad[j], |w| grad[j] * w.host()[j]);
            let (mut mean_g, mut mean_gz) = (T::zero(), T::zero());
            for j in 0..d {
                row[j] = (row[j] - mean) * inverse;
                dw[j] += grad[j] * row[j];
                db[j] += grad[j];
                mean_g += g(j);
                mean_gz += g(j) * row[j];
            }
            (mean_g, mean_gz) = (mean_g / n, mean_gz / n);
            for j in 0..d {
                row[j] = (g(j) - mean_g - row[j] * mean_gz) * inverse;
            }
        }
    });
    let db = sums.split_off(d);
    let tensor = |data| Tensor::new(&[d], data).expect("sized above");
    (dx, tensor(sums), tensor(db))
}
