//! Sphinx: the names of `objects.inv` (versions 1 and 2) and, from the HTML pages beside it, signatures and descriptions.

use std::io::{BufRead, BufReader, Read};
use std::path::{Component, Path};

use rustc_hash::FxHashMap;

use super::html::{Token, Tokens, attribute, decode};
use super::{Documentation, Skipped, docstring};
use crate::api::{ApiDoc, ApiKind, SourceLocation};
use crate::{Error, ErrorKind, Progress, Result, files};

/// Bytes of an inventory, inflated.
const MAX_INVENTORY_BYTES: u64 = 64 << 20;
/// Bytes of one HTML page.
const MAX_PAGE_BYTES: u64 = 64 << 20;
/// Bytes of a header line.
const MAX_HEADER_BYTES: u64 = 1 << 12;

struct Entry {
    name: String,
    kind: Option<ApiKind>,
    page: String,
    anchor: String,
}

/// What a page says about one anchor.
#[derive(Default)]
struct Described {
    signature: String,
    doc: String,
    examples: Vec<String>,
}

/// Reads an inventory and the pages that lie beside it; pages that are not there leave their names bare.
///
/// # Errors
/// The file cannot be read, is no inventory of version 1 or 2, is truncated or over the limits, or names no Python object.
pub(super) fn read(path: &Path, progress: &dyn Progress) -> Result<Documentation> {
    let entries = entries(path)?;
    if entries.is_empty() {
        return Err(Error::data(path, "no Python object in this inventory"));
    }
    let mut pages: Vec<&str> = entries.iter().map(|entry| entry.page.as_str()).collect();
    pages.sort_unstable();
    pages.dedup();
    progress.start("reading HTML pages", Some(pages.len() as u64));
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut described: FxHashMap<(&str, String), Described> = FxHashMap::default();
    let mut skipped = Vec::new();
    for page in &pages {
        progress.check()?;
        match page_text(folder, page) {
            Ok(Some(text)) => {
                for (anchor, description) in describe(&text) {
                    described.entry((page, anchor)).or_insert(description);
                }
            }
            Ok(None) => {}
            Err(reason) => skipped.push(Skipped { path: (*page).to_owned(), line: None, reason }),
        }
        progress.advance(1);
    }
    progress.finish();
    let modules: Vec<&str> = entries
        .iter()
        .filter(|entry| entry.kind == Some(ApiKind::Module))
        .map(|entry| entry.name.as_str())
        .collect();
    let mut apis: Vec<ApiDoc> = entries
        .iter()
        .map(|entry| {
            let found = described.get(&(entry.page.as_str(), entry.anchor.clone()));
            let module = module_of(&entry.name, entry.kind, &modules);
            let mut api = ApiDoc {
                name: entry.name.rsplit('.').next().unwrap_or(&entry.name).to_owned(),
                qualified_name: entry.name.clone(),
                kind: entry.kind,
                module,
                source: Some(SourceLocation { path: entry.page.clone(), line: 1 }),
                ..ApiDoc::default()
            };
            if let Some(found) = found {
                api.signature.clone_from(&found.signature);
                api.description = docstring::first_sentence(&found.doc);
                api.doc.clone_from(&found.doc);
                api.examples.clone_from(&found.examples);
            }
            api
        })
        .collect();
    apis.sort_by(|a, b| (&a.module, &a.qualified_name).cmp(&(&b.module, &b.qualified_name)));
    apis.dedup_by(|b, a| a.qualified_name == b.qualified_name);
    Ok(Documentation { apis, skipped, files_read: pages.len() + 1, ..Documentation::default() })
}

/// The longest module that a name begins with; else all but the parts that a class begins.
fn module_of(name: &str, kind: Option<ApiKind>, modules: &[&str]) -> String {
    if kind == Some(ApiKind::Module) {
        return name.to_owned();
    }
    let inside = |module: &&&str| name.strip_prefix(**module).is_some_and(|rest| rest.starts_with('.'));
    if let Some(module) = modules.iter().filter(inside).max_by_key(|module| module.len()) {
        return (*module).to_owned();
    }
    let parents: Vec<&str> = name.split('.').collect();
    let upper = |part: &str| part.starts_with(char::is_uppercase);
    let end = parents.iter().position(|part| upper(part)).unwrap_or(parents.len() - 1);
    parents[..end.min(parents.len() - 1)].join(".")
}

