//! Documents from code: a block below the lines of the APIs that it calls, under its own names or in a renamed twin.

use std::ops::Range;

use inhouse_core::{ApiDoc, prompt, python};
use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};
use ruff_python_ast::token::TokenKind;
use ruff_python_ast::visitor::{Visitor, walk_expr};
use ruff_python_ast::{Expr, Stmt};
use ruff_text_size::Ranged;
use rustc_hash::{FxHashMap, FxHashSet};

use super::blocks::{CodeBlock, edited};
use super::document::{Document, weight};
use super::examples::Example;
use super::names::{Names, is_keyword};
use super::parameters::Parameters;
use super::wording::{Distance, renamed, wish, wrapped};
use crate::pairs::table::is_answer;
use crate::pairs::{ApiTable, vary};

/// A block that calls more has no room for all their lines.
const MAX_APIS: usize = 8;
const MAX_LINE_BYTES: usize = 260;
/// How often the line of a method has its `self`: documentation that others wrote leaves it out.
const SHOWS_RECEIVER: f64 = 0.85;
/// Lines of APIs above code that calls none of them.
const MAX_UNUSED: usize = 4;

/// Makes documents of blocks.
pub(super) struct Coder<'a> {
    table: &'a ApiTable,
    /// Library -> its documented APIs, for noise.
    of_library: FxHashMap<&'a str, Vec<u32>>,
    names: Names<'a>,
    /// Chance, for every API that is called, of another of its library beside it.
    noise: f64,
    /// Share of twins.
    twins: f64,
    /// Share of documents whose lines have example calls below them.
    examples: f64,
}

/// What a document of code is made of.
pub(super) struct Sheet {
    /// The API lines; empty where the block calls none.
    pub block: String,
    /// The imports that the code needs.
    pub imports: String,
    /// Of an example: the statements before it, and the comment that asks for it.
    pub context: String,
    /// The code, in pieces of different weight.
    pub code: Vec<(String, u8)>,
    /// APIs that are called, and others beside them.
    pub n_apis: usize,
    pub n_noise: usize,
    pub is_twin: bool,
}

/// What has another name in a document: nothing where it is no twin.
struct Twin {
    /// Identifiers.
    names: FxHashMap<String, String>,
    /// Keywords of the APIs that are called.
    keywords: FxHashMap<String, String>,
}

impl Sheet {
    /// As one document, with the API lines or without.
    pub fn document(&self, with_apis: bool) -> Document {
        let mut document = Document::default();
        if with_apis && !self.block.is_empty() {
            document.push(&self.block, weight::BLOCK);
        }
        document.push(&self.imports, weight::CONTEXT);
        document.push(&self.context, weight::CONTEXT);
        document.cut();
        for (text, weight) in &self.code {
            document.push(text, *weight);
        }
        document
    }
}

impl<'a> Coder<'a> {
    pub fn new(
        table: &'a ApiTable,
        words: &'a [String],
        noise: f64,
        twins: f64,
        examples: f64,
        held_out: bool,
    ) -> Self {
        let mut of_library: FxHashMap<&str, Vec<u32>> = FxHashMap::default();
        for (id, api) in table.apis().iter().enumerate() {
            if is_answer(api) && api.prompt_line().len() <= MAX_LINE_BYTES {
                of_library.entry(api.library()).or_default().push(id as u32);
            }
        }
        Self { table, of_library, names: Names { words, held_out }, noise, twins, examples }
    }

    /// The block with its API lines; `None` where it calls nothing that is documented, or too much.
    pub fn sheet(&self, block: &CodeBlock, rng: &mut impl Rng) -> Option<Sheet> {
        let (mut sheet, twin) = self.cover(block, rng)?;
        sheet.code = rewritten(&block.text, &block.calls, self.table, &twin)?;
        Some(sheet)
    }

    /// Code that calls none of the APIs whose lines stand above it: a model must also leave them alone.
    pub fn unused(&self, block: &CodeBlock, rng: &mut impl Rng) -> Option<Sheet> {
        let mut libraries: Vec<&str> = self.of_library.keys().copied().collect();
        libraries.sort_unstable();
        let library = libraries.choose(rng)?;
        let ids = self.of_library.get(library)?;
        let is_twin = rng.random_bool(self.twins);
        let n_lines = rng.random_range(1..=MAX_UNUSED);
        let listed: Vec<u32> = ids.choose_multiple(rng, n_lines).copied().collect();
        if listed.iter().any(|&id| block.text.contains(self.table.api(id).name.as_str())) {
            return None;
        }
        let names = if is_twin { self.twin(block, &listed, rng) } else { FxHashMap::default() };
        let mut keywords = FxHashMap::default();
        let mut lines = String::new();
        for &id in &listed {
            lines.push_str(&self.line(self.table.api(id), &names, is_twin, &mut keywords, rng)?);
        }
        Some(Sheet {
            block: format!("# [start]\n{lines}# [end]\n"),
            imports: import_lines(&block.imports, &FxHashMap::default()),
            context: String::new(),
            code: vec![(block.text.clone(), weight::PLAIN)],
            n_apis: 0,
            n_noise: listed.len(),
            is_twin,
        })
    }

