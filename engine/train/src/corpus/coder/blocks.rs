//! Well-rounded blocks of code with the APIs that they call: functions, methods, small classes, and statements that belong together.

use std::ops::Range;

use inhouse_core::constrain::{self, Call, Calls};
use inhouse_core::{docs, python};
use ruff_python_ast::{Expr, Stmt};
use ruff_text_size::Ranged;
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use super::config::Resolution;
use super::library::stable_hash;
use crate::corpus::SourceFile;
use crate::pairs::ApiTable;
use crate::pairs::code::Resolver;
use crate::pairs::table::is_answer;

const MIN_BYTES: usize = 60;
const MIN_LINES: usize = 2;
/// A docstring is longer than what a prompt has room for: its first sentence stays.
const MAX_DOCSTRING_BYTES: usize = 160;
pub(super) const MAX_LINE_BYTES: usize = 120;

/// One block, dedented.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct CodeBlock {
    /// The file in its package.
    pub path: String,
    /// 1-based line on which it begins.
    pub line: usize,
    pub text: String,
    /// Names that it uses of what the file imports: the name, and the dotted name that it stands for.
    pub imports: Vec<(String, String)>,
    /// Calls of documented APIs: the byte of the name that is called, and the API's dotted name.
    pub calls: Vec<(usize, String)>,
    /// Documented APIs of the libraries that the file imports which have the name of one that is called.
    pub candidates: usize,
    /// Share of its functions that are tests.
    pub tests: f64,
}

impl CodeBlock {
    /// The top-level name that its file is imported by.
    pub fn library(&self) -> &str {
        self.path.split('/').next().unwrap_or_default().trim_end_matches(".py")
    }
}

/// How calls are told to be APIs.
pub(super) struct CallRule<'t> {
    pub table: &'t ApiTable,
    resolution: Resolution,
    /// The APIs of every library by their bare names: the paper's way to tell what is called.
    bare: FxHashMap<(&'t str, &'t str), Vec<u32>>,
}

impl<'t> CallRule<'t> {
    pub fn new(table: &'t ApiTable, resolution: Resolution) -> Self {
        let mut bare: FxHashMap<(&str, &str), Vec<u32>> = FxHashMap::default();
        for (id, api) in table.apis().iter().enumerate().filter(|(_, api)| is_answer(api)) {
            bare.entry((api.library(), api.name.as_str())).or_default().push(id as u32);
        }
        Self { table, resolution, bare }
    }

    /// Of the calls that were found in code of a file those of documented APIs: the byte of the name, and the API's number.
    pub fn calls(&self, file: &SourceFile, found: &Calls) -> Vec<(usize, u32)> {
        let resolver = Resolver::new(file, self.table, found);
        let api = |call: &Call| match self.resolution {
            Resolution::Imports => resolver.resolve(call).map(|(id, _)| id),
            Resolution::BareName => {
                let name = call.name.as_str();
                let ids = resolver.libraries().iter().find_map(|&library| self.bare.get(&(library, name)))?;
                let chance = stable_hash(&[&file.path, &call.at.to_string()]);
                Some(ids[(chance % ids.len() as u64) as usize])
            }
        };
        found.calls.iter().filter_map(|call| Some((call.at, api(call)?))).collect()
    }

    /// How many APIs of the libraries that a file imports have one of these names.
    fn candidates(&self, file: &SourceFile, found: &Calls, names: &[&str]) -> usize {
        let resolver = Resolver::new(file, self.table, found);
        let has = |library: &&str, name: &str| self.bare.get(&(*library, name)).map_or(0, Vec::len);
        names
            .iter()
            .map(|name| resolver.libraries().iter().map(|library| has(library, name)).sum::<usize>())
            .sum()
    }
}

/// The blocks of a file, none longer than `max_bytes`; none where the file does not parse.
pub(super) fn blocks(file: &SourceFile, rule: &CallRule<'_>, max_bytes: usize) -> Vec<CodeBlock> {
    python::read_valid(&file.text, |parsed| Some(blocks_of(file, parsed.suite(), rule, max_bytes)))
        .unwrap_or_default()
}

