//! Studies that lie as other tools want them: imported, checked and trained on.

use std::fs;

use safetensors::Dtype;
use safetensors::tensor::{TensorView, serialize};

use crate::study::{Answer, Study, plain};

/// Writes files and the folders above them.
fn put(study: &Study, name: &str, bytes: impl AsRef<[u8]>) {
    fs::create_dir_all(study.path(name).parent().unwrap()).unwrap();
    study.write(name, bytes);
}

const PATIENTS: usize = 24;

fn case(patient: usize) -> String {
    format!("TCGA-{}-{patient:04}", ["2F", "4Z", "BL"][patient % 3])
}

/// The slides of a patient: every fifth has two.
fn slides(patient: usize) -> Vec<String> {
    let name = |n: usize| format!("{}-01Z-00-DX{n}.{patient:08X}-B739-4BD9-B15B-4A70AE287D3E", case(patient));
    (1..=if patient.is_multiple_of(5) { 2 } else { 1 }).map(name).collect()
}

/// Months, and whether censored.
fn outcome(patient: usize) -> (f64, usize) {
    (1.5 + patient as f64, usize::from(patient % 3 == 1))
}

fn features(study: &Study, folder: &str) {
    for slide in (0..PATIENTS).flat_map(slides) {
        let bytes: Vec<u8> = (0..3 * 8).flat_map(|i| (i as f32).to_le_bytes()).collect();
        let view = TensorView::new(Dtype::F32, vec![3, 8], &bytes).unwrap();
        put(study, &format!("{folder}/{slide}.safetensors"), serialize([("features", view)], None).unwrap());
    }
}

const GENES: [&str; 4] = ["TP53", "EGFR", "KRAS", "MYC"];

fn expression(patient: usize) -> String {
    (0..GENES.len()).map(|gene| format!(",{}", (patient * 7 + gene * 3) % 11)).collect()
}

/// A study in SurvPath's own layout.
fn survpath() -> Study {
    let study = Study::of(20);
    let tables = "SurvPath/datasets_csv";
    let mut metadata = String::from(
        ",case_id,slide_id,age,site,survival_months,survival_months_dss,survival_months_pfi,censorship,censorship_dss,\
         censorship_pfi,is_female,oncotree_code,train\n",
    );
    let (mut clinical, mut rna) = (String::from(",case_id,stage,grade,subtype\n"), format!(",{}\n", GENES.join(",")));
    let mut row = 0;
    for patient in 0..PATIENTS {
        let (case, (months, censored)) = (case(patient), outcome(patient));
        for slide in slides(patient) {
            let site = &case[5..7];
            metadata += &format!(
                "{row},{case},{slide}.svs,60,{site},{months},{months},{months},{censored},1,{censored},1,BLCA,1\n"
            );
            row += 1;
        }
        clinical += &format!("{patient},{case},II,G3,x\n");
        rna += &format!("{case}{}\n", expression(patient));
    }
    put(&study, &format!("{tables}/metadata/tcga_blca.csv"), metadata);
    put(&study, &format!("{tables}/metadata/combine_signatures.csv"), "HALLMARK_A,R-HSA\nTP53,KRAS\nEGFR,MYC\nMYC,\n");
    put(&study, &format!("{tables}/metadata/signatures.csv"), "Tumor Suppressor Genes,Oncogenes\nTP53,KRAS\n");
    put(&study, &format!("{tables}/clinical_data/tcga_blca_clinical.csv"), clinical);
    put(&study, &format!("{tables}/raw_rna_data/combine/blca/rna_clean.csv"), rna);
    let comps = ",HALLMARK_A,R-HSA\nTP53,1,0\nEGFR,1,0\nKRAS,0,1\nMYC,1,1\n";
    put(&study, &format!("{tables}/pathway_compositions/combine_comps.csv"), comps);
    let mut split = String::from(",train,val\n");
    for i in 0..PATIENTS - 6 {
        let held = if i < 6 { case(PATIENTS - 6 + i) } else { String::new() };
        split += &format!("{i},{},{held}\n", case(i));
    }
    put(&study, "SurvPath/splits/5foldcv/tcga_blca/splits_0.csv", split);
    features(&study, "features/tcga_blca");
    study
}

