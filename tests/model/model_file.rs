//! What goes into a model file and out of it, and files that lie.

use std::sync::OnceLock;

use onkos::Error;
use onkos::config::Loss;
use onkos::model::Predictor;
use onkos::rng::Draws;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::study::*;

fn trained(loss: Loss) -> (Study, Predictor) {
    let study = Study::new(18);
    let mut config = config(2);
    (config.train.loss, config.train.bins) = (loss, 3);
    let predictor = train(&config, &study.north(), &everybody(18)).unwrap().predictor;
    (study, predictor)
}

/// The study and the bytes of one model of it, made once.
fn stored() -> &'static (Study, Vec<u8>) {
    static STORED: OnceLock<(Study, Vec<u8>)> = OnceLock::new();
    STORED.get_or_init(|| {
        let (study, predictor) = trained(Loss::Cox);
        let file = study.path("stored");
        predictor.save(&file).unwrap();
        let bytes = std::fs::read(file).unwrap();
        (study, bytes)
    })
}

fn load(bytes: &[u8]) -> onkos::Result<Predictor> {
    let file = stored().0.path("hostile");
    std::fs::write(&file, bytes).unwrap();
    Predictor::load(&file)
}

/// What the file says of its contents: a forger knows how to write it.
fn checksum(header: &Value, payload: &[u8]) -> String {
    let mut hasher = Sha256::new();
    hasher.update(header["__metadata__"]["onkos.recipe"].as_str().unwrap_or_default());
    // The keys of a JSON object come sorted here.
    for (name, entry) in header.as_object().unwrap().iter().filter(|(name, _)| *name != "__metadata__") {
        let shape: Vec<u64> = serde_json::from_value(entry["shape"].clone()).unwrap();
        let at = |i: usize| entry["data_offsets"][i].as_u64().unwrap() as usize;
        hasher.update(format!("\0{name} {shape:?}\0"));
        hasher.update(&payload[at(0)..at(1)]);
    }
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The file with another header, and the checksum that belongs to it.
fn with_header(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let bytes = &stored().1;
    let length = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    let mut header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    change(&mut header);
    let sum = checksum(&header, &bytes[8 + length..]);
    header["__metadata__"]["onkos.sha256"] = sum.into();
    let header = serde_json::to_vec(&header).unwrap();
    [&(header.len() as u64).to_le_bytes(), header.as_slice(), &bytes[8 + length..]].concat()
}

/// The file with another recipe, as text.
fn with_recipe(change: impl FnOnce(String) -> String) -> Vec<u8> {
    with_header(|header| {
        let recipe = &mut header["__metadata__"]["onkos.recipe"];
        *recipe = Value::String(change(recipe.as_str().unwrap().into()));
    })
}

/// The file whose recipe has another value at a place.
fn with(place: &str, value: Value) -> Vec<u8> {
    with_recipe(|recipe| {
        let mut recipe: Value = serde_json::from_str(&recipe).unwrap();
        *recipe.pointer_mut(place).expect(place) = value;
        recipe.to_string()
    })
}

#[test]
fn a_saved_model_predicts_the_same_and_saves_the_same_bytes() {
    for loss in [Loss::Cox, Loss::Nll] {
        let (study, predictor) = trained(loss);
        let (first, second) = (study.path("first"), study.path("second"));
        predictor.save(&first).unwrap();
        let loaded = Predictor::load(&first).unwrap();
        loaded.save(&second).unwrap();
        assert_eq!(std::fs::read(first).unwrap(), std::fs::read(second).unwrap());
        assert_eq!((&loaded.recipe, &loaded.params), (&predictor.recipe, &predictor.params));
        let south = study.south();
        let (was, is) = (predictor.predict(&south, BATCHING).unwrap(), loaded.predict(&south, BATCHING).unwrap());
        assert_eq!((was.raw.host(), was.risk), (is.raw.host(), is.risk));
    }
}

#[test]
fn widths_that_do_not_fit_the_tensors_are_refused_by_the_name_of_the_parameter() {
    // None of these is allocated: 2^62 features could not be.
    for (place, value) in [
        ("/model/width", json!(65_536)),
        ("/model/gene_hidden", json!(65_536)),
        ("/model/attention_width", json!(65_535)),
        ("/model/heads", json!(65_536)),
        ("/model/head_hidden", json!(1u64 << 62)),
        ("/model/head_hidden", json!(3)),
    ] {
        let error = load(&with(place, value.clone())).map(drop).unwrap_err();
        // Named as the setting where it is out of range, as the parameter where it only does not fit.
        let setting = place[1..].replace('/', ".");
        let named = ["parameter ", &setting].iter().any(|name| error.to_string().contains(name));
        assert!(matches!(error, Error::ModelFile { .. }) && named, "{place} {value}: {error}");
    }
    let wide = with_recipe(|recipe| {
        let mut recipe: Value = serde_json::from_str(&recipe).unwrap();
        recipe["patches"] = json!({ "width": 1u64 << 62, "standard": null });
        recipe.to_string()
    });
    let error = load(&wide).map(drop).unwrap_err();
    assert!(error.to_string().contains("parameter patches.project.weight"), "{error}");
}

#[test]
fn settings_and_lengths_that_cannot_be_are_refused() {
    for (place, value) in [
        ("/model/width", json!(1_000_000_000_000u64)),
        ("/model/heads", json!(0)),
        ("/model/head_hidden", json!(-1)),
        ("/model/gene_dropout", json!(1.0)),
        ("/model/name", json!("fission")),
        ("/loss", json!("nll")),
        ("/bins", json!({ "rule": "survpath", "edges": [0.0, 1.0, 2.0] })),
        ("/bins", json!({ "rule": "survpath", "edges": [0.0, 2.0, 1.0] })),
        ("/median_risk", json!(null)),
        ("/baseline/steps/0/time", json!(null)),
        ("/patches/width", json!(31)),
        ("/patches/standard/0", json!([0.0])),
        ("/patches/standard/1/0", json!(null)),
        ("/patches/standard/1/0", json!(0.0)),
        ("/patches/standard/1/0", json!(-1.0)),
        ("/patches/standard/1/0", json!(1e300)),
        ("/patches/standard/0/0", json!(1e300)),
        ("/genes/signatures", json!([])),
        ("/genes/signatures/0/genes/0", json!("NO_SUCH_GENE")),
        ("/genes/scaler/genes/0", json!("ANOTHER")),
        ("/genes/scaler/shift/0", json!(null)),
        ("/genes/scaler/factor", json!([1.0])),
        ("/genes/scaler/clip", json!([1.0, -1.0])),
    ] {
        let error = load(&with(place, value.clone())).map(drop).expect_err(place);
        assert!(!error.to_string().is_empty());
    }
}

#[test]
fn no_inputs_unknown_fields_and_numbers_that_are_none_are_refused() {
    let without = with_recipe(|recipe| {
        let mut recipe: Value = serde_json::from_str(&recipe).unwrap();
        (recipe["genes"], recipe["patches"]) = (Value::Null, Value::Null);
        recipe.to_string()
    });
    let unknown = with_recipe(|recipe| recipe.replacen('{', "{\"extra\":1,", 1));
    let nan = with_recipe(|recipe| recipe.replacen("\"median_risk\":", "\"median_risk\":NaN,\"x\":", 1));
    let deep = with_recipe(|_| "[".repeat(100_000));
    let absent = with_header(|header| {
        header["__metadata__"].as_object_mut().unwrap().remove("onkos.recipe");
    });
    let other = with_header(|header| header["__metadata__"]["onkos.schema"] = json!("2"));
    for (what, bytes) in [
        ("no inputs", without),
        ("unknown", unknown),
        ("nan", nan),
        ("deep", deep),
        ("absent", absent),
        ("other", other),
    ] {
        let error = load(&bytes).map(drop).expect_err(what);
        assert!(matches!(error, Error::ModelFile { .. }), "{what}: {error}");
    }
}

#[test]
fn a_parameter_that_is_absent_is_named() {
    let renamed = with_header(|header| {
        let header = header.as_object_mut().unwrap();
        let entry = header.remove("head.risk.weight").unwrap();
        header.insert("head.risk.heavy".into(), entry);
    });
    let error = load(&renamed).map(drop).unwrap_err().to_string();
    let want = "parameter head.risk.weight must have shape [1, 18], but is not in the file";
    assert!(error.ends_with(want), "{error}");
}

#[test]
fn a_parameter_that_no_layer_reads_is_refused() {
    // Without this a gated model would be read as a plain one, and predict something else.
    let error = load(&with("/model/gated", json!(false))).map(drop).unwrap_err().to_string();
    assert!(error.contains("parameter genes.pool.u.bias is in the file, but no layer"), "{error}");
}

#[test]
fn a_file_with_a_flipped_bit_or_cut_short_gives_a_model_or_an_error() {
    let bytes = &stored().1;
    let south = stored().0.south();
    let stream = Draws::new(8, 0, "damage").of(0);
    let mut refused = 0;
    for i in 0..300u64 {
        let mut damaged = bytes.clone();
        // Mostly the header: flipped parameters are other parameters.
        let at = stream.below(2 * i, if i % 4 == 0 { bytes.len() } else { bytes.len() / 4 } as u32) as usize;
        damaged[at] ^= 1 << stream.below(2 * i + 1, 8);
        match load(&damaged) {
            Ok(predictor) if i % 8 == 0 => drop(predictor.predict(&south, BATCHING)),
            Ok(_) => {}
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 0);
    for length in [0, 7, 8, 9, 100, bytes.len() / 2, bytes.len() - 1] {
        assert!(load(&bytes[..length]).is_err(), "{length} bytes");
    }
    assert!(load(&[bytes.as_slice(), &[0]].concat()).is_err());
}

#[test]
fn a_target_that_lacks_genes_is_refused_with_their_names() {
    let predictor = load(&stored().1).unwrap();
    let mut south = stored().0.south();
    south.rna.as_mut().unwrap().genes[0] = "RENAMED".into();
    let error = predictor.predict(&south, BATCHING).unwrap_err().to_string();
    assert!(error.contains("GENE01"), "{error}");
}
