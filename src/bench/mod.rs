//! The benchmark of this machine: named shapes of the ops, timed beside what the machine can do at all.
//!
//! One registry serves the command `onkos bench` and `cargo bench`. The cases of an op are timed in turn with two
//! probes, a copy and a matrix product, so that a busy machine slows all of them alike; every number is a median.

mod add;
mod arrange;
mod attention_mil;
mod cade;
mod ceilings;
mod concat;
mod cox;
mod dropout;
mod fusion;
mod gather;
mod grid_conv;
mod grouped_linear;
mod landmark_inverse;
mod layer_norm;
mod linear;
mod mixstyle;
mod nll_survival;
mod outer;
mod pathway_attention;
mod sdir;
mod segment_max;
mod segment_mean;
mod sequence_conv;
mod softmax;
mod standardize;
mod transport;

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

pub use ceilings::Ceilings;
use ceilings::Probe;

use half::{bf16, f16};

use crate::device::{Precision, Products};
use crate::rng::Draws;
use crate::{Device, Element, FeatureType, Features, Tape, Tensor};

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
    /// The precision of its matrix products, on a card.
    pub precision: Precision,
    /// Makes the inputs where they are to lie and gives what is timed.
    pub setup: Box<dyn Fn(Place) -> Box<dyn FnMut()>>,
}

/// Where a case runs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Place {
    /// The device.
    pub device: Device,
}

impl Case {
    /// Op, shape, type and direction in one word a part, for lists and filters.
    pub fn name(&self) -> String {
        let pass = match self.pass {
            Pass::Forward => "forward",
            Pass::ForwardBackward => "forward_backward",
        };
        let products = match self.precision {
            Precision::F32 => "",
            Precision::Tf32 => "/tf32",
            Precision::Bf16 => "/bf16",
            Precision::F16 => "/f16",
        };
        format!("{}/{}/{}/{pass}{products}", self.op, self.shape, self.dtype)
    }

    /// Whether it is worth the time only on a card.
    fn is_for_cards(&self) -> bool {
        self.flops > 6e11 || self.bytes > 1e9 || self.precision != Precision::F32
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
        pathway_attention::cases(),
        landmark_inverse::cases(),
        sdir::cases(),
        cade::cases(),
        mixstyle::cases(),
        cox::cases(),
        nll_survival::cases(),
        layer_norm::cases(),
        softmax::cases(),
        dropout::cases(),
        segment_mean::cases(),
        segment_max::cases(),
        sequence_conv::cases(),
        grid_conv::cases(),
        standardize::cases(),
        transport::cases(),
        add::cases(),
        concat::cases(),
        arrange::cases(),
        outer::cases(),
        gather::cases(),
        fusion::cases(),
    ];
    ops.into_iter().flatten().collect()
}

impl Place {
    /// Normal numbers for the inputs of cases. Large ones repeat, out of step with their rows: to draw every number
    /// would take longer than to time the ops on them.
    fn normal(self, name: &str, shape: &[usize], scale: f32) -> Tensor<f32> {
        self.repeated(shape, &drawn(name, shape, scale))
    }

    /// The same as stored features.
    fn features(self, name: &str, shape: &[usize], dtype: FeatureType) -> Features {
        let drawn = drawn(name, shape, 1.0);
        match dtype {
            FeatureType::F32 => Features::F32(self.repeated(shape, &drawn)),
            FeatureType::F16 => {
                Features::F16(self.repeated(shape, &drawn.iter().map(|&x| f16::from_f32(x)).collect::<Vec<_>>()))
            }
            FeatureType::Bf16 => {
                Features::Bf16(self.repeated(shape, &drawn.iter().map(|&x| bf16::from_f32(x)).collect::<Vec<_>>()))
            }
        }
    }

    fn full(self, shape: &[usize], value: f32) -> Tensor<f32> {
        self.put(Tensor::full(shape, value))
    }

    fn repeated<T: Element>(self, shape: &[usize], drawn: &[T]) -> Tensor<T> {
        let n = shape.iter().product::<usize>();
        let mut data = Vec::with_capacity(n);
        while data.len() < n {
            data.extend_from_slice(&drawn[..drawn.len().min(n - data.len())]);
        }
        self.put(Tensor::new(shape, data).expect("sized above"))
    }

    fn put<T: Element>(self, x: Tensor<T>) -> Tensor<T> {
        x.to(self.device).expect("the device has room for the inputs of a case")
    }

    /// The tape that a pass needs.
    fn tape(self, pass: Pass) -> Tape<f32> {
        match pass {
            Pass::Forward => Tape::inference(self.device),
            Pass::ForwardBackward => Tape::recording(self.device),
        }
    }

