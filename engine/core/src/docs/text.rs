//! Python's string formatting, as far as docstring templates use it.

/// `template.format(...)`: `lookup` gives positional (`"0"`) and named fields; a field that is not known is shown by
/// its name. `None` when the braces are no template.
pub(super) fn format(template: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    let mut position = 0;
    while let Some(at) = rest.find(['{', '}']) {
        out.push_str(&rest[..at]);
        let brace = &rest[at..at + 1];
        rest = &rest[at + 1..];
        if rest.starts_with(brace) {
            out.push_str(brace);
            rest = &rest[1..];
            continue;
        }
        if brace == "}" {
            return None;
        }
        let end = rest.find('}')?;
        let field = rest[..end].split(['!', ':']).next().unwrap_or("").trim();
        if !field.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '.' | '[' | ']')) {
            return None;
        }
        rest = &rest[end + 1..];
        let name = if field.is_empty() {
            position += 1;
            (position - 1).to_string()
        } else {
            field.to_owned()
        };
        match lookup(&name) {
            Some(value) => out.push_str(&value),
            None => out.push_str(field),
        }
    }
    out.push_str(rest);
    Some(out)
}

/// `template % values`: `%(name)s` by name, `%s` by position. What is not known is shown by its name.
pub(super) fn percent(template: &str, lookup: &dyn Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    let mut position = 0;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            out.push('%');
            rest = after;
        } else if rest.starts_with('(')
            && let Some(end) = rest.find(')')
            && rest[end + 1..].starts_with(['s', 'd', 'r', 'i', 'f'])
        {
            let name = &rest[1..end];
            out.push_str(&lookup(name).unwrap_or_else(|| name.to_owned()));
            rest = &rest[end + 2..];
        } else if rest.starts_with(['s', 'd', 'r'])
            && let Some(value) = lookup(&position.to_string())
        {
            position += 1;
            out.push_str(&value);
            rest = &rest[1..];
        } else {
            out.push('%');
        }
    }
    out.push_str(rest);
    out
}

/// `textwrap.dedent`: removes the indentation that all lines share.
pub(super) fn dedent(text: &str) -> String {
    let blank = |line: &str| line.trim().is_empty();
    let indent = |line: &str| line.len() - line.trim_start().len();
    let margin = text.lines().filter(|line| !blank(line)).map(indent).min().unwrap_or(0);
    if margin == 0 {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        if blank(line) {
            out.push_str(if line.ends_with('\n') { "\n" } else { "" });
        } else {
            out.push_str(line.get(margin..).unwrap_or(line));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates() {
        let lookup = |name: &str| match name {
            "0" | "klass" => Some("Series".to_owned()),
            _ => None,
        };
        assert_eq!(format("A {klass} of {other} {{x}} {}", &lookup).unwrap(), "A Series of other {x} Series");
        assert_eq!(format("d = {'a': 1}", &lookup), None);
        assert_eq!(format("}", &lookup), None);
        assert_eq!(
            percent("A %(klass)s, 5%% of %s and 5% more", &lookup),
            "A Series, 5% of Series and 5% more"
        );
        assert_eq!(dedent("  a\n\n    b\n"), "a\n\n  b\n");
    }
}
