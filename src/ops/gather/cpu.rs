//! The gathering of rows on the CPU.

use rayon::prelude::*;

use crate::element::Feature;
use crate::shape::Ragged;
use crate::tensor::Tensor;

pub(super) fn forward<F: Feature>(x: &Tensor<F>, starts: &[usize], bags: &Ragged) -> Tensor<F> {
    let (_, columns) = x.matrix();
    let mut y = Tensor::zeros(&[bags.rows(), columns]);
    let mut left = y.host_mut();
    let mut jobs = Vec::with_capacity(starts.len());
    for (&start, bag) in starts.iter().zip(bags.iter()) {
        let (to, rest) = left.split_at_mut(bag.len() * columns);
        left = rest;
        jobs.push((&x.host()[start * columns..][..to.len()], to));
    }
    jobs.into_par_iter().for_each(|(from, to)| to.copy_from_slice(from));
    y
}
