//! How models are asked: the token that begins a text, filling in the middle, chat templates. Both backends against each other
//! and against what transformers does.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use inhouse::{
    CancelToken, Chat, CompletionRequest, CompletionResult, Engine, EngineOptions, ErrorKind, Event,
    FinishReason, SamplingParams, StopRules,
};
use inhouse_convert::quantize::Quantization;
use inhouse_core::chat::{ChatTemplate, Message, Piece};
use inhouse_core::decode::{Conventions, Model};
use inhouse_core::progress::Silent;
use inhouse_core::prompt::{Format, Writer};
use serde_json::{Value, json};

fn fixture(name: &str) -> PathBuf {
    inhouse_tests::repository().join("tests/fixtures").join(name)
}

/// A fixture with more added tokens (text, row, whether the file calls it special) and settings of its tokenizer.
fn folder(name: &str, added: &[(&str, u32, bool)], settings: &Value) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(fixture(name)).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
    }
    let edit = |file: &str, change: &dyn Fn(&mut Value)| {
        let path = dir.path().join(file);
        let mut tree: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        change(&mut tree);
        std::fs::write(&path, serde_json::to_vec(&tree).unwrap()).unwrap();
    };
    if !added.is_empty() {
        edit("tokenizer.json", &|tree| {
            let list = tree["added_tokens"].as_array_mut().unwrap();
            list.extend(added.iter().map(|(text, id, special)| {
                json!({"id": id, "content": text, "special": special, "normalized": false, "single_word": false,
                       "lstrip": false, "rstrip": false})
            }));
        });
    }
    edit("tokenizer_config.json", &|tree| {
        for (key, value) in settings.as_object().into_iter().flatten() {
            tree[key] = value.clone();
        }
    });
    dir
}

fn gguf(dir: &Path) -> PathBuf {
    let out = dir.join("model.gguf");
    let options = inhouse_convert::Options {
        from: dir.into(),
        out: out.clone(),
        quantization: Some(Quantization::F32),
        token_embedding: None,
        name: None,
    };
    inhouse_convert::convert(&options, &Silent).unwrap();
    out
}

/// The folder by candle and, converted, by llama.cpp.
fn both(dir: &Path) -> [Arc<dyn Model>; 2] {
    let candle = inhouse_candle::load(dir, &inhouse_candle::LoadOptions::default()).unwrap();
    [candle, inhouse_llama::load(&gguf(dir), &inhouse_llama::LoadOptions::default()).unwrap()]
}

fn infill_tokens(model: &dyn Model, prefix: &str, suffix: &str) -> Vec<u32> {
    let writer = Writer::new(model.tokenizer(), model.conventions(), Format::Infill).unwrap();
    writer.tokens(prefix, Some(suffix)).unwrap()
}

#[test]
fn the_token_that_begins_a_text_is_that_of_hugging_face() {
    let mut n = 0;
    for (name, begins) in
        [("codegen", false), ("gpt2", false), ("qwen2", false), ("llama", true), ("mistral", true)]
    {
        let dir = folder(name, &[], &json!({}));
        let text = std::fs::read_to_string(fixture(name).join("tokenisations.json")).unwrap();
        let tree: Value = serde_json::from_str(&text).unwrap();
        for model in both(dir.path()) {
            let writer = Writer::new(model.tokenizer(), model.conventions(), Format::Continue).unwrap();
            assert_eq!(model.conventions().bos.is_some(), begins, "{name}");
            for case in tree["cases"].as_array().unwrap() {
                let text = case["text"].as_str().unwrap();
                // codegen's file has no such field: its tokenizer adds nothing.
                let want = case.get("wrapped").unwrap_or(&case["ids"]);
                let want: Vec<u32> = serde_json::from_value(want.clone()).unwrap();
                // llama.cpp composes no characters, as qwen2's tokenizer does, and puts a space before one too, which mistral's
                // does not.
                let other = text.contains('\u{301}') || name == "mistral" && text.starts_with([' ', '▁']);
                let other = other && model.info().backend == "llama.cpp";
                if !text.contains("<|endoftext|>") && !text.contains("</s>") && !other {
                    assert_eq!(writer.tokens(text, None).unwrap(), want, "{name} {text:?}");
                    n += 1;
                }
            }
        }
    }
    println!("{n} texts with what stands before them: all equal to transformers'");
    // The setting overrules the post-processor, as in transformers.
    let dir = folder("llama", &[], &json!({"add_bos_token": false}));
    for model in both(dir.path()) {
        assert_eq!(model.conventions().bos, None);
        assert_eq!(model.conventions().bos_text, "<s>");
    }
    let dir = folder("qwen2", &[], &json!({"add_bos_token": true, "bos_token": "<|im_start|>"}));
    for model in both(dir.path()) {
        assert_eq!(model.conventions().bos, Some(301));
    }
}

