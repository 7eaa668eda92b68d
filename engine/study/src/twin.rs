//! The importable private twin of a library: a small Python package that answers to a rename table's private words alone.
//!
//! The package holds no copy of the library and changes nothing in it. Programs that use it are compiled through it: each
//! attribute, keyword and import that the table knows goes through a lookup that sees the object's type. On what the library
//! owns, instances of its C types included, private words stand for public names and public names are refused; a plain list
//! keeps its `sum`. The library's own code runs as it always did, so nothing inside it breaks or slows down.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use inhouse_core::{Error, Result, files};
use serde_json::json;

use crate::rename::Table;

/// Where private words may be used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Scope {
    /// On the library's own modules, classes and objects alone.
    Library,
    /// There, and wherever the public name would do where the private one does not exist (`length(kf)`, `np.ceiling`): the
    /// published tables rename words outside of the library too, and the published problems use those.
    #[default]
    Everywhere,
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "library" => Ok(Self::Library),
            "everywhere" => Ok(Self::Everywhere),
            _ => Err("expected library or everywhere".into()),
        }
    }
}

/// A private twin of a library.
#[derive(Debug, Clone)]
pub struct Twin {
    library: String,
    name: String,
    scope: Scope,
    table: Table,
}

const FILES: [(&str, &str); 9] = [
    ("__init__.py", include_str!("twin/package/__init__.py")),
    ("__main__.py", include_str!("twin/package/__main__.py")),
    ("_twin/__init__.py", include_str!("twin/package/_twin/__init__.py")),
    ("_twin/lookup.py", include_str!("twin/package/_twin/lookup.py")),
    ("_twin/modules.py", include_str!("twin/package/_twin/modules.py")),
    ("_twin/programs.py", include_str!("twin/package/_twin/programs.py")),
    ("_twin/starting.py", include_str!("twin/package/_twin/starting.py")),
    ("_twin/table.py", include_str!("twin/package/_twin/table.py")),
    ("_twin/transform.py", include_str!("twin/package/_twin/transform.py")),
];

impl Twin {
    /// The twin that a table describes; see [`Table::library_and_name`] for `candidates`.
    ///
    /// # Errors
    /// The table does not say which library it renames, nor do the candidates.
    pub fn new(table: &Table, candidates: &[String], scope: Scope) -> Result<Self> {
        let (library, name) = table.library_and_name(candidates)?;
        Ok(Self { library: library.to_owned(), name: name.to_owned(), scope, table: table.clone() })
    }

    /// What programs import.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Import name of the public library.
    pub fn library(&self) -> &str {
        &self.library
    }

    /// Writes the package into `folder` and gives its own folder back. Earlier files of the same twin are replaced.
    ///
    /// # Errors
    /// The folder cannot be written, or something else of the twin's name is there.
    pub fn write(&self, folder: &Path) -> Result<PathBuf> {
        let package = folder.join(&self.name);
        if package.exists() && !package.join("_twin/table.json").is_file() {
            let what = "something else is here already; remove it or choose another folder for the twin";
            return Err(Error::data(&package, what));
        }
        let inner = package.join("_twin");
        std::fs::create_dir_all(&inner).map_err(|cause| Error::io("make", &inner, cause))?;
        for (name, text) in FILES {
            files::write_atomic(&package.join(name), |out| out.write_all(text.as_bytes()))?;
        }
        let table = self.table_json();
        files::write_atomic(&inner.join("table.json"), |out| out.write_all(table.as_bytes()))?;
        Ok(package)
    }

    fn table_json(&self) -> String {
        let words: serde_json::Map<_, _> =
            self.table.pairs.iter().map(|(public, private)| (public.clone(), json!(private))).collect();
        json!({
            "library": self.library,
            "name": self.name,
            "modules": self.table.modules,
            "everywhere": self.scope == Scope::Everywhere,
            "public_to_private": words,
        })
        .to_string()
    }

