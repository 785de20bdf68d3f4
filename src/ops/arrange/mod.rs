//! Rows of some matrices in another order: some of them again and again, some not at all, and rows of zeros between them.
//!
//! # Math
//! `y_i = x^(s)_r` for the source `s` and its row `r` that stand at place `i`; 0 where nothing stands.
//!
//! # Arguments
//! | name | shape | unit | constraint |
//! |---|---|---|---|
//! | `sources` | `[N_s, D]` each | any | as many, and of as many rows, as the arrangement was made for |
//! | `arrangement` | `N` places | | checked when it is made |
//!
//! # Result
//! `y`, `[N, D]`.
//!
//! # Gradient
//! A row gets the sum of `dL/dy_i` over the places where it stands, in their order; 0 if it stands nowhere.
//!
//! # Numerics
//! Forward a copy, bit for bit; backward sums in the order of the places, whatever the number of threads. Which row stands where
//! is known on the host, so nothing is added atomically.
//!
//! # Cost
//! One copy each way and 4 bytes a place and source; on a device one launch a source. Keeps the arrangement alone.
//!
//! # Deviations
//! None.

mod cpu;
mod cuda;

use std::sync::Arc;

pub(crate) use cuda::KERNELS;

use crate::device::{Device, Mirror};
use crate::element::Real;
use crate::error::{Error, Result};
use crate::tape::{Tape, Var};
use crate::tensor::Tensor;

/// Which row of which source stands at each place. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Arrangement {
    places: usize,
    sources: Arc<[Standing]>,
}

/// Where the rows of one source stand.
#[derive(Clone, Debug)]
struct Standing {
    rows: usize,
    /// The row at each place, or [`ZEROS`], or [`OTHERS`].
    row: Mirror<u32>,
    /// The places of row `r` are `places[starts[r]..starts[r + 1]]`, in order.
    starts: Mirror<u32>,
    places: Mirror<u32>,
}

/// At a place where nothing stands: the first source writes it.
const ZEROS: u32 = u32::MAX;

/// At the place of another source.
const OTHERS: u32 = u32::MAX - 1;

impl Arrangement {
    /// For sources of so many rows: at each place the source and its row, or nothing.
    ///
    /// # Errors
    /// [`Error::Value`] for a place where a source or a row stands that is not there, [`Error::Shape`] for more rows or places
    /// than are counted in 32 bits, and if there is no source.
    pub fn new(rows: &[usize], places: impl IntoIterator<Item = Option<(usize, usize)>>) -> Result<Arrangement> {
        let places: Vec<Option<(usize, usize)>> = places.into_iter().collect();
        let most = rows.iter().copied().chain([places.len()]).max().unwrap_or(0);
        if rows.is_empty() || most >= OTHERS as usize {
            let want = "a number of rows below 2^32 - 2 of one source or more".into();
            return Err(Error::Shape { op: "arrange", arg: "rows", want, got: rows.to_vec() });
        }
        for (index, place) in places.iter().enumerate() {
            if let Some((source, row)) = *place
                && rows.get(source).is_none_or(|rows| row >= *rows)
            {
                let (want, value) = ("a row that its source has", row as f64);
                return Err(Error::Value { op: "arrange", arg: "places", want, index, value });
            }
        }
        let standing = |(source, &rows): (usize, &usize)| {
            let row = places.iter().map(|place| match place {
                Some((of, row)) if *of == source => *row as u32,
                None if source == 0 => ZEROS,
                _ => OTHERS,
            });
            let row: Vec<u32> = row.collect();
            let mut starts = vec![0; rows + 1];
            row.iter().filter(|r| **r < OTHERS).for_each(|r| starts[*r as usize + 1] += 1);
            (0..rows).for_each(|r| starts[r + 1] += starts[r]);
            let (mut next, mut places) = (starts.clone(), vec![0; starts[rows] as usize]);
            for (place, r) in row.iter().enumerate().filter(|(_, r)| **r < OTHERS) {
                let at = &mut next[*r as usize];
                places[*at as usize] = place as u32;
                *at += 1;
            }
            Standing { rows, row: row.into(), starts: starts.into(), places: places.into() }
        };
        Ok(Arrangement { places: places.len(), sources: rows.iter().enumerate().map(standing).collect() })
    }

    /// Places: rows of the result.
    pub fn places(&self) -> usize {
        self.places
    }
}

/// Rows in another order: see the [module page](self).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Arrange;

impl Arrange {
    /// The rows of the sources at their places.
    ///
    /// # Errors
    /// [`Error::Shape`] if there are other sources than the arrangement was made for, or their columns differ.
    pub fn forward<T: Real>(&self, tape: &Tape<T>, sources: &[&Var<T>], arrangement: &Arrangement) -> Result<Var<T>> {
        let (op, standing) = ("arrange", &arrangement.sources);
        if sources.len() != standing.len() {
            let (want, got) = (format!("{} sources", standing.len()), vec![sources.len()]);
            return Err(Error::Shape { op, arg: "sources", want, got });
        }
        let columns = sources[0].value().matrix().1;
        for (x, standing) in sources.iter().zip(standing.iter()) {
            if x.value().matrix() != (standing.rows, columns) {
                let want = format!("[{}, {columns}], as the arrangement has it", standing.rows);
                return Err(Error::Shape { op, arg: "sources", want, got: x.shape().to_vec() });
            }
        }
        let (device, shape) = (tape.device(), [arrangement.places, columns]);
        let values: Vec<&Tensor<T>> = sources.iter().map(|x| x.value()).collect();
        let y = match device {
            Device::Cpu => cpu::forward(&shape, &values, standing),
            Device::Cuda(gpu) => cuda::forward(gpu, &shape, &values, standing)?,
        };
        let (kept, wanted) = (arrangement.clone(), sources.iter().map(|x| x.wants_grad()).collect::<Vec<_>>());
        let [y] = tape.record(sources, [y], move |grads| {
            let Some(grad) = &grads[0] else { return Ok(vec![None; wanted.len()]) };
            let each = kept.sources.iter().zip(&wanted).map(|(standing, wanted)| {
                let back = || match device {
                    Device::Cpu => Ok(cpu::backward(standing, grad)),
                    Device::Cuda(gpu) => cuda::backward(gpu, standing, grad),
                };
                wanted.then(back).transpose()
            });
            each.collect()
        });
        Ok(y)
    }
}
