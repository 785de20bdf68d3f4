//! Fixed chunks: how every op of the CPU path spreads its work without the thread count showing in the bits.

use std::ops::Range;

use rayon::prelude::*;

use crate::element::Real;

/// Rows that one task handles: enough for a matrix product to run at speed, few enough to stay in the second cache.
pub(crate) const ROWS: usize = 256;

/// The most partial sums that a reduction over rows keeps; more rows make longer groups, not more memory.
const GROUPS: usize = 16;

/// Calls `task(first_row, rows_of_out)` for each chunk of rows of a row-major array, in parallel.
pub(crate) fn rows_mut<T: Send>(out: &mut [T], columns: usize, task: impl Fn(usize, &mut [T]) + Sync) {
    if out.is_empty() {
        return;
    }
    if out.len() <= ROWS * columns {
        return task(0, out);
    }
    out.par_chunks_mut(ROWS * columns).enumerate().for_each(|(chunk, out)| task(chunk * ROWS, out));
}

/// Sums `partial(rows)` over all rows: chunks are added in their order within a group, groups in theirs. The groups
/// depend on `rows` alone, so the sum has the same bits on any number of threads.
pub(crate) fn sum_rows<T: Real>(rows: usize, len: usize, partial: impl Fn(Range<usize>, &mut [T]) + Sync) -> Vec<T> {
    let chunks = rows.div_ceil(ROWS);
    let group = chunks.div_ceil(GROUPS).max(1);
    let mut sums: Vec<Vec<T>> = (0..chunks.div_ceil(group))
        .into_par_iter()
        .map(|g| {
            let mut sum = vec![T::zero(); len];
            for chunk in g * group..((g + 1) * group).min(chunks) {
                partial(chunk * ROWS..((chunk + 1) * ROWS).min(rows), &mut sum);
            }
            sum
        })
        .collect();
    if sums.is_empty() {
        return vec![T::zero(); len];
    }
    let mut total = sums.remove(0);
    for sum in sums {
        total.iter_mut().zip(sum).for_each(|(total, sum)| *total += sum);
    }
    total
}
