//! Files that are cut short, lie or are scribbled over: refused or read, but never a panic and never a huge allocation.

use onkos::data::{Cohort, Problem, Split, check};
use proptest::prelude::*;

use crate::study::{Study, bags, features, le};

/// A table with the columns of every preset.
const TABLE: &str =
    "case_id,slide_id,survival_months,censorship,os_survival_days,os_censorship,bcr_patient_barcode,_PATIENT,\
OS,OS.time,Redaction,PATIENT_ID,OS_STATUS,OS_MONTHS,case_submitter_id,vital_status,days_to_death,days_to_last_follow_up
A,a1.svs,1.5,0,40,0,A,A,1,40,,A,1:DECEASED,1.5,A,Dead,40,'--
A,a2.svs,1.5,0,40,0,A2,A,1,40,,A,1:DECEASED,1.5,A,Dead,40,'--
B,b.svs,0,1,0,1,B,B,0,0,,B,0:LIVING,0,B,Alive,'--,0
C,c.svs,9,1,90,1,C,C,0,90,Redacted,C,0:LIVING,9,C,Alive,'--,90
";

fn with_bags(bytes: &[u8]) -> Vec<Problem> {
    let study = Study::new();
    study.write("bags.safetensors", bytes);
    study.problems()
}

/// A safetensors file with a header as given.
fn file(header: &str, payload: usize) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![0; payload]].concat()
}

#[test]
fn a_safetensors_file_cut_anywhere_is_refused() {
    let whole = bags(&features(), &[0, 2, 3, 6]);
    let study = Study::new();
    for end in 0..whole.len() {
        study.write("bags.safetensors", &whole[..end]);
        let found = study.problems();
        assert!(matches!(found[..], [Problem::Extent { .. }]), "cut at {end}: {found:#?}");
    }
    let longer = [&whole[..], &[0]].concat();
    assert!(matches!(with_bags(&longer)[..], [Problem::Extent { .. }]));
}

