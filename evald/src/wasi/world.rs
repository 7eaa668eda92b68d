//! What a program in the machine has of a world: a tree of files, its standard descriptors, clocks, random bytes.
//!
//! Nothing here opens anything of the host's. The program's descriptors are numbers of this module's and lead to entries of
//! the [`Tree`], to the two outputs of the process, and, once each, to the texts that the harness hands over.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant, SystemTime};

use wasmtime::{Memory, ResourceLimiter};

use super::files::{Node, ROOT, Tree};
use crate::sys;

/// Error numbers of WASI preview 1, as far as they are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum Errno {
    /// No such descriptor, or not for this use.
    BadF = 8,
    /// A pointer outside of the memory.
    Fault = 21,
    /// An argument without a meaning.
    Inval = 28,
    /// The output cannot be written.
    Io = 29,
    /// A folder where a file should be.
    IsDir = 31,
    /// Too many descriptors.
    MFile = 33,
    /// Nothing of that name.
    NoEnt = 44,
    /// Not built, on purpose.
    NoSys = 52,
    /// A file where a folder should be.
    NotDir = 54,
    /// Everything is read-only.
    RoFs = 69,
    /// Not seekable.
    SPipe = 70,
    /// Outside of the tree.
    NotCapable = 76,
}

/// What a number of the program's stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Descriptor {
    /// Standard input: at its end.
    Input,
    /// Standard output (1) or error (2) of this process.
    Output(u8),
    /// A file, read up to here.
    File(Node, u64),
    /// A folder.
    Folder(Node),
    /// The text that the harness hands over.
    Text,
}

/// The number of the root: the only folder that is open from the start.
pub const ROOT_FD: u32 = 3;

/// The beginning of names by which the harness's own Python talks to the machine. No file is called so.
pub const HATCH: &str = ".evald/";

/// Where random bytes come from.
#[derive(Debug)]
enum Entropy {
    Kernel,
    /// SplitMix64 (Steele, Lea, Flood 2014): the same bytes for the same seed, of no use for secrets.
    Seeded(u64),
}

/// What the program's clocks show.
#[derive(Debug)]
enum Clock {
    Real(Instant),
    /// Nanoseconds; goes on by sleep, and a microsecond each time that it is read.
    Counted(u64),
}

/// 2000-01-01, in nanoseconds since 1970.
const DETERMINISTIC_EPOCH: u64 = 946_684_800_000_000_000;

/// Bounds of what the program may take.
#[derive(Debug)]
pub struct Bounds {
    /// Bytes of its linear memory.
    pub memory: usize,
    /// Open descriptors.
    pub files: usize,
    /// Whether it was denied memory.
    pub denied: bool,
}

impl ResourceLimiter for Bounds {
    fn memory_growing(&mut self, _now: usize, desired: usize, most: Option<usize>) -> wasmtime::Result<bool> {
        let given = desired <= self.memory && most.is_none_or(|most| desired <= most);
        self.denied |= !given;
        Ok(given)
    }

    fn table_growing(&mut self, now: usize, desired: usize, _most: Option<usize>) -> wasmtime::Result<bool> {
        // A C program's table of functions has the size that the linker gave it.
        Ok(now == 0 || desired <= now)
    }
}

/// All of it.
#[derive(Debug)]
pub struct World {
    /// Its files.
    pub tree: Tree,
    /// Its command line.
    pub arguments: Vec<String>,
    /// What it may take.
    pub bounds: Bounds,
    /// Its memory, once there is one.
    pub memory: Option<Memory>,
    /// What the warm interpreter said it is ready with: addresses of its objects.
    pub ready: Option<Vec<u32>>,
    /// What it said went wrong.
    pub failed: Option<String>,
    /// Whether it warms up: later the hatch is but for sleep.
    pub warming: bool,
    /// The status with which it asked for its end.
    pub ended: Option<i32>,
    /// The text to be read, and how far it was.
    pub text: (Vec<u8>, usize),
    descriptors: Vec<Option<Descriptor>>,
    entropy: Entropy,
    clock: Clock,
}

impl World {
    /// A world to warm up in: every random byte is the same each time, so that hashes are.
    pub fn new(tree: Tree, arguments: Vec<String>) -> Self {
        let descriptors =
            [Descriptor::Input, Descriptor::Output(1), Descriptor::Output(2), Descriptor::Folder(ROOT)];
        Self {
            tree,
            arguments,
            bounds: Bounds { memory: 1 << 30, files: 256, denied: false },
            memory: None,
            ready: None,
            failed: None,
            warming: true,
            ended: None,
            text: (Vec::new(), 0),
            descriptors: descriptors.into_iter().map(Some).collect(),
            entropy: Entropy::Seeded(0),
            clock: Clock::Real(Instant::now()),
        }
    }

