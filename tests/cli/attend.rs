//! `onkos attend`: heat maps of the pass that gave the risk.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::study::Study;

/// The rows of a table, each cell by the name of its column.
fn table(study: &Study, name: &str) -> Vec<BTreeMap<String, String>> {
    let text = study.text(name);
    let mut lines = text.lines().map(|line| line.split(',').map(String::from).collect::<Vec<_>>());
    let header = lines.next().unwrap();
    lines.map(|cells| header.iter().cloned().zip(cells).collect()).collect()
}

fn numbers(rows: &[BTreeMap<String, String>], column: &str) -> Vec<f64> {
    rows.iter().map(|row| row[column].parse().unwrap_or_else(|e| panic!("{column}: {e}"))).collect()
}

/// Files of the fixtures as slides, all with the same features, of one patient each but where `;` joins them.
fn with_files(study: &Study, cohort: &str, patients: &[&str], files: &[(&str, &str)]) {
    std::fs::create_dir_all(study.path("slides")).unwrap();
    for (from, to) in files {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(from);
        std::fs::copy(from, study.path("slides").join(to)).unwrap();
    }
    let toml = "[clinical]\nfile = \"files.csv\"\ncase = \"case\"\ntime = \"months\"\nevent = \"died\"\nslides = \"slides\"\n\
                [slides]\ndir = \"slides\"\n";
    study.write(&format!("{cohort}.toml"), format!("name = \"{cohort}\"\n{toml}"));
    let row = |(i, slides): (usize, &&str)| format!("P{i},{},{},{slides}\n", i + 1, i % 2);
    let rows: String = patients.iter().enumerate().map(row).collect();
    study.write("files.csv", format!("case,months,died,slides\n{rows}"));
}

/// A study of files in several layouts, with a model of two heads in `run`.
fn of_files() -> Study {
    let study = Study::new();
    let files = [
        ("trident.h5", "a.h5"),
        ("clam.h5", "b.h5"),
        ("plain.npy", "c.npy"),
        ("trident.h5", "d.h5"),
        ("clam.h5", "e.h5"),
        ("plain.npz", "f.npz"),
    ];
    with_files(&study, "files", &["a;b", "c", "d", "e", "f"], &files);
    study.write("run.toml", "[model]\nname = \"fusion\"\nheads = 2\n[train]\nvalidation = 0.0\n");
    study.run("train --source files.toml --config run.toml --epochs 1 --replicates 2 --out run").succeeded();
    study
}

#[test]
fn weights_sum_to_one_over_a_patient_and_the_risk_is_that_of_predict() {
    let (study, _) = Study::trained();
    study.run("predict run south.toml --out risks.csv").succeeded();
    let cases: Vec<String> = table(&study, "risks.csv").iter().take(9).map(|row| row["case_id"].clone()).collect();
    let words = format!("attend run south.toml --cases {} --out maps --formats csv --json", cases.join(","));
    let index = study.run(&words).succeeded().json();
    assert_eq!(study.json("maps/attention.json"), index);
    let slides = index["slides"].as_array().unwrap();
    assert_eq!(slides.len(), cases.len());
    for (slide, predicted) in slides.iter().zip(table(&study, "risks.csv")) {
        assert_eq!(
            (slide["case"].as_str(), slide["group"].as_str()),
            (Some(&*predicted["case_id"]), Some(&*predicted["group"]))
        );
        let (risk, want) = (slide["risk"].as_f64().unwrap(), predicted["risk"].parse::<f64>().unwrap());
        assert!((risk - want).abs() <= 1e-5 * want.abs().max(1.0), "{risk} {want}");
        let rows = table(&study, &format!("maps/{}", slide["files"][0].as_str().unwrap()));
        let sum: f64 = numbers(&rows, "attention").iter().sum();
        assert!((sum - 1.0).abs() < 1e-5 && (slide["share"].as_f64().unwrap() - sum).abs() < 1e-6, "{sum}");
        assert_eq!(slide["patches"], rows.len());
    }
}

