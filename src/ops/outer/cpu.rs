//! The outer product of rows on the CPU.

use super::Dims;
use crate::element::Real;
use crate::ops::math;
use crate::ops::parallel::rows_mut;
use crate::tensor::Tensor;

/// Row `row` with its one, if it has one.
fn row_of<T: Real>(x: &Tensor<T>, row: usize, columns: usize, whole: usize) -> Vec<T> {
    let mut all = x.host()[row * columns..][..columns].to_vec();
    all.resize(whole, T::one());
    all
}

pub(super) fn forward<T: Real>(dims: Dims, u: &Tensor<T>, v: &Tensor<T>) -> Tensor<T> {
    let [p, q] = dims.whole();
    let mut y = Tensor::zeros(&[dims.rows, p * q]);
    rows_mut(y.host_mut(), p * q, |first, y| {
        for (row, y) in y.chunks_exact_mut(p * q).enumerate().map(|(i, y)| (first + i, y)) {
            let (u, v) = (row_of(u, row, dims.p, p), row_of(v, row, dims.q, q));
            for (y, u) in y.chunks_exact_mut(q).zip(u) {
                y.iter_mut().zip(&v).for_each(|(y, v)| *y = u * *v);
            }
        }
    });
    y
}

pub(super) fn backward<T: Real>(dims: Dims, u: &Tensor<T>, v: &Tensor<T>, grad: &Tensor<T>) -> [Tensor<T>; 2] {
    let [p, q] = dims.whole();
    let of_row = |row: usize| grad.host()[row * p * q..][..p * q].chunks_exact(q.max(1));
    let (mut du, mut dv) = (Tensor::zeros(u.shape()), Tensor::zeros(v.shape()));
    rows_mut(du.host_mut(), dims.p, |first, du| {
        for (row, du) in du.chunks_exact_mut(dims.p).enumerate().map(|(i, du)| (first + i, du)) {
            let v = row_of(v, row, dims.q, q);
            du.iter_mut().zip(of_row(row)).for_each(|(du, grad)| *du = math::dot(grad, &v));
        }
    });
    rows_mut(dv.host_mut(), dims.q, |first, dv| {
        for (row, dv) in dv.chunks_exact_mut(dims.q).enumerate().map(|(i, dv)| (first + i, dv)) {
            for (u, grad) in row_of(u, row, dims.p, p).into_iter().zip(of_row(row)) {
                dv.iter_mut().zip(grad).for_each(|(dv, grad)| *dv += u * *grad);
            }
        }
    });
    [du, dv]
}
