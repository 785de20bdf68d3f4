//! The report of a study: one page that needs nothing but itself.
//!
//! No script, no font, no picture from elsewhere. All text out of files goes through [`escape`], and none of it into a plot.

mod plots;

use std::fmt::Write;

use super::file::Host;
use super::preset::{Mode, Plugin};
use super::results::{ConcordanceRow, Domain, Results, Row, Training};
use super::tables::beside;
use super::{Epoch, Explanation, Part};
use crate::evaluate::Figure;

const STYLE: &str = include_str!("style.css");

/// The page.
pub(super) fn page(results: &Results) -> String {
    let name = escape(&results.settings.name);
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>{name}</title>\n<style>\n{STYLE}</style>\n\
         </head>\n<body>\n<h1>{name}</h1>\n"
    );
    introduction(&mut page, results);
    concordance(&mut page, results);
    comparisons(&mut page, results);
    ranks(&mut page, results);
    survival(&mut page, results);
    patients(&mut page, results);
    curves(&mut page, results);
    cohorts(&mut page, results);
    settings(&mut page, results);
    trainings(&mut page, results);
    page.push_str("</body>\n</html>\n");
    page
}

/// Text as HTML shows it and nobody runs it.
pub(super) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c => safe.push(c),
        }
    }
    safe
}

/// Adds to a page; writing to a text does not fail.
macro_rules! add {
    ($page:expr, $($arg:tt)*) => {{
        let _ = write!($page, $($arg)*);
    }};
}

fn introduction(page: &mut String, results: &Results) {
    let judged = match results.settings.mode {
        Mode::Strict => {
            "Mode <b>strict</b>: validation patients of the source chose the epoch, everything was fitted on the training \
             patients of the source, and no number of a target was used. Figures inside a source are from \
             cross-validation, each fold with validation patients of its own."
        }
        Mode::Published => {
            "Mode <b>published</b>: trained on the whole source, the last epoch was kept, and gene expression of a target was \
             scaled by what was fitted on that target. Figures inside a source are those of the training patients and say \
             nothing about others."
        }
    };
    let s = &results.settings;
    add!(
        page,
        "<p>{judged} Preset {}; {} trainings; seeds {}; {} bootstrap replicates; onkos {}.</p>\n",
        s.preset.name(),
        results.trainings.len(),
        list(&s.seeds),
        s.replicates,
        results.onkos
    );
}

fn list<T: ToString>(of: &[T]) -> String {
    of.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}

/// Values that occur, in the order of their first.
fn distinct<T: PartialEq>(values: impl Iterator<Item = T>) -> Vec<T> {
    let mut all = Vec::new();
    for value in values {
        if !all.contains(&value) {
            all.push(value);
        }
    }
    all
}

fn methods(results: &Results) -> Vec<(&str, Plugin)> {
    distinct(results.rows.iter().map(|row| (row.host.as_str(), row.plugin)))
}

/// A host with what is plugged into it.
fn method(host: &str, plugin: Plugin) -> String {
    match plugin {
        Plugin::None => format!("{}, nothing plugged in", escape(host)),
        Plugin::Sdir => format!("{} with SDIR", escape(host)),
        Plugin::Cade => format!("{} with CADE", escape(host)),
        Plugin::Both => format!("{} with SDIR and CADE", escape(host)),
        Plugin::MixStyle => format!("{} with MixStyle", escape(host)),
    }
}

fn number(x: f64) -> String {
    format!("{x:.3}")
}

/// A difference, with its sign.
fn signed(x: f64) -> String {
    // Of what would be written as 0 the sign says nothing.
    if x.abs() < 0.0005 { "0.000".into() } else { format!("{x:+.3}").replace('-', "\u{2212}") }
}

fn probability(p: f64) -> String {
    if p < 0.0001 { "&lt; 0.0001".into() } else { format!("{p:.4}") }
}

fn c_cell(c: &Figure<ConcordanceRow>) -> String {
    match c {
        Figure::Value(c) => {
            let deviation = c.deviation.map_or(String::new(), |sd| format!(" <small>± {}</small>", number(sd)));
            format!("<b>{}</b>{deviation}<br><small>{} to {}</small>", number(c.mean), number(c.lower), number(c.upper))
        }
        Figure::Undefined { undefined } => format!("<small>{}</small>", escape(undefined)),
    }
}