#[test]
fn models_whose_genes_attend_to_patches_have_heat_maps() {
    let study = Study::new();
    for (name, settings, heads) in [
        ("survpath", "width = 16\nattention_width = 8\nheads = 2\n", 2),
        ("mcat", "width = 16\nheads = 2\nencoder_heads = 2\nencoder_hidden = 16\n", 2),
        ("motcat", "width = 16\nencoder_heads = 2\nencoder_hidden = 16\n", 1),
    ] {
        study.write("run.toml", format!("[model]\nname = \"{name}\"\n{settings}"));
        study.run(&format!("train --source north.toml --config run.toml --epochs 1 --out {name}")).succeeded();
        study.run(&format!("predict {name} south.toml --out {name}.csv")).succeeded();
        let predicted = table(&study, &format!("{name}.csv")).remove(3);
        let case = &predicted["case_id"];
        let words = format!("attend {name} south.toml --cases {case} --out maps_{name} --json");
        let index = study.run(&words).succeeded().json();
        assert_eq!((&index["heads"], &index["slides"].as_array().unwrap().len()), (&heads.into(), &1), "{name}");
        let slide = &index["slides"][0];
        let (risk, want) = (slide["risk"].as_f64().unwrap(), predicted["risk"].parse::<f64>().unwrap());
        assert!((risk - want).abs() <= 1e-5 * want.abs().max(1.0), "{name}: {risk} {want}");
        let rows = table(&study, &format!("maps_{name}/{}", slide["files"][0].as_str().unwrap()));
        let weights = numbers(&rows, "attention");
        let (sum, share) = (weights.iter().sum::<f64>(), slide["share"].as_f64().unwrap());
        assert!((share - sum).abs() < 1e-6, "{name}: {share} {sum}");
        // In survpath genes look at genes, too.
        let holds = if name == "survpath" { 0.1 < sum && sum < 0.999 } else { (sum - 1.0).abs() < 1e-5 };
        assert!(holds && weights.iter().all(|&w| w > 0.0), "{name}: {sum}");
        assert!(weights.iter().any(|&w| w != weights[0]), "{name} tells patches apart");
        assert!(study.path(&format!("maps_{name}")).join(slide["files"][1].as_str().unwrap()).exists());
    }
}

#[test]
fn slides_of_a_patient_share_its_attention_and_heads_have_columns() {
    let study = of_files();
    let words = "attend run files.toml --slides b,a --out maps --force --json";
    let index = study.run(words).succeeded().json();
    assert_eq!(index["heads"], 2);
    let slides = index["slides"].as_array().unwrap();
    let (a, b) = (table(&study, "maps/a.csv"), table(&study, "maps/b.csv"));
    let shares: Vec<f64> = slides.iter().map(|slide| slide["share"].as_f64().unwrap()).collect();
    assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-5 && shares.iter().all(|&share| share > 0.1), "{shares:?}");
    for column in ["attention", "head_1", "head_2"] {
        let sum: f64 = numbers(&a, column).iter().chain(&numbers(&b, column)).sum();
        assert!((sum - 1.0).abs() < 1e-5, "{column}: {sum}");
    }
    let [mean, one, two] = ["attention", "head_1", "head_2"].map(|column| numbers(&a, column));
    assert!(one != two && mean.iter().zip(one.iter().zip(&two)).all(|(m, (x, y))| (m - (x + y) / 2.0).abs() < 1e-7));
    study.run("attend run files.toml --slides a --out second --head 2 --formats csv").succeeded();
    assert_eq!(numbers(&table(&study, "second/a.csv"), "attention"), two);
    study.refuses("attend run files.toml --slides a --out third --head 3", &["--head", "1 to 2", "is 3"]);
    study.refuses("attend run files.toml --slides a --out maps", &["maps", "is there already"]);
}

#[test]
fn places_are_those_of_the_file_in_every_format() {
    let study = of_files();
    study.run("attend run files.toml --slides a --out maps").succeeded();
    // What the script of the fixtures says: place i is 512 (i % 7), 512 (i // 7).
    let want: Vec<[f64; 2]> = (0..37).map(|i| [512.0 * f64::from(i % 7), 512.0 * f64::from(i / 7)]).collect();
    let rows = table(&study, "maps/a.csv");
    let of_table: Vec<[f64; 2]> =
        numbers(&rows, "x").into_iter().zip(numbers(&rows, "y")).map(|(x, y)| [x, y]).collect();
    assert_eq!(of_table, want);
    assert!(rows.iter().all(|row| row["patch_size"] == "512" && row["unit"] == "level-0 pixels"));

    let collection = study.json("maps/a.geojson");
    assert_eq!(collection["type"], "FeatureCollection");
    let features = collection["features"].as_array().unwrap();
    assert_eq!(features.len(), 37);
    for ((feature, &[x, y]), row) in features.iter().zip(&want).zip(&rows) {
        let ring: Vec<[f64; 2]> = serde_json::from_value(feature["geometry"]["coordinates"][0].clone()).unwrap();
        assert_eq!(ring, [[x, y], [x + 512.0, y], [x + 512.0, y + 512.0], [x, y + 512.0], [x, y]]);
        let said = &feature["properties"];
        assert_eq!((&said["objectType"], &feature["geometry"]["type"]), (&"detection".into(), &"Polygon".into()));
        let measured = [("attention", "attention"), ("percentile", "percentile")];
        for (name, column) in measured {
            assert_eq!(said["measurements"][name].as_f64().unwrap(), row[column].parse::<f64>().unwrap(), "{name}");
        }
        assert_eq!(said["color"].as_array().unwrap().len(), 3);
    }

    let (info, pixels) = image(&study, "maps/a.png");
    assert_eq!((info.width, info.height), (7 * 8, 6 * 8));
    // The patch that counts most has the last colour, in the middle of its block; the last places are empty.
    let top = numbers(&rows, "percentile").iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0;
    let at = |i: usize| pixels[(8 * (i / 7) + 4) * 56 + 8 * (i % 7) + 4];
    assert!(at(top) > 240 && at(41) == 0, "{} {}", at(top), at(41));
    // Our own reader knows it for what it is, so both data sets are there.
    let told = study.run("inspect maps/a.h5");
    assert!(told.code == Some(2) && told.out.contains("it is a heatmap"), "{told:?}");
}

