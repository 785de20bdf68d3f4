//! SDIR on a CUDA device.

use super::{Gain, Mask, Rescue};
use crate::device::{Device, Gpu, Grid, In, Out, kernels};
use crate::element::Real;
use crate::error::Result;
use crate::ops::tokens::{BagDraws, Coin};
use crate::rng::Draws;
use crate::shape::Ragged;
use crate::tensor::Tensor;

kernels! { "sdir":
    /// The token of each bag that is rescued because all of it are masked; else `u32::MAX`.
    fn sdir_rescue(offset: In<u32> = bags + 1, patients: In<u32> = bags, rescued: Out<u32> = bags, bags: u32, seed: u64,
        epoch: u32, purpose: u32, threshold: u32);
    /// 1 for each token that is kept, else 0.
    fn sdir_keep(offset: In<u32> = bags + 1, patients: Option<In<u32>> = bags, rescued: Option<In<u32>> = bags,
        keep: Out<u8> = rows, rows: u32, bags: u32, seed: u64, epoch: u32, purpose: u32, threshold: u32);
    /// Kept rows times the factor and their gain, zeros elsewhere.
    fn sdir_forward(x: In<f32> = rows * columns, offset: In<u32> = bags + 1, patients: Option<In<u32>> = bags,
        rescued: Option<In<u32>> = bags, scale: Option<In<f32>> = bags, y: Out<f32> = rows * columns, rows: u32,
        columns: u32, bags: u32, seed: u64, epoch: u32, purpose: u32, threshold: u32, factor: f32, gain: u32, gamma: f32,
        k: f32, temperature: f32);
    /// The gradient of `x`.
    fn sdir_backward(grad: In<f32> = rows * columns, x: Option<In<f32>> = rows * columns, offset: In<u32> = bags + 1,
        patients: Option<In<u32>> = bags, rescued: Option<In<u32>> = bags, scale: Option<In<f32>> = bags,
        dx: Out<f32> = rows * columns, rows: u32, columns: u32, bags: u32, seed: u64, epoch: u32, purpose: u32,
        threshold: u32, factor: f32, gain: u32, gamma: f32, k: f32, temperature: f32);
    /// Sum and number of the squared energies of each chunk of each bag.
    fn sdir_energies(x: In<f32> = rows * columns, offset: In<u32> = bags + 1, patients: Option<In<u32>> = bags,
        rescued: Option<In<u32>> = bags, partials: Out<f64> = bags * chunks * 2, rows: u32, columns: u32, bags: u32,
        chunks: u32, seed: u64, epoch: u32, purpose: u32, threshold: u32);
    /// The root of their mean.
    fn sdir_scale(partials: In<f64> = bags * chunks * 2, offset: In<u32> = bags + 1, scale: Out<f32> = bags, bags: u32,
        chunks: u32);
}

/// Warps of a block, each with a row.
const WARPS: usize = 8;
const THREADS: u32 = 32 * WARPS as u32;
/// Rows of a bag that one block of `sdir_energies` adds up: `CHUNK` there.
const CHUNK: usize = 256;

/// A mask as kernels draw it.
#[derive(Clone)]
pub(super) struct Lottery {
    offset: Tensor<u32>,
    patients: Option<Tensor<u32>>,
    rescued: Option<Tensor<u32>>,
    draws: Draws,
    threshold: u32,
}

impl Lottery {
    /// Every token passes.
    pub(super) fn everybody(gpu: Gpu, bags: &Ragged) -> Result<Lottery> {
        let draws = Draws { seed: 0, epoch: 0, purpose: 0 };
        Ok(Lottery { offset: bags.on(gpu)?, patients: None, rescued: None, draws, threshold: 0 })
    }

    pub(super) fn new(gpu: Gpu, p: f64, rescue: Rescue, bags: &Ragged, draws: &BagDraws) -> Result<Lottery> {
        let (offset, patients, threshold) = (bags.on(gpu)?, draws.patients_on(gpu)?, Coin::drops(p).threshold());
        let (n, draws) = (bags.bags(), draws.draws());
        let rescued = match rescue {
            Rescue::Uniform if threshold > 0 => {
                let mut rescued = gpu.alloc(&[n])?;
                let (seed, epoch, purpose, grid) = (draws.seed, draws.epoch, draws.purpose, Grid::new(n, 128));
                sdir_rescue(gpu, grid, &offset, &patients, &mut rescued, n as u32, seed, epoch, purpose, threshold)?;
                Some(rescued)
            }
            _ => None,
        };
        Ok(Lottery { offset, patients: Some(patients), rescued, draws, threshold })
    }

    fn bags(&self) -> u32 {
        self.offset.len() as u32 - 1
    }

