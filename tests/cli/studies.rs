//! `onkos study`: a grid that goes on where it was killed, its tables, its report, and what it refuses.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime};

use onkos::metrics::{Outcome, log_rank};
use onkos::rng::{Draws, name32};
use serde_json::Value;

use crate::study::Study;

const REPLICATES: u32 = 19;
const SEEDS: [u64; 2] = [3, 8];

/// Two cohorts, two seeds, two folds: small, and of every kind that there is.
pub(crate) const SMALL: &str = r#"
sources = ["north.toml", "south.toml"]
seeds = [3, 8]
folds = 2
replicates = 19
resampling_seed = 5
plugins = ["none", "both"]
[train]
epochs = 2
batch = 16
[[hosts]]
name = "fusion"
model = { width = 8 }
"#;

/// One source, the other cohort the target, genes alone: three trainings in a second.
pub(crate) const TINY: &str = r#"
sources = ["north.toml"]
targets = ["south.toml"]
seeds = [1]
folds = 2
replicates = 5
plugins = ["none"]
[train]
epochs = 2
[inputs]
modalities = ["genes"]
[[hosts]]
name = "fusion"
"#;

pub(crate) fn with(text: &str) -> Study {
    let study = Study::of(40);
    study.write("s.toml", text);
    study
}

/// What one cell said of a patient.
#[derive(Clone, Debug)]
struct Told {
    time: f64,
    event: bool,
    risk: f64,
    high: bool,
    fold: usize,
}

/// The patients of a table of risks that are in a set, in their order.
fn told(study: &Study, file: &str, set: &str, fold: usize) -> BTreeMap<String, Told> {
    let text = study.text(file);
    let rows = text.lines().skip(1).map(|line| line.split(',').collect::<Vec<_>>()).filter(|cells| cells[1] == set);
    rows.map(|c| {
        let told = Told {
            time: c[2].parse().unwrap(),
            event: c[3] == "1",
            risk: c[4].parse().unwrap(),
            high: c[5] == "high",
            fold,
        };
        (c[0].to_owned(), told)
    })
    .collect()
}

/// What a seed says of every patient of a cohort.
fn judged(study: &Study, source: &str, target: &str, plugin: &str, seed: u64) -> Vec<Told> {
    let cell = format!("s-results/cells/{source}/fusion/{plugin}/seed-{seed}");
    let all = if source == target {
        let folds = (1..=2).map(|fold| told(study, &format!("{cell}/fold-{fold}/risks-{target}.csv"), "test", fold));
        folds.fold(BTreeMap::new(), |mut all, fold| {
            all.extend(fold);
            all
        })
    } else {
        told(study, &format!("{cell}/whole/risks-{target}.csv"), "target", 0)
    };
    assert_eq!(all.len(), 40, "everybody is judged once");
    // Cases of the synthetic study are numbered in the order of its tables.
    all.into_values().collect()
}

/// Harrell's C, pair by pair, of patients of one fold.
fn naive_c(patients: &[&Told]) -> Option<f64> {
    let (mut right, mut pairs) = (0.0, 0.0);
    for a in patients {
        for b in patients {
            let comparable = a.event && (a.time < b.time || (a.time == b.time && !b.event));
            if comparable && a.fold == b.fold {
                pairs += 1.0;
                right += if a.risk > b.risk {
                    1.0
                } else if a.risk == b.risk {
                    0.5
                } else {
                    0.0
                };
            }
        }
    }
    (pairs > 0.0).then(|| right / pairs)
}

/// The mean over the seeds of all patients, and of each resample.
fn bootstrap(seeds: &[Vec<Told>], cohort: &str) -> (f64, Vec<f64>) {
    let mean = |rows: &[usize]| {
        let of = |seed: &Vec<Told>| naive_c(&rows.iter().map(|&row| &seed[row]).collect::<Vec<_>>()).unwrap();
        seeds.iter().map(of).sum::<f64>() / seeds.len() as f64
    };
    let draws = Draws::new(5 ^ u64::from(name32(cohort)), 0, "bootstrap");
    let resample = |r: u32| (0..40).map(|i| draws.of(r).below(i, 40) as usize).collect::<Vec<_>>();
    (mean(&(0..40).collect::<Vec<_>>()), (0..REPLICATES).map(|r| mean(&resample(r))).collect())
}

