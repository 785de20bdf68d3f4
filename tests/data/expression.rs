//! Gene expression and sets of genes in the forms of other tools, and ids of different lengths.

use onkos::data::{Cohort, Problem, Split, check};
use safetensors::Dtype;

use crate::study::{Study, le, tensors};

const CASES: [&str; 3] = ["TCGA-AA-0001", "TCGA-BB-0002", "TCGA-CC-0003"];

/// The cohort of three patients under barcodes of TCGA, with RNA out of a table.
fn study(section: &str, table: &str) -> Study {
    let study = Study::new();
    let rows: String = CASES.iter().map(|case| format!("{case},{},1,60,F,x\n", 3)).collect();
    study.write("clinical.csv", format!("case,months,died,age,sex,site\n{rows}"));
    study.edit(
        "cohort.toml",
        "file = \"rna.safetensors\"\ngenes = \"genes.txt\"",
        &format!("file = \"rna.csv\"\n{section}"),
    );
    study.write("rna.csv", table);
    study
}

fn open(section: &str, table: &str) -> Cohort {
    study(section, table).open().unwrap_or_else(|e| panic!("{e}"))
}

const WIDE: &str = ",TP53,EGFR\nTCGA-CC-0003,5,6\nTCGA-AA-0001,1,2\nTCGA-BB-0002,3,4\n";

#[test]
fn all_forms_of_a_table_give_the_same_matrix() {
    let rna = open("", WIDE).rna.unwrap();
    assert_eq!(rna.values.host(), [1., 2., 3., 4., 5., 6.]);
    let long = "id,symbol,tpm\nTCGA-AA-0001,TP53,1\nTCGA-CC-0003,EGFR,6\nTCGA-AA-0001,EGFR,2\nTCGA-BB-0002,EGFR,4\n\
                TCGA-BB-0002,TP53,3\nTCGA-CC-0003,TP53,5\n";
    assert_eq!(open("case = \"id\"\ngene = \"symbol\"\nvalue = \"tpm\"", long).rna.unwrap(), rna);
    let suffix = ",case_id,age,TP53_rnaseq,TP53_cnv,EGFR_rnaseq\n0,TCGA-AA-0001,60,1,9,2\n1,TCGA-AA-0001,60,1,9,2\n\
                  2,TCGA-BB-0002,61,3,9,4\n3,TCGA-CC-0003,62,5,9,6\n";
    assert_eq!(open("case = \"case_id\"\nsuffix = \"_rnaseq\"", suffix).rna.unwrap(), rna);
    let named = ",case_id,TP53,EGFR\n0,TCGA-AA-0001,1,2\n1,TCGA-BB-0002,3,4\n2,TCGA-CC-0003,5,6\n";
    assert_eq!(open("case = \"case_id\"", named).rna.unwrap(), rna);
}

#[test]
fn barcodes_of_analytes_find_their_patients_and_several_are_told() {
    let analytes =
        WIDE.replace("TCGA-AA-0001", "TCGA-AA-0001-01A-11R-A24H-31").replace("TCGA-BB-0002", "TCGA-BB-0002-01");
    let rna = open("", WIDE).rna.unwrap();
    assert_eq!(open("", &analytes).rna.unwrap(), rna);
    let normal = format!("{analytes}TCGA-AA-0001-11A-11R-A24H-31,7,8\n");
    let found = study("", &normal).problems();
    assert!(
        matches!(&found[..], [Problem::Ambiguous { id, like, .. }] if id == "TCGA-AA-0001" && like.len() == 2),
        "{found:?}"
    );
    assert_eq!(open("sample = \"01\"", &normal).rna.unwrap(), rna);
    assert_eq!(
        open("sample = \"11\"\nmissing = \"drop\"", &normal).patients.len(),
        2,
        "one has normal tissue, one no type"
    );

    let two_samples = study("", WIDE);
    two_samples.edit("clinical.csv", CASES[1], "TCGA-AA-0001-06");
    two_samples.edit("clinical.csv", CASES[0], "TCGA-AA-0001-01");
    let found = two_samples.problems();
    assert!(matches!(&found[..], [Problem::Ambiguous { id, .. }] if id == "TCGA-AA-0001"), "{found:?}");
}

#[test]
fn patients_without_expression_are_left_out_where_that_is_asked_for() {
    let cohort = open("missing = \"drop\"", &WIDE.replace("TCGA-BB-0002", "TCGA-ZZ-0002"));
    assert_eq!(
        (cohort.dropped, cohort.rna.unwrap().values.host()),
        (vec![CASES[1].to_owned()], &[1f32, 2., 5., 6.][..])
    );
    assert_eq!(cohort.slides.unwrap().ragged().offsets(), [0, 2, 5]);
}

