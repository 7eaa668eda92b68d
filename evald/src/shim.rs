//! Named semaphores, shared memory and the user's name for T3, where no mount namespace puts a private /dev/shm and
//! /etc/passwd in the place of the host's. The warm interpreter is started with this library in `LD_PRELOAD` there, so that
//! these functions stand before the C library's: `multiprocessing` needs the first four, `getpwuid` the last.
//!
//! What a name stands for is a file in the sample's private folder. In other tiers nothing calls these.

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::io;

/// The bytes that glibc's and musl's `sem_t` take at most.
const SEMAPHORE_BYTES: usize = size_of::<libc::sem_t>();

fn fail(number: c_int) {
    // SAFETY: `errno` of this thread, which always is there.
    unsafe { *libc::__errno_location() = number };
}

/// The file of a name.
///
/// # Safety
/// `name` is null or a C string.
unsafe fn file(prefix: &str, name: *const c_char) -> Option<CString> {
    // SAFETY: not null, and so a C string, as the caller promises.
    let name = if name.is_null() { &[][..] } else { unsafe { CStr::from_ptr(name) }.to_bytes() };
    let name = name.strip_prefix(b"/").unwrap_or(name);
    let folder = std::env::var_os("TMPDIR").unwrap_or_default();
    if name.is_empty() || name.contains(&b'/') || folder.is_empty() {
        fail(libc::EINVAL);
        return None;
    }
    CString::new([folder.as_encoded_bytes(), b"/", prefix.as_bytes(), name].concat()).ok()
}

/// `sem_open(3)`. Integers behind the fixed arguments are passed like fixed ones on the machines that evald runs on.
///
/// # Safety
/// As the C function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sem_open(
    name: *const c_char,
    flags: c_int,
    mode: libc::mode_t,
    value: c_uint,
) -> *mut libc::sem_t {
    // SAFETY: the caller's promise; the file is as long as what is mapped of it, and initialised before it has its name.
    unsafe {
        let Some(path) = file(".sem.", name) else { return libc::SEM_FAILED };
        for _ in 0..100 {
            let found = libc::open(path.as_ptr(), libc::O_RDWR | libc::O_NOFOLLOW | libc::O_CLOEXEC);
            if found >= 0 {
                if flags & libc::O_CREAT != 0 && flags & libc::O_EXCL != 0 {
                    libc::close(found);
                    fail(libc::EEXIST);
                    return libc::SEM_FAILED;
                }
                return map(found);
            }
            if flags & libc::O_CREAT == 0 {
                return libc::SEM_FAILED;
            }
            match create(&path, mode, value) {
                Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {}
                Ok(semaphore) => return semaphore,
                Err(error) => {
                    fail(error.raw_os_error().unwrap_or(libc::EINVAL));
                    return libc::SEM_FAILED;
                }
            }
        }
        fail(libc::EEXIST);
        libc::SEM_FAILED
    }
}

/// Makes it under another name first, so that nobody finds half of one.
///
/// # Safety
/// None beyond that of its calls: it touches its own file alone.
unsafe fn create(path: &CStr, mode: libc::mode_t, value: c_uint) -> io::Result<*mut libc::sem_t> {
    let nonce = u64::from_le_bytes(crate::sys::random_bytes()?);
    let hidden = CString::new([path.to_bytes(), format!(".{nonce:x}").as_bytes()].concat())?;
    // SAFETY: C strings and a file of our own, as long as the mapping.
    unsafe {
        let flags = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW | libc::O_CLOEXEC;
        let made = libc::open(hidden.as_ptr(), flags, mode as c_uint);
        if made < 0 {
            return Err(io::Error::last_os_error());
        }
        if libc::ftruncate(made, SEMAPHORE_BYTES as libc::off_t) != 0 {
            let error = io::Error::last_os_error();
            libc::close(made);
            libc::unlink(hidden.as_ptr());
            return Err(error);
        }
        let semaphore = map(made);
        let ready = semaphore != libc::SEM_FAILED && libc::sem_init(semaphore, 1, value) == 0;
        let named = ready && libc::link(hidden.as_ptr(), path.as_ptr()) == 0;
        let error = io::Error::last_os_error();
        libc::unlink(hidden.as_ptr());
        if named {
            return Ok(semaphore);
        }
        if semaphore != libc::SEM_FAILED {
            libc::munmap(semaphore.cast(), SEMAPHORE_BYTES);
        }
        Err(error)
    }
}