    /// Modules to import before any sample starts.
    pub(crate) fn preload(&self) -> [String; 2] {
        [self.name.clone(), format!("{}._twin.programs", self.name)]
    }

    /// All that decides how the twin answers, for the journal's keys.
    pub(crate) fn identity(&self) -> String {
        let code: String = FILES.iter().map(|(_, text)| *text).collect();
        format!("{}{code}", self.table_json())
    }

    /// The program that runs a candidate through the twin; with `public_tests`, tests may then use public names.
    pub(crate) fn candidate_program(&self, code: &str, public_tests: bool) -> String {
        let public_tests = if public_tests { "True" } else { "False" };
        format!("{}.candidate({}, globals(), {public_tests})\n", self.programs(), literal(code))
    }

    /// The program that runs a test in private words.
    pub(crate) fn private_test_program(&self, test: &str) -> String {
        format!("{}.test({}, globals())\n", self.programs(), literal(test))
    }

    /// A test in public names for a prompt in private words. It runs as it is, but for strings: where it expects
    /// `'unique_values'` of a prompt that asks for `distinctive_values`, it expects what the prompt asks for. Strings that are
    /// a table's word themselves stay: they may be arguments of the library's (`'last'`).
    pub(crate) fn public_test_program(&self, prompt: &str, test: &str) -> String {
        let mut test = test.to_owned();
        let mut words: Vec<_> = crate::rename::words(prompt).collect();
        words.sort_unstable();
        words.dedup();
        for word in words {
            let public = self.table.public_text(word);
            if public != word && !self.table.pairs.iter().any(|(_, private)| private == word) {
                for quote in ['\'', '"'] {
                    test = test.replace(&format!("{quote}{public}{quote}"), &format!("{quote}{word}{quote}"));
                }
            }
        }
        test
    }

    fn programs(&self) -> String {
        format!("__import__('{}._twin.programs', None, None, ['candidate'])", self.name)
    }

    /// Why the candidate does not compile, where a failure's detail says that.
    pub(crate) fn compile_error(detail: &str) -> Option<&str> {
        let detail = detail.strip_prefix("DoesNotCompile: ")?;
        // The line of the program around it.
        Some(detail.strip_suffix(" (line 1)").unwrap_or(detail))
    }
}

/// A text as a Python string literal: JSON's escapes are Python's.
fn literal(text: &str) -> String {
    json!(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn monkey() -> Twin {
        let table = Table::read(Path::new("monkey"), "").expect("the shipped table");
        Twin::new(&table, &[], Scope::Everywhere).expect("a twin")
    }

    #[test]
    fn a_twin_is_written_whole_and_over_itself_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let package = monkey().write(folder.path()).expect("written");
        assert_eq!(package, folder.path().join("monkey"));
        for (name, text) in FILES {
            assert_eq!(std::fs::read_to_string(package.join(name)).expect(name), text);
        }
        monkey().write(folder.path()).expect("written again");
        std::fs::remove_file(package.join("_twin/table.json")).expect("removed");
        let error = monkey().write(folder.path()).expect_err("not a twin").to_string();
        assert!(error.contains("monkey: something else"), "{error}");
    }

    #[test]
    fn strings_of_a_public_test_follow_the_prompt() {
        let twin = monkey();
        let prompt = "# name it 'distinctive_values', with total_sum and `average_of`\n";
        let test = "x = ['unique_values', \"mean_of\", 'sum', 'unique_values_2']";
        let got = twin.public_test_program(prompt, test);
        assert_eq!(got, "x = ['distinctive_values', \"average_of\", 'sum', 'unique_values_2']");
    }

    #[test]
    fn compile_errors_are_told_from_other_failures() {
        let detail = "DoesNotCompile: SyntaxError: invalid syntax (<candidate>, line 3) (line 1)";
        assert_eq!(Twin::compile_error(detail), Some("SyntaxError: invalid syntax (<candidate>, line 3)"));
        assert_eq!(Twin::compile_error("SyntaxError: invalid syntax (<string>, line 1) (line 3)"), None);
    }
}
