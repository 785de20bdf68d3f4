//! Means of bags on the CPU: the tiles of a bag in parallel, joined in order.

use crate::element::Real;
use crate::ops::parallel::{rows_mut, sum_rows};
use crate::shape::Ragged;
use crate::tensor::Tensor;

/// Bags shorter than this are summed by one task each, many bags at a time.
const LONG: usize = 4096;

pub(super) fn forward<T: Real>(x: &Tensor<T>, bags: &Ragged) -> Tensor<T> {
    let (_, d) = x.matrix();
    let x = x.host();
    let add = |rows: std::ops::Range<usize>, sum: &mut [T]| {
        for i in rows {
            sum.iter_mut().zip(&x[i * d..(i + 1) * d]).for_each(|(sum, x)| *sum += *x);
        }
    };
    let mut y = Tensor::zeros(&[bags.bags(), d]);
    rows_mut(y.host_mut(), d, |first, y| {
        for (b, mean) in y.chunks_exact_mut(d).enumerate() {
            let rows = bags.bag(first + b);
            if rows.is_empty() {
                continue;
            }
            if rows.len() < LONG {
                add(rows.clone(), mean);
            } else {
                let part = |part: std::ops::Range<usize>, sum: &mut [T]| {
                    add(rows.start + part.start..rows.start + part.end, sum);
                };
                mean.copy_from_slice(&sum_rows(rows.len(), d, part));
            }
            let n = T::of(rows.len() as f64);
            mean.iter_mut().for_each(|x| *x /= n);
        }
    });
    y
}

pub(super) fn backward<T: Real>(shape: &[usize], bags: &Ragged, grad: &Tensor<T>) -> Tensor<T> {
    let mut dx = Tensor::zeros(shape);
    let (_, d) = grad.matrix();
    rows_mut(dx.host_mut(), d, |first, dx| {
        for (i, row) in dx.chunks_exact_mut(d).enumerate() {
            let b = bags.bag_of(first + i);
            let n = T::of(bags.bag(b).len() as f64);
            row.iter_mut().zip(&grad.host()[b * d..(b + 1) * d]).for_each(|(x, g)| *x = *g / n);
        }
    });
    dx
}