#[test]
fn long_tables_with_gaps_doubles_and_blanks_are_told() {
    let refused = |table: &str| study("case = \"c\"\ngene = \"g\"\nvalue = \"v\"", table).problems();
    let whole: String = CASES.iter().map(|case| format!("{case},TP53,1\n{case},EGFR,2\n")).collect();
    let whole = format!("c,g,v\n{whole}");
    assert!(
        matches!(&refused(&whole.replacen("TCGA-BB-0002,EGFR,2\n", "", 1))[..], [Problem::LongRna { case, gene, .. }] if case == CASES[1] && gene == "EGFR")
    );
    assert!(
        matches!(&refused(&format!("{whole}TCGA-BB-0002,EGFR,2\n"))[..], [Problem::LongRna { why, .. }] if why.contains("twice"))
    );
    assert!(matches!(&refused(&whole.replacen("EGFR,2", "EGFR,two", 1))[..], [Problem::NotANumber { line: 3, .. }]));
    assert!(matches!(
        &refused(&whole.replacen("TCGA-AA-0001,EGFR,2", "TCGA-AA-0001,,2", 1))[..],
        [Problem::Blank { line: 3, .. }, Problem::LongRna { .. }]
    ));
}

#[test]
fn rows_of_a_case_must_agree_on_its_expression() {
    let table = "case_id,TP53_rnaseq\nTCGA-AA-0001,1\nTCGA-AA-0001,2\nTCGA-BB-0002,3\nTCGA-CC-0003,5\n";
    let found = study("case = \"case_id\"\nsuffix = \"_rnaseq\"", table).problems();
    assert!(matches!(found[0], Problem::RowsDisagree { line: 3, first: 2, .. }), "{found:?}");
    let found = study("case = \"case_id\"\nsuffix = \"_rna\"", table).problems();
    assert!(matches!(found[..], [Problem::NoSuffix { .. }]), "{found:?}");
}

#[test]
fn keys_of_expression_fit_its_form() {
    for keys in [
        "gene = \"g\"",
        "gene = \"g\"\nvalue = \"v\"",
        "case = \"c\"\ngene = \"g\"\nvalue = \"v\"\nsuffix = \"_x\"",
        "sample = \"1\"",
        "sample = \"tumour\"",
    ] {
        let found = study(keys, WIDE).problems();
        assert!(found.iter().any(|p| matches!(p, Problem::Key { .. })), "{keys}: {found:?}");
    }
    let tensor = Study::new();
    tensor.edit("cohort.toml", "genes = \"genes.txt\"", "genes = \"genes.txt\"\nsuffix = \"_x\"");
    assert!(matches!(tensor.problems()[..], [Problem::Key { .. }]));
}

#[test]
fn a_composition_of_pathways_gives_signatures() {
    let study = study("", WIDE);
    study.edit("cohort.toml", "family = \"h\"\n", "");
    study.write("signatures.csv", "gene,HALLMARK_A,HALLMARK_B\nEGFR,1,0\nTP53,1,1\nKRAS,0,1\n");
    let cohort = study.open().unwrap();
    let columns: Vec<Vec<usize>> =
        cohort.signatures.iter().map(|s| s.columns(&["TP53", "EGFR"].map(String::from))).collect();
    assert_eq!(columns, [vec![1, 0], vec![0]]);
}

/// The cohort with one file a slide, named as GDC names them.
fn with_slides(keys: &str) -> Study {
    let study = study("", WIDE);
    study.edit("cohort.toml", "file = \"bags.safetensors\"", &format!("dir = \"slides\"\n{keys}"));
    std::fs::create_dir(study.path("slides")).unwrap();
    let uuid = "195576CF-B739-4BD9-B15B-4A70AE287D3E";
    let slides = [
        ("AA-0001", "DX10", 3),
        ("AA-0001", "DX2", 9),
        ("AA-0001", "DX1", 2),
        ("BB-0002", "DX1", 1),
        ("CC-0003", "DX1", 4),
    ];
    for (patient, slide, rows) in slides {
        let features = tensors(&[("features", Dtype::F32, &[rows, 2], &le(&vec![rows as f32; rows * 2]))]);
        study.write(&format!("slides/TCGA-{patient}-01Z-00-{slide}.{uuid}.safetensors"), features);
    }
    study
}

/// The instances of each patient.
fn instances(study: &Study) -> Vec<usize> {
    let cohort = study.open().unwrap_or_else(|e| panic!("{e}"));
    cohort.slides.unwrap().ragged().iter().map(|bag| bag.len()).collect()
}

