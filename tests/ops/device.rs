//! The device beside the CPU: whether there is one, that the suites run on it too, and what it refuses.

use std::io::Write;
use std::process::{Command, Output};

use onkos::ops::Add;
use onkos::{Device, Error, Tape, Tensor, Var};

use crate::harness::*;

const NAMED: &str = "ONKOS_TEST_DEVICE";

fn is_one(variable: &str) -> bool {
    std::env::var_os(variable).is_some_and(|v| v == "1")
}

/// This test program once more.
pub(crate) fn again(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let program = std::env::current_exe().expect("a test program has a path");
    let mut command = Command::new(program);
    command.args(arguments).envs(variables.iter().copied()).output().expect("what runs can be run again")
}

#[track_caller]
pub(crate) fn assert_passed(what: &str, out: &Output) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(out.status.success(), "{what}:\n{}\n{}", text(&out.stdout), text(&out.stderr));
}

/// The device of these tests if it is a CUDA device: said loudly where there is none, and an error with
/// ONKOS_REQUIRE_CUDA=1.
fn cuda() -> Option<Device> {
    let name = std::env::var(NAMED).unwrap_or_else(|_| "cuda:0".into());
    match Device::parse(&name) {
        Ok(Device::Cpu) => None,
        Ok(device) => Some(device),
        Err(why) => {
            assert!(!is_one("ONKOS_REQUIRE_CUDA"), "ONKOS_REQUIRE_CUDA=1, but {why}");
            // Written past the harness, which keeps what a test that passes prints to itself.
            let said = format!("SKIPPED: no CUDA driver, the tests of the device did not run: {why}\n");
            std::io::stderr().write_all(said.as_bytes()).expect("stderr is open");
            None
        }
    }
}

#[test]
fn every_suite_passes_on_the_device_of_this_machine() {
    // Where a device is named these are its tests already.
    if std::env::var_os(NAMED).is_some() || cuda().is_none() {
        return;
    }
    assert_passed("the suites on cuda:0", &again(&[], &[(NAMED, "cuda:0")]));
}

#[test]
fn a_missing_driver_is_said_and_is_an_error_where_one_is_required() {
    let test = ["device::a_device_that_is_not_there", "--exact"];
    // cuda:63 is on no machine, which is the same to the test as no driver.
    let with = |required: &str| again(&test, &[(NAMED, "cuda:63"), ("ONKOS_REQUIRE_CUDA", required)]);
    let skipped = with("0");
    assert_passed("without a device", &skipped);
    let said = String::from_utf8_lossy(&skipped.stderr);
    assert!(said.contains("SKIPPED: no CUDA driver"), "{said}");
    assert!(!with("1").status.success(), "ONKOS_REQUIRE_CUDA=1 makes it an error");
}

#[test]
fn a_device_that_is_not_there() {
    cuda();
}

#[test]
fn every_declared_kernel_is_on_the_device() {
    let Some(Device::Cuda(gpu)) = cuda() else { return };
    let declared = onkos::device::entry_points().matches("__global__").count();
    let loaded = gpu.load_all().unwrap();
    assert!(loaded > 0 && loaded <= declared, "{loaded} of {declared} kernels");
    // Those for Hopper alone are left out elsewhere.
    assert!(gpu.capability() != (9, 0) || loaded == declared, "{loaded} of {declared} kernels");
}

#[test]
fn gradients_that_two_variables_share_are_not_written() {
    let Some(device) = cuda() else { return };
    let tape = Tape::recording(device);
    let x = tape.leaf(Tensor::full(&[2, 3], 1f32).to(device).unwrap());
    let y = tape.leaf(Tensor::full(&[2, 3], 2f32).to(device).unwrap());
    // The gradient of `sum` goes to x, y and x again: one memory until x adds the second.
    let sum = Add.forward(&tape, &x, &y).and_then(|s| Add.forward(&tape, &s, &x)).unwrap();
    let owed = Tensor::full(&[2, 3], 0.5f32).to(device).unwrap();
    let grads = tape.backward(&[(&sum, owed.clone())]).unwrap();
    let read = |g: &Tensor<f32>| g.read().unwrap();
    assert_eq!(read(grads.of(&x).unwrap()), [1.0; 6]);
    assert_eq!((read(grads.of(&y).unwrap()), read(&owed)), (vec![0.5; 6], vec![0.5; 6]));
}

#[test]
fn a_tensor_goes_there_and_back() {
    let Some(device) = cuda() else { return };
    let x: Tensor<f32> = normal("x", &[37, 5]);
    let there = x.to(device).unwrap();
    assert_eq!((there.device(), there.shape()), (device, x.shape()));
    assert_eq!((there.to(Device::Cpu).unwrap(), there), (x.clone(), x));
}

#[test]
fn a_kernel_that_fails_is_an_error_of_the_device() {
    const FAILS: (&str, &str) = ("EMU_LAUNCH_FAILS", "add_forward");
    let Some(device @ Device::Cuda(gpu)) = cuda() else { return };
    if gpu.name() != "emulated" {
        return; // a card that had such an error is lost to the program
    }
    if std::env::var_os(FAILS.0).is_none() {
        let test = ["device::a_kernel_that_fails_is_an_error_of_the_device", "--exact", "--nocapture"];
        assert_passed("with a kernel that fails", &again(&test, &[FAILS, (NAMED, "cuda:0")]));
        return;
    }
    let tape = Tape::inference(device);
    let x = Var::constant(Tensor::full(&[8], 1f32).to(device).unwrap());
    let error = Add.forward(&tape, &x, &x).and_then(|y| y.value().read()).unwrap_err();
    assert!(matches!(error, Error::Cuda { .. }), "{error:?}");
    let sentence = error.to_string();
    assert!(sentence.starts_with("cuda:0: ") && sentence.contains(" failed: "), "{sentence}");
}
