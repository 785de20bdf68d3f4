//! Gated attention pooling against outside witnesses: mpmath and PyTorch, and the heads of CLAM as published.

use std::path::Path;

use onkos::{Ragged, Tensor};
use safetensors::SafeTensors;

use crate::attention_mil::apply;
use crate::harness::*;

/// A tensor of a golden file, in f64.
fn read(file: &SafeTensors<'_>, name: &str) -> Tensor<f64> {
    let view = file.tensor(name).unwrap_or_else(|_| panic!("{name} is in the file"));
    let data = match view.dtype() {
        safetensors::Dtype::F64 => {
            view.data().chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect()
        }
        safetensors::Dtype::F32 => {
            view.data().chunks_exact(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap()))).collect()
        }
        other => panic!("{name} is {other:?}"),
    };
    Tensor::new(view.shape(), data).unwrap()
}

/// Against mpmath and PyTorch in f64 (agreement there: 7e-14 relative; where a file stores f32: 1e-7).
fn golden(path: &Path) {
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let offsets = file.tensor("offsets").unwrap();
    let offsets: Vec<usize> =
        offsets.data().chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as usize).collect();
    let bags = Ragged::new(offsets).unwrap();
    let names = ["X", "V", "bV", "U", "bU", "W", "bw"];
    let given = names.map(|name| read(&file, name));
    let out = values(apply(&bags), &given);
    for (got, name) in out.iter().zip(["Z", "attn", "logits"]) {
        assert_golden(&format!("{name} of {path:?}"), got.host(), read(&file, name).host(), 1e-12);
    }
    let zero = Tensor::zeros(out[1].shape());
    for (suffix, scores) in [("", zero.clone()), ("_with_dA", read(&file, "dA_extra"))] {
        let (_, grads) = gradients(apply(&bags), &given, &[read(&file, "dZ"), zero.clone(), scores]);
        for (got, base) in grads.iter().zip(names) {
            let name = format!("d{base}{suffix}");
            // Long bags keep only the plain gradient of X, as f32.
            let Ok(view) = file.tensor(&name) else { continue };
            let digits = if view.dtype() == safetensors::Dtype::F32 { f64::from(f32::EPSILON) } else { 1e-12 };
            let want = read(&file, &name);
            // Gradients of the softmax cancel to 0 where instances are alike; what they are sums of has the size of the
            // gradient with the extra cotangent, in which nothing cancels.
            let terms = file.tensor(&format!("d{base}_with_dA")).map(|_| read(&file, &format!("d{base}_with_dA")));
            let terms = terms.as_ref().unwrap_or(&want).host().iter().chain(want.host());
            let largest = terms.fold(0f64, |m, x| m.max(x.abs()));
            assert_within(&format!("{name} of {path:?}"), got.host(), want.host(), digits * largest);
        }
    }
}

#[test]
fn golden_files_agree() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = 0;
    for name in ["identical", "multihead", "odd_dims", "ragged", "saturated", "single_instance", "tiny"] {
        golden(&here.join(format!("tests/golden/mil/gated_{name}.safetensors")));
        files += 1;
    }
    let long = here.join("../shared/golden/mil/gated_long5000.safetensors");
    if long.exists() {
        golden(&long);
    } else {
        println!("skipped: gated_long5000 is not here");
    }
    assert_eq!(files, 7);
}

/// The attention heads of CLAM as published, run in f64: scores, weights and pooled rows, and the gradients that a
/// cotangent on the scores and one on the pooled rows gives.
#[test]
fn the_attention_heads_of_clam_agree() {
    let gated = ["attention_a.0", "attention_b.0", "attention_c"].as_slice();
    for (name, layers) in [("gated_k1", gated), ("gated_k3", gated), ("plain_k2", ["module.0", "module.3"].as_slice())]
    {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/models");
        let bytes = std::fs::read(folder.join(format!("clam_attn_{name}.safetensors"))).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let parameters = layers.iter().flat_map(|layer| ["weight", "bias"].map(|p| format!("param.{layer}.{p}")));
        let names: Vec<String> = std::iter::once("in.x".to_string()).chain(parameters).collect();
        let given: Vec<Tensor<f64>> = names.iter().map(|name| read(&file, name)).collect();
        let bags = Ragged::from_lengths([given[0].matrix().0]);

        let out = values(apply(&bags), &given);
        let ((n, k), weights) = (out[1].matrix(), read(&file, "out.weights"));
        let weights: Vec<f64> = (0..n * k).map(|at| weights.host()[(at % k) * n + at / k]).collect();
        assert_golden(&format!("{name}: pooled"), out[0].host(), read(&file, "out.pooled").host(), 1e-13);
        assert_golden(&format!("{name}: weights"), out[1].host(), &weights, 1e-13);
        assert_golden(&format!("{name}: scores"), out[2].host(), read(&file, "out.scores").host(), 1e-13);

        let zero = |i: usize| Tensor::zeros(out[i].shape());
        let on = |cotangent: &str, i: usize| read(&file, cotangent).reshape(out[i].shape()).unwrap();
        for (what, cotangents) in [
            ("grad_pooled", [on("in.cotangent_pooled", 0), zero(1), zero(2)]),
            ("grad_scores", [zero(0), zero(1), on("in.cotangent_scores", 2)]),
        ] {
            let (_, grads) = gradients(apply(&bags), &given, &cotangents);
            // The file's README: relative to the largest gradient of the file, since some are zero but for rounding.
            let all: Vec<Tensor<f64>> = names.iter().map(|name| read(&file, &format!("{what}.{name}"))).collect();
            let largest = all.iter().flat_map(|t| t.host()).fold(0f64, |m, x| m.max(x.abs()));
            for ((grad, want), of) in grads.iter().zip(&all).zip(&names) {
                assert_within(&format!("{name}: {what}.{of}"), grad.host(), want.host(), 1e-13 * largest);
            }
        }
    }
}
