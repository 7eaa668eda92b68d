//! CPython as WebAssembly, driven from outside: we call functions of its C code, and read its objects in its memory.
//!
//! As in T0 to T3 the candidate runs from Rust, not from a Python harness: what `exec` returns to us is the verdict, and no
//! byte that a program can write leads to it. The record that follows from it goes over a descriptor that does not exist in
//! the machine.
//!
//! The interpreter stops inside of `clock_res_get` (see `warm.py`), and from there we go on as if that function called back:
//! every callable object has a type, and that has the C function that calls it (`tp_call`). So all that we need to know of a
//! build of CPython are the places of a few fields, the same in each 32-bit build of 3.11. Where the pending exception is
//! kept, is found out by trying.

use wasmtime::{Caller, Memory, Ref, Table, Trap};

use super::world::World;
use crate::cpython::{
    CODE_FILE, Cpython, DEEPEST_TRACEBACK, MAX_MESSAGE_BYTES, Raised, RaisedKind, TEST_FILE,
};
use crate::limits::Limits;
use crate::sys;

/// Offsets of fields, in bytes: `PyObject`, `PyVarObject` and what follows in some types.
mod field {
    pub const TYPE: u32 = 4;
    pub const SIZE: u32 = 8;
    /// `ob_item` of a tuple.
    pub const ITEMS: u32 = 12;
    /// `ob_sval` of bytes.
    pub const BYTES: u32 = 16;
    /// `tp_call` of a type.
    pub const CALL: u32 = 64;
    /// `tp_mro` of a type.
    pub const MRO: u32 = 172;
}

/// Added to the count of references, so that an object is never freed.
const KEPT: u32 = 1 << 24;

/// The objects that `warm.py` announces, in its order.
#[derive(Debug, Clone, Copy)]
struct Objects {
    compile: u32,
    exec: u32,
    str: u32,
    encode: u32,
    read_text: u32,
    reseed: u32,
    class_name: u32,
    errno: u32,
    trace_file: u32,
    trace_line: u32,
    trace_next: u32,
    system_exit: u32,
    memory_error: u32,
    os_error: u32,
    runtime_error: u32,
    nothing: u32,
    of_decode: u32,
    of_compile: [u32; 3],
    of_exec: [u32; 3],
    of_class: u32,
    of_one: u32,
    of_encode: u32,
    throw: u32,
    of_throw: [u32; 2],
    thrown: [u32; 2],
    none: u32,
    bytes: u32,
    type_: u32,
}

impl Objects {
    fn of(list: &[u32]) -> Option<Self> {
        let [
            compile,
            exec,
            str,
            encode,
            read_text,
            reseed,
            class_name,
            errno,
            trace_file,
            trace_line,
            trace_next,
            system_exit,
            memory_error,
            os_error,
            runtime_error,
            nothing,
            of_decode,
            compile_code,
            compile_test,
            compile_harness,
            exec_code,
            exec_test,
            exec_harness,
            of_class,
            of_one,
            of_encode,
            throw,
            throw_first,
            throw_second,
            first,
            second,
            none,
            bytes,
            type_,
        ] = *list
        else {
            return None;
        };
        Some(Self {
            compile,
            exec,
            str,
            encode,
            read_text,
            reseed,
            class_name,
            errno,
            trace_file,
            trace_line,
            trace_next,
            system_exit,
            memory_error,
            os_error,
            runtime_error,
            nothing,
            of_decode,
            of_compile: [compile_code, compile_test, compile_harness],
            of_exec: [exec_code, exec_test, exec_harness],
            of_class,
            of_one,
            of_encode,
            throw,
            of_throw: [throw_first, throw_second],
            thrown: [first, second],
            none,
            bytes,
            type_,
        })
    }
}

/// Compiled code, and which text it is of: the candidate's, the test's or the harness's.
#[derive(Debug, Clone, Copy)]
pub struct Code {
    object: u32,
    part: usize,
}

/// The interpreter, stopped and ready to be called.
pub struct Guest<'a> {
    caller: Caller<'a, World>,
    memory: Memory,
    table: Table,
    objects: Objects,
    /// Where the pending exception's class is kept; its value and traceback follow.
    pending: u32,
    seed: Option<u64>,
}

/// Something that is not as it is in the CPythons that we know.
fn strange(what: &str) -> String {
    format!("this CPython for WASI cannot be driven: {what}; use a build of CPython 3.11")
}

