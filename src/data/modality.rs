//! The kinds of data that a patient may have.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One kind of data of a patient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Modality {
    /// Gene expression, in signatures.
    Genes,
    /// Patch features of the slides.
    Patches,
}

impl fmt::Display for Modality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Modality::Genes => "genes",
            Modality::Patches => "patches",
        })
    }
}
