//! The functions of WASI preview 1 over a [`World`]: all that a program in the machine can ask of us.
//!
//! `wasmtime-wasi` is not used: it gives a program folders of the host, and brings an asynchronous runtime and the
//! component model along. Here nothing of the host is to be given, so that what is left is short, and can be read.

use std::time::Duration;

use wasmtime::{Caller, Linker, Trap};

use super::files::{Entry, Node};
use super::guest::keep;
use super::world::{Descriptor, Errno, HATCH, ROOT_FD, World};

type Outcome = Result<(), Errno>;

/// The machine's memory while a function runs. Every access is checked.
struct Ram<'a>(&'a mut [u8]);

impl Ram<'_> {
    fn at(&mut self, pointer: u32, length: u32) -> Result<&mut [u8], Errno> {
        let start = pointer as usize;
        self.0.get_mut(start..start.saturating_add(length as usize)).ok_or(Errno::Fault)
    }

    fn set(&mut self, pointer: u32, bytes: &[u8]) -> Outcome {
        self.at(pointer, bytes.len() as u32)?.copy_from_slice(bytes);
        Ok(())
    }

    fn set_u32(&mut self, pointer: u32, value: u32) -> Outcome {
        self.set(pointer, &value.to_le_bytes())
    }

    fn set_u64(&mut self, pointer: u32, value: u64) -> Outcome {
        self.set(pointer, &value.to_le_bytes())
    }

    fn u32(&mut self, pointer: u32) -> Result<u32, Errno> {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(self.at(pointer, 4)?);
        Ok(u32::from_le_bytes(bytes))
    }

    fn u64(&mut self, pointer: u32) -> Result<u64, Errno> {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(self.at(pointer, 8)?);
        Ok(u64::from_le_bytes(bytes))
    }

    fn text(&mut self, pointer: u32, length: u32) -> Result<String, Errno> {
        String::from_utf8(self.at(pointer, length)?.to_vec()).map_err(|_| Errno::Inval)
    }

    /// The buffers of a scattered read or write.
    fn vectors(&mut self, pointer: u32, count: u32) -> Result<Vec<(u32, u32)>, Errno> {
        const MOST: u32 = 1024;
        if count > MOST {
            return Err(Errno::Inval);
        }
        (0..count)
            .map(|index| {
                let at = pointer.checked_add(index * 8).ok_or(Errno::Fault)?;
                Ok((self.u32(at)?, self.u32(at.checked_add(4).ok_or(Errno::Fault)?)?))
            })
            .collect()
    }
}

/// File types of preview 1.
const FOLDER: u8 = 3;
const FILE: u8 = 4;
/// Neither a file nor a terminal: a pipe has no type of its own.
const STREAM: u8 = 0;

fn type_of(world: &World, descriptor: Descriptor) -> (u8, u64, u64) {
    match descriptor {
        Descriptor::Input | Descriptor::Output(_) => (STREAM, 0, 0),
        Descriptor::Text => (FILE, 0, world.text.0.len() as u64),
        Descriptor::File(node, _) | Descriptor::Folder(node) => stat_of(world, node),
    }
}

/// Type, inode, size.
fn stat_of(world: &World, node: Node) -> (u8, u64, u64) {
    match world.tree.entry(node) {
        Some(Entry::File(bytes)) => (FILE, node as u64 + 1, bytes.len() as u64),
        _ => (FOLDER, node as u64 + 1, 0),
    }
}

fn put_stat(ram: &mut Ram<'_>, pointer: u32, (kind, inode, size): (u8, u64, u64)) -> Outcome {
    let mut stat = [0u8; 64];
    stat[8..16].copy_from_slice(&inode.to_le_bytes());
    stat[16] = kind;
    stat[24..32].copy_from_slice(&1u64.to_le_bytes());
    stat[32..40].copy_from_slice(&size.to_le_bytes());
    ram.set(pointer, &stat)
}

const RIGHT_TO_WRITE: u64 = 1 << 6;
const ALL_RIGHTS: u64 = (1 << 30) - 1;

/// A list of C strings: pointers at one place, texts at another.
fn put_strings(ram: &mut Ram<'_>, list: &[String], mut pointers: u32, mut texts: u32) -> Outcome {
    for text in list {
        ram.set_u32(pointers, texts)?;
        ram.set(texts, text.as_bytes())?;
        texts += text.len() as u32;
        ram.set(texts, &[0])?;
        (pointers, texts) = (pointers + 4, texts + 1);
    }
    Ok(())
}

