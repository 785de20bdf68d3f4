//! Models against the published implementations of them, run in f64: the files of `tests/golden/models`.

use std::collections::HashMap;
use std::path::Path;

use onkos::features::Features;
use onkos::model::{Batch, Genes, InputShape, Model, ModelConfig, PatchShape, Patches, SurvPathConfig, published};
use onkos::nn::{Builder, Pass, grads_of};
use onkos::ops::nll_survival::{NllSurvival, risk};
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

fn survpath(path: &Path) {
    let file = Tensors::read(path);
    let size = |name: &str, dimension: usize| file.shape(name)[dimension];
    let (d, qkv) = (size("param.wsi_projection_net.0.weight", 0), size("param.cross_attender.attn.to_qkv.weight", 0));
    let config = ModelConfig::SurvPath(SurvPathConfig {
        width: d,
        attention_width: qkv / 3,
        head_hidden: size("param.to_logits.0.weight", 0),
        ..SurvPathConfig::default()
    });
    let signatures = (1..).take_while(|i| file.has(&format!("in.x_omic{i}"))).count();
    let expression = |i: usize| file.get(&format!("in.x_omic{}", i + 1));
    let widths = Ragged::from_lengths((0..signatures).map(|i| expression(i).len()));
    let (n, l, outputs) = (size("in.x_path", 1), size("in.x_path", 2), size("out.logits", 1));
    let shape = InputShape { genes: Some(widths.clone()), patches: Some(PatchShape { width: l, standard: None }) };
    let builder = Builder::stored(published::from_published(&config, parameters(&file)).unwrap());
    let (model, params) = Model::<f64>::build(&config, &shape, outputs, builder).unwrap();

    let values = Tensor::new(&[1, widths.rows()], (0..signatures).flat_map(expression).copied().collect()).unwrap();
    // Exact: inputs are representable in f32.
    let features = Tensor::from_fn(&[n, l], |i| file.get("in.x_path")[i] as f32);
    let batch = Batch {
        patients: vec![0],
        genes: Some(Genes { values, rows: Ragged::uniform(1, 1) }),
        patches: Some(Patches { features: Features::F32(features), bags: Ragged::uniform(1, n) }),
    };
    let what = path.file_name().unwrap().to_string_lossy();
    let nll = NllSurvival { alpha: 0.5, ..NllSurvival::default() };
    for which in ["grad_nll", "grad_cot"] {
        let tape = Tape::recording(Device::Cpu);
        let pass = Pass::new(&tape, &params, None);
        let output = model.forward(&pass, &batch).unwrap().prediction;
        let vars = pass.into_vars();
        // The README states agreement of 1e-14 between two implementations.
        assert_golden(&format!("{what}: logits"), output.value().host(), file.get("out.logits"), 1e-13);
        assert_golden(&format!("{what}: risk"), &risk(output.value()).unwrap(), file.get("out.risk"), 1e-13);
        let loss = nll.forward(&tape, &output, &[file.get("in.y")[0] as u32], &[file.get("in.c")[0] == 1.0]).unwrap();
        assert_golden(&format!("{what}: loss"), loss.value().host(), file.get("out.nll"), 1e-13);
        let root = match which {
            "grad_nll" => (&loss, Tensor::full(loss.shape(), 1.0)),
            _ => (&output, tensor(&file, "in.cotangent")),
        };
        let grads = grads_of(&vars, &tape.backward(&[root]).unwrap());
        if !file.has(&format!("{which}.param.cross_attender.attn.to_qkv.weight")) {
            println!("{what}: {which} is stored as a summary");
            continue;
        }
        let want = gradients_of(&file, &config, which);
        let largest = want.values().flat_map(|x| x.host()).fold(0f64, |m, x| m.max(x.abs()));
        for (name, grad) in params.names().iter().zip(grads) {
            let got = grad.unwrap_or_else(|| panic!("{what}: {name} has no gradient"));
            assert_within(&format!("{what}: {which} of {name}"), got.host(), want[name].host(), 1e-12 * largest);
        }
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

/// method.md of the papers counts 24,702,532 for 331 signatures of 9,745 genes and CONCH v1.5 features.
#[test]
fn survpath_has_the_published_number_of_parameters() {
    let widths = (0..331).map(|i| if i < 331 - 1 { 29 } else { 9745 - 330 * 29 });
    let shape = InputShape {
        genes: Some(Ragged::from_lengths(widths)),
        patches: Some(PatchShape { width: 768, standard: None }),
    };
    let config = ModelConfig::SurvPath(SurvPathConfig::default());
    let (_, params) = Model::<f32>::build(&config, &shape, 4, Builder::new(0)).unwrap();
    assert_eq!(params.count(), 24_702_532);
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