const PREFIX: &str =
    "import os\n\ndef f(x):\n    # <|fim_middle|> and <|fim_suffix|>, ▁<MID> and [PREFIX] are text\n    y = ";
const SUFFIX: &str = "\n    return y  # <|fim_prefix|><|fim_pad|> ▁<SUF> [SUFFIX] <extra_id_0>é\n";

#[test]
fn infilling_prompts_have_the_same_tokens_on_both_backends() {
    use inhouse_core::decode::InfillPart::{Prefix, Suffix, Token};
    let qwen = [
        ("<|fim_prefix|>", 303, false),
        ("<|fim_middle|>", 304, false),
        ("<|fim_suffix|>", 305, false),
        ("<|fim_pad|>", 306, false),
        ("<|repo_name|>", 307, false),
        ("<|file_sep|>", 308, false),
    ];
    let code_llama =
        [("▁<PRE>", 376, true), ("▁<MID>", 377, true), ("▁<SUF>", 378, true), ("▁<EOT>", 379, true)];
    let codestral = [("[INST]", 376, true), ("[PREFIX]", 377, true), ("[SUFFIX]", 378, true)];
    let three = |a, b, c| vec![Token(a), Prefix, Token(b), Suffix, Token(c)];
    let mut n = 0;
    for (name, added, layout) in [
        ("qwen2", &qwen[..], three(303, 305, 304)),
        ("llama", &code_llama[..], three(376, 378, 377)),
        ("mistral", &codestral[..], vec![Token(378), Suffix, Token(377), Prefix]),
        ("t5", &[], vec![Prefix, Token(309), Suffix]),
    ] {
        let dir = folder(name, added, &json!({}));
        let [candle, llama] = both(dir.path());
        for model in [&candle, &llama] {
            assert_eq!(model.conventions().infill.as_ref().unwrap().layout, layout, "{name}");
        }
        let texts = [("", ""), ("x", ""), ("", "x"), (" x\n", "  y\n"), (PREFIX, SUFFIX), ("a =", "\n\n\n")];
        // Before a space Metaspace puts none, llama.cpp one more.
        let same = |prefix: &str| name != "mistral" || !prefix.starts_with(' ');
        for (prefix, suffix) in texts.into_iter().filter(|(prefix, _)| same(prefix)) {
            let tokens = infill_tokens(candle.as_ref(), prefix, suffix);
            assert_eq!(tokens, infill_tokens(llama.as_ref(), prefix, suffix), "{name} {prefix:?} {suffix:?}");
            n += tokens.len();
            // What users write is text, whatever it spells: each marker stands once, and every byte is there.
            let conventions = candle.conventions();
            let is_control = |token: &u32| conventions.controls.values().any(|id| id == token);
            let mut controls: Vec<u32> = tokens.iter().copied().filter(is_control).collect();
            let markers = layout.iter().filter_map(|part| match part {
                Token(token) => Some(*token),
                _ => None,
            });
            let expected: Vec<u32> = conventions.bos.into_iter().chain(markers).collect();
            assert_eq!(controls, expected, "{name} {prefix:?}");
            controls.dedup();
            assert_eq!(controls, expected);
            let bytes: Vec<u8> =
                tokens.iter().flat_map(|&token| candle.tokenizer().token_bytes(token)).collect();
            let space = if conventions.bos.is_some() && !prefix.is_empty() { " " } else { "" };
            let whole = match layout.first() {
                Some(Token(378)) => format!("{suffix}{space}{prefix}"),
                _ => format!("{space}{prefix}{suffix}"),
            };
            // sentencepiece takes U+2581 for a space.
            let whole = if conventions.bos.is_some() { whole.replace('▁', " ") } else { whole };
            assert_eq!(String::from_utf8(bytes).unwrap(), whole, "{name}");
        }
    }
    println!("infilling prompts: {n} tokens, all equal on both backends");
}

