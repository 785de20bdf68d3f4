//! Elementary functions over slices, in place: branch-free polynomials for `f32`, the standard library for `f64`.
//!
//! Each `f32` function is written once, as plain arithmetic on one element, and compiled three times (AVX-512, AVX2 with
//! fused multiply-add, and what every machine of the target has); the compiler makes vectors of it. `e^r` on
//! `|r| <= ln 2 / 2` is the classical degree-7 polynomial after a reduction in two parts (Cody and Waite 1980).
//! Every result is within 5 units in the last place of the exact one, NaN goes through, and nothing saturates early:
//! the tests below sweep the bit patterns.
#![allow(unsafe_code)]

use std::any::TypeId;

use super::activation::Activation;
use crate::device::Level;
use crate::element::Real;

/// `a b + c`, in one rounding where the machine has an instruction for it (without one, `mul_add` is a slow call).
#[inline(always)]
fn fma<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// `(e^r - 1, n)` with `x = n ln 2 + r`. `x` must be NaN or within +-200.
#[inline(always)]
fn reduced<const FMA: bool>(x: f32) -> (f32, i32) {
    // Adding 1.5 * 2^23 leaves the nearest integer in the low bits of the mantissa.
    const ROUND: f32 = 12_582_912.0;
    let rounded = fma::<FMA>(x, std::f32::consts::LOG2_E, ROUND);
    let n = rounded - ROUND;
    // ln 2 in two parts, of which the first has few enough bits that n times it is exact.
    let r = fma::<FMA>(n, -355.0 / 512.0, x);
    let r = fma::<FMA>(n, 2.121_944_4e-4, r);
    let mut q = 1.987_569_1e-4;
    for c in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        q = fma::<FMA>(q, r, c);
    }
    (fma::<FMA>(r * r, q, r), (rounded.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32))
}

/// `2^n` for `-126 <= n <= 127`.
#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) as u32) << 23)
}

/// `x` within `[low, high]`; NaN stays.
#[inline(always)]
fn clamped(x: f32, low: f32, high: f32) -> f32 {
    let x = if x < low { low } else { x };
    if x > high { high } else { x }
}

#[inline(always)]
fn exp_one<const FMA: bool>(x: f32) -> f32 {
    // e^-105 rounds to 0 and e^89.5 to infinity.
    let (p, n) = reduced::<FMA>(clamped(x, -105.0, 89.5));
    // In two steps, so that neither power leaves the normal range while the result does.
    let half = n >> 1;
    (p + 1.0) * power_of_two(half) * power_of_two(n.wrapping_sub(half))
}

/// `e^x - 1` for `x` within `[-25, 25]` after clamping, without cancellation.
#[inline(always)]
fn exp_m1_near<const FMA: bool>(x: f32) -> f32 {
    let (p, n) = reduced::<FMA>(clamped(x, -25.0, 25.0));
    let t = power_of_two(n);
    fma::<FMA>(t, p, t - 1.0)
}

#[inline(always)]
fn elu_one<const FMA: bool>(x: f32) -> f32 {
    let e = exp_m1_near::<FMA>(x);
    if x > 0.0 { x } else { e }
}

#[inline(always)]
fn tanh_one<const FMA: bool>(x: f32) -> f32 {
    // tanh x = (e^2x - 1) / (e^2x + 1); beyond |x| = 12.5 it rounds to 1.
    let e = exp_m1_near::<FMA>(x + x);
    e / (e + 2.0)
}

#[inline(always)]
fn sigmoid_one<const FMA: bool>(x: f32) -> f32 {
    let e = exp_one::<FMA>(-x.abs());
    (if x >= 0.0 { 1.0 } else { e }) / (1.0 + e)
}

/// `e^x` for `-200 <= x <= 0` to a relative 1e-9, in `f64`: for what is rounded to `f32` afterwards.
#[inline(always)]
fn exp_wide<const FMA: bool>(x: f64) -> f64 {
    let fma = |a: f64, b: f64, c: f64| if FMA { a.mul_add(b, c) } else { a * b + c };
    const ROUND: f64 = 6_755_399_441_055_744.0;
    let rounded = fma(x, std::f64::consts::LOG2_E, ROUND);
    let r = fma(rounded - ROUND, -std::f64::consts::LN_2, x);
    let mut p = 1.0 / 40_320.0;
    // The series of e^r; its next term is below 2e-10 at |r| = ln 2 / 2.
    for c in [1.0 / 5040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = fma(p, r, c);
    }
    let n = rounded.to_bits().wrapping_sub(ROUND.to_bits());
    p * f64::from_bits(n.wrapping_add(1023) << 52)
}

