//! MixStyle: the tokens of a patient get channel statistics between their own and those of another patient.
//!
//! # Math
//! Over the rows `i` of bag `b`, for each channel `d`: `mu_bd = mean of x_id`, `sg_bd = sqrt(unbiased variance + eps)`. With
//! a partner `p(b)`, another bag of the batch or itself, and one share `lambda_b ~ Beta(alpha, alpha)` for all channels:
//!
//! `y_id = (x_id - mu_bd) / sg_bd (lambda_b sg_bd + (1 - lambda_b) sg_p(b)d) + lambda_b mu_bd + (1 - lambda_b) mu_p(b)d`.
//!
//! [Zhou 2021], as the code of its authors has it, unbiased variance included: there a bag is an image and its rows are the
//! places of a feature map. It is the unimodal ancestor of [CADE](super::cade), which takes the statistics of a token over its
//! channels, from the other modality of the same patient.
//!
//! # Arguments
//! | name | shape | unit | constraint |
//! |---|---|---|---|
//! | `x` | `[N, D]` | any | |
//! | `bags` | `B` bags of `N` rows | | a bag may be empty |
//! | `draws` | `B` patients | | `None`: evaluation, nothing mixes |
//!
//! Draws, each from the stream of a patient for a part of the purpose: partners are a random permutation of the bags, that
//! with rank `r` by word 1 of `.partners` takes from that with rank `r` by word 0. The batch is mixed as a whole if word 0 of
//! `.gate` of the first patient by word 0 of `.partners` is, as a number in `[0, 1)`, below `p`. The share of a bag uses the
//! words 0 to 63 of its `.lambda`, in the way of CADE. So draws depend on who is in a batch, not on their order.
//!
//! # Result
//! `y`, `[N, D]`. A bag of fewer than two rows has no variance: it passes bit for bit, and so does one whose partner has
//! fewer than two, and the whole batch where the gate does not fire.
//!
//! # Gradient
//! Statistics are constants, as in the published code: `dL/dx_id = dL/dy_id (lambda_b sg_bd + (1 - lambda_b) sg_p(b)d) /
//! sg_bd`, and nothing reaches the partner.
//!
//! # Numerics
//! Sums over tiles of rows of one bag in the type of the input, the variance about the mean, whose own rounding is taken
//! out; tiles are joined in order in f64, and statistics are mixed in f64. The bits do not depend on the number of threads,
//! and a bag gives the same bits wherever it lies in a batch. A NaN reaches its channel of its own bag and of the bag that
//! takes from it. Draws are made on the host, the same on every device.
//!
//! # Cost
//! Reads `x` twice (a tile a third time, out of the cache) and writes it once; backward reads and writes once. Keeps `B D`
//! numbers. On a device four launches forward and one back; nothing is launched where the gate does not fire.
//!
//! # Deviations
//! Bags are ragged, and those without a variance pass (`bags_without_a_variance_pass_bit_for_bit`); images never lack
//! one. The paper mixes with the other domain where domains are known; here there is one source, so partners are those of its
//! variant for unknown domains (`explicit_draws_give_what_the_published_code_gives` has both). Permutations come from our
//! own generator.

mod cpu;
mod cuda;
mod draws;

use serde::{Deserialize, Serialize};

pub(crate) use cuda::KERNELS;
pub use draws::Blend;

use crate::device::Device;
use crate::element::Real;
use crate::error::{Error, Result};
use crate::ops::tokens::{BagDraws, columns};
use crate::shape::Ragged;
use crate::tape::{Tape, Var};

/// The mixing of channel statistics between patients: see the [module page](self).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MixStyle {
    /// Shares are drawn from Beta(alpha, alpha); below 1 most are near 0 or 1.
    pub alpha: f64,
    /// The probability that a batch is mixed at all, in `[0, 1]`.
    pub p: f64,
    /// Added to variances.
    pub eps: f64,
}

impl Default for MixStyle {
    /// As published.
    fn default() -> MixStyle {
        MixStyle { alpha: 0.1, p: 0.5, eps: 1e-6 }
    }
}

impl MixStyle {
    /// Refuses settings outside their range.
    ///
    /// # Errors
    /// [`Error::Setting`].
    pub fn check(&self) -> Result<()> {
        let setting = |name, want, value: f64| Err(Error::Setting { name, want, value: value.to_string() });
        for (name, value) in [("mixstyle.alpha", self.alpha), ("mixstyle.eps", self.eps)] {
            if !(value.is_finite() && value > 0.0) {
                return setting(name, "finite and positive", value);
            }
        }
        if !(0.0..=1.0).contains(&self.p) {
            return setting("mixstyle.p", "between 0 and 1", self.p);
        }
        Ok(())
    }

    /// Mixes the bags of a batch in training; gives them as they are in evaluation.
    ///
    /// # Errors
    /// [`Error::Setting`] for settings outside their range, [`Error::Shape`] for shapes that do not fit.
    pub fn forward<T: Real>(
        &self,
        tape: &Tape<T>,
        x: &Var<T>,
        bags: &Ragged,
        draws: Option<&BagDraws>,
    ) -> Result<Var<T>> {
        self.check()?;
        columns("mixstyle", "x", x.value(), bags)?;
        let Some(draws) = draws else { return Ok(x.clone()) };
        match self.draw(bags, draws)? {
            Some(blend) => self.forward_with(tape, x, bags, &blend),
            None => Ok(x.clone()),
        }
    }

    /// What [`forward`](Self::forward) draws; `None` if the gate of the batch does not fire, or there is nobody in it.
    ///
    /// # Errors
    /// [`Error::Setting`] for settings outside their range, [`Error::Shape`] if there is not one patient a bag.
    pub fn draw(&self, bags: &Ragged, draws: &BagDraws) -> Result<Option<Blend>> {
        self.check()?;
        draws.check("mixstyle", bags)?;
        draws::blend(self, draws)
    }

    /// Mixes with explicit draws.
    ///
    /// # Errors
    /// As [`forward`](Self::forward), and [`Error::Shape`] if the draws are not of as many bags.
    pub fn forward_with<T: Real>(&self, tape: &Tape<T>, x: &Var<T>, bags: &Ragged, blend: &Blend) -> Result<Var<T>> {
        self.check()?;
        columns("mixstyle", "x", x.value(), bags)?;
        if blend.partner().len() != bags.bags() {
            let want = format!("[{}], one a bag", bags.bags());
            return Err(Error::Shape { op: "mixstyle", arg: "partner", want, got: vec![blend.partner().len()] });
        }
        let (device, bags) = (tape.device(), bags.clone());
        let (y, scale) = match device {
            Device::Cpu => cpu::forward(self, x.value(), &bags, blend),
            Device::Cuda(gpu) => cuda::forward(self, gpu, x.value(), &bags, blend)?,
        };
        let [y] = tape.record(&[x], [y], move |grads| {
            let Some(grad) = &grads[0] else { return Ok(vec![None]) };
            Ok(vec![Some(match device {
                Device::Cpu => cpu::backward(&bags, &scale, grad),
                Device::Cuda(gpu) => cuda::backward(gpu, &bags, &scale, grad)?,
            })])
        });
        Ok(y)
    }
}
