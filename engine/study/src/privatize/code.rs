//! Python in private words: names by what they stand for, comments and docstrings as prose.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use inhouse_core::python::{self, is_builtin};
use ruff_python_ast::token::TokenKind;
use ruff_python_ast::visitor::{self, Visitor};
use ruff_python_ast::{
    Alias, ExceptHandler, Expr, ExprCall, Identifier, InterpolatedStringElement, Keyword, Parameter, Pattern,
    Stmt, StmtFunctionDef, StringLiteral,
};
use ruff_text_size::Ranged;

use super::speech::{Quotes, Said, Speech, Why};

/// Where the library's names stood in a program that ran: by the place of an attribute's end or a keyword's start, whether
/// the object was the library's.
pub type Evidence = HashMap<Place, bool>;

/// A place in one of the texts of a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    /// 1-based.
    pub line: usize,
    /// Bytes from the line's beginning.
    pub column: usize,
}

/// What a program's identifiers are, over all texts that share them (prompt, solutions, test).
#[derive(Debug, Clone, Default)]
pub struct Names {
    /// Bound somewhere: variables, functions, parameters.
    bound: HashSet<String>,
    /// Functions that the program defines.
    functions: HashSet<String>,
    /// Members of its own classes.
    members: HashSet<String>,
    /// Modules and names that it imports from elsewhere.
    foreign: HashSet<String>,
    /// Names that it gives to the library (`pd`).
    pub library: HashSet<String>,
}

impl Names {
    /// Adds the names of a text.
    pub fn read(&mut self, text: &str, library: &str) {
        // The names of a text that nests too deeply for any program stay unknown.
        let _ = python::read(text, |parsed| {
            Collector { names: self, library, class: false }.visit_body(parsed.suite());
        });
    }
}

struct Collector<'n> {
    names: &'n mut Names,
    library: &'n str,
    class: bool,
}

impl Collector<'_> {
    fn bind(&mut self, name: &str) {
        if self.class {
            self.names.members.insert(name.to_owned());
        }
        self.names.bound.insert(name.to_owned());
    }
}

impl<'a> Visitor<'a> for Collector<'_> {
    fn visit_stmt(&mut self, stmt: &'a Stmt) {
        match stmt {
            Stmt::Import(import) => {
                for alias in &import.names {
                    let root = alias.name.split('.').next().unwrap_or_default();
                    let name = alias.asname.as_ref().map_or(root, |name| name.as_str());
                    if root == self.library {
                        self.names.library.insert(name.to_owned());
                    } else {
                        self.names.foreign.insert(name.to_owned());
                    }
                }
            }
            Stmt::ImportFrom(import) => {
                let root = import.module.as_ref().and_then(|module| module.split('.').next());
                let ours = import.level == 0 && root == Some(self.library);
                for alias in import.names.iter().filter(|_| !ours) {
                    self.names.foreign.insert(alias.asname.as_ref().unwrap_or(&alias.name).to_string());
                }
            }
            Stmt::FunctionDef(function) => {
                self.bind(&function.name);
                self.names.functions.insert(function.name.to_string());
                let outer = std::mem::replace(&mut self.class, false);
                visitor::walk_stmt(self, stmt);
                self.class = outer;
            }
            Stmt::ClassDef(class) => {
                self.bind(&class.name);
                let outer = std::mem::replace(&mut self.class, true);
                visitor::walk_stmt(self, stmt);
                self.class = outer;
            }
            _ => visitor::walk_stmt(self, stmt),
        }
    }

    fn visit_expr(&mut self, expr: &'a Expr) {
        match expr {
            Expr::Name(name) if !name.ctx.is_load() => self.bind(&name.id),
            Expr::Attribute(attribute) if !attribute.ctx.is_load() => {
                if matches!(&*attribute.value, Expr::Name(name) if name.id == "self") {
                    self.names.members.insert(attribute.attr.to_string());
                }
            }
            _ => {}
        }
        visitor::walk_expr(self, expr);
    }

    fn visit_parameter(&mut self, parameter: &'a Parameter) {
        self.names.bound.insert(parameter.name.to_string());
        visitor::walk_parameter(self, parameter);
    }

    fn visit_except_handler(&mut self, handler: &'a ExceptHandler) {
        let ExceptHandler::ExceptHandler(inner) = handler;
        if let Some(name) = &inner.name {
            self.bind(name);
        }
        visitor::walk_except_handler(self, handler);
    }
}

/// How a text is converted.
pub struct Converter<'c> {
    /// The language.
    pub speech: &'c Speech,
    /// The names of all texts of the problem.
    pub names: &'c Names,
    /// What was seen when the text ran.
    pub evidence: Option<&'c Evidence>,
    /// Strings that change, whole, and what they become.
    pub strings: &'c HashMap<String, String>,
    /// How quoted words in comments are taken.
    pub quotes: Quotes,
}

