//! The matrix products of a CUDA device, in the precision that its handle asks for.
//!
//! Which kernel calculates an element, and in which order its terms are added, depends on the precision and on the
//! length of the sum alone: a row of a result has the same bits whatever other rows are calculated with it. Where the
//! factors are rounded to 16 bits and the device is a Hopper, the kernels are those of [`super::matmul_hopper`]. A handle
//! may ask for a library instead, which does not promise this: [`super::matmul_cublaslt`].

use super::{matmul_cublaslt as cublaslt, matmul_hopper as hopper};
use crate::device::{Gpu, Grid, Precision};
use crate::element::{Element, Real};
use crate::error::Result;
use crate::ops::activation::Activation;
use crate::tensor::Tensor;

/// Rows and columns of a result, and the number of terms of each of its elements.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) m: usize,
    pub(crate) n: usize,
    pub(crate) k: usize,
}

impl Size {
    fn tiles(self, tile: usize) -> usize {
        self.m.div_ceil(tile) * self.n.div_ceil(tile)
    }
}

/// Threads of a block that calculates a tile of `TILE x TILE`, or of `SMALL x SMALL`.
const THREADS: u32 = 2 * TILE as u32;
const TILE: usize = 128;
const SMALL: usize = 64;

macro_rules! kernel_file {
    ($mode:ident $file:literal: $nt:ident $nn:ident $tn:ident $(, $nt_small:ident $nn_small:ident)?) => {
        pub(super) mod $mode {
            use crate::device::{In, Out, kernels};
            kernels! { $file:
                /// `y = f(a b^T + bias)`; the argument of `f` too, if asked for.
                fn $nt<F in f32, f16, bf16>(a: In<F> = m * k, b: In<f32> = n * k, bias: Option<In<f32>> = n,
                    y: Out<f32> = m * n, argument: Option<Out<f32>> = m * n, m: u32, n: u32, k: u32, function: u32);
                /// `c = a b`.
                fn $nn(a: In<f32> = m * k, b: In<f32> = k * n, c: Out<f32> = m * n, m: u32, n: u32, k: u32);
                /// `a^T b` over each chunk of `chunk` terms.
                fn $tn<F in f32, f16, bf16>(a: In<f32> = k * m, b: In<F> = k * n, c: Out<f32> = k.div_ceil(chunk).max(1) * m * n,
                    m: u32, n: u32, k: u32, chunk: u32);
                $(
                    /// As its namesake, in smaller tiles.
                    fn $nt_small(a: In<f32> = m * k, b: In<f32> = n * k, bias: Option<In<f32>> = n,
                        y: Out<f32> = m * n, argument: Option<Out<f32>> = m * n, m: u32, n: u32, k: u32, function: u32);
                    /// As its namesake, in smaller tiles.
                    fn $nn_small(a: In<f32> = m * k, b: In<f32> = k * n, c: Out<f32> = m * n, m: u32, n: u32, k: u32);
                )?
            }
        }
    };
}
kernel_file!(plain "matmul_plain": matmul_nt_plain matmul_nn_plain matmul_tn_plain);
kernel_file!(split "matmul_split": matmul_nt_split matmul_nn_split matmul_tn_split, matmul_nt_split_small matmul_nn_split_small);
kernel_file!(tf32 "matmul_tf32": matmul_nt_tf32 matmul_nn_tf32 matmul_tn_tf32, matmul_nt_tf32_small matmul_nn_tf32_small);
kernel_file!(bf16 "matmul_bf16": matmul_nt_bf16 matmul_nn_bf16 matmul_tn_bf16, matmul_nt_bf16_small matmul_nn_bf16_small);
kernel_file!(f16 "matmul_f16": matmul_nt_f16 matmul_nn_f16 matmul_tn_f16, matmul_nt_f16_small matmul_nn_f16_small);

pub(super) mod sum {
    use crate::device::{In, Out, kernels};
    kernels! { "matmul_sum":
        /// The sum over the chunks of a product, in their order.
        fn matmul_sum(parts: In<f32> = count * size, c: Out<f32> = size, count: u32, size: u64);
    }
}

/// The kernels that are declared here, file by file.
pub(crate) const KERNELS: [&[crate::device::Signature]; 6] =
    [plain::KERNELS, split::KERNELS, tf32::KERNELS, bf16::KERNELS, f16::KERNELS, sum::KERNELS];

/// A file of kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Plain,
    Split,
    Tf32,
    Bf16,
    F16,
}

impl Mode {
    /// `Split` is off by a few units of 2^-24 of each product, wherever the sum ends: from this many terms on, plain
    /// arithmetic is off by more. Below it memory bounds the product, and the ordinary adders are fast enough.
    const LONG: usize = 128;

    fn of(gpu: Gpu, k: usize) -> Mode {
        match gpu.precision() {
            Precision::F32 if k < Mode::LONG => Mode::Plain,
            Precision::F32 => Mode::Split,
            Precision::Tf32 => Mode::Tf32,
            Precision::Bf16 => Mode::Bf16,
            Precision::F16 => Mode::F16,
        }
    }

