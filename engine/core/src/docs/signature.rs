//! Signatures as the user writes the call: without the receiver, annotations and defaults as in the source.

use std::fmt;

use ruff_python_ast::{Expr, Parameters, StmtFunctionDef};

use super::library::Library;
use super::parse::ParsedFile;
use super::program::Function;
use super::scope::is_overload;

/// How a parameter takes its argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    PositionalOnly,
    Standard,
    /// `*args`
    Rest,
    KeywordOnly,
    /// `**kwargs`
    Keywords,
}

/// One parameter; annotation and default are source text on one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parameter {
    pub name: String,
    pub kind: Kind,
    pub annotation: Option<String>,
    pub default: Option<String>,
}

/// What follows the name in a call, and the annotation of what comes back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Signature {
    pub parameters: Vec<Parameter>,
    pub returns: Option<String>,
}

impl fmt::Display for Signature {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts: Vec<String> = Vec::with_capacity(self.parameters.len() + 2);
        let mut last = None;
        for parameter in &self.parameters {
            if last == Some(Kind::PositionalOnly) && parameter.kind != Kind::PositionalOnly {
                parts.push("/".into());
            }
            if parameter.kind == Kind::KeywordOnly && !matches!(last, Some(Kind::Rest | Kind::KeywordOnly)) {
                parts.push("*".into());
            }
            last = Some(parameter.kind);
            let prefix = match parameter.kind {
                Kind::Rest => "*",
                Kind::Keywords => "**",
                _ => "",
            };
            let mut text = format!("{prefix}{}", parameter.name);
            if let Some(annotation) = &parameter.annotation {
                text.push_str(": ");
                text.push_str(annotation);
            }
            if let Some(default) = &parameter.default {
                text.push_str(if parameter.annotation.is_some() { " = " } else { "=" });
                text.push_str(default);
            }
            parts.push(text);
        }
        if last == Some(Kind::PositionalOnly) {
            parts.push("/".into());
        }
        write!(out, "({})", parts.join(", "))?;
        match &self.returns {
            Some(returns) => write!(out, " -> {returns}"),
            None => Ok(()),
        }
    }
}

impl Signature {
    /// `(*args, **kwargs)`: nothing is known.
    pub fn general() -> Self {
        let parameter =
            |name: &str, kind| Parameter { name: name.into(), kind, annotation: None, default: None };
        Signature {
            parameters: vec![parameter("args", Kind::Rest), parameter("kwargs", Kind::Keywords)],
            returns: None,
        }
    }

    /// The signature of a constructor made of fields: keyword-only ones come last.
    pub fn of_fields(mut fields: Vec<Parameter>) -> Self {
        fields.sort_by_key(|field| field.kind);
        Signature { parameters: fields, returns: None }
    }

    /// Whether it takes anything, and says nothing of it: `(*args, **kwargs)`, a receiver aside.
    pub fn is_general(&self) -> bool {
        let named = self.parameters.iter().skip(1).any(|p| !matches!(p.kind, Kind::Rest | Kind::Keywords));
        let first = self.parameters.first().is_none_or(|first| {
            matches!(first.kind, Kind::Rest | Kind::Keywords) || matches!(first.name.as_str(), "self" | "cls")
        });
        let takes = |kind| self.parameters.iter().any(|p| p.kind == kind);
        !named && first && takes(Kind::Rest) && takes(Kind::Keywords)
    }

    /// Takes the first positional parameter away, as the receiver does. `*args` keeps its place.
    pub fn skip_first(&mut self) {
        let first = self.parameters.first().map(|first| first.kind);
        if matches!(first, Some(Kind::PositionalOnly | Kind::Standard)) {
            self.parameters.remove(0);
        }
    }

    /// What is left after `partial(f, ...)`: positional arguments are gone, a keyword is a new default, and what stands behind
    /// it can be given by name alone.
    pub fn bind(&mut self, positional: usize, keywords: &[(String, String)]) {
        for _ in 0..positional {
            self.skip_first();
        }
        let mut named = false;
        for parameter in &mut self.parameters {
            let given = keywords.iter().find(|(name, _)| *name == parameter.name);
            if let Some((_, value)) = given {
                parameter.default = Some(value.clone());
                named |= parameter.kind == Kind::Standard;
            }
            if named && parameter.kind == Kind::Standard {
                parameter.kind = Kind::KeywordOnly;
            }
        }
        if named {
            self.parameters.retain(|parameter| parameter.kind != Kind::Rest);
        }
    }
}

