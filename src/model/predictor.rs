//! A trained model: predicts cohorts, and goes into one file and out of it.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use sha2::{Digest, Sha256};

use super::source::announced;
use super::{Batching, CohortSource, Model, Recipe, Source, forward, predict_all};
use crate::data::{Cohort, Problems, Reading, TensorFile, write_file};
use crate::device::Device;
use crate::error::{Error, Result, without_types};
use crate::nn::{Builder, Params};
use crate::tensor::Tensor;

/// Parameters and all that reads them.
#[derive(Clone, Debug)]
pub struct Predictor {
    /// Inputs, scaling, reading of risks.
    pub recipe: Recipe,
    /// The layers.
    pub model: Model<f32>,
    /// Their parameters.
    pub params: Params<f32>,
}

/// Predictions for the patients of a cohort, in its order.
#[derive(Clone, Debug)]
pub struct Predictions {
    /// One log risk a patient, or the logits of its hazards: `[patients, K]`.
    pub raw: Tensor<f32>,
    /// Risk of each patient, higher for worse.
    pub risk: Vec<f64>,
}

/// What a pass gave for one patient.
#[derive(Clone, Debug)]
pub struct Attended {
    /// The patient, as an index into those of the cohort.
    pub patient: usize,
    /// The risk, higher for worse.
    pub risk: f64,
    /// Attention heads, `H`.
    pub heads: usize,
    /// The attention of each patch, `[patches of the patient, H]`, with the sums that [`Attention`](super::Attention) says.
    pub weights: Vec<f32>,
}

/// The key of the recipe among the metadata of a model file, and that of the layout of the file.
const RECIPE: &str = "onkos.recipe";
const SCHEMA: (&str, &str) = ("onkos.schema", "1");
/// The key of the checksum over recipe and parameters: a flipped bit of a weight would give other risks and no error.
const CHECKSUM: &str = "onkos.sha256";

impl Predictor {
    /// The predictions for all patients of a cohort. The order and the batches do not change a bit of a patient's risk
    /// beyond rounding.
    ///
    /// # Errors
    /// A cohort that the model cannot see: see [`CohortSource::new`]; [`Error::Risk`] for a risk that is not finite.
    pub fn predict(&self, cohort: &Cohort, batching: Batching) -> Result<Predictions> {
        // Each patch is looked at once, so nothing is gained by keeping it on a device.
        let source = CohortSource::new(&self.recipe, cohort)?.on(self.params.device(), 0)?;
        let patients: Vec<usize> = (0..cohort.len()).collect();
        let raw = predict_all(&self.model, &self.params, &source, &patients, batching)?;
        let width = self.recipe.outputs();
        let risk: Vec<f64> = raw.chunks(width).map(|row| self.recipe.risk(row)).collect();
        if let Some(p) = risk.iter().position(|risk| !risk.is_finite()) {
            return Err(Error::Risk { cohort: cohort.name.clone(), case: cohort.patients[p].case.clone() });
        }
        Ok(Predictions { raw: Tensor::new(&[cohort.len(), width], raw)?, risk })
    }

    /// The risks of some patients with the attention over their patches, of one pass, told patient by patient in their
    /// order. No more than a batch is held at a time.
    ///
    /// # Errors
    /// As [`predict`](Self::predict); [`Error::NoAttention`] if the model or the cohort has no slides or
    /// the model no attention; what `each` refuses.
    pub fn attend(
        &self,
        cohort: &Cohort,
        patients: &[usize],
        batching: Batching,
        mut each: impl FnMut(Attended) -> Result<()>,
    ) -> Result<()> {
        let Some(bags) = &cohort.slides else {
            let (who, advice) = (format!("cohort {}", cohort.name), "add [slides] to its cohort file");
            return Err(Error::NoAttention { who, advice });
        };
        let source = CohortSource::new(&self.recipe, cohort)?.on(self.params.device(), 0)?;
        for batch in announced(&source, patients, batching)? {
            let read = || {
                let output = forward(&self.model, &self.params, &source, &batch, None, true)?;
                let attention = output.attention.patches.map(|weights| weights.read()).transpose()?;
                Ok((output.prediction.value().read()?, attention))
            };
            let (raw, attention) = read().map_err(|error| source.explain(error))?;
            let Some(weights) = attention else {
                let advice = "name a run that was trained on slides, of fusion, survpath, mcat, motcat, or abmil with an attention";
                let who = format!("the model of {} ({})", self.recipe.source, self.recipe.model.name());
                return Err(Error::NoAttention { who, advice });
            };
            let rows: usize = batch.iter().map(|&p| bags.ragged().bag(p).len()).sum();
            let heads = weights.len().checked_div(rows).unwrap_or(0);
            let mut at = 0;
            for (&patient, raw) in batch.iter().zip(raw.chunks(self.recipe.outputs())) {
                let risk = self.recipe.risk(raw);
                if !risk.is_finite() {
                    let (cohort, case) = (cohort.name.clone(), cohort.patients[patient].case.clone());
                    return Err(Error::Risk { cohort, case });
                }
                let end = at + bags.ragged().bag(patient).len() * heads;
                each(Attended { patient, risk, heads, weights: weights[at..end].to_vec() })?;
                at = end;
            }
        }
        Ok(())
    }