    pub(super) fn keep(&self, gpu: Gpu, rows: usize) -> Result<Tensor<u8>> {
        let Lottery { offset, patients, rescued, draws: Draws { seed, epoch, purpose }, threshold } = self;
        let (grid, mut keep) = (Grid::over(rows, 256, 256), gpu.alloc(&[rows])?);
        let (patients, rescued, rows, bags) = (patients.as_ref(), rescued.as_ref(), rows as u32, self.bags());
        sdir_keep(gpu, grid, offset, patients, rescued, &mut keep, rows, bags, *seed, *epoch, *purpose, *threshold)?;
        Ok(keep)
    }
}

/// A gain as kernels take it: kind, gamma, k, temperature.
fn numbers(gain: Gain) -> (u32, f32, f32, f32) {
    match gain {
        Gain::None => (0, 0.0, 0.0, 0.0),
        Gain::Gaussian { gamma, k } => (1, gamma as f32, k as f32, 0.0),
        Gain::FermiDirac { gamma, k, temperature } => (2, gamma as f32, k as f32, temperature as f32),
    }
}

pub(super) fn forward<T: Real>(
    gpu: Gpu,
    gain: Gain,
    factor: f64,
    x: &Tensor<T>,
    lottery: &Lottery,
    scale: Option<&Tensor<T>>,
) -> Result<Tensor<T>> {
    let Lottery { offset, patients, rescued, draws: Draws { seed, epoch, purpose }, threshold } = lottery;
    let ((rows, columns), mut y) = (x.matrix(), gpu.alloc(x.shape())?);
    let (grid, (kind, gamma, k, t)) = (Grid::over(rows, WARPS, THREADS), numbers(gain));
    let (patients, rescued, rows, columns) = (patients.as_ref(), rescued.as_ref(), rows as u32, columns as u32);
    let (bags, factor) = (lottery.bags(), factor as f32);
    sdir_forward(
        gpu, grid, x, offset, patients, rescued, scale, &mut y, rows, columns, bags, *seed, *epoch, *purpose,
        *threshold, factor, kind, gamma, k, t,
    )?;
    Ok(y)
}

/// The gradient of `x`; `kept` holds the scale and `x` if there is a gain.
pub(super) fn backward<T: Real>(
    gpu: Gpu,
    gain: Gain,
    factor: f64,
    grad: &Tensor<T>,
    lottery: &Lottery,
    kept: Option<(&Tensor<T>, &Tensor<T>)>,
) -> Result<Tensor<T>> {
    let Lottery { offset, patients, rescued, draws: Draws { seed, epoch, purpose }, threshold } = lottery;
    let ((rows, columns), mut dx) = (grad.matrix(), gpu.alloc(grad.shape())?);
    let (grid, (kind, gamma, k, t)) = (Grid::over(rows, WARPS, THREADS), numbers(gain));
    let (patients, rescued, rows, columns) = (patients.as_ref(), rescued.as_ref(), rows as u32, columns as u32);
    let (bags, factor, (scale, x)) = (lottery.bags(), factor as f32, kept.unzip());
    sdir_backward(
        gpu, grid, grad, x, offset, patients, rescued, scale, &mut dx, rows, columns, bags, *seed, *epoch, *purpose,
        *threshold, factor, kind, gamma, k, t,
    )?;
    Ok(dx)
}

pub(super) fn strong_scale<T: Real>(gpu: Gpu, strong: &Tensor<T>, mask: &Mask) -> Result<Tensor<T>> {
    let lottery = mask.lottery(gpu)?;
    let Lottery { offset, patients, rescued, draws: Draws { seed, epoch, purpose }, threshold } = &lottery;
    let (bags, chunks) = (mask.bags().bags(), mask.bags().longest().div_ceil(CHUNK));
    let mut partials = gpu.alloc::<f64>(&[bags, chunks, 2])?;
    let (grid, (rows, columns)) = (Grid::new(bags, THREADS).times(chunks), strong.matrix());
    let (patients, rescued, n, c) = (patients.as_ref(), rescued.as_ref(), bags as u32, chunks as u32);
    let (rows, columns) = (rows as u32, columns as u32);
    sdir_energies(
        gpu,
        grid,
        strong,
        offset,
        patients,
        rescued,
        &mut partials,
        rows,
        columns,
        n,
        c,
        *seed,
        *epoch,
        *purpose,
        *threshold,
    )?;
    let mut scale = gpu.alloc(&[bags])?;
    sdir_scale(gpu, Grid::over(bags, WARPS, THREADS), &partials, offset, &mut scale, n, c)?;
    Ok(scale)
}

/// A scale where the kernels want it: a small one on the CPU is copied.
pub(super) fn placed<T: Real>(gpu: Gpu, scale: Option<&Tensor<T>>) -> Result<Option<Tensor<T>>> {
    scale.map(|scale| scale.to(Device::Cuda(gpu))).transpose()
}
