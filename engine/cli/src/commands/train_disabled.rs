//! `inhouse train` where the trainers are not built.

use anyhow::{Result, bail};
use inhouse_core::progress::Progress;

/// Train the models of this engine on public packages (not in this build)
#[derive(clap::Args)]
pub struct Arguments {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    _arguments: Vec<String>,
}

pub fn run(_: &Arguments, _: bool, _: &dyn Progress) -> Result<()> {
    bail!("this build has no trainers: build it with `--features candle`")
}
