//! Attention of gene and patch tokens on a CUDA device.

use super::{Attended, Both, Dims};
use crate::device::{Gpu, Grid, In, Out, kernels};
use crate::element::Real;
use crate::error::Result;
use crate::shape::Ragged;
use crate::tensor::Tensor;

kernels! { "pathway_attention":
    /// What the queries of each task attend to among its keys, and the logarithms of the sums of their exponentials.
    fn pathway_attention_forward(queries: In<f32> = n * q_step, keys: In<f32> = m * k_step,
        table: In<u32> = 5 * tasks, out: Out<f32> = rows * heads * d, log_sum: Out<f32> = rows * heads,
        n: u32, m: u32, tasks: u32, rows: u32, heads: u32, d: u32, q_step: u32, k_step: u32, k_at: u32, scale: f32);
    /// Rows out of what their parts of the keys gave.
    fn pathway_attention_join(parts: In<f32> = slots * heads * d, part_log: In<f32> = slots * heads, places: In<u32> = 3 * rows,
        out: Out<f32> = rows * heads * d, log_sum: Out<f32> = rows * heads, rows: u32, slots: u32, heads: u32, d: u32);
    /// The mean weight of each task's keys over its queries.
    fn pathway_attention_weights(queries: In<f32> = n * q_step, keys: In<f32> = m * k_step, table: In<u32> = 5 * tasks,
        log_sum: In<f32> = n * heads, weights: Out<f32> = m * heads, n: u32, m: u32, tasks: u32, heads: u32, d: u32,
        q_step: u32, k_step: u32, k_at: u32, scale: f32);
    /// The product of each row with its gradient.
    fn pathway_attention_dot(out: In<f32> = rows * d, grad: In<f32> = rows * d, dot: Out<f32> = rows, rows: u32, d: u32);
    /// The gradient of the queries of each task over its keys.
    fn pathway_attention_queries(queries: In<f32> = n * q_step, keys: In<f32> = m * k_step,
        table: In<u32> = 5 * tasks, grad: In<f32> = n * heads * d, log_sum: In<f32> = n * heads, dot: In<f32> = n * heads,
        to: Out<f32> = rows * q_step, n: u32, m: u32, tasks: u32, rows: u32, heads: u32, d: u32, q_step: u32, k_step: u32,
        k_at: u32, scale: f32);
    /// The gradient of the keys and values of each task over its queries.
    fn pathway_attention_keys(queries: In<f32> = n * q_step, keys: In<f32> = m * k_step,
        table: In<u32> = 5 * tasks, grad: In<f32> = n * heads * d, log_sum: In<f32> = n * heads, dot: In<f32> = n * heads,
        to: Out<f32> = rows * k_step, n: u32, m: u32, tasks: u32, rows: u32, heads: u32, d: u32, q_step: u32, k_step: u32,
        k_at: u32, scale: f32);
    /// The sum of the parts of each row.
    fn pathway_attention_sum(parts: In<f32> = slots * columns, places: In<u32> = 3 * rows, to: Out<f32> = rows * columns,
        rows: u32, slots: u32, columns: u32);
}

/// Rows of a block, and its threads.
const ROWS: usize = 32;
const THREADS: u32 = 128;

/// Columns of a head that a block writes: more have a block each.
const SLICE: usize = 128;

/// Blocks for so many tasks, each of which keeps so many matrices of rows: their tiles, one of the other side, one of weights.
fn grid(dims: Dims, tasks: usize, kept: usize) -> Grid {
    let slices = dims.d.div_ceil(SLICE);
    let floats = (kept * slices + 1) * ROWS * (SLICE + 4) + ROWS * (ROWS + 1);
    Grid::new(tasks, THREADS).times(dims.heads * slices).shared(floats * size_of::<f32>())
}

/// Patches that a block goes through, of a bag of so many: more blocks for a longer bag, up to 64 for a tile of gene tokens.
fn chunk(patches: usize) -> usize {
    patches.div_ceil(64).next_multiple_of(ROWS).max(512)
}

/// Queries that a block goes through for the gradient of keys, where there may be many of them.
const QUERIES: usize = 1024;

/// Rows of a side and rows of the other that a block reads, and the first row of what it writes.
#[derive(Default)]
struct Table(Vec<u32>);

impl Table {
    /// Blocks for all of `rows`, each over all of `others`; results lie one after another from `result` on.
    fn push(&mut self, rows: std::ops::Range<usize>, others: &std::ops::Range<usize>, result: usize) {
        for first in rows.clone().step_by(ROWS) {
            let count = ROWS.min(rows.end - first);
            let task = [first, count, others.start, others.len(), result + first - rows.start];
            self.0.extend(task.map(|n| n as u32));
        }
    }

    fn len(&self) -> usize {
        self.0.len() / 5
    }
}

