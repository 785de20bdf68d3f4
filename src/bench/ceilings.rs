//! What this machine can do at all: a copy, and a matrix product through the library's own function.

use std::time::Instant;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{Pass, Place, median};
use crate::device::Precision;
use crate::ops::Linear;
use crate::ops::matmul::{Matrix, product};
use crate::{Device, Tensor, Var};

/// Measured rates of this machine: on all threads of the pool, or on a card.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ceilings {
    /// `2 threads`, or the name of the card.
    pub device: String,
    /// The precision of the product: `f32` on the CPU, `bf16` on a card.
    pub product: String,
    /// Bytes read and written by a copy between buffers larger than caches.
    pub copy_gb_per_s: f64,
    /// Multiplications and additions of a square matrix product through the function that the ops use: what they
    /// could reach, not the peak of the hardware.
    pub product_gflop_per_s: f64,
}

impl Ceilings {
    /// Median by median; there must be at least one.
    pub(super) fn median(all: &[Ceilings]) -> Ceilings {
        let of = |f: fn(&Ceilings) -> f64| median(all.iter().map(f).collect());
        Ceilings {
            copy_gb_per_s: of(|c| c.copy_gb_per_s),
            product_gflop_per_s: of(|c| c.product_gflop_per_s),
            ..all[0].clone()
        }
    }
}

/// The buffers of the probes.
pub(super) enum Probe {
    Cpu(Cpu),
    Cuda(Cuda),
}

impl Probe {
    pub(super) fn new(place: Place) -> Probe {
        let mut probe = match place.device {
            Device::Cpu => Probe::Cpu(Cpu::new()),
            Device::Cuda(_) => Probe::Cuda(Cuda::new(place)),
        };
        // Fresh pages are slow; so is the first product.
        probe.measure();
        probe
    }

    pub(super) fn measure(&mut self) -> Ceilings {
        match self {
            Probe::Cpu(cpu) => cpu.measure(),
            Probe::Cuda(cuda) => cuda.measure(),
        }
    }
}

/// A large tensor to copy, and two square ones to multiply, with the copies and products of one sample.
pub(super) struct Cuda {
    place: Place,
    from: Tensor<f32>,
    square: [Var<f32>; 2],
    repeats: u32,
}

impl Cuda {
    fn new(place: Place) -> Cuda {
        let place = Place { device: place.device.with_precision(Precision::Bf16) };
        let emulated = matches!(place.device, Device::Cuda(gpu) if gpu.name() == "emulated");
        let (n, copied, repeats) = if emulated { (64, 1 << 20, 1) } else { (8192, 1 << 30, 5) };
        let square = ["a", "b"].map(|name| Var::constant(place.normal(name, &[n, n], 1.0)));
        Cuda { place, from: place.normal("from", &[copied / 4], 1.0), square, repeats }
    }

    fn measure(&mut self) -> Ceilings {
        let Cuda { place, from, square, repeats } = self;
        let copied = 2.0 * f64::from(*repeats) * 4.0 * from.len() as f64;
        let seconds = place.time(&mut || drop(from.copied().expect("room for a copy")), *repeats);
        let copy = copied / seconds;
        let n = square[0].shape()[0] as f64;
        let tape = place.tape(Pass::Forward);
        let mut product = || drop(Linear::default().forward(&tape, &square[0], &square[1], None).expect("square"));
        let flops = 2.0 * n.powi(3) * f64::from(*repeats) / place.time(&mut product, *repeats);
        let Device::Cuda(gpu) = place.device else { unreachable!("made for a card") };
        Ceilings {
            device: gpu.name().into(),
            product: "bf16".into(),
            copy_gb_per_s: copy / 1e9,
            product_gflop_per_s: flops / 1e9,
        }
    }
}

/// Buffers on the host.
pub(super) struct Cpu {
    from: Vec<u64>,
    to: Vec<u64>,
    a: Vec<f32>,
    b: Vec<f32>,
    c: Vec<f32>,
    n: usize,
}

/// Bytes of one buffer of the copy.
const COPY: usize = 128 << 20;

impl Cpu {
    fn new() -> Cpu {
        // At least 128 rows a thread.
        let n = (128 * crate::device::threads()).max(1024);
        let square = |scale: f32| (0..n * n).map(|i| (i % 13) as f32 * scale).collect();
        Cpu { from: vec![1; COPY / 8], to: vec![0; COPY / 8], a: square(0.1), b: square(0.3), c: vec![0.0; n * n], n }
    }

    fn measure(&mut self) -> Ceilings {
        let start = Instant::now();
        let chunk = 1 << 16;
        self.to.par_chunks_mut(chunk).zip(self.from.par_chunks(chunk)).for_each(|(to, from)| to.copy_from_slice(from));
        let copy = 2.0 * COPY as f64 / start.elapsed().as_secs_f64();

        let (n, threads) = (self.n, crate::device::threads());
        let rows = n.div_ceil(threads);
        let (a, b) = (&self.a, Matrix::new(&self.b, n, n));
        let start = Instant::now();
        self.c.par_chunks_mut(rows * n).enumerate().for_each(|(i, c)| {
            let here = c.len() / n;
            product(c, Matrix::new(&a[i * rows * n..][..here * n], here, n), b, false);
        });
        let flops = 2.0 * (n as f64).powi(3) / start.elapsed().as_secs_f64();
        Ceilings {
            device: format!("{threads} threads"),
            product: "f32".into(),
            copy_gb_per_s: copy / 1e9,
            product_gflop_per_s: flops / 1e9,
        }
    }
}
