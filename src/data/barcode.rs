//! Ids of one patient that are written at different lengths: barcodes of TCGA.
//!
//! `TCGA-BR-A44T` is a patient, `TCGA-BR-A44T-01` a sample, `TCGA-BR-A44T-01A-11R-A24H-31` an analyte and
//! `TCGA-BR-A44T-01Z-00-DX1.5B8…` a slide with a UUID. Only ids that look like these match by their beginning; all others
//! match as they are or not at all.

use std::collections::HashMap;

/// The lengths of patient and sample (`TCGA-BR-A44T`, `TCGA-BR-A44T-01`); a letter may follow, the vial.
const PATIENT: usize = 12;
const SAMPLE: usize = 15;
const UUID: [usize; 5] = [8, 4, 4, 4, 12];

/// The name of a slide without its suffix `.svs`, which is taken off once and as a whole.
pub(crate) fn slide_name(name: &str) -> &str {
    name.strip_suffix(".svs").unwrap_or(name)
}

/// A barcode without `.svs` and without the UUID; `None` if the id is no barcode of TCGA.
fn barcode(id: &str) -> Option<&str> {
    let id = slide_name(id);
    let is_uuid = |text: &str| {
        let lengths = text.split('-').map(str::len);
        lengths.eq(UUID) && text.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit())
    };
    let id = id.split_once('.').filter(|(_, uuid)| is_uuid(uuid)).map_or(id, |(barcode, _)| barcode);
    let letters = |range: std::ops::Range<usize>| {
        id.as_bytes().get(range).is_some_and(|part| part.iter().all(u8::is_ascii_alphanumeric))
    };
    let plain = id.bytes().all(|b| b == b'-' || b.is_ascii_alphanumeric());
    let ends = id.len() == PATIENT || id.as_bytes().get(PATIENT) == Some(&b'-');
    (plain && ends && id.starts_with("TCGA-") && letters(5..7) && id.as_bytes()[7] == b'-' && letters(8..12))
        .then_some(id)
}

/// The type of the sample of a barcode (`01` a primary tumour, `11` normal tissue), if it goes that far.
pub(crate) fn sample_type(id: &str) -> Option<&str> {
    barcode(id)?.get(PATIENT + 1..SAMPLE)
}

/// Whether the shorter of two barcodes is the beginning of the other, ending where a part of it ends.
fn is_beginning(a: &str, b: &str) -> bool {
    let (short, long) = if a.len() <= b.len() { (a, b) } else { (b, a) };
    let next = long.as_bytes().get(short.len());
    long.starts_with(short) && (short.len() == SAMPLE || next.is_none_or(|&b| b == b'-'))
}

/// What an id stands for among others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Match {
    /// Nothing.
    Nothing,
    /// The one of this index.
    One(usize),
    /// Any of these.
    Several(Vec<usize>),
}

/// Ids to be found again by others of the same patient.
pub(crate) struct Ids<'a> {
    exact: HashMap<&'a str, usize>,
    /// By patient: barcodes and their indices.
    barcodes: HashMap<&'a str, Vec<(&'a str, usize)>>,
}

