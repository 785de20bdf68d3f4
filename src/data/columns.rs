//! Which columns of a clinical table are read, by the cohort file and the preset it names.

use super::dialect::{Dialect, Endpoint, EndpointColumns, One, Preset, TimeUnit};
use super::file::ClinicalFile;
use super::problem::{Problem, Problems};
use super::table::Table;

/// A column: its place and its name.
type Column = (usize, String);

/// The columns that are read. Those that are not there were reported.
pub(super) struct Columns {
    pub(super) case: Option<Column>,
    pub(super) time: Option<Column>,
    pub(super) time_censored: Option<Column>,
    pub(super) outcome: Option<Column>,
    pub(super) flag: Flag,
    pub(super) slides: Option<Column>,
    /// In the order of the cohort file.
    pub(super) covariates: Vec<Option<Column>>,
    pub(super) strata: Option<Column>,
    pub(super) redaction: Option<Column>,
    /// Whether a case may have several rows.
    pub(super) repeats: bool,
    pub(super) endpoint: Option<Endpoint>,
    /// The unit after conversion, and what times are multiplied with.
    pub(super) unit: Option<TimeUnit>,
    pub(super) factor: f64,
}

/// How a cell says whether there was an event.
pub(super) struct Flag {
    one: One,
    /// In lower case.
    event: Vec<String>,
    censored: Vec<String>,
}

impl Flag {
    pub(super) fn read(&self, text: &str) -> Option<bool> {
        let lower = text.to_lowercase();
        if self.event.contains(&lower) {
            return Some(true);
        }
        if self.censored.contains(&lower) {
            return Some(false);
        }
        let one = match text.parse::<f64>() {
            Ok(0.0) => false,
            Ok(1.0) => true,
            _ => return None,
        };
        Some(one == (self.one == One::Event))
    }

    /// What a cell must be, for a sentence.
    pub(super) fn want(&self) -> String {
        if self.event.is_empty() {
            return "0 or 1; write the column with 0 and 1, or say what its words mean with event_values and \
                    censored_values in [clinical]"
                .into();
        }
        let words = |words: &[String]| words.join(", ");
        format!("0 or 1, one of {} for an event, or one of {} for none", words(&self.event), words(&self.censored))
    }
}

impl Columns {
    pub(super) fn find(table: &Table, section: &ClinicalFile, problems: &mut Problems) -> Columns {
        let dialect = section.preset.map(Preset::dialect);
        let has = |name: &str| table.header.iter().any(|h| h == name);
        let named = |name: &str, problems: &mut Problems| Some((table.column(name, problems)?, name.to_owned()));
        let one_of = |names: &[&str], problems: &mut Problems| {
            let name = names.iter().find(|name| has(name)).or(names.first())?;
            named(name, problems)
        };
        let case = match (&section.case, dialect) {
            (Some(case), _) => named(case, problems),
            (None, Some(dialect)) => one_of(dialect.case, problems),
            // Refused when the cohort file was read.
            (None, None) => None,
        };
        let own = section.time.is_some() || section.event.is_some() || section.censored.is_some();
        let mut columns = Columns {
            case,
            time: None,
            time_censored: None,
            outcome: None,
            flag: Flag::of(section, dialect),
            slides: None,
            covariates: Vec::new(),
            strata: None,
            redaction: None,
            repeats: section.repeats.unwrap_or(dialect.is_some_and(|d| d.repeats)),
            endpoint: None,
            unit: None,
            factor: 1.0,
        };
        match dialect.filter(|dialect| !own && !dialect.endpoints.is_empty()) {
            Some(dialect) => {
                let endpoint = section.endpoint.unwrap_or(Endpoint::Os);
                columns.endpoint = Some(endpoint);
                if let Some(found) = endpoint_columns(table, dialect, endpoint, problems) {
                    columns.time = one_of(found.time, problems);
                    columns.time_censored = one_of(found.time_censored, problems);
                    columns.outcome = one_of(found.outcome, problems);
                }
            }
            None => {
                let mut find = |name: &Option<String>| name.as_ref().and_then(|name| named(name, problems));
                columns.time = find(&section.time);
                columns.time_censored = find(&section.time_censored);
                columns.outcome = find(section.event.as_ref().map_or(&section.censored, |_| &section.event));
            }
        }
        let unit = section.time_unit.or_else(|| dialect.and_then(|d| d.unit).filter(|_| !own));
        columns.unit = section.convert_to.or(unit);
        if let Some((from, to)) = unit.zip(columns.unit).filter(|(from, to)| from != to) {
            columns.factor = from.days() / to.days();
        }
        // A table of the right form may lack the slides or the marks that its preset knows, but not what was asked for.
        let known = |name: Option<&'static str>| name.filter(|name| has(name)).map(str::to_owned);
        let slides = section.slides.clone().or_else(|| known(dialect.and_then(|d| d.slides)));
        columns.slides = slides.and_then(|name| named(&name, problems));
        columns.strata = section.strata.as_ref().and_then(|name| named(name, problems));
        columns.covariates = section.covariates.iter().map(|name| named(name, problems)).collect();
        let redaction = section.redaction.clone().or_else(|| known(dialect.and_then(|d| d.redaction)));
        columns.redaction = redaction.and_then(|name| named(&name, problems));
        columns
    }

    pub(super) fn case_name(&self) -> String {
        name(&self.case)
    }

    pub(super) fn time_name(&self) -> String {
        name(&self.time)
    }
}

fn name(column: &Option<Column>) -> String {
    column.as_ref().map_or_else(String::new, |(_, name)| name.clone())
}

/// The columns of an endpoint, or what the table has in their place.
fn endpoint_columns(
    table: &Table,
    dialect: &Dialect,
    endpoint: Endpoint,
    problems: &mut Problems,
) -> Option<&'static EndpointColumns> {
    let has_one = |names: &[&str]| names.iter().any(|name| table.header.iter().any(|h| h == name));
    let there = |columns: &&EndpointColumns| {
        has_one(columns.time)
            && has_one(columns.outcome)
            && (columns.time_censored.is_empty() || has_one(columns.time_censored))
    };
    let found = dialect.endpoints.iter().find(|columns| columns.endpoint == endpoint);
    if let Some(columns) = found.filter(there) {
        return Some(columns);
    }
    let names = |columns: &EndpointColumns| {
        let first = [columns.time, columns.time_censored, columns.outcome].map(|names| names.first());
        first.into_iter().flatten().map(|name| (*name).to_owned()).collect()
    };
    problems.push(Problem::NoEndpoint {
        file: table.file.clone(),
        endpoint: endpoint.name(),
        want: found.map_or_else(Vec::new, names),
        has: dialect.endpoints.iter().filter(there).map(|c| c.endpoint.name().to_owned()).collect(),
    });
    None
}

impl Flag {
    fn of(section: &ClinicalFile, dialect: Option<&Dialect>) -> Flag {
        let own = |words: &[String]| words.iter().map(|word| word.to_lowercase()).collect();
        let known = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let one = if section.censored.is_some() {
            One::Censored
        } else if section.event.is_some() {
            One::Event
        } else {
            dialect.map_or(One::Event, |d| d.one)
        };
        // The words of a preset say what happened, so they mean nothing in a column of censoring.
        let dialect = dialect.filter(|_| section.censored.is_none());
        if section.event_values.is_empty() {
            Flag {
                one,
                event: dialect.map_or_else(Vec::new, |d| known(d.event_words)),
                censored: dialect.map_or_else(Vec::new, |d| known(d.censored_words)),
            }
        } else {
            Flag { one, event: own(&section.event_values), censored: own(&section.censored_values) }
        }
    }
}
