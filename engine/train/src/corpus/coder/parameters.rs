//! The parameters of a documented signature, so that it can be written under other names and called.

use inhouse_core::python;
use ruff_python_ast::{Parameter as Node, StmtFunctionDef};
use ruff_text_size::{Ranged, TextRange};

/// How a parameter is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// By position or name; the first `n` of a list may be by position alone.
    Position,
    /// By name alone.
    Name,
    /// `*rest`.
    Rest,
    /// `**keywords`.
    Keywords,
}

/// One parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parameter {
    pub name: String,
    pub way: Way,
    pub annotation: Option<String>,
    pub default: Option<String>,
}

/// A signature.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Parameters {
    pub list: Vec<Parameter>,
    /// How many of the first can be given by position alone.
    pub position_only: usize,
    pub returns: Option<String>,
}

impl Parameters {
    /// Reads `(a, b: int = 1, *, c) -> d`; `None` where it is not Python.
    pub fn parse(signature: &str) -> Option<Self> {
        python::read_signature(signature, Self::of)
    }

    fn of(def: &StmtFunctionDef, source: &str) -> Option<Self> {
        let text = |range: TextRange| {
            source.get(range.start().to_usize()..range.end().to_usize()).map(str::to_owned)
        };
        let of = |node: &Node, default: Option<TextRange>, way| {
            Some(Parameter {
                name: node.name.to_string(),
                way,
                annotation: match &node.annotation {
                    Some(annotation) => Some(text(annotation.range())?),
                    None => None,
                },
                default: match default {
                    Some(default) => Some(text(default)?),
                    None => None,
                },
            })
        };
        let parameters = &def.parameters;
        let mut list = Vec::new();
        for entry in parameters.posonlyargs.iter().chain(&parameters.args) {
            list.push(of(&entry.parameter, entry.default.as_ref().map(|d| d.range()), Way::Position)?);
        }
        if let Some(rest) = &parameters.vararg {
            list.push(of(rest, None, Way::Rest)?);
        }
        for entry in &parameters.kwonlyargs {
            list.push(of(&entry.parameter, entry.default.as_ref().map(|d| d.range()), Way::Name)?);
        }
        if let Some(keywords) = &parameters.kwarg {
            list.push(of(keywords, None, Way::Keywords)?);
        }
        let returns = match &def.returns {
            Some(returns) => Some(text(returns.range())?),
            None => None,
        };
        Some(Self { list, position_only: parameters.posonlyargs.len(), returns })
    }

    /// Written out again, each name as `rename` gives it, without the parentheses.
    pub fn render(&self, annotations: bool, rename: &mut dyn FnMut(&str) -> String) -> String {
        let mut parts: Vec<String> = Vec::new();
        let mut starred = false;
        for (i, parameter) in self.list.iter().enumerate() {
            if self.position_only > 0 && i == self.position_only {
                parts.push("/".into());
            }
            if parameter.way == Way::Rest {
                starred = true;
            }
            if parameter.way == Way::Name && !starred {
                parts.push("*".into());
                starred = true;
            }
            let mark = match parameter.way {
                Way::Rest => "*",
                Way::Keywords => "**",
                Way::Position | Way::Name => "",
            };
            let mut text = format!("{mark}{}", rename(&parameter.name));
            let annotation = parameter.annotation.as_ref().filter(|_| annotations);
            if let Some(annotation) = annotation {
                text.push_str(": ");
                text.push_str(annotation);
            }
            if let Some(default) = &parameter.default {
                text.push_str(if annotation.is_some() { " = " } else { "=" });
                text.push_str(default);
            }
            parts.push(text);
        }
        if self.position_only > 0 && self.position_only == self.list.len() {
            parts.push("/".into());
        }
        parts.join(", ")
    }

    /// The parameters that a caller must give.
    pub fn required(&self) -> impl Iterator<Item = &Parameter> {
        self.list.iter().filter(|parameter| {
            parameter.default.is_none() && matches!(parameter.way, Way::Position | Way::Name)
        })
    }

    /// The parameters that a caller may give by name.
    pub fn optional(&self) -> impl Iterator<Item = &Parameter> {
        self.list.iter().skip(self.position_only).filter(|parameter| parameter.default.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_written_again() {
        for text in [
            "()",
            "(a, b: int = 1, *, c) -> list[int]",
            "(a, /, b='x', *rest: str, **keywords)",
            "(a, *, b=None)",
            "(x, /)",
        ] {
            let parameters = Parameters::parse(text).unwrap();
            let returns =
                parameters.returns.as_ref().map_or_else(String::new, |returns| format!(" -> {returns}"));
            assert_eq!(format!("({}){returns}", parameters.render(true, &mut str::to_owned)), text);
        }
        let parameters = Parameters::parse("(a: int, b: str = 'x', *, c)").unwrap();
        assert_eq!(parameters.render(false, &mut |name| format!("{name}{name}")), "aa, bb='x', *, cc");
        let names: Vec<&str> = parameters.required().map(|p| p.name.as_str()).collect();
        assert_eq!(names, ["a", "c"]);
        assert!(Parameters::parse("(a").is_none() && Parameters::parse("a").is_none());
    }
}