/// Whether a character comes twice next.
fn twice(chars: &std::str::Chars<'_>, wanted: char) -> bool {
    let mut next = chars.clone();
    next.next() == Some(wanted) && next.next() == Some(wanted)
}

/// Source text on one line: comments dropped, white space outside strings folded.
pub(super) fn fold(source: &str) -> String {
    if !source.contains(['\n', '#', '\t']) && !source.contains("  ") {
        return source.trim().to_owned();
    }
    let mut out = String::with_capacity(source.len());
    let mut chars = source.chars();
    // The quote that is open, and whether three of it close it.
    let mut quote: Option<(char, bool)> = None;
    while let Some(c) = chars.next() {
        if let Some((open, triple)) = quote {
            match c {
                '\\' => {
                    out.push(c);
                    out.extend(chars.next());
                }
                '\n' => out.push_str("\\n"),
                _ => {
                    out.push(c);
                    if c == open && triple && twice(&chars, open) {
                        out.extend([open, open]);
                        chars.nth(1);
                        quote = None;
                    } else if c == open && !triple {
                        quote = None;
                    }
                }
            }
        } else if c == '#' {
            let end = chars.as_str().find('\n').unwrap_or(chars.as_str().len());
            chars = chars.as_str()[end..].chars();
        } else if c.is_whitespace() || c == '\\' {
            let opened = out.ends_with(['(', '[', '{']);
            if !out.is_empty() && !out.ends_with(' ') && !opened {
                out.push(' ');
            }
        } else {
            if matches!(c, '"' | '\'') {
                let triple = twice(&chars, c);
                if triple {
                    out.extend([c, c]);
                    chars.nth(1);
                }
                quote = Some((c, triple));
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

/// The parameters of a list as the source writes them, the receiver included.
pub(super) fn parameters(file: &ParsedFile, list: &Parameters) -> Signature {
    let text = |expr: &Expr| fold(file.slice(expr));
    // Names are compared after normalisation (NFKC), so that is how a caller may write them as well.
    let made = |parameter: &ruff_python_ast::Parameter, kind, default: Option<&Expr>| Parameter {
        name: parameter.name.to_string(),
        kind,
        annotation: parameter.annotation.as_deref().map(text),
        default: default.map(text),
    };
    let mut found = Vec::with_capacity(list.len());
    for (group, kind) in [(&list.posonlyargs, Kind::PositionalOnly), (&list.args, Kind::Standard)] {
        found.extend(group.iter().map(|one| made(&one.parameter, kind, one.default.as_deref())));
    }
    found.extend(list.vararg.iter().map(|rest| made(rest, Kind::Rest, None)));
    found.extend(
        list.kwonlyargs.iter().map(|one| made(&one.parameter, Kind::KeywordOnly, one.default.as_deref())),
    );
    found.extend(list.kwarg.iter().map(|rest| made(rest, Kind::Keywords, None)));
    Signature { parameters: found, returns: None }
}

/// The signature of one definition.
pub(super) fn of_definition(file: &ParsedFile, def: &StmtFunctionDef) -> Signature {
    let returns = def.returns.as_deref().map(|returns| fold(file.slice(returns)));
    Signature { returns, ..parameters(file, &def.parameters) }
}

/// Overloads that are compared with the longest.
const MAX_OVERLOADS: usize = 64;

fn annotated(def: &StmtFunctionDef) -> bool {
    def.returns.is_some() || def.parameters.iter().any(|parameter| parameter.annotation().is_some())
}

/// What the definitions of a function say together, the receiver included: the implementation with the annotations of the stub;
/// of nothing but overloads, or where the implementation says nothing, the overload with most parameters.
pub(super) fn written<'a>(library: &Library<'a>, function: &Function<'a>) -> Signature {
    let main = function.main();
    let file = library.program.modules[function.module].file;
    let own = if is_overload(main) { longest(&function.defs) } else { main };
    let mut signature =
        if is_overload(main) { of_overloads(file, &function.defs) } else { of_definition(file, own) };
    if signature.is_general()
        && let overloads = function.defs.iter().copied().filter(|def| is_overload(def)).collect::<Vec<_>>()
        && !overloads.is_empty()
    {
        signature = of_overloads(file, &overloads);
    }
    let Some(stub) = library.program.stub_function(function) else { return signature };
    let stub_file = library.program.modules[stub.module].file;
    if signature.is_general() {
        return of_overloads(stub_file, &stub.defs);
    }
    if !annotated(own)
        && let [single] = stub.defs.as_slice()
    {
        let other = of_definition(stub_file, single);
        for parameter in &mut signature.parameters {
            if let Some(same) = other.parameters.iter().find(|same| same.name == parameter.name) {
                parameter.annotation.clone_from(&same.annotation);
            }
        }
        signature.returns = other.returns;
    }
    signature
}

/// The overload with most parameters; what another one does without may be left out.
fn of_overloads(file: &ParsedFile, defs: &[&StmtFunctionDef]) -> Signature {
    let mut signature = of_definition(file, longest(defs));
    if defs.len() < 2 {
        return signature;
    }
    let others: Vec<Signature> =
        defs.iter().take(MAX_OVERLOADS).map(|def| of_definition(file, def)).collect();
    for parameter in &mut signature.parameters {
        if parameter.default.is_some() || matches!(parameter.kind, Kind::Rest | Kind::Keywords) {
            continue;
        }
        let optional = others.iter().find_map(|other| {
            match other.parameters.iter().find(|same| same.name == parameter.name) {
                Some(same) => same.default.clone(),
                None => Some("...".to_owned()),
            }
        });
        parameter.default = optional;
    }
    // A required parameter cannot stand behind one that may be left out.
    let mut optional = false;
    for parameter in &mut signature.parameters {
        if matches!(parameter.kind, Kind::PositionalOnly | Kind::Standard) {
            optional |= parameter.default.is_some();
            if optional && parameter.default.is_none() {
                parameter.default = Some("...".into());
            }
        }
    }
    signature
}

fn longest<'a>(defs: &[&'a StmtFunctionDef]) -> &'a StmtFunctionDef {
    let mut best = defs[0];
    for def in defs {
        if def.parameters.len() > best.parameters.len() {
            best = def;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folding() {
        assert_eq!(fold("Union[\n    int,  # why\n    str,\n]"), "Union[int, str]");
        assert_eq!(fold("'a  b'"), "'a  b'");
        assert_eq!(fold("f(\n  'x  #',\n  1\n)"), "f('x  #', 1)");
        assert_eq!(
            fold("Doc(\"\"\"\n  say \"it's\"  # so\n\"\"\")\n"),
            "Doc(\"\"\"\\n  say \"it's\"  # so\\n\"\"\")"
        );
    }

    fn parameter(name: &str, kind: Kind, default: Option<&str>) -> Parameter {
        Parameter { name: name.into(), kind, annotation: None, default: default.map(str::to_owned) }
    }

    #[test]
    fn writing_and_binding() {
        use Kind::{KeywordOnly, Keywords, PositionalOnly, Rest, Standard};
        let mut signature = Signature {
            parameters: vec![
                parameter("a", PositionalOnly, None),
                parameter("b", Standard, None),
                parameter("c", Standard, Some("1")),
                parameter("k", KeywordOnly, None),
                parameter("kw", Keywords, None),
            ],
            returns: Some("int".into()),
        };
        assert_eq!(signature.to_string(), "(a, /, b, c=1, *, k, **kw) -> int");
        signature.skip_first();
        signature.bind(0, &[("b".into(), "2".into())]);
        assert_eq!(signature.to_string(), "(*, b=2, c=1, k, **kw) -> int");
        let rest = Signature { parameters: vec![parameter("a", Rest, None)], returns: None };
        assert!(!rest.is_general() && Signature::general().is_general());
        assert_eq!(Signature::general().to_string(), "(*args, **kwargs)");
    }
}
