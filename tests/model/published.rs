//! Models against the published implementations of them, run in f64: the files of `tests/golden/models`.

use std::collections::HashMap;
use std::path::Path;

use onkos::features::Features;
use onkos::model::{AbmilConfig, Batch, Genes, InputShape, Model, ModelConfig, PatchShape, Patches, published};
use onkos::model::{Join, McatConfig, SnnConfig, SurvPathConfig, TransMilConfig};
use onkos::nn::{Builder, Pass, grads_of};
use onkos::ops::nll_survival::{NllSurvival, Reduction, risk};
use onkos::{Device, Ragged, Tape, Tensor};

use crate::golden::{self, Tensors};
use crate::harness::*;

fn tensor(file: &Tensors, name: &str) -> Tensor<f64> {
    Tensor::new(file.shape(name), file.get(name).to_vec()).unwrap()
}

/// The parameters of the published implementation.
fn parameters(file: &Tensors) -> HashMap<String, Tensor<f64>> {
    let named = |name: &&str| name.strip_prefix("param.").map(|short| (short.to_string(), tensor(file, name)));
    file.names().iter().filter_map(named).collect()
}

/// The gradients that a file has of the published parameters, under our names; none that are stored as a summary.
fn gradients_of(file: &Tensors, model: &ModelConfig, which: &str) -> HashMap<String, Tensor<f64>> {
    let named = |name: &str| (name.to_string(), tensor(file, &format!("{which}.param.{name}")));
    let all = parameters(file).into_keys().map(|name| named(&name)).collect();
    published::from_published(model, all).unwrap()
}

/// Holds a model with the weights of a file against what it has of the published one: logits, risks, loss, gradients.
fn agrees(path: &Path, file: &Tensors, config: &ModelConfig, shape: &InputShape<f64>, batch: &Batch<f64>) {
    let builder = Builder::stored(published::from_published(config, parameters(file)).unwrap());
    let outputs = file.shape("out.logits")[1];
    let (model, params) = Model::<f64>::build(config, shape, outputs, builder).unwrap();
    let what = path.file_name().unwrap().to_string_lossy();
    let nll = NllSurvival { alpha: 0.5, reduction: Reduction::Sum, ..NllSurvival::default() };
    let bins: Vec<u32> = file.get("in.y").iter().map(|&y| y as u32).collect();
    let censored: Vec<bool> = file.get("in.c").iter().map(|&c| c == 1.0).collect();
    let mut compared = 0;
    for which in ["grad_nll", "grad_cot"] {
        let tape = Tape::recording(Device::Cpu);
        let pass = Pass::new(&tape, &params, None);
        let output = model.forward(&pass, batch).unwrap().prediction;
        let vars = pass.into_vars();
        // The README states agreement of 1e-14 between two implementations.
        assert_golden(&format!("{what}: logits"), output.value().host(), file.get("out.logits"), 1e-13);
        assert_golden(&format!("{what}: risk"), &risk(output.value()).unwrap(), file.get("out.risk"), 1e-13);
        let loss = nll.forward(&tape, &output, &bins, &censored).unwrap();
        assert_golden(&format!("{what}: loss"), loss.value().host(), file.get("out.nll"), 1e-13);
        let root = match which {
            "grad_nll" => (&loss, Tensor::full(loss.shape(), 1.0)),
            _ => (&output, tensor(file, "in.cotangent")),
        };
        let grads = grads_of(&vars, &tape.backward(&[root]).unwrap());
        if !parameters(file).keys().all(|name| file.has(&format!("{which}.param.{name}"))) {
            println!("{what}: {which} is stored as a summary");
            continue;
        }
        let want = gradients_of(file, config, which);
        let largest = want.values().flat_map(|x| x.host()).fold(0f64, |m, x| m.max(x.abs()));
        for (name, grad) in params.names().iter().zip(grads) {
            let got = grad.unwrap_or_else(|| panic!("{what}: {name} has no gradient"));
            assert_within(&format!("{what}: {which} of {name}"), got.host(), want[name].host(), 1e-12 * largest);
            compared += 1;
        }
    }
    println!("{what}: {compared} gradients compared");
}