const IMPORT: &str = "import --from survpath SurvPath --slides features --out cohorts";

fn bytes(study: &Study) -> Vec<Vec<u8>> {
    study.names().iter().filter(|path| path.is_file()).map(|path| fs::read(path).unwrap()).collect()
}

#[track_caller]
fn told(answer: &Answer, words: &[&str]) {
    for word in words {
        assert!(answer.out.contains(word), "no {word:?} in: {}", answer.out);
    }
    plain(
        answer
            .out
            .lines()
            .filter(|line| line.contains("note:"))
            .take(6)
            .chain(["-"])
            .collect::<Vec<_>>()
            .join("\n")
            .as_str(),
    );
}

#[test]
fn a_study_of_survpath_is_imported_checked_and_trained_on() {
    let study = survpath();
    let before = (study.names(), bytes(&study));
    let answer = study.run(IMPORT).succeeded();
    let counts = "24 patients, 29 slides, 16 events (66.7 %), 8 censored";
    told(
        &answer,
        &[counts, "preset survpath, endpoint os", "SurvPath/splits/5foldcv/tcga_blca", "cohort files: cohorts"],
    );
    let check = study.run("check cohorts/blca.toml").succeeded();
    told(
        &check,
        &[counts, "months, median follow-up", "4 genes in 2 signatures", "all of its slides", "nothing is wrong"],
    );
    fs::rename(study.path("cohorts"), study.path("elsewhere")).unwrap();
    study.run("check elsewhere/blca.toml").succeeded();
    let train = "train --source elsewhere/blca.toml --split SurvPath/splits/5foldcv/tcga_blca --epochs 1 --replicates 5 --out run --json";
    let figures = study.run(train).succeeded().json()["figures"].clone();
    assert_eq!((&figures[0]["patients"], &figures[1]["patients"]), (&18.into(), &6.into()));

    for path in ["run", "elsewhere"] {
        fs::remove_dir_all(study.path(path)).unwrap();
    }
    assert_eq!((study.names(), bytes(&study)), before, "nothing of the study is touched");
}

#[test]
fn what_a_study_lacks_is_told_and_left_out() {
    let study = survpath();
    study.edit("SurvPath/datasets_csv/raw_rna_data/combine/blca/rna_clean.csv", &case(3), "TCGA-XX-9999");
    study.edit("SurvPath/datasets_csv/metadata/tcga_blca.csv", ",8.5,8.5,8.5,", ",,8.5,8.5,");
    fs::remove_file(study.path(&format!("features/tcga_blca/{}.safetensors", slides(4)[0]))).unwrap();
    put(&study, "SurvPath/datasets_csv/metadata/notes.csv", "a,b\n1,2\n");
    let answer = study.run(IMPORT).succeeded();
    told(
        &answer,
        &[
            "1 patients have no gene expression",
            "1 slides or patients have no features",
            "1 patients have no time or outcome",
            "notes.csv was not understood",
            "21 patients",
        ],
    );
    let check = study.run("check cohorts/blca.toml").succeeded();
    told(&check, &["left out: 1 without time or outcome", "21 patients"]);
    let json = study.run(&format!("{IMPORT}2 --json")).succeeded().json();
    assert_eq!(json["cohorts"][0]["report"]["patients"], 21);
    // Another endpoint, without features and without their expression.
    let dss = study.run("import --from survpath SurvPath --endpoint dss --rna xena --out dss").succeeded();
    told(&dss, &["endpoint dss", "no gene expression: no rna_clean.csv of xena", "no patch features"]);
    study.refuses(IMPORT, &["cohorts", "is there already"]);
}

