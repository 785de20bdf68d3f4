//! Which patients a model is trained on, and which it is judged by.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::barcode::{Ids, Match, slide_name};
use super::clinical::Patient;
use super::cohort::Cohort;
use super::problem::{Problem, Problems};
use super::split_files::{self, Named};
use crate::error::{Error, Result};
use crate::rng::{Draws, name32};

/// Patients of a cohort, as ascending indices, in sets that do not overlap.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Split {
    /// To learn from: models, scalers and bins are fitted on these.
    pub train: Vec<usize>,
    /// To choose settings and the epoch by.
    pub validation: Vec<usize>,
    /// To report on. Random splits have none.
    pub test: Vec<usize>,
}

impl Split {
    /// A random part of the patients for validation, the same part of those with and of those without an event.
    ///
    /// Depends on the seed and the case ids, not on the order of the patients. A stratum of two patients or more has
    /// at least one on either side.
    ///
    /// # Errors
    /// [`Error::Setting`] if the fraction is not above 0 and below 1, or leaves one of the sets empty.
    pub fn random(patients: &[Patient], fraction: f64, seed: u64) -> Result<Split> {
        let refuse = |want| Err(Error::Setting { name: "train.validation", want, value: fraction.to_string() });
        if !(fraction > 0.0 && fraction < 1.0) {
            return refuse("above 0 and below 1");
        }
        let mut split = Split::default();
        for stratum in shuffled_strata(patients, seed) {
            let n = stratum.len();
            let part = (fraction * n as f64).round() as usize;
            let part = if n >= 2 { part.clamp(1, n - 1) } else { part };
            split.validation.extend(&stratum[..part]);
            split.train.extend(&stratum[part..]);
        }
        if split.train.is_empty() || split.validation.is_empty() {
            return refuse("such that the training and the validation set have a patient each");
        }
        Ok(split.sorted())
    }

    /// `k` splits, each with another k-th of the patients for validation, of either outcome alike.
    ///
    /// # Errors
    /// [`Error::Setting`] if there are not at least two folds and two patients for each.
    pub fn folds(patients: &[Patient], k: usize, seed: u64) -> Result<Vec<Split>> {
        if k < 2 || patients.len() < 2 * k {
            let want = "at least 2 and at most half the patients";
            return Err(Error::Setting { name: "split.folds", want, value: k.to_string() });
        }
        // Both strata are dealt from one deck, so that the folds differ by at most one patient in size.
        let deck: Vec<usize> = shuffled_strata(patients, seed).concat();
        let fold = |held: usize| {
            let mut split = Split::default();
            for (place, &patient) in deck.iter().enumerate() {
                if place % k == held { &mut split.validation } else { &mut split.train }.push(patient);
            }
            split.sorted()
        };
        Ok((0..k).map(fold).collect())
    }

    /// Reads a split from a file or a folder:
    ///
    /// - a table with columns `train`, `val` and maybe `test` that hold ids (CLAM, SurvPath), or true and false beside
    ///   the ids of the first column (CLAM);
    /// - a table with a column `fold_K` that names the set of each row (Patho-Bench), or `set` (`split.csv` of a run);
    /// - the JSON of STAMP, whose test patients are those of `test`;
    /// - a folder with `splits_K.csv`, or with `train.csv` and `val.csv` or `test.csv` (MMP, PANTHER), or with one such
    ///   folder that ends in `_k=K`.
    ///
    /// K is the `fold`. Ids are cases, or names of slides where the cohort has them; barcodes of TCGA may be of any
    /// length. Patients that the file does not name are in no set.
    ///
    /// # Errors
    /// [`Error::Data`] with every id that is unknown, twice in a set or in two sets.
    pub fn read(path: &Path, fold: usize, patients: &[Patient]) -> Result<Split> {
        Split::read_without(path, fold, patients, &[])
    }

    /// Like [`read`](Self::read), of a cohort: ids of patients that its cohort file leaves out are passed over.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_for(path: &Path, fold: usize, cohort: &Cohort) -> Result<Split> {
        Split::read_without(path, fold, &cohort.patients, &cohort.left_out)
    }

    pub(super) fn read_without(path: &Path, fold: usize, patients: &[Patient], left_out: &[Patient]) -> Result<Split> {
        let mut problems = Problems::default();
        let named = split_files::read(path, fold, &mut problems).unwrap_or_default();
        let split = resolve(named, patients, left_out, &mut problems);
        if problems.is_empty() {
            let judged_by_none = split.validation.is_empty() && split.test.is_empty();
            for (set, empty) in [("train", split.train.is_empty()), ("val", judged_by_none)] {
                if empty {
                    problems.push(Problem::EmptySet { file: path.into(), set });
                }
            }
        }
        problems.or(split.sorted())
    }

    fn sorted(mut self) -> Split {
        for set in [&mut self.train, &mut self.validation, &mut self.test] {
            set.sort_unstable();
        }
        self
    }
}

