//! Pairs from guides: the paragraph above a piece of code with the APIs that it calls, and sentences that name one API.

use inhouse_core::constrain;
use inhouse_core::docs;
use rustc_hash::FxHashMap;

use super::code::Resolver;
use super::table::ApiTable;
use super::{Origin, Pair, code, prose};
use crate::corpus::{Page, SourceFile};

/// A paragraph over more different APIs than this says little of each.
const MAX_APIS: usize = 4;
/// Names that guides use for libraries without importing them.
const USUAL: &[(&str, &str)] = &[
    ("np", "numpy"),
    ("pd", "pandas"),
    ("plt", "matplotlib.pyplot"),
    ("xr", "xarray"),
    ("da", "dask.array"),
    ("dd", "dask.dataframe"),
    ("sns", "seaborn"),
    ("sm", "statsmodels.api"),
];
/// An API in more of a library's pieces than this share is part of the scenery where another is called as well.
const SCENERY: f64 = 0.03;
/// With fewer pieces shares say nothing.
const MIN_PIECES: usize = 200;

/// What a page gave, before it is known what its library's guides call everywhere.
pub(super) struct Found {
    pairs: Vec<Pair>,
    /// Of each piece, the APIs called.
    called: Vec<Vec<String>>,
}

/// The pairs of a library's pages; `library` is its top-level name.
pub(super) fn pairs(pages: &[Page], library: &str, table: &ApiTable) -> Vec<Pair> {
    use rayon::prelude::*;
    let found: Vec<Found> = pages.par_iter().map(|page| of_page(page, library, table)).collect();
    let mut counts: FxHashMap<&str, usize> = FxHashMap::default();
    let mut pieces = 0;
    for called in found.iter().flat_map(|found| &found.called) {
        pieces += 1;
        for api in called {
            *counts.entry(api).or_default() += 1;
        }
    }
    let limit = (pieces.max(MIN_PIECES) as f64 * SCENERY) as usize;
    let scenery: rustc_hash::FxHashSet<String> =
        counts.into_iter().filter(|(_, count)| *count > limit).map(|(api, _)| api.to_owned()).collect();
    let mut pairs: Vec<Pair> = found.into_iter().flat_map(|found| found.pairs).collect();
    for pair in &mut pairs {
        if pair.apis.iter().any(|api| !scenery.contains(api)) {
            pair.apis.retain(|api| !scenery.contains(api));
        }
    }
    pairs.retain(|pair| pair.apis.len() <= MAX_APIS);
    pairs
}

/// The page's code as one file, and where each piece lies in it.
fn joined(page: &Page, library: &str) -> (SourceFile, Vec<Option<std::ops::Range<usize>>>) {
    let mut text = String::new();
    let mut places = Vec::new();
    for piece in &page.pieces {
        // One piece that is no Python must not hide the others.
        if docs::parse_source(&piece.code).is_none() {
            places.push(None);
            continue;
        }
        let begin = text.len();
        text.push_str(&piece.code);
        places.push(Some(begin..text.len()));
        text.push_str("\n\n");
    }
    let mut usual = String::new();
    if text.contains(&format!("{library}.")) && !text.contains(&format!("import {library}")) {
        usual.push_str(&format!("import {library}\n"));
    }
    for (name, full) in USUAL {
        if text.contains(&format!("{name}.")) && !text.contains(&format!("as {name}")) {
            usual.push_str(&format!("import {full} as {name}\n"));
        }
    }
    for place in places.iter_mut().flatten() {
        *place = place.start + usual.len()..place.end + usual.len();
    }
    let file = SourceFile {
        path: page.path.clone(),
        // No module of the library itself: relative imports lead nowhere.
        module: library.to_owned(),
        is_package: true,
        text: usual + &text,
    };
    (file, places)
}

