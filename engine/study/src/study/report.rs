//! The report: one HTML file without anything from elsewhere, to be looked at and passed on.

mod problems;

use std::collections::BTreeSet;
use std::fmt::Write;

use inhouse::Result;
use serde_json::Value;

use super::by_problem::ByProblem;
use super::config::{EqualSamples, setting_title};
use super::figure::{self, Figure};
use super::results::{Estimate, Results, Sweep};
use super::table::{self, Row, Section, Table, percent};
use crate::chart::{Palette, escaped};

const STYLE: &str = include_str!("report.css");

/// The report of what is complete. That a table or figure has nothing to show stands in it. Figures of tables lead to the
/// problems below them, and those to completions with their verdicts.
///
/// # Errors
/// Results of the store that cannot be read.
pub fn html(results: &Results) -> Result<String> {
    let config = &results.config;
    let mut by_problem = Vec::new();
    for (i, set) in config.problems.iter().enumerate() {
        by_problem.extend(ByProblem::of(results, set)?.map(|table| (i, table)));
    }
    let mut body = String::new();
    head(&mut body, results);
    for which in [table::Which::Table1, table::Which::Table3, table::Which::Table2] {
        let table = Table::of(results, which);
        if !table.sections.is_empty() {
            write_table(&mut body, &table, results);
        }
    }
    for which in [figure::Which::Fig5, figure::Which::Fig6, figure::Which::Fig7] {
        let figure = Figure::of(results, which);
        let _ = write!(
            body,
            "<section><h2>{}</h2><figure>{}<figcaption>{}</figcaption></figure></section>",
            escaped(&figure.title),
            figure.chart().svg(Palette::Page),
            escaped(&figure.caption)
        );
    }
    problems::write(&mut body, &by_problem);
    provenance(&mut body, results);
    Ok(format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>{}</title><style>{STYLE}</style></head>\
         <body><input type=\"checkbox\" id=\"other\" aria-label=\"the other colours\">\
         <main>{body}</main></body></html>\n",
        escaped(&config.title)
    ))
}

fn head(body: &mut String, results: &Results) {
    let config = &results.config;
    let (done, all) = results.units;
    let _ = write!(
        body,
        "<header><label for=\"other\" title=\"light or dark\">\u{25d0}</label><h1>{}</h1><p class=\"lead\">{} over {}. Protocol <b>{}</b>: \
         {}.</p>",
        escaped(&config.title),
        count(config.models.len(), "model"),
        count(config.problems.len(), "problem set"),
        config.protocol,
        table::samples(config)
    );
    if done < all {
        let _ = write!(
            body,
            "<p class=\"warning\">Not finished: {done} of {all} units are done; only what is complete is shown.</p>"
        );
    }
    highlights(body, results);
    body.push_str("</header>");
}

/// The best setting of each problem set, in large figures.
fn highlights(body: &mut String, results: &Results) {
    let k = results.config.ks().first().copied().unwrap_or(1);
    body.push_str("<div class=\"cards\">");
    for set in &results.config.problems {
        let mut best: Option<(Estimate, String)> = None;
        for model in &results.config.models {
            for setting in results.settings(set, &model.name) {
                let found = results.sweep(&set.name, &model.name, &setting).and_then(|sweep| sweep.best(0));
                if let Some((_, estimate)) = found
                    && best.as_ref().is_none_or(|(best, _)| estimate.value > best.value)
                {
                    best = Some((estimate, format!("{}, {}", model.name, setting_title(&setting))));
                }
            }
        }
        if let Some((Estimate { value, low, high }, how)) = best {
            let _ = write!(
                body,
                "<div class=\"card\"><div class=\"name\">{}</div><div class=\"figure\">{:.1}<small> %</small></div>\
                 <div class=\"about\">pass@{k} at best [{:.1}, {:.1}]<br>{}</div></div>",
                escaped(&set.name),
                100.0 * value,
                100.0 * low,
                100.0 * high,
                escaped(&how)
            );
        }
    }
    body.push_str("</div>");
}

