//! What every op's suite is made of: inputs, a comparator, derived tolerances and finite differences.

#![allow(unreachable_pub, reason = "shared by several test programs")]

use std::fmt::Debug;
use std::sync::OnceLock;

use onkos::device::Products;
use onkos::rng::Draws;
use onkos::{Device, Element, Features, Real, Result, Tape, Tensor, Var};

/// Normal numbers that both precisions hold exactly (rounded to f32), named so that each tensor of a test has its own.
pub fn normal<T: Real>(name: &str, shape: &[usize]) -> Tensor<T> {
    let stream = Draws::new(0, 0, name).of(0);
    Tensor::from_fn(shape, |i| T::of(f64::from(stream.normal(i as u64) as f32)))
}

/// The same tensor in the other precision.
pub fn cast<T: Real, U: Real>(x: &Tensor<T>) -> Tensor<U> {
    Tensor::from_fn(x.shape(), |i| U::of(x.host()[i].f64()))
}

/// The same tensor with its rows (of the first dimension) in this order.
pub fn rows_of<T: Real>(x: &Tensor<T>, order: &[usize]) -> Tensor<T> {
    let width = x.shape()[1..].iter().product::<usize>();
    let data = order.iter().flat_map(|&r| x.host()[r * width..][..width].iter().copied()).collect();
    Tensor::new(x.shape(), data).expect("as many rows as before")
}

/// Fails unless `got` is within `bound` of `want` in every element, with NaN and infinities equal. Says how many
/// elements are off and shows the worst.
#[track_caller]
pub fn assert_within<T: Real>(what: &str, got: &[T], want: &[f64], bound: f64) {
    assert_eq!(got.len(), want.len(), "{what}: number of elements");
    let off = |i: usize| {
        let (g, w) = (got[i].f64(), want[i]);
        if g == w || (g.is_nan() && w.is_nan()) { 0.0 } else { (g - w).abs() }
    };
    let wrong: Vec<usize> = (0..got.len()).filter(|&i| off(i).is_nan() || off(i) > bound).collect();
    if let Some(&worst) = wrong.iter().max_by(|&&a, &&b| off(a).total_cmp(&off(b))) {
        panic!(
            "{what}: {} of {} elements off by more than {bound:e}; worst [{worst}]: got {}, want {}; first {:?}",
            wrong.len(),
            got.len(),
            got[worst],
            want[worst],
            &wrong[..wrong.len().min(5)]
        );
    }
}

/// Fails unless the error of `got` against the f64 oracle is at most twice that of plain arithmetic in the same
/// precision (`plain`): the rule of FlashAttention's tests. Where `plain` happens to be exact, half a unit in the last
/// place of the largest element is allowed.
#[track_caller]
pub fn assert_as_good_as_plain<T: Real>(what: &str, got: &[T], plain: &[T], oracle: &[f64]) {
    assert_sums_as_good_as_plain(what, got, plain, oracle, 1);
}

/// The same for sums of so many terms, such as gradients of parameters over the rows of a batch: where plain arithmetic
/// happens to be nearly exact, as it often is in a tensor of one or two elements, the rounding of as many terms is
/// allowed, which goes with the square root of their number.
#[track_caller]
pub fn assert_sums_as_good_as_plain<T: Real>(what: &str, got: &[T], plain: &[T], oracle: &[f64], terms: usize) {
    let largest = oracle.iter().filter(|x| x.is_finite()).fold(0f64, |m, x| m.max(x.abs()));
    let error = plain.iter().zip(oracle).map(|(p, o)| (p.f64() - o).abs()).filter(|e| e.is_finite());
    let bound = 2.0 * error.fold(largest * T::epsilon().f64() / 2.0 * (terms as f64).sqrt(), f64::max);
    assert_within(what, got, oracle, bound);
}

/// Agreement with a golden file in f64: relative to the largest entry, `digits` of them as its README states.
#[track_caller]
pub fn assert_golden(what: &str, got: &[f64], want: &[f64], relative: f64) {
    let largest = want.iter().filter(|x| x.is_finite()).fold(f64::MIN_POSITIVE, |m, x| m.max(x.abs()));
    assert_within(what, got, want, relative * largest);
}

/// Where work in `T` is tested: f32 on the device that ONKOS_TEST_DEVICE names (the CPU unless it is set), with the products
/// of ONKOS_TEST_PRODUCTS (`own` unless it is set), f64, the oracle, on the CPU.
pub fn device<T: Real>() -> Device {
    static NAMED: OnceLock<Device> = OnceLock::new();
    if T::NAME == f64::NAME {
        return Device::Cpu;
    }
    *NAMED.get_or_init(|| {
        let name = std::env::var("ONKOS_TEST_DEVICE").unwrap_or_else(|_| "cpu".into());
        let device = Device::parse(&name).expect("the device under test");
        match std::env::var("ONKOS_TEST_PRODUCTS").as_deref() {
            Ok("cublaslt") => device.with_products(Products::CublasLt).expect("the products under test"),
            Ok("own") | Err(_) => device,
            Ok(other) => panic!("ONKOS_TEST_PRODUCTS is own or cublaslt, not {other}"),
        }
    })
}

