//! Memory and launches of the device under test: that of ONKOS_TEST_DEVICE, else the first there is.

use std::sync::{Mutex, MutexGuard, PoisonError};

use half::{bf16, f16};

use super::kernel::Slot;
use super::{Device, Gpu, Grid, launch};
use crate::element::Element;
use crate::error::Error;
use crate::tape::{Tape, Var};
use crate::tensor::Tensor;

/// The device, for one test at a time, which may count its memory; or none, which is said where the tests of ops say it
/// (`tests/ops/device.rs`).
pub(crate) fn gpu() -> Option<(Gpu, MutexGuard<'static, ()>)> {
    static ONE: Mutex<()> = Mutex::new(());
    let name = std::env::var("ONKOS_TEST_DEVICE").unwrap_or_else(|_| "cuda:0".into());
    match Device::parse(&name) {
        Ok(Device::Cuda(gpu)) => Some((gpu, ONE.lock().unwrap_or_else(PoisonError::into_inner))),
        _ => None,
    }
}

fn returns<T: Element>(gpu: Gpu, data: &[T]) {
    let there = gpu.upload(&[data.len()], data).unwrap();
    assert_eq!(there.read().unwrap(), data, "{}", T::NAME);
    assert_eq!(gpu.zeros::<T>(&[data.len(), 3]).unwrap().read().unwrap(), vec![T::default(); 3 * data.len()]);
}

#[test]
fn elements_of_every_type_come_back_as_they_went() {
    let Some((gpu, _one)) = gpu() else { return };
    returns(gpu, &[1.5f32, f32::NEG_INFINITY, -0.0, f32::MIN_POSITIVE / 2.0]);
    returns(gpu, &[1.5f64, f64::MAX, 1e-310]);
    returns(gpu, &[f16::from_f32(-2.5), f16::MAX]);
    returns(gpu, &[bf16::from_f32(-2.5), bf16::MAX, bf16::MIN_POSITIVE]);
    returns(gpu, &[0u8, 255, 7]);
    returns(gpu, &[0u32, u32::MAX]);
    returns(gpu, &[i32::MIN, -1]);
    returns(gpu, &[i64::MIN, 1 << 40]);
    returns::<f32>(gpu, &[]);
}

#[test]
fn clones_share_memory_until_one_is_written() {
    let Some((gpu, _one)) = gpu() else { return };
    let address = |x: &Tensor<f32>| x.memory().map(super::Memory::address);
    let a = gpu.upload(&[3], &[1f32, 2.0, 3.0]).unwrap();
    let mut b = a.clone();
    assert_eq!(address(&a), address(&b));
    b.add_assign(&a).unwrap();
    assert_ne!(address(&a), address(&b));
    assert_eq!((a.read().unwrap(), b.read().unwrap()), (vec![1.0, 2.0, 3.0], vec![2.0, 4.0, 6.0]));
    // Now that nobody shares it, it is written in place.
    let before = address(&b);
    b.add_assign(&a).unwrap();
    assert_eq!(address(&b), before);
}

#[test]
fn more_than_there_is_is_refused_in_a_sentence() {
    let Some((gpu, _one)) = gpu() else { return };
    let (_, total) = gpu.memory().unwrap();
    let error = gpu.alloc::<u8>(&[2 * total as usize]).unwrap_err();
    let sentence = error.to_string();
    assert!(
        matches!(error, Error::DeviceMemory { bytes, total: t, .. } if bytes == 2 * total && t == total),
        "{error}"
    );
    let gib = total as f64 / f64::from(1 << 30);
    assert!(sentence.starts_with(&format!("{gpu} has not enough memory: {:.2} GiB more are needed", 2.0 * gib)));
    // And what fits is still given.
    returns(gpu, &[1u8, 2]);
}

#[test]
fn a_launch_that_the_driver_refuses_is_named() {
    let Some((gpu, _one)) = gpu() else { return };
    let x = gpu.zeros::<f32>(&[4]).unwrap();
    let address = Slot::Pointer(x.memory().unwrap().address());
    let slots = [address, address, Slot::U64(0)];
    let error = launch(gpu, Grid::new(1, 4096), "add", "add_accumulate", "", &slots).unwrap_err();
    assert!(error.to_string().starts_with(&format!("{gpu}: launching add_accumulate failed: ")), "{error}");
    let error = launch(gpu, Grid::new(1, 32), "add", "add_nothing", "", &slots).unwrap_err();
    assert!(error.to_string().starts_with(&format!("{gpu}: looking for the kernel add_nothing failed: ")), "{error}");
    gpu.synchronize().unwrap();
}

#[test]
fn a_kernel_is_given_tensors_of_its_device_and_its_element_type() {
    let Some((gpu, _one)) = gpu() else { return };
    let add = |a: Tensor<f32>, b: Tensor<f32>| {
        let tape = Tape::inference(Device::Cuda(gpu));
        crate::ops::Add.forward(&tape, &Var::constant(a), &Var::constant(b)).map(|_| ())
    };
    let (here, there) = (Tensor::zeros(&[4]), gpu.zeros(&[4]).unwrap());
    let error = add(there, here).unwrap_err().to_string();
    let sentence = |why: &str| format!("device {gpu} cannot be used: {why}; use --device cpu or auto");
    assert_eq!(error, sentence("an argument of add_forward lies on cpu"));
    let x = Var::constant(gpu.zeros::<f64>(&[4]).unwrap());
    let error = crate::ops::Add.forward(&Tape::inference(Device::Cuda(gpu)), &x, &x).unwrap_err().to_string();
    assert_eq!(error, sentence("add_forward calculates in F32 there, not in F64: use the CPU for it"));
}
