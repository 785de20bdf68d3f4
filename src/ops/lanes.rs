//! Sums over a row in sixteen lanes: they vectorise, and their rounding grows with a sixteenth of the length.

use crate::element::Real;

const LANES: usize = 16;

/// `sum of f(x)` over a row.
#[inline]
pub(crate) fn sum<T: Real>(x: &[T], f: impl Fn(T) -> T) -> T {
    let (chunks, tail) = x.as_chunks::<LANES>();
    let mut lanes = [T::zero(); LANES];
    for chunk in chunks {
        for k in 0..LANES {
            lanes[k] += f(chunk[k]);
        }
    }
    for (lane, x) in lanes.iter_mut().zip(tail) {
        *lane += f(*x);
    }
    total(lanes)
}

/// `sum of f(x, y)` over two rows of one length.
#[inline]
pub(crate) fn sum2<T: Real>(x: &[T], y: &[T], f: impl Fn(T, T) -> T) -> T {
    let ((xs, x_tail), (ys, y_tail)) = (x.as_chunks::<LANES>(), y.as_chunks::<LANES>());
    let mut lanes = [T::zero(); LANES];
    for (x, y) in xs.iter().zip(ys) {
        for k in 0..LANES {
            lanes[k] += f(x[k], y[k]);
        }
    }
    for (lane, (x, y)) in lanes.iter_mut().zip(x_tail.iter().zip(y_tail)) {
        *lane += f(*x, *y);
    }
    total(lanes)
}

fn total<T: Real>(mut lanes: [T; LANES]) -> T {
    let mut half = LANES / 2;
    while half > 0 {
        for k in 0..half {
            lanes[k] += lanes[k + half];
        }
        half /= 2;
    }
    lanes[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_element_is_counted_once_at_any_length() {
        for n in 0..70u32 {
            // Small whole numbers: any order of summation is exact.
            let x: Vec<f32> = (1..=n).map(|i| i as f32).collect();
            let y: Vec<f32> = x.iter().map(|x| x + 1.0).collect();
            assert_eq!(sum(&x, |x| 2.0 * x), (n * (n + 1)) as f32);
            assert_eq!(sum2(&x, &y, |x, y| y - x), n as f32);
        }
    }
}
