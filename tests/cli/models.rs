//! Model files that are damaged or made to deceive: a sentence, or the risks of before; never a panic.

use onkos::rng::Draws;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::study::Study;

const MODEL: &str = "run/model.safetensors";
const PREDICT: &str = "predict run south.toml --out risks.csv --force";

/// Header and payload of a model file.
fn parts(bytes: &[u8]) -> (Value, &[u8]) {
    let (header, payload) = bytes[8..].split_at(u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize);
    (serde_json::from_slice(header).unwrap(), payload)
}

fn file(header: &Value, payload: &[u8]) -> Vec<u8> {
    let header = serde_json::to_vec(header).unwrap();
    [&(header.len() as u64).to_le_bytes()[..], &header, payload].concat()
}

/// The model file with another recipe and the checksum that belongs to it: what a forger would write.
fn forged(bytes: &[u8], recipe: &str) -> Vec<u8> {
    let (mut header, payload) = parts(bytes);
    let mut hasher = Sha256::new();
    hasher.update(recipe);
    // The keys of a JSON object come sorted here.
    for (name, entry) in header.as_object().unwrap().iter().filter(|(name, _)| *name != "__metadata__") {
        let shape: Vec<u64> = serde_json::from_value(entry["shape"].clone()).unwrap();
        let at = |i: usize| entry["data_offsets"][i].as_u64().unwrap() as usize;
        hasher.update(format!("\0{name} {shape:?}\0"));
        hasher.update(&payload[at(0)..at(1)]);
    }
    let sum: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    header["__metadata__"]["onkos.recipe"] = recipe.into();
    header["__metadata__"]["onkos.sha256"] = sum.into();
    file(&header, payload)
}

#[test]
fn a_model_file_cut_short_or_of_another_kind_is_refused() {
    let (study, _) = Study::trained();
    let whole = study.read(MODEL);
    for end in [0, 7, 8, 9, 100, whole.len() / 2, whole.len() - 1] {
        study.write(MODEL, &whole[..end]);
        study.refuses(PREDICT, &[MODEL, "bytes, but its header asks for", "copy or write the file again"]);
    }
    study.write(MODEL, [&whole[..], b"x"].concat());
    study.refuses("evaluate run south.toml", &[MODEL, "bytes, but its header asks for"]);
    study.write(MODEL, study.read("south/bags.safetensors"));
    study.refuses(PREDICT, &[MODEL, "not a model file of onkos", "not written by onkos train"]);
    std::fs::remove_file(study.path(MODEL)).unwrap();
    study.refuses(PREDICT, &[MODEL, "no such file or directory"]);
    study.refuses("evaluate south south.toml", &["south/config.toml", "no such file or directory"]);
}

#[test]
fn a_flipped_bit_is_refused_or_changes_nothing() {
    let (study, _) = Study::trained();
    let (whole, risks) = (study.read(MODEL), study.read("run/risks/south.csv"));
    let start = 8 + u64::from_le_bytes(*whole.first_chunk().unwrap()) as usize;
    let stream = Draws::new(1, 0, "flips").of(0);
    let mut refused = 0;
    for flip in 0..80u64 {
        // Half of them in the header, where most can go wrong.
        let range = if flip % 2 == 0 { 0..start } else { start..whole.len() };
        let place = range.start + (stream.uniform(2 * flip) * range.len() as f64) as usize;
        let mut bytes = whole.clone();
        bytes[place] ^= 1 << (stream.uniform(2 * flip + 1) * 8.0) as u32;
        study.write(MODEL, bytes);
        let answer = study.run(PREDICT);
        if answer.code == Some(0) {
            assert!(place < start, "bit flipped in byte {place} of the parameters and not seen");
            assert_eq!(study.read("risks.csv"), risks, "byte {place}");
        } else {
            answer.refused(&[MODEL]);
            refused += 1;
        }
    }
    assert!(refused >= 70, "only {refused} of 80 were refused");
}

