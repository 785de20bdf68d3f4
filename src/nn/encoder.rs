//! Transformer layers over the tokens of a patient.

use super::{Builder, Dense, Norm, Pass};
use crate::element::Real;
use crate::error::Result;
use crate::ops::{Activation, Add, BagDraws, Dropout, DropoutKind, PathwayAttention};
use crate::shape::Ragged;
use crate::tape::Var;

/// Layers of self-attention and feed-forward, each with a residual connection and a layer norm behind it (Vaswani et al.
/// 2017, ReLU).
#[derive(Clone, Debug)]
pub struct Encoder<T> {
    layers: Vec<Layer<T>>,
}

/// Sizes and settings of an [`Encoder`].
#[derive(Clone, Copy, Debug)]
pub struct EncoderSize {
    /// Layers.
    pub layers: usize,
    /// Width of a token, `D`.
    pub width: usize,
    /// Heads of the self-attention; a divisor of `D`.
    pub heads: usize,
    /// Width of the hidden layer of the feed-forward net.
    pub hidden: usize,
    /// Dropout of what is added to the tokens and of the hidden layer.
    pub dropout: f64,
}

#[derive(Clone, Debug)]
struct Layer<T> {
    size: EncoderSize,
    noise: String,
    qkv: Dense<T>,
    out: Dense<T>,
    norms: [Norm; 2],
    feed: [Dense<T>; 2],
}

impl<T: Real> Encoder<T> {
    /// Layers `name.layer0`, `name.layer1` and so on.
    pub fn new(b: &mut Builder<T>, name: &str, size: EncoderSize) -> Encoder<T> {
        let layer = |b: &mut Builder<T>| {
            let (d, hidden, linear) = (size.width, size.hidden, Activation::Identity);
            Layer {
                size,
                noise: b.path().into(),
                qkv: Dense::new(b, "qkv", d, 3 * d, linear),
                out: Dense::new(b, "out", d, d, linear),
                norms: ["attention_norm", "feed_norm"].map(|name| Norm::new(b, name, d)),
                feed: [Dense::new(b, "first", d, hidden, Activation::Relu), Dense::new(b, "second", hidden, d, linear)],
            }
        };
        let layers = b.scope(name, |b| (0..size.layers).map(|i| b.scope(&format!("layer{i}"), layer)).collect());
        Encoder { layers }
    }

    /// `[N, D]` in bags to the same; `patients` are draws of any purpose for the bags, absent in evaluation.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn forward(
        &self,
        pass: &Pass<'_, T>,
        x: &Var<T>,
        bags: &Ragged,
        patients: Option<&BagDraws>,
    ) -> Result<Var<T>> {
        let mut x = x.clone();
        for layer in &self.layers {
            x = layer.forward(pass, &x, bags, patients)?;
        }
        Ok(x)
    }
}

impl<T: Real> Layer<T> {
    fn forward(&self, pass: &Pass<'_, T>, x: &Var<T>, bags: &Ragged, patients: Option<&BagDraws>) -> Result<Var<T>> {
        let drop = |x: &Var<T>, name: &str| {
            let draws = pass.draws(&format!("{}{name}", self.noise)).zip(patients).map(|(d, p)| p.of_purpose(d));
            let dropout = Dropout { p: self.size.dropout, kind: DropoutKind::Plain };
            dropout.forward(pass.tape, x, bags, draws.as_ref())
        };
        let attention = PathwayAttention { heads: self.size.heads };
        let attended = attention.among(pass.tape, &self.qkv.forward(pass, x)?, bags)?;
        let attended = drop(&self.out.forward(pass, &attended)?, "attention.dropout")?;
        let x = self.norms[0].forward(pass, &Add.forward(pass.tape, x, &attended)?)?;
        let hidden = drop(&self.feed[0].forward(pass, &x)?, "hidden.dropout")?;
        let fed = drop(&self.feed[1].forward(pass, &hidden)?, "feed.dropout")?;
        self.norms[1].forward(pass, &Add.forward(pass.tape, &x, &fed)?)
    }
}
