//! Tables that are strange, large or packed to do harm.

use std::io::Write;
use std::time::{Duration, Instant};

use flate2::write::{DeflateEncoder, GzEncoder};
use flate2::{Compression, Crc, FlushCompress};
use onkos::data::{Problem, check};

use crate::study::{CLINICAL, Study};

fn of_clinical(bytes: impl AsRef<[u8]>) -> Vec<Problem> {
    let study = Study::new();
    study.write("clinical.csv", bytes);
    study.problems()
}

#[test]
fn byte_order_marks_line_ends_quotes_and_more_columns_change_nothing() {
    let plain = Study::new().open().unwrap();
    let wide = |line: &str| format!("{line}{}\n", ",x".repeat(10_000));
    let named = |(i, line): (usize, &str)| if i == 0 { line.to_owned() + &columns(10_000) } else { wide(line) };
    let tables = [
        format!("\u{feff}{CLINICAL}"),
        CLINICAL.replace('\n', "\r\n"),
        CLINICAL.replace('\n', "\r"),
        CLINICAL
            .replace("case,", "note,case,")
            .replace("A,", "\"over\nlines, \"\"twice\"\"\r\n\",A,")
            .replace("\nB", "\n,B")
            .replace("\nC", "\n,C"),
        CLINICAL.lines().enumerate().map(named).collect(),
    ];
    for text in tables {
        let study = Study::new();
        study.write("clinical.csv", &text);
        let cohort = study.open().unwrap_or_else(|e| panic!("{e} in {}", &text[..text.len().min(300)]));
        assert_eq!(cohort.patients, plain.patients, "{}", &text[..text.len().min(300)]);
    }
}

/// So many names of columns, each after a comma, and a line end.
fn columns(n: usize) -> String {
    (0..n).map(|i| format!(",c{i}")).collect::<String>() + "\n"
}

#[test]
fn what_is_no_text_is_told_with_its_line() {
    let latin = CLINICAL.replace("male", "m\u{0}le").into_bytes();
    let latin: Vec<u8> = latin.into_iter().map(|b| if b == 0 { 0xe4 } else { b }).collect();
    assert!(matches!(of_clinical(latin)[..], [Problem::NotUtf8 { line: 4, .. }]));
    // A NUL is a character like others, and so no part of a number.
    assert!(
        matches!(&of_clinical(CLINICAL.replace("61.5", "61\0"))[..], [Problem::NotANumber { line: 3, value, .. }] if value == "61\0")
    );
}

#[test]
fn columns_of_one_name_are_refused_where_they_are_read() {
    assert!(matches!(
        &of_clinical(CLINICAL.replace("site", "months"))[..],
        [Problem::DuplicateColumn { .. }, Problem::MissingColumn { .. }]
    ));
    // Ten thousand genes of one name: told, and not ten thousand times.
    let study = Study::new();
    study.edit("cohort.toml", "file = \"rna.safetensors\"\ngenes = \"genes.txt\"", "file = \"rna.csv\"");
    let row = |case: &str| format!("{case}{}\n", ",1".repeat(10_000));
    study.write("rna.csv", format!("case{}\n{}{}{}", ",TP53".repeat(10_000), row("A"), row("B"), row("C")));
    assert!(study.problems().iter().any(|p| matches!(p, Problem::DuplicateGene { gene, .. } if gene == "TP53")));
    assert!(check(study.path("cohort.toml")).problems.len() < 20);
}

#[test]
fn a_cell_of_a_hundred_megabytes_is_refused_and_not_shown() {
    let cell = "x".repeat(100 << 20);
    let study = Study::new();
    study.write("clinical.csv", CLINICAL.replace("61.5", &cell));
    assert!(matches!(study.problems()[..], [Problem::NotANumber { line: 3, .. }]));
    let shown = study.open().unwrap_err().to_string();
    assert!(shown.len() < 3000 && shown.ends_with("x ..."), "{} bytes", shown.len());
}

