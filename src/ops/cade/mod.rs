//! CADE, cancer-aware distribution entanglement: tokens of two modalities lend each other their mean and deviation.
//!
//! # Math
//! Two sets of tokens of one patient, `F` (`N1 x D`) and `G` (`N2 x D`). Of each token, over its channels:
//! `mu_i = mean_d F_id`, `sg_i = sqrt(unbiased variance + eps)`, `z_i = (F_i - mu_i) / sg_i`; `x_i = (mu_i, sg_i)`, and
//! `y_j` likewise of `G`. With a share `lambda_i ~ Beta(alpha, alpha)` and a donor `d(i)` each:
//!
//! - published: `(mu', sg')_i = lambda_i x_i + (1 - lambda_i) y_d(i)`, `F'_i = sg'_i z_i + mu'_i`;
//! - with a kernel, ours: `yb_i` in the place of `y_d(i)`, the mean of all donors with weights
//!   `w_ij ~ q_j exp(-|a_i - y_j|^2 / (2 h^2))` about the anchor `a_i = (1 - kappa) y_d(i) + kappa x_i`.
//!
//! `G'` is made in the same way out of the original statistics of `F` and `G`, not out of `F'`. Pairs of mean and
//! deviation form a flat plane under the Wasserstein-2 distance of 1-D Gaussians, so both are barycentres there.
//!
//! The published form is the code of arXiv 2507.08340 (HopkinsKwong/MCCSDG at 48d5410; there `alpha = 0.1`, a gate of
//! `p_aug = 0.3`, `eps = 1e-6`, nothing flowing back through the statistics). That paper speaks of a smoothed path of
//! statistics, but no formula of it could be found and its code has none: [`Bandwidth`], `kappa`,
//! [`Statistics::Differentiated`] and `skip_dead_donors` are ours.
//!
//! # Arguments
//! | name | shape | unit | constraint |
//! |---|---|---|---|
//! | `f` | `[N1, D]` | any | `D >= 2` in training |
//! | `f_bags` | `B` bags of `N1` rows | | |
//! | `g` | `[N2, D]` | of `f` | the same `D` |
//! | `g_bags` | `B` bags of `N2` rows | | the same patients |
//! | `keep` | `[N1]`, `[N2]` | | which tokens live after [`Sdir`](super::Sdir); for `skip_dead_donors` only |
//! | `masks` | `[N1]`, `[N2]` | | of [`forward_masked`](Cade::forward_masked): applied to the tokens as they enter |
//! | `draws` | `B` patients | | `None`: evaluation, nothing mixes |
//!
//! Draws of a patient, each from the stream of a part of the purpose: the gate fires if word 0 of `.gate`, as a number
//! in `[0, 1)`, is below `p_aug`. The share of token `i` of `F` uses words `64 i .. 64 i + 64` of `.lambda.f` (of `G`:
//! `.lambda.g`). The order of donors out of `G` sorts its tokens by their words of `.donors.g` (out of `F`:
//! `.donors.f`), without dead ones if those are skipped; receiver `i` takes entry `i` modulo the length of the order.
//!
//! # Result
//! `F'`, `[N1, D]`, and `G'`, `[N2, D]`. A bag whose gate did not fire, or that lacks tokens (or living donors) in
//! either set, passes as it is.
//!
//! # Gradient
//! Detached (default): `dL/dF_i = sg'_i / sg_i R_i`, `R = dL/dF'`; nothing reaches the donor. Differentiated: through
//! `z`, both statistics, the weights and the anchors of both directions. Shares and bandwidth are constants.
//!
//! # Numerics
//! Row sums in the type of the tokens, in sixteen lanes, the variance about the mean; mixing and kernels in f64. A bag
//! gives the same bits alone and in any batch. A masked token is all zeros: its mean is 0, its deviation `sqrt(eps)`,
//! and it becomes the constant `(1 - lambda) nu_d(i)`; its `sg' / sg` can reach `1e3`, which the mask before it stops.
//!
//! On a device gates, donors and the words of shares are the same bits; a share differs from the CPU's by what logarithm
//! and exponential of the device do in f64, a few units of the last place divided by `alpha`, which rounding to f32
//! hides (`draws_are_the_same_on_both_devices`). Rows are summed by the lanes of a warp, the mixing is in f64, kernels in
//! f32: distances are taken as differences to a donor near the anchor, so that where the weight lies none cancel. The
//! median of a relative bandwidth is exact.
//!
//! # Cost
//! Reads the smaller set twice and the larger once, writes both; masked tokens are not read. Backward reads the
//! gradient and writes its own once (differentiated: reads the gradient and the tokens twice). A share costs one Philox
//! call, two logarithms and an exponential a token; donors cost a word each and a sort of as many as there are
//! receivers. A kernel costs `N1 N2` exponentials each way, and memory for the donors' statistics only. Keeps one number
//! a token (differentiated: three, the draws and the tokens).
//!
//! On a device the same bytes: 8 an element forward, 0.476 ms for 1M tokens of 256 at the 4.3 TB/s of an H200's memory,
//! and 6 (0.357 ms) with half of them masked; backward as much, differentiated 12. Donors are not sorted there: words
//! are spread over buckets of 16 by their upper bits, and counted inside a bucket, as far as receivers need them. Nothing
//! is read back; gates are drawn on the host, a word a patient, so that nothing is launched where none fires.
//!
//! # Deviations
//! The published indices only work for `N1 = N2`, where ours are the same (`equal_lengths_match_the_published_code`);
//! for other lengths the donor's position is taken modulo the number of donors. Each patient has its own gate and
//! draws. Published batches have one patient.

