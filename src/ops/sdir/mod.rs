//! SDIR, the sparse Dirac information rebalancer: a mask over tokens, and optionally a gain for weak ones.
//!
//! One call handles one set of tokens (a modality); a model calls it once for the strong modality (patches) and once
//! for the weak one (pathways), each with its own `p`.
//!
//! # Math
//! For each token `F_i` of a bag, in training: `m_i = 1` if `r_i >= p`, else 0, with `r_i` uniform in `[0, 1)`; if all
//! `m` of the bag are 0 one token, uniformly drawn, gets `m = 1` ([`Rescue::Uniform`]). Then `Y_i = m_i s g(e_i) F_i`
//! with `s = 1` or `1 / (1 - p)` ([`Scale::Inverse`]) and the [`Gain`] `g` of the energy
//! `e_i = sqrt(sum_d F_id^2 / D + 1e-12)`.
//!
//! The mask with its rescue is what the published code of arXiv 2507.08340 does
//! (HopkinsKwong/MCCSDG at 48d5410, there with `p = 0.5` for both modalities). The gain is ours: that paper speaks of
//! a Dirac-inspired nonlinearity that strengthens the weak modality, but no formula of it could be found and its code
//! has none. A `p` for each modality, `s = 1 / (1 - p)` and doing without the rescue are ours, too.
//!
//! # Arguments
//! | name | shape | unit | constraint |
//! |---|---|---|---|
//! | `x` | `[N, D]` | any | |
//! | `bags` | `B` bags of `N` rows | | one patient a bag; a bag may be empty and stays so |
//! | `draws` | `B` patients | | `None`: evaluation |
//! | `scale` | `[B]` | of `x` | [`strong_scale`](Sdir::strong_scale) of the strong modality; for a gain only; detached |
//!
//! Token `i` of a bag, counted inside the bag, takes word `i` of the patient's stream; the rescue takes word `n`, the
//! one after those of the `n` tokens.
//!
//! # Result
//! `Y`, `[N, D]`. Masked tokens stay in their bag as rows of zeros. In evaluation nothing is masked or scaled; the gain
//! acts if [`gain_in_eval`](Sdir::gain_in_eval).
//!
//! # Gradient
//! `dL/dF_i = m_i s [g R_i + g'(e_i) / (D e_i) <R_i, F_i> F_i]`, `R = dL/dY`. The mask is drawn again; `x` is kept only
//! for a gain.
//!
//! # Numerics
//! Energies and inner products in the type of `x`, in sixteen lanes; the gain itself in f64. A masked token is not
//! read: a NaN or infinity in it does not spread. `gamma` is at most 2.24 (see [`MAX_GAMMA`]). On a device the mask is
//! the same bits, sums are those of a warp's lanes and the gain is in f32; a scale that lies there is not checked: with
//! a negative one no token is weak, NaN spreads.
//!
//! # Cost
//! One Philox word a token; reads kept rows once and writes all rows, each way. On a device 6 bytes an element each way
//! at `p = 1/2`, of which 1M tokens of 256 take 0.357 ms at the 4.3 TB/s of an H200's memory, and one launch each way;
//! another over the bags looks for those to rescue, and stops at their first kept token.
//!
//! # Deviations
//! Against the published code: each patient of a batch draws for itself (there the batch shares one mask; its batches
//! have one patient), the rescued token is drawn directly rather than by a permutation of the mask, which has the same
//! law, and the numbers are Philox's. The tests `the_mask_keeps_its_rate` and `the_rescued_token_is_uniform` show it.

mod cpu;
mod cuda;
mod gain;
mod mask;

use serde::{Deserialize, Serialize};

use crate::device::Device;
use crate::element::Real;
use crate::error::{Error, Result};
use crate::ops::tokens::{BagDraws, check_drop_probability, columns};
use crate::shape::Ragged;
use crate::tape::{Tape, Var};
use crate::tensor::Tensor;

pub(crate) use cuda::KERNELS;
pub use gain::{Gain, MAX_GAMMA};
pub use mask::Mask;

use mask::Rule;

/// What happens to a bag whose tokens were all masked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rescue {
    /// One token, uniformly drawn, is kept (published).
    #[default]
    Uniform,
    /// Nothing: the bag is all zeros.
    None,
}

/// Whether kept tokens make up for masked ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scale {
    /// They do not (published): sums over tokens shrink by `1 - p` in training.
    #[default]
    None,
    /// They grow by `1 / (1 - p)`.
    Inverse,
}

/// The rebalancer of one modality: see the [module page](self).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sdir {
    /// The probability of masking a token, in `[0, 1)`.
    pub p: f64,
    /// What happens to a bag whose tokens were all masked.
    pub rescue: Rescue,
    /// Whether kept tokens make up for masked ones.
    pub scale: Scale,
    /// How weak tokens are strengthened.
    pub gain: Gain,
    /// Whether the gain acts in evaluation as it does in training.
    pub gain_in_eval: bool,
}

impl Default for Sdir {
    /// As published: half of the tokens masked, one rescued, no scaling, no gain.
    fn default() -> Sdir {
        Sdir { p: 0.5, rescue: Rescue::Uniform, scale: Scale::None, gain: Gain::None, gain_in_eval: true }
    }
}

impl Sdir {
    /// Refuses settings outside their range.
    ///
    /// # Errors
    /// [`Error::Setting`].
    pub fn check(&self) -> Result<()> {
        check_drop_probability("sdir.p", self.p)?;
        self.gain.check()
    }