    /// Bytes of one step of a panel in shared memory, as operands and as it came: `Panel` in kernels/matmul.cuh.
    fn panel<E: Element>(self, tile: usize, along_k: bool) -> usize {
        let (depth, word) = match self {
            Mode::Plain => return 0, // its shared memory is static
            Mode::Split => (16, 2),
            Mode::Tf32 => (16, 4),
            Mode::Bf16 | Mode::F16 => (32, 2),
        };
        let parts = match (self, E::NAME) {
            (Mode::Split, half::bf16::NAME) => 1,
            (Mode::Split, half::f16::NAME) => 2,
            (Mode::Split, _) => 3,
            _ => 1,
        };
        let words = if along_k { tile * (depth + 16 / word) } else { depth * (tile + 8) };
        parts * words * word + tile * depth * size_of::<E>()
    }

    /// Shared memory of a block: two stages of both panels, or the results of 64 rows on their way out.
    fn shared<A: Element, B: Element>(self, tile: usize, a_along_k: bool, b_along_k: bool) -> usize {
        let stage = self.panel::<A>(tile, a_along_k) + self.panel::<B>(tile, b_along_k);
        if self == Mode::Plain { 0 } else { (2 * stage).max(64 * (tile + 4) * size_of::<f32>()) }
    }

    /// Whether the smaller tiles are better: the larger ones would leave most of the card idle. They exist where both
    /// factors are f32.
    fn small<F: Element>(self, gpu: Gpu, size: Size) -> bool {
        self != Mode::Plain && F::NAME == f32::NAME && size.tiles(TILE) < gpu.multiprocessors() as usize
    }
}

/// How the elements of a product leave it.
#[derive(Debug)]
pub(crate) struct End<'a, T> {
    /// Added to each row.
    pub(crate) bias: Option<&'a Tensor<T>>,
    /// Applied last.
    pub(crate) function: Activation,
    /// Where the arguments of the function go, if they are wanted.
    pub(crate) argument: Option<&'a mut Tensor<T>>,
}

/// `y = f(a b^T + bias)` with `a` `[m, k]` and `b` `[n, k]`.
pub(crate) fn product_nt<F: Element, T: Real>(
    gpu: Gpu,
    size: Size,
    a: &Tensor<F>,
    b: &Tensor<T>,
    end: End<'_, T>,
    y: &mut Tensor<T>,
) -> Result<()> {
    if let Some(multiplier) = gpu.multiplier() {
        return cublaslt::product_nt(gpu, multiplier, size, a, b, end, y);
    }
    if let Some(mode) = hopper::Mode::of(gpu) {
        return hopper::product_nt(gpu, mode, size, a, b, end, y);
    }
    let End { bias, function, argument } = end;
    let (m, n, k, f) = (size.m as u32, size.n as u32, size.k as u32, function as u32);
    let mode = Mode::of(gpu, size.k);
    let grid = |tile, threads| Grid::new(size.tiles(tile), threads).shared(mode.shared::<F, f32>(tile, true, true));
    let (small, large) = (grid(SMALL, THREADS / 2), grid(TILE, THREADS));
    match (mode, mode.small::<F>(gpu, size)) {
        (Mode::Plain, _) => plain::matmul_nt_plain::<F>(gpu, large, a, b, bias, y, argument, m, n, k, f),
        (Mode::Split, false) => split::matmul_nt_split::<F>(gpu, large, a, b, bias, y, argument, m, n, k, f),
        (Mode::Split, true) => split::matmul_nt_split_small(gpu, small, a, b, bias, y, argument, m, n, k, f),
        (Mode::Tf32, false) => tf32::matmul_nt_tf32::<F>(gpu, large, a, b, bias, y, argument, m, n, k, f),
        (Mode::Tf32, true) => tf32::matmul_nt_tf32_small(gpu, small, a, b, bias, y, argument, m, n, k, f),
        (Mode::Bf16, false) => bf16::matmul_nt_bf16::<F>(gpu, large, a, b, bias, y, argument, m, n, k, f),
        (Mode::Bf16, true) => bf16::matmul_nt_bf16_small(gpu, small, a, b, bias, y, argument, m, n, k, f),
        (Mode::F16, false) => f16::matmul_nt_f16::<F>(gpu, large, a, b, bias, y, argument, m, n, k, f),
        (Mode::F16, true) => f16::matmul_nt_f16_small(gpu, small, a, b, bias, y, argument, m, n, k, f),
    }
}

