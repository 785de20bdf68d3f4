//! Clinical tables in the layouts of other tools: the same patients whichever of them wrote the table.

use onkos::Error;
use onkos::data::{Cohort, Problem, Report, TimeUnit, check};

use crate::study::Study;

/// A cohort of one clinical table `t.csv`, described by the lines of its section.
pub(crate) fn study(section: &str, table: impl AsRef<[u8]>) -> Study {
    let study = Study::new();
    study.write("cohort.toml", format!("name = \"x\"\n[clinical]\nfile = \"t.csv\"\n{section}\n"));
    study.write("t.csv", table);
    study
}

fn open(section: &str, table: &str) -> Cohort {
    study(section, table).open().unwrap_or_else(|e| panic!("{section}: {e}"))
}

fn problems(section: &str, table: &str) -> Vec<Problem> {
    study(section, table).problems()
}

fn report(section: &str, table: &str) -> Report {
    check(study(section, table).path("cohort.toml"))
}

/// Case, time and outcome of each patient.
fn outcomes(cohort: &Cohort) -> Vec<(&str, f64, bool)> {
    cohort.patients.iter().map(|p| (p.case.as_str(), p.time, p.event)).collect()
}

const MCAT: &str = "\
,case_id,slide_id,site,is_female,oncotree_code,age,survival_months,censorship,train,TP53_rnaseq,EGFR_rnaseq,TP53_cnv
0,TCGA-AA-0001,TCGA-AA-0001-01Z-00-DX1.svs,AA,1.0,BLCA,60,12.5,0.0,1.0,0.5,1.5,0
1,TCGA-AA-0001,TCGA-AA-0001-01Z-00-DX2.svs,AA,1.0,BLCA,60,12.5,0,1.0,0.5,1.5,0
2,TCGA-BB-0002,TCGA-BB-0002-01Z-00-DX1.svs,BB,0.0,BLCA,70,30,1.0,1.0,-0.5,2.5,1
";

const SURVPATH: &str = "\
,case_id,slide_id,age,site,survival_months,survival_months_dss,survival_months_pfi,censorship,censorship_dss,censorship_pfi,is_female,oncotree_code,train
0,TCGA-AA-0001,TCGA-AA-0001-01Z-00-DX1.svs,60,AA,12.5,12.5,3,0,1,0,1,BLCA,1
1,TCGA-AA-0001,TCGA-AA-0001-01Z-00-DX2.svs,60,AA,12.5,12.5,3,0,1,0,1,BLCA,1
2,TCGA-BB-0002,TCGA-BB-0002-01Z-00-DX1.svs,70,BB,30,30,30,1,1,1,0,BLCA,1
";

#[test]
fn the_tables_of_mcat_and_survpath_have_one_row_a_slide_and_1_means_censored() {
    for (section, table) in
        [("preset = \"mcat\"", MCAT), ("preset = \"porpoise\"", MCAT), ("preset = \"survpath\"", SURVPATH)]
    {
        let cohort = open(section, table);
        assert_eq!(outcomes(&cohort), [("TCGA-AA-0001", 12.5, true), ("TCGA-BB-0002", 30.0, false)], "{section}");
        assert_eq!(cohort.patients[0].slides, ["TCGA-AA-0001-01Z-00-DX1", "TCGA-AA-0001-01Z-00-DX2"]);
        assert_eq!(cohort.time_unit, Some(TimeUnit::Months));
        let report = report(section, table);
        let clinical = report.clinical.unwrap();
        assert_eq!((report.patients, report.events, report.censored), (2, 1, 1));
        assert_eq!(
            (clinical.rows, clinical.slides, clinical.endpoint, clinical.time_unit),
            (3, 3, Some("os"), Some("months"))
        );
    }
}

#[test]
fn the_endpoint_chooses_the_columns() {
    let by = |endpoint: &str| open(&format!("preset = \"survpath\"\nendpoint = {endpoint:?}"), SURVPATH);
    assert_eq!(outcomes(&by("dss")), [("TCGA-AA-0001", 12.5, false), ("TCGA-BB-0002", 30.0, false)]);
    assert_eq!(outcomes(&by("pfi")), [("TCGA-AA-0001", 3.0, true), ("TCGA-BB-0002", 30.0, false)]);
    let found = problems("preset = \"survpath\"\nendpoint = \"dfi\"", SURVPATH);
    let sentence = found[0].to_string();
    assert!(
        matches!(found[..], [Problem::NoEndpoint { .. }]) && sentence.contains("\"os\", \"dss\", \"pfi\""),
        "{sentence}"
    );
}

