use super::*;
use crate::index::{self, BuildOptions, Index, UpdateOptions};
use crate::progress::Silent;

fn api(full: &str, kind: ApiKind, examples: &[&str]) -> ApiDoc {
    ApiDoc {
        name: full.rsplit('.').next().unwrap_or_default().into(),
        qualified_name: full.into(),
        module: "loom".into(),
        kind: Some(kind),
        signature: if kind == ApiKind::Property { String::new() } else { "(*args, **kwargs)".into() },
        description: "Works on cloth.".into(),
        examples: examples.iter().map(|example| (*example).to_owned()).collect(),
        ..ApiDoc::default()
    }
}

fn loom() -> Vec<ApiDoc> {
    vec![
        api("loom.weave", ApiKind::Function, &[">>> loom.weave(1)"]),
        api("loom.Cloth", ApiKind::Class, &[]),
        api("loom.Cloth.dye", ApiKind::Method, &[]),
        api("loom.Cloth.append", ApiKind::Method, &[]),
        api("loom.Cloth.width", ApiKind::Property, &[]),
    ]
}

const TEST: &str = "\
import loom
import numpy as np

def test_colours_of_wet_cloth():
    # make the cloth red, as the customers want it
    cloth = loom.weave(warp=2)
    cloth.dye('red', deep=True)
    np.dye(3)
    cloth.append(1)
    assert cloth.width == 2

def test_other():
    rows = []
    rows.append(1)
";

fn source(path: &std::path::Path) -> Vec<UsageSource> {
    vec![UsageSource { path: path.to_path_buf(), own: false }]
}

fn used<'r>(reading: &'r UsageReading, path: &str, name: &str) -> Option<&'r index::ApiUsage> {
    let file = reading.ledger.files.iter().find(|file| file.path == path)?;
    file.uses.iter().find(|used| used.name == name)
}

#[test]
fn what_tests_say_of_an_api() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("test_a.py"), TEST).unwrap();
    let reading = read(&source(dir.path()), &loom(), None, &UsageOptions::default(), &Silent).unwrap();
    let dye = used(&reading, "test_a.py", "dye").unwrap();
    // numpy's is another's; `append` counts once, for the cloth and not for the list.
    assert_eq!((dye.calls, used(&reading, "test_a.py", "append").unwrap().calls), (1, 1));
    assert_eq!(dye.keywords, [("deep".to_owned(), 1)].into());
    for word in ["colour", "wet", "red", "custom", "deep"] {
        assert!(dye.terms.contains_key(word), "{word}: {:?}", dye.terms);
    }
    assert_eq!((dye.examples[0].code.as_str(), dye.examples[0].line), ("cloth.dye('red', deep=True)", 7));
    assert_eq!(dye.examples[0].says, "make the cloth red, as the customers want it");
    assert_eq!(used(&reading, "test_a.py", "weave").unwrap().targets, [("loom.weave".to_owned(), 1)].into());
    assert_eq!(used(&reading, "test_a.py", "width").unwrap().calls, 1);
    assert_eq!(used(&reading, "loom.weave", "weave").unwrap().calls, 1);
    assert!(reading.skipped.is_empty(), "{:?}", reading.skipped);
}

#[test]
fn without_text_counts_alone_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("test_a.py"), TEST).unwrap();
    let options = UsageOptions { text: false, ..UsageOptions::default() };
    let reading = read(&source(dir.path()), &loom(), None, &options, &Silent).unwrap();
    let kept = serde_json::to_string(&reading.ledger.files).unwrap();
    for word in ["red", "colour", "deep", "test_a", "customers"] {
        assert!(!kept.contains(&format!("\"{word}")), "{word}: {kept}");
    }
    assert!(kept.contains("\"dye\"") && kept.contains("\"calls\":1"), "{kept}");
}