impl<'a> Guest<'a> {
    /// Takes over the interpreter that has just stopped.
    ///
    /// # Errors
    /// It is not one whose objects we know how to read.
    pub fn take_over(mut caller: Caller<'a, World>, seed: Option<u64>) -> Result<Self, String> {
        let list = caller.data_mut().ready.take().unwrap_or_default();
        let objects =
            Objects::of(&list).ok_or_else(|| strange("it is ready with other objects than asked for"))?;
        let memory = caller.data().memory.ok_or_else(|| strange("it has no memory"))?;
        let table = caller.get_export(super::module::TABLE).and_then(|export| export.into_table());
        let table = table.ok_or_else(|| strange("it has no table of functions"))?;
        caller.data_mut().warming = false;
        let mut guest = Self { caller, memory, table, objects, pending: 0, seed };
        // Before anything rests on it: a class's class is `type`, and a tuple's items are where we look for them.
        let sound = guest.word(objects.str + field::TYPE) == objects.type_
            && guest.word(objects.of_throw[0] + field::ITEMS) == objects.thrown[0]
            && guest.is_a(
                guest.word(objects.thrown[0] + field::TYPE),
                guest.word(objects.thrown[0] + field::TYPE),
            )
            && guest.items(objects.of_encode).len() == 3;
        if !sound {
            return Err(strange("its objects have another layout"));
        }
        guest.pending = guest.find_pending()?;
        Ok(guest)
    }

    /// Where the interpreter keeps the exception that is on its way: the class, the value and the traceback, one after the
    /// other. Two exceptions are thrown; the only place that holds first the one and then the other is it.
    fn find_pending(&mut self) -> Result<u32, String> {
        let mut found: Option<Vec<u32>> = None;
        for (arguments, value) in self.objects.of_throw.into_iter().zip(self.objects.thrown) {
            match self.call(self.objects.throw, arguments) {
                Ok(0) => {}
                _ => return Err(strange("an exception does not come back")),
            }
            let class = self.word(value + field::TYPE);
            let wanted = [class.to_le_bytes(), value.to_le_bytes()].concat();
            // Dead frames of C functions look the same each time, below the top of the C stack.
            let stack = self.stack_pointer();
            let bytes = self.memory.data(&self.caller);
            let dead = stack.saturating_sub(1 << 20)..stack;
            let here: Vec<u32> = (0..bytes.len().saturating_sub(12))
                .step_by(4)
                .filter(|at| bytes[*at..*at + 8] == wanted[..] && !dead.contains(at))
                .map(|at| at as u32)
                .filter(|at| found.as_ref().is_none_or(|before| before.contains(at)))
                .collect();
            found = Some(here);
        }
        match found.as_deref() {
            Some([only]) => {
                self.clear(*only);
                Ok(*only)
            }
            Some(places) => Err(strange(&format!("exceptions are kept in {} places", places.len()))),
            None => Err(strange("exceptions are kept nowhere")),
        }
    }

    fn stack_pointer(&mut self) -> usize {
        let global = self.caller.get_export(super::module::STACK).and_then(|export| export.into_global());
        global.and_then(|global| global.get(&mut self.caller).i32()).unwrap_or(0) as u32 as usize
    }

    fn clear(&mut self, at: u32) {
        for offset in [0, 4, 8] {
            self.set_word(at + offset, 0);
        }
    }

    /// A word of the memory; 0 outside of it, which is no object.
    fn word(&self, at: u32) -> u32 {
        let bytes = self.memory.data(&self.caller);
        let found = bytes.get(at as usize..at as usize + 4);
        found.and_then(|word| word.try_into().ok()).map_or(0, u32::from_le_bytes)
    }

    fn set_word(&mut self, at: u32, value: u32) {
        let bytes = self.memory.data_mut(&mut self.caller);
        if let Some(word) = bytes.get_mut(at as usize..at as usize + 4) {
            word.copy_from_slice(&value.to_le_bytes());
        }
    }

    /// The items of a tuple, within reason.
    fn items(&self, tuple: u32) -> Vec<u32> {
        const MOST: u32 = 1_000;
        let count = self.word(tuple.wrapping_add(field::SIZE)).min(MOST);
        (0..count).map(|index| self.word(tuple.wrapping_add(field::ITEMS + index * 4))).collect()
    }

    /// Whether a class is another or derived from it, as the interpreter itself looks that up.
    fn is_a(&self, class: u32, of: u32) -> bool {
        self.items(self.word(class.wrapping_add(field::MRO))).contains(&of)
    }

    /// Puts an object in the first place of a tuple of arguments. What was there before is not freed.
    fn with(&mut self, arguments: u32, object: u32) -> u32 {
        let count = self.word(object);
        self.set_word(object, count.wrapping_add(1));
        self.set_word(arguments + field::ITEMS, object);
        arguments
    }

