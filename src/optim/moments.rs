//! What AdamW and RAdam share: running means of the gradients and of their squares, and how they are kept in files.

use std::collections::HashMap;

use rayon::prelude::*;

use super::Parameter;
use super::clip::{Norm, clip_global_norm};
use super::cuda::{self, Update};
use crate::device::{Device, Gpu};
use crate::element::Real;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// Elements that one task updates. Updates are elementwise, so it shows in no bit.
const CHUNK: usize = 1 << 15;

/// Step counts are kept as two digits to this base, so that f32 holds them exactly.
const STEP_BASE: u64 = 1 << 20;

/// The settings of a step that are the same for all parameters.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule {
    pub(super) beta1: f64,
    pub(super) beta2: f64,
    pub(super) eps: f64,
    /// RAdam's rule, else AdamW's.
    pub(super) rectified: bool,
}

/// What a step does to one parameter, with the mean `m` and the square `v` of its gradients:
/// - AdamW, `p <- keep p - rate m / (sqrt(v) / root + eps)`;
/// - RAdam, `p <- keep p - rate (m / (sqrt(v) + eps))`, and `p <- keep p - rate m` if `root` is 0.
#[derive(Clone, Copy, Debug)]
pub(super) struct Factors<T> {
    pub(super) keep: T,
    pub(super) rate: T,
    pub(super) root: T,
}

/// The running means and the number of steps of each parameter.
#[derive(Clone, Debug)]
pub(super) struct Moments<T> {
    prefix: &'static str,
    params: Vec<Parameter>,
    steps: Vec<u64>,
    mean: Vec<Tensor<T>>,
    square: Vec<Tensor<T>>,
}

impl<T: Real> Moments<T> {
    /// All zero. The names of the state begin with `prefix`.
    pub(super) fn new(prefix: &'static str, params: Vec<Parameter>) -> Moments<T> {
        let zeros = || params.iter().map(|p| Tensor::zeros(&p.shape)).collect::<Vec<_>>();
        Moments { prefix, steps: vec![0; params.len()], mean: zeros(), square: zeros(), params }
    }

    /// One step where the parameters lie: updates the moments, and each parameter that has a gradient by the rule with
    /// factors that `factors` makes out of its number of steps (1 at the first) and whether it decays. With `most` the
    /// gradients are scaled first, so that their norm is no more, and the norm that they had is given.
    pub(super) fn step(
        &mut self,
        rule: &Rule,
        params: &mut [Tensor<T>],
        grads: &mut [Option<Tensor<T>>],
        most: Option<f64>,
        factors: impl Fn(u64, bool) -> Factors<T>,
    ) -> Result<Option<Norm>> {
        self.check(params, grads)?;
        match params.first().map_or(Device::Cpu, Tensor::device) {
            Device::Cpu => {
                let norm = most.map(|most| clip_global_norm(grads, most)).transpose()?;
                if norm.is_none_or(f64::is_finite) {
                    self.step_on_cpu(rule, params, grads, factors);
                }
                Ok(norm.map(Norm::known))
            }
            Device::Cuda(gpu) => {
                let updates = self.updates(gpu, params, grads, factors)?;
                Ok(cuda::step(gpu, rule, updates, most)?.map(Norm::on_device))
            }
        }
    }

