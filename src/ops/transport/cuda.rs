//! Transport on a CUDA device.

use super::Transport;
use crate::device::{Gpu, Grid, In, Out, kernels};
use crate::element::Real;
use crate::error::Result;
use crate::shape::Ragged;
use crate::tensor::Tensor;

kernels! { "transport":
    /// The least element of each row.
    fn transport_least(x: In<f32> = rows * columns, least: Out<f32> = rows, rows: u32, columns: u32);
    /// The cost of each patch and each gene token of its patient.
    fn transport_cost(patches: In<f32> = n * columns, patch_least: In<f32> = n, genes: In<f32> = g * columns,
        gene_least: In<f32> = g, patch_offset: In<u32> = bags + 1, gene_offset: In<u32> = bags + 1,
        cost: Out<f32> = n * width, n: u32, g: u32, bags: u32, columns: u32, width: u32);
    /// The plan of each bag.
    fn transport_solve(cost: In<f32> = n * width, patch_offset: In<u32> = bags + 1, gene_offset: In<u32> = bags + 1,
        u: Out<f32> = n, plan: Out<f32> = n * width, n: u32, bags: u32, width: u32, reg: f32, power: f32, tolerance: f32,
        iterations: u32);
    /// The patches of each tile, weighed.
    fn transport_tiles(patches: In<f32> = n * columns, plan: In<f32> = n * width, patch_offset: In<u32> = bags + 1,
        parts: Out<f32> = (n / TILE + bags) * width * columns, n: u32, bags: u32, columns: u32, width: u32);
    /// The sum of the tiles of each bag.
    fn transport_join(parts: In<f32> = tiles * width * columns, patch_offset: In<u32> = bags + 1,
        gene_offset: In<u32> = bags + 1, out: Out<f32> = g * columns, tiles: u32, g: u32, bags: u32, columns: u32, width: u32);
    /// What part of the plan of its bag each patch has.
    fn transport_weights(plan: In<f32> = n * width, patch_offset: In<u32> = bags + 1, weights: Out<f32> = n, n: u32, bags: u32,
        width: u32);
    /// The gradient of the patches.
    fn transport_backward(grad: In<f32> = g * columns, plan: In<f32> = n * width, patch_offset: In<u32> = bags + 1,
        gene_offset: In<u32> = bags + 1, dx: Out<f32> = n * columns, n: u32, g: u32, bags: u32, columns: u32, width: u32);
    /// What is owed to the logarithms of the plan.
    fn transport_owed(grad: In<f32> = g * columns, patches: In<f32> = n * columns, plan: In<f32> = n * width,
        patch_offset: In<u32> = bags + 1, gene_offset: In<u32> = bags + 1, owed: Out<f32> = n * width, n: u32, g: u32, bags: u32,
        columns: u32, width: u32);
    /// What is owed to the costs of each bag, and its sums for each gene token.
    fn transport_adjoint(cost: In<f32> = n * width, plan: In<f32> = n * width, patch_least: In<f32> = n,
        patch_offset: In<u32> = bags + 1, gene_offset: In<u32> = bags + 1, rows: Out<f32> = 3 * n, owed: Out<f32> = n * width,
        of_genes: Out<f32> = 2 * g, n: u32, g: u32, bags: u32, width: u32, reg: f32, power: f32, steps: u32);
    /// Adds what goes through the costs to the gradient of the patches.
    fn transport_patches(patches: In<f32> = n * columns, genes: In<f32> = g * columns, patch_least: In<f32> = n,
        gene_least: In<f32> = g, owed: In<f32> = n * width, patch_offset: In<u32> = bags + 1, gene_offset: In<u32> = bags + 1,
        dx: Out<f32> = n * columns, n: u32, g: u32, bags: u32, columns: u32, width: u32);
    /// Adds what goes through the costs to the gradient of the gene tokens.
    fn transport_genes(genes: In<f32> = g * columns, gene_least: In<f32> = g, sums: In<f32> = g * columns, of_genes: In<f32> = 2 * g,
        dy: Out<f32> = g * columns, g: u32, columns: u32);
}

/// Patches of a tile, as in the kernels.
const TILE: usize = 512;

pub(super) fn forward<T: Real>(
    gpu: Gpu,
    op: &Transport,
    [genes, patches]: [&Tensor<T>; 2],
    bags: &[Ragged; 2],
) -> Result<(Tensor<T>, Tensor<T>)> {
    let (n, width) = (bags[1].rows(), bags[0].longest());
    let (gene_offset, patch_offset) = (bags[0].on(gpu)?, bags[1].on(gpu)?);
    let (b, w) = (bags[0].bags() as u32, width as u32);
    let mut plan = gpu.alloc(&[n, width])?;
    {
        let (p, q) = (&patch_offset, &gene_offset);
        let Costs { cost, .. } = costs(gpu, [genes, patches], bags)?;
        let grid = Grid::new(bags[0].bags(), 256).shared(width * size_of::<f32>());
        let (reg, power, tolerance) = (op.reg as f32, op.power() as f32, op.tolerance as f32);
        let mut u = gpu.alloc::<T>(&[n])?;
        transport_solve(
            gpu,
            grid,
            &cost,
            p,
            q,
            &mut u,
            &mut plan,
            n as u32,
            b,
            w,
            reg,
            power,
            tolerance,
            op.iterations,
        )?;
    }
    Ok((weighed(gpu, patches, &plan, bags)?, plan))
}

/// The costs of a batch, and the least element of each token.
struct Costs<T> {
    cost: Tensor<T>,
    of_genes: Tensor<T>,
    of_patches: Tensor<T>,
}