    /// Calls an object with a tuple of arguments: a new object, or 0 with an exception pending.
    ///
    /// # Errors
    /// The machine stopped.
    fn call(&mut self, callable: u32, arguments: u32) -> Result<u32, Raised> {
        let class = self.word(callable.wrapping_add(field::TYPE));
        let index = self.word(class.wrapping_add(field::CALL));
        let function = match self.table.get(&mut self.caller, u64::from(index)) {
            Some(Ref::Func(Some(function))) => function,
            _ => return Err(Raised { kind: RaisedKind::Trapped, text: "the memory is damaged".into() }),
        };
        let typed = function.typed::<(u32, u32, u32), u32>(&self.caller);
        let ran = typed.and_then(|typed| typed.call(&mut self.caller, (callable, arguments, 0)));
        ran.map_err(|error| self.stopped(&error))
    }

    /// Why the machine stopped.
    fn stopped(&self, error: &wasmtime::Error) -> Raised {
        let world = self.caller.data();
        if let Some(status) = world.ended {
            return Raised { kind: RaisedKind::Ended(status), text: String::new() };
        }
        if world.bounds.denied {
            return Raised { kind: RaisedKind::Memory, text: "out of memory".into() };
        }
        let text = match error.downcast_ref::<Trap>() {
            Some(Trap::StackOverflow) => "stack overflow".to_owned(),
            Some(Trap::UnreachableCodeReached) => "aborted".to_owned(),
            Some(trap) => trap.to_string(),
            None => error.to_string(),
        };
        Raised { kind: RaisedKind::Trapped, text }
    }

    /// Calls, and takes the exception where there is one.
    fn get(&mut self, callable: u32, arguments: u32) -> Result<u32, Raised> {
        match self.call(callable, arguments)? {
            0 => Err(self.raised()),
            object => Ok(object),
        }
    }

    /// As [`Guest::get`] with one argument; an exception is dropped, an end of the machine is not.
    fn ask(&mut self, callable: u32, object: u32) -> Result<Option<u32>, Raised> {
        let arguments = self.with(self.objects.of_one, object);
        let answer = self.call(callable, arguments)?;
        if answer == 0 {
            self.clear(self.pending);
        }
        Ok((answer != 0 && answer != self.objects.none).then_some(answer))
    }

    /// `str(object)` as UTF-8; lone surrogates are escaped.
    fn text(&mut self, object: u32) -> Result<Option<String>, Raised> {
        let Some(text) = self.ask(self.objects.str, object)? else { return Ok(None) };
        let arguments = self.with(self.objects.of_encode, text);
        let bytes = self.call(self.objects.encode, arguments)?;
        if bytes == 0 || self.word(bytes + field::TYPE) != self.objects.bytes {
            self.clear(self.pending);
            return Ok(None);
        }
        let length = (self.word(bytes + field::SIZE) as usize).min(MAX_MESSAGE_BYTES);
        let start = (bytes + field::BYTES) as usize;
        let found = self.memory.data(&self.caller).get(start..start + length).unwrap_or_default();
        Ok(Some(String::from_utf8_lossy(found).into_owned()))
    }

    fn number(&mut self, object: u32) -> Result<Option<i64>, Raised> {
        Ok(self.text(object)?.and_then(|text| text.parse().ok()))
    }

    /// Takes the pending exception. What it does as it is looked at (its `__str__` may be the candidate's) may end the
    /// machine instead.
    fn raised(&mut self) -> Raised {
        self.look_at_raised().unwrap_or_else(|ended| ended)
    }