/// With 19 replicates the 2.5 % and 97.5 % quantiles lie 0.45 behind the first and before the last.
fn bounds(mut values: Vec<f64>) -> [f64; 2] {
    values.sort_by(f64::total_cmp);
    let (low, high) = (values[0] + 0.45 * (values[1] - values[0]), values[18] - 0.45 * (values[18] - values[17]));
    [low, high]
}

#[track_caller]
fn close(got: &Value, want: f64) {
    // Both are sums of at most some thousand terms of one size.
    let got = got.as_f64().unwrap_or_else(|| panic!("{got} is no number"));
    assert!((got - want).abs() <= 1e4 * f64::EPSILON, "{got} is not {want}");
}

#[test]
fn tables_are_those_of_the_risks_that_cells_keep() {
    let study = with(SMALL);
    let said = study.run("study s.toml --json").succeeded();
    assert_eq!(said.err, "");
    let (said, json) = (said.json(), study.json("s-results/study.json"));
    assert_eq!((&said["rows"], &said["comparisons"]), (&json["rows"], &json["comparisons"]));
    assert_eq!((said["trainings"].as_u64(), said["trained"].as_u64()), (Some(24), Some(24)));

    let (mut differences, mut holm) = (Vec::new(), Vec::new());
    let rows = json["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 8, "two sources, two cohorts, two plug-ins");
    for row in rows {
        let text = |key: &str| row[key].as_str().unwrap();
        let (source, target, plugin) = (text("source"), text("target"), text("plugin"));
        let seeds = SEEDS.map(|seed| judged(&study, source, target, plugin, seed));
        assert_eq!(row["domain"], if source == target { "cross_validated" } else { "target" });
        let each = seeds.each_ref().map(|seed| naive_c(&seed.iter().collect::<Vec<_>>()).unwrap());
        let (mean, resampled) = bootstrap(&seeds, target);
        for (seed, want) in each.iter().enumerate() {
            close(&row["seeds"][seed]["concordance"], *want);
        }
        close(&row["concordance"]["mean"], mean);
        close(&row["concordance"]["deviation"], (each[0] - each[1]).abs() / 2f64.sqrt());
        let [lower, upper] = bounds(resampled.clone());
        close(&row["concordance"]["lower"], lower);
        close(&row["concordance"]["upper"], upper);
        // High is who both seeds say so.
        let group: Vec<usize> = (0..40).map(|p| usize::from(!(seeds[0][p].high && seeds[1][p].high))).collect();
        let time: Vec<f64> = seeds[0].iter().map(|told| told.time).collect();
        let event: Vec<bool> = seeds[0].iter().map(|told| told.event).collect();
        let high = group.iter().filter(|g| **g == 0).count() as u64;
        assert_eq!(row["groups"]["patients"][0].as_u64(), Some(high));
        if let Ok(test) = log_rank(Outcome::new(&time, &event).unwrap(), &group, None, 0.0) {
            assert_eq!(row["groups"]["log_rank"]["p"].as_f64(), Some(test.p));
        }
        if plugin == "both" {
            let none = SEEDS.map(|seed| judged(&study, source, target, "none", seed));
            let (mean_none, resampled_none) = bootstrap(&none, target);
            let values = resampled.iter().zip(&resampled_none).map(|(a, b)| a - b).collect::<Vec<_>>();
            differences.push((source != target, mean - mean_none, values));
        }
    }
    // Over all targets: the mean of the two, replicate by replicate.
    let targets: Vec<_> = differences.iter().filter(|(is_target, ..)| *is_target).cloned().collect();
    let both = targets[0].2.iter().zip(&targets[1].2).map(|(a, b)| (a + b) / 2.0).collect();
    differences.push((false, (targets[0].1 + targets[1].1) / 2.0, both));
    let comparisons = json["comparisons"].as_array().unwrap();
    assert_eq!(comparisons.len(), differences.len());
    for (comparison, (_, mean, values)) in comparisons.iter().zip(&differences) {
        let difference = &comparison["difference"];
        let [lower, upper] = bounds(values.clone());
        close(&difference["mean"], *mean);
        close(&difference["lower"], lower);
        close(&difference["upper"], upper);
        // Differences of sums: what is 0 may come out as a rounding error on either side, in ours or in the test.
        let at = |sign: f64| values.iter().filter(|v| **v * sign >= -1e-12).count();
        let p = (2.0 * (1 + at(1.0).min(at(-1.0))) as f64 / 20.0).min(1.0);
        close(&difference["p"], p);
        holm.push((p, difference["p_holm"].as_f64().unwrap()));
    }
    assert!(comparisons[4]["source"].is_null());
    holm.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut least = 0.0f64;
    for (place, (p, corrected)) in holm.iter().enumerate() {
        least = least.max((p * (holm.len() - place) as f64).min(1.0));
        assert!((corrected - least).abs() < 1e-12, "{holm:?}");
    }
    // Ranks: of two methods one has 1 and the other 2 in each pair.
    let ranks: f64 = json["ranks"].as_array().unwrap().iter().map(|rank| rank["mean_rank"].as_f64().unwrap()).sum();
    assert_eq!(ranks, 3.0);

    let table = study.text("s-results/study.csv");
    let header: Vec<&str> = table.lines().next().unwrap().split(',').collect();
    let column = header.iter().position(|name| *name == "concordance").unwrap();
    for (line, row) in table.lines().skip(1).zip(rows) {
        let cells: Vec<&str> = line.split(',').collect();
        assert_eq!(cells.len(), header.len());
        assert_eq!(cells[column].parse::<f64>().ok(), row["concordance"]["mean"].as_f64());
        assert_eq!((cells[0], cells[4]), (row["source"].as_str().unwrap(), row["plugin"].as_str().unwrap()));
    }
    looks_like_a_report(&study.text("s-results/report.html"), 8, 24, &json);
}

/// The page holds all tables and plots, every setting, and nothing from elsewhere.
fn looks_like_a_report(page: &str, cells: usize, trainings: usize, json: &Value) {
    assert_eq!(page.matches("<td class=\"c").count(), cells);
    // Curves of survival for each cell, and of losses for each source, host and plug-in.
    assert_eq!((page.matches("<svg ").count(), page.matches("<figure>").count()), (cells + 4, cells + 4));
    for outside in ["http", "src=", "href", "url(", "@import", "<script", "<link", "<iframe", "<img", " on"] {
        let found = page.match_indices(outside).map(|(at, _)| &page[at..(at + 40).min(page.len())]);
        // A word may begin so, an attribute may not.
        let found: Vec<&str> = found.filter(|text| outside != " on" || text[..8].contains('=')).collect();
        assert!(found.is_empty(), "{found:?}");
    }
    for row in json["rows"].as_array().unwrap() {
        let c = format!("<b>{:.3}</b>", row["concordance"]["mean"].as_f64().unwrap());
        assert!(page.contains(&c), "{c}");
    }
    for training in json["trainings"].as_array().unwrap() {
        assert!(page.contains(training["key"].as_str().unwrap()));
    }
    assert_eq!(json["trainings"].as_array().unwrap().len(), trainings);
    for cohort in json["cohorts"].as_array().unwrap() {
        for input in cohort["inputs"].as_array().unwrap() {
            assert!(page.contains(input["sha256"].as_str().unwrap()));
        }
    }
    for setting in ["width = 8", "epochs = 2", "p_aug", "[train.optimizer]", env!("CARGO_PKG_VERSION")] {
        assert!(page.contains(setting), "{setting}");
    }
    // What is opened is closed again.
    for tag in ["table", "tr", "td", "th", "svg", "figure", "div", "p", "h2", "h3", "pre", "small", "b", "text", "span"]
    {
        let opened = page.matches(&format!("<{tag}>")).count() + page.matches(&format!("<{tag} ")).count();
        assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "{tag}");
    }
}

