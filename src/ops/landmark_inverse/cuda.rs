//! The inverse between landmarks on a CUDA device.

use super::{Dims, Kept, LandmarkInverse, Task, squares};
use crate::device::{Gpu, Grid, In, Out, kernels};
use crate::element::Real;
use crate::error::Result;
use crate::tensor::Tensor;

kernels! { "landmark_inverse":
    /// A product of squares or rows of each task, around a diagonal and another square.
    fn landmark_inverse_product(a: In<f32> = a_size, b: In<f32> = b_size, other: Option<In<f32>> = squares, table: In<u32> = 4 * tasks,
        to: Out<f32> = to_size, a_size: u32, b_size: u32, squares: u32, tasks: u32, to_size: u32, width: u32, d: u32, a_is: u32,
        b_is: u32, to_rows: u32, diagonal: f32, factor: f32, part: f32, add: u32);
    /// The softmax of each row of scores.
    fn landmark_inverse_softmax(table: In<u32> = 4 * tasks, a: Out<f32> = squares, tasks: u32, squares: u32, scale: f32);
    /// The largest sum of a column of each task, and which column has it.
    fn landmark_inverse_columns(a: In<f32> = squares, table: In<u32> = 4 * tasks, largest: Out<f32> = tasks,
        which: Out<u32> = tasks, squares: u32, tasks: u32);
    /// The first inverse.
    fn landmark_inverse_start(a: In<f32> = squares, table: In<u32> = 4 * tasks, largest: In<f32> = tasks, z: Out<f32> = squares,
        squares: u32, tasks: u32, together: u32);
    /// What is owed to the divisor of the first inverse.
    fn landmark_inverse_owed(z: In<f32> = squares, dz: In<f32> = squares, table: In<u32> = 4 * tasks, largest: In<f32> = tasks,
        owed: Out<f32> = tasks, squares: u32, tasks: u32, together: u32);
    /// The gradient of scores.
    fn landmark_inverse_scores(a: In<f32> = squares, dz: In<f32> = squares, table: In<u32> = 4 * tasks, largest: In<f32> = tasks,
        which: In<u32> = tasks, owed: In<f32> = tasks, da: Out<f32> = squares, squares: u32, tasks: u32, together: u32, scale: f32);
}

const THREADS: u32 = 256;

/// Rows and columns of a result that a block calculates.
const TILE: usize = 64;

/// How a factor is read.
#[derive(Clone, Copy)]
enum Is {
    Square,
    SquareT,
    Rows,
    RowsT,
}

impl Is {
    fn flags(self) -> u32 {
        match self {
            Is::Square => 0,
            Is::Rows => 1,
            Is::SquareT => 2,
            Is::RowsT => 3,
        }
    }
}

/// What is done with a product: `diagonal I + factor a b + part other`, set or added.
struct Around<'a, T> {
    diagonal: f32,
    factor: f32,
    other: Option<(f32, &'a Tensor<T>)>,
    add: bool,
}

impl<T> Around<'_, T> {
    /// The product, `factor` times.
    fn times(factor: f32) -> Self {
        Around { diagonal: 0.0, factor, other: None, add: false }
    }

    /// The product, added.
    fn added() -> Self {
        Around { diagonal: 0.0, factor: 1.0, other: None, add: true }
    }
}

/// The launches of all tasks of an op.
struct Launch<T> {
    gpu: Gpu,
    table: Tensor<u32>,
    dims: Dims<T>,
    tasks: usize,
    squares: usize,
    /// The most landmarks of a task.
    most: usize,
}

impl<T: Real> Launch<T> {
    fn new(gpu: Gpu, dims: Dims<T>, tasks: &[Task]) -> Result<Launch<T>> {
        let squares = squares(tasks);
        // Elements are counted in 32 bits; that many would be 16 GiB a square.
        assert!(u32::try_from(squares).is_ok(), "more than 2^32 - 1 pairs of landmarks in one batch");
        let row = |t: &Task| [t.landmarks(), t.rows.start, t.head, t.at].map(|n| n as u32);
        let table = gpu.upload(&[tasks.len(), 4], &tasks.iter().flat_map(row).collect::<Vec<_>>())?;
        let most = tasks.iter().map(Task::landmarks).max().unwrap_or(0);
        Ok(Launch { gpu, table, dims, tasks: tasks.len(), squares, most })
    }

