//! Reading documentation: a package written for these tests, wheels and sdists made of it, Sphinx output, bad input.

mod docs_support;

use docs_support::{api, fixture, gz_tar, names, read, zip_of};
use inhouse_core::api::ApiKind;
use inhouse_core::constrain::{self, Library, Verdict};
use inhouse_core::docs::{self, ReadOptions};
use inhouse_core::index::{self, BuildOptions, Index, Query};
use inhouse_core::{ErrorKind, progress::Silent};

#[test]
fn a_package_is_listed_as_users_import_it() {
    let found = read(&fixture("tidepool"));
    let expected = std::fs::read_to_string(fixture("tidepool.expected.txt")).unwrap();
    let listed: String = found
        .apis
        .iter()
        .map(|api| {
            let kind = api.kind.map_or("-".to_owned(), |kind| format!("{kind:?}").to_lowercase());
            format!(
                "{kind} {}{} | {} | {}\n",
                api.qualified_name,
                api.signature,
                api.description,
                api.aliases.join(" ")
            )
        })
        .collect();
    if std::env::var_os("INHOUSE_UPDATE_EXPECTED").is_some() {
        std::fs::write(fixture("tidepool.expected.txt"), &listed).unwrap();
    }
    for (line, (got, want)) in listed.lines().zip(expected.lines()).enumerate() {
        assert_eq!(got, want, "line {}", line + 1);
    }
    assert_eq!(listed.lines().count(), expected.lines().count());
}

#[test]
fn files_that_do_not_parse_are_skipped() {
    let found = read(&fixture("tidepool"));
    let skipped: Vec<(&str, Option<u32>)> =
        found.skipped.iter().map(|skipped| (skipped.path.as_str(), skipped.line)).collect();
    assert_eq!(skipped, [("broken.py", Some(3))]);
    assert!(found.files_read > 5);
}

#[test]
fn docstring_and_examples_are_kept() {
    let found = read(&fixture("tidepool"));
    let gather = api(&found, "tidepool.gather");
    assert!(gather.doc.starts_with("Gathers shells, e.g. cones, from 1.5 m around."), "{}", gather.doc);
    assert_eq!(gather.examples, [">>> gather(2)\n['cone', 'cone']"]);
    let source = gather.source.as_ref().unwrap();
    assert_eq!((source.path.as_str(), source.line), ("_shells.py", 19));
}

#[test]
fn wheel_sdist_and_folder_agree() {
    let dir = tempfile::tempdir().unwrap();
    let folder = read(&fixture("tidepool"));
    let files = docs_support::files_of(&fixture("tidepool"), "tidepool");
    let wheel = dir.path().join("tidepool-1.0-py3-none-any.whl");
    std::fs::write(&wheel, zip_of(&files)).unwrap();
    let sdist = dir.path().join("tidepool-1.0.tar.gz");
    let inside: Vec<(String, Vec<u8>)> =
        files.iter().map(|(name, bytes)| (format!("tidepool-1.0/src/{name}"), bytes.clone())).collect();
    std::fs::write(&sdist, gz_tar(&inside)).unwrap();
    let zipped = dir.path().join("tidepool-1.0.zip");
    std::fs::write(&zipped, zip_of(&inside)).unwrap();
    for archive in [&wheel, &sdist, &zipped] {
        let found = read(archive);
        assert_eq!(names(&found), names(&folder), "{}", archive.display());
        assert_eq!(found.skipped.len(), folder.skipped.len());
    }
}

#[test]
fn output_does_not_depend_on_threads() {
    let mut options = ReadOptions::default();
    options.threads = Some(1);
    let one = docs::read(&fixture("tidepool"), &options, &Silent).unwrap();
    options.threads = Some(4);
    for _ in 0..3 {
        assert_eq!(docs::read(&fixture("tidepool"), &options, &Silent).unwrap(), one);
    }
}