fn image(study: &Study, name: &str) -> (png::OutputInfo, Vec<u8>) {
    let bytes = study.read(name);
    let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().unwrap();
    assert_eq!(reader.info().trns.as_deref(), Some(&[0u8][..]), "the ground is seen through");
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    (info, pixels)
}

#[test]
fn a_slide_without_places_has_a_table_and_the_rest_is_refused_in_a_sentence() {
    let study = of_files();
    let index = study.run("attend run files.toml --slides c,a --out maps --json").succeeded().json();
    let slide = &index["slides"][1];
    assert_eq!(
        (&slide["slide"], &slide["unit"], &slide["files"]),
        (&"c".into(), &Value::Null, &serde_json::json!(["c.csv"]))
    );
    assert_eq!(slide["refused"], serde_json::json!(["no h5, geojson, png: its file has no places of patches"]));
    let rows = table(&study, "maps/c.csv");
    assert!(rows.len() == 37 && rows[5]["row"] == "5" && rows[5]["x"].is_empty() && rows[5]["unit"].is_empty());
    // Asked for by name it is no success, but what can be written is.
    let named = study.run("attend run files.toml --slides c,a --formats csv,png --out named");
    assert!(named.code == Some(2) && named.out.contains("c: no png: its file has no places"), "{named:?}");
    assert!(study.path("named/a.png").exists() && study.path("named/c.csv").exists());
    study
        .refuses("attend run files.toml --slides c --formats png --out none", &["nothing can be written", "c: no png"]);
}

#[test]
fn micrometres_are_never_passed_off_as_pixels() {
    let study = of_files();
    // The same features in the layout of STAMP, in half precision: another cohort for the same model.
    with_files(&study, "stamp", &["s"], &[("stamp.h5", "s.h5")]);
    let index = study.run("attend run stamp.toml --cases P0 --out maps --json").succeeded().json();
    let slide = &index["slides"][0];
    assert_eq!(
        (&slide["unit"], &slide["patch_size"], &slide["patch_size_from"]),
        (&"microns".into(), &256.0.into(), &"file".into())
    );
    assert_eq!(slide["files"], serde_json::json!(["s.csv", "s.png"]));
    let why = slide["refused"][0].as_str().unwrap();
    assert!(why.starts_with("no h5, geojson: its places are in micrometres") && why.contains("--mpp"), "{why}");
    assert!(table(&study, "maps/s.csv").iter().all(|row| row["unit"] == "microns"));
    let scaled = study.run("attend run stamp.toml --cases P0 --out scaled --mpp 0.5 --json").succeeded().json();
    let slide = &scaled["slides"][0];
    assert_eq!((&slide["unit"], &slide["patch_size"]), (&"level-0 pixels".into(), &512.0.into()));
    let x = |folder: &str| numbers(&table(&study, &format!("{folder}/s.csv")), "x");
    assert!(x("maps").iter().zip(x("scaled")).all(|(microns, pixels)| 2.0 * microns == pixels));
}