fn seek(world: &mut World, ram: &mut Ram<'_>, fd: u32, offset: i64, whence: u32, to: u32) -> Outcome {
    let (now, end) = match world.descriptor(fd)? {
        Descriptor::File(node, at) => (at, world.tree.bytes(node).len() as u64),
        Descriptor::Text => (world.text.1 as u64, world.text.0.len() as u64),
        _ => return Err(Errno::SPipe),
    };
    let base = [0, now, end].get(whence as usize).copied().ok_or(Errno::Inval)?;
    let at = base.checked_add_signed(offset).ok_or(Errno::Inval)?;
    match world.descriptor(fd)? {
        Descriptor::File(node, _) => world.set(fd, Some(Descriptor::File(node, at)))?,
        _ => world.text.1 = at.min(end) as usize,
    }
    ram.set_u64(to, at)
}

fn read(
    world: &mut World,
    ram: &mut Ram<'_>,
    fd: u32,
    vectors: (u32, u32),
    at: Option<u64>,
    to: u32,
) -> Outcome {
    let vectors = ram.vectors(vectors.0, vectors.1)?;
    let descriptor = world.descriptor(fd)?;
    let start = match descriptor {
        Descriptor::Input => {
            let mut got = 0;
            for (pointer, length) in vectors {
                let read = World::read(ram.at(pointer, length)?)?;
                got += read;
                if read < length {
                    break;
                }
            }
            return ram.set_u32(to, got);
        }
        Descriptor::File(_, position) => at.unwrap_or(position),
        Descriptor::Text => world.text.1 as u64,
        Descriptor::Folder(_) => return Err(Errno::IsDir),
        Descriptor::Output(_) => return Err(Errno::BadF),
    };
    let source = match descriptor {
        Descriptor::File(node, _) => world.tree.bytes(node),
        _ => &world.text.0,
    };
    let mut rest = source.get(usize::try_from(start).unwrap_or(usize::MAX)..).unwrap_or(&[]);
    let whole = rest.len();
    for (pointer, length) in vectors {
        let take = rest.len().min(length as usize);
        ram.set(pointer, &rest[..take])?;
        rest = &rest[take..];
    }
    let got = whole - rest.len();
    match descriptor {
        Descriptor::File(node, position) if at.is_none() => {
            world.set(fd, Some(Descriptor::File(node, position + got as u64)))?;
        }
        Descriptor::Text => world.text.1 += got,
        _ => {}
    }
    ram.set_u32(to, got as u32)
}

fn write(world: &mut World, ram: &mut Ram<'_>, fd: u32, vectors: (u32, u32), to: u32) -> Outcome {
    let Descriptor::Output(output) = world.descriptor(fd)? else { return Err(Errno::BadF) };
    let mut written = 0u32;
    for (pointer, length) in ram.vectors(vectors.0, vectors.1)? {
        World::write(output, ram.at(pointer, length)?)?;
        written = written.wrapping_add(length);
    }
    ram.set_u32(to, written)
}

/// What the harness's Python says through names of files: how long to sleep, and, while it warms up, the rest.
fn hatch(world: &mut World, path: &str) -> Option<Result<Descriptor, Errno>> {
    let said = path.strip_prefix(HATCH)?;
    if let Some(nanos) = said.strip_prefix("sleep/") {
        world.sleep(Duration::from_nanos(nanos.parse().unwrap_or(u64::MAX)));
        return Some(Err(Errno::NoEnt));
    }
    if !world.warming {
        return None;
    }
    if said == "text" {
        return Some(Ok(Descriptor::Text));
    }
    if let Some(numbers) = said.strip_prefix("ready/") {
        world.ready = numbers.split(',').map(|number| number.parse().ok()).collect();
    } else if let Some(hex) = said.strip_prefix("failed/") {
        let byte = |at: usize| hex.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
        let bytes: Vec<u8> = (0..hex.len()).step_by(2).filter_map(byte).collect();
        world.failed = Some(String::from_utf8_lossy(&bytes).into_owned());
    }
    Some(Err(Errno::NoEnt))
}

