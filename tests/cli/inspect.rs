//! `onkos inspect`: what files are, and what would be done with them.

use std::path::Path;

use serde_json::{Value, json};

use crate::study::{Study, plain};

/// Copies a file of `tests/fixtures` into the folder of a study.
fn with(study: &Study, name: &str) {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    std::fs::copy(from, study.path(name)).unwrap();
}

#[test]
fn a_file_of_features_is_told_with_all_that_it_says() {
    let study = Study::new();
    with(&study, "trident.h5");
    let found = study.run("inspect trident.h5 --json").succeeded().json();
    let found = &found[0];
    for (key, value) in [
        ("kind", json!("features")),
        ("dialect", json!("Trident")),
        ("shape", json!([37, 24])),
        ("stored_type", json!("F32")),
        ("encoder", json!("uni_v1")),
        ("sound", json!(true)),
        ("nan_rows", json!(0)),
        ("zero_rows", json!(0)),
    ] {
        assert_eq!(found[key], value, "{key} in {found}");
    }
    assert_eq!(found["patch"], json!({"pixels": 256.0, "level0_pixels": 512.0, "microns": null}));
    assert_eq!((&found["coords"]["unit"], &found["coords"]["x"]), (&json!("level-0 pixels"), &json!([0.0, 3072.0])));
    let text = study.run("inspect trident.h5").succeeded().out;
    for words in
        ["HDF5 of TRIDENT", "uni_v1", "256 pixels, 512 level-0 pixels", "read as 37 instances of 24 features in F32"]
    {
        assert!(text.contains(words), "{words} in {text}");
    }
}

#[test]
fn what_is_refused_says_why_and_ends_with_code_2_but_the_others_are_told_too() {
    let study = Study::new();
    for name in ["trident_slide.h5", "os_system.pt", "trident_empty.h5", "stamp_historic.h5"] {
        with(&study, name);
    }
    let words = "inspect trident_slide.h5 os_system.pt trident_empty.h5 stamp_historic.h5 nothing.h5";
    let told = study.run(words);
    assert_eq!(told.code, Some(2));
    for words in [
        "one vector is a whole slide",
        "posix.system",
        "a slide without instances",
        "note: places lie 224 apart",
        "places in microns",
        "cannot be read: no such file",
    ] {
        assert!(told.out.contains(words), "{words} in {}", told.out);
    }
    let found = study.run(&format!("{words} --json")).json();
    let kinds: Vec<&str> = found.as_array().unwrap().iter().map(|f| f["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["refused", "refused", "features", "features", "refused"]);
    found.as_array().unwrap().iter().filter_map(|f| f["why"].as_str()).for_each(plain);
}

#[test]
fn a_table_is_told_by_its_columns() {
    let study = Study::new();
    let found = study.run("inspect north/clinical.csv --json").succeeded().json();
    assert_eq!((&found[0]["kind"], &found[0]["rows"]), (&Value::from("table"), &Value::from(60)));
    let header = study.text("north/clinical.csv").lines().next().unwrap().to_owned();
    let columns: Vec<&str> = found[0]["columns"].as_array().unwrap().iter().map(|c| c.as_str().unwrap()).collect();
    assert_eq!(columns.join(","), header);
    assert!(study.run("inspect north/clinical.csv").succeeded().out.contains("table of 60 rows"));
}

#[test]
fn rows_that_are_not_finite_are_counted_and_refused() {
    let study = Study::new();
    with(&study, "plain.npy");
    let mut bytes = study.read("plain.npy");
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    study.write("plain.npy", bytes);
    let told = study.run("inspect plain.npy");
    assert_eq!(told.code, Some(2));
    assert!(told.out.contains("rows with NaN: 1") && told.out.contains("extract this slide again"), "{}", told.out);
}
