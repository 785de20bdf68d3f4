//! Maxima of bags on a CUDA device.

use crate::device::{Gpu, Grid, In, Out, kernels};
use crate::element::Real;
use crate::error::Result;
use crate::shape::Ragged;
use crate::tensor::Tensor;

kernels! { "segment_max":
    /// The largest of each tile of a long bag with its row, the result of a short one.
    fn segment_max_tiles(x: In<f32> = n * columns, offset: In<u32> = bags + 1,
        partials: Out<f32> = (n / TILE + bags) * columns, partial_rows: Out<u32> = (n / TILE + bags) * columns,
        y: Out<f32> = bags * columns, chosen: Out<u32> = bags * columns, n: u32, bags: u32, columns: u32, lanes: u32);
    /// The result of each long bag out of its tiles.
    fn segment_max_join(partials: In<f32> = tiles * columns, partial_rows: In<u32> = tiles * columns,
        offset: In<u32> = bags + 1, y: Out<f32> = bags * columns, chosen: Out<u32> = bags * columns,
        tiles: u32, bags: u32, columns: u32, lanes: u32);
    /// The gradient of `x`, into zeros.
    fn segment_max_backward(grad: In<f32> = bags * columns, chosen: In<u32> = bags * columns, dx: Out<f32> = n * columns,
        n: u32, bags: u32, columns: u32);
}

/// Rows of a tile, as in the kernels.
const TILE: usize = 128;
const THREADS: u32 = 256;

pub(super) fn forward<T: Real>(gpu: Gpu, x: &Tensor<T>, bags: &Ragged) -> Result<(Tensor<T>, Tensor<u32>)> {
    let (n, columns) = (bags.rows(), x.matrix().1);
    let (offset, tiles) = (bags.on(gpu)?, n / TILE + bags.bags());
    // Threads side by side, four columns each, and the blocks that they need for all columns.
    let lanes = columns.div_ceil(4).next_power_of_two().min(THREADS as usize);
    let blocks = columns.div_ceil(4 * lanes);
    let (mut y, mut chosen) = (gpu.alloc(&[bags.bags(), columns])?, gpu.alloc::<u32>(&[bags.bags(), columns])?);
    let (mut partials, mut rows) = (gpu.alloc::<T>(&[tiles, columns])?, gpu.alloc::<u32>(&[tiles, columns])?);
    let [n, b, d, lanes] = [n, bags.bags(), columns, lanes].map(|n| n as u32);
    let grid = Grid::new(tiles, THREADS).times(blocks);
    segment_max_tiles(gpu, grid, x, &offset, &mut partials, &mut rows, &mut y, &mut chosen, n, b, d, lanes)?;
    if bags.longest() > TILE {
        let grid = Grid::new(bags.bags(), THREADS).times(blocks);
        segment_max_join(gpu, grid, &partials, &rows, &offset, &mut y, &mut chosen, tiles as u32, b, d, lanes)?;
    }
    Ok((y, chosen))
}

pub(super) fn backward<T: Real>(
    gpu: Gpu,
    shape: &[usize],
    bags: &Ragged,
    chosen: &Tensor<u32>,
    grad: &Tensor<T>,
) -> Result<Tensor<T>> {
    let columns = grad.matrix().1;
    let mut dx = gpu.zeros(shape)?;
    let grid = Grid::over(bags.bags() * columns, THREADS as usize, THREADS);
    let [n, b, d] = [bags.rows(), bags.bags(), columns].map(|n| n as u32);
    segment_max_backward(gpu, grid, grad, chosen, &mut dx, n, b, d)?;
    Ok(dx)
}
