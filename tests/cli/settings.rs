//! Run files with something wrong, and what is allowed though it looks odd.

use crate::study::{Study, TRAIN};

#[test]
fn settings_out_of_range_are_refused_with_the_name_of_the_file() {
    let study = Study::new();
    let model = "[model]\nname = \"fusion\"\n";
    for (text, words) in [
        ("[train]\nepochs = 0", &["train.epochs must be at least 1"][..]),
        ("[train]\nepochs = -1", &["line 2", "integer `-1`", "whole number from 0"]),
        ("[train]\nbatch = 0", &["train.batch"]),
        ("[train]\npatches_per_batch = 0", &["train.patches_per_batch"]),
        ("[train]\nlearning_rate = nan", &["train.learning_rate must be finite and positive, but is NaN"]),
        ("[train]\nlearning_rate = inf", &["train.learning_rate", "inf"]),
        ("[train]\nlearning_rate = -0.1", &["train.learning_rate"]),
        ("[train]\nlearning_rate = \"fast\"", &["line 2", "\"fast\"", "expected a number"]),
        ("[train]\nclip_norm = -1.0", &["train.clip_norm"]),
        ("[train]\nvalidation = 1.0", &["train.validation must be at least 0 and below 1"]),
        ("[train]\nvalidation = nan", &["train.validation"]),
        ("[train]\nmodality_dropout = 1.0", &["train.modality_dropout"]),
        ("[train]\nnll_alpha = 2.0", &["train.nll_alpha"]),
        ("[train]\nbins = 1", &["train.bins must be between 2 and 1000"]),
        ("[train]\nloss = \"nll\"\nrisk_set = \"cohort\"", &["train.risk_set", "\"batch\"", "is \"cohort\""]),
        ("[train]\nsampling = \"event_balanced\"\nrisk_set = \"cohort\"", &["train.sampling", "\"uniform\" when"]),
        ("[train]\nsampling = \"bin_balanced\"", &["train.sampling", "which has no time bins"]),
        ("[train]\nloss = \"mse\"", &["line 2", "`mse`", "`cox`"]),
        ("[train.optimizer]\nkind = \"adamw\"\nbeta = 0.9", &["line 3: unknown field `beta`"]),
        ("sed = 1", &["line 1: unknown field `sed`", "`seed`"]),
        ("[train]\nepoch = 3", &["line 2: unknown field `epoch`", "`epochs`"]),
        ("[train", &["line 1"]),
        ("[model]\nwidth = 3", &["line 1", "missing field `name`"]),
        (&format!("{model}widht = 3"), &["line 3: unknown field `widht`"]),
        (&format!("{model}width = 0"), &["model.width must be between 1 and 65536"]),
        (&format!("{model}heads = 60000"), &["model.heads", "heads times width"]),
        (&format!("{model}head_hidden = 9000000000000000000"), &["model.head_hidden must be at most 65536"]),
        (&format!("{model}head_dropout = 1.0"), &["model.head_dropout"]),
        (&format!("{model}[model.sdir.genes]\np = 1.5"), &["sdir.p"]),
        (&format!("{model}[model.sdir.genes]\nq = 1.5"), &["line 4: unknown field `q`"]),
        (&format!("{model}[model.cade]\nalpha = 0.0"), &["cade.alpha"]),
    ] {
        study.write("run.toml", text);
        let words = [&["run.toml: "], words].concat();
        study.refuses(&format!("{TRAIN} --config run.toml --out run"), &words);
    }
    study.refuses(&format!("{TRAIN} --epochs 0 --out run"), &["train.epochs must be at least 1, but is 0"]);
    study.refuses(&format!("{TRAIN} --config no.toml --out run"), &["no.toml: no such file or directory"]);
}

