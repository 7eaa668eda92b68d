//! Landlock: the second wall around files, and the first one in T3. In T4, where a sample needs no file, a wall behind the machine.
//!
//! The sample may read what the root shows and write below its private folder; no device may be made there, nothing in it
//! be executed, and (kernel 6.12 on) no process outside be signalled. In T3, where the network is the host's, no TCP port
//! may be used.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetStatus, Scope,
};

/// Newest interface asked for; an older kernel enforces what it knows.
const NEWEST: ABI = ABI::V6;

/// The version of Landlock's interface that this kernel offers, or `None` without Landlock.
pub fn version() -> Option<i64> {
    const VERSION_FLAG: u32 = 1;
    // SAFETY: with LANDLOCK_CREATE_RULESET_VERSION a null pointer and size 0 are what the call expects.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<libc::c_void>(),
            0usize,
            VERSION_FLAG,
        )
    };
    (version > 0).then_some(version)
}

/// Version from which on signals can be kept within the sandbox.
pub const SCOPES: i64 = 6;

/// What a sample may do, and what else stands around it.
#[derive(Debug, Clone, Copy)]
pub struct Access<'a> {
    /// What may be read, and executed where `execute` says so.
    pub readable: &'a [PathBuf],
    /// Whether other programs may be run.
    pub execute: bool,
    /// What may be written to.
    pub scratch: Option<&'a Path>,
    /// Whether there is no other wall around files: then a kernel without Landlock is an error.
    pub required: bool,
    /// Whether the network is the sample's own; where it is the host's, none of it may be used.
    pub own_network: bool,
}

/// Confines the calling thread, and all that it starts, for good.
///
/// # Errors
/// A folder cannot be opened, or the kernel refuses; where it is required, also when the kernel has no Landlock.
pub fn restrict(access: Access<'_>) -> Result<(), String> {
    let text = |error: landlock::RulesetError| error.to_string();
    let all = AccessFs::from_all(NEWEST);
    let mut read = AccessFs::ReadFile | AccessFs::ReadDir;
    let write = read
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::MakeDir
        | AccessFs::MakeSym
        | AccessFs::MakeFifo
        | AccessFs::MakeSock
        | AccessFs::RemoveFile
        | AccessFs::RemoveDir
        | AccessFs::Refer;
    if access.execute {
        read |= AccessFs::Execute;
    }
    let mut ruleset = Ruleset::default().handle_access(all).map_err(text)?;
    if !access.own_network {
        ruleset = ruleset.handle_access(AccessNet::from_all(NEWEST)).map_err(text)?;
    }
    let mut ruleset =
        ruleset.scope(Scope::from_all(NEWEST)).and_then(|ruleset| ruleset.create()).map_err(text)?;
    let mut allow = |path: &Path, access: BitFlags<AccessFs>| -> Result<(), String> {
        let file = PathFd::new(path).map_err(|error| format!("{}: {error}", path.display()))?;
        // A rule on a file may not speak of folders.
        let access = if path.is_dir() { access } else { access & AccessFs::from_file(NEWEST) };
        (&mut ruleset).add_rule(PathBeneath::new(file, access)).map(|_| ()).map_err(text)
    };
    for path in access.readable {
        allow(path, read)?;
    }
    if let Some(scratch) = access.scratch {
        allow(scratch, write)?;
    }
    let null = Path::new("/dev/null");
    if null.exists() {
        allow(null, AccessFs::ReadFile | AccessFs::WriteFile)?;
    }
    let status = ruleset.restrict_self().map_err(text)?;
    if access.required && status.ruleset == RulesetStatus::NotEnforced {
        return Err("this kernel has no Landlock".into());
    }
    Ok(())
}
