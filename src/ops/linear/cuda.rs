//! The fully connected layer on a CUDA device: products with the activation at their end, and the sums of its bias.

use super::{Dims, Linear};
use crate::device::{Gpu, Grid, In, Out, Precision, kernels};
use crate::element::{Element, Real};
use crate::error::Result;
use crate::features::{Features, Kept};
use crate::ops::activation::Activation;
use crate::ops::matmul_cublaslt::copy_bytes;
use crate::ops::matmul_cuda::{End, Size, parts_tn, product_nn, product_nt, product_tn};
use crate::tensor::Tensor;

kernels! { "linear":
    /// `inner = grad * f'(kept)` if it is asked for, and the sums of its columns over each chunk of `chunk` rows.
    fn linear_inner(grad: In<f32> = rows * columns, kept: Option<In<f32>> = rows * columns, inner: Option<Out<f32>> = rows * columns,
        sums: Out<f32> = rows.div_ceil(chunk) * columns, rows: u32, columns: u32, chunk: u32, function: u32);
    /// The sums of the columns, from those of the chunks.
    fn linear_bias(sums: In<f32> = chunks * columns, bias: Out<f32> = columns, chunks: u32, columns: u32);
}

/// Runs an expression with `$x` bound to the tensor (of f32, f16 or bf16) of a [`Kept`].
macro_rules! with_tensor {
    ($kept:expr, $x:ident => $body:expr) => {
        match $kept {
            Kept::Real($x) => $body,
            Kept::Stored(Features::F32($x)) => $body,
            Kept::Stored(Features::F16($x)) => $body,
            Kept::Stored(Features::Bf16($x)) => $body,
        }
    };
}

/// The result, and what the slope of the activation is taken from.
pub(super) fn forward<T: Real>(
    gpu: Gpu,
    op: Linear,
    Dims { rows, inputs, outputs }: Dims,
    x: &Kept<T>,
    weight: &Tensor<T>,
    bias: Option<&Tensor<T>>,
) -> Result<(Tensor<T>, Tensor<T>)> {
    let function = op.activation;
    let mut y = gpu.alloc(&[rows, outputs])?;
    let mut argument = function.keeps_argument().then(|| gpu.alloc(&[rows, outputs])).transpose()?;
    let size = Size { m: rows, n: outputs, k: inputs };
    let end = End { bias, function, argument: argument.as_mut() };
    with_tensor!(x, x => product_nt(gpu, size, x, weight, end, &mut y)?);
    let kept = argument.unwrap_or_else(|| y.clone());
    Ok((y, kept))
}

/// Rows of one sum of a column. It depends on the number of rows alone, not on the device: the same sums on every card.
fn chunk_of(rows: usize) -> usize {
    rows.div_ceil(512).max(32)
}

/// The bytes on a device that the gradients of weight and bias take, with those of their partial sums, or of the copies
/// that cuBLASLt wants in this precision of features with elements of this name.
pub(crate) fn grad_weight_bytes(
    rows: usize,
    inputs: usize,
    outputs: usize,
    copied: Option<(Precision, &str)>,
) -> usize {
    let sums = (rows.div_ceil(chunk_of(rows)) + 1) * outputs + inputs * outputs;
    let product = match copied {
        None => parts_tn(Size { m: outputs, n: inputs, k: rows }),
        Some((precision, name)) => {
            copy_bytes(precision, f32::NAME, rows, outputs) + copy_bytes(precision, name, rows, inputs)
        }
    };
    product + sums * size_of::<f32>()
}

/// `dL/d(argument of the activation)`, and the sums of its columns. `kept` may be absent where there is no activation.
pub(crate) fn inner<T: Real>(
    gpu: Gpu,
    function: Activation,
    rows: usize,
    columns: usize,
    kept: Option<&Tensor<T>>,
    grad: &Tensor<T>,
) -> Result<(Tensor<T>, Tensor<T>)> {
    let mut inner = match function {
        Activation::Identity => None,
        _ => Some(gpu.alloc(&[rows, columns])?),
    };
    let chunk = chunk_of(rows);
    let chunks = rows.div_ceil(chunk);
    let mut sums = gpu.alloc::<T>(&[chunks, columns])?;
    let (r, c) = (rows as u32, columns as u32);
    let grid = Grid::over(columns, 128, 256).times(chunks);
    linear_inner(gpu, grid, grad, kept, inner.as_mut(), &mut sums, r, c, chunk as u32, function as u32)?;
    if chunks != 1 {
        let mut bias = gpu.alloc(&[columns])?;
        linear_bias(gpu, Grid::over(columns, 32, 256), &sums, &mut bias, chunks as u32, c)?;
        sums = bias;
    }
    Ok((inner.unwrap_or_else(|| grad.clone()), sums.reshape(&[columns])?))
}

/// The gradients of `x` (if wanted), weight and bias.
pub(super) fn backward<T: Real>(
    gpu: Gpu,
    op: Linear,
    Dims { rows, inputs, outputs }: Dims,
    x: &Kept<T>,
    weight: &Tensor<T>,
    kept: Option<&Tensor<T>>,
    grad: &Tensor<T>,
    wants_x: bool,
) -> Result<(Option<Tensor<T>>, Tensor<T>, Tensor<T>)> {
    let (inner, db) = inner(gpu, op.activation, rows, outputs, kept, grad)?;
    let mut dw = gpu.alloc(&[outputs, inputs])?;
    let size = Size { m: outputs, n: inputs, k: rows };
    with_tensor!(x, x => product_tn(gpu, size, &inner, x, &mut dw)?);
    if !wants_x {
        return Ok((None, dw, db));
    }
    let mut dx = gpu.alloc(&[rows, inputs])?;
    product_nn(gpu, Size { m: rows, n: inputs, k: outputs }, &inner, weight, &mut dx)?;
    Ok((Some(dx), dw, db))
}
