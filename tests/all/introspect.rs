//! `import:NAME` as a source of documentation: a library that is imported in the sandbox and asked there.

use std::path::Path;
use std::process::Output;

use inhouse_core::api::{self, ApiDoc, ApiKind};
use inhouse_tests::{command, python_environment};
use tempfile::TempDir;

fn docs(source: &str, arguments: &[&str]) -> Output {
    command("inhouse").arg("docs").arg(source).args(arguments).output().unwrap()
}

fn read(source: &str, arguments: &[&str]) -> Vec<ApiDoc> {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("apis.jsonl");
    let output = docs(source, &[arguments, &["--out", out.to_str().unwrap()]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    api::read_jsonl(&out).unwrap()
}

fn find<'a>(apis: &'a [ApiDoc], name: &str) -> &'a ApiDoc {
    apis.iter().find(|api| api.qualified_name == name).unwrap_or_else(|| panic!("no {name}"))
}

/// A library that shows everything at run time only.
const MADE: &str = r#"
import os, sys
print("a banner"); os.write(1, b"more of it\n"); os.write(2, b"and errors\n")
__all__ = ["add", "Box", "LIMIT"]
LIMIT = 3
def _make(name):
    def made(a, b=1, *, scale: float = 2.0, **rest) -> int:
        """Adds two things, e.g. numbers. Slowly.

        >>> add(1)
        2
        """
    made.__name__ = made.__qualname__ = name
    return made
globals()["add"] = _make("add")
class _Base:
    def kept(self, x, /, y): "Keeps."
Box = type("Box", (_Base,), {"__module__": __name__, "__doc__": "A box.", "size": property(lambda self: 1, doc="How big."),
    "open": classmethod(lambda cls, path: None), "_hidden": lambda self: None})
def not_listed(): pass
"#;

#[test]
fn a_library_made_at_run_time_is_read() {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("made.py"), MADE).unwrap();
    let apis = read("import:made", &["--site", folder.path().to_str().unwrap()]);
    let add = find(&apis, "made.add");
    assert_eq!(add.signature, "(a, b=1, *, scale: float = 2.0, **rest) -> int");
    assert_eq!(
        (add.description.as_str(), add.kind),
        ("Adds two things, e.g. numbers.", Some(ApiKind::Function))
    );
    assert_eq!(add.examples, [">>> add(1)\n2"]);
    assert_eq!(add.source.as_ref().map(|source| source.path.as_str()), Some("made.py"));
    assert_eq!(find(&apis, "made.Box.kept").signature, "(x, /, y)");
    assert_eq!(find(&apis, "made.Box.open").signature, "(path)");
    assert_eq!(find(&apis, "made.Box.size").kind, Some(ApiKind::Property));
    assert_eq!(find(&apis, "made.LIMIT").kind, Some(ApiKind::Constant));
    assert_eq!(apis.len(), 7, "{apis:#?}");
}

#[test]
fn c_extensions_are_read() {
    let apis = read("import:zlib", &[]);
    let compress = find(&apis, "zlib.compress");
    assert!(compress.signature.starts_with("(data, /"), "{compress:?}");
    assert!(!compress.description.is_empty());
    let Some(python) = python_environment("pandas") else { return };
    let apis = read("import:numpy", &["--env", python.to_str().unwrap()]);
    for (name, signature) in [
        ("numpy.array", "(object, dtype=None, *, copy=True, order='K', subok=False, ndmin=0, like=None)"),
        ("numpy.ndarray.sum", "(axis=None, dtype=None, out=None, keepdims=False, initial=0, where=True)"),
        ("numpy.random.Generator.normal", "(loc=0.0, scale=1.0, size=None)"),
        ("numpy.linalg.norm", "(x, ord=None, axis=None, keepdims=False)"),
    ] {
        let api = find(&apis, name);
        assert_eq!(api.signature, signature);
        assert!(!api.description.is_empty(), "{name}");
    }
    assert!(find(&apis, "numpy.add").signature.starts_with("(x1, x2, /, out=None"));
    // A member that classes inherit unchanged is one record of the class that defines it.
    assert!(find(&apis, "numpy.ndarray.sum").aliases.contains(&"numpy.chararray.sum".to_owned()));
    let names = apis.len() + apis.iter().map(|api| api.aliases.len()).sum::<usize>();
    assert!(names > 5_000, "{} APIs, {names} names", apis.len());
}