    /// The example with the lines of all APIs that it and the statements before it call, and a comment above it.
    pub fn example(&self, example: &Example, rng: &mut impl Rng) -> Option<Sheet> {
        let Example { block, begin, .. } = example;
        let (mut sheet, twin) = self.cover(block, rng)?;
        let (before, shown) = block.text.split_at(*begin);
        let (calls_before, calls): (Vec<_>, Vec<_>) =
            block.calls.iter().cloned().partition(|(at, _)| at < begin);
        let calls: Vec<_> = calls.into_iter().map(|(at, full)| (at - begin, full)).collect();
        for (text, _) in rewritten(before, &calls_before, self.table, &twin)? {
            sheet.context.push_str(&text);
        }
        let says = if example.describes_api {
            wish(&example.says, &[], Distance::Any, rng)
        } else {
            vary(&example.says, 0.15, rng)
        };
        sheet.context.push_str(&wrapped(&renamed(&says, &twin.names), "# ", rng));
        sheet.context.push('\n');
        sheet.code = rewritten(shown, &calls, self.table, &twin)?;
        Some(sheet)
    }

    /// What stands above the code of a block, and the names that it has there.
    fn cover(&self, block: &CodeBlock, rng: &mut impl Rng) -> Option<(Sheet, Twin)> {
        let mut called: Vec<u32> = Vec::new();
        for (_, full) in &block.calls {
            let id = self.table.id(full)?;
            if !called.contains(&id) {
                called.push(id);
            }
        }
        if called.is_empty() || called.len() > MAX_APIS {
            return None;
        }
        let mut listed: Vec<u32> = called.clone();
        let mut n_noise = 0;
        for &id in &called {
            if rng.random_bool(self.noise)
                && let Some(other) =
                    self.of_library.get(self.table.api(id).library()).and_then(|ids| ids.choose(rng))
                && !listed.contains(other)
            {
                listed.push(*other);
                n_noise += 1;
            }
        }
        listed.shuffle(rng);
        let is_twin = rng.random_bool(self.twins);
        let names = if is_twin { self.twin(block, &listed, rng) } else { FxHashMap::default() };
        let mut lines = String::new();
        let mut keywords: FxHashMap<String, String> = FxHashMap::default();
        let shows_examples = rng.random_bool(self.examples);
        for &id in &listed {
            let api = self.table.api(id);
            lines.push_str(&self.line(api, &names, is_twin, &mut keywords, rng)?);
            // An example that is the code itself would tell all of it.
            let calls = prompt::example_calls(api, if shows_examples { 2 } else { 0 });
            for call in calls.iter().filter(|call| call.is_ascii() && !block.text.contains(call.as_str())) {
                lines.push_str(&format!("#   {}\n", renamed(call, &names)));
            }
        }
        let sheet = Sheet {
            block: format!("# [start]\n{lines}# [end]\n"),
            imports: import_lines(&block.imports, &names),
            context: String::new(),
            code: Vec::new(),
            n_apis: called.len(),
            n_noise,
            is_twin,
        };
        Some((sheet, Twin { names, keywords }))
    }

    /// New names for all that comes from a library: APIs, their classes, and what imports bind.
    fn twin(&self, block: &CodeBlock, listed: &[u32], rng: &mut impl Rng) -> FxHashMap<String, String> {
        let mut names: FxHashMap<String, String> = FxHashMap::default();
        let mut taken: FxHashSet<String> = FxHashSet::default();
        let mut invent = |old: &str, names: &mut FxHashMap<String, String>, rng: &mut _| {
            if old.len() < 2 && !old.is_empty() || old.is_empty() || names.contains_key(old) {
                return;
            }
            let camel = old.starts_with(|c: char| c.is_ascii_uppercase());
            let mut name = self.names.name(camel, rng);
            while block.text.contains(&name) || !taken.insert(name.clone()) {
                name = self.names.name(camel, rng);
            }
            names.insert(old.to_owned(), name);
        };
        for &id in listed {
            let api = self.table.api(id);
            invent(&api.name, &mut names, rng);
            let owner = api.qualified_name.rsplit('.').nth(1).unwrap_or_default();
            if owner.starts_with(|c: char| c.is_ascii_uppercase()) {
                invent(owner, &mut names, rng);
            }
            invent(api.library(), &mut names, rng);
        }
        let libraries: FxHashSet<&str> = listed.iter().map(|&id| self.table.api(id).library()).collect();
        for (bound, full) in &block.imports {
            let library = full.split('.').next().unwrap_or_default();
            if libraries.contains(library) {
                invent(bound, &mut names, rng);
                // `from a.b import name as other`: the name itself.
                invent(full.rsplit('.').next().unwrap_or_default(), &mut names, rng);
            }
        }
        names
    }