    /// The rebalanced tokens. `scale` must be there for a gain and is not looked at without one.
    ///
    /// # Errors
    /// [`Error::Setting`] for settings outside their range or a gain without a scale, [`Error::Shape`] for shapes that
    /// do not fit, [`Error::Value`] for a scale that is negative or not finite.
    pub fn forward<T: Real>(
        &self,
        tape: &Tape<T>,
        x: &Var<T>,
        bags: &Ragged,
        draws: Option<&BagDraws>,
        scale: Option<&Tensor<T>>,
    ) -> Result<Var<T>> {
        self.check()?;
        columns("sdir", "x", x.value(), bags)?;
        let gains = self.gain.is_active() && (draws.is_some() || self.gain_in_eval);
        let scale = if gains { Some(self.check_scale(bags, scale)?.clone()) } else { None };
        let mask = self.mask(bags, draws)?;
        if !gains && !mask.may_change() {
            return Ok(x.clone());
        }
        let (gain, factor, kept) = (self.gain, mask.factor(), |scale| (scale, x.value().clone()));
        let gpu = match tape.device() {
            Device::Cpu => {
                let y = cpu::forward(gain, T::of(factor), x.value(), bags, mask.keep(), scale.as_ref());
                let (kept, op, bags, draws) = (scale.map(kept), *self, bags.clone(), draws.cloned());
                let [y] = tape.record(&[x], [y], move |grads| {
                    let Some(grad) = &grads[0] else { return Ok(vec![None]) };
                    let kept = kept.as_ref().map(|(scale, x)| (scale, x));
                    let keep = op.keep_mask(&bags, draws.as_ref())?;
                    Ok(vec![Some(cpu::backward(gain, T::of(factor), grad, &bags, &keep, kept))])
                });
                return Ok(y);
            }
            Device::Cuda(gpu) => gpu,
        };
        let (lottery, scale) = (mask.lottery(gpu)?, cuda::placed(gpu, scale.as_ref())?);
        let y = cuda::forward(gpu, gain, factor, x.value(), &lottery, scale.as_ref())?;
        let kept = scale.map(kept);
        let [y] = tape.record(&[x], [y], move |grads| {
            let Some(grad) = &grads[0] else { return Ok(vec![None]) };
            let kept = kept.as_ref().map(|(scale, x)| (scale, x));
            Ok(vec![Some(cuda::backward(gpu, gain, factor, grad, &lottery, kept)?)])
        });
        Ok(y)
    }

    /// Which tokens [`forward`](Self::forward) keeps with these draws, one entry a row; all in evaluation.
    ///
    /// # Errors
    /// [`Error::Setting`] for settings outside their range, [`Error::Shape`] for another number of patients than bags.
    pub fn keep_mask(&self, bags: &Ragged, draws: Option<&BagDraws>) -> Result<Vec<bool>> {
        Ok(self.mask(bags, draws)?.keep().to_vec())
    }

    /// What a gain measures weakness by, `[B]`: the root mean square energy of the tokens of each bag that this op, the
    /// one of the strong modality, keeps with these draws; 0 for a bag without any. A constant: nothing flows back.
    ///
    /// # Errors
    /// As [`keep_mask`](Self::keep_mask), and [`Error::Shape`] if `strong` does not have the rows of the bags.
    pub fn strong_scale<T: Real>(
        &self,
        strong: &Tensor<T>,
        bags: &Ragged,
        draws: Option<&BagDraws>,
    ) -> Result<Tensor<T>> {
        columns("sdir", "strong", strong, bags)?;
        let mask = self.mask(bags, draws)?;
        match strong.device() {
            Device::Cpu => Ok(cpu::strong_scale(strong, bags, mask.keep())),
            Device::Cuda(gpu) => cuda::strong_scale(gpu, strong, &mask),
        }
    }

    /// The mask of [`forward`](Self::forward) and its scaling, without the gain, for an op that applies it itself and so
    /// saves a pass: [`Cade::forward_masked`](crate::ops::Cade::forward_masked).
    ///
    /// # Errors
    /// As [`keep_mask`](Self::keep_mask).
    pub fn mask(&self, bags: &Ragged, draws: Option<&BagDraws>) -> Result<Mask> {
        self.check()?;
        let rule = match draws {
            None => Rule::Pass,
            Some(draws) => {
                draws.check("sdir", bags)?;
                Rule::Draw { p: self.p, rescue: self.rescue, draws: draws.clone() }
            }
        };
        Ok(Mask::new(bags, rule, self.factor(draws)))
    }

    /// What kept tokens are multiplied by, before any gain.
    fn factor(&self, draws: Option<&BagDraws>) -> f64 {
        match (draws, self.scale) {
            (Some(_), Scale::Inverse) => 1.0 / (1.0 - self.p),
            _ => 1.0,
        }
    }

    fn check_scale<'a, T: Real>(&self, bags: &Ragged, scale: Option<&'a Tensor<T>>) -> Result<&'a Tensor<T>> {
        let Some(scale) = scale else {
            let want = "none where no scale of the strong modality is given";
            return Err(Error::Setting { name: "sdir.gain", want, value: format!("{:?}", self.gain) });
        };
        if scale.shape() != [bags.bags()] {
            let want = format!("[{}], one number a bag", bags.bags());
            return Err(Error::Shape { op: "sdir", arg: "scale", want, got: scale.shape().to_vec() });
        }
        // One that a device calculated is not read back for it: see Numerics.
        if scale.device() != Device::Cpu {
            return Ok(scale);
        }
        match scale.host().iter().position(|s| !(s.is_finite() && *s >= T::zero())) {
            Some(index) => Err(Error::Value {
                op: "sdir",
                arg: "scale",
                want: "finite and at least 0",
                index,
                value: scale.host()[index].f64(),
            }),
            None => Ok(scale),
        }
    }
}
