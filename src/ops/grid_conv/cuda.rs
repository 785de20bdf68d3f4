//! Convolutions over grids on a CUDA device.

use super::{Depthwise, Grids, Merged};
use crate::device::{Gpu, Grid, In, Out, kernels};
use crate::element::Real;
use crate::error::Result;
use crate::shape::Ragged;
use crate::tensor::Tensor;

kernels! { "grid_conv":
    /// Adds one convolution to the sum of all.
    fn grid_conv_merge(weight: In<f32> = columns * side * side, bias: Option<In<f32>> = columns,
        merged: Out<f32> = (size * size + 1) * columns, columns: u32, side: u32, size: u32);
    /// The result; with weights backwards, of a gradient, that of `x`.
    fn grid_conv_cells(x: In<f32> = n * columns, tile: In<u32> = 4 * tiles, merged: In<f32> = (size * size + 1) * columns,
        y: Out<f32> = n * columns, n: u32, columns: u32, lead: u32, tiles: u32, size: u32, backwards: u32);
    /// The gradients of weights and bias of the sum of all, of each `chunk` tiles.
    fn grid_conv_products(x: In<f32> = n * columns, grad: In<f32> = n * columns, tile: In<u32> = 4 * tiles,
        partials: Out<f32> = tiles.div_ceil(chunk) * (size * size + 1) * columns,
        n: u32, columns: u32, lead: u32, tiles: u32, size: u32, chunk: u32);
    /// What of them is one convolution's, added up.
    fn grid_conv_join(partials: In<f32> = chunks * (size * size + 1) * columns, dw: Out<f32> = columns * side * side,
        db: Option<Out<f32>> = columns, chunks: u32, columns: u32, side: u32, size: u32);
}

/// Cells of a tile each way, and channels of a block, as in the kernels.
const SIDE: usize = 16;
const CHANNELS: usize = 16;
const THREADS: u32 = 256;
/// The most partial sums for the gradients of weights and biases.
const CHUNKS: usize = 32;

/// The tiles of all grids, four numbers each: the first row of the bag, the side of its grid, the first row and the first
/// column of the tile. A bag that has leading rows alone has one tile, for these.
pub(super) fn tiles(bags: &Ragged, sides: &[usize]) -> Vec<u32> {
    // As kernels count; the tensor of more rows than that would be of terabytes.
    assert!(u32::try_from(bags.rows()).is_ok(), "more than 2^32 - 1 rows in one batch");
    let mut tiles = Vec::new();
    for (bag, &side) in bags.iter().zip(sides).filter(|(bag, _)| !bag.is_empty()) {
        for p in (0..side.max(1)).step_by(SIDE) {
            let row = (0..side.max(1)).step_by(SIDE);
            tiles.extend(row.flat_map(|q| [bag.start, side, p, q].map(|n| n as u32)));
        }
    }
    tiles
}

/// Bytes of shared memory for a tile with the cells around it, and one more in each row, so that threads that read two rows
/// do so from different banks.
fn of_tile(size: usize) -> usize {
    (SIDE + size - 1) * (SIDE + size) * CHANNELS * size_of::<f32>()
}

/// All convolutions in one, centre on centre.
pub(super) fn merged<T: Real>(gpu: Gpu, convolutions: &[Depthwise<'_, T>], size: usize) -> Result<Merged<T>> {
    let columns = convolutions.first().map_or(0, |first| first.weight.shape()[0]);
    let mut table = gpu.zeros(&[size * size + 1, columns])?;
    for Depthwise { weight, bias } in convolutions {
        let weights = weight.shape()[1];
        let grid = Grid::over((weights + 1) * columns, THREADS as usize, THREADS);
        let [d, side, size] = [columns, weights.isqrt(), size].map(|n| n as u32);
        grid_conv_merge(gpu, grid, weight.value(), bias.map(|b| b.value()), &mut table, d, side, size)?;
    }
    Ok(Merged { table, size })
}

/// The result, or with the weights backwards and no bias the gradient of the input.
pub(super) fn convolved<T: Real>(
    gpu: Gpu,
    x: &Tensor<T>,
    grids: &Grids,
    merged: &Merged<T>,
    backwards: bool,
) -> Result<Tensor<T>> {
    let ((n, columns), tiles) = (x.matrix(), grids.tiles.len() / 4);
    let mut y = gpu.alloc(x.shape())?;
    let table = (merged.size * merged.size + 1) * CHANNELS * size_of::<f32>();
    let grid = Grid::new(tiles, THREADS).times(columns.div_ceil(CHANNELS)).shared(of_tile(merged.size) + table);
    let [n, d, lead, tiles, size] = [n, columns, grids.lead, tiles, merged.size].map(|n| n as u32);
    let tile = grids.tiles.on(gpu)?;
    grid_conv_cells(gpu, grid, x, &tile, &merged.table, &mut y, n, d, lead, tiles, size, u32::from(backwards))?;
    Ok(y)
}

/// The gradients of weights and biases, of each convolution in turn; `sides` says how large it is and whether it has a bias.
pub(super) fn of_parameters<T: Real>(
    gpu: Gpu,
    x: &Tensor<T>,
    grids: &Grids,
    size: usize,
    sides: &[(usize, bool)],
    grad: &Tensor<T>,
) -> Result<Vec<Tensor<T>>> {
    let ((n, columns), tiles) = (x.matrix(), grids.tiles.len() / 4);
    let chunk = tiles.div_ceil(CHUNKS).max(1);
    let chunks = tiles.div_ceil(chunk);
    let mut partials = gpu.alloc::<T>(&[chunks, size * size + 1, columns])?;
    let grid = Grid::new(chunks, THREADS).times(columns.div_ceil(CHANNELS)).shared(of_tile(size));
    let [n, d, lead, all, s, each] = [n, columns, grids.lead, tiles, size, chunk].map(|n| n as u32);
    grid_conv_products(gpu, grid, x, grad, &grids.tiles.on(gpu)?, &mut partials, n, d, lead, all, s, each)?;
    let mut gradients = Vec::new();
    for &(side, bias) in sides {
        let mut dw = gpu.alloc(&[columns, side * side])?;
        let mut db = if bias { Some(gpu.alloc(&[columns])?) } else { None };
        let grid = Grid::over((side * side + 1) * columns, THREADS as usize, THREADS);
        grid_conv_join(gpu, grid, &partials, &mut dw, db.as_mut(), chunks as u32, d, side as u32, s)?;
        gradients.push(dw);
        gradients.extend(db);
    }
    Ok(gradients)
}