mod cpu;
mod cuda;
mod cuda_draws;
mod draws;
mod kernel;

use serde::{Deserialize, Serialize};

use crate::device::{Device, Gpu};
use crate::element::Real;
use crate::error::{Error, Result};
use crate::ops::sdir::Mask;
use crate::ops::tokens::{BagDraws, columns};
use crate::shape::Ragged;
use crate::tape::{Tape, Var};
use crate::tensor::Tensor;

use cpu::Tokens;
use cuda_draws::Table;

pub use draws::Mixing;
pub(in crate::ops) use draws::beta;

pub(crate) use cuda::KERNELS;
pub(crate) use cuda_draws::KERNELS as DRAWS_KERNELS;

/// How far a receiver looks around its donor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bandwidth {
    /// It takes its one donor (published).
    #[default]
    None,
    /// This far, in the unit of the tokens; 0 is as [`None`](Self::None).
    Fixed(f64),
    /// This many times `sqrt(median_j |y_j - mean y|^2)` of the donors `y` of its bag.
    Relative(f64),
}

/// Whether gradients flow through the statistics of tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Statistics {
    /// They are constants (published).
    #[default]
    Detached,
    /// They are functions of the tokens, of receivers and donors.
    Differentiated,
}

/// The entanglement of two modalities: see the [module page](self).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cade {
    /// Shares are drawn from Beta(alpha, alpha); below 1 most are near 0 or 1.
    pub alpha: f64,
    /// The probability that a patient is mixed at all, in `[0, 1]`.
    pub p_aug: f64,
    /// Added to variances.
    pub eps: f64,
    /// Whether tokens that were masked before never give.
    pub skip_dead_donors: bool,
    /// How much of the receiver is in the anchor of the kernel, in `[0, 1]`.
    pub kappa: f64,
    /// How far a receiver looks around its donor.
    pub bandwidth: Bandwidth,
    /// Whether gradients flow through the statistics.
    pub statistics: Statistics,
}

impl Default for Cade {
    /// As published.
    fn default() -> Cade {
        Cade {
            alpha: 0.1,
            p_aug: 0.3,
            eps: 1e-6,
            skip_dead_donors: false,
            kappa: 0.0,
            bandwidth: Bandwidth::None,
            statistics: Statistics::Detached,
        }
    }
}

