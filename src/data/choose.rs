//! Which slides a patient has: by the clinical table, by a table of slides or by the names of files, and which of them
//! are used.

use std::path::Path;

use super::bags::Bags;
use super::barcode::{Ids, Match, sample_type, slide_name};
use super::clinical::{Clinical, Patient};
use super::dialect::Preset;
use super::file::{ClinicalFile, MissingSlides, PerPatient, SlideTable, SlidesFile};
use super::problem::{Problem, Problems};
use super::slides;
use super::table::Table;

/// Gives patients the slides that a table of slides names.
pub(super) fn read_table(
    file: &Path,
    section: &SlideTable,
    clinical_file: &ClinicalFile,
    clinical: &mut Clinical,
    problems: &mut Problems,
) {
    let Some(table) = Table::read(file, false, problems) else { return };
    let known = clinical_file.preset.and_then(|preset: Preset| preset.dialect().slide_table);
    let name = |own: &Option<String>, place: usize| own.clone().or_else(|| known.map(|known| known[place].to_owned()));
    // That both are said was checked when the cohort file was read.
    let (Some(case), Some(slide)) = (name(&section.case, 0), name(&section.slide, 1)) else { return };
    let (case, slide) = (table.column(&case, problems), table.column(&slide, problems));
    let (Some(case), Some(slide)) = (case, slide) else { return };
    let mut found: Vec<(usize, &str)> = Vec::new();
    let ids = Ids::new(clinical.patients.iter().map(|patient| patient.case.as_str()));
    for row in table.rows.iter().filter(|row| !row.cell(slide).is_empty()) {
        let id = row.cell(case);
        match ids.find(id) {
            Match::One(patient) => found.push((patient, row.cell(slide))),
            // A table of slides may be of more patients than the cohort.
            Match::Nothing => {}
            Match::Several(patients) => {
                let like = patients.iter().map(|&p| clinical.patients[p].case.clone()).collect();
                problems.push(Problem::Ambiguous { file: file.into(), id: id.into(), like });
            }
        }
    }
    for (patient, slide) in found {
        let slide = slide_name(slide.strip_suffix(".h5").unwrap_or(slide));
        let slides = &mut clinical.patients[patient].slides;
        if !slides.iter().any(|known| known == slide) {
            slides.push(slide.to_owned());
        }
    }
    clinical.refuse_shared_slides(file, problems);
}

/// Names the slides of each patient as they are called in a folder or a store, and keeps the first where that is asked for.
///
/// Slides that are not there keep their names, to be reported.
pub(super) fn by_names(dir: &Path, section: &SlidesFile, clinical: &mut Clinical, problems: &mut Problems) {
    let stems = slides::names_in(dir, section.store.is_some());
    let ids = Ids::new(stems.iter().map(String::as_str));
    let has = |name: &str| stems.binary_search_by(|stem| stem.as_str().cmp(name)).is_ok();
    for patient in &mut clinical.patients {
        if patient.slides.is_empty() {
            if !has(&patient.case) {
                patient.slides = ids.below(&patient.case).iter().map(|&index| stems[index].clone()).collect();
                sort(&mut patient.slides);
            }
        } else {
            let mut slides: Vec<String> = Vec::new();
            for slide in std::mem::take(&mut patient.slides) {
                let found = ids.below(&slide);
                if found.len() > 1 {
                    let like = found.iter().map(|&index| stems[index].clone()).collect();
                    problems.push(Problem::Ambiguous { file: dir.into(), id: slide.clone(), like });
                }
                let slide = if let [one] = found[..] { stems[one].clone() } else { slide };
                if !slides.contains(&slide) {
                    slides.push(slide);
                }
            }
            patient.slides = slides;
        }
        if section.per_patient == PerPatient::First && patient.slides.len() > 1 {
            keep_first(patient, section.missing == MissingSlides::Drop, &has);
        }
    }
    clinical.refuse_shared_slides(dir, problems);
}

/// Keeps the first slide by name; where slides may be missing, the first that is there.
fn keep_first(patient: &mut Patient, may_miss: bool, has: &impl Fn(&str) -> bool) {
    sort(&mut patient.slides);
    let there = patient.slides.iter().position(|slide| has(slide)).filter(|_| may_miss);
    patient.slides = vec![patient.slides.swap_remove(there.unwrap_or(0))];
}

/// Keeps the longest bag of each patient.
pub(super) fn keep_largest(bags: &mut Bags, clinical: &mut Clinical) {
    let mut pieces = bags.pieces.clone();
    for (pieces, patient) in pieces.iter_mut().zip(&mut clinical.patients).filter(|(pieces, _)| pieces.len() > 1) {
        pieces.sort_by_cached_key(|piece| (std::cmp::Reverse(piece.rows), key(&piece.name)));
        pieces.truncate(1);
        patient.slides = vec![pieces[0].name.clone()];
    }
    *bags = Bags::new(bags.width, bags.dtype, pieces);
}

fn sort(slides: &mut [String]) {
    slides.sort_by_cached_key(|slide| key(slide));
}

/// What slides are sorted by: diagnostic slides of TCGA before the others, then names with their numbers by size.
fn key(name: &str) -> (bool, String) {
    let mut out = String::new();
    let mut rest = name;
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        let end = rest[start..].find(|c: char| !c.is_ascii_digit()).map_or(rest.len(), |end| start + end);
        let digits = rest[start..end].trim_start_matches('0');
        out += &format!("{}{:04}{digits}", &rest[..start], digits.len());
        rest = &rest[end..];
    }
    (sample_type(name).is_some() && !name.contains("-DX"), out + rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn diagnostic_slides_come_first_and_numbers_go_by_their_size() {
        let mut slides = ["DX10", "DX2", "DX1"].map(|dx| format!("TCGA-AA-0001-01Z-00-{dx}")).to_vec();
        slides.push("TCGA-AA-0001-01A-01-TS1".into());
        sort(&mut slides);
        let ends: Vec<&str> = slides.iter().map(|slide| slide.rsplit_once('-').unwrap().1).collect();
        assert_eq!(ends, ["DX1", "DX2", "DX10", "TS1"]);
        let mut slides = ["s12", "s2", "s02b", "a"].map(String::from);
        sort(&mut slides);
        assert_eq!(slides, ["a", "s2", "s02b", "s12"]);
    }
}
