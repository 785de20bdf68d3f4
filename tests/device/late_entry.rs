//! The partial likelihood of patients who enter late stays on the device.

use onkos::ops::Cox;
use onkos::ops::cox::{Outcomes, Plan, Ties};
use onkos::{Device, Tape, Tensor};

use crate::gpu;

#[test]
fn a_loss_with_late_entry_is_calculated_without_waiting_for_the_device() {
    let Some((gpu, _one)) = gpu() else { return };
    let there = Device::Cuda(gpu);
    let n = 300;
    let time: Vec<f64> = (0..n).map(|i| (i * 7 % 31) as f64 + 1.0).collect();
    let event: Vec<bool> = (0..n).map(|i| i % 3 != 0).collect();
    let entry: Vec<f64> = time.iter().enumerate().map(|(i, t)| t - [0.5, 4.0, 31.0][i % 3]).collect();
    let plan = Plan::new(&Outcomes { entry: Some(&entry), ..Outcomes::new(&time, &event) }).unwrap();
    let eta = Tensor::<f32>::from_fn(&[n, 1], |i| (i % 13) as f32 / 8.0 - 0.75);
    let placed = eta.to(there).unwrap();
    for ties in [Ties::Breslow, Ties::Efron] {
        let cox = Cox { ties, ..Cox::default() };
        let evaluate = || {
            let tape = Tape::recording(there);
            let log_risk = tape.leaf(placed.clone());
            let loss = cox.forward(&tape, &log_risk, &plan).unwrap();
            let one = Tensor::scalar(1f32).to(there).unwrap();
            let grads = tape.backward(&[(&loss, one)]).unwrap();
            (loss.value().clone(), grads.of(&log_risk).unwrap().clone())
        };
        let before = gpu.usage();
        let first = evaluate();
        assert_eq!(gpu.usage().waits, before.waits, "{ties:?}: nothing was read back");
        // The plan was copied there, once.
        let with_plan = gpu.usage().bytes;
        let second = evaluate();
        let results = (size_of::<f32>() * (n + 1)) as u64;
        assert_eq!(gpu.usage().bytes, with_plan + results, "{ties:?}: what the plan takes");
        assert_eq!(first.0.read().unwrap(), second.0.read().unwrap());
        assert_eq!(first.1.read().unwrap(), second.1.read().unwrap());
        // It is what the CPU says, rounded.
        let host: Vec<f64> = eta.host().iter().map(|&x| f64::from(x)).collect();
        let (loss, gradient) = cox.loss_and_gradient(&plan, &host).unwrap();
        let ulp = f64::from(f32::EPSILON);
        let off = |got: f32, want: f64| (f64::from(got) - want).abs();
        assert!(off(first.0.read().unwrap()[0], loss) <= ulp * loss.abs());
        let most = gradient.iter().fold(0f64, |m, g| m.max(g.abs()));
        assert!(first.1.read().unwrap().iter().zip(&gradient).all(|(&got, &want)| off(got, want) <= ulp * most));
    }
}