    fn square(&self) -> Result<Tensor<T>> {
        self.gpu.alloc(&[self.squares])
    }

    /// A product whose result is a square, or rows.
    fn product(
        &self,
        (to, rows): (&mut Tensor<T>, bool),
        (a, a_is): (&Tensor<T>, Is),
        (b, b_is): (&Tensor<T>, Is),
        around: Around<'_, T>,
    ) -> Result<()> {
        let across = if rows { self.dims.d } else { self.most }.div_ceil(TILE);
        let grid = Grid::new(self.tasks, THREADS).times(self.most.div_ceil(TILE) * across);
        let [a_size, b_size, to_size] = [a.len(), b.len(), to.len()].map(|n| n as u32);
        let [squares, tasks, width, d] = [self.squares, self.tasks, self.dims.width, self.dims.d].map(|n| n as u32);
        let (part, other) = around.other.map_or((0.0, None), |(part, other)| (part, Some(other)));
        let (a_is, b_is, rows, add) = (a_is.flags(), b_is.flags(), u32::from(rows), u32::from(around.add));
        let (diagonal, factor) = (around.diagonal, around.factor);
        landmark_inverse_product(
            self.gpu,
            grid,
            a,
            b,
            other,
            &self.table,
            to,
            a_size,
            b_size,
            squares,
            tasks,
            to_size,
            width,
            d,
            a_is,
            b_is,
            rows,
            diagonal,
            factor,
            part,
            add,
        )
    }

    /// One of squares alone.
    fn squared(
        &self,
        to: &mut Tensor<T>,
        a: (&Tensor<T>, Is),
        b: (&Tensor<T>, Is),
        around: Around<'_, T>,
    ) -> Result<()> {
        self.product((to, false), a, b, around)
    }

    /// `P = A Z`, `U = 15 I - 7 P + P P` and `W = 13 I - P U`.
    fn polynomial(&self, a: &Tensor<T>, z: &Tensor<T>, [p, u, w]: [&mut Tensor<T>; 3]) -> Result<()> {
        self.squared(p, (a, Is::Square), (z, Is::Square), Around::times(1.0))?;
        let around = Around { diagonal: 15.0, other: Some((-7.0, p)), ..Around::times(1.0) };
        self.squared(u, (p, Is::Square), (p, Is::Square), around)?;
        let around = Around { diagonal: 13.0, ..Around::times(-1.0) };
        self.squared(w, (p, Is::Square), (u, Is::Square), around)
    }

    /// A block a task and so many rows.
    fn over_rows(&self, rows: usize) -> Grid {
        Grid::new(self.tasks, THREADS).times(self.most.div_ceil(rows))
    }
}

pub(super) fn forward<T: Real>(
    op: &LandmarkInverse,
    gpu: Gpu,
    dims: Dims<T>,
    tasks: &[Task],
    [q, k, v]: &[Tensor<T>; 3],
) -> Result<(Tensor<T>, Kept<T>)> {
    let l = Launch::new(gpu, dims, tasks)?;
    let [n, s, together] = [tasks.len() as u32, l.squares as u32, u32::from(op.together)];
    let mut softmax = l.square()?;
    l.squared(&mut softmax, (q, Is::Rows), (k, Is::RowsT), Around::times(1.0))?;
    landmark_inverse_softmax(gpu, l.over_rows(8), &l.table, &mut softmax, n, s, dims.scale.f64() as f32)?;
    let (mut largest, mut column) = (gpu.alloc(&[tasks.len()])?, gpu.alloc(&[tasks.len()])?);
    let each = Grid::new(tasks.len(), THREADS);
    landmark_inverse_columns(gpu, each, &softmax, &l.table, &mut largest, &mut column, s, n)?;
    let mut z = l.square()?;
    landmark_inverse_start(gpu, l.over_rows(32), &softmax, &l.table, &largest, &mut z, s, n, together)?;
    let mut inverse = vec![z];
    let (mut p, mut u, mut w) = (l.square()?, l.square()?, l.square()?);
    for t in 0..op.iterations {
        l.polynomial(&softmax, &inverse[t], [&mut p, &mut u, &mut w])?;
        let mut next = l.square()?;
        l.squared(&mut next, (&inverse[t], Is::Square), (&w, Is::Square), Around::times(0.25))?;
        inverse.push(next);
    }
    let mut y = gpu.alloc(q.shape())?;
    l.product((&mut y, true), (&inverse[op.iterations], Is::Square), (v, Is::Rows), Around::times(1.0))?;
    Ok((y, Kept { softmax, inverse, largest, column }))
}

