//! CADE on a CUDA device.

use super::cuda_draws::Table;
use super::{Bandwidth, Cade};
use crate::device::{Gpu, Grid, In, Out, kernels};
use crate::element::Real;
use crate::error::Result;
use crate::shape::Ragged;
use crate::tensor::Tensor;

kernels! { "cade":
    /// Mean and deviation of each row of the bags that receive or give.
    fn cade_statistics(x: In<f32> = rows * columns, keep: Option<In<u8>> = rows, offset: In<u32> = bags + 1,
        receives: In<u8> = bags, gives: In<u8> = bags, own: Out<f32> = rows * 2, rows: u32, columns: u32, bags: u32,
        factor: f32, eps: f32);
    /// One set takes the statistics of its donors; without `receives` it passes, masked and scaled.
    fn cade_mix(x: In<f32> = rows * columns, keep: Option<In<u8>> = rows, offset: In<u32> = bags + 1,
        donor_offset: In<u32> = bags + 1, receives: Option<In<u8>> = bags, gives: Option<In<u8>> = bags,
        donor: Option<In<u32>> = rows, lambda: Option<In<f64>> = rows, donors: Option<In<f32>> = givers * 2,
        out: Out<f32> = rows * columns, own: Out<f32> = rows * 2, stretch: Out<f32> = rows, rows: u32, columns: u32,
        bags: u32, givers: u32, factor: f32, eps: f32);
    /// The same with a kernel over the donors, of one width or one a bag.
    fn cade_mix_smooth(x: In<f32> = rows * columns, keep: Option<In<u8>> = rows, offset: In<u32> = bags + 1,
        donor_offset: In<u32> = bags + 1, receives: In<u8> = bags, gives: In<u8> = bags, donor: In<u32> = rows,
        lambda: In<f64> = rows, donors: In<f32> = givers * 2, log_weight: Option<In<f32>> = givers,
        widths: Option<In<f32>> = bags, out: Out<f32> = rows * columns, own: Out<f32> = rows * 2,
        stretch: Out<f32> = rows, rows: u32, columns: u32, bags: u32, givers: u32, factor: f32, eps: f32, width: f32,
        kappa: f32);
    /// `relative` times how far the donors of each bag are spread.
    fn cade_spread(donors: In<f32> = rows * 2, offset: In<u32> = bags + 1, receives: In<u8> = bags,
        log_weight: Option<In<f32>> = rows, widths: Out<f32> = bags, rows: u32, bags: u32, relative: f32);
    /// The gradient of one set with its statistics taken as constants.
    fn cade_backward_detached(grad: In<f32> = rows * columns, keep: Option<In<u8>> = rows, stretch: In<f32> = rows,
        dx: Out<f32> = rows * columns, rows: u32, columns: u32, factor: f32);
    /// What the mixed statistics of each row are owed, and of that its own and its donor's.
    fn cade_receive(x: In<f32> = rows * columns, keep: Option<In<u8>> = rows, grad: In<f32> = rows * columns,
        offset: In<u32> = bags + 1, receives: In<u8> = bags, lambda: In<f64> = rows, own: In<f32> = rows * 2,
        given: Out<f32> = rows * 2, kept: Out<f32> = rows * 2, passed: Out<f32> = rows * 2, rows: u32, columns: u32,
        bags: u32, factor: f32);
    /// The same with a kernel; `told` is what all donors of the bag need to know of the row.
    fn cade_receive_smooth(x: In<f32> = rows * columns, keep: Option<In<u8>> = rows, grad: In<f32> = rows * columns,
        offset: In<u32> = bags + 1, donor_offset: In<u32> = bags + 1, receives: In<u8> = bags, donor: In<u32> = rows,
        lambda: In<f64> = rows, own: In<f32> = rows * 2, donors: In<f32> = givers * 2,
        log_weight: Option<In<f32>> = givers, widths: Option<In<f32>> = bags, given: Out<f32> = rows * 2,
        kept: Out<f32> = rows * 2, passed: Out<f32> = rows * 2, told: Out<f32> = rows * 12, rows: u32, columns: u32,
        bags: u32, givers: u32, factor: f32, width: f32, kappa: f32);
    /// What the statistics of each donor are owed.
    fn cade_donate(passed: In<f32> = rows * 2, told: Option<In<f32>> = rows * 12, donors: In<f32> = givers * 2,
        log_weight: Option<In<f32>> = givers, widths: Option<In<f32>> = bags, offset: In<u32> = bags + 1,
        donor_offset: In<u32> = bags + 1, receives: In<u8> = bags, begin: In<u32> = givers, times: In<u32> = givers,
        takers: In<u32> = rows, donated: Out<f32> = givers * 2, rows: u32, givers: u32, bags: u32, width: f32);
    /// From the gradients of the result and of the statistics to that of the tokens.
    fn cade_to_tokens(x: In<f32> = rows * columns, keep: Option<In<u8>> = rows, grad: In<f32> = rows * columns,
        offset: In<u32> = bags + 1, receives: In<u8> = bags, gives: In<u8> = bags, own: In<f32> = rows * 2,
        stretch: In<f32> = rows, given: In<f32> = rows * 2, kept: In<f32> = rows * 2, donated: In<f32> = rows * 2,
        dx: Out<f32> = rows * columns, rows: u32, columns: u32, bags: u32, factor: f32);
}