/// Whether the device under test is the emulated one, where very large shapes take too long.
pub fn emulated() -> bool {
    matches!(device::<f32>(), Device::Cuda(gpu) if gpu.name() == "emulated")
}

/// A tensor on the device under test.
pub fn placed<T: Real>(x: &Tensor<T>) -> Tensor<T> {
    x.to(device::<T>()).expect("the device has room for it")
}

/// Stored features on the device under test of `T`.
pub fn placed_features<T: Real>(x: &Features) -> Features {
    x.to(device::<T>()).expect("the device has room for them")
}

/// A result on the CPU, to look at.
pub fn fetched<T: Real>(x: &Tensor<T>) -> Tensor<T> {
    x.to(Device::Cpu).expect("no kernel failed")
}

/// Calls `f` on constants and gives the values.
pub fn values<T: Real>(f: impl Fn(&Tape<T>, &[Var<T>]) -> Result<Vec<Var<T>>>, inputs: &[Tensor<T>]) -> Vec<Tensor<T>> {
    let tape = Tape::inference(device::<T>());
    let vars: Vec<_> = inputs.iter().map(|x| Var::constant(placed(x))).collect();
    f(&tape, &vars).expect("the inputs of the test are valid").iter().map(|v| fetched(v.value())).collect()
}

/// The values of `f` and the gradients of `sum(out * cotangent)` with respect to every input.
pub fn gradients<T: Real>(
    f: impl Fn(&Tape<T>, &[Var<T>]) -> Result<Vec<Var<T>>>,
    inputs: &[Tensor<T>],
    cotangents: &[Tensor<T>],
) -> (Vec<Tensor<T>>, Vec<Tensor<T>>) {
    gradients_on(device::<T>(), f, inputs, cotangents)
}

/// The same on a device that is not the one of all tests, or not in the same precision.
pub fn gradients_on<T: Real>(
    device: Device,
    f: impl Fn(&Tape<T>, &[Var<T>]) -> Result<Vec<Var<T>>>,
    inputs: &[Tensor<T>],
    cotangents: &[Tensor<T>],
) -> (Vec<Tensor<T>>, Vec<Tensor<T>>) {
    let placed = |x: &Tensor<T>| x.to(device).expect("the device has room for it");
    let tape = Tape::recording(device);
    let vars: Vec<_> = inputs.iter().map(|x| tape.leaf(placed(x))).collect();
    let out = f(&tape, &vars).expect("the inputs of the test are valid");
    let roots: Vec<_> = out.iter().zip(cotangents).map(|(v, c)| (v, placed(c))).collect();
    let grads = tape.backward(&roots).expect("backward of valid inputs");
    let grad = |v: &Var<T>| grads.of(v).map_or_else(|| Tensor::zeros(v.shape()), fetched);
    (out.iter().map(|v| fetched(v.value())).collect(), vars.iter().map(grad).collect())
}

/// Fails unless the gradients in f32 on the device under test are as good as those of the CPU, which are plain sums in
/// f32: both against those in f64, which finite differences are held against. `single` and `double` are one function.
#[track_caller]
pub fn assert_gradients_as_good_as_plain(
    what: &str,
    single: impl Fn(&Tape<f32>, &[Var<f32>]) -> Result<Vec<Var<f32>>>,
    double: impl Fn(&Tape<f64>, &[Var<f64>]) -> Result<Vec<Var<f64>>>,
    inputs: &[Tensor<f32>],
) {
    assert_gradients_of_sums_as_good_as_plain(what, single, double, inputs, 1);
}

/// The same for gradients that are sums of so many terms, as [`assert_sums_as_good_as_plain`] has it.
#[track_caller]
pub fn assert_gradients_of_sums_as_good_as_plain(
    what: &str,
    single: impl Fn(&Tape<f32>, &[Var<f32>]) -> Result<Vec<Var<f32>>>,
    double: impl Fn(&Tape<f64>, &[Var<f64>]) -> Result<Vec<Var<f64>>>,
    inputs: &[Tensor<f32>],
    terms: usize,
) {
    let wide: Vec<Tensor<f64>> = inputs.iter().map(cast).collect();
    let cot = cotangents::<f32>(&values(&single, inputs));
    let (_, oracle) = gradients(double, &wide, &cot.iter().map(cast).collect::<Vec<_>>());
    let (_, plain) = gradients_on(Device::Cpu, &single, inputs, &cot);
    let (_, got) = gradients(&single, inputs, &cot);
    for (i, ((got, plain), oracle)) in got.iter().zip(&plain).zip(&oracle).enumerate() {
        let what = format!("{what}: gradient of input {i}");
        assert_sums_as_good_as_plain(&what, got.host(), plain.host(), oracle.host(), terms);
    }
}

