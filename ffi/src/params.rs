//! Parameter structs that may grow: `struct_size` first.
//!
//! A host's struct is as long as its header said; the library's may be longer (newer) or shorter (older). A shorter one
//! is filled up with defaults; of a longer one the unknown rest must be zero, that is, not used (the rule of Linux's
//! `copy_struct_from_user`). Fields are only ever appended, padding is spelled out as `reserved`.

use crate::boundary::check_aligned;
use crate::status::{Failure, inhouse_status};

/// No parameter struct will ever be longer: a size beyond it is uninitialised memory.
const MAX_STRUCT_SIZE: usize = 4096;

/// A parameter struct of the ABI.
///
/// # Safety
/// The type is `repr(C)` without padding, begins with `struct_size: usize`, and every bit pattern of its bytes is a
/// value of it (numbers, raw pointers, optional function pointers).
pub(crate) unsafe trait Params: Copy {
    /// The C name, for messages.
    const NAME: &'static str;
    /// Its size in the first version of the ABI.
    const FIRST_SIZE: usize;
    /// The defaults, `struct_size` set.
    fn defaults() -> Self;
}

/// A field that says yes or no.
pub(crate) fn flag(name: &str, value: i32) -> Result<bool, Failure> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(Failure::invalid(format!("`{name}` is {other}, expected 0 or 1"))),
    }
}

/// Copies a host's parameters, or gives the defaults where it passes NULL.
///
/// # Safety
/// As [`read`].
pub(crate) unsafe fn read_or_defaults<P: Params>(params: *const P) -> Result<P, Failure> {
    // SAFETY: the caller's promise.
    if params.is_null() { Ok(P::defaults()) } else { unsafe { read(params) } }
}

fn check_size<P: Params>(size: usize) -> Result<(), Failure> {
    if (P::FIRST_SIZE..=MAX_STRUCT_SIZE).contains(&size) && size.is_multiple_of(align_of::<P>()) {
        return Ok(());
    }
    let message = format!("{}.struct_size is {size}: call {}_init with sizeof first", P::NAME, P::NAME);
    Err(Failure::invalid(message))
}

fn check_pointer<P: Params>(params: *const P) -> Result<(), Failure> {
    if params.is_null() {
        return Err(Failure::invalid(format!("{} is NULL", P::NAME)));
    }
    check_aligned(params, P::NAME)
}

/// Copies a host's parameters.
///
/// # Safety
/// `params`, where not null and aligned, points to a `usize`, and to as many readable bytes as that says where it is
/// a possible size.
pub(crate) unsafe fn read<P: Params>(params: *const P) -> Result<P, Failure> {
    check_pointer(params)?;
    // SAFETY: not null, aligned, and at least the size can be read.
    let size = unsafe { params.cast::<usize>().read() };
    check_size::<P>(size)?;
    let known = size.min(size_of::<P>());
    let mut own = P::defaults();
    // SAFETY: `known` bytes can be read by the caller's promise and fit into `own`, which is another object; every bit
    // pattern is a value of `P`.
    unsafe { std::ptr::copy_nonoverlapping(params.cast::<u8>(), (&raw mut own).cast::<u8>(), known) };
    for at in known..size {
        // SAFETY: `at < size` bytes can be read by the caller's promise.
        if unsafe { params.cast::<u8>().add(at).read() } != 0 {
            return Err(Failure::new(
                inhouse_status::INHOUSE_STATUS_UNSUPPORTED,
                format!("{} uses a field at byte {at} that this library does not know", P::NAME),
            ));
        }
    }
    Ok(own)
}

/// Writes the defaults into a host's struct of `size` bytes; what the library does not know becomes zero.
///
/// # Safety
/// `params`, where not null and aligned, points to `size` writable bytes where that is a possible size.
pub(crate) unsafe fn init<P: Params>(params: *mut P, size: usize) -> Result<(), Failure> {
    check_pointer(params.cast_const())?;
    check_size::<P>(size)?;
    let defaults = P::defaults();
    let known = size.min(size_of::<P>());
    // SAFETY: `size` bytes can be written by the caller's promise, `known` of them are read from another object, and
    // the first `usize` is the struct's size.
    unsafe {
        params.cast::<u8>().write_bytes(0, size);
        std::ptr::copy_nonoverlapping((&raw const defaults).cast::<u8>(), params.cast::<u8>(), known);
        params.cast::<usize>().write(size);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The second version of a struct whose first ended after `a`.
    #[repr(C)]
    #[derive(Debug, Clone, Copy, PartialEq)]
    struct Grown {
        struct_size: usize,
        a: u64,
        b: u64,
    }

    // SAFETY: `repr(C)`, no padding, plain numbers.
    unsafe impl Params for Grown {
        const NAME: &'static str = "grown";
        const FIRST_SIZE: usize = 16;
        fn defaults() -> Self {
            Self { struct_size: size_of::<Self>(), a: 1, b: 2 }
        }
    }

    #[test]
    fn older_and_newer_hosts_are_read() {
        // SAFETY: every pointer is to a local of at least the size it states.
        unsafe {
            let older = [16usize, 7];
            assert_eq!(read(older.as_ptr().cast::<Grown>()).unwrap(), Grown { struct_size: 16, a: 7, b: 2 });
            let same = Grown { struct_size: 24, a: 7, b: 8 };
            assert_eq!(read(&raw const same).unwrap(), same);
            let newer = [32usize, 7, 8, 0];
            assert_eq!(read(newer.as_ptr().cast::<Grown>()).unwrap().b, 8);
            let used = [32usize, 7, 8, 1 << 16];
            let failure = read(used.as_ptr().cast::<Grown>()).unwrap_err();
            assert_eq!(failure.status, inhouse_status::INHOUSE_STATUS_UNSUPPORTED);
            assert!(failure.message.contains("byte 26"), "{}", failure.message);
        }
    }

    #[test]
    fn wrong_sizes_and_pointers_are_refused() {
        for size in [0, 8, 15, 17, 25, 4097, 4104, usize::MAX] {
            let mut params = Grown { struct_size: size, a: 0, b: 0 };
            // SAFETY: the sizes are refused before more than a `usize` is touched.
            unsafe {
                assert!(read(&raw const params).is_err(), "{size}");
                assert!(init(&raw mut params, size).is_err(), "{size}");
            }
            assert_eq!(params, Grown { struct_size: size, a: 0, b: 0 });
        }
        let mut params = [0usize; 4];
        let misaligned = params.as_mut_ptr().cast::<Grown>().wrapping_byte_add(4);
        // SAFETY: both are refused before anything is touched.
        unsafe {
            assert!(read(std::ptr::null::<Grown>()).is_err() && read(misaligned).is_err());
            assert!(init(std::ptr::null_mut::<Grown>(), 24).is_err() && init(misaligned, 24).is_err());
        }
    }

    #[test]
    fn init_stays_inside_the_hosts_struct() {
        for (size, expected) in [(16, [16, 1, 99, 99]), (24, [24, 1, 2, 99]), (32, [32, 1, 2, 0])] {
            let mut place = [99usize; 4];
            // SAFETY: `place` has 32 bytes.
            unsafe { init(place.as_mut_ptr().cast::<Grown>(), size) }.unwrap();
            assert_eq!(place, expected);
        }
    }
}
