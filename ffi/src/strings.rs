//! Text across the border: borrowed views in, library-owned text out.

use std::ffi::{CStr, c_char};
use std::path::{Path, PathBuf};
use std::ptr;

use crate::boundary::{act, check_aligned, read};
use crate::handle::{self, handle};
use crate::status::{Failure, inhouse_status};

/// No text that a host passes may be longer, in bytes.
pub const INHOUSE_MAX_TEXT_BYTES: usize = 64 << 20;
/// No path that a host passes may be longer, in bytes.
pub const INHOUSE_MAX_PATH_BYTES: usize = 32 << 10;

/// A borrowed view of UTF-8 text: `len` bytes at `data`. The text may contain NUL bytes.
///
/// Passed in, it need not end in a NUL byte and need only live until the call returns; `data` NULL with `len` 0 is the
/// empty or unset text. Handed out, it is followed by a NUL byte that `len` does not count, and `data` is NULL only
/// where there is no such thing (a stale handle, an index out of range).
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct inhouse_str {
    /// The first byte, or NULL.
    pub data: *const c_char,
    /// Number of bytes, a final NUL not counted.
    pub len: usize,
}

impl inhouse_str {
    /// There is no such text.
    pub(crate) const ABSENT: Self = Self { data: ptr::null(), len: 0 };

    /// Copies the text, checked: `None` where it is unset.
    ///
    /// # Safety
    /// `data`, where not null, points to `len` readable bytes.
    pub(crate) unsafe fn read(self, name: &str, limit: usize) -> Result<Option<String>, Failure> {
        if self.data.is_null() {
            if self.len == 0 {
                return Ok(None);
            }
            return Err(Failure::invalid(format!("`{name}`: data is NULL, but len is {}", self.len)));
        }
        if self.len > limit {
            return Err(Failure::limit(format!(
                "`{name}`: {} bytes is over the limit of {limit} bytes",
                self.len
            )));
        }
        // SAFETY: not null, at most `limit` (far below isize::MAX) bytes, readable by the caller's promise.
        let bytes = unsafe { std::slice::from_raw_parts(self.data.cast::<u8>(), self.len) };
        let text = std::str::from_utf8(bytes).map_err(|cause| {
            Failure::invalid(format!("`{name}` is not UTF-8 at byte {}", cause.valid_up_to()))
        })?;
        Ok(Some(text.to_owned()))
    }

    /// Copies a text that must be set.
    ///
    /// # Safety
    /// As [`inhouse_str::read`].
    pub(crate) unsafe fn read_required(self, name: &str, limit: usize) -> Result<String, Failure> {
        // SAFETY: the caller's promise.
        unsafe { self.read(name, limit) }?.ok_or_else(|| Failure::invalid(format!("`{name}` is unset")))
    }

    /// Copies a path that must be set.
    ///
    /// # Safety
    /// As [`inhouse_str::read`].
    pub(crate) unsafe fn read_required_path(self, name: &str) -> Result<PathBuf, Failure> {
        // SAFETY: the caller's promise.
        unsafe { self.read_path(name) }?.ok_or_else(|| Failure::invalid(format!("`{name}` is unset")))
    }

    /// Copies the path of a file or folder that is to be read. A pipe would wait for a writer, a device has no end, and
    /// standard input (`-`) is the host's.
    ///
    /// # Safety
    /// As [`inhouse_str::read`].
    pub(crate) unsafe fn read_input_path(self, name: &str) -> Result<PathBuf, Failure> {
        // SAFETY: the caller's promise.
        let path = unsafe { self.read_required_path(name) }?;
        check_input(&path, name)?;
        Ok(path)
    }

    /// Copies a path; `None` where it is unset.
    ///
    /// # Safety
    /// As [`inhouse_str::read`].
    pub(crate) unsafe fn read_path(self, name: &str) -> Result<Option<PathBuf>, Failure> {
        // SAFETY: the caller's promise.
        let text = unsafe { self.read(name, INHOUSE_MAX_PATH_BYTES) }?;
        text.map(|text| to_path(text, name)).transpose()
    }
}

/// Refuses what cannot be read to an end: see [`inhouse_str::read_input_path`].
pub(crate) fn check_input(path: &Path, name: &str) -> Result<(), Failure> {
    if path == Path::new("-") {
        return Err(Failure::invalid(format!("`{name}` is `-`: standard input is the host's")));
    }
    let meta = std::fs::metadata(path).map_err(|cause| inhouse::Error::io("open", path, cause))?;
    if meta.is_dir() || meta.is_file() {
        return Ok(());
    }
    let status = inhouse_status::INHOUSE_STATUS_INVALID_DATA;
    Err(Failure::new(status, format!("{}: is neither a file nor a folder", path.display())))
}

