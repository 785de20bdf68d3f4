//! The sum of two tensors of one shape.
//!
//! # Math
//! `y = a + b`, element by element.
//!
//! # Arguments
//! | name | shape | unit | constraint |
//! |---|---|---|---|
//! | `a` | any | any | |
//! | `b` | that of `a` | that of `a` | |
//!
//! # Result
//! `y`, of the same shape.
//!
//! # Gradient
//! `dL/da = dL/db = dL/dy`.
//!
//! # Numerics
//! One rounding an element.
//!
//! # Cost
//! One pass over memory; backward shares the gradient. Keeps nothing.
//!
//! # Deviations
//! None.

mod cpu;
mod cuda;

pub(crate) use cuda::{KERNELS, add_assign};

use crate::device::Device;
use crate::element::Real;
use crate::error::{Error, Result};
use crate::tape::{Tape, Var};

/// Element-wise sum: see the [module page](self).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Add;

impl Add {
    /// `a + b`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shapes differ.
    pub fn forward<T: Real>(&self, tape: &Tape<T>, a: &Var<T>, b: &Var<T>) -> Result<Var<T>> {
        if a.shape() != b.shape() {
            let (want, got) = (format!("{:?}", a.shape()), b.shape().to_vec());
            return Err(Error::Shape { op: "add", arg: "b", want, got });
        }
        let y = match tape.device() {
            Device::Cpu => cpu::forward(a.value(), b.value()),
            Device::Cuda(gpu) => cuda::forward(gpu, a.value(), b.value())?,
        };
        let [y] = tape.record(&[a, b], [y], |grads| Ok(vec![grads[0].clone(), grads[0].clone()]));
        Ok(y)
    }
}
