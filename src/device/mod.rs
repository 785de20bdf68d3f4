//! Where tensors lie and ops run.

mod probe;

pub(crate) use probe::Level;
pub use probe::{Found, find, memory_bytes, peak_memory_bytes, simd_level, threads};

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
}

impl Device {
    /// Reads `auto`, `cpu` or `cuda:N`.
    ///
    /// # Errors
    /// [`Error::Device`] if it is not there or not a device.
    pub fn parse(name: &str) -> Result<Device> {
        match name {
            "auto" | "cpu" => Ok(Device::Cpu),
            _ if name.starts_with("cuda") => {
                Err(Error::Device { name: name.into(), why: "this version of onkos has no CUDA kernels yet".into() })
            }
            _ => Err(Error::Device { name: name.into(), why: "no such kind of device".into() }),
        }
    }
}

impl std::fmt::Display for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Device::Cpu => f.write_str("cpu"),
        }
    }
}