    /// From here on random bytes are the kernel's, or, with a seed, always the same, and clocks with them.
    pub fn begin(&mut self, seed: Option<u64>) {
        if let Some(seed) = seed {
            self.entropy = Entropy::Seeded(seed);
            self.clock = Clock::Counted(0);
        } else {
            self.entropy = Entropy::Kernel;
        }
    }

    /// What a descriptor stands for.
    pub fn descriptor(&self, fd: u32) -> Result<Descriptor, Errno> {
        self.descriptors.get(fd as usize).copied().flatten().ok_or(Errno::BadF)
    }

    /// Changes what a descriptor stands for, or closes it.
    pub fn set(&mut self, fd: u32, to: Option<Descriptor>) -> Result<(), Errno> {
        self.descriptor(fd)?;
        if let Some(place) = self.descriptors.get_mut(fd as usize) {
            *place = to;
        }
        Ok(())
    }

    /// The lowest free number, as in POSIX.
    pub fn open(&mut self, descriptor: Descriptor) -> Result<u32, Errno> {
        let free = self.descriptors.iter().position(Option::is_none).unwrap_or(self.descriptors.len());
        if free >= self.bounds.files {
            return Err(Errno::MFile);
        }
        if free == self.descriptors.len() {
            self.descriptors.push(None);
        }
        self.descriptors[free] = Some(descriptor);
        Ok(free as u32)
    }

    /// Closes whatever leads to the harness's texts.
    pub fn close_texts(&mut self) {
        for place in &mut self.descriptors {
            if *place == Some(Descriptor::Text) {
                *place = None;
            }
        }
        self.text = (Vec::new(), 0);
    }

    /// The folder that a path starts from.
    pub fn folder(&self, fd: u32) -> Result<Node, Errno> {
        match self.descriptor(fd)? {
            Descriptor::Folder(node) => Ok(node),
            _ => Err(Errno::NotDir),
        }
    }

    /// Nanoseconds: since 1970 by the clock 0, since some moment by others.
    pub fn now(&mut self, clock: u32) -> u64 {
        match &mut self.clock {
            Clock::Counted(nanos) => {
                *nanos += 1_000;
                if clock == 0 { DETERMINISTIC_EPOCH + *nanos } else { *nanos }
            }
            Clock::Real(_) if clock == 0 => {
                let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                since.as_nanos() as u64
            }
            // Clocks 2 and 3: CPU time.
            Clock::Real(_) if clock >= 2 => sys::process_cpu_time(0).unwrap_or_default().as_nanos() as u64,
            Clock::Real(since) => since.elapsed().as_nanos() as u64,
        }
    }

    /// Waits; the supervisor ends a sample that waits too long.
    pub fn sleep(&mut self, time: Duration) {
        std::thread::sleep(time);
        if let Clock::Counted(nanos) = &mut self.clock {
            *nanos = nanos.saturating_add(time.as_nanos() as u64);
        }
    }

    /// Fills a buffer with random bytes.
    pub fn random(&mut self, buffer: &mut [u8]) -> Result<(), Errno> {
        for chunk in buffer.chunks_mut(256) {
            match &mut self.entropy {
                Entropy::Kernel => {
                    let bytes: [u8; 256] = sys::random_bytes().map_err(|_| Errno::Io)?;
                    chunk.copy_from_slice(&bytes[..chunk.len()]);
                }
                Entropy::Seeded(state) => {
                    for eight in chunk.chunks_mut(8) {
                        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                        let mut z = *state;
                        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                        eight.copy_from_slice(&(z ^ (z >> 31)).to_le_bytes()[..eight.len()]);
                    }
                }
            }
        }
        Ok(())
    }

    /// Reads from the process's own standard input, which holds what a program is given and is empty otherwise.
    pub fn read(buffer: &mut [u8]) -> Result<u32, Errno> {
        loop {
            match nix::unistd::read(std::io::stdin(), buffer) {
                Ok(got) => return Ok(got as u32),
                Err(nix::errno::Errno::EINTR) => {}
                Err(_) => return Err(Errno::Io),
            }
        }
    }

    /// Writes all to one of the process's outputs.
    pub fn write(output: u8, mut bytes: &[u8]) -> Result<(), Errno> {
        let (out, err) = (std::io::stdout(), std::io::stderr());
        let fd: BorrowedFd<'_> = if output == 1 { out.as_fd() } else { err.as_fd() };
        while !bytes.is_empty() {
            match nix::unistd::write(fd, bytes) {
                Ok(0) => return Err(Errno::Io),
                Ok(written) => bytes = &bytes[written..],
                Err(nix::errno::Errno::EINTR) => {}
                Err(_) => return Err(Errno::Io),
            }
        }
        Ok(())
    }
}