#[test]
fn a_study_with_something_wrong_is_written_and_ends_with_code_2() {
    let study = survpath();
    study.edit("SurvPath/datasets_csv/metadata/tcga_blca.csv", ",8.5,8.5,8.5,1,", ",8.5,8.5,8.5,2,");
    let answer = study.run(IMPORT);
    assert_eq!(answer.code, Some(2));
    told(&answer, &["wrong: ", "censorship of TCGA-4Z-0007 is \"2\"", "cohort files: cohorts"]);
}

#[test]
fn a_folder_of_something_else_is_refused_and_nothing_is_left() {
    let study = survpath();
    fs::create_dir(study.path("empty")).unwrap();
    for (tool, words) in [
        ("survpath", "datasets_csv/metadata"),
        ("mcat", "_all_clean.csv"),
        ("clam", "dataset_csv"),
        ("stamp", "PATIENT"),
    ] {
        study.refuses(&format!("import --from {tool} empty --out new"), &["empty: nothing to import", words]);
    }
    study.refuses("import --from survpath nowhere --out new", &["nowhere", "no such file"]);
    let unknown = study.run("import --from slideflow empty --out new");
    assert!(unknown.code == Some(2) && unknown.err.contains("survpath"), "{}", unknown.err);
}

#[test]
fn a_study_of_mcat_is_imported_out_of_its_zip() {
    let study = Study::of(20);
    let header: String = GENES.iter().map(|gene| format!(",{gene}_rnaseq")).collect();
    let mut table = format!(
        "case_id,slide_id,site,is_female,oncotree_code,age,survival_months,censorship,train{header},TP53_mut\n"
    );
    for patient in 0..PATIENTS {
        let (case, (months, censored), genes) = (case(patient), outcome(patient), expression(patient));
        for slide in slides(patient) {
            table += &format!("{case},{slide}.svs,2F,1.0,BLCA,60,{months},{censored}.0,1.0{genes},0\n");
        }
    }
    // The suffix lies: the table of this cohort is plain text.
    put(&study, "MCAT/datasets_csv/tcga_blca_all_clean.csv.zip", table);
    put(&study, "MCAT/datasets_csv_sig/signatures.csv", "Tumor Suppressor Genes,Oncogenes\nTP53,KRAS\nEGFR,\n");
    put(&study, "MCAT/splits/5foldcv/tcga_blca/splits_0.csv", format!(",train,val\n0,{},{}\n", case(0), case(1)));
    features(&study, "MCAT/features/pt_files");
    // Their files are safetensors here; what tells the folder is its name.
    fs::rename(study.path("MCAT/features/pt_files"), study.path("MCAT/slides")).unwrap();
    let answer = study.run("import --from mcat MCAT --slides MCAT/slides --out cohorts").succeeded();
    told(&answer, &["preset mcat", "24 patients, 29 slides", "4 genes in 2 signatures", "splits/5foldcv/tcga_blca"]);
    told(&study.run("check cohorts/blca.toml").succeeded(), &["nothing is wrong"]);
}