/// Patches of each patient, which are representable in f32.
fn patches(file: &Tensors, name: &str) -> (PatchShape<f64>, Patches) {
    // With a batch, or without any.
    let shape = file.shape(name);
    let (n, width) = (shape[shape.len() - 2], shape[shape.len() - 1]);
    let patients = if shape.len() > 2 { shape[0] } else { 1 };
    let features = Features::F32(Tensor::from_fn(&[patients * n, width], |i| file.get(name)[i] as f32));
    (PatchShape { width, standard: None }, Patches { features, bags: Ragged::uniform(patients, n) })
}

/// Expression by signature, of one patient.
fn expression(file: &Tensors) -> (Ragged, Genes<f64>) {
    let signatures = (1..).take_while(|i| file.has(&format!("in.x_omic{i}"))).count();
    let of = |i: usize| file.get(&format!("in.x_omic{}", i + 1));
    let widths = Ragged::from_lengths((0..signatures).map(|i| of(i).len()));
    let values = Tensor::new(&[1, widths.rows()], (0..signatures).flat_map(of).copied().collect()).unwrap();
    (widths, Genes { values, rows: Ragged::uniform(1, 1) })
}

fn survpath(path: &Path) {
    let file = Tensors::read(path);
    let size = |name: &str| file.shape(&format!("param.{name}.weight"))[0];
    let config = ModelConfig::from(SurvPathConfig {
        width: size("wsi_projection_net.0"),
        attention_width: size("cross_attender.attn.to_qkv") / 3,
        head_hidden: size("to_logits.0"),
        ..SurvPathConfig::default()
    });
    let want = mean_shares(&file, "act.attn_logits.path_patch", Some("act.attn_logits.path_path"));
    agrees_of_both(path, &file, &config, &want);
}

/// How much each patch counted by the scores that a file has: the mean over gene tokens of its share in their softmax over patches,
/// and over `genes` too.
fn mean_shares(file: &Tensors, patches: &str, genes: Option<&str>) -> Vec<f64> {
    let shape = file.shape(patches);
    let (tokens, n) = (shape[shape.len() - 2], shape[shape.len() - 1]);
    let exponentials = |name: &str, token: usize| -> Vec<f64> {
        let columns = file.get(name).len() / tokens;
        file.get(name)[token * columns..(token + 1) * columns].iter().map(|score| score.exp()).collect()
    };
    let mut mean = vec![0.0; n];
    for token in 0..tokens {
        let of = exponentials(patches, token);
        let others: f64 = genes.map_or(0.0, |genes| exponentials(genes, token).iter().sum());
        let total = of.iter().sum::<f64>() + others;
        mean.iter_mut().zip(of).for_each(|(mean, x)| *mean += x / total / tokens as f64);
    }
    mean
}

/// The same, of genes and patches of one patient; `weights` is how much each patch counted.
fn agrees_of_both(path: &Path, file: &Tensors, config: &ModelConfig, weights: &[f64]) {
    let (widths, genes) = expression(file);
    let (of_patches, patches) = patches(file, "in.x_path");
    let shape = InputShape { genes: Some(widths), patches: Some(of_patches) };
    let batch = Batch { patients: vec![0], genes: Some(genes), patches: Some(patches) };
    agrees(path, file, config, &shape, &batch);
    let builder = Builder::stored(published::from_published(config, parameters(file)).unwrap());
    let (model, params) = Model::<f64>::build(config, &shape, file.shape("out.logits")[1], builder).unwrap();
    let tape = Tape::inference(Device::Cpu);
    let told = |pass: &Pass<'_, f64>| model.forward(pass, &batch).unwrap().attention.patches;
    let got = told(&Pass::new(&tape, &params, None).weighing()).unwrap();
    assert_eq!(got.shape(), [weights.len(), 1]);
    assert_golden(&format!("{}: weights of patches", path.display()), got.host(), weights, 1e-12);
    assert!(told(&Pass::new(&tape, &params, None)).is_none(), "they are calculated for who asks");
}