fn of_page(page: &Page, library: &str, table: &ApiTable) -> Found {
    let mut found = Found { pairs: Vec::new(), called: Vec::new() };
    let (file, places) = joined(page, library);
    let mut add = |query: String, apis: Vec<String>, line: usize| {
        let path = page.path.clone();
        found.pairs.push(Pair { query, origin: Origin::Guide, apis, guessed: false, path, line });
    };
    if let Some(parsed) = docs::parse_source(&file.text) {
        let calls = constrain::calls(table.names(), &file.module, true, &file.text, parsed.suite());
        let resolver = Resolver::new(&file, table, &calls);
        for (piece, place) in page.pieces.iter().zip(&places) {
            let Some(place) = place else { continue };
            let first = calls.calls.partition_point(|call| call.at < place.start);
            let mut apis: Vec<String> = Vec::new();
            for call in calls.calls[first..].iter().take_while(|call| call.at < place.end) {
                let id = resolver.resolve(call).map(|(id, _)| id).or_else(|| {
                    // `from library import *` is not always shown.
                    let bare = call.target.is_none() && call.root.is_none();
                    bare.then(|| table.callable(&format!("{library}.{}", call.name))).flatten()
                });
                let Some(id) = id else { continue };
                let full = &table.api(id).qualified_name;
                // A guide speaks of its own library; others prepare its examples' data.
                if table.api(id).library() == library && !apis.contains(full) {
                    apis.push(full.clone());
                }
            }
            if apis.is_empty() {
                continue;
            }
            found.called.push(apis.clone());
            for query in queries(&piece.says, &apis) {
                add(query, apis.clone(), piece.line);
            }
        }
    }
    for paragraph in &page.paragraphs {
        for sentence in prose::sentences(paragraph) {
            if let Some((query, api)) = naming(&sentence, library, table) {
                add(query, vec![api], 0);
            }
        }
    }
    found.pairs.extend(code::pairs(&file, table));
    found
}

/// What is asked with a paragraph: all of it where it is short, and its last sentence. Names of the answers are taken out: who
/// knows them need not ask.
fn queries(says: &str, apis: &[String]) -> Vec<String> {
    let is_answer = |name: &str| apis.iter().any(|api| last(api) == last(name));
    let without = without_names(says, &is_answer);
    let mut found: Vec<String> = Vec::new();
    found.extend(prose::sentence(&without, 60));
    if let Some(end) = prose::sentences(&without).last() {
        found.extend(prose::sentence(end, 40));
    }
    found.dedup();
    found
}

fn last(name: &str) -> &str {
    name.trim_end_matches("()").rsplit('.').next().unwrap_or_default()
}

/// The text without the marked names (`` `x` ``, `` :role:`x` ``) that `taken` says yes to.
fn without_names(text: &str, taken: &dyn Fn(&str) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    for part in marked(text) {
        match part {
            Part::Plain(text) => out.push_str(text),
            Part::Marked { whole, name, .. } if !taken(name) => out.push_str(whole),
            Part::Marked { .. } => {}
        }
    }
    out.split_whitespace().collect::<Vec<_>>().join(" ")
}

