//! Where tensors lie and ops run.

mod cuda;
mod driver;
mod kernel;
mod mirror;
mod module;
mod probe;
mod upload;

pub(crate) use cuda::Memory;
pub use cuda::{Gpu, Precision, Usage};
pub(crate) use kernel::{Argument, Grid, In, Out, Param, Signature, kernels, launch, prototypes};
pub(crate) use mirror::Mirror;
pub(crate) use probe::Level;
pub use probe::{Found, find, memory_bytes, peak_memory_bytes, simd_level, threads};
pub(crate) use upload::{Arriving, Moment, Uploader};

use crate::error::{Error, Result};

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
    /// says so.
    ///
    /// # Errors
    /// [`Error::Device`] if it is not there or not a device.
    pub fn parse(name: &str) -> Result<Device> {
        let ordinal = match name {
            "cpu" => return Ok(Device::Cpu),
            "auto" => {
                return Ok(Gpu::open(0).map(Device::Cuda).unwrap_or_else(|why| {
                    tracing::info!("calculating on the CPU: {why}");
                    Device::Cpu
                }));
            }
            "cuda" => Some(0),
            _ => name.strip_prefix("cuda:").and_then(|n| n.parse().ok()),
        };
        match ordinal {
            Some(ordinal) => Gpu::open(ordinal).map(Device::Cuda),
            None => Err(Error::Device { name: name.into(), why: "write auto, cpu or cuda:N".into() }),
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
