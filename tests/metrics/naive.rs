//! The formulas, as literally as they can be written. O(n^2), and nothing shared with the library.

/// (concordant, discordant, tied_risk, tied_time) over all pairs.
pub(crate) fn harrell(time: &[f64], event: &[bool], risk: &[f64]) -> [u64; 4] {
    let mut counts = [0; 4];
    for i in 0..time.len() {
        for j in 0..time.len() {
            if comparable(time, event, i, j) {
                let kind = if risk[i] > risk[j] { 0 } else { 1 + usize::from(risk[i] == risk[j]) };
                counts[kind] += 1;
            }
            counts[3] += u64::from(i < j && event[i] && event[j] && time[i] == time[j]);
        }
    }
    counts
}

fn comparable(time: &[f64], event: &[bool], i: usize, j: usize) -> bool {
    event[i] && (time[i] < time[j] || (time[i] == time[j] && !event[j]))
}

/// 1 if the risks order the pair, 1/2 if they tie.
fn half(a: f64, b: f64) -> f64 {
    f64::from(a > b) + 0.5 * f64::from(a == b)
}

/// G(t) = prod over the censorings' times u <= t of 1 - c / (n - d).
pub(crate) fn censoring(time: &[f64], event: &[bool], t: f64) -> f64 {
    let mut times: Vec<f64> = (0..time.len()).filter(|&i| !event[i] && time[i] <= t).map(|i| time[i]).collect();
    times.sort_by(f64::total_cmp);
    times.dedup();
    let count = |wanted: &dyn Fn(usize) -> bool| (0..time.len()).filter(|&i| wanted(i)).count() as f64;
    let factor = |u: &f64| {
        let n = count(&|i| time[i] >= *u);
        let d = count(&|i| time[i] == *u && event[i]);
        let c = count(&|i| time[i] == *u && !event[i]);
        1.0 - c / (n - d)
    };
    times.iter().map(factor).product()
}

/// Uno's C of the patients with weights of the same patients; None without a comparable pair or weight.
pub(crate) fn uno(time: &[f64], event: &[bool], risk: &[f64], tau: f64) -> Option<f64> {
    let (mut right, mut total) = (0.0, 0.0);
    for i in (0..time.len()).filter(|&i| event[i] && time[i] < tau) {
        let g = censoring(time, event, time[i]);
        if g == 0.0 {
            return None;
        }
        for j in (0..time.len()).filter(|&j| comparable(time, event, i, j)) {
            right += half(risk[i], risk[j]) / (g * g);
            total += 1.0 / (g * g);
        }
    }
    (total > 0.0).then(|| right / total)
}

/// AUC(t) with weights of the same patients; None without a case, a control or a weight.
pub(crate) fn auc(time: &[f64], event: &[bool], risk: &[f64], t: f64) -> Option<f64> {
    let (mut right, mut total) = (0.0, 0.0);
    for i in (0..time.len()).filter(|&i| event[i] && time[i] <= t) {
        let g = censoring(time, event, time[i]);
        if g == 0.0 {
            return None;
        }
        for j in (0..time.len()).filter(|&j| time[j] > t) {
            right += half(risk[i], risk[j]) / g;
            total += 1.0 / g;
        }
    }
    (total > 0.0).then(|| right / total)
}

/// S(t) = prod over the events' times u <= t of 1 - d / n.
pub(crate) fn survival(time: &[f64], event: &[bool], t: f64) -> f64 {
    let mut times: Vec<f64> = (0..time.len()).filter(|&i| event[i] && time[i] <= t).map(|i| time[i]).collect();
    times.sort_by(f64::total_cmp);
    times.dedup();
    let factor = |u: &f64| {
        let n = time.iter().filter(|&other| other >= u).count() as f64;
        let d = (0..time.len()).filter(|&i| event[i] && time[i] == *u).count() as f64;
        1.0 - d / n
    };
    times.iter().map(factor).product()
}
