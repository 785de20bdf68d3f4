//! Where tensors lie and ops run.

mod cache;
mod cublaslt;
mod cuda;
mod driver;
mod found;
mod kernel;
mod libraries;
mod mirror;
mod module;
mod nvrtc;
mod probe;
mod table;
#[cfg(test)]
pub(crate) mod tests;
mod upload;

pub use crate::memory::keep_freed_memory;
pub(crate) use cublaslt::{Factor, Multiplier};
pub(crate) use cuda::Memory;
pub use cuda::{Gpu, Precision, Products, Usage};
pub use found::{Found, Kernels, find, kernels_of_this_build};
pub(crate) use kernel::{Argument, Grid, In, Out, Param, Signature, kernels, launch, prototypes};
pub(crate) use mirror::Mirror;
pub(crate) use probe::Level;
pub use probe::{memory_bytes, memory_limit_bytes, peak_memory_bytes, simd_level, threads};
pub(crate) use table::{Table, Words};
pub(crate) use upload::{Arriving, Moment, Uploader};

use crate::element::Element;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// A device, as a value: the element type of a tensor is a type, its device is not.
///
/// Every op has one `match` on it, in its `mod.rs`; a device that is added makes each of them fail to compile until
/// the op runs there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Device {
    /// The processor: rayon over fixed chunks, the same bits on any number of threads.
    #[default]
    Cpu,
    /// A CUDA device: calculates in f32, the same bits from run to run.
    Cuda(Gpu),
}

impl Device {
    /// Reads `auto`, `cpu`, `cuda` or `cuda:N`. `auto` is the first CUDA device if it can be used, else the CPU, and
    /// says so where there is a driver.
    ///
    /// # Errors
    /// [`Error::Device`] if it is not there or not a device, [`Error::Cuda`] if its kernels cannot be loaded.
    pub fn parse(name: &str) -> Result<Device> {
        let ordinal = match name {
            "cpu" => return Ok(Device::Cpu),
            "auto" => {
                return Ok(Device::cuda(0).unwrap_or_else(|why| {
                    let why = if let Error::Device { why, .. } = why { why } else { why.to_string() };
                    // A machine without a card is nothing to speak of.
                    match driver::driver() {
                        Ok(_) => tracing::warn!("calculating on the CPU: {why}"),
                        Err(_) => tracing::info!("calculating on the CPU: {why}"),
                    }
                    Device::Cpu
                }));
            }
            "cuda" => Some(0),
            _ => name.strip_prefix("cuda:").and_then(|n| n.parse().ok()),
        };
        match ordinal {
            Some(ordinal) => Device::cuda(ordinal),
            None => Err(Error::Device { name: name.into(), why: "write auto, cpu or cuda:N".into() }),
        }
    }

    /// A device that has shown that kernels can be loaded onto it, so that a training does not fail at its first op.
    fn cuda(ordinal: usize) -> Result<Device> {
        let gpu = Gpu::open(ordinal)?;
        if let Some(first) = module::files(gpu.capability()).next() {
            module::load(gpu.context(), gpu.capability(), first)?;
        }
        Ok(Device::Cuda(gpu))
    }

    /// The same device with matrix products of another precision; the CPU has only the one.
    #[must_use]
    pub fn with_precision(self, precision: Precision) -> Device {
        match self {
            Device::Cpu => Device::Cpu,
            Device::Cuda(gpu) => Device::Cuda(gpu.with_precision(precision)),
        }
    }

    /// The same device with the products of fully connected layers by other kernels; the CPU has only its own.
    ///
    /// # Errors
    /// As [`Gpu::with_products`].
    pub fn with_products(self, products: Products) -> Result<Device> {
        match self {
            Device::Cpu => Ok(Device::Cpu),
            Device::Cuda(gpu) => gpu.with_products(products).map(Device::Cuda),
        }
    }

    /// A tensor of zeros there.
    pub(crate) fn zeros<T: Element>(self, shape: &[usize]) -> Result<Tensor<T>> {
        match self {
            Device::Cpu => Ok(Tensor::zeros(shape)),
            Device::Cuda(gpu) => gpu.zeros(shape),
        }
    }

    /// Waits until all that was started there is done.
    ///
    /// # Errors
    /// [`Error::Cuda`] of a kernel that failed.
    pub fn synchronize(self) -> Result<()> {
        match self {
            Device::Cpu => Ok(()),
            Device::Cuda(gpu) => gpu.synchronize(),
        }
    }
}

impl std::fmt::Display for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Device::Cpu => f.write_str("cpu"),
            Device::Cuda(gpu) => gpu.fmt(f),
        }
    }
}

/// The text of `kernels/entry_points.h`: the C prototype of every kernel that is declared.
pub fn entry_points() -> String {
    prototypes(crate::ops::kernels())
}
