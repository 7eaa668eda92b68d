//! Prompts that a session keeps between calls and writes to a file.

use std::ops::ControlFlow;
use std::path::PathBuf;

use inhouse::{
    CancelToken, CompletionRequest, CompletionResult, Engine, EngineOptions, ErrorKind, SamplingParams,
    Session,
};
use inhouse_tests::shipped_coder;

fn session(model: PathBuf, prefix_tokens: usize) -> Session {
    let options =
        EngineOptions { model: Some(model), prefix_tokens, threads: Some(1), ..EngineOptions::default() };
    Engine::open(&options).unwrap().session(2).unwrap()
}

fn complete(session: &mut Session, context: &str) -> CompletionResult {
    let request = CompletionRequest {
        params: SamplingParams { temperature: 0.0, ..SamplingParams::default() },
        max_tokens: 8,
        n: 2,
        ..CompletionRequest::new(context)
    };
    session.complete(&request, &CancelToken::new(), &mut |_| ControlFlow::Continue(())).unwrap()
}

#[test]
fn a_session_goes_on_from_what_it_read_before_and_from_a_file() {
    let beginning = "import gaugewren as gw\n\n# read the log of the station and keep the rows of one day\n";
    let contexts = [format!("{beginning}log = "), format!("{beginning}rows = gw."), "x = 1\ny = ".to_owned()];
    let (mut plain, mut keeping) = (session(shipped_coder(), 0), session(shipped_coder(), 1000));
    let mut shared = Vec::new();
    for context in &contexts {
        let (plain, kept) = (complete(&mut plain, context), complete(&mut keeping, context));
        assert_eq!(plain.completions, kept.completions);
        assert_eq!(plain.prompt_tokens_shared, 0);
        shared.push(kept.prompt_tokens_shared);
    }
    assert!(shared[0] == 0 && shared[1] > 16 && shared[2] == 0, "{shared:?}");

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("prompts");
    keeping.save_prefixes(&file).unwrap();
    let mut other = session(shipped_coder(), 1000);
    assert_eq!(other.load_prefixes(&file).unwrap(), 3);
    let restored = complete(&mut other, &contexts[1]);
    // All but the token that is read for its logits, and the one before, whose text the completion begins with again.
    assert_eq!(restored.prompt_tokens_shared, restored.prompt_tokens - 2);
    assert_eq!(restored.completions, complete(&mut plain, &contexts[1]).completions);

    // Damage anywhere, a cut anywhere, another model: an error each, and a session that works.
    let bytes = std::fs::read(&file).unwrap();
    let bad = folder.path().join("bad");
    let n = bytes.len();
    for at in (0..n).step_by(n / 50 + 1).chain([0, 9, 10, n - 1]) {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        for bytes in [&changed[..], &bytes[..at]] {
            std::fs::write(&bad, bytes).unwrap();
            assert_eq!(other.load_prefixes(&bad).unwrap_err().kind(), ErrorKind::InvalidData, "{at}");
        }
    }
    let twin = folder.path().join("twin.gguf");
    let mut weights = std::fs::read(shipped_coder()).unwrap();
    let last = weights.len() - 1;
    weights[last] ^= 1;
    std::fs::write(&twin, weights).unwrap();
    let mut foreign = session(twin, 1000);
    let error = foreign.load_prefixes(&file).unwrap_err();
    assert!(error.kind() == ErrorKind::InvalidData && error.to_string().contains("another model"), "{error}");
    assert_eq!(
        complete(&mut other, &contexts[2]).completions,
        complete(&mut plain, &contexts[2]).completions
    );
    assert_eq!(other.load_prefixes(&folder.path().join("none")).unwrap_err().kind(), ErrorKind::NotFound);
}