/// Source by cohort, a table for each host and plug-in.
fn concordance(page: &mut String, results: &Results) {
    let inside = match results.settings.mode {
        Mode::Strict => "from cross-validation",
        Mode::Published => "of the training patients",
    };
    add!(
        page,
        "<h2>Concordance</h2>\n<p>Harrell's C: the mean over the seeds ± its standard deviation over them, and below it the 95 % \
         bootstrap interval of the mean over patients. Rows are sources, columns cohorts that were judged on. Shaded: \
         inside the source, {inside}.</p>\n"
    );
    let sources = distinct(results.rows.iter().map(|row| row.source.as_str()));
    page.push_str("<div class=\"plots\">\n");
    let targets: Vec<&str> = results.cohorts.iter().map(|cohort| cohort.name.as_str()).collect();
    for (host, plugin) in methods(results) {
        add!(page, "<table class=\"matrix\">\n<caption>{}</caption>\n<tr><th>trained on</th>", method(host, plugin));
        targets.iter().for_each(|target| add!(page, "<th>{}</th>", escape(target)));
        page.push_str("</tr>\n");
        for source in &sources {
            add!(page, "<tr><th>{}</th>", escape(source));
            for target in &targets {
                let here = |row: &&Row| {
                    row.host == host && row.plugin == plugin && row.source == *source && row.target == *target
                };
                match results.rows.iter().find(here) {
                    Some(row) => {
                        let class = if row.domain == Domain::Target { "c" } else { "c inside" };
                        add!(page, "<td class=\"{class}\">{}</td>", c_cell(&row.concordance));
                    }
                    None => page.push_str("<td></td>"),
                }
            }
            page.push_str("</tr>\n");
        }
        page.push_str("</table>\n");
    }
    page.push_str("</div>\n");
}

fn comparisons(page: &mut String, results: &Results) {
    if results.comparisons.is_empty() {
        return;
    }
    let (m, r) = (results.comparisons.len(), results.settings.replicates);
    add!(
        page,
        "<h2>With and without</h2>\n<p>C with a plug-in less C of the same host without, of the same seeds and patients; above 0 \
         it helps. The probability is that of the paired bootstrap; in the last column it is corrected for all {m} comparisons by \
         Holm's rule. With {r} replicates none can be below {:.4} before, and the smallest of all below {:.4} after the \
         correction.</p>\n<table>\n<tr><th>host</th><th>plugged in</th><th>trained on</th><th>judged on</th><th>difference of \
         C</th><th>95 % interval</th><th>better</th><th>p</th><th>p, corrected</th></tr>\n",
        (2.0 / (f64::from(r) + 1.0)).min(1.0),
        (2.0 * m as f64 / (f64::from(r) + 1.0)).min(1.0),
    );
    for c in &results.comparisons {
        let place = match (&c.source, &c.target) {
            (Some(source), Some(target)) if c.domain == Domain::Target => {
                format!("<td>{}</td><td>{}</td>", escape(source), escape(target))
            }
            (Some(source), Some(_)) => format!("<td>{}</td><td>itself ({})</td>", escape(source), c.domain.name()),
            _ => "<td colspan=\"2\">mean over all targets</td>".into(),
        };
        let class = if c.source.is_none() { " class=\"sum\"" } else { "" };
        add!(page, "<tr{class}><td>{}</td><td>{}</td>{place}", escape(&c.host), c.plugin.name());
        match &c.difference {
            Figure::Value(d) => {
                let what = if c.source.is_none() { "targets" } else { "seeds" };
                add!(
                    page,
                    "<td>{}</td><td class=\"line\">{} to {}</td><td class=\"line\">{} of {} {what}</td><td>{}</td><td>{}</td></tr>\n",
                    signed(d.mean),
                    signed(d.lower),
                    signed(d.upper),
                    d.better[0],
                    d.better[1],
                    probability(d.p),
                    probability(d.p_holm)
                );
            }
            Figure::Undefined { undefined } => add!(page, "<td colspan=\"5\">{}</td></tr>\n", escape(undefined)),
        }
    }
    page.push_str("</table>\n");
}

