//! The uses of APIs in the code of one file.

use std::collections::{BTreeMap, BTreeSet};

use ruff_python_ast::visitor::{Visitor, walk_expr, walk_stmt};
use ruff_python_ast::{Expr, ExprAttribute, ExprCall, Stmt};
use ruff_text_size::Ranged;
use rustc_hash::{FxHashMap, FxHashSet};

use super::contexts::Contexts;
use super::literal;
use super::pages::{Pages, Piece, Refusal};
use crate::ApiDoc;
use crate::api::ApiKind;
use crate::constrain::{self, Library, is_builtin_member};
use crate::index::{ApiUsage, UsageExample, UsageTerms, terms_of};
use crate::prompt::one_line;

/// Examples of a name that are kept of one file.
const MAX_EXAMPLES: usize = 1;
/// What an example says of itself is no longer.
const MAX_SAYS: usize = 120;

/// Names that examples use without an import, and the modules that they stand for.
const CUSTOMS: &[(&str, &str)] = &[
    ("np", "numpy"),
    ("numpy", "numpy"),
    ("pd", "pandas"),
    ("plt", "matplotlib"),
    ("os", "os"),
    ("sys", "sys"),
    ("re", "re"),
    ("math", "math"),
    ("json", "json"),
    ("random", "random"),
    ("time", "time"),
    ("datetime", "datetime"),
    ("io", "io"),
    ("torch", "torch"),
];

/// The bare names that are looked for.
pub(super) struct Names {
    /// What is called.
    called: FxHashSet<String>,
    /// What is read without a call.
    read: FxHashSet<String>,
    /// The libraries that they are of.
    libraries: BTreeSet<String>,
}

impl Names {
    pub fn new(apis: &[ApiDoc]) -> Self {
        let mut names =
            Self { called: FxHashSet::default(), read: FxHashSet::default(), libraries: BTreeSet::new() };
        for api in apis {
            if !api.library().is_empty() {
                names.libraries.insert(api.library().to_owned());
            }
            let is_read = match api.kind {
                Some(ApiKind::Module) => continue,
                Some(ApiKind::Property | ApiKind::Constant) => true,
                Some(_) => false,
                None => api.signature.is_empty(),
            };
            if is_read { &mut names.read } else { &mut names.called }.insert(api.name.clone());
        }
        names
    }
}

/// How files are read.
pub(super) struct Reading<'r> {
    pub library: &'r Library,
    pub names: &'r Names,
    /// Whether words, keywords and examples are kept.
    pub text: bool,
}

/// A use of a name.
struct Place {
    at: usize,
    name: String,
    target: Option<String>,
    root: Option<String>,
}

