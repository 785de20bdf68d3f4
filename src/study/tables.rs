//! `study.csv`: one line for each source, cohort that was judged on, host and plug-in.

use std::path::Path;

use super::compare::Comparison;
use super::results::{Results, Row};
use crate::data::write_file;
use crate::error::Result;

const HEADER: [&str; 24] = [
    "source",
    "target",
    "domain",
    "host",
    "plugin",
    "patients",
    "events",
    "seeds",
    "concordance",
    "concordance_sd",
    "concordance_lower",
    "concordance_upper",
    "high_patients",
    "low_patients",
    "high_events",
    "low_events",
    "log_rank_p",
    "difference",
    "difference_lower",
    "difference_upper",
    "difference_p",
    "difference_p_holm",
    "mode",
    "undefined",
];

/// Writes the table. A cell without a value is empty, and `undefined` says why.
pub(super) fn write_csv(path: &Path, results: &Results) -> Result<()> {
    write_file(path, |out| {
        let mut table = csv::Writer::from_writer(out);
        table.write_record(HEADER)?;
        for row in &results.rows {
            table.write_record(cells(row, beside(row, results), results.settings.mode.name()))?;
        }
        table.flush()
    })
}

/// The comparison of a row with none, if it is one.
pub(super) fn beside<'a>(row: &Row, results: &'a Results) -> Option<&'a Comparison> {
    results.comparisons.iter().find(|c| {
        c.host == row.host
            && c.plugin == row.plugin
            && c.source.as_ref() == Some(&row.source)
            && c.target.as_ref() == Some(&row.target)
    })
}

fn cells(row: &Row, comparison: Option<&Comparison>, mode: &str) -> Vec<String> {
    let number = |x: Option<f64>| x.map_or(String::new(), |x| x.to_string());
    let c = row.concordance.value();
    let difference = comparison.and_then(|c| c.difference.value());
    let groups = &row.groups;
    let undefined = match &row.concordance {
        crate::evaluate::Figure::Undefined { undefined } => undefined.clone(),
        crate::evaluate::Figure::Value(_) => String::new(),
    };
    vec![
        row.source.clone(),
        row.target.clone(),
        row.domain.name().into(),
        row.host.clone(),
        row.plugin.name().into(),
        row.patients.to_string(),
        row.events.to_string(),
        row.seeds.len().to_string(),
        number(c.map(|c| c.mean)),
        number(c.and_then(|c| c.deviation)),
        number(c.map(|c| c.lower)),
        number(c.map(|c| c.upper)),
        groups.patients[0].to_string(),
        groups.patients[1].to_string(),
        groups.events[0].to_string(),
        groups.events[1].to_string(),
        number(groups.log_rank.value().map(|test| test.p)),
        number(difference.map(|d| d.mean)),
        number(difference.map(|d| d.lower)),
        number(difference.map(|d| d.upper)),
        number(difference.map(|d| d.p)),
        number(difference.map(|d| d.p_holm)),
        mode.into(),
        undefined,
    ]
}