fn ranks(page: &mut String, results: &Results) {
    page.push_str(
        "<h2>Ranks</h2>\n<p>The mean rank by C over the pairs of a source and a target; 1 is the best.</p>\n<table>\n\
         <tr><th>host</th><th>plugged in</th><th>mean rank</th><th>pairs</th></tr>\n",
    );
    for rank in &results.ranks {
        let figure = match &rank.mean_rank {
            Figure::Value(rank) => format!("{rank:.2}"),
            Figure::Undefined { undefined } => escape(undefined),
        };
        let (host, plugin, pairs) = (escape(&rank.host), rank.plugin.name(), rank.pairs);
        add!(page, "<tr><td>{host}</td><td>{plugin}</td><td>{figure}</td><td>{pairs}</td></tr>\n");
    }
    page.push_str("</table>\n");
}

fn survival(page: &mut String, results: &Results) {
    page.push_str(
        "<h2>High and low risk</h2>\n<p>Kaplan-Meier curves, cut at the median risk of the training patients; ticks are \
         censored patients, numbers at risk stand below. With several seeds a patient is where more than half of \
         them say, and of low risk if they are divided.</p>\n",
    );
    for (source, target) in distinct(results.rows.iter().map(|row| (&row.source, &row.target))) {
        let of_it: Vec<&Row> = results.rows.iter().filter(|r| &r.source == source && &r.target == target).collect();
        let inside = of_it.first().filter(|row| row.domain != Domain::Target);
        let judged = inside.map_or_else(|| escape(target), |row| format!("itself ({})", row.domain.name()));
        add!(page, "<h3>Trained on {}, judged on {judged}</h3>\n<div class=\"plots\">\n", escape(source));
        let unit = results.cohorts.iter().find(|c| &c.name == target).and_then(|c| c.time_unit).unwrap_or("time");
        for row in of_it {
            let test = match &row.groups.log_rank {
                Figure::Value(test) => format!("log-rank p {}", probability(test.p)),
                Figure::Undefined { undefined } => format!("no log-rank test: {}", escape(undefined)),
            };
            let difference = beside(row, results).and_then(|c| c.difference.value());
            let difference = difference.map_or(String::new(), |d| format!("; C {} beside none", signed(d.mean)));
            add!(
                page,
                "<figure>\n{}<figcaption>{}: {test}{difference}</figcaption>\n</figure>\n",
                plots::kaplan_meier(&row.curves, &row.times, unit),
                method(&row.host, row.plugin)
            );
        }
        page.push_str("</div>\n");
    }
}

/// The gene groups that a table shows of each model.
const GROUPS: usize = 6;

fn patients(page: &mut String, results: &Results) {
    if results.explanations.is_empty() {
        return;
    }
    let seed = list(&results.settings.seeds[..1]);
    add!(
        page,
        "<h2>Chosen patients</h2>\n<p>By the models of seed {seed} that were trained on other cohorts. A gene group counts what \
         the risk loses when its genes are put to 0 after scaling: above 0 it makes the prognosis worse; the {GROUPS} largest are \
         shown. The attention says how few patches have half of it; a weight says how much a patch counted, not for better or \
         worse. <code>onkos attend</code> draws it: the folder of the training holds the model.</p>\n"
    );
    for (case, target) in distinct(results.explanations.iter().map(|e| (&e.case, &e.target))) {
        let of_it: Vec<&Explanation> =
            results.explanations.iter().filter(|e| &e.case == case && &e.target == target).collect();
        let outcome = of_it.first().map_or(String::new(), |e| {
            let what = if e.event { "event at" } else { "followed up to" };
            format!("{what} {:.1}", e.time)
        });
        add!(
            page,
            "<h3>{} of {}: {outcome}</h3>\n<table>\n<tr><th>trained on</th><th>model</th><th>risk</th><th>half of the \
             attention</th><th>gene groups</th></tr>\n",
            escape(case),
            escape(target)
        );
        for e in of_it {
            let group = if e.high { "high" } else { "low" };
            let attention = e.patches.map_or("-".into(), |p| format!("{} of {} patches", p.half, p.patches));
            let mut groups: Vec<_> = e.groups.iter().collect();
            groups.sort_by(|a, b| b.change.abs().total_cmp(&a.change.abs()));
            let shown = groups.iter().take(GROUPS).map(|g| format!("{} {}", escape(&g.name), signed(g.change)));
            let shown = shown.collect::<Vec<_>>().join("; ");
            add!(
                page,
                "<tr><td>{}</td><td>{}</td><td class=\"line\">{} ({group})</td><td>{attention}</td><td>{shown}</td></tr>\n",
                escape(&e.source),
                method(&e.host, e.plugin),
                signed(e.risk)
            );
        }
        page.push_str("</table>\n");
    }
}

