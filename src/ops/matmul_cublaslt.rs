//! The matrix products of a CUDA device by cuBLASLt: those of [`super::matmul_cuda`] where a library is asked for.
//!
//! It takes two factors of one type and gives a product of f32, so factors are copied that have another: rounded to 16
//! bits with rows of whole 16 bytes, or widened. Bias and activation follow in a pass of their own. How the terms of an
//! element are added is the library's choice, by all of the sizes: it may change with the number of rows.

use half::{bf16, f16};

use super::matmul_cuda::{End, Size};
use crate::device::{Factor, Gpu, Grid, In, Multiplier, Out, Precision, kernels};
use crate::element::{Element, Real};
use crate::error::Result;
use crate::ops::activation::Activation;
use crate::tensor::Tensor;

kernels! { "matmul_cublaslt":
    /// Rounded to bf16, with zeros behind the columns.
    fn matmul_cublaslt_to_bf16<F in f32, f16, bf16>(from: In<F> = rows * columns, to: Out<bf16> = rows * pitch,
        rows: u32, columns: u32, pitch: u32);
    /// The same for f16.
    fn matmul_cublaslt_to_f16<F in f32, f16, bf16>(from: In<F> = rows * columns, to: Out<f16> = rows * pitch,
        rows: u32, columns: u32, pitch: u32);
    /// Widened.
    fn matmul_cublaslt_to_f32<F in f16, bf16>(from: In<F> = size, to: Out<f32> = size, size: u64);
    /// `y = f(y + bias)`; the argument of `f` too, if asked for.
    fn matmul_cublaslt_end(bias: Option<In<f32>> = columns, y: Out<f32> = size, argument: Option<Out<f32>> = size,
        size: u64, columns: u32, function: u32);
}

/// Numbers of a thread of these kernels, and in 16 bytes of 16 bits each.
const EIGHT: usize = 8;

/// What a factor becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Becomes {
    /// It is taken as it is.
    Itself,
    Single,
    Bf16,
    F16,
}

impl Becomes {
    /// Of a factor whose elements have this name, in rows of so many.
    fn of(precision: Precision, name: &str, columns: usize) -> Becomes {
        let narrow = |name: &str| [bf16::NAME, f16::NAME].contains(&name);
        let whole = columns.is_multiple_of(EIGHT);
        match precision {
            Precision::F32 | Precision::Tf32 if narrow(name) => Becomes::Single,
            Precision::F32 | Precision::Tf32 => Becomes::Itself,
            Precision::Bf16 if name == bf16::NAME && whole => Becomes::Itself,
            Precision::Bf16 => Becomes::Bf16,
            Precision::F16 if name == f16::NAME && whole => Becomes::Itself,
            Precision::F16 => Becomes::F16,
        }
    }

    fn bytes(self, rows: usize, columns: usize) -> usize {
        match self {
            Becomes::Itself => 0,
            Becomes::Single => rows * columns * size_of::<f32>(),
            Becomes::Bf16 | Becomes::F16 => rows * columns.next_multiple_of(EIGHT) * size_of::<f16>(),
        }
    }
}

/// The bytes of the copy of a factor whose elements have this name: 0 if it is taken as it is.
pub(crate) fn copy_bytes(precision: Precision, name: &str, rows: usize, columns: usize) -> usize {
    Becomes::of(precision, name, columns).bytes(rows, columns)
}

/// The copy of a factor, if it needs one.
enum Copied {
    None,
    Single(Tensor<f32>),
    Bf16(Tensor<bf16>),
    F16(Tensor<f16>),
}

impl Copied {
    fn new<F: Element>(gpu: Gpu, from: &Tensor<F>, rows: usize, columns: usize) -> Result<Copied> {
        let pitch = columns.next_multiple_of(EIGHT);
        let grid = Grid::over(rows * pitch, 256 * EIGHT, 256);
        let (r, c, p) = (rows as u32, columns as u32, pitch as u32);
        Ok(match Becomes::of(gpu.precision(), F::NAME, columns) {
            Becomes::Itself => Copied::None,
            Becomes::Single => {
                let mut to = gpu.alloc(&[rows, columns])?;
                let grid = Grid::over(to.len(), 256 * EIGHT, 256);
                matmul_cublaslt_to_f32::<F>(gpu, grid, from, &mut to, from.len() as u64)?;
                Copied::Single(to)
            }
            Becomes::Bf16 => {
                let mut to = gpu.alloc(&[rows, pitch])?;
                matmul_cublaslt_to_bf16::<F>(gpu, grid, from, &mut to, r, c, p)?;
                Copied::Bf16(to)
            }
            Becomes::F16 => {
                let mut to = gpu.alloc(&[rows, pitch])?;
                matmul_cublaslt_to_f16::<F>(gpu, grid, from, &mut to, r, c, p)?;
                Copied::F16(to)
            }
        })
    }

