//! Machines with and without a card, good and bad ones: the emulated driver plays them all.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::studies::TINY;
use crate::study::{Answer, Study};

/// The folder of the emulated driver: that of the run we are in, else the one that was built last.
fn emulator() -> Option<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    let built = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(target).join("emulator/ok");
    let folder = std::env::var_os("EMU_LIBRARIES").map_or(built, PathBuf::from);
    let there =
        ["libcuda.so.1", "libnvrtc.so.13", "libcublasLt.so.13"].iter().all(|library| folder.join(library).exists());
    if !there {
        let required = std::env::var("ONKOS_REQUIRE_CUDA").is_ok_and(|value| value == "1");
        assert!(!required, "ONKOS_REQUIRE_CUDA is set, but {} holds no emulated driver", folder.display());
        println!("skipped: the emulated driver is not built (emulator/build)");
    }
    there.then_some(folder)
}

/// A machine with the emulated driver, where nothing of the user's own settings counts.
struct Machine {
    study: Study,
    libraries: PathBuf,
}

impl Machine {
    fn new() -> Option<Machine> {
        Some(Machine { study: Study::new(), libraries: emulator()? })
    }

    fn command(&self, words: &str, variables: &[(&str, &str)]) -> Command {
        let mut command = self.study.command(words);
        for name in ["EMU_DEVICES", "EMU_DRIVER_VERSION", "EMU_CAPABILITY", "EMU_MEMORY", "EMU_NVRTC", "ONKOS_NVRTC"] {
            command.env_remove(name);
        }
        for name in ["ONKOS_EMBEDDED", "ONKOS_CUBLASLT", "EMU_CUBLASLT_VERSION", "CUDA_HOME", "CUDA_PATH"] {
            command.env_remove(name);
        }
        for name in ["VIRTUAL_ENV", "CONDA_PREFIX"] {
            command.env_remove(name);
        }
        let cache = self.study.path("cache");
        command.env("LD_LIBRARY_PATH", &self.libraries).env("ONKOS_CACHE", cache).envs(variables.iter().copied());
        command
    }

    fn run(&self, words: &str, variables: &[(&str, &str)]) -> Answer {
        Answer::of(&mut self.command(words, variables))
    }

    /// The device that `onkos doctor` tells of beside the CPU, and its sentences.
    fn doctor(&self, variables: &[(&str, &str)]) -> (Value, String) {
        let answer = self.run("doctor --json --device cpu", variables).succeeded();
        let mut found = answer.json();
        let device = found["devices"][1].take();
        let sentences = device["reasons"].as_array().unwrap().iter().map(|line| line.as_str().unwrap());
        let sentences = sentences.collect::<Vec<_>>().join("\n");
        (device, sentences)
    }

    /// Asked for by its number the device is refused with these words; `auto` calculates on the CPU.
    #[track_caller]
    fn is_unusable(&self, variables: &[(&str, &str)], words: &[&str]) {
        self.run("check south.toml --device cuda:0", variables).refused(words);
        let (device, sentences) = self.doctor(variables);
        assert_eq!(device["usable"], false, "{sentences}");
        let informed = [variables, &[("ONKOS_LOG", "info")]].concat();
        let auto = self.run("check south.toml --device auto", &informed).succeeded();
        assert_eq!(auto.err.matches("calculating on the CPU").count(), 1, "{}", auto.err);
        for word in words.iter().filter(|word| !word.contains("--") && !word.contains("cuda:")) {
            assert!(sentences.contains(word) || auto.err.contains(word), "no {word:?} in {sentences}\n{}", auto.err);
        }
    }
}

/// What is compiled when the embedded machine code is not used.
const SOURCES: (&str, &str) = ("ONKOS_EMBEDDED", "off");

#[test]
fn without_a_driver_a_card_is_refused_and_auto_is_the_cpu() {
    let study = Study::new();
    let run = |words: &str| Answer::of(study.command(words).env_remove("LD_LIBRARY_PATH").env_remove("LD_PRELOAD"));
    let found = run("doctor --json --device cpu").succeeded().json();
    let devices = found["devices"].as_array().unwrap();
    if devices.iter().any(|device| device["device"] == "cuda:0") {
        println!("skipped: this machine has a driver of its own");
        return;
    }
    assert_eq!((&devices[1]["device"], &devices[1]["usable"]), (&Value::from("cuda"), &Value::from(false)));
    run("check south.toml --device cuda:0").refused(&["device cuda:0", "no CUDA driver", "--device cpu"]);
    let auto = run("check south.toml --device auto").succeeded();
    assert_eq!((auto.err.as_str(), auto.code), ("", Some(0)), "a machine without a card is nothing to speak of");
}

#[test]
fn a_card_is_found_with_all_that_is_known_of_it() {
    let Some(machine) = Machine::new() else { return };
    let (device, sentences) = machine.doctor(&[]);
    assert_eq!((&device["device"], &device["usable"]), (&Value::from("cuda:0"), &Value::from(true)), "{sentences}");
    for word in ["CUDA 13.0", "compute capability 9.0", "multiprocessors", "GiB of memory are free", "kernels of"] {
        assert!(sentences.contains(word), "no {word:?} in {sentences}");
    }
    let text = machine.run("doctor --device cuda:0", &[]).succeeded().out;
    for line in ["kernels  ", "cache    ", "cuda:0   usable"] {
        assert!(text.contains(line), "no {line:?} in {text}");
    }
}