/// Patients with an event and those without, each in a random order that does not depend on the order they come in.
fn shuffled_strata(patients: &[Patient], seed: u64) -> [Vec<usize>; 2] {
    let draws = Draws::new(seed, 0, "split");
    [true, false].map(|event| {
        let mut stratum: Vec<usize> = (0..patients.len()).filter(|&p| patients[p].event == event).collect();
        // Ids that share a name32 share their words; the id itself then decides.
        stratum.sort_by_cached_key(|&p| {
            let case = &patients[p].case;
            (draws.of(name32(case)).block(0), Reverse(case.clone()))
        });
        stratum
    })
}

/// Patients by their ids and those of their slides.
struct Known<'a> {
    slides: HashMap<&'a str, usize>,
    cases: Ids<'a>,
}

impl<'a> Known<'a> {
    fn new(patients: &'a [Patient]) -> Known<'a> {
        let of_patient = |(index, patient): (usize, &'a Patient)| {
            patient.slides.iter().map(move |slide| (slide.as_str(), index)).collect::<Vec<_>>()
        };
        Known {
            slides: patients.iter().enumerate().flat_map(of_patient).collect(),
            cases: Ids::new(patients.iter().map(|patient| patient.case.as_str())),
        }
    }

    fn find(&self, id: &str) -> Match {
        let id = slide_name(id);
        match (self.cases.find(id), self.slides.get(id)) {
            (Match::Nothing | Match::Several(_), Some(&patient)) => Match::One(patient),
            (found, _) => found,
        }
    }
}

/// Finds the patients that ids stand for.
fn resolve(named: Vec<Named>, patients: &[Patient], left_out: &[Patient], problems: &mut Problems) -> Split {
    let (known, left_out) = (Known::new(patients), Known::new(left_out));
    let mut listed = HashSet::new();
    let mut set_of: HashMap<usize, &'static str> = HashMap::new();
    let mut split = Split::default();
    for Named { file, line, set, id } in named {
        let file = file.to_path_buf();
        let patient = match known.find(&id) {
            Match::One(patient) => patient,
            Match::Nothing if left_out.find(&id) != Match::Nothing => continue,
            Match::Nothing => {
                problems.push(Problem::UnknownCase { file, line, set, id });
                continue;
            }
            Match::Several(like) => {
                let like = like.into_iter().map(|p| patients[p].case.clone()).collect();
                problems.push(Problem::Ambiguous { file, id, like });
                continue;
            }
        };
        if !listed.insert((set, id.clone())) {
            problems.push(Problem::CaseTwice { file, line, set, id });
            continue;
        }
        match set_of.insert(patient, set) {
            None => match set {
                "train" => split.train.push(patient),
                "val" => split.validation.push(patient),
                _ => split.test.push(patient),
            },
            // Another slide of the same patient.
            Some(first) if first == set => {}
            Some(first) => problems.push(Problem::CaseInTwoSets { file, line, id, first, second: set }),
        }
    }
    split
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cohort(n: usize) -> Vec<Patient> {
        let patient = |i: usize| Patient {
            case: format!("P{i:03}"),
            time: 1.0 + i as f64,
            event: i.is_multiple_of(3),
            strata: None,
            covariates: Vec::new(),
            slides: vec![format!("P{i:03}-1"), format!("P{i:03}-2")],
        };
        (0..n).map(patient).collect()
    }

    fn read(text: &str, extension: &str) -> Result<Split> {
        let file = tempfile::Builder::new().suffix(extension).tempfile().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Split::read(file.path(), 0, &cohort(6))
    }

    fn problems(text: &str) -> Vec<Problem> {
        match read(text, ".csv") {
            Err(Error::Data(problems)) => problems.0,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_random_split_is_stratified_complete_and_from_its_seed() {
        let patients = cohort(90);
        let split = Split::random(&patients, 0.2, 7).unwrap();
        let events = |set: &[usize]| set.iter().filter(|&&p| patients[p].event).count();
        assert_eq!((split.validation.len(), events(&split.validation)), (18, 6));
        assert_eq!((split.train.len(), events(&split.train)), (72, 24));
        let mut all = [split.train.clone(), split.validation.clone()].concat();
        all.sort_unstable();
        assert_eq!(all, (0..90).collect::<Vec<_>>());
        assert_eq!(split, Split::random(&patients, 0.2, 7).unwrap());
        assert_ne!(split, Split::random(&patients, 0.2, 8).unwrap());
    }

    #[test]
    fn the_order_of_the_patients_does_not_matter() {
        let patients = cohort(40);
        let mut backward = patients.clone();
        backward.reverse();
        let cases = |patients: &[Patient], split: Split| {
            let mut cases: Vec<String> = split.validation.iter().map(|&p| patients[p].case.clone()).collect();
            cases.sort();
            cases
        };
        let (a, b) = (Split::random(&patients, 0.3, 1).unwrap(), Split::random(&backward, 0.3, 1).unwrap());
        assert_eq!(cases(&patients, a), cases(&backward, b));
    }

    #[test]
    fn small_strata_are_on_both_sides_and_bad_fractions_are_refused() {
        let split = Split::random(&cohort(5), 0.1, 0).unwrap();
        assert_eq!(split.validation.len(), 2);
        for fraction in [0.0, 1.0, -0.1, f64::NAN] {
            assert!(matches!(Split::random(&cohort(5), fraction, 0), Err(Error::Setting { .. })));
        }
        assert!(matches!(Split::random(&cohort(1), 0.5, 0), Err(Error::Setting { .. })));
    }

    #[test]
    fn folds_hold_each_patient_once_and_are_of_one_size() {
        let patients = cohort(32);
        let folds = Split::folds(&patients, 5, 3).unwrap();
        let mut held: Vec<usize> = folds.iter().flat_map(|f| f.validation.clone()).collect();
        held.sort_unstable();
        assert_eq!(held, (0..32).collect::<Vec<_>>());
        for fold in &folds {
            assert!((6..=7).contains(&fold.validation.len()));
            assert!((2..=3).contains(&fold.validation.iter().filter(|&&p| patients[p].event).count()));
        }
        assert!(Split::folds(&patients, 1, 3).is_err() && Split::folds(&patients, 17, 3).is_err());
    }

    #[test]
    fn tables_of_cases_and_of_slides_are_read() {
        let split = read(",train,val\n0,P003,P001\n1,P000,\n", ".csv").unwrap();
        assert_eq!((split.train, split.validation, split.test), (vec![0, 3], vec![1], vec![]));
        let split = read("train,val,test\nP000-1.svs,P001-2,P002-1\nP000-2,,\n", ".csv").unwrap();
        assert_eq!((split.train, split.validation, split.test), (vec![0], vec![1], vec![2]));
    }

    /// Reads fold 1 of a file or folder that is made of these files.
    fn fold_1(files: &[(&str, &str)], path: &str) -> Result<Split> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let file = folder.path().join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        }
        Split::read(&folder.path().join(path), 1, &cohort(6))
    }

    fn sets(split: Split) -> [Vec<usize>; 3] {
        [split.train, split.validation, split.test]
    }

    #[test]
    fn the_flags_of_clam_are_read() {
        let text = ",train,val,test\nP000-1,True,False,False\nP000-2,True,False,False\nP001-1,False,True,False\n\
                    P002-1,False,False,True\nP003-1,False,False,False\n";
        assert_eq!(sets(read(text, ".csv").unwrap()), [vec![0], vec![1], vec![2]]);
        let twice = "id,train,val\nP000-1,TRUE,FALSE\nP001-1,FALSE,TRUE\nP002-1,TRUE,TRUE\n,TRUE,FALSE\n";
        let found = problems(twice);
        assert!(
            matches!(found[..], [Problem::Blank { line: 5, .. }, Problem::CaseInTwoSets { line: 4, .. }]),
            "{found:?}"
        );
    }

    #[test]
    fn the_folds_of_patho_bench_are_read_of_the_one_asked_for() {
        let text = "case_id\tslide_id\tOS\tfold_0\tfold_1\nP000\tP000-1\t1\ttest\ttrain\nP000\tP000-2\t1\ttest\ttrain\n\
                    P001\tP001-1\t0\ttrain\ttest\nP002\tP002-1\t0\ttrain\tval\nP003\tP003-1\t0\ttrain\t\n";
        let split = fold_1(&[("k=all.tsv", text)], "k=all.tsv").unwrap();
        assert_eq!(sets(split), [vec![0], vec![2], vec![1]]);
        let none = fold_1(&[("k=all.tsv", "case_id\tfold_0\nP000\ttrain\n")], "k=all.tsv");
        assert!(
            matches!(none, Err(Error::Data(p)) if matches!(&p.0[0], Problem::MissingColumn { column, .. } if column == "fold_1"))
        );
        let strange = fold_1(&[("k=all.tsv", "case_id\tfold_1\nP000\ttrian\n")], "k=all.tsv");
        assert!(matches!(strange, Err(Error::Data(p)) if p.to_string().contains("\"trian\" is no set")));
    }

    #[test]
    fn folders_of_folds_and_of_sets_are_read() {
        let lists =
            [("splits_0.csv", ",train,val\n0,P005,P004\n"), ("splits_1.csv", ",train,val\n0,P000,P001\n1,P002,\n")];
        assert_eq!(sets(fold_1(&lists, "").unwrap()), [vec![0, 2], vec![1], vec![]]);
        let of_sets = [
            ("OS_k=1/train.csv", "case_id,slide_id,os_censorship\nP000,P000-1,0\nP000,P000-2,0\nP002,P002-1,1\n"),
            ("OS_k=1/test.csv", "case_id,slide_id,os_censorship\nP001,P001-1,0\n"),
            ("OS_k=1/test_cptac.csv", "case_id,slide_id,os_censorship\nC3L-1,C3L-1-21,0\n"),
            ("OS_k=0/train.csv", "case_id\nP003\n"),
        ];
        for path in ["", "OS_k=1"] {
            assert_eq!(sets(fold_1(&of_sets, path).unwrap()), [vec![0, 2], vec![], vec![1]]);
        }
        let slides = [("train.csv", "slide_id\nP000-1.svs\n"), ("val.csv", "slide_id\nP001-2.svs\n")];
        assert_eq!(sets(fold_1(&slides, "").unwrap()), [vec![0], vec![1], vec![]]);
        for files in [
            &[("x.csv", "a\n1\n")][..],
            &[("a_k=1/train.csv", "case_id\nP000\n"), ("b_k=1/train.csv", "case_id\nP000\n")],
        ] {
            let refused = fold_1(files, "");
            assert!(
                matches!(&refused, Err(Error::Data(p)) if matches!(p.0[..], [Problem::SplitForm { .. }])),
                "{refused:?}"
            );
        }
    }

    #[test]
    fn the_split_of_a_run_is_read_again() {
        let text = "case_id,set\nP000,train\nP001,validation\nP002,test\nP003,none\n";
        assert_eq!(sets(read(text, ".csv").unwrap()), [vec![0], vec![1], vec![2]]);
    }

    #[test]
    fn barcodes_of_slides_and_samples_find_their_patients() {
        let mut patients = cohort(2);
        for (patient, case) in patients.iter_mut().zip(["TCGA-AA-0001", "TCGA-AA-0002"]) {
            (patient.case, patient.slides) = (case.into(), Vec::new());
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        let slide = "TCGA-AA-0001-01Z-00-DX1.195576CF-B739-4BD9-B15B-4A70AE287D3E.svs";
        std::fs::write(file.path(), format!("train,val\n{slide},TCGA-AA-0002-01A\n")).unwrap();
        assert_eq!(sets(Split::read(file.path(), 0, &patients).unwrap()), [vec![0], vec![1], vec![]]);
        (patients[0].case, patients[1].case) = ("TCGA-AA-0001-01".into(), "TCGA-AA-0001-06".into());
        std::fs::write(file.path(), "train,val\nTCGA-AA-0001-01,TCGA-AA-0001\n").unwrap();
        let found = Split::read(file.path(), 0, &patients);
        assert!(
            matches!(&found, Err(Error::Data(p)) if matches!(&p.0[..], [Problem::Ambiguous { like, .. }] if like.len() == 2))
        );
    }

    #[test]
    fn the_json_of_stamp_is_read_and_its_fold_must_be_there() {
        let text = r#"{"splits":[{"train_patients":["P000","P004"],"test_patients":["P002"]}]}"#;
        let split = read(text, ".json").unwrap();
        assert_eq!((split.train, split.test), (vec![0, 4], vec![2]));
        assert!(matches!(read(r#"{"splits":[]}"#, ".json"), Err(Error::Data(_))));
        assert!(matches!(read("{", ".json"), Err(Error::Data(_))));
    }

    #[test]
    fn unknown_repeated_and_shared_ids_are_all_reported() {
        let found = problems("train,val\nP000,P001\nX,P000\nP000,P002\nP003-1,P003-2\n");
        assert!(
            matches!(&found[..], [
            Problem::UnknownCase { line: 3, set: "train", id, .. },
            Problem::CaseTwice { line: 4, set: "train", .. },
            Problem::CaseInTwoSets { line: 3, first: "train", second: "val", .. },
            Problem::CaseInTwoSets { line: 5, .. },
        ] if id == "X"),
            "{found:?}"
        );
        assert!(matches!(problems("train,test\nP000,P001\n")[..], [Problem::MissingColumn { .. }]));
        assert!(matches!(problems("train,val\nP000,\n")[..], [Problem::EmptySet { set: "val", .. }]));
    }
}
