//! Softmax over the columns of each row.
//!
//! # Math
//! `y_j = e^(x_j - m) / sum_c e^(x_c - m)` with `m = max_c x_c`.
//!
//! # Arguments
//! | name | shape | unit | constraint |
//! |---|---|---|---|
//! | `x` | `[N, D]` | any | |
//!
//! # Result
//! `y`, `[N, D]`: each row sums to one.
//!
//! # Gradient
//! `dL/dx_j = y_j (g_j - sum_c g_c y_c)` with `g = dL/dy`.
//!
//! # Numerics
//! Nothing overflows. A NaN, or a row without a finite largest element, gives NaN in that row alone. On a device the sums
//! of a row are those of its lanes, joined in a fixed order; exponentials are CUDA's accurate ones.
//!
//! # Cost
//! `4 N D` flops and `N D` exponentials forward, `4 N D` backward. Keeps `y`. On a device one launch each way; 8 bytes an
//! element forward and 12 backward, where a row of up to 1024 columns is read once and longer ones again from the cache.
//!
//! # Deviations
//! None.

mod cpu;
mod cuda;

pub(crate) use cuda::KERNELS;

use crate::device::Device;
use crate::element::Real;
use crate::error::Result;
use crate::tape::{Tape, Var};

/// Softmax of rows: see the [module page](self).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Softmax;

impl Softmax {
    /// The softmax of each row.
    ///
    /// # Errors
    /// None on the CPU; [`Error::DeviceMemory`](crate::Error::DeviceMemory) and [`Error::Cuda`](crate::Error::Cuda) of a
    /// device.
    pub fn forward<T: Real>(&self, tape: &Tape<T>, x: &Var<T>) -> Result<Var<T>> {
        let device = tape.device();
        let y = match device {
            Device::Cpu => cpu::forward(x.value()),
            Device::Cuda(gpu) => cuda::forward(gpu, x.value())?,
        };
        let kept = y.clone();
        let [y] = tape.record(&[x], [y], move |grads| {
            let Some(grad) = &grads[0] else { return Ok(vec![None]) };
            Ok(vec![Some(match device {
                Device::Cpu => cpu::backward(&kept, grad),
                Device::Cuda(gpu) => cuda::backward(gpu, &kept, grad)?,
            })])
        });
        Ok(y)
    }
}
