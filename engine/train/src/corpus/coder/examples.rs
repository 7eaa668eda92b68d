//! Examples of docstrings: the statements that users are shown, with what is said of them and the APIs that they call.
//!
//! An example takes along the statements before it in its docstring that it needs. What it does not import it has as a doctest has
//! it: from the module that the docstring stands in, or as the other examples of the package import it (`np`).

use std::ops::Range;

use inhouse_core::{constrain, docs, python};
use rayon::prelude::*;
use ruff_python_ast::visitor::{Visitor, walk_expr, walk_stmt};
use ruff_python_ast::{Expr, ExprContext, Stmt};
use ruff_text_size::Ranged;
use rustc_hash::{FxHashMap, FxHashSet};
use serde::{Deserialize, Serialize};

use super::blocks::{CallRule, CodeBlock, MAX_LINE_BYTES, has_word};
use super::code::import_lines;
use crate::corpus::SourceFile;
use crate::pairs::{ApiTable, prose};

/// Lines under one comment: of a longer example the first ones stay.
const MAX_LINES: usize = 12;
/// Words of a sentence above an example.
const MAX_WORDS: usize = 30;

/// One example.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Example {
    /// The statements, after those before them that they need.
    pub block: CodeBlock,
    /// The byte of the block at which they begin.
    pub begin: usize,
    /// The sentence above them, or the first one of their docstring where they call the API that it describes.
    pub says: String,
    /// Whether it is the latter.
    pub describes_api: bool,
}

/// A statement, and the names that it binds (or changes what they stand for) and reads.
struct Statement {
    text: String,
    names: NamesUsed,
}

/// What was found in one docstring.
struct Docstring {
    /// The API that it describes, by its bare name; empty for a module.
    name: String,
    /// 1-based line.
    line: usize,
    description: String,
    /// All statements but imports.
    statements: Vec<Statement>,
    /// Names that its imports bind, and the dotted names that they stand for.
    imports: Vec<(String, String)>,
    /// The sentence above each example, and its statements.
    examples: Vec<(Option<String>, Range<usize>)>,
}

/// What the docstrings of a file have their names from.
struct Page {
    docstrings: Vec<Docstring>,
    imports: Vec<(String, String)>,
    defined: Vec<(String, String)>,
}

/// The examples of a package's files, none longer than `max_bytes`, that call a documented API and say what they do.
pub(super) fn examples(files: &[SourceFile], rule: &CallRule<'_>, max_bytes: usize) -> Vec<Example> {
    let pages: Vec<Option<Page>> = files.par_iter().map(|file| page(file, rule.table)).collect();
    let customs = customs(pages.iter().flatten());
    files
        .par_iter()
        .zip(&pages)
        .filter_map(|(file, page)| Some((file, page.as_ref()?)))
        .flat_map_iter(|(file, page)| {
            page.docstrings
                .iter()
                .flat_map(|docstring| {
                    (0..docstring.examples.len())
                        .filter_map(|i| example(file, page, docstring, i, &customs, rule, max_bytes))
                })
                .collect::<Vec<Example>>()
        })
        .collect()
}

/// What names mostly stand for where the examples of a package import them.
fn customs<'p>(pages: impl Iterator<Item = &'p Page>) -> Vec<(String, String)> {
    let mut counts: FxHashMap<&str, FxHashMap<&str, usize>> = FxHashMap::default();
    for (bound, full) in pages.flat_map(|page| &page.docstrings).flat_map(|docstring| &docstring.imports) {
        *counts.entry(bound).or_default().entry(full).or_default() += 1;
    }
    let mut found: Vec<(String, String)> = counts
        .into_iter()
        .filter_map(|(bound, full)| {
            let (most, _) =
                full.into_iter().max_by_key(|(full, count)| (*count, std::cmp::Reverse(*full)))?;
            Some((bound.to_owned(), most.to_owned()))
        })
        .collect();
    found.sort_unstable();
    found
}

fn page(file: &SourceFile, table: &ApiTable) -> Option<Page> {
    if !file.text.contains(">>>") && !file.text.contains("xample") && !file.text.contains("::") {
        return None;
    }
    python::read_valid(&file.text, |parsed| page_of(file, parsed.suite(), table))
}

fn page_of(file: &SourceFile, body: &[Stmt], table: &ApiTable) -> Option<Page> {
    let mut docstrings = Vec::new();
    let mut add = |name: &str, literal: &Expr| docstrings.extend(docstring(file, table, name, literal));
    if let Some(literal) = docstring_of(body) {
        add("", literal);
    }
    documented(body, &mut add);
    if docstrings.is_empty() {
        return None;
    }
    let found = constrain::calls(table.names(), &file.module, file.is_package, &file.text, body);
    let defined = body
        .iter()
        .filter_map(|stmt| match stmt {
            Stmt::FunctionDef(def) => Some(def.name.as_str()),
            Stmt::ClassDef(class) => Some(class.name.as_str()),
            _ => None,
        })
        .map(|name| (name.to_owned(), public_name(table, &file.module, name)))
        .collect();
    Some(Page { docstrings, imports: found.imports, defined })
}

