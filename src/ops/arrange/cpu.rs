//! Rows in another order on the CPU, chunk by chunk.

use super::{OTHERS, Standing, ZEROS};
use crate::element::Real;
use crate::ops::parallel::rows_mut;
use crate::tensor::Tensor;

pub(super) fn forward<T: Real>(shape: &[usize; 2], sources: &[&Tensor<T>], standing: &[Standing]) -> Tensor<T> {
    let (mut y, d) = (Tensor::zeros(shape), shape[1]);
    rows_mut(y.host_mut(), d, |first, y| {
        for (place, y) in y.chunks_exact_mut(d).enumerate().map(|(i, y)| (first + i, y)) {
            for (x, standing) in sources.iter().zip(standing) {
                let row = standing.row[place];
                if row != OTHERS && row != ZEROS {
                    y.copy_from_slice(&x.host()[row as usize * d..][..d]);
                }
            }
        }
    });
    y
}

pub(super) fn backward<T: Real>(standing: &Standing, grad: &Tensor<T>) -> Tensor<T> {
    let d = grad.matrix().1;
    let mut dx = Tensor::zeros(&[standing.rows, d]);
    rows_mut(dx.host_mut(), d, |first, dx| {
        for (row, dx) in dx.chunks_exact_mut(d).enumerate().map(|(i, dx)| (first + i, dx)) {
            let [start, end] = [row, row + 1].map(|r| standing.starts[r] as usize);
            for &place in &standing.places[start..end] {
                dx.iter_mut().zip(&grad.host()[place as usize * d..]).for_each(|(dx, grad)| *dx += *grad);
            }
        }
    });
    dx
}