    fn line(
        &self,
        api: &ApiDoc,
        names: &FxHashMap<String, String>,
        is_twin: bool,
        keywords: &mut FxHashMap<String, String>,
        rng: &mut impl Rng,
    ) -> Option<String> {
        let name = names.get(&api.name).cloned().unwrap_or_else(|| api.name.clone());
        let renames = is_twin && rng.random_bool(0.4);
        let shows_receiver = rng.random_bool(SHOWS_RECEIVER);
        let line = match Parameters::parse(&api.signature) {
            None => format!("# {name}{}: {}\n", api.signature, renamed(&api.description, names)),
            Some(parameters) => {
                let mut rename = |old: &str| {
                    if let Some(new) = keywords.get(old) {
                        return new.clone();
                    }
                    let new = if renames && old.len() > 1 && old != "self" {
                        self.names.parameter(rng)
                    } else {
                        old.to_owned()
                    };
                    keywords.insert(old.to_owned(), new.clone());
                    new
                };
                let signature = parameters.render(true, &mut rename);
                let signature = match api.receiver.as_deref().filter(|_| shows_receiver) {
                    Some(receiver) if signature.is_empty() => receiver.to_owned(),
                    Some(receiver) => format!("{receiver}, {signature}"),
                    None => signature,
                };
                let gives =
                    parameters.returns.as_ref().map_or_else(String::new, |gives| format!(" -> {gives}"));
                let head = renamed(&format!("({signature}){gives}"), names);
                format!("# {name}{head}: {}\n", renamed(&api.description, names))
            }
        };
        let folded = line.split_whitespace().collect::<Vec<_>>().join(" ");
        (folded.len() <= MAX_LINE_BYTES && folded.is_ascii()).then(|| format!("{folded}\n"))
    }
}

/// The lines that import what `imports` says: the bound name, and the dotted one.
pub(super) fn import_lines(imports: &[(String, String)], names: &FxHashMap<String, String>) -> String {
    let new = |part: &str| names.get(part).cloned().unwrap_or_else(|| part.to_owned());
    let mut lines = String::new();
    for (bound, full) in imports {
        let full_new = full.split('.').map(new).collect::<Vec<_>>().join(".");
        let bound_new = new(bound);
        let line = match full_new.rsplit_once('.') {
            _ if bound == full => format!("import {bound_new}\n"),
            Some((module, last)) if last == bound_new => format!("from {module} import {last}\n"),
            // `import a.b` binds `a`.
            _ if full.starts_with(&format!("{bound}.")) => format!("import {full_new}\n"),
            _ => format!("import {full_new} as {bound_new}\n"),
        };
        if !lines.contains(&line) {
            lines.push_str(&line);
        }
    }
    if !lines.is_empty() {
        lines.push('\n');
    }
    lines
}

/// The code under the names of a twin; the names of called APIs weigh more there, since the block alone gives them.
fn rewritten(
    text: &str,
    calls: &[(usize, String)],
    table: &ApiTable,
    twin: &Twin,
) -> Option<Vec<(String, u8)>> {
    if twin.names.is_empty() {
        return Some(vec![(text.to_owned(), weight::CODE)]);
    }
    let edits = python::read_valid(text, |parsed| Some(renamings(text, parsed, calls, table, twin)))?;
    let plain: Vec<(Range<usize>, String)> =
        edits.iter().map(|(range, new, _)| (range.clone(), new.clone())).collect();
    let (out, _) = edited(text, &(0..text.len()), plain);
    // The same code, but for names.
    python::read_valid(&out, |_| Some(()))?;
    let mut pieces = Vec::new();
    let mut at = 0;
    for (range, new, is_api) in &edits {
        pieces.push((text[at..range.start].to_owned(), weight::CODE));
        pieces.push((new.clone(), if *is_api { weight::NAME } else { weight::CODE }));
        at = range.end;
    }
    pieces.push((text[at..].to_owned(), weight::CODE));
    Some(pieces)
}

