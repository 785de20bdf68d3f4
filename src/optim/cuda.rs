//! Steps and norms on a CUDA device: one launch for all parameters.

use super::moments::{Factors, Rule};
use crate::device::{Gpu, Grid, In, Out, Table, Words, kernels};
use crate::element::Real;
use crate::error::Result;
use crate::tensor::Tensor;

kernels! { "optim":
    /// A step of AdamW on the parameters of the table, their gradients scaled to a norm of at most `most` if `norm` is
    /// given: that of all of them.
    fn optim_adamw(table: Words = 8 * parameters, norm: Option<In<f64>> = 1, parameters: u32, most: f64,
        keep_mean: f32, take_mean: f32, keep_square: f32, take_square: f32, eps: f32);
    /// The same of RAdam.
    fn optim_radam(table: Words = 8 * parameters, norm: Option<In<f64>> = 1, parameters: u32, most: f64,
        keep_mean: f32, take_mean: f32, keep_square: f32, take_square: f32, eps: f32);
    /// The sums of the squares of the gradients, chunk by chunk.
    fn optim_squares(table: Words = 8 * parameters, partials: Out<f64> = chunks, parameters: u32, chunks: u32);
    /// The root of their sum.
    fn optim_norm(partials: In<f64> = chunks, norm: Out<f64> = 1, chunks: u32);
    /// Scales the gradients to a norm of at most `most`.
    fn optim_clip(table: Words = 8 * parameters, norm: In<f64> = 1, parameters: u32, most: f64);
}

/// Elements of a chunk: `CHUNK` of the kernels.
const CHUNK: usize = 4096;
const THREADS: u32 = 256;

/// The rows of a table so far, eight words each: the first chunk, the elements, the addresses of parameter, mean,
/// square and gradient, and the factors of the step.
struct Rows<'a> {
    table: Table<'a>,
    parameters: u32,
    chunks: usize,
}

impl<'a> Rows<'a> {
    fn new(gpu: Gpu) -> Rows<'a> {
        Rows { table: Table::new(gpu), parameters: 0, chunks: 0 }
    }

    /// Begins a row. False, and there is none, if the parameter has no element.
    fn begin(&mut self, elements: usize) -> bool {
        if elements > 0 {
            self.table.number(self.chunks as u64);
            self.table.number(elements as u64);
            self.chunks += elements.div_ceil(CHUNK);
            self.parameters += 1;
        }
        elements > 0
    }

    /// The norm of the gradients of the rows.
    fn norm(&mut self, gpu: Gpu) -> Result<Tensor<f64>> {
        let (chunks, mut norm) = (self.chunks as u32, gpu.alloc(&[])?);
        let mut partials = gpu.alloc::<f64>(&[self.chunks])?;
        let grid = Grid::new(self.chunks, THREADS);
        optim_squares(gpu, grid, &mut self.table, &mut partials, self.parameters, chunks)?;
        optim_norm(gpu, Grid::new(1, 1024), &partials, &mut norm, chunks)?;
        Ok(norm)
    }
}

/// Scales the gradients to a norm of at most `most` and gives the norm that they had.
pub(super) fn clip<T: Real>(gpu: Gpu, grads: &mut [Option<Tensor<T>>], most: f64) -> Result<Tensor<f64>> {
    let mut rows = Rows::new(gpu);
    for grad in grads.iter_mut().flatten() {
        if rows.begin(grad.len()) {
            (0..3).for_each(|_| rows.table.number(0));
            rows.table.writes::<f32, T>(grad, "optim_clip")?;
            (0..2).for_each(|_| rows.table.number(0));
        }
    }
    let norm = rows.norm(gpu)?;
    optim_clip(gpu, Grid::new(rows.chunks, THREADS), &mut rows.table, &norm, rows.parameters, most)?;
    Ok(norm)
}

/// One parameter that has a gradient.
pub(super) struct Update<'a, T> {
    pub(super) param: &'a mut Tensor<T>,
    pub(super) mean: &'a mut Tensor<T>,
    pub(super) square: &'a mut Tensor<T>,
    pub(super) grad: &'a Tensor<T>,
    pub(super) factors: Factors<T>,
}

/// One step, with gradients scaled to a norm of at most `most` if there is one: then also the norm that they had.
pub(super) fn step<T: Real>(
    gpu: Gpu,
    rule: &Rule,
    updates: Vec<Update<'_, T>>,
    most: Option<f64>,
) -> Result<Option<Tensor<f64>>> {
    let (mut rows, name) = (Rows::new(gpu), "optim_adamw");
    let narrow = |x: T| x.f64() as f32;
    for Update { param, mean, square, grad, factors } in updates {
        if rows.begin(param.len()) {
            rows.table.writes::<f32, T>(param, name)?;
            rows.table.writes::<f32, T>(mean, name)?;
            rows.table.writes::<f32, T>(square, name)?;
            rows.table.reads::<f32, T>(grad, name)?;
            rows.table.floats(narrow(factors.keep), narrow(factors.rate));
            rows.table.floats(narrow(factors.root), 0.0);
        }
    }
    let norm = most.map(|_| rows.norm(gpu)).transpose()?;
    let (grid, limit, n) = (Grid::new(rows.chunks, THREADS), most.unwrap_or(f64::INFINITY), rows.parameters);
    let (table, norm_of, eps) = (&mut rows.table, norm.as_ref(), rule.eps as f32);
    let [keep_mean, take_mean, keep_square, take_square] =
        [rule.beta1, 1.0 - rule.beta1, rule.beta2, 1.0 - rule.beta2].map(|beta| beta as f32);
    let launch = if rule.rectified { optim_radam } else { optim_adamw };
    launch(gpu, grid, table, norm_of, n, limit, keep_mean, take_mean, keep_square, take_square, eps)?;
    Ok(norm)
}
