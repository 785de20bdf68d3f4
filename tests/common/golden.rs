//! Golden files: results of other programs, as `tests/golden` keeps them.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

/// A file of `tests/golden`.
pub(crate) fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// A file too large for the repository, if it lies beside it; says so if it does not.
pub(crate) fn shared(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/golden").join(name);
    if !path.is_file() {
        println!("skipped: {name} is not beside the repository");
    }
    path.is_file().then_some(path)
}

/// All tensors of a file, by name, widened to f64, and the texts in its header.
pub(crate) struct Tensors {
    shapes: HashMap<String, Vec<usize>>,
    values: HashMap<String, Vec<f64>>,
    texts: HashMap<String, String>,
}

impl Tensors {
    pub(crate) fn read(path: &Path) -> Tensors {
        let bytes = fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");
        let (_, header) = SafeTensors::read_metadata(&bytes).expect("a safetensors file");
        let (mut shapes, mut values) = (HashMap::new(), HashMap::new());
        for (name, tensor) in file.iter() {
            let widened = match tensor.dtype() {
                Dtype::F64 => elements(tensor.data(), f64::from_le_bytes),
                Dtype::F32 => elements(tensor.data(), |b| f64::from(f32::from_le_bytes(b))),
                Dtype::I64 => elements(tensor.data(), |b| i64::from_le_bytes(b) as f64),
                Dtype::U8 => elements(tensor.data(), |[b]| f64::from(b)),
                other => panic!("{name}: {other:?} is not read here"),
            };
            shapes.insert(name.to_string(), tensor.shape().to_vec());
            values.insert(name.to_string(), widened);
        }
        Tensors { shapes, values, texts: header.metadata().clone().unwrap_or_default() }
    }

    #[track_caller]
    pub(crate) fn get(&self, name: &str) -> &[f64] {
        self.values.get(name).unwrap_or_else(|| panic!("the file has no {name}"))
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    pub(crate) fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.values.keys().map(String::as_str).collect();
        names.sort_unstable();
        names
    }

    #[track_caller]
    pub(crate) fn shape(&self, name: &str) -> &[usize] {
        self.shapes.get(name).unwrap_or_else(|| panic!("the file has no {name}"))
    }

    /// A number in the header.
    #[track_caller]
    pub(crate) fn text(&self, name: &str) -> f64 {
        self.texts[name].parse().expect("a number")
    }
}

fn elements<const N: usize>(bytes: &[u8], read: impl Fn([u8; N]) -> f64) -> Vec<f64> {
    bytes.as_chunks::<N>().0.iter().map(|&b| read(b)).collect()
}

pub(crate) fn json(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).expect("a JSON file")
}

/// A number; those that JSON lacks are texts in the golden files.
#[track_caller]
pub(crate) fn number(value: &Value) -> f64 {
    match value {
        Value::String(text) => text.parse().expect("a number as text"),
        value => value.as_f64().unwrap_or_else(|| panic!("{value} is no number")),
    }
}

#[track_caller]
pub(crate) fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap_or_else(|| panic!("{value} is no list")).iter().map(number).collect()
}
