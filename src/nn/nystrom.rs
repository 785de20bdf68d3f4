//! Self-attention over the tokens of a patient by way of landmarks.

use super::{Builder, Dense, Init, ParamId, Pass};
use crate::element::Real;
use crate::error::Result;
use crate::ops::{Add, Arrange, Arrangement, Concat, LandmarkInverse, PathwayAttention, SegmentMean, SequenceConv};
use crate::shape::Ragged;
use crate::tape::Var;

/// Tokens on either side of a token that the convolution sees, and itself.
const SEEN: usize = 33;

/// Sizes and settings of a [`Nystrom`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NystromSize {
    /// Width of a token, `D`.
    pub width: usize,
    /// Heads; a divisor of `D`.
    pub heads: usize,
    /// Landmarks of a patient, `m`.
    pub landmarks: usize,
    /// Iterations towards the inverse between them.
    pub iterations: usize,
    /// Whether tokens are filled up with zeros, in front, to a multiple of `m`, as published. They are landmarks' tokens and are
    /// attended to like all others. Otherwise tokens are cut into `m` blocks as equal as can be, and a patient of fewer tokens
    /// has as many landmarks as tokens.
    pub padded: bool,
    /// Whether the inverses of all heads and patients of a batch start from one divisor, as published.
    pub together: bool,
}

/// Nyström attention [Xiong 2021] with a convolution of the values along the tokens [Shao 2021]: the tokens of a patient attend to
/// each other in time that goes with their number.
#[derive(Clone, Debug)]
pub struct Nystrom<T> {
    size: NystromSize,
    queries: Dense<T>,
    keys: Dense<T>,
    values: Dense<T>,
    conv: ParamId,
    out: Dense<T>,
}

/// Which tokens of a batch belong to which landmark.
#[derive(Clone, Debug)]
pub struct Landmarks {
    /// The tokens of each patient, zeros included; of each landmark; the landmarks of each patient.
    bags: Ragged,
    blocks: Ragged,
    landmarks: Ragged,
    /// Zeros put in front, and taken off again.
    padding: Option<[Arrangement; 2]>,
}

impl Landmarks {
    /// Of patients with these tokens.
    ///
    /// # Errors
    /// More tokens than are counted in 32 bits.
    pub fn new(size: &NystromSize, bags: &Ragged) -> Result<Landmarks> {
        let m = size.landmarks;
        if !size.padded {
            let each = bags.iter().flat_map(|rows| {
                let (n, m) = (rows.len(), m.min(rows.len()));
                // The ends of blocks as equal as can be.
                (0..m).map(move |i| (i + 1) * n / m - i * n / m)
            });
            let landmarks = Ragged::from_lengths(bags.iter().map(|rows| m.min(rows.len())));
            return Ok(Landmarks { bags: bags.clone(), blocks: Ragged::from_lengths(each), landmarks, padding: None });
        }
        let (block, marks) = (|n: usize| n.div_ceil(m), |n: usize| if n == 0 { 0 } else { m });
        let padded = Ragged::from_lengths(bags.iter().map(|rows| block(rows.len()) * m));
        let landmarks = Ragged::from_lengths(bags.iter().map(|rows| marks(rows.len())));
        let blocks = bags.iter().flat_map(|rows| std::iter::repeat_n(block(rows.len()), marks(rows.len())));
        let blocks = Ragged::from_lengths(blocks);
        let filled = bags.iter().zip(padded.iter()).flat_map(|(rows, to)| {
            std::iter::repeat_n(None, to.len() - rows.len()).chain(rows.map(|row| Some((0, row))))
        });
        let filled = Arrangement::new(&[bags.rows()], filled)?;
        let taken = bags
            .iter()
            .zip(padded.iter())
            .flat_map(|(rows, to)| (to.end - rows.len()..to.end).map(|row| Some((0, row))));
        let taken = Arrangement::new(&[padded.rows()], taken)?;
        Ok(Landmarks { bags: padded, blocks, landmarks, padding: Some([filled, taken]) })
    }
}

impl<T: Real> Nystrom<T> {
    /// Layers `name.queries`, `name.keys`, `name.values`, without biases, `name.conv` and `name.out`.
    pub fn new(b: &mut Builder<T>, name: &str, size: NystromSize) -> Nystrom<T> {
        let d = size.width;
        b.scope(name, |b| Nystrom {
            size,
            queries: Dense::without_bias(b, "queries", d, d),
            keys: Dense::without_bias(b, "keys", d, d),
            values: Dense::without_bias(b, "values", d, d),
            conv: b.param("conv.weight", &[size.heads, SEEN], Init::Normal((1.0 / (3 * SEEN) as f64).sqrt())),
            out: Dense::new(b, "out", d, d, crate::ops::Activation::Identity),
        })
    }

    /// `[N, D]` in bags to the same; `landmarks` are those of the bags.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn forward(&self, pass: &Pass<'_, T>, x: Var<T>, landmarks: &Landmarks) -> Result<Var<T>> {
        let (tape, l) = (pass.tape, landmarks);
        // Everything is let go of as soon as it is read: without a record nothing else holds it.
        let filled = match &l.padding {
            Some([filled, _]) => {
                let filled = Arrange.forward(tape, &[&x], filled)?;
                drop(x);
                filled
            }
            None => x,
        };
        let [q, k, v] = [&self.queries, &self.keys, &self.values].map(|layer| layer.forward(pass, &filled));
        drop(filled);
        let (q, k, v) = (q?, k?, v?);
        let of_landmarks = |x: &Var<T>| SegmentMean.forward(tape, x, &l.blocks);
        let (q_mean, k_mean) = (of_landmarks(&q)?, of_landmarks(&k)?);
        let attention = PathwayAttention { heads: self.size.heads };
        let taken = {
            let tokens = Concat.forward(tape, &[&k, &v])?;
            attention.guided(tape, (&q_mean, &l.landmarks), (&tokens, &l.bags))?
        };
        drop(k);
        let NystromSize { heads, iterations, together, .. } = self.size;
        let inverse = LandmarkInverse { heads, iterations, together };
        let taken = inverse.forward(tape, &q_mean, &k_mean, &taken, &l.landmarks)?;
        let kept = Concat.forward(tape, &[&k_mean, &taken])?;
        let attended = attention.guided(tape, (&q, &l.bags), (&kept, &l.landmarks))?;
        drop(q);
        let near = SequenceConv.forward(tape, &v, &l.bags, pass.param(self.conv))?;
        drop(v);
        let y = Add.forward(tape, &attended, &near)?;
        drop((attended, near));
        let y = match &l.padding {
            Some([_, taken]) => Arrange.forward(tape, &[&y], taken)?,
            None => y,
        };
        self.out.forward(pass, &y)
    }
}
