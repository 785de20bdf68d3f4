//! Weights of published implementations under their own names.

use std::collections::HashMap;

use super::{AbmilConfig, Join, McatConfig, ModelConfig, Pool, SnnConfig};
use crate::element::Real;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// The parameters of a model out of those of its published implementation, as PyTorch names and stores them: for
/// [`Builder::stored`](crate::nn::Builder::stored).
///
/// | model | implementation |
/// |---|---|
/// | `survpath` | mahmoodlab/SurvPath, `models/model_SurvPath.py` |
/// | `mcat` | mahmoodlab/MCAT, `models/model_coattn.py`, or mahmoodlab/SurvPath, `models/model_MCATPathways.py`, joined either way; without the biases of scores |
/// | `motcat` | Innse/MOTCat, `models/model_motcat.py`, likewise |
/// | `abmil` | mahmoodlab/SurvPath, `models/model_ABMIL.py`, of slides alone; the bias of the scores, which changes nothing, is left out |
/// | `transmil` | szc19990412/TransMIL, `models/TransMIL.py` |
/// | `snn` | mahmoodlab/SurvPath, `models/model_SNNOmics.py` |
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
        ModelConfig::Mcat(config) => {
            let mut plan = co_attention(&mut tensors)?;
            plan.extend(mcat(config, &mut tensors));
            plan
        }
        ModelConfig::Motcat(config) => mcat(config, &mut tensors),
        ModelConfig::Abmil(config) => abmil(config, &mut tensors),
        ModelConfig::TransMil(_) => transmil(&mut tensors)?,
        ModelConfig::Snn(config) => snn(config),
        ModelConfig::Fusion(_) => {
            let want = "a model of which there is a published implementation: \"survpath\", \"mcat\", \"motcat\", \"abmil\", \"transmil\" or \"snn\"";
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
            Shape::Matrix => {
                let rows = last.first().copied().unwrap_or(0);
                vec![rows, data.len() / rows.max(1)]
            }
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
    /// Of one tensor, all its dimensions but the first as one.
    Matrix,
}

/// Our names, each with theirs, whose elements follow one another.
type Plan = Vec<(String, Vec<String>, Shape)>;

/// Weight and bias of a layer.
fn whole(ours: &str, theirs: &str) -> [(String, Vec<String>, Shape); 2] {
    ["weight", "bias"].map(|part| (format!("{ours}.{part}"), vec![format!("{theirs}.{part}")], Shape::Theirs))
}

/// The nets of the signatures, as many as there are.
fn gene_nets<T>(tensors: &HashMap<String, Tensor<T>>) -> Plan {
    let nets = (0..).take_while(|i| tensors.contains_key(&format!("sig_networks.{i}.0.0.weight"))).count();
    let net = |layer: usize, part: &str| (0..nets).map(|i| format!("sig_networks.{i}.{layer}.0.{part}")).collect();
    let mut plan: Plan = Vec::new();
    for (name, layer) in [("first", 0), ("second", 1)] {
        plan.push((format!("genes.{name}.weight"), net(layer, "weight"), Shape::Flat));
        plan.push((format!("genes.{name}.bias"), net(layer, "bias"), Shape::Rows));
    }
    plan
}

/// Pooling by attention. The bias of its scores is forgotten: it moves all of them together.
fn pool<T>(ours: &str, theirs: &str, gated: bool, tensors: &mut HashMap<String, Tensor<T>>) -> Plan {
    tensors.remove(&format!("{theirs}.attention_c.bias"));
    let weight = vec![format!("{theirs}.attention_c.weight")];
    let mut plan = vec![(format!("{ours}.w.weight"), weight, Shape::Theirs)];
    plan.extend(whole(&format!("{ours}.v"), &format!("{theirs}.attention_a.0")));
    if gated {
        plan.extend(whole(&format!("{ours}.u"), &format!("{theirs}.attention_b.0")));
    }
    plan
}

