//! The entanglement in plain arithmetic, by which its suite measures errors, and tokens that tell what was drawn.

#![allow(unreachable_pub, reason = "shared by the suite")]

use onkos::ops::cade::{Bandwidth, Cade, Mixing, Statistics};
use onkos::{Ragged, Real, Tensor};

/// Mean and deviation of each row, with sums in the type itself.
fn plain_statistics<T: Real>(op: Cade, x: &Tensor<T>) -> Vec<[T; 2]> {
    let columns = x.matrix().1;
    let d = T::of(columns as f64);
    let one = |x: &[T]| {
        let mean = x.iter().copied().sum::<T>() / d;
        let square = x.iter().map(|x| (*x - mean) * (*x - mean)).sum::<T>();
        [mean, (square / (d - T::one()) + T::of(op.eps)).sqrt()]
    };
    x.host().chunks_exact(columns).map(one).collect()
}

fn far<T: Real>(a: [T; 2], b: [T; 2]) -> T {
    (a[0] - b[0]) * (a[0] - b[0]) + (a[1] - b[1]) * (a[1] - b[1])
}

/// The width of the kernel over the donors `ys` with these weights.
fn plain_width<T: Real>(op: Cade, ys: &[[T; 2]], weight: &[T]) -> T {
    match op.bandwidth {
        Bandwidth::None => T::zero(),
        Bandwidth::Fixed(h) => T::of(h),
        Bandwidth::Relative(c) => {
            let alive: Vec<[T; 2]> = (0..ys.len()).filter(|j| weight[*j] > T::zero()).map(|j| ys[j]).collect();
            let n = T::of(alive.len() as f64);
            let mean = [0, 1].map(|k| alive.iter().map(|y| y[k]).sum::<T>() / n);
            let mut squares: Vec<T> = alive.iter().map(|y| far(*y, mean)).collect();
            squares.sort_by(|a, b| a.partial_cmp(b).unwrap());
            let middle = [squares[(squares.len() - 1) / 2], squares[squares.len() / 2]];
            T::of(c) * ((middle[0] + middle[1]) / T::of(2.0)).sqrt()
        }
    }
}

/// The weights of a kernel of width `h` at an anchor.
fn plain_weights<T: Real>(anchor: [T; 2], ys: &[[T; 2]], weight: &[T], h: T) -> Vec<T> {
    let nearest = (0..ys.len()).filter(|j| weight[*j] > T::zero()).map(|j| far(anchor, ys[j]));
    let nearest = nearest.fold(T::infinity(), T::min);
    let exponent = |j: usize| -(far(anchor, ys[j]) - nearest) / (T::of(2.0) * h * h);
    let w: Vec<T> = (0..ys.len()).map(|j| weight[j] * exponent(j).exp()).collect();
    let total = w.iter().copied().sum::<T>();
    w.iter().map(|w| *w / total).collect()
}

