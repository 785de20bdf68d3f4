//! Softmax on the CPU, row by row.

use crate::element::Real;
use crate::ops::math;
use crate::ops::parallel::rows_mut;
use crate::tensor::Tensor;

pub(super) fn forward<T: Real>(x: &Tensor<T>) -> Tensor<T> {
    let (_, d) = x.matrix();
    let mut y = x.clone();
    rows_mut(y.host_mut(), d, |_, y| {
        for row in y.chunks_exact_mut(d) {
            let max = row.iter().copied().fold(T::neg_infinity(), T::max);
            row.iter_mut().for_each(|x| *x -= max);
            math::exp(row);
            let sum: T = row.iter().copied().sum();
            row.iter_mut().for_each(|x| *x /= sum);
        }
    });
    y
}

pub(super) fn backward<T: Real>(y: &Tensor<T>, grad: &Tensor<T>) -> Tensor<T> {
    let (_, d) = y.matrix();
    let mut dx = grad.clone();
    rows_mut(dx.host_mut(), d, |first, dx| {
        let y = &y.host()[first * d..][..dx.len()];
        for (row, y) in dx.chunks_exact_mut(d).zip(y.chunks_exact(d)) {
            let mean: T = row.iter().zip(y).map(|(g, y)| *g * *y).sum();
            row.iter_mut().zip(y).for_each(|(g, y)| *g = *y * (*g - mean));
        }
    });
    dx
}
