//! What this machine can do at all: a copy, and a matrix product through the library's own function.

use std::time::Instant;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::median;
use crate::ops::matmul::{Matrix, product};

/// Measured rates of this machine, on all threads of the pool.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Ceilings {
    /// The threads.
    pub threads: usize,
    /// Bytes read and written by a copy between buffers larger than caches.
    pub copy_gb_per_s: f64,
    /// Multiplications and additions of a square `f32` matrix product through the function that the ops use: what
    /// they could reach, not the peak of the hardware.
    pub product_gflop_per_s: f64,
}

impl Ceilings {
    /// Median by median; there must be at least one.
    pub(super) fn median(all: &[Ceilings]) -> Ceilings {
        let of = |f: fn(&Ceilings) -> f64| median(all.iter().map(f).collect());
        Ceilings {
            threads: all[0].threads,
            copy_gb_per_s: of(|c| c.copy_gb_per_s),
            product_gflop_per_s: of(|c| c.product_gflop_per_s),
        }
    }
}

/// The buffers of the probes.
pub(super) struct Probe {
    from: Vec<u64>,
    to: Vec<u64>,
    a: Vec<f32>,
    b: Vec<f32>,
    c: Vec<f32>,
    n: usize,
}

/// Bytes of one buffer of the copy.
const COPY: usize = 128 << 20;

impl Probe {
    pub(super) fn new() -> Probe {
        // At least 128 rows a thread.
        let n = (128 * crate::device::threads()).max(1024);
        let square = |scale: f32| (0..n * n).map(|i| (i % 13) as f32 * scale).collect();
        let mut probe = Probe {
            from: vec![1; COPY / 8],
            to: vec![0; COPY / 8],
            a: square(0.1),
            b: square(0.3),
            c: vec![0.0; n * n],
            n,
        };
        // Fresh pages are slow; so is the first product.
        probe.measure();
        probe
    }

    pub(super) fn measure(&mut self) -> Ceilings {
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
        Ceilings { threads, copy_gb_per_s: copy / 1e9, product_gflop_per_s: flops / 1e9 }
    }
}
