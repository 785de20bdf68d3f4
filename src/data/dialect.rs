//! How the clinical tables of other tools are written: their columns, what a 1 means, and the unit of time.
//!
//! Everything that a preset knows stands in the one table of this file.

use serde::{Deserialize, Serialize};

/// The unit of times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TimeUnit {
    /// Days.
    Days,
    /// Months, of 30.4375 days where they are converted.
    Months,
    /// Years, of 365.25 days.
    Years,
}

impl TimeUnit {
    /// As it is written in a cohort file.
    pub fn name(self) -> &'static str {
        match self {
            TimeUnit::Days => "days",
            TimeUnit::Months => "months",
            TimeUnit::Years => "years",
        }
    }

    pub(crate) fn days(self) -> f64 {
        match self {
            TimeUnit::Days => 1.0,
            TimeUnit::Months => 365.25 / 12.0,
            TimeUnit::Years => 365.25,
        }
    }
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Endpoint {
    /// Overall survival: death.
    Os,
    /// Disease-specific survival: death of the disease.
    Dss,
    /// Progression-free interval.
    Pfi,
    /// Disease-free interval.
    Dfi,
    /// Progression-free survival: progression or death.
    Pfs,
    /// Disease-free survival: recurrence or death.
    Dfs,
}

impl Endpoint {
    /// As it is written in a cohort file.
    pub fn name(self) -> &'static str {
        match self {
            Endpoint::Os => "os",
            Endpoint::Dss => "dss",
            Endpoint::Pfi => "pfi",
            Endpoint::Dfi => "dfi",
            Endpoint::Pfs => "pfs",
            Endpoint::Dfs => "dfs",
        }
    }
}

/// The tool or the source whose columns a clinical table has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// `tcga_*_all_clean.csv` of MCAT and PORPOISE.
    #[serde(alias = "porpoise")]
    Mcat,
    /// `metadata/tcga_*.csv` of SurvPath.
    Survpath,
    /// `train.csv` and `test.csv` of MMP and PANTHER.
    #[serde(alias = "panther")]
    Mmp,
    /// The resource of clinical data of TCGA.
    TcgaCdr,
    /// The same as Xena gives it, one row a sample.
    Xena,
    /// `data_clinical_patient.txt` of cBioPortal.
    Cbioportal,
    /// A table of STAMP, whose time and status are named by the user.
    Stamp,
    /// `clinical.tsv` of the GDC.
    Gdc,
}

/// What a 1 in the column of outcomes means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum One {
    Event,
    Censored,
}

/// The columns of an endpoint. Of several names the first that the table has counts.
#[derive(Debug)]
pub(crate) struct EndpointColumns {
    pub(crate) endpoint: Endpoint,
    pub(crate) time: &'static [&'static str],
    /// The times of those without an event, where they stand in a column of their own.
    pub(crate) time_censored: &'static [&'static str],
    pub(crate) outcome: &'static [&'static str],
}

/// What is known of a dialect.
#[derive(Debug)]
pub(crate) struct Dialect {
    pub(crate) case: &'static [&'static str],
    /// The column of the slide of a row.
    pub(crate) slides: Option<&'static str>,
    /// Whether a case may have several rows.
    pub(crate) repeats: bool,
    pub(crate) endpoints: &'static [EndpointColumns],
    pub(crate) one: One,
    /// Words for an event and for its absence, in lower case.
    pub(crate) event_words: &'static [&'static str],
    pub(crate) censored_words: &'static [&'static str],
    pub(crate) unit: Option<TimeUnit>,
    /// A column in which the rows to leave out are marked.
    pub(crate) redaction: Option<&'static str>,
    /// What lines above the header start with.
    pub(crate) comment: Option<char>,
    /// The columns of case and slide in a table of slides.
    pub(crate) slide_table: Option<[&'static str; 2]>,
}

