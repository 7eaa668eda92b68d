//! Problem by setting, and below each problem what was written for it.

use std::fmt::Write;

use super::super::by_problem::{ByProblem, ProblemCell, ShownCompletion, verdicts};
use crate::chart::escaped;

/// Characters of a completion that are shown.
const SHOWN: usize = 2000;

/// Where the figures of a model in a setting lead to.
pub(super) fn anchor(set: usize) -> String {
    format!("problems-{set}")
}

/// The section of all sets.
pub(super) fn write(body: &mut String, tables: &[(usize, ByProblem)]) {
    if tables.is_empty() {
        return;
    }
    body.push_str(
        "<section><h2>Problem by problem</h2><p class=\"note\">Samples that passed, of all at the temperature that is best for the \
         smallest k. A figure leads to what was written.</p>",
    );
    for (set, table) in tables {
        write_table(body, *set, table);
    }
    body.push_str("</section>");
}

fn write_table(body: &mut String, set: usize, table: &ByProblem) {
    let _ = write!(
        body,
        "<h3 id=\"{}\">{}</h3><div class=\"wide\"><table><thead><tr><th>Problem</th>",
        anchor(set),
        escaped(&table.set)
    );
    for column in &table.columns {
        let _ = write!(body, "<th class=\"number\">{}</th>", escaped(&column.title()));
    }
    body.push_str("</tr></thead><tbody>");
    for (r, row) in table.rows.iter().enumerate() {
        let _ = write!(body, "<tr><td>{}</td>", escaped(&row.task_id));
        for (c, cell) in row.cells.iter().enumerate() {
            match cell {
                Some(ProblemCell { tally, .. }) => {
                    let class = if tally.passed > 0 { "number best" } else { "number" };
                    let _ = write!(
                        body,
                        "<td class=\"{class}\" title=\"{}\"><a href=\"#p{set}-{r}-{c}\">{} of {}</a></td>",
                        escaped(&verdicts(tally)),
                        tally.passed,
                        tally.n
                    );
                }
                None => body.push_str("<td class=\"number\">\u{2013}</td>"),
            }
        }
        body.push_str("</tr>");
    }
    body.push_str("</tbody></table></div>");
    for (r, row) in table.rows.iter().enumerate() {
        let _ = write!(body, "<details><summary>{}</summary>", escaped(&row.task_id));
        for (c, (column, cell)) in table.columns.iter().zip(&row.cells).enumerate() {
            let Some(cell) = cell else { continue };
            let _ = write!(
                body,
                "<h4 id=\"p{set}-{r}-{c}\">{}: {} of {} passed</h4>",
                escaped(&column.title()),
                cell.tally.passed,
                cell.tally.n
            );
            write_cell(body, cell);
        }
        body.push_str("</details>");
    }
}

fn write_cell(body: &mut String, cell: &ProblemCell) {
    let tally = &cell.tally;
    let mut facts = Vec::new();
    if !cell.apis.is_empty() {
        facts.push(format!("shown: {}", cell.apis.join(", ")));
        let called = tally.shown_called as f64 / tally.n.max(1) as f64;
        facts.push(format!("of {} shown {called:.1} called a sample", tally.shown));
    }
    if let Some(golden) = tally.golden.filter(|golden| *golden > 0) {
        let called = tally.golden_called as f64 / tally.n.max(1) as f64;
        facts.push(format!("of {golden} golden {} shown, {called:.1} called a sample", tally.golden_shown));
    }
    if let Some(uses) = tally.uses.filter(|uses| uses.unknown + uses.misused > 0) {
        facts.push(format!(
            "{} uses of names that do not exist, {} calls that cannot succeed",
            uses.unknown, uses.misused
        ));
    }
    let others = verdicts(tally);
    if !others.is_empty() {
        facts.push(others);
    }
    let _ = write!(body, "<p class=\"note\">{}</p>", escaped(&facts.join("; ")));
    for ShownCompletion { completion, verdict, detail, samples } in &cell.completions {
        let cut: String = completion.chars().take(SHOWN).collect();
        let more = if cut.len() < completion.len() { "\n\u{2026}" } else { "" };
        let detail = if detail.is_empty() { String::new() } else { format!(": {}", escaped(detail)) };
        let times = if *samples > 1 { format!(" \u{d7} {samples}") } else { String::new() };
        let _ = write!(
            body,
            "<p class=\"verdict\"><b>{}</b>{times}{detail}</p><pre>{}{more}</pre>",
            escaped(verdict),
            escaped(&cut)
        );
    }
}