/// A change of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// What it replaces.
    pub range: Range<usize>,
    /// By what.
    pub said: Said,
}

impl Converter<'_> {
    /// The changes that put a text in private words, in order, and without overlaps. A text that does not parse is changed as
    /// far as its syntax can be told.
    pub fn edits(&self, text: &str) -> Vec<Edit> {
        let read = python::read(text, |parsed| {
            let mut walker =
                Walker { converter: self, source: text, lines: line_starts(text), edits: Vec::new() };
            for token in parsed.tokens() {
                if token.kind() == TokenKind::Comment {
                    walker.prose(range(token));
                }
            }
            walker.visit_body(parsed.suite());
            walker.edits
        });
        let Ok(mut edits) = read else {
            let said = self.speech.prose(text, self.quotes, self.strings);
            return vec![Edit { range: 0..text.len(), said }];
        };
        edits.sort_by_key(|edit| (edit.range.start, std::cmp::Reverse(edit.range.end)));
        let mut end = 0;
        edits.retain(|edit| {
            let apart = edit.range.start >= end && text.get(edit.range.clone()).is_some();
            if apart {
                end = edit.range.end;
            }
            apart
        });
        edits
    }
}

/// A part of a text with the changes that fall into it. One across the border counts where it begins.
pub fn apply(text: &str, range: Range<usize>, edits: &[Edit]) -> Said {
    let mut said = Said::default();
    let mut copied = range.start;
    for edit in edits.iter().filter(|edit| range.contains(&edit.range.start) && edit.range.end <= range.end) {
        said.text.push_str(&text[copied..edit.range.start]);
        let start = said.text.len();
        said.text.push_str(&edit.said.text);
        said.kept
            .extend(edit.said.kept.iter().map(|(kept, why)| (start + kept.start..start + kept.end, *why)));
        copied = edit.range.end;
    }
    said.text.push_str(&text[copied..range.end]);
    said
}

fn line_starts(text: &str) -> Vec<usize> {
    std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect()
}

struct Walker<'c, 't> {
    converter: &'c Converter<'c>,
    source: &'t str,
    lines: Vec<usize>,
    edits: Vec<Edit>,
}

impl Walker<'_, '_> {
    fn place(&self, offset: usize) -> Place {
        let line = self.lines.partition_point(|start| *start <= offset);
        Place { line, column: offset - self.lines[line.saturating_sub(1)] }
    }

    fn edit(&mut self, range: Range<usize>, text: impl Into<String>) {
        let text = text.into();
        if !range.is_empty() && self.source.get(range.clone()).is_some_and(|old| old != text) {
            self.edits.push(Edit { range, said: Said { text, kept: Vec::new() } });
        }
    }

    /// A public word that stays as it is.
    fn keep(&mut self, range: Range<usize>, why: Why) {
        let Some(text) = self.source.get(range.clone()).filter(|text| !text.is_empty()) else { return };
        let said = Said { text: text.to_owned(), kept: vec![(0..text.len(), why)] };
        self.edits.push(Edit { range, said });
    }

    fn prose(&mut self, range: Range<usize>) {
        let Some(text) = self.source.get(range.clone()) else { return };
        let said = self.converter.speech.prose(text, self.converter.quotes, self.converter.strings);
        self.edits.push(Edit { range, said });
    }

    fn identifier(&mut self, name: &Identifier) {
        let private = self.converter.speech.identifier(name.as_str());
        self.edit(range(name), private);
    }

    /// A dotted name of the library's, as an import spells it.
    fn path(&mut self, name: &Identifier) {
        let private = self.converter.speech.path(name.as_str());
        self.edit(range(name), private);
    }

    fn name(&mut self, at: Range<usize>, name: &str) {
        let names = self.converter.names;
        if names.foreign.contains(name) && !names.library.contains(name) {
            self.keep(at, Why::Foreign);
        } else if is_builtin(name) {
            // Where a program shadows a builtin, the name stays too: not every use of it need be the program's.
            self.keep(at, Why::Foreign);
        } else {
            self.edit(at, self.converter.speech.identifier(name));
        }
    }

