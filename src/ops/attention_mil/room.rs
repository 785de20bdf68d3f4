//! What attention pooling takes of a device's memory: asked before a batch is launched, and by the launch itself.

use super::Dims;

/// Rows that a block of the gates' gradient sums over.
pub(super) const GATE_ROWS: usize = 256;
/// Rows and columns of a tile of a product.
pub(super) const TILE: usize = 128;

/// The most memory for gates that are kept for the backward pass, and for those of a chunk of rows that are calculated
/// again in it.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub(super) kept: usize,
    pub(super) again: usize,
}
pub(super) const LIMITS: Limits = Limits { kept: 2 << 30, again: 256 << 20 };

impl Limits {
    /// Whether the gates of `n` rows of `row` bytes are kept.
    pub(super) fn keep(self, n: usize, row: usize) -> bool {
        n * row <= self.kept
    }

    /// The rows whose gates are there at a time where they are calculated again: whole splits, so that every sum is over
    /// the same rows whether or not the gates were kept.
    pub(super) fn at_a_time(self, n: usize, row: usize) -> usize {
        let split = split_rows(n);
        (self.again / (split * row).max(1)).max(1) * split
    }
}

/// Rows that one sum of the gradient of `v` and `u` goes over: at most 32 sums, by the number of rows alone.
pub(super) fn split_rows(n: usize) -> usize {
    n.div_ceil(32).next_multiple_of(GATE_ROWS).max(1024)
}

/// Bytes on a device, besides inputs, outputs and their gradients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Room {
    /// The gates, from the forward pass until they are used on the way back; 0 if they are calculated again.
    pub(crate) kept: usize,
    /// For the forward pass alone: scores, their parts, and the segments of each bag.
    pub(crate) forth: usize,
    /// For the backward pass alone: gates that are calculated again, the gradient of the scores, partial sums.
    pub(crate) back: usize,
}

impl Room {
    /// Of `n` rows of `l` elements in `bags` bags, with `k` heads over a layer of `d`, gated or not.
    pub(crate) fn of(n: usize, l: usize, bags: usize, d: usize, k: usize, gated: bool) -> Room {
        Room::within(LIMITS, Dims { n, l, d, k }, bags, if gated { 2 * d } else { d })
    }

    pub(super) fn within(limits: Limits, Dims { n, l, d, k }: Dims, bags: usize, width: usize) -> Room {
        let word = size_of::<f32>();
        // In f32, or in 16 bits with rows of whole 16 bytes.
        let row = (width * word).max(width.next_multiple_of(8) * 2);
        let (kept, again) = if limits.keep(n, row) { (n * row, 0) } else { (0, limits.at_a_time(n, row).min(n) * row) };
        // A segment is part of one bag.
        let segments = n / crate::shape::SEGMENT + bags;
        let forth = n * k * (width.div_ceil(TILE) + 1) + segments * k * (l + 2) + bags * k * 2;
        let sums = n.div_ceil(GATE_ROWS) * (width + k * d + k) + n.div_ceil(split_rows(n)) * width * l;
        Room { kept, forth: forth * word, back: again + (n * k + bags * k + sums) * word }
    }
}