fn docstring_of(body: &[Stmt]) -> Option<&Expr> {
    match body.first()? {
        Stmt::Expr(first) if first.value.is_string_literal_expr() => Some(&first.value),
        _ => None,
    }
}

fn documented(body: &[Stmt], add: &mut dyn FnMut(&str, &Expr)) {
    for stmt in body {
        let (name, inner) = match stmt {
            Stmt::FunctionDef(def) => (&def.name, &def.body),
            Stmt::ClassDef(class) => (&class.name, &class.body),
            _ => continue,
        };
        if let Some(literal) = docstring_of(inner) {
            add(name, literal);
        }
        if stmt.is_class_def_stmt() {
            documented(inner, add);
        }
    }
}

/// The path by which users import what a module defines: the shortest one that is documented.
fn public_name(table: &ApiTable, module: &str, name: &str) -> String {
    let ends = module.match_indices('.').map(|(at, _)| at).chain([module.len()]);
    let mut paths = ends.map(|end| format!("{}.{name}", &module[..end]));
    paths.find(|path| table.id(path).is_some()).unwrap_or_else(|| format!("{module}.{name}"))
}

fn docstring(file: &SourceFile, table: &ApiTable, name: &str, literal: &Expr) -> Option<Docstring> {
    let Expr::StringLiteral(string) = literal else { return None };
    let mut api = inhouse_core::ApiDoc::default();
    docs::describe(&mut api, string.value.to_str());
    let lines: Vec<&str> = api.doc.lines().collect();
    let (mut statements, mut examples, mut imports) = (Vec::new(), Vec::new(), String::new());
    let mut end = 0;
    for found in docs::examples(&api.doc) {
        let above = sentence_above(&lines[end.min(found.line)..found.line]);
        end = found.line + found.code.lines().count();
        let code = docs::typed_code(&found.code);
        let first = statements.len();
        let read = python::read_valid(&code, |parsed| {
            for stmt in parsed.suite() {
                let text = &code[stmt.start().to_usize()..stmt.end().to_usize()];
                if matches!(stmt, Stmt::Import(_) | Stmt::ImportFrom(_)) {
                    imports.push_str(text);
                    imports.push('\n');
                } else {
                    let mut names = NamesUsed::default();
                    names.visit_stmt(stmt);
                    statements.push(Statement { text: text.to_owned(), names });
                }
            }
            Some(())
        });
        if read.is_some() {
            examples.push((above, first..statements.len()));
        }
    }
    let line = file.text[..literal.start().to_usize()].bytes().filter(|&byte| byte == b'\n').count() + 1;
    let calls =
        |body: &[Stmt]| constrain::calls(table.names(), &file.module, file.is_package, &imports, body);
    let imports =
        python::read_valid(&imports, |parsed| Some(calls(parsed.suite()).imports)).unwrap_or_default();
    (!statements.is_empty()).then(|| Docstring {
        name: name.to_owned(),
        line,
        description: api.description,
        statements,
        imports,
        examples,
    })
}

/// The last sentence of the paragraph right above an example; `lines` are those since the example before it.
fn sentence_above(lines: &[&str]) -> Option<String> {
    let is_mark = |line: &str| line == "::" || line.starts_with("..") || line.starts_with("```");
    let is_heading = |line: &str| {
        let name = line.trim_end_matches(':').to_ascii_lowercase();
        matches!(name.as_str(), "example" | "examples" | "usage" | "doctest")
            || line.bytes().all(|byte| b"-=~^".contains(&byte))
    };
    let mut paragraph: Vec<&str> = Vec::new();
    for line in lines.iter().rev().map(|line| line.trim()) {
        match line {
            "" if paragraph.is_empty() => {}
            _ if is_mark(line) && paragraph.is_empty() => {}
            "" => break,
            _ if is_mark(line) || is_heading(line) => break,
            _ => paragraph.insert(0, line),
        }
    }
    let last = prose::sentences(&paragraph.join(" ")).pop()?;
    prose::sentence(last.trim_end_matches(':'), MAX_WORDS)
}

