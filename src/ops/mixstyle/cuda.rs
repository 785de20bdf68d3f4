//! MixStyle on a CUDA device.

use super::{Blend, MixStyle};
use crate::device::{Gpu, Grid, In, Out, kernels};
use crate::element::Real;
use crate::error::Result;
use crate::shape::Ragged;
use crate::tensor::Tensor;

kernels! { "mixstyle":
    /// Mean and sum of squared differences of each tile of a bag.
    fn mixstyle_tiles(x: In<f32> = n * columns, offset: In<u32> = bags + 1, mean: Out<f64> = (n / TILE + bags) * columns,
        squares: Out<f64> = (n / TILE + bags) * columns, n: u32, bags: u32, columns: u32, lanes: u32);
    /// Mean and deviation of each bag.
    fn mixstyle_join(tile_mean: In<f64> = tiles * columns, tile_squares: In<f64> = tiles * columns,
        offset: In<u32> = bags + 1, mean: Out<f64> = bags * columns, deviation: Out<f64> = bags * columns,
        tiles: u32, bags: u32, columns: u32, eps: f64);
    /// What the rows of each bag have taken off, are multiplied by, and have added.
    fn mixstyle_blend(mean: In<f64> = bags * columns, deviation: In<f64> = bags * columns, offset: In<u32> = bags + 1,
        partner: In<u32> = bags, lambda: In<f64> = bags, own: Out<f32> = bags * columns, scale: Out<f32> = bags * columns,
        shift: Out<f32> = bags * columns, bags: u32, columns: u32);
    /// The rows with their new statistics.
    fn mixstyle_forward(x: In<f32> = n * columns, offset: In<u32> = bags + 1, own: In<f32> = bags * columns,
        scale: In<f32> = bags * columns, shift: In<f32> = bags * columns, y: Out<f32> = n * columns,
        n: u32, bags: u32, columns: u32, lanes: u32);
    /// The gradient of `x`.
    fn mixstyle_backward(grad: In<f32> = n * columns, offset: In<u32> = bags + 1, scale: In<f32> = bags * columns,
        dx: Out<f32> = n * columns, n: u32, bags: u32, columns: u32, lanes: u32);
}

/// Rows of a tile, as in the kernels.
const TILE: usize = 128;
const THREADS: u32 = 256;

/// A block a tile and as many columns as its threads have, four each; and how many threads are side by side.
fn over_tiles(bags: &Ragged, columns: usize) -> (Grid, u32) {
    let lanes = columns.div_ceil(4).next_power_of_two().min(THREADS as usize);
    (Grid::new(bags.rows() / TILE + bags.bags(), THREADS).times(columns.div_ceil(4 * lanes)), lanes as u32)
}

pub(super) fn forward<T: Real>(
    op: &MixStyle,
    gpu: Gpu,
    x: &Tensor<T>,
    bags: &Ragged,
    blend: &Blend,
) -> Result<(Tensor<T>, Tensor<T>)> {
    let (rows, columns) = x.matrix();
    let (offset, tiles, (grid, lanes)) = (bags.on(gpu)?, rows / TILE + bags.bags(), over_tiles(bags, columns));
    let [n, b, d] = [rows, bags.bags(), columns].map(|n| n as u32);
    let of_tiles = || gpu.alloc::<f64>(&[tiles, columns]);
    let of_bags = || gpu.alloc::<f64>(&[bags.bags(), columns]);
    let (mut mean, mut deviation) = (of_bags()?, of_bags()?);
    {
        let (mut tile_mean, mut squares) = (of_tiles()?, of_tiles()?);
        mixstyle_tiles(gpu, grid, x, &offset, &mut tile_mean, &mut squares, n, b, d, lanes)?;
        let grid = Grid::new(bags.bags(), THREADS).times(columns.div_ceil(32));
        mixstyle_join(gpu, grid, &tile_mean, &squares, &offset, &mut mean, &mut deviation, tiles as u32, b, d, op.eps)?;
    }
    let table = || gpu.alloc::<T>(&[bags.bags(), columns]);
    let (mut own, mut scale, mut shift) = (table()?, table()?, table()?);
    let (partner, lambda) = (blend.partner.on(gpu)?, blend.lambda.on(gpu)?);
    let over_bags = Grid::over(bags.bags() * columns, THREADS as usize, THREADS);
    let mut y = gpu.alloc(x.shape())?;
    mixstyle_blend(
        gpu, over_bags, &mean, &deviation, &offset, &partner, &lambda, &mut own, &mut scale, &mut shift, b, d,
    )?;
    mixstyle_forward(gpu, grid, x, &offset, &own, &scale, &shift, &mut y, n, b, d, lanes)?;
    Ok((y, scale))
}

pub(super) fn backward<T: Real>(gpu: Gpu, bags: &Ragged, scale: &Tensor<T>, grad: &Tensor<T>) -> Result<Tensor<T>> {
    let (rows, columns) = grad.matrix();
    let (grid, lanes) = over_tiles(bags, columns);
    let mut dx = gpu.alloc(grad.shape())?;
    let [n, b, d] = [rows, bags.bags(), columns].map(|n| n as u32);
    mixstyle_backward(gpu, grid, grad, &bags.on(gpu)?, scale, &mut dx, n, b, d, lanes)?;
    Ok(dx)
}
