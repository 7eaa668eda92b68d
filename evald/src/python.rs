//! The part of CPython's C API that the zygote and its samples use, found in the interpreter that loaded us.
//!
//! Candidates run from Rust, not from a Python harness: so there is no frame to walk to, no result object for `gc` to
//! find, and no `assert`, `unittest` or builtin between the end of the test and the record. Everything used here is in
//! the stable ABI or has been exported, unchanged, by every CPython from 3.7 on.

use std::ffi::{CStr, CString, c_char, c_int, c_long, c_void};
use std::os::fd::IntoRawFd;
use std::os::unix::net::UnixStream;
use std::ptr;

use crate::cpython::{
    CODE_FILE, Cpython, DEEPEST_TRACEBACK, HARNESS_FILE, MAX_MESSAGE_BYTES, Raised, RaisedKind, TEST_FILE,
};
use crate::limits::Limits;
use crate::testing;

/// An object of the interpreter; never looked into.
#[repr(C)]
pub struct Object {
    _opaque: [u8; 0],
}

type Ptr = *mut Object;

macro_rules! api {
    ($($name:ident: fn($($argument:ty),*) $(-> $result:ty)?;)*) => {
        /// The functions, by their C names.
        #[allow(non_snake_case, reason = "the names of the C API")]
        struct Functions {
            $($name: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
        }

        impl Functions {
            fn find() -> Result<Self, String> {
                Ok(Self {
                    $($name: {
                        let symbol = symbol(concat!(stringify!($name), "\0"))?;
                        // SAFETY: the symbol is the C function of that name, whose signature is the one declared here.
                        unsafe { std::mem::transmute::<*mut c_void, unsafe extern "C" fn($($argument),*) $(-> $result)?>(symbol) }
                    },)*
                })
            }
        }
    };
}

api! {
    Py_DecRef: fn(Ptr);
    PyImport_ImportModule: fn(*const c_char) -> Ptr;
    PyObject_GetAttrString: fn(Ptr, *const c_char) -> Ptr;
    PyObject_CallObject: fn(Ptr, Ptr) -> Ptr;
    PyObject_Str: fn(Ptr) -> Ptr;
    PyObject_IsTrue: fn(Ptr) -> c_int;
    PyModule_GetDict: fn(Ptr) -> Ptr;
    PyTuple_New: fn(isize) -> Ptr;
    PyTuple_SetItem: fn(Ptr, isize, Ptr) -> c_int;
    PyDict_New: fn() -> Ptr;
    PyDict_SetItemString: fn(Ptr, *const c_char, Ptr) -> c_int;
    PyLong_FromLong: fn(c_long) -> Ptr;
    PyLong_AsLong: fn(Ptr) -> c_long;
    PyUnicode_FromStringAndSize: fn(*const c_char, isize) -> Ptr;
    PyUnicode_AsEncodedString: fn(Ptr, *const c_char, *const c_char) -> Ptr;
    PyBytes_AsStringAndSize: fn(Ptr, *mut *mut c_char, *mut isize) -> c_int;
    PyEval_EvalCode: fn(Ptr, Ptr, Ptr) -> Ptr;
    PyEval_GetBuiltins: fn() -> Ptr;
    PyErr_Fetch: fn(*mut Ptr, *mut Ptr, *mut Ptr);
    PyErr_NormalizeException: fn(*mut Ptr, *mut Ptr, *mut Ptr);
    PyErr_GivenExceptionMatches: fn(Ptr, Ptr) -> c_int;
    PyErr_Clear: fn();
    PyOS_BeforeFork: fn();
    PyOS_AfterFork_Parent: fn();
    PyOS_AfterFork_Child: fn();
}

fn symbol(name: &str) -> Result<*mut c_void, String> {
    let name = CStr::from_bytes_with_nul(name.as_bytes()).map_err(|error| error.to_string())?;
    // SAFETY: a live C string; RTLD_DEFAULT searches what the process has loaded.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    if found.is_null() {
        Err(format!("the interpreter has no {}", name.to_string_lossy()))
    } else {
        Ok(found)
    }
}

/// The interpreter, as seen by its only thread, which holds the GIL throughout.
pub struct Python {
    api: Functions,
    compile: Ptr,
    system_exit: Ptr,
    memory_error: Ptr,
    os_error: Ptr,
    runtime_error: Ptr,
}

/// Compiled code.
#[derive(Clone, Copy)]
pub struct Code(Ptr);

/// A namespace: the dict in which code runs.
#[derive(Clone, Copy)]
pub struct Namespace(Ptr);