impl Reading<'_> {
    /// The uses of a file's code, by name.
    pub fn uses(&self, pages: &Pages) -> Result<Vec<ApiUsage>, Refusal> {
        let mut found: BTreeMap<String, ApiUsage> = BTreeMap::new();
        // What one piece imports the later ones have, as the cells of a notebook do.
        let mut imports: Vec<(String, String)> = Vec::new();
        let mut prelude = String::new();
        for piece in &pages.pieces {
            let code = format!("{prelude}{}", piece.code);
            let parsed = match super::parse(&code) {
                Ok(parsed) => parsed,
                Err(refusal) if pages.all_code => return Err(refusal),
                Err(_) => continue,
            };
            self.piece(piece, &code, prelude.len(), &parsed, &mut imports, pages.all_code, &mut found);
            if !pages.all_code {
                let imported = parsed
                    .suite()
                    .iter()
                    .filter(|stmt| is_import(stmt) && stmt.start().to_usize() >= prelude.len());
                let lines: String = imported
                    .filter_map(|stmt| {
                        Some(format!(
                            "{}\n",
                            code.get(stmt.range().start().to_usize()..stmt.end().to_usize())?
                        ))
                    })
                    .collect();
                prelude.push_str(&lines);
            }
        }
        Ok(found.into_values().collect())
    }

    #[expect(clippy::too_many_arguments, reason = "one step of a loop, parted for its length")]
    fn piece(
        &self,
        piece: &Piece,
        code: &str,
        begin: usize,
        parsed: &ruff_python_parser::Parsed<ruff_python_ast::ModModule>,
        imports: &mut Vec<(String, String)>,
        needs_import: bool,
        found: &mut BTreeMap<String, ApiUsage>,
    ) {
        let calls = constrain::calls(self.library, "", false, code, parsed.suite());
        imports.extend(calls.imports.iter().cloned());
        let is_ours = |full: &str| self.names.libraries.contains(full.split('.').next().unwrap_or_default());
        if needs_import && !imports.iter().any(|(_, full)| is_ours(full)) {
            return;
        }
        let mut syntax = Syntax {
            names: self.names,
            code,
            text: self.text,
            statement: None,
            reads: Vec::new(),
            calls: FxHashMap::default(),
        };
        parsed.suite().iter().for_each(|stmt| syntax.visit_stmt(stmt));
        let mut places: Vec<Place> = calls
            .calls
            .into_iter()
            .map(|call| Place { at: call.at, name: call.name, target: call.target, root: call.root })
            .collect();
        places.append(&mut syntax.reads);
        places.retain(|place| place.at >= begin);
        places.sort_by_key(|place| place.at);

        let contexts = Contexts::new(code, parsed);
        let foreign = |root: &str| match imports.iter().rfind(|(bound, _)| bound == root) {
            Some((_, full)) => !is_ours(full),
            // What examples take for granted.
            None => CUSTOMS.iter().any(|(alias, full)| *alias == root && !is_ours(full)),
        };
        // Receivers on which something is called that Python's own types have not.
        let mut ours: FxHashSet<(usize, &str)> = FxHashSet::default();
        for place in &places {
            if let Some(root) = place.root.as_deref()
                && (place.target.is_some() || !is_builtin_member(&place.name))
                && self.names.called.contains(&place.name)
                && !foreign(root)
            {
                ours.insert((contexts.function(place.at), root));
            }
        }
        let mut analyzer = UsageTerms::new();
        let mut counted: FxHashSet<(String, usize, String)> = FxHashSet::default();
        for place in &places {
            let function = contexts.function(place.at);
            let target = place.target.as_deref().filter(|target| is_ours(target) || !target.contains('.'));
            let bare = match (target, &place.target) {
                // By the name that it is documented under, whatever the file calls it.
                (Some(target), _) => target.rsplit('.').next().unwrap_or(target),
                (None, Some(_)) => continue,
                (None, None) => {
                    let Some(root) = place.root.as_deref() else { continue };
                    let sure = !is_builtin_member(&place.name) || ours.contains(&(function, root));
                    if matches!(root, "self" | "cls" | "super") || foreign(root) || !sure {
                        continue;
                    }
                    place.name.as_str()
                }
            };
            if !self.names.called.contains(bare) && !self.names.read.contains(bare) {
                continue;
            }
            let used = found
                .entry(bare.to_owned())
                .or_insert_with(|| ApiUsage { name: bare.to_owned(), ..ApiUsage::default() });
            used.calls = used.calls.saturating_add(1);
            if let Some(target) = target {
                *used.targets.entry(target.to_owned()).or_default() += 1;
            }
            if !self.text {
                continue;
            }
            let call = syntax.calls.get(&place.at);
            let mut words = String::new();
            let mut says = contexts.comments(place.at);
            if says.is_empty() {
                says.clone_from(&piece.says);
            }
            if let Some(function) = contexts.function_of(function) {
                words.push_str(function.name.trim_start_matches("Test").trim_start_matches("test_"));
                words.push_str(". ");
                words.push_str(&function.says);
                if says.is_empty() {
                    says.clone_from(&function.says);
                }
            }
            words.push_str(". ");
            words.push_str(&says);
            for keyword in call.iter().flat_map(|call| &call.keywords) {
                *used.keywords.entry(keyword.clone()).or_default() += 1;
                words.push_str(". ");
                words.push_str(keyword);
            }
            // A context counts once for a name, however often the name stands in it.
            terms_of(&mut analyzer, &words, |term| {
                if term != "test" && counted.insert((bare.to_owned(), function, term.to_owned())) {
                    *used.terms.entry(term.to_owned()).or_default() += 1;
                }
            });
            let line = piece.line + (contexts.line(place.at) - contexts.line(begin)) as u32;
            if let Some(example) = example(code, call, &contexts, place, &says, target.is_some(), line) {
                keep(&mut used.examples, example);
            }
        }
    }
}