#[test]
fn the_tables_of_mmp_and_panther_are_in_days_and_may_lack_overall_survival() {
    let mmp = "case_id,slide_id,gender,race,dss_survival_days,dss_censorship\n\
               TCGA-AA-0001,TCGA-AA-0001-01Z-00-DX1,male,white,381.0,0.0\n\
               TCGA-BB-0002,TCGA-BB-0002-01Z-00-DX1,female,white,913.0,1.0\n";
    let cohort = open("preset = \"mmp\"\nendpoint = \"dss\"", mmp);
    assert_eq!(outcomes(&cohort), [("TCGA-AA-0001", 381.0, true), ("TCGA-BB-0002", 913.0, false)]);
    assert_eq!(cohort.time_unit, Some(TimeUnit::Days));
    let found = problems("preset = \"mmp\"", mmp);
    assert!(found[0].to_string().contains("those of \"dss\": set endpoint"), "{}", found[0]);

    let panther = "case_id,slide_id,type,os_survival_days,os_censorship,dss_survival_days,dss_censorship,dfi_survival_days,\
                   dfi_censorship,pfi_survival_days,pfi_censorship,os_cr_survival_days,os_cr_censorship\n\
                   TCGA-AA-0001,TCGA-AA-0001-01Z-00-DX1,BLCA,381.0,0.0,381.0,0.0,,,100.0,0.0,381.0,1\n\
                   TCGA-BB-0002,TCGA-BB-0002-01Z-00-DX1,BLCA,913.0,1.0,913.0,1.0,50,1.0,913.0,1.0,913.0,0\n";
    let panther_of = |rest: &str| format!("preset = \"panther\"\n{rest}");
    assert_eq!(outcomes(&open(&panther_of("endpoint = \"pfi\""), panther))[0], ("TCGA-AA-0001", 100.0, true));
    assert!(matches!(
        problems(&panther_of("endpoint = \"dfi\""), panther)[..],
        [Problem::Blank { line: 2, .. }, Problem::Blank { line: 2, .. }]
    ));
    let dropped = open(&panther_of("endpoint = \"dfi\"\nmissing = \"drop\""), panther);
    assert_eq!(
        (outcomes(&dropped), &dropped.dropped[..]),
        (vec![("TCGA-BB-0002", 50.0, false)], &["TCGA-AA-0001".to_owned()][..])
    );
}

#[test]
fn redacted_rows_of_the_clinical_data_resource_are_left_out_and_counted() {
    let cdr = ",bcr_patient_barcode,type,gender,Redaction,OS,OS.time,DSS,DSS.time,DFI,DFI.time,PFI,PFI.time\n\
               1,TCGA-AA-0001,BLCA,MALE,,1,381,1,381,#N/A,#N/A,1,100\n\
               2,TCGA-BB-0002,BLCA,FEMALE,,0,913,0,913,0,913,0,913\n\
               3,TCGA-CC-0003,BLCA,MALE,Redacted,1,#N/A,0,-4,0,0,0,0\n";
    let cohort = open("preset = \"tcga-cdr\"\ncovariates = [\"gender\"]", cdr);
    assert_eq!(outcomes(&cohort), [("TCGA-AA-0001", 381.0, true), ("TCGA-BB-0002", 913.0, false)]);
    assert_eq!(
        (&cohort.dropped[..], &cohort.patients[0].covariates[..]),
        (&["TCGA-CC-0003".to_owned()][..], &[1.0][..])
    );
    let clinical = report("preset = \"tcga-cdr\"", cdr).clinical.unwrap();
    assert_eq!((clinical.redacted, clinical.rows, clinical.time_unit), (1, 3, Some("days")));

    // Xena has the same columns under one row a sample.
    let xena = "sample\t_PATIENT\tcancer type abbreviation\tgender\tOS\tOS.time\tDSS\tDSS.time\tDFI\tDFI.time\tPFI\tPFI.time\tRedaction\n\
                TCGA-AA-0001-01\tTCGA-AA-0001\tBLCA\tMALE\t1\t381\t1\t381\t\t\t1\t100\t\n\
                TCGA-AA-0001-11\tTCGA-AA-0001\tBLCA\tMALE\t1\t381\t1\t381\t\t\t1\t100\t\n\
                TCGA-BB-0002-01\tTCGA-BB-0002\tBLCA\tFEMALE\t0\t913\t0\t913\t0\t913\t0\t913\t\n\
                TCGA-CC-0003-01\tTCGA-CC-0003\tBLCA\tMALE\t1\t1\t1\t1\t\t\t1\t1\tRedacted\n";
    assert_eq!(outcomes(&open("preset = \"xena\"", xena)), outcomes(&cohort));
}

