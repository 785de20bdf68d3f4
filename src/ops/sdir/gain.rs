//! The gain of a token as a function of its energy.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The largest strength of a gain: below `e^(3/2) / 2 = 2.2408` the map of amplitudes under a Gaussian gain is
/// strictly increasing, so that tokens keep their order.
pub const MAX_GAMMA: f64 = 2.24;

/// How weak tokens are strengthened: `g(e) >= 1` of the energy `e`. Ours; the published code has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gain {
    /// `g = 1`.
    #[default]
    None,
    /// A bump around zero, a Dirac delta in the making: `g = 1 + gamma exp(-e^2 / (2 w^2))`, `w = k scale`.
    Gaussian {
        /// The strength, in `[0, 2.24]`.
        gamma: f64,
        /// The width in units of the strong modality's scale.
        k: f64,
    },
    /// Fermi-Dirac occupancy: `g = 1 + gamma / (1 + exp((e - c) / T))`, `c = k scale`, `T = temperature c`. Its slope
    /// tends to a Dirac delta at `c` as the temperature falls. Tokens keep their order only where
    /// `gamma` is small against the temperature: at `c` the map of amplitudes has slope
    /// `1 + gamma / 2 - gamma / (4 temperature)`.
    FermiDirac {
        /// The strength, in `[0, 2.24]`.
        gamma: f64,
        /// The centre in units of the strong modality's scale.
        k: f64,
        /// The width of the step in units of the centre.
        temperature: f64,
    },
}

impl Gain {
    /// Whether the gain can differ from 1.
    pub fn is_active(self) -> bool {
        match self {
            Gain::None => false,
            Gain::Gaussian { gamma, .. } | Gain::FermiDirac { gamma, .. } => gamma > 0.0,
        }
    }

    /// Refuses strengths outside `[0, 2.24]` and widths that are not positive.
    ///
    /// # Errors
    /// [`Error::Setting`].
    pub fn check(self) -> Result<()> {
        let (gamma, k, temperature) = match self {
            Gain::None => return Ok(()),
            Gain::Gaussian { gamma, k } => (gamma, k, 1.0),
            Gain::FermiDirac { gamma, k, temperature } => (gamma, k, temperature),
        };
        if !(0.0..=MAX_GAMMA).contains(&gamma) {
            return Err(Error::Setting {
                name: "sdir.gain.gamma",
                want: "between 0 and 2.24",
                value: gamma.to_string(),
            });
        }
        for (name, value) in [("sdir.gain.k", k), ("sdir.gain.temperature", temperature)] {
            if !(value.is_finite() && value > 0.0) {
                return Err(Error::Setting { name, want: "finite and positive", value: value.to_string() });
            }
        }
        Ok(())
    }

    /// `g` at the squared energy `e2`, and `c` such that `dg/de * de/dF_d = c F_d`, that is `g'(e) / (D e)`.
    ///
    /// With a scale of 0 (no strong token) no token is weak: the limit `g = 1`.
    pub(super) fn at(self, e2: f64, scale: f64, columns: usize) -> (f64, f64) {
        let d = columns as f64;
        match self {
            Gain::Gaussian { gamma, k } if k * scale > 0.0 => {
                let w2 = (k * scale).powi(2);
                let bump = gamma * (-e2 / (2.0 * w2)).exp();
                (1.0 + bump, -bump / (d * w2))
            }
            Gain::FermiDirac { gamma, k, temperature } if k * scale > 0.0 => {
                let (c, e) = (k * scale, e2.sqrt());
                let t = temperature * c;
                let n = crate::ops::activation::sigmoid((c - e) / t);
                (1.0 + gamma * n, -gamma / t * n * (1.0 - n) / (d * e))
            }
            _ => (1.0, 0.0),
        }
    }
}
