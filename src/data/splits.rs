//! Which patients a model is trained on, and which it is judged by.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::clinical::Patient;
use super::problem::{Problem, Problems};
use super::table::{Table, read_text};
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

    /// Reads a split from a file: a table with columns `train`, `val` and maybe `test` (CLAM, SurvPath), or the JSON
    /// of STAMP, of which `fold` is taken and whose test patients are those of `test`.
    ///
    /// Cells are case ids, or names of slides where the cohort has them. Patients that the file does not name are in
    /// no set.
    ///
    /// # Errors
    /// [`Error::Data`] with every id that is unknown, twice in a set or in two sets.
    pub fn read(path: &Path, fold: usize, patients: &[Patient]) -> Result<Split> {
        let mut problems = Problems::default();
        let is_json = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("json"));
        let named = if is_json { from_json(path, fold, &mut problems) } else { from_table(path, &mut problems) };
        let split = resolve(path, named.unwrap_or_default(), patients, &mut problems);
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

/// An id of a split: where it stands and in which set.
struct Named {
    line: usize,
    set: &'static str,
    id: String,
}

fn from_table(path: &Path, problems: &mut Problems) -> Option<Vec<Named>> {
    let table = Table::read(path, true, problems)?;
    let mut columns = Vec::new();
    for set in ["train", "val", "test"] {
        if set != "test" || table.header.iter().any(|h| h == set) {
            columns.push((set, table.column(set, problems)?));
        }
    }
    let mut named = Vec::new();
    for (set, column) in columns {
        for row in table.rows.iter().filter(|row| !row.cell(column).is_empty()) {
            named.push(Named { line: row.line, set, id: row.cell(column).into() });
        }
    }
    Some(named)
}

#[derive(Deserialize)]
struct Stamp {
    splits: Vec<StampSplit>,
}

#[derive(Deserialize)]
struct StampSplit {
    train_patients: Vec<String>,
    test_patients: Vec<String>,
}

fn from_json(path: &Path, fold: usize, problems: &mut Problems) -> Option<Vec<Named>> {
    let text = read_text(path, problems)?;
    let mut wrong = |line, why| {
        problems.push(Problem::Config { file: path.into(), line, why });
        None
    };
    let stamp: Stamp = match serde_json::from_str(&text) {
        Ok(stamp) => stamp,
        Err(e) => return wrong(e.line(), e.to_string()),
    };
    let Some(split) = stamp.splits.get(fold) else {
        return wrong(1, format!("fold {fold} is asked for, but there are {} splits", stamp.splits.len()));
    };
    // Where in the text an id stands is not known, nor does it matter: a list is searched by the id.
    let named = |set, ids: &[String]| ids.iter().map(|id| Named { line: 1, set, id: id.clone() }).collect::<Vec<_>>();
    Some(named("train", &split.train_patients).into_iter().chain(named("test", &split.test_patients)).collect())
}

/// Finds the patients that ids stand for.
fn resolve(path: &Path, named: Vec<Named>, patients: &[Patient], problems: &mut Problems) -> Split {
    let mut known: HashMap<&str, usize> = HashMap::new();
    for (index, patient) in patients.iter().enumerate() {
        known.extend(patient.slides.iter().map(|slide| (slide.as_str(), index)));
    }
    known.extend(patients.iter().enumerate().map(|(index, patient)| (patient.case.as_str(), index)));
    let mut listed = HashSet::new();
    let mut set_of: HashMap<usize, &'static str> = HashMap::new();
    let mut split = Split::default();
    for Named { line, set, id } in named {
        let file = path.to_path_buf();
        let Some(&patient) = known.get(id.strip_suffix(".svs").unwrap_or(&id)) else {
            problems.push(Problem::UnknownCase { file, line, set, id });
            continue;
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
