//! Cohorts with something wrong: one clear sentence that names file and place.

use safetensors::Dtype;
use safetensors::tensor::{TensorView, serialize};

use crate::study::{Study, plain};

const SOURCE: &str = "train --source north.toml --epochs 1 --out run";
const BOTH: &str = "train --source north.toml --target south.toml --epochs 1 --out run";

/// A cohort with this change is refused by train, as source, and reported by check, in sentences with these words.
#[track_caller]
fn refused(change: impl FnOnce(&Study), words: &[&str]) {
    let study = Study::new();
    change(&study);
    study.refuses(SOURCE, words);
    study.refuses("train --source south.toml --target north.toml --epochs 1 --out run", words);
    let check = study.run("check north.toml --json");
    let report = check.json();
    let problems: String = report[0]["problems"].as_array().unwrap().iter().map(|p| p.as_str().unwrap()).collect();
    assert_eq!((check.code, &report[0]["sound"]), (Some(2), &false.into()), "{report}");
    assert!(words.iter().all(|word| problems.contains(word)), "{problems}");
    plain(&problems);
    assert!(study.run("check north.toml").out.contains("  wrong: "));
}

const CLINICAL: &str = "north/clinical.csv";
const RNA: &str = "north/rna.safetensors";
const BAGS: &str = "north/bags.safetensors";

#[test]
fn a_missing_column() {
    refused(|s| s.cell(CLINICAL, 0, 1, "weeks"), &[CLINICAL, "no column \"months\"", "\"weeks\""]);
}

#[test]
fn event_and_censored_at_once_or_neither() {
    let words = ["north.toml", "both event and censored", "keep the one"];
    refused(|s| s.edit("north.toml", "event = \"died\"", "event = \"died\"\ncensored = \"died\""), &words);
    refused(|s| s.edit("north.toml", "event = \"died\"\n", ""), &["north.toml", "needs event", "or censored"]);
}

#[test]
fn an_event_that_is_neither_0_nor_1() {
    for value in ["2", "-1", "0.5", "yes", "alive", "NaN"] {
        let quoted = format!("{value:?}");
        let words = [CLINICAL, "line 4", "died of NORTH-0003", quoted.as_str(), "0 or 1"];
        refused(|s| s.cell(CLINICAL, 3, 2, value), &words);
    }
}

#[test]
fn a_time_that_is_negative_zero_not_finite_or_no_number() {
    for value in ["-1", "0", "inf", "NaN", "1e999"] {
        let words = [CLINICAL, "line 6", "months of NORTH-0005", value, "finite and above 0"];
        refused(|s| s.cell(CLINICAL, 5, 1, value), &words);
    }
    refused(|s| s.cell(CLINICAL, 5, 1, "soon"), &[CLINICAL, "line 6", "months", "\"soon\""]);
    refused(|s| s.cell(CLINICAL, 5, 1, ""), &[CLINICAL, "line 6", "months is blank"]);
}

#[test]
fn a_patient_twice() {
    let words = [CLINICAL, "line 3", "NORTH-0001", "line 2 already"];
    refused(|s| s.cell(CLINICAL, 2, 0, "NORTH-0001"), &words);
}

#[test]
fn a_patient_without_a_row_of_rna() {
    let table = |s: &Study| {
        let cases: Vec<String> =
            s.text(CLINICAL).lines().skip(1).map(|line| line.split(',').next().unwrap().into()).collect();
        let genes = s.text("genes.txt").lines().collect::<Vec<_>>().join(",");
        let zeros = vec!["0"; 60].join(",");
        let rows = cases.iter().filter(|case| *case != "NORTH-0007").map(|case| format!("{case},{zeros}\n"));
        s.write("north/rna.csv", format!("case,{genes}\n{}", rows.collect::<String>()));
        s.edit("north.toml", "rna.safetensors\"\ntensor = \"rna\"\ngenes = \"genes.txt\"", "rna.csv\"");
    };
    refused(table, &["north/rna.csv", "no RNA of NORTH-0007", "missing = \"keep\""]);
    let all_nan = |s: &Study| {
        s.tensor(RNA, "rna", |bytes| bytes[..240].copy_from_slice(&f32::NAN.to_le_bytes().repeat(60)));
    };
    refused(all_nan, &[RNA, "no RNA of NORTH-0001"]);
}