impl Python {
    /// Finds the API in the process that loaded this library, and keeps what candidates must not be able to swap.
    ///
    /// # Errors
    /// A function or builtin is missing: not a CPython that is supported.
    ///
    /// # Safety
    /// The calling thread holds the GIL, and will whenever a method is called.
    pub unsafe fn attach() -> Result<Self, String> {
        let mut python = Self {
            api: Functions::find()?,
            compile: ptr::null_mut(),
            system_exit: ptr::null_mut(),
            memory_error: ptr::null_mut(),
            os_error: ptr::null_mut(),
            runtime_error: ptr::null_mut(),
        };
        // SAFETY: the GIL is held (the caller's promise) and the name is a C string.
        let builtins = unsafe { (python.api.PyImport_ImportModule)(c"builtins".as_ptr()) };
        let builtin = |name: &CStr| python.attribute(builtins, name).ok_or(format!("no builtin {name:?}"));
        let found = (
            builtin(c"compile")?,
            builtin(c"SystemExit")?,
            builtin(c"MemoryError")?,
            builtin(c"OSError")?,
            builtin(c"RuntimeError")?,
        );
        (python.compile, python.system_exit, python.memory_error, python.os_error, python.runtime_error) =
            found;
        Ok(python)
    }

    /// `import name`.
    ///
    /// # Errors
    /// What the import raised.
    pub fn import(&self, name: &str) -> Result<(), Raised> {
        let Ok(text) = CString::new(name) else {
            return Err(Raised { kind: RaisedKind::Other, text: format!("{name:?} is no module name") });
        };
        // SAFETY: the GIL is held (see `attach`) and the name is a C string.
        let module = unsafe { (self.api.PyImport_ImportModule)(text.as_ptr()) };
        if module.is_null() { Err(self.raised()) } else { Ok(()) }
    }

    /// Compiles a whole source text, like `compile(source, file_name, "exec", dont_inherit=True)`.
    ///
    /// # Errors
    /// What the compiler raised.
    pub fn compile(&self, source: &str, file_name: &str) -> Result<Code, Raised> {
        let arguments =
            [self.text(source), self.text(file_name), self.text("exec"), self.number(0), self.number(1)];
        match self.call(self.compile, &arguments) {
            Some(code) => Ok(Code(code)),
            None => Err(self.raised()),
        }
    }

    /// The namespace of `__main__`.
    pub fn main(&self) -> Option<Namespace> {
        // SAFETY: the GIL is held; the module is kept (the reference is never given back), and so is its dict.
        unsafe {
            let module = (self.api.PyImport_ImportModule)(c"__main__".as_ptr());
            if module.is_null() {
                return None;
            }
            let dict = (self.api.PyModule_GetDict)(module);
            (!dict.is_null()).then_some(Namespace(dict))
        }
    }

    /// A fresh namespace with nothing but the builtins.
    pub fn namespace(&self) -> Option<Namespace> {
        // SAFETY: the GIL is held; GetBuiltins gives a borrowed reference, which SetItemString does not steal.
        unsafe {
            let dict = (self.api.PyDict_New)();
            if dict.is_null() {
                return None;
            }
            let builtins = (self.api.PyEval_GetBuiltins)();
            let set = (self.api.PyDict_SetItemString)(dict, c"__builtins__".as_ptr(), builtins);
            (set == 0).then_some(Namespace(dict))
        }
    }

    /// Runs code in a namespace.
    ///
    /// # Errors
    /// What it raised.
    pub fn run(&self, code: Code, namespace: Namespace) -> Result<(), Raised> {
        // SAFETY: the GIL is held; both are live objects of the right types, which we own.
        let value = unsafe { (self.api.PyEval_EvalCode)(code.0, namespace.0, namespace.0) };
        if value.is_null() { Err(self.raised()) } else { Ok(()) }
    }

    /// Forks as `os.fork` does, with Python's own handlers around it. The child gets `None`.
    ///
    /// # Errors
    /// As fork(2).
    pub fn fork(&self) -> std::io::Result<Option<i32>> {
        // SAFETY: the three functions are made for exactly this use; the GIL is held.
        unsafe { (self.api.PyOS_BeforeFork)() };
        let forked = crate::sys::fork_single_threaded();
        // SAFETY: as above.
        unsafe {
            match forked {
                Ok(None) => (self.api.PyOS_AfterFork_Child)(),
                _ => (self.api.PyOS_AfterFork_Parent)(),
            }
        }
        forked
    }

    fn attribute(&self, object: Ptr, name: &CStr) -> Option<Ptr> {
        if object.is_null() {
            return None;
        }
        // SAFETY: the GIL is held; `object` is a live object; the name is a C string.
        let value = unsafe { (self.api.PyObject_GetAttrString)(object, name.as_ptr()) };
        if value.is_null() {
            // SAFETY: the GIL is held.
            unsafe { (self.api.PyErr_Clear)() };
            return None;
        }
        Some(value)
    }

