//! Means of bags on a CUDA device.

use crate::device::{Gpu, Grid, In, Out, kernels};
use crate::element::Real;
use crate::error::Result;
use crate::shape::Ragged;
use crate::tensor::Tensor;

kernels! { "segment_mean":
    /// The sum of each tile of a long bag, the mean of a short one.
    fn segment_mean_tiles(x: In<f32> = n * columns, offset: In<u32> = bags + 1,
        partials: Out<f32> = (n / TILE + bags) * columns, y: Out<f32> = bags * columns,
        n: u32, bags: u32, columns: u32, lanes: u32);
    /// The mean of each long bag out of the sums of its tiles.
    fn segment_mean_join(partials: In<f32> = tiles * columns, offset: In<u32> = bags + 1, y: Out<f32> = bags * columns,
        tiles: u32, bags: u32, columns: u32, lanes: u32);
    /// The gradient of `x`.
    fn segment_mean_backward(grad: In<f32> = bags * columns, offset: In<u32> = bags + 1, dx: Out<f32> = n * columns,
        n: u32, bags: u32, columns: u32, lanes: u32);
}

/// Rows of a tile, as in the kernels.
const TILE: usize = 128;
const THREADS: u32 = 256;

/// Threads side by side, four columns each, and the blocks that they need for all columns.
fn across(columns: usize) -> (u32, usize) {
    let lanes = columns.div_ceil(4).next_power_of_two().min(THREADS as usize);
    (lanes as u32, columns.div_ceil(4 * lanes))
}

pub(super) fn forward<T: Real>(gpu: Gpu, x: &Tensor<T>, bags: &Ragged) -> Result<Tensor<T>> {
    let (n, columns) = (bags.rows(), x.matrix().1);
    let (offset, tiles, (lanes, blocks)) = (bags.on(gpu)?, n / TILE + bags.bags(), across(columns));
    let mut y = gpu.alloc(&[bags.bags(), columns])?;
    let mut partials = gpu.alloc::<T>(&[tiles, columns])?;
    let (n, b, d) = (n as u32, bags.bags() as u32, columns as u32);
    let grid = Grid::new(tiles, THREADS).times(blocks);
    segment_mean_tiles(gpu, grid, x, &offset, &mut partials, &mut y, n, b, d, lanes)?;
    if bags.longest() > TILE {
        let grid = Grid::new(bags.bags(), THREADS).times(blocks);
        segment_mean_join(gpu, grid, &partials, &offset, &mut y, tiles as u32, b, d, lanes)?;
    }
    Ok(y)
}

pub(super) fn backward<T: Real>(gpu: Gpu, shape: &[usize], bags: &Ragged, grad: &Tensor<T>) -> Result<Tensor<T>> {
    let (n, columns) = (bags.rows(), grad.matrix().1);
    let (offset, tiles, (lanes, blocks)) = (bags.on(gpu)?, n / TILE + bags.bags(), across(columns));
    let mut dx = gpu.alloc(shape)?;
    let grid = Grid::new(tiles, THREADS).times(blocks);
    let (n, b, d) = (n as u32, bags.bags() as u32, columns as u32);
    segment_mean_backward(gpu, grid, grad, &offset, &mut dx, n, b, d, lanes)?;
    Ok(dx)
}