const fn endpoint(
    endpoint: Endpoint,
    time: &'static [&'static str],
    outcome: &'static [&'static str],
) -> EndpointColumns {
    EndpointColumns { endpoint, time, time_censored: &[], outcome }
}

const PLAIN: Dialect = Dialect {
    case: &[],
    slides: None,
    repeats: false,
    endpoints: &[],
    one: One::Event,
    event_words: &[],
    censored_words: &[],
    unit: None,
    redaction: None,
    comment: None,
    slide_table: None,
};

static MCAT: Dialect = Dialect {
    case: &["case_id"],
    slides: Some("slide_id"),
    repeats: true,
    endpoints: &[endpoint(Endpoint::Os, &["survival_months"], &["censorship"])],
    one: One::Censored,
    unit: Some(TimeUnit::Months),
    ..PLAIN
};

static SURVPATH: Dialect = Dialect {
    endpoints: &[
        endpoint(Endpoint::Os, &["survival_months"], &["censorship"]),
        endpoint(Endpoint::Dss, &["survival_months_dss"], &["censorship_dss"]),
        endpoint(Endpoint::Pfi, &["survival_months_pfi"], &["censorship_pfi"]),
    ],
    ..MCAT
};

static MMP: Dialect = Dialect {
    endpoints: &[
        endpoint(Endpoint::Os, &["os_survival_days"], &["os_censorship"]),
        endpoint(Endpoint::Dss, &["dss_survival_days"], &["dss_censorship"]),
        endpoint(Endpoint::Pfi, &["pfi_survival_days"], &["pfi_censorship"]),
        endpoint(Endpoint::Dfi, &["dfi_survival_days"], &["dfi_censorship"]),
    ],
    unit: Some(TimeUnit::Days),
    ..MCAT
};

static TCGA_CDR: Dialect = Dialect {
    case: &["bcr_patient_barcode"],
    endpoints: &[
        endpoint(Endpoint::Os, &["OS.time"], &["OS"]),
        endpoint(Endpoint::Dss, &["DSS.time"], &["DSS"]),
        endpoint(Endpoint::Pfi, &["PFI.time"], &["PFI"]),
        endpoint(Endpoint::Dfi, &["DFI.time"], &["DFI"]),
    ],
    unit: Some(TimeUnit::Days),
    redaction: Some("Redaction"),
    ..PLAIN
};

static XENA: Dialect = Dialect { case: &["_PATIENT"], repeats: true, ..TCGA_CDR };

static CBIOPORTAL: Dialect = Dialect {
    case: &["PATIENT_ID", "Patient ID"],
    // Downloads from its pages have a row for each sample, and headers in words.
    repeats: true,
    endpoints: &[
        endpoint(Endpoint::Os, &["OS_MONTHS", "Overall Survival (Months)"], &["OS_STATUS", "Overall Survival Status"]),
        endpoint(
            Endpoint::Dss,
            &["DSS_MONTHS", "Months of disease-specific survival"],
            &["DSS_STATUS", "Disease-specific Survival status"],
        ),
        endpoint(
            Endpoint::Pfs,
            &["PFS_MONTHS", "Progress Free Survival (Months)"],
            &["PFS_STATUS", "Progression Free Status"],
        ),
        endpoint(Endpoint::Dfs, &["DFS_MONTHS", "Disease Free (Months)"], &["DFS_STATUS", "Disease Free Status"]),
    ],
    event_words: &[
        "1:deceased",
        "deceased",
        "1:dead with tumor",
        "dead with tumor",
        "1:progression",
        "progression",
        "1:recurred/progressed",
        "recurred/progressed",
        "1:recurred",
        "recurred",
    ],
    censored_words: &[
        "0:living",
        "living",
        "0:alive or dead tumor free",
        "alive or dead tumor free",
        "0:censored",
        "censored",
        "0:diseasefree",
        "diseasefree",
    ],
    unit: Some(TimeUnit::Months),
    comment: Some('#'),
    ..PLAIN
};