fn blocks_of(file: &SourceFile, body: &[Stmt], rule: &CallRule<'_>, max_bytes: usize) -> Vec<CodeBlock> {
    let text = file.text.as_str();
    let table = rule.table;
    let found = constrain::calls(table.names(), &file.module, file.is_package, text, body);
    let calls = rule.calls(file, &found);
    let mut regions = Vec::new();
    split(text, body, max_bytes, &mut regions);
    let mut blocks = Vec::new();
    for region in regions {
        let (clean, at) = cleaned(text, &region, body);
        let lines = clean.lines().filter(|line| !line.trim().is_empty()).count();
        let good = clean.len() >= MIN_BYTES
            && clean.len() <= max_bytes
            && lines >= MIN_LINES
            && clean.is_ascii()
            && !clean.contains('\t')
            && clean.lines().all(|line| line.len() <= MAX_LINE_BYTES);
        if !good {
            continue;
        }
        let of_block = |range: &Range<usize>, at: usize| range.contains(&at);
        let calls: Vec<(usize, String)> = calls
            .iter()
            .filter(|(byte, _)| of_block(&region, *byte))
            .filter_map(|(byte, id)| Some((at(*byte)?, table.api(*id).qualified_name.clone())))
            .collect();
        let mut imports: Vec<(String, String)> = Vec::new();
        for (bound, full) in &found.imports {
            if has_word(&clean, bound) && !imports.iter().any(|(known, _)| known == bound) {
                imports.push((bound.clone(), full.clone()));
            }
        }
        let mut called: Vec<&str> =
            calls.iter().map(|(_, full)| full.rsplit('.').next().unwrap_or_default()).collect();
        called.sort_unstable();
        called.dedup();
        let candidates = rule.candidates(file, &found, &called);
        let functions = clean.matches("def ").count();
        let tests = clean.matches("def test").count() as f64 / functions.max(1) as f64;
        let line = text[..region.start].bytes().filter(|&byte| byte == b'\n').count() + 1;
        blocks.push(CodeBlock {
            path: file.path.clone(),
            line,
            text: clean,
            imports,
            calls,
            candidates,
            tests,
        });
    }
    blocks
}

pub(super) fn has_word(text: &str, word: &str) -> bool {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    !word.is_empty()
        && text.match_indices(word).any(|(at, _)| {
            !text[..at].ends_with(|c: char| is_name(c) || c == '.')
                && !text[at + word.len()..].starts_with(is_name)
        })
}

/// Start of the line on which a statement begins, decorators included.
fn line_start(text: &str, at: usize) -> usize {
    text[..at].rfind('\n').map_or(0, |i| i + 1)
}

/// Byte ranges of whole lines: functions, classes where they are short, groups of other statements.
fn split(text: &str, body: &[Stmt], max_bytes: usize, regions: &mut Vec<Range<usize>>) {
    let mut group: Option<Range<usize>> = None;
    for stmt in body {
        let whole = line_start(text, stmt.start().to_usize())..stmt.end().to_usize();
        match stmt {
            Stmt::FunctionDef(_) => {
                regions.extend(group.take());
                regions.push(whole);
            }
            Stmt::ClassDef(class) => {
                regions.extend(group.take());
                if whole.len() <= max_bytes {
                    regions.push(whole);
                } else {
                    split(text, &class.body, max_bytes, regions);
                }
            }
            Stmt::Import(_) | Stmt::ImportFrom(_) => regions.extend(group.take()),
            Stmt::Expr(expr) if matches!(&*expr.value, Expr::StringLiteral(_)) => {}
            _ => {
                // Statements with a blank line between them belong apart, and so do those that are too much together.
                let joined = group.as_ref().map(|group| group.start..whole.end);
                let apart = group.as_ref().is_some_and(|group| {
                    text.get(group.end..whole.start).is_some_and(|gap| gap.matches('\n').count() > 1)
                        && group.len() > MIN_BYTES
                });
                match joined {
                    Some(joined) if joined.len() <= max_bytes && !apart => group = Some(joined),
                    _ => {
                        regions.extend(group.take());
                        group = Some(whole);
                    }
                }
            }
        }
    }
    regions.extend(group);
}

/// A region without its indentation and without long docstrings, and where a byte of the file is in it.
fn cleaned(
    text: &str,
    region: &Range<usize>,
    body: &[Stmt],
) -> (String, impl Fn(usize) -> Option<usize> + use<>) {
    let mut edits: Vec<(Range<usize>, String)> = Vec::new();
    docstrings(body, region, &mut edits);
    let indent = text[region.clone()].len() - text[region.clone()].trim_start_matches(' ').len();
    let mut start = region.start;
    while start < region.end {
        let line_end = text[start..region.end].find('\n').map_or(region.end, |i| start + i + 1);
        let blanks = text[start..line_end].len() - text[start..line_end].trim_start_matches(' ').len();
        let cut = blanks.min(indent);
        if cut > 0 && !edits.iter().any(|(range, _)| range.start < start + cut && start < range.end) {
            edits.push((start..start + cut, String::new()));
        }
        start = line_end;
    }
    edits.sort_by_key(|(range, _)| range.start);
    let (out, at) = edited(text, region, edits);
    let trimmed = out.trim_end().len();
    let mut out = out;
    out.truncate(trimmed);
    out.push('\n');
    (out, at)
}