impl Cade {
    /// As published, with donors smoothed half way between the drawn one and the receiver: our preset.
    pub fn smooth() -> Cade {
        Cade { kappa: 0.5, bandwidth: Bandwidth::Relative(0.5), ..Cade::default() }
    }

    /// Refuses settings outside their range.
    ///
    /// # Errors
    /// [`Error::Setting`].
    pub fn check(&self) -> Result<()> {
        let setting = |name, want, value: f64| Err(Error::Setting { name, want, value: value.to_string() });
        for (name, value) in [("cade.alpha", self.alpha), ("cade.eps", self.eps)] {
            if !(value.is_finite() && value > 0.0) {
                return setting(name, "finite and positive", value);
            }
        }
        for (name, value) in [("cade.p_aug", self.p_aug), ("cade.kappa", self.kappa)] {
            if !(0.0..=1.0).contains(&value) {
                return setting(name, "between 0 and 1", value);
            }
        }
        match self.bandwidth {
            Bandwidth::Fixed(h) | Bandwidth::Relative(h)
                if !(h == 0.0 || (kernel::NARROWEST..f64::MAX).contains(&h)) =>
            {
                setting("cade.bandwidth", "0, or finite and at least 1e-30", h)
            }
            Bandwidth::None | Bandwidth::Fixed(0.0) if self.kappa > 0.0 => {
                setting("cade.kappa", "0 where there is no bandwidth", self.kappa)
            }
            _ => Ok(()),
        }
    }

    /// Mixes the two sets in training; gives them as they are in evaluation. `keep` is what masked each set before
    /// (see [`Sdir::keep_mask`](super::Sdir::keep_mask)); it is looked at for `skip_dead_donors` only, and must be
    /// there then.
    ///
    /// # Errors
    /// [`Error::Setting`] for settings outside their range, [`Error::Shape`] for shapes that do not fit or `D = 1`,
    /// whose unbiased variance is not defined.
    pub fn forward<T: Real>(
        &self,
        tape: &Tape<T>,
        [f, g]: [&Var<T>; 2],
        [f_bags, g_bags]: [&Ragged; 2],
        keep: Option<[&[bool]; 2]>,
        draws: Option<&BagDraws>,
    ) -> Result<[Var<T>; 2]> {
        self.check()?;
        columns("cade", "f", f.value(), f_bags)?;
        columns("cade", "g", g.value(), g_bags)?;
        let Some(draws) = draws else { return Ok([f.clone(), g.clone()]) };
        let keep = self.check_draw([f_bags, g_bags], keep, draws)?;
        let keep = keep.map(|keep| [Mask::of(f_bags, keep[0]), Mask::of(g_bags, keep[1])]);
        self.mix(
            tape,
            [f, g],
            [f_bags, g_bags],
            Source::Drawn(draws, keep.as_ref().map(|k| [&k[0], &k[1]])),
            [None, None],
        )
    }

    /// What [`forward`](Self::forward) draws: how `F` receives, and how `G` does.
    ///
    /// # Errors
    /// [`Error::Setting`] for settings outside their range or a `keep` that is missing, [`Error::Shape`] for numbers of
    /// bags, patients or tokens that do not fit.
    pub fn draw(
        &self,
        [f_bags, g_bags]: [&Ragged; 2],
        keep: Option<[&[bool]; 2]>,
        draws: &BagDraws,
    ) -> Result<[Mixing; 2]> {
        let keep = self.check_draw([f_bags, g_bags], keep, draws)?;
        let keep = keep.map_or([None, None], |keep| keep.map(Some));
        let gates = draws::gates(self, draws);
        let (f, g) = ((f_bags, "f"), (g_bags, "g"));
        Ok([draws::mixing(self, [f, g], keep[1], &gates, draws)?, draws::mixing(self, [g, f], keep[0], &gates, draws)?])
    }

