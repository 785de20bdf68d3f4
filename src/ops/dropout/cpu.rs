//! Dropout on the CPU: the words of a stretch of one bag at a time, then one pass over its elements.

use super::Affine;
use crate::element::Real;
use crate::ops::parallel::rows_mut;
use crate::ops::tokens::{BagDraws, Coin, segments};
use crate::shape::Ragged;
use crate::tensor::Tensor;

/// Words drawn at once: they stay in the first cache.
const WORDS: usize = 2048;

/// `map` of the kept elements of `x`, `map.dropped` for the others.
pub(super) fn map<T: Real>(p: f64, map: Affine<T>, x: &Tensor<T>, bags: &Ragged, draws: &BagDraws) -> Tensor<T> {
    let (coin, columns) = (Coin::drops(p), x.matrix().1);
    let mut y = Tensor::zeros(x.shape());
    rows_mut(y.host_mut(), columns, |first, y| {
        let x = &x.host()[first * columns..][..y.len()];
        let mut words = [0; WORDS];
        for (bag, rows) in segments(bags, first..first + y.len() / columns) {
            let stream = draws.of(bag);
            let mut word = ((rows.start - bags.bag(bag).start) * columns) as u64;
            let here = (rows.start - first) * columns..(rows.end - first) * columns;
            for (y, x) in y[here.clone()].chunks_mut(WORDS).zip(x[here].chunks(WORDS)) {
                let words = &mut words[..x.len()];
                stream.words(word, words);
                word += x.len() as u64;
                for ((y, x), word) in y.iter_mut().zip(x).zip(words) {
                    *y = if coin.keeps(*word) { map.scale * *x + map.shift } else { map.dropped };
                }
            }
        }
    });
    y
}
