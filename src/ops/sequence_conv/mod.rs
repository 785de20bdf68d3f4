//! Convolution along the tokens of each bag, one kernel a head: what TransMIL adds to its attention.
//!
//! # Math
//! `y_ic = sum over k of weight_hk x_(i + k - r)c` with `r = (K - 1) / 2` and `h = c H / E`, rounded down, the head of
//! column `c`; rows outside of the bag of row `i` are zero. A cross-correlation with no bias, as in the code of [Shao
//! 2021], where `x` is the values of the attention, `H` is 8 and `K` is 33.
//!
//! # Arguments
//! | name | shape | unit | constraint |
//! |---|---|---|---|
//! | `x` | `[N, E]` | any | |
//! | `bags` | `B` bags of `N` rows | | a bag may be empty |
//! | `weight` | `[H, K]` | | `H` divides `E`; `K` odd, at most 127 |
//!
//! # Result
//! `y`, `[N, E]`. Head `h` has the `E / H` columns from `h E / H` on.
//!
//! # Gradient
//! `dL/dx` is the same of `dL/dy` with each kernel backwards; `dL/dweight_hk` is the sum of `dL/dy_ic x_(i + k - r)c`
//! over the columns `c` of head `h` and all rows `i` whose other row lies in the bag.
//!
//! # Numerics
//! In the type of the input. The terms of an element are added in the order of `k`, so a bag gives the same bits
//! wherever it lies in a batch. Gradients of the weights are added over fixed chunks of rows for each column, the chunks
//! in order, and at last over the columns of a head: the bits do not depend on the number of threads. A NaN of `x`
//! reaches the rows within `r` of it, in its bag and column; in the gradient of the weights, any of its head.
//!
//! # Cost
//! `2 K` flops an element each for the result and for either gradient. Floor of memory: 8 bytes an element forward, 12
//! backward. Keeps `x`. On a device one launch forward, that reads `(127 + K) / 128` times `x`, most of the second
//! reading from the cache: tiles of 128 rows and 32 columns lie in shared memory with the rows around them, and a thread
//! has 16 rows of a column in registers, so that one read of shared memory serves eight additions. Backward three
//! launches, 16 bytes an element, as `x` and `dL/dy` are tiled apart, and `4 K E` bytes for each of at most 64 chunks of
//! rows. With `K = 33` that is 8 flops a byte, below what a card needs to be bound by arithmetic; on the CPU arithmetic
//! takes longer than memory.
//!
//! # Deviations
//! None: `parts_of_an_impulse_come_back_as_the_kernel_backwards` shows which way the kernel lies.

mod cpu;
mod cuda;

pub(crate) use cuda::KERNELS;

use crate::device::Device;
use crate::element::Real;
use crate::error::{Error, Result};
use crate::ops::tokens::columns;
use crate::shape::Ragged;
use crate::tape::{Tape, Var};

/// The longest kernel: with its rows and a tile it fits into the shared memory of every card.
const LONGEST: usize = 127;

/// Convolution along the tokens of each bag: see the [module page](self).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SequenceConv;

impl SequenceConv {
    /// The weighted sum of each element and those before and after it in its bag and column.
    ///
    /// # Errors
    /// [`Error::Shape`] for shapes that do not fit, a number of heads that does not divide the columns, and a length of the
    /// kernels that is even or more than 127.
    pub fn forward<T: Real>(&self, tape: &Tape<T>, x: &Var<T>, bags: &Ragged, weight: &Var<T>) -> Result<Var<T>> {
        check(x, bags, weight)?;
        let (device, bags) = (tape.device(), bags.clone());
        let (x_kept, w) = (x.value().clone(), weight.value().clone());
        let y = match device {
            Device::Cpu => cpu::convolved(&x_kept, &bags, &w, false),
            Device::Cuda(gpu) => cuda::convolved(gpu, &x_kept, &bags, &w, false)?,
        };
        let [y] = tape.record(&[x, weight], [y], move |grads| {
            let Some(grad) = &grads[0] else { return Ok(vec![None, None]) };
            let (dx, dw) = match device {
                Device::Cpu => (cpu::convolved(grad, &bags, &w, true), cpu::of_weight(&x_kept, &bags, w.shape(), grad)),
                Device::Cuda(gpu) => (
                    cuda::convolved(gpu, grad, &bags, &w, true)?,
                    cuda::of_weight(gpu, &x_kept, &bags, w.shape(), grad)?,
                ),
            };
            Ok(vec![Some(dx), Some(dw)])
        });
        Ok(y)
    }
}

fn check<T: Real>(x: &Var<T>, bags: &Ragged, weight: &Var<T>) -> Result<()> {
    let op = "sequence_conv";
    let columns = columns(op, "x", x.value(), bags)?;
    match weight.shape() {
        &[heads, length] if heads > 0 && columns % heads == 0 && length % 2 == 1 && length <= LONGEST => Ok(()),
        got => {
            let want = format!("[H, K] with H a divisor of the {columns} columns and K odd, at most {LONGEST}");
            Err(Error::Shape { op, arg: "weight", want, got: got.to_vec() })
        }
    }
}
