//! Convolution along tokens on a CUDA device.

use crate::device::{Gpu, Grid, In, Out, kernels};
use crate::element::Real;
use crate::error::Result;
use crate::shape::Ragged;
use crate::tensor::Tensor;

kernels! { "sequence_conv":
    /// The result; with kernels backwards, of a gradient, that of `x`.
    fn sequence_conv_rows(x: In<f32> = n * columns, offset: In<u32> = bags + 1, weight: In<f32> = heads * length,
        y: Out<f32> = n * columns, n: u32, bags: u32, columns: u32, heads: u32, length: u32, backwards: u32);
    /// The gradient of the weights, of each column and each `tiles` tiles.
    fn sequence_conv_products(x: In<f32> = n * columns, grad: In<f32> = n * columns, offset: In<u32> = bags + 1,
        partials: Out<f32> = (n / TILE + bags).div_ceil(tiles) * length * columns,
        n: u32, bags: u32, columns: u32, length: u32, tiles: u32);
    /// Their sums over all rows and over the columns of each head.
    fn sequence_conv_sum(partials: In<f32> = chunks * length * columns, dw: Out<f32> = heads * length,
        chunks: u32, columns: u32, heads: u32, length: u32);
}

/// Rows of a tile, columns of a block, and rows that a thread has of one, as in the kernels.
const TILE: usize = 128;
const COLUMNS: usize = 32;
const RUN: usize = 16;
const THREADS: u32 = 256;
/// The most partial sums for the gradient of the weights.
const CHUNKS: usize = 64;

/// The result, or with kernels backwards the gradient of the input.
pub(super) fn convolved<T: Real>(
    gpu: Gpu,
    x: &Tensor<T>,
    bags: &Ragged,
    weight: &Tensor<T>,
    backwards: bool,
) -> Result<Tensor<T>> {
    let ((n, columns), (heads, length)) = (x.matrix(), weight.matrix());
    let mut y = gpu.alloc(x.shape())?;
    let grid = Grid::new(n / TILE + bags.bags(), THREADS).times(columns.div_ceil(COLUMNS));
    // The kernels, and a tile with the rows around it.
    let grid = grid.shared((length + TILE + length - 1) * COLUMNS * size_of::<f32>());
    let [n, b, d, h, k] = [n, bags.bags(), columns, heads, length].map(|n| n as u32);
    sequence_conv_rows(gpu, grid, x, &bags.on(gpu)?, weight, &mut y, n, b, d, h, k, u32::from(backwards))?;
    Ok(y)
}

/// The gradient of the weights, `[H, K]`.
pub(super) fn of_weight<T: Real>(
    gpu: Gpu,
    x: &Tensor<T>,
    bags: &Ragged,
    shape: &[usize],
    grad: &Tensor<T>,
) -> Result<Tensor<T>> {
    let ((n, columns), (heads, length)) = (x.matrix(), (shape[0], shape[1]));
    let all = n / TILE + bags.bags();
    let tiles = all.div_ceil(CHUNKS).max(1);
    let chunks = all.div_ceil(tiles);
    let (mut partials, mut dw) = (gpu.alloc::<T>(&[chunks, length, columns])?, gpu.alloc(shape)?);
    let grid = Grid::new(chunks, THREADS).times(columns.div_ceil(COLUMNS));
    // The sums, a tile with the rows around it, and what each warp has for `RUN` of the sums.
    let grid = grid.shared((length + TILE + length - 1 + TILE) * COLUMNS * size_of::<f32>());
    let [n, b, d, h, k] = [n, bags.bags(), columns, heads, length].map(|n| n as u32);
    sequence_conv_products(gpu, grid, x, grad, &bags.on(gpu)?, &mut partials, n, b, d, k, tiles as u32)?;
    let grid = Grid::new(heads, THREADS).times(length);
    sequence_conv_sum(gpu, grid, &partials, &mut dw, chunks as u32, d, h, k)?;
    Ok(dw)
}

const _: () = assert!(THREADS as usize / COLUMNS * RUN == TILE, "a block has the rows of a tile");