#[test]
fn words_of_cbioportal_say_what_happened() {
    let portal = "#Patient Identifier\tOverall Survival Status\tOverall Survival (Months)\tProgress, free\tx\n\
                  #Identifier\tStatus\tMonths\tx\tx\n#STRING\tSTRING\tNUMBER\tSTRING\tNUMBER\n#1\t1\t1\t1\t1\n\
                  PATIENT_ID\tOS_STATUS\tOS_MONTHS\tPFS_STATUS\tPFS_MONTHS\n\
                  TCGA-AA-0001\t1:DECEASED\t12.5\t1:PROGRESSION\t3\nTCGA-BB-0002\t0:LIVING\t30\t0:CENSORED\t30\n";
    let expected = [("TCGA-AA-0001", 12.5, true), ("TCGA-BB-0002", 30.0, false)];
    assert_eq!(outcomes(&open("preset = \"cbioportal\"", portal)), expected);
    let old = portal.replace("1:DECEASED", "DECEASED").replace("0:LIVING", "Living");
    assert_eq!(outcomes(&open("preset = \"cbioportal\"", &old)), expected);
    assert_eq!(outcomes(&open("preset = \"cbioportal\"\nendpoint = \"pfs\"", portal))[0].1, 3.0);
    let found = problems("preset = \"cbioportal\"", &portal.replace("0:LIVING", "Gone"));
    let sentence = found[0].to_string();
    assert!(matches!(found[..], [Problem::Event { line: 7, .. }]) && sentence.contains("1:deceased"), "{sentence}");
    let pages = "Study ID,Patient ID,Sample ID,Overall Survival (Months),Overall Survival Status\n\
                 s,TCGA-AA-0001,TCGA-AA-0001-01,12.5,1:DECEASED\ns,TCGA-BB-0002,TCGA-BB-0002-01,30,0:LIVING\n";
    assert_eq!(outcomes(&open("preset = \"cbioportal\"", pages)), expected);
}

#[test]
fn the_time_of_the_gdc_is_that_of_death_or_of_the_last_visit() {
    let gdc = "case_id\tcase_submitter_id\tvital_status\tdays_to_death\tdays_to_last_follow_up\ttreatment_type\n\
               uuid-1\tTCGA-AA-0001\tDead\t381\t'--\tRadiation\nuuid-1\tTCGA-AA-0001\tDead\t381\t100\tPharma\n\
               uuid-2\tTCGA-BB-0002\tAlive\t'--\t913\tRadiation\nuuid-3\tTCGA-CC-0003\tNot Reported\t'--\t'--\t'--\n";
    let cohort = open("preset = \"gdc\"\nmissing = \"drop\"", gdc);
    assert_eq!(outcomes(&cohort), [("TCGA-AA-0001", 381.0, true), ("TCGA-BB-0002", 913.0, false)]);
    assert_eq!(cohort.dropped, ["TCGA-CC-0003"]);
    let found = problems(
        "preset = \"gdc\"",
        &gdc.replace("Alive\t'--\t913", "Alive\t'--\t'--").replace("Not Reported", "Alive"),
    );
    assert!(
        matches!(&found[..], [Problem::Blank { line: 4, column, .. }, Problem::Blank { line: 5, .. }] if column == "days_to_last_follow_up"),
        "{found:?}"
    );
}

#[test]
fn the_words_of_stamp_are_known_and_its_columns_are_named_by_the_user() {
    let section =
        "preset = \"stamp\"\ntime = \"follow_up\"\nevent = \"status\"\ntime_unit = \"years\"\nconvert_to = \"days\"";
    for (event, none) in [("event", "censored"), ("Dead", "Alive"), ("deceased", "no"), ("yes", "0"), ("1", "no")] {
        let cohort = open(section, &format!("PATIENT;follow_up;status\nP1;2;{event}\nP2;4;{none}\n"));
        assert_eq!(outcomes(&cohort), [("P1", 730.5, true), ("P2", 1461.0, false)], "{event} {none}");
        assert_eq!(cohort.time_unit, Some(TimeUnit::Days));
    }
    assert!(matches!(problems(section, "PATIENT,follow_up,status\nP1,1,lost\n")[..], [Problem::Event { .. }]));
    let keys = problems("preset = \"stamp\"", "PATIENT,x\nP1,1\n");
    assert!(
        matches!(keys[..2], [Problem::Key { key: "clinical.time", .. }, Problem::NeitherEventNorCensored { .. }]),
        "{keys:?}"
    );
}