struct Open {
    from: u32,
    path: (u32, u32),
    how: u32,
    rights: u64,
    to: u32,
}

fn open(world: &mut World, ram: &mut Ram<'_>, open: &Open) -> Outcome {
    const CREATE: u32 = 1;
    const FOLDER_ONLY: u32 = 2;
    const TRUNCATE: u32 = 8;
    let folder = world.folder(open.from)?;
    let path = ram.text(open.path.0, open.path.1)?;
    let descriptor = match hatch(world, &path) {
        Some(found) => found?,
        None => {
            let found = world.tree.find(folder, &path);
            if open.how & (CREATE | TRUNCATE) != 0 {
                return Err(Errno::RoFs);
            }
            let node = found.ok_or(Errno::NoEnt)?;
            match world.tree.entry(node) {
                Some(Entry::File(_)) if open.how & FOLDER_ONLY != 0 => return Err(Errno::NotDir),
                Some(Entry::File(_)) if open.rights & RIGHT_TO_WRITE != 0 => return Err(Errno::RoFs),
                Some(Entry::File(_)) => Descriptor::File(node, 0),
                _ => Descriptor::Folder(node),
            }
        }
    };
    let fd = world.open(descriptor)?;
    ram.set_u32(open.to, fd)
}

fn readdir(world: &World, ram: &mut Ram<'_>, fd: u32, buffer: (u32, u32), cookie: u64, to: u32) -> Outcome {
    let folder = world.folder(fd)?;
    let Some(Entry::Folder(names)) = world.tree.entry(folder) else { return Err(Errno::NotDir) };
    let parent = world.tree.find(folder, "..").unwrap_or(folder);
    let all =
        [(".", folder), ("..", parent)].into_iter().chain(names.iter().map(|(name, node)| (&**name, *node)));
    let space = ram.at(buffer.0, buffer.1)?;
    let mut used = 0;
    for (index, (name, node)) in all.enumerate().skip(usize::try_from(cookie).unwrap_or(usize::MAX)) {
        let (kind, inode, _) = stat_of(world, node);
        let mut record = Vec::with_capacity(24 + name.len());
        record.extend_from_slice(&(index as u64 + 1).to_le_bytes());
        record.extend_from_slice(&inode.to_le_bytes());
        record.extend_from_slice(&(name.len() as u32).to_le_bytes());
        record.extend_from_slice(&[kind, 0, 0, 0]);
        record.extend_from_slice(name.as_bytes());
        // The last one may be cut off: the caller asks again with a larger buffer.
        let take = record.len().min(space.len() - used);
        space[used..used + take].copy_from_slice(&record[..take]);
        used += take;
        if used == space.len() {
            break;
        }
    }
    ram.set_u32(to, used as u32)
}

/// Sleeps, or says that descriptors are ready, which they always are.
fn poll(world: &mut World, ram: &mut Ram<'_>, asked: u32, events: u32, count: u32, to: u32) -> Outcome {
    const SUBSCRIPTION: u32 = 48;
    const EVENT: u32 = 32;
    const MOST: u32 = 1024;
    const ABSOLUTE: u32 = 1;
    if count == 0 || count > MOST {
        return Err(Errno::Inval);
    }
    let (mut ready, mut shortest) = (Vec::new(), None::<(u64, u64)>);
    for index in 0..count {
        let at = asked.checked_add(index * SUBSCRIPTION).ok_or(Errno::Fault)?;
        // Whole, so that no sum below can be too large.
        ram.at(at, SUBSCRIPTION)?;
        let (user, tag) = (ram.u64(at)?, ram.u32(at + 8)? & 0xff);
        if tag != 0 {
            ready.push((user, tag));
            continue;
        }
        let (clock, mut nanos) = (ram.u32(at + 16)?, ram.u64(at + 24)?);
        if ram.u32(at + 40)? & ABSOLUTE != 0 {
            nanos = nanos.saturating_sub(world.now(clock));
        }
        if shortest.is_none_or(|(_, least)| nanos < least) {
            shortest = Some((user, nanos));
        }
    }
    if let (true, Some((user, nanos))) = (ready.is_empty(), shortest) {
        world.sleep(Duration::from_nanos(nanos));
        ready.push((user, 0));
    }
    for (index, (user, tag)) in ready.iter().enumerate() {
        let mut event = [0u8; EVENT as usize];
        event[..8].copy_from_slice(&user.to_le_bytes());
        event[10] = *tag as u8;
        event[16] = 1;
        ram.set(events.checked_add(index as u32 * EVENT).ok_or(Errno::Fault)?, &event)?;
    }
    ram.set_u32(to, ready.len() as u32)
}