#[test]
fn a_dependency_is_looked_into_where_it_is_installed() {
    let dir = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("site-packages/base/__init__.py", "from ._pipe import Pipe, functional_step, Cutter\n");
    write(
        "site-packages/base/_pipe.py",
        "class functional_step:\n    def __init__(self, name): ...\n\
         class Pipe:\n    'A pipe.'\n\
         @functional_step('cut')\nclass Cutter(Pipe):\n    'Cuts it.'\n    def __init__(self, pipe, at: int): ...\n",
    );
    write(
        "lib/flow/__init__.py",
        "from base import Pipe, Cutter\nfrom ._own import Turner\n__all__ = ['Pipe', 'Cutter', 'Turner']\n",
    );
    write(
        "lib/flow/_own.py",
        "from base import Pipe, functional_step\n@functional_step('turn')\nclass Turner(Pipe):\n    '''Turns it.'''\n    \
         def __init__(self, pipe, times: int = 1): ...\n",
    );
    let alone = read(&dir.path().join("lib/flow"));
    assert_eq!(api(&alone, "flow.Cutter").kind, None);
    assert_eq!(api(&alone, "flow.Pipe.turn").signature, "(times: int = 1)");
    let mut options = ReadOptions::default();
    options.search_paths = vec![dir.path().join("site-packages")];
    let found = docs::read(&dir.path().join("lib/flow"), &options, &Silent).unwrap();
    assert_eq!(api(&found, "flow.Cutter").description, "Cuts it.");
    let cut = api(&found, "flow.Pipe.cut");
    assert_eq!((cut.signature.as_str(), cut.kind), ("(at: int)", Some(ApiKind::Method)));
    assert_eq!(cut.aliases, ["flow.Cutter"]);
    assert_eq!(api(&found, "flow.Turner").aliases, ["flow.Pipe.turn"]);
}

#[test]
fn sphinx_inventory_with_pages() {
    let found = read(&fixture("sphinx/objects.inv"));
    let dig = api(&found, "sand.tools.dig");
    assert_eq!(dig.signature, "(depth: float = 1.5, *, wet=False) -> Hole");
    assert_eq!(dig.description, "Digs a hole, e.g. for a <flag>.");
    assert_eq!(dig.examples, [">>> dig(2)\nHole(2)"]);
    assert_eq!((dig.kind, dig.module.as_str()), (Some(ApiKind::Function), "sand.tools"));
    let method = api(&found, "sand.tools.Hole.fill");
    assert_eq!((method.signature.as_str(), method.description.as_str()), ("(sand)", "Fills it."));
    assert_eq!(api(&found, "sand.tools.Hole").description, "A hole.");
    assert_eq!(api(&found, "sand.LIMIT").kind, Some(ApiKind::Constant));
}

#[test]
fn bad_sources_are_errors_that_name_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let good = zip_of(&[("a/__init__.py".into(), b"def f(): ...\n".repeat(400))]);
    let tar = gz_tar(&[(
        "a-1/a/__init__.py".into(),
        (0..20_000).flat_map(|i: u32| format!("x{i} = {}\n", i * 7919).into_bytes()).collect(),
    )]);
    let evil = zip_of(&[("../a.py".into(), b"x = 1".to_vec())]);
    let evil_tar = gz_tar(&[("/a.py".into(), b"x = 1".to_vec())]);
    let bomb = zip_of(&[("a/__init__.py".into(), vec![b' '; 40 << 20])]);
    let bomb_tar = gz_tar(&[("a/__init__.py".into(), vec![b' '; 40 << 20])]);
    let inventory = std::fs::read(fixture("sphinx/objects.inv")).unwrap();
    let cases: Vec<(&str, Vec<u8>, ErrorKind)> = vec![
        ("empty.whl", Vec::new(), ErrorKind::InvalidData),
        ("half.whl", good[..good.len() / 2].to_vec(), ErrorKind::InvalidData),
        ("half.tar.gz", tar[..tar.len() / 2].to_vec(), ErrorKind::InvalidData),
        ("text.tar.gz", b"no archive".to_vec(), ErrorKind::InvalidData),
        ("evil.whl", evil, ErrorKind::InvalidData),
        ("evil.tar.gz", evil_tar, ErrorKind::InvalidData),
        ("bomb.whl", bomb, ErrorKind::LimitExceeded),
        ("bomb.tar.gz", bomb_tar, ErrorKind::LimitExceeded),
        ("nothing.whl", zip_of(&[("README".into(), b"x".to_vec())]), ErrorKind::InvalidData),
        ("objects.inv", inventory[..inventory.len() - 20].to_vec(), ErrorKind::InvalidData),
        ("new.inv", b"# Sphinx inventory version 3\n".to_vec(), ErrorKind::UnsupportedVersion),
        ("other.inv", b"\xff\xfe".to_vec(), ErrorKind::InvalidData),
        ("notes.txt", b"hello".to_vec(), ErrorKind::InvalidData),
        ("rows.jsonl", b"{\"x\": 1}\n".to_vec(), ErrorKind::InvalidData),
    ];
    for (name, bytes, kind) in cases {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let error = docs::read(&path, &ReadOptions::default(), &Silent).expect_err(name);
        assert_eq!(error.kind(), kind, "{name}: {error}");
        assert!(error.to_string().contains(name) && !error.to_string().contains('\n'), "{error}");
    }
    let missing = docs::read(&dir.path().join("none"), &ReadOptions::default(), &Silent).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    std::fs::create_dir(dir.path().join("bare")).unwrap();
    assert!(docs::read(&dir.path().join("bare"), &ReadOptions::default(), &Silent).is_err());
    assert!(docs::read_all(&[], &ReadOptions::default(), &Silent).is_err());
}