#[test]
fn words_by_hand_are_stated_for_both_outcomes_or_refused() {
    let by_hand = "case = \"id\"\ntime = \"t\"\nevent = \"e\"\n";
    let words = format!("{by_hand}event_values = [\"Tot\", \"†\"]\ncensored_values = [\"lebt\"]");
    let table = "id,t,e\nA,1,tot\nB,2,lebt\nC,3,†\n";
    assert_eq!(open(&words, table).events(), [true, false, true]);
    assert!(matches!(problems(&words, "id,t,e\nA,1,tott\n")[..], [Problem::Event { .. }]));
    let found = problems(by_hand, table);
    assert!(found[0].to_string().contains("event_values"), "{}", found[0]);
    for keys in [
        "event_values = [\"tot\"]",
        "censored_values = [\"lebt\"]",
        "event_values = [\"x\"]\ncensored_values = [\"x\"]",
        "endpoint = \"os\"",
        "convert_to = \"days\"",
    ] {
        let found = problems(&format!("{by_hand}{keys}"), "id,t,e\nA,1,1\n");
        assert!(matches!(found[..], [Problem::Key { .. }]), "{keys}: {found:?}");
    }
    let censored =
        "case = \"id\"\ntime = \"t\"\ncensored = \"e\"\nevent_values = [\"tot\"]\ncensored_values = [\"lebt\"]";
    assert!(matches!(problems(censored, "id,t,e\nA,1,1\n")[..], [Problem::Key { .. }]));
}

#[test]
fn keys_do_not_mix_the_columns_of_two_endpoints() {
    for keys in [
        // The time of one endpoint beside the outcome of another.
        "preset = \"survpath\"\ntime = \"survival_months_dss\"",
        "preset = \"survpath\"\nendpoint = \"dss\"\ntime = \"survival_months\"\ncensored = \"censorship\"",
        "preset = \"survpath\"\ntime_unit = \"days\"",
        "preset = \"survpath\"\nrepeats = false",
        "preset = \"survpath\"\ntime_censored = \"survival_months_dss\"",
    ] {
        let found = problems(keys, SURVPATH);
        let fits = |p: &Problem| matches!(p, Problem::Key { .. } | Problem::NeitherEventNorCensored { .. });
        assert!(found.iter().any(fits), "{keys}: {found:?}");
    }
    let own = "preset = \"survpath\"\ntime = \"survival_months_dss\"\ncensored = \"censorship_dss\"";
    assert_eq!(open(own, SURVPATH).events(), [false, false]);
    let unknown = problems("preset = \"survpaht\"", SURVPATH);
    assert!(matches!(&unknown[..], [Problem::Config { line: 4, why, .. }] if why.contains("survpath")), "{unknown:?}");
}

#[test]
fn rows_of_a_case_must_agree() {
    let with = |from: &str, to: &str| {
        assert!(SURVPATH.contains(from));
        problems("preset = \"survpath\"\ncovariates = [\"age\"]\nstrata = \"site\"", &SURVPATH.replacen(from, to, 1))
    };
    for (from, to, name) in [
        ("DX2.svs,60,AA,12.5", "DX2.svs,60,AA,13", "survival_months"),
        ("12.5,12.5,3,0,1,0,1,BLCA,1\n2", "12.5,12.5,3,1,1,0,1,BLCA,1\n2", "censorship"),
        ("DX2.svs,60", "DX2.svs,61", "age"),
        ("DX2.svs,60,AA", "DX2.svs,60,AB", "site"),
    ] {
        let found = with(from, to);
        assert!(
            matches!(&found[..], [Problem::RowsDisagree { line: 3, first: 2, column, case, .. }] if column == name && case == "TCGA-AA-0001"),
            "{found:?}"
        );
    }
    let found = with("TCGA-BB-0002-01Z-00-DX1", "TCGA-AA-0001-01Z-00-DX1");
    assert!(matches!(&found[..], [Problem::SlideOfTwo { second, .. }] if second == "TCGA-BB-0002"), "{found:?}");
    // What one row leaves blank, the other says.
    let blank = SURVPATH.replacen("DX1.svs,60,AA,12.5", "DX1.svs,60,AA,", 1);
    assert_eq!(open("preset = \"survpath\"", &blank).times(), [12.5, 30.0]);
    let by_hand = "case = \"case_id\"\ntime = \"survival_months\"\ncensored = \"censorship\"";
    assert!(matches!(problems(by_hand, SURVPATH)[..], [Problem::DuplicatePatient { line: 3, first: 2, .. }]));
    assert_eq!(open(&format!("{by_hand}\nrepeats = true"), SURVPATH).len(), 2);
}

