//! TransMIL: all patches of a slide attend to each other by way of landmarks (Shao et al. 2021).
//!
//! ```text
//! patches [N, L]
//!   | standardise, linear, ReLU
//! patch tokens [N, D]
//!   | MixStyle: channel statistics of other patients, if it is switched on
//!   | the first ones again, up to a square of s by s; a class token in front
//! tokens [1 + s s a patient, D]
//!   | x + Nyström attention of the layer norm of x
//!   | all but the class token: x + convolutions of 7 by 7, 5 by 5 and 3 by 3 over the square, a channel at a time
//!   | x + Nyström attention of the layer norm of x
//! class token [B, D]
//!   | layer norm, head: linear
//! log risk [B, 1] or hazard logits [B, K]
//! ```
//!
//! With `L = 1024` and four bins it has 2,673,172 parameters at its default sizes.
//!
//! # Where it deviates from the published code
//! - Bags are ragged, several patients a batch. A patient without slides has no tokens, and a pooled row of zeros.
//! - The published attention fills the tokens up with zeros to a multiple of the landmarks and attends to these zeros; here tokens
//!   are cut into blocks as equal as can be, unless `padded` is set.
//! - The published inverses of all heads and patients of a batch start from one divisor, so that a patient's risk depends on who
//!   else is in the batch; here each head of each patient has its own, unless `together` is set. A study with the preset
//!   `published` sets both.
//! - Patches are standardised unless `inputs.standardize_patches = false`.
//! - For a log risk the last layer has no bias.
//!
//! What the class token attends to is a product of three softmaxes and an inverse with elements of either sign: there are no weights
//! of patches to draw.

use serde::{Deserialize, Serialize};

use super::plugins::{Tokens, mix};
use super::{Attention, Batch, InputShape, Output, Patches};
use crate::element::Real;
use crate::error::{Error, Result};
use crate::nn::{Builder, Dense, Init, Landmarks, Norm, Nystrom, NystromSize, ParamId, Pass};
use crate::ops::grid_conv::Depthwise;
use crate::ops::{Activation, Add, Arrange, Arrangement, BagDraws, Dropout, DropoutKind, GridConv, MixStyle};
use crate::shape::Ragged;
use crate::tape::Var;

/// Sizes and settings of TransMIL. The defaults are the published ones but for `padded` and `together`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TransMilConfig {
    /// Width of a token, `D`.
    pub width: usize,
    /// Heads of the attention.
    pub heads: usize,
    /// Landmarks of a patient.
    pub landmarks: usize,
    /// Iterations towards the inverse between them.
    pub iterations: usize,
    /// Dropout of what the attention adds to the tokens.
    pub dropout: f64,
    /// Whether tokens are filled up with zeros to a multiple of the landmarks; published they are, ours are not.
    pub padded: bool,
    /// Whether the inverses of all heads and patients of a batch start from one divisor; published they do, ours do not.
    pub together: bool,
    /// The mixing of channel statistics of patch tokens between the patients of a batch (Zhou et al. 2021); off unless it is
    /// given. A table starts from the published settings: alpha 0.1, a batch is mixed with probability 1/2. Published it
    /// follows on early layers of a convolutional network; here it is the unimodal ancestor of CADE, for comparison.
    #[serde(with = "super::off")]
    pub mixstyle: Option<MixStyle>,
}

impl Default for TransMilConfig {
    fn default() -> TransMilConfig {
        TransMilConfig {
            width: 512,
            heads: 8,
            landmarks: 256,
            iterations: 6,
            dropout: 0.1,
            padded: false,
            together: false,
            mixstyle: None,
        }
    }
}

impl TransMilConfig {
    /// Refuses settings outside their range.
    ///
    /// # Errors
    /// [`Error::Setting`] names the first that is.
    pub fn check(&self) -> Result<()> {
        super::size("model.width", self.width)?;
        super::heads("model.heads", self.heads, self.width, super::OF_WIDTH)?;
        if !(1..=1024).contains(&self.landmarks) {
            let (want, value) = ("between 1 and 1024", self.landmarks.to_string());
            return Err(Error::Setting { name: "model.landmarks", want, value });
        }
        if self.iterations > 64 {
            let (want, value) = ("at most 64", self.iterations.to_string());
            return Err(Error::Setting { name: "model.iterations", want, value });
        }
        super::probability("model.dropout", self.dropout)?;
        self.mixstyle.as_ref().map_or(Ok(()), MixStyle::check)
    }

    fn attention(&self) -> NystromSize {
        NystromSize {
            width: self.width,
            heads: self.heads,
            landmarks: self.landmarks,
            iterations: self.iterations,
            padded: self.padded,
            together: self.together,
        }
    }
}

/// Sides of the squares that a cell of the positional layer sees.
const SIDES: [usize; 3] = [7, 5, 3];

/// A layer norm and the attention that follows on it.
#[derive(Clone, Debug)]
struct Layer<T> {
    norm: Norm,
    attention: Nystrom<T>,
}

/// The layers of TransMIL.
#[derive(Clone, Debug)]
pub struct TransMil<T> {
    config: TransMilConfig,
    project: Dense<T>,
    class: ParamId,
    layers: [Layer<T>; 2],
    /// Weight and bias of each of the convolutions of the positional layer.
    position: [(ParamId, ParamId); 3],
    norm: Norm,
    risk: Dense<T>,
}

