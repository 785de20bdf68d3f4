//! Which slides are meant.

use std::collections::BTreeSet;
use std::path::Path;

use crate::data::{Cohort, Ids, Match, Problem, Problems, slide_name};
use crate::error::{Error, Result};

/// A slide of a cohort.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Chosen {
    /// The patient, as an index into those of the cohort.
    pub patient: usize,
    /// The slide, as an index into those of the patient.
    pub slide: usize,
}

/// Names that are looked for among those that are there, at most: each costs a comparison with every one.
const SOUGHT: usize = 20;
/// How many names are offered for one that is not there.
const OFFERED: usize = 3;

/// The slides of these names and those of these cases, each once, in the order of the cohort. Barcodes of TCGA match at any
/// length, but a slide is meant by one that stands for it alone.
///
/// # Errors
/// [`Error::NoAttention`] for a cohort without slides; [`Error::Data`] with all names that are not there and what is like them,
/// and all that stand for several slides. `file` is that of the cohort.
pub fn choose(cohort: &Cohort, file: &Path, slides: &[String], cases: &[String]) -> Result<Vec<Chosen>> {
    let Some(bags) = &cohort.slides else {
        let (who, advice) = (format!("cohort {}", cohort.name), "add [slides] to its cohort file");
        return Err(Error::NoAttention { who, advice });
    };
    let all: Vec<(String, Chosen)> = (0..cohort.len())
        .flat_map(|patient| {
            let named = bags.slides(patient).into_iter().enumerate();
            named.map(move |(slide, of)| (of.name().to_owned(), Chosen { patient, slide })).collect::<Vec<_>>()
        })
        .collect();
    let names: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
    let of_cohort: Vec<&str> = cohort.patients.iter().map(|patient| patient.case.as_str()).collect();
    let (slide_ids, case_ids) = (Ids::new(names.iter().copied()), Ids::new(of_cohort.iter().copied()));
    let (mut chosen, mut problems) = (BTreeSet::new(), Problems::default());
    let ambiguous = |id: &str, like: Vec<String>| Problem::Ambiguous { file: file.into(), id: id.into(), like };
    let mut unknown = [Vec::new(), Vec::new()];
    for id in slides {
        match slide_ids.below(slide_name(id))[..] {
            [] => unknown[0].push(id.as_str()),
            [one] => {
                chosen.insert(all[one].1);
            }
            ref several => problems.push(ambiguous(id, several.iter().map(|&i| all[i].0.clone()).collect())),
        }
    }
    for id in cases {
        match case_ids.find(id) {
            Match::Nothing => unknown[1].push(id.as_str()),
            Match::One(patient) if bags.slides(patient).is_empty() => {
                problems.push(Problem::NoSlides { file: file.into(), case: of_cohort[patient].into() });
            }
            Match::One(patient) => {
                chosen.extend((0..bags.slides(patient).len()).map(|slide| Chosen { patient, slide }));
            }
            Match::Several(several) => {
                problems.push(ambiguous(id, several.iter().map(|&p| of_cohort[p].into()).collect()));
            }
        }
    }
    for (what, unknown, there) in [("slide", &unknown[0], &names), ("case", &unknown[1], &of_cohort)] {
        if !unknown.is_empty() {
            let told = unknown.iter().enumerate().map(|(i, id)| {
                let near = if i < SOUGHT { nearest(id, there) } else { Vec::new() };
                let near: Vec<String> = near.iter().map(|name| format!("{name:?}")).collect();
                if near.is_empty() { format!("{id:?}") } else { format!("{id:?} (there is {})", near.join(", ")) }
            });
            problems.push(Problem::NotInCohort { file: file.into(), what, names: told.collect() });
        }
    }
    problems.or(chosen.into_iter().collect())
}

/// The names that differ least from one that is not there, and in less than a third of it.
fn nearest<'a>(id: &str, names: &[&'a str]) -> Vec<&'a str> {
    let mut near: Vec<(usize, &str)> = names.iter().map(|name| (distance(id, name), *name)).collect();
    near.retain(|(distance, _)| 3 * distance < id.chars().count().max(4));
    near.sort_unstable();
    near.dedup();
    near.into_iter().take(OFFERED).map(|(_, name)| name).collect()
}

/// How many letters must be put in, taken out or changed, of the first letters of two names.
fn distance(a: &str, b: &str) -> usize {
    const LETTERS: usize = 100;
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(LETTERS).collect(), b.chars().take(LETTERS).collect());
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            row.push((last[j] + usize::from(x != y)).min(last[j + 1] + 1).min(row[j] + 1));
        }
        last = row;
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_those_of_the_textbook() {
        for (a, b, want) in [("kitten", "sitting", 3), ("", "abc", 3), ("flaw", "lawn", 2), ("same", "same", 0)] {
            assert_eq!((distance(a, b), distance(b, a)), (want, want), "{a} {b}");
        }
    }

    #[test]
    fn the_nearest_names_are_offered_and_none_that_is_quite_different() {
        assert_eq!(
            nearest("NORTH-001", &["SOUTH-0007", "NORTH-0010", "x", "NORTH-0001"]),
            ["NORTH-0001", "NORTH-0010"]
        );
        assert!(nearest("brain", &["NORTH-0001"]).is_empty());
    }
}
