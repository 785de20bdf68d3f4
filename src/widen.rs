//! Stored halves as `f32`, many at a time.
//!
//! The crate `half` does so in pieces of eight by a function that cannot be inlined, since it is compiled for other instructions than
//! its callers: a copy into it and one out of it cost more than the conversion (`ARCHITECTURE.md` has what that took).
#![allow(unsafe_code)]

use half::f16;
use half::slice::HalfFloatSliceExt;

/// Exact, with the conversion instructions of the machine.
///
/// # Panics
/// If the lengths differ.
pub(crate) fn f16_to_f32(from: &[f16], to: &mut [f32]) {
    assert_eq!(from.len(), to.len(), "numbers to convert");
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx") && is_x86_feature_detected!("f16c") {
        // SAFETY: the processor has both.
        unsafe { by_f16c(from, to) };
        return;
    }
    from.convert_to_f32_slice(to);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx,f16c")]
fn by_f16c(from: &[f16], to: &mut [f32]) {
    use std::arch::x86_64::{_mm_loadu_si128, _mm256_cvtph_ps, _mm256_storeu_ps};
    let ((from, last), (to, rest)) = (from.as_chunks::<8>(), to.as_chunks_mut::<8>());
    for (from, to) in from.iter().zip(to) {
        // SAFETY: eight f16 are the 16 bytes that are read and eight f32 the 32 that are written, both from any address on.
        unsafe { _mm256_storeu_ps(to.as_mut_ptr(), _mm256_cvtph_ps(_mm_loadu_si128(from.as_ptr().cast()))) };
    }
    last.iter().zip(rest).for_each(|(from, to)| *to = from.to_f32());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_is_widened_as_one_is() {
        // In 27 pieces of 2427 and one of 7: each value has its turn in a vector or behind the last.
        let all: Vec<f16> = (0..=u16::MAX).map(f16::from_bits).collect();
        for from in all.chunks(2427) {
            let mut to = vec![0.0; from.len()];
            f16_to_f32(from, &mut to);
            for (from, to) in from.iter().zip(to) {
                let want = from.to_f32();
                assert!(to.to_bits() == want.to_bits() || to.is_nan() && want.is_nan(), "{from}: {to}");
            }
        }
    }
}
