//! Every way in which the tables and tensors of a cohort are wrong, one test each.

use half::f16;
use onkos::Error;
use onkos::data::{Cohort, Problem, check};
use safetensors::Dtype;

use crate::study::{CLINICAL, Study, TOML, bags, features, le, tensors};

/// Asserts that opening a study gives exactly one problem, of a pattern.
macro_rules! refused {
    ($study:expr, $pattern:pat $(if $guard:expr)?) => {
        let found = $study.problems();
        assert!(matches!(&found[..], [$pattern] $(if $guard)?), "{found:#?}");
    };
}

fn with(name: &str, from: &str, to: &str) -> Study {
    let study = Study::new();
    study.edit(name, from, to);
    study
}

fn with_file(name: &str, bytes: impl AsRef<[u8]>) -> Study {
    let study = Study::new();
    study.write(name, bytes);
    study
}

#[test]
fn an_unknown_key_is_named_with_its_line() {
    let study = with("cohort.toml", "[rna]\n", "[rna]\nclipp = [0, 1]\n");
    refused!(study, Problem::Config { line: 11, why, .. } if why.contains("clipp"));
    refused!(with_file("cohort.toml", "name = "), Problem::Config { line: 1, .. });
    refused!(with_file("cohort.toml", "name = 'x'\n"), Problem::Config { why, .. } if why.contains("clinical"));
}

#[test]
fn the_outcome_must_be_spelled_in_one_way() {
    let both = with("cohort.toml", "event = \"died\"", "event = \"died\"\ncensored = \"died\"");
    refused!(both, Problem::EventAndCensored { .. });
    refused!(with("cohort.toml", "event = \"died\"\n", ""), Problem::NeitherEventNorCensored { .. });
}

#[test]
fn a_column_of_censoring_is_turned_around() {
    let cohort = with("cohort.toml", "event =", "censored =").open().unwrap();
    assert_eq!(cohort.events(), [false, true, false]);
}

#[test]
fn keys_must_fit_each_other() {
    for (from, to, wrong) in [
        ("name = \"small\"", "name = \" \"", "name"),
        ("genes = \"genes.txt\"\n", "", "rna.genes"),
        ("family = \"h\"", "clip = [1.0, 1.0]\nfamily = \"h\"", "rna.clip"),
        ("family = \"h\"", "clip = [nan, 1.0]\nfamily = \"h\"", "rna.clip"),
        ("signatures = \"signatures.csv\"\n", "", "rna.family"),
        ("file = \"bags.safetensors\"", "", "slides"),
        ("file = \"bags.safetensors\"", "file = \"bags.safetensors\"\ndir = \"x\"", "slides"),
    ] {
        refused!(with("cohort.toml", from, to), Problem::Key { key, .. } if *key == wrong);
    }
}

#[test]
fn missing_files_are_all_named_at_once() {
    let study = Study::new();
    for file in ["clinical.csv", "rna.safetensors", "genes.txt", "signatures.csv", "bags.safetensors"] {
        std::fs::remove_file(study.path(file)).unwrap();
    }
    let found = study.problems();
    assert_eq!(found.len(), 5);
    assert!(found.iter().all(|p| matches!(p, Problem::Unreadable { .. })));
    assert!(matches!(Cohort::open(study.path("no.toml")), Err(Error::Data(_))));
}

#[test]
fn missing_columns_are_named_with_those_that_are_there() {
    let study = with("clinical.csv", "case,months,died", "case,month,dead");
    let found = study.problems();
    assert!(
        matches!(&found[..], [
        Problem::MissingColumn { column, has, .. },
        Problem::MissingColumn { .. },
    ] if column == "months" && has.len() == 6),
        "{found:#?}"
    );
    refused!(with("clinical.csv", "case,", "patient,"), Problem::MissingColumn { .. });
    let double: String = CLINICAL.lines().zip(["age", "1", "2", "3"]).map(|(l, age)| format!("{l},{age}\n")).collect();
    refused!(with_file("clinical.csv", double), Problem::DuplicateColumn { column, .. } if column == "age");
}