/// Cotangents for the outputs of `f`: normal numbers.
pub fn cotangents<T: Real>(out: &[Tensor<T>]) -> Vec<Tensor<T>> {
    out.iter().enumerate().map(|(i, t)| normal(&format!("cotangent {i}"), t.shape())).collect()
}

/// Compares the gradients of every output with respect to every element of every input with central differences in
/// f64.
///
/// Two steps, `h` and `h / 2`, give an extrapolated derivative (Richardson) and an estimate of its error: their
/// difference, which bounds the truncation error of the extrapolated value for a smooth function, plus the rounding of
/// the sums that were subtracted. The analytic gradient must agree within ten such errors.
#[track_caller]
pub fn assert_gradients_match_finite_differences(
    what: &str,
    f: impl Fn(&Tape<f64>, &[Var<f64>]) -> Result<Vec<Var<f64>>>,
    inputs: &[Tensor<f64>],
) {
    let cot = cotangents(&values(&f, inputs));
    let (_, grads) = gradients(&f, inputs, &cot);
    // Sum of terms, and sum of their sizes: the latter scales the rounding error.
    let objective = |inputs: &[Tensor<f64>]| {
        let out = values(&f, inputs);
        let terms = out.iter().zip(&cot).flat_map(|(o, c)| o.host().iter().zip(c.host()).map(|(o, c)| o * c));
        terms.fold((0.0, 0.0), |(sum, size), t: f64| (sum + t, size + t.abs()))
    };
    let mut moved = inputs.to_vec();
    for (n, input) in inputs.iter().enumerate() {
        for i in 0..input.len() {
            let at = input.host()[i];
            let h = 1e-4 * at.abs().max(1.0);
            let mut slope = |h: f64| {
                let mut side = |x: f64| {
                    moved[n].host_mut()[i] = x;
                    objective(&moved)
                };
                let ((up, size), (down, _)) = (side(at + h), side(at - h));
                moved[n].host_mut()[i] = at;
                ((up - down) / (2.0 * h), 100.0 * f64::EPSILON * size / h)
            };
            let ((coarse, _), (fine, rounding)) = (slope(h), slope(h / 2.0));
            let want = fine + (fine - coarse) / 3.0;
            let bound = 10.0 * ((fine - coarse).abs() / 3.0 + rounding);
            let got = grads[n].host()[i];
            assert!(
                (got - want).abs() <= bound,
                "{what}: gradient of input {n} element {i}: got {got}, finite differences {want} +- {bound:e}"
            );
        }
    }
}

/// Fails unless the result is the same bits on one and on two threads.
#[track_caller]
pub fn assert_same_on_any_number_of_threads<R: PartialEq + Debug + Send>(f: impl Fn() -> R + Sync) {
    let on = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool").install(&f);
    assert_eq!(on(1), on(2));
}

mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "1 of 3 elements off")]
    fn the_comparator_sees_one_wrong_element() {
        assert_within("test", &[1.0, 2.0, 3.0], &[1.0, 2.5, 3.0], 0.1);
    }

    #[test]
    #[should_panic(expected = "1 of 2 elements off")]
    fn the_comparator_sees_a_nan() {
        assert_within("test", &[1.0, f64::NAN], &[1.0, 2.0], 1e9);
    }

    #[test]
    fn the_comparator_takes_equal_infinities_and_nans() {
        assert_within("test", &[f64::INFINITY, f64::NAN], &[f64::INFINITY, f64::NAN], 0.0);
    }

    #[test]
    #[should_panic(expected = "gradient of input 0 element 1")]
    fn finite_differences_see_a_gradient_that_lacks_a_factor() {
        let wrong = |tape: &Tape<f64>, v: &[Var<f64>]| -> Result<Vec<Var<f64>>> {
            let x = v[0].value().clone();
            let y = Tensor::from_fn(x.shape(), |i| x.host()[i].sin());
            let out = tape.record(&[&v[0]], [y], move |g| {
                let g = g[0].as_ref().expect("one output").host();
                let factor = [1.0, 0.999];
                Ok(vec![Some(Tensor::from_fn(x.shape(), |i| g[i] * x.host()[i].cos() * factor[i]))])
            });
            Ok(out.to_vec())
        };
        assert_gradients_match_finite_differences("wrong", wrong, &[normal("x", &[2])]);
    }
}
