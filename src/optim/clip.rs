//! Keeping one bad batch from throwing the parameters far away.

use rayon::prelude::*;

use crate::element::Real;
use crate::tensor::Tensor;

/// Elements whose squares are summed by one task; the sums are added in order, whatever the number of threads.
const CHUNK: usize = 1 << 14;

/// Scales all gradients by one factor so that their common Euclidean norm is at most `max`, and gives the norm that
/// they had. Norms up to `max` are left alone.
///
/// A norm that is not finite is given back and nothing is scaled, for there is no factor that would help: the caller
/// decides whether to skip the step or to stop. The factor is `max / norm`; PyTorch's is `max / (norm + 1e-6)`.
pub fn clip_global_norm<T: Real>(grads: &mut [Option<Tensor<T>>], max: f64) -> f64 {
    let square = |chunk: &[T]| chunk.iter().map(|g| g.f64() * g.f64()).sum::<f64>();
    let mut sum = 0.0;
    for grad in grads.iter().flatten() {
        let squares: Vec<f64> = grad.host().par_chunks(CHUNK).map(square).collect();
        sum += squares.iter().sum::<f64>();
    }
    let norm = sum.sqrt();
    if norm > max && norm.is_finite() {
        let factor = max / norm;
        for grad in grads.iter_mut().flatten() {
            grad.host_mut().par_chunks_mut(CHUNK).for_each(|chunk| {
                chunk.iter_mut().for_each(|g| *g = T::of(g.f64() * factor));
            });
        }
    }
    norm
}
