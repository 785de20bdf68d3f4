//! Random numbers that depend on what they are for, and on nothing else.
//!
//! Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) turns a counter and a key
//! into four 32-bit words. onkos keys it with the seed and counts `[index, patient, epoch, purpose]`, so a draw has the
//! same bits whatever the order, the batch or the number of threads, and a backward pass draws a mask again instead of
//! keeping it. `kernels/philox.cuh` has the same function for the device.

use std::collections::HashSet;

/// One round multiplies by these; the key grows by those (the golden ratio and sqrt(3) - 1).
const MUL: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// Philox4x32 with ten rounds: four random words out of a counter and a key.
#[inline]
pub fn philox4x32(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let a = u64::from(MUL[0]) * u64::from(counter[0]);
        let b = u64::from(MUL[1]) * u64::from(counter[2]);
        counter = [(b >> 32) as u32 ^ counter[1] ^ key[0], b as u32, (a >> 32) as u32 ^ counter[3] ^ key[1], a as u32];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    counter
}

/// A 32-bit name: FNV-1a of a text. Names the purpose of a draw (`"sdir.patches"`) and a patient (the case id).
pub const fn name32(text: &str) -> u32 {
    continue_name(0x811C_9DC5, text)
}

/// FNV-1a reads byte by byte, so the name of a longer text goes on from that of its beginning.
const fn continue_name(mut hash: u32, text: &str) -> u32 {
    let (bytes, mut i) = (text.as_bytes(), 0);
    while i < bytes.len() {
        hash = (hash ^ bytes[i] as u32).wrapping_mul(0x0100_0193);
        i += 1;
    }
    hash
}

/// What the draws of one op in one pass have in common: the seed of the run, the epoch and the purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draws {
    /// The seed of the run.
    pub seed: u64,
    /// Counts passes over the data, so that each epoch draws anew.
    pub epoch: u32,
    /// What the numbers are for: [`name32`] of a name such as `"dropout.head"`.
    pub purpose: u32,
}

impl Draws {
    /// Draws for one purpose in one epoch of a run.
    pub fn new(seed: u64, epoch: u32, purpose: &str) -> Draws {
        Draws { seed, epoch, purpose: name32(purpose) }
    }

    /// The same draws for a part of the purpose: `"cade"` with the part `".gate"` is `"cade.gate"`.
    pub fn part(self, name: &str) -> Draws {
        Draws { purpose: continue_name(self.purpose, name), ..self }
    }

    /// The stream of one patient.
    #[inline]
    pub fn of(&self, patient: u32) -> Stream {
        Stream { key: [self.seed as u32, (self.seed >> 32) as u32], tail: [patient, self.epoch, self.purpose] }
    }
}

/// A random-access stream of 32-bit words: word `i` is the same whether or not the words before it were drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    key: [u32; 2],
    tail: [u32; 3],
}

impl Stream {
    /// The words `4 * index .. 4 * index + 4`.
    #[inline]
    pub fn block(&self, index: u32) -> [u32; 4] {
        philox4x32([index, self.tail[0], self.tail[1], self.tail[2]], self.key)
    }

    /// Word `i`.
    #[inline]
    pub fn word(&self, i: u64) -> u32 {
        self.block((i >> 2) as u32)[(i & 3) as usize]
    }

    /// Writes the words `first .. first + out.len()`: what [`word`](Self::word) gives, four at a time.
    pub fn words(&self, first: u64, out: &mut [u32]) {
        let aligned = (first.wrapping_neg() & 3).min(out.len() as u64);
        let (head, rest) = out.split_at_mut(aligned as usize);
        for (i, out) in (first..).zip(head) {
            *out = self.word(i);
        }
        let (blocks, tail) = rest.as_chunks_mut::<4>();
        let block = ((first + aligned) >> 2) as u32;
        for (i, out) in blocks.iter_mut().enumerate() {
            *out = self.block(block.wrapping_add(i as u32));
        }
        if !tail.is_empty() {
            let last = self.block(block.wrapping_add(blocks.len() as u32));
            tail.copy_from_slice(&last[..tail.len()]);
        }
    }

