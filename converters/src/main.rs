//! The `inhouse-convert` command.

#![forbid(unsafe_code)]

mod progress;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use inhouse_convert::quantize::Quantization;
use inhouse_convert::{Options, convert, info};
use inhouse_core::{Error, ErrorKind};

/// Converts Hugging Face checkpoints to GGUF files for llama.cpp, and says what a GGUF file holds
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
            let to_stdout = out.as_os_str() == "-";
            let options =
                Options { from, out, quantization: quantize, token_embedding: token_embedding_type, name };
            let report = convert(&options, &*progress::make(progress))?;
            if json && !to_stdout {
                print(&to_json(&report)?)
            } else {
                let size = report.bytes as f64 / 1e6;
                eprintln!(
                    "inhouse-convert: wrote {} ({} as {}, {}, {} tensors, {size:.1} MB)",
                    options.out.display(),
                    report.model_type,
                    report.architecture,
                    report.file_type,
                    report.tensors
                );
                Ok(())
            }
        }
        Command::Info { file, json } => {
            let info = info(&file)?;
            print(&if json { to_json(&info)? } else { info.to_string() })
        }
    }
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