/// Which token of which patient stands where.
struct Places {
    /// A class token and a square of each patient who has patches.
    tokens: Ragged,
    /// Out of the class token and the patch tokens.
    square: Arrangement,
    /// The class tokens of those who have patches, and a row for everybody.
    class: Arrangement,
    everybody: Arrangement,
}

impl Places {
    fn new(bags: &Ragged) -> Result<Places> {
        let side = |n: usize| n.isqrt() + usize::from(n.isqrt().pow(2) < n);
        let cells = |n: usize| side(n) * side(n);
        let tokens = Ragged::from_lengths(bags.iter().map(|rows| match rows.len() {
            0 => 0,
            n => 1 + cells(n),
        }));
        let square = bags.iter().filter(|rows| !rows.is_empty()).flat_map(|rows| {
            let again = (0..cells(rows.len())).map(move |i| Some((1, rows.start + i % rows.len())));
            [Some((0, 0))].into_iter().chain(again)
        });
        let square = Arrangement::new(&[1, bags.rows()], square)?;
        let of_those = tokens.iter().filter(|rows| !rows.is_empty());
        let class = Arrangement::new(&[tokens.rows()], of_those.map(|rows| Some((0, rows.start))))?;
        let mut those = 0..class.places();
        let everybody = bags.iter().map(|rows| if rows.is_empty() { None } else { those.next().map(|row| (0, row)) });
        let everybody = Arrangement::new(&[class.places()], everybody)?;
        Ok(Places { tokens, square, class, everybody })
    }
}

impl<T: Real> TransMil<T> {
    pub(super) fn new(
        b: &mut Builder<T>,
        config: &TransMilConfig,
        shape: &InputShape<T>,
        outputs: usize,
    ) -> Result<TransMil<T>> {
        let (c, d) = (config.clone(), config.width);
        let patches = shape.slides("transmil")?;
        let project = b.scope("patches", |b| patches.project(b, d, Activation::Relu));
        let class = b.param("class", &[1, d], Init::Normal(1.0));
        let layers = ["layer0", "layer1"].map(|name| {
            b.scope(name, |b| Layer {
                norm: Norm::new(b, "norm", d),
                attention: Nystrom::new(b, "attention", c.attention()),
            })
        });
        let position = SIDES.map(|side| {
            let cells = side * side;
            let init = Init::Normal((1.0 / (3 * cells) as f64).sqrt());
            b.scope(&format!("position.conv{side}"), |b| {
                (b.param("weight", &[d, cells], init), b.param("bias", &[d], Init::Zeros))
            })
        });
        let (norm, risk) = b.scope("head", |b| (Norm::new(b, "norm", d), super::risk_layer(b, d, outputs)));
        Ok(TransMil { config: c, project, class, layers, position, norm, risk })
    }

    pub(super) fn forward(&self, pass: &Pass<'_, T>, batch: &Batch<T>) -> Result<Output<T>> {
        let (tape, c) = (pass.tape, &self.config);
        let pooled = match &batch.patches {
            None => Var::constant(tape.device().zeros(&[batch.size(), c.width])?),
            Some(patches) => {
                let places = Places::new(&patches.bags)?;
                let x = self.tokens(pass, &batch.patients, patches, &places)?;
                let class = self.norm.forward(pass, &Arrange.forward(tape, &[&x], &places.class)?)?;
                Arrange.forward(tape, &[&class], &places.everybody)?
            }
        };
        Ok(Output {
            prediction: self.risk.forward(pass, &pooled)?,
            attention: Attention { patches: None, genes: None },
        })
    }

    /// The tokens behind both layers.
    fn tokens(&self, pass: &Pass<'_, T>, names: &[u32], patches: &Patches, places: &Places) -> Result<Var<T>> {
        let (tape, c) = (pass.tape, &self.config);
        // The patients of all draws of the pass are the same.
        let patients = pass.draws("").map(|d| BagDraws::new(d, names));
        let draws = |purpose: &str| pass.draws(purpose).zip(patients.as_ref()).map(|(d, p)| p.of_purpose(d));
        let rows = self.project.forward(pass, &patches.features)?;
        let tokens = mix(pass, c.mixstyle.as_ref(), Tokens { rows, bags: patches.bags.clone() }, &draws)?;
        let mut x = Arrange.forward(tape, &[pass.param(self.class), &tokens.rows], &places.square)?;
        drop(tokens);
        let landmarks = Landmarks::new(&c.attention(), &places.tokens)?;
        let dropout = Dropout { p: c.dropout, kind: DropoutKind::Plain };
        for (i, layer) in self.layers.iter().enumerate() {
            if i == 1 {
                let of = |(weight, bias)| Depthwise { weight: pass.param(weight), bias: Some(pass.param(bias)) };
                let convolutions = self.position.map(of);
                x = GridConv { lead: 1 }.forward(tape, &x, &places.tokens, &convolutions)?;
            }
            let attended = layer.attention.forward(pass, layer.norm.forward(pass, &x)?, &landmarks)?;
            let noise = draws(&format!("layer{i}.attention.dropout"));
            let attended = dropout.forward(tape, &attended, &places.tokens, noise.as_ref())?;
            x = Add.forward(tape, &x, &attended)?;
        }
        Ok(x)
    }
}
