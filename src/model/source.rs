//! Where batches come from, how they are composed, and predictions over them.

use super::{Batch, Model, Output};
use crate::element::Real;
use crate::error::{Error, Result};
use crate::nn::{Noise, Params, Pass};
use crate::tape::Tape;
use crate::tensor::Tensor;

/// Patients in an order of their own, given as batches of inputs.
pub trait Source<T> {
    /// The number of patients.
    fn patients(&self) -> usize;

    /// The patches of patient `p`, to compose batches by; 0 without slides.
    fn patches(&self, p: usize) -> usize;

    /// Says what will be asked for next: each of these batches in order, all of them `passes` times. A source that has to
    /// fetch them may begin; one that is asked for something else gives that.
    ///
    /// # Errors
    /// A device that does not answer.
    fn upcoming(&self, _batches: &[Vec<usize>], _passes: usize, _noise: Option<Noise>) -> Result<()> {
        Ok(())
    }

    /// Says which batch the next announcement but one will begin with, or the next if all that was announced is under
    /// way: it is fetched when nothing else is left to fetch. Best said before [`upcoming`](Self::upcoming).
    fn then(&self, _batch: &[usize], _noise: Option<Noise>) {}

    /// An error of a pass over the last batch, in the words of who knows its patients.
    fn explain(&self, error: Error) -> Error {
        error
    }

    /// The inputs of some patients, in that order. With `noise` this is training, and a modality may be hidden.
    ///
    /// # Errors
    /// A file that cannot be read any more.
    fn batch(&self, patients: &[usize], noise: Option<Noise>) -> Result<Batch<T>>;
}

/// How patients are put together in batches.
#[derive(Clone, Copy, Debug)]
pub struct Batching {
    /// Patients in a batch, at most.
    pub patients: usize,
    /// Patches in a batch, at most, unless one patient alone has more.
    pub patches: usize,
}

impl Batching {
    /// Cuts an order of patients where a batch is full of patients or of patches, which have one entry a patient.
    pub fn cut(self, order: Vec<usize>, patches: &[usize]) -> Vec<Vec<usize>> {
        // Even batches: 65 patients in batches of at most 64 are 33 and 32, not 64 and 1.
        let count = order.len().div_ceil(self.patients).max(1);
        let size = order.len().div_ceil(count);
        let (mut batches, mut batch, mut held) = (Vec::new(), Vec::new(), 0);
        for i in order {
            if !batch.is_empty() && (batch.len() == size || held + patches[i] > self.patches) {
                batches.push(std::mem::take(&mut batch));
                held = 0;
            }
            batch.push(i);
            held += patches[i];
        }
        if !batch.is_empty() {
            batches.push(batch);
        }
        batches
    }

    /// The first batch of [`predict_all`] over these patients of a source; none without patients.
    pub(crate) fn first<T>(self, source: &impl Source<T>, patients: &[usize]) -> Option<Vec<usize>> {
        let patches: Vec<usize> = patients.iter().map(|&p| source.patches(p)).collect();
        let first = self.in_order(&patches).into_iter().next()?;
        Some(first.into_iter().map(|i| patients[i]).collect())
    }

    /// All patients in their order, cut: for evaluation.
    pub fn in_order(self, patches: &[usize]) -> Vec<Vec<usize>> {
        self.cut((0..patches.len()).collect(), patches)
    }
}

/// What the model gives for some patients, keeping nothing; with `noise` in a training pass, and with `weighing` also how much
/// each patch counts, of every model that weighs them. Everything that is told of a prediction, its attention too, comes from
/// here.
///
/// # Errors
/// A batch that cannot be read.
pub fn forward<T: Real>(
    model: &Model<T>,
    params: &Params<T>,
    source: &impl Source<T>,
    patients: &[usize],
    noise: Option<Noise>,
    weighing: bool,
) -> Result<Output<T>> {
    let batch = source.batch(patients, noise)?;
    let tape = Tape::inference(params.device());
    let pass = Pass::new(&tape, params, noise);
    model.forward(&if weighing { pass.weighing() } else { pass }, &batch)
}

/// The predictions for some patients, `[n, K]`, of a [`forward`] pass.
///
/// # Errors
/// A batch that cannot be read.
pub fn predict<T: Real>(
    model: &Model<T>,
    params: &Params<T>,
    source: &impl Source<T>,
    patients: &[usize],
    noise: Option<Noise>,
) -> Result<Tensor<T>> {
    Ok(forward(model, params, source, patients, noise, false)?.prediction.value().clone())
}

/// The batches of some patients in their order, which the source is told of.
pub(super) fn announced<T>(source: &impl Source<T>, patients: &[usize], batching: Batching) -> Result<Vec<Vec<usize>>> {
    let patches: Vec<usize> = patients.iter().map(|&p| source.patches(p)).collect();
    let named = |batch: Vec<usize>| batch.into_iter().map(|i| patients[i]).collect();
    let batches: Vec<Vec<usize>> = batching.in_order(&patches).into_iter().map(named).collect();
    source.upcoming(&batches, 1, None)?;
    Ok(batches)
}

/// The predictions for many patients, `[n, K]` in their order, batch by batch, in evaluation.
///
/// # Errors
/// A batch that cannot be read.
pub fn predict_all<T: Real>(
    model: &Model<T>,
    params: &Params<T>,
    source: &impl Source<T>,
    patients: &[usize],
    batching: Batching,
) -> Result<Vec<T>> {
    let mut all = Vec::new();
    for batch in announced(source, patients, batching)? {
        let prediction = predict(model, params, source, &batch, None).and_then(|prediction| prediction.read());
        all.extend(prediction.map_err(|error| source.explain(error))?);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_closes_before_it_has_too_many_patches_and_a_huge_patient_is_alone() {
        let patches = [10, 10, 90, 5, 5, 5];
        let batches = Batching { patients: 6, patches: 20 }.in_order(&patches);
        assert_eq!(batches, [vec![0, 1], vec![2], vec![3, 4, 5]]);
    }

    #[test]
    fn batches_are_even_and_no_patient_gives_no_batch() {
        let batching = Batching { patients: 4, patches: usize::MAX };
        assert_eq!(batching.in_order(&[0; 5]), [vec![0, 1, 2], vec![3, 4]]);
        assert!(batching.in_order(&[]).is_empty());
    }
}
