//! The inverse between landmarks on the CPU: a task a bag and head, whose products are calculated one after another.

use rayon::prelude::*;

use super::{Dims, Kept, LandmarkInverse, Task, squares};
use crate::element::Real;
use crate::memory::zeroed;
use crate::ops::math;
use crate::ops::matmul::{Matrix, product_strided};
use crate::tensor::Tensor;

/// The squares of all tasks, each with its own.
fn shared_out<'a, T>(tasks: &[Task], squares: &'a mut [T]) -> Vec<&'a mut [T]> {
    let mut rest = squares;
    let mut pieces = Vec::with_capacity(tasks.len());
    for task in tasks {
        let (here, after) = rest.split_at_mut(task.landmarks() * task.landmarks());
        pieces.push(here);
        rest = after;
    }
    pieces
}

/// The square of a task among those of all.
fn square<'a, T: Real>(task: &Task, squares: &'a Tensor<T>) -> &'a [T] {
    &squares.host()[task.at..][..task.landmarks() * task.landmarks()]
}

/// The columns of a head of some rows.
fn rows_of<'a, T: Real>(dims: Dims<T>, task: &Task, x: &'a [T]) -> Matrix<'a, T> {
    let from = (task.rows.start * dims.width + task.head * dims.d).min(x.len());
    Matrix::strided(&x[from..], task.landmarks(), dims.d, dims.width)
}

/// Squares of one task, and the products between them.
struct Squares(usize);

impl Squares {
    fn of<'a, T: Real>(&self, x: &'a [T]) -> Matrix<'a, T> {
        Matrix::new(x, self.0, self.0)
    }

    /// `to = a b`, or `to += a b`.
    fn product<T: Real>(&self, to: &mut [T], a: Matrix<'_, T>, b: Matrix<'_, T>, add: bool) {
        product_strided(to, self.0, a, b, add);
    }

    /// Turns the product `x` into `diagonal I + factor x + part other`.
    fn around<T: Real>(&self, x: &mut [T], diagonal: f64, factor: f64, (part, other): (f64, &[T])) {
        let [diagonal, factor, part] = [diagonal, factor, part].map(T::of);
        x.iter_mut().zip(other).for_each(|(x, other)| *x = factor * *x + part * *other);
        x.iter_mut().step_by(self.0 + 1).for_each(|x| *x += diagonal);
    }

    /// `P = A Z`, `U = 15 I - 7 P + P P` and `W = 13 I - P U`.
    fn polynomial<T: Real>(&self, a: &[T], z: &[T], [p, u, w]: [&mut [T]; 3]) {
        self.product(p, self.of(a), self.of(z), false);
        self.product(u, self.of(p), self.of(p), false);
        self.around(u, 15.0, 1.0, (-7.0, p));
        self.product(w, self.of(p), self.of(u), false);
        self.around(w, 13.0, -1.0, (0.0, p));
    }
}

/// The softmax of a task, its largest sum of a column and the first column that has it.
fn softmax<T: Real>(dims: Dims<T>, task: &Task, q: &[T], k: &[T], a: &mut [T]) -> (T, u32) {
    let m = task.landmarks();
    product_strided(a, m, rows_of(dims, task, q), rows_of(dims, task, k).t(), false);
    let mut sums: Vec<T> = zeroed(m);
    for row in a.chunks_exact_mut(m) {
        let max = row.iter().copied().fold(T::neg_infinity(), T::max);
        row.iter_mut().for_each(|x| *x = (*x - max) * dims.scale);
        math::exp(row);
        let sum: T = row.iter().copied().sum();
        row.iter_mut().for_each(|x| *x /= sum);
        sums.iter_mut().zip(&*row).for_each(|(sum, x)| *sum += *x);
    }
    // A NaN is passed over here: it is in the softmax.
    let larger = |best: (T, u32), (column, sum): (usize, &T)| if *sum > best.0 { (*sum, column as u32) } else { best };
    sums.iter().enumerate().fold((T::neg_infinity(), 0), larger)
}