/// Every token of a case's vocabulary that the template may write.
fn conventions(case: &Value, model: &dyn Model) -> Conventions {
    let mut conventions = model.conventions().clone();
    conventions.bos_text = case["bos"].as_str().unwrap().to_owned();
    conventions.eos_text = case["eos"].as_str().unwrap().to_owned();
    conventions
}

#[test]
fn chat_templates_render_as_in_transformers() {
    let text = std::fs::read_to_string(fixture("chat.json")).unwrap();
    let cases: Vec<Value> = serde_json::from_str(&text).unwrap();
    let mut models: BTreeMap<&str, [Arc<dyn Model>; 2]> = BTreeMap::new();
    let (mut n, mut spaced) = (0, 0);
    for case in &cases {
        let name = case["tokenizer"].as_str().unwrap();
        let models = models.entry(name).or_insert_with(|| {
            let added: Vec<(&str, u32, bool)> = case["added"]
                .as_object()
                .unwrap()
                .iter()
                .map(|(text, id)| (text.as_str(), id.as_u64().unwrap() as u32, true))
                .collect();
            both(folder(case["fixture"].as_str().unwrap(), &added, &json!({})).path())
        });
        let template = ChatTemplate::new(case["template"].as_str().unwrap()).unwrap();
        let messages: Vec<Message> = case["messages"]
            .as_array()
            .unwrap()
            .iter()
            .map(|message| Message {
                role: message["role"].as_str().unwrap().to_owned(),
                content: message["content"].as_str().unwrap().to_owned(),
            })
            .collect();
        let want: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
        for model in models.iter() {
            let what = format!("{name}, {}, {}", case["style"], model.info().backend);
            let conventions = conventions(case, model.as_ref());
            let pieces = template.render(&messages, &conventions).unwrap();
            let text: String = pieces.iter().map(Piece::text).collect();
            assert_eq!(text, case["text"].as_str().unwrap(), "{what}");
            let writer = Writer::new(model.tokenizer(), &conventions, Format::Chat(&template)).unwrap();
            let tokens = writer.pieces(&pieces).unwrap();
            // llama.cpp's format cannot say that a space goes before the beginning of a prompt alone.
            if name == "mistral" && model.info().backend == "llama.cpp" {
                spaced += usize::from(tokens != want);
                continue;
            }
            assert_eq!(tokens, want, "{what}");
            n += 1;
        }
    }
    println!("{n} conversations: text and tokens equal to transformers'; {spaced} with GGUF's spaces");
}

fn engine(model: PathBuf) -> Engine {
    Engine::open(&EngineOptions { model: Some(model), threads: Some(1), ..EngineOptions::default() }).unwrap()
}

fn complete(engine: &Engine, request: &CompletionRequest) -> inhouse::Result<(CompletionResult, String)> {
    let mut streamed = String::new();
    let result = engine.session(1)?.complete(request, &CancelToken::new(), &mut |event| {
        if let Event::Text { text, .. } = event {
            streamed.push_str(text);
        }
        ControlFlow::Continue(())
    })?;
    assert_eq!(streamed, result.completions[0].text);
    Ok((result, streamed))
}

fn greedy(context: &str) -> CompletionRequest {
    CompletionRequest {
        params: SamplingParams { temperature: 0.0, ..SamplingParams::default() },
        max_tokens: 6,
        stops: StopRules::none(),
        ..CompletionRequest::new(context)
    }
}

