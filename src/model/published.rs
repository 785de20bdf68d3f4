//! Weights of published implementations under their own names.

use std::collections::HashMap;

use super::ModelConfig;
use crate::element::Real;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// The parameters of a model out of those of its published implementation, as PyTorch names and stores them: for
/// [`Builder::stored`](crate::nn::Builder::stored).
///
/// | model | implementation |
/// |---|---|
/// | `survpath` | mahmoodlab/SurvPath, `models/model_SurvPath.py` |
///
/// # Errors
/// [`Error::Setting`] if no weights of this model are published, [`Error::Published`] for tensors that are missing or left over,
/// all by name.
pub fn from_published<T: Real>(
    model: &ModelConfig,
    mut tensors: HashMap<String, Tensor<T>>,
) -> Result<HashMap<String, Tensor<T>>> {
    let plan = match model {
        ModelConfig::SurvPath(_) => survpath(&tensors),
        ModelConfig::Fusion(_) => {
            let want = "a model of which there is a published implementation: \"survpath\"";
            return Err(Error::Setting { name: "model.name", want, value: model.name().into() });
        }
    };
    let (mut parameters, mut missing) = (HashMap::new(), Vec::new());
    for (ours, theirs, shape) in plan {
        let (mut data, mut last, rows) = (Vec::new(), Vec::new(), theirs.len());
        for name in theirs {
            match tensors.remove(&name) {
                Some(tensor) => {
                    data.extend_from_slice(&tensor.read()?);
                    last = tensor.shape().to_vec();
                }
                None => missing.push(name),
            }
        }
        let shape = match shape {
            Shape::Theirs => last,
            Shape::Flat => vec![data.len()],
            Shape::Rows => vec![rows, data.len() / rows.max(1)],
        };
        // What is missing is told below, not as a shape.
        if shape.iter().product::<usize>() == data.len() {
            parameters.insert(ours, Tensor::new(&shape, data)?);
        }
    }
    let mut left: Vec<String> = tensors.into_keys().collect();
    left.sort();
    if missing.is_empty() && left.is_empty() { Ok(parameters) } else { Err(Error::Published { missing, left }) }
}

/// What becomes of the shapes of tensors that are put together.
enum Shape {
    /// There is one.
    Theirs,
    /// All elements, one after another.
    Flat,
    /// A row each.
    Rows,
}

/// Our names, each with theirs, whose elements follow one another.
type Plan = Vec<(String, Vec<String>, Shape)>;

fn survpath<T>(tensors: &HashMap<String, Tensor<T>>) -> Plan {
    let nets = (0..).take_while(|i| tensors.contains_key(&format!("sig_networks.{i}.0.0.weight"))).count();
    let net = |layer: usize, part: &str| (0..nets).map(|i| format!("sig_networks.{i}.{layer}.0.{part}")).collect();
    let mut plan: Plan = Vec::new();
    for (name, layer) in [("first", 0), ("second", 1)] {
        plan.push((format!("genes.{name}.weight"), net(layer, "weight"), Shape::Flat));
        plan.push((format!("genes.{name}.bias"), net(layer, "bias"), Shape::Rows));
    }
    let mut one = |ours: String, theirs: String| plan.push((ours, vec![theirs], Shape::Theirs));
    one("attention.qkv.weight".into(), "cross_attender.attn.to_qkv.weight".into());
    for (ours, theirs) in [
        ("patches.project", "wsi_projection_net.0"),
        ("attention.norm", "cross_attender.norm"),
        ("feed_forward.norm", "feed_forward.norm"),
        ("feed_forward.first", "feed_forward.net.0"),
        ("feed_forward.second", "feed_forward.net.3"),
        ("feed_forward.last_norm", "layer_norm"),
        ("head.hidden", "to_logits.0"),
        ("head.hazards", "to_logits.2"),
    ] {
        for part in ["weight", "bias"] {
            one(format!("{ours}.{part}"), format!("{theirs}.{part}"));
        }
    }
    plan
}
