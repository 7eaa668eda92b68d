//! Hierarchies of classes: what is inherited or said again is documented once, and files leave out what follows.
#![allow(clippy::unwrap_used, clippy::panic)]

mod docs_support;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use docs_support::{api, names};
use inhouse_core::api::{self as rows, OF_BASES};
use inhouse_core::docs::{self, Documentation, ReadOptions};
use inhouse_core::progress::Silent;

fn package(text: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("yarn")).unwrap();
    std::fs::write(folder.path().join("yarn/__init__.py"), text).unwrap();
    folder
}

fn read(folder: &Path, short: bool) -> Documentation {
    let mut options = ReadOptions::default();
    options.short = short;
    docs::read(&folder.join("yarn"), &options, &Silent).unwrap()
}

fn all_names(found: &Documentation) -> BTreeSet<&str> {
    let dotted = found.apis.iter().flat_map(|api| std::iter::once(&api.qualified_name).chain(&api.aliases));
    dotted.map(String::as_str).collect()
}

/// A base class with many attributes of its own, and 1,500 classes below it in three layers.
fn large() -> String {
    let mut text = String::from("class Fibre:\n    \"\"\"A fibre.\"\"\"\n    def __init__(self):\n");
    for i in 0..40 {
        writeln!(text, "        self._part{i} = {i}").unwrap();
    }
    text.push_str("    def spin(self, turns=1):\n        \"\"\"Spins.\"\"\"\n    def cut(self): ...\n");
    text.push_str("class Dyed:\n    def cut(self, at): ...\n");
    for i in 0..1500 {
        let base = match i {
            0..20 => "Fibre".to_owned(),
            20..400 => format!("Strand{}", i % 20),
            _ if i % 7 == 0 => format!("Dyed, Strand{}", i % 400),
            _ => format!("Strand{}", i % 400),
        };
        writeln!(text, "class Strand{i}({base}):").unwrap();
        match i % 50 {
            3 => text.push_str("    def spin(self, turns=2, back=False): ...\n"),
            4 => text.push_str("    _part1 = None\n    def __init__(self): self.own = 1\n"),
            5 => text.push_str("    _part2: int = 3\n    part3 = 4\n"),
            _ => text.push_str("    pass\n"),
        }
    }
    text
}

#[test]
fn a_file_of_a_large_hierarchy_says_the_same_with_fewer_names() {
    let folder = package(&large());
    let (whole, mut short) = (read(folder.path(), false), read(folder.path(), true));
    let spin = api(&short, "yarn.Fibre.spin");
    assert!(spin.inherited_by > 1000, "{}", spin.inherited_by);
    assert!(spin.aliases.len() < 100, "{}", spin.aliases.len());
    assert!(api(&short, "yarn.Strand9").undocumented.as_ref().unwrap().iter().any(|name| name == OF_BASES));
    assert!(api(&whole, "yarn.Fibre.spin").aliases.contains(&"yarn.Strand1499.spin".to_owned()));
    // a class that derives from one which has its own
    assert!(api(&whole, "yarn.Strand3.spin").aliases.contains(&"yarn.Strand23.spin".to_owned()));

    let out = folder.path().join("rows.jsonl");
    rows::write_jsonl(&out, &short.apis).unwrap();
    let size = std::fs::metadata(&out).unwrap().len();
    rows::write_jsonl(&folder.path().join("whole.jsonl"), &whole.apis).unwrap();
    assert!(size * 2 < std::fs::metadata(folder.path().join("whole.jsonl")).unwrap().len());

    short.apis = rows::read_jsonl(&out).unwrap();
    let sorted = |found: &Documentation| {
        let mut apis = found.apis.clone();
        apis.iter_mut().for_each(|api| api.aliases.sort());
        apis
    };
    assert_eq!(sorted(&short), sorted(&whole));
    for i in 0..1500 {
        for member in ["spin", "cut"] {
            let name = format!("yarn.Strand{i}.{member}");
            assert!(all_names(&whole).contains(name.as_str()), "{name}");
            if i > 50 {
                break;
            }
        }
    }
}

#[test]
fn classes_in_a_circle_and_base_classes_that_are_not_there_end_well() {
    let mut text = String::from("class A(B, Gone): ...\nclass B(A): ...\n");
    for i in 0..1200 {
        writeln!(text, "class C{i}(A, B, Gone):\n    def m(self): ...").unwrap();
    }
    let folder = package(&text);
    let (whole, mut short) = (read(folder.path(), false), read(folder.path(), true));
    rows::expand(&mut short.apis);
    assert_eq!(all_names(&whole), all_names(&short));
}

#[test]
fn what_classes_of_one_hierarchy_repeat_is_one_record() {
    let folder = package(
        r#"
class Recipe:
    """A recipe."""
    colour: str = "red"
    def weave(self, rows): return rows

class Plain(Recipe):
    colour: str = "blue"
    width = 3
    def weave(self, rows): return rows

class Twill(Recipe):
    colour: str = "green"
    width = 4
    def weave(self, rows): return rows + 1

class Apart:
    colour = "grey"
    def weave(self, rows): return rows
"#,
    );
    let found = read(folder.path(), false);
    let aliases = |name: &str| api(&found, name).aliases.clone();
    assert_eq!(aliases("yarn.Recipe.colour"), ["yarn.Plain.colour", "yarn.Twill.colour"]);
    assert_eq!(aliases("yarn.Plain.width"), ["yarn.Twill.width"]);
    assert_eq!(aliases("yarn.Recipe.weave"), ["yarn.Plain.weave"]);
    // another body, another hierarchy: things of their own
    let own = names(&found);
    for name in ["yarn.Twill.weave", "yarn.Apart.colour", "yarn.Apart.weave"] {
        assert!(own.contains(&name.to_owned()), "{name} in {own:?}");
    }
}

#[test]
fn members_of_enumerations_are_each_their_own() {
    let folder = package(
        "import enum\nclass Tone(enum.Enum):\n    def show(self): ...\nclass A(Tone):\n    RED = 1\nclass B(Tone):\n    RED = 1\n",
    );
    let found = names(&read(folder.path(), false));
    assert!(
        found.contains(&"yarn.A.RED".to_owned()) && found.contains(&"yarn.B.RED".to_owned()),
        "{found:?}"
    );
}