fn is_import(stmt: &Stmt) -> bool {
    matches!(stmt, Stmt::Import(_) | Stmt::ImportFrom(_))
}

/// Keeps the best different examples.
fn keep(examples: &mut Vec<UsageExample>, example: UsageExample) {
    if examples.iter().any(|known| known.code == example.code) {
        return;
    }
    examples.push(example);
    examples.sort_by(|a, b| b.score.cmp(&a.score).then(a.line.cmp(&b.line)));
    examples.truncate(MAX_EXAMPLES);
}

fn example(
    code: &str,
    call: Option<&CallShape>,
    contexts: &Contexts<'_>,
    place: &Place,
    says: &str,
    resolved: bool,
    line: u32,
) -> Option<UsageExample> {
    let call = call?;
    let text = one_line(&call.shown)?;
    let mut score = 10;
    score += match text.len() {
        0..=60 => 4,
        61..=90 => 2,
        _ => 0,
    };
    score += if says.is_empty() { 0 } else { 3 };
    score += if call.literal { 4 } else { 0 };
    score += if call.keywords.is_empty() { 0 } else { 1 };
    score += if resolved { 2 } else { 0 };
    score += if call.n_arguments > 0 { 2 } else { 0 };
    // A test that something fails shows how not to call it.
    let statement = contexts
        .statement(place.at)
        .and_then(|range| code.get(range.start().to_usize()..range.end().to_usize()));
    let fails = statement.is_some_and(|text| text.contains("raises(") || text.contains("assertRaises"));
    if fails {
        score -= 8;
    }
    let mut says = says.to_owned();
    says.truncate(says.floor_char_boundary(MAX_SAYS));
    // Words of people may hold what is no one else's business.
    let says = if literal::names_a_secret(&says) || says.contains("://") || says.contains('@') {
        String::new()
    } else {
        says
    };
    Some(UsageExample {
        code: text,
        says: says.split_whitespace().collect::<Vec<_>>().join(" "),
        line,
        score,
    })
}

/// What is to be known of a call.
struct CallShape {
    /// The statement where it is little more than the call, else the call; strings cleaned.
    shown: String,
    keywords: Vec<String>,
    n_arguments: usize,
    /// Whether every argument is written out or a name.
    literal: bool,
}

/// Longer code is not cleaned: it would not fit into a line of a prompt.
const MAX_CLEANED: u32 = 480;

/// Gathers the calls of a syntax tree by the place of their name, and the reads of properties.
struct Syntax<'n, 'a> {
    names: &'n Names,
    code: &'n str,
    /// Whether what is shown of a call is wanted.
    text: bool,
    /// The simple statement around.
    statement: Option<&'a Stmt>,
    reads: Vec<Place>,
    calls: FxHashMap<usize, CallShape>,
}

