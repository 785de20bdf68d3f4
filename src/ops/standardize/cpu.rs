//! The folded weights on the CPU: plain loops, the matrices are small.

use crate::element::Real;
use crate::tensor::Tensor;

pub(super) fn forward<T: Real>(
    weight: &Tensor<T>,
    bias: &Tensor<T>,
    mean: &Tensor<T>,
    deviation: &Tensor<T>,
) -> (Tensor<T>, Tensor<T>) {
    let (mut w, mut b) = (weight.clone(), bias.clone());
    for (row, b) in w.host_mut().chunks_exact_mut(mean.len().max(1)).zip(b.host_mut()) {
        row.iter_mut().zip(deviation.host()).for_each(|(w, s)| *w /= *s);
        let shift: f64 = row.iter().zip(mean.host()).map(|(w, m)| w.f64() * m.f64()).sum();
        *b = T::of(b.f64() - shift);
    }
    (w, b)
}

/// The gradient of the weight.
pub(super) fn backward<T: Real>(gw: &Tensor<T>, gb: &Tensor<T>, mean: &Tensor<T>, deviation: &Tensor<T>) -> Tensor<T> {
    let mut dw = gw.clone();
    for (row, gb) in dw.host_mut().chunks_exact_mut(mean.len().max(1)).zip(gb.host()) {
        for ((dw, m), s) in row.iter_mut().zip(mean.host()).zip(deviation.host()) {
            *dw = (*dw - *gb * *m) / *s;
        }
    }
    dw
}