fn example(
    file: &SourceFile,
    page: &Page,
    docstring: &Docstring,
    i: usize,
    customs: &[(String, String)],
    rule: &CallRule<'_>,
    max_bytes: usize,
) -> Option<Example> {
    let (above, range) = &docstring.examples[i];
    let mut n_lines = 0;
    let shown: Vec<&Statement> = docstring.statements[range.clone()]
        .iter()
        .take_while(|statement| {
            n_lines += statement.text.lines().count();
            n_lines <= MAX_LINES
        })
        .collect();
    // What is read and not bound before, from the end on.
    let mut needed: FxHashSet<&str> = FxHashSet::default();
    shown.iter().rev().for_each(|statement| statement.names.need(&mut needed));
    let mut before: Vec<&Statement> = Vec::new();
    for statement in docstring.statements[..range.start].iter().rev() {
        if statement.names.bound.iter().any(|name| needed.contains(name.as_str())) {
            statement.names.need(&mut needed);
            before.insert(0, statement);
        }
    }
    let joined = |statements: &[&Statement]| -> String {
        statements.iter().flat_map(|statement| [statement.text.as_str(), "\n"]).collect()
    };
    let mut text = joined(&before);
    let begin = text.len();
    text.push_str(&joined(&shown));
    let good = text.is_ascii()
        && !text.contains('\t')
        && text.len() <= max_bytes
        && text.lines().all(|line| line.len() <= MAX_LINE_BYTES);
    if !good {
        return None;
    }
    let bound: FxHashSet<&str> = before
        .iter()
        .chain(&shown)
        .flat_map(|statement| &statement.names.bound)
        .map(String::as_str)
        .collect();
    let library = file.module.split('.').next().unwrap_or_default();
    let own = [(library.to_owned(), library.to_owned())];
    let mut imports: Vec<(String, String)> = Vec::new();
    for (name, full) in
        docstring.imports.iter().chain(&page.defined).chain(customs).chain(&page.imports).chain(&own)
    {
        let is_new = !bound.contains(name.as_str()) && !imports.iter().any(|(known, _)| known == name);
        if is_new && has_word(&text, name) {
            imports.push((name.clone(), full.clone()));
        }
    }
    let prelude = import_lines(&imports, &FxHashMap::default());
    let source = format!("{prelude}{text}");
    let found = python::read_valid(&source, |parsed| {
        Some(constrain::calls(rule.table.names(), "", false, &source, parsed.suite()))
    })?;
    let calls: Vec<(usize, String)> = rule
        .calls(file, &found)
        .into_iter()
        .filter_map(|(at, id)| {
            Some((at.checked_sub(prelude.len())?, rule.table.api(id).qualified_name.clone()))
        })
        .collect();
    let shows = |full: &str| full.rsplit('.').next() == Some(docstring.name.as_str());
    let mut called = calls.iter().filter(|(at, _)| *at >= begin).peekable();
    called.peek()?;
    let describes_api = above.is_none();
    let says = match above {
        Some(above) => above.clone(),
        None if called.any(|(_, full)| shows(full)) => prose::sentence(&docstring.description, MAX_WORDS)?,
        None => return None,
    };
    let (path, line) = (file.path.clone(), docstring.line);
    let block = CodeBlock { path, line, text, imports, calls, candidates: 0, tests: 0.0 };
    says.is_ascii().then_some(Example { block, begin, says, describes_api })
}

/// The names that a statement binds, or changes what they stand for, and those that it reads.
#[derive(Default)]
struct NamesUsed {
    bound: FxHashSet<String>,
    read: FxHashSet<String>,
}

impl<'a> Visitor<'a> for NamesUsed {
    fn visit_stmt(&mut self, stmt: &'a Stmt) {
        match stmt {
            Stmt::FunctionDef(def) => drop(self.bound.insert(def.name.to_string())),
            Stmt::ClassDef(class) => drop(self.bound.insert(class.name.to_string())),
            Stmt::AugAssign(assign) => {
                if let Expr::Name(name) = &*assign.target {
                    self.read.insert(name.id.to_string());
                }
            }
            _ => {}
        }
        walk_stmt(self, stmt);
    }

    fn visit_expr(&mut self, expr: &'a Expr) {
        match expr {
            Expr::Name(name) if name.ctx == ExprContext::Load => drop(self.read.insert(name.id.to_string())),
            Expr::Name(name) => drop(self.bound.insert(name.id.to_string())),
            // `x.a = 1` and `x[0] = 1` change x.
            Expr::Attribute(target) if target.ctx == ExprContext::Store => self.change(&target.value),
            Expr::Subscript(target) if target.ctx == ExprContext::Store => self.change(&target.value),
            _ => {}
        }
        walk_expr(self, expr);
    }
}