/// The normal distribution function at `x` and its density, to a relative 2e-9 for `|x| <= 15`.
///
/// With `z = |x| / sqrt 2` and `t = 1 / (1 + z / 2)`, `erfc z = e^(-z^2) t q(t)`: `q` is the polynomial that meets
/// `erfc(z) e^(z^2) / t` in the 12 Chebyshev nodes of `0 <= z <= 10.7`, as powers of `u`, `t` mapped onto `[-1, 1]`.
#[inline(always)]
fn normal_parts<const FMA: bool>(x: f64) -> (f64, f64) {
    let fma = |a: f64, b: f64, c: f64| if FMA { a.mul_add(b, c) } else { a * b + c };
    const LEAST: f64 = 1.0 / (1.0 + 10.7 / 2.0);
    let t = 1.0 / fma(x.abs(), 0.5 * std::f64::consts::FRAC_1_SQRT_2, 1.0);
    let u = fma(t, 2.0 / (1.0 - LEAST), -(1.0 + LEAST) / (1.0 - LEAST));
    let mut q = 0.0;
    for c in [
        -2.34749259355e-06,
        5.91536762597e-06,
        1.29792279845e-05,
        -7.29279921968e-05,
        5.35810275108e-06,
        0.000636187286145,
        -0.000693686518014,
        -0.0063932529511,
        0.00644141104497,
        0.104085518648,
        0.327546632518,
        0.5684282127,
    ] {
        q = fma(q, u, c);
    }
    let e = exp_wide::<FMA>(-0.5 * x * x);
    let tail = 0.5 * e * t * q;
    // 1 / sqrt(2 pi)
    let density = e * (0.5 * std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2);
    (if x > 0.0 { 1.0 - tail } else { tail }, density)
}

#[inline(always)]
fn gelu_one<const FMA: bool>(x: f32) -> f32 {
    // Below -15 the result rounds to 0, above 15 to x.
    let (phi, _) = normal_parts::<FMA>(f64::from(clamped(x, -15.0, 15.0)));
    (f64::from(clamped(x, -15.0, f32::INFINITY)) * phi) as f32
}

#[inline(always)]
fn gelu_slope_one<const FMA: bool>(x: f32) -> f32 {
    let x = f64::from(clamped(x, -15.0, 15.0));
    let (phi, density) = normal_parts::<FMA>(x);
    (phi + x * density) as f32
}

#[cfg(test)]
impl Level {
    /// All that this machine can run.
    fn all() -> Vec<Level> {
        match Level::of_this_machine() {
            Level::Plain => vec![Level::Plain],
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => vec![Level::Plain, Level::Avx2],
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => vec![Level::Plain, Level::Avx2, Level::Avx512],
        }
    }
}

