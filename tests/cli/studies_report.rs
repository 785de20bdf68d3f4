//! The report of a study, and what it says of chosen patients.

use std::process::{Command, Stdio};

use onkos::Tensor;
use onkos::data::{Cohort, MissingGenes, Rna};
use onkos::model::{Batching, Predictor};

use crate::studies::{SMALL, TINY, made_anew, with};
use crate::study::Answer;

#[test]
fn names_out_of_files_are_text_in_the_report() {
    let study = with(TINY);
    study.edit("s.toml", "sources", "name = \"<script>alert(1)</script>\"\nsources");
    study.edit("south.toml", "name = \"south\"", "name = \"<img src=x onerror=y>&\"");
    study.run("study s.toml").succeeded();
    let page = study.text("s-results/report.html");
    assert!(!page.contains("<script") && !page.contains("<img"), "{page}");
    assert!(page.contains("<title>&lt;script&gt;alert(1)&lt;/script&gt;</title>"));
    assert!(page.contains("&lt;img src=x onerror=y&gt;&amp;"));
}

#[test]
fn chosen_patients_are_explained_by_the_model_that_the_cell_keeps() {
    let text = SMALL.replace(
        "sources = [\"north.toml\", \"south.toml\"]",
        "sources = [\"north.toml\"]\ntargets = [\"south.toml\"]",
    );
    let text = text.replace("seeds = [3, 8]", "seeds = [3]\npatients = [\"SOUTH-0007\"]");
    let study = with(&text);
    study.run("study s.toml").succeeded();
    let json = study.json("s-results/study.json");
    let all = json["explanations"].as_array().unwrap();
    assert_eq!(all.iter().map(|e| e["plugin"].as_str().unwrap()).collect::<Vec<_>>(), ["none", "both"]);
    let cell = "s-results/cells/north/fusion/both/seed-3/whole";
    let mut predictor = Predictor::load(&study.path(&format!("{cell}/model.safetensors"))).unwrap();
    let mut south = Cohort::open(study.path("south.toml")).unwrap();
    let patient = south.patients.iter().position(|patient| patient.case == "SOUTH-0007").unwrap();
    let batching = Batching { patients: 1, patches: usize::MAX };
    // One patient alone, in ours as in the test: the same numbers in the same order.
    let risk = |predictor: &Predictor, cohort: &Cohort| predictor.predict(cohort, batching).unwrap().risk[patient];
    let whole = risk(&predictor, &south);
    assert_eq!(all[1]["risk"].as_f64(), Some(whole));
    let mut weights = Vec::new();
    predictor
        .attend(&south, &[patient], batching, |told| {
            weights = told.weights;
            Ok(())
        })
        .unwrap();
    weights.sort_by(|a, b| b.total_cmp(a));
    let half = (0..weights.len()).find(|&n| weights[..n].iter().sum::<f32>() >= 0.5).unwrap();
    assert_eq!(all[1]["patches"]["patches"].as_u64(), Some(weights.len() as u64));
    assert_eq!(all[1]["patches"]["half"].as_u64(), Some(half as u64));

    // A gene that is missing is 0 after scaling.
    let rna = south.rna.take().unwrap();
    let inputs = predictor.recipe.genes.as_mut().unwrap();
    inputs.missing = MissingGenes::Zero;
    let signatures = inputs.signatures.clone();
    assert_eq!(all[1]["groups"].as_array().unwrap().len(), signatures.len());
    for (group, signature) in all[1]["groups"].as_array().unwrap().iter().zip(signatures) {
        let kept: Vec<usize> = (0..rna.genes.len()).filter(|&g| !signature.genes.contains(&rna.genes[g])).collect();
        let values = (0..south.len()).flat_map(|p| kept.iter().map(|&g| rna.row(p)[g]).collect::<Vec<_>>()).collect();
        let without = Rna {
            genes: kept.iter().map(|&g| rna.genes[g].clone()).collect(),
            values: Tensor::new(&[south.len(), kept.len()], values).unwrap(),
            ..rna.clone()
        };
        south.rna = Some(without);
        assert_eq!(group["name"], signature.name.as_str());
        assert_eq!(group["change"].as_f64(), Some(whole - risk(&predictor, &south)));
    }
    let page = study.text("s-results/report.html");
    assert!(page.contains("SOUTH-0007 of south") && page.contains(&format!("{half} of {} patches", weights.len())));
    // The folder of the cell is one of a run.
    let figures = study.run(&format!("evaluate {cell} south.toml --replicates 2 --json")).succeeded().json();
    assert_eq!(figures[0]["harrell"]["index"], json["rows"][3]["concordance"]["mean"]);
    // Who is chosen changes no training.
    study.edit("s.toml", "\"SOUTH-0007\"", "\"SOUTH-0001\", \"SOUTH-0002\"");
    assert!(made_anew(&study, "study s.toml").is_empty());
    study.edit("s.toml", "\"SOUTH-0002\"", "\"NORTH-0002\"");
    study.refuses("study s.toml", &["patients: \"NORTH-0002\" is in no cohort that is judged on"]);
}

