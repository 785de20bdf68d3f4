//! Sums of exponentials that neither overflow nor vanish.

/// The number `mantissa * e^exponent`, never negative.
///
/// The exponent is the largest one that was added, so the mantissa is at least the factor of that term: a sum of
/// `e^800` and `e^-800` is exact to rounding, and only terms that f64 could not show beside the largest are lost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Scaled {
    pub(super) exponent: f64,
    pub(super) mantissa: f64,
}

impl Scaled {
    pub(super) const ZERO: Scaled = Scaled { exponent: f64::NEG_INFINITY, mantissa: 0.0 };

    /// `factor * e^exponent`.
    pub(super) fn new(factor: f64, exponent: f64) -> Scaled {
        Scaled { exponent, mantissa: factor }
    }

    /// The mantissa when written with another, larger exponent.
    pub(super) fn mantissa_at(self, exponent: f64) -> f64 {
        // Asked first because zero has the exponent -inf, and -inf - -inf is no number.
        if self.mantissa == 0.0 {
            0.0
        } else if self.exponent == exponent {
            // Most often so: neighbouring risk sets share their largest member.
            self.mantissa
        } else {
            self.mantissa * (self.exponent - exponent).exp()
        }
    }

    pub(super) fn plus(self, other: Scaled) -> Scaled {
        let (large, small) = if self.exponent < other.exponent { (other, self) } else { (self, other) };
        Scaled { exponent: large.exponent, mantissa: large.mantissa + small.mantissa_at(large.exponent) }
    }

    /// This number times `factor * e^exponent`, as a plain number.
    pub(super) fn times(self, factor: f64, exponent: f64) -> f64 {
        if self.mantissa == 0.0 { 0.0 } else { self.mantissa * factor * (self.exponent + exponent).exp() }
    }

    pub(super) fn ln(self) -> f64 {
        self.exponent + self.mantissa.ln()
    }
}

/// Calls `visit` for the nodes of a tree over `0..len` that together cover `first..end`: at most two a level. Node `i`
/// covers what nodes `2 i` and `2 i + 1` do; place `p` is node `len + p`.
pub(super) fn cover(len: usize, first: usize, end: usize, mut visit: impl FnMut(usize)) {
    let (mut left, mut right) = (first + len, end + len);
    while left < right {
        if left & 1 == 1 {
            visit(left);
            left += 1;
        }
        if right & 1 == 1 {
            right -= 1;
            visit(right);
        }
        (left, right) = (left / 2, right / 2);
    }
}

/// Sums over intervals of `0..len`, by the nodes of a binary tree that cover them.
///
/// Left truncation makes the risk sets windows that do not nest. The textbook subtracts what has not entered yet from
/// a running sum; one large term that leaves then takes all digits of the rest with it. A tree only adds.
pub(super) struct Tree {
    len: usize,
    nodes: Vec<Scaled>,
}

impl Tree {
    /// All zero.
    pub(super) fn new(len: usize) -> Tree {
        Tree { len, nodes: vec![Scaled::ZERO; 2 * len] }
    }

    /// Adds `x` to every place of `first..end`.
    pub(super) fn add(&mut self, first: usize, end: usize, x: Scaled) {
        let mut nodes = std::mem::take(&mut self.nodes);
        cover(self.len, first, end, |node| nodes[node] = nodes[node].plus(x));
        self.nodes = nodes;
    }

    /// What every place got, after all [`add`](Self::add)s.
    pub(super) fn places(mut self) -> Vec<Scaled> {
        for node in 2..self.nodes.len() {
            self.nodes[node] = self.nodes[node].plus(self.nodes[node / 2]);
        }
        self.nodes.split_off(self.len)
    }

    /// A tree over given values, for [`sum`](Self::sum).
    pub(super) fn over(values: &[Scaled]) -> Tree {
        let mut tree = Tree::new(values.len());
        tree.nodes[values.len()..].copy_from_slice(values);
        for node in (1..values.len()).rev() {
            tree.nodes[node] = tree.nodes[2 * node].plus(tree.nodes[2 * node + 1]);
        }
        tree
    }

    /// The sum of the values in `first..end`.
    pub(super) fn sum(&self, first: usize, end: usize) -> Scaled {
        let mut sum = Scaled::ZERO;
        cover(self.len, first, end, |node| sum = sum.plus(self.nodes[node]));
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_of_any_size_adds_and_sums_every_interval() {
        for len in 0..20 {
            let values: Vec<Scaled> = (0..len).map(|i| Scaled::new(1.0, (i as f64).sin())).collect();
            let sums = Tree::over(&values);
            for first in 0..=len {
                for end in first..=len {
                    let want: f64 = values[first..end].iter().map(|v| v.times(1.0, 0.0)).sum();
                    let got = sums.sum(first, end).times(1.0, 0.0);
                    assert!((got - want).abs() <= len as f64 * f64::EPSILON * want, "{first}..{end} of {len}");
                    let mut adds = Tree::new(len);
                    adds.add(first, end, Scaled::new(2.0, 0.0));
                    for (i, place) in adds.places().into_iter().enumerate() {
                        let want = if (first..end).contains(&i) { 2.0 } else { 0.0 };
                        assert_eq!(place.times(1.0, 0.0), want);
                    }
                }
            }
        }
    }

    #[test]
    fn terms_beyond_the_range_of_f64_add_up() {
        let sum = Scaled::new(1.0, 800.0).plus(Scaled::new(3.0, 800.0)).plus(Scaled::new(1.0, -800.0));
        assert_eq!(sum.ln(), 800.0 + 4f64.ln());
        assert_eq!(Scaled::ZERO.plus(Scaled::ZERO), Scaled::ZERO);
    }
}