#[test]
fn a_study_that_is_killed_goes_on_and_ends_as_if_it_was_not() {
    let study = with(SMALL);
    let start = Instant::now();
    study.run("study s.toml").succeeded();
    let whole = start.elapsed();
    let files = ["study.json", "study.csv", "report.html"].map(|file| format!("s-results/{file}"));
    let undisturbed = files.each_ref().map(|file| study.read(file));
    std::fs::remove_dir_all(study.path("s-results")).unwrap();

    let stream = Draws::new(4, 0, "kills").of(0);
    let mut kills = 0;
    for kill in 0..10 {
        let mut child =
            study.command("study s.toml --jobs 2").stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(whole.mul_f64(0.25 * stream.uniform(kill)));
        kills += usize::from(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(kills > 1, "it ended by itself");
    study.run("study s.toml").succeeded();
    for (file, undisturbed) in files.iter().zip(&undisturbed) {
        assert!(study.read(file) == *undisturbed, "{file} differs after {kills} kills");
    }
}

/// When each finished cell was finished.
fn finished(study: &Study) -> BTreeMap<PathBuf, SystemTime> {
    let results = study.names().into_iter().filter(|path| path.ends_with("result.json"));
    results.map(|path| (path.clone(), path.metadata().unwrap().modified().unwrap())).collect()
}

/// The cells that another run made anew.
pub(crate) fn made_anew(study: &Study, words: &str) -> BTreeSet<String> {
    let before = finished(study);
    std::thread::sleep(Duration::from_millis(20));
    study.run(words).succeeded();
    let after = finished(study);
    assert!(before.keys().all(|path| after.contains_key(path)), "no cell goes away");
    let new = after.into_iter().filter(|(path, time)| before.get(path) != Some(time));
    new.map(|(path, _)| path.parent().unwrap().file_name().unwrap().to_str().unwrap().to_owned()).collect()
}

#[test]
fn finished_cells_are_kept_and_those_of_other_settings_or_files_are_made_anew() {
    let study = with(TINY);
    let all = BTreeSet::from(["whole", "fold-1", "fold-2"].map(String::from));
    assert_eq!(made_anew(&study, "study s.toml"), all);
    let first = study.json("s-results/study.json");
    assert!(made_anew(&study, "study s.toml").is_empty(), "nothing is done twice");
    assert_eq!(study.json("s-results/study.json"), first);
    // The bootstrap and names are no settings of a training.
    study.edit("s.toml", "replicates = 5", "replicates = 6\nname = \"another\"");
    assert!(made_anew(&study, "study s.toml").is_empty());
    // A changed file of a cell, and a cell that was not finished.
    let cell = "s-results/cells/north/fusion/none/seed-1";
    let risks = study.text(&format!("{cell}/fold-2/risks-north.csv"));
    study.write(&format!("{cell}/fold-2/risks-north.csv"), risks.replacen("low", "high", 1));
    assert_eq!(made_anew(&study, "study s.toml"), BTreeSet::from(["fold-2".into()]));
    assert_eq!(study.text(&format!("{cell}/fold-2/risks-north.csv")), risks);
    std::fs::remove_file(study.path(&format!("{cell}/whole/result.json"))).unwrap();
    assert_eq!(made_anew(&study, "study s.toml"), BTreeSet::from(["whole".into()]));
    assert_eq!(
        study.json("s-results/study.json")["rows"][1]["concordance"]["mean"],
        first["rows"][1]["concordance"]["mean"]
    );
    // A target is no part of a fold, a source is one of each.
    study.edit("south/clinical.csv", ",1", ",0");
    assert_eq!(made_anew(&study, "study s.toml"), BTreeSet::from(["whole".into()]));
    study.edit("s.toml", "epochs = 2", "epochs = 1");
    assert_eq!(made_anew(&study, "study s.toml"), all);
}

#[test]
fn neither_threads_nor_jobs_nor_the_folder_change_a_bit() {
    let study = with(TINY);
    study.run("study s.toml --threads 1").succeeded();
    let first = study.read("s-results/study.json");
    let answer = study.run("study s.toml --threads 4 --jobs 3 --out elsewhere").succeeded();
    assert!(study.read("elsewhere/study.json") == first);
    assert!(answer.out.contains("elsewhere/report.html"), "{}", answer.out);
}

/// The risks of the target by a study of one training.
fn target_risks(study: &Study, mode: &str) -> String {
    let text = TINY.replace("seeds", &format!("mode = \"{mode}\"\nseeds"));
    study.write("s.toml", text);
    study.run("study s.toml").succeeded();
    study.text("s-results/cells/north/fusion/none/seed-1/whole/risks-south.csv")
}

#[test]
fn a_strict_study_uses_no_number_of_the_target_and_a_published_one_scales_by_it() {
    let study = with(TINY);
    study.edit("north.toml", "clip = [-6.0, 6.0]\n", "");
    let before = ["strict", "published"].map(|mode| target_risks(&study, mode));
    let json = study.json("s-results/study.json");
    assert_eq!((&json["rows"][0]["domain"], &json["rows"][0]["target"]), (&"training".into(), &"north".into()));
    assert_eq!(json["trainings"].as_array().unwrap().len(), 1, "no fold is trained");
    assert_eq!((&json["trainings"][0]["patients"][0], &json["trainings"][0]["kept_epoch"]), (&40.into(), &2.into()));
    // All expression of the target at half its size: exactly so in floating point, so that a z-score gives the same bits.
    study.tensor("south/rna.safetensors", "rna", |bytes| {
        for number in bytes.chunks_exact_mut(4) {
            let half = f32::from_le_bytes(number.try_into().unwrap()) / 2.0;
            number.copy_from_slice(&half.to_le_bytes());
        }
    });
    let after = ["strict", "published"].map(|mode| target_risks(&study, mode));
    assert_ne!(before[0], after[0]);
    assert_eq!(before[1], after[1]);
}

#[test]
fn the_published_recipe_runs_in_both_modes() {
    let study = with(TINY);
    for mode in ["strict", "published"] {
        let text = TINY.replace("seeds", &format!("mode = \"{mode}\"\npreset = \"published\"\nseeds"));
        study.write("s.toml", text);
        study.run("study s.toml").succeeded();
        let json = study.json("s-results/study.json");
        assert_eq!(json["settings"]["hosts"][0]["config"]["train"]["optimizer"]["kind"], "radam");
        assert_eq!(json["rows"][1]["domain"], "target");
    }
}

#[test]
fn what_is_wrong_is_told_in_one_list_before_anything_is_trained() {
    let study = with(
        r#"
sources = ["north.toml", "north.toml"]
targets = ["./north.toml", "missing.toml"]
seeds = [1, 1]
plugins = []
[[hosts]]
name = "survpth"
[[hosts]]
name = "fusion"
train = { epochs = 0 }
"#,
    );
    let list = [
        "plugins is an empty list",
        "seeds has 1 twice",
        "host \"survpth\": [model]: unknown variant",
        "host \"fusion\": train.epochs must be at least 1",
        "north.toml is named twice among sources",
        "./north.toml is a source and a target",
        "missing.toml: cannot be read",
    ];
    study.refuses("study s.toml", &list);
    study.refuses("study s.toml --check", &list);
}

#[test]
fn cohorts_that_do_not_go_together_are_told_in_one_list() {
    let study = with(&SMALL.replace("name = \"fusion\"", "name = \"fusion\"\ninputs = { modalities = [\"genes\"] }"));
    study.refuses("study s.toml", &["host \"fusion\" sees one modality of north", "of south"]);
    // MixStyle wants patches alone.
    study.edit("s.toml", "\"both\"", "\"mixstyle\"");
    study.refuses("study s.toml", &["sees one modality of north, so nothing can be plugged in", "of south"]);
    study.edit("s.toml", "\"genes\"", "\"patches\"");
    study.run("study s.toml --check").succeeded();
    study.edit("s.toml", "\"mixstyle\"", "\"mixstyle\", \"both\"");
    study.refuses("study s.toml", &["of north, so nothing but mixstyle can be plugged in", "of south"]);
    study.write("s.toml", SMALL);
    let genes = study.text("genes.txt");
    study.write("others.txt", genes.replace("GENE", "OTHER"));
    study.write("signatures2.csv", study.text("signatures.csv").replace("GENE", "OTHER"));
    study.edit("south.toml", "genes.txt", "others.txt");
    study.edit("south.toml", "signatures.csv", "signatures2.csv");
    study.edit("south.toml", "name = \"south\"", "name = \"north\"");
    study.edit("south.toml", "time_unit = \"months\"", "time_unit = \"days\"");
    study.refuses(
        "study s.toml",
        &["two sources are called \"north\"", "have no gene in common", "counts time in days"],
    );
    study.write("s.toml", "sources = [\"north.toml\"]\nseeds = [1]\nhosts = []\n");
    study.refuses("study s.toml", &["hosts is an empty list", "there is nothing to test on"]);
    study.write("s.toml", "sources = [\"north.toml\"]\nseed = 1\n");
    study.refuses("study s.toml", &["s.toml: line 2: unknown field `seed`"]);
    study.refuses("study none.toml", &["none.toml: no such file"]);
}

#[test]
fn features_of_another_width_are_refused() {
    let study = with(SMALL);
    // 32 features of f16 a patch become 16 of f32: as many bytes.
    let shape = |text: &str| text.to_owned();
    let bytes = study.read("south/bags.safetensors");
    let start = 8 + u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..start]).unwrap();
    let rows = header["features"]["shape"][0].as_u64().unwrap();
    study.header("south/bags.safetensors", &shape(&format!("[{rows},32]")), &shape(&format!("[{rows},16]")));
    study.header("south/bags.safetensors", "\"F16\"", "\"F32\"");
    study.tensor("south/bags.safetensors", "features", |bytes| {
        bytes.chunks_exact_mut(4).for_each(|number| number.copy_from_slice(&0.5f32.to_le_bytes()));
    });
    study.refuses("study s.toml", &["cohort south has 16 features a patch", "trained on 32"]);
}