/// The text of a region with edits made, which are in order and do not overlap; and where a byte of it has gone.
pub(super) fn edited(
    text: &str,
    region: &Range<usize>,
    edits: Vec<(Range<usize>, String)>,
) -> (String, impl Fn(usize) -> Option<usize> + use<>) {
    let mut out = String::with_capacity(region.len());
    let mut at = region.start;
    // (byte of the text from which on, shift) after each edit, and what is gone.
    let mut shifts: Vec<(Range<usize>, i64)> = Vec::new();
    for (range, new) in edits {
        if range.start < at || range.end > region.end {
            continue;
        }
        out.push_str(&text[at..range.start]);
        out.push_str(&new);
        at = range.end;
        shifts.push((range, out.len() as i64 - at as i64));
    }
    out.push_str(&text[at..region.end]);
    let begin = region.start as i64;
    let place = move |byte: usize| {
        let i = shifts.partition_point(|(range, _)| range.end <= byte);
        if shifts.get(i).is_some_and(|(range, _)| range.contains(&byte)) {
            return None;
        }
        let shift = i.checked_sub(1).map_or(-begin, |i| shifts[i].1);
        usize::try_from(byte as i64 + shift).ok()
    };
    (out, place)
}

fn docstrings(body: &[Stmt], region: &Range<usize>, edits: &mut Vec<(Range<usize>, String)>) {
    for stmt in body {
        let inner = match stmt {
            Stmt::FunctionDef(def) => &def.body,
            Stmt::ClassDef(class) => &class.body,
            _ => continue,
        };
        let (start, end) = (stmt.start().to_usize(), stmt.end().to_usize());
        if end <= region.start || start >= region.end {
            continue;
        }
        if let Some(Stmt::Expr(first)) = inner.first()
            && let Expr::StringLiteral(string) = &*first.value
        {
            let range = first.start().to_usize()..first.end().to_usize();
            let inside = region.start <= range.start && range.end <= region.end;
            if inside && range.len() > MAX_DOCSTRING_BYTES {
                let sentence = docs::first_sentence(string.value.to_str());
                let plain = sentence.len() <= MAX_DOCSTRING_BYTES && !sentence.contains(['"', '\\', '\n']);
                let new = if plain { format!("\"\"\"{sentence}\"\"\"") } else { "...".into() };
                edits.push((range, new));
            }
        }
        docstrings(inner, region, edits);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pairs::table::api;
    use inhouse_core::api::ApiKind;

    #[test]
    fn blocks_with_what_they_call() {
        let table =
            ApiTable::new(vec![api("loom.weave", ApiKind::Function), api("loom.cut", ApiKind::Function)]);
        let docstring = format!("Weaves a shirt. {}", "It is long. ".repeat(20));
        let text = format!(
            "\
import loom as lm
from loom import cut as snip

class Shop:
    {filler}
    def shirt(self, a):
        \"\"\"{docstring}\"\"\"
        cloth = lm.weave(a)
        if cloth:
            cut(cloth)
            return snip(cloth, by=a)

thread = lm.weave('a')
other = lm.weave(thread)
size = len('some more text to be long enough')
",
            filler = "x = 'a filler line that makes the class long'\n    ".repeat(12),
        );
        let file = SourceFile { path: "a.py".into(), module: "shop".into(), is_package: false, text };
        let found = blocks(&file, &CallRule::new(&table, Resolution::Imports), 400);
        let shirt = found.iter().find(|block| block.text.starts_with("def shirt")).unwrap();
        assert!(
            shirt.text.contains("    \"\"\"Weaves a shirt.\"\"\"\n    cloth = lm.weave(a)\n"),
            "{}",
            shirt.text
        );
        let called: Vec<(&str, &str)> =
            shirt.calls.iter().map(|(at, full)| (&shirt.text[*at..at + 5], full.as_str())).collect();
        assert_eq!(called, [("weave", "loom.weave"), ("snip(", "loom.cut")]);
        assert_eq!(shirt.imports, [("lm".into(), "loom".into()), ("snip".into(), "loom.cut".into())]);
        assert!(found.iter().any(|block| block.text.starts_with("thread = ") && block.calls.len() == 2));
        // The paper's rule takes any call of that name, and misses the alias.
        let found = blocks(&file, &CallRule::new(&table, Resolution::BareName), 400);
        let shirt = found.iter().find(|block| block.text.starts_with("def shirt")).unwrap();
        let called: Vec<&str> = shirt.calls.iter().map(|(_, full)| full.as_str()).collect();
        assert_eq!(called, ["loom.weave", "loom.cut"]);
        assert!(shirt.text[shirt.calls[1].0..].starts_with("cut(cloth)"));
    }
}
