//! Keeping one bad batch from throwing the parameters far away.

use rayon::prelude::*;

use super::cuda;
use crate::device::Device;
use crate::element::Real;
use crate::error::Result;
use crate::tensor::Tensor;

/// Elements whose squares are summed by one task; the sums are added in order, whatever the number of threads.
const CHUNK: usize = 1 << 14;

/// The norm that gradients had, which may still be on its way from a device.
#[derive(Clone, Debug)]
pub struct Norm(Place);

#[derive(Clone, Debug)]
enum Place {
    Here(f64),
    There(Tensor<f64>),
}

impl Norm {
    pub(super) fn known(norm: f64) -> Norm {
        Norm(Place::Here(norm))
    }

    pub(super) fn on_device(norm: Tensor<f64>) -> Norm {
        Norm(Place::There(norm))
    }

    /// The norms of several steps. Waits once for the device that calculates them.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_all(norms: &[Norm]) -> Result<Vec<f64>> {
        let there = norms.iter().filter_map(|norm| match &norm.0 {
            Place::Here(_) => None,
            Place::There(norm) => Some(norm.clone()),
        });
        let there: Vec<Tensor<f64>> = there.collect();
        let mut read = if there.is_empty() { Vec::new() } else { Tensor::stacked(1, &there)?.read()? }.into_iter();
        let each = |norm: &Norm| match norm.0 {
            Place::Here(norm) => norm,
            Place::There(_) => read.next().expect("as many as were stacked"),
        };
        Ok(norms.iter().map(each).collect())
    }

    /// The norm. Waits for the device that calculates it, so after a step it is best asked for together with others.
    ///
    /// # Errors
    /// [`Error::Cuda`](crate::Error::Cuda) of the device, or of a kernel that failed before.
    pub fn read(&self) -> Result<f64> {
        match &self.0 {
            Place::Here(norm) => Ok(*norm),
            Place::There(norm) => Ok(norm.read()?[0]),
        }
    }
}

/// Scales all gradients by one factor so that their common Euclidean norm is at most `max`, and gives the norm that
/// they had. Norms up to `max` are left alone. Where gradients lie on a device this waits for it;
/// [`Optimizer::step_clipped`](super::Optimizer::step_clipped) does the same without.
///
/// A norm that is not finite is given back and nothing is scaled, for there is no factor that would help: the caller
/// decides whether to skip the step or to stop. The factor is `max / norm`; PyTorch's is `max / (norm + 1e-6)`.
///
/// # Errors
/// [`Error::Cuda`](crate::Error::Cuda) of a device.
pub fn clip_global_norm<T: Real>(grads: &mut [Option<Tensor<T>>], max: f64) -> Result<f64> {
    match grads.iter().flatten().next().map_or(Device::Cpu, Tensor::device) {
        Device::Cpu => Ok(clip_on_cpu(grads, max)),
        Device::Cuda(gpu) => Ok(cuda::clip(gpu, grads, max)?.read()?[0]),
    }
}

fn clip_on_cpu<T: Real>(grads: &mut [Option<Tensor<T>>], max: f64) -> f64 {
    let square = |chunk: &[T]| chunk.iter().map(|g| g.f64() * g.f64()).sum::<f64>();
    let mut sum = 0.0;
    for grad in grads.iter().flatten() {
        let squares: Vec<f64> = grad.host().par_chunks(CHUNK).map(square).collect();
        sum += squares.iter().sum::<f64>();
    }
    let norm = sum.sqrt();
    if norm > max && norm.is_finite() {
        let factor = max / norm;
        for grad in grads.iter_mut().flatten() {
            grad.host_mut().par_chunks_mut(CHUNK).for_each(|chunk| {
                chunk.iter_mut().for_each(|g| *g = T::of(g.f64() * factor));
            });
        }
    }
    norm
}