#[test]
fn tables_of_commas_or_line_ends_are_refused_before_memory_is_asked_for() {
    // A row of 50 million cells, in the header and below it; cells that are line ends in quotes.
    for text in [
        ",".repeat(50 << 20),
        format!("{CLINICAL}{}", ",".repeat(50 << 20)),
        format!("{CLINICAL}{}", "\"\n\",".repeat(10 << 20)),
    ] {
        let found = of_clinical(text);
        assert!(matches!(found[..], [Problem::TooManyColumns { .. }]), "{found:#?}");
    }
    // Rows that would take hundreds of bytes each for their two.
    let found = of_clinical("a\n".repeat(40 << 20));
    assert!(matches!(&found[..], [Problem::Unreadable { why, .. }] if why.contains("of memory")), "{found:#?}");
    // Rows that are all wrong: a thousand of them are told.
    let found = of_clinical(format!("{CLINICAL}{}", "a\n".repeat(1 << 20)));
    assert_eq!(found.len(), 1000);
    assert!(found.iter().all(|problem| matches!(problem, Problem::RaggedRow { .. })));
}

/// A DEFLATE stream, without its end, of so many MiB of one byte. The parts are whole, so that one is made and repeated.
fn endless(byte: u8, mebibytes: usize) -> Vec<u8> {
    let mut whole = vec![byte; 1 << 20];
    let mut part = Vec::with_capacity(1 << 16);
    let mut packer = flate2::Compress::new(Compression::best(), false);
    packer.compress_vec(&whole, &mut part, FlushCompress::Full).unwrap();
    assert_eq!(packer.total_in(), 1 << 20, "one part takes it all");
    whole.clear();
    part.repeat(mebibytes)
}

#[test]
fn packed_tables_that_inflate_to_gigabytes_are_refused_in_seconds() {
    const GZIP: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
    let stream = endless(b',', 3 << 10);
    assert!(stream.len() < 8 << 20, "{} bytes", stream.len());
    let started = Instant::now();
    let bomb = [&GZIP[..], &stream].concat();
    let found = of_clinical(&bomb);
    assert!(matches!(&found[..], [Problem::Archive { why, .. }] if why.contains("unpacks to more than")), "{found:#?}");
    // The directory says that there are five bytes in it.
    let found = of_clinical(zip(&stream, 5, 0));
    assert!(matches!(found[..], [Problem::Archive { .. }]), "{found:#?}");
    assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());

    let mut nested = CLINICAL.as_bytes().to_vec();
    for _ in 0..3 {
        let mut crc = Crc::new();
        crc.update(&nested);
        let mut packer = DeflateEncoder::new(Vec::new(), Compression::best());
        packer.write_all(&nested).unwrap();
        nested = zip(&packer.finish().unwrap(), nested.len() as u32, crc.sum());
    }
    let found = of_clinical(&nested);
    assert!(
        matches!(&found[..], [Problem::Archive { why, .. }] if why.contains("an archive lies in the archive")),
        "{found:#?}"
    );
    let mut packer = GzEncoder::new(Vec::new(), Compression::best());
    packer.write_all(&bomb[..1 << 16]).unwrap();
    assert!(matches!(of_clinical(packer.finish().unwrap())[..], [Problem::NotUtf8 { .. } | Problem::Archive { .. }]));
}

/// A ZIP archive with one deflated member.
fn zip(packed: &[u8], size: u32, crc: u32) -> Vec<u8> {
    let mut fields = vec![20, 0, 0, 0, 8, 0, 0, 0, 0, 0];
    [crc, packed.len() as u32, size].iter().for_each(|n| fields.extend(n.to_le_bytes()));
    fields.extend([5, 0, 0, 0]);
    let local = [b"PK\x03\x04", &fields[..], b"t.csv", packed].concat();
    let central = [b"PK\x01\x02\x14\0", &fields[..], &[0; 14][..], b"t.csv"].concat();
    let mut end = b"PK\x05\x06\0\0\0\0\x01\0\x01\0".to_vec();
    [central.len() as u32, local.len() as u32].iter().for_each(|n| end.extend(n.to_le_bytes()));
    [local, central, end, vec![0, 0]].concat()
}
