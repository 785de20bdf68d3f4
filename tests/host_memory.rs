//! What a batch takes of the memory of the CPU is foretold closely enough to refuse by it what the system would end.

#![allow(unreachable_pub)]

#[path = "../fuzz/src/count.rs"]
mod count;
#[path = "common/footprint.rs"]
mod footprint;
#[path = "model/study.rs"]
#[allow(dead_code, reason = "shared with the suite of models, of which this uses a part")]
mod study;

use onkos::Device;
use onkos::model::ModelConfig;

#[global_allocator]
static MEMORY: count::Count = count::Count::with_limit(2 << 30);

/// How much of what is taken may be foretold: at least of a training on many patches, and at most of any pass.
const SHARE: [f64; 2] = [0.75, 1.25];

#[test]
fn a_batch_takes_about_what_is_foretold() {
    let of_host = |work: &mut dyn FnMut()| {
        let before = MEMORY.held();
        MEMORY.peak_since(before);
        work();
        MEMORY.peak_since(before) as u64
    };
    // Each thread has sums of its own, which the estimate leaves out.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    let taken = |case: &footprint::Case| pool.install(|| footprint::taken(Device::Cpu, case, &of_host));
    let mut cases = footprint::cases();
    // What is made once for all.
    taken(&cases[0]);
    let mut wrong = Vec::new();
    for case in &mut cases {
        // Without many patches what threads have of their own, which differs from run to run, is a large part.
        let many = case.rows > 1;
        case.rows *= 8;
        // The way back through a plan is calculated in f64 on the CPU, as the plan is, and takes up to two and a half times as much.
        let in_f64 = matches!(&case.model, ModelConfig::Motcat(config) if config.ot_gradient);
        for ((taken, foretold), training) in taken(case).into_iter().zip([true, false]) {
            let ratio = foretold as f64 / taken as f64;
            let what = format!("{}, training {training}: {taken} taken, {foretold} foretold, {ratio:.3}", case.what);
            println!("{what}");
            if ratio > SHARE[1] || (training && many && !in_f64 && ratio < SHARE[0]) {
                wrong.push(what);
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