fn curves(page: &mut String, results: &Results) {
    page.push_str(
        "<h2>Trainings</h2>\n<p>The loss over the epochs of the models that were judged on targets: training drawn through, \
         validation dashed, one colour a seed.</p>\n<p class=\"key\">",
    );
    for (number, seed) in results.settings.seeds.iter().enumerate() {
        add!(page, "<span style=\"color:{}\">seed {seed}</span> ", plots::colour(number));
    }
    page.push_str("</p>\n<div class=\"plots\">\n");
    let whole = |training: &&Training| training.part == Part::Whole.to_string();
    for (source, host, plugin) in distinct(results.trainings.iter().map(|t| (&t.source, &t.host, t.plugin))) {
        let of_it = results.trainings.iter().filter(|t| (&t.source, &t.host, t.plugin) == (source, host, plugin));
        let of_it: Vec<&Training> = of_it.filter(whole).collect();
        let mut lines = Vec::new();
        for (colour, training) in of_it.iter().enumerate() {
            let points = training.curve.iter().map(|epoch| (f64::from(epoch.epoch), epoch.loss)).collect();
            lines.push(plots::Curve { colour, dashed: false, points });
            let validation = |epoch: &Epoch| Some((f64::from(epoch.epoch), epoch.validation.as_ref()?.loss));
            let points: Vec<_> = training.curve.iter().filter_map(validation).collect();
            if !points.is_empty() {
                lines.push(plots::Curve { colour, dashed: true, points });
            }
        }
        let epochs = of_it.iter().map(|training| training.curve.len()).max().unwrap_or(0);
        let kept: Vec<u32> = of_it.iter().map(|training| training.kept_epoch).collect();
        add!(
            page,
            "<figure>\n{}<figcaption>{}, trained on {}; kept epoch {}</figcaption>\n</figure>\n",
            plots::losses(&lines, epochs as u32),
            method(host, plugin),
            escape(source),
            list(&kept)
        );
    }
    page.push_str("</div>\n");
}

fn cohorts(page: &mut String, results: &Results) {
    page.push_str(
        "<h2>Cohorts and files</h2>\n<table>\n<tr><th>cohort</th><th>patients</th><th>events</th><th>file</th><th>bytes</th>\
         <th>SHA-256</th></tr>\n",
    );
    for cohort in &results.cohorts {
        for (number, input) in cohort.inputs.iter().enumerate() {
            let first = match number {
                0 => format!(
                    "<td>{}{}</td><td>{}</td><td>{}</td>",
                    escape(&cohort.name),
                    if cohort.source { " (source)" } else { "" },
                    cohort.patients,
                    cohort.events
                ),
                _ => "<td></td><td></td><td></td>".into(),
            };
            let (file, bytes, sum) = (escape(&input.file.display().to_string()), input.bytes, &input.sha256);
            add!(page, "<tr>{first}<td>{file}</td><td>{bytes}</td><td><code>{sum}</code></td></tr>\n");
        }
    }
    page.push_str("</table>\n");
}