/// A range of the text, what it becomes, and whether that is an API's name.
type Renaming = (Range<usize>, String, bool);

fn renamings(
    text: &str,
    parsed: &python::Tree,
    calls: &[(usize, String)],
    table: &ApiTable,
    Twin { names, keywords }: &Twin,
) -> Vec<Renaming> {
    let called: FxHashMap<usize, &str> = calls.iter().map(|(at, full)| (*at, full.as_str())).collect();
    // A name counts as the API's where it is called or imported; everywhere else a variable or attribute of that name is too, so that
    // the code stays one with itself.
    let mut edits: Vec<Renaming> = Vec::new();
    for token in parsed.tokens().iter().filter(|token| token.kind() == TokenKind::Name) {
        let range = token.start().to_usize()..token.end().to_usize();
        if let Some(new) = names.get(&text[range.clone()]) {
            let is_api = called.contains_key(&range.start);
            edits.push((range, new.clone(), is_api));
        }
    }
    let mut finder = KeywordFinder { called: &called, found: Vec::new() };
    for stmt in parsed.suite() {
        finder.visit_stmt(stmt);
    }
    for (range, full) in finder.found {
        let takes = table.id(full).is_some_and(|id| table.api(id).signature.contains(&text[range.clone()]));
        if let Some(new) = keywords.get(&text[range.clone()]).filter(|_| takes) {
            edits.retain(|(other, _, _)| *other != range);
            edits.push((range, new.clone(), false));
        }
    }
    edits.sort_by_key(|(range, _, _)| range.start);
    edits
}

/// The keywords of calls of APIs.
struct KeywordFinder<'b> {
    called: &'b FxHashMap<usize, &'b str>,
    found: Vec<(Range<usize>, &'b str)>,
}

