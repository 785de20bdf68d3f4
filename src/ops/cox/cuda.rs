//! The partial likelihood on a CUDA device.

use super::{Cox, Plan, Ties};
use crate::device::{Gpu, Grid, In, Out, kernels};
use crate::element::Real;
use crate::error::Result;
use crate::tensor::Tensor;

kernels! { "cox":
    /// Loss and gradient of few patients.
    fn cox_block(table: In<u32> = n + at_risk + 2 * moments + 1, weights: Option<In<f64>> = at_risk + moments,
        log_risk: In<f32> = n, sums: Out<f64> = at_risk + 4 * moments + 4 * tiles,
        exponents: Out<f32> = at_risk + 3 * moments + 4 * tiles, gradient: Out<f32> = n, loss: Out<f32> = 1,
        n: u32, at_risk: u32, moments: u32, tiles: u32, efron: u32, divisor: f64);
    /// What each patient adds to risk sets, and what each tile of patients does.
    fn cox_terms(table: In<u32> = n + at_risk + 2 * moments + 1, weights: Option<In<f64>> = at_risk + moments,
        log_risk: In<f32> = n, sums: Out<f64> = at_risk + 4 * moments + 4 * tiles,
        exponents: Out<f32> = at_risk + 3 * moments + 4 * tiles,
        n: u32, at_risk: u32, moments: u32, tiles: u32, efron: u32);
    /// Then the risk set of each moment.
    fn cox_risk_sets(table: In<u32> = n + at_risk + 2 * moments + 1, weights: Option<In<f64>> = at_risk + moments,
        log_risk: In<f32> = n, sums: Out<f64> = at_risk + 4 * moments + 4 * tiles,
        exponents: Out<f32> = at_risk + 3 * moments + 4 * tiles,
        n: u32, at_risk: u32, moments: u32, tiles: u32, efron: u32);
    /// Then what the deaths of each tile charge those at risk.
    fn cox_charges(table: In<u32> = n + at_risk + 2 * moments + 1, weights: Option<In<f64>> = at_risk + moments,
        log_risk: In<f32> = n, sums: Out<f64> = at_risk + 4 * moments + 4 * tiles,
        exponents: Out<f32> = at_risk + 3 * moments + 4 * tiles,
        n: u32, at_risk: u32, moments: u32, tiles: u32, efron: u32);
    /// Then the hazard up to each moment.
    fn cox_hazards(table: In<u32> = n + at_risk + 2 * moments + 1, weights: Option<In<f64>> = at_risk + moments,
        log_risk: In<f32> = n, sums: Out<f64> = at_risk + 4 * moments + 4 * tiles,
        exponents: Out<f32> = at_risk + 3 * moments + 4 * tiles,
        n: u32, at_risk: u32, moments: u32, tiles: u32, efron: u32);
    /// Then the gradient and the loss.
    fn cox_gradient(table: In<u32> = n + at_risk + 2 * moments + 1, weights: Option<In<f64>> = at_risk + moments,
        log_risk: In<f32> = n, sums: Out<f64> = at_risk + 4 * moments + 4 * tiles,
        exponents: Out<f32> = at_risk + 3 * moments + 4 * tiles, gradient: Out<f32> = n, loss: Out<f32> = 1,
        n: u32, at_risk: u32, moments: u32, tiles: u32, efron: u32, divisor: f64);
    /// With late entry: what each patient adds to risk sets.
    fn cox_truncated_terms(table: In<u32> = members + 2 * n + 3 * moments + 1, weights: Option<In<f64>> = n + moments,
        log_risk: In<f32> = n, sums: Out<f64> = n + 7 * moments + tiles, exponents: Out<f32> = n + 5 * moments,
        n: u32, moments: u32, members: u32, tiles: u32, efron: u32);
    /// Then what the members of each node come to.
    fn cox_truncated_nodes(table: In<u32> = members + 2 * n + 3 * moments + 1, weights: Option<In<f64>> = n + moments,
        log_risk: In<f32> = n, sums: Out<f64> = n + 7 * moments + tiles, exponents: Out<f32> = n + 5 * moments,
        n: u32, moments: u32, members: u32, tiles: u32, efron: u32);
    /// Then what the deaths of each moment cost and charge.
    fn cox_truncated_moments(table: In<u32> = members + 2 * n + 3 * moments + 1, weights: Option<In<f64>> = n + moments,
        log_risk: In<f32> = n, sums: Out<f64> = n + 7 * moments + tiles, exponents: Out<f32> = n + 5 * moments,
        n: u32, moments: u32, members: u32, tiles: u32, efron: u32);
    /// Then the hazard of each node.
    fn cox_truncated_tree(table: In<u32> = members + 2 * n + 3 * moments + 1, weights: Option<In<f64>> = n + moments,
        log_risk: In<f32> = n, sums: Out<f64> = n + 7 * moments + tiles, exponents: Out<f32> = n + 5 * moments,
        n: u32, moments: u32, members: u32, tiles: u32, efron: u32);
    /// Then the gradient and the loss.
    fn cox_truncated_gradient(table: In<u32> = members + 2 * n + 3 * moments + 1, weights: Option<In<f64>> = n + moments,
        log_risk: In<f32> = n, sums: Out<f64> = n + 7 * moments + tiles, exponents: Out<f32> = n + 5 * moments,
        gradient: Out<f32> = n, loss: Out<f32> = 1,
        n: u32, moments: u32, members: u32, tiles: u32, efron: u32, divisor: f64);
    /// `dx = gradient grad`, where `grad` is what the loss is owed.
    fn cox_backward(gradient: In<f32> = n, grad: In<f32> = 1, dx: Out<f32> = n, n: u32);
}

