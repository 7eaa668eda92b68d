//! What is fuzzed: each target takes any bytes and must return, whatever they are. A panic, an overflow of the stack or a
//! hang is a finding; so is a broken promise, which the targets assert.
//!
//! With cargo-fuzz each is a binary in `fuzz_targets/`; on a stable toolchain the driver `mutate` runs them.

use std::path::Path;

use inhouse_core::api::{self, ApiDoc, ApiKind};
use inhouse_core::constrain::{self, Library};
use inhouse_core::docs::{self, ReadOptions};
use inhouse_core::progress::Silent;
use inhouse_core::python;
use ruff_python_ast::Expr;
use ruff_python_ast::visitor::{self, Visitor};

/// A target: any bytes in, nothing out.
pub type Target = fn(&[u8]);

/// All targets by name.
pub const TARGETS: &[(&str, Target)] = &[
    ("tree", tree),
    ("signature", signature),
    ("source", source),
    ("docstring", docstring),
    ("inventory", inventory),
    ("archive", archive),
    ("rows", rows),
    ("report", report),
];

/// The stack that hosts give threads; whatever is parsed must get along with it.
const HOST_STACK_BYTES: usize = 512 << 10;

fn on_a_host_s_thread(work: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(HOST_STACK_BYTES).spawn_scoped(scope, work);
        if let Err(panic) = thread.expect("a thread can be started").join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// Text to syntax tree: the tree is walked and dropped on a small stack, and its nodes lie within the text.
pub fn tree(data: &[u8]) {
    struct Walk<'t>(&'t str);
    impl Walk<'_> {
        fn range(&self, range: std::ops::Range<usize>) {
            assert!(self.0.get(range.clone()).is_some(), "{range:?} is no range of the text");
        }
    }
    impl<'a> Visitor<'a> for Walk<'_> {
        fn visit_expr(&mut self, expr: &'a Expr) {
            if let Expr::Name(name) = expr {
                self.range(name.range.start().to_usize()..name.range.end().to_usize());
            }
            visitor::walk_expr(self, expr);
        }
    }
    let text = String::from_utf8_lossy(data);
    on_a_host_s_thread(|| {
        let read = python::read(&text, |tree| Walk(&text).visit_body(tree.suite()));
        if let Err(refusal) = read {
            assert!(!refusal.reason.is_empty());
        }
    });
}

/// Signatures of documentation, and the names that they may be called with.
pub fn signature(data: &[u8]) {
    let text = String::from_utf8_lossy(data).into_owned();
    on_a_host_s_thread(move || {
        python::read_signature(&text, |def, source| {
            assert!(source.ends_with(": pass\n"));
            Some(def.parameters.len())
        });
        let method = ApiDoc {
            name: "f".into(),
            qualified_name: "lib.f".into(),
            module: "lib".into(),
            kind: Some(ApiKind::Function),
            signature: text,
            ..ApiDoc::default()
        };
        let library = Library::new(&[method]);
        constrain::report(&library, "import lib\n", "lib.f(1, a=2)\n");
    });
}

fn read_as(name: &str, data: &[u8]) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join(name);
    std::fs::write(&path, data).expect("a temporary file");
    on_a_host_s_thread(|| read(&path));
}

fn read(path: &Path) {
    let options = ReadOptions::default();
    match docs::read(path, &options, &Silent) {
        Ok(found) => {
            for api in &found.apis {
                assert!(!api.name.is_empty() && !api.prompt_line().contains('\n'));
            }
        }
        Err(error) => assert!(!error.to_string().contains('\n'), "{error}"),
    }
}

/// A module of source to records. The first byte chooses between source and stub.
pub fn source(data: &[u8]) {
    let (first, rest) = data.split_first().unwrap_or((&0, &[]));
    read_as(if first % 8 == 7 { "m.pyi" } else { "m.py" }, rest);
}

/// A docstring to its parts.
pub fn docstring(data: &[u8]) {
    let mut api = ApiDoc::default();
    docs::describe(&mut api, &String::from_utf8_lossy(data));
    assert!(!api.description.contains('\n'));
    for example in docs::examples(&api.doc) {
        assert!(example.line <= api.doc.lines().count());
    }
}

/// A Sphinx inventory.
pub fn inventory(data: &[u8]) {
    read_as("objects.inv", data);
}

/// A wheel or an sdist, by the first byte.
pub fn archive(data: &[u8]) {
    let (first, rest) = data.split_first().unwrap_or((&0, &[]));
    read_as(if first % 2 == 0 { "m-1.0-py3-none-any.whl" } else { "m-1.0.tar.gz" }, rest);
}

/// Rows of apis.jsonl; what was read is written and read again.
pub fn rows(data: &[u8]) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("apis.jsonl");
    std::fs::write(&path, data).expect("a temporary file");
    if let Ok(apis) = api::read_jsonl(&path) {
        api::write_jsonl(&path, &apis).expect("what was read can be written");
        assert_eq!(api::read_jsonl(&path).expect("what was written can be read"), apis);
        let _ = Library::new(&apis);
    }
}

/// A completion, cut anywhere, against an index.
pub fn report(data: &[u8]) {
    let text = String::from_utf8_lossy(data).into_owned();
    on_a_host_s_thread(move || {
        let api = |name: &str, kind| ApiDoc {
            name: name.rsplit('.').next().unwrap_or(name).into(),
            qualified_name: name.into(),
            module: "loom".into(),
            kind: Some(kind),
            signature: "(a, b=1, *, c=2) -> Thread".into(),
            undocumented: Some(Vec::new()),
            ..ApiDoc::default()
        };
        let library = Library::new(&[
            api("loom.weave", ApiKind::Function),
            api("loom.Thread", ApiKind::Class),
            api("loom.Thread.spin", ApiKind::Method),
        ]);
        let at = (0..=text.len() / 2).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        let (context, completion) = text.split_at(at);
        let report = constrain::report(&library, context, completion);
        assert!(report.uses.iter().all(|one| one.line > 0 && one.column > 0));
        for call in constrain::calls_in_completion(&library, context, completion).calls {
            assert!(completion[call.at..].starts_with(&call.name));
        }
    });
}