impl<'a> Visitor<'a> for KeywordFinder<'_> {
    fn visit_stmt(&mut self, stmt: &'a Stmt) {
        ruff_python_ast::visitor::walk_stmt(self, stmt);
    }

    fn visit_expr(&mut self, expr: &'a Expr) {
        if let Expr::Call(call) = expr {
            let at = match &*call.func {
                Expr::Attribute(attribute) => attribute.attr.start().to_usize(),
                other => other.start().to_usize(),
            };
            if let Some(full) = self.called.get(&at) {
                for keyword in &call.arguments.keywords {
                    if let Some(name) = keyword.arg.as_ref().filter(|name| !is_keyword(name)) {
                        self.found.push((name.start().to_usize()..name.end().to_usize(), full));
                    }
                }
            }
        }
        walk_expr(self, expr);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use inhouse_core::api::ApiKind;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    fn api(full: &str, kind: ApiKind, signature: &str) -> ApiDoc {
        ApiDoc {
            name: full.rsplit('.').next().unwrap().into(),
            qualified_name: full.into(),
            module: full.split('.').next().unwrap().into(),
            kind: Some(kind),
            signature: signature.into(),
            description: "Works on a Cloth as weave_all does.".into(),
            ..ApiDoc::default()
        }
    }

    #[test]
    fn twins_are_one_with_themselves() {
        let table = ApiTable::new(vec![
            api("loom.weave_all", ApiKind::Function, "(threads, pattern_name=None) -> Cloth"),
            api("loom.Cloth.hem", ApiKind::Method, "(width)"),
            api("loom.other", ApiKind::Function, "(x)"),
        ]);
        let text = "def shirt(threads):\n    cloth = lm.weave_all(threads, pattern_name=3)\n    print(weave_all)\n    return cloth.hem(2)\n";
        let at = |what: &str| text.find(what).unwrap();
        let block = CodeBlock {
            path: "shop/a.py".into(),
            line: 1,
            text: text.into(),
            imports: vec![("lm".into(), "loom".into()), ("weave_all".into(), "loom.weave_all".into())],
            calls: vec![(at("weave_all"), "loom.weave_all".into()), (at("hem"), "loom.Cloth.hem".into())],
            candidates: 2,
            tests: 0.0,
        };
        let words = ["red".to_owned()];
        let coder = Coder::new(&table, &words, 0.0, 1.0, 0.0, false);
        let mut renamed_keywords = 0;
        for seed in 0..60 {
            let sheet = coder.sheet(&block, &mut ChaCha8Rng::seed_from_u64(seed)).unwrap();
            let document = sheet.document(true);
            let text = document.text();
            for old in ["loom", "weave_all", "hem", "Cloth", "lm"] {
                let mut words = text.split(|c: char| !(c.is_alphanumeric() || c == '_'));
                assert!(words.all(|word| word != old), "{old}: {text}");
            }
            let name_of =
                |n: usize| text.lines().skip(1).nth(n).unwrap()[2..].split('(').next().unwrap().to_owned();
            for n in 0..2 {
                let name = name_of(n);
                assert!(
                    sheet.code.iter().any(|(piece, weight)| *piece == name && *weight == weight::NAME),
                    "{name}: {text}"
                );
            }
            // A keyword is the one of the line.
            let code: String = sheet.code.iter().map(|(piece, _)| piece.as_str()).collect();
            let given = code.split("(threads, ").nth(1).unwrap().split('=').next().unwrap();
            assert!(sheet.block.contains(&format!("{given}=None")), "{text}");
            renamed_keywords += usize::from(given != "pattern_name");
            assert!(python::read_valid(text, |_| Some(())).is_some());
            assert_eq!(sheet.document(false).text(), text.split_once("# [end]\n").unwrap().1);
        }
        assert!(renamed_keywords > 10);
        let plain = Coder::new(&table, &words, 0.0, 0.0, 0.0, false)
            .sheet(&block, &mut ChaCha8Rng::seed_from_u64(1))
            .unwrap();
        assert!(plain.document(true).text().contains(
            "# weave_all(threads, pattern_name=None) -> Cloth: Works on a Cloth as weave_all does.\n"
        ));
        assert!(plain.imports.contains("import loom as lm\nfrom loom import weave_all\n"));
    }

    #[test]
    fn an_example_stands_below_a_comment_that_asks_for_it() {
        let table = ApiTable::new(vec![
            api("loom.weave_all", ApiKind::Function, "(threads) -> Cloth"),
            api("loom.Cloth.hem", ApiKind::Method, "(width, soft_side=None)"),
        ]);
        let before = "cloth = loom.weave_all([1])\n";
        let text = format!("{before}cloth.hem(2, soft_side=3)\n");
        let at = |what: &str| text.find(what).unwrap();
        let calls = vec![(at("weave_all"), "loom.weave_all".into()), (at("hem"), "loom.Cloth.hem".into())];
        let block = CodeBlock {
            path: "loom/a.py".into(),
            line: 1,
            text: text.clone(),
            imports: vec![("loom".into(), "loom".into())],
            calls,
            candidates: 0,
            tests: 0.0,
        };
        let example = Example {
            block,
            begin: before.len(),
            says: "Hem what weave_all gives".into(),
            describes_api: false,
        };
        let words = ["red".to_owned()];
        let made = |twins: f64, seed: u64| {
            let coder = Coder::new(&table, &words, 0.0, twins, 0.0, false);
            coder.example(&example, &mut ChaCha8Rng::seed_from_u64(seed)).unwrap()
        };
        for seed in 0..40 {
            let sheet = made(1.0, seed);
            let document = sheet.document(true);
            let text = document.text();
            assert!(python::read_valid(text, |_| Some(())).is_some(), "{text}");
            for old in ["loom", "weave_all", "hem", "Cloth"] {
                let mut words = text.split(|c: char| !(c.is_alphanumeric() || c == '_'));
                assert!(words.all(|word| word != old), "{old}: {text}");
            }
            let code: String = sheet.code.iter().map(|(piece, _)| piece.as_str()).collect();
            let names: Vec<&str> = sheet
                .code
                .iter()
                .filter(|(_, weight)| *weight == weight::NAME)
                .map(|(piece, _)| piece.as_str())
                .collect();
            let [hem] = names[..] else { panic!("{names:?}") };
            assert!(code.starts_with(&format!("cloth.{hem}(2, ")), "{text}");
            assert!(
                sheet.block.contains(&format!("# {hem}(width, ")) || !code.contains("soft_side"),
                "{text}"
            );
            assert!(text.ends_with(&format!("{}{code}", sheet.context)));
            // The statements before it come first, the comment asks for what follows.
            let (first, comment) = sheet.context.split_once('\n').unwrap();
            assert!(first.starts_with("cloth = ") && comment.starts_with("# "), "{text}");
        }
        let plain = made(0.0, 1);
        let document = plain.document(true);
        let (_, code) = document.text().split_once("# [end]\nimport loom\n\n").unwrap();
        assert!(
            code.starts_with(&format!("{before}# ")) && code.ends_with("\ncloth.hem(2, soft_side=3)\n"),
            "{code}"
        );
    }
}