#[test]
fn times_that_are_not_positive_numbers_are_named() {
    for value in ["0", "-3", "inf", "NaN", "-0.0", "1e999"] {
        let study = with("clinical.csv", "A,1.5", &format!("A,{value}"));
        refused!(study, Problem::Time { line: 2, case, .. } if case == "A");
    }
    refused!(with("clinical.csv", "B,2", "B,"), Problem::Blank { line: 3, column, .. } if column == "months");
    refused!(with("clinical.csv", "B,2", "B,2 mo"), Problem::NotANumber { line: 3, value, .. } if value == "2 mo");
}

#[test]
fn outcomes_other_than_zero_and_one_are_refused() {
    for value in ["true", "2", "1:DECEASED", "0.5", "yes", "-1"] {
        let study = with("clinical.csv", "C,30,1.0", &format!("C,30,{value}"));
        refused!(study, Problem::Event { line: 4, value: v, .. } if v == value);
    }
    refused!(with("clinical.csv", "C,30,1.0", "C,30,"), Problem::Blank { .. });
}

#[test]
fn patients_are_one_row_each_and_have_a_name() {
    refused!(with("clinical.csv", "C,30", "A,30"), Problem::DuplicatePatient { line: 4, first: 2, .. });
    refused!(with("clinical.csv", "C,30", ",30"), Problem::Blank { line: 4, column, .. } if column == "case");
}

#[test]
fn covariates_must_be_numbers_or_sexes() {
    refused!(with("clinical.csv", "60,F", "old,F"), Problem::NotANumber { column, .. } if column == "age");
    refused!(with("clinical.csv", "60,F", "60,"), Problem::Blank { column, .. } if column == "sex");
}

#[test]
fn tables_that_are_empty_ragged_or_not_utf8_are_refused() {
    refused!(with_file("clinical.csv", "case,months,died,age,sex,site\n"), Problem::EmptyTable { .. });
    refused!(with("clinical.csv", "A,1.5,1,60,F,x", "A,1.5,1,60,F"), Problem::RaggedRow { line: 2, .. });
    refused!(with_file("clinical.csv", b"case\n\xff\n"), Problem::NotUtf8 { line: 2, .. });
}

#[test]
fn a_table_from_a_spreadsheet_reads_like_a_plain_one() {
    let spreadsheet = format!("\u{feff}{}", CLINICAL.replace('\n', "\r\n").replace("61.5", "\"61.5\""));
    let (plain, other) = (Study::new().open().unwrap(), with_file("clinical.csv", spreadsheet).open().unwrap());
    assert_eq!(plain.patients, other.patients);
}

#[test]
fn all_problems_are_listed_at_once() {
    let study = with("clinical.csv", "A,1.5,1", "A,-1,2");
    study.write("genes.txt", "TP53\n");
    study.write("bags.safetensors", bags(&features(), &[0, 2, 1, 6]));
    study.edit("signatures.csv", "h,S", "k,S");
    let found = study.problems();
    assert!(
        matches!(
            &found[..],
            [
                Problem::Time { .. },
                Problem::Event { .. },
                Problem::GeneCount { want: 2, got: 1, .. },
                Problem::UnknownFamily { .. },
                Problem::Offset { index: 2, value: 1, .. },
            ]
        ),
        "{found:#?}"
    );
    let text = study.open().unwrap_err().to_string();
    assert_eq!(text.lines().count(), 5);
}

#[test]
fn genes_must_be_as_many_as_columns_and_differ() {
    refused!(with_file("genes.txt", "A\nB\nC\n"), Problem::GeneCount { want: 2, got: 3, .. });
    refused!(with_file("genes.txt", "EGFR\nEGFR\n"), Problem::DuplicateGene { line: 2, .. });
    refused!(with_file("genes.txt", "\nEGFR\n"), Problem::Blank { line: 1, .. });
    refused!(with_file("genes.txt", "a\nb\n"), Problem::NoGeneInCommon { signatures: 1, .. });
}