/// Positions that one thread of a tile looks at: `ITEMS` of the kernels.
const ITEMS: usize = 9;
/// Threads of the one block, and the most tiles that it goes through: beyond them five launches take less time.
const BLOCK: u32 = 512;
const TILES: usize = 3;
/// Threads of each of many blocks.
const THREADS: u32 = 256;
/// Threads for the members of a node, which are few in most, and for the deaths of a moment.
const NODE: u32 = 128;

/// Loss, a scalar, and gradient, of the shape of the log risks.
pub(super) fn evaluate<T: Real>(
    gpu: Gpu,
    cox: &Cox,
    plan: &Plan,
    log_risk: &Tensor<T>,
) -> Result<(Tensor<T>, Tensor<T>)> {
    if plan.truncated {
        return evaluate_truncated(gpu, cox, plan, log_risk);
    }
    let layout = plan.layout.of(plan);
    let (table, weights) = (layout.table.on(gpu)?, layout.weights.as_ref().map(|w| w.on(gpu)).transpose()?);
    let (n, at_risk, moments) = (plan.len(), layout.at_risk, plan.moments.len());
    let one_block = n <= TILES * BLOCK as usize * ITEMS;
    let threads = if one_block { BLOCK } else { THREADS };
    let size = threads as usize * ITEMS;
    let tiles = if one_block { 0 } else { n.div_ceil(size) };
    let (mut loss, mut gradient) = (gpu.alloc(&[])?, gpu.alloc(log_risk.shape())?);
    let mut sums = gpu.alloc::<f64>(&[at_risk + 4 * moments + 4 * tiles])?;
    let mut exponents = gpu.alloc::<f32>(&[at_risk + 3 * moments + 4 * tiles])?;
    let (table, weights, divisor) = (&table, weights.as_ref(), cox.divisor(plan));
    let (s, e, g, l) = (&mut sums, &mut exponents, &mut gradient, &mut loss);
    let efron = u32::from(cox.ties == Ties::Efron);
    let (rows, a, m, t) = (n as u32, at_risk as u32, moments as u32, tiles as u32);
    // Two sums and an exponent a position.
    let bytes = size * (2 * size_of::<f64>() + size_of::<f32>());
    if one_block {
        let grid = Grid::new(1, BLOCK).shared(bytes);
        cox_block(gpu, grid, table, weights, log_risk, s, e, g, l, rows, a, m, t, efron, divisor)?;
        return Ok((loss, gradient));
    }
    let grid = Grid::new(tiles, THREADS).shared(bytes);
    cox_terms(gpu, grid, table, weights, log_risk, &mut *s, &mut *e, rows, a, m, t, efron)?;
    cox_risk_sets(gpu, grid, table, weights, log_risk, &mut *s, &mut *e, rows, a, m, t, efron)?;
    cox_charges(gpu, grid, table, weights, log_risk, &mut *s, &mut *e, rows, a, m, t, efron)?;
    cox_hazards(gpu, grid, table, weights, log_risk, &mut *s, &mut *e, rows, a, m, t, efron)?;
    let grid = Grid::over(n, THREADS as usize, THREADS);
    cox_gradient(gpu, grid, table, weights, log_risk, s, e, g, l, rows, a, m, t, efron, divisor)?;
    Ok((loss, gradient))
}