    /// Whether draws are possible; the masks, if it is they that say which tokens may give.
    fn check_draw<'a>(
        &self,
        [f_bags, g_bags]: [&Ragged; 2],
        keep: Option<[&'a [bool]; 2]>,
        draws: &BagDraws,
    ) -> Result<Option<[&'a [bool]; 2]>> {
        self.check()?;
        draws.check("cade", f_bags)?;
        draws.check("cade", g_bags)?;
        let keep = keep.filter(|_| self.skip_dead_donors);
        if self.skip_dead_donors && keep.is_none() {
            let want = "false where no masks of the tokens are given";
            return Err(Error::Setting { name: "cade.skip_dead_donors", want, value: "true".into() });
        }
        if let Some(keep) = keep {
            for (keep, arg, bags) in [(keep[0], "keep of f", f_bags), (keep[1], "keep of g", g_bags)] {
                if keep.len() != bags.rows() {
                    let want = format!("[{}], one a token", bags.rows());
                    return Err(Error::Shape { op: "cade", arg, want, got: vec![keep.len()] });
                }
            }
        }
        Ok(keep)
    }

    /// [`Sdir`](super::Sdir) without a gain, then [`forward`](Self::forward), in one pass: `masks` are applied to the
    /// tokens as they enter, and masked tokens are not read. The same bits as the two ops one after the other.
    ///
    /// For a set that went through [`Sdir::forward`](super::Sdir::forward) before, for its gain, give
    /// [`Mask::applied`].
    ///
    /// # Errors
    /// As [`forward`](Self::forward), and [`Error::Shape`] if a mask does not have the rows of its set.
    pub fn forward_masked<T: Real>(
        &self,
        tape: &Tape<T>,
        [f, g]: [&Var<T>; 2],
        [f_bags, g_bags]: [&Ragged; 2],
        masks: [&Mask; 2],
        draws: Option<&BagDraws>,
    ) -> Result<[Var<T>; 2]> {
        self.check()?;
        if let Some(draws) = draws {
            draws.check("cade", f_bags)?;
            draws.check("cade", g_bags)?;
        }
        let source =
            draws.map_or(Source::Nothing, |draws| Source::Drawn(draws, self.skip_dead_donors.then_some(masks)));
        self.mix(tape, [f, g], [f_bags, g_bags], source, masks.map(|mask| mask.may_change().then_some(mask)))
    }

    /// Mixes with explicit draws: `mixing[0]` is how `F` receives, `mixing[1]` how `G` does.
    ///
    /// # Errors
    /// As [`forward`](Self::forward), and [`Error::Shape`] if the two mixings are not of the same bags.
    pub fn forward_with<T: Real>(
        &self,
        tape: &Tape<T>,
        tokens: [&Var<T>; 2],
        mixing: [&Mixing; 2],
    ) -> Result<[Var<T>; 2]> {
        self.check()?;
        let bags = mixing.map(Mixing::receivers);
        if mixing[0].donors() != bags[1] || mixing[1].donors() != bags[0] {
            let want = "bags that are the donors of one mixing and the receivers of the other".into();
            let got = mixing.map(|mixing| mixing.donors().rows()).into();
            return Err(Error::Shape { op: "cade", arg: "mixing", want, got });
        }
        self.mix(tape, tokens, bags, Source::Given(mixing), [None, None])
    }

    fn mix<T: Real>(
        &self,
        tape: &Tape<T>,
        x: [&Var<T>; 2],
        bags: [&Ragged; 2],
        source: Source<'_>,
        masks: [Option<&Mask>; 2],
    ) -> Result<[Var<T>; 2]> {
        check_shapes(x.map(Var::value), bags, masks)?;
        match tape.device() {
            Device::Cpu => self.mix_on_cpu(tape, x, bags, source, masks),
            Device::Cuda(gpu) => self.mix_on_gpu(gpu, tape, x, bags, source, masks),
        }
    }

