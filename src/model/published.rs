//! Weights of published implementations under their own names.

use std::collections::HashMap;

use super::{AbmilConfig, ModelConfig, Pool, SnnConfig};
use crate::element::Real;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// The parameters of a model out of those of its published implementation, as PyTorch names and stores them: for
/// [`Builder::stored`](crate::nn::Builder::stored).
///
/// | model | implementation |
/// |---|---|
/// | `survpath` | mahmoodlab/SurvPath, `models/model_SurvPath.py` |
/// | `abmil` | the same, `models/model_ABMIL.py`, of slides alone; the bias of the scores, which changes nothing, is left out |
/// | `snn` | the same, `models/model_SNNOmics.py` |
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
        ModelConfig::Abmil(config) => abmil(config, &mut tensors),
        ModelConfig::Snn(config) => snn(config),
        ModelConfig::Fusion(_) => {
            let want = "a model of which there is a published implementation: \"survpath\", \"abmil\" or \"snn\"";
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

/// Weight and bias of a layer.
fn whole(ours: &str, theirs: &str) -> [(String, Vec<String>, Shape); 2] {
    ["weight", "bias"].map(|part| (format!("{ours}.{part}"), vec![format!("{theirs}.{part}")], Shape::Theirs))
}

fn survpath<T>(tensors: &HashMap<String, Tensor<T>>) -> Plan {
    let nets = (0..).take_while(|i| tensors.contains_key(&format!("sig_networks.{i}.0.0.weight"))).count();
    let net = |layer: usize, part: &str| (0..nets).map(|i| format!("sig_networks.{i}.{layer}.0.{part}")).collect();
    let mut plan: Plan = Vec::new();
    for (name, layer) in [("first", 0), ("second", 1)] {
        plan.push((format!("genes.{name}.weight"), net(layer, "weight"), Shape::Flat));
        plan.push((format!("genes.{name}.bias"), net(layer, "bias"), Shape::Rows));
    }
    let qkv = vec!["cross_attender.attn.to_qkv.weight".into()];
    plan.push(("attention.qkv.weight".into(), qkv, Shape::Theirs));
    let layers = [
        ("patches.project", "wsi_projection_net.0"),
        ("attention.norm", "cross_attender.norm"),
        ("feed_forward.norm", "feed_forward.norm"),
        ("feed_forward.first", "feed_forward.net.0"),
        ("feed_forward.second", "feed_forward.net.3"),
        ("feed_forward.last_norm", "layer_norm"),
        ("head.hidden", "to_logits.0"),
        ("head.hazards", "to_logits.2"),
    ];
    plan.extend(layers.iter().flat_map(|layer| whole(layer.0, layer.1)));
    plan
}

fn abmil<T>(config: &AbmilConfig, tensors: &mut HashMap<String, Tensor<T>>) -> Plan {
    let mut layers =
        vec![("patches.project", "attention_net.0"), ("head.hidden", "rho.0"), ("head.hazards", "classifier")];
    let mut plan = Plan::new();
    if config.attends() {
        layers.push(("patches.pool.v", "attention_net.3.attention_a.0"));
        let weight = "attention_net.3.attention_c";
        tensors.remove(&format!("{weight}.bias"));
        plan.push(("patches.pool.w.weight".into(), vec![format!("{weight}.weight")], Shape::Theirs));
    }
    if config.pool == Pool::Gated {
        layers.push(("patches.pool.u", "attention_net.3.attention_b.0"));
    }
    plan.extend(layers.iter().flat_map(|layer| whole(layer.0, layer.1)));
    plan
}

fn snn(config: &SnnConfig) -> Plan {
    let hidden = |i: usize| whole(&format!("genes.hidden{i}"), &format!("fc_omic.{i}.0"));
    (0..config.widths.len()).flat_map(hidden).chain(whole("head.hazards", "classifier")).collect()
}
