//! The benchmark of this machine: named shapes of the ops, timed beside what the machine can do at all.
//!
//! One registry serves the command `onkos bench` and `cargo bench`. The cases of an op are timed in turn with two
//! probes, a copy and a matrix product, so that a busy machine slows all of them alike; every number is a median.

mod add;
mod attention_mil;
mod cade;
mod ceilings;
mod concat;
mod cox;
mod dropout;
mod fusion;
mod gather;
mod grouped_linear;
mod layer_norm;
mod linear;
mod nll_survival;
mod sdir;
mod segment_mean;
mod softmax;
mod standardize;

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

pub use ceilings::Ceilings;
use ceilings::Probe;

use crate::rng::Draws;
use crate::{Device, Tape, Tensor};

/// Which way a case goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pass {
    /// Prediction: nothing is kept.
    Forward,
    /// A step of training: forward and the gradients of all parameters.
    ForwardBackward,
}

/// One named shape of one op.
pub struct Case {
    /// The op, as its folder is called, or the model.
    pub op: &'static str,
    /// The shape, in the letters of the op's page.
    pub shape: String,
    /// The type of the data.
    pub dtype: &'static str,
    /// Which way.
    pub pass: Pass,
    /// Bytes that one call must move at least: inputs read once, results written once.
    pub bytes: f64,
    /// Multiplications and additions of one call, as its page counts them.
    pub flops: f64,
    /// Makes the inputs and gives what is timed.
    pub setup: Box<dyn Fn() -> Box<dyn FnMut()>>,
}

impl Case {
    /// Op, shape, type and direction in one word a part, for lists and filters.
    pub fn name(&self) -> String {
        let pass = match self.pass {
            Pass::Forward => "forward",
            Pass::ForwardBackward => "forward_backward",
        };
        format!("{}/{}/{}/{pass}", self.op, self.shape, self.dtype)
    }

    /// Whether a quick run includes it: a tenth of a second or so on a slow machine.
    fn is_quick(&self) -> bool {
        self.flops <= 4e9 && self.bytes <= 5e8
    }
}

/// Every case, by op. An op is added with one line here and one file beside this one.
pub fn registry() -> Vec<Case> {
    let ops = [
        linear::cases(),
        grouped_linear::cases(),
        attention_mil::cases(),
        sdir::cases(),
        cade::cases(),
        cox::cases(),
        nll_survival::cases(),
        layer_norm::cases(),
        softmax::cases(),
        dropout::cases(),
        segment_mean::cases(),
        standardize::cases(),
        add::cases(),
        concat::cases(),
        gather::cases(),
        fusion::cases(),
    ];
    ops.into_iter().flatten().collect()
}

/// Normal numbers for the inputs of cases. Large ones repeat, out of step with their rows: to draw every number would
/// take longer than to time the ops on them.
fn normal(name: &str, shape: &[usize], scale: f32) -> Tensor<f32> {
    const PERIOD: usize = 65_521;
    let stream = Draws::new(0, 0, name).of(0);
    let drawn = PERIOD.min(shape.iter().product());
    let drawn: Vec<f32> = (0..drawn).map(|i| stream.normal(i as u64) as f32 * scale).collect();
    Tensor::from_fn(shape, |i| drawn[i % PERIOD])
}

/// The tape that a pass needs.
fn tape(pass: Pass) -> Tape<f32> {
    match pass {
        Pass::Forward => Tape::inference(Device::Cpu),
        Pass::ForwardBackward => Tape::recording(Device::Cpu),
    }
}

/// What to run and for how long.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// A few seconds: small shapes, few repeats. Else under a minute.
    pub quick: bool,
    /// Only cases whose [name](Case::name) contains this.
    pub filter: Option<String>,
}

/// One measured case.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// The op, as its folder is called.
    pub op: String,
    /// The shape, in the letters of the op's page.
    pub shape: String,
    /// The type of the data.
    pub dtype: String,
    /// Which way.
    pub pass: Pass,
    /// The median time of one call.
    pub seconds: f64,
    /// How many calls or batches of calls the median is of.
    pub samples: usize,
    /// The least bytes that the call must move, by time.
    pub gb_per_s: f64,
    /// The arithmetic, by time.
    pub gflop_per_s: f64,
    /// Share of the copy rate that was measured in turn with this case.
    pub share_of_copy: f64,
    /// Share of the product rate that was measured in turn with this case.
    pub share_of_product: f64,
}

/// A whole run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// What the machine can do, over the whole run.
    pub ceilings: Ceilings,
    /// One row a case.
    pub rows: Vec<Row>,
}