#[test]
fn a_check_tells_what_there_is_to_do_and_a_folder_of_others_is_left_alone() {
    let study = with(SMALL);
    let before = study.names();
    assert!(study.run("study s.toml --check").succeeded().out.contains("24 trainings over north, south"));
    assert_eq!(study.run("study s.toml --check --json").succeeded().json()["trainings"], 24);
    assert_eq!(study.names(), before);
    std::fs::create_dir(study.path("s-results")).unwrap();
    study.write("s-results/mine.txt", "mine");
    study.refuses("study s.toml", &["s-results: is there already"]);
}

#[test]
fn trainings_that_fail_are_told_and_the_others_are_kept() {
    let study = with(TINY);
    // So large a rate leaves the numbers in a step or two.
    study.write("s.toml", TINY.replace("[train]", "[train]\nlearning_rate = 1e300\nclip_norm = 0.0"));
    let said = study.run("study s.toml");
    assert_eq!(said.code, Some(2));
    assert!(said.err.contains("north/fusion/none/seed-1/whole: the training diverged"), "{}", said.err);
    assert!(said.err.contains("north/fusion/none/seed-1/fold-2: "), "{}", said.err);
    assert!(!study.path("s-results/study.json").exists());
    study.write("s.toml", TINY);
    study.run("study s.toml").succeeded();
}

