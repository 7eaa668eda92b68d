//! Constrained decoding never stands in the way of real code: every token of pandas' own package and tests is allowed.

mod constrain_support;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use constrain_support::{PieceTokenizer, walk};
use inhouse_core::constrain::{ApiNames, Library, Vocabulary};
use inhouse_core::docs;
use inhouse_core::progress::Silent;

#[test]
fn explore() {
    let root = PathBuf::from(std::env::var("PD").unwrap_or("/tmp/pd153/pandas".into()));
    let mut options = docs::ReadOptions::default();
    options.include_private = std::env::var("PRIV").is_ok();
    let docs = docs::read(&root, &options, &Silent).unwrap();
    let start = std::time::Instant::now();
    let library = Arc::new(Library::new(&docs.apis));
    println!("{} apis, {} nodes, {:?}", docs.apis.len(), library.len(), start.elapsed());
    let mut files: Vec<PathBuf> = walkdir::WalkDir::new(&root)
        .into_iter()
        .flatten()
        .map(|e| e.path().to_owned())
        .filter(|p| p.extension().is_some_and(|e| e == "py"))
        .collect();
    files.sort();
    let only = std::env::var("ONLY").unwrap_or_default();
    files.retain(|f| f.to_string_lossy().contains(&only));
    let texts: Vec<String> = files.iter().map(|f| std::fs::read_to_string(f).unwrap_or_default()).collect();
    let start = std::time::Instant::now();
    let tokenizer = PieceTokenizer::new(texts.iter().map(|t| t.as_str()), 30000);
    let names = Arc::new(ApiNames::new(library, Arc::new(Vocabulary::new(&tokenizer))));
    println!("vocab {:?}", start.elapsed());
    let start = std::time::Instant::now();
    let (mut s, mut m, mut v, mut bad) = (0, 0, 0, 0);
    for (f, t) in files.iter().zip(&texts) {
        let w = walk(&names, &tokenizer, "", t);
        s += w.steps;
        m += w.masked;
        v += w.violations.len();
        bad += usize::from(!w.violations.is_empty());
        for (l, x) in w.violations {
            println!("V {}:{l} {x}", f.strip_prefix(Path::new("/tmp/pd153")).unwrap_or(f).display());
        }
    }
    println!(
        "{} files {s} steps {m} masked {v} violations in {bad} files {:?}",
        files.len(),
        start.elapsed()
    );
}