    fn text(&self, text: &str) -> Ptr {
        // SAFETY: the GIL is held; pointer and length describe a live str. No str is longer than isize::MAX.
        unsafe { (self.api.PyUnicode_FromStringAndSize)(text.as_ptr().cast(), text.len() as isize) }
    }

    fn number(&self, number: c_long) -> Ptr {
        // SAFETY: the GIL is held.
        unsafe { (self.api.PyLong_FromLong)(number) }
    }

    /// Calls with arguments that it takes over; `None` with the exception set when it fails.
    fn call(&self, function: Ptr, arguments: &[Ptr]) -> Option<Ptr> {
        if arguments.iter().any(|argument| argument.is_null()) {
            return None;
        }
        // SAFETY: the GIL is held; SetItem takes over one reference per argument, indices are within the tuple's size.
        unsafe {
            let tuple = (self.api.PyTuple_New)(arguments.len() as isize);
            if tuple.is_null() {
                return None;
            }
            for (index, argument) in arguments.iter().enumerate() {
                (self.api.PyTuple_SetItem)(tuple, index as isize, *argument);
            }
            let value = (self.api.PyObject_CallObject)(function, tuple);
            (self.api.Py_DecRef)(tuple);
            (!value.is_null()).then_some(value)
        }
    }

    /// Takes the pending exception.
    fn raised(&self) -> Raised {
        let (mut class, mut value, mut trace) = (ptr::null_mut(), ptr::null_mut(), ptr::null_mut());
        // SAFETY: the GIL is held; three live out pointers; Fetch hands over the references.
        unsafe {
            (self.api.PyErr_Fetch)(&mut class, &mut value, &mut trace);
            (self.api.PyErr_NormalizeException)(&mut class, &mut value, &mut trace);
        }
        if class.is_null() {
            return Raised { kind: RaisedKind::Other, text: "an error without an exception".into() };
        }
        let matches = |exception| {
            // SAFETY: the GIL is held; both are live objects.
            unsafe { (self.api.PyErr_GivenExceptionMatches)(class, exception) == 1 }
        };
        let (place, is_candidates) = self.innermost_line(trace);
        let kind = if matches(self.system_exit) {
            match &place {
                Some((file, _)) if file == TEST_FILE && !is_candidates => {
                    let code = self.attribute(value, c"code");
                    // SAFETY: the GIL is held; a live object. An error counts as a status that is not 0.
                    let failed = code.map(|code| unsafe { (self.api.PyObject_IsTrue)(code) });
                    RaisedKind::TestExit(failed == Some(0))
                }
                _ => RaisedKind::SystemExit,
            }
        } else if matches(self.memory_error) {
            RaisedKind::Memory
        } else if matches(self.os_error) {
            let number = self.attribute(value, c"errno").and_then(|number| self.integer(number));
            RaisedKind::Os(number.unwrap_or(0))
        } else if matches(self.runtime_error) {
            RaisedKind::Runtime
        } else {
            RaisedKind::Other
        };
        let name = self.attribute(class, c"__name__").and_then(|name| self.string(name)).unwrap_or_default();
        // The exception may be the candidate's: its __str__ may do anything, which changes a failure into no pass.
        let message = if value.is_null() { None } else { self.string(value) }.unwrap_or_default();
        Raised::new(kind, name, &message, place)
    }

    /// The last line of the candidate or its test on the way to the exception, and whether any was the candidate's.
    fn innermost_line(&self, mut trace: Ptr) -> (Option<(String, i64)>, bool) {
        let mut found = None;
        let mut is_candidates = false;
        for _ in 0..DEEPEST_TRACEBACK {
            if trace.is_null() {
                break;
            }
            let code = self.attribute(trace, c"tb_frame").and_then(|frame| self.attribute(frame, c"f_code"));
            let file =
                code.and_then(|code| self.attribute(code, c"co_filename")).and_then(|name| self.string(name));
            let line = self.attribute(trace, c"tb_lineno").and_then(|line| self.integer(line));
            if let (Some(file), Some(line)) = (file, line)
                && (file == CODE_FILE || file == TEST_FILE)
            {
                is_candidates |= file == CODE_FILE;
                found = Some((file, line));
            }
            trace = self.attribute(trace, c"tb_next").unwrap_or(ptr::null_mut());
        }
        (found, is_candidates)
    }

    fn integer(&self, object: Ptr) -> Option<i64> {
        // SAFETY: the GIL is held; a live object. -1 with an exception (None, a float) is cleared.
        unsafe {
            let value = (self.api.PyLong_AsLong)(object);
            if value == -1 {
                (self.api.PyErr_Clear)();
                return None;
            }
            Some(value)
        }
    }

