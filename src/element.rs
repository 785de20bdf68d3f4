//! The element types of a tensor, as traits: [`Element`] can be stored, [`Real`] can be calculated with.

use std::fmt::{Debug, Display};
use std::iter::Sum;
use std::ops::{AddAssign, DivAssign, MulAssign, SubAssign};

use bytemuck::Pod;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use num_traits::Float;

use crate::widen;

/// A value that a [`Tensor`](crate::Tensor) can hold.
pub trait Element: Pod + Default + Debug + Send + Sync + PartialEq + 'static {
    /// The name of the type as safetensors and our messages write it.
    const NAME: &'static str;
    /// The name that kernels have behind their own if they exist for several element types.
    const SUFFIX: &'static str;
    /// The name in CUDA C++.
    const C: &'static str;
}

macro_rules! element {
    ($($t:ty = $name:literal $c:literal),*) => { $(
        impl Element for $t {
            const NAME: &'static str = $name;
            const SUFFIX: &'static str = stringify!($t);
            const C: &'static str = $c;
        }
    )* };
}
element!(
    f32 = "F32" "float", f64 = "F64" "double", f16 = "F16" "__half", bf16 = "BF16" "__nv_bfloat16",
    u8 = "U8" "unsigned char", u32 = "U32" "unsigned int", i32 = "I32" "int", i64 = "I64" "long long",
    u64 = "U64" "unsigned long long"
);

/// A floating-point type that ops calculate in: `f32` in use, `f64` as the oracle of the tests.
pub trait Real: Feature + Float + Display + Sum + AddAssign + SubAssign + MulAssign + DivAssign + Into<f64> {
    /// The nearest value of this type.
    fn of(x: f64) -> Self;
    /// This value as `f64`, exact.
    fn f64(self) -> f64 {
        self.into()
    }
    /// Widens stored features, `to.len()` of them.
    fn widen<F: Feature>(from: &[F], to: &mut [Self]);
}

impl Real for f32 {
    fn of(x: f64) -> f32 {
        x as f32
    }
    fn widen<F: Feature>(from: &[F], to: &mut [f32]) {
        F::to_f32(from, to);
    }
}

impl Real for f64 {
    fn of(x: f64) -> f64 {
        x
    }
    fn widen<F: Feature>(from: &[F], to: &mut [f64]) {
        from.iter().zip(to).for_each(|(from, to)| *to = from.to_f64());
    }
}

/// A type in which patch features are stored: read as it is, widened where it enters an op.
pub trait Feature: Element {
    /// This value as `f64`, exact.
    fn to_f64(self) -> f64;
    /// Many values as `f32`, with the conversion instructions of the machine: exact but for `f64`, which is rounded.
    fn to_f32(from: &[Self], to: &mut [f32]);
}

impl Feature for f32 {
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
    fn to_f32(from: &[f32], to: &mut [f32]) {
        to.copy_from_slice(from);
    }
}
impl Feature for f64 {
    fn to_f64(self) -> f64 {
        self
    }
    fn to_f32(from: &[f64], to: &mut [f32]) {
        from.iter().zip(to).for_each(|(from, to)| *to = *from as f32);
    }
}
impl Feature for f16 {
    fn to_f64(self) -> f64 {
        f16::to_f64(self)
    }
    fn to_f32(from: &[f16], to: &mut [f32]) {
        widen::f16_to_f32(from, to);
    }
}
impl Feature for bf16 {
    fn to_f64(self) -> f64 {
        bf16::to_f64(self)
    }
    fn to_f32(from: &[bf16], to: &mut [f32]) {
        from.convert_to_f32_slice(to);
    }
}
