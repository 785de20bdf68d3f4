//! The largest element of each column over the rows of each bag: max pooling.
//!
//! # Math
//! `y_bd = max of x_id over the rows i of bag b`; 0 for an empty bag. The pooling of max-pooling MIL, of which [Ilse
//! 2018] is the alternative that is learned.
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
//! `dL/dy_bd` goes to the element that is the largest, of several equal ones to that of the first row; all others get 0,
//! and an empty bag gives none. It is the derivative wherever there is one.
//!
//! # Numerics
//! Nothing is rounded: results are elements of `x`, the same bits on every device and in any batch. -0 and 0 are equal. A
//! NaN counts as larger than any number, infinity included: it is the result of its own bag and column, its row gets the
//! gradient, and it reaches no other.
//!
//! # Cost
//! Reads `x` once. Keeps the row of each result, `B D` numbers of 32 bits, and the bags; backward fills `N D` zeros and
//! writes `B D` of them. On a device one launch each way, and one more forward where a bag has more than 128 rows.
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

/// The row of a result of an empty bag, as in the kernels. No row has this number: there are fewer than 2^32.
const NO_ROW: u32 = u32::MAX;

/// Maximum over bags: see the [module page](self).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SegmentMax;

impl SegmentMax {
    /// The largest element of each column of each bag.
    ///
    /// # Errors
    /// [`Error::Shape`] if `x` does not have the rows of all bags.
    pub fn forward<T: Real>(&self, tape: &Tape<T>, x: &Var<T>, bags: &Ragged) -> Result<Var<T>> {
        if x.value().matrix().0 != bags.rows() {
            let want = format!("[{}, D], the rows of all bags", bags.rows());
            return Err(Error::Shape { op: "segment_max", arg: "x", want, got: x.shape().to_vec() });
        }
        let (device, bags, shape) = (tape.device(), bags.clone(), x.shape().to_vec());
        let (y, chosen) = match device {
            Device::Cpu => cpu::forward(x.value(), &bags),
            Device::Cuda(gpu) => cuda::forward(gpu, x.value(), &bags)?,
        };
        let [y] = tape.record(&[x], [y], move |grads| {
            let Some(grad) = &grads[0] else { return Ok(vec![None]) };
            Ok(vec![Some(match device {
                Device::Cpu => cpu::backward(&shape, &chosen, grad),
                Device::Cuda(gpu) => cuda::backward(gpu, &shape, &bags, &chosen, grad)?,
            })])
        });
        Ok(y)
    }
}
