//! What commands do when all is well.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::study::{Answer, Study, TRAIN};

/// The rows of a risk table by case.
fn risks(table: &str) -> BTreeMap<String, Vec<String>> {
    let mut lines = table.lines();
    assert_eq!(lines.next(), Some("case_id,set,time,event,risk,group"));
    lines
        .map(|line| {
            let cells: Vec<String> = line.split(',').map(String::from).collect();
            (cells[0].clone(), cells[1..].to_vec())
        })
        .collect()
}

#[test]
fn every_command_explains_itself() {
    let study = Study::new();
    for command in
        ["", "quickstart", "train", "study", "evaluate", "predict", "check", "import", "inspect", "doctor", "bench"]
    {
        let help = study.run(&format!("{command} --help")).succeeded();
        assert!(help.out.contains("Usage: onkos") && help.out.contains("--json"), "{}", help.out);
        assert!(help.err.is_empty(), "{}", help.err);
    }
    assert!(study.run("--version").succeeded().out.starts_with(concat!("onkos ", env!("CARGO_PKG_VERSION"))));
    assert!(
        study.run("train --help").succeeded().out.contains("killed"),
        "leftovers of a killed training are explained"
    );
}

#[test]
fn wrong_arguments_end_with_code_2_and_machines_read_why() {
    let study = Study::new();
    for words in ["", "trian", "train", "train --source", "train --source a --epochs many", "doctor --threads 0"] {
        assert_eq!(study.run(words).code, Some(2), "{words}");
        let json = study.run(&format!("{words} --json"));
        assert_eq!(json.code, Some(2), "{words}");
        if !words.is_empty() {
            let why = json.json()["error"].as_str().unwrap().to_owned();
            assert!(!why.is_empty() && !why.contains('\n') && !why.contains("error:"), "{why}");
        }
    }
}

