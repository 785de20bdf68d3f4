//! The rows of some bags, copied into one matrix.
//!
//! A cohort that lies on a device whole is one matrix there; a batch of some of its patients is this copy.
//!
//! # Math
//! `y_{o_b + i} = x_{s_b + i}` for `i` below the rows of bag `b`, which begins at row `s_b` of `x` and at `o_b` of `y`.
//!
//! # Arguments
//! | name | shape | unit | constraint |
//! |---|---|---|---|
//! | `x` | `[M, L]` | any | stored features: f32, f16 or bf16 |
//! | `starts` | `B` rows of `x` | | each bag lies within `x`; bags may overlap |
//! | `bags` | `B` bags of `N` rows | | a bag may be empty |
//!
//! # Result
//! `y`, `[N, L]`, in the type of `x`.
//!
//! # Gradient
//! None: what is gathered is data.
//!
//! # Numerics
//! A copy, bit for bit.
//!
//! # Cost
//! `2 N L` elements of memory traffic: on a device at the speed of a copy, 16 bytes a lane.
//!
//! # Deviations
//! None.

mod cpu;
mod cuda;

pub(crate) use cuda::KERNELS;

use crate::device::Device;
use crate::element::Feature;
use crate::error::{Error, Result};
use crate::features::Features;
use crate::shape::Ragged;
use crate::tensor::Tensor;

/// Rows of bags, gathered: see the [module page](self).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Gather;

impl Gather {
    /// The rows of bags that begin at the rows `starts` of `x`, where `x` lies.
    ///
    /// # Errors
    /// [`Error::Shape`] if there are not as many starts as bags, [`Error::Value`] for a bag that does not lie within `x`.
    pub fn forward<F: Feature>(&self, x: &Tensor<F>, starts: &[usize], bags: &Ragged) -> Result<Tensor<F>> {
        let (rows, _) = x.matrix();
        if starts.len() != bags.bags() {
            let want = format!("[{}], one start a bag", bags.bags());
            return Err(Error::Shape { op: "gather", arg: "starts", want, got: vec![starts.len()] });
        }
        let fits = |(&start, bag): (&usize, std::ops::Range<usize>)| bag.len() <= rows && start <= rows - bag.len();
        if let Some(index) = starts.iter().zip(bags.iter()).position(|bag| !fits(bag)) {
            let want = "a row of x such that the bag ends within it";
            return Err(Error::Value { op: "gather", arg: "starts", want, index, value: starts[index] as f64 });
        }
        match x.device() {
            Device::Cpu => Ok(cpu::forward(x, starts, bags)),
            Device::Cuda(gpu) => cuda::forward(gpu, x, starts, bags),
        }
    }

    /// The same of stored features.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn features(&self, x: &Features, starts: &[usize], bags: &Ragged) -> Result<Features> {
        Ok(match x {
            Features::F32(x) => Features::F32(self.forward(x, starts, bags)?),
            Features::F16(x) => Features::F16(self.forward(x, starts, bags)?),
            Features::Bf16(x) => Features::Bf16(self.forward(x, starts, bags)?),
        })
    }
}
