//! The `inhouse-convert` command.

#![forbid(unsafe_code)]

mod progress;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use inhouse_convert::quantize::Quantization;
use inhouse_convert::{
    AdapterOptions, FolderOptions, MergeOptions, Options, convert, convert_adapter, info, merge, write_folder,
};
use inhouse_core::lora::LoraChoice;
use inhouse_core::safetensors::ElementType;
use inhouse_core::{Error, ErrorKind};

/// Converts Hugging Face checkpoints and adapters to GGUF files for llama.cpp and back, and says what a GGUF file holds
#[derive(Parser)]
#[command(version, after_help = "Exit status: 0 done, 1 the work failed, 2 wrong usage.")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Convert a Hugging Face folder to a GGUF file
    ///
    /// The folder holds config.json; model.safetensors or pytorch_model.bin, whole or in shards with an index; and
    /// tokenizer.json, or vocab.json with merges.txt and added_tokens.json. Nothing in it is executed. Memory stays small
    /// whatever the model's size, and FILE appears only when it is complete.
    #[command(
        after_help = "Architectures: codegen (becomes llama.cpp's phi2), gpt2, llama and mistral (llama), qwen2, t5; bert as a text encoder (pooling \
        from 1_Pooling/config.json or inhouse_encoder.json).\n\n\
        Types: F32, F16, BF16; Q8_0 (8.5 bits per weight, nearly lossless); Q6_K; Q5_K_M, Q5_K_S, Q4_K_M, Q4_K_S, Q3_K_M, \
        Q3_K_S, Q2_K (5.7 to 2.6 bits; _M and _S are llama.cpp's mixes, Q4_K alone means Q4_K_M); Q5_1, Q5_0, Q4_1, Q4_0. \
        Vectors stay F32, the output projection is kept at Q6_K or better, and rows that are no whole blocks of the type are \
        stored in the nearest one that fits, as llama.cpp does.\n\n\
        Examples:\n  \
        inhouse-convert gguf --from codegen-350M-mono --out codegen-350m.q8_0.gguf --quantize Q8_0\n  \
        inhouse-convert gguf --from my-model --out my-model.gguf\n  \
        inhouse-convert gguf --from my-encoder --out encoder.gguf --quantize Q8_0 --token-embedding-type Q5_1\n  \
        inhouse-convert gguf --from codegen-2B-mono --out 2b.gguf --quantize Q4_K_M --progress json"
    )]
    Gguf {
        /// Hugging Face folder to read
        #[arg(long, value_name = "HF_DIR")]
        from: PathBuf,
        /// GGUF file to write; an existing one is replaced
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// How to store the weights [default: as in the checkpoint]
        #[arg(long, value_name = "TYPE")]
        quantize: Option<Quantization>,
        /// How to store the token embedding, where it should differ
        #[arg(long, value_name = "TYPE")]
        token_embedding_type: Option<Quantization>,
        /// Name to put into the file [default: the folder's name]
        #[arg(long)]
        name: Option<String>,
        /// Progress on stderr
        #[arg(long, value_enum, default_value = "auto")]
        progress: progress::Style,
        /// Print a report as one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Convert a low-rank adapter (LoRA) from a PEFT folder to a GGUF file, as llama.cpp reads
    #[command(
        after_help = "Examples:\n  inhouse-convert lora --from my-adapter --model base.gguf --out my-adapter.gguf\n  \
        inhouse complete --model base.gguf --lora my-adapter.gguf draft.py"
    )]
    Lora {
        /// PEFT folder: adapter_config.json, adapter_model.safetensors
        #[arg(long, value_name = "PEFT_DIR")]
        from: PathBuf,
        /// GGUF adapter to write; an existing one is replaced
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// GGUF model that the adapter is for: names and the order of rows are its [default: the file that the folder names as its
        /// base, or the default model where the adapter fits]
        #[arg(long, value_name = "BASE.gguf")]
        model: Option<PathBuf>,
        /// Matrices in F32 instead of F16
        #[arg(long)]
        full: bool,
        /// Print a report as one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Add low-rank adapters (LoRA) to a GGUF model's weights
    #[command(
        after_help = "Examples:\n  inhouse-convert merge --model base.gguf --lora my-adapter --out mine.gguf\n  \
        inhouse-convert merge --model base.gguf --lora a:0.5 --lora b.gguf --out mine.gguf --quantize Q8_0\n  \
        inhouse-convert merge --model base.gguf --out smaller.gguf --quantize Q4_K_M       (no adapter: stored anew)"
    )]
    Merge {
        /// GGUF model to read
        #[arg(long, value_name = "BASE.gguf")]
        model: PathBuf,
        /// PEFT folder or GGUF adapter, with what its effect is multiplied by; may be given again: effects add up
        #[arg(long, value_name = "ADAPTER[:SCALE]")]
        lora: Vec<LoraChoice>,
        /// GGUF file to write; an existing one is replaced
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// How to store the weights [default: as in the model]
        #[arg(long, value_name = "TYPE")]
        quantize: Option<Quantization>,
        /// Name to put into the file [default: the model's]
        #[arg(long)]
        name: Option<String>,
        /// Progress on stderr
        #[arg(long, value_enum, default_value = "auto")]
        progress: progress::Style,
        /// Print a report as one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Write a GGUF model as a Hugging Face folder, quantised weights widened
    ///
    /// For transformers, PEFT and `inhouse train`. Architectures: llama, qwen2, with byte-level tokenizers.
    #[command(
        after_help = "Examples:\n  inhouse-convert hf --from model.gguf --out model\n  inhouse-convert hf --from model.gguf --out model --dtype F32"
    )]
    Hf {
        /// GGUF model to read
        #[arg(long, value_name = "FILE")]
        from: PathBuf,
        /// Folder to write
        #[arg(long, value_name = "HF_DIR")]
        out: PathBuf,
        /// Element type of the weights
        #[arg(long, value_enum, default_value = "f16", ignore_case = true)]
        dtype: Float,
        /// Progress on stderr
        #[arg(long, value_enum, default_value = "auto")]
        progress: progress::Style,
        /// Print a report as one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Say what a GGUF file holds: facts, metadata, tensors
    #[command(
        after_help = "Examples:\n  inhouse-convert info model.gguf\n  inhouse-convert info model.gguf --json"
    )]
    Info {
        /// GGUF file to read
        file: PathBuf,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
}