    fn updates<'a>(
        &'a mut self,
        gpu: Gpu,
        params: &'a mut [Tensor<T>],
        grads: &'a [Option<Tensor<T>>],
        factors: impl Fn(u64, bool) -> Factors<T>,
    ) -> Result<Vec<Update<'a, T>>> {
        let device = Device::Cuda(gpu);
        let mut updates = Vec::with_capacity(params.len());
        let moments = self.mean.iter_mut().zip(&mut self.square).zip(&mut self.steps).zip(&self.params);
        for ((((mean, square), steps), known), (param, grad)) in moments.zip(params.iter_mut().zip(grads)) {
            let Some(grad) = grad else { continue };
            // Beside the parameter, from the first step on.
            for moment in [&mut *mean, &mut *square] {
                if moment.device() != device {
                    *moment = moment.to(device)?;
                }
            }
            *steps += 1;
            updates.push(Update { param, mean, square, grad, factors: factors(*steps, known.decay) });
        }
        Ok(updates)
    }

    fn step_on_cpu(
        &mut self,
        rule: &Rule,
        params: &mut [Tensor<T>],
        grads: &[Option<Tensor<T>>],
        factors: impl Fn(u64, bool) -> Factors<T>,
    ) {
        let (keep_mean, keep_square, eps) = (T::of(rule.beta1), T::of(rule.beta2), T::of(rule.eps));
        let (take_mean, take_square) = (T::of(1.0 - rule.beta1), T::of(1.0 - rule.beta2));
        for (i, grad) in grads.iter().enumerate() {
            let Some(grad) = grad else { continue };
            self.steps[i] += 1;
            let Factors { keep, rate, root } = factors(self.steps[i], self.params[i].decay);
            let adamw = |p: T, mean: T, square: T| p * keep - rate * mean / (square.sqrt() / root + eps);
            let radam = |p: T, mean: T, square: T| p * keep - rate * (mean / (square.sqrt() + eps));
            let momentum = |p: T, mean: T, _: T| p * keep - rate * mean;
            let (m, v) = (self.mean[i].host_mut(), self.square[i].host_mut());
            let (p, g) = (params[i].host_mut(), grad.host());
            let betas = [keep_mean, take_mean, keep_square, take_square];
            match (rule.rectified, root == T::zero()) {
                (false, _) => update(betas, p, m, v, g, adamw),
                (true, false) => update(betas, p, m, v, g, radam),
                (true, true) => update(betas, p, m, v, g, momentum),
            }
        }
    }

    fn check(&self, params: &[Tensor<T>], grads: &[Option<Tensor<T>>]) -> Result<()> {
        let wrong = |arg, want, got| Err(Error::Shape { op: self.prefix, arg, want, got });
        let n = self.params.len();
        for (arg, len) in [("params", params.len()), ("grads", grads.len())] {
            if len != n {
                return wrong(arg, format!("[{n}]"), vec![len]);
            }
        }
        for ((known, param), grad) in self.params.iter().zip(params).zip(grads) {
            let want = || format!("{:?} ({})", known.shape, known.name);
            if param.shape() != known.shape {
                return wrong("a parameter", want(), param.shape().to_vec());
            }
            if let Some(grad) = grad
                && grad.shape() != known.shape
            {
                return wrong("a gradient", want(), grad.shape().to_vec());
            }
        }
        Ok(())
    }

    fn key(&self, what: &str, param: &Parameter) -> String {
        format!("{}.{what}.{}", self.prefix, param.name)
    }

    /// `<prefix>.mean.<name>` and `<prefix>.square.<name>` of each parameter, and `<prefix>.steps`, one row a
    /// parameter: the number of steps as two digits.
    pub(super) fn state(&self) -> Vec<(String, Tensor<T>)> {
        let digits = self.steps.iter().flat_map(|s| [s / STEP_BASE, s % STEP_BASE]).map(|d| T::of(d as f64));
        let steps = Tensor::new(&[self.steps.len(), 2], digits.collect()).expect("two digits a parameter");
        let mut state = vec![(format!("{}.steps", self.prefix), steps)];
        for ((param, mean), square) in self.params.iter().zip(&self.mean).zip(&self.square) {
            state.push((self.key("mean", param), mean.clone()));
            state.push((self.key("square", param), square.clone()));
        }
        state
    }

    /// Takes up what [`state`](Self::state) gave.
    pub(super) fn load_state(&mut self, state: &[(String, Tensor<T>)]) -> Result<()> {
        let wrong = |name: &str, why: String| Error::State { name: name.to_string(), why };
        let mut left: HashMap<&str, &Tensor<T>> = state.iter().map(|(name, t)| (name.as_str(), t)).collect();
        let mut take = |name: String, shape: &[usize]| match left.remove(name.as_str()) {
            Some(tensor) if tensor.shape() == shape => Ok(tensor.clone()),
            Some(tensor) => Err(wrong(&name, format!("must have shape {shape:?}, but has {:?}", tensor.shape()))),
            None => Err(wrong(&name, "is missing".into())),
        };
        let name = format!("{}.steps", self.prefix);
        let digits = take(name.clone(), &[self.params.len(), 2])?;
        let mut steps = Vec::with_capacity(self.params.len());
        for pair in digits.to(Device::Cpu)?.host().chunks_exact(2) {
            let (high, low) = (pair[0].f64(), pair[1].f64());
            let digit = |x: f64| x.fract() == 0.0 && x >= 0.0 && x < STEP_BASE as f64;
            if !digit(high) || !digit(low) {
                return Err(wrong(
                    &name,
                    format!("must hold whole numbers below {STEP_BASE}, but holds {high}, {low}"),
                ));
            }
            steps.push(high as u64 * STEP_BASE + low as u64);
        }
        let (mut mean, mut square) = (Vec::new(), Vec::new());
        for param in &self.params {
            mean.push(take(self.key("mean", param), &param.shape)?);
            square.push(take(self.key("square", param), &param.shape)?);
        }
        if let Some(name) = left.keys().min() {
            return Err(wrong(name, "belongs to no parameter of this model".into()));
        }
        (self.steps, self.mean, self.square) = (steps, mean, square);
        Ok(())
    }
}

/// Updates the moments and then each element of a parameter to `rule(p, mean, square)`.
fn update<T: Real>(betas: [T; 4], p: &mut [T], m: &mut [T], v: &mut [T], g: &[T], rule: impl Fn(T, T, T) -> T + Sync) {
    let [keep_mean, take_mean, keep_square, take_square] = betas;
    let update = |(((p, m), v), g): (((&mut [T], &mut [T]), &mut [T]), &[T])| {
        for (((p, m), v), g) in p.iter_mut().zip(m).zip(v).zip(g) {
            *m = keep_mean * *m + take_mean * *g;
            *v = keep_square * *v + take_square * *g * *g;
            *p = rule(*p, *m, *v);
        }
    };
    if p.len() <= CHUNK {
        return update((((p, m), v), g));
    }
    let chunks = p.par_chunks_mut(CHUNK).zip(m.par_chunks_mut(CHUNK)).zip(v.par_chunks_mut(CHUNK));
    chunks.zip(g.par_chunks(CHUNK)).for_each(update);
}

/// Checks the settings that the two optimisers have in common.
pub(super) fn check_settings(
    names: [&'static str; 4],
    beta1: f64,
    beta2: f64,
    eps: f64,
    weight_decay: f64,
) -> Result<()> {
    let beta = "at least 0 and below 1";
    let settings = [
        (names[0], beta, beta1, (0.0..1.0).contains(&beta1)),
        (names[1], beta, beta2, (0.0..1.0).contains(&beta2)),
        (names[2], "finite and above 0", eps, eps.is_finite() && eps > 0.0),
        (names[3], "finite and not negative", weight_decay, weight_decay.is_finite() && weight_decay >= 0.0),
    ];
    match settings.into_iter().find(|s| !s.3) {
        Some((name, want, value, _)) => Err(Error::Setting { name, want, value: value.to_string() }),
        None => Ok(()),
    }
}
