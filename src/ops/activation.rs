//! The activation functions that layers fuse into their last step.
//!
//! Each derivative is taken from what is kept anyway: from the result where that determines it, from the argument for
//! GELU, whose result does not.

use serde::{Deserialize, Serialize};

use crate::element::Real;
use crate::ops::math;

/// A function applied to each element.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `y = x`.
    #[default]
    Identity,
    /// `y = max(x, 0)`; slope 0 at 0.
    Relu,
    /// `y = x` for `x > 0`, else `e^x - 1` (Clevert et al. 2016, alpha = 1).
    Elu,
    /// `y = x Phi(x)` with the normal distribution function: the exact form, not the tanh approximation.
    Gelu,
    /// `y = tanh x`.
    Tanh,
    /// `y = 1 / (1 + e^-x)`.
    Sigmoid,
}

impl Activation {
    /// All of them, for tests and benchmarks.
    pub const ALL: [Activation; 6] = [
        Activation::Identity,
        Activation::Relu,
        Activation::Elu,
        Activation::Gelu,
        Activation::Tanh,
        Activation::Sigmoid,
    ];

    /// Whether [`slope`](Self::slope) is a function of the argument; of the result otherwise.
    pub fn keeps_argument(self) -> bool {
        self == Activation::Gelu
    }

    /// The value at `x`.
    #[inline]
    pub fn value<T: Real>(self, x: T) -> T {
        match self {
            Activation::Identity => x,
            // `max` would turn a NaN into 0 and hide it.
            Activation::Relu if x <= T::zero() => T::zero(),
            Activation::Relu => x,
            Activation::Elu if x > T::zero() => x,
            Activation::Elu => x.exp_m1(),
            Activation::Gelu => x * T::of(normal_cdf(x.f64())),
            Activation::Tanh => x.tanh(),
            Activation::Sigmoid => sigmoid(x),
        }
    }

    /// [`value`](Self::value) of every element, in place; of `f32` with the vector instructions of the machine.
    pub(crate) fn apply<T: Real>(self, x: &mut [T]) {
        match self {
            Activation::Identity => {}
            Activation::Relu => x.iter_mut().for_each(|x| *x = Activation::Relu.value(*x)),
            Activation::Elu => math::elu(x),
            Activation::Gelu => math::gelu(x),
            Activation::Tanh => math::tanh(x),
            Activation::Sigmoid => math::sigmoid(x),
        }
    }

    /// Multiplies each gradient with the [`slope`](Self::slope) at what is kept.
    pub(crate) fn chain<T: Real>(self, grad: &mut [T], kept: &[T]) {
        match self {
            Activation::Identity => {}
            Activation::Gelu => math::gelu_chain(grad, kept),
            // One loop each: without a choice inside, the compiler makes vectors of it.
            Activation::Relu => chain_with(grad, kept, |kept| Activation::Relu.slope(kept)),
            Activation::Elu => chain_with(grad, kept, |kept| Activation::Elu.slope(kept)),
            Activation::Tanh => chain_with(grad, kept, |kept| Activation::Tanh.slope(kept)),
            Activation::Sigmoid => chain_with(grad, kept, |kept| Activation::Sigmoid.slope(kept)),
        }
    }

    /// The derivative, from what is kept (see [`keeps_argument`](Self::keeps_argument)).
    #[inline]
    pub fn slope<T: Real>(self, kept: T) -> T {
        match self {
            Activation::Identity => T::one(),
            Activation::Relu if kept > T::zero() => T::one(),
            Activation::Relu => T::zero(),
            Activation::Elu if kept > T::zero() => T::one(),
            Activation::Elu => kept + T::one(),
            Activation::Gelu => {
                let x = kept.f64();
                let density = (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
                T::of(normal_cdf(x) + x * density)
            }
            Activation::Tanh => T::one() - kept * kept,
            Activation::Sigmoid => kept * (T::one() - kept),
        }
    }
}

#[inline]
fn chain_with<T: Real>(grad: &mut [T], kept: &[T], slope: impl Fn(T) -> T) {
    grad.iter_mut().zip(kept).for_each(|(grad, kept)| *grad *= slope(*kept));
}

/// The logistic function without overflow on either side.
#[inline]
pub(crate) fn sigmoid<T: Real>(x: T) -> T {
    if x >= T::zero() {
        T::one() / (T::one() + (-x).exp())
    } else {
        let e = x.exp();
        e / (T::one() + e)
    }
}

/// The standard normal distribution function.
fn normal_cdf(x: f64) -> f64 {
    0.5 * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2)
}