    /// The factor, of which this is the copy if there is one.
    fn factor<'a, F: Element>(
        &'a self,
        gpu: Gpu,
        of: &'a Tensor<F>,
        columns: usize,
        across: bool,
    ) -> Result<Factor<'a>> {
        let pitch = columns.next_multiple_of(EIGHT);
        match self {
            Copied::None => Factor::new(gpu, of, columns, across),
            Copied::Single(copy) => Factor::new(gpu, copy, columns, across),
            Copied::Bf16(copy) => Factor::new(gpu, copy, pitch, across),
            Copied::F16(copy) => Factor::new(gpu, copy, pitch, across),
        }
    }
}

/// `c = a b`, of which `a` or `b` lies transposed if its flag says so.
fn product<A: Element, B: Element, T: Real>(
    gpu: Gpu,
    multiplier: &Multiplier,
    Size { m, n, k }: Size,
    (a, a_across): (&Tensor<A>, bool),
    (b, b_across): (&Tensor<B>, bool),
    c: &mut Tensor<T>,
) -> Result<()> {
    if m == 0 || n == 0 {
        return Ok(());
    }
    if k == 0 {
        *c = gpu.zeros(c.shape())?;
        return Ok(());
    }
    let turned = |across, rows, columns| if across { (columns, rows) } else { (rows, columns) };
    let ((a_rows, a_columns), (b_rows, b_columns)) = (turned(a_across, m, k), turned(b_across, k, n));
    let a_copy = Copied::new(gpu, a, a_rows, a_columns)?;
    let b_copy = Copied::new(gpu, b, b_rows, b_columns)?;
    let left = a_copy.factor(gpu, a, a_columns, a_across)?;
    let right = b_copy.factor(gpu, b, b_columns, b_across)?;
    multiplier.multiply(gpu, [m, n, k], &left, &right, c)
}

/// `y = f(a b^T + bias)` with `a` `[m, k]` and `b` `[n, k]`.
pub(super) fn product_nt<F: Element, T: Real>(
    gpu: Gpu,
    multiplier: &Multiplier,
    size: Size,
    a: &Tensor<F>,
    b: &Tensor<T>,
    End { bias, function, argument }: End<'_, T>,
    y: &mut Tensor<T>,
) -> Result<()> {
    product(gpu, multiplier, size, (a, false), (b, true), y)?;
    if bias.is_none() && function == Activation::Identity && argument.is_none() {
        return Ok(());
    }
    let elements = size.m * size.n;
    let grid = Grid::over(elements, 256 * 4, 256);
    matmul_cublaslt_end(gpu, grid, bias, y, argument, elements as u64, size.n as u32, function as u32)
}

/// `c = a b` with `a` `[m, k]` and `b` `[k, n]`.
pub(super) fn product_nn<T: Real>(
    gpu: Gpu,
    multiplier: &Multiplier,
    size: Size,
    a: &Tensor<T>,
    b: &Tensor<T>,
    c: &mut Tensor<T>,
) -> Result<()> {
    product(gpu, multiplier, size, (a, false), (b, false), c)
}

/// `c = a^T b` with `a` `[k, m]` and `b` `[k, n]`.
pub(super) fn product_tn<F: Element, T: Real>(
    gpu: Gpu,
    multiplier: &Multiplier,
    size: Size,
    a: &Tensor<T>,
    b: &Tensor<F>,
    c: &mut Tensor<T>,
) -> Result<()> {
    product(gpu, multiplier, size, (a, true), (b, false), c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_factor_is_copied_only_where_its_type_or_its_rows_are_not_what_is_taken() {
        use Precision::{Bf16, F16, F32, Tf32};
        let bytes = |precision, name| [16, 9].map(|columns| copy_bytes(precision, name, 3, columns));
        for precision in [F32, Tf32] {
            assert_eq!(bytes(precision, f32::NAME), [0, 0]);
            assert_eq!(bytes(precision, f16::NAME), [3 * 16 * 4, 3 * 9 * 4]);
        }
        for (precision, same, other) in [(Bf16, bf16::NAME, f16::NAME), (F16, f16::NAME, bf16::NAME)] {
            assert_eq!(bytes(precision, same), [0, 3 * 16 * 2]);
            for name in [other, f32::NAME] {
                assert_eq!(bytes(precision, name), [3 * 16 * 2, 3 * 16 * 2]);
            }
        }
    }
}
