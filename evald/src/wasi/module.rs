//! The machine code of a CPython for WASI: made once per machine, and kept on disk.
//!
//! Loading machine code that somebody else has written would be running it. So the folder must be this user's and closed to
//! all others, what is loaded is exactly what was checked against its digest, and whatever fails is compiled anew.

use std::fs::File;
use std::hash::{Hash, Hasher};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::fcntl::{OFlag, openat, renameat};
use nix::sys::stat::Mode;
use sha2::{Digest, Sha256};
use wasmtime::{Config, Engine, Module, OptLevel};

use super::memfile;
use crate::error::{Error, Result, Step};

/// The name under which the program's table of functions is exported.
pub const TABLE: &str = "evald:functions";
/// The name under which the pointer to the program's C stack is exported.
pub const STACK: &str = "evald:stack";

/// Native stack of a program; the rest of the thread's 8 MiB is ours.
const STACK_BYTES: usize = 6 << 20;

/// The engine of both the compiler and the machine: machine code depends on these settings.
pub fn engine() -> Result<Engine> {
    let mut config = Config::new();
    config
        .cranelift_opt_level(OptLevel::Speed)
        .max_wasm_stack(STACK_BYTES)
        // Of coroutines, which there are none of; it may only not be the smaller one.
        .async_stack_size(STACK_BYTES)
        // Traps are told by their kind alone.
        .wasm_backtrace_max_frames(None)
        .generate_address_map(false)
        .native_unwind_info(false);
    Engine::new(&config)
        .map_err(|error| Error::Host(format!("no WebAssembly engine on this machine: {error}")))
}

/// A number in LEB128 and what follows it.
fn number(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let mut value = 0u32;
    for (index, byte) in bytes.iter().enumerate().take(5) {
        value |= u32::from(byte & 0x7f).checked_shl(7 * index as u32)?;
        if byte & 0x80 == 0 {
            return Some((value, bytes.get(index + 1..)?));
        }
    }
    None
}

fn push_number(out: &mut Vec<u8>, mut value: u32) {
    loop {
        let byte = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            return out.push(byte);
        }
        out.push(byte | 0x80);
    }
}

/// The program with its table of functions and its stack pointer exported too, and without what only debuggers read. `None`:
/// it is no WebAssembly module with exports.
pub fn opened(wasm: &[u8]) -> Option<Vec<u8>> {
    const CUSTOM: u8 = 0;
    const EXPORTS: u8 = 7;
    const OF_TABLE: u8 = 1;
    const OF_GLOBAL: u8 = 3;
    let (head, mut rest) = wasm.split_at_checked(8)?;
    if head != b"\0asm\x01\0\0\0" {
        return None;
    }
    let mut out = head.to_vec();
    let mut found = false;
    while let Some((id, after)) = rest.split_first() {
        let (size, after) = number(after)?;
        let (section, after) = after.split_at_checked(size as usize)?;
        rest = after;
        match *id {
            CUSTOM => {}
            EXPORTS => {
                let (count, entries) = number(section)?;
                let mut section = Vec::with_capacity(section.len() + 64);
                push_number(&mut section, count.checked_add(2)?);
                section.extend_from_slice(entries);
                for (name, kind) in [(TABLE, OF_TABLE), (STACK, OF_GLOBAL)] {
                    push_number(&mut section, name.len() as u32);
                    section.extend_from_slice(name.as_bytes());
                    section.extend_from_slice(&[kind, 0]);
                }
                found = true;
                out.push(*id);
                push_number(&mut out, section.len() as u32);
                out.extend_from_slice(&section);
            }
            id => {
                out.push(id);
                push_number(&mut out, size);
                out.extend_from_slice(section);
            }
        }
    }
    found.then_some(out)
}

/// Where machine code is kept.
pub struct Cache {
    path: PathBuf,
    folder: OwnedFd,
}

/// Begins each file: the format, then a digest of what follows.
const MAGIC: &[u8; 16] = b"evald machine 1\n";
const HEAD_BYTES: usize = MAGIC.len() + 32;