/// Maps a semaphore's file, and closes it.
///
/// # Safety
/// `descriptor` is open, and nobody else's to close.
unsafe fn map(descriptor: c_int) -> *mut libc::sem_t {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a fresh mapping, at an address that the kernel chooses.
    unsafe {
        let at =
            libc::mmap(std::ptr::null_mut(), SEMAPHORE_BYTES, protection, libc::MAP_SHARED, descriptor, 0);
        libc::close(descriptor);
        if at == libc::MAP_FAILED { libc::SEM_FAILED } else { at.cast() }
    }
}

/// `sem_close(3)`.
///
/// # Safety
/// As the C function: of a semaphore from [`sem_open`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sem_close(semaphore: *mut libc::sem_t) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { libc::munmap(semaphore.cast::<c_void>(), SEMAPHORE_BYTES) }
}

/// `sem_unlink(3)`.
///
/// # Safety
/// As the C function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sem_unlink(name: *const c_char) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { file(".sem.", name).map_or(-1, |path| libc::unlink(path.as_ptr())) }
}

/// `shm_open(3)`.
///
/// # Safety
/// As the C function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shm_open(name: *const c_char, flags: c_int, mode: libc::mode_t) -> c_int {
    let flags = flags | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    // SAFETY: the caller's promise.
    unsafe { file(".shm.", name).map_or(-1, |path| libc::open(path.as_ptr(), flags, mode as c_uint)) }
}

/// `shm_unlink(3)`.
///
/// # Safety
/// As the C function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shm_unlink(name: *const c_char) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { file(".shm.", name).map_or(-1, |path| libc::unlink(path.as_ptr())) }
}

type GetUser =
    unsafe extern "C" fn(libc::uid_t, *mut libc::passwd, *mut c_char, usize, *mut *mut libc::passwd) -> c_int;

/// `getpwuid_r(3)`, in which the sandbox's own user has a name where the host knows none.
///
/// # Safety
/// As the C function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getpwuid_r(
    user: libc::uid_t,
    entry: *mut libc::passwd,
    buffer: *mut c_char,
    length: usize,
    result: *mut *mut libc::passwd,
) -> c_int {
    const TEXT: &[u8] = b"nobody\0x\0/tmp\0/bin/false\0";
    // SAFETY: the C library's function of that name, called as we were; then writes of what fits into the caller's buffers.
    unsafe {
        let next = libc::dlsym(libc::RTLD_NEXT, c"getpwuid_r".as_ptr());
        if next.is_null() {
            return libc::ENOSYS;
        }
        let next: GetUser = std::mem::transmute::<*mut c_void, GetUser>(next);
        let status = next(user, entry, buffer, length, result);
        if !(*result).is_null() || user != libc::geteuid() {
            return status;
        }
        if length < TEXT.len() {
            return libc::ERANGE;
        }
        std::ptr::copy_nonoverlapping(TEXT.as_ptr().cast(), buffer, TEXT.len());
        let mut filled: libc::passwd = std::mem::zeroed();
        filled.pw_name = buffer;
        filled.pw_passwd = buffer.add(7);
        filled.pw_gecos = buffer;
        filled.pw_dir = buffer.add(9);
        filled.pw_shell = buffer.add(14);
        (filled.pw_uid, filled.pw_gid) = (user, libc::getegid());
        entry.write(filled);
        *result = entry;
        0
    }
}
