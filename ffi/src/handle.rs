//! Handles: what a host holds instead of an address.
//!
//! A handle looks like a pointer to C but is a number that is given out once and never again, looked up in a table at
//! every call. So a handle that was freed, freed twice, made up or of another type is told from a live one without
//! touching memory, and an object that one thread frees while another uses it lives until that other call returns.
//! The look-up costs some tens of nanoseconds.

use std::collections::BTreeMap;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use crate::status::{Failure, inhouse_status};

/// In the top byte of every handle: on x86-64 such an address is not canonical, so a host that looks through a handle
/// faults at once instead of reading something.
const TAG: usize = 0x1a_usize.rotate_right(8);

/// The next number over all tables: a handle of one type is never one of another.
static NEXT: AtomicUsize = AtomicUsize::new(1);

/// A C type that stands for an object of the library.
pub(crate) trait Handle: Sized + 'static {
    /// The object.
    type Object: Send + Sync + 'static;
    /// The C name, for messages.
    const NAME: &'static str;
    /// All live objects of the type.
    fn table() -> &'static Table<Self::Object>;
}

struct Entry<T> {
    object: Arc<T>,
    /// How many times the host owns it.
    holds: usize,
}

/// The live objects of one type, by handle.
pub(crate) struct Table<T> {
    entries: RwLock<BTreeMap<usize, Entry<T>>>,
}

impl<T> Table<T> {
    pub(crate) const fn new() -> Self {
        Self { entries: RwLock::new(BTreeMap::new()) }
    }
}

// A poisoned lock is passed over throughout: the critical sections below only move entries in and out of the map, so
// the table is whole even if one of them should unwind.

/// Gives `object` a handle that the host owns.
pub(crate) fn insert<H: Handle>(object: H::Object) -> Result<*mut H, Failure> {
    let next = |number: usize| (number >> (usize::BITS - 8) == 0).then_some(number + 1);
    let number = NEXT
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next)
        .map_err(|_| Failure::limit("no handle left: too many objects were made in this process"))?;
    let handle = TAG | number;
    let entry = Entry { object: Arc::new(object), holds: 1 };
    H::table().entries.write().unwrap_or_else(PoisonError::into_inner).insert(handle, entry);
    Ok(ptr::without_provenance_mut(handle))
}

/// The object behind a handle; it lives as long as the result even if the host frees the handle meanwhile.
pub(crate) fn get<H: Handle>(handle: *const H) -> Result<Arc<H::Object>, Failure> {
    let entries = H::table().entries.read().unwrap_or_else(PoisonError::into_inner);
    entries.get(&handle.addr()).map(|entry| Arc::clone(&entry.object)).ok_or_else(|| stale(handle))
}

/// One more hold for the host.
pub(crate) fn retain<H: Handle>(handle: *const H) -> Result<(), Failure> {
    let mut entries = H::table().entries.write().unwrap_or_else(PoisonError::into_inner);
    let entry = entries.get_mut(&handle.addr()).ok_or_else(|| stale(handle))?;
    entry.holds = entry.holds.checked_add(1).ok_or_else(|| Failure::limit("too many holds on one handle"))?;
    Ok(())
}

/// One hold less; with the last one the handle dies. NULL is passed over.
pub(crate) fn release<H: Handle>(handle: *const H) -> Result<(), Failure> {
    if handle.is_null() {
        return Ok(());
    }
    let last = {
        let mut entries = H::table().entries.write().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.get_mut(&handle.addr()).ok_or_else(|| stale(handle))?;
        entry.holds -= 1;
        if entry.holds == 0 { entries.remove(&handle.addr()) } else { None }
    };
    // Outside the lock: unloading a model takes its time.
    drop(last);
    Ok(())
}

fn stale<H: Handle>(handle: *const H) -> Failure {
    if handle.is_null() {
        Failure::invalid(format!("{} is NULL", H::NAME))
    } else {
        Failure::new(
            inhouse_status::INHOUSE_STATUS_INVALID_HANDLE,
            format!(
                "{:#x} is no live {} (freed already, of another type, or made up)",
                handle.addr(),
                H::NAME
            ),
        )
    }
}

/// Implements [`Handle`] for an opaque C type.
macro_rules! handle {
    ($name:ident, $object:ty) => {
        impl $crate::handle::Handle for $name {
            type Object = $object;
            const NAME: &'static str = stringify!($name);
            fn table() -> &'static $crate::handle::Table<$object> {
                static TABLE: $crate::handle::Table<$object> = $crate::handle::Table::new();
                &TABLE
            }
        }
    };
}
pub(crate) use handle;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::inhouse_status::*;

    struct One;
    handle!(One, String);
    struct Two;
    handle!(Two, String);

    fn status<T>(result: Result<T, Failure>) -> inhouse_status {
        result.map_or_else(|failure| failure.status, |_| INHOUSE_STATUS_OK)
    }

    #[test]
    fn a_handle_lives_until_its_last_hold() {
        let handle = insert::<One>("a".into()).unwrap_or_else(|_| panic!("no handle"));
        assert_eq!(status(retain(handle)), INHOUSE_STATUS_OK);
        let object = get(handle).unwrap_or_else(|_| panic!("no object"));
        assert_eq!(status(release(handle)), INHOUSE_STATUS_OK);
        assert_eq!(status(get(handle)), INHOUSE_STATUS_OK);
        assert_eq!(status(release(handle)), INHOUSE_STATUS_OK);
        assert_eq!(object.as_str(), "a");
        for result in [release(handle), retain(handle), get(handle).map(drop)] {
            assert_eq!(status(result), INHOUSE_STATUS_INVALID_HANDLE);
        }
    }

    #[test]
    fn handles_differ_over_time_and_type() {
        let one = insert::<One>("a".into()).unwrap_or_else(|_| panic!("no handle"));
        assert_eq!(status(get(one.cast::<Two>())), INHOUSE_STATUS_INVALID_HANDLE);
        assert_eq!(status(release(one)), INHOUSE_STATUS_OK);
        let two = insert::<One>("b".into()).unwrap_or_else(|_| panic!("no handle"));
        assert_ne!(one, two);
        assert_eq!(status(release(two)), INHOUSE_STATUS_OK);
        assert_eq!(status(get(ptr::null::<One>())), INHOUSE_STATUS_INVALID_ARGUMENT);
        assert_eq!(status(release(ptr::null::<One>())), INHOUSE_STATUS_OK);
    }
}