#[test]
fn rows_and_several_sources() {
    let dir = tempfile::tempdir().unwrap();
    let rows = dir.path().join("apis.jsonl");
    std::fs::write(&rows, "{\"name\": \"dig\", \"qualified_name\": \"sand.dig\"}\n").unwrap();
    let found =
        docs::read_all(&[rows.clone(), rows, fixture("tidepool")], &ReadOptions::default(), &Silent).unwrap();
    assert_eq!(found.apis.iter().filter(|api| api.qualified_name == "sand.dig").count(), 1);
    assert!(found.apis.iter().any(|api| api.qualified_name == "tidepool.gather"));
}

#[test]
fn a_single_file_and_a_part_of_a_package() {
    let found = read(&fixture("tidepool/_shells.py"));
    assert!(found.apis.is_empty() || names(&found).iter().all(|name| !name.contains("._")));
    let found = read(&fixture("tidepool/crabs.py"));
    assert!(names(&found).contains(&"tidepool.crabs.Crab".to_owned()), "{:?}", names(&found));
}

const HEIRS: &str = r#"
class Base:
    """A base."""
    def spin(self, n: int) -> int:
        """Spins."""
    def dye(self, colour):
        """Dyes."""
    class Rows:
        """Rows."""
        def count(self):
            """Counts."""
class Wool(Base):
    """Wool."""
class Silk(Wool):
    """Silk."""
    def dye(self, colour, fine=True):
        """Dyes silk."""
class _Mixin:
    def hem(self):
        """Hems."""
class Towel(_Mixin):
    """A towel."""
class Apron(_Mixin):
    """An apron."""
"#;

#[test]
fn what_classes_inherit_is_documented_once_under_all_of_its_names() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("loom.py");
    std::fs::write(&path, HEIRS).unwrap();
    let found = read(&path);
    let members: Vec<(&str, Vec<&str>)> = found
        .apis
        .iter()
        .filter(|api| ["spin", "dye", "Rows", "count", "hem"].contains(&api.name.as_str()))
        .map(|api| (api.qualified_name.as_str(), api.aliases.iter().map(String::as_str).collect()))
        .collect();
    assert_eq!(
        members,
        [
            ("loom.Base.spin", vec!["loom.Wool.spin", "loom.Silk.spin"]),
            ("loom.Base.dye", vec!["loom.Wool.dye"]),
            ("loom.Base.Rows", vec!["loom.Wool.Rows", "loom.Silk.Rows"]),
            ("loom.Base.Rows.count", vec!["loom.Wool.Rows.count", "loom.Silk.Rows.count"]),
            ("loom.Silk.dye", vec![]),
            ("loom.Towel.hem", vec!["loom.Apron.hem"]),
        ]
    );

    let folder = dir.path().join("index");
    index::build(&found.apis, &folder, &BuildOptions::default(), &Silent).unwrap();
    let index = Index::open(&folder).unwrap();
    for name in ["loom.Silk.spin", "Silk.spin", "Wool.spin", "spin"] {
        assert_eq!(index.find(name).unwrap()[0].qualified_name, "loom.Base.spin", "{name}");
    }
    assert_eq!(index.find("Silk.dye").unwrap()[0].signature, "(colour, fine=True)");
    // A query may name the class.
    let hits = index.search(&Query::from("apron"), 3).unwrap();
    assert!(hits.iter().any(|hit| hit.api.name == "hem"), "{hits:?}");

    let library = Library::new(&found.apis);
    let report = constrain::report(
        &library,
        "import loom\n",
        "loom.Silk.spin\nloom.Silk().spin(1, 2)\nloom.Towel().hem()\n",
    );
    let uses: Vec<(&str, Verdict)> = report.uses.iter().map(|one| (one.name.as_str(), one.verdict)).collect();
    assert!(uses.contains(&("loom.Silk.spin", Verdict::Indexed)), "{uses:?}");
    assert!(uses.contains(&("loom.Silk.spin", Verdict::ImpossibleArity)), "{uses:?}");
    assert!(uses.contains(&("loom.Towel.hem", Verdict::Indexed)), "{uses:?}");
}