fn rna(dtype: Dtype, shape: &[usize], bytes: &[u8]) -> Vec<u8> {
    tensors(&[("rna", dtype, shape, bytes)])
}

#[test]
fn rna_must_be_finite_and_of_the_right_shape() {
    let values = [0.5f32, 1.0, f32::NAN, f32::INFINITY, 9.0, 2.0];
    let study = with_file("rna.safetensors", rna(Dtype::F32, &[3, 2], &le(&values)));
    refused!(study, Problem::RnaNotFinite { case, gene, count: 2, .. } if case == "B" && gene == "TP53");
    let study = with_file("rna.safetensors", rna(Dtype::F32, &[2, 3], &le(&[1f32; 6])));
    let found = study.problems();
    assert!(matches!(found[..], [Problem::TensorShape { .. }, Problem::GeneCount { .. }]), "{found:#?}");
    refused!(with_file("rna.safetensors", rna(Dtype::F32, &[6], &le(&[1f32; 6]))), Problem::TensorShape { .. });
    refused!(with_file("rna.safetensors", rna(Dtype::I32, &[3, 2], &le(&[1i32; 6]))), Problem::Dtype { .. });
    let study = with_file("rna.safetensors", tensors(&[("expr", Dtype::F32, &[3, 2], &le(&[1f32; 6]))]));
    refused!(study, Problem::MissingTensor { tensor, has, .. } if tensor == "rna" && has[..] == ["expr"]);
}

/// A study whose RNA is a table.
fn with_table(table: &str) -> Study {
    let study = with_file("rna.csv", table);
    study.edit("cohort.toml", "file = \"rna.safetensors\"\ngenes = \"genes.txt\"", "file = \"rna.csv\"");
    study
}

#[test]
fn rna_from_a_table_is_joined_by_case() {
    let cohort = with_table(",TP53,EGFR\nC,9,2\nZ,0,0\nA,0.5,1\nB,-1,0\n").open().unwrap();
    let plain = Study::new().open().unwrap();
    assert_eq!(cohort.rna, plain.rna);
}

#[test]
fn rna_tables_with_gaps_are_refused() {
    refused!(with_table(",TP53,EGFR\nC,9,2\nA,0.5,1\n"), Problem::NoRna { case, .. } if case == "B");
    refused!(with_table(",TP53,EGFR\nC,9,2\nA,0.5,1\nB,1,\n"), Problem::NotANumber { line: 4, .. });
    refused!(with_table(",TP53,EGFR\nC,9,2\nA,0.5,1\nB,1,nan\n"), Problem::RnaNotFinite { .. });
    refused!(with_table(",EGFR,EGFR\nC,9,2\nA,0.5,1\nB,1,1\n"), Problem::DuplicateGene { line: 1, .. });
    refused!(with_table(",TP53,EGFR\nC,9,2\nA,0.5,1\nB,1,1\nA,1,1\n"), Problem::DuplicatePatient { line: 5, .. });
    refused!(with_table("case\nA\nB\nC\n"), Problem::WidthZero { .. });
    let study = with_table(",TP53,EGFR\nC,9,2\n");
    study.edit("cohort.toml", "file = \"rna.csv\"", "file = \"rna.csv\"\ngenes = \"genes.txt\"");
    assert!(study.problems().iter().any(|p| matches!(p, Problem::Key { .. })));
}

#[test]
fn patients_without_rna_are_kept_where_that_is_asked_for() {
    let study = with_table(",TP53,EGFR\nC,9,2\nA,0.5,1\n");
    study.edit("cohort.toml", "family = \"h\"", "family = \"h\"\nmissing = \"keep\"");
    let rna = study.open().unwrap().rna.unwrap();
    assert_eq!((&rna.present[..], rna.row(1)), (&[true, false, true][..], &[0.0f32, 0.0][..]));
    assert_eq!(check(study.path("cohort.toml")).without_rna, ["B"]);

    let nan = [0.5f32, 1.0, f32::NAN, f32::NAN, 9.0, 2.0];
    let study = with_file("rna.safetensors", rna_nan(&nan));
    study.edit("cohort.toml", "family = \"h\"", "family = \"h\"\nmissing = \"keep\"");
    assert_eq!(study.open().unwrap().rna.unwrap(), rna);
}

