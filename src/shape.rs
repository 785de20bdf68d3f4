//! Ragged row ranges: how bags of unequal length lie in one flat array.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use crate::device::{Gpu, Mirror};
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// Bags of unequal length in one flat array: bag `b` is rows `offsets[b]..offsets[b + 1]`.
///
/// Never padded, never truncated; an empty bag is legal. The offsets are checked once, here, so kernels may trust them.
/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct Ragged {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    offsets: Box<[usize]>,
    /// The same as kernels read them.
    device: OnceLock<Mirror<u32>>,
    /// Where each segment starts, and the first segment of each bag.
    segments: OnceLock<(Mirror<u32>, Mirror<u32>)>,
}

/// The rows of a bag that a kernel pools at a time, in a block of its own.
pub(crate) const SEGMENT: usize = 512;

impl From<Vec<usize>> for Ragged {
    fn from(offsets: Vec<usize>) -> Ragged {
        Ragged {
            inner: Arc::new(Inner { offsets: offsets.into(), device: OnceLock::new(), segments: OnceLock::new() }),
        }
    }
}

impl PartialEq for Ragged {
    fn eq(&self, other: &Ragged) -> bool {
        self.offsets() == other.offsets()
    }
}
impl Eq for Ragged {}

impl Ragged {
    /// From `bags + 1` offsets that start at 0 and never decrease.
    ///
    /// # Errors
    /// [`Error::Offsets`] names the first offset that is wrong.
    pub fn new(offsets: impl Into<Vec<usize>>) -> Result<Ragged> {
        let offsets: Vec<usize> = offsets.into();
        match offsets.first() {
            Some(0) => {}
            first => return Err(Error::Offsets { index: 0, value: first.copied().unwrap_or(0), at_least: 0 }),
        }
        for i in 1..offsets.len() {
            if offsets[i] < offsets[i - 1] {
                return Err(Error::Offsets { index: i, value: offsets[i], at_least: offsets[i - 1] });
            }
        }
        Ok(offsets.into())
    }

    /// From the length of each bag.
    pub fn from_lengths(lengths: impl IntoIterator<Item = usize>) -> Ragged {
        let mut offsets = vec![0];
        let mut end = 0;
        for length in lengths {
            end += length;
            offsets.push(end);
        }
        offsets.into()
    }

    /// `bags` bags of `rows` rows each.
    pub fn uniform(bags: usize, rows: usize) -> Ragged {
        (0..=bags).map(|b| b * rows).collect::<Vec<_>>().into()
    }

    /// The number of bags, `B`.
    pub fn bags(&self) -> usize {
        self.inner.offsets.len() - 1
    }

    /// The number of rows in all bags, `N`.
    pub fn rows(&self) -> usize {
        self.inner.offsets[self.inner.offsets.len() - 1]
    }

    /// The rows of bag `b`.
    #[inline]
    pub fn bag(&self, b: usize) -> Range<usize> {
        self.inner.offsets[b]..self.inner.offsets[b + 1]
    }

    /// The row ranges of all bags, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Range<usize>> + '_ {
        self.inner.offsets.windows(2).map(|w| w[0]..w[1])
    }

    /// The `bags + 1` offsets.
    pub fn offsets(&self) -> &[usize] {
        &self.inner.offsets
    }

    /// The bag that holds row `row`, which must be below [`rows`](Self::rows).
    pub fn bag_of(&self, row: usize) -> usize {
        self.inner.offsets.partition_point(|&o| o <= row) - 1
    }

    /// The number of rows of the longest bag.
    pub fn longest(&self) -> usize {
        self.iter().map(|r| r.len()).max().unwrap_or(0)
    }

    /// The offsets on a device, copied there once.
    pub(crate) fn on(&self, gpu: Gpu) -> Result<Tensor<u32>> {
        let narrow = || self.offsets().iter().map(|&o| u32::try_from(o).unwrap_or(u32::MAX)).collect::<Vec<_>>().into();
        // Kernels count rows in 32 bits. The tensor of more rows than that would be of terabytes.
        assert!(u32::try_from(self.rows()).is_ok(), "more than 2^32 - 1 rows in one batch");
        self.inner.device.get_or_init(narrow).on(gpu)
    }

    /// The bags cut into segments of at most [`SEGMENT`] rows, from the first row of each bag on: where each segment
    /// starts (and the last ends), and the first segment of each bag (and how many there are). Copied to a device once.
    pub(crate) fn segments(&self, gpu: Gpu) -> Result<(Tensor<u32>, Tensor<u32>)> {
        let (starts, of_bag) = self.inner.segments.get_or_init(|| {
            let (starts, of_bag) = self.cut(SEGMENT);
            (starts.into(), of_bag.into())
        });
        Ok((starts.on(gpu)?, of_bag.on(gpu)?))
    }

    fn cut(&self, rows: usize) -> (Vec<u32>, Vec<u32>) {
        let (mut starts, mut of_bag) = (Vec::new(), vec![0]);
        for bag in self.iter() {
            starts.extend(bag.step_by(rows).map(|row| row as u32));
            of_bag.push(starts.len() as u32);
        }
        starts.push(self.rows() as u32);
        (starts, of_bag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_must_start_at_zero_and_never_decrease() {
        assert!(matches!(Ragged::new(vec![]), Err(Error::Offsets { index: 0, .. })));
        assert!(matches!(Ragged::new(vec![1, 2]), Err(Error::Offsets { index: 0, value: 1, .. })));
        assert!(matches!(Ragged::new(vec![0, 3, 2]), Err(Error::Offsets { index: 2, value: 2, at_least: 3 })));
        assert_eq!(Ragged::new(vec![0, 3, 3, 5]).unwrap(), Ragged::from_lengths([3, 0, 2]));
    }

    #[test]
    fn segments_are_cut_at_the_ends_of_bags_only() {
        let (starts, of_bag) = Ragged::from_lengths([0, 5, 4, 0, 1]).cut(4);
        assert_eq!(starts, [0, 4, 5, 9, 10]);
        assert_eq!(of_bag, [0, 0, 2, 3, 3, 4]);
        assert_eq!(Ragged::from_lengths([]).cut(4), (vec![0], vec![0]));
    }

    #[test]
    fn bag_of_skips_empty_bags() {
        let ragged = Ragged::from_lengths([0, 2, 0, 0, 1]);
        assert_eq!((0..3).map(|row| ragged.bag_of(row)).collect::<Vec<_>>(), [1, 1, 4]);
        assert_eq!((ragged.bags(), ragged.rows(), ragged.longest()), (5, 3, 2));
    }
}