fn mcat(path: &Path, of: fn(McatConfig) -> ModelConfig) {
    let file = Tensors::read(path);
    let size = |name: &str| file.shape(&format!("param.{name}.weight"))[0];
    let layer = |i: usize| format!("param.path_transformer.layers.{i}.norm1.weight");
    let config = of(McatConfig {
        width: size("wsi_net.0"),
        encoder_layers: (0..).take_while(|&i| file.has(&layer(i))).count(),
        encoder_hidden: size("path_transformer.layers.0.linear1"),
        ot_gradient: false,
        join: if file.has("param.mm.encoder1.0.weight") { Join::Bilinear } else { Join::Concat },
        ..McatConfig::default()
    });
    let want = if file.has("act.ot_flow") {
        let (plan, genes) = (file.get("act.ot_flow"), file.shape("act.ot_flow")[1]);
        let total: f64 = plan.iter().sum();
        plan.chunks(genes).map(|row| row.iter().sum::<f64>() / total).collect()
    } else {
        mean_shares(&file, "act.coattn.out1", None)
    };
    agrees_of_both(path, &file, &config, &want);
}

#[test]
fn mcat_agrees_with_the_published_model() {
    mcat(&golden::path("models/mcat_pathways_concat.safetensors"), ModelConfig::Mcat);
    mcat(&golden::path("models/mcat_pathways_bilinear.safetensors"), ModelConfig::Mcat);
    if let Some(path) = golden::shared("models/mcat_orig_concat.safetensors") {
        mcat(&path, ModelConfig::Mcat);
    }
}

#[test]
fn motcat_agrees_with_the_published_model() {
    mcat(&golden::path("models/motcat_concat.safetensors"), ModelConfig::Motcat);
    if let Some(path) = golden::shared("models/motcat_concat_n130.safetensors") {
        mcat(&path, ModelConfig::Motcat);
    }
}

#[test]
fn survpath_agrees_with_the_published_model() {
    survpath(&golden::path("models/survpath_p7_n37.safetensors"));
    for name in ["survpath_p23_n130", "survpath_published_p5_n130"] {
        if let Some(path) = golden::shared(&format!("models/{name}.safetensors")) {
            survpath(&path);
        }
    }
}

fn abmil(path: &Path) {
    let file = Tensors::read(path);
    let size = |name: &str| file.shape(&format!("param.attention_net.{name}.weight"))[0];
    let (width, attention_width) = (size("0"), size("3.attention_a.0"));
    let config = ModelConfig::from(AbmilConfig { width, attention_width, ..AbmilConfig::default() });
    let (of_patches, patches) = patches(&file, "in.data_WSI");
    let shape = InputShape { genes: None, patches: Some(of_patches) };
    agrees(path, &file, &config, &shape, &Batch { patients: vec![0], genes: None, patches: Some(patches) });
}

#[test]
fn attention_mil_agrees_with_the_published_model() {
    abmil(&golden::path("models/abmil_wsi.safetensors"));
    if let Some(path) = golden::shared("models/abmil_published_wsi.safetensors") {
        abmil(&path);
    }
}

/// The configuration of a file, with what the published code does.
fn config_of_transmil(file: &Tensors) -> TransMilConfig {
    let width = file.shape("param._fc1.0.weight")[0];
    TransMilConfig { width, landmarks: width / 2, padded: true, together: true, ..TransMilConfig::default() }
}

fn transmil(path: &Path) {
    let file = Tensors::read(path);
    let config = ModelConfig::from(config_of_transmil(&file));
    let (of_patches, patches) = patches(&file, "in.data");
    let shape = InputShape { genes: None, patches: Some(of_patches) };
    let patients = vec![0; patches.bags.bags()];
    agrees(path, &file, &config, &shape, &Batch { patients, genes: None, patches: Some(patches) });
}

#[test]
fn transmil_agrees_with_the_published_model() {
    transmil(&golden::path("models/transmil_n37.safetensors"));
    transmil(&golden::path("models/transmil_n130.safetensors"));
    if let Some(path) = golden::shared("models/transmil_published_n150.safetensors") {
        transmil(&path);
    }
}