#[test]
fn a_study_of_clam_needs_a_table_of_outcomes() {
    let study = Study::of(20);
    let rows: String =
        (0..PATIENTS).flat_map(|p| slides(p).into_iter().map(move |s| format!("{},{s},tumor\n", case(p)))).collect();
    put(&study, "CLAM/dataset_csv/tumor_vs_normal.csv", format!("case_id,slide_id,label\n{rows}"));
    let cell = |range: std::ops::Range<usize>, i: usize| range.map(|p| slides(p)[0].clone()).nth(i).unwrap_or_default();
    let lines = (0..12).map(|i| format!("{i},{},{},{}\n", cell(0..12, i), cell(12..18, i), cell(18..24, i)));
    let splits = format!(",train,val,test\n{}", lines.collect::<String>());
    put(&study, "CLAM/splits/tumor_vs_normal_100/splits_0.csv", splits);
    let mut cdr = String::from(",bcr_patient_barcode,type,Redaction,OS,OS.time,DSS,DSS.time\n");
    for patient in 0..PATIENTS {
        let (months, censored) = outcome(patient);
        cdr += &format!("{patient},{},BLCA,,{},{},0,1\n", case(patient), 1 - censored, months * 30.0);
    }
    study.write("cdr.csv", cdr);
    features(&study, "features");
    let import = "import --from clam CLAM --slides features --out cohorts";
    study.refuses(import, &["tumor_vs_normal.csv", "--clinical", "--preset"]);
    let answer = study.run(&format!("{import} --clinical cdr.csv --preset tcga-cdr")).succeeded();
    told(&answer, &["24 patients, 29 slides", "16 events", "days", "splits/tumor_vs_normal_100"]);
    told(&study.run("check cohorts/tumor_vs_normal.toml").succeeded(), &["nothing is wrong"]);
    let train = "train --source cohorts/tumor_vs_normal.toml --split CLAM/splits/tumor_vs_normal_100 --epochs 1 --replicates 5 --out run";
    assert!(study.run(train).succeeded().out.contains("tumor_vs_normal.test"));
}

#[test]
fn a_study_of_stamp_needs_the_names_of_its_columns() {
    let study = Study::of(20);
    let (mut clini, mut table) = (String::from("PATIENT,OS_DAYS,STATUS\n"), String::from("PATIENT,FILENAME\n"));
    for patient in 0..PATIENTS {
        let (months, censored) = outcome(patient);
        clini += &format!("{},{},{}\n", case(patient), months * 30.0, ["dead", "alive"][censored]);
        table.extend(slides(patient).iter().map(|slide| format!("{},{slide}.h5\n", case(patient))));
    }
    put(&study, "blca/tables/clini.csv", clini);
    put(&study, "blca/tables/slide.csv", table);
    put(&study, "blca/tables/old.xlsx", b"PK\x03\x04");
    put(&study, "blca/crossval/splits.json", "{\"splits\":[]}");
    features(&study, "blca/features");
    let import = "import --from stamp blca --slides blca/features --out cohorts";
    study.refuses(import, &["clini.csv", "--time", "--event"]);
    let answer = study.run(&format!("{import} --time OS_DAYS --event STATUS")).succeeded();
    told(&answer, &["preset stamp", "24 patients, 29 slides", "16 events", "old.xlsx is a spreadsheet", "splits.json"]);
    told(&study.run("check cohorts/blca.toml").succeeded(), &["nothing is wrong"]);
}

#[test]
fn check_counts_what_the_cohort_file_leaves_out() {
    let study = Study::of(20);
    study.cell("north/clinical.csv", 2, 1, "0");
    study.cell("north/clinical.csv", 3, 2, "");
    assert_eq!(study.run("check north.toml").code, Some(2));
    study.edit("north.toml", "time = \"months\"", "time = \"months\"\nmissing = \"drop\"\ntime_zero = \"drop\"");
    let answer = study.run("check north.toml").succeeded();
    told(
        &answer,
        &[
            "18 patients",
            "left out: 1 without time or outcome",
            "left out: 1 with a time that is not above 0",
            "months",
        ],
    );
    let report = study.run("check north.toml --json").succeeded().json();
    assert_eq!((&report[0]["clinical"]["without_outcome"], &report[0]["patients"]), (&1.into(), &18.into()));
}

#[test]
fn cohorts_of_one_run_count_time_in_one_unit() {
    let study = Study::of(20);
    study.edit("south.toml", "time_unit = \"months\"", "time_unit = \"years\"");
    let train = "train --source north.toml --target south.toml --epochs 1 --replicates 5 --out run";
    study.refuses(train, &["south counts time in years", "north in months", "convert_to"]);
    study.edit("south.toml", "time_unit = \"years\"", "time_unit = \"years\"\nconvert_to = \"months\"");
    study.run(train).succeeded();
}