fn survpath<T>(tensors: &HashMap<String, Tensor<T>>) -> Plan {
    let mut plan = gene_nets(tensors);
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

/// Cuts a tensor that has several layers in one, a third of its rows each, into the rows up to `thirds` and those behind, under
/// names of their own.
fn cut<T: Real>(tensors: &mut HashMap<String, Tensor<T>>, name: &str, parts: &[(&str, usize)]) -> Result<()> {
    let whole = |packed: &Tensor<T>| packed.shape().first().is_some_and(|rows| rows.is_multiple_of(3));
    let Some(packed) = tensors.get(name).filter(|packed| whole(packed)) else { return Ok(()) };
    let (shape, data) = (packed.shape().to_vec(), packed.read()?.to_vec());
    tensors.remove(name);
    let mut at = 0;
    for (part, thirds) in parts {
        let (mut shape, len) = (shape.clone(), data.len() / 3 * thirds);
        shape[0] = shape[0] / 3 * thirds;
        tensors.insert(part_of(name, part), Tensor::new(&shape, data[at..at + len].to_vec())?);
        at += len;
    }
    Ok(())
}

/// The name of a part that was cut out.
fn part_of(name: &str, part: &str) -> String {
    format!("{name}, {part}")
}

/// The co-attention of MCAT.
fn co_attention<T: Real>(tensors: &mut HashMap<String, Tensor<T>>) -> Result<Plan> {
    let mut plan: Plan = whole("attention.out", "coattn.out_proj").into();
    // Theirs has queries, keys and values in one; the first are of the genes and the others of the patches.
    let parts = [("queries", "queries", 1), ("keys", "keys and values", 2)];
    for part in ["weight", "bias"] {
        let name = format!("coattn.in_proj_{part}");
        cut(tensors, &name, &parts.map(|(_, which, thirds)| (which, thirds)))?;
        let named = |(ours, which, _): (&str, &str, usize)| {
            (format!("attention.{ours}.{part}"), vec![part_of(&name, which)], Shape::Theirs)
        };
        plan.extend(parts.map(named));
    }
    Ok(plan)
}

fn transmil<T: Real>(tensors: &mut HashMap<String, Tensor<T>>) -> Result<Plan> {
    let mut plan: Plan = whole("patches.project", "_fc1.0").into();
    plan.push(("class".into(), vec!["cls_token".into()], Shape::Rows));
    for (ours, theirs) in [("layer0", "layer1"), ("layer1", "layer2")] {
        let packed = format!("{theirs}.attn.to_qkv.weight");
        let parts = ["queries", "keys", "values"];
        cut(tensors, &packed, &parts.map(|part| (part, 1)))?;
        plan.extend(
            parts.map(|part| (format!("{ours}.attention.{part}.weight"), vec![part_of(&packed, part)], Shape::Theirs)),
        );
        plan.push((
            format!("{ours}.attention.conv.weight"),
            vec![format!("{theirs}.attn.res_conv.weight")],
            Shape::Matrix,
        ));
        plan.extend(whole(&format!("{ours}.attention.out"), &format!("{theirs}.attn.to_out.0")));
        plan.extend(whole(&format!("{ours}.norm"), &format!("{theirs}.norm")));
    }
    for (side, theirs) in [(7, "proj"), (5, "proj1"), (3, "proj2")] {
        let [weight, bias] = whole(&format!("position.conv{side}"), &format!("pos_layer.{theirs}"));
        plan.extend([(weight.0, weight.1, Shape::Matrix), bias]);
    }
    plan.extend(whole("head.norm", "norm"));
    plan.extend(whole("head.hazards", "_fc2"));
    Ok(plan)
}

/// All but the co-attention of MCAT and MOTCat.
fn mcat<T>(config: &McatConfig, tensors: &mut HashMap<String, Tensor<T>>) -> Plan {
    let mut plan = gene_nets(tensors);
    for (ours, theirs) in [("patches", "path"), ("genes", "omic")] {
        for i in 0..config.encoder_layers {
            let (ours, theirs) = (format!("{ours}.encoder.layer{i}"), format!("{theirs}_transformer.layers.{i}"));
            for part in ["weight", "bias"] {
                let packed = vec![format!("{theirs}.self_attn.in_proj_{part}")];
                plan.push((format!("{ours}.qkv.{part}"), packed, Shape::Theirs));
            }
            let layers = [
                ("out", "self_attn.out_proj"),
                ("attention_norm", "norm1"),
                ("feed_norm", "norm2"),
                ("first", "linear1"),
                ("second", "linear2"),
            ];
            let named = |&(a, b): &(&str, &str)| whole(&format!("{ours}.{a}"), &format!("{theirs}.{b}"));
            plan.extend(layers.iter().flat_map(named));
        }
        plan.extend(pool(&format!("{ours}.pool"), &format!("{theirs}_attention_head"), true, tensors));
        plan.extend(whole(&format!("{ours}.last"), &format!("{theirs}_rho.0")));
    }
    let mut layers = vec![("patches.project", "wsi_net.0"), ("head.hazards", "classifier")];
    layers.extend(match config.join {
        Join::Concat => vec![("head.first", "mm.0"), ("head.second", "mm.2")],
        Join::Bilinear => vec![
            ("head.patches.own", "mm.linear_h1.0"),
            ("head.patches.gate", "mm.linear_z1.0"),
            ("head.patches.out", "mm.linear_o1.0"),
            ("head.genes.own", "mm.linear_h2.0"),
            ("head.genes.gate", "mm.linear_z2.0"),
            ("head.genes.out", "mm.linear_o2.0"),
            ("head.first", "mm.encoder1.0"),
            ("head.second", "mm.encoder2.0"),
        ],
    });
    plan.extend(layers.iter().flat_map(|layer| whole(layer.0, layer.1)));
    plan
}

fn abmil<T>(config: &AbmilConfig, tensors: &mut HashMap<String, Tensor<T>>) -> Plan {
    let layers = [("patches.project", "attention_net.0"), ("head.hidden", "rho.0"), ("head.hazards", "classifier")];
    let mut plan: Plan = layers.iter().flat_map(|layer| whole(layer.0, layer.1)).collect();
    if config.attends() {
        plan.extend(pool("patches.pool", "attention_net.3", config.pool == Pool::Gated, tensors));
    }
    plan
}

fn snn(config: &SnnConfig) -> Plan {
    let hidden = |i: usize| whole(&format!("genes.hidden{i}"), &format!("fc_omic.{i}.0"));
    (0..config.widths.len()).flat_map(hidden).chain(whole("head.hazards", "classifier")).collect()
}
