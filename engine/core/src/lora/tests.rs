use super::*;
use crate::gguf::{TensorSpec, TensorType, Value, Writer};

fn module(rank: usize, outputs: usize, inputs: usize, scale: f32) -> Module {
    let a = (0..rank * inputs).map(|i| (i % 7) as f32 - 3.0).collect();
    let b = (0..outputs * rank).map(|i| (i % 5) as f32 * 0.5 - 1.0).collect();
    Module { rank, inputs, outputs, scale, a, b }
}

fn adapter() -> Adapter {
    let modules = [
        ("model.layers.0.self_attn.q_proj", module(2, 16, 16, 2.0)),
        ("model.layers.0.self_attn.v_proj", module(2, 8, 16, 2.0)),
        ("model.layers.1.mlp.down_proj", module(3, 16, 24, 0.5)),
    ];
    let modules = modules.into_iter().map(|(name, module)| (name.to_owned(), module)).collect();
    Adapter { path: PathBuf::new(), naming: Naming::HuggingFace, base: None, modules }
}

/// The tensors of a Llama with 2 blocks, 4 heads and 2 of keys; the file holds zeros.
fn base(dir: &Path) -> Header {
    let path = dir.join("base.gguf");
    let number = |n: u32| Value::U32(n);
    let metadata: Vec<(String, Value)> = [
        ("general.architecture", Value::from("llama")),
        ("llama.attention.head_count", number(4)),
        ("llama.attention.head_count_kv", number(2)),
        ("llama.embedding_length", number(16)),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into();
    let kind = TensorType::by_name("F32").unwrap();
    let mut specs = Vec::new();
    for block in 0..2 {
        for (name, shape) in
            [("attn_q", [16, 16]), ("attn_k", [8, 16]), ("attn_v", [8, 16]), ("ffn_down", [16, 24])]
        {
            specs.push(TensorSpec {
                name: format!("blk.{block}.{name}.weight"),
                shape: shape.to_vec(),
                kind,
            });
        }
    }
    crate::files::write_atomic(&path, |out| {
        let mut writer = Writer::new(out, &metadata, &specs)?;
        for spec in &specs {
            writer.begin()?;
            writer.write(&vec![0; spec.bytes() as usize])?;
        }
        writer.finish()
    })
    .unwrap();
    crate::gguf::read(&path).unwrap()
}

fn delta(module: &Module) -> Vec<f32> {
    let mut rows = vec![0f32; module.outputs * module.inputs];
    module.add_to_rows(0, &mut rows);
    rows
}

#[test]
fn a_peft_folder_comes_back_as_it_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let settings = PeftSettings { base: "somebody/model".into(), dropout: 0.05 };
    adapter().write_peft(folder.path(), &settings).unwrap();
    let back = Adapter::read(folder.path()).unwrap();
    assert_eq!(back.base.as_deref(), Some("somebody/model"));
    // The values above are whole in f16; ranks and scales differ from module to module.
    assert_eq!(back.modules, adapter().modules);
}

#[test]
fn a_gguf_adapter_has_the_same_effect() {
    let folder = tempfile::tempdir().unwrap();
    let header = base(folder.path());
    let named = adapter().for_gguf(&header).unwrap();
    let q = &named.modules["blk.0.attn_q"];
    // Head of 4: rows 0, 2, 1, 3 of each in llama.cpp's order.
    assert_eq!(q.b[2..4], adapter().modules["model.layers.0.self_attn.q_proj"].b[4..6]);
    for half in [false, true] {
        let path = folder.path().join("adapter.gguf");
        named.write_gguf(&path, "llama", half).unwrap();
        let back = Adapter::read(&path).unwrap().for_gguf(&header).unwrap();
        for (name, module) in &named.modules {
            for (one, other) in delta(module).iter().zip(delta(&back.modules[name])) {
                assert!((one - other).abs() < 1e-4, "{name}: {one} {other}");
            }
        }
        let known = Counterparts::of_header(&header).unwrap();
        let there = back.for_hugging_face(Some(&known)).unwrap();
        assert!(there.modules.keys().eq(adapter().modules.keys()));
        let (one, other) = (
            &there.modules["model.layers.0.self_attn.q_proj"],
            &adapter().modules["model.layers.0.self_attn.q_proj"],
        );
        assert_eq!(delta(one), delta(other));
    }
}

