//! `onkos study`.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::progress::Cells;
use super::{Global, Outcome, from_one, print_json, table};
use crate::device::Device;
use crate::error::Result;
use crate::evaluate::Figure;
use crate::study::{CSV, Comparison, Domain, Finished, JSON, Plan, REPORT, Rank, Row, Running};

/// Train hosts with plug-ins on sources, judge them on other cohorts, and report.
#[derive(Clone, Debug, Args)]
pub(super) struct Study {
    /// The study file
    #[arg(value_name = "STUDY.toml")]
    file: PathBuf,
    /// The folder of the results: made, or gone on with [default: `out` of the study file, or STUDY-results beside it]
    #[arg(long)]
    out: Option<PathBuf>,
    /// Trainings at a time, among which the threads are divided; on cards one each, from --device on. Results do not depend on it
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = from_one)]
    jobs: usize,
    /// Only tell what is wrong, or what there is to do; nothing is trained or written
    #[arg(long)]
    check: bool,
}

/// What a study is summed up by.
#[derive(Debug, Serialize)]
struct Summary<'a> {
    out: PathBuf,
    report: PathBuf,
    trainings: usize,
    trained: usize,
    rows: &'a [Row],
    comparisons: &'a [Comparison],
    ranks: &'a [Rank],
}

impl Study {
    pub(super) fn run(&self, global: &Global, device: Device) -> Result<Outcome> {
        let mut plan = Plan::open(&self.file, global.reading(), device)?;
        if let Some(out) = &self.out {
            plan.out.clone_from(out);
        }
        if self.check {
            let trainings = plan.cells().len();
            let cohorts: Vec<&str> = plan.cohorts.iter().map(|cohort| cohort.name.as_str()).collect();
            if global.json {
                let json = serde_json::json!({ "out": plan.out, "trainings": trainings, "cohorts": cohorts });
                print_json(&json);
            } else {
                say!("nothing is wrong: {trainings} trainings over {}", cohorts.join(", "));
            }
            return Ok(Outcome::Done);
        }
        let bar = Cells::new(global.json);
        let finished = plan.run(Running { jobs: self.jobs, device }, &|event| bar.show(&plan, event));
        bar.finish();
        let Finished { results, out, trained } = finished?;
        if global.json {
            print_json(&Summary {
                report: out.join(REPORT),
                out,
                trainings: results.trainings.len(),
                trained,
                rows: &results.rows,
                comparisons: &results.comparisons,
                ranks: &results.ranks,
            });
            return Ok(Outcome::Done);
        }
        rows(&results.rows);
        say!("");
        comparisons(&results.comparisons);
        let others = if trained < results.trainings.len() { ", the others were there" } else { "" };
        say!("\n{trained} of {} trainings were made now{others}", results.trainings.len());
        say!("tables: {}, {}", out.join(JSON).display(), out.join(CSV).display());
        say!("report: {}", out.join(REPORT).display());
        Ok(Outcome::Done)
    }
}

fn rows(rows: &[Row]) {
    let number = |x: f64| format!("{x:.3}");
    let row = |r: &Row| {
        let c = r.concordance.value();
        let judged = match r.domain {
            Domain::Target => r.target.clone(),
            inside => inside.name().into(),
        };
        vec![
            r.source.clone(),
            judged,
            r.host.clone(),
            r.plugin.name().into(),
            c.map_or("-".into(), |c| number(c.mean)),
            c.map_or("-".into(), |c| format!("{} to {}", number(c.lower), number(c.upper))),
            c.and_then(|c| c.deviation).map_or("-".into(), number),
            r.groups.log_rank.value().map_or("-".into(), |test| table::p_value(test.p)),
        ]
    };
    let header = ["trained on", "judged on", "host", "plug-in", "C-index", "95 % interval", "sd", "log-rank p"];
    table::print(&header, &rows.iter().map(row).collect::<Vec<_>>());
    for row in rows {
        if let Figure::Undefined { undefined } = &row.concordance {
            say!("{} on {}: no C-index: {undefined}", row.source, row.target);
        }
        if let Figure::Undefined { undefined } = &row.groups.log_rank {
            let (host, plugin) = (&row.host, row.plugin.name());
            say!("{} on {}, {host}, {plugin}: no log-rank test: {undefined}", row.source, row.target);
        }
    }
}

fn comparisons(comparisons: &[Comparison]) {
    let row = |c: &Comparison| {
        let d = c.difference.value();
        let judged = match (&c.target, c.domain) {
            (Some(target), Domain::Target) => target.clone(),
            (Some(_), inside) => inside.name().into(),
            (None, _) => "all targets".into(),
        };
        vec![
            c.source.clone().unwrap_or_else(|| "all".into()),
            judged,
            c.host.clone(),
            c.plugin.name().into(),
            d.map_or("-".into(), |d| format!("{:+.3}", d.mean)),
            d.map_or("-".into(), |d| format!("{:+.3} to {:+.3}", d.lower, d.upper)),
            d.map_or("-".into(), |d| table::p_value(d.p)),
            d.map_or("-".into(), |d| table::p_value(d.p_holm)),
        ]
    };
    if comparisons.is_empty() {
        return;
    }
    let header = ["trained on", "judged on", "host", "plug-in", "C less none", "95 % interval", "p", "p, Holm"];
    table::print(&header, &comparisons.iter().map(row).collect::<Vec<_>>());
}