/// Source text that run time makes another thing of.
const CHANGED: &str = r#"
def weave(a, b=1):
    """Weaves."""
def tie(a):
    """Ties."""
def _loosely(a, *, loose=False): pass
tie.__signature__ = __import__("inspect").signature(_loosely)
def gone():
    """Not for long."""
globals().pop("gone")
class Thread:
    """A thread."""
    colour: str
    def spin(self, n):
        """Spins."""
class Wool(Thread):
    """Wool."""
globals()["made"] = lambda z: z
made.__name__, made.__module__ = "made", __name__
"#;

#[test]
fn source_text_is_held_against_run_time() {
    let folder = TempDir::new().unwrap();
    let site = folder.path();
    std::fs::write(site.join("changed.py"), CHANGED).unwrap();
    let out = site.join("apis.jsonl");
    let arguments = ["--verify", "--site", site.to_str().unwrap(), "--out", out.to_str().unwrap()];
    let output = docs("changed", &arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let apis = api::read_jsonl(&out).unwrap();
    assert_eq!(find(&apis, "changed.tie").signature, "(a, *, loose=False)");
    assert_eq!(find(&apis, "changed.weave").signature, "(a, b=1)");
    assert_eq!(find(&apis, "changed.weave").description, "Weaves.");
    assert_eq!(find(&apis, "changed.made").signature, "(z)");
    assert_eq!(find(&apis, "changed.Thread.spin").aliases, ["changed.Wool.spin"]);
    assert!(apis.iter().all(|api| api.name != "gone"), "{apis:#?}");
    assert!(said.contains("1 added, known at run time alone: changed.made"), "{said}");
    assert!(said.contains("1 left out, not there at run time: changed.gone"), "{said}");
    assert!(said.contains("1 signatures corrected: changed.tie(a, *, loose=False) instead of (a)"), "{said}");

    let refused = docs("./changed.py", &["--verify"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("takes the names of installed packages"));
    let missing = command("inhouse")
        .args(["docs", "changed", "--verify", "--site", site.to_str().unwrap()])
        .env("INHOUSE_EVALD", Path::new("/no/such/evald"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&missing.stderr);
    assert_eq!(missing.status.code(), Some(1));
    assert!(
        said.contains("--verify imports changed in the sandbox") && said.contains("/no/such/evald"),
        "{said}"
    );
}

#[test]
fn imports_that_fail_say_why() {
    let folder = TempDir::new().unwrap();
    let site = folder.path();
    let refused = |library: &str, message: &str| {
        let output =
            docs(&format!("import:{library}"), &["--site", site.to_str().unwrap(), "--import-timeout", "2"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{library}: {said}");
        assert!(said.contains(message) && said.trim().lines().count() == 1, "{library}: {said}");
    };
    for (library, text, message) in [
        ("raises", "raise RuntimeError('no licence')", "the import failed: RuntimeError: no licence"),
        (
            "needs",
            "import nosuchthing",
            "cannot import it: ModuleNotFoundError: No module named 'nosuchthing'",
        ),
        ("hangs", "while True: pass", "longer than 2 s of CPU time"),
        ("ends", "import os; os._exit(0)", "ended as no_verdict"),
        ("quits", "raise SystemExit(3)", "ended as no_verdict"),
        ("eats", "x = ' ' * 10**10", "more than 4 GiB"),
        ("floods", "import os\nwhile True: os.write(4, b'x' * 65536)", "more documentation than is taken"),
        ("lies", "import os; os.write(4, b'QUJD\\n')", "is damaged"),
        ("broken", "def f(:", "the import failed: SyntaxError"),
    ] {
        std::fs::write(site.join(format!("{library}.py")), text).unwrap();
        refused(library, message);
    }
    refused("nosuchlibrary", "No module named 'nosuchlibrary'");
    refused("a b", "`a b` is no import name");
    refused("os;print", "is no import name");
    let output = docs("import:os", &["--env", "/no/such/python"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("/no/such/python"));
    let missing = command("inhouse")
        .args(["docs", "import:json"])
        .env("INHOUSE_EVALD", Path::new("/no/such/evald"))
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&missing.stderr).contains("cannot reach evald at /no/such/evald"));
}
