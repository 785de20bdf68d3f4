//! The mean row of each bag.
//!
//! # Math
//! `y_b = sum of x_i over the rows i of bag b / number of rows`; 0 for an empty bag.
//!
//! # Arguments
//! | name | shape | unit | constraint |
//! |---|---|---|---|
//! | `x` | `[N, D]` | any | |
//! | `bags` | `B` bags of `N` rows | | a bag may be empty |
//!
//! # Result
//! `y`, `[B, D]`.
//!
//! # Gradient
//! `dL/dx_i = dL/dy_b / number of rows` for every row of bag `b`.
//!
//! # Numerics
//! Rows are summed in tiles, tiles in order: the bits do not depend on the number of threads, and errors of long bags
//! grow with the number of tiles. A NaN in one bag reaches no other. On a device tiles have 128 rows of one bag, so a bag
//! gives the same bits in any batch.
//!
//! # Cost
//! `N D` additions each way: one pass over memory. Keeps nothing but the bags. On a device one launch each way, and one
//! more forward where a bag has more than 128 rows.
//!
//! # Deviations
//! None.

mod cpu;
mod cuda;

pub(crate) use cuda::KERNELS;

use crate::device::Device;
use crate::element::Real;
use crate::error::{Error, Result};
use crate::shape::Ragged;
use crate::tape::{Tape, Var};

/// Mean over bags: see the [module page](self).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SegmentMean;

impl SegmentMean {
    /// The mean row of each bag.
    ///
    /// # Errors
    /// [`Error::Shape`] if `x` does not have the rows of all bags.
    pub fn forward<T: Real>(&self, tape: &Tape<T>, x: &Var<T>, bags: &Ragged) -> Result<Var<T>> {
        if x.value().matrix().0 != bags.rows() {
            let want = format!("[{}, D], the rows of all bags", bags.rows());
            return Err(Error::Shape { op: "segment_mean", arg: "x", want, got: x.shape().to_vec() });
        }
        let (device, bags, shape) = (tape.device(), bags.clone(), x.shape().to_vec());
        let y = match device {
            Device::Cpu => cpu::forward(x.value(), &bags),
            Device::Cuda(gpu) => cuda::forward(gpu, x.value(), &bags)?,
        };
        let [y] = tape.record(&[x], [y], move |grads| {
            let Some(grad) = &grads[0] else { return Ok(vec![None]) };
            Ok(vec![Some(match device {
                Device::Cpu => cpu::backward(&shape, &bags, grad),
                Device::Cuda(gpu) => cuda::backward(gpu, &shape, &bags, grad)?,
            })])
        });
        Ok(y)
    }
}