#[test]
fn a_session_fills_in_the_middle() {
    let added =
        [("<|fim_prefix|>", 303, false), ("<|fim_middle|>", 304, false), ("<|fim_suffix|>", 305, false)];
    let dir = folder("qwen2", &added, &json!({}));
    let mut prompts = Vec::new();
    for model in [dir.path().to_path_buf(), gguf(dir.path())] {
        let engine = engine(model);
        let request = CompletionRequest { suffix: Some(SUFFIX.into()), ..greedy("a = ") };
        let (result, text) = complete(&engine, &request).unwrap();
        assert_eq!(result.format, "infill");
        assert_eq!(result.prompt, format!("<|fim_prefix|>a = <|fim_suffix|>{SUFFIX}<|fim_middle|>"));
        prompts.push((result.prompt_tokens, text));
        // Too long for the model: what is nearest to the cursor stays.
        let long = CompletionRequest {
            suffix: Some("after = 1\n".repeat(10_000)),
            ..greedy(&"before = 1\n".repeat(10_000))
        };
        let (result, _) = complete(&engine, &long).unwrap();
        let length = engine.model_info().unwrap().context_length;
        assert!(result.context_truncated && result.prompt_tokens <= length - 6);
        assert!(result.prompt_tokens > length - 6 - 16, "{} of {length}", result.prompt_tokens);
        assert!(result.prompt.contains("before = 1\n<|fim_suffix|>after = 1\n"), "{}", result.prompt);
    }
    assert_eq!(prompts[0], prompts[1]);
}

#[test]
fn an_encoder_decoder_fills_its_first_gap() {
    let dir = folder("t5", &[], &json!({}));
    let mut texts = Vec::new();
    for model in [dir.path().to_path_buf(), gguf(dir.path())] {
        let engine = engine(model);
        let request = CompletionRequest { suffix: Some("\nreturn y".into()), ..greedy("y = ") };
        let (result, text) = complete(&engine, &request).unwrap();
        assert_eq!(result.prompt, "y = <extra_id_0>\nreturn y");
        assert_eq!(result.completions[0].finish_reason, FinishReason::Length);
        texts.push(text);
    }
    assert_eq!(texts[0], texts[1]);
}

#[test]
fn a_model_without_the_markers_says_so() {
    let partly = [("<|fim_prefix|>", 303, true)];
    for (added, what) in
        [(&[][..], "none of the markers"), (&partly[..], "<|fim_suffix|> and <|fim_middle|>")]
    {
        let dir = folder("qwen2", added, &json!({}));
        for model in [dir.path().to_path_buf(), gguf(dir.path())] {
            let request = CompletionRequest { suffix: Some("x".into()), ..greedy("a = ") };
            let error = complete(&engine(model), &request).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            assert!(error.to_string().contains(what), "{error}");
        }
    }
}

