//! Percentiles within a slide.

/// The percentile of each weight among all: `100 (less + (same + 1) / 2) / n`, ties by their mean rank, as CLAM ranks.
/// Weights are numbers; a NaN would be the largest.
pub fn percentiles(weights: &[f32]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by(|&a, &b| weights[a].total_cmp(&weights[b]));
    let mut percentiles = vec![0.0; weights.len()];
    let mut less = 0;
    // 0 and -0 are the same weight, but not the same bits.
    for ties in order.chunk_by(|&a, &b| weights[a] == weights[b]) {
        let rank = less as f64 + (ties.len() as f64 + 1.0) / 2.0;
        for &i in ties {
            percentiles[i] = 100.0 * rank / weights.len() as f64;
        }
        less += ties.len();
    }
    percentiles
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_share_their_mean_rank() {
        // Ranks of 0.2 0.1 0.2 0.4 are 2.5 1 2.5 4.
        assert_eq!(percentiles(&[0.2, 0.1, 0.2, 0.4]), [62.5, 25.0, 62.5, 100.0]);
    }

    #[test]
    fn one_patch_is_the_highest_and_patches_alike_are_in_the_middle() {
        assert_eq!(percentiles(&[1.0]), [100.0]);
        assert_eq!(percentiles(&[0.0, -0.0, 0.0]), [200.0 / 3.0; 3]);
        assert!(percentiles(&[]).is_empty());
    }

    #[test]
    fn the_formula_counts_the_same() {
        let stream = crate::rng::Draws::new(3, 0, "ranks").of(0);
        let weights: Vec<f32> = (0..200).map(|i| stream.below(i, 40) as f32 / 40.0).collect();
        for (&w, p) in weights.iter().zip(percentiles(&weights)) {
            let less = weights.iter().filter(|&&other| other < w).count() as f64;
            let same = weights.iter().filter(|&&other| other == w).count() as f64;
            assert!((p - (less + (same + 1.0) / 2.0) / 2.0).abs() < 1e-9, "{w}");
        }
    }
}
