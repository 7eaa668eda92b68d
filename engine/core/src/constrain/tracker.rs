//! From names and operators to what they mean: statements, brackets, and the type of the expression before a dot.

mod frame;
mod imports;

use std::sync::Arc;

use super::library::{Library, SetKey};
use super::mask::Lead;
use super::scope::{ScopeKind, Scopes, Ty};
use frame::{Frame, Line, Param, Statement};

/// Deeper brackets are not told apart.
const MAX_DEPTH: usize = 512;
/// Calls after which a name may be of a narrower type than was known, or another.
const NARROWING: &[&str] = &[
    "isinstance",
    "issubclass",
    "hasattr",
    "getattr",
    "setattr",
    "delattr",
    "callable",
    "cast",
    "type",
    "vars",
];

/// Where a name is constrained.
pub(super) struct Place {
    pub key: SetKey,
    pub lead: Lead,
}

#[derive(Debug, Clone)]
pub(super) struct Tracker {
    library: Arc<Library>,
    scopes: Scopes,
    stack: Vec<Frame>,
    line: Line,
    after_dot: bool,
    /// Something that is not in the index was imported: unknown values may be of any type.
    foreign: bool,
    /// The bare name before a `:`.
    before_colon: Option<Box<str>>,
    /// The bare name before an operator.
    before_operator: Option<Box<str>>,
}

impl Tracker {
    pub fn new(library: Arc<Library>) -> Self {
        Self {
            library,
            scopes: Scopes::default(),
            stack: vec![Frame { fresh: true, ..Frame::default() }],
            line: Line { start: true, ..Line::default() },
            after_dot: false,
            foreign: false,
            before_colon: None,
            before_operator: None,
        }
    }

    pub fn library(&self) -> &Library {
        &self.library
    }

    pub fn after_dot(&self) -> bool {
        self.after_dot
    }

    /// The stack is never empty: its bottom is the statement.
    fn top(&mut self) -> &mut Frame {
        if self.stack.is_empty() {
            self.stack.push(Frame { fresh: true, ..Frame::default() });
        }
        let last = self.stack.len() - 1;
        &mut self.stack[last]
    }

    pub fn depth(&self) -> usize {
        self.stack.len() - 1
    }

    /// Which names may stand here.
    pub fn place(&self) -> Option<Place> {
        let frame = self.stack.last()?;
        let lines = self.stack.len() > 1;
        let library = &*self.library;
        match self.line.kind {
            Statement::Import | Statement::From if self.after_dot => {
                let id = self.line.module.filter(|&id| library.is_closed_module(id))?;
                let key = SetKey::Submodules(id);
                return (!library.names(key).is_empty())
                    .then_some(Place { key, lead: Lead { lines, instead: b"" } });
            }
            Statement::Import | Statement::From => return None,
            Statement::FromNames if !self.line.alias && frame.operand.is_none() => {
                let id = self.line.module.filter(|&id| library.is_closed_module(id))?;
                let key = SetKey::Module(id);
                let instead: &[u8] = match (lines, frame.many) {
                    (false, false) => b"*(",
                    (false, true) => b"",
                    (true, false) => b"",
                    (true, true) => b")",
                };
                return Some(Place { key, lead: Lead { lines, instead } });
            }
            Statement::FromNames => return None,
            _ => {}
        }
        if !self.after_dot {
            return None;
        }
        let key = match frame.operand? {
            Ty::Module(id) if library.is_closed_module(id) => SetKey::Module(id),
            Ty::Class(id) if library.is_closed(id) => SetKey::Class(id),
            Ty::Object(id) if library.is_closed(id) => SetKey::Object(id),
            Ty::Unknown if !self.foreign => SetKey::Any,
            _ => return None,
        };
        Some(Place { key, lead: Lead { lines, instead: b"" } })
    }

    /// In an import, where names come after words and commas.
    pub fn in_import(&self) -> bool {
        matches!(self.line.kind, Statement::Import | Statement::From | Statement::FromNames)
    }

