//! The matrix product of the CPU path: one function, so that a faster one can replace it.
//!
//! The crate `gemm` does the work (AVX-512, AVX2 or plain, chosen at run time); callers cut the rows into fixed chunks
//! and run those in parallel, so a product is always calculated by one thread and its bits do not depend on how many
//! there are.
#![allow(unsafe_code)]

use crate::element::Real;

/// A matrix in memory: `rows x columns` elements of which `[i, j]` lies at `data[i * row_step + j * column_step]`.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a, T> {
    data: &'a [T],
    rows: usize,
    columns: usize,
    row_step: usize,
    column_step: usize,
}

impl<'a, T> Matrix<'a, T> {
    /// Row-major, dense.
    pub(crate) fn new(data: &'a [T], rows: usize, columns: usize) -> Matrix<'a, T> {
        Matrix::strided(data, rows, columns, columns)
    }

    /// Row-major with `row_step >= columns` elements from one row to the next.
    pub(crate) fn strided(data: &'a [T], rows: usize, columns: usize, row_step: usize) -> Matrix<'a, T> {
        assert!(row_step >= columns && (rows == 0 || (rows - 1) * row_step + columns <= data.len()));
        Matrix { data, rows, columns, row_step, column_step: 1 }
    }

    /// The transpose, without moving anything.
    pub(crate) fn t(self) -> Matrix<'a, T> {
        Matrix {
            rows: self.columns,
            columns: self.rows,
            row_step: self.column_step,
            column_step: self.row_step,
            ..self
        }
    }
}

/// `c = a b`, or `c += a b` with `accumulate`; `c` is row-major with `row_step` elements from one row to the next.
pub(crate) fn product_strided<T: Real>(
    c: &mut [T],
    row_step: usize,
    a: Matrix<'_, T>,
    b: Matrix<'_, T>,
    accumulate: bool,
) {
    let (m, n, k) = (a.rows, b.columns, a.columns);
    assert_eq!(k, b.rows, "inner dimensions of a product");
    if m == 0 || n == 0 {
        return;
    }
    assert!(row_step >= n && (m - 1) * row_step + n <= c.len(), "the result of a product must fit");
    if k == 0 {
        if !accumulate {
            c.chunks_mut(row_step).take(m).for_each(|row| row[..n].fill(T::zero()));
        }
        return;
    }
    let step = |s: usize| isize::try_from(s).expect("a slice is no longer than isize::MAX");
    // SAFETY: the asserts above and those of `Matrix` bound the last element that the steps reach in each of the three
    // slices, and `c` is borrowed mutably, so it overlaps neither `a` nor `b`.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.as_mut_ptr(),
            1,
            step(row_step),
            accumulate,
            a.data.as_ptr(),
            step(a.column_step),
            step(a.row_step),
            b.data.as_ptr(),
            step(b.column_step),
            step(b.row_step),
            T::one(),
            T::one(),
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// [`product_strided`] into a dense row-major result.
pub(crate) fn product<T: Real>(c: &mut [T], a: Matrix<'_, T>, b: Matrix<'_, T>, accumulate: bool) {
    product_strided(c, b.columns, a, b, accumulate);
}

/// The transpose of a row-major `rows x columns` matrix as a matrix of its own. Products of many row tiles with the same
/// `W^T` are faster with it than with a transposed view, whose elements would be gathered anew for every tile.
pub(crate) fn transposed<T: Real>(data: &[T], rows: usize, columns: usize) -> Vec<T> {
    const BLOCK: usize = 16;
    let mut out = vec![T::zero(); rows * columns];
    for r in (0..rows).step_by(BLOCK) {
        for c in (0..columns).step_by(BLOCK) {
            for i in r..(r + BLOCK).min(rows) {
                for j in c..(c + BLOCK).min(columns) {
                    out[j * rows + i] = data[i * columns + j];
                }
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(
        m: usize,
        n: usize,
        k: usize,
        a: impl Fn(usize, usize) -> f64,
        b: impl Fn(usize, usize) -> f64,
    ) -> Vec<f64> {
        (0..m * n).map(|at| (0..k).map(|l| a(at / n, l) * b(l, at % n)).sum()).collect()
    }

    #[test]
    fn every_layout_gives_the_plain_sums() {
        for (m, n, k) in [(1, 1, 1), (3, 5, 7), (33, 17, 64), (4, 3, 0), (0, 3, 2), (2, 0, 2)] {
            // Small integers: every sum is exact, so equality is the test.
            let a: Vec<f64> = (0..m * k).map(|i| (i % 7) as f64 - 3.0).collect();
            let b: Vec<f64> = (0..k * n).map(|i| (i % 5) as f64 - 2.0).collect();
            let want = plain(m, n, k, |i, l| a[i * k + l], |l, j| b[l * n + j]);
            let mut c = vec![1.0; m * n];
            product(&mut c, Matrix::new(&a, m, k), Matrix::new(&b, k, n), false);
            assert_eq!(c, want);
            product(&mut c, Matrix::new(&a, m, k), Matrix::new(&b, k, n), true);
            assert_eq!(c, want.iter().map(|x| 2.0 * x).collect::<Vec<_>>());
            let transposed: Vec<f64> = (0..k * m).map(|i| a[(i % m) * k + i / m]).collect();
            product(&mut c, Matrix::new(&transposed, k, m).t(), Matrix::new(&b, k, n), false);
            assert_eq!(c, want);
        }
    }

    #[test]
    fn transposing_moves_every_element() {
        for (rows, columns) in [(0, 3), (1, 1), (17, 33), (16, 16), (5, 40)] {
            let data: Vec<f64> = (0..rows * columns).map(|i| i as f64).collect();
            let t = transposed(&data, rows, columns);
            for (i, x) in data.iter().enumerate() {
                assert_eq!(t[i % columns * rows + i / columns], *x);
            }
        }
    }

    #[test]
    fn a_strided_result_leaves_what_lies_between_its_rows() {
        let mut c = vec![9.0f32; 7];
        product_strided(&mut c, 4, Matrix::new(&[1.0, 2.0], 2, 1), Matrix::new(&[1.0, 1.0, 1.0], 1, 3), false);
        assert_eq!(c, [1.0, 1.0, 1.0, 9.0, 2.0, 2.0, 2.0]);
    }
}