/// What is installed with the library, where `path` is "default"; `None` for any other path.
pub(crate) fn installed(
    path: &Path,
    name: &str,
    find: fn() -> inhouse::Result<Option<PathBuf>>,
) -> Result<Option<PathBuf>, Failure> {
    if path != Path::new("default") {
        return Ok(None);
    }
    let missing = || {
        let what = format!("`{name}` is \"default\", and none is installed that this build can run");
        inhouse::Error::new(inhouse::ErrorKind::NotFound, what)
    };
    Ok(Some(find()?.ok_or_else(missing)?))
}

/// Copies an array of paths of what is to be read.
///
/// # Safety
/// As [`read_list`].
pub(crate) unsafe fn read_input_paths(
    items: *const inhouse_str,
    n: usize,
    name: &str,
    limit: usize,
) -> Result<Vec<PathBuf>, Failure> {
    // SAFETY: the caller's promise.
    let texts = unsafe { read_list(items, n, name, limit) }?;
    let path = |(at, text): (usize, String)| {
        let path = to_path(text, &format!("{name}[{at}]"))?;
        check_input(&path, &format!("{name}[{at}]"))?;
        Ok(path)
    };
    texts.into_iter().enumerate().map(path).collect()
}

fn to_path(text: String, name: &str) -> Result<PathBuf, Failure> {
    if text.is_empty() || text.contains('\0') {
        let fault = if text.is_empty() { "is empty" } else { "contains a NUL byte" };
        return Err(Failure::invalid(format!("`{name}` {fault}: expected a path")));
    }
    Ok(text.into())
}

/// Copies an array of texts.
///
/// # Safety
/// `items`, where not null and aligned, points to `n` readable views, each as [`inhouse_str::read`] wants it.
pub(crate) unsafe fn read_list(
    items: *const inhouse_str,
    n: usize,
    name: &str,
    limit: usize,
) -> Result<Vec<String>, Failure> {
    if n == 0 {
        return Ok(Vec::new());
    }
    if items.is_null() {
        return Err(Failure::invalid(format!("`{name}` is NULL, but its length is {n}")));
    }
    check_aligned(items, name)?;
    if n > limit {
        return Err(Failure::limit(format!("`{name}`: {n} texts are over the limit of {limit}")));
    }
    let mut texts = Vec::with_capacity(n);
    let mut bytes = 0;
    for at in 0..n {
        // SAFETY: not null, aligned, `at < n` views readable by the caller's promise.
        let item = unsafe { items.add(at).read() };
        // SAFETY: the caller's promise for every view.
        let text = unsafe { item.read(&format!("{name}[{at}]"), INHOUSE_MAX_TEXT_BYTES - bytes) }?;
        let text = text.ok_or_else(|| Failure::invalid(format!("`{name}[{at}]` is unset")))?;
        bytes += text.len();
        texts.push(text);
    }
    Ok(texts)
}

/// Owned text as it is handed out: followed by a NUL byte.
#[derive(Debug)]
pub(crate) struct Text(Box<[u8]>);

impl Text {
    pub(crate) fn view(&self) -> inhouse_str {
        inhouse_str { data: self.0.as_ptr().cast(), len: self.0.len() - 1 }
    }
}