#[test]
fn what_cannot_be_read_is_named_and_the_rest_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(dir.path().join(name), bytes).unwrap();
    write("good.py", TEST.as_bytes());
    write("broken.py", b"import loom\ndef (:\n");
    write("binary.py", b"\x00\x01\x02");
    write("page.ipynb", b"not json");
    write("data.csv", b"1,2");
    std::fs::File::create(dir.path().join("huge.py")).unwrap().set_len(100 << 20).unwrap();
    let (elsewhere, links) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(elsewhere.path().join("more.py"), TEST).unwrap();
    // Round in a circle, out of the source, to nothing.
    std::os::unix::fs::symlink(dir.path(), dir.path().join("again")).unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), dir.path().join("other")).unwrap();
    std::os::unix::fs::symlink("nowhere", dir.path().join("gone")).unwrap();
    let reading = read(&source(dir.path()), &loom(), None, &UsageOptions::default(), &Silent).unwrap();
    let skipped: Vec<(&str, Option<u32>)> =
        reading.skipped.iter().map(|skip| (skip.path.as_str(), skip.line)).collect();
    assert_eq!(
        skipped,
        [
            ("again", None),
            ("binary.py", None),
            ("broken.py", Some(2)),
            ("huge.py", None),
            ("other", None),
            ("page.ipynb", Some(1))
        ]
    );
    assert!(reading.skipped[0].reason.contains("link to a folder"), "{:?}", reading.skipped[0]);
    assert!(used(&reading, "good.py", "dye").is_some() && used(&reading, "other/more.py", "dye").is_none());
    assert_eq!(reading.files_read, 1);
    // A source that is itself a link is read.
    let link = links.path().join("code");
    std::os::unix::fs::symlink(elsewhere.path(), &link).unwrap();
    let linked = read(&source(&link), &loom(), None, &UsageOptions::default(), &Silent).unwrap();
    assert!(used(&linked, "more.py", "dye").is_some() && linked.files_read == 1);
    let missing = read(&source(&dir.path().join("none")), &loom(), None, &UsageOptions::default(), &Silent);
    assert_eq!(missing.unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn an_index_keeps_usage_and_brings_it_up_to_date() {
    let (code, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let write = |name: &str, text: &str| std::fs::write(code.path().join(name), text).unwrap();
    write("a.py", TEST);
    write("b.py", "import loom\nloom.weave(4)\n");
    let options = UsageOptions::default();
    let first = read(&source(code.path()), &loom(), None, &options, &Silent).unwrap();
    let build = BuildOptions { usage: Some(first.ledger), ..BuildOptions::default() };
    index::build(&loom(), dir.path(), &build, &Silent).unwrap();
    let opened = Index::open(dir.path()).unwrap();
    assert_eq!(opened.usage_of("weave").unwrap().unwrap().files, 2);
    // What the ranker is learned from: the same whatever its weights are.
    let candidates = opened.candidates(&"colours of wet cloth for customers".into()).unwrap();
    let of = |name: &str, signal: index::Signal| {
        let shares = &candidates.iter().find(|candidate| candidate.api.name == name).unwrap().shares;
        shares.iter().find(|share| share.signal == signal).unwrap().value
    };
    assert!(of("dye", index::Signal::Around) > 0.0);
    assert_eq!(of("weave", index::Signal::Files), (2.0f32 / 5.0).ln_1p());

    std::fs::remove_file(code.path().join("b.py")).unwrap();
    write("c.py", "import loom\nloom.Cloth().dye('blue')\n");
    let known = opened.usage_ledger().unwrap();
    let second = read(&source(code.path()), &loom(), known.as_ref(), &options, &Silent).unwrap();
    assert_eq!((second.files_read, second.files_known), (2, 1));
    let update = UpdateOptions { usage: Some(second.ledger), ..UpdateOptions::default() };
    index::update(dir.path(), &loom(), &update, &Silent).unwrap();
    let opened = Index::open(dir.path()).unwrap();
    assert_eq!(opened.usage_of("weave").unwrap().unwrap().files, 1);
    let dye = opened.usage_of("dye").unwrap().unwrap();
    assert_eq!((dye.files, dye.files_resolved), (2, 1));
    assert_eq!(dye.targets, [("loom.Cloth.dye".to_owned(), 1)]);
    // An update of records alone leaves it.
    let mut more = loom();
    more.push(api("loom.hem", ApiKind::Function, &[]));
    index::update(dir.path(), &more, &UpdateOptions::default(), &Silent).unwrap();
    index::merge(dir.path(), &Silent).unwrap();
    assert_eq!(Index::open(dir.path()).unwrap().usage_of("dye").unwrap(), Some(dye));
}