fn costs<T: Real>(gpu: Gpu, [genes, patches]: [&Tensor<T>; 2], bags: &[Ragged; 2]) -> Result<Costs<T>> {
    let ((n, columns), g, width) = (patches.matrix(), bags[0].rows(), bags[0].longest());
    let least = |x: &Tensor<T>| -> Result<Tensor<T>> {
        let (rows, columns) = x.matrix();
        let mut least = gpu.alloc(&[rows])?;
        transport_least(gpu, Grid::over(rows, 8, 256), x, &mut least, rows as u32, columns as u32)?;
        Ok(least)
    };
    let (of_patches, of_genes, mut cost) = (least(patches)?, least(genes)?, gpu.alloc::<T>(&[n, width])?);
    let (p, q) = (bags[1].on(gpu)?, bags[0].on(gpu)?);
    let [n, g, b, c, w] = [n, g, bags[0].bags(), columns, width].map(|n| n as u32);
    let grid = Grid::over(bags[1].rows(), 8, 256);
    transport_cost(gpu, grid, patches, &of_patches, genes, &of_genes, &p, &q, &mut cost, n, g, b, c, w)?;
    Ok(Costs { cost, of_genes, of_patches })
}

/// The patches of each bag, weighed by each column of a plan.
fn weighed<T: Real>(gpu: Gpu, patches: &Tensor<T>, plan: &Tensor<T>, bags: &[Ragged; 2]) -> Result<Tensor<T>> {
    let ((n, columns), (g, width)) = (patches.matrix(), (bags[0].rows(), bags[0].longest()));
    let (gene_offset, patch_offset) = (bags[0].on(gpu)?, bags[1].on(gpu)?);
    let (b, c, w) = (bags[0].bags() as u32, columns as u32, width as u32);
    let tiles = n / TILE + bags[1].bags();
    let (mut parts, mut out) = (gpu.alloc::<T>(&[tiles * width, columns])?, gpu.alloc(&[g, columns])?);
    let grid = Grid::new(tiles, 128).times(columns.div_ceil(128));
    transport_tiles(gpu, grid, patches, plan, &patch_offset, &mut parts, n as u32, b, c, w)?;
    let grid = Grid::over(g * columns, 256, 256);
    transport_join(gpu, grid, &parts, &patch_offset, &gene_offset, &mut out, tiles as u32, g as u32, b, c, w)?;
    Ok(out)
}

/// Adds what goes through the plan to the gradient of the patches, and gives that of the gene tokens.
pub(super) fn through<T: Real>(
    gpu: Gpu,
    op: &Transport,
    [genes, patches]: [&Tensor<T>; 2],
    bags: &[Ragged; 2],
    plan: &Tensor<T>,
    grad: &Tensor<T>,
    dx: &mut Tensor<T>,
) -> Result<Tensor<T>> {
    let ((count, columns), rows, width) = (patches.matrix(), bags[0].rows(), plan.matrix().1);
    let Costs { cost, of_genes, of_patches } = costs(gpu, [genes, patches], bags)?;
    let (q, p) = (bags[0].on(gpu)?, bags[1].on(gpu)?);
    let [n, g, b, c, w] = [count, rows, bags[0].bags(), columns, width].map(|n| n as u32);
    let mut owed = gpu.alloc::<T>(&[count, width])?;
    transport_owed(gpu, Grid::over(count, 8, 256), grad, patches, plan, &p, &q, &mut owed, n, g, b, c, w)?;
    let (mut scratch, mut sums) = (gpu.alloc::<T>(&[3 * count])?, gpu.alloc::<T>(&[2 * rows])?);
    let grid = Grid::new(bags[0].bags(), 256).shared(3 * width * size_of::<f32>());
    let (reg, power, steps) = (op.reg as f32, op.power() as f32, op.steps_back(1e-8));
    transport_adjoint(
        gpu,
        grid,
        &cost,
        plan,
        &of_patches,
        &p,
        &q,
        &mut scratch,
        &mut owed,
        &mut sums,
        n,
        g,
        b,
        w,
        reg,
        power,
        steps,
    )?;
    let grid = Grid::over(count, 8, 256);
    transport_patches(gpu, grid, patches, genes, &of_patches, &of_genes, &owed, &p, &q, dx, n, g, b, c, w)?;
    let (weighed, mut dy) = (weighed(gpu, patches, &owed, bags)?, gpu.zeros(genes.shape())?);
    transport_genes(gpu, Grid::over(rows, 8, 256), genes, &of_genes, &weighed, &sums, &mut dy, g, c)?;
    Ok(dy)
}

pub(super) fn weights<T: Real>(gpu: Gpu, plan: &Tensor<T>, bags: &Ragged) -> Result<Tensor<T>> {
    let ((n, width), mut weights) = (plan.matrix(), gpu.alloc(&[bags.rows(), 1])?);
    let (grid, b) = (Grid::new(bags.bags(), 256), bags.bags() as u32);
    transport_weights(gpu, grid, plan, &bags.on(gpu)?, &mut weights, n as u32, b, width as u32)?;
    Ok(weights)
}

pub(super) fn backward<T: Real>(gpu: Gpu, plan: &Tensor<T>, bags: &[Ragged; 2], grad: &Tensor<T>) -> Result<Tensor<T>> {
    let ((n, width), (g, columns)) = (plan.matrix(), grad.matrix());
    let (gene_offset, patch_offset, mut dx) = (bags[0].on(gpu)?, bags[1].on(gpu)?, gpu.alloc(&[n, columns])?);
    let (grid, b, c, w) = (Grid::over(n * columns, 256, 256), bags[0].bags() as u32, columns as u32, width as u32);
    transport_backward(gpu, grid, grad, plan, &patch_offset, &gene_offset, &mut dx, n as u32, g as u32, b, c, w)?;
    Ok(dx)
}