fn settings(page: &mut String, results: &Results) {
    page.push_str("<h2>Settings</h2>\n");
    let s = &results.settings;
    let mut rows = vec![
        ("onkos", results.onkos.to_owned()),
        ("mode", s.mode.name().into()),
        ("preset", s.preset.name().into()),
        ("seeds", list(&s.seeds)),
        ("bootstrap replicates", s.replicates.to_string()),
        ("seed of the resamples", s.resampling_seed.to_string()),
    ];
    if s.mode == Mode::Strict {
        rows.push(("folds", s.folds.to_string()));
    }
    page.push_str("<table>\n");
    for (name, value) in rows {
        add!(page, "<tr><th>{name}</th><td>{}</td></tr>\n", escape(&value));
    }
    page.push_str("</table>\n");
    let mut part = |what: &str, text: Result<String, toml::ser::Error>| {
        let text = text.expect("settings are plain tables");
        add!(page, "<h3>{what}</h3>\n<pre>{}</pre>\n", escape(&text));
    };
    for Host { name, plugins, sdir, cade, mixstyle, config } in &s.hosts {
        let name = escape(name);
        if plugins.iter().any(|plugin| plugin.has_sdir()) {
            part(&format!("SDIR, where it is plugged into {name}"), toml::to_string(sdir));
        }
        if plugins.iter().any(|plugin| plugin.has_cade()) {
            part(&format!("CADE, where it is plugged into {name}"), toml::to_string(cade));
        }
        if plugins.contains(&Plugin::MixStyle) {
            part(&format!("MixStyle, where it is plugged into {name}"), toml::to_string(mixstyle));
        }
        part(
            &format!("Host {name}, with nothing plugged in; the seed is that of the training"),
            toml::to_string(config),
        );
    }
}

fn trainings(page: &mut String, results: &Results) {
    page.push_str(
        "<h2>All trainings</h2>\n<table>\n<tr><th>trained on</th><th>host</th><th>plugged in</th><th>seed</th><th>part</th>\
         <th>training, validation, test patients</th><th>parameters</th><th>kept epoch</th><th>cut</th><th>hash of settings and \
         inputs</th></tr>\n",
    );
    for t in &results.trainings {
        add!(
            page,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{:.4}</td>\
             <td><code>{}</code></td></tr>\n",
            escape(&t.source),
            escape(&t.host),
            t.plugin.name(),
            t.seed,
            t.part,
            list(&t.patients),
            t.parameters,
            t.kept_epoch,
            t.cut,
            t.key
        );
    }
    page.push_str("</table>\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{KaplanMeier, Outcome};

    #[test]
    fn a_sign_is_told_of_what_is_not_0() {
        assert_eq!(
            [0.01, -0.01, 0.0004, -0.0, 10.0].map(signed),
            ["+0.010", "\u{2212}0.010", "0.000", "0.000", "+10.000"]
        );
    }

    #[test]
    fn nothing_of_a_text_is_run_as_html() {
        assert_eq!(escape("<b a=\"1\" c='2'>&</b>"), "&lt;b a=&quot;1&quot; c=&#39;2&#39;&gt;&amp;&lt;/b&gt;");
    }

    #[test]
    fn a_plot_names_nothing_outside_itself_and_has_the_numbers_at_risk() {
        let (time, event) = ([1.0, 2.0, 3.0, 40.0], [true, false, true, true]);
        let curve = || KaplanMeier::fit(Outcome::new(&time, &event).unwrap());
        let svg = plots::kaplan_meier(&[curve(), curve()], &[time.to_vec(), time.to_vec()], "months");
        assert!(svg.starts_with("<svg ") && !svg.contains("http") && !svg.contains("href"), "{svg}");
        let texts: Vec<&str> = svg.split("</text>").filter_map(|part| Some(part.rsplit_once('>')?.1.trim())).collect();
        // Ticks at 0, 10, 20, 30 and 40 months, of each group.
        let tail = |name: &str| {
            let at = texts.iter().position(|text| *text == name).unwrap_or_else(|| panic!("no {name} in {texts:?}"));
            texts[at + 1..at + 6].to_vec()
        };
        assert_eq!((tail("high"), tail("low")), (vec!["4", "1", "1", "1", "1"], vec!["4", "1", "1", "1", "1"]));
    }

    #[test]
    fn plots_of_nobody_and_of_one_epoch_are_drawn() {
        let none = || KaplanMeier::fit(Outcome::new(&[], &[]).unwrap());
        assert!(plots::kaplan_meier(&[none(), none()], &[vec![], vec![]], "time").contains("</svg>"));
        let one = plots::Curve { colour: 9, dashed: true, points: vec![(1.0, 0.5)] };
        assert!(plots::losses(&[one], 1).contains("</svg>") && plots::losses(&[], 0).contains("</svg>"));
    }
}