#[test]
fn a_list_of_genes_that_is_too_short() {
    refused(|s| s.edit("genes.txt", "GENE60\n", ""), &["genes.txt", "59 genes", "60 columns"]);
}

#[test]
fn nan_in_rna() {
    let nan = |s: &Study| {
        s.tensor(RNA, "rna", |bytes| bytes[(2 * 60 + 1) * 4..][..4].copy_from_slice(&f32::NAN.to_le_bytes()));
    };
    refused(nan, &[RNA, "RNA of NORTH-0003 is NaN in gene GENE02"]);
}

#[test]
fn nan_in_features() {
    let nan = |s: &Study| {
        s.tensor(BAGS, "features", |bytes| bytes[5 * 2..][..2].copy_from_slice(&half::f16::NAN.to_le_bytes()));
    };
    refused(nan, &[BAGS, "features[0, 5] of NORTH-0001 is NaN", "extract"]);
}

#[test]
fn offsets_that_decrease_or_overrun() {
    let set = |index: usize, value: i64| {
        move |s: &Study| {
            s.tensor(BAGS, "offsets", |bytes| bytes[8 * index..][..8].copy_from_slice(&value.to_le_bytes()));
        }
    };
    refused(set(2, 1), &[BAGS, "offsets[2] is 1", "must be at least"]);
    refused(set(60, 1 << 40), &[BAGS, "offsets[60] is 1099511627776", "at most"]);
    refused(set(0, 3), &[BAGS, "offsets[0] is 3", "must be 0"]);
    refused(set(1, i64::MIN), &[BAGS, "offsets[1]", "at least 0"]);
}

#[test]
fn a_tensor_file_that_is_cut_short_lies_or_has_another_type() {
    for name in [RNA, BAGS] {
        refused(|s| s.write(name, &s.read(name)[..5000]), &[name, "5000 bytes, but its header asks for", "again"]);
        refused(|s| s.write(name, b"Not tensors at all."), &[name, "not a safetensors file"]);
        refused(|s| s.write(name, b""), &[name, "0 bytes"]);
    }
    refused(|s| s.header(RNA, "[60,60]", "[60,61]"), &[RNA, "tensor \"rna\" of F32 [60, 61] cannot lie in bytes"]);
    refused(|s| s.header(RNA, "\"F32\"", "\"I32\""), &[RNA, "tensor \"rna\" is I32, but must be"]);
    refused(
        |s| s.header(BAGS, "\"F16\"", "\"I16\""),
        &[BAGS, "tensor \"features\" is I16, but must be F32, F16, BF16 or F64"],
    );
    refused(|s| s.header(BAGS, "\"offsets\"", "\"ofsets\""), &[BAGS, "no tensor \"offsets\"", "\"ofsets\""]);
}

#[test]
fn a_source_without_an_event() {
    let study = Study::new();
    for row in 1..=60 {
        study.cell(CLINICAL, row, 2, "0");
    }
    study.refuses(BOTH, &["north: none of 60 patients has an event", "censored"]);
    // It may still be a target, whose figures have reasons in place of values.
    let words = "train --source south.toml --target north.toml --epochs 1 --out run --json";
    let figures = study.run(words).succeeded().json()["figures"][2].clone();
    assert!(figures["harrell"]["undefined"].as_str().unwrap().contains("comparable"), "{figures}");
    let report = study.run("check north.toml --json").succeeded().json();
    assert!(report[0]["warnings"][0].as_str().unwrap().contains("no patient has an event"));
}

#[test]
fn a_source_of_events_alone_is_trained_on() {
    let study = Study::new();
    for row in 1..=60 {
        study.cell(CLINICAL, row, 2, "1");
    }
    study.run(BOTH).succeeded();
}