/// Times the cases that the options ask for.
pub fn run(options: &Options) -> Report {
    let wanted = |case: &Case| {
        let named = options.filter.as_ref().is_none_or(|f| case.name().contains(f.as_str()));
        named && (!options.quick || case.is_quick())
    };
    let cases: Vec<Case> = registry().into_iter().filter(wanted).collect();
    let groups: Vec<&[Case]> = cases.chunk_by(|a, b| a.op == b.op).collect();
    // The rest of the minute goes to setting up.
    let total = Duration::from_secs(if options.quick { 2 } else { 30 });
    let budget = total / u32::try_from(groups.len().max(1)).expect("few ops");
    let mut probe = Probe::new();
    let (mut all, mut rows) = (Vec::new(), Vec::new());
    for group in groups {
        let (times, ceilings) = time_in_turn(group, budget, &mut probe);
        let here = Ceilings::median(&ceilings);
        rows.extend(group.iter().zip(times).map(|(case, times)| row(case, times, &here)));
        all.extend(ceilings);
    }
    if all.is_empty() {
        all.push(probe.measure());
    }
    Report { ceilings: Ceilings::median(&all), rows }
}

/// Round after round of the probes and each case once, until the time is spent, at least three rounds.
fn time_in_turn(cases: &[Case], budget: Duration, probe: &mut Probe) -> (Vec<Vec<f64>>, Vec<Ceilings>) {
    let mut work: Vec<Box<dyn FnMut()>> = cases.iter().map(|case| (case.setup)()).collect();
    // The first call warms up and says how many calls make a sample that a clock can measure.
    let calls: Vec<u32> = work
        .iter_mut()
        .map(|work| {
            let start = Instant::now();
            work();
            (2e-3 / start.elapsed().as_secs_f64().max(1e-7)).ceil().clamp(1.0, 1000.0) as u32
        })
        .collect();
    let (mut times, mut ceilings) = (vec![Vec::new(); cases.len()], Vec::new());
    let start = Instant::now();
    while ceilings.len() < 3 || start.elapsed() < budget {
        ceilings.push(probe.measure());
        for ((work, &calls), times) in work.iter_mut().zip(&calls).zip(&mut times) {
            let start = Instant::now();
            (0..calls).for_each(|_| work());
            times.push(start.elapsed().as_secs_f64() / f64::from(calls));
        }
    }
    (times, ceilings)
}

fn row(case: &Case, times: Vec<f64>, ceilings: &Ceilings) -> Row {
    let samples = times.len();
    let seconds = median(times);
    let (gb_per_s, gflop_per_s) = (case.bytes / seconds / 1e9, case.flops / seconds / 1e9);
    Row {
        op: case.op.into(),
        shape: case.shape.clone(),
        dtype: case.dtype.into(),
        pass: case.pass,
        seconds,
        samples,
        gb_per_s,
        gflop_per_s,
        share_of_copy: gb_per_s / ceilings.copy_gb_per_s,
        share_of_product: gflop_per_s / ceilings.product_gflop_per_s,
    }
}

/// The middle value, or the mean of the two in the middle.
fn median(mut x: Vec<f64>) -> f64 {
    x.sort_by(f64::total_cmp);
    let (n, half) = (x.len(), x.len() / 2);
    if n % 2 == 1 { x[half] } else { (x[half - 1] + x[half]) / 2.0 }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Ceilings { threads, copy_gb_per_s, product_gflop_per_s } = self.ceilings;
        writeln!(f, "{threads} threads: copy {copy_gb_per_s:.1} GB/s, f32 product {product_gflop_per_s:.0} GFLOP/s")?;
        let width = self.rows.iter().map(|r| r.shape.chars().count()).max().unwrap_or(0).max(5);
        writeln!(
            f,
            "{:<14} {:<width$} {:<5} {:<8} {:>10} {:>7} {:>8} {:>6} {:>8}",
            "op", "shape", "type", "pass", "median", "GB/s", "GFLOP/s", "copy", "product"
        )?;
        for r in &self.rows {
            let pass = match r.pass {
                Pass::Forward => "forward",
                Pass::ForwardBackward => "fwd+bwd",
            };
            writeln!(
                f,
                "{:<14} {:<width$} {:<5} {:<8} {:>7.3} ms {:>7.2} {:>8.1} {:>5.0}% {:>7.0}%",
                r.op,
                r.shape,
                r.dtype,
                pass,
                r.seconds * 1e3,
                r.gb_per_s,
                r.gflop_per_s,
                r.share_of_copy * 100.0,
                r.share_of_product * 100.0
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_cases_are_unique_and_ops_come_together() {
        let cases = registry();
        let mut names: Vec<_> = cases.iter().map(Case::name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), cases.len());
        let mut groups: Vec<_> = cases.chunk_by(|a, b| a.op == b.op).map(|g| g[0].op).collect();
        let count = groups.len();
        groups.sort();
        groups.dedup();
        assert_eq!(groups.len(), count);
    }

    #[test]
    fn every_op_has_a_quick_case_in_either_direction() {
        let cases = registry();
        for op in cases.iter().map(|c| c.op) {
            for pass in [Pass::Forward, Pass::ForwardBackward] {
                assert!(cases.iter().any(|c| c.op == op && c.pass == pass && c.is_quick()), "{op} {pass:?}");
            }
        }
    }

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 3.0, 2.0]), 2.5);
    }
}