/// Runs one function on the program's memory.
fn call(mut caller: Caller<'_, World>, function: impl FnOnce(&mut World, &mut Ram<'_>) -> Outcome) -> i32 {
    let Some(memory) = caller.data().memory else { return Errno::Fault as i32 };
    let (bytes, world) = memory.data_and_store_mut(&mut caller);
    match function(world, &mut Ram(bytes)) {
        Ok(()) => 0,
        Err(errno) => errno as i32,
    }
}

/// `define!(linker, name(arguments) |world, ram| body)`: a function that answers with an error number.
macro_rules! define {
    ($linker:ident, $($name:ident($($argument:ident: $type:ty),*) |$world:ident, $ram:ident| $body:expr;)*) => {
        $($linker.func_wrap(
            MODULE,
            stringify!($name),
            move |caller: Caller<'_, World>, $($argument: $type),*| {
                call(caller, |$world, $ram| $body)
            },
        )?;)*
    };
}

/// `refuse!(linker, errno, name(types))`: functions that are not for a program here.
macro_rules! refuse {
    ($linker:ident, $errno:expr, $($name:ident($($type:ty),*);)*) => {
        $($linker.func_wrap(MODULE, stringify!($name), |$(_: $type),*| -> i32 { $errno as i32 })?;)*
    };
}

/// The name under which programs know these functions.
pub const MODULE: &str = "wasi_snapshot_preview1";

/// The function by which the warm interpreter stops: it is called by `time.clock_getres`, which holds on to the interpreter's
/// lock, and by hardly anything else.
pub const PARK: &str = "clock_res_get";