#[test]
fn one_patient_is_too_few_to_hold_one_out() {
    let study = Study::of(1);
    study.cell(CLINICAL, 1, 2, "1");
    study.refuses(SOURCE, &["train.validation", "a patient each"]);
    study.write("run.toml", "[train]\nvalidation = 0.0\n");
    study.refuses(&format!("{SOURCE} --config run.toml"), &["train.batch", "outlives"]);
}

#[test]
fn an_unknown_or_mistyped_key_of_a_cohort_file() {
    let words = ["north.toml: line 2: unknown field `nmae`", "`name`"];
    refused(|s| s.edit("north.toml", "name = ", "nmae = "), &words);
    refused(|s| s.edit("north.toml", "time = \"months\"", "time = 7"), &["north.toml: line 7:", "expected a string"]);
    refused(|s| s.edit("north.toml", "[rna]", "[rna"), &["north.toml: line 12:"]);
    refused(
        |s| s.edit("north.toml", "north/clinical.csv", "north/no.csv"),
        &["north/no.csv", "no such file or directory"],
    );
}

#[test]
fn a_target_whose_features_are_of_another_width() {
    let study = Study::new();
    let offsets: Vec<u8> = (0..=60i64).flat_map(i64::to_le_bytes).collect();
    let features = vec![0; 60 * 16 * 2];
    let view = |dtype, shape: &[usize], bytes| TensorView::new(dtype, shape.to_vec(), bytes).unwrap();
    let tensors =
        [("features", view(Dtype::F16, &[60, 16], &features[..])), ("offsets", view(Dtype::I64, &[61], &offsets[..]))];
    study.write("south/bags.safetensors", serialize(tensors, None).unwrap());
    study.refuses(BOTH, &["cohort south has 16 features a patch", "32 (north)", "same encoder"]);
}

#[test]
fn a_target_with_a_modality_that_the_source_has_not() {
    let study = Study::new();
    let toml = study.text("north.toml");
    study.write("north.toml", toml.split("[slides]").next().unwrap());
    study.refuses(BOTH, &["cohort south has patches", "source north has none", "inputs.modalities"]);
    // Leaving them out on purpose is what the sentence proposes.
    study.write("run.toml", "[inputs]\nmodalities = [\"genes\"]\n");
    study.run(&format!("{BOTH} --config run.toml")).succeeded();
}

#[test]
fn a_modality_that_the_source_has_not_or_no_modality_at_all() {
    let study = Study::new();
    let toml = study.text("north.toml");
    let (genes, _) = toml.split_once("[slides]").unwrap();
    study.write("north.toml", genes);
    study.write("run.toml", "[inputs]\nmodalities = [\"patches\"]\n");
    study.refuses(&format!("{SOURCE} --config run.toml"), &["asks for patches", "cohort north has none"]);
    study.write("north.toml", toml.split("[rna]").next().unwrap());
    study.refuses(SOURCE, &["cohort north", "add [rna] or [slides]"]);
}

#[test]
fn a_target_that_lacks_genes_of_the_source() {
    let study = Study::new();
    study.write("south/genes.txt", study.text("genes.txt").replace("GENE03", "OTHER"));
    study.edit("south.toml", "genes = \"genes.txt\"", "genes = \"south/genes.txt\"");
    study.refuses(BOTH, &["south: 1 genes of the training cohort are missing", "\"GENE03\""]);
    study.write("run.toml", "[inputs]\nmissing_genes = \"zero\"\n");
    study.run(&format!("{BOTH} --config run.toml")).succeeded();
}

#[test]
fn all_problems_of_all_cohorts_are_told_at_once() {
    let study = Study::new();
    study.cell(CLINICAL, 5, 1, "-1");
    study.cell("south/clinical.csv", 6, 2, "9");
    study.refuses(BOTH, &["north/clinical.csv: line 6", "south/clinical.csv: line 7"]);
}