/// Warps of a block, each with a row.
const WARPS: usize = 8;
const THREADS: u32 = 32 * WARPS as u32;
/// Numbers that the donors are told of a receiver: `FOUND` in the kernels.
const FOUND: usize = 12;

/// One set of tokens as it enters.
pub(super) struct Tokens<'a, T> {
    pub(super) x: &'a Tensor<T>,
    pub(super) bags: &'a Ragged,
    /// Which are kept, and what those are multiplied by.
    pub(super) keep: Option<&'a Tensor<u8>>,
    pub(super) factor: f64,
}

impl<T: Real> Tokens<'_, T> {
    fn rows(&self) -> usize {
        self.bags.rows()
    }

    fn grid(&self) -> Grid {
        Grid::over(self.rows(), WARPS, THREADS)
    }

    fn sizes(&self) -> (u32, u32, u32) {
        (self.rows() as u32, self.x.matrix().1 as u32, self.bags.bags() as u32)
    }
}

/// What the backward pass knows of one set: statistics and stretch of its rows, the widths of the kernels over its
/// donors.
pub(super) struct Known {
    own: Tensor<f32>,
    stretch: Tensor<f32>,
    widths: Option<Tensor<f32>>,
}

/// Both directions. Without tables nothing mixes.
pub(super) fn forward<T: Real>(
    gpu: Gpu,
    op: &Cade,
    x: [&Tokens<'_, T>; 2],
    tables: Option<&[Table; 2]>,
) -> Result<[(Tensor<T>, Known); 2]> {
    let Some(tables) = tables else { return Ok([pass(gpu, x[0], x[1])?, pass(gpu, x[1], x[0])?]) };
    // The smaller set is read twice; the larger one's statistics come out of its own visit.
    let small = usize::from(x[1].rows() < x[0].rows());
    let donors = statistics(gpu, op, x[small], &tables[small].active, &tables[1 - small].active)?;
    let large = mix(gpu, op, [x[1 - small], x[small]], [&tables[1 - small], &tables[small]], &donors)?;
    let small_result = mix(gpu, op, [x[small], x[1 - small]], [&tables[small], &tables[1 - small]], &large.1.own)?;
    Ok(if small == 0 { [small_result, large] } else { [large, small_result] })
}

fn statistics<T: Real>(
    gpu: Gpu,
    op: &Cade,
    x: &Tokens<'_, T>,
    receives: &Tensor<u8>,
    gives: &Tensor<u8>,
) -> Result<Tensor<f32>> {
    let (mut own, offset, (rows, columns, bags)) = (gpu.alloc(&[x.rows(), 2])?, x.bags.on(gpu)?, x.sizes());
    let (factor, eps) = (x.factor as f32, op.eps as f32);
    cade_statistics(gpu, x.grid(), x.x, x.keep, &offset, receives, gives, &mut own, rows, columns, bags, factor, eps)?;
    Ok(own)
}

/// Masked and scaled, not mixed.
fn pass<T: Real>(gpu: Gpu, x: &Tokens<'_, T>, others: &Tokens<'_, T>) -> Result<(Tensor<T>, Known)> {
    let (mut out, mut own, mut stretch) = results(gpu, x)?;
    let (offset, donor_offset, (rows, columns, bags)) = (x.bags.on(gpu)?, others.bags.on(gpu)?, x.sizes());
    let (nobody, none, factor) = (None::<&Tensor<u8>>, None::<&Tensor<u32>>, x.factor as f32);
    cade_mix(
        gpu,
        x.grid(),
        x.x,
        x.keep,
        &offset,
        &donor_offset,
        nobody,
        nobody,
        none,
        None::<&Tensor<f64>>,
        None::<&Tensor<f32>>,
        &mut out,
        &mut own,
        &mut stretch,
        rows,
        columns,
        bags,
        others.rows() as u32,
        factor,
        0.0,
    )?;
    Ok((out, Known { own, stretch, widths: None }))
}

fn results<T: Real>(gpu: Gpu, x: &Tokens<'_, T>) -> Result<(Tensor<T>, Tensor<f32>, Tensor<f32>)> {
    Ok((gpu.alloc(x.x.shape())?, gpu.alloc(&[x.rows(), 2])?, gpu.alloc(&[x.rows()])?))
}

/// The width of the kernel over donors: one for all, or one a bag; `None` if each receiver takes its one donor.
fn width(
    gpu: Gpu,
    op: &Cade,
    donors: &Tensor<f32>,
    bags: &Ragged,
    table: &Table,
) -> Result<Option<(f32, Option<Tensor<f32>>)>> {
    Ok(match op.bandwidth {
        Bandwidth::None | Bandwidth::Fixed(0.0) => None,
        Bandwidth::Fixed(h) => Some((h as f32, None)),
        Bandwidth::Relative(c) => {
            let (n, rows, mut widths) = (bags.bags(), bags.rows() as u32, gpu.alloc(&[bags.bags()])?);
            let (offset, log_weight) = (bags.on(gpu)?, table.log_weight.as_ref());
            let (grid, active) = (Grid::new(n, 512), &table.active);
            cade_spread(gpu, grid, donors, &offset, active, log_weight, &mut widths, rows, n as u32, c as f32)?;
            Some((0.0, Some(widths)))
        }
    })
}

/// One direction: the first of `x` and of the tables receives.
fn mix<T: Real>(
    gpu: Gpu,
    op: &Cade,
    [x, others]: [&Tokens<'_, T>; 2],
    [table, back]: [&Table; 2],
    donors: &Tensor<f32>,
) -> Result<(Tensor<T>, Known)> {
    let (mut out, mut own, mut stretch) = results(gpu, x)?;
    let (offset, donor_offset, (rows, columns, bags)) = (x.bags.on(gpu)?, others.bags.on(gpu)?, x.sizes());
    let (givers, factor, eps) = (others.rows() as u32, x.factor as f32, op.eps as f32);
    let Some((width, widths)) = width(gpu, op, donors, others.bags, table)? else {
        cade_mix(
            gpu,
            x.grid(),
            x.x,
            x.keep,
            &offset,
            &donor_offset,
            Some(&table.active),
            Some(&back.active),
            Some(&table.donor),
            Some(&table.lambda),
            Some(donors),
            &mut out,
            &mut own,
            &mut stretch,
            rows,
            columns,
            bags,
            givers,
            factor,
            eps,
        )?;
        return Ok((out, Known { own, stretch, widths: None }));
    };
    cade_mix_smooth(
        gpu,
        x.grid(),
        x.x,
        x.keep,
        &offset,
        &donor_offset,
        &table.active,
        &back.active,
        &table.donor,
        &table.lambda,
        donors,
        table.log_weight.as_ref(),
        widths.as_ref(),
        &mut out,
        &mut own,
        &mut stretch,
        rows,
        columns,
        bags,
        givers,
        factor,
        eps,
        width,
        op.kappa as f32,
    )?;
    Ok((out, Known { own, stretch, widths }))
}

/// The gradient of one set with its statistics taken as constants.
pub(super) fn backward_detached<T: Real>(
    gpu: Gpu,
    keep: Option<&Tensor<u8>>,
    factor: f64,
    known: &Known,
    grad: &Tensor<T>,
) -> Result<Tensor<T>> {
    let ((rows, columns), mut dx) = (grad.matrix(), gpu.alloc(grad.shape())?);
    let (grid, n, d, factor) = (Grid::over(rows, WARPS, THREADS), rows as u32, columns as u32, factor as f32);
    cade_backward_detached(gpu, grid, grad, keep, &known.stretch, &mut dx, n, d, factor)?;
    Ok(dx)
}

/// What the rows of one set are owed as receivers, and their donors through them.
struct Owed {
    given: Tensor<f32>,
    kept: Tensor<f32>,
    donated: Tensor<f32>,
}

/// The gradients of both sets through everything but shares and bandwidth.
pub(super) fn backward_full<T: Real>(
    gpu: Gpu,
    op: &Cade,
    x: [&Tokens<'_, T>; 2],
    tables: &[Table; 2],
    known: [&Known; 2],
    grad: [&Tensor<T>; 2],
) -> Result<[Tensor<T>; 2]> {
    let one = |k: usize| owed(gpu, op, [x[k], x[1 - k]], &tables[k], [known[k], known[1 - k]], grad[k]);
    let owed = [one(0)?, one(1)?];
    let one = |k: usize| -> Result<Tensor<T>> {
        let (x, known, owed, donated) = (x[k], known[k], &owed[k], &owed[1 - k].donated);
        let (mut dx, offset, (rows, columns, bags)) = (gpu.alloc(x.x.shape())?, x.bags.on(gpu)?, x.sizes());
        cade_to_tokens(
            gpu,
            x.grid(),
            x.x,
            x.keep,
            grad[k],
            &offset,
            &tables[k].active,
            &tables[1 - k].active,
            &known.own,
            &known.stretch,
            &owed.given,
            &owed.kept,
            donated,
            &mut dx,
            rows,
            columns,
            bags,
            x.factor as f32,
        )?;
        Ok(dx)
    };
    Ok([one(0)?, one(1)?])
}

fn owed<T: Real>(
    gpu: Gpu,
    op: &Cade,
    [x, others]: [&Tokens<'_, T>; 2],
    table: &Table,
    [known, donors]: [&Known; 2],
    grad: &Tensor<T>,
) -> Result<Owed> {
    let pairs = || gpu.alloc::<f32>(&[x.rows(), 2]);
    let (mut given, mut kept, mut passed) = (pairs()?, pairs()?, pairs()?);
    let (offset, donor_offset, (rows, columns, bags)) = (x.bags.on(gpu)?, others.bags.on(gpu)?, x.sizes());
    let (givers, factor, kappa) = (others.rows() as u32, x.factor as f32, op.kappa as f32);
    let (log_weight, widths) = (table.log_weight.as_ref(), known.widths.as_ref());
    let (width, smooth) = match op.bandwidth {
        Bandwidth::None | Bandwidth::Fixed(0.0) => (0.0, false),
        Bandwidth::Fixed(h) => (h as f32, true),
        Bandwidth::Relative(_) => (0.0, true),
    };
    let mut told = None;
    if smooth {
        let told = told.insert(gpu.alloc::<f32>(&[x.rows(), FOUND])?);
        cade_receive_smooth(
            gpu,
            x.grid(),
            x.x,
            x.keep,
            grad,
            &offset,
            &donor_offset,
            &table.active,
            &table.donor,
            &table.lambda,
            &known.own,
            &donors.own,
            log_weight,
            widths,
            &mut given,
            &mut kept,
            &mut passed,
            told,
            rows,
            columns,
            bags,
            givers,
            factor,
            width,
            kappa,
        )?;
    } else {
        cade_receive(
            gpu,
            x.grid(),
            x.x,
            x.keep,
            grad,
            &offset,
            &table.active,
            &table.lambda,
            &known.own,
            &mut given,
            &mut kept,
            &mut passed,
            rows,
            columns,
            bags,
            factor,
        )?;
    }
    let mut donated = gpu.alloc::<f32>(&[others.rows(), 2])?;
    let takers = table.takers.as_ref().expect("made for gradients through statistics");
    cade_donate(
        gpu,
        others.grid(),
        &passed,
        told.as_ref(),
        &donors.own,
        log_weight,
        widths,
        &offset,
        &donor_offset,
        &table.active,
        &takers.begin,
        &takers.times,
        &takers.list,
        &mut donated,
        rows,
        givers,
        bags,
        width,
    )?;
    Ok(Owed { given, kept, donated })
}