#[test]
fn a_session_asks_in_a_chat() {
    const TEMPLATE: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
                            {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
    let dir = folder("qwen2", &[], &json!({"chat_template": TEMPLATE}));
    let config = std::fs::read_to_string(dir.path().join("config.json")).unwrap();
    let mut config: Value = serde_json::from_str(&config).unwrap();
    config["max_position_embeddings"] = json!(1000);
    std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    let mut seen = Vec::new();
    let context = "x = '<|im_end|>'\ny = ";
    for model in [dir.path().to_path_buf(), gguf(dir.path())] {
        let engine = engine(model);
        assert_eq!(engine.conventions().unwrap().chat_template.as_deref(), Some(TEMPLATE));
        // 301 and 302 are the control tokens; the one in the code is text.
        let request = CompletionRequest { chat: Chat::Auto, ..greedy(context) };
        let (result, text) = complete(&engine, &request).unwrap();
        assert_eq!(result.format, "chat");
        assert!(
            result.prompt.starts_with("<|im_start|>user\nContinue this Python code"),
            "{}",
            result.prompt
        );
        assert!(result.prompt.contains(context) && result.prompt.ends_with("<|im_start|>assistant\n"));
        let by_file = CompletionRequest { chat: Chat::Template(TEMPLATE.into()), ..greedy(context) };
        assert_eq!(complete(&engine, &by_file).unwrap().1, text);
        let both = CompletionRequest { suffix: Some("\nz = 1\n".into()), ..request.clone() };
        assert!(
            complete(&engine, &both).unwrap().0.prompt.contains("The code after:\n\n```python\n\nz = 1\n")
        );
        for (request, what) in [
            (CompletionRequest { constrain: true, ..request.clone() }, "constrained"),
            (CompletionRequest { chat: Chat::Template("{% if".into()), ..greedy("x") }, "line 1"),
        ] {
            let error = complete(&engine, &request).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        }
        seen.push((result.prompt_tokens, text));
    }
    assert_eq!(seen[0], seen[1]);
    // A model without a template is asked as ever.
    let plain = folder("qwen2", &[], &json!({}));
    let request = CompletionRequest { chat: Chat::Auto, ..greedy("x = ") };
    assert_eq!(complete(&engine(plain.path().into()), &request).unwrap().0.format, "continue");
}

#[test]
fn a_context_of_ten_megabytes_is_cut_to_what_the_model_reads() {
    let model = inhouse_tests::shipped_coder();
    let engine = engine(model);
    for line in ["some_name = other_name + 1\n", "        \n", "x"] {
        let context = format!("{}y = ", line.repeat(10_000_000 / line.len()));
        let start = std::time::Instant::now();
        let result = complete(&engine, &greedy(&context));
        println!("10 MB of {line:?}: {:.0} ms", start.elapsed().as_secs_f64() * 1000.0);
        match result {
            Ok((result, _)) => {
                assert!(result.context_truncated && context.ends_with(&result.prompt));
                assert!(result.prompt_tokens > engine.model_info().unwrap().context_length * 9 / 10 - 6);
            }
            // One line that is longer than the context.
            Err(error) => assert!(line == "x" && error.kind() == ErrorKind::LimitExceeded, "{error}"),
        }
    }
}

#[test]
fn the_command_takes_a_cursor_and_problems_a_suffix() {
    let added =
        [("<|fim_prefix|>", 303, false), ("<|fim_middle|>", 304, false), ("<|fim_suffix|>", 305, false)];
    let (dir, plain) = (folder("qwen2", &added, &json!({})), folder("qwen2", &[], &json!({})));
    let (model, without) = (gguf(dir.path()), gguf(plain.path()));
    let draft = dir.path().join("draft.py");
    std::fs::write(&draft, "a = 1\nb = <FILL>\nc = 3\n").unwrap();
    let suffix = dir.path().join("suffix.py");
    std::fs::write(&suffix, "\nc = 3\n").unwrap();
    let before = dir.path().join("before.py");
    std::fs::write(&before, "a = 1\nb = ").unwrap();
    let run = |model: &Path, file: &Path, extra: &[&str]| {
        let output = inhouse_tests::command("inhouse")
            .args(["complete", "--json", "--temperature", "0", "--max-tokens", "6", "--model"])
            .arg(model)
            .args(extra)
            .arg(file)
            .output()
            .unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        (output.status.code(), serde_json::from_slice::<Value>(&output.stdout).unwrap_or_default(), error)
    };
    let (status, marked, _) = run(&model, &draft, &["--cursor", "<FILL>"]);
    assert_eq!((status, marked["format"].as_str()), (Some(0), Some("infill")));
    let (_, parts, _) = run(&model, &before, &["--suffix-file", suffix.to_str().unwrap()]);
    assert_eq!(marked["completion"], parts["completion"]);
    assert_eq!(marked["prompt_tokens"], parts["prompt_tokens"]);
    // At the end of the file there is nothing to fill in.
    let (status, end, _) = run(&without, &before, &["--cursor", "2:5"]);
    assert_eq!((status, end["format"].as_str()), (Some(0), Some("continue")));
    for (model, cursor, status, what) in [
        (&model, "9:1", 1, "draft.py: --cursor 9:1: the file has 4 lines"),
        (&model, "[HERE]", 1, "does not stand in it"),
        (&model, "0:1", 2, "counted from 1"),
        (&without, "<FILL>", 1, "cannot fill in the middle"),
    ] {
        let (code, _, error) = run(model, &draft, &["--cursor", cursor]);
        assert!(code == Some(status) && error.contains(what), "{cursor}: {code:?} {error}");
    }
    let problems = dir.path().join("problems.jsonl");
    std::fs::write(&problems, r#"{"task_id":"a","prompt":"x = ","suffix":"\ny = x\n","test":"assert y"}"#)
        .unwrap();
    let out = dir.path().join("samples.jsonl");
    let generate = |model: &Path| {
        let arguments = ["generate", "--apis", "none", "-n", "2", "--max-tokens", "4", "--problems"];
        let mut command = inhouse_tests::command("inhouse");
        command.args(arguments).arg(&problems).arg("--model").arg(model).arg("--out").arg(&out);
        command.output().unwrap()
    };
    assert!(generate(&model).status.success());
    assert_eq!(std::fs::read_to_string(&out).unwrap().lines().count(), 2);
    let refused = generate(&without);
    let error = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && error.contains("a: this model cannot fill in"), "{error}");
}