impl<'a> Syntax<'_, 'a> {
    fn note(&mut self, call: &'a ExprCall, expr: &'a Expr) {
        let (at, name) = match &*call.func {
            Expr::Attribute(attribute) => (attribute.attr.start(), attribute.attr.as_str()),
            Expr::Name(name) => (name.start(), name.id.as_str()),
            _ => return,
        };
        // A file may call a function by another name than its own.
        let may_be_shown = self.names.called.contains(name) || call.func.is_name_expr();
        if !self.text || !may_be_shown {
            return;
        }
        let is_plain = |expr: &Expr| is_simple(expr, 0);
        let literal = call.arguments.args.iter().all(is_plain)
            && call.arguments.keywords.iter().all(|keyword| is_plain(&keyword.value));
        let keywords =
            call.arguments.keywords.iter().filter_map(|keyword| Some(keyword.arg.as_ref()?.to_string()));
        let whole = self.statement.filter(|stmt| match stmt {
            Stmt::Expr(stmt) => stmt.value.range() == expr.range(),
            Stmt::Assign(assign) => assign.value.range() == expr.range(),
            _ => false,
        });
        let shown = match whole {
            _ if expr.range().len().to_u32() > MAX_CLEANED => String::new(),
            Some(stmt) => literal::cleaned(self.code, stmt.range(), |strings| strings.visit_stmt(stmt)),
            None => literal::cleaned(self.code, expr.range(), |strings| strings.visit_expr(expr)),
        };
        let n_arguments = call.arguments.args.len() + call.arguments.keywords.len();
        self.calls
            .insert(at.to_usize(), CallShape { shown, keywords: keywords.collect(), n_arguments, literal });
    }

    fn note_read(&mut self, attribute: &'a ExprAttribute) {
        let at = attribute.attr.start().to_usize();
        let name = attribute.attr.to_string();
        self.reads.push(Place { at, name, target: None, root: constrain::root(&attribute.value) });
        if let Some(stmt) =
            self.statement.filter(|stmt| self.text && stmt.range().len().to_u32() <= MAX_CLEANED)
        {
            let shown = literal::cleaned(self.code, stmt.range(), |strings| strings.visit_stmt(stmt));
            self.calls.insert(at, CallShape { shown, keywords: Vec::new(), n_arguments: 0, literal: false });
        }
    }
}

fn is_simple(expr: &Expr, depth: usize) -> bool {
    let all = |elements: &[Expr]| {
        depth < 3 && elements.len() < 8 && elements.iter().all(|element| is_simple(element, depth + 1))
    };
    match expr {
        Expr::UnaryOp(unary) => is_simple(&unary.operand, depth),
        Expr::List(list) => all(&list.elts),
        Expr::Tuple(tuple) => all(&tuple.elts),
        Expr::Dict(dict) => depth < 3 && dict.items.iter().all(|item| is_simple(&item.value, depth + 1)),
        Expr::Lambda(_) | Expr::Name(_) => true,
        other => other.is_literal_expr(),
    }
}

impl<'a> Visitor<'a> for Syntax<'_, 'a> {
    fn visit_expr(&mut self, expr: &'a Expr) {
        match expr {
            Expr::Call(call) => {
                self.note(call, expr);
                // The attribute that is called is no read.
                match &*call.func {
                    Expr::Attribute(attribute) => self.visit_expr(&attribute.value),
                    func => self.visit_expr(func),
                }
                self.visit_arguments(&call.arguments);
            }
            Expr::Attribute(attribute) => {
                if attribute.ctx.is_load() && self.names.read.contains(attribute.attr.as_str()) {
                    self.note_read(attribute);
                }
                walk_expr(self, expr);
            }
            _ => walk_expr(self, expr),
        }
    }

    fn visit_stmt(&mut self, stmt: &'a Stmt) {
        let simple = matches!(
            stmt,
            Stmt::Expr(_)
                | Stmt::Assign(_)
                | Stmt::AnnAssign(_)
                | Stmt::AugAssign(_)
                | Stmt::Return(_)
                | Stmt::Assert(_)
        );
        let outer = self.statement;
        self.statement = simple.then_some(stmt);
        walk_stmt(self, stmt);
        self.statement = outer;
    }
}