/// Two patients: as published each of them has another risk when alone, and ours have the same.
#[test]
fn patients_of_transmil_do_not_depend_on_each_other_unless_they_go_together() {
    let file = Tensors::read(&golden::path("models/transmil_n130.safetensors"));
    for (padded, together) in [(true, true), (true, false), (false, false)] {
        let config = ModelConfig::from(TransMilConfig { padded, together, ..config_of_transmil(&file) });
        let (of_patches, both) = patches(&file, "in.data");
        let (n, width) = (both.bags.bag(0).len(), of_patches.width);
        let shape = InputShape { genes: None, patches: Some(of_patches) };
        let builder = Builder::stored(published::from_published(&config, parameters(&file)).unwrap());
        let (model, params) = Model::<f64>::build(&config, &shape, 4, builder).unwrap();
        let logits = |patches: Patches| {
            let (tape, patients) = (Tape::inference(Device::Cpu), vec![0; patches.bags.bags()]);
            let batch = Batch { patients, genes: None, patches: Some(patches) };
            model.forward(&Pass::new(&tape, &params, None), &batch).unwrap().prediction.value().host().to_vec()
        };
        let all = file.get("in.data");
        let one = |p: usize| Features::F32(Tensor::from_fn(&[n, width], |i| all[p * n * width + i] as f32));
        let alone: Vec<f64> =
            (0..2).flat_map(|p| logits(Patches { features: one(p), bags: Ragged::uniform(1, n) })).collect();
        let both = logits(both);
        let off = |from: &[f64]| both.iter().zip(from).fold(0f64, |m, (a, b)| m.max((a - b).abs()));
        let (alone, published) = (off(&alone), off(file.get("out.logits")));
        assert!(if together { alone > 1e-4 } else { alone < 1e-13 }, "padded {padded}: {alone}");
        assert!(if together { published < 1e-13 } else { published > 1e-4 }, "padded {padded}: {published}");
    }
}

#[test]
fn the_self_normalising_network_agrees_with_the_published_model() {
    for name in ["snn_omics_small", "snn_omics_big"] {
        let path = golden::path(&format!("models/{name}.safetensors"));
        let file = Tensors::read(&path);
        let layers = (0..).map(|i| format!("param.fc_omic.{i}.0.weight")).take_while(|layer| file.has(layer));
        let widths: Vec<usize> = layers.map(|layer| file.shape(&layer)[0]).collect();
        let config = ModelConfig::from(SnnConfig { widths, ..SnnConfig::default() });
        let values = tensor(&file, "in.data_omics");
        let (patients, genes) = values.matrix();
        // One signature of all genes.
        let shape = InputShape { genes: Some(Ragged::uniform(1, genes)), patches: None };
        let genes = Some(Genes { values, rows: Ragged::uniform(patients, 1) });
        agrees(&path, &file, &config, &shape, &Batch { patients: vec![0; patients], genes, patches: None });
    }
}

/// method.md of the papers counts 24,702,532 for 331 signatures of 9,745 genes and CONCH v1.5 features.
#[test]
fn models_have_the_published_number_of_parameters() {
    let widths = (0..331).map(|i| if i < 331 - 1 { 29 } else { 9745 - 330 * 29 });
    let shape = InputShape {
        genes: Some(Ragged::from_lengths(widths)),
        patches: Some(PatchShape { width: 768, standard: None }),
    };
    let config = ModelConfig::from(SurvPathConfig::default());
    let (_, params) = Model::<f32>::build(&config, &shape, 4, Builder::new(0)).unwrap();
    assert_eq!(params.count(), 24_702_532);
    let config = ModelConfig::from(AbmilConfig::default());
    let shape = InputShape { genes: None, patches: Some(PatchShape { width: 1024, standard: None }) };
    let (_, params) = Model::<f32>::build(&config, &shape, 4, Builder::new(0)).unwrap();
    assert_eq!(params.count(), 461_061 - 1, "one is the bias of the scores");
    let (_, params) = Model::<f32>::build(&TransMilConfig::default().into(), &shape, 4, Builder::new(0)).unwrap();
    assert_eq!(params.count(), 2_673_172);
    if let Some(path) = golden::shared("models/transmil_published_n150.safetensors") {
        let file = Tensors::read(&path);
        let of = |name: &&str| name.starts_with("param.");
        let each = file.names().into_iter().filter(of).map(|name| file.shape(name).iter().product::<usize>());
        assert_eq!(params.count(), each.sum::<usize>());
    }
}

#[test]
fn weights_of_another_model_are_told_by_name() {
    let file = Tensors::read(&golden::path("models/survpath_p7_n37.safetensors"));
    let mut tensors = parameters(&file);
    tensors.insert("spare".into(), Tensor::zeros(&[1]));
    tensors.remove("to_logits.2.bias");
    let error = published::from_published(&ModelConfig::SurvPath(SurvPathConfig::default()), tensors).unwrap_err();
    let want = "missing [\"to_logits.2.bias\"], not of it [\"spare\"]";
    assert_eq!(error.to_string(), format!("these are not the weights of the published model: {want}"));
}