/// Defines all of them but [`PARK`].
///
/// # Errors
/// None that depends on the program.
pub fn define(linker: &mut Linker<World>) -> wasmtime::Result<()> {
    define! { linker,
        args_sizes_get(count: u32, bytes: u32) |world, ram| {
            ram.set_u32(count, world.arguments.len() as u32)?;
            ram.set_u32(bytes, world.arguments.iter().map(|text| text.len() as u32 + 1).sum())
        };
        args_get(pointers: u32, texts: u32) |world, ram| put_strings(ram, &world.arguments, pointers, texts);
        environ_sizes_get(count: u32, bytes: u32) |_world, ram| {
            ram.set_u32(count, 0)?;
            ram.set_u32(bytes, 0)
        };
        environ_get(_pointers: u32, _texts: u32) |_world, _ram| Ok(());
        clock_time_get(clock: u32, _precision: u64, to: u32) |world, ram| {
            let now = world.now(clock);
            ram.set_u64(to, now)
        };
        random_get(pointer: u32, length: u32) |world, ram| world.random(ram.at(pointer, length)?);
        sched_yield() |_world, _ram| Ok(());
        poll_oneoff(asked: u32, events: u32, count: u32, to: u32) |world, ram| {
            poll(world, ram, asked, events, count, to)
        };
        fd_advise(fd: u32, _offset: u64, _length: u64, _advice: u32) |world, _ram| {
            world.descriptor(fd).map(|_| ())
        };
        fd_close(fd: u32) |world, _ram| world.set(fd, None);
        fd_sync(fd: u32) |world, _ram| world.descriptor(fd).map(|_| ());
        fd_datasync(fd: u32) |world, _ram| world.descriptor(fd).map(|_| ());
        fd_fdstat_get(fd: u32, to: u32) |world, ram| {
            let descriptor = world.descriptor(fd)?;
            let (kind, ..) = type_of(world, descriptor);
            let mut stat = [0u8; 24];
            stat[0] = kind;
            stat[8..16].copy_from_slice(&ALL_RIGHTS.to_le_bytes());
            stat[16..24].copy_from_slice(&ALL_RIGHTS.to_le_bytes());
            ram.set(to, &stat)
        };
        fd_fdstat_set_flags(fd: u32, _flags: u32) |world, _ram| world.descriptor(fd).map(|_| ());
        fd_filestat_get(fd: u32, to: u32) |world, ram| {
            let descriptor = world.descriptor(fd)?;
            put_stat(ram, to, type_of(world, descriptor))
        };
        fd_prestat_get(fd: u32, to: u32) |world, ram| {
            world.descriptor(fd)?;
            if fd != ROOT_FD {
                return Err(Errno::BadF);
            }
            ram.set_u64(to, 1 << 32)
        };
        fd_prestat_dir_name(fd: u32, pointer: u32, length: u32) |_world, ram| {
            if fd != ROOT_FD || length == 0 {
                return Err(Errno::BadF);
            }
            ram.set(pointer, b"/")
        };
        fd_read(fd: u32, vectors: u32, count: u32, to: u32) |world, ram| {
            read(world, ram, fd, (vectors, count), None, to)
        };
        fd_pread(fd: u32, vectors: u32, count: u32, at: u64, to: u32) |world, ram| {
            read(world, ram, fd, (vectors, count), Some(at), to)
        };
        fd_write(fd: u32, vectors: u32, count: u32, to: u32) |world, ram| {
            write(world, ram, fd, (vectors, count), to)
        };
        fd_readdir(fd: u32, buffer: u32, length: u32, cookie: u64, to: u32) |world, ram| {
            readdir(world, ram, fd, (buffer, length), cookie, to)
        };
        fd_seek(fd: u32, offset: i64, whence: u32, to: u32) |world, ram| {
            seek(world, ram, fd, offset, whence, to)
        };
        fd_tell(fd: u32, to: u32) |world, ram| seek(world, ram, fd, 0, 1, to);
        fd_renumber(from: u32, to: u32) |world, _ram| {
            let descriptor = world.descriptor(from)?;
            world.set(to, Some(descriptor))?;
            world.set(from, None)
        };
        path_filestat_get(from: u32, _flags: u32, path: u32, length: u32, to: u32) |world, ram| {
            let (folder, path) = (world.folder(from)?, ram.text(path, length)?);
            let node = world.tree.find(folder, &path).ok_or(Errno::NoEnt)?;
            put_stat(ram, to, stat_of(world, node))
        };
        path_readlink(from: u32, path: u32, length: u32, _buffer: u32, _size: u32, _to: u32) |world, ram| {
            let (folder, path) = (world.folder(from)?, ram.text(path, length)?);
            if hatch(world, &path).is_some() {
                // Whatever becomes of the names that it has for them now.
                keep(ram.0, world.ready.as_deref().unwrap_or_default());
                return Err(Errno::NoEnt);
            }
            // There are no links.
            world.tree.find(folder, &path).map_or(Err(Errno::NoEnt), |_| Err(Errno::Inval))
        };
        path_open(
            from: u32, _follow: u32, path: u32, length: u32, how: u32, rights: u64, _inheriting: u64, _flags: u32, to: u32
        ) |world, ram| {
            open(world, ram, &Open { from, path: (path, length), how, rights, to })
        };
    }
    refuse! { linker, Errno::RoFs,
        fd_allocate(u32, u64, u64);
        fd_filestat_set_size(u32, u64);
        fd_filestat_set_times(u32, u64, u64, u32);
        path_create_directory(u32, u32, u32);
        path_filestat_set_times(u32, u32, u32, u32, u64, u64, u32);
        path_link(u32, u32, u32, u32, u32, u32, u32);
        path_remove_directory(u32, u32, u32);
        path_rename(u32, u32, u32, u32, u32, u32);
        path_symlink(u32, u32, u32, u32, u32);
        path_unlink_file(u32, u32, u32);
    }
    refuse! { linker, Errno::BadF, fd_pwrite(u32, u32, u32, u64, u32); }
    refuse! { linker, Errno::NotCapable, fd_fdstat_set_rights(u32, u64, u64); }
    refuse! { linker, Errno::NoSys,
        proc_raise(u32);
        sock_accept(u32, u32, u32);
        sock_recv(u32, u32, u32, u32, u32, u32);
        sock_send(u32, u32, u32, u32, u32);
        sock_shutdown(u32, u32);
    }
    linker.func_wrap(
        MODULE,
        "proc_exit",
        |mut caller: Caller<'_, World>, status: i32| -> wasmtime::Result<()> {
            caller.data_mut().ended = Some(status);
            Err(Trap::UnreachableCodeReached.into())
        },
    )?;
    Ok(())
}