impl Cache {
    /// Opens, or makes, the folder.
    ///
    /// # Errors
    /// It belongs to another user, others may write to it, or it cannot be made.
    pub fn open(path: &Path) -> Result<Self> {
        let step = || format!("use the folder {} for machine code", path.display());
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).step(step())?;
        let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_RDONLY;
        let folder = nix::fcntl::open(path, flags, Mode::empty()).step(step())?;
        let meta = File::from(folder.try_clone().step(step())?).metadata().step(step())?;
        let own = nix::unistd::geteuid().as_raw();
        if meta.uid() != own || meta.mode() & 0o077 != 0 {
            return Err(Error::Host(format!(
                "the folder {} for machine code must belong to user {own} alone (it has owner {}, mode {:o}): chmod 700 it, or name another with --cache",
                path.display(),
                meta.uid(),
                meta.mode() & 0o777
            )));
        }
        Ok(Self { path: path.to_path_buf(), folder })
    }

    /// The name of the file of one program: by its bytes, and all that its machine code depends on (wasmtime's version,
    /// settings, the processor's features).
    fn name(engine: &Engine, wasm: &[u8]) -> String {
        let mut hasher = std::collections::hash_map::DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        format!("{:016x}-{:.32}.machine", hasher.finish(), hex(&Sha256::digest(wasm)))
    }

    /// What was written of this program and is whole; `None` otherwise.
    fn read(&self, name: &str) -> Option<Vec<u8>> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut file = File::from(openat(self.folder.as_fd(), name, flags, Mode::empty()).ok()?);
        let meta = file.metadata().ok()?;
        if !meta.is_file() || meta.uid() != nix::unistd::geteuid().as_raw() || meta.mode() & 0o022 != 0 {
            return None;
        }
        let mut bytes = Vec::with_capacity(meta.len() as usize);
        file.read_to_end(&mut bytes).ok()?;
        let (head, code) = bytes.split_at_checked(HEAD_BYTES)?;
        let (magic, digest) = head.split_at(MAGIC.len());
        let whole = magic == MAGIC && digest == &Sha256::digest(code)[..];
        whole.then(|| bytes.split_off(HEAD_BYTES))
    }

    fn write(&self, name: &str, code: &[u8]) -> std::io::Result<()> {
        let new = format!("{name}.{}.new", std::process::id());
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut file = File::from(openat(self.folder.as_fd(), &*new, flags, Mode::S_IRUSR | Mode::S_IWUSR)?);
        file.write_all(MAGIC)?;
        file.write_all(&Sha256::digest(code))?;
        file.write_all(code)?;
        file.sync_all()?;
        renameat(self.folder.as_fd(), &*new, self.folder.as_fd(), name)?;
        Ok(())
    }

    /// The machine code of a program, made by a process of its own where there is none: so the process that goes on has
    /// no thread, and nothing of a compiler in its memory.
    ///
    /// # Errors
    /// The program is none, or cannot be compiled.
    pub fn load(&self, engine: &Engine, program: &Path) -> Result<Module> {
        let wasm = std::fs::read(program).step(format!("read {}", program.display()))?;
        let name = Self::name(engine, &wasm);
        if let Some(module) = self.loaded(engine, &name) {
            return Ok(module);
        }
        writeln!(std::io::stderr(), "compiling {} for this machine, once", program.display()).ok();
        let executable = std::env::current_exe().step("find the executable")?;
        let compiler = Command::new(&executable)
            .arg("__compile")
            .args([program, self.path.as_path()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .output()
            .step(format!("start {}", executable.display()))?;
        let said = String::from_utf8_lossy(&compiler.stderr);
        if !compiler.status.success() {
            let last = said.lines().last().unwrap_or("the compiler said nothing").to_owned();
            return Err(Error::Host(last.trim_start_matches("evald: ").to_owned()));
        }
        self.loaded(engine, &name).ok_or_else(|| {
            Error::Host(format!("the machine code in {} cannot be read back", self.path.display()))
        })
    }

    #[allow(unsafe_code, reason = "wasmtime cannot check machine code")]
    fn loaded(&self, engine: &Engine, name: &str) -> Option<Module> {
        let code = self.read(name)?;
        let mut file = memfile::create("evald-machine").ok()?;
        file.write_all(&code).ok()?;
        memfile::seal(&file).ok()?;
        // SAFETY: these bytes were written by this program (magic, digest) into a folder that only its user can write
        // (`Cache::open`), and they are the ones that were checked: a copy in a sealed file, not read again. Engines of
        // another version or other settings have another name, and wasmtime checks both again.
        unsafe { Module::deserialize_open_file(engine, file) }.ok()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Compiles a program and keeps its machine code: `evald __compile PROGRAM CACHE`.
///
/// # Errors
/// The program is none, or uses what is not supported; the folder is not ours.
pub fn compile(program: &Path, cache: &Path) -> Result<()> {
    let wasm = std::fs::read(program).step(format!("read {}", program.display()))?;
    let wrong = |why: String| Error::Host(format!("{} cannot be compiled: {why}", program.display()));
    let opened = opened(&wasm).ok_or_else(|| wrong("it is no WebAssembly module".into()))?;
    let engine = engine()?;
    let code = engine.precompile_module(&opened).map_err(|error| wrong(format!("{error:#}")))?;
    let cache = Cache::open(cache)?;
    cache.write(&Cache::name(&engine, &wasm), &code).step(format!("write to {}", cache.path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A module of one function, one table, one global: `_start` does nothing.
    const TINY: &[u8] = b"\0asm\x01\0\0\0\
        \x01\x04\x01\x60\x00\x00\
        \x03\x02\x01\x00\
        \x04\x04\x01\x70\x00\x01\
        \x06\x06\x01\x7f\x01\x41\x00\x0b\
        \x07\x0a\x01\x06_start\x00\x00\
        \x0a\x04\x01\x02\x00\x0b\
        \x00\x06\x04nameX";

    #[test]
    fn the_table_and_the_stack_are_exported_and_custom_sections_go() {
        let opened = opened(TINY).expect("a module");
        assert!(!opened.ends_with(b"nameX"));
        let module = Module::new(&engine().expect("an engine"), &opened).expect("valid");
        for name in ["_start", TABLE, STACK] {
            assert!(module.get_export(name).is_some(), "{name}");
        }
    }

    #[test]
    fn damaged_modules_are_refused_whatever_is_cut_or_flipped() {
        let engine = engine().expect("an engine");
        for end in 0..TINY.len() {
            // A cut between sections leaves a module without its last ones.
            if let Some(opened) = opened(&TINY[..end]) {
                let _ = Module::new(&engine, &opened);
            }
        }
        for at in 0..TINY.len() {
            let mut flipped = TINY.to_vec();
            flipped[at] ^= 0xff;
            if let Some(opened) = opened(&flipped) {
                let _ = Module::new(&engine, &opened);
            }
        }
        assert!(opened(b"").is_none() && opened(b"\x7fELF\x02\x01\x01\0\0").is_none());
    }

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o700)).expect("a mode");
        folder
    }

    #[test]
    fn a_kept_module_is_loaded_and_a_damaged_one_is_not() {
        let folder = folder();
        let program = folder.path().join("tiny.wasm");
        std::fs::write(&program, TINY).expect("written");
        compile(&program, folder.path()).expect("compiled");
        let (cache, engine) = (Cache::open(folder.path()).expect("ours"), engine().expect("an engine"));
        let name = Cache::name(&engine, TINY);
        assert!(cache.loaded(&engine, &name).is_some());
        let path = folder.path().join(&name);
        assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        let good = std::fs::read(&path).expect("read");
        for at in [0, MAGIC.len(), HEAD_BYTES, good.len() / 2, good.len() - 1] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            std::fs::write(&path, &bad).expect("written");
            assert!(cache.loaded(&engine, &name).is_none(), "a flipped bit at {at}");
        }
        for end in [0, MAGIC.len(), HEAD_BYTES, good.len() - 1] {
            std::fs::write(&path, &good[..end]).expect("written");
            assert!(cache.loaded(&engine, &name).is_none(), "cut at {end}");
        }
        // Whole, but not ours to trust: others may write it, or it is elsewhere.
        std::fs::write(&path, &good).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).expect("a mode");
        assert!(cache.loaded(&engine, &name).is_none(), "writable by all");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("a mode");
        assert!(cache.loaded(&engine, &name).is_some());
        let elsewhere = folder.path().join("elsewhere");
        std::fs::rename(&path, &elsewhere).expect("renamed");
        std::os::unix::fs::symlink(&elsewhere, &path).expect("linked");
        assert!(cache.loaded(&engine, &name).is_none(), "a link");
    }

    #[test]
    fn a_folder_that_others_may_write_to_is_refused() {
        let folder = folder();
        for mode in [0o777, 0o770, 0o750, 0o701] {
            std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(mode)).expect("a mode");
            let error = Cache::open(folder.path()).err().expect("refused").to_string();
            assert!(error.contains("chmod 700"), "{error}");
        }
        let link = folder.path().with_extension("link");
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o700)).expect("a mode");
        std::os::unix::fs::symlink(folder.path(), &link).expect("linked");
        assert!(Cache::open(&link).is_err());
        std::fs::remove_file(&link).ok();
        if nix::unistd::geteuid().is_root() {
            std::os::unix::fs::chown(folder.path(), Some(65534), None).expect("given away");
            assert!(Cache::open(folder.path()).is_err());
        }
    }
}