    /// Something else than a name came where one was due.
    pub fn drop_place(&mut self) {
        self.after_dot = false;
    }

    /// A logical line begins at this indentation.
    pub fn begin_line(&mut self, indent: usize) {
        if self.stack.len() == 1 {
            self.scopes.dedent(indent);
            self.line = Line { indent, start: true, ..Line::default() };
            self.stack[0] = Frame { fresh: true, ..Frame::default() };
            self.after_dot = false;
        }
    }

    /// A line ends; `true`: and a statement with it.
    pub fn newline(&mut self) -> bool {
        if self.stack.len() > 1 {
            // Within brackets the next line may still show that they were never closed.
            return false;
        }
        self.end_statement();
        true
    }

    fn end_statement(&mut self) {
        match self.line.kind {
            Statement::Import | Statement::FromNames | Statement::From => self.bind_import(),
            _ => self.bind_targets(),
        }
        let Line { indent, conditional, .. } = self.line;
        self.line = Line { indent, conditional, start: true, ..Line::default() };
        self.stack.truncate(1);
        self.stack[0] = Frame { fresh: true, ..Frame::default() };
        self.after_dot = false;
    }

    fn bind(&mut self, name: &str, ty: Ty) {
        self.scopes.bind(name, ty, self.line.indent, self.line.conditional);
    }

    fn bind_targets(&mut self) {
        let frame = &self.stack[0];
        let value = match (frame.compound || frame.many, frame.operand) {
            (false, Some(ty)) => ty,
            _ => Ty::Free,
        };
        if let Some(target) = self.line.annotated.take() {
            let annotation = self.line.annotation.take().or((!self.line.assigned).then_some(value));
            let ty = match annotation {
                Some(Ty::Class(id)) => Ty::Object(id),
                _ => Ty::Free,
            };
            if let Some(name) = target {
                self.bind(&name, ty);
            }
            return;
        }
        if !self.line.assigned {
            return;
        }
        let ty = if self.line.tuple { Ty::Free } else { value };
        for name in std::mem::take(&mut self.line.targets) {
            self.bind(&name, ty);
        }
        for name in std::mem::take(&mut self.line.loose_targets) {
            self.bind(&name, Ty::Free);
        }
    }

    /// A string or a number.
    pub fn literal(&mut self, text: bool) {
        self.line.start = false;
        let implicit = self.top().operand.is_some() && text;
        let frame = self.top();
        frame.compound |= frame.operand.is_some() && !implicit;
        frame.operand = Some(if text { Ty::Unknown } else { Ty::Free });
        frame.name = None;
        frame.fresh = false;
    }

    /// A name or reserved word that is complete.
    pub fn word(&mut self, word: &str) {
        let after_dot = std::mem::take(&mut self.after_dot);
        let start = std::mem::take(&mut self.line.start);
        match self.line.kind {
            Statement::Import | Statement::From | Statement::FromNames => {
                return self.import_word(word, after_dot);
            }
            _ => {}
        }
        if after_dot {
            let library = Arc::clone(&self.library);
            let frame = self.top();
            frame.operand = frame.operand.map(|ty| ty.attribute(&library, word));
            frame.name = None;
            return;
        }
        if crate::python::is_keyword(word) {
            return self.keyword(word, start);
        }
        match self.line.kind {
            Statement::Def | Statement::Class
                if self.stack.len() == 1 && self.stack[0].operand.is_none() && !self.stack[0].compound =>
            {
                self.bind(word, Ty::Free);
                let kind =
                    if self.line.kind == Statement::Def { ScopeKind::Function } else { ScopeKind::Class };
                self.scopes.enter(kind, self.line.indent);
                self.top().operand = Some(Ty::Free);
                return;
            }
            Statement::Global => return self.scopes.forget(word),
            _ => {}
        }
        self.name(word);
    }