fn rna_nan(values: &[f32]) -> Vec<u8> {
    rna(Dtype::F32, &[3, 2], &le(values))
}

#[test]
fn offsets_that_decrease_overrun_or_stop_short_are_refused() {
    let study = |offsets: &[i64]| with_file("bags.safetensors", bags(&features(), offsets));
    refused!(study(&[1, 2, 3, 6]), Problem::Offset { index: 0, value: 1, .. });
    refused!(study(&[0, 3, 2, 6]), Problem::Offset { index: 2, value: 2, .. });
    refused!(study(&[0, 2, 3, 7]), Problem::Offset { index: 3, value: 7, .. });
    refused!(study(&[0, 2, 3, 5]), Problem::Offset { index: 3, value: 5, .. });
    refused!(study(&[0, -2, 3, 6]), Problem::Offset { index: 1, value: -2, .. });
    refused!(study(&[0, 2, 3, i64::MAX]), Problem::Offset { value: 0x7fff_ffff_ffff_ffff, .. });
    refused!(study(&[0, 3, 6]), Problem::TensorShape { tensor, .. } if tensor == "offsets");
    refused!(study(&[0, 3, 3, 6]), Problem::NoSlides { case, .. } if case == "B");
}

#[test]
fn offsets_of_every_integer_type_mean_the_same() {
    let file = |dtype, bytes: &[u8]| {
        tensors(&[("features", Dtype::F16, &[6, 3], &le(&features())), ("offsets", dtype, &[4], bytes)])
    };
    for (dtype, bytes) in [
        (Dtype::I32, le(&[0i32, 2, 3, 6])),
        (Dtype::U32, le(&[0u32, 2, 3, 6])),
        (Dtype::I64, le(&[0i64, 2, 3, 6])),
        (Dtype::U64, le(&[0u64, 2, 3, 6])),
    ] {
        let cohort = with_file("bags.safetensors", file(dtype, &bytes)).open().unwrap();
        assert_eq!(cohort.slides.unwrap().ragged().offsets(), [0, 2, 3, 6]);
    }
    refused!(with_file("bags.safetensors", file(Dtype::F32, &le(&[0f32; 4]))), Problem::Dtype { .. });
}

#[test]
fn features_must_be_floats_in_two_dimensions_with_some_width() {
    let file = |dtype, shape: &[usize], bytes: &[u8]| {
        let offsets = le(&[0i64, 2, 3, 6]);
        with_file(
            "bags.safetensors",
            tensors(&[("features", dtype, shape, bytes), ("offsets", Dtype::I64, &[4], &offsets)]),
        )
    };
    refused!(file(Dtype::I32, &[6, 1], &le(&[0i32; 6])), Problem::Dtype { got, .. } if got == "I32");
    refused!(file(Dtype::F32, &[6], &le(&[0f32; 6])), Problem::TensorShape { .. });
    refused!(file(Dtype::F32, &[6, 0], &[]), Problem::WidthZero { .. });
    refused!(file(Dtype::F32, &[0, usize::MAX], &[]), Problem::TensorShape { .. });
}

#[test]
fn places_of_patches_must_be_as_many_as_patches() {
    let file = tensors(&[
        ("features", Dtype::F16, &[6, 3], &le(&features())),
        ("offsets", Dtype::I64, &[4], &le(&[0i64, 2, 3, 6])),
        ("coords", Dtype::I32, &[5, 2], &le(&[0i32; 10])),
    ]);
    refused!(with_file("bags.safetensors", file), Problem::TensorShape { tensor, .. } if tensor == "coords");
}