#[test]
fn claimed_extents_are_not_believed() {
    let huge = u64::MAX;
    for header in [
        // A header that is longer than the file, or than any file.
        [&huge.to_le_bytes()[..], b"{}"].concat(),
        [&99_000_000u64.to_le_bytes()[..], b"{}"].concat(),
        // Extents whose sums and products overflow, on their own and together with the length of the header.
        file(&format!(r#"{{"features":{{"dtype":"U8","shape":[{huge}],"data_offsets":[0,{huge}]}}}}"#), 0),
        file(r#"{"features":{"dtype":"F16","shape":[4294967296,4294967296],"data_offsets":[0,0]}}"#, 0),
        file(
            r#"{"features":{"dtype":"F32","shape":[9223372036854775807],"data_offsets":[0,18446744073709551612]}}"#,
            0,
        ),
        file(r#"{"features":{"dtype":"F16","shape":[1,1],"data_offsets":[2,0]}}"#, 2),
        file(r#"{"features":{"dtype":"F16","shape":[1,1],"data_offsets":[2,4]}}"#, 4),
        file(r#"{"features":{"dtype":"F16","shape":[2,1],"data_offsets":[0,2]}}"#, 2),
        file(r#"{"features":{"dtype":"F16","shape":[-1],"data_offsets":[0,2]}}"#, 2),
        file(r#"{"features":[]}"#, 0),
        file("[[[[", 0),
        file(&"[".repeat(100_000), 0),
        b"\x89HDF\r\n\x1a\n and more of it".to_vec(),
    ] {
        let found = with_bags(&header);
        assert!(matches!(found[..], [Problem::Header { .. } | Problem::Extent { .. }]), "{found:#?}");
    }
}

#[test]
fn the_payload_may_lie_at_any_alignment() {
    // The header is padded with blanks to every remainder of eight.
    let whole = bags(&features(), &[0, 2, 3, 6]);
    let length = u64::from_le_bytes(*whole.first_chunk().unwrap()) as usize;
    let expected = Study::new().open().unwrap().slides.unwrap().gather(&[2, 0]).unwrap();
    for pad in 0..8 {
        let mut bytes = ((length + pad) as u64).to_le_bytes().to_vec();
        bytes.extend(&whole[8..8 + length]);
        bytes.extend(vec![b' '; pad]);
        bytes.extend(&whole[8 + length..]);
        let study = Study::new();
        study.write("bags.safetensors", &bytes);
        assert_eq!(study.open().unwrap().slides.unwrap().gather(&[2, 0]).unwrap(), expected);
    }
}

#[test]
fn a_file_larger_than_memory_is_read_where_it_is_touched() {
    // 256 GiB of which the disk holds a few kilobytes: the rest is a hole that reads as zeros.
    let (rows, width) = (1u64 << 32, 32u64);
    let extent = rows * width * 2;
    let header = format!(
        r#"{{"offsets":{{"dtype":"I64","shape":[4],"data_offsets":[0,32]}},"features":{{"dtype":"F16","shape":[{rows},{width}],"data_offsets":[32,{}]}}}}"#,
        32 + extent
    );
    let offsets = [0i64, 2, rows as i64 - 3, rows as i64];
    let study = Study::new();
    study.write("bags.safetensors", [&file(&header, 0)[..], &le(&offsets)].concat());
    let hole = std::fs::OpenOptions::new().write(true).open(study.path("bags.safetensors")).unwrap();
    let length = 8 + header.len() as u64 + 32 + extent;
    if let Err(e) = hole.set_len(length) {
        println!("skipped: no file with a hole of {length} bytes here: {e}");
        return;
    }
    let bags = Cohort::open_unscanned(study.path("cohort.toml")).unwrap().slides.unwrap();
    let (gathered, ragged) = bags.gather(&[2, 0]).unwrap();
    assert_eq!((ragged.offsets(), gathered.width()), (&[0, 3, 5][..], 32));
    assert_eq!(gathered, onkos::Features::F16(onkos::Tensor::zeros(&[5, 32])));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn scribbled_files_never_panic(
        name in prop::sample::select(vec!["cohort.toml", "clinical.csv", "genes.txt", "signatures.csv", "rna.safetensors", "bags.safetensors"]),
        flips in prop::collection::vec((any::<prop::sample::Index>(), 0u8..8), 1..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let study = Study::new();
        let mut bytes = std::fs::read(study.path(name)).unwrap();
        for (place, bit) in flips {
            let place = place.index(bytes.len());
            bytes[place] ^= 1 << bit;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        study.write(name, &bytes);
        let report = check(study.path("cohort.toml"));
        match study.open() {
            Ok(cohort) => {
                prop_assert!(report.sound);
                if let Some(bags) = &cohort.slides {
                    let all: Vec<usize> = (0..cohort.len()).collect();
                    prop_assert_eq!(bags.gather(&all).unwrap().0.rows(), bags.ragged().rows());
                }
            }
            Err(error) => prop_assert!(!report.sound && !error.to_string().is_empty()),
        }
    }

    #[test]
    fn no_clinical_table_panics_under_any_preset(
        preset in prop::sample::select(&["mcat", "survpath", "mmp", "tcga-cdr", "xena", "cbioportal", "gdc"][..]),
        policy in prop::sample::select(&["error", "drop", "smallest"][..]),
        noise in proptest::collection::vec((any::<prop::sample::Index>(), "[\\PC]{0,3}|\n|\r\n|\t|,|;|\"|0|-1|1e999|NaN"), 0..8),
        bytes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..2),
    ) {
        let mut text = TABLE.to_owned();
        for (place, piece) in noise {
            let mut place = place.index(text.len());
            while !text.is_char_boundary(place) {
                place -= 1;
            }
            text.insert_str(place, &piece);
        }
        let mut table = text.into_bytes();
        for (place, byte) in bytes {
            let place = place.index(table.len());
            table[place] = byte;
        }
        let study = crate::dialects::study(&format!("preset = {preset:?}\ntime_zero = {policy:?}\nmissing = \"drop\""), table);
        let report = check(study.path("cohort.toml"));
        match study.open() {
            Ok(cohort) => prop_assert!(report.sound && cohort.times().iter().all(|t| t.is_finite() && *t > 0.0)),
            Err(error) => prop_assert!(!report.sound && !error.to_string().is_empty()),
        }
    }

    #[test]
    fn no_table_of_expression_or_signatures_panics(
        table in "(c|g|v|A|B|C|TP53|,|\n|\t|1|0|\"|-|nan){0,60}",
        form in prop::sample::select(&["", "case = \"c\"", "case = \"c\"\ngene = \"g\"\nvalue = \"v\"", "suffix = \"3\""][..]),
    ) {
        let study = Study::new();
        study.edit("cohort.toml", "file = \"rna.safetensors\"\ngenes = \"genes.txt\"", &format!("file = \"rna.csv\"\n{form}"));
        study.edit("cohort.toml", "family = \"h\"\n", "");
        for (name, text) in [("rna.csv", table.clone()), ("rna.csv", format!("c,g,v\n{table}")), ("signatures.csv", table)] {
            study.write(name, text);
            prop_assert_eq!(check(study.path("cohort.toml")).sound, study.open().is_ok());
        }
    }

    #[test]
    fn splits_out_of_noise_never_panic(text in "\\PC{0,200}|(train|val|test|A|B|C|,|\n){0,40}") {
        let study = Study::new();
        study.write("split.csv", &text);
        study.write("split.json", &text);
        let patients = study.open().unwrap().patients;
        let _ = Split::read(&study.path("split.csv"), 0, &patients);
        std::fs::create_dir(study.path("folder")).unwrap();
        for header in ["case_id,fold_0", "case_id,set", ",train,val", "case_id"] {
            study.write("split.csv", format!("{header}\n{text}"));
            study.write("folder/train.csv", format!("{header}\n{text}"));
            let _ = Split::read(&study.path("split.csv"), 0, &patients);
            let _ = Split::read(&study.path("folder"), 0, &patients);
        }
        prop_assert!(Split::read(&study.path("split.json"), 0, &patients).is_err());
    }
}

#[test]
fn a_folder_in_place_of_a_file_is_refused() {
    for name in ["cohort.toml", "clinical.csv", "genes.txt", "rna.safetensors", "bags.safetensors"] {
        let study = Study::new();
        std::fs::remove_file(study.path(name)).unwrap();
        std::fs::create_dir(study.path(name)).unwrap();
        let found = study.problems();
        assert!(matches!(found[..], [Problem::Unreadable { .. }]), "{name}: {found:#?}");
    }
    assert!(Cohort::open(std::env::temp_dir()).is_err());
}

#[cfg(unix)]
#[test]
fn a_pipe_in_place_of_a_file_is_refused_and_not_waited_for() {
    for name in ["clinical.csv", "bags.safetensors"] {
        let study = Study::new();
        std::fs::remove_file(study.path(name)).unwrap();
        let made = std::process::Command::new("mkfifo").arg(study.path(name)).status();
        if !made.is_ok_and(|status| status.success()) {
            println!("skipped: no mkfifo here");
            return;
        }
        assert!(matches!(study.problems()[..], [Problem::Unreadable { .. }]));
    }
}