    fn name(&mut self, word: &str) {
        let adjacent = self.top().operand.is_some();
        let soft = self.stack.len() == 1 && adjacent && self.line.kind == Statement::Plain;
        if soft && self.stack[0].name.as_deref().is_some_and(|name| matches!(name, "case" | "match" | "type"))
        {
            self.line.kind = Statement::Case;
        }
        let binds =
            self.top().in_for || self.top().in_lambda || self.line.binds || self.line.kind == Statement::Case;
        let parameter = self.top().param == Some(Param::Name);
        if binds || parameter {
            self.bind(word, Ty::Free);
        }
        let mut ty = if binds || parameter { Ty::Free } else { self.scopes.lookup(word) };
        // `[x.a for x in y]`: the name may be bound after it is used.
        let element =
            |frame: &Frame| matches!(frame.open, b'(' | b'[' | b'{') && !frame.applied && !frame.many;
        if matches!(ty, Ty::Object(_) | Ty::Unknown) && self.stack.iter().any(element) {
            ty = Ty::Free;
        }
        let frame = self.top();
        frame.compound |= adjacent;
        frame.operand = Some(ty);
        frame.name = Some(word.into());
        if parameter {
            frame.param_name = Some(word.into());
        }
    }

    fn keyword(&mut self, word: &str, start: bool) {
        let recovers = matches!(
            word,
            "def"
                | "class"
                | "import"
                | "return"
                | "while"
                | "try"
                | "with"
                | "raise"
                | "pass"
                | "break"
                | "continue"
                | "global"
                | "nonlocal"
                | "assert"
                | "del"
                | "except"
                | "finally"
                | "elif"
        );
        if recovers && self.stack.len() > 1 && !self.stack.iter().any(|frame| frame.open == b'f') {
            // Brackets that were never closed: no such word stands within brackets.
            self.end_statement();
            self.line.start = false;
            return self.keyword(word, true);
        }
        if start {
            self.line.kind = match word {
                "import" => Statement::Import,
                "from" => Statement::From,
                "def" => Statement::Def,
                "class" => Statement::Class,
                "global" | "nonlocal" => Statement::Global,
                "if" | "elif" | "else" | "for" | "while" | "with" | "try" | "except" | "finally" => {
                    Statement::Block
                }
                "async" => {
                    self.line.start = true;
                    return;
                }
                _ => Statement::Plain,
            };
        }
        if word == "del" {
            self.line.binds = true;
        }
        let frame = self.top();
        match word {
            "True" | "False" | "None" => {
                frame.compound |= frame.operand.is_some();
                frame.operand = Some(Ty::Free);
                frame.name = None;
                frame.fresh = false;
                return;
            }
            "for" => frame.in_for = true,
            "in" => frame.in_for = false,
            "lambda" => frame.in_lambda = true,
            "as" => self.line.binds = true,
            _ => {}
        }
        let frame = self.top();
        frame.compound = frame.compound || !start;
        if start {
            frame.compound = false;
        }
        frame.operand = None;
        frame.name = None;
        frame.fresh = false;
    }

    /// An operator or bracket, but for `=`.
    pub fn operator(&mut self, byte: u8) {
        self.line.start = false;
        let imports = matches!(self.line.kind, Statement::Import | Statement::From | Statement::FromNames);
        match byte {
            b'.' if imports => {
                self.after_dot = true;
                self.line.relative |= self.line.kind == Statement::From && self.line.top.is_none();
                self.after_dot &= !self.line.relative;
            }
            b'.' => self.after_dot = self.top().operand.is_some(),
            b'(' | b'[' | b'{' => {
                self.open(byte);
                if imports {
                    self.top().applied = true;
                }
            }
            b')' => self.close(b'('),
            b']' => self.close(b'['),
            b'}' => self.close(b'{'),
            b',' => self.comma(imports),
            b':' => self.colon(),
            b';' if self.stack.len() == 1 => self.end_statement(),
            _ => {
                let frame = self.top();
                frame.compound = true;
                // After `from module import *` no name is due.
                frame.operand = (imports && byte == b'*').then_some(Ty::Free);
                frame.fresh = false;
                if let Some(name) = frame.name.take() {
                    self.before_operator = Some(name);
                }
            }
        }
        if byte != b'.' {
            self.after_dot = false;
        }
    }

