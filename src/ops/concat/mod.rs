//! Several matrices side by side.
//!
//! # Math
//! Row `i` of `y` is row `i` of each part, in order.
//!
//! # Arguments
//! | name | shape | unit | constraint |
//! |---|---|---|---|
//! | `parts` | `[N, D_p]` each | any | at least one, all with the same `N` |
//!
//! # Result
//! `y`, `[N, sum of D_p]`.
//!
//! # Gradient
//! Each part gets its columns of `dL/dy`.
//!
//! # Numerics
//! Exact.
//!
//! # Cost
//! One copy each way; on a device one launch for every four parts. Keeps nothing but the widths.
//!
//! # Deviations
//! None.

mod cpu;
mod cuda;

pub(crate) use cuda::KERNELS;

use crate::device::Device;
use crate::element::Real;
use crate::error::{Error, Result};
use crate::tape::{Tape, Var};
use crate::tensor::Tensor;

/// Concatenation of columns: see the [module page](self).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Concat;

impl Concat {
    /// The parts side by side.
    ///
    /// # Errors
    /// [`Error::Shape`] if there is no part or the numbers of rows differ.
    pub fn forward<T: Real>(&self, tape: &Tape<T>, parts: &[&Var<T>]) -> Result<Var<T>> {
        let shape =
            |want: String, got: &[usize]| Err(Error::Shape { op: "concat", arg: "parts", want, got: got.to_vec() });
        let Some(first) = parts.first() else { return shape("[N, D], at least one of them".into(), &[]) };
        let (rows, _) = first.value().matrix();
        if let Some(other) = parts.iter().find(|p| p.value().matrix().0 != rows) {
            return shape(format!("[{rows}, D] each"), other.shape());
        }
        let device = tape.device();
        let values: Vec<&Tensor<T>> = parts.iter().map(|p| p.value()).collect();
        let y = match device {
            Device::Cpu => cpu::forward(rows, &values),
            Device::Cuda(gpu) => cuda::forward(gpu, rows, &values)?,
        };
        let shapes: Vec<Vec<usize>> = parts.iter().map(|p| p.shape().to_vec()).collect();
        let [y] = tape.record(parts, [y], move |grads| {
            let Some(grad) = &grads[0] else { return Ok(vec![None; shapes.len()]) };
            let grads = match device {
                Device::Cpu => cpu::backward(&shapes, grad),
                Device::Cuda(gpu) => cuda::backward(gpu, &shapes, grad)?,
            };
            Ok(grads.into_iter().map(Some).collect())
        });
        Ok(y)
    }
}