#[test]
fn studies_among_the_examples_are_in_order() {
    let study = Study::of(40);
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/studies");
    let mut found = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let sources = text.lines().find(|line| line.starts_with("sources = ")).unwrap();
        study.write("s.toml", text.replace(sources, "sources = [\"north.toml\", \"south.toml\"]"));
        let said = study.run("study s.toml --check");
        assert_eq!(said.code, Some(0), "{}: {}", path.display(), said.err);
        found += 1;
    }
    assert!(found > 0, "no example was found");
}

#[test]
fn an_ablation_compares_hosts_that_differ_in_a_plugin() {
    let text = SMALL.replace("model = { width = 8 }", "model = { width = 8 }\nsdir = { patches = { p = 0.9 } }");
    let other =
        "\n[[hosts]]\nname = \"less\"\nmodel = { name = \"fusion\", width = 8 }\nsdir = { patches = { p = 0.1 } }\n";
    let study = with(&format!("{text}{other}").replace("seeds = [3, 8]", "seeds = [3]"));
    study.run("study s.toml").succeeded();
    let json = study.json("s-results/study.json");
    let hosts = &json["settings"]["hosts"];
    assert_eq!((&hosts[0]["sdir"]["patches"]["p"], &hosts[1]["sdir"]["patches"]["p"]), (&0.9.into(), &0.1.into()));
    let mean = |host: &str, plugin: &str| {
        let rows = json["rows"].as_array().unwrap().iter();
        let of_it = rows.filter(|row| row["host"] == host && row["plugin"] == plugin);
        of_it.map(|row| row["concordance"]["mean"].as_f64().unwrap()).collect::<Vec<_>>()
    };
    // Without anything plugged in the two are one and the same model.
    assert_eq!(mean("fusion", "none"), mean("less", "none"));
    assert_ne!(mean("fusion", "both"), mean("less", "both"));
}