impl NamesUsed {
    /// Makes what is needed after the statement what is needed before it.
    fn need<'n>(&'n self, needed: &mut FxHashSet<&'n str>) {
        needed.retain(|name| !self.bound.contains(*name));
        needed.extend(self.read.iter().map(String::as_str));
    }

    fn change(&mut self, value: &Expr) {
        if let Expr::Name(name) = value {
            self.bound.insert(name.id.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::coder::config::Resolution;
    use crate::pairs::table::api;
    use inhouse_core::api::ApiKind;

    fn table() -> ApiTable {
        ApiTable::new(vec![
            api("loom.Thread", ApiKind::Class),
            api("loom.Thread.spin", ApiKind::Method),
            api("loom.weave", ApiKind::Function),
        ])
    }

    const TEXT: &str = "
class Thread:
    '''A thread of wool that holds. It is red.

    Examples
    --------
    >>> t = Thread('red')
    >>> u = 3
    >>> t.spin(u)  # doctest: +SKIP
    3 turns

    Nothing else matters. Spin it for three whole turns:

    >>> t.spin(3)
    3 turns

    And count the turns of all:

    >>> u = 4
    >>> u += t.spin(u)
    >>> u
    7

    This one does nothing. Spin what is left:

    >>> t.spin(u)
    '''

    def spin(self, turns):
        '''Spins the thread until it holds.

        First, put the threads over each other.

        >>> import loom as lm
        >>> cloth = lm.weave(
        ...     1,
        ...     2)
        >>> cloth
        <cloth>

        Then:

        >>> not python at all
        '''

def weave(a, b):
    '''Weaves two threads together.

    Example::

        for i in range(3):
            weave(i, lm.Thread())

    That is all.
    '''

def other():
    '''Does other things here.

    >>> print(1)
    1
    '''
";

    fn found(text: &str) -> Vec<Example> {
        let file = SourceFile {
            path: "loom/_thread.py".into(),
            module: "loom._thread".into(),
            is_package: false,
            text: text.into(),
        };
        let table = table();
        examples(&[file], &CallRule::new(&table, Resolution::Imports), 400)
    }

    #[test]
    fn doctests_and_literal_blocks_with_what_they_call() {
        let found = found(TEXT);
        let seen: Vec<_> = found
            .iter()
            .map(|example| {
                let Example { block, begin, says, describes_api } = example;
                let calls: Vec<&str> = block.calls.iter().map(|(_, full)| full.as_str()).collect();
                for (at, full) in &block.calls {
                    assert!(block.text[*at..].starts_with(full.rsplit('.').next().unwrap()));
                }
                let (before, shown) = block.text.split_at(*begin);
                (says.as_str(), *describes_api, before, shown, calls, block.line)
            })
            .collect();
        assert_eq!(
            seen,
            [
                (
                    "A thread of wool that holds.",
                    true,
                    "",
                    "t = Thread('red')\nu = 3\nt.spin(u)\n",
                    vec!["loom.Thread", "loom.Thread.spin"],
                    3
                ),
                (
                    "Spin it for three whole turns",
                    false,
                    "t = Thread('red')\n",
                    "t.spin(3)\n",
                    vec!["loom.Thread", "loom.Thread.spin"],
                    3
                ),
                (
                    "And count the turns of all",
                    false,
                    "t = Thread('red')\n",
                    "u = 4\nu += t.spin(u)\nu\n",
                    vec!["loom.Thread", "loom.Thread.spin"],
                    3
                ),
                (
                    "Spin what is left",
                    false,
                    "t = Thread('red')\nu = 4\nu += t.spin(u)\n",
                    "t.spin(u)\n",
                    vec!["loom.Thread", "loom.Thread.spin", "loom.Thread.spin"],
                    3
                ),
                (
                    "First, put the threads over each other.",
                    false,
                    "",
                    "cloth = lm.weave(\n    1,\n    2)\ncloth\n",
                    vec!["loom.weave"],
                    30
                ),
                (
                    "Weaves two threads together.",
                    true,
                    "",
                    "for i in range(3):\n    weave(i, lm.Thread())\n",
                    vec!["loom.weave", "loom.Thread"],
                    47
                ),
            ]
        );
        let imports = |i: usize| -> Vec<(&str, &str)> {
            found[i].block.imports.iter().map(|(bound, full)| (bound.as_str(), full.as_str())).collect()
        };
        assert_eq!(imports(1), [("Thread", "loom.Thread")]);
        assert_eq!(imports(4), [("lm", "loom")]);
        // `lm` is what another docstring of the package imports by that name.
        assert_eq!(imports(5), [("weave", "loom.weave"), ("lm", "loom")]);
    }

    #[test]
    fn damaged_docstrings_are_passed_over() {
        let mut n_found = 0;
        for at in 0..TEXT.len() {
            for new in ["", "'", ">>> ", "\n", "é"] {
                let text = format!("{}{new}{}", &TEXT[..at], &TEXT[at + usize::from(new != "é")..]);
                for Example { block, begin, .. } in found(&text) {
                    n_found += 1;
                    assert!(python::read_valid(&block.text[begin..], |_| Some(())).is_some());
                    assert!(block.calls.iter().any(|(at, _)| *at >= begin && *at < block.text.len()));
                }
            }
        }
        assert!(n_found > 1000, "{n_found}");
    }
}