/// The formulas for both sets, with a full row of weights a receiver and every sum in the type itself: what they become
/// and, through the statistics, their gradients.
pub fn naive<T: Real>(
    op: Cade,
    x: [&Tensor<T>; 2],
    mixing: [&Mixing; 2],
    grad: [&Tensor<T>; 2],
) -> [[Tensor<T>; 2]; 2] {
    let columns = x[0].matrix().1;
    let d = T::of(columns as f64);
    let own = x.map(|x| if columns == 0 { Vec::new() } else { plain_statistics(op, x) });
    let (mut out, mut dx) = (x.map(Tensor::clone), grad.map(Tensor::clone));
    let mut owed = [0, 1].map(|k| vec![[T::zero(); 2]; own[k].len()]);
    let add = |to: &mut [T; 2], from: [T; 2]| *to = [to[0] + from[0], to[1] + from[1]];
    for k in [0, 1] {
        let mixing = mixing[k];
        for (bag, rows) in mixing.receivers().iter().enumerate().filter(|(bag, _)| mixing.active()[*bag]) {
            let donors = mixing.donors().bag(bag);
            let ys = &own[1 - k][donors.clone()];
            let weight: Vec<T> = donors.clone().map(|j| mixing.weight().map_or(T::one(), |w| T::of(w[j]))).collect();
            let h = plain_width(op, ys, &weight);
            for row in rows {
                let ([mean, deviation], at) = (own[k][row], row * columns..(row + 1) * columns);
                let (drawn, kappa) = (mixing.donor()[row] as usize, T::of(op.kappa));
                let anchor = [0, 1].map(|c| (T::one() - kappa) * ys[drawn][c] + kappa * own[k][row][c]);
                let w = if h == T::zero() {
                    (0..ys.len()).map(|j| if j == drawn { T::one() } else { T::zero() }).collect()
                } else {
                    plain_weights(anchor, ys, &weight, h)
                };
                let given = [0, 1].map(|c| w.iter().zip(ys).map(|(w, y)| *w * y[c]).sum::<T>());
                let lambda = T::of(mixing.lambda()[row]);
                let mixed = [0, 1].map(|c| lambda * own[k][row][c] + (T::one() - lambda) * given[c]);
                let slope = mixed[1] / deviation;
                let z: Vec<T> = x[k].host()[at.clone()].iter().map(|x| (*x - mean) / deviation).collect();
                let r = &grad[k].host()[at.clone()];
                let g = [r.iter().copied().sum::<T>(), r.iter().zip(&z).map(|(r, z)| *r * *z).sum::<T>()];
                for (i, (r, z)) in at.zip(r.iter().zip(&z)) {
                    out[k].host_mut()[i] = mixed[1] * *z + mixed[0];
                    dx[k].host_mut()[i] = match op.statistics {
                        Statistics::Detached => slope * *r,
                        Statistics::Differentiated => slope * (*r - g[0] / d - *z * g[1] / (d - T::one())),
                    };
                }
                add(&mut owed[k][row], g.map(|g| lambda * g));
                let rest = g.map(|g| (T::one() - lambda) * g);
                let mut to_anchor = [T::zero(); 2];
                for (j, (w, y)) in w.iter().zip(ys).enumerate() {
                    let off = [0, 1].map(|c| y[c] - given[c]);
                    let along =
                        if h == T::zero() { T::zero() } else { *w * (rest[0] * off[0] + rest[1] * off[1]) / (h * h) };
                    add(&mut owed[1 - k][donors.start + j], [0, 1].map(|c| *w * rest[c] + along * (anchor[c] - y[c])));
                    add(&mut to_anchor, [0, 1].map(|c| along * (y[c] - anchor[c])));
                }
                add(&mut owed[k][row], to_anchor.map(|x| kappa * x));
                add(&mut owed[1 - k][donors.start + drawn], to_anchor.map(|x| (T::one() - kappa) * x));
            }
        }
    }
    if op.statistics == Statistics::Differentiated {
        for k in [0, 1] {
            for (row, [a, b]) in owed[k].iter().enumerate() {
                let [mean, deviation] = own[k][row];
                for i in row * columns..(row + 1) * columns {
                    let z = (x[k].host()[i] - mean) / deviation;
                    let before = dx[k].host()[i];
                    dx[k].host_mut()[i] = before + *a / d + *b * z / (d - T::one());
                }
            }
        }
    }
    [out, dx]
}

/// Tokens whose mean is their place in their bag and whose deviation is that of all others: the mean of a mixed token
/// then tells its donor.
pub fn numbered<T: Real>(bags: &Ragged) -> Tensor<T> {
    let place = |row: usize| (row - bags.bag(bags.bag_of(row)).start) as f64;
    Tensor::from_fn(&[bags.rows(), 2], |i| T::of(place(i / 2) + if i % 2 == 0 { -1.0 } else { 1.0 }))
}
