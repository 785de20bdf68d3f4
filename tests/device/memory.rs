//! What a batch takes of the device's memory is foretold: never less than it does, and not much more.

use onkos::Device;

use crate::footprint::{cases, taken};
use crate::gpu;

/// How much more than is taken may be foretold.
const MOST: f64 = 4.0 / 3.0;

#[test]
fn a_batch_takes_at_most_what_is_foretold_and_at_least_three_quarters() {
    let Some((gpu, _one)) = gpu() else { return };
    let of_device = |work: &mut dyn FnMut()| {
        gpu.synchronize().unwrap();
        gpu.forget_peak();
        let before = gpu.usage().bytes;
        work();
        gpu.usage().peak_bytes - before
    };
    let mut wrong = Vec::new();
    for case in cases() {
        for ((taken, foretold), pass) in
            taken(Device::Cuda(gpu), &case, &of_device).into_iter().zip(["training", "prediction"])
        {
            let ratio = foretold as f64 / taken as f64;
            let what = format!("{}, {pass}: {taken} taken, {foretold} foretold, {ratio:.3}", case.what);
            println!("{what}");
            if !(1.0..=MOST).contains(&ratio) {
                wrong.push(what);
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