#[test]
fn times_of_0_are_refused_dropped_or_made_the_smallest() {
    let section = |policy: &str| format!("case = \"id\"\ntime = \"t\"\nevent = \"e\"\ntime_zero = {policy:?}");
    let table = "id,t,e\nA,0,1\nB,2,0\nC,0.0,0\nD,4,1\n";
    let found = problems(&section("error"), table);
    assert!(matches!(found[..], [Problem::Time { line: 2, .. }, Problem::Time { line: 4, .. }]), "{found:?}");
    let dropped = open(&section("drop"), table);
    assert_eq!((dropped.times(), &dropped.dropped[..]), (vec![2.0, 4.0], &["A", "C"].map(String::from)[..]));
    assert_eq!(report(&section("drop"), table).clinical.unwrap().time_zero_dropped, 2);
    assert_eq!(open(&section("smallest"), table).times(), [1.0, 2.0, 1.0, 4.0]);
    let kept = report(&section("smallest"), table);
    assert_eq!((kept.clinical.unwrap().time_zero_kept, kept.time_range), (2, Some([1.0, 4.0])));

    let negative = table.replace("A,0", "A,-3");
    assert!(matches!(&problems(&section("smallest"), &negative)[..], [Problem::Time { value, .. }] if value == "-3"));
    assert_eq!(open(&section("drop"), &negative).len(), 2);
    assert!(matches!(problems(&section("smallest"), "id,t,e\nA,0,1\n")[..], [Problem::Time { .. }]));
    assert!(matches!(problems(&section("drop"), "id,t,e\nA,0,1\n")[..], [Problem::EverybodyDropped { .. }]));
}

#[test]
fn the_same_table_is_read_from_a_spreadsheet_a_zip_and_under_any_name() {
    let plain = open("preset = \"survpath\"", SURVPATH);
    let quoted = SURVPATH.replace("BLCA", "\"BLCA, \"\"muscle\n invasive\"\"\"");
    let tabs = SURVPATH.replace(',', "\t");
    let semicolons = SURVPATH.replace(',', ";");
    for table in [quoted, tabs, semicolons] {
        for text in [table.clone(), table.replace('\n', "\r\n"), format!("\u{feff}{table}")] {
            assert_eq!(open("preset = \"survpath\"", &text).patients, plain.patients, "{text:?}");
        }
    }
    let study = study("preset = \"survpath\"", "");
    study.write("table.csv.zip", SURVPATH);
    study.edit("cohort.toml", "t.csv", "table.csv.zip");
    assert_eq!(study.open().unwrap().patients, plain.patients);
}

#[test]
fn text_in_another_encoding_is_told_with_its_line() {
    let latin1 = SURVPATH.replace("70,BB", "70,Köln").into_bytes();
    let latin1: Vec<u8> = String::from_utf8(latin1).unwrap().chars().map(|c| c as u32 as u8).collect();
    assert!(matches!(study("preset = \"survpath\"", latin1).problems()[..], [Problem::NotUtf8 { line: 4, .. }]));
}

#[test]
fn a_table_of_ten_thousand_columns_is_read_with_its_genes() {
    let genes: Vec<String> = (0..10_000).map(|i| format!("G{i}")).collect();
    let header: String = genes.iter().map(|gene| format!(",{gene}_rnaseq")).collect();
    let row = |number: u32| (0..10_000).map(|i| format!(",{number}.{i}")).collect::<String>();
    let lines = MCAT.lines().zip([header, row(1), row(1), row(2)]).map(|(line, more)| format!("{line}{more}\n"));
    let study = study("preset = \"mcat\"", lines.collect::<String>());
    let toml = std::fs::read_to_string(study.path("cohort.toml")).unwrap();
    study.write("cohort.toml", format!("{toml}[rna]\nfile = \"t.csv\"\ncase = \"case_id\"\nsuffix = \"_rnaseq\"\n"));
    let rna = study.open().unwrap().rna.unwrap();
    assert_eq!((rna.genes.len(), rna.row(1).len()), (10_002, 10_002));
    assert_eq!((rna.genes[0].as_str(), rna.row(0)[0], rna.row(1)[2 + 77]), ("TP53", 0.5, 2.77));
}

#[test]
fn the_time_of_a_cohort_that_cannot_be_opened_is_an_error_of_data() {
    assert!(matches!(study("preset = \"gdc\"", "a,b\n1,2\n").open(), Err(Error::Data(_))));
}