    fn look_at_raised(&mut self) -> Result<Raised, Raised> {
        let at = self.pending;
        let (class, mut value, trace) = (self.word(at), self.word(at + 4), self.word(at + 8));
        self.clear(at);
        if class == 0 {
            return Ok(Raised { kind: RaisedKind::Other, text: "an error without an exception".into() });
        }
        // C code may leave the making of the exception to whoever wants it.
        if value != 0 && !self.is_a(self.word(value.wrapping_add(field::TYPE)), class) {
            let is_tuple =
                self.word(value.wrapping_add(field::TYPE)) == self.word(self.objects.nothing + field::TYPE);
            let arguments = if is_tuple { value } else { self.with(self.objects.of_class, value) };
            value = self.call(class, arguments)?;
            if value == 0 {
                self.clear(at);
            }
        }
        let kind = if self.is_a(class, self.objects.system_exit) {
            RaisedKind::SystemExit
        } else if self.is_a(class, self.objects.memory_error) {
            RaisedKind::Memory
        } else if self.is_a(class, self.objects.os_error) {
            let number = if value == 0 { None } else { self.ask(self.objects.errno, value)? };
            let number = number.map(|number| self.number(number)).transpose()?.flatten();
            RaisedKind::Os(number.map_or(0, host_errno))
        } else if self.is_a(class, self.objects.runtime_error) {
            RaisedKind::Runtime
        } else {
            RaisedKind::Other
        };
        let name = self.ask(self.objects.class_name, class)?;
        let name = name.map(|name| self.text(name)).transpose()?.flatten().unwrap_or_default();
        let message = if value == 0 { None } else { self.text(value)? }.unwrap_or_default();
        let place = self.innermost_line(trace)?;
        Ok(Raised::new(kind, name, &message, place))
    }

    /// The last line of the candidate or its test on the way to the exception.
    fn innermost_line(&mut self, mut trace: u32) -> Result<Option<(String, i64)>, Raised> {
        let mut found = None;
        for _ in 0..DEEPEST_TRACEBACK {
            if trace == 0 {
                break;
            }
            let file = self.ask(self.objects.trace_file, trace)?;
            let file = file.map(|file| self.text(file)).transpose()?.flatten();
            if let Some(file) = file.filter(|file| file == CODE_FILE || file == TEST_FILE) {
                let line = self.ask(self.objects.trace_line, trace)?;
                if let Some(line) = line.map(|line| self.number(line)).transpose()?.flatten() {
                    found = Some((file, line));
                }
            }
            trace = self.ask(self.objects.trace_next, trace)?.unwrap_or(0);
        }
        Ok(found)
    }
}

/// The numbers of WASI that have a verdict of their own, as the host numbers them.
fn host_errno(number: i64) -> i64 {
    let host = match number {
        6 => libc::EAGAIN,
        19 => libc::EDQUOT,
        22 => libc::EFBIG,
        48 => libc::ENOMEM,
        51 => libc::ENOSPC,
        // No other may look like one of those.
        _ => 0,
    };
    i64::from(host)
}

/// Counts a reference to each object more than there is.
pub fn keep(memory: &mut [u8], objects: &[u32]) {
    for object in objects {
        let at = *object as usize;
        if let Some(count) = memory.get_mut(at..at + 4) {
            let mut word = [0; 4];
            word.copy_from_slice(count);
            count.copy_from_slice(&u32::from_le_bytes(word).wrapping_add(KEPT).to_le_bytes());
        }
    }
}

impl Cpython for Guest<'_> {
    type Code = Code;
    type Namespace = ();

    fn fork(&mut self) -> std::io::Result<Option<i32>> {
        sys::fork_single_threaded()
    }

    fn limit(&mut self, limits: &Limits) {
        let holds = self.memory.data_size(&self.caller);
        let bounds = &mut self.caller.data_mut().bounds;
        bounds.memory = holds.saturating_add(usize::try_from(limits.memory_bytes).unwrap_or(usize::MAX));
        bounds.files = limits.files as usize;
        bounds.denied = false;
    }

    fn reseed(&mut self) -> Result<(), Raised> {
        let seed = self.seed;
        self.caller.data_mut().begin(seed);
        self.get(self.objects.reseed, self.objects.nothing).map(|_| ())
    }

    fn compile(&mut self, source: &str, file_name: &str) -> Result<Code, Raised> {
        let part = match file_name {
            CODE_FILE => 0,
            TEST_FILE => 1,
            _ => 2,
        };
        self.caller.data_mut().text = (source.as_bytes().to_vec(), 0);
        let bytes = self.get(self.objects.read_text, self.objects.nothing)?;
        let arguments = self.with(self.objects.of_decode, bytes);
        let text = self.get(self.objects.str, arguments)?;
        let arguments = self.with(self.objects.of_compile[part], text);
        let object = self.get(self.objects.compile, arguments)?;
        Ok(Code { object, part })
    }

    /// Code knows its own: a sample has one, and no second sample follows.
    fn namespace(&mut self) -> Option<()> {
        // All texts have been compiled; nothing leads to them any more.
        self.caller.data_mut().close_texts();
        Some(())
    }

    fn harness(&self) {}

    fn run(&mut self, code: Code, (): ()) -> Result<(), Raised> {
        let arguments = self.with(self.objects.of_exec[code.part], code.object);
        self.get(self.objects.exec, arguments).map(|_| ())
    }
}
