//! Patch features as they are stored: one matrix, its element type told apart once.

use std::fmt;

use half::{bf16, f16};
use serde::{Deserialize, Serialize};

use crate::device::Device;
use crate::element::{Element, Feature, Real};
use crate::error::Result;
use crate::tape::Var;
use crate::tensor::Tensor;

/// The element types in which patch features are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FeatureType {
    /// 32-bit floats.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of a 32-bit float.
    #[serde(rename = "BF16")]
    Bf16,
}

impl FeatureType {
    /// The bytes of one element.
    pub fn bytes(self) -> usize {
        match self {
            FeatureType::F32 => size_of::<f32>(),
            FeatureType::F16 => size_of::<f16>(),
            FeatureType::Bf16 => size_of::<bf16>(),
        }
    }

    /// The name as safetensors writes it.
    pub fn name(self) -> &'static str {
        match self {
            FeatureType::F32 => f32::NAME,
            FeatureType::F16 => f16::NAME,
            FeatureType::Bf16 => bf16::NAME,
        }
    }

    /// The type of that name in safetensors, if features can be stored in it.
    pub fn from_name(name: &str) -> Option<FeatureType> {
        [FeatureType::F32, FeatureType::F16, FeatureType::Bf16].into_iter().find(|t| t.name() == name)
    }
}

impl fmt::Display for FeatureType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The features of some bags, `[N, L]`, in the element type of their file.
///
/// An op that takes features matches on this once and is generic from there on; nothing is widened on the way.
#[derive(Clone, Debug, PartialEq)]
pub enum Features {
    /// 32-bit floats.
    F32(Tensor<f32>),
    /// IEEE half precision.
    F16(Tensor<f16>),
    /// The upper half of a 32-bit float.
    Bf16(Tensor<bf16>),
}

impl Features {
    /// The shape, `[N, L]`.
    pub fn shape(&self) -> &[usize] {
        match self {
            Features::F32(tensor) => tensor.shape(),
            Features::F16(tensor) => tensor.shape(),
            Features::Bf16(tensor) => tensor.shape(),
        }
    }

    /// The same features on a device: see [`Tensor::to`].
    ///
    /// # Errors
    /// As [`Tensor::to`].
    pub fn to(&self, device: Device) -> Result<Features> {
        Ok(match self {
            Features::F32(tensor) => Features::F32(tensor.to(device)?),
            Features::F16(tensor) => Features::F16(tensor.to(device)?),
            Features::Bf16(tensor) => Features::Bf16(tensor.to(device)?),
        })
    }

    /// The number of instances in all bags, `N`.
    pub fn rows(&self) -> usize {
        self.shape()[0]
    }

    /// The number of features of an instance, `L`.
    pub fn width(&self) -> usize {
        self.shape()[1]
    }

    /// Rows and columns, `N` and `L`.
    pub fn matrix(&self) -> (usize, usize) {
        (self.rows(), self.width())
    }

    /// The element type.
    pub fn dtype(&self) -> FeatureType {
        match self {
            Features::F32(_) => FeatureType::F32,
            Features::F16(_) => FeatureType::F16,
            Features::Bf16(_) => FeatureType::Bf16,
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

/// Runs an expression with `$x` bound to the tensor (`&Tensor<F>` with `F: Feature`) of a [`Kept`].
macro_rules! with_tensor {
    ($kept:expr, $x:ident => $body:expr) => {
        match $kept {
            $crate::features::Kept::Real(t) => {
                let $x = t;
                $body
            }
            $crate::features::Kept::Stored($crate::features::Features::F32(t)) => {
                let $x = t;
                $body
            }
            $crate::features::Kept::Stored($crate::features::Features::F16(t)) => {
                let $x = t;
                $body
            }
            $crate::features::Kept::Stored($crate::features::Features::Bf16(t)) => {
                let $x = t;
                $body
            }
        }
    };
}
pub(crate) use with_tensor;

/// The same with `$x` bound to the elements (`&[F]`) of one on the CPU.
macro_rules! with_elements {
    ($kept:expr, $x:ident => $body:expr) => {
        $crate::features::with_tensor!($kept, tensor => {
            let $x = tensor.host();
            $body
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_types_round_trip_and_others_are_refused() {
        for dtype in [FeatureType::F32, FeatureType::F16, FeatureType::Bf16] {
            assert_eq!(FeatureType::from_name(dtype.name()), Some(dtype));
            assert_eq!(serde_json::to_string(&dtype).unwrap(), format!("\"{dtype}\""));
        }
        assert_eq!(FeatureType::from_name("F64"), None);
    }

    #[test]
    fn features_know_their_shape_and_type() {
        let features = Features::Bf16(Tensor::zeros(&[3, 5]));
        assert_eq!((features.rows(), features.width(), features.dtype()), (3, 5, FeatureType::Bf16));
    }
}
