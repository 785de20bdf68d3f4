//! The outer product of two rows: every element of one times every element of the other.
//!
//! # Math
//! `y_(b, i Q + j) = u_bi v_bj`, where with `ones` a 1 stands behind the elements of `u` and of `v`, so that these are elements of the
//! result, too. It joins modalities in [Chen 2020] (Pathomic Fusion), equation 4. Of single elements it is their product.
//!
//! # Arguments
//! | name | shape | unit | constraint |
//! |---|---|---|---|
//! | `u` | `[B, P]` | any | |
//! | `v` | `[B, Q]` | any | as many rows |
//! | `ones` | | | whether a 1 is put behind both |
//!
//! # Result
//! `y`, `[B, P Q]`, with `ones` `[B, (P + 1) (Q + 1)]`; the elements of `v` lie side by side.
//!
//! # Gradient
//! `dL/du_bi = sum_j dL/dy_(b, i Q + j) v_bj`, and likewise for `v`.
//!
//! # Numerics
//! One rounding an element; sums of the gradient in order. Rows do not meet.
//!
//! # Cost
//! `B P Q` products forward, `4 B P Q` flops backward, and as many elements written or read; keeps `u` and `v`. On a device one
//! launch forward and two back.
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

/// Outer product of rows: see the [module page](self).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Outer {
    /// Whether a 1 is put behind the elements of both.
    pub ones: bool,
}

/// Rows and their elements, without the ones.
#[derive(Clone, Copy, Debug)]
struct Dims {
    rows: usize,
    p: usize,
    q: usize,
    ones: bool,
}

impl Dims {
    /// The elements that are multiplied: with the ones.
    fn whole(self) -> [usize; 2] {
        [self.p, self.q].map(|n| n + usize::from(self.ones))
    }
}

impl Outer {
    /// The outer product of each row of `u` and that of `v`.
    ///
    /// # Errors
    /// [`Error::Shape`] if there are not as many rows of both.
    pub fn forward<T: Real>(&self, tape: &Tape<T>, u: &Var<T>, v: &Var<T>) -> Result<Var<T>> {
        let ((rows, p), (of_v, q)) = (u.value().matrix(), v.value().matrix());
        if rows != of_v {
            let want = format!("[{rows}, Q], as many rows as u");
            return Err(Error::Shape { op: "outer", arg: "v", want, got: v.shape().to_vec() });
        }
        let (device, dims) = (tape.device(), Dims { rows, p, q, ones: self.ones });
        let (a, b) = (u.value().clone(), v.value().clone());
        let y = match device {
            Device::Cpu => cpu::forward(dims, &a, &b),
            Device::Cuda(gpu) => cuda::forward(gpu, dims, &a, &b)?,
        };
        let [y] = tape.record(&[u, v], [y], move |grads| {
            let Some(grad) = &grads[0] else { return Ok(vec![None, None]) };
            let [du, dv] = match device {
                Device::Cpu => cpu::backward(dims, &a, &b, grad),
                Device::Cuda(gpu) => cuda::backward(gpu, dims, &a, &b, grad)?,
            };
            Ok(vec![Some(du), Some(dv)])
        });
        Ok(y)
    }
}