    fn mix_on_cpu<T: Real>(
        &self,
        tape: &Tape<T>,
        [f, g]: [&Var<T>; 2],
        bags: [&Ragged; 2],
        source: Source<'_>,
        masks: [Option<&Mask>; 2],
    ) -> Result<[Var<T>; 2]> {
        let mixing = match source {
            Source::Given(mixing) => mixing.map(Mixing::clone),
            Source::Drawn(draws, keep) => self.draw(bags, keep.map(|keep| keep.map(Mask::keep)), draws)?,
            Source::Nothing => [Mixing::none(bags[0], bags[1])?, Mixing::none(bags[1], bags[0])?],
        };
        let mixes = mixing.iter().any(|mixing| mixing.active().contains(&true));
        if !mixes && masks == [None, None] {
            return Ok([f.clone(), g.clone()]);
        }
        let tokens = [Tokens::new(f.value(), masks[0]), Tokens::new(g.value(), masks[1])];
        let [(f_out, f_rows), (g_out, g_rows)] = cpu::forward(self, tokens, [&mixing[0], &mixing[1]]);
        let (op, out) = (*self, [f_out, g_out]);
        if !mixes || op.statistics == Statistics::Detached {
            let slopes = [cpu::slopes(&f_rows, masks[0]), cpu::slopes(&g_rows, masks[1])];
            return Ok(tape.record(&[f, g], out, move |grads| {
                let back = |k: usize| grads[k].as_ref().map(|grad| cpu::backward_detached(&slopes[k], grad));
                Ok(vec![back(0), back(1)])
            }));
        }
        let x = [f.value().clone(), g.value().clone()];
        let masks = masks.map(Option::<&Mask>::cloned);
        Ok(tape.record(&[f, g], out, move |grads| {
            let grad = [0, 1].map(|k| grads[k].clone().unwrap_or_else(|| Tensor::zeros(x[k].shape())));
            let tokens = [0, 1].map(|k| Tokens::new(&x[k], masks[k].as_ref()));
            let (mixing, rows) = ([&mixing[0], &mixing[1]], [&f_rows[..], &g_rows[..]]);
            Ok(cpu::backward_full(&op, tokens, mixing, rows, [&grad[0], &grad[1]]).map(Some).into())
        }))
    }

    fn mix_on_gpu<T: Real>(
        &self,
        gpu: Gpu,
        tape: &Tape<T>,
        [f, g]: [&Var<T>; 2],
        bags: [&Ragged; 2],
        source: Source<'_>,
        masks: [Option<&Mask>; 2],
    ) -> Result<[Var<T>; 2]> {
        let tables = self.tables(gpu, bags, source)?;
        if tables.is_none() && masks == [None, None] {
            return Ok([f.clone(), g.clone()]);
        }
        let place = |mask: Option<&Mask>| mask.map_or(Ok(None), |mask| mask.on(gpu));
        let keep = [place(masks[0])?, place(masks[1])?];
        let factor = masks.map(|mask| mask.map_or(1.0, Mask::factor));
        let (op, x, bags) = (*self, [f.value().clone(), g.value().clone()], bags.map(Ragged::clone));
        let token = |k: usize| cuda::Tokens { x: &x[k], bags: &bags[k], keep: keep[k].as_ref(), factor: factor[k] };
        let [(f_out, f_known), (g_out, g_known)] = cuda::forward(gpu, &op, [&token(0), &token(1)], tables.as_ref())?;
        let (known, out) = ([f_known, g_known], [f_out, g_out]);
        let Some(tables) = tables.filter(|_| op.statistics == Statistics::Differentiated) else {
            return Ok(tape.record(&[f, g], out, move |grads| {
                let back = |k: usize| {
                    let one = |grad| cuda::backward_detached(gpu, keep[k].as_ref(), factor[k], &known[k], grad);
                    grads[k].as_ref().map(one).transpose()
                };
                Ok(vec![back(0)?, back(1)?])
            }));
        };
        Ok(tape.record(&[f, g], out, move |grads| {
            let token = |k: usize| cuda::Tokens { x: &x[k], bags: &bags[k], keep: keep[k].as_ref(), factor: factor[k] };
            let grad = |k: usize| grads[k].clone().map_or_else(|| gpu.zeros(x[k].shape()), Ok);
            let (tokens, grad, known) = ([&token(0), &token(1)], [&grad(0)?, &grad(1)?], [&known[0], &known[1]]);
            Ok(cuda::backward_full(gpu, &op, tokens, &tables, known, grad)?.map(Some).into())
        }))
    }

