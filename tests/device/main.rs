//! Training on a CUDA device against training on the CPU: the same losses to rounding, the same bits twice, wherever the
//! features of the cohort lie. On the device that ONKOS_TEST_DEVICE names; skipped without one.

#![allow(unreachable_pub)]

use std::sync::{Mutex, MutexGuard, PoisonError};

use onkos::Device;
use onkos::device::Gpu;

#[path = "../model/fixture.rs"]
#[allow(dead_code, reason = "shared with the suite of models, of which this uses a part")]
mod fixture;
#[path = "../common/footprint.rs"]
mod footprint;
#[path = "../ops/harness.rs"]
#[allow(clippy::neg_cmp_op_on_partial_ord, reason = "a NaN is off, too")]
#[allow(dead_code, reason = "shared with the suite of the ops, of which this uses a part")]
mod harness;
mod late_entry;
mod memory;
mod products;
mod sources;
mod step;
mod story;
#[path = "../model/study.rs"]
#[allow(dead_code, reason = "shared with the suite of models, of which this uses a part")]
mod study;
mod training;

/// The device under test, for one test at a time: what it counts is then that test's.
fn gpu() -> Option<(Gpu, MutexGuard<'static, ()>)> {
    static ONE: Mutex<()> = Mutex::new(());
    match harness::device::<f32>() {
        Device::Cuda(gpu) => Some((gpu, ONE.lock().unwrap_or_else(PoisonError::into_inner))),
        Device::Cpu => {
            let required = std::env::var("ONKOS_REQUIRE_CUDA").is_ok_and(|value| value == "1");
            assert!(!required, "ONKOS_REQUIRE_CUDA is set, but ONKOS_TEST_DEVICE names no CUDA device");
            println!("skipped: ONKOS_TEST_DEVICE names no CUDA device");
            None
        }
    }
}
