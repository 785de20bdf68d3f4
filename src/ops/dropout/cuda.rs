//! Dropout on a CUDA device.

use super::Affine;
use crate::device::{Gpu, Grid, In, Out, kernels};
use crate::element::Real;
use crate::error::Result;
use crate::ops::tokens::{BagDraws, Coin};
use crate::shape::Ragged;
use crate::tensor::Tensor;

kernels! { "dropout":
    /// `scale x + shift` where the word of an element keeps it, `dropped` elsewhere.
    fn dropout_map(x: In<f32> = n, offset: In<u32> = bags + 1, patient: In<u32> = bags, y: Out<f32> = n, n: u64, bags: u32,
        columns: u32, threshold: u32, scale: f32, shift: f32, dropped: f32, seed: u64, epoch: u32, purpose: u32);
}

/// Threads of a block, and elements of a block.
const THREADS: u32 = 256;
const EACH: usize = 16 * THREADS as usize;

/// `map` of the kept elements of `x`, `map.dropped` for the others.
pub(super) fn map<T: Real>(
    gpu: Gpu,
    p: f64,
    map: Affine<T>,
    x: &Tensor<T>,
    bags: &Ragged,
    draws: &BagDraws,
) -> Result<Tensor<T>> {
    let mut y = gpu.alloc(x.shape())?;
    let (offset, patient, draw) = (bags.on(gpu)?, draws.patients_on(gpu)?, draws.draws());
    let (n, columns, threshold) = (x.len(), x.matrix().1 as u32, Coin::drops(p).threshold());
    let [scale, shift, dropped] = [map.scale, map.shift, map.dropped].map(|v| v.f64() as f32);
    let (b, seed, epoch, purpose) = (bags.bags() as u32, draw.seed, draw.epoch, draw.purpose);
    let grid = Grid::over(n, EACH, THREADS);
    dropout_map(
        gpu, grid, x, &offset, &patient, &mut y, n as u64, b, columns, threshold, scale, shift, dropped, seed, epoch,
        purpose,
    )?;
    Ok(y)
}