/// Who does what. Gene tokens are written in parts: the first among themselves unless they are guided, then one a chunk of
/// patches. So are the gradients of patches where gene tokens are queries alone: one a piece of these.
#[derive(Default)]
struct Tables {
    /// Gene tokens over gene tokens, gene tokens over patches, patches over gene tokens.
    genes: Table,
    genes_over_patches: Table,
    patches: Table,
    /// Of each gene token the first part, the distance to the next, and how many.
    places: Vec<u32>,
    /// Parts of all gene tokens.
    slots: usize,
    /// The same of patches; if each has one part, no places: they are in their order.
    patch_places: Vec<u32>,
    patch_slots: usize,
}

impl Tables {
    fn new(dims: Dims, bags: &Both<Ragged>) -> Tables {
        let mut t = Tables::default();
        let (among, cut) = (usize::from(!dims.guided), dims.guided && bags[0].longest() > QUERIES);
        for (genes, patches) in bags[0].iter().zip(bags[1].iter()) {
            let size = chunk(patches.len());
            let chunks = patches.len().div_ceil(size);
            if !dims.guided {
                t.genes.push(genes.clone(), &genes, t.slots);
            }
            let pieces = if dims.guided { genes.len().div_ceil(QUERIES).max(1) } else { 1 };
            for i in 0..pieces {
                let first = genes.start + i * QUERIES;
                let of = if pieces == 1 { genes.clone() } else { first..(first + QUERIES).min(genes.end) };
                t.patches.push(patches.clone(), &of, t.patch_slots + i * patches.len());
            }
            if cut {
                let place = |row: usize| [t.patch_slots + row, patches.len(), pieces].map(|n| n as u32);
                t.patch_places.extend((0..patches.len()).flat_map(place));
            }
            t.patch_slots += pieces * patches.len();
            for i in 0..chunks {
                let of = patches.start + i * size..(patches.start + (i + 1) * size).min(patches.end);
                t.genes_over_patches.push(genes.clone(), &of, t.slots + (i + among) * genes.len());
            }
            for row in 0..genes.len() {
                t.places.extend([t.slots + row, genes.len(), chunks + among].map(|n| n as u32));
            }
            t.slots += (chunks + among) * genes.len();
        }
        // Rows are counted in 32 bits; that many would be terabytes.
        assert!(u32::try_from(t.slots.max(t.patch_slots)).is_ok(), "more than 2^32 - 1 rows in one batch");
        t
    }
}

pub(super) fn forward<T: Real>(
    gpu: Gpu,
    dims: Dims,
    packed: &Both<Tensor<T>>,
    bags: &Both<Ragged>,
) -> Result<Attended<T>> {
    let (tables, [width, patch_width], heads) = (Tables::new(dims, bags), dims.results(), dims.heads);
    let (h, d, scale) = (heads as u32, dims.d as u32, dims.scale::<f32>());
    let (steps, k_at) = (dims.steps().map(|n| n as u32), dims.keys() as u32);
    let matrix = |rows: usize, width: usize| -> Result<_> {
        Ok((gpu.alloc::<T>(&[rows, width])?, gpu.alloc::<T>(&[rows, width / dims.d.max(1)])?))
    };
    let attend = |of: usize, to: usize, table: &Table, out: &mut (Tensor<T>, Tensor<T>)| {
        let (n, m, tasks) = (bags[of].rows() as u32, bags[to].rows() as u32, table.len());
        let (rows, grid) = (out.0.matrix().0 as u32, grid(dims, tasks, 1));
        let table = gpu.upload(&[tasks, 5], &table.0)?;
        let (out, log_sum) = (&mut out.0, &mut out.1);
        let (q, k, t, [qs, ks]) = (&packed[of], &packed[to], tasks as u32, [steps[of], steps[to]]);
        pathway_attention_forward(gpu, grid, q, k, &table, out, log_sum, n, m, t, rows, h, d, qs, ks, k_at, scale)
    };
    let (mut parts, mut genes) = (matrix(tables.slots, width)?, matrix(bags[0].rows(), width)?);
    let mut patches = matrix(bags[1].rows(), patch_width)?;
    attend(0, 1, &tables.genes_over_patches, &mut parts)?;
    if !dims.guided {
        attend(0, 0, &tables.genes, &mut parts)?;
        attend(1, 0, &tables.patches, &mut patches)?;
    }
    let places = gpu.upload(&[bags[0].rows(), 3], &tables.places)?;
    let (rows, slots) = (bags[0].rows() as u32, tables.slots as u32);
    let grid = Grid::over(bags[0].rows() * heads, 8, 256);
    pathway_attention_join(gpu, grid, &parts.0, &parts.1, &places, &mut genes.0, &mut genes.1, rows, slots, h, d)?;
    Ok(Attended { out: [genes.0, patches.0], log_sum: [genes.1, patches.1] })
}

