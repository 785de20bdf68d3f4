//! Which patients are trained on together, epoch by epoch.

use crate::model::Batching;
use crate::rng::Draws;

/// One epoch: every patient once, in batches that hold about the same share of events.
///
/// Patients with and without event are shuffled apart and dealt in proportion, because the Cox loss of a batch without
/// event is 0 and teaches nothing. The order depends on seed and epoch alone.
///
/// `event` and `patches` have one entry a patient; the batches hold indices into them.
pub fn epoch(batching: Batching, seed: u64, number: u32, event: &[bool], patches: &[usize]) -> Vec<Vec<usize>> {
    let batches = batching.cut(deal(seed, number, event), patches);
    debug_assert_eq!(batches.iter().map(Vec::len).sum::<usize>(), event.len());
    batches
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
}