#[test]
fn several_adapters_add_up() {
    let scaled = |scale: f32| (adapter(), scale);
    assert!(combined(Vec::new()).unwrap().is_none());
    let both = combined(vec![scaled(0.5), scaled(-2.0)]).unwrap().unwrap();
    for (name, module) in &adapter().modules {
        for (one, sum) in delta(module).iter().zip(delta(&both.modules[name])) {
            assert!((one * -1.5 - sum).abs() < 1e-3, "{name}");
        }
    }
    // Rows from the middle, as a converter reads them.
    let module = &adapter().modules["model.layers.1.mlp.down_proj"];
    let mut rows = vec![1f32; 2 * 24];
    module.add_to_rows(5, &mut rows);
    let expected: Vec<f32> = delta(module)[5 * 24..7 * 24].iter().map(|value| value + 1.0).collect();
    assert_eq!(rows, expected);
}

#[test]
fn another_base_is_an_error_that_names_the_module() {
    let folder = tempfile::tempdir().unwrap();
    let header = base(folder.path());
    let message = |change: &dyn Fn(&mut Adapter)| {
        let mut changed = adapter();
        changed.path = "mine".into();
        change(&mut changed);
        changed.for_gguf(&header).unwrap_err().to_string()
    };
    let wide = message(&|adapter| {
        adapter.modules.insert("model.layers.0.self_attn.v_proj".into(), module(2, 8, 32, 1.0));
    });
    assert!(
        wide.contains("blk.0.attn_v.weight") && wide.contains("[8, 32]") && wide.contains("[8, 16]"),
        "{wide}"
    );
    let deep = message(&|adapter| {
        adapter.modules.insert("model.layers.7.mlp.down_proj".into(), module(2, 16, 24, 1.0));
    });
    assert!(deep.contains("blk.7.ffn_down.weight") && deep.contains("another base"), "{deep}");
    let other = message(&|adapter| {
        adapter.modules.insert("transformer.h.0.attn.c_attn".into(), module(2, 48, 16, 1.0));
    });
    assert!(other.contains("transformer.h.0.attn.c_attn") && other.contains("mine"), "{other}");
    let order = message(&|adapter| {
        adapter.modules.insert("model.layers.0.self_attn.k_proj".into(), module(2, 16, 16, 1.0));
    });
    assert!(order.contains("16 outputs"), "{order}");
}

#[test]
fn what_is_more_than_matrices_is_refused_with_its_key() {
    let folder = tempfile::tempdir().unwrap();
    adapter().write_peft(folder.path(), &PeftSettings::default()).unwrap();
    let config = folder.path().join("adapter_config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    let mut check = |change: &dyn Fn(&mut serde_json::Value), expected: &str| {
        let mut tree: serde_json::Value = serde_json::from_str(&text).unwrap();
        change(&mut tree);
        std::fs::write(&config, tree.to_string()).unwrap();
        let error = Adapter::read(folder.path()).unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains("adapter_config.json"), "{expected}: {error}");
    };
    check(&|tree| tree["peft_type"] = "LOHA".into(), "LOHA");
    check(&|tree| tree["use_dora"] = true.into(), "use_dora");
    check(&|tree| tree["modules_to_save"] = serde_json::json!(["embed_tokens"]), "modules_to_save");
    check(&|tree| tree["r"] = 0.into(), "r is 0");
    check(&|tree| tree["r"] = 9.into(), "rank 9");
    check(&|tree| tree["lora_alpha"] = serde_json::Value::Null, "lora_alpha");
    check(&|tree| tree["rank_pattern"] = serde_json::json!({"layers.(0|1).*": 4}), "rank_pattern");
    check(&|tree| *tree = serde_json::json!([]), "no JSON object");
    std::fs::write(&config, "{").unwrap();
    assert_eq!(Adapter::read(folder.path()).unwrap_err().kind(), ErrorKind::InvalidData);
    std::fs::remove_file(&config).unwrap();
    assert_eq!(Adapter::read(folder.path()).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn a_scale_follows_the_last_colon() {
    let choice = |text: &str| text.parse::<LoraChoice>();
    assert_eq!(choice("a/b:0.5").unwrap(), LoraChoice { path: "a/b".into(), scale: 0.5 });
    assert_eq!(choice("a:b").unwrap(), LoraChoice { path: "a:b".into(), scale: 1.0 });
    assert_eq!(choice("a:-1").unwrap().scale, -1.0);
    assert!(choice("a:inf").unwrap_err().contains("finite"));
    assert!(choice(":1").is_err());
    assert!(choice("").is_err());
}