/// Element types of a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Float {
    /// IEEE half
    F16,
    /// bfloat16
    Bf16,
    /// 32 bits
    F32,
}

fn main() -> ExitCode {
    // clap itself ends the process with 2 on wrong usage and 0 on --help.
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("inhouse-convert: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<(), Error> {
    match command {
        Command::Gguf { from, out, quantize, token_embedding_type, name, progress, json } => {
            let options =
                Options { from, out, quantization: quantize, token_embedding: token_embedding_type, name };
            let report = convert(&options, &*progress::make(progress))?;
            let line = format!(
                "wrote {} ({} as {}, {}, {} tensors, {:.1} MB)",
                options.out.display(),
                report.model_type,
                report.architecture,
                report.file_type,
                report.tensors,
                report.bytes as f64 / 1e6
            );
            tell(&report, json, &options.out, &line)
        }
        Command::Lora { from, out, model, full, json } => {
            let options = AdapterOptions { from, out, model, full };
            let report = convert_adapter(&options)?;
            let line = format!(
                "wrote {} ({} weights of {}, {} parameters)",
                options.out.display(),
                report.modules,
                report.model,
                report.parameters
            );
            tell(&report, json, &options.out, &line)
        }
        Command::Merge { model, lora, out, quantize, name, progress, json } => {
            let options = MergeOptions { model, adapters: lora, out, quantization: quantize, name };
            let report = merge(&options, &*progress::make(progress))?;
            let line = format!(
                "wrote {} ({}, {} of {} tensors adapted, {:.1} MB)",
                options.out.display(),
                report.architecture,
                report.adapted,
                report.tensors,
                report.bytes as f64 / 1e6
            );
            tell(&report, json, &options.out, &line)
        }
        Command::Hf { from, out, dtype, progress, json } => {
            let dtype = match dtype {
                Float::F16 => ElementType::F16,
                Float::Bf16 => ElementType::BF16,
                Float::F32 => ElementType::F32,
            };
            let options = FolderOptions { from, out, dtype };
            let report = write_folder(&options, &*progress::make(progress))?;
            let line = format!(
                "wrote {} ({} tensors, {} parameters)",
                options.out.display(),
                report.tensors,
                report.parameters
            );
            tell(&report, json, &options.out, &line)
        }
        Command::Info { file, json } => {
            let info = info(&file)?;
            print(&if json { to_json(&info)? } else { info.to_string() })
        }
    }
}

/// A report on standard output, where it is asked for and nothing else goes there; else a line for people.
fn tell(report: &impl serde::Serialize, json: bool, out: &Path, line: &str) -> Result<(), Error> {
    if json && out.as_os_str() != "-" {
        return print(&to_json(report)?);
    }
    eprintln!("inhouse-convert: {line}");
    Ok(())
}

fn to_json(value: &impl serde::Serialize) -> Result<String, Error> {
    let text = serde_json::to_string(value).map_err(|cause| {
        Error::with_source(ErrorKind::Internal, format!("cannot write JSON: {cause}"), cause)
    })?;
    Ok(text + "\n")
}

/// Writes to stdout; a reader that has seen enough (`| head`) is no failure.
fn print(text: &str) -> Result<(), Error> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(cause) if cause.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::io("write", std::path::Path::new("<stdout>"), cause))
        }
        _ => Ok(()),
    }
}