pub(super) fn backward<T: Real>(
    op: &LandmarkInverse,
    gpu: Gpu,
    dims: Dims<T>,
    tasks: &[Task],
    [q, k, v]: &[Tensor<T>; 3],
    kept: &Kept<T>,
    grad: &Tensor<T>,
) -> Result<[Tensor<T>; 3]> {
    use Is::{Rows, RowsT, Square, SquareT};
    let l = Launch::new(gpu, dims, tasks)?;
    let [n, s, together] = [tasks.len() as u32, l.squares as u32, u32::from(op.together)];
    let rows = || gpu.alloc(q.shape());
    let (mut dq, mut dk, mut dv) = (rows()?, rows()?, rows()?);
    l.product((&mut dv, true), (&kept.inverse[op.iterations], SquareT), (grad, Rows), Around::times(1.0))?;
    let a = &kept.softmax;
    let mut g = l.square()?;
    l.squared(&mut g, (grad, Rows), (v, RowsT), Around::times(1.0))?;
    let mut da = gpu.zeros(&[l.squares])?;
    {
        let (mut p, mut u, mut w) = (l.square()?, l.square()?, l.square()?);
        let (mut dw, mut du, mut dp, mut next) = (l.square()?, l.square()?, l.square()?, l.square()?);
        for z in kept.inverse[..op.iterations].iter().rev() {
            l.polynomial(a, z, [&mut p, &mut u, &mut w])?;
            l.squared(&mut dw, (z, SquareT), (&g, Square), Around::times(0.25))?;
            l.squared(&mut next, (&g, Square), (&w, SquareT), Around::times(0.25))?;
            l.squared(&mut du, (&p, SquareT), (&dw, Square), Around::times(-1.0))?;
            let around = Around { other: Some((-7.0, &du)), ..Around::times(-1.0) };
            l.squared(&mut dp, (&dw, Square), (&u, SquareT), around)?;
            l.squared(&mut dp, (&du, Square), (&p, SquareT), Around::added())?;
            l.squared(&mut dp, (&p, SquareT), (&du, Square), Around::added())?;
            l.squared(&mut da, (&dp, Square), (z, SquareT), Around::added())?;
            l.squared(&mut next, (a, SquareT), (&dp, Square), Around::added())?;
            std::mem::swap(&mut g, &mut next);
        }
    }
    let mut owed: Tensor<T> = gpu.alloc(&[tasks.len()])?;
    let (each, scale) = (Grid::new(tasks.len(), THREADS), dims.scale.f64() as f32);
    landmark_inverse_owed(gpu, each, &kept.inverse[0], &g, &l.table, &kept.largest, &mut owed, s, n, together)?;
    let (largest, which) = (&kept.largest, &kept.column);
    landmark_inverse_scores(
        gpu,
        l.over_rows(8),
        a,
        &g,
        &l.table,
        largest,
        which,
        &owed,
        &mut da,
        s,
        n,
        together,
        scale,
    )?;
    l.product((&mut dq, true), (&da, Square), (k, Rows), Around::times(1.0))?;
    l.product((&mut dk, true), (&da, SquareT), (q, Rows), Around::times(1.0))?;
    Ok([dq, dk, dv])
}