impl<'a> Ids<'a> {
    /// Ids by their index; of an id that occurs twice the first counts.
    pub(crate) fn new(ids: impl IntoIterator<Item = &'a str>) -> Ids<'a> {
        let (mut exact, mut barcodes) = (HashMap::new(), HashMap::<_, Vec<_>>::new());
        for (index, id) in ids.into_iter().enumerate() {
            if exact.contains_key(id) {
                continue;
            }
            exact.insert(id, index);
            if let Some(code) = barcode(id) {
                barcodes.entry(&code[..PATIENT]).or_default().push((code, index));
            }
        }
        Ids { exact, barcodes }
    }

    /// Those that are the id itself, or continue it: the slides of a patient, of a sample or of a slide without UUID.
    pub(crate) fn below(&self, id: &str) -> Vec<usize> {
        if let Some(&index) = self.exact.get(id) {
            return vec![index];
        }
        let Some(code) = barcode(id) else { return Vec::new() };
        // Slides come from another vial than analytes.
        let code = if code.len() == SAMPLE + 1 { &code[..SAMPLE] } else { code };
        let of_patient = self.barcodes.get(&code[..PATIENT]).map_or(&[][..], Vec::as_slice);
        let below = of_patient.iter().filter(|(other, _)| other.len() >= code.len() && is_beginning(code, other));
        below.map(|&(_, index)| index).collect()
    }

    /// The id itself if it is there; else the barcodes of which it is the beginning, or which are its; else those of
    /// the same sample, as slides and analytes come from different vials of it.
    pub(crate) fn find(&self, id: &str) -> Match {
        if let Some(&index) = self.exact.get(id) {
            return Match::One(index);
        }
        let found = barcode(id).map_or_else(Vec::new, |code| {
            let of_patient = self.barcodes.get(&code[..PATIENT]).map_or(&[][..], Vec::as_slice);
            let those = |fits: &dyn Fn(&str) -> bool| {
                let fitting = of_patient.iter().filter(|(other, _)| fits(other)).map(|&(_, index)| index);
                fitting.collect::<Vec<usize>>()
            };
            let found = those(&|other| is_beginning(code, other));
            let sample = code.get(..SAMPLE);
            if found.is_empty() { those(&|other| sample.is_some() && other.get(..SAMPLE) == sample) } else { found }
        });
        match found[..] {
            [] => Match::Nothing,
            [one] => Match::One(one),
            _ => Match::Several(found),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLIDE: &str = "TCGA-BR-A44T-01Z-00-DX1.195576CF-B739-4BD9-B15B-4A70AE287D3E";

    fn find(ids: &[&str], id: &str) -> Match {
        Ids::new(ids.iter().copied()).find(id)
    }

    #[test]
    fn barcodes_of_any_length_find_each_other() {
        let lengths = ["TCGA-BR-A44T", "TCGA-BR-A44T-01", "TCGA-BR-A44T-01A", "TCGA-BR-A44T-01A-11R-A24H-31", SLIDE];
        for a in lengths {
            for b in lengths {
                for suffix in ["", ".svs"] {
                    assert_eq!(find(&["TCGA-BR-A44U", a], &format!("{b}{suffix}")), Match::One(1), "{a} {b}{suffix}");
                }
            }
        }
    }

    #[test]
    fn a_beginning_ends_where_a_part_ends() {
        assert_eq!(find(&["TCGA-BR-A44T-01Z-00-DX10"], "TCGA-BR-A44T-01Z-00-DX1"), Match::One(0), "the same sample");
        assert_eq!(
            find(&["TCGA-BR-A44T-01Z-00-DX10", "TCGA-BR-A44T-01Z-00-DX1"], "TCGA-BR-A44T-01Z-00-DX1.svs"),
            Match::One(1)
        );
        assert!(!is_beginning("TCGA-BR-A44T-01Z-00-DX1", "TCGA-BR-A44T-01Z-00-DX10"));
        assert!(is_beginning("TCGA-BR-A44T-01A", "TCGA-BR-A44T-01"));
    }

    #[test]
    fn other_samples_of_the_patient_do_not_match_a_sample_and_are_several_for_the_patient() {
        let samples = ["TCGA-BR-A44T-01A", "TCGA-BR-A44T-11A"];
        assert_eq!(find(&samples, "TCGA-BR-A44T-06A"), Match::Nothing);
        assert_eq!(find(&samples, "TCGA-BR-A44T"), Match::Several(vec![0, 1]));
        assert_eq!(find(&samples, "TCGA-BR-A44T-11"), Match::One(1));
        assert_eq!(sample_type(samples[1]), Some("11"));
        assert_eq!((sample_type("TCGA-BR-A44T"), sample_type("P-0001-01-11")), (None, None));
    }

    #[test]
    fn slides_are_below_their_patient_their_sample_and_their_name_without_uuid() {
        let slides = [SLIDE, "TCGA-BR-A44T-01Z-00-DX2", "TCGA-BR-A44T-11Z-00-DX1", "TCGA-BR-A44U-01Z-00-DX1"];
        let below = |id| Ids::new(slides).below(id);
        assert_eq!(below("TCGA-BR-A44T"), [0, 1, 2]);
        assert_eq!((below("TCGA-BR-A44T-01"), below("TCGA-BR-A44T-01A")), (vec![0, 1], vec![0, 1]));
        assert_eq!((below("TCGA-BR-A44T-01Z-00-DX1.svs"), below(slides[1])), (vec![0], vec![1]));
        assert_eq!(below("TCGA-BR-A44T-01Z-00-DX3"), [0usize; 0]);
        let with_uuid = "TCGA-BR-A44T-01Z-00-DX2.195576CF-B739-4BD9-B15B-4A70AE287D3E";
        assert_eq!(below(with_uuid), [1]);
        assert_eq!(Ids::new(["TCGA-BR-A44T"]).below(SLIDE), [0usize; 0], "a file of the patient is no slide");
    }

    #[test]
    fn what_is_no_barcode_matches_as_it_is_alone() {
        for (a, b) in [
            ("P1", "P1-01"),
            ("TCGA-BR-A44", "TCGA-BR-A44-01"),
            ("TCGA-BR-A44TX", "TCGA-BR-A44T"),
            ("tcga-br-a44t", "tcga-br-a44t-01"),
            ("TCGA_BR_A44T", "TCGA_BR_A44T_01"),
            ("TCGA-BR-A44T.x", "TCGA-BR-A44T"),
            ("TCGA-BÄ-A44T-01", "TCGA-BÄ-A44T"),
        ] {
            assert_eq!(find(&[a], b), Match::Nothing, "{a} {b}");
            assert_eq!(find(&[b], a), Match::Nothing, "{b} {a}");
            assert_eq!(find(&[a], a), Match::One(0), "{a}");
        }
    }

    #[test]
    fn only_the_suffix_is_taken_off_and_only_once() {
        assert_eq!(slide_name("visvs.svs"), "visvs");
        assert_eq!(slide_name("a.svs.svs"), "a.svs");
        assert_eq!(slide_name("a.sv"), "a.sv");
    }
}
