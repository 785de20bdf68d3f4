//! Transport on the CPU: bags side by side, and the patches of a bag in chunks whose sums are joined in order.

use rayon::prelude::*;

use super::Transport;
use crate::element::Real;
use crate::ops::lanes;
use crate::ops::matmul::{Matrix, product_strided};
use crate::shape::Ragged;
use crate::tensor::Tensor;

/// Patches of one task.
pub(super) const CHUNK: usize = 1024;

/// A row in f64 without its least element.
pub(super) fn shifted<T: Real>(row: &[T], to: &mut [f64]) {
    let least = row.iter().fold(f64::INFINITY, |least, x| least.min(x.f64()));
    to.iter_mut().zip(row).for_each(|(to, x)| *to = x.f64() - least);
}

/// The cost of each patch of a bag and each of its gene tokens.
fn costs<T: Real>(genes: &[T], patches: &[T], columns: usize, count: usize) -> Vec<f64> {
    let mut tokens = vec![0.0; genes.len()];
    if columns > 0 {
        for (row, to) in genes.chunks(columns).zip(tokens.chunks_mut(columns)) {
            shifted(row, to);
        }
    }
    let rows = patches.len() / columns.max(1);
    let mut costs = vec![0.0; rows * count];
    costs.par_chunks_mut(CHUNK * count).zip(patches.par_chunks(CHUNK * columns)).for_each(|(costs, patches)| {
        let mut patch = vec![0.0; columns];
        for (row, costs) in patches.chunks(columns).zip(costs.chunks_mut(count)) {
            shifted(row, &mut patch);
            for (token, cost) in tokens.chunks(columns).zip(costs) {
                *cost = lanes::sum2(&patch, token, |x, y| (x - y) * (x - y));
            }
        }
    });
    costs
}

/// What one step makes of the patches of a chunk: sums by column, the largest change, the largest scaling.
struct Part {
    sums: Vec<f64>,
    change: f64,
    most: f64,
}

/// Turns the costs of a bag, `[rows, count]`, into its plan.
fn solve(op: &Transport, plan: &mut [f64], count: usize) {
    let max = plan.iter().fold(0.0, |max, x| f64::max(max, *x));
    let factor = if max > 0.0 { 1.0 / (max * op.reg) } else { 0.0 };
    plan.par_iter_mut().with_min_len(CHUNK).for_each(|x| *x = (-*x * factor).exp());
    let rows = plan.len() / count;
    let (mut u, mut v) = (vec![1.0; rows], vec![1.0; count]);
    let (of_rows, of_columns, power) = (1.0 / rows as f64, 1.0 / count as f64, op.power());
    for _ in 0..op.iterations {
        let step = |(u, k): (&mut [f64], &[f64])| {
            let mut part = Part { sums: vec![0.0; count], change: 0.0, most: 1.0 };
            for (u, k) in u.iter_mut().zip(k.chunks(count)) {
                let sum: f64 = k.iter().zip(&v).map(|(k, v)| k * v).sum();
                let next = (of_rows / sum).powf(power);
                part.change = part.change.max((next - *u).abs());
                part.most = part.most.max(next).max(*u);
                *u = next;
                part.sums.iter_mut().zip(k).for_each(|(sum, k)| *sum += k * next);
            }
            part
        };
        let parts: Vec<Part> = u.par_chunks_mut(CHUNK).zip(plan.par_chunks(CHUNK * count)).map(step).collect();
        let [mut change, mut most] = [0.0, 1.0];
        let mut sums = vec![0.0; count];
        for part in parts {
            (change, most) = (f64::max(change, part.change), f64::max(most, part.most));
            sums.iter_mut().zip(&part.sums).for_each(|(sum, x)| *sum += x);
        }
        let [mut v_change, mut v_most] = [0.0, 1.0];
        for (v, sum) in v.iter_mut().zip(&sums) {
            let next = (of_columns / sum).powf(power);
            (v_change, v_most) = (f64::max(v_change, (next - *v).abs()), f64::max(v_most, next.max(*v)));
            *v = next;
        }
        if f64::midpoint(change / most, v_change / v_most) < op.tolerance {
            break;
        }
    }
    for (u, plan) in u.iter().zip(plan.chunks_mut(count)) {
        plan.iter_mut().zip(&v).for_each(|(x, v)| *x *= u * v);
    }
}

