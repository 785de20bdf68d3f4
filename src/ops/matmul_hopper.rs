//! The matrix products of Hopper, for factors rounded to bf16 or f16: those of [`super::matmul_cuda`] by wgmma.
//!
//! The same promise holds as there: how the terms of an element are added depends on the length of the sum alone.

use half::{bf16, f16};

use super::matmul_cuda::{End, Size};
use crate::device::{Gpu, Grid, Precision};
use crate::element::{Element, Real};
use crate::error::Result;
use crate::tensor::Tensor;

macro_rules! kernel_file {
    ($mode:ident $file:literal $T:ident: $nt:ident $nt_small:ident $tn:ident $nn:ident $nn_small:ident $pack:ident) => {
        mod $mode {
            use crate::device::{In, Out, kernels};
            use half::$T;
            kernels! { $file:
                /// `y = f(a b^T + bias)`; the argument of `f` too, if asked for.
                fn $nt<F in f32, f16, bf16>(a: In<F> = m * k, packed: In<$T> = super::packed(n, k), bias: Option<In<f32>> = n,
                    y: Out<f32> = m * n, argument: Option<Out<f32>> = m * n, m: u32, n: u32, k: u32, function: u32);
                /// As its namesake, in smaller tiles.
                fn $nt_small<F in f32, f16, bf16>(a: In<F> = m * k, b: In<f32> = n * k, bias: Option<In<f32>> = n,
                    y: Out<f32> = m * n, argument: Option<Out<f32>> = m * n, m: u32, n: u32, k: u32, function: u32);
                /// `a^T b` over each chunk of `chunk` terms.
                fn $tn<F in f32, f16, bf16>(a: In<f32> = k * m, b: In<F> = k * n, c: Out<f32> = k.div_ceil(chunk).max(1) * m * n,
                    m: u32, n: u32, k: u32, chunk: u32);
                /// `c = a b`.
                fn $nn(a: In<f32> = m * k, packed: In<$T> = super::packed(n, k), c: Out<f32> = m * n, m: u32, n: u32, k: u32);
                /// As its namesake, in smaller tiles.
                fn $nn_small(a: In<f32> = m * k, b: In<f32> = k * n, c: Out<f32> = m * n, m: u32, n: u32, k: u32);
                /// `b`, `[n, k]` or `[k, n]`, rounded and in the order in which the large tiles read it.
                fn $pack(b: In<f32> = n * k, packed: Out<$T> = super::packed(n, k), n: u32, k: u32, along_k: u32);
            }
        }
    };
}
kernel_file!(bf16_sm90 "matmul_bf16_sm90" bf16: matmul_nt_bf16_sm90 matmul_nt_bf16_sm90_small matmul_tn_bf16_sm90
    matmul_nn_bf16_sm90 matmul_nn_bf16_sm90_small matmul_pack_bf16_sm90);
kernel_file!(f16_sm90 "matmul_f16_sm90" f16: matmul_nt_f16_sm90 matmul_nt_f16_sm90_small matmul_tn_f16_sm90
    matmul_nn_f16_sm90 matmul_nn_f16_sm90_small matmul_pack_f16_sm90);

/// The kernels that are declared here, file by file.
pub(crate) const KERNELS: [&[crate::device::Signature]; 2] = [bf16_sm90::KERNELS, f16_sm90::KERNELS];

/// Rows and columns of a tile.
type Tile = (usize, usize);
const LARGE: Tile = (128, 256);
const SMALL: Tile = (64, 64);
const OF_TN: Tile = (128, 128);
/// Terms of a stage.
const DEPTH: usize = 64;

/// Numbers of `b` as `pack` leaves it.
fn packed(n: usize, k: usize) -> usize {
    n.next_multiple_of(LARGE.1) * k.next_multiple_of(DEPTH)
}

fn tiles(size: Size, (rows, columns): Tile) -> usize {
    size.m.div_ceil(rows) * size.n.div_ceil(columns)
}

/// Persistent blocks for so many tiles, of a warpgroup for 64 rows and `readers` more, `together` of them on a
/// multiprocessor. Shared memory: four stages of both factors, and for each warp that multiplies 16 rows of 40 sums.
fn grid(gpu: Gpu, tiles: usize, (rows, columns): Tile, readers: usize, together: usize) -> Grid {
    let blocks = tiles.min(gpu.multiprocessors() as usize * together);
    let stages = 4 * (rows + columns) * DEPTH * size_of::<bf16>();
    let on_their_way = rows / 16 * 16 * 40 * size_of::<f32>();
    Grid::new(blocks, (128 * (rows / 64 + readers)) as u32).shared(stages + on_their_way)
}

/// Whether the smaller tiles are better: the larger ones would leave most of the card idle.
fn is_small(gpu: Gpu, size: Size) -> bool {
    tiles(size, LARGE) < gpu.multiprocessors() as usize
}

/// What factors are rounded to, on a device that has these kernels: `None` elsewhere, and for other precisions.
#[derive(Clone, Copy, Debug)]
pub(super) enum Mode {
    Bf16,
    F16,
}