    /// Whether what stands before the dot is surely not the library's, by its look.
    fn is_foreign(&self, expr: &Expr) -> bool {
        match expr {
            Expr::Name(name) => {
                let names = self.converter.names;
                let id = name.id.as_str();
                names.foreign.contains(id) && !names.library.contains(id)
                    || is_builtin(id) && !names.bound.contains(id)
            }
            Expr::Attribute(attribute) => self.is_foreign(&attribute.value),
            Expr::Call(call) => self.is_foreign(&call.func),
            Expr::Subscript(subscript) => self.is_foreign(&subscript.value),
            Expr::StringLiteral(_)
            | Expr::FString(_)
            | Expr::BytesLiteral(_)
            | Expr::NumberLiteral(_)
            | Expr::List(_)
            | Expr::Tuple(_)
            | Expr::Dict(_)
            | Expr::Set(_)
            | Expr::ListComp(_)
            | Expr::DictComp(_)
            | Expr::SetComp(_) => true,
            _ => false,
        }
    }

    /// What a member's name becomes where it is not the library's: a member of the program's own class, or a column that
    /// strings name as well.
    fn own_member(&self, name: &str) -> Option<String> {
        let Converter { speech, names, strings, .. } = self.converter;
        strings.get(name).cloned().or_else(|| names.members.contains(name).then(|| speech.identifier(name)))
    }

    fn member(&mut self, at: Range<usize>, name: &str, is_api: bool) {
        let api = self.converter.speech.name(name).filter(|_| is_api).map(str::to_owned);
        match api.or_else(|| self.own_member(name)) {
            Some(private) => self.edit(at, private),
            None => self.keep(at, Why::Foreign),
        }
    }

    fn evidence(&self, offset: usize) -> Option<bool> {
        self.converter.evidence.and_then(|evidence| evidence.get(&self.place(offset)).copied())
    }

    fn keyword(&mut self, call: &ExprCall, keyword: &Keyword) {
        let Some(name) = &keyword.arg else { return };
        let at = range(name);
        let names = self.converter.names;
        if let Expr::Name(function) = &*call.func
            && names.functions.contains(function.id.as_str())
        {
            return self.identifier(name);
        }
        let seen = self.evidence(range(keyword).start);
        let is_api = seen.unwrap_or_else(|| !self.is_foreign(&call.func));
        let makes_keys = matches!(&*call.func, Expr::Name(function) if function.id == "dict");
        if is_api || makes_keys || seen == Some(false) && !self.is_foreign(&call.func) {
            self.member(at, name.as_str(), is_api);
        } else {
            self.keep(at, Why::Foreign);
        }
    }

    fn function(&mut self, function: &StmtFunctionDef, in_class: bool) {
        // A method of a class may override the library's, whose private name is the identifier's all the same.
        if !in_class || !function.name.starts_with("__") {
            self.identifier(&function.name);
        }
    }

    /// A string whose text speaks of names: a docstring, an annotation.
    fn text(&mut self, literal: &StringLiteral) {
        let whole = range(literal);
        let Some(text) = self.source.get(whole.clone()) else { return };
        let open = text.find(['"', '\'']).unwrap_or(0);
        let quotes =
            if text[open..].starts_with("\"\"\"") || text[open..].starts_with("'''") { 3 } else { 1 };
        let inner = whole.start + open + quotes..whole.end.saturating_sub(quotes);
        if inner.start < inner.end {
            self.prose(inner);
        }
    }

    fn string(&mut self, literal: &StringLiteral) {
        let whole = range(literal);
        let Some(text) = self.source.get(whole.clone()) else { return };
        let value = &*literal.value;
        // Escapes and prefixes are left: only what stands in the text as it is can be exchanged in it.
        match (self.converter.strings.get(value), text.find(value)) {
            (Some(private), Some(at)) if !value.is_empty() && !private.contains(['\\', '\'', '"', '\n']) => {
                let at = whole.start + at;
                self.edit(at..at + value.len(), private.clone());
            }
            _ => self.keep(whole, Why::String),
        }
    }
}

impl<'a> Visitor<'a> for Walker<'_, '_> {
    fn visit_body(&mut self, body: &'a [Stmt]) {
        for stmt in body {
            self.visit_stmt(stmt);
        }
    }

