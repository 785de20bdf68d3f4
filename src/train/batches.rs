//! Which patients are trained on together, epoch by epoch.

use crate::model::Batching;
use crate::rng::Draws;

/// One epoch, in batches that hold about the same share of each kind of patient.
///
/// The kinds are shuffled apart and dealt in proportion, because the Cox loss of a batch without event is 0 and teaches
/// nothing. Every patient comes once, unless the kinds are `balanced`: then there are as many draws as patients and each
/// kind gets the same number of them, so that the patients of a rare kind come several times, each as often as the others
/// of its kind or once more, and some of a frequent kind wait for another epoch. The order depends on seed and epoch alone.
///
/// `kind` and `patches` have one entry a patient; the batches hold indices into them.
pub fn epoch<K: Copy + Ord>(
    batching: Batching,
    seed: u64,
    number: u32,
    kind: &[K],
    balanced: bool,
    patches: &[usize],
) -> Vec<Vec<usize>> {
    let batches = batching.cut(deal(seed, number, kind, balanced), patches);
    debug_assert_eq!(batches.iter().map(Vec::len).sum::<usize>(), kind.len());
    batches
}

/// A shuffled order in which the kinds are spread evenly.
fn deal<K: Copy + Ord>(seed: u64, number: u32, kind: &[K], balanced: bool) -> Vec<usize> {
    let order = Draws::new(seed, number, "order").of(0).permutation(kind.len());
    let mut kinds = kind.to_vec();
    kinds.sort_unstable();
    kinds.dedup();
    let group = |i: usize| kinds.partition_point(|k| *k < kind[i]);
    let mut totals = vec![0usize; kinds.len()];
    if balanced {
        // The kinds that get one more than the others are the first.
        (0..kind.len()).for_each(|draw| totals[draw % kinds.len()] += 1);
    } else {
        (0..kind.len()).for_each(|i| totals[group(i)] += 1);
    }
    // The k-th of n in its kind takes the place (k + 1/2) / n of the epoch; ties go by the shuffled order.
    let mut seen = vec![0usize; kinds.len()];
    let mut placed: Vec<(f64, usize)> = Vec::with_capacity(kind.len());
    for i in order.iter().cycle().map(|&i| i as usize) {
        if placed.len() == kind.len() {
            break;
        }
        let group = group(i);
        if seen[group] < totals[group] {
            seen[group] += 1;
            placed.push(((seen[group] as f64 - 0.5) / totals[group] as f64, i));
        }
    }
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
        let batches = epoch(Batching { patients: 26, patches: WIDE }, 1, 0, &event, false, &[0; 130]);
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
        let of = |number| epoch(batching, 3, number, &event, false, &[0; 50]);
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
    }

    #[test]
    fn balanced_kinds_come_equally_often_and_so_do_the_patients_of_one_kind() {
        // 6 of one kind, 30 of another, 64 of a third.
        let kind: Vec<u8> = (0..100).map(|i| if i < 6 { 0 } else { 1 + u8::from(i >= 36) }).collect();
        let all: Vec<usize> = epoch(Batching { patients: 25, patches: WIDE }, 5, 2, &kind, true, &[0; 100]).concat();
        let mut times = [0usize; 100];
        all.iter().for_each(|&i| times[i] += 1);
        let of = |k: u8| (0..100).filter(move |&i| kind_of(i) == k).map(|i| times[i]).collect::<Vec<_>>();
        fn kind_of(i: usize) -> u8 {
            if i < 6 { 0 } else { 1 + u8::from(i >= 36) }
        }
        assert_eq!([0, 1, 2].map(|k| of(k).iter().sum::<usize>()), [34, 33, 33]);
        assert!(of(0).iter().all(|n| (5..=6).contains(n)), "{:?}", of(0));
        assert!(of(1).iter().all(|n| (1..=2).contains(n)), "{:?}", of(1));
        assert!(of(2).iter().all(|n| *n <= 1), "{:?}", of(2));
        for batch in all.chunks(25) {
            let rare = batch.iter().filter(|&&i| i < 6).count();
            assert!((8..=9).contains(&rare), "34 draws over 4 batches, got {rare} in one");
        }
    }
}