#[test]
fn settings_that_only_training_can_refuse_leave_no_run() {
    let study = Study::new();
    for (text, words) in [
        ("[train]\nlearning_rate = 1e30", &["diverged", "lower train.learning_rate"][..]),
        ("[train]\nlearning_rate = 1e30\nloss = \"nll\"", &["diverged"]),
        ("[train]\nlearning_rate = 1e30\nloss = \"nll\"\nvalidation = 0.0", &["diverged"]),
        ("[train]\nlearning_rate = 1e30\nrisk_set = \"cohort\"", &["diverged"]),
        ("[train]\nloss = \"nll\"\nbins = 900", &["train.bins must be so few", "900"]),
        ("[train.optimizer]\nkind = \"adamw\"\nbeta1 = 2.0", &["adamw.beta1"]),
        ("[train.schedule]\nwarmup_epochs = -1.0", &["schedule.warmup_epochs"]),
    ] {
        study.write("run.toml", text);
        study.refuses(&format!("{TRAIN} --config run.toml --epochs 4 --out run"), words);
    }
}

#[test]
fn without_validation_patients_the_last_epoch_is_kept() {
    let study = Study::new();
    study.write("run.toml", "[train]\nvalidation = 0.0\nepochs = 3\npatience = 1\n");
    let summary = study.run(&format!("{TRAIN} --config run.toml --out run --json")).succeeded().json();
    assert_eq!(summary["kept_epoch"], 3);
    assert_eq!(summary["figures"].as_array().unwrap().len(), 2, "training patients and target");
    assert!(study.text("run/split.csv").lines().skip(1).all(|line| line.ends_with(",train")));
    assert!(study.text("run/metrics.jsonl").lines().all(|line| line.contains("\"validation\":null")));
    assert!(study.text("run/config.toml").contains("select = \"last\""), "the resolved file says what was done");
    study.run("evaluate run south.toml --replicates 5").succeeded();
}

#[test]
fn a_split_is_taken_from_a_file_and_its_mistakes_are_named() {
    let study = Study::new();
    let case = |i: usize| format!("NORTH-{i:04}");
    let rows: String = (1..=30).map(|i| format!("{},{}\n", case(i), case(30 + i))).collect();
    study.write("split.csv", format!("train,test\n{rows}").replace("train,test", "train,val"));
    let summary = study.run(&format!("{TRAIN} --split split.csv --epochs 1 --out run --json")).succeeded().json();
    assert_eq!((&summary["figures"][0]["patients"], &summary["figures"][1]["patients"]), (&30.into(), &30.into()));

    let report = study.run("check north.toml --split split.csv --json").succeeded().json();
    let split = &report[0]["split"];
    assert_eq!(
        (&split["train"]["patients"], &split["validation"]["patients"], &split["unused"]),
        (&30.into(), &30.into(), &0.into())
    );
    let events = |set: &str| split[set]["events"].as_u64().unwrap();
    assert_eq!(events("train") + events("validation"), report[0]["events"].as_u64().unwrap());

    study.edit("split.csv", "NORTH-0005", "NORTH-9999");
    study.edit("split.csv", "NORTH-0006", "NORTH-0036");
    let words = ["split.csv: line 6: \"NORTH-9999\" in train is no patient", "\"NORTH-0036\" is in train and in val"];
    study.refuses(&format!("{TRAIN} --split split.csv --epochs 1 --out other"), &words);
    study.refuses(&format!("{TRAIN} --split no.csv --epochs 1 --out other"), &["no.csv", "no such file"]);
    study.refuses("check north.toml south.toml --split split.csv", &["--split must be of one cohort"]);

    // With whatever else is wrong, in one list.
    study.cell("north/clinical.csv", 3, 2, "2");
    let checked = study.run("check north.toml --split split.csv --json");
    let problems = checked.json()[0]["problems"].to_string();
    assert_eq!(checked.code, Some(2));
    for word in ["NORTH-9999", "died of NORTH-0003"] {
        assert!(problems.contains(word), "{word}: {problems}");
    }
}

#[test]
fn cohorts_whose_results_would_have_one_name_are_refused() {
    let study = Study::new();
    let words = ["north.toml", "both be called north", "name of its own"];
    study.refuses("train --source north.toml --target north.toml --out run", &words);
    study.edit("south.toml", "name = \"south\"", "name = \"north\"");
    study.refuses("train --source north.toml --target south.toml --out run", &["north.toml and of south.toml"]);
    study.edit("south.toml", "name = \"north\"", "name = \"north.train\"");
    study.refuses("train --source north.toml --target south.toml --out run", &["both be called north.train"]);
}