/// What the first inverse of each task is divided by.
fn divisors<T: Real>(op: &LandmarkInverse, largest: &[T]) -> Vec<T> {
    let most = largest.iter().copied().fold(T::neg_infinity(), T::max);
    largest.iter().map(|own| if op.together { most } else { *own }).collect()
}

pub(super) fn forward<T: Real>(
    op: &LandmarkInverse,
    dims: Dims<T>,
    tasks: &[Task],
    [q, k, v]: &[Tensor<T>; 3],
) -> (Tensor<T>, Kept<T>) {
    let mut softmaxes = Tensor::zeros(&[squares(tasks)]);
    let of_tasks = tasks.par_iter().zip(shared_out(tasks, softmaxes.host_mut()));
    let best: Vec<(T, u32)> = of_tasks.map(|(task, a)| softmax(dims, task, q.host(), k.host(), a)).collect();
    let (largest, column): (Vec<T>, Vec<u32>) = best.into_iter().unzip();
    let divisors = divisors(op, &largest);
    let mut inverse: Vec<Tensor<T>> = (0..=op.iterations).map(|_| Tensor::zeros(&[squares(tasks)])).collect();
    let mut of_tasks: Vec<Vec<&mut [T]>> = tasks.iter().map(|_| Vec::with_capacity(inverse.len())).collect();
    for z in &mut inverse {
        of_tasks.iter_mut().zip(shared_out(tasks, z.host_mut())).for_each(|(all, z)| all.push(z));
    }
    let each = tasks.par_iter().zip(of_tasks).zip(divisors);
    let results: Vec<Vec<T>> = each
        .map(|((task, mut z), divisor)| {
            let (m, s) = (task.landmarks(), Squares(task.landmarks()));
            let a = square(task, &softmaxes);
            for (i, row) in z[0].chunks_exact_mut(m).enumerate() {
                row.iter_mut().enumerate().for_each(|(j, z)| *z = a[j * m + i] / divisor);
            }
            let [mut p, mut u, mut w]: [Vec<T>; 3] = [(); 3].map(|()| zeroed(m * m));
            for t in 0..op.iterations {
                let (z, next) = z.split_at_mut(t + 1);
                s.polynomial(a, z[t], [&mut p, &mut u, &mut w]);
                s.product(next[0], s.of(z[t]), s.of(&w), false);
                next[0].iter_mut().for_each(|x| *x *= T::of(0.25));
            }
            let mut y = zeroed(m * dims.d);
            product_strided(&mut y, dims.d, s.of(z[op.iterations]), rows_of(dims, task, v.host()), false);
            y
        })
        .collect();
    let y = gathered(dims, tasks, q.shape(), results.iter());
    let largest = Tensor::from_fn(&[tasks.len()], |i| largest[i]);
    let column = Tensor::from_fn(&[tasks.len()], |i| column[i]);
    (y, Kept { softmax: softmaxes, inverse, largest, column })
}

/// The rows of all tasks, side by side.
fn gathered<'a, T: Real>(
    dims: Dims<T>,
    tasks: &[Task],
    shape: &[usize],
    of_tasks: impl Iterator<Item = &'a Vec<T>>,
) -> Tensor<T> {
    let mut all = Tensor::zeros(shape);
    let to = all.host_mut();
    for (task, rows) in tasks.iter().zip(of_tasks) {
        for (row, from) in task.rows.clone().zip(rows.chunks_exact(dims.d.max(1))) {
            to[row * dims.width + task.head * dims.d..][..dims.d].copy_from_slice(from);
        }
    }
    all
}

