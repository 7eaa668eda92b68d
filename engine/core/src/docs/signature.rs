//! Signatures as the user writes the call: without the receiver, annotations and defaults as in the source.

use ruff_python_ast::{Expr, Parameters, StmtFunctionDef};

use super::library::Library;
use super::parse::ParsedFile;
use super::program::Function;
use super::scope::is_overload;

/// One parameter of a constructor that no function spells out.
pub(super) struct Field {
    pub name: String,
    pub annotation: Option<String>,
    pub default: Option<String>,
    pub keyword_only: bool,
}

/// Source text on one line: comments dropped, white space outside strings folded.
pub(super) fn fold(source: &str) -> String {
    if !source.contains(['\n', '#', '\t']) && !source.contains("  ") {
        return source.trim().to_owned();
    }
    let mut out = String::with_capacity(source.len());
    let mut chars = source.chars().peekable();
    let mut quote: Option<char> = None;
    while let Some(c) = chars.next() {
        if let Some(open) = quote {
            match c {
                '\\' => {
                    out.push(c);
                    out.extend(chars.next());
                }
                '\n' => out.push_str("\\n"),
                _ => {
                    if c == open {
                        quote = None;
                    }
                    out.push(c);
                }
            }
        } else if c == '#' {
            while chars.peek().is_some_and(|next| *next != '\n') {
                chars.next();
            }
        } else if c.is_whitespace() || c == '\\' {
            let opened = out.ends_with(['(', '[', '{']);
            if !out.is_empty() && !out.ends_with(' ') && !opened {
                out.push(' ');
            }
        } else {
            if matches!(c, '"' | '\'') {
                quote = Some(c);
            }
            if matches!(c, ')' | ']' | '}') && out.ends_with(' ') {
                out.pop();
                // The comma that black puts before a closing bracket on its own line.
                if c != ')' && out.ends_with(',') {
                    out.pop();
                }
            }
            out.push(c);
        }
    }
    out.trim().to_owned()
}

struct Writer {
    parts: Vec<String>,
    keyword_only: bool,
}

impl Writer {
    fn push(&mut self, prefix: &str, name: &str, annotation: Option<String>, default: Option<String>) {
        let mut text = format!("{prefix}{name}");
        let annotated = annotation.is_some();
        if let Some(annotation) = annotation {
            text.push_str(": ");
            text.push_str(&annotation);
        }
        if let Some(default) = default {
            text.push_str(if annotated { " = " } else { "=" });
            text.push_str(&default);
        }
        self.parts.push(text);
    }

    fn keyword_only(&mut self) {
        if !self.keyword_only {
            self.keyword_only = true;
            self.parts.push("*".into());
        }
    }
}

/// `(a, b: int = 1, *, c)` of a parameter list; `skip` leaves out the first positional parameter (the receiver).
pub(super) fn parameters(file: &ParsedFile, list: &Parameters, skip: bool) -> String {
    let text = |expr: &Expr| fold(file.slice(expr));
    let mut writer = Writer { parts: Vec::new(), keyword_only: false };
    let mut skip = skip;
    for parameter in &list.posonlyargs {
        if std::mem::take(&mut skip) {
            continue;
        }
        let annotation = parameter.parameter.annotation.as_deref().map(text);
        writer.push("", &parameter.parameter.name, annotation, parameter.default.as_deref().map(text));
    }
    if !writer.parts.is_empty() {
        writer.parts.push("/".into());
    }
    for parameter in &list.args {
        if std::mem::take(&mut skip) {
            continue;
        }
        let annotation = parameter.parameter.annotation.as_deref().map(text);
        writer.push("", &parameter.parameter.name, annotation, parameter.default.as_deref().map(text));
    }
    if let Some(rest) = &list.vararg {
        writer.push("*", &rest.name, rest.annotation.as_deref().map(text), None);
        writer.keyword_only = true;
    }
    for parameter in &list.kwonlyargs {
        writer.keyword_only();
        let annotation = parameter.parameter.annotation.as_deref().map(text);
        writer.push("", &parameter.parameter.name, annotation, parameter.default.as_deref().map(text));
    }
    if let Some(rest) = &list.kwarg {
        writer.push("**", &rest.name, rest.annotation.as_deref().map(text), None);
    }
    format!("({})", writer.parts.join(", "))
}

/// The same of fields.
pub(super) fn fields(fields: Vec<Field>) -> String {
    let mut writer = Writer { parts: Vec::new(), keyword_only: false };
    let (keyword_only, positional): (Vec<Field>, Vec<Field>) =
        fields.into_iter().partition(|field| field.keyword_only);
    for field in positional {
        writer.push("", &field.name, field.annotation, field.default);
    }
    for field in keyword_only {
        writer.keyword_only();
        writer.push("", &field.name, field.annotation, field.default);
    }
    format!("({})", writer.parts.join(", "))
}

fn annotated(def: &StmtFunctionDef) -> bool {
    def.returns.is_some() || def.parameters.iter().any(|parameter| parameter.annotation().is_some())
}

/// The definition that says most, and its file: the implementation, or of nothing but overloads the longest; the
/// stub's where only it has annotations.
pub(super) fn best<'a>(
    library: &Library<'a>,
    function: &Function<'a>,
) -> (&'a ParsedFile, &'a StmtFunctionDef) {
    let own = longest(function);
    if !annotated(own)
        && let Some(stub) = library.program.stub_function(function)
    {
        let other = longest(&stub);
        if annotated(other) {
            return (library.program.modules[stub.module].file, other);
        }
    }
    (library.program.modules[function.module].file, own)
}

fn longest<'a>(function: &Function<'a>) -> &'a StmtFunctionDef {
    let main = function.main();
    if !is_overload(main) {
        return main;
    }
    let mut best = function.defs[0];
    for def in &function.defs {
        if def.parameters.len() > best.parameters.len() {
            best = def;
        }
    }
    best
}

/// `(a, b=1) -> c` of a function; `skip` leaves out the receiver.
pub(super) fn function<'a>(library: &Library<'a>, function: &Function<'a>, skip: bool) -> String {
    let (file, def) = best(library, function);
    let mut text = parameters(file, &def.parameters, skip);
    if let Some(returns) = &def.returns {
        text.push_str(" -> ");
        text.push_str(&fold(file.slice(&**returns)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::fold;

    #[test]
    fn folding() {
        assert_eq!(fold("Union[\n    int,  # why\n    str,\n]"), "Union[int, str]");
        assert_eq!(fold("'a  b'"), "'a  b'");
        assert_eq!(fold("f(\n  'x  #',\n  1\n)"), "f('x  #', 1)");
    }
}
