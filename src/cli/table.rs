//! Tables on a terminal.

use crate::evaluate::{Figure, Figures, OverTime};

/// Rows of cells under a header, in columns as wide as their widest cell; the first to the left, the others to the right.
pub(super) fn print(header: &[&str], rows: &[Vec<String>]) {
    let width = |c: usize| {
        let cells = rows.iter().map(|row| row[c].chars().count());
        cells.chain([header[c].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let cells: Vec<String> = cells
            .zip(&widths)
            .enumerate()
            .map(|(c, (cell, &w))| if c == 0 { format!("{cell:<w$}") } else { format!("{cell:>w$}") })
            .collect();
        say!("{}", cells.join("  ").trim_end());
    };
    line(&mut header.iter().copied());
    for row in rows {
        line(&mut row.iter().map(String::as_str));
    }
}

/// The figures of some cohorts, one row each, and the reasons of those that have none.
pub(super) fn print_figures(figures: &[Figures]) {
    let header =
        ["cohort", "patients", "events", "C-index", "95 % interval", "Uno's C", "mean AUC", "IBS", "log-rank p"];
    let number = |x: Option<&f64>| x.map_or("-".into(), |x| format!("{x:.3}"));
    let summary = |f: &Figure<OverTime>| number(f.value().and_then(|f| f.summary.value()));
    let row = |f: &Figures| {
        let c = f.harrell.value();
        vec![
            f.cohort.clone(),
            f.patients.to_string(),
            f.events.to_string(),
            number(c.map(|c| &c.index)),
            c.map_or("-".into(), |c| format!("{:.3} to {:.3}", c.lower, c.upper)),
            number(f.uno.value()),
            summary(&f.auc),
            summary(&f.brier),
            f.groups.log_rank.value().map_or("-".into(), |t| p_value(t.p)),
        ]
    };
    print(&header, &figures.iter().map(row).collect::<Vec<_>>());
    for f in figures {
        for (name, why) in undefined(f) {
            say!("{}: no {name}: {why}", f.cohort);
        }
    }
}

pub(super) fn p_value(p: f64) -> String {
    if p < 0.0001 { "< 0.0001".into() } else { format!("{p:.4}") }
}

fn undefined(f: &Figures) -> Vec<(&'static str, &str)> {
    fn why<T>(figure: &Figure<T>) -> Option<&str> {
        match figure {
            Figure::Value(_) => None,
            Figure::Undefined { undefined } => Some(undefined),
        }
    }
    fn over(figure: &Figure<OverTime>) -> Option<&str> {
        why(figure).or_else(|| figure.value().and_then(|f| why(&f.summary)))
    }
    [
        ("C-index", why(&f.harrell)),
        ("Uno's C", why(&f.uno)),
        ("mean AUC", over(&f.auc)),
        ("IBS", over(&f.brier)),
        ("log-rank test", why(&f.groups.log_rank)),
    ]
    .into_iter()
    .filter_map(|(name, why)| why.map(|why| (name, why)))
    .collect()
}