enum Part<'t> {
    Plain(&'t str),
    Marked { whole: &'t str, role: &'t str, name: &'t str },
}

/// A text cut at what stands between backticks, with the role before it.
fn marked(text: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(tick) = rest.find('`') {
        let ticks = rest[tick..].len() - rest[tick..].trim_start_matches('`').len();
        let fence = &rest[tick..tick + ticks];
        let Some(length) = rest[tick + ticks..].find(fence) else { break };
        let end = tick + ticks + length + ticks;
        let before = &rest[..tick];
        // `:role:` ends right before the first backtick.
        let begin = before.strip_suffix(':').map_or(tick, |head| {
            let start = head
                .rfind(|c: char| !(c.is_ascii_alphanumeric() || c == ':' || c == '-'))
                .map_or(0, |at| at + head[at..].chars().next().map_or(1, char::len_utf8));
            if head[start..].starts_with(':') { start } else { tick }
        });
        parts.push(Part::Plain(&rest[..begin]));
        let inner = &rest[tick + ticks..tick + ticks + length];
        let name = match inner.split_once('<') {
            Some((_, target)) => target.trim_end_matches('>'),
            None => inner,
        };
        let role = rest[begin..tick].trim_matches(':');
        let role = role.rsplit(':').next().unwrap_or(role);
        parts.push(Part::Marked {
            whole: &rest[begin..end],
            role,
            name: name.trim_start_matches(['~', '.', '!']),
        });
        rest = &rest[end..];
    }
    parts.push(Part::Plain(rest));
    parts
}

/// A sentence that names exactly one API, by a role of Sphinx, without that name.
fn naming(sentence: &str, library: &str, table: &ApiTable) -> Option<(String, String)> {
    let mut named: Option<&str> = None;
    for part in marked(sentence) {
        if let Part::Marked { role: "meth" | "func" | "class" | "obj" | "py", name, .. } = part
            && named.replace(name).is_some()
        {
            return None;
        }
    }
    let name = named?.trim_end_matches("()");
    let id = table.callable(name).or_else(|| table.callable(&format!("{library}.{name}")))?;
    let query = prose::sentence(&without_names(sentence, &|other| last(other) == last(name)), 40)?;
    // "See also." asks for nothing.
    (query.split_whitespace().count() >= 5).then(|| (query, table.api(id).qualified_name.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::page;
    use crate::pairs::table::api;
    use inhouse_core::api::ApiKind;

    #[test]
    fn paragraphs_with_the_calls_below_and_sentences_that_name_one() {
        let table = ApiTable::new(vec![
            api("loom.weave", ApiKind::Function),
            api("loom.Cloth", ApiKind::Class),
            api("loom.Cloth.hem", ApiKind::Method),
            api("loom.Cloth.dye", ApiKind::Method),
        ]);
        let text = "\
You may use :meth:`~loom.Cloth.dye` to change how it looks at last.

Two threads become a cloth. Put them together with ``weave``::

    cloth = loom.weave(a, b)

    this is no python

Then make the borders hold:

>>> cloth.hem()
>>> # and give all of it a colour
>>> cloth.dye()

>>> weave(c)
";
        let found = pairs(&[page("doc/a.rst".into(), text)], "loom", &table);
        let seen: Vec<_> =
            found.iter().map(|pair| (pair.query.as_str(), pair.apis.join(" "), pair.line)).collect();
        assert_eq!(
            seen,
            [
                ("Then make the borders hold", "loom.Cloth.hem loom.Cloth.dye".to_owned(), 11),
                ("You may use to change how it looks at last.", "loom.Cloth.dye".to_owned(), 0),
                ("and give all of it a colour", "loom.Cloth.dye".to_owned(), 3),
            ]
        );
        let text = text.replace("    this is no python\n", "    cloth.hem()\n");
        let found = pairs(&[page("doc/a.rst".into(), &text)], "loom", &table);
        assert_eq!(found[0].query, "Two threads become a cloth. Put them together with");
        assert_eq!(found[1].query, "Put them together with");
        assert_eq!(found[0].apis, ["loom.weave", "loom.Cloth.hem"]);
    }

    #[test]
    fn what_is_called_everywhere_is_left_out_beside_others() {
        let table =
            ApiTable::new(vec![api("loom.weave", ApiKind::Function), api("loom.cut", ApiKind::Function)]);
        let mut text = "First cut the cloth:\n\n>>> c = loom.weave()\n>>> loom.cut(c)\n\n".to_owned();
        text.push_str(&"Here we weave it.\n\n>>> loom.weave()\n\n".repeat(20));
        let found = pairs(&[page("a.rst".into(), &text)], "loom", &table);
        assert_eq!(found[0].apis, ["loom.cut"]);
        assert_eq!(found[1].apis, ["loom.weave"]);
    }

    #[test]
    fn no_text_breaks_the_marks() {
        for text in ["`", "``a`", ":x:`", "é:`a <b>`:`", ":`a`", "a::b:`~c.d`"] {
            assert!(!marked(text).is_empty());
        }
        assert_eq!(
            without_names("use :py:meth:`~a.b` or ``c``, é:func:`b`", &|name| last(name) == "b"),
            "use or ``c``, é"
        );
    }
}