/// Compiles one body for every [`Level`] and picks at run time. The body sees `FMA` as a constant.
macro_rules! levels {
    ($(#[$doc:meta])* fn $name:ident($($arg:ident: $t:ty),*) $(-> $out:ty)? $body:block) => {
        mod $name {
            use super::*;
            #[inline(always)]
            fn body<const FMA: bool>($($arg: $t),*) $(-> $out)? $body
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2($($arg: $t),*) $(-> $out)? {
                body::<true>($($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512dq,avx2,fma")]
            fn avx512($($arg: $t),*) $(-> $out)? {
                body::<true>($($arg),*)
            }
            pub(super) fn at(level: Level, $($arg: $t),*) $(-> $out)? {
                match level {
                    Level::Plain => body::<false>($($arg),*),
                    // SAFETY: `Level::of_this_machine` gives this level only where the features were found.
                    #[cfg(target_arch = "x86_64")]
                    Level::Avx2 => unsafe { avx2($($arg),*) },
                    // SAFETY: as above.
                    #[cfg(target_arch = "x86_64")]
                    Level::Avx512 => unsafe { avx512($($arg),*) },
                }
            }
        }
        $(#[$doc])*
        fn $name($($arg: $t),*) $(-> $out)? {
            $name::at(Level::of_this_machine(), $($arg),*)
        }
    };
}

levels! { fn exp_f32(x: &mut [f32]) { x.iter_mut().for_each(|x| *x = exp_one::<FMA>(*x)) } }
levels! { fn tanh_f32(x: &mut [f32]) { x.iter_mut().for_each(|x| *x = tanh_one::<FMA>(*x)) } }
levels! { fn sigmoid_f32(x: &mut [f32]) { x.iter_mut().for_each(|x| *x = sigmoid_one::<FMA>(*x)) } }
levels! { fn elu_f32(x: &mut [f32]) { x.iter_mut().for_each(|x| *x = elu_one::<FMA>(*x)) } }
levels! { fn gelu_f32(x: &mut [f32]) { x.iter_mut().for_each(|x| *x = gelu_one::<FMA>(*x)) } }
levels! {
    fn gelu_chain_f32(grad: &mut [f32], x: &[f32]) {
        grad.iter_mut().zip(x).for_each(|(grad, x)| *grad *= gelu_slope_one::<FMA>(*x));
    }
}
levels! {
    fn axpy_f32(y: &mut [f32], a: f32, x: &[f32]) {
        y.iter_mut().zip(x).for_each(|(y, x)| *y = fma::<FMA>(a, *x, *y));
    }
}
levels! {
    fn dot_f32(x: &[f32], y: &[f32]) -> f32 {
        // 32 sums side by side: the order is fixed, and they fill vectors of any width.
        let mut sums = [0f32; 32];
        let (x_chunks, y_chunks) = (x.chunks_exact(32), y.chunks_exact(32));
        let tail: f32 = x_chunks.remainder().iter().zip(y_chunks.remainder()).map(|(x, y)| x * y).sum();
        for (x, y) in x_chunks.zip(y_chunks) {
            for lane in 0..32 {
                sums[lane] = fma::<FMA>(x[lane], y[lane], sums[lane]);
            }
        }
        sums.iter().sum::<f32>() + tail
    }
}

/// The slice as `f32` where that is what `T` is.
fn as_f32<T: Real>(x: &mut [T]) -> Option<&mut [f32]> {
    (TypeId::of::<T>() == TypeId::of::<f32>()).then(|| bytemuck::cast_slice_mut(x))
}

fn each<T: Real>(x: &mut [T], fast: fn(&mut [f32]), plain: impl Fn(T) -> T) {
    match as_f32(x) {
        Some(x) => fast(x),
        None => x.iter_mut().for_each(|x| *x = plain(*x)),
    }
}

/// `x = e^x`.
pub(crate) fn exp<T: Real>(x: &mut [T]) {
    each(x, exp_f32, T::exp);
}

/// `x = tanh x`.
pub(crate) fn tanh<T: Real>(x: &mut [T]) {
    each(x, tanh_f32, T::tanh);
}

/// `x = 1 / (1 + e^-x)`.
pub(crate) fn sigmoid<T: Real>(x: &mut [T]) {
    each(x, sigmoid_f32, super::activation::sigmoid);
}

/// `x = x` where positive, else `e^x - 1`.
pub(crate) fn elu<T: Real>(x: &mut [T]) {
    each(x, elu_f32, |x| if x > T::zero() { x } else { x.exp_m1() });
}

/// `x = x Phi(x)`.
pub(crate) fn gelu<T: Real>(x: &mut [T]) {
    each(x, gelu_f32, |x| Activation::Gelu.value(x));
}

/// `grad *= d(x Phi(x)) / dx`.
pub(crate) fn gelu_chain<T: Real>(grad: &mut [T], x: &[T]) {
    match as_f32(grad) {
        Some(grad) => gelu_chain_f32(grad, bytemuck::cast_slice(x)),
        None => grad.iter_mut().zip(x).for_each(|(grad, x)| *grad *= Activation::Gelu.slope(*x)),
    }
}

/// `y += a x`.
pub(crate) fn axpy<T: Real>(y: &mut [T], a: T, x: &[T]) {
    match as_f32(y) {
        Some(y) => axpy_f32(y, a.f64() as f32, bytemuck::cast_slice(x)),
        None => y.iter_mut().zip(x).for_each(|(y, x)| *y += a * *x),
    }
}

/// `sum of x y`, in a fixed order.
pub(crate) fn dot<T: Real>(x: &[T], y: &[T]) -> T {
    if TypeId::of::<T>() == TypeId::of::<f32>() {
        return T::of(f64::from(dot_f32(bytemuck::cast_slice(x), bytemuck::cast_slice(y))));
    }
    x.iter().zip(y).map(|(x, y)| *x * *y).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The largest error over a sweep of all bit patterns, in units in the last place of the exact result.
    fn worst(f: impl Fn(&mut [f32]), exact: impl Fn(f64) -> f64) -> (f64, f32) {
        let given: Vec<f32> = (0..=u32::MAX).step_by(1009).map(f32::from_bits).filter(|x| !x.is_nan()).collect();
        let mut got = given.clone();
        f(&mut got);
        let mut worst = (0.0, 0.0);
        for (x, got) in given.into_iter().zip(got) {
            let want = exact(f64::from(x));
            if got == want as f32 {
                continue;
            }
            let size = (want as f32).abs().min(f32::MAX);
            let ulp = f64::from(f32::from_bits(size.to_bits() + 1).min(f32::MAX)) - f64::from(size);
            let error = (f64::from(got) - want).abs() / ulp;
            // A NaN that should not be there must not pass.
            if error > worst.0 || error.is_nan() {
                worst = (error, x);
            }
        }
        worst
    }

    #[test]
    fn every_function_is_within_five_units_in_the_last_place() {
        for level in Level::all() {
            let sigmoid = |x: f64| if x >= 0.0 { 1.0 / (1.0 + (-x).exp()) } else { x.exp() / (1.0 + x.exp()) };
            let found = [
                ("exp", worst(|x| exp_f32::at(level, x), f64::exp)),
                ("tanh", worst(|x| tanh_f32::at(level, x), f64::tanh)),
                ("sigmoid", worst(|x| sigmoid_f32::at(level, x), sigmoid)),
                // Far out the product with 0 would be a NaN; it is a zero long before.
                (
                    "gelu",
                    worst(|x| gelu_f32::at(level, x), |x| if x < -40.0 { 0.0 } else { Activation::Gelu.value(x) }),
                ),
                ("elu", worst(|x| elu_f32::at(level, x), |x| if x > 0.0 { x } else { x.exp_m1() })),
            ];
            println!("{level:?}: {found:?}");
            assert!(found.iter().all(|(_, (error, _))| *error <= 5.0), "{level:?}: {found:?}");
        }
    }

    #[test]
    fn slope_of_gelu_is_within_five_units_of_the_larger_of_its_terms() {
        let given: Vec<f32> = (0..=u32::MAX).step_by(1009).map(f32::from_bits).filter(|x| x.is_finite()).collect();
        for level in Level::all() {
            let mut got = vec![1.0; given.len()];
            gelu_chain_f32::at(level, &mut got, &given);
            for (x, got) in given.iter().zip(got) {
                let want = Activation::Gelu.slope(f64::from(*x));
                let term = 0.5 * libm::erfc(-f64::from(*x) * std::f64::consts::FRAC_1_SQRT_2);
                let bound = 5.0 * f64::from(f32::EPSILON) * term.max(want.abs()) + f64::from(f32::MIN_POSITIVE);
                assert!((f64::from(got) - want).abs() <= bound, "{level:?} at {x}: got {got}, want {want}");
            }
        }
    }

    #[test]
    fn nan_goes_through_and_limits_are_reached() {
        let mut x = [f32::NAN; 33];
        for f in [exp, tanh, sigmoid, elu, gelu] {
            f(&mut x);
            assert!(x.iter().all(|x| x.is_nan()));
        }
        let at = |f: fn(&mut [f32]), x: f32| {
            let mut x = [x; 19];
            f(&mut x);
            x[18]
        };
        let (low, high) = (f32::NEG_INFINITY, f32::INFINITY);
        assert_eq!([at(exp, low), at(exp, high), at(exp, 0.0)], [0.0, high, 1.0]);
        assert_eq!([at(tanh, low), at(tanh, high), at(tanh, 0.0)], [-1.0, 1.0, 0.0]);
        assert_eq!([at(sigmoid, low), at(sigmoid, high), at(sigmoid, 0.0)], [0.0, 1.0, 0.5]);
        assert_eq!([at(gelu, low), at(gelu, high), at(gelu, 0.0)], [0.0, high, 0.0]);
        assert_eq!([at(elu, low), at(elu, high), at(elu, 0.0)], [-1.0, high, 0.0]);
    }

    #[test]
    fn dot_and_axpy_give_the_plain_sums() {
        for n in [0, 1, 31, 32, 33, 127] {
            // Small integers: every sum is exact, so equality is the test.
            let x: Vec<f32> = (0..n).map(|i| (i % 7) as f32 - 3.0).collect();
            let mut y: Vec<f32> = (0..n).map(|i| (i % 5) as f32 - 2.0).collect();
            let want: f32 = x.iter().zip(&y).map(|(x, y)| x * y).sum();
            let sums: Vec<f32> = x.iter().zip(&y).map(|(x, y)| y + 2.0 * x).collect();
            for level in Level::all() {
                assert_eq!(dot_f32::at(level, &x, &y), want);
            }
            axpy(&mut y, 2.0, &x);
            assert_eq!(y, sums);
        }
    }
}
