//! The fully connected layer on the CPU: chunks of rows, each widened, multiplied and activated while in cache.

use super::{Dims, Linear};
use crate::element::Real;
use crate::features::{Kept, widened, with_elements};
use crate::ops::matmul::{Matrix, product, transposed};
use crate::ops::parallel::{ROWS, rows_mut, sum_rows};
use crate::tensor::Tensor;

/// The result, and what the slope of the activation is taken from.
pub(super) fn forward<T: Real>(
    op: Linear,
    Dims { rows, inputs, outputs }: Dims,
    x: &Kept<T>,
    weight: &Tensor<T>,
    bias: Option<&Tensor<T>>,
) -> (Tensor<T>, Tensor<T>) {
    // Many tiles share one transposed copy; a few read the weight as it is.
    let copy = (rows > 2 * ROWS).then(|| transposed(weight.host(), outputs, inputs));
    let weight_t = match &copy {
        Some(copy) => Matrix::new(copy, inputs, outputs),
        None => Matrix::new(weight.host(), outputs, inputs).t(),
    };
    let mut y = Tensor::zeros(&[rows, outputs]);
    with_elements!(x, x => rows_mut(y.host_mut(), outputs, |first, y| {
        let mut scratch = Vec::new();
        let here = y.len() / outputs;
        let x = widened(&x[first * inputs..(first + here) * inputs], &mut scratch);
        product(y, Matrix::new(x, here, inputs), weight_t, false);
        if let Some(bias) = bias {
            for row in y.chunks_exact_mut(outputs) {
                row.iter_mut().zip(bias.host()).for_each(|(y, b)| *y += *b);
            }
        }
        if !op.activation.keeps_argument() {
            op.activation.apply(y);
        }
    }));
    if !op.activation.keeps_argument() {
        return (y.clone(), y);
    }
    let argument = y.clone();
    rows_mut(y.host_mut(), outputs, |_, y| op.activation.apply(y));
    (y, argument)
}

/// The gradients of `x` (if wanted), weight and bias.
pub(super) fn backward<T: Real>(
    op: Linear,
    Dims { rows, inputs, outputs }: Dims,
    x: &Kept<T>,
    weight: &Tensor<T>,
    kept: Option<&Tensor<T>>,
    grad: &Tensor<T>,
    wants_x: bool,
) -> (Option<Tensor<T>>, Tensor<T>, Tensor<T>) {
    // dL/d(argument of the activation)
    let mut inner = grad.clone();
    if let Some(kept) = kept {
        rows_mut(inner.host_mut(), outputs, |first, g| {
            let kept = &kept.host()[first * outputs..][..g.len()];
            op.activation.chain(g, kept);
        });
    }
    let inner = inner.host();

    let dx = wants_x.then(|| {
        let weight = Matrix::new(weight.host(), outputs, inputs);
        let mut dx = Tensor::zeros(&[rows, inputs]);
        rows_mut(dx.host_mut(), inputs, |first, dx| {
            let here = dx.len() / inputs;
            let g = &inner[first * outputs..(first + here) * outputs];
            product(dx, Matrix::new(g, here, outputs), weight, false);
        });
        dx
    });

    // The bias gradient rides behind that of the weight in one pass over the rows.
    let size = outputs * inputs;
    let mut sums = with_elements!(x, x => sum_rows(rows, size + outputs, |range, sum| {
        let mut scratch = Vec::new();
        let (dw, db) = sum.split_at_mut(size);
        let x = widened(&x[range.start * inputs..range.end * inputs], &mut scratch);
        let g = &inner[range.start * outputs..range.end * outputs];
        product(dw, Matrix::new(g, range.len(), outputs).t(), Matrix::new(x, range.len(), inputs), true);
        for row in g.chunks_exact(outputs) {
            db.iter_mut().zip(row).for_each(|(db, g)| *db += *g);
        }
    }));
    let db = sums.split_off(size);
    let tensor = |shape: &[usize], data| Tensor::new(shape, data).expect("sized above");
    (dx, tensor(&[outputs, inputs], sums), tensor(&[outputs], db))
}