fn entries(path: &Path) -> Result<Vec<Entry>> {
    let file = files::open_regular(path).map_err(|cause| Error::io("open", path, cause))?;
    let mut reader = BufReader::new(file);
    let mut header = |what: &str| -> Result<String> {
        let mut line = Vec::new();
        (&mut reader)
            .take(MAX_HEADER_BYTES)
            .read_until(b'\n', &mut line)
            .map_err(|cause| Error::io("read", path, cause))?;
        let line = String::from_utf8(line)
            .map_err(|_| Error::data(path, format!("not a Sphinx inventory ({what})")))?;
        Ok(line.trim_end().to_owned())
    };
    let version = header("first line")?;
    let compressed = match version.as_str() {
        "# Sphinx inventory version 2" => true,
        "# Sphinx inventory version 1" => false,
        other if other.starts_with("# Sphinx inventory version") => {
            let what = format!("{}: {other:?} is not read (versions 1 and 2 are)", path.display());
            return Err(Error::new(ErrorKind::UnsupportedVersion, what));
        }
        _ => return Err(Error::data(path, "not a Sphinx inventory (first line)")),
    };
    header("project line")?;
    header("version line")?;
    if compressed && !header("compression line")?.contains("zlib") {
        return Err(Error::data(path, "the inventory's fourth line does not announce zlib"));
    }
    let mut text = Vec::new();
    if compressed {
        flate2::bufread::ZlibDecoder::new(reader).take(MAX_INVENTORY_BYTES + 1).read_to_end(&mut text)
    } else {
        reader.take(MAX_INVENTORY_BYTES + 1).read_to_end(&mut text)
    }
    .map_err(|cause| Error::data(path, format!("damaged or truncated inventory: {cause}")))?;
    if text.len() as u64 > MAX_INVENTORY_BYTES {
        let what = format!("{}: inflates to more than {MAX_INVENTORY_BYTES} bytes", path.display());
        return Err(Error::new(ErrorKind::LimitExceeded, what));
    }
    let text = String::from_utf8(text).map_err(|cause| {
        Error::data(path, format!("not UTF-8 at byte {} after inflating", cause.utf8_error().valid_up_to()))
    })?;
    let line = if compressed { entry } else { entry_of_version_1 };
    Ok(text.lines().filter_map(line).collect())
}

/// `name role page`, where the anchor follows from the name.
fn entry_of_version_1(line: &str) -> Option<Entry> {
    let mut parts = line.split_whitespace();
    let (name, role, page) = (parts.next()?, parts.next()?, parts.next()?);
    let (role, anchor) = if role == "mod" { ("module", "module-$") } else { (role, "$") };
    entry(&format!("{name} py:{role} 1 {page}#{} -", anchor.replace('$', name)))
}

/// `name domain:role priority uri display`, where `$` at the end of the uri stands for the name.
fn entry(line: &str) -> Option<Entry> {
    let mut parts = line.split(' ');
    let name = parts.next()?;
    let role = parts.next()?.strip_prefix("py:")?;
    let _priority = parts.next()?;
    let uri = parts.next()?;
    if name.split('.').any(|part| part.is_empty() || part.starts_with('_')) {
        return None;
    }
    let kind = match role {
        "module" => ApiKind::Module,
        "class" | "exception" => ApiKind::Class,
        "function" | "decorator" => ApiKind::Function,
        "method" | "classmethod" | "staticmethod" | "decoratormethod" => ApiKind::Method,
        "attribute" | "property" => ApiKind::Property,
        "data" | "type" => ApiKind::Constant,
        _ => return None,
    };
    let uri = match uri.strip_suffix('$') {
        Some(uri) => format!("{uri}{name}"),
        None => uri.to_owned(),
    };
    let (page, anchor) = uri.split_once('#').unwrap_or((&uri, ""));
    Some(Entry { name: name.to_owned(), kind: Some(kind), page: page.to_owned(), anchor: anchor.to_owned() })
}

/// The text of a page below `folder`; `None` where there is none.
fn page_text(folder: &Path, page: &str) -> Result<Option<String>, String> {
    let relative = Path::new(page);
    if !relative.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Err("points out of the folder of the inventory".into());
    }
    let mut path = folder.join(relative);
    if page.is_empty() || page.ends_with('/') || path.is_dir() {
        path.push("index.html");
    }
    if !path.exists() {
        return Ok(None);
    }
    let bytes =
        files::read_bounded(&path, MAX_PAGE_BYTES).map_err(|cause| format!("cannot read: {cause}"))?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