/// What a browser says that has no window; `None` without one.
fn browse(arguments: &[&str], page: &std::path::Path) -> Option<Answer> {
    let named = std::env::var("ONKOS_BROWSER").ok();
    let browsers = named.as_deref().map_or(vec!["chromium", "google-chrome", "chrome"], |browser| vec![browser]);
    let there = |browser: &&str| {
        let version = Command::new(browser).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        version.is_ok_and(|status| status.success())
    };
    let Some(browser) = browsers.into_iter().find(there) else {
        assert!(named.is_none(), "ONKOS_BROWSER names {named:?}, which does not start");
        println!("skipped: no chromium here, and none named in ONKOS_BROWSER");
        return None;
    };
    let profile = tempfile::tempdir().unwrap();
    let mut command = Command::new(browser);
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--enable-logging=stderr"]);
    command.arg(format!("--user-data-dir={}", profile.path().display())).args(arguments);
    command.arg(format!("file://{}", page.display()));
    Some(Answer::of(&mut command).succeeded())
}

#[test]
fn a_browser_shows_the_report() {
    let study = with(&SMALL.replace("seeds = [3, 8]", "seeds = [3]"));
    study.run("study s.toml").succeeded();
    let page = study.path("s-results/report.html");
    let Some(shown) = browse(&["--dump-dom"], &page) else { return };
    // What the browser made of the page: it moves what stands where it may not, and closes what is open.
    assert_eq!(shown.out.matches("<td class=\"c").count(), 8);
    assert_eq!(shown.out.matches("<svg ").count(), 8 + 4);
    assert!(!shown.err.contains("CONSOLE"), "{}", shown.err);
    let written = study.text("s-results/report.html");
    let words = |text: &str| {
        let inside = text.split('>').filter_map(|part| part.split('<').next()).map(str::trim);
        inside.filter(|text| !text.is_empty()).map(String::from).collect::<Vec<_>>()
    };
    let body = |text: &str| words(&text[text.find("<body>").unwrap()..text.find("</body>").unwrap()]);
    // A browser spells in full only what it must.
    let plain = |word: &String| word.replace("&#39;", "'").replace("&quot;", "\"");
    assert_eq!(body(&shown.out), body(&written).iter().map(plain).collect::<Vec<_>>());

    let picture = study.path("shot.png");
    let shot = format!("--screenshot={}", picture.display());
    browse(&[&shot, "--window-size=1100,6000", "--hide-scrollbars", "--force-device-scale-factor=1"], &page).unwrap();
    let file = std::io::BufReader::new(std::fs::File::open(picture).unwrap());
    let mut reader = png::Decoder::new(file).read_info().unwrap();
    let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
    let frame = reader.next_frame(&mut bytes).unwrap();
    let samples = frame.color_type.samples();
    let painted = |colour: [u8; 3]| bytes[..frame.buffer_size()].chunks(samples).filter(|p| p[..3] == colour).count();
    // The curves of high and of low risk, and the ground they stand on.
    let (high, low, ground) = (painted([178, 34, 34]), painted([70, 130, 180]), painted([255, 255, 255]));
    assert!(high > 1000 && low > 1000 && ground > 1_000_000, "{high}, {low} and {ground} pixels");
}
