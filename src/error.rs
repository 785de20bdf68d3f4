//! What can go wrong, as sentences that say what to change.

use std::path::PathBuf;

use crate::data::{Modality, Problems};
use crate::metrics::Undefined;

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
    /// A training left the numbers that a computer has.
    #[error(
        "the training diverged: {what} is not finite; lower train.learning_rate, lengthen train.schedule.warmup_epochs or \
         lower train.clip_norm"
    )]
    Diverged {
        /// What was seen first to be infinite or NaN.
        what: &'static str,
    },
    /// A model file lacks a parameter, or has it in another shape.
    #[error("parameter {name} must have shape {want:?}, but {}", match got { Some(got) => format!("has {got:?}"), None => "is not in the file".into() })]
    Parameter {
        /// The full name.
        name: String,
        /// The shape that the model asks for.
        want: Vec<usize>,
        /// The shape in the file; `None` if it is not there.
        got: Option<Vec<usize>>,
    },
    /// Weights that are not those of the published implementation of a model.
    #[error("these are not the weights of the published model: missing {missing:?}, not of it {left:?}")]
    Published {
        /// Names that it has.
        missing: Vec<String>,
        /// Names that it has not.
        left: Vec<String>,
    },
    /// A model file has a parameter that its own recipe has no layer for.
    #[error("parameter {name} is in the file, but no layer of its recipe reads it; the file is damaged")]
    SpareParameter {
        /// The full name.
        name: String,
    },
    /// The run file names a modality that the source has not.
    #[error(
        "the run file asks for {modality}, but cohort {cohort} has none; add its section to the cohort file or take it out of inputs.modalities"
    )]
    NoModality {
        /// The source.
        cohort: String,
        /// What it lacks.
        modality: Modality,
    },
    /// A model that cannot do without a modality.
    #[error(
        "model {model} needs {modality}, but a training on cohort {cohort} has none; add its section to the cohort file, name it in inputs.modalities if they are named, or choose another model.name"
    )]
    ModelNeeds {
        /// Its name.
        model: &'static str,
        /// What it needs.
        modality: Modality,
        /// The source.
        cohort: String,
    },
    /// A cohort has neither of the modalities that a model could see.
    #[error("cohort {cohort} has nothing that the model sees; add [rna] or [slides] to its cohort file")]
    NoInputs {
        /// The cohort.
        cohort: String,
    },
    /// A cohort has a modality that the model was trained without.
    #[error(
        "cohort {cohort} has {modality}, but the source {source_cohort} has none, so the model cannot use them; add them to \
         the source, take the section out of the cohort file, or name inputs.modalities in the run file to leave them out"
    )]
    UnseenModality {
        /// The cohort.
        cohort: String,
        /// The cohort that the model was trained on.
        source_cohort: String,
        /// What only the cohort has.
        modality: Modality,
    },
    /// The patch features of a cohort have another width than those of the source.
    #[error(
        "cohort {cohort} has {got} features a patch, but the model was trained on {want} ({source_cohort}); extract both \
         with the same encoder"
    )]
    PatchWidth {
        /// The cohort.
        cohort: String,
        /// The cohort that the model was trained on.
        source_cohort: String,
        /// The width that the model was trained on.
        want: usize,
        /// The width of the cohort.
        got: usize,
    },
    /// A signature of a model file names a gene that its scaler does not know.
    #[error("the model file names gene {gene} in a signature, but has no scaling for it; the file is damaged")]
    SignatureGene {
        /// The gene.
        gene: String,
    },
    /// A file is no model of onkos, or a damaged one.
    #[error("{}: not a model file of onkos: {why}", path.display())]
    ModelFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
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
    /// A run file is not TOML, or has an unknown or mistyped key.
    #[error("{}: {why}", path.display())]
    RunFile {
        /// The file.
        path: PathBuf,
        /// What is wrong, with its line.
        why: String,
    },
    /// A study cannot be made, or some of its trainings failed; all the reasons in one list.
    #[error("{}", problems.iter().map(|problem| format!("{}: {problem}", path.display())).collect::<Vec<_>>().join("\n"))]
    Study {
        /// The study file, or the folder of its results.
        path: PathBuf,
        /// A sentence each.
        problems: Vec<String>,
    },
    /// Nothing in a folder can be imported.
    #[error("{}: nothing to import from {tool}: {why}", study.display())]
    Import {
        /// The folder.
        study: PathBuf,
        /// The tool whose layout was looked for.
        tool: &'static str,
        /// What is not there, or what only the user can say.
        why: String,
    },
    /// Two cohorts of one run count time in different units.
    #[error(
        "cohort {cohort} counts time in {got}, but cohort {source_cohort} in {want}; write convert_to = {want:?} in [clinical] of {cohort}"
    )]
    TimeUnits {
        /// The cohort.
        cohort: String,
        /// Its unit.
        got: &'static str,
        /// The cohort that is trained on.
        source_cohort: String,
        /// The unit of that.
        want: &'static str,
    },
    /// The results of two cohorts of one run would be written to one file.
    #[error(
        "the results of {} and of {} would both be called {name}; give each cohort file a name of its own", files[0].display(), files[1].display()
    )]
    SameName {
        /// The name of the results.
        name: String,
        /// The two cohort files.
        files: [PathBuf; 2],
    },
    /// A model gives a patient no risk.
    #[error(
        "cohort {cohort}: the risk of {case} is not finite; look for extreme values in the features of this patient"
    )]
    Risk {
        /// The cohort.
        cohort: String,
        /// The patient.
        case: String,
    },
    /// There is no attention over patches where there are no patches, or nothing weighs them.
    #[error("{who} has no slides, or no attention over them, so there is none to show; {advice}")]
    NoAttention {
        /// The cohort or the model.
        who: String,
        /// What to change.
        advice: &'static str,
    },
    /// A head was asked for that the model has not.
    #[error("--head must be mean or a number from 1 to {heads}, the heads of this model, but is {head}")]
    NoHead {
        /// The head, from 1.
        head: usize,
        /// The heads of the model.
        heads: usize,
    },
    /// No format that was asked for can be written of any slide that was asked for.
    #[error("nothing can be written: {}", why.join("\n"))]
    NoMap {
        /// A sentence for each slide and reason.
        why: Vec<String>,
    },
    /// A device was asked for that is not there.
    #[error("device {name} cannot be used: {why}; use --device cpu or auto")]
    Device {
        /// The device as it was asked for.
        name: String,
        /// Why not.
        why: String,
    },
    /// Products by cuBLASLt were asked for, and there is none that a device can use.
    #[error(
        "cuBLASLt cannot be used on {device}: {why}; write train.products = \"own\", or name the library in ONKOS_CUBLASLT"
    )]
    Products {
        /// The device.
        device: String,
        /// Why not.
        why: String,
    },
    /// A call of the CUDA driver failed, or a kernel that was launched before it.
    #[error("{device}: {doing} failed: {why}")]
    Cuda {
        /// The device.
        device: String,
        /// What was done.
        doing: String,
        /// What the driver said.
        why: String,
    },
    /// The memory of a device does not suffice.
    #[error(
        "{device} has not enough memory: {:.2} GiB more are needed, {:.2} of {:.2} GiB are free",
        gib(*bytes), gib(*free), gib(*total)
    )]
    DeviceMemory {
        /// The device.
        device: String,
        /// The bytes that were asked for.
        bytes: u64,
        /// The bytes that were free.
        free: u64,
        /// All that it has.
        total: u64,
    },
    /// A batch does not fit into the memory of a device, or into what the process may take of that of the machine.
    #[error(
        "{} has not enough memory for {place}: its {patients} patient{} with {patches} patches{} need about {}, {} {}; {}",
        device.as_deref().unwrap_or("the CPU"), if *patients == 1 { "" } else { "s" }, largest_of(largest.as_ref()), size(*bytes), size(*free),
        if device.is_some() { "are free" } else { "are what this process may take" }, advice(*patients, device.is_some())
    )]
    BatchMemory {
        /// The device; `None` is the CPU.
        device: Option<String>,
        /// Which batch, with its epoch or its cohort.
        place: String,
        /// The patients of the batch.
        patients: usize,
        /// All their patches.
        patches: usize,
        /// The case with the most patches, and their number.
        largest: Option<(String, usize)>,
        /// The bytes that the batch needs.
        bytes: u64,
        /// The bytes that are free on a device; on the CPU those that the process may take in all.
        free: u64,
    },
    /// A metric has no value for this data; the reason says what is missing.
    #[error(transparent)]
    Undefined(#[from] Undefined),
    /// The files of a cohort do not hold what they must; everything that is wrong with them, in one list.
    #[error("{0}")]
    Data(#[from] Problems),
    /// Something would be written where there is something already.
    #[error("{}: is there already; remove it or choose another name", path.display())]
    Exists {
        /// The file or folder.
        path: PathBuf,
    },
    /// A file or folder could not be read or written.
    #[error("{}: {}", path.display(), said(source))]
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

fn largest_of(largest: Option<&(String, usize)>) -> String {
    largest.map_or(String::new(), |(case, patches)| format!(" (most of them of {case}: {patches})"))
}

fn advice(patients: usize, on_device: bool) -> String {
    let less = match patients {
        1 => "give this patient fewer patches (train.patches_per_patient, in training)",
        _ => "lower --patches-per-batch (train.patches_per_batch) or train.batch",
    };
    format!("{less}{}", if on_device { ", or use --device cpu" } else { "" })
}

/// A number of bytes for people.
fn size(bytes: u64) -> String {
    if bytes < 1 << 30 { format!("{:.1} MiB", gib(bytes) * 1024.0) } else { format!("{:.2} GiB", gib(bytes)) }
}

fn gib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}

/// What the system said, as the end of a sentence: in lower case, without what is for programmers.
pub(crate) fn said(why: &std::io::Error) -> String {
    let text = why.to_string();
    // Temporary files are named by nobody, so where they lie is not worth a word.
    let text = [" at path \"", " (os error "].iter().fold(&text[..], |t, end| t.split(end).next().unwrap_or(t));
    let mut letters = text.chars();
    match letters.next() {
        // An acronym at the start stays one.
        Some(first) if letters.clone().next().is_some_and(char::is_lowercase) => {
            first.to_lowercase().chain(letters).collect()
        }
        _ => text.into(),
    }
}

/// What a parser expected, in the words of someone who does not write Rust.
pub(crate) fn without_types(why: &str) -> String {
    let words = [(&["f64", "f32"][..], "a number"), (&["usize", "u64", "u32"], "a whole number from 0")];
    let replace = |text: String, (types, word): &(&[&str], &str)| {
        types.iter().fold(text, |text, name| text.replace(&format!("expected {name}"), &format!("expected {word}")))
    };
    words.iter().fold(why.into(), replace)
}

/// The line of a TOML file that an error is about, if it is known, and what is wrong with it.
pub(crate) fn toml_error(text: &str, error: &toml::de::Error) -> (Option<usize>, String) {
    let why = without_types(&error.message().trim().replace('\n', "; "));
    let line = error.span().map(|span| {
        let before = span.start.min(text.len());
        let line = 1 + text.as_bytes()[..before].iter().filter(|&&b| b == b'\n').count();
        // Of a table that is told apart by one of its keys only the start is known: look for the key below it.
        let key = why.strip_prefix("unknown field `").and_then(|rest| rest.split('`').next());
        let is_key = |l: &str| {
            let rest = key.and_then(|key| l.trim_start().strip_prefix(key));
            rest.is_some_and(|rest| rest.starts_with([' ', '\t', '=', '.']))
        };
        line + text.lines().skip(line - 1).position(is_key).unwrap_or(0)
    });
    (line, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_says_ends_a_sentence() {
        let missing = std::fs::File::open("no such file").unwrap_err();
        assert_eq!(Error::io("x.csv")(missing).to_string(), "x.csv: no such file or directory");
        let unwritten = tempfile::Builder::new().tempfile_in("no such folder").unwrap_err();
        assert_eq!(said(&unwritten), "no such file or directory");
        assert_eq!(said(&std::io::Error::other("EOF in a header")), "EOF in a header");
    }

    #[test]
    fn an_unknown_key_is_found_in_its_line() {
        for (text, line) in [("\nsed = 1\n", 2), ("[model]\nname = \"fusion\"\nwidth = 3\n widht=3", 4)] {
            let error = toml::from_str::<crate::config::RunConfig>(text).unwrap_err();
            let (found, why) = toml_error(text, &error);
            assert!(found == Some(line) && why.starts_with("unknown field `"), "{found:?} {why}");
        }
        let error = toml::from_str::<crate::config::RunConfig>("seed = -1").unwrap_err();
        assert!(toml_error("seed = -1", &error).1.ends_with("expected a whole number from 0"), "{error}");
    }
}
