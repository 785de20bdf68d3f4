//! Stores: packed once, the same as the files, whatever happens meanwhile.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::{Duration, Instant};

use onkos::rng::Draws;

use crate::study::{Study, TRAIN};

/// So small that there are many shards.
const SHARDS: &str = "--shard 0.00003";

/// A study whose cohort files name stores, which are packed with these options.
fn with_stores(study: &Study, options: &str) {
    for name in ["north", "south"] {
        let packed = study.run(&format!("pack {name}.toml --out {name}.store --verify --json {options}")).succeeded();
        let packed = packed.json();
        assert!(packed["rows"].as_u64().unwrap() > 0);
        assert_eq!(packed["verified_rows"], packed["rows"]);
        name_store(study, name, &format!("{name}.store"));
    }
}

/// Has a cohort file name a store for its slides, which are the last section.
fn name_store(study: &Study, cohort: &str, store: &str) {
    let file = format!("{cohort}.toml");
    let text = study.text(&file);
    let slides = text.find("[slides]").unwrap();
    study.write(&file, format!("{}[slides]\nstore = \"{store}\"\n", &text[..slides]));
}

/// Every file of a folder of the study with its contents.
fn contents(study: &Study, folder: &str) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(study.path(folder)).unwrap().map(|entry| entry.unwrap());
    let named = entries.map(|entry| entry.file_name().into_string().unwrap());
    named.map(|name| (name.clone(), study.read(&format!("{folder}/{name}")))).collect()
}

#[test]
fn a_store_trains_the_model_that_the_files_train() {
    let study = Study::new();
    study.run(&format!("{TRAIN} --epochs 2 --out files")).succeeded();
    with_stores(&study, SHARDS);
    assert!(contents(&study, "north.store").len() > 4, "several shards and the index");
    study.run("check north.toml south.toml").succeeded();
    study.run(&format!("{TRAIN} --epochs 2 --out stored")).succeeded();
    assert!(study.read("files/model.safetensors") == study.read("stored/model.safetensors"));
    assert!(study.read("files/risks/south.csv") == study.read("stored/risks/south.csv"));
}

#[test]
fn a_packing_that_is_killed_goes_on_and_ends_the_same() {
    let study = Study::of(120);
    let words = |out: &str| format!("pack north.toml --out {out} {SHARDS}");
    let start = Instant::now();
    study.run(&words("whole")).succeeded();
    let (whole, all) = (start.elapsed(), contents(&study, "whole"));
    let stream = Draws::new(4, 0, "kills").of(0);
    let (mut alive, mut begun) = (0, 0);
    for kill in 0..20 {
        let mut child = study.command(&words("killed")).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(whole.mul_f64(0.6 * stream.uniform(kill)));
        alive += usize::from(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
        // Whatever is there under its own name is whole.
        if study.path("killed").exists() {
            for (name, bytes) in contents(&study, "killed").iter().filter(|(name, _)| name.starts_with("shard-")) {
                assert!(all.get(name) == Some(bytes), "{name} after kill {kill}");
                begun += 1;
            }
        }
        // Now and then it is killed again where it goes on.
        if kill % 4 != 0 {
            study.run(&words("killed")).succeeded();
            assert!(contents(&study, "killed") == all, "after kill {kill}");
            std::fs::remove_dir_all(study.path("killed")).unwrap();
        }
    }
    assert!(alive > 5 && begun > 0, "{alive} of 20 kills came in time, {begun} shards were there");
}

#[test]
fn only_what_changed_is_packed_again() {
    let study = Study::new();
    let words = format!("pack north.toml --out store {SHARDS} --json");
    let first = study.run(&words).succeeded().json();
    assert_eq!(first["kept"], 0);
    let again = study.run(&words).succeeded().json();
    assert_eq!(again["kept"], first["shards"]);
    // Touched, and not changed: its sum tells.
    let bags = study.read("north/bags.safetensors");
    std::thread::sleep(Duration::from_millis(20));
    study.write("north/bags.safetensors", &bags);
    assert_eq!(study.run(&words).succeeded().json()["kept"], first["shards"]);
    study.tensor("north/bags.safetensors", "features", |bytes| bytes[..4].copy_from_slice(&[0; 4]));
    let changed = study.run(&words).succeeded().json();
    assert_eq!((&changed["kept"], &changed["shards"]), (&0.into(), &first["shards"]), "they are of one file");
    // A slide less, from the end: nothing that lies before it is touched.
    study.run(&format!("pack north.toml --out fresh {SHARDS}")).succeeded();
    assert!(contents(&study, "store") == contents(&study, "fresh"));
}

#[test]
fn values_that_a_type_does_not_reach_are_counted_and_refused() {
    let study = Study::new();
    // The same bits read as bf16, which has more exponents than f16; one of them far beyond it.
    study.header("north/bags.safetensors", "\"F16\"", "\"BF16\"");
    study.tensor("north/bags.safetensors", "features", |bytes| bytes[..2].copy_from_slice(&0x7f00u16.to_le_bytes()));
    study.run("pack north.toml --out store --dtype f16").refused(&["values", "F16", "1.7", "--dtype bf16"]);
    let left = contents(&study, "store");
    assert!(left.keys().all(|name| name == "store.json"), "{:?}", left.keys());
    study.run("pack north.toml --out store --dtype f32 --verify").succeeded();
}

#[test]
fn a_damaged_store_and_a_folder_of_something_else_are_told() {
    let study = Study::new();
    study.run("pack north.toml --out store").succeeded();
    let mut shard = study.read("store/shard-00000.safetensors");
    *shard.last_mut().unwrap() ^= 1;
    study.write("store/shard-00000.safetensors", &shard);
    study.run("pack north.toml --out store --verify").refused(&["shard-00000.safetensors", "its sum differs"]);
    std::fs::create_dir(study.path("other")).unwrap();
    study.write("other/notes.txt", "mine");
    study.refuses("pack north.toml --out other", &["other", "is there already"]);

    let index = study.text("store/store.json");
    name_store(&study, "north", "store");
    for (from, to, words) in [
        ("\"onkos_store\": 1", "\"onkos_store\": 2", &["form 2"][..]),
        ("shard-00000.safetensors", "../shard-00000.safetensors", &["is no file of this folder"]),
        ("\"first_row\": 0", "\"first_row\": 1", &["do not follow"]),
        ("\"rows\"", "\"lines\"", &["store.json", "line"]),
    ] {
        assert!(index.contains(from));
        study.write("store/store.json", index.replacen(from, to, 1));
        let answer = study.run("check north.toml");
        assert!(answer.code == Some(2) && words.iter().all(|word| answer.out.contains(word)), "{answer:?}");
    }
}
