//! Concatenation on the CPU: copies of runs of columns.

use crate::element::Real;
use crate::ops::parallel::rows_mut;
use crate::tensor::Tensor;

pub(super) fn forward<T: Real>(rows: usize, parts: &[&Tensor<T>]) -> Tensor<T> {
    let width: usize = parts.iter().map(|p| p.matrix().1).sum();
    let mut y = Tensor::zeros(&[rows, width]);
    rows_mut(y.host_mut(), width, |first, y| {
        for (i, row) in y.chunks_exact_mut(width).enumerate() {
            let mut rest = row;
            for part in parts {
                let d = part.matrix().1;
                let (here, after) = rest.split_at_mut(d);
                here.copy_from_slice(&part.host()[(first + i) * d..(first + i + 1) * d]);
                rest = after;
            }
        }
    });
    y
}

pub(super) fn backward<T: Real>(shapes: &[Vec<usize>], grad: &Tensor<T>) -> Vec<Tensor<T>> {
    let (_, width) = grad.matrix();
    let mut at = 0;
    let cut = |shape: &Vec<usize>| {
        let mut part = Tensor::zeros(shape);
        let d = part.matrix().1;
        rows_mut(part.host_mut(), d, |first, part| {
            for (i, row) in part.chunks_exact_mut(d).enumerate() {
                row.copy_from_slice(&grad.host()[(first + i) * width + at..][..d]);
            }
        });
        at += d;
        part
    };
    shapes.iter().map(cut).collect()
}