/// The `<dt id>` of a page with the text of the `<dd>` that follows: signature and description by anchor.
fn describe(page: &str) -> Vec<(String, Described)> {
    let mut found: Vec<(String, Described)> = Vec::new();
    // Terms whose description has not begun, and descriptions that are open: a class's holds those of its methods.
    let mut waiting: Vec<usize> = Vec::new();
    let mut open: Vec<(Vec<usize>, Body)> = Vec::new();
    let mut term: Option<(String, String)> = None;
    let mut hidden = 0_usize;
    for token in Tokens::new(page) {
        match token {
            Token::Open("dt", attributes) => {
                term = attribute(attributes, "id").map(|id| (id, String::new()));
                hidden = 0;
            }
            Token::Close("dt") => {
                hidden = 0;
                if let Some((id, text)) = term.take() {
                    let signature = signature_of(&text);
                    waiting.push(found.len());
                    found.push((id, Described { signature, ..Described::default() }));
                }
            }
            Token::Open("a", attributes) if term.is_some() => {
                let class = attribute(attributes, "class").unwrap_or_default();
                let source = class.contains("headerlink")
                    || attributes.contains("viewcode")
                    || class.contains("reference external");
                hidden += usize::from(source || hidden > 0);
            }
            Token::Close("a") if term.is_some() => hidden = hidden.saturating_sub(1),
            Token::Text(text) if term.is_some() => {
                if hidden == 0
                    && let Some((_, signature)) = &mut term
                {
                    signature.push_str(&decode(text));
                }
            }
            Token::Open("dd", _) => open.push((std::mem::take(&mut waiting), Body::default())),
            Token::Close("dd") => {
                if let Some((terms, body)) = open.pop() {
                    let (doc, examples) = body.finish();
                    for at in terms {
                        found[at].1.doc.clone_from(&doc);
                        found[at].1.examples.clone_from(&examples);
                    }
                }
            }
            token => {
                if let Some((_, body)) = open.last_mut() {
                    body.push(&token);
                }
            }
        }
    }
    found
}

/// The text of a description: paragraphs apart, code blocks kept.
#[derive(Default)]
struct Body {
    text: String,
    code: Option<String>,
    examples: Vec<String>,
}

impl Body {
    fn push(&mut self, token: &Token<'_>) {
        match token {
            Token::Open("pre", _) => self.code = Some(String::new()),
            Token::Close("pre") => {
                if let Some(code) = self.code.take() {
                    let code = code.trim_matches('\n').to_owned();
                    self.text.push_str(&format!("\n\n{code}\n\n"));
                    if !code.is_empty() {
                        self.examples.push(code);
                    }
                }
            }
            Token::Open("p" | "ul" | "ol" | "table" | "dl", _)
            | Token::Close("p" | "ul" | "ol" | "table" | "dl") => {
                self.text.push_str("\n\n");
            }
            Token::Open("li", _) => self.text.push_str("\n- "),
            Token::Open("br" | "tr", _) => self.text.push('\n'),
            Token::Text(text) => match &mut self.code {
                Some(code) => code.push_str(&decode(text)),
                None => {
                    let text = decode(text);
                    let folded = text.split_whitespace().collect::<Vec<_>>().join(" ");
                    if text.starts_with(char::is_whitespace) && !self.text.ends_with(['\n', ' ']) {
                        self.text.push(' ');
                    }
                    self.text.push_str(&folded);
                    if !folded.is_empty() && text.ends_with(char::is_whitespace) {
                        self.text.push(' ');
                    }
                }
            },
            _ => {}
        }
    }

    fn finish(self) -> (String, Vec<String>) {
        let mut text = String::with_capacity(self.text.len());
        let mut blank = 0;
        for line in self.text.trim().lines() {
            blank = if line.trim().is_empty() { blank + 1 } else { 0 };
            if blank < 2 {
                text.push_str(line.trim_end());
                text.push('\n');
            }
        }
        (text.trim_end().to_owned(), self.examples)
    }
}

/// `class pkg.mod.Name(a, b=1)[source]¶` -> `(a, b=1)`.
fn signature_of(term: &str) -> String {
    let folded = term.split_whitespace().collect::<Vec<_>>().join(" ");
    let Some(at) = folded.find('(') else { return String::new() };
    let signature = folded[at..].trim_end_matches('¶').trim_end();
    let signature = signature.strip_suffix("[source]").unwrap_or(signature).trim_end();
    signature.replace("( ", "(").replace(" )", ")").replace('→', "->")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_no_empty_part() {
        let named =
            |name: &str| entry(&format!("{name} py:function 1 page.html#$ -")).map(|entry| entry.name);
        assert_eq!(named("wool.spin").as_deref(), Some("wool.spin"));
        for name in ["", "wool.", ".spin", "wool..spin", "wool._spin"] {
            assert_eq!(named(name), None, "{name:?}");
        }
    }
}