static STAMP: Dialect = Dialect {
    case: &["PATIENT"],
    event_words: &["event", "dead", "deceased", "yes"],
    censored_words: &["alive", "censored", "no"],
    slide_table: Some(["PATIENT", "FILENAME"]),
    ..PLAIN
};

static GDC: Dialect = Dialect {
    case: &["case_submitter_id", "cases.submitter_id", "submitter_id"],
    // A row for each diagnosis and treatment.
    repeats: true,
    endpoints: &[EndpointColumns {
        endpoint: Endpoint::Os,
        time: &["days_to_death", "demographic.days_to_death"],
        time_censored: &["days_to_last_follow_up", "diagnoses.days_to_last_follow_up"],
        outcome: &["vital_status", "demographic.vital_status"],
    }],
    event_words: &["dead"],
    censored_words: &["alive"],
    unit: Some(TimeUnit::Days),
    ..PLAIN
};

impl Preset {
    /// As it is written in a cohort file.
    pub fn name(self) -> &'static str {
        match self {
            Preset::Mcat => "mcat",
            Preset::Survpath => "survpath",
            Preset::Mmp => "mmp",
            Preset::TcgaCdr => "tcga-cdr",
            Preset::Xena => "xena",
            Preset::Cbioportal => "cbioportal",
            Preset::Stamp => "stamp",
            Preset::Gdc => "gdc",
        }
    }

    pub(crate) fn dialect(self) -> &'static Dialect {
        match self {
            Preset::Mcat => &MCAT,
            Preset::Survpath => &SURVPATH,
            Preset::Mmp => &MMP,
            Preset::TcgaCdr => &TCGA_CDR,
            Preset::Xena => &XENA,
            Preset::Cbioportal => &CBIOPORTAL,
            Preset::Stamp => &STAMP,
            Preset::Gdc => &GDC,
        }
    }
}

/// What the tables of these tools write where there is no value, in lower case.
const ABSENT: [&str; 14] = [
    "na",
    "n/a",
    "#n/a",
    "nan",
    "null",
    "'--",
    "--",
    "not reported",
    "unknown",
    "[not available]",
    "[not applicable]",
    "[not evaluated]",
    "[unknown]",
    "[discrepancy]",
];

/// Whether a cell says that there is no value.
pub(crate) fn is_absent(cell: &str) -> bool {
    cell.is_empty() || ABSENT.iter().any(|word| cell.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_cohort_files() {
        #[derive(Deserialize, PartialEq, Debug)]
        struct Names {
            preset: Preset,
            endpoint: Endpoint,
            unit: TimeUnit,
        }
        let presets = ["mcat", "survpath", "mmp", "tcga-cdr", "xena", "cbioportal", "stamp", "gdc"];
        for name in presets {
            let toml = format!("preset = {name:?}\nendpoint = \"dss\"\nunit = \"days\"");
            let read: Names = toml::from_str(&toml).unwrap();
            assert_eq!((read.preset.name(), read.endpoint.name(), read.unit.name()), (name, "dss", "days"));
        }
        for (alias, name) in [("porpoise", "mcat"), ("panther", "mmp")] {
            let toml = format!("preset = {alias:?}\nendpoint = \"pfi\"\nunit = \"years\"");
            assert_eq!(toml::from_str::<Names>(&toml).unwrap().preset.name(), name);
        }
    }

    #[test]
    fn words_are_lower_case_and_mean_one_thing() {
        for preset in [Preset::Cbioportal, Preset::Stamp, Preset::Gdc] {
            let dialect = preset.dialect();
            let words = || dialect.event_words.iter().chain(dialect.censored_words);
            assert!(words().all(|word| *word == word.to_lowercase() && !is_absent(word)));
            assert!(!dialect.event_words.iter().any(|word| dialect.censored_words.contains(word)));
        }
        assert!(ABSENT.iter().all(|word| *word == word.to_lowercase()));
    }
}