#[test]
fn slides_are_found_by_the_barcode_of_their_patient_and_chosen_by_policy() {
    assert_eq!(instances(&with_slides("")), [14, 1, 4]);
    assert_eq!(instances(&with_slides("per_patient = \"first\"")), [2, 1, 4]);
    assert_eq!(instances(&with_slides("per_patient = \"largest\"")), [9, 1, 4]);
    for (policy, slides) in [("all", 5), ("first", 3), ("largest", 3)] {
        let report = check(with_slides(&format!("per_patient = {policy:?}")).path("cohort.toml"));
        assert_eq!((report.clinical.unwrap().slides, report.slides.unwrap().per_patient), (slides, policy));
    }
    let samples = with_slides("");
    samples.edit("clinical.csv", CASES[0], "TCGA-AA-0001-01A");
    samples.edit("rna.csv", CASES[0], "TCGA-AA-0001-01A");
    assert_eq!(instances(&samples), [14, 1, 4]);
}

#[test]
fn slides_that_are_named_without_their_uuid_are_found_and_no_others() {
    let study = with_slides("table = { file = \"slides.csv\", case = \"c\", slide = \"s\" }");
    let table = "c,s\nTCGA-AA-0001,TCGA-AA-0001-01Z-00-DX2.svs\nTCGA-BB-0002-01,TCGA-BB-0002-01Z-00-DX1.h5\n\
                 TCGA-CC-0003,TCGA-CC-0003-01Z-00-DX1\nTCGA-ZZ-0009,TCGA-ZZ-0009-01Z-00-DX1\n";
    study.write("slides.csv", table);
    assert_eq!(instances(&study), [9, 1, 4]);
    study.edit("slides.csv", "0002-01Z-00-DX1", "0002-01Z-00-DX7");
    let found = study.problems();
    assert!(matches!(&found[..], [Problem::NoSlides { case, .. }] if case == CASES[1]), "{found:?}");
    study.edit("slides.csv", "TCGA-ZZ-0009,", "TCGA-CC-0003,");
    study.edit(
        "slides.csv",
        "TCGA-CC-0003,TCGA-CC-0003",
        "TCGA-CC-0003,TCGA-AA-0001-01Z-00-DX2\nTCGA-CC-0003,TCGA-CC-0003",
    );
    assert!(study.problems().iter().any(|p| matches!(p, Problem::SlideOfTwo { .. })));
}

#[test]
fn keys_of_slides_fit_each_other() {
    let study = Study::new();
    for keys in ["per_patient = \"first\"", "table = { file = \"x.csv\", case = \"c\", slide = \"s\" }"] {
        let toml = format!("{}{keys}\n", crate::study::TOML);
        study.write("cohort.toml", toml);
        assert!(matches!(study.problems()[0], Problem::Key { .. }), "{keys}");
    }
    let study = with_slides("table = { file = \"slides.csv\" }");
    study.write("slides.csv", "c,s\nA,b\n");
    assert!(matches!(study.problems()[0], Problem::Key { key: "slides.table", .. }));
}

#[test]
fn a_split_may_name_patients_that_the_cohort_file_leaves_out() {
    let study = study("missing = \"drop\"", &WIDE.replace("TCGA-BB-0002", "TCGA-ZZ-0002"));
    study.write("split.csv", "train,val\nTCGA-AA-0001,TCGA-CC-0003-01A\nTCGA-BB-0002-01Z-00-DX1.svs,\n");
    let cohort = study.open().unwrap();
    let split = Split::read_for(&study.path("split.csv"), 0, &cohort).unwrap();
    assert_eq!((split.train, split.validation), (vec![0], vec![1]));
    assert!(Split::read(&study.path("split.csv"), 0, &cohort.patients).is_err());
}

#[test]
fn a_matrix_that_is_nearly_empty_and_too_large_is_not_made() {
    // One case of many genes and many cases of one gene: of each of them, 40,000 values stand for 800,000,000.
    let cases: Vec<String> = (0..20_000).map(|i| format!("P{i}")).collect();
    let of_one = (0..40_000).map(|gene| format!("P0,G{gene},1\n"));
    let of_many = cases[1..].iter().map(|case| format!("{case},G0,1\n"));
    let study = study(
        "case = \"c\"\ngene = \"g\"\nvalue = \"v\"",
        &format!("c,g,v\n{}", of_one.chain(of_many).collect::<String>()),
    );
    let rows: String = cases.iter().map(|case| format!("{case},3,1,60,F,x\n")).collect();
    study.write("clinical.csv", format!("case,months,died,age,sex,site\n{rows}"));
    let toml = std::fs::read_to_string(study.path("cohort.toml")).unwrap();
    study.write("cohort.toml", toml.split("[slides]").next().unwrap());
    let found = study.problems();
    assert!(matches!(found[..], [Problem::FewRna { present: 59_999, want: 800_000_000, .. }]), "{found:?}");
}