pub(super) fn forward<T: Real>(op: &Transport, tokens: [&Tensor<T>; 2], bags: &[Ragged; 2]) -> (Tensor<T>, Tensor<T>) {
    let (columns, width) = (tokens[1].matrix().1, bags[0].longest());
    let [genes, patches] = tokens.map(Tensor::host);
    let of_bag = |bag: usize| {
        let (of_genes, of_patches) = (bags[0].bag(bag), bags[1].bag(bag));
        let count = of_genes.len();
        if count == 0 || of_patches.is_empty() || columns == 0 {
            return (vec![T::zero(); count * columns], Vec::new());
        }
        let patches = &patches[of_patches.start * columns..of_patches.end * columns];
        let mut exact = costs(&genes[of_genes.start * columns..of_genes.end * columns], patches, columns, count);
        solve(op, &mut exact, count);
        let plan: Vec<T> = exact.iter().map(|x| T::of(*x)).collect();
        let parts: Vec<Vec<T>> = plan
            .par_chunks(CHUNK * count)
            .zip(patches.par_chunks(CHUNK * columns))
            .map(|(plan, patches)| {
                let (rows, mut sums) = (plan.len() / count, vec![T::zero(); count * columns]);
                let (plan, patches) = (Matrix::new(plan, rows, count), Matrix::new(patches, rows, columns));
                product_strided(&mut sums, columns, plan.t(), patches, false);
                sums
            })
            .collect();
        let mut out = vec![T::zero(); count * columns];
        parts.iter().for_each(|part| out.iter_mut().zip(part).for_each(|(sum, x)| *sum += *x));
        (out, plan)
    };
    let each: Vec<(Vec<T>, Vec<T>)> = (0..bags[0].bags()).into_par_iter().map(of_bag).collect();
    let mut out = Vec::with_capacity(bags[0].rows() * columns);
    let mut plan = Tensor::zeros(&[bags[1].rows(), width]);
    for (bag, (sums, own)) in each.into_iter().enumerate() {
        out.extend(sums);
        let (first, count) = (bags[1].bag(bag).start, bags[0].bag(bag).len());
        if width > 0 {
            let rows = plan.host_mut()[first * width..].chunks_mut(width);
            own.chunks(count.max(1)).zip(rows).for_each(|(own, row)| row[..count].copy_from_slice(own));
        }
    }
    let out = Tensor::new(&[bags[0].rows(), columns], out).expect("a row for each gene token");
    (out, plan)
}

pub(super) fn weights<T: Real>(plan: &Tensor<T>, bags: &Ragged) -> Tensor<T> {
    let width = plan.matrix().1;
    let sum = |row: usize| plan.host()[row * width..(row + 1) * width].iter().fold(0.0, |sum, x| sum + x.f64());
    let of_bag = |bag: usize| {
        let sums: Vec<f64> = bags.bag(bag).map(sum).collect();
        let total = sums.iter().fold(0.0, |total, x| total + x);
        // Without gene tokens there is nothing to share.
        let total = if total == 0.0 { 1.0 } else { total };
        sums.into_iter().map(move |sum| T::of(sum / total)).collect::<Vec<T>>()
    };
    let each: Vec<Vec<T>> = (0..bags.bags()).into_par_iter().map(of_bag).collect();
    Tensor::new(&[bags.rows(), 1], each.concat()).expect("a weight a patch")
}

pub(super) fn backward<T: Real>(plan: &Tensor<T>, bags: &[Ragged; 2], grad: &Tensor<T>) -> Tensor<T> {
    let ((rows, width), columns) = (plan.matrix(), grad.matrix().1);
    let mut dx = Tensor::zeros(&[rows, columns]);
    let mut work = Vec::new();
    let mut left = dx.host_mut();
    for bag in 0..bags[0].bags() {
        let (genes, patches) = (bags[0].bag(bag), bags[1].bag(bag));
        for start in patches.clone().step_by(CHUNK) {
            let rows = start..(start + CHUNK).min(patches.end);
            let (here, rest) = left.split_at_mut(rows.len() * columns);
            work.push((genes.clone(), rows, here));
            left = rest;
        }
    }
    let (plan, grad) = (plan.host(), grad.host());
    work.into_par_iter().filter(|(genes, ..)| !genes.is_empty() && columns > 0).for_each(|(genes, rows, to)| {
        let plan = Matrix::strided(&plan[rows.start * width..], rows.len(), genes.len(), width);
        let grad = Matrix::new(&grad[genes.start * columns..genes.end * columns], genes.len(), columns);
        product_strided(to, columns, plan, grad, false);
    });
    dx
}
