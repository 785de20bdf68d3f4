//! A small cohort in a temporary folder, to break in many ways.

use std::fs;
use std::path::PathBuf;

use half::f16;
use onkos::data::{Cohort, Problem};
use onkos::{Error, Features};
use safetensors::Dtype;
use safetensors::tensor::{TensorView, serialize};
use tempfile::TempDir;

/// The files of a cohort of three patients, two genes and bags of 2, 1 and 3 instances three wide.
pub(crate) struct Study {
    pub(crate) folder: TempDir,
}

pub(crate) const TOML: &str = r#"
name = "small"
[clinical]
file = "clinical.csv"
case = "case"
time = "months"
event = "died"
covariates = ["age", "sex"]
strata = "site"
[rna]
file = "rna.safetensors"
genes = "genes.txt"
signatures = "signatures.csv"
family = "h"
[slides]
file = "bags.safetensors"
"#;

pub(crate) const CLINICAL: &str = "case,months,died,age,sex,site\nA,1.5,1,60,F,x\nB,2,0,61.5,M,\nC,30,1.0,59,male,y\n";

/// A safetensors file.
pub(crate) fn tensors(tensors: &[(&str, Dtype, &[usize], &[u8])]) -> Vec<u8> {
    let views = tensors
        .iter()
        .map(|(name, dtype, shape, bytes)| (*name, TensorView::new(*dtype, shape.to_vec(), bytes).unwrap()));
    serialize(views, None).unwrap()
}

/// Elements as bytes.
pub(crate) fn le<T: bytemuck::Pod>(elements: &[T]) -> Vec<u8> {
    bytemuck::cast_slice(elements).to_vec()
}

pub(crate) fn features() -> Vec<f16> {
    (0..18).map(|i| f16::from_f32(i as f32)).collect()
}

pub(crate) fn bags(features: &[f16], offsets: &[i64]) -> Vec<u8> {
    tensors(&[
        ("features", Dtype::F16, &[features.len() / 3, 3], &le(features)),
        ("offsets", Dtype::I64, &[offsets.len()], &le(offsets)),
    ])
}

impl Study {
    pub(crate) fn new() -> Study {
        let study = Study { folder: tempfile::tempdir().unwrap() };
        study.write("cohort.toml", TOML);
        study.write("clinical.csv", CLINICAL);
        study.write("genes.txt", "TP53\nEGFR\n");
        study.write("signatures.csv", "family,signature,gene\nh,S,EGFR\n");
        study.write(
            "rna.safetensors",
            tensors(&[("rna", Dtype::F32, &[3, 2], &le(&[0.5f32, 1.0, -1.0, 0.0, 9.0, 2.0]))]),
        );
        study.write("bags.safetensors", bags(&features(), &[0, 2, 3, 6]));
        study
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.path(name), bytes).unwrap();
    }

    /// Replaces text in a file, which must be there.
    pub(crate) fn edit(&self, name: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.path(name)).unwrap();
        assert!(text.contains(from), "{name} has no {from:?}");
        self.write(name, text.replacen(from, to, 1));
    }

    pub(crate) fn open(&self) -> onkos::Result<Cohort> {
        Cohort::open(self.path("cohort.toml"))
    }

    /// Everything that is wrong.
    pub(crate) fn problems(&self) -> Vec<Problem> {
        match self.open() {
            Err(Error::Data(problems)) => problems.0,
            Err(other) => panic!("another kind of error: {other}"),
            Ok(_) => panic!("nothing was found to be wrong"),
        }
    }
}

#[test]
fn a_cohort_opens_with_what_its_files_say() {
    let cohort = Study::new().open().unwrap();
    assert_eq!(cohort.times(), [1.5, 2.0, 30.0]);
    assert_eq!(cohort.events(), [true, false, true]);
    assert_eq!(cohort.patients[1].covariates, [61.5, 1.0]);
    assert_eq!(cohort.patients[1].strata, None);
    let rna = cohort.rna.as_ref().unwrap();
    assert_eq!((rna.row(2), &rna.genes[..]), (&[9.0f32, 2.0][..], &["TP53".to_owned(), "EGFR".to_owned()][..]));
    assert_eq!(cohort.signatures[0].columns(&rna.genes), [1]);
    cohort.require_events().unwrap();
}

#[test]
fn gathered_bags_are_those_of_the_patients_in_the_order_asked_for() {
    let cohort = Study::new().open().unwrap();
    let (gathered, ragged) = cohort.slides.as_ref().unwrap().gather(&[2, 0, 2]).unwrap();
    assert_eq!(ragged.offsets(), [0, 3, 5, 8]);
    let Features::F16(tensor) = gathered else { panic!("the file is F16") };
    assert_eq!(tensor.shape(), [8, 3]);
    let all = features();
    assert_eq!(tensor.host(), [&all[9..18], &all[0..6], &all[9..18]].concat());
}
