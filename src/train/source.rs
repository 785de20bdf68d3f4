//! Where batches come from.

use crate::error::Result;
use crate::model::Batch;
use crate::nn::Noise;

/// Patients in an order of their own, given as batches of inputs.
pub trait Source<T> {
    /// The number of patients.
    fn patients(&self) -> usize;

    /// The patches of patient `p`, to compose batches by; 0 without slides.
    fn patches(&self, p: usize) -> usize;

    /// The inputs of some patients, in that order. With `noise` this is training, and a modality may be hidden.
    ///
    /// # Errors
    /// A file that cannot be read any more.
    fn batch(&self, patients: &[usize], noise: Option<Noise>) -> Result<Batch<T>>;
}
