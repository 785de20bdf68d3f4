//! The discrete-time likelihood on the CPU: patient by patient, loss and gradient together.

use super::NllSurvival;
use crate::element::Real;
use crate::ops::activation::sigmoid;

/// The loss of each patient and its gradient, before the reduction.
pub(super) fn evaluate<T: Real>(
    op: &NllSurvival,
    bins: usize,
    logits: &[T],
    bin: &[u32],
    censored: &[bool],
) -> (Vec<f64>, Vec<f64>) {
    let mut gradient = vec![0.0; logits.len()];
    let loss = |(b, (&y, &censored)): (usize, (&u32, &bool))| {
        let (row, y) = (b * bins..(b + 1) * bins, y as usize);
        let logit = |k: usize| logits[row.start + k].f64();
        let gradient = &mut gradient[row.clone()];
        // Until its end if censored in the interval, until its start if dead.
        let (survived, weight) = if censored { (y + 1, 1.0 - op.alpha) } else { (y, 1.0) };
        let (mut loss, slope) = negative_log((0..survived).map(|k| sigmoid(-logit(k))).product(), op.eps);
        if slope {
            (0..survived).for_each(|k| gradient[k] = weight * sigmoid(logit(k)));
        }
        if !censored {
            let (death, slope) = negative_log(sigmoid(logit(y)), op.eps);
            loss += death;
            if slope {
                gradient[y] = -sigmoid(-logit(y));
            }
        }
        weight * loss
    };
    let losses = bin.iter().zip(censored).enumerate().map(loss).collect();
    (losses, gradient)
}

/// `-log max(factor, eps)`, and whether it depends on the factor. NaN stays NaN, in the gradient too.
fn negative_log(factor: f64, eps: f64) -> (f64, bool) {
    if factor < eps { (-eps.ln(), false) } else { (-factor.ln(), true) }
}

/// The running products of `1 - h` of each patient.
pub(super) fn survival<T: Real>(bins: usize, logits: &[T]) -> Vec<f64> {
    let mut alive = 1.0;
    let after = |(i, logit): (usize, &T)| {
        if i % bins == 0 {
            alive = 1.0;
        }
        alive *= sigmoid(-logit.f64());
        alive
    };
    logits.iter().enumerate().map(after).collect()
}