    /// Opens a bracket or field; gives the depth inside.
    pub fn open(&mut self, byte: u8) -> usize {
        if self.stack.len() >= MAX_DEPTH {
            return self.depth();
        }
        let library = Arc::clone(&self.library);
        let def = self.line.kind == Statement::Def && self.stack.len() == 1;
        let frame = self.top();
        let applied = byte != b'f' && byte != b'{' && frame.operand.is_some();
        let mut inner = Frame { open: byte, applied, fresh: true, ..Frame::default() };
        if applied && byte == b'(' {
            let callee = frame.operand.unwrap_or_default();
            inner.result = Some(callee.call(&library));
            inner.narrowing = frame.name.as_deref().is_some_and(|name| NARROWING.contains(&name));
            inner.callee = match callee {
                Ty::Class(id) | Ty::Callable(id) => Some(id),
                _ => None,
            };
        } else if applied {
            let subscripted = matches!(frame.operand, Some(Ty::Object(_) | Ty::Unknown));
            inner.result = Some(if subscripted { Ty::Unknown } else { Ty::Free });
        } else if byte != b'(' {
            inner.result = Some(Ty::Unknown);
        }
        if def && byte == b'(' {
            inner.param = Some(Param::Name);
        }
        frame.fresh = false;
        self.stack.push(inner);
        self.depth()
    }

    fn close(&mut self, open: u8) {
        let field = self.stack.iter().rposition(|frame| frame.open == b'f').unwrap_or(0);
        let Some(at) = self.stack.iter().rposition(|frame| frame.open == open) else { return };
        if at == 0 || at < field {
            return;
        }
        self.finish_element();
        self.close_to(at);
    }

    /// Closes brackets until `len` frames are left over the statement's; what stood in the last is a value now.
    pub fn close_to(&mut self, len: usize) {
        let mut closed = None;
        while self.stack.len() > len.max(1) {
            closed = self.stack.pop();
        }
        let Some(closed) = closed else { return };
        if closed.open == b'f' {
            return;
        }
        if self.stack.len() == 1 && !self.line.assigned && !closed.applied {
            // `(a, b) = ...`: its names are targets, should a `=` follow.
            if let Some(name) = closed.name.clone() {
                self.line.loose_targets.push(name);
            }
        }
        let grouped = match (closed.compound || closed.many, closed.operand) {
            (false, Some(ty)) if closed.open == b'(' && !closed.applied => ty,
            _ => Ty::Free,
        };
        let frame = self.top();
        frame.compound |= !closed.applied && frame.operand.is_some();
        frame.operand = Some(closed.result.unwrap_or(grouped));
        frame.name = None;
    }

    /// An argument, element or parameter ends.
    fn finish_element(&mut self) {
        let frame = self.top();
        if frame.narrowing
            && let Some(name) = frame.name.take()
        {
            frame.narrowing = false;
            self.scopes.forget(&name);
            return;
        }
        if frame.param.is_some() {
            let annotation = frame.operand;
            let annotated = frame.param == Some(Param::Annotation) && !frame.compound;
            if let Some(name) = frame.param_name.take()
                && annotated
                && let Some(Ty::Class(id)) = annotation
            {
                self.bind(&name, Ty::Object(id));
            }
        }
    }

    fn comma(&mut self, imports: bool) {
        if imports {
            self.bind_import();
            let frame = self.top();
            frame.operand = None;
            frame.many = true;
            return;
        }
        self.finish_element();
        let depth = self.stack.len();
        let statement = depth == 1 && !self.line.assigned;
        let frame = self.top();
        let name = frame.name.take().filter(|_| !frame.compound || statement);
        let group = !frame.applied && frame.open != 0;
        frame.operand = None;
        frame.compound = false;
        frame.many = true;
        frame.fresh = true;
        if let Some(param) = &mut frame.param {
            *param = Param::Name;
        }
        if depth == 1 {
            self.line.tuple = true;
            if self.line.kind != Statement::Plain || self.line.binds {
                self.line.binds = false;
            }
        }
        if let Some(name) = name {
            if statement {
                self.line.targets.push(name);
            } else if group && !self.line.assigned {
                self.line.loose_targets.push(name);
            }
        }
    }

