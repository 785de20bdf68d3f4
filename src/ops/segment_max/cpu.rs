//! Maxima of bags on the CPU: the rows of a long bag in pieces, which are compared in order.

use std::ops::Range;

use rayon::prelude::*;

use super::NO_ROW;
use crate::element::Real;
use crate::shape::Ragged;
use crate::tensor::Tensor;

/// Rows that one task looks through.
const ROWS: usize = 4096;

/// The largest element of each column so far, and its row.
struct Best<T> {
    value: Vec<T>,
    row: Vec<u32>,
}

/// Whether an element takes the place of one of an earlier row: NaN is larger than any number, ties stay.
#[inline]
fn larger<T: Real>(later: T, earlier: T) -> bool {
    later > earlier || (later.is_nan() && !earlier.is_nan())
}

/// Of some rows, of which there is at least one.
fn of_rows<T: Real>(x: &[T], d: usize, rows: Range<usize>) -> Best<T> {
    let mut best = Best { value: x[rows.start * d..][..d].to_vec(), row: vec![rows.start as u32; d] };
    for i in rows.skip(1) {
        let columns = best.value.iter_mut().zip(&mut best.row);
        for ((value, row), &x) in columns.zip(&x[i * d..][..d]) {
            let takes = larger(x, *value);
            *value = if takes { x } else { *value };
            *row = if takes { i as u32 } else { *row };
        }
    }
    best
}

pub(super) fn forward<T: Real>(x: &Tensor<T>, bags: &Ragged) -> (Tensor<T>, Tensor<u32>) {
    // As on a device; the tensor of more rows than that would be of terabytes.
    assert!(u32::try_from(bags.rows()).is_ok(), "more than 2^32 - 1 rows in one batch");
    let (_, d) = x.matrix();
    let pieces = |(b, bag): (usize, Range<usize>)| {
        let end = bag.end;
        bag.step_by(ROWS).map(move |start| (b, start..(start + ROWS).min(end)))
    };
    let pieces: Vec<(usize, Range<usize>)> = bags.iter().enumerate().flat_map(pieces).collect();
    let found: Vec<Best<T>> = pieces.par_iter().map(|(_, rows)| of_rows(x.host(), d, rows.clone())).collect();
    let (mut y, mut chosen) = (Tensor::zeros(&[bags.bags(), d]), Tensor::full(&[bags.bags(), d], NO_ROW));
    let (values, rows) = (y.host_mut(), chosen.host_mut());
    for ((b, _), best) in pieces.into_iter().zip(found) {
        for (j, (value, row)) in best.value.into_iter().zip(best.row).enumerate() {
            let at = b * d + j;
            if rows[at] == NO_ROW || larger(value, values[at]) {
                (values[at], rows[at]) = (value, row);
            }
        }
    }
    (y, chosen)
}

pub(super) fn backward<T: Real>(shape: &[usize], chosen: &Tensor<u32>, grad: &Tensor<T>) -> Tensor<T> {
    let mut dx = Tensor::zeros(shape);
    let ((_, d), to) = (grad.matrix(), dx.host_mut());
    let each = chosen.host().iter().zip(grad.host()).enumerate();
    for (i, (&row, &grad)) in each.filter(|(_, (row, _))| **row != NO_ROW) {
        to[row as usize * d + i % d] = grad;
    }
    dx
}