    /// Uniform in [0, 1), a multiple of 2^-24: the same value in f32 and f64.
    #[inline]
    pub fn uniform(&self, i: u64) -> f64 {
        unit(self.word(i))
    }

    /// A number in `0..n` by the multiply-shift rule (bias below n / 2^32). `n` must not be 0.
    #[inline]
    pub fn below(&self, i: u64, n: u32) -> u32 {
        ((u64::from(self.word(i)) * u64::from(n)) >> 32) as u32
    }

    /// Standard normal number `i`: Box-Muller on words `2 i` and `2 i + 1`.
    pub fn normal(&self, i: u64) -> f64 {
        // 1 - u lies in (0, 1], so the logarithm is finite.
        let (u, v) = (1.0 - self.uniform(2 * i), self.uniform(2 * i + 1));
        (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    }

    /// `k` of the numbers `0..n` without replacement, ascending: each set of so many is as likely as any other. All of
    /// them if there are no more than `k`.
    ///
    /// By Floyd's method (Bentley and Floyd, "Programming pearls: a sample of brilliance", CACM 1987), of which the memory
    /// is that of the numbers drawn, or of those left out where these are fewer.
    pub fn sample(&self, n: usize, k: usize) -> Vec<usize> {
        if k >= n {
            return (0..n).collect();
        }
        if k <= n / 2 {
            return self.floyd(n, k);
        }
        let (without, mut sample, mut next) = (self.floyd(n, n - k), Vec::with_capacity(k), 0);
        for out in without {
            sample.extend(next..out);
            next = out + 1;
        }
        sample.extend(next..n);
        sample
    }

    fn floyd(&self, n: usize, k: usize) -> Vec<usize> {
        let (mut chosen, mut sample, mut at) = (HashSet::with_capacity(k), Vec::with_capacity(k), 0);
        for last in n - k..n {
            let drawn = self.exactly_below(&mut at, last as u64 + 1) as usize;
            let new = if chosen.insert(drawn) { drawn } else { last };
            chosen.insert(new);
            sample.push(new);
        }
        sample.sort_unstable();
        sample
    }

    /// A number in `0..n` without any bias, out of 64 bits from word `at` on, which is moved behind the words that were
    /// used: those that would favour some numbers are thrown away.
    fn exactly_below(&self, at: &mut u64, n: u64) -> u64 {
        loop {
            let words = [self.word(*at), self.word(*at + 1)].map(u128::from);
            *at += 2;
            let product = (words[0] << 32 | words[1]) * u128::from(n);
            if product as u64 >= n.wrapping_neg() % n {
                return (product >> 64) as u64;
            }
        }
    }

    /// A uniformly random order of `0..n`: the indices sorted by their words, ties by index.
    pub fn permutation(&self, n: usize) -> Vec<u32> {
        let mut keyed: Vec<(u32, u32)> = (0..n).map(|i| (self.word(i as u64), i as u32)).collect();
        keyed.sort_unstable();
        keyed.into_iter().map(|(_, i)| i).collect()
    }
}

/// A word as a number in [0, 1): its upper 24 bits.
#[inline]
pub fn unit(word: u32) -> f64 {
    f64::from(word >> 8) * (1.0 / 16_777_216.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_gives_the_known_answers_of_random123() {
        assert_eq!(philox4x32([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox4x32([!0; 4], [!0; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        assert_eq!(
            philox4x32([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn words_do_not_depend_on_the_order_they_are_drawn_in() {
        let stream = Draws::new(7, 3, "test").of(11);
        let forward: Vec<u32> = (0..100).map(|i| stream.word(i)).collect();
        let mut backward: Vec<u32> = (0..100).rev().map(|i| stream.word(i)).collect();
        backward.reverse();
        assert_eq!(forward, backward);
        assert_eq!(forward[4..8], stream.block(1));
    }

    #[test]
    fn words_gives_what_word_gives_from_any_start_and_of_any_length() {
        let stream = Draws::new(7, 3, "test").of(11);
        for first in 0..6 {
            for length in 0..11 {
                let mut out = vec![0; length];
                stream.words(first, &mut out);
                let want: Vec<u32> = (first..first + length as u64).map(|i| stream.word(i)).collect();
                assert_eq!(out, want, "{length} words from {first}");
            }
        }
    }

    #[test]
    fn a_part_of_a_purpose_is_the_purpose_of_the_longer_name() {
        assert_eq!(Draws::new(7, 3, "cade").part(".gate"), Draws::new(7, 3, "cade.gate"));
    }

    #[test]
    fn seed_epoch_purpose_and_patient_each_change_the_stream() {
        let base = Draws::new(7, 3, "test").of(11).block(0);
        for other in [
            Draws::new(8, 3, "test").of(11),
            Draws::new(7 | 1 << 40, 3, "test").of(11),
            Draws::new(7, 4, "test").of(11),
            Draws::new(7, 3, "tess").of(11),
            Draws::new(7, 3, "test").of(12),
        ] {
            assert_ne!(base, other.block(0));
        }
    }

    #[test]
    fn uniform_and_normal_have_their_moments() {
        let stream = Draws::new(1, 0, "moments").of(0);
        let n = 200_000;
        // Six standard errors of each moment: a wrong scale or shift is far outside, chance is not.
        let se = 6.0 / (n as f64).sqrt();
        let mean = |f: &dyn Fn(u64) -> f64| (0..n).map(f).sum::<f64>() / n as f64;
        assert!((mean(&|i| stream.uniform(i)) - 0.5).abs() < se * (1.0f64 / 12.0).sqrt());
        assert!(mean(&|i| stream.normal(i)).abs() < se);
        assert!((mean(&|i| stream.normal(i).powi(2)) - 1.0).abs() < se * 2f64.sqrt());
    }

    #[test]
    fn a_sample_is_ascending_distinct_and_of_the_size_asked_for() {
        for (patient, n) in [0usize, 1, 2, 31, 32, 33, 1000].into_iter().enumerate() {
            for k in [0, 1, n / 2, n / 2 + 1, n.saturating_sub(1), n, n + 1] {
                let sample = Draws::new(5, 0, "sample").of(patient as u32).sample(n, k);
                assert_eq!(sample.len(), k.min(n));
                assert!(sample.windows(2).all(|pair| pair[0] < pair[1]) && sample.iter().all(|&i| i < n), "{sample:?}");
            }
        }
    }

    #[test]
    fn every_set_is_sampled_equally_often() {
        // A chi-square variable of d degrees exceeds d + 2 sqrt(d x) + 2 x with a probability of at most exp(-x)
        // (Laurent and Massart 2000, lemma 1). With x = 20 that is 2e-9.
        const X: f64 = 20.0;
        const EACH: usize = 300;
        // 35 sets that are drawn, and 21 of which the complement is.
        for (n, k, sets) in [(7, 3, 35), (7, 5, 21), (2, 1, 2)] {
            let mut counts = std::collections::BTreeMap::<Vec<usize>, usize>::new();
            for patient in 0..sets * EACH {
                let sample = Draws::new(11, 4, "sample").of(patient as u32).sample(n, k);
                *counts.entry(sample).or_default() += 1;
            }
            assert_eq!(counts.len(), sets);
            let off = |&count: &usize| (count as f64 - EACH as f64).powi(2) / EACH as f64;
            let (statistic, degrees) = (counts.values().map(off).sum::<f64>(), sets as f64 - 1.0);
            let bound = degrees + 2.0 * (degrees * X).sqrt() + 2.0 * X;
            assert!(statistic < bound, "{k} of {n}: {statistic} is not below {bound}");
        }
    }

    #[test]
    fn permutation_holds_every_index_once_and_below_stays_below() {
        let stream = Draws::new(5, 0, "order").of(0);
        for n in [0, 1, 2, 31, 1000] {
            let mut order = stream.permutation(n);
            order.sort_unstable();
            assert_eq!(order, (0..n as u32).collect::<Vec<_>>());
        }
        assert!((0..10_000).all(|i| stream.below(i, 7) < 7));
    }
}