#[test]
fn a_card_of_another_number_is_refused() {
    let Some(machine) = Machine::new() else { return };
    machine.run("check south.toml --device cuda:7", &[]).refused(&["device cuda:7", "the only device is cuda:0"]);
}

#[test]
fn trainings_of_a_study_run_side_by_side_on_a_card_each() {
    let Some(machine) = Machine::new() else { return };
    let study = "study s.toml --device cuda:0";
    // Small nets of genes alone: the emulated driver takes its time.
    let small = TINY
        .replace("name = \"fusion\"", "name = \"snn\"\nmodel = { widths = [4] }")
        .replace("epochs = 2", "epochs = 1");
    machine.study.write("s.toml", small);
    let two = [("EMU_DEVICES", "2")];
    machine.run(&format!("{study} --jobs 3"), &two).refused(&[
        "cuda:2",
        "the devices are cuda:0 to cuda:1",
        "--jobs 3",
    ]);
    machine.run(&format!("{study} --jobs 2"), &[]).refused(&["cuda:1", "the only device is cuda:0", "a card each"]);
    machine.run(&format!("{study} --jobs 2"), &two).succeeded();
    let side_by_side = machine.study.read("s-results/study.json");
    std::fs::remove_dir_all(machine.study.path("s-results")).unwrap();
    machine.run(study, &[]).succeeded();
    assert!(machine.study.read("s-results/study.json") == side_by_side);
}

#[test]
fn a_driver_without_a_card_is_told() {
    let Some(machine) = Machine::new() else { return };
    machine.is_unusable(&[("EMU_DEVICES", "0")], &["device cuda:0", "finds no device", "--device cpu"]);
}

#[test]
fn a_driver_that_is_too_old_is_told() {
    let Some(machine) = Machine::new() else { return };
    machine.is_unusable(&[("EMU_DRIVER_VERSION", "11000")], &["device cuda:0", "too old", "CUDA 11.0", "12.0"]);
    let (device, sentences) = machine.doctor(&[("EMU_DRIVER_VERSION", "12040")]);
    assert_eq!(device["usable"], true, "{sentences}");
    assert!(sentences.contains("CUDA 12.4"), "{sentences}");
}

#[test]
fn a_card_that_is_too_old_is_told() {
    let Some(machine) = Machine::new() else { return };
    machine.is_unusable(&[("EMU_CAPABILITY", "75")], &["device cuda:0", "compute capability 7.5", "8.0"]);
}

#[test]
fn kernels_are_compiled_at_first_use_and_kept() {
    let Some(machine) = Machine::new() else { return };
    let (device, sentences) = machine.doctor(&[SOURCES]);
    assert_eq!(device["usable"], true, "{sentences}");
    assert!(sentences.contains("compiled for sm_90a by NVRTC 13.0"), "{sentences}");
    assert!(sentences.contains("files: embedded machine code: "), "{sentences}");
    let cached = || -> Vec<PathBuf> {
        let entries = std::fs::read_dir(machine.study.path("cache")).unwrap();
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    };
    let (files, whole) = (cached(), std::fs::read(&cached()[0]).unwrap());
    // What is kept is used: a compiler that fails is not asked.
    let (device, sentences) = machine.doctor(&[SOURCES, ("EMU_NVRTC", "fails")]);
    assert_eq!(device["usable"], true, "{sentences}");
    for damaged in [&whole[..whole.len() - 5], b"", b"some other file"] {
        std::fs::write(&files[0], damaged).unwrap();
        let answer = machine.run("doctor --device cpu", &[SOURCES]).succeeded();
        assert!(
            answer.err.contains("not what was written there") && answer.out.contains("cuda:0   usable"),
            "{answer:?}"
        );
        assert_eq!((cached(), std::fs::read(&files[0]).unwrap()), (files.clone(), whole.clone()), "it is replaced");
        assert_eq!(machine.run("doctor --device cpu", &[SOURCES]).succeeded().err, "");
    }
}

#[test]
fn a_cache_that_cannot_be_written_is_a_warning() {
    let Some(machine) = Machine::new() else { return };
    machine.study.write("file", "");
    let answer = machine.run("doctor --device cuda:0", &[SOURCES, ("ONKOS_CACHE", "file/cache")]).succeeded();
    assert!(answer.err.contains("compiled kernels are not kept: file/cache"), "{}", answer.err);
    assert!(answer.out.contains("cuda:0   usable"), "{}", answer.out);
}

#[test]
fn a_compiler_that_fails_or_is_missing_is_told() {
    let Some(machine) = Machine::new() else { return };
    // Whether there is machine code to be switched off depends on the build.
    let words = ["cuda:0", "embedded machine code", "EMU_NVRTC asks for this failure"];
    machine.is_unusable(&[SOURCES, ("EMU_NVRTC", "fails")], &words);
    let words = ["cuda:0", "NVRTC nowhere/libnvrtc.so", "o such file"];
    machine.is_unusable(&[SOURCES, ("ONKOS_NVRTC", "nowhere/libnvrtc.so")], &words);
}