#[test]
fn a_recipe_that_deceives_is_refused() {
    let (study, _) = Study::trained();
    let whole = study.read(MODEL);
    let recipe = parts(&whole).0["__metadata__"]["onkos.recipe"].as_str().unwrap().to_owned();
    study.write(MODEL, forged(&whole, &recipe));
    study.run(PREDICT).succeeded();
    assert_eq!(study.read("risks.csv"), study.read("run/risks/south.csv"), "the forger knows his trade");

    let recipe: Value = serde_json::from_str(&recipe).unwrap();
    let huge = json!(u64::MAX);
    let gene = json!([{ "name": "s", "genes": ["NO SUCH GENE"] }]);
    for (place, value, words) in [
        ("/model/width", json!(65536), &[MODEL, "parameter "][..]),
        ("/model/width", huge.clone(), &["model.width"]),
        ("/model/heads", json!(0), &["model.heads"]),
        ("/model/head_hidden", huge.clone(), &["model.head_hidden"]),
        ("/model/name", json!("other"), &["`other`"]),
        ("/patches/width", huge, &["mean and deviation"]),
        ("/patches/width", json!(-1), &["integer `-1`"]),
        ("/patches/standard/0", json!([]), &["mean and deviation"]),
        ("/patches/standard/1/3", json!(0.0), &["deviation that is not positive"]),
        ("/patches/standard/1/3", json!(1e39), &["number out of range"]),
        ("/genes/signatures", json!([]), &["no inputs"]),
        ("/genes/signatures/0/genes", json!([]), &["parameter "]),
        ("/genes/signatures/0/genes/0", json!("NO SUCH GENE"), &["gene NO SUCH GENE", "damaged"]),
        ("/genes/signatures", gene, &["gene NO SUCH GENE"]),
        ("/genes/scaler/clip", json!([6.0, -6.0]), &["the smaller first"]),
        ("/genes/scaler/shift", json!([]), &["one shift and one factor a gene"]),
        ("/genes/scaler/factor/0", json!(1e300), &["is not finite"]),
        ("/genes", Value::Null, &["parameter "]),
        ("/loss", json!("nll"), &["time bins"]),
        ("/loss", json!(7), &[MODEL]),
        ("/bins", json!({ "rule": "mmp", "edges": [2.0, 1.0, 0.0] }), &["each above the one before"]),
        ("/bins", json!({ "rule": "mmp", "edges": [0.0, 1.0, 2.0] }), &["time bins"]),
        ("/median_risk", Value::Null, &["null"]),
        ("/baseline/steps", json!("none"), &["\"none\""]),
    ] {
        let mut hostile = recipe.clone();
        *hostile.pointer_mut(place).unwrap_or_else(|| panic!("{place} in {recipe}")) = value.clone();
        println!("{place} = {value}");
        study.write(MODEL, forged(&whole, &hostile.to_string()));
        std::fs::remove_file(study.path("risks.csv")).unwrap_or_default();
        study.refuses(PREDICT, words);
    }
    for text in ["", "no JSON", "[]", "{}", &"[".repeat(100_000), &"{\"a\":".repeat(1000)] {
        study.write(MODEL, forged(&whole, text));
        study.refuses(PREDICT, &[MODEL, "not a model file of onkos"]);
    }
}

#[test]
fn parameters_that_are_absent_misshapen_or_not_finite_are_named() {
    let (study, _) = Study::trained();
    let whole = study.read(MODEL);
    let (header, payload) = parts(&whole);
    let recipe = header["__metadata__"]["onkos.recipe"].as_str().unwrap().to_owned();
    let is_matrix = |entry: &Value| entry["shape"].as_array().is_some_and(|shape| shape.len() == 2);
    let name = header.as_object().unwrap().iter().find(|(_, entry)| is_matrix(entry)).unwrap().0.clone();

    let mut renamed = header.clone();
    let entry = renamed.as_object_mut().unwrap().remove(&name).unwrap();
    renamed["stranger"] = entry.clone();
    study.write(MODEL, forged(&file(&renamed, payload), &recipe));
    study.refuses(PREDICT, &[MODEL, &format!("parameter {name} must have shape"), "not in the file"]);

    let mut flat = header.clone();
    let count: u64 = serde_json::from_value::<Vec<u64>>(entry["shape"].clone()).unwrap().iter().product();
    flat[&name]["shape"] = json!([count]);
    study.write(MODEL, forged(&file(&flat, payload), &recipe));
    study.refuses(PREDICT, &[MODEL, &format!("parameter {name} must have shape"), &format!("has [{count}]")]);

    study.write(MODEL, &whole);
    study.tensor(MODEL, &name, |bytes| bytes[..4].copy_from_slice(&f32::NAN.to_le_bytes()));
    study.refuses(PREDICT, &[MODEL, &format!("{name}[0] is NaN")]);

    let integers = header.to_string().replacen("\"F32\"", "\"I32\"", 1);
    study.write(MODEL, file(&serde_json::from_str(&integers).unwrap(), payload));
    study.refuses(PREDICT, &[MODEL, "is I32, but must be F32"]);

    let later = header.to_string().replacen("\"onkos.schema\":\"1\"", "\"onkos.schema\":\"2\"", 1);
    study.write(MODEL, file(&serde_json::from_str(&later).unwrap(), payload));
    study.refuses(PREDICT, &[MODEL, "version 2"]);
}

#[test]
fn a_run_folder_whose_settings_were_broken_is_refused() {
    let (study, _) = Study::trained();
    study.edit("run/config.toml", "batch = 64", "batch = 0");
    study.refuses(PREDICT, &["run/config.toml", "train.batch"]);
}
