//! x
use std::path::Path;
use super::Documentation;
use crate::{Progress, Result};
pub(super) fn read(_source: &Path, _progress: &dyn Progress) -> Result<Documentation> { Ok(Documentation::default()) }