impl Mode {
    pub(super) fn of(gpu: Gpu) -> Option<Mode> {
        match (gpu.capability(), gpu.precision()) {
            ((9, 0), Precision::Bf16) => Some(Mode::Bf16),
            ((9, 0), Precision::F16) => Some(Mode::F16),
            _ => None,
        }
    }
}

/// `b` as the large tiles read it.
fn pack_bf16<T: Real>(gpu: Gpu, size: Size, b: &Tensor<T>, along_k: bool) -> Result<Tensor<bf16>> {
    let mut to = gpu.alloc::<bf16>(&[packed(size.n, size.k)])?;
    let over = Grid::over(to.len() / 8, 256, 256);
    bf16_sm90::matmul_pack_bf16_sm90(gpu, over, b, &mut to, size.n as u32, size.k as u32, u32::from(along_k))?;
    Ok(to)
}

/// The same for f16.
fn pack_f16<T: Real>(gpu: Gpu, size: Size, b: &Tensor<T>, along_k: bool) -> Result<Tensor<f16>> {
    let mut to = gpu.alloc::<f16>(&[packed(size.n, size.k)])?;
    let over = Grid::over(to.len() / 8, 256, 256);
    f16_sm90::matmul_pack_f16_sm90(gpu, over, b, &mut to, size.n as u32, size.k as u32, u32::from(along_k))?;
    Ok(to)
}

/// `y = f(a b^T + bias)` with `a` `[m, k]` and `b` `[n, k]`.
pub(super) fn product_nt<F: Element, T: Real>(
    gpu: Gpu,
    mode: Mode,
    size: Size,
    a: &Tensor<F>,
    b: &Tensor<T>,
    End { bias, function, argument }: End<'_, T>,
    y: &mut Tensor<T>,
) -> Result<()> {
    use {bf16_sm90::*, f16_sm90::*};
    let (m, n, k, f) = (size.m as u32, size.n as u32, size.k as u32, function as u32);
    let large = grid(gpu, tiles(size, LARGE), LARGE, 1, 1);
    let small = grid(gpu, tiles(size, SMALL), SMALL, 2, 2);
    match (mode, is_small(gpu, size)) {
        (Mode::Bf16, true) => matmul_nt_bf16_sm90_small::<F>(gpu, small, a, b, bias, y, argument, m, n, k, f),
        (Mode::F16, true) => matmul_nt_f16_sm90_small::<F>(gpu, small, a, b, bias, y, argument, m, n, k, f),
        (Mode::Bf16, false) => {
            let b = pack_bf16(gpu, size, b, true)?;
            matmul_nt_bf16_sm90::<F>(gpu, large, a, &b, bias, y, argument, m, n, k, f)
        }
        (Mode::F16, false) => {
            let b = pack_f16(gpu, size, b, true)?;
            matmul_nt_f16_sm90::<F>(gpu, large, a, &b, bias, y, argument, m, n, k, f)
        }
    }
}

/// `c = a b` with `a` `[m, k]` and `b` `[k, n]`.
pub(super) fn product_nn<T: Real>(
    gpu: Gpu,
    mode: Mode,
    size: Size,
    a: &Tensor<T>,
    b: &Tensor<T>,
    c: &mut Tensor<T>,
) -> Result<()> {
    let (m, n, k) = (size.m as u32, size.n as u32, size.k as u32);
    let large = grid(gpu, tiles(size, LARGE), LARGE, 1, 1);
    let small = grid(gpu, tiles(size, SMALL), SMALL, 2, 2);
    match (mode, is_small(gpu, size)) {
        (Mode::Bf16, true) => bf16_sm90::matmul_nn_bf16_sm90_small(gpu, small, a, b, c, m, n, k),
        (Mode::F16, true) => f16_sm90::matmul_nn_f16_sm90_small(gpu, small, a, b, c, m, n, k),
        (Mode::Bf16, false) => {
            bf16_sm90::matmul_nn_bf16_sm90(gpu, large, a, &pack_bf16(gpu, size, b, false)?, c, m, n, k)
        }
        (Mode::F16, false) => f16_sm90::matmul_nn_f16_sm90(gpu, large, a, &pack_f16(gpu, size, b, false)?, c, m, n, k),
    }
}

/// `a^T b` over each chunk of `chunk` terms, with `a` `[k, m]` and `b` `[k, n]`.
pub(super) fn chunks_tn<F: Element, T: Real>(
    gpu: Gpu,
    mode: Mode,
    size: Size,
    chunk: usize,
    a: &Tensor<T>,
    b: &Tensor<F>,
    c: &mut Tensor<T>,
) -> Result<()> {
    let grid = grid(gpu, tiles(size, OF_TN) * size.k.div_ceil(chunk).max(1), OF_TN, 2, 1);
    let (m, n, k, chunk) = (size.m as u32, size.n as u32, size.k as u32, chunk as u32);
    match mode {
        Mode::Bf16 => bf16_sm90::matmul_tn_bf16_sm90::<F>(gpu, grid, a, b, c, m, n, k, chunk),
        Mode::F16 => f16_sm90::matmul_tn_f16_sm90::<F>(gpu, grid, a, b, c, m, n, k, chunk),
    }
}
