//! What the ops on tokens share: rows in bags, one bag a patient, and the draws of each patient.

use std::ops::Range;

use crate::device::{Gpu, Mirror};
use crate::element::Real;
use crate::error::{Error, Result};
use crate::rng::{Draws, Stream};
use crate::shape::Ragged;
use crate::tensor::Tensor;

/// The random numbers of one pass over a batch: a stream for each bag, by the patient it belongs to.
///
/// A patient's numbers depend on the seed, the epoch, the purpose and the patient alone: not on the batch, its order or
/// the number of threads. Cheap to clone. Ops take an `Option` of it: `None` is evaluation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BagDraws {
    draws: Draws,
    patients: Mirror<u32>,
}

impl BagDraws {
    /// `patients` has one entry a bag: [`name32`](crate::rng::name32) of the case id.
    pub fn new(draws: Draws, patients: impl Into<Vec<u32>>) -> BagDraws {
        BagDraws { draws, patients: patients.into().into() }
    }

    /// The same patients, for another purpose: they are copied to a device once for all of a pass.
    pub fn of_purpose(&self, draws: Draws) -> BagDraws {
        BagDraws { draws, patients: self.patients.clone() }
    }

    /// The same patients, for a part of the purpose: see [`Draws::part`].
    pub fn part(&self, name: &str) -> BagDraws {
        BagDraws { draws: self.draws.part(name), patients: self.patients.clone() }
    }

    /// What the streams of all bags have in common.
    pub(crate) fn draws(&self) -> Draws {
        self.draws
    }

    /// The patients on a device, copied there once.
    pub(crate) fn patients_on(&self, gpu: Gpu) -> Result<Tensor<u32>> {
        self.patients.on(gpu)
    }

    /// The number of bags.
    pub fn bags(&self) -> usize {
        self.patients.len()
    }

    /// The stream of bag `b`.
    #[inline]
    pub fn of(&self, b: usize) -> Stream {
        self.draws.of(self.patients[b])
    }

    /// One patient a bag, or an error in the name of `op`.
    pub(crate) fn check(&self, op: &'static str, bags: &Ragged) -> Result<()> {
        if self.bags() != bags.bags() {
            let want = format!("[{}], one patient a bag", bags.bags());
            return Err(Error::Shape { op, arg: "patients", want, got: vec![self.bags()] });
        }
        Ok(())
    }
}

/// The columns of `x`, which must be a matrix with the rows of `bags`.
pub(crate) fn columns<T: Real>(op: &'static str, arg: &'static str, x: &Tensor<T>, bags: &Ragged) -> Result<usize> {
    match x.shape() {
        &[rows, columns] if rows == bags.rows() => Ok(columns),
        got => Err(Error::Shape {
            op,
            arg,
            want: format!("[{}, D], the rows of its bags", bags.rows()),
            got: got.to_vec(),
        }),
    }
}

/// Cuts a range of rows at the ends of the bags: the bag and its rows in the range, for each bag that has any.
pub(crate) fn segments(bags: &Ragged, rows: Range<usize>) -> impl Iterator<Item = (usize, Range<usize>)> + '_ {
    let mut row = rows.start;
    std::iter::from_fn(move || {
        (row < rows.end).then(|| {
            let bag = bags.bag_of(row);
            let here = row..bags.bag(bag).end.min(rows.end);
            row = here.end;
            (bag, here)
        })
    })
}

/// A coin that a word decides: kept if and only if `unit(word) >= p`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Coin {
    threshold: u32,
}

impl Coin {
    /// Drops with probability `p`, which must lie in `[0, 1]`.
    pub(crate) fn drops(p: f64) -> Coin {
        // unit() is the upper 24 bits over 2^24, and p * 2^24 is exact: comparing integers is the same comparison.
        Coin { threshold: (p * 16_777_216.0).ceil() as u32 }
    }

    /// Kept are the words whose upper 24 bits are at least this.
    pub(crate) fn threshold(self) -> u32 {
        self.threshold
    }

    /// Whether the word keeps what it was drawn for.
    #[inline]
    pub(crate) fn keeps(self, word: u32) -> bool {
        word >> 8 >= self.threshold
    }
}

/// Refuses a probability outside `[0, 1)`.
pub(crate) fn check_drop_probability(name: &'static str, p: f64) -> Result<()> {
    if !(0.0..1.0).contains(&p) {
        return Err(Error::Setting { name, want: "a probability, at least 0 and below 1", value: p.to_string() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::unit;

    #[test]
    fn a_coin_compares_as_the_uniform_number_does() {
        let stream = Draws::new(3, 0, "coin").of(0);
        for p in [0.0, 1.0 / 16_777_216.0, 0.1, 0.25, 0.5, 0.999_999_99, 1.0] {
            for i in 0..2000 {
                let word = if i < 4 { [0, 255, 256, u32::MAX][i] } else { stream.word(i as u64) };
                assert_eq!(Coin::drops(p).keeps(word), unit(word) >= p, "p {p}, word {word}");
            }
        }
    }

    #[test]
    fn segments_cover_the_rows_once_and_stay_in_their_bags() {
        let bags = Ragged::from_lengths([0, 3, 0, 4, 1]);
        let cut: Vec<_> = segments(&bags, 1..8).collect();
        assert_eq!(cut, [(1, 1..3), (3, 3..7), (4, 7..8)]);
        assert_eq!(segments(&bags, 2..2).count(), 0);
    }
}