/// The same where patients enter late, so that some moments of the plan come before some entries.
fn evaluate_truncated<T: Real>(
    gpu: Gpu,
    cox: &Cox,
    plan: &Plan,
    log_risk: &Tensor<T>,
) -> Result<(Tensor<T>, Tensor<T>)> {
    let windows = plan.layout.windows(plan);
    let (table, weights) = (windows.table.on(gpu)?, windows.weights.as_ref().map(|w| w.on(gpu)).transpose()?);
    let (n, moments) = (plan.len(), plan.moments.len());
    let patients = Grid::over(n, THREADS as usize, THREADS);
    let tiles = n.div_ceil(THREADS as usize);
    let (mut loss, mut gradient) = (gpu.alloc(&[])?, gpu.alloc(log_risk.shape())?);
    // Of patients, and of the nodes of two trees, of the deaths of a moment and what they cost.
    let mut sums = gpu.alloc::<f64>(&[n + 7 * moments + tiles])?;
    let mut exponents = gpu.alloc::<f32>(&[n + 5 * moments])?;
    let (table, weights, divisor) = (&table, weights.as_ref(), cox.divisor(plan));
    let (s, e, efron) = (&mut sums, &mut exponents, u32::from(cox.ties == Ties::Efron));
    let (rows, m, c, t) = (n as u32, moments as u32, windows.members as u32, tiles as u32);
    cox_truncated_terms(gpu, patients, table, weights, log_risk, &mut *s, &mut *e, rows, m, c, t, efron)?;
    let nodes = Grid::new(3 * moments, NODE);
    cox_truncated_nodes(gpu, nodes, table, weights, log_risk, &mut *s, &mut *e, rows, m, c, t, efron)?;
    let deaths = Grid::new(moments, NODE);
    cox_truncated_moments(gpu, deaths, table, weights, log_risk, &mut *s, &mut *e, rows, m, c, t, efron)?;
    let tree = Grid::new(1, BLOCK);
    cox_truncated_tree(gpu, tree, table, weights, log_risk, &mut *s, &mut *e, rows, m, c, t, efron)?;
    let (g, l) = (&mut gradient, &mut loss);
    cox_truncated_gradient(gpu, patients, table, weights, log_risk, s, e, g, l, rows, m, c, t, efron, divisor)?;
    Ok((loss, gradient))
}

/// The gradient for what the loss is owed, a scalar.
pub(super) fn backward<T: Real>(gpu: Gpu, gradient: &Tensor<T>, grad: &Tensor<T>) -> Result<Tensor<T>> {
    let mut dx = gpu.alloc(gradient.shape())?;
    let n = gradient.len();
    cox_backward(gpu, Grid::over(n, THREADS as usize, THREADS), gradient, grad, &mut dx, n as u32)?;
    Ok(dx)
}