#[test]
fn a_second_process_is_kept_out_of_a_study() {
    let study = with(&TINY.replace("epochs = 2", "epochs = 1000000"));
    let mut first = study.command("study s.toml").stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let start = Instant::now();
    // The first cell has a folder once the lock is taken.
    while !study.path("s-results/cells").exists() {
        assert!(start.elapsed() < Duration::from_secs(60), "the study does not begin");
        std::thread::sleep(Duration::from_millis(20));
    }
    let second = study.run("study s.toml");
    first.kill().unwrap();
    first.wait().unwrap();
    second.refused(&["s-results: another onkos works on this study"]);
    // The lock goes with the process that had it.
    study.write("s.toml", TINY);
    study.run("study s.toml").succeeded();
}

#[test]
fn hosts_of_several_kinds_stand_in_one_study() {
    let text = SMALL.replace("seeds = [3, 8]", "seeds = [3]\npatients = [\"SOUTH-0004\"]");
    let others = r#"
[[hosts]]
name = "genes alone"
plugins = ["none"]
model = { name = "snn", widths = [8] }
[[hosts]]
name = "abmil"
plugins = ["none", "mixstyle"]
model = { width = 8, attention_width = 8 }
mixstyle = { p = 1.0 }
[[hosts]]
name = "survpath"
model = { width = 8, attention_width = 8, head_hidden = 4 }
"#;
    let study = with(&format!("{text}{others}"));
    study.run("study s.toml --jobs 2").succeeded();
    let json = study.json("s-results/study.json");
    let methods = |list: &str| {
        let all = json[list].as_array().unwrap().iter();
        all.map(|row| format!("{} {}", row["host"].as_str().unwrap(), row["plugin"].as_str().unwrap()))
            .collect::<Vec<_>>()
    };
    let all = [
        "fusion none",
        "fusion both",
        "genes alone none",
        "abmil none",
        "abmil mixstyle",
        "survpath none",
        "survpath both",
    ];
    assert_eq!(methods("ranks"), all);
    assert_eq!(methods("rows")[7..14], all);
    let c = |row: usize| json["rows"][row]["concordance"]["mean"].as_f64().unwrap();
    assert!([3, 10].iter().any(|&none| c(none) != c(none + 1)), "mixstyle changes what is trained");
    let ranks = json["ranks"].as_array().unwrap().iter().map(|rank| rank["mean_rank"].as_f64().unwrap()).sum::<f64>();
    assert_eq!(ranks, 28.0, "1 to 7 in each of two pairs");
    assert_eq!(methods("explanations"), all);
    let sees = |e: &Value| (!e["groups"].as_array().unwrap().is_empty(), !e["patches"].is_null());
    let sees = |number: usize| sees(&json["explanations"][number]);
    assert_eq!((sees(0), sees(2), sees(3), sees(5)), ((true, true), (true, false), (false, true), (true, true)));
    // Three hosts with a plug-in: four cohorts each, and the mean over the targets.
    assert_eq!(json["comparisons"].as_array().unwrap().len(), 15);
    assert!(study.text("s-results/report.html").contains("abmil with MixStyle"));
}

#[test]
fn nothing_is_plugged_into_a_host_that_sees_one_modality() {
    let study = with(&format!("{SMALL}\n[[hosts]]\nname = \"snn\"\n[[hosts]]\nname = \"abmil\"\n"));
    let sentence = "it sees one modality, so both cannot be plugged in; write plugins = [\"none\"";
    let [genes, slides] = ["snn", "abmil"].map(|host| format!("host {host:?}: {sentence}"));
    study.refuses("study s.toml", &[&format!("{genes}] for it"), &format!("{slides}, \"mixstyle\"] for it")]);
    // Genes that nobody looks at need not be those of another cohort.
    study.write("others.txt", study.text("genes.txt").replace("GENE", "OTHER"));
    study.write("signatures2.csv", study.text("signatures.csv").replace("GENE", "OTHER"));
    study.edit("south.toml", "genes.txt", "others.txt");
    study.edit("south.toml", "signatures.csv", "signatures2.csv");
    let slides = SMALL.replace("\"none\", \"both\"", "\"none\"").replace("name = \"fusion\"", "name = \"abmil\"");
    study.write("s.toml", slides);
    study.run("study s.toml --check").succeeded();
}
