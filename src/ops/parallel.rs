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
    sum_rows_mut(rows, len, &mut [], 0, |range, sum, _| partial(range, sum))
}

/// [`sum_rows`] that also writes `columns` elements of `out` for each row.
pub(crate) fn sum_rows_mut<T: Real>(
    rows: usize,
    len: usize,
    out: &mut [T],
    columns: usize,
    partial: impl Fn(Range<usize>, &mut [T], &mut [T]) + Sync,
) -> Vec<T> {
    let chunks = rows.div_ceil(ROWS);
    let group = chunks.div_ceil(GROUPS).max(1) * ROWS;
    let mut rest = out;
    let mut groups = Vec::new();
    for start in (0..rows).step_by(group) {
        let range = start..(start + group).min(rows);
        let (here, after) = rest.split_at_mut(range.len() * columns);
        rest = after;
        groups.push((range, here));
    }
    let mut sums: Vec<Vec<T>> = groups
        .into_par_iter()
        .map(|(range, mut out)| {
            let mut sum = vec![T::zero(); len];
            for start in range.clone().step_by(ROWS) {
                let chunk = start..(start + ROWS).min(range.end);
                let (here, after) = out.split_at_mut(chunk.len() * columns);
                partial(chunk, &mut sum, here);
                out = after;
            }
            sum
        })
        .collect();
    if sums.is_empty() {
        return vec![T::zero(); len];
    }
    let mut total = sums.remove(0);
    let at_once = 1 << 14;
    total.par_chunks_mut(at_once).enumerate().for_each(|(chunk, total)| {
        for sum in &sums {
            total.iter_mut().zip(&sum[chunk * at_once..]).for_each(|(total, sum)| *total += *sum);
        }
    });
    total
}
