//! Slides in a folder, one file each, and patients without any.

use onkos::Features;
use onkos::data::{Problem, check};
use safetensors::Dtype;

use crate::study::{Study, bags, features, le, tensors};

/// A study whose slides lie in a folder: A has two, B one, C a file under its own name.
fn folder() -> Study {
    let study = Study::new();
    study.edit("cohort.toml", "file = \"bags.safetensors\"", "dir = \"slides\"");
    study.edit("cohort.toml", "case = \"case\"", "case = \"case\"\nslides = \"slides\"");
    let clinical =
        "case,months,died,age,sex,site,slides\nA,1.5,1,60,F,x,a1.svs; a2\nB,2,0,61.5,M,,b\nC,30,1,59,male,y,\n";
    study.write("clinical.csv", clinical);
    std::fs::create_dir(study.path("slides")).unwrap();
    for (name, value, rows) in [("a1", 1f32, 2), ("a2", 2.0, 1), ("b", 3.0, 1), ("C", 4.0, 3)] {
        study.write(&format!("slides/{name}.safetensors"), slide(value, rows, 2));
    }
    study
}

fn slide(value: f32, rows: usize, width: usize) -> Vec<u8> {
    tensors(&[("features", Dtype::F32, &[rows, width], &le(&vec![value; rows * width]))])
}

#[test]
fn a_bag_is_all_slides_of_a_patient_in_their_order() {
    let bags = folder().open().unwrap().slides.unwrap();
    let (gathered, ragged) = bags.gather(&[0, 1, 2]).unwrap();
    assert_eq!(ragged.offsets(), [0, 3, 4, 7]);
    let Features::F32(tensor) = gathered else { panic!("the files are F32") };
    assert_eq!(tensor.host(), [1., 1., 1., 1., 2., 2., 3., 3., 4., 4., 4., 4., 4., 4.]);
}

#[test]
fn a_slide_is_told_by_its_contents_and_what_is_none_is_named() {
    let study = folder();
    std::fs::rename(study.path("slides/b.safetensors"), study.path("slides/b.h5")).unwrap();
    assert_eq!(study.open().unwrap().slides.unwrap().ragged().offsets(), [0, 3, 4, 7]);
    study.write("slides/b.h5", "<html>");
    let found = study.problems();
    assert!(matches!(&found[..], [Problem::Features { file, .. }] if file.ends_with("b.h5")), "{found:#?}");
}

#[test]
fn doubles_of_a_packed_file_are_rounded_with_a_note() {
    let study = Study::new();
    let values: Vec<f64> = (0..6).map(|i| f64::from(i) / 3.0).collect();
    let offsets = le(&[0i64, 2, 3, 6]);
    study.write(
        "bags.safetensors",
        tensors(&[("features", Dtype::F64, &[6, 1], &le(&values)), ("offsets", Dtype::I64, &[4], &offsets)]),
    );
    let (gathered, _) = study.open().unwrap().slides.unwrap().gather(&[2]).unwrap();
    let Features::F32(tensor) = gathered else { panic!("doubles are read as F32") };
    assert_eq!(tensor.host(), [1.0, 4f32 / 3.0, 5f32 / 3.0]);
    let report = check(study.path("cohort.toml"));
    assert!(report.sound && report.warnings.iter().any(|w| w.contains("rounded to F32")), "{:?}", report.warnings);
}

#[test]
fn slides_of_another_width_or_type_are_named() {
    let study = folder();
    study.write("slides/b.safetensors", slide(1.0, 1, 3));
    let found = study.problems();
    assert!(matches!(found[0], Problem::SlideDiffers { .. }), "{found:#?}");
}

#[test]
fn a_slide_that_is_not_there_is_a_problem_or_dropped() {
    let study = folder();
    std::fs::remove_file(study.path("slides/a2.safetensors")).unwrap();
    std::fs::remove_file(study.path("slides/b.safetensors")).unwrap();
    let found = study.problems();
    assert!(
        matches!(&found[..], [Problem::NoSlides { case, .. }, Problem::MissingSlide { slide, .. }] if case == "B" && slide == "a2"),
        "{found:#?}"
    );

    study.edit("cohort.toml", "dir = \"slides\"", "dir = \"slides\"\nmissing = \"drop\"");
    let cohort = study.open().unwrap();
    assert_eq!(cohort.dropped, ["B"]);
    assert_eq!(cohort.patients.iter().map(|p| p.case.as_str()).collect::<Vec<_>>(), ["A", "C"]);
    assert_eq!(cohort.rna.unwrap().row(1), [9.0, 2.0]);
    assert_eq!(cohort.slides.unwrap().ragged().offsets(), [0, 2, 5]);
    let report = check(study.path("cohort.toml"));
    assert_eq!((report.patients, report.events), (2, 2));
    assert_eq!(
        (report.without_slides, report.missing_slides),
        (vec!["B".to_owned()], vec!["a2".to_owned(), "b".to_owned()])
    );
}

#[test]
fn empty_bags_of_a_packed_file_are_dropped_where_that_is_asked_for() {
    let study = Study::new();
    study.write("bags.safetensors", bags(&features(), &[0, 0, 3, 6]));
    study.edit("cohort.toml", "[slides]", "[slides]\nmissing = \"drop\"");
    let cohort = study.open().unwrap();
    assert_eq!((cohort.dropped, cohort.slides.unwrap().gather(&[1]).unwrap().0.rows()), (vec!["A".to_owned()], 3));
}

#[test]
fn names_of_slides_do_not_lead_out_of_the_folder() {
    let study = folder();
    study.write("secret.safetensors", slide(1.0, 1, 2));
    study.edit("clinical.csv", "a1.svs; a2", "../secret");
    let found = study.problems();
    assert!(matches!(&found[..], [Problem::NoSlides { case, .. }] if case == "A"), "{found:#?}");
}

#[test]
fn nan_in_a_slide_is_named_with_the_slide() {
    let study = folder();
    study.write("slides/a2.safetensors", slide(f32::NAN, 1, 2));
    let found = study.problems();
    assert!(matches!(&found[..], [Problem::FeatureNotFinite { name, row: 0, .. }] if name == "a2"), "{found:#?}");
}

#[test]
fn a_cohort_of_which_nobody_is_left_is_refused() {
    let study = folder();
    study.edit("cohort.toml", "dir = \"slides\"", "dir = \"slides\"\nmissing = \"drop\"");
    std::fs::remove_dir_all(study.path("slides")).unwrap();
    assert!(matches!(study.problems()[..], [Problem::Unreadable { .. }]));
    std::fs::create_dir(study.path("slides")).unwrap();
    assert!(matches!(study.problems()[..], [Problem::NobodyLeft { .. }]));
}