#[test]
fn a_batch_that_does_not_fit_is_named_with_its_largest_patient() {
    let Some(machine) = Machine::new() else { return };
    let train = "train --source north.toml --target south.toml --device cuda:0 --epochs 1 --out run";
    let words = [
        "cuda:0 has not enough memory for batch 1 of 1 of epoch 1",
        "48 patients",
        "most of them of",
        "MiB are free",
        "train.patches_per_batch",
    ];
    machine.run(train, &[("EMU_MEMORY", "3000000")]).refused(&words);
    assert!(!machine.study.path("run").exists());
}

#[test]
fn a_card_refuses_no_precision_and_the_cpu_all_but_one() {
    let Some(machine) = Machine::new() else { return };
    machine.study.write("run.toml", "[train]\nprecision = \"bf16\"\n");
    let train = "train --source north.toml --config run.toml --epochs 1 --out run --device";
    machine.run(&format!("{train} cpu"), &[]).refused(&["train.precision", "f32", "bf16"]);
    machine.run(&format!("{train} cuda:0"), &[]).succeeded();
    let manifest = machine.study.json("run/manifest.json");
    assert_eq!((&manifest["device"], &manifest["precision"]), (&Value::from("cuda:0"), &Value::from("bf16")));
    assert_eq!(manifest["device_name"], "emulated");
    // Its model predicts on both.
    for device in ["cpu", "cuda:0"] {
        machine.run(&format!("predict run south.toml --out {device}.csv --device {device}"), &[]).succeeded();
    }
}

#[test]
fn a_library_for_products_is_found_used_and_told() {
    let Some(machine) = Machine::new() else { return };
    let (device, sentences) = machine.doctor(&[]);
    assert_eq!(device["usable"], true, "{sentences}");
    assert!(sentences.contains("train.products = \"cublaslt\" can be used: cuBLASLt 13.0.2"), "{sentences}");
    machine.study.write("run.toml", "[train]\nproducts = \"cublaslt\"\n");
    let train = "train --source north.toml --config run.toml --epochs 1 --out run --device";
    machine.run(&format!("{train} cpu"), &[]).refused(&["train.products", "own", "cublaslt"]);
    machine.run(&format!("{train} cuda:0"), &[]).succeeded();
    let manifest = machine.study.json("run/manifest.json");
    assert_eq!((&manifest["products"], &manifest["products_version"]), (&"cublaslt".into(), &"13.0.2".into()));
    // Its model predicts where there is no such library, too.
    let nowhere = [("ONKOS_CUBLASLT", "nowhere/libcublasLt.so")];
    let warned = machine.run("predict run south.toml --out a.csv --device cuda:0", &nowhere).succeeded();
    assert!(warned.err.contains("instead of cuBLASLt: nowhere/libcublasLt.so"), "{}", warned.err);
    machine.run("predict run south.toml --out b.csv --device cpu", &nowhere).succeeded();
}

#[test]
fn a_library_for_products_that_cannot_be_used_is_refused_where_it_is_asked_for() {
    let Some(machine) = Machine::new() else { return };
    machine.study.write("run.toml", "[train]\nproducts = \"cublaslt\"\n");
    let another = machine.libraries.join("libnvrtc.so.13").display().to_string();
    for (variable, value, words) in [
        ("ONKOS_CUBLASLT", "nowhere/libcublasLt.so", ["nowhere/libcublasLt.so", "o such file"]),
        ("ONKOS_CUBLASLT", another.as_str(), ["it has no function cublasLtGetVersion", "libnvrtc.so.13"]),
        ("EMU_CUBLASLT_VERSION", "111103", ["version 11.11.3 is too old", "12.0.0 or newer"]),
        ("EMU_DRIVER_VERSION", "12040", ["it is of CUDA 13", "the driver has CUDA 12"]),
    ] {
        let (device, sentences) = machine.doctor(&[(variable, value)]);
        assert_eq!(device["usable"], true, "nothing else depends on it: {sentences}");
        for word in ["train.products = \"cublaslt\" cannot be used", words[0], words[1]] {
            assert!(sentences.contains(word), "no {word:?} in {sentences}");
        }
        let train = "train --source north.toml --config run.toml --epochs 1 --out run --device cuda:0";
        let all = ["cuBLASLt cannot be used on cuda:0", words[0], words[1], "write train.products = \"own\""];
        machine.run(train, &[(variable, value)]).refused(&all);
        assert!(!machine.study.path("run").exists());
        machine.run("bench --quick --products cublaslt --list --device cuda:0", &[(variable, value)]).refused(&all);
    }
    machine.run("bench --products cublaslt --list --device cpu", &[]).refused(&[
        "--products",
        "own",
        "--device cuda:0",
    ]);
    let listed = machine.run("bench add --products cublaslt --list --device cuda:0", &[]).succeeded();
    assert!(listed.out.contains("add/"), "{}", listed.out);
}