    /// The same model with its parameters on a device, where it predicts from then on.
    ///
    /// # Errors
    /// [`Error::DeviceMemory`] if they do not fit, [`Error::Cuda`] of the device.
    pub fn to(&self, device: Device) -> Result<Predictor> {
        Ok(Predictor { recipe: self.recipe.clone(), model: self.model.clone(), params: self.params.to(device)? })
    }

    /// Writes the model file: parameters as F32 tensors, the recipe as JSON among the metadata. The same model gives
    /// the same bytes.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Cuda`] if the parameters cannot be read from their device.
    pub fn save(&self, path: &Path) -> Result<()> {
        let recipe = serde_json::to_string(&self.recipe).expect("a recipe is plain data");
        let params = self.params.to(Device::Cpu)?;
        // Sorted maps, so that the same model gives the same bytes: the crate that reads the file writes its metadata
        // in the order of a hash map.
        let sum = checksum(&recipe, params.iter().collect());
        let metadata = BTreeMap::from([("format", "pt"), (SCHEMA.0, SCHEMA.1), (RECIPE, &recipe), (CHECKSUM, &sum)]);
        let mut header = BTreeMap::from([("__metadata__", serde_json::json!(metadata))]);
        let mut end = 0;
        for (name, value) in params.iter() {
            let range = [end, end + 4 * value.len()];
            end = range[1];
            let entry = serde_json::json!({ "dtype": "F32", "shape": value.shape(), "data_offsets": range });
            header.insert(name, entry);
        }
        let mut header = serde_json::to_vec(&header).expect("plain data");
        header.resize(header.len().next_multiple_of(8), b' ');
        write_file(path, |out| {
            out.write_all(&(header.len() as u64).to_le_bytes())?;
            out.write_all(&header)?;
            params.values().iter().try_for_each(|value| out.write_all(bytemuck::cast_slice(value.host())))
        })
    }

    /// Reads a model file. Nothing in it is believed before it was compared with the length of the file.
    ///
    /// # Errors
    /// [`Error::Data`] if it is cut short or its header lies; [`Error::ModelFile`] if it is not a model file of onkos, was
    /// changed since it was written, or has not the parameters that its recipe asks for.
    pub fn load(path: &Path) -> Result<Predictor> {
        let bad = |why: String| Error::ModelFile { path: path.into(), why };
        let mut problems = Problems::default();
        let Some(file) = TensorFile::open(path, Reading::Positioned, &mut problems) else {
            return Err(problems.into());
        };
        match file.metadata(SCHEMA.0) {
            Some(schema) if schema == SCHEMA.1 => {}
            Some(other) => return Err(bad(format!("its layout is version {other}, this onkos reads {}", SCHEMA.1))),
            None => return Err(bad("it was not written by onkos train".into())),
        }
        let text = file.metadata(RECIPE).ok_or_else(|| bad(format!("its header lacks {RECIPE}")))?;
        let recipe: Recipe = serde_json::from_str(text).map_err(|why| bad(without_types(&why.to_string())))?;
        recipe.check().map_err(bad)?;
        let mut stored = HashMap::new();
        for (name, info) in file.tensors() {
            if let Some(values) = file.floats(name, info, &mut problems) {
                if let Some(i) = values.iter().position(|x| !x.is_finite()) {
                    return Err(bad(format!("{name}[{i}] is {}; copy the file again", values[i])));
                }
                stored.insert(name.into(), Tensor::new(&info.shape, values)?);
            }
        }
        problems.or(())?;
        let sum = checksum(text, stored.iter().map(|(name, value): (&String, _)| (name.as_str(), value)).collect());
        if file.metadata(CHECKSUM) != Some(&sum) {
            return Err(bad("its contents have changed since it was written; copy the file again".into()));
        }
        let builder = Builder::stored(stored);
        let (model, params) = Model::build(&recipe.model, &recipe.shape(), recipe.outputs(), builder)
            .map_err(|why| bad(why.to_string()))?;
        Ok(Predictor { recipe, model, params })
    }
}

/// The SHA-256 of a recipe and of the name, shape and values of each parameter, in the order of the names.
fn checksum(recipe: &str, mut params: Vec<(&str, &Tensor<f32>)>) -> String {
    params.sort_by_key(|(name, _)| *name);
    let mut hasher = Sha256::new();
    hasher.update(recipe);
    for (name, value) in params {
        hasher.update(format!("\0{name} {:?}\0", value.shape()));
        value.host().iter().for_each(|x| hasher.update(x.to_le_bytes()));
    }
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