    /// Donors and shares on the device; `None` if no bag mixes, as far as the host knows without reading back.
    fn tables(&self, gpu: Gpu, bags: [&Ragged; 2], source: Source<'_>) -> Result<Option<[Table; 2]>> {
        let (draws, keep) = match source {
            Source::Nothing => return Ok(None),
            Source::Given(mixing) => {
                let mixes = mixing.iter().any(|mixing| mixing.active().contains(&true));
                let one = |k: usize| Table::given(gpu, self, mixing[k]);
                return if mixes { Ok(Some([one(0)?, one(1)?])) } else { Ok(None) };
            }
            Source::Drawn(draws, keep) => (draws, keep),
        };
        // One word a patient: drawn here, which tells whether there is anything to launch.
        let gates = draws::gates(self, draws);
        let fires = |(bag, fires): (usize, &bool)| u8::from(*fires && bags.iter().all(|b| !b.bag(bag).is_empty()));
        let gates: Vec<u8> = gates.iter().enumerate().map(fires).collect();
        if !gates.contains(&1) {
            return Ok(None);
        }
        let gates = gpu.upload(&[gates.len()], &gates)?;
        let (sets, place) = ([(bags[0], "f"), (bags[1], "g")], |mask: &Mask| mask.on(gpu));
        let keep = match keep {
            Some(keep) => [place(keep[0])?, place(keep[1])?],
            None => [None, None],
        };
        let one = |k: usize| Table::draw(gpu, self, [sets[k], sets[1 - k]], keep[1 - k].as_ref(), &gates, draws);
        Ok(Some([one(0)?, one(1)?]))
    }
}

/// Where donors and shares come from.
#[derive(Clone, Copy)]
enum Source<'a> {
    /// The caller.
    Given([&'a Mixing; 2]),
    /// The streams of the patients. The masks are there if they say which tokens may give.
    Drawn(&'a BagDraws, Option<[&'a Mask; 2]>),
    /// Nothing mixes.
    Nothing,
}

fn check_shapes<T: Real>(x: [&Tensor<T>; 2], bags: [&Ragged; 2], masks: [Option<&Mask>; 2]) -> Result<()> {
    let d = columns("cade", "f", x[0], bags[0])?;
    let shape = |arg, want: String, got: &[usize]| Err(Error::Shape { op: "cade", arg, want, got: got.to_vec() });
    if columns("cade", "g", x[1], bags[1])? != d {
        return shape("g", format!("[{}, {d}]", bags[1].rows()), x[1].shape());
    }
    if bags[0].bags() != bags[1].bags() {
        return shape("donors", format!("[{}], as many bags", bags[0].bags()), &[bags[1].bags()]);
    }
    for (mask, (arg, bags)) in masks.into_iter().zip([("mask of f", bags[0]), ("mask of g", bags[1])]) {
        if let Some(mask) = mask
            && mask.rows() != bags.rows()
        {
            return shape(arg, format!("[{}], one a token", bags.rows()), &[mask.rows()]);
        }
    }
    if d < 2 && bags[0].rows() + bags[1].rows() > 0 {
        return shape("f", "[N1, D] with D >= 2, for a variance over channels".into(), x[0].shape());
    }
    Ok(())
}
