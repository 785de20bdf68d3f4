//! Which patients are trained on together, epoch by epoch.

use crate::rng::Draws;

/// How an epoch is cut into batches.
#[derive(Clone, Copy, Debug)]
pub struct Batching {
    /// Patients in a batch, at most.
    pub patients: usize,
    /// Patches in a batch, at most, unless one patient alone has more.
    pub patches: usize,
}

/// One epoch: every patient once, in batches that hold about the same share of events.
///
/// Patients with and without event are shuffled apart and dealt in proportion, because the Cox loss of a batch without
/// event is 0 and teaches nothing. The order depends on seed and epoch alone.
///
/// `event` and `patches` have one entry a patient; the batches hold indices into them.
pub fn epoch(batching: Batching, seed: u64, number: u32, event: &[bool], patches: &[usize]) -> Vec<Vec<usize>> {
    let batches = close(batching, deal(seed, number, event), patches);
    debug_assert_eq!(batches.iter().map(Vec::len).sum::<usize>(), event.len());
    batches
}

/// The patients in the order of the cohort, in batches: for evaluation, where the order does not matter.
pub fn in_order(batching: Batching, patches: &[usize]) -> Vec<Vec<usize>> {
    close(batching, (0..patches.len()).collect(), patches)
}

/// A shuffled order in which the events are spread evenly.
fn deal(seed: u64, number: u32, event: &[bool]) -> Vec<usize> {
    let order = Draws::new(seed, number, "order").of(0).permutation(event.len());
    // The k-th of n in its group takes the place (k + 1/2) / n of the epoch; ties go by the shuffled order.
    let totals = [event.iter().filter(|e| !**e).count(), event.iter().filter(|e| **e).count()];
    let mut seen = [0usize; 2];
    let mut placed: Vec<(f64, usize)> = order
        .into_iter()
        .map(|i| {
            let group = usize::from(event[i as usize]);
            seen[group] += 1;
            ((seen[group] as f64 - 0.5) / totals[group] as f64, i as usize)
        })
        .collect();
    placed.sort_by(|a, b| a.0.total_cmp(&b.0));
    placed.into_iter().map(|(_, i)| i).collect()
}

/// Cuts an order where a batch is full of patients or of patches.
fn close(batching: Batching, order: Vec<usize>, patches: &[usize]) -> Vec<Vec<usize>> {
    // Even batches: 65 patients in batches of at most 64 are 33 and 32, not 64 and 1.
    let count = order.len().div_ceil(batching.patients).max(1);
    let size = order.len().div_ceil(count);
    let (mut batches, mut batch, mut held) = (Vec::new(), Vec::new(), 0);
    for i in order {
        if !batch.is_empty() && (batch.len() == size || held + patches[i] > batching.patches) {
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

#[cfg(test)]
mod tests {
    use super::*;

    const WIDE: usize = usize::MAX;

    #[test]
    fn every_patient_comes_once_and_events_are_spread() {
        let event: Vec<bool> = (0..130).map(|i| i % 10 == 0).collect();
        let batches = epoch(Batching { patients: 26, patches: WIDE }, 1, 0, &event, &[0; 130]);
        let mut all: Vec<usize> = batches.concat();
        all.sort_unstable();
        assert_eq!(all, (0..130).collect::<Vec<_>>());
        for batch in &batches {
            let events = batch.iter().filter(|&&i| event[i]).count();
            assert!((2..=3).contains(&events), "13 events over 5 batches, got {events} in one");
        }
    }

    #[test]
    fn epochs_differ_and_one_epoch_is_always_the_same() {
        let (event, batching) = (vec![true; 50], Batching { patients: 8, patches: WIDE });
        let of = |number| epoch(batching, 3, number, &event, &[0; 50]);
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
    }

    #[test]
    fn a_batch_closes_before_it_has_too_many_patches_and_a_huge_patient_is_alone() {
        let patches = [10, 10, 90, 5, 5, 5];
        let batches = in_order(Batching { patients: 6, patches: 20 }, &patches);
        assert_eq!(batches, [vec![0, 1], vec![2], vec![3, 4, 5]]);
    }

    #[test]
    fn batches_are_even_and_no_patient_gives_no_batch() {
        assert_eq!(in_order(Batching { patients: 4, patches: WIDE }, &[0; 5]), [vec![0, 1, 2], vec![3, 4]]);
        assert!(in_order(Batching { patients: 4, patches: WIDE }, &[]).is_empty());
    }
}