#[test]
fn a_run_folder_holds_everything_and_predicts_from_elsewhere_when_the_source_is_gone() {
    let (study, summary) = Study::trained();
    for file in ["config.toml", "manifest.json", "metrics.jsonl", "model.safetensors", "split.csv"] {
        assert!(study.path("run").join(file).is_file(), "{file}");
    }
    let figures = &summary["figures"];
    assert_eq!(figures[0], study.json("run/figures/north.train.json"));
    assert_eq!(figures[1], study.json("run/figures/north.validation.json"));
    assert_eq!(figures[2], study.json("run/figures/south.json"));
    assert_eq!(summary["run"], "run");

    let manifest = study.json("run/manifest.json");
    assert_eq!(manifest["onkos"], env!("CARGO_PKG_VERSION"));
    assert_eq!((&manifest["source"], &manifest["targets"][0]), (&Value::from("north"), &Value::from("south")));
    assert!(manifest["threads"].as_u64().unwrap() >= 1 && manifest["seed"] == 0 && manifest["command"].is_array());
    if cfg!(target_os = "linux") {
        assert!(manifest["peak_memory_bytes"].as_u64().unwrap() > 1 << 20);
    }
    let inputs = manifest["inputs"].as_array().unwrap();
    for name in ["north.toml", "north/clinical.csv", "north/rna.safetensors", "north/bags.safetensors", "genes.txt"] {
        let input = inputs.iter().find(|i| i["file"] == name).unwrap_or_else(|| panic!("{name} in {inputs:?}"));
        assert_eq!(input["bytes"].as_u64().unwrap(), study.read(name).len() as u64);
        assert_eq!(input["sha256"].as_str().unwrap().len(), 64);
    }

    let epochs: Vec<Value> =
        study.text("run/metrics.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(epochs.iter().map(|e| e["epoch"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2]);
    assert!(epochs.iter().all(|e| e["loss"].as_f64().unwrap().is_finite() && !e["validation"].is_null()));

    let north = risks(&study.text("run/risks/north.csv"));
    let split = study.text("run/split.csv");
    assert_eq!((north.len(), split.lines().count()), (60, 61));
    for line in split.lines().skip(1) {
        let (case, set) = line.split_once(',').unwrap();
        assert_eq!(north[case][0], set, "the table of risks says which set {case} is in");
    }

    // The resolved settings repeat the run; nothing but the run folder is needed to predict and to evaluate.
    let again = study.run(&format!("{TRAIN} --config run/config.toml --out again --json")).succeeded().json();
    assert_eq!(again["figures"].as_array().unwrap().len(), 3);
    let resolved = |run: &str| study.text(&format!("{run}/config.toml"));
    assert_eq!(resolved("run"), resolved("again"));
    assert_eq!(study.read("run/model.safetensors"), study.read("again/model.safetensors"));

    let elsewhere = tempfile::tempdir().unwrap();
    let moved = elsewhere.path().join("moved");
    std::fs::rename(study.path("run"), &moved).unwrap();
    std::fs::remove_dir_all(study.path("north")).unwrap();
    std::fs::remove_file(study.path("north.toml")).unwrap();
    let moved = moved.to_str().unwrap();
    let evaluated = study.run(&format!("evaluate {moved} south.toml --replicates 20 --json")).succeeded().json();
    assert_eq!(evaluated[0], figures[2], "evaluate gives the figures that train gave");
    let predicted = study.run(&format!("predict {moved} south.toml --out risks.csv --json")).succeeded().json();
    assert_eq!((&predicted["patients"], &predicted["out"]), (&Value::from(60), &Value::from("risks.csv")));
    let table = std::fs::read_to_string(elsewhere.path().join("moved/risks/south.csv")).unwrap();
    assert_eq!(study.text("risks.csv"), table, "predict gives the risks that train gave");
    let high = risks(&table).values().filter(|row| row[4] == "high").count();
    assert_eq!(predicted["high"].as_u64().unwrap() as usize, high);
}

#[test]
fn several_cohorts_are_evaluated_in_their_order() {
    let (study, _) = Study::trained();
    let both = study.run("evaluate run south.toml north.toml --replicates 20 --json").succeeded().json();
    assert_eq!((&both[0]["cohort"], &both[1]["cohort"]), (&Value::from("south"), &Value::from("north")));
    let table = study.run("evaluate run south.toml --replicates 20").succeeded().out;
    let c = both[0]["harrell"]["index"].as_f64().unwrap();
    assert!(table.contains("south") && table.contains(&format!("{c:.3}")), "{table}");
}

#[test]
fn quickstart_makes_a_study_and_a_run_and_refuses_to_do_it_twice() {
    let study = Study::new();
    let said = study.run("quickstart --out q").succeeded();
    assert!(said.out.contains("run: q/run") && said.out.contains("south"), "{}", said.out);
    for name in ["q/north.toml", "q/south/bags.safetensors", "q/config.toml", "q/run/model.safetensors"] {
        assert!(study.path(name).is_file(), "{name}");
    }
    study.refuses("quickstart --out q", &["q: is there already"]);
}

#[test]
fn check_and_doctor_tell_what_they_find() {
    let study = Study::new();
    let report = study.run("check north.toml south.toml --json").succeeded().json();
    assert_eq!(report.as_array().unwrap().len(), 2);
    assert_eq!((&report[0]["sound"], &report[0]["patients"]), (&Value::from(true), &Value::from(60)));
    assert!(study.run("check north.toml").succeeded().out.contains("nothing is wrong"));
    let doctor = study.run("doctor --json --threads 2").succeeded().json();
    assert_eq!((&doctor["threads"], &doctor["devices"][0]["device"]), (&Value::from(2), &Value::from("cpu")));
    assert!(study.run("doctor").succeeded().out.contains("usable"));
    study.refuses("doctor --device abacus", &["device abacus", "--device cpu"]);
}

#[test]
fn progress_goes_to_standard_error_and_json_is_alone() {
    let study = Study::new();
    let plain = study.run(&format!("{TRAIN} --epochs 3 --out plain")).succeeded();
    assert_eq!(plain.err.lines().filter(|line| line.starts_with("epoch ")).count(), 3, "{}", plain.err);
    assert!(!plain.err.contains('\u{1b}') && !plain.out.contains("epoch 1/3"), "no bar without a terminal");
    let json = study.run(&format!("{TRAIN} --epochs 3 --out json --json")).succeeded();
    assert_eq!(json.err, "");
    json.json();
}

/// Runs a command line under a terminal of its own; `None` without the program for it.
#[cfg(target_os = "linux")]
fn on_a_terminal(study: &Study, words: &str) -> Option<Answer> {
    let program = study.command("").get_program().to_str()?.to_owned();
    let there = Command::new("script").arg("--version").stdout(Stdio::null()).status();
    if !there.is_ok_and(|status| status.success()) {
        println!("skipped: no script(1) here");
        return None;
    }
    let mut script = Command::new("script");
    let line = format!("'{program}' {words}");
    script.args(["-qec", &line, "/dev/null"]).current_dir(study.path("")).env("TERM", "xterm").stdin(Stdio::null());
    Some(Answer::of(&mut script))
}

#[cfg(target_os = "linux")]
#[test]
fn a_terminal_shows_a_bar_but_not_with_json() {
    let study = Study::new();
    let Some(bar) = on_a_terminal(&study, &format!("{TRAIN} --epochs 3 --out bar")) else { return };
    let bar = bar.succeeded();
    assert!(bar.out.contains("batches") && bar.out.contains("epoch 3/3"), "{}", bar.out);
    let json = on_a_terminal(&study, &format!("{TRAIN} --epochs 3 --out json --json")).unwrap().succeeded();
    assert!(!json.out.contains("batches") && json.json()["run"] == "json");
}

#[test]
fn a_cohort_whose_name_is_a_path_stays_in_the_run_folder() {
    let study = Study::new();
    study.edit("south.toml", "name = \"south\"", "name = \"../../x\"");
    study.run(&format!("{TRAIN} --epochs 1 --out deep/er/run")).succeeded();
    assert!(study.path("deep/er/run/risks/.._.._x.csv").is_file());
    assert!(study.path("deep/er/run/figures/.._.._x.json").is_file());
    assert!(!study.names().iter().any(|path| path.file_name().unwrap().to_str().unwrap().starts_with("x.")));
    study.edit("north.toml", "name = \"north\"", "name = \"../up\"");
    let run = study.run(&format!("{TRAIN} --epochs 1 --json")).succeeded().json();
    assert_eq!(run["run"], "runs/.._up-seed0", "the default name of a run stays below runs");
}

#[test]
fn the_largest_seed_is_kept() {
    let study = Study::new();
    study.run(&format!("{TRAIN} --epochs 1 --seed {} --out run", u64::MAX)).succeeded();
    study.run("evaluate run south.toml --replicates 5").succeeded();
    assert_eq!(study.json("run/manifest.json")["seed"].as_u64(), Some(u64::MAX));
}

#[cfg(target_os = "linux")]
#[test]
fn a_closed_or_full_standard_output_is_no_panic() {
    let (study, _) = Study::trained();
    for words in ["check south.toml", "evaluate run south.toml --replicates 5 --json", "doctor"] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = study.command(words).stdout(full).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{words}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "onkos: standard output: no space left on device\n");
        // A reader that has gone, as head does.
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = study.command(words).stdout(writer).output().unwrap();
        assert_eq!((output.status.code(), &output.stderr[..]), (Some(2), &b""[..]), "{words}");
    }
}