#[test]
fn a_unit_and_a_size_that_no_file_says_are_the_users_or_the_steps() {
    let (study, _) = Study::trained();
    let case = table(&study, "run/risks/south.csv")[0]["case_id"].clone();
    let attend =
        |more: &str| study.run(&format!("attend run south.toml --cases {case} --json {more}")).succeeded().json();
    let slide = attend("--out a")["slides"][0].clone();
    assert_eq!((&slide["unit"], &slide["patch_size"]), (&"unknown".into(), &256.0.into()));
    assert_eq!(slide["patch_size_from"], "smallest step between places");
    assert!(slide["refused"][0].as_str().unwrap().contains("--unit level0"), "{slide}");
    let slide = attend("--out b --unit level0 --patch-size 300")["slides"][0].clone();
    assert_eq!(
        (&slide["unit"], &slide["patch_size"], &slide["refused"]),
        (&"level-0 pixels".into(), &300.0.into(), &serde_json::json!([]))
    );
}

#[test]
fn a_store_gives_the_same_bytes_and_so_do_other_numbers_of_threads() {
    let study = of_files();
    study.run("pack files.toml --out files.store").succeeded();
    let text = study.text("files.toml").replace("dir = \"slides\"", "store = \"files.store\"");
    study.write("stored.toml", text);
    let slides = "--slides a,b,c,f";
    study.run(&format!("attend run files.toml {slides} --out one --threads 1")).succeeded();
    study.run(&format!("attend run files.toml {slides} --out two --threads 2")).succeeded();
    study.run(&format!("attend run stored.toml {slides} --out stored")).succeeded();
    let names: Vec<String> =
        std::fs::read_dir(study.path("one")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert!(names.len() > 10, "{names:?}");
    for name in names {
        let of = |folder: &str| study.read(&format!("{folder}/{name}"));
        assert!(of("one") == of("two"), "{name} depends on the number of threads");
        assert!(of("one") == of("stored"), "{name} is another from the store");
    }
}

#[test]
fn names_that_are_not_there_are_told_all_at_once_with_what_is_like_them() {
    let (study, _) = Study::trained();
    let case = table(&study, "run/risks/south.csv")[0]["case_id"].clone();
    let words = format!("attend run south.toml --slides {case}x,zzz --cases {case}y --out maps");
    study.refuses(
        &words,
        &["no slide", &format!("\"{case}x\" (there is \"{case}\""), "\"zzz\"", "no case", &format!("\"{case}y\"")],
    );
    let none = study.run("attend run south.toml --out maps");
    assert!(none.code == Some(2) && none.err.contains("--slides"), "{none:?}");
    // By the name of a slide of TCGA at any length, and refused where it stands for several.
    let study = of_files();
    let tcga = "TCGA-BR-A44T-01Z-00-DX";
    let files = [("trident.h5", &*format!("{tcga}1.h5")), ("trident.h5", &*format!("{tcga}2.h5"))];
    with_files(&study, "tcga", &[&format!("{tcga}1;{tcga}2")], &files);
    let uuid = "195576CF-B739-4BD9-B15B-4A70AE287D3E";
    study.run(&format!("attend run tcga.toml --slides {tcga}2.{uuid}.svs --formats csv --out long")).succeeded();
    assert!(study.path(&format!("long/{tcga}2.csv")).exists() && !study.path(&format!("long/{tcga}1.csv")).exists());
    study.refuses("attend run tcga.toml --slides TCGA-BR-A44T --out short", &["could be any of", "DX1", "DX2"]);
}

#[test]
fn a_model_or_a_cohort_without_slides_has_no_attention() {
    let (study, _) = Study::trained();
    let text = study.text("south.toml");
    study.write("genes.toml", &text[..text.find("[slides]").unwrap()]);
    study.refuses("attend run genes.toml --cases A --out maps", &["no slides", "add [slides]"]);
    study.write("only.toml", "[inputs]\nmodalities = [\"genes\"]\n");
    study.run("train --source north.toml --config only.toml --epochs 1 --replicates 2 --out only").succeeded();
    let case = table(&study, "run/risks/south.csv")[0]["case_id"].clone();
    study.refuses(&format!("attend only south.toml --cases {case} --out maps"), &["no slides", "trained on slides"]);
}

#[test]
fn means_and_maxima_weigh_nothing_and_say_so() {
    let study = of_files();
    for pool in ["mean", "max"] {
        study.write(
            "run.toml",
            format!("[model]\nname = \"abmil\"\npool = \"{pool}\"\nwidth = 8\n[train]\nvalidation = 0.0\n"),
        );
        let out = format!("train --source files.toml --config run.toml --epochs 1 --replicates 2 --out {pool}");
        study.run(&out).succeeded();
        let sentence =
            ["the model of files (abmil) has no slides, or no attention over them", "abmil with an attention"];
        study.refuses(&format!("attend {pool} files.toml --slides a --out maps"), &sentence);
    }
}
