//! Concatenation on a CUDA device.

use crate::device::{Gpu, Grid, In, Out, kernels};
use crate::element::Real;
use crate::error::Result;
use crate::tensor::Tensor;

kernels! { "concat":
    /// Up to four parts into the columns of `y` from `at` on.
    fn concat_join(a: Option<In<f32>> = rows * width_a, b: Option<In<f32>> = rows * width_b,
        c: Option<In<f32>> = rows * width_c, d: Option<In<f32>> = rows * width_d, y: Out<f32> = rows * columns,
        rows: u32, columns: u32, at: u32, width_a: u32, width_b: u32, width_c: u32, width_d: u32);
    /// Up to four parts out of the columns of `grad` from `at` on.
    fn concat_split(grad: In<f32> = rows * columns, a: Option<Out<f32>> = rows * width_a,
        b: Option<Out<f32>> = rows * width_b, c: Option<Out<f32>> = rows * width_c, d: Option<Out<f32>> = rows * width_d,
        rows: u32, columns: u32, at: u32, width_a: u32, width_b: u32, width_c: u32, width_d: u32);
}

/// Warps of a block, each with a row.
const WARPS: usize = 8;
const THREADS: u32 = 32 * WARPS as u32;
/// Parts of one launch.
const PARTS: usize = 4;

fn width<T: Real>(part: Option<&Tensor<T>>) -> u32 {
    part.map_or(0, |part| part.matrix().1 as u32)
}

pub(super) fn forward<T: Real>(gpu: Gpu, rows: usize, parts: &[&Tensor<T>]) -> Result<Tensor<T>> {
    let columns: usize = parts.iter().map(|p| p.matrix().1).sum();
    let mut y = gpu.alloc(&[rows, columns])?;
    let (grid, n, d) = (Grid::over(rows, WARPS, THREADS), rows as u32, columns as u32);
    let mut at = 0;
    for parts in parts.chunks(PARTS) {
        let part = |i: usize| parts.get(i).copied();
        let widths = [0, 1, 2, 3].map(|i| width(part(i)));
        let [wa, wb, wc, wd] = widths;
        concat_join(gpu, grid, part(0), part(1), part(2), part(3), &mut y, n, d, at, wa, wb, wc, wd)?;
        at += widths.iter().sum::<u32>();
    }
    Ok(y)
}

pub(super) fn backward<T: Real>(gpu: Gpu, shapes: &[Vec<usize>], grad: &Tensor<T>) -> Result<Vec<Tensor<T>>> {
    let (rows, columns) = grad.matrix();
    let (grid, n, d) = (Grid::over(rows, WARPS, THREADS), rows as u32, columns as u32);
    let mut parts = shapes.iter().map(|shape| gpu.alloc(shape)).collect::<Result<Vec<Tensor<T>>>>()?;
    let mut at = 0;
    for parts in parts.chunks_mut(PARTS) {
        let widths = [0, 1, 2, 3].map(|i| width(parts.get(i)));
        let [wa, wb, wc, wd] = widths;
        let mut parts = parts.iter_mut();
        let (a, b, c, e) = (parts.next(), parts.next(), parts.next(), parts.next());
        concat_split(gpu, grid, grad, a, b, c, e, n, d, at, wa, wb, wc, wd)?;
        at += widths.iter().sum::<u32>();
    }
    Ok(parts)
}