pub(super) fn backward<T: Real>(
    op: &LandmarkInverse,
    dims: Dims<T>,
    tasks: &[Task],
    [q, k, v]: &[Tensor<T>; 3],
    kept: &Kept<T>,
    grad: &Tensor<T>,
) -> [Tensor<T>; 3] {
    let divisors = divisors(op, kept.largest.host());
    // Of each task what is owed to its softmax but for the divisor, what is owed to that, and the gradient of its values.
    let through: Vec<(Vec<T>, T, Vec<T>)> = tasks
        .par_iter()
        .zip(&divisors)
        .map(|(task, divisor)| {
            let (m, s) = (task.landmarks(), Squares(task.landmarks()));
            let a = square(task, &kept.softmax);
            let rows = |x| rows_of(dims, task, x);
            let mut dv = zeroed(m * dims.d);
            product_strided(
                &mut dv,
                dims.d,
                s.of(square(task, &kept.inverse[op.iterations])).t(),
                rows(grad.host()),
                false,
            );
            let [mut p, mut u, mut w, mut dw, mut du, mut dp, mut g, mut next]: [Vec<T>; 8] =
                [(); 8].map(|()| zeroed(m * m));
            let mut da: Vec<T> = zeroed(m * m);
            s.product(&mut g, rows(grad.host()), rows(v.host()).t(), false);
            for t in (0..op.iterations).rev() {
                let z = square(task, &kept.inverse[t]);
                s.polynomial(a, z, [&mut p, &mut u, &mut w]);
                s.product(&mut dw, s.of(z).t(), s.of(&g), false);
                dw.iter_mut().for_each(|x| *x *= T::of(0.25));
                s.product(&mut next, s.of(&g), s.of(&w).t(), false);
                next.iter_mut().for_each(|x| *x *= T::of(0.25));
                s.product(&mut du, s.of(&p).t(), s.of(&dw), false);
                du.iter_mut().for_each(|x| *x = -*x);
                s.product(&mut dp, s.of(&dw), s.of(&u).t(), false);
                s.around(&mut dp, 0.0, -1.0, (-7.0, &du));
                s.product(&mut dp, s.of(&du), s.of(&p).t(), true);
                s.product(&mut dp, s.of(&p).t(), s.of(&du), true);
                s.product(&mut da, s.of(&dp), s.of(z).t(), true);
                s.product(&mut next, s.of(a).t(), s.of(&dp), true);
                std::mem::swap(&mut g, &mut next);
            }
            for (i, row) in da.chunks_exact_mut(m).enumerate() {
                row.iter_mut().enumerate().for_each(|(j, da)| *da += g[j * m + i] / *divisor);
            }
            let owed = -math::dot(&g, square(task, &kept.inverse[0])) / *divisor;
            (da, owed, dv)
        })
        .collect();
    let first = (0..tasks.len()).reduce(|a, b| if kept.largest.host()[b] > kept.largest.host()[a] { b } else { a });
    let all: T = through.iter().map(|of_task| of_task.1).sum();
    let owed = |task: usize| match op.together {
        true if Some(task) == first => all,
        true => T::zero(),
        false => through[task].1,
    };
    let of_scores: Vec<[Vec<T>; 2]> = tasks
        .par_iter()
        .enumerate()
        .map(|(i, task)| {
            let (m, s) = (task.landmarks(), Squares(task.landmarks()));
            let (mut ds, owed) = (through[i].0.clone(), owed(i));
            let column = kept.column.host()[i] as usize;
            let a = square(task, &kept.softmax);
            for (ds, a) in ds.chunks_exact_mut(m).zip(a.chunks_exact(m)) {
                ds[column] += owed;
                let dot = math::dot(ds, a);
                ds.iter_mut().zip(a).for_each(|(ds, a)| *ds = *a * (*ds - dot) * dims.scale);
            }
            let product = |a: Matrix<'_, T>, b: &Tensor<T>| {
                let mut to = zeroed(m * dims.d);
                product_strided(&mut to, dims.d, a, rows_of(dims, task, b.host()), false);
                to
            };
            [product(s.of(&ds), k), product(s.of(&ds).t(), q)]
        })
        .collect();
    [
        gathered(dims, tasks, q.shape(), of_scores.iter().map(|of| &of[0])),
        gathered(dims, tasks, k.shape(), of_scores.iter().map(|of| &of[1])),
        gathered(dims, tasks, v.shape(), through.iter().map(|of| &of.2)),
    ]
}