pub(super) fn weights<T: Real>(
    gpu: Gpu,
    dims: Dims,
    packed: Both<&Tensor<T>>,
    bags: Both<&Ragged>,
    log_sum: &Tensor<T>,
) -> Result<Tensor<T>> {
    let mut table = Table::default();
    for (genes, patches) in bags[0].iter().zip(bags[1].iter()) {
        table.push(patches.clone(), &genes, patches.start);
    }
    let (heads, tasks, [q_step, k_step]) = (dims.heads, table.len(), dims.steps().map(|n| n as u32));
    let mut weights = gpu.alloc(&[bags[1].rows(), heads])?;
    // All slices of a head are one block's: nothing is weighed, so that none has columns of its own.
    let floats = (dims.d.div_ceil(SLICE) + 1) * ROWS * (SLICE + 4);
    let grid = Grid::new(tasks, THREADS).times(heads).shared(floats * size_of::<f32>());
    let table = gpu.upload(&[tasks, 5], &table.0)?;
    let [n, m] = bags.map(|bags| bags.rows() as u32);
    let (h, d, k_at, scale) = (heads as u32, dims.d as u32, dims.keys() as u32, dims.scale::<f32>());
    let [q, k] = packed;
    let t = tasks as u32;
    pathway_attention_weights(
        gpu,
        grid,
        q,
        k,
        &table,
        log_sum,
        &mut weights,
        n,
        m,
        t,
        h,
        d,
        q_step,
        k_step,
        k_at,
        scale,
    )?;
    Ok(weights)
}

pub(super) fn backward<T: Real>(
    gpu: Gpu,
    dims: Dims,
    packed: &Both<Tensor<T>>,
    bags: &Both<Ragged>,
    kept: &Attended<T>,
    grads: &Both<Tensor<T>>,
) -> Result<Both<Tensor<T>>> {
    let (tables, heads) = (Tables::new(dims, bags), dims.heads);
    let (h, d, scale) = (heads as u32, dims.d as u32, dims.scale::<f32>());
    let (steps, k_at) = (dims.steps().map(|n| n as u32), dims.keys() as u32);
    let dot = |i: usize| -> Result<Tensor<T>> {
        let rows = kept.log_sum[i].len();
        let mut dot = gpu.alloc(&[rows])?;
        pathway_attention_dot(gpu, Grid::over(rows, 8, 256), &kept.out[i], &grads[i], &mut dot, rows as u32, d)?;
        Ok(dot)
    };
    let dots = [dot(0)?, dot(1)?];
    // The queries of `of`, the keys and values of `to`.
    let back = |of: usize, to: usize, keys: bool, table: &Table, result: &mut Tensor<T>| {
        let (n, m, tasks) = (bags[of].rows() as u32, bags[to].rows() as u32, table.len());
        let (rows, grid) = (result.matrix().0 as u32, grid(dims, tasks, 2));
        let table = gpu.upload(&[tasks, 5], &table.0)?;
        let launch = if keys { pathway_attention_keys } else { pathway_attention_queries };
        let (q, k, owed, t) = (&packed[of], &packed[to], (&grads[of], &kept.log_sum[of], &dots[of]), tasks as u32);
        let [qs, ks] = [steps[of], steps[to]];
        launch(gpu, grid, q, k, &table, owed.0, owed.1, owed.2, result, n, m, t, rows, h, d, qs, ks, k_at, scale)
    };
    let columns = steps[0];
    let (mut parts, mut patches) = (gpu.alloc::<T>(&[tables.slots, dims.steps()[0]])?, gpu.alloc(packed[1].shape())?);
    back(0, 1, false, &tables.genes_over_patches, &mut parts)?;
    if dims.guided && tables.patch_places.is_empty() {
        back(0, 1, true, &tables.patches, &mut patches)?;
    } else if dims.guided {
        let mut parts = gpu.alloc::<T>(&[tables.patch_slots, steps[1] as usize])?;
        back(0, 1, true, &tables.patches, &mut parts)?;
        let places = gpu.upload(&[bags[1].rows(), 3], &tables.patch_places)?;
        let (rows, grid) = (bags[1].rows() as u32, Grid::over(patches.len(), 256, 256));
        pathway_attention_sum(gpu, grid, &parts, &places, &mut patches, rows, tables.patch_slots as u32, steps[1])?;
    } else {
        back(0, 0, false, &tables.genes, &mut parts)?;
        back(1, 0, false, &tables.patches, &mut patches)?;
        // Keys of the first's rows, over the queries of the others: the same tables the other way round.
        back(0, 0, true, &tables.genes, &mut parts)?;
        back(1, 0, true, &tables.genes_over_patches, &mut parts)?;
        back(0, 1, true, &tables.patches, &mut patches)?;
    }
    let mut genes = gpu.alloc(packed[0].shape())?;
    let places = gpu.upload(&[bags[0].rows(), 3], &tables.places)?;
    let (rows, slots, grid) = (bags[0].rows(), tables.slots as u32, Grid::over(genes.len(), 256, 256));
    pathway_attention_sum(gpu, grid, &parts, &places, &mut genes, rows as u32, slots, columns)?;
    Ok([genes, patches])
}