    /// `str(object)` as UTF-8; lone surrogates are escaped.
    fn string(&self, object: Ptr) -> Option<String> {
        // SAFETY: the GIL is held; every object is checked for null before use, and the bytes are copied before their
        // owner could go away (references are kept: the process is short-lived).
        unsafe {
            let text = (self.api.PyObject_Str)(object);
            if text.is_null() {
                (self.api.PyErr_Clear)();
                return None;
            }
            let bytes =
                (self.api.PyUnicode_AsEncodedString)(text, c"utf-8".as_ptr(), c"backslashreplace".as_ptr());
            let (mut start, mut length) = (ptr::null_mut(), 0isize);
            if bytes.is_null() || (self.api.PyBytes_AsStringAndSize)(bytes, &mut start, &mut length) != 0 {
                (self.api.PyErr_Clear)();
                return None;
            }
            let bytes =
                std::slice::from_raw_parts(start.cast::<u8>(), (length as usize).min(MAX_MESSAGE_BYTES));
            Some(String::from_utf8_lossy(bytes).into_owned())
        }
    }
}

/// Freezes what has been imported (a collection in a sample then touches, and copies, none of it), and empties
/// `__main__`, the only Python frame below a candidate.
const SETTLE: &str = "import gc, sys
sys.path[:] = [path for path in sys.path if path]
sys.argv[:] = ['']
main = vars(sys.modules['__main__'])
for name in [name for name in main if not name.startswith('__')]:
    del main[name]
gc.collect()
gc.freeze()
";

/// `random` reseeds itself after a fork; numpy's and torch's global generators do not. A sample is at home in its private
/// folder, where it is by now.
const RESEED: &str = "import os, sys
os.environ['HOME'] = os.environ['TMPDIR'] = os.getcwd()
tempfile = sys.modules.get('tempfile')
if tempfile is not None:
    tempfile.tempdir = None
seed = int.from_bytes(os.urandom(4), 'little')
numpy_random = sys.modules.get('numpy.random')
if numpy_random is not None:
    numpy_random.seed(seed)
torch = sys.modules.get('torch')
if torch is not None and hasattr(torch, 'manual_seed'):
    torch.manual_seed(seed)
";

/// The interpreter with its libraries imported.
pub struct Warm {
    python: Python,
    reseed: Code,
    harness: Namespace,
}

impl Warm {
    /// Imports modules, and makes ready to be forked from.
    ///
    /// # Errors
    /// What an import raised.
    pub fn up(python: Python, preload: &[String]) -> Result<Self, String> {
        for module in preload {
            python.import(module).map_err(|raised| format!("cannot import {module}: {}", raised.text))?;
        }
        let harness = python.namespace().ok_or("no memory for a namespace")?;
        let broken = |raised: Raised| format!("cannot define the harness: {}", raised.text);
        let code = python.compile(&testing::harness(), HARNESS_FILE).map_err(broken)?;
        python.run(code, harness).map_err(broken)?;
        for as_judge in ["True", "False"] {
            let (one, other) =
                UnixStream::pair().map_err(|error| format!("cannot make a socket pair: {error}"))?;
            // They are closed over there.
            let (one, other) = (one.into_raw_fd(), other.into_raw_fd());
            let rehearse = format!("rehearse({one}, {other}, {as_judge})\n");
            let code = python.compile(&rehearse, HARNESS_FILE).map_err(broken)?;
            python.run(code, harness).map_err(broken)?;
        }
        let settle = python.compile(SETTLE, "<settle>").map_err(|raised| raised.text)?;
        let namespace = python.namespace().ok_or("no memory for a namespace")?;
        python
            .run(settle, namespace)
            .map_err(|raised| format!("cannot settle the interpreter: {}", raised.text))?;
        let reseed = python.compile(RESEED, "<reseed>").map_err(|raised| raised.text)?;
        Ok(Self { python, reseed, harness })
    }
}

impl Cpython for Warm {
    type Code = Code;
    type Namespace = Namespace;

    fn fork(&mut self) -> std::io::Result<Option<i32>> {
        self.python.fork()
    }

    /// The kernel enforces them all.
    fn limit(&mut self, _limits: &Limits) {}

    fn reseed(&mut self) -> Result<(), Raised> {
        let Some(namespace) = self.python.namespace() else {
            return Err(Raised { kind: RaisedKind::Memory, text: "no memory for a namespace".into() });
        };
        self.python.run(self.reseed, namespace)
    }

    fn compile(&mut self, source: &str, file_name: &str) -> Result<Code, Raised> {
        self.python.compile(source, file_name)
    }

    fn namespace(&mut self) -> Option<Namespace> {
        self.python.main()
    }

    fn harness(&self) -> Namespace {
        self.harness
    }

    fn run(&mut self, code: Code, namespace: Namespace) -> Result<(), Raised> {
        self.python.run(code, namespace)
    }
}
