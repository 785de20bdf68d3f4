//! What can go wrong, as sentences that say what to change.

use std::path::PathBuf;

use crate::data::Problems;

/// The result of everything in onkos that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call was refused. Each sentence names the place and what would be right.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An argument of an op has another shape than the other arguments ask for.
    #[error("{op}: {arg} must have shape {want}, but has {got:?}")]
    Shape {
        /// The op, as its folder is called.
        op: &'static str,
        /// The argument.
        arg: &'static str,
        /// The shape that would be right, in the letters of the op's page.
        want: String,
        /// The shape that was given.
        got: Vec<usize>,
    },
    /// An element of an argument is outside what the op is defined for.
    #[error("{op}: {arg} must be {want}, but {arg}[{index}] is {value}")]
    Value {
        /// The op, as its folder is called.
        op: &'static str,
        /// The argument.
        arg: &'static str,
        /// What each element must be, such as `finite and positive`.
        want: &'static str,
        /// The first element that is not.
        index: usize,
        /// Its value.
        value: f64,
    },
    /// A setting of an op, a model or a training is outside its range.
    #[error("{name} must be {want}, but is {value}")]
    Setting {
        /// The setting, with its place: `sdir.p_strong`, `train.batch`.
        name: &'static str,
        /// The range that is allowed.
        want: &'static str,
        /// The value that was given.
        value: String,
    },
    /// Offsets of bags do not start at 0 or decrease.
    #[error(
        "offsets must start at 0 and never decrease, but offsets[{index}] is {value} and must be at least {at_least}"
    )]
    Offsets {
        /// The first offset that is wrong.
        index: usize,
        /// Its value.
        value: usize,
        /// The smallest value that would be right (the largest too, at index 0).
        at_least: usize,
    },
    /// The state of an optimiser does not fit the model that it was given for.
    #[error(
        "optimiser state: {name} {why}; resume with the model and the optimiser that the checkpoint was written by"
    )]
    State {
        /// The tensor.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// A device was asked for that is not there.
    #[error("device {name} cannot be used: {why}; use --device cpu or auto")]
    Device {
        /// The device as it was asked for.
        name: String,
        /// Why not.
        why: String,
    },
    /// The files of a cohort do not hold what they must; everything that is wrong with them, in one list.
    #[error("{0}")]
    Data(#[from] Problems),
    /// A file or folder could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl Error {
    /// Wraps what the system said with the path it was said of, for `map_err`.
    pub fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.into();
        |source| Error::Io { path, source }
    }
}