/// `c = a b` with `a` `[m, k]` and `b` `[k, n]`.
pub(crate) fn product_nn<T: Real>(gpu: Gpu, size: Size, a: &Tensor<T>, b: &Tensor<T>, c: &mut Tensor<T>) -> Result<()> {
    if let Some(multiplier) = gpu.multiplier() {
        return cublaslt::product_nn(gpu, multiplier, size, a, b, c);
    }
    if let Some(mode) = hopper::Mode::of(gpu) {
        return hopper::product_nn(gpu, mode, size, a, b, c);
    }
    let (m, n, k) = (size.m as u32, size.n as u32, size.k as u32);
    let mode = Mode::of(gpu, size.k);
    let grid = |tile, threads| Grid::new(size.tiles(tile), threads).shared(mode.shared::<f32, f32>(tile, true, false));
    let (small, large) = (grid(SMALL, THREADS / 2), grid(TILE, THREADS));
    match (mode, mode.small::<f32>(gpu, size)) {
        (Mode::Plain, _) => plain::matmul_nn_plain(gpu, large, a, b, c, m, n, k),
        (Mode::Split, false) => split::matmul_nn_split(gpu, large, a, b, c, m, n, k),
        (Mode::Split, true) => split::matmul_nn_split_small(gpu, small, a, b, c, m, n, k),
        (Mode::Tf32, false) => tf32::matmul_nn_tf32(gpu, large, a, b, c, m, n, k),
        (Mode::Tf32, true) => tf32::matmul_nn_tf32_small(gpu, small, a, b, c, m, n, k),
        (Mode::Bf16, false) => bf16::matmul_nn_bf16(gpu, large, a, b, c, m, n, k),
        (Mode::Bf16, true) => bf16::matmul_nn_bf16_small(gpu, small, a, b, c, m, n, k),
        (Mode::F16, false) => f16::matmul_nn_f16(gpu, large, a, b, c, m, n, k),
        (Mode::F16, true) => f16::matmul_nn_f16_small(gpu, small, a, b, c, m, n, k),
    }
}

/// Terms of one chunk of a product `a^T b`, and the number of chunks: they depend on the sizes alone, so that the sums
/// are the same bits on every card.
fn chunks(size: Size) -> (usize, usize) {
    // Enough blocks for a card of 132 multiprocessors with two blocks each; chunks of 512 terms at least, and not more
    // than 64 of them, because each is written and read once more.
    let wanted = (528 / size.tiles(TILE).max(1)).min(size.k / 512).clamp(1, 64);
    let chunk = size.k.div_ceil(wanted).next_multiple_of(32).max(32);
    (chunk, size.k.div_ceil(chunk).max(1))
}

/// The bytes that [`product_tn`] takes for the sums of its chunks.
pub(crate) fn parts_tn(size: Size) -> usize {
    match chunks(size) {
        (_, 1) => 0,
        (_, count) => count * size.m * size.n * size_of::<f32>(),
    }
}

/// `c = a^T b` with `a` `[k, m]` and `b` `[k, n]`, for a long `k`.
pub(crate) fn product_tn<F: Element, T: Real>(
    gpu: Gpu,
    size: Size,
    a: &Tensor<T>,
    b: &Tensor<F>,
    c: &mut Tensor<T>,
) -> Result<()> {
    if let Some(multiplier) = gpu.multiplier() {
        return cublaslt::product_tn(gpu, multiplier, size, a, b, c);
    }
    let (chunk, count) = chunks(size);
    if count == 1 {
        return chunks_tn(gpu, size, chunk, a, b, c);
    }
    let mut parts = gpu.alloc::<T>(&[count, size.m, size.n])?;
    chunks_tn(gpu, size, chunk, a, b, &mut parts)?;
    let elements = size.m * size.n;
    sum::matmul_sum(gpu, Grid::over(elements, 256, 256), &parts, c, count as u32, elements as u64)
}

fn chunks_tn<F: Element, T: Real>(
    gpu: Gpu,
    size: Size,
    chunk: usize,
    a: &Tensor<T>,
    b: &Tensor<F>,
    c: &mut Tensor<T>,
) -> Result<()> {
    if let Some(mode) = hopper::Mode::of(gpu) {
        return hopper::chunks_tn(gpu, mode, size, chunk, a, b, c);
    }
    let mode = Mode::of(gpu, size.k);
    let shared = mode.shared::<f32, F>(TILE, false, false);
    let grid = Grid::new(size.tiles(TILE), THREADS).times(size.k.div_ceil(chunk).max(1)).shared(shared);
    let (m, n, k, chunk) = (size.m as u32, size.n as u32, size.k as u32, chunk as u32);
    match mode {
        Mode::Plain => plain::matmul_tn_plain::<F>(gpu, grid, a, b, c, m, n, k, chunk),
        Mode::Split => split::matmul_tn_split::<F>(gpu, grid, a, b, c, m, n, k, chunk),
        Mode::Tf32 => tf32::matmul_tn_tf32::<F>(gpu, grid, a, b, c, m, n, k, chunk),
        Mode::Bf16 => bf16::matmul_tn_bf16::<F>(gpu, grid, a, b, c, m, n, k, chunk),
        Mode::F16 => f16::matmul_tn_f16::<F>(gpu, grid, a, b, c, m, n, k, chunk),
    }
}