    fn visit_stmt(&mut self, stmt: &'a Stmt) {
        match stmt {
            Stmt::Expr(expr) => {
                if let Expr::StringLiteral(string) = &*expr.value {
                    string.value.iter().for_each(|literal| self.text(literal));
                    return;
                }
            }
            Stmt::Import(import) => {
                for alias in &import.names {
                    if alias.name.split('.').next() == Some(self.converter.speech.library()) {
                        self.path(&alias.name);
                        alias.asname.iter().for_each(|name| self.identifier(name));
                    } else {
                        self.keep(range(alias), Why::Foreign);
                    }
                }
                return;
            }
            Stmt::ImportFrom(import) => {
                let module = import.module.as_ref();
                let root = module.and_then(|module| module.split('.').next());
                if import.level == 0 && root == Some(self.converter.speech.library()) {
                    module.into_iter().for_each(|module| self.path(module));
                    for Alias { name, asname, .. } in &import.names {
                        if self.converter.speech.name(name).is_some() {
                            self.path(name);
                        }
                        asname.iter().for_each(|name| self.identifier(name));
                    }
                } else {
                    module.into_iter().for_each(|module| self.keep(range(module), Why::Foreign));
                    import.names.iter().for_each(|alias| self.keep(range(alias), Why::Foreign));
                }
                return;
            }
            Stmt::FunctionDef(function) => self.function(function, false),
            Stmt::ClassDef(class) => {
                self.identifier(&class.name);
                class.decorator_list.iter().for_each(|decorator| self.visit_decorator(decorator));
                class.arguments.iter().for_each(|arguments| self.visit_arguments(arguments));
                for stmt in &class.body {
                    if let Stmt::FunctionDef(function) = stmt {
                        self.function(function, true);
                        visitor::walk_stmt(self, stmt);
                    } else {
                        self.visit_stmt(stmt);
                    }
                }
                return;
            }
            Stmt::Global(global) => global.names.iter().for_each(|name| self.identifier(name)),
            Stmt::Nonlocal(nonlocal) => nonlocal.names.iter().for_each(|name| self.identifier(name)),
            _ => {}
        }
        visitor::walk_stmt(self, stmt);
    }

    fn visit_expr(&mut self, expr: &'a Expr) {
        match expr {
            Expr::Name(name) => {
                let at = name.range.start().to_usize()..name.range.end().to_usize();
                self.name(at, name.id.as_str());
            }
            Expr::Attribute(attribute) => {
                self.visit_expr(&attribute.value);
                let at = range(&attribute.attr);
                let is_api = self.evidence(at.end).unwrap_or_else(|| !self.is_foreign(&attribute.value));
                self.member(at, attribute.attr.as_str(), is_api);
            }
            Expr::Call(call) => {
                self.visit_expr(&call.func);
                call.arguments.args.iter().for_each(|argument| self.visit_expr(argument));
                for keyword in &call.arguments.keywords {
                    self.keyword(call, keyword);
                    self.visit_expr(&keyword.value);
                }
            }
            Expr::StringLiteral(string) => string.value.iter().for_each(|literal| self.string(literal)),
            _ => visitor::walk_expr(self, expr),
        }
    }

    fn visit_annotation(&mut self, expr: &'a Expr) {
        match expr {
            // A type that is written as a string.
            Expr::StringLiteral(string) => string.value.iter().for_each(|literal| self.text(literal)),
            _ => self.visit_expr(expr),
        }
    }

    fn visit_string_literal(&mut self, literal: &'a StringLiteral) {
        self.string(literal);
    }

    fn visit_interpolated_string_element(&mut self, element: &'a InterpolatedStringElement) {
        match element {
            InterpolatedStringElement::Literal(text) => self.keep(range(text), Why::String),
            InterpolatedStringElement::Interpolation(_) => {
                visitor::walk_interpolated_string_element(self, element);
            }
        }
    }

    fn visit_parameter(&mut self, parameter: &'a Parameter) {
        self.identifier(&parameter.name);
        visitor::walk_parameter(self, parameter);
    }

    fn visit_except_handler(&mut self, handler: &'a ExceptHandler) {
        let ExceptHandler::ExceptHandler(inner) = handler;
        inner.name.iter().for_each(|name| self.identifier(name));
        visitor::walk_except_handler(self, handler);
    }

    fn visit_pattern(&mut self, pattern: &'a Pattern) {
        match pattern {
            Pattern::MatchAs(inner) => inner.name.iter().for_each(|name| self.identifier(name)),
            Pattern::MatchStar(inner) => inner.name.iter().for_each(|name| self.identifier(name)),
            Pattern::MatchMapping(inner) => inner.rest.iter().for_each(|name| self.identifier(name)),
            _ => {}
        }
        visitor::walk_pattern(self, pattern);
    }
}

fn range(node: &impl Ranged) -> Range<usize> {
    node.start().to_usize()..node.end().to_usize()
}

/// The strings of a text, without docstrings.
pub fn strings_of(text: &str) -> Vec<String> {
    struct Strings(Vec<String>);
    impl<'a> Visitor<'a> for Strings {
        fn visit_stmt(&mut self, stmt: &'a Stmt) {
            if !matches!(stmt, Stmt::Expr(expr) if expr.value.is_string_literal_expr()) {
                visitor::walk_stmt(self, stmt);
            }
        }
        fn visit_string_literal(&mut self, literal: &'a StringLiteral) {
            self.0.push(literal.value.to_string());
        }
    }
    let strings = python::read(text, |parsed| {
        let mut strings = Strings(Vec::new());
        strings.visit_body(parsed.suite());
        strings.0
    });
    strings.unwrap_or_default()
}
