//! Pairs from documentation alone: sentences above examples, cross references, and the API's own sentences.

use inhouse_core::ApiDoc;
use rustc_hash::FxHashMap;

use super::table::is_answer;
use super::{Origin, Pair, prose};

/// The pairs of a library's records, which still have their whole `doc`.
pub(super) fn pairs(apis: &[ApiDoc]) -> Vec<Pair> {
    let mut by_name: FxHashMap<&str, &ApiDoc> = FxHashMap::default();
    let mut bare: FxHashMap<&str, Vec<&ApiDoc>> = FxHashMap::default();
    for api in apis.iter().filter(|api| is_answer(api)) {
        by_name.insert(&api.qualified_name, api);
        bare.entry(&api.name).or_default().push(api);
    }
    // The same method in ten classes is documented once.
    let mut seen: rustc_hash::FxHashSet<(&str, &str)> = rustc_hash::FxHashSet::default();
    let mut pairs = Vec::new();
    for api in apis.iter().filter(|api| is_answer(api)) {
        if !seen.insert((&api.name, &api.doc)) {
            continue;
        }
        let mut add = |target: &ApiDoc, query: String, origin| {
            let place = api.source.as_ref();
            pairs.push(Pair {
                query,
                origin,
                apis: vec![target.qualified_name.clone()],
                guessed: false,
                path: place.map_or_else(String::new, |place| place.path.clone()),
                line: place.map_or(0, |place| place.line as usize),
            });
        };
        if let Some(query) = prose::sentence(&api.description, 40) {
            add(api, query, Origin::Summary);
        }
        let further =
            prose::paragraphs(&api.doc).into_iter().take(2).flat_map(|text| prose::sentences(&text));
        for sentence in further.skip(1).take(2) {
            if let Some(query) = prose::sentence(&sentence, 40) {
                add(api, query, Origin::Detail);
            }
        }
        for text in above_examples(&api.doc) {
            if let Some(query) = prose::sentence(&text, 40) {
                add(api, query, Origin::Example);
            }
        }
        for (name, says) in see_also(&api.doc) {
            let class = api.qualified_name.rsplit_once('.').map_or("", |(class, _)| class);
            let target = by_name
                .get(name.as_str())
                .or_else(|| by_name.get(format!("{class}.{name}").as_str()))
                .or_else(|| by_name.get(format!("{}.{name}", api.library()).as_str()))
                .copied()
                .or_else(|| match bare.get(name.rsplit('.').next().unwrap_or_default()).map(Vec::as_slice) {
                    Some([only]) => Some(*only),
                    _ => None,
                });
            if let Some(target) = target
                && let Some(query) = prose::sentence(&says, 40)
                && target.description != says
            {
                add(target, query, Origin::Reference);
            }
        }
    }
    pairs
}

/// The paragraphs that stand right above examples, where they say what the example does.
fn above_examples(doc: &str) -> Vec<String> {
    let lines: Vec<&str> = doc.lines().map(str::trim).collect();
    let Some(begin) =
        lines.iter().position(|line| matches!(line.trim_end_matches(':'), "Examples" | "Example"))
    else {
        return Vec::new();
    };
    let mut found = Vec::new();
    let mut text: Vec<&str> = Vec::new();
    // What a prompt prints follows it without a blank line; prose comes after one.
    let mut is_output = false;
    let mut after_blank = false;
    for line in &lines[begin + 1..] {
        if line.starts_with(">>>") {
            if !text.is_empty() {
                found.push(text.join(" ").trim_end_matches(':').to_owned());
            }
            text.clear();
            is_output = true;
        } else if line.is_empty() {
            is_output = false;
            after_blank = true;
            continue;
        } else if line.bytes().all(|byte| b"-=~^".contains(&byte)) || line.starts_with("..") {
            text.clear();
        } else if !is_output {
            if after_blank {
                text.clear();
            }
            text.push(line);
        }
        after_blank = false;
    }
    found
}

/// The rows of numpy's `See Also` section: a name and what is said of it.
fn see_also(doc: &str) -> Vec<(String, String)> {
    let lines: Vec<&str> = doc.lines().collect();
    let Some(begin) = lines.iter().position(|line| line.trim().eq_ignore_ascii_case("see also")) else {
        return Vec::new();
    };
    let mut found: Vec<(String, String)> = Vec::new();
    for (i, line) in lines.iter().enumerate().skip(begin + 2) {
        let trimmed = line.trim();
        let headed = lines.get(i + 1).is_some_and(|next| next.trim().starts_with("---"));
        if headed || trimmed.starts_with(">>>") {
            break;
        }
        if line.starts_with(' ') {
            if let Some((_, says)) = found.last_mut() {
                if !says.is_empty() {
                    says.push(' ');
                }
                says.push_str(trimmed);
            }
        } else if let Some((name, says)) = trimmed.split_once(':') {
            let name = prose::plain(name);
            let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
            if !name.is_empty() && name.chars().all(is_name) {
                found.push((name, says.trim().to_owned()));
            }
        } else if !trimmed.is_empty() && !trimmed.contains(',') {
            found.push((prose::plain(trimmed), String::new()));
        }
    }
    found.retain(|(_, says)| !says.is_empty());
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use inhouse_core::api::ApiKind;

    #[test]
    fn examples_references_and_sentences() {
        let doc = "\
Spins a thread until it holds. It is slow with wool.

See Also
--------
weave : Put two threads over each other.
Wheel.stop : Stop the wheel
    at once.

Examples
--------
>>> t = Thread()

Spin it for three whole turns:

>>> t.spin(3)
3 turns done in all
>>> t
";
        let api = |full: &str, doc: &str| ApiDoc {
            name: full.rsplit('.').next().unwrap().into(),
            qualified_name: full.into(),
            module: "loom".into(),
            kind: Some(ApiKind::Method),
            description: inhouse_core::docs::first_sentence(doc),
            doc: doc.into(),
            ..ApiDoc::default()
        };
        let apis =
            [api("loom.Thread.spin", doc), api("loom.weave", "Weaves."), api("loom.Wheel.stop", "Stops.")];
        let seen: Vec<_> = pairs(&apis).into_iter().map(|p| (p.origin, p.query, p.apis[0].clone())).collect();
        let row = |origin, query: &str, api: &str| (origin, query.to_owned(), api.to_owned());
        assert_eq!(
            seen,
            [
                row(Origin::Summary, "Spins a thread until it holds.", "loom.Thread.spin"),
                row(Origin::Detail, "It is slow with wool.", "loom.Thread.spin"),
                row(Origin::Example, "Spin it for three whole turns", "loom.Thread.spin"),
                row(Origin::Reference, "Put two threads over each other.", "loom.weave"),
                row(Origin::Reference, "Stop the wheel at once.", "loom.Wheel.stop"),
            ]
        );
    }
}