#[test]
fn nan_in_features_is_named_with_case_row_and_column() {
    let mut wrong = features();
    wrong[3 * 3 + 2] = f16::NAN;
    wrong[5 * 3] = f16::NEG_INFINITY;
    let study = with_file("bags.safetensors", bags(&wrong, &[0, 2, 3, 6]));
    refused!(study, Problem::FeatureNotFinite { name, row: 3, column: 2, rows: 2, .. } if name == "C");
    assert!(Cohort::open_unscanned(study.path("cohort.toml")).is_ok());
    let report = check(study.path("cohort.toml"));
    assert!(!report.sound && report.patients == 3);
    assert_eq!((report.non_finite[0].row, report.non_finite[0].value.as_str()), (3, "NaN"));
}

#[test]
fn nan_is_found_in_every_part_of_a_long_bag_and_in_every_type() {
    // Bags are looked at in blocks of a megabyte: these are of several, and the NaN stands around their borders.
    let rows = 600_000;
    let offsets = le(&[0i64, 1, 2, rows]);
    let study = Study::new();
    for row in [174_761usize, 174_762, 349_525, 599_999] {
        let mut long = vec![f16::MAX; rows as usize * 3];
        long[row * 3 + 1] = f16::NAN;
        study.write("bags.safetensors", bags(&long, &[0, 1, 2, rows]));
        refused!(study, Problem::FeatureNotFinite { row: r, column: 1, rows: 1, .. } if *r == row);
    }
    let mut short = vec![f32::MAX; rows as usize];
    let file = |dtype, bytes: &[u8]| {
        tensors(&[("features", dtype, &[rows as usize, 1], bytes), ("offsets", Dtype::I64, &[4], &offsets)])
    };
    study.write("bags.safetensors", file(Dtype::F32, &le(&short)));
    assert!(study.open().is_ok());
    short[300_000] = f32::NEG_INFINITY;
    study.write("bags.safetensors", file(Dtype::F32, &le(&short)));
    refused!(study, Problem::FeatureNotFinite { row: 300_000, value: f32::NEG_INFINITY, .. });
    let bf16: Vec<half::bf16> =
        short.iter().map(|&x| half::bf16::from_f32(if x.is_finite() { 1.0 } else { x })).collect();
    study.write("bags.safetensors", file(Dtype::BF16, &le(&bf16)));
    refused!(study, Problem::FeatureNotFinite { row: 300_000, .. });
}

#[test]
fn a_cohort_without_an_event_is_a_target_but_no_source() {
    let cohort = with_file("clinical.csv", CLINICAL.replace(",1,60", ",0,60").replace("1.0", "0")).open().unwrap();
    match cohort.require_events() {
        Err(Error::Data(problems)) => assert!(matches!(problems.0[..], [Problem::NoEvents { patients: 3, .. }])),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_report_warns_of_a_column_that_looks_turned_around() {
    let study = with("clinical.csv", "B,2,0", "B,2,1");
    let report = check(study.path("cohort.toml"));
    assert!(report.sound && report.event_rate == Some(1.0));
    assert!(report.warnings[0].contains("censored ="), "{:?}", report.warnings);
    assert_eq!((report.median_follow_up, report.time_range), (None, Some([1.5, 30.0])));
}

#[test]
fn a_report_counts_what_it_can_of_a_broken_cohort() {
    let study = with("clinical.csv", "A,1.5", "A,-1.5");
    std::fs::remove_file(study.path("rna.safetensors")).unwrap();
    let report = check(study.path("cohort.toml"));
    assert_eq!((report.patients, report.events, report.problems.len()), (3, 1, 2));
    assert_eq!(report.slides.unwrap().instances, 6);
    assert!(!check(study.path("no.toml")).sound);
    serde_json::to_string(&check(study.path("cohort.toml"))).unwrap();
}

#[test]
fn sections_may_be_absent() {
    let clinical = TOML.split("[rna]").next().unwrap();
    let cohort = with_file("cohort.toml", clinical).open().unwrap();
    assert!(cohort.rna.is_none() && cohort.slides.is_none() && cohort.len() == 3);
}