    fn colon(&mut self) {
        let depth = self.stack.len();
        self.before_colon = None;
        let frame = self.top();
        let name = frame.name.take();
        if frame.in_lambda {
            frame.in_lambda = false;
            frame.operand = None;
            frame.compound = true;
            return;
        }
        if frame.param == Some(Param::Name) {
            frame.param = Some(Param::Annotation);
            frame.operand = None;
            frame.compound = false;
            return;
        }
        frame.operand = None;
        let compound = frame.compound;
        if depth > 1 {
            frame.compound = true;
            frame.fresh = false;
            self.before_colon = name;
            return;
        }
        match self.line.kind {
            Statement::Plain if !self.line.assigned && !compound && !self.line.tuple => {
                self.line.annotated = Some(name);
                self.line.start = false;
            }
            Statement::Plain => {}
            Statement::Def | Statement::Class => {
                self.line = Line { indent: self.line.indent, start: true, ..Line::default() };
                self.stack[0] = Frame { fresh: true, ..Frame::default() };
            }
            _ => {
                self.line =
                    Line { indent: self.line.indent, conditional: true, start: true, ..Line::default() };
                self.stack[0] = Frame { fresh: true, ..Frame::default() };
            }
        }
    }

    /// `:=`.
    pub fn walrus(&mut self) {
        if let Some(name) = self.before_colon.take() {
            self.bind(&name, Ty::Free);
        }
        self.top().compound = true;
    }

    /// `+=` and the like.
    pub fn augmented(&mut self) {
        if self.stack.len() == 1 && !self.line.assigned {
            self.line.assigned = true;
            self.line.tuple = true;
            if let Some(name) = self.before_operator.take() {
                self.bind(&name, Ty::Free);
            }
        }
        self.top().operand = None;
    }

    /// Whether a single `=` may follow: it does not end a keyword that the call does not take.
    pub fn may_assign(&self) -> bool {
        let Some(frame) = self.stack.last() else { return true };
        match (frame.callee, &frame.name) {
            (Some(callee), Some(name)) if frame.open == b'(' && !frame.compound && !frame.in_lambda => {
                self.library.takes_keyword(callee, name)
            }
            _ => true,
        }
    }

    /// A single `=`.
    pub fn assign(&mut self) {
        let depth = self.stack.len();
        if depth == 1 {
            self.assign_statement();
            return;
        }
        self.finish_default();
        let frame = self.top();
        frame.name = None;
        frame.operand = None;
        frame.fresh = false;
        if frame.open == b'f' || frame.param.is_none() {
            frame.compound = false;
        }
    }

    /// `=` after a parameter: its annotation is complete, a default follows.
    fn finish_default(&mut self) {
        if self.top().param.is_some() {
            self.finish_element();
            self.top().param = Some(Param::Default);
        }
    }

    fn assign_statement(&mut self) {
        let line = &mut self.line;
        let frame = &mut self.stack[0];
        if line.annotated.is_some() {
            let whole = !frame.compound && !frame.many;
            line.annotation = Some(frame.operand.filter(|_| whole).unwrap_or_default());
        } else if let Some(name) = frame.name.take() {
            line.targets.push(name);
        }
        line.assigned = true;
        *frame = Frame { fresh: true, ..Frame::default() };
    }

    /// A field's format begins: `f"{x:` .
    pub fn enter_format(&mut self) {
        self.top().format = true;
    }

    /// Whether the innermost field is in its format.
    pub fn in_format(&self) -> bool {
        self.stack.last().is_some_and(|frame| frame.format)
    }
}
