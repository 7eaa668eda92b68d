//! Pairs from code: a comment or docstring, and the APIs that the block below it really calls.

use inhouse_core::constrain::{self, Call, Calls};
use inhouse_core::{docs, python};

use super::table::ApiTable;
use super::{Origin, Pair, prose};
use crate::corpus::{Block, BlockKind, SourceFile, blocks};

/// A comment over more different APIs than this says little of each.
const MAX_APIS: usize = 4;
/// The same for the docstring of a whole function.
const MAX_APIS_OF_FUNCTION: usize = 3;

/// Says which documented API a call of one file is of.
pub(crate) struct Resolver<'f> {
    table: &'f ApiTable,
    found: &'f Calls,
    /// Libraries that the file has names of: a method on a value of unknown type is looked for there.
    libraries: Vec<&'f str>,
}

impl<'f> Resolver<'f> {
    /// Of a file whose calls were found.
    pub fn new(file: &'f SourceFile, table: &'f ApiTable, found: &'f Calls) -> Self {
        let own = file.module.split('.').next().unwrap_or_default();
        let mut libraries: Vec<&str> = vec![own];
        for (_, full) in &found.imports {
            let top = full.split('.').next().unwrap_or_default();
            if !libraries.contains(&top) && table.has_library(top) {
                libraries.push(top);
            }
        }
        Self { table, found, libraries }
    }

    /// The libraries that the file has names of, its own first.
    pub fn libraries(&self) -> &[&'f str] {
        &self.libraries
    }

    /// The API's number, and whether it is known by its bare name alone.
    pub fn resolve(&self, call: &Call) -> Option<(u32, bool)> {
        if let Some(target) = &call.target {
            return self.table.callable(target).map(|id| (id, false));
        }
        let root = call.root.as_deref()?;
        if matches!(root, "self" | "cls" | "super")
            || self.found.imports.iter().any(|(bound, _)| bound == root)
            || constrain::is_builtin_member(&call.name)
        {
            return None;
        }
        self.table.method_named(&call.name, &self.libraries).map(|id| (id, true))
    }
}

/// The pairs of one file; none where it does not parse.
pub(crate) fn pairs(file: &SourceFile, table: &ApiTable) -> Vec<Pair> {
    python::read_valid(&file.text, |parsed| Some(pairs_of(file, parsed, table))).unwrap_or_default()
}

fn pairs_of(file: &SourceFile, parsed: &python::Tree, table: &ApiTable) -> Vec<Pair> {
    let body = parsed.suite();
    let found = constrain::calls(table.names(), &file.module, file.is_package, &file.text, body);
    let resolver = Resolver::new(file, table, &found);
    let mut pairs = Vec::new();
    for block in blocks(&file.text, body, parsed.tokens()) {
        let first = found.calls.partition_point(|call| call.at < block.code.start);
        let called = found.calls[first..].iter().take_while(|call| call.at < block.code.end);
        let mut apis: Vec<(u32, bool)> = Vec::new();
        for (id, guessed) in called.filter_map(|call| resolver.resolve(call)) {
            if !apis.iter().any(|(known, _)| *known == id) {
                apis.push((id, guessed));
            }
        }
        add(&block, &apis, table, &file.path, &mut pairs);
    }
    pairs
}

fn add(block: &Block, apis: &[(u32, bool)], table: &ApiTable, path: &str, pairs: &mut Vec<Pair>) {
    let most = if block.kind == BlockKind::Function { MAX_APIS_OF_FUNCTION } else { MAX_APIS };
    if apis.is_empty() || apis.len() > most {
        return;
    }
    let mut queries = Vec::new();
    match block.kind {
        BlockKind::Statements => {
            queries.extend(prose::sentence(&block.says, 50).map(|q| (q, Origin::Comment)))
        }
        BlockKind::Function => {
            let paragraph = prose::paragraphs(block.says.trim()).into_iter().next().unwrap_or_default();
            let first = docs::first_sentence(&block.says);
            let first = prose::sentence(&first, 40);
            let whole = prose::sentence(&paragraph, 60).filter(|whole| Some(whole) != first.as_ref());
            queries.extend(first.map(|q| (q, Origin::Docstring)));
            queries.extend(whole.map(|q| (q, Origin::Paragraph)));
        }
    }
    // All APIs of a pair are of one library: the pool that is searched.
    let mut libraries: Vec<&str> = Vec::new();
    for (id, _) in apis {
        let library = table.api(*id).library();
        if !libraries.contains(&library) {
            libraries.push(library);
        }
    }
    for (query, origin) in queries {
        for library in &libraries {
            let of = apis.iter().filter(|(id, _)| table.api(*id).library() == *library);
            pairs.push(Pair {
                query: query.clone(),
                origin,
                apis: of.clone().map(|(id, _)| table.api(*id).qualified_name.clone()).collect(),
                guessed: of.clone().any(|(_, guessed)| *guessed),
                path: path.to_owned(),
                line: block.line,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pairs::table::api;
    use inhouse_core::api::ApiKind;

    #[test]
    fn comments_and_docstrings_with_what_is_called() {
        let table = ApiTable::new(vec![
            api("loom.weave", ApiKind::Function),
            api("loom.Cloth", ApiKind::Class),
            api("loom.Cloth.hem", ApiKind::Method),
            api("loom.Cloth.append", ApiKind::Method),
        ]);
        let text = "\
import loom as lm
def shirt(a, rows):
    \"\"\"Make a shirt of two threads.\"\"\"
    # First weave the threads together
    cloth = lm.weave(a)
    # Then put a hem around everything
    cloth.hem()
    rows.append(1)
    return sorted(rows)
";
        let file = SourceFile {
            path: "shop/shirts.py".into(),
            module: "shop.shirts".into(),
            is_package: false,
            text: text.into(),
        };
        let seen: Vec<_> = pairs(&file, &table)
            .into_iter()
            .map(|pair| (pair.query, pair.apis.join(" "), pair.guessed))
            .collect();
        let row = |query: &str, apis: &str, guessed| (query.to_owned(), apis.to_owned(), guessed);
        assert_eq!(
            seen,
            [
                row("Make a shirt of two threads.", "loom.weave loom.Cloth.hem", true),
                row("First weave the threads together", "loom.weave", false),
                row("Then put a hem around everything", "loom.Cloth.hem", true),
            ]
        );
    }
}
