//! Patch features as they are stored: 32 or 16 bits wide, told apart once, where they enter an op.

use half::{bf16, f16};

use crate::element::{Element, Feature, Real};
use crate::tape::Var;
use crate::tensor::Tensor;

/// Patch features of a batch, `[N, L]`, in the type that their file has. They are data: no gradient is owed to them.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Features {
    /// 32-bit floats.
    F32(Tensor<f32>),
    /// IEEE half precision: 5 bits of exponent, 10 of mantissa.
    F16(Tensor<f16>),
    /// bfloat16: 8 bits of exponent, 7 of mantissa.
    Bf16(Tensor<bf16>),
}

impl Features {
    /// Rows and columns: `N` patches of `L` features.
    pub fn matrix(&self) -> (usize, usize) {
        match self {
            Features::F32(t) => t.matrix(),
            Features::F16(t) => t.matrix(),
            Features::Bf16(t) => t.matrix(),
        }
    }

    /// The name of the stored type, as safetensors writes it.
    pub fn dtype(&self) -> &'static str {
        match self {
            Features::F32(_) => f32::NAME,
            Features::F16(_) => f16::NAME,
            Features::Bf16(_) => bf16::NAME,
        }
    }
}

/// The rows that an op reads: a variable of the tape, or stored features.
#[derive(Clone, Copy, Debug)]
pub enum Rows<'a, T> {
    /// A variable; it is given a gradient if it wants one.
    Var(&'a Var<T>),
    /// Stored features, widened tile by tile while they are read.
    Stored(&'a Features),
}

impl<'a, T: Real> Rows<'a, T> {
    /// Rows and columns.
    pub fn matrix(&self) -> (usize, usize) {
        match self {
            Rows::Var(x) => x.value().matrix(),
            Rows::Stored(x) => x.matrix(),
        }
    }

    /// The shape, for messages.
    pub fn shape(&self) -> Vec<usize> {
        let (rows, columns) = self.matrix();
        vec![rows, columns]
    }

    /// The values, to be kept for the backward pass.
    pub fn kept(&self) -> Kept<T> {
        match self {
            Rows::Var(x) => Kept::Real(x.value().clone()),
            Rows::Stored(x) => Kept::Stored((*x).clone()),
        }
    }

    /// The variable, or a constant in its place so that every op records the same inputs.
    pub fn var(&self) -> Var<T> {
        match self {
            Rows::Var(x) => (*x).clone(),
            Rows::Stored(_) => Var::constant(Tensor::zeros(&[0])),
        }
    }
}

impl<'a, T> From<&'a Var<T>> for Rows<'a, T> {
    fn from(x: &'a Var<T>) -> Rows<'a, T> {
        Rows::Var(x)
    }
}

impl<'a, T> From<&'a Features> for Rows<'a, T> {
    fn from(x: &'a Features) -> Rows<'a, T> {
        Rows::Stored(x)
    }
}

/// The values behind [`Rows`], without their place on a tape.
#[derive(Clone, Debug)]
pub enum Kept<T> {
    /// In the type that is calculated in.
    Real(Tensor<T>),
    /// As stored.
    Stored(Features),
}

/// Runs an expression with `$x` bound to the stored elements (`&[F]` with `F: Feature`) of a [`Kept`].
macro_rules! with_elements {
    ($kept:expr, $x:ident => $body:expr) => {
        match $kept {
            $crate::features::Kept::Real(t) => {
                let $x = t.host();
                $body
            }
            $crate::features::Kept::Stored($crate::features::Features::F32(t)) => {
                let $x = t.host();
                $body
            }
            $crate::features::Kept::Stored($crate::features::Features::F16(t)) => {
                let $x = t.host();
                $body
            }
            $crate::features::Kept::Stored($crate::features::Features::Bf16(t)) => {
                let $x = t.host();
                $body
            }
        }
    };
}
pub(crate) use with_elements;

/// `from` in the type that is calculated in: borrowed where it already is, else widened into `scratch`.
pub(crate) fn widened<'a, F: Feature, T: Real>(from: &'a [F], scratch: &'a mut Vec<T>) -> &'a [T] {
    if std::any::TypeId::of::<F>() == std::any::TypeId::of::<T>() {
        return bytemuck::cast_slice(from);
    }
    scratch.resize(from.len(), T::zero());
    T::widen(from, scratch);
    scratch
}
