//! What `inhouse docs --verify` says at its end.

use inhouse_core::progress::Progress;
use inhouse_study::introspect::Verified;

/// How many names a line lists.
const MAX_TOLD: usize = 8;

/// Says what source text and run time missed of each other.
pub fn tell(library: &str, found: &Verified, progress: &dyn Progress) {
    progress.note(&format!(
        "{library}: {} names at run time, {} records; the source text misses {} of them, run time {} of its own",
        found.at_run_time,
        found.documentation.apis.len(),
        found.missed_by_source.len(),
        found.missed_by_run_time.len() + found.absent.len(),
    ));
    let corrected: Vec<String> = found
        .signatures
        .iter()
        .map(|one| format!("{}{} instead of {}", one.name, one.run_time, one.source))
        .collect();
    for (what, names) in [
        ("added, known at run time alone", &found.missed_by_source),
        ("left out, not there at run time", &found.absent),
        ("kept, not shown at run time", &found.missed_by_run_time),
        ("signatures corrected", &corrected),
    ] {
        if names.is_empty() {
            continue;
        }
        let mut told = names[..names.len().min(MAX_TOLD)].join(", ");
        if names.len() > MAX_TOLD {
            told.push_str(&format!(", and {} more", names.len() - MAX_TOLD));
        }
        progress.note(&format!("{library}: {} {what}: {told}", names.len()));
    }
}
