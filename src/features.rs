//! Patch features as they are stored: one matrix, its element type told apart once.

use std::fmt;

use half::{bf16, f16};
use serde::{Deserialize, Serialize};

use crate::element::Element;
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

    /// The number of instances in all bags, `N`.
    pub fn rows(&self) -> usize {
        self.shape()[0]
    }

    /// The number of features of an instance, `L`.
    pub fn width(&self) -> usize {
        self.shape()[1]
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