impl Text {
    /// A value as a JSON document.
    pub(crate) fn json(value: &impl serde::Serialize) -> Result<Self, Failure> {
        serde_json::to_string(value)
            .map(Self::from)
            .map_err(|cause| Failure::new(inhouse_status::INHOUSE_STATUS_INTERNAL, cause.to_string()))
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        let mut bytes = text.into_bytes();
        bytes.reserve_exact(1);
        bytes.push(0);
        Self(bytes.into())
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

/// A view of a NUL-terminated C string, for calls that take an inhouse_str.
///
/// Ownership: the view borrows `text`.
/// Threads: any.
/// Errors: none; the text is checked by the call that it is passed to.
/// Null: `text` may be NULL: the unset view.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inhouse_str_of(text: *const c_char) -> inhouse_str {
    if text.is_null() {
        return inhouse_str::ABSENT;
    }
    // SAFETY: not null; the host promises a NUL byte at its end.
    inhouse_str { data: text, len: unsafe { CStr::from_ptr(text) }.count_bytes() }
}

/// A text that the library made, such as a JSON document; freed with inhouse_text_free().
pub struct inhouse_text {
    _private: [u8; 0],
}

handle!(inhouse_text, Text);

/// What a text says.
///
/// Ownership: the view belongs to `text` and is valid until inhouse_text_free().
/// Threads: any, also at the same time.
/// Errors: none; a stale handle gives a view with `data` NULL.
/// Null: `text` may be NULL: a view with `data` NULL.
#[unsafe(no_mangle)]
pub extern "C" fn inhouse_text_view(text: *const inhouse_text) -> inhouse_str {
    read(inhouse_str::ABSENT, || Ok(handle::get(text)?.view()))
}

/// Frees a text.
///
/// Ownership: takes `text` back; its views end.
/// Threads: any; not while another thread still reads it.
/// Errors: INHOUSE_STATUS_INVALID_HANDLE where it was freed already.
/// Null: `text` may be NULL: nothing happens.
#[unsafe(no_mangle)]
pub extern "C" fn inhouse_text_free(text: *mut inhouse_text) -> inhouse_status {
    act(|| handle::release(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::inhouse_status::*;

    fn view(bytes: &[u8]) -> inhouse_str {
        inhouse_str { data: bytes.as_ptr().cast(), len: bytes.len() }
    }

    #[test]
    fn views_are_checked() {
        let read = |view: inhouse_str| {
            // SAFETY: the views below are of live memory, or are refused before it is read.
            unsafe { view.read("text", 8) }.map_err(|failure| (failure.status, failure.message))
        };
        assert_eq!(read(inhouse_str::ABSENT), Ok(None));
        assert_eq!(read(view(b"")), Ok(Some(String::new())));
        assert_eq!(read(view("a\0é".as_bytes())), Ok(Some("a\0é".into())));
        let fault = |view| read(view).unwrap_err();
        assert_eq!(fault(inhouse_str { len: 3, ..inhouse_str::ABSENT }).0, INHOUSE_STATUS_INVALID_ARGUMENT);
        assert_eq!(fault(inhouse_str { len: usize::MAX, ..view(b"a") }).0, INHOUSE_STATUS_LIMIT_EXCEEDED);
        assert_eq!(fault(view(b"123456789")).0, INHOUSE_STATUS_LIMIT_EXCEEDED);
        let not_utf8 = (INHOUSE_STATUS_INVALID_ARGUMENT, "`text` is not UTF-8 at byte 2".to_owned());
        assert_eq!(fault(view(b"ab\xff")), not_utf8);
    }

    #[test]
    fn paths_are_checked() {
        // SAFETY: views of live memory.
        let read = |view: inhouse_str| unsafe { view.read_path("model") }.map_err(|failure| failure.message);
        assert_eq!(read(inhouse_str::ABSENT), Ok(None));
        assert_eq!(read(view(b"a/b")), Ok(Some("a/b".into())));
        assert!(read(view(b"")).is_err_and(|message| message.contains("is empty")));
        assert!(read(view(b"a\0b")).is_err_and(|message| message.contains("NUL")));
        assert!(read(view(&vec![b'a'; INHOUSE_MAX_PATH_BYTES + 1])).is_err());
    }

    #[test]
    fn lists_are_checked() {
        let items = [view(b"a"), view(b"bc")];
        let read = |items: *const inhouse_str, n| {
            // SAFETY: arrays of live views, or refused before they are read.
            unsafe { read_list(items, n, "names", 4) }.map_err(|failure| failure.message)
        };
        assert_eq!(read(items.as_ptr(), 2), Ok(vec!["a".to_owned(), "bc".to_owned()]));
        assert_eq!(read(ptr::null(), 0), Ok(Vec::new()));
        assert!(read(ptr::null(), 1).is_err_and(|message| message.contains("NULL")));
        assert!(read(items.as_ptr(), 5).is_err_and(|message| message.contains("limit")));
        assert!(
            read(items.as_ptr().wrapping_byte_add(1), 1).is_err_and(|message| message.contains("aligned"))
        );
        assert!(read([view(b"a"), inhouse_str::ABSENT].as_ptr(), 2).is_err_and(|m| m.contains("names[1]")));
    }

    #[test]
    fn texts_end_in_nul() {
        let text = Text::from("a\0é");
        let view = text.view();
        assert_eq!(view.len, 4);
        // SAFETY: the view is of `text`, which is alive and one byte longer than the view.
        let bytes = unsafe { std::slice::from_raw_parts(view.data.cast::<u8>(), view.len + 1) };
        assert_eq!(bytes, "a\0é\0".as_bytes());
        // SAFETY: a NUL-terminated literal.
        assert_eq!(unsafe { inhouse_str_of(c"abc".as_ptr()) }.len, 3);
        // SAFETY: NULL is allowed.
        assert!(unsafe { inhouse_str_of(ptr::null()) }.data.is_null());
    }
}