fn count(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

fn write_table(body: &mut String, table: &Table, results: &Results) {
    let _ = write!(body, "<section><h2>{}</h2>", escaped(&table.title));
    for note in &table.notes {
        let _ = write!(body, "<p class=\"note\">{}</p>", escaped(note));
    }
    for section in &table.sections {
        let set = results.config.problems.iter().position(|set| set.name == section.set);
        write_section(body, section, &table.k, &set.map_or(String::new(), problems::anchor));
    }
    body.push_str("</section>");
}

fn write_section(body: &mut String, section: &Section, k: &[u64], problems: &str) {
    let _ = write!(
        body,
        "<h3>{}</h3><p class=\"note\">{}</p><div class=\"wide\"><table><thead><tr><th>Model</th>",
        escaped(&section.set),
        escaped(&section.about())
    );
    let ablation = section.rows.iter().any(|row| row.noise.is_some() || row.resampling.is_some());
    if ablation {
        body.push_str("<th>Noise</th><th>Resampling</th>");
    }
    body.push_str("<th>APIs</th>");
    for k in k {
        let _ = write!(body, "<th class=\"number\">pass@{k}</th>");
    }
    body.push_str(
        "<th class=\"number\">Hallucinated</th><th class=\"number\">by name</th></tr></thead><tbody>",
    );
    // The highest of each column is set in bold.
    let best: Vec<f64> = (0..k.len())
        .map(|ki| section.rows.iter().filter_map(|row| Some(row.sweep.best(ki)?.1.value)).fold(0.0, f64::max))
        .collect();
    let mut before = "";
    for row in &section.rows {
        let first = row.model != before;
        before = &row.model;
        let _ = write!(
            body,
            "<tr{}><td>{}</td>",
            if first { " class=\"first\"" } else { "" },
            if first { escaped(&row.model) } else { String::new() }
        );
        if ablation {
            let noise = row.noise.map_or("\u{2013}".into(), |noise| format!("{} %", 100.0 * noise));
            let resampling = row.resampling.map_or("\u{2013}", |yes| if yes { "yes" } else { "no" });
            let _ = write!(body, "<td>{noise}</td><td>{resampling}</td>");
        }
        let _ = write!(body, "<td>{}</td>", escaped(&setting_title(&row.setting)));
        for (ki, best) in best.iter().enumerate() {
            write_estimate(body, row, (ki, *best), problems);
        }
        for share in [row.hallucinated, row.hallucinated_by_name] {
            let _ = write!(body, "<td class=\"number\">{}</td>", percent(share).replace('-', "\u{2013}"));
        }
        body.push_str("</tr>");
    }
    body.push_str("</tbody></table></div>");
    if section.rows.iter().any(|row| row.sweep.temperatures.len() > 1) {
        write_sweeps(body, section, k);
    }
}

/// A figure, which leads to its problems. `best` is the highest of its column.
fn write_estimate(body: &mut String, row: &Row, (ki, best): (usize, f64), problems: &str) {
    match row.sweep.best(ki) {
        Some((temperature, Estimate { value, low, high })) => {
            let class = if value > 0.0 && value >= best { "number best" } else { "number" };
            let _ = write!(
                body,
                "<td class=\"{class}\" title=\"temperature {temperature}\"><a class=\"value\" href=\"#{problems}\">{:.2}</a>\
                 <span class=\"interval\">{:.1} \u{2013} {:.1}</span></td>",
                100.0 * value,
                100.0 * low,
                100.0 * high
            );
        }
        None => body.push_str("<td class=\"number\">\u{2013}</td>"),
    }
}

/// Every temperature of every row, folded away.
fn write_sweeps(body: &mut String, section: &Section, k: &[u64]) {
    let temperatures: BTreeSet<String> = section
        .rows
        .iter()
        .flat_map(|row| row.sweep.temperatures.iter().map(|(temperature, _)| format!("{temperature:.2}")))
        .collect();
    body.push_str("<details><summary>By temperature</summary><div class=\"wide\"><table><thead><tr><th>Model</th><th>APIs</th><th>k</th>");
    for temperature in &temperatures {
        let _ = write!(
            body,
            "<th class=\"number\">T {}</th>",
            temperature.trim_end_matches('0').trim_end_matches('.')
        );
    }
    body.push_str("</tr></thead><tbody>");
    for row in &section.rows {
        for (ki, k) in k.iter().enumerate() {
            let _ = write!(
                body,
                "<tr><td>{}</td><td>{}</td><td>{k}</td>",
                escaped(&row.model),
                escaped(&setting_title(&row.setting))
            );
            for temperature in &temperatures {
                let Sweep { temperatures, best, .. } = &row.sweep;
                let at = temperatures.iter().position(|(t, _)| format!("{t:.2}") == *temperature);
                let value = at.and_then(|at| temperatures[at].1[ki]);
                let class = if at.is_some() && best[ki] == at { "number best" } else { "number" };
                let text = value.map_or("\u{2013}".into(), |found| format!("{:.2}", 100.0 * found.value));
                let _ = write!(body, "<td class=\"{class}\">{text}</td>");
            }
            body.push_str("</tr>");
        }
    }
    body.push_str("</tbody></table></div></details>");
}

fn provenance(body: &mut String, results: &Results) {
    let config = &results.config;
    body.push_str("<section><h2>How this was made</h2><div class=\"wide\"><table class=\"facts\"><tbody>");
    let mut fact = |name: &str, text: String| {
        let _ = write!(body, "<tr><th>{}</th><td>{}</td></tr>", escaped(name), escaped(&text));
    };
    let list = |values: &[f32]| values.iter().map(f32::to_string).collect::<Vec<_>>().join(", ");
    fact(
        "Samples",
        format!("n = {}, drawn {}, counted {} time(s) each", config.n, config.drawn(), config.repeats()),
    );
    fact(
        "Sampling",
        format!(
            "temperatures {}; top-p {}; at most {} tokens; seed {}",
            list(&config.temperatures),
            config.top_p,
            config.max_tokens,
            config.seed
        ),
    );
    fact("Cut at", config.stop.iter().map(|stop| format!("{stop:?}")).collect::<Vec<_>>().join(" "));
    fact("Limit", format!("{} CPU seconds a sample", config.timeout));
    fact(
        "Equal samples",
        match config.equal_samples {
            EqualSamples::Each => "each run",
            EqualSamples::Once => "run once, one verdict for all",
        }
        .into(),
    );
    fact("Intervals", format!("95 %, percentile bootstrap over problems, {} draws", config.bootstrap));
    for model in &config.models {
        let from = match (&model.path, &model.command) {
            (Some(path), _) => path.display().to_string(),
            (None, Some(command)) => format!("program: {command}"),
            (None, None) => String::new(),
        };
        let digest: String =
            results.models.get(&model.name).map_or("", String::as_str).chars().take(16).collect();
        fact(&format!("Model {}", model.name), format!("{from} (digest {digest})"));
    }
    for set in &config.problems {
        let index = set.index.as_ref().map_or("none".into(), |index| index.display().to_string());
        fact(
            &format!("Problems {}", set.name),
            format!("{}; index {index}; {}", set.file.display(), set.env),
        );
    }
    for text in environments(&results.runs) {
        fact("Environment", text);
    }
    for text in machines(&results.runs) {
        fact("Machine", text);
    }
    body.push_str("</tbody></table></div></section>");
}

/// The interpreters of all runs, each once.
fn environments(runs: &[Value]) -> BTreeSet<String> {
    let of_run =
        |run: &Value| run.get("environments").and_then(Value::as_object).cloned().unwrap_or_default();
    let text = |(key, found): (String, Value)| {
        let word = |name: &str| found.get(name).and_then(Value::as_str).unwrap_or("?").to_owned();
        let packages = found.get("packages").and_then(Value::as_object).into_iter().flatten();
        let packages: Vec<String> = packages
            .map(|(name, version)| format!("{name} {}", version.as_str().unwrap_or_default()))
            .collect();
        format!(
            "{key}: Python {}, evald {} (tier {}); {}",
            word("python"),
            word("evald"),
            word("tier"),
            packages.join(", ")
        )
    };
    runs.iter().flat_map(of_run).map(text).collect()
}

/// The machines of all runs, each once.
fn machines(runs: &[Value]) -> BTreeSet<String> {
    let text = |run: &Value| {
        let machine = run.get("machine")?;
        let word = |name: &str| machine.get(name).and_then(Value::as_str).unwrap_or("?").to_owned();
        let cores = machine.get("cores").and_then(Value::as_u64).unwrap_or_default();
        Some(format!(
            "{}: {}, {cores} cores, {}; Linux {}; inhouse {}",
            word("host"),
            word("processor"),
            word("memory"),
            word("kernel"),
            word("inhouse")
        ))
    };
    runs.iter().filter_map(text).collect()
}
