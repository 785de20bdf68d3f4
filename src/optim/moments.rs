//! What AdamW and RAdam share: running means of the gradients and of their squares, and how they are kept in files.

use std::collections::HashMap;

use rayon::prelude::*;

use super::Parameter;
use crate::element::Real;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// Elements that one task updates. Updates are elementwise, so it shows in no bit.
const CHUNK: usize = 1 << 15;

/// Step counts are kept as two digits to this base, so that f32 holds them exactly.
const STEP_BASE: u64 = 1 << 20;

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

    /// Updates the moments with `betas`, and each element `p` of a parameter that has a gradient to
    /// `rule(p, mean, square)`, the rule being made for each parameter out of its number of steps (1 at the first) and
    /// whether it decays.
    pub(super) fn step<R: Fn(T, T, T) -> T + Sync>(
        &mut self,
        betas: (f64, f64),
        params: &mut [Tensor<T>],
        grads: &[Option<Tensor<T>>],
        rule: impl Fn(u64, bool) -> R,
    ) -> Result<()> {
        self.check(params, grads)?;
        let (keep_mean, keep_square) = (T::of(betas.0), T::of(betas.1));
        let (take_mean, take_square) = (T::of(1.0 - betas.0), T::of(1.0 - betas.1));
        for (i, grad) in grads.iter().enumerate() {
            let Some(grad) = grad else { continue };
            self.steps[i] += 1;
            let rule = rule(self.steps[i], self.params[i].decay);
            let update = |p: &mut [T], m: &mut [T], v: &mut [T], g: &[T]| {
                for (((p, m), v), g) in p.iter_mut().zip(m).zip(v).zip(g) {
                    *m = keep_mean * *m + take_mean * *g;
                    *v = keep_square * *v + take_square * *g * *g;
                    *p = rule(*p, *m, *v);
                }
            };
            let (m, v) = (self.mean[i].host_mut(), self.square[i].host_mut());
            let p = params[i].host_mut();
            if p.len() <= CHUNK {
                update(p, m, v, grad.host());
                continue;
            }
            p.par_chunks_mut(CHUNK)
                .zip(m.par_chunks_mut(CHUNK))
                .zip(v.par_chunks_mut(CHUNK))
                .zip(grad.host().par_chunks(CHUNK))
                .for_each(|(((p, m), v), g)| update(p, m, v, g));
        }
        Ok(())
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
        for pair in digits.host().chunks_exact(2) {
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