    /// Seconds of so many calls, to the end of the last one on the device.
    fn time(self, work: &mut dyn FnMut(), calls: u32) -> f64 {
        let start = Instant::now();
        (0..calls).for_each(|_| work());
        self.device.synchronize().expect("no kernel of a case fails");
        start.elapsed().as_secs_f64()
    }
}

/// One period of normal numbers, as many as a tensor of the shape needs at most.
fn drawn(name: &str, shape: &[usize], scale: f32) -> Vec<f32> {
    const PERIOD: usize = 65_521;
    let stream = Draws::new(0, 0, name).of(0);
    let drawn = PERIOD.min(shape.iter().product());
    (0..drawn).map(|i| stream.normal(i as u64) as f32 * scale).collect()
}

/// What to run and for how long.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Where.
    pub device: Device,
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
    /// The precision of its matrix products.
    pub precision: Precision,
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
    /// Whose kernels calculated the products of fully connected layers, that of the ceiling among them.
    #[serde(default)]
    pub products: Products,
    /// One row a case.
    pub rows: Vec<Row>,
}

/// Times the cases that the options ask for.
pub fn run(options: &Options) -> Report {
    let on_card = matches!(options.device, Device::Cuda(gpu) if gpu.name() != "emulated");
    let wanted = |case: &Case| {
        let named = options.filter.as_ref().is_none_or(|f| case.name().contains(f.as_str()));
        named && (!options.quick || case.is_quick()) && (on_card || !case.is_for_cards())
    };
    let cases: Vec<Case> = registry().into_iter().filter(wanted).collect();
    let groups: Vec<&[Case]> = cases.chunk_by(|a, b| a.op == b.op).collect();
    // The rest of the minute goes to setting up.
    let total = Duration::from_secs(if options.quick { 2 } else { 30 });
    let budget = total / u32::try_from(groups.len().max(1)).expect("few ops");
    let mut probe = Probe::new(Place { device: options.device });
    let (mut all, mut rows) = (Vec::new(), Vec::new());
    for group in groups {
        let (times, ceilings) = time_in_turn(group, options.device, budget, &mut probe);
        let here = Ceilings::median(&ceilings);
        rows.extend(group.iter().zip(times).map(|(case, times)| row(case, times, &here)));
        all.extend(ceilings);
    }
    if all.is_empty() {
        all.push(probe.measure());
    }
    let products = match options.device {
        Device::Cpu => Products::Own,
        Device::Cuda(gpu) => gpu.products(),
    };
    Report { ceilings: Ceilings::median(&all), products, rows }
}

/// Round after round of the probes and each case once, until the time is spent, at least three rounds.
fn time_in_turn(cases: &[Case], device: Device, budget: Duration, probe: &mut Probe) -> (Vec<Vec<f64>>, Vec<Ceilings>) {
    let places: Vec<Place> = cases.iter().map(|case| Place { device: device.with_precision(case.precision) }).collect();
    let mut work: Vec<Box<dyn FnMut()>> = cases.iter().zip(&places).map(|(case, &place)| (case.setup)(place)).collect();
    // The first call warms up and says how many calls make a sample that a clock can measure.
    let calls: Vec<u32> = work
        .iter_mut()
        .zip(&places)
        .map(|(work, place)| {
            let first = place.time(work, 1);
            // On a card the first call loads the kernels, and a sample ends with a wait of its own.
            let (sample, one) = if place.device == Device::Cpu { (2e-3, first) } else { (2e-2, place.time(work, 1)) };
            (sample / one.max(1e-7)).ceil().clamp(1.0, 1000.0) as u32
        })
        .collect();
    let (mut times, mut ceilings) = (vec![Vec::new(); cases.len()], Vec::new());
    let start = Instant::now();
    while ceilings.len() < 3 || start.elapsed() < budget {
        ceilings.push(probe.measure());
        for (((work, &calls), times), place) in work.iter_mut().zip(&calls).zip(&mut times).zip(&places) {
            times.push(place.time(work, calls) / f64::from(calls));
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
        precision: case.precision,
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
        let Ceilings { device, product, copy_gb_per_s, product_gflop_per_s } = &self.ceilings;
        let by = if self.products == Products::CublasLt { " by cuBLASLt" } else { "" };
        writeln!(f, "{device}: copy {copy_gb_per_s:.1} GB/s, {product} product{by} {product_gflop_per_s:.0} GFLOP/s")?;
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
            // Stored features are gathered, and have no gradient.
            for pass in [Pass::Forward, Pass::ForwardBackward].into_iter().take(if op == "gather" { 1 } else { 2 }) {
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
