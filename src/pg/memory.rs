//! Memory contexts that Rust values own: for Datums that must live as long as a cache entry.

use pgrx::pg_sys;
use std::cell::RefCell;
use std::ffi::CStr;

thread_local! {
    /// Contexts whose owners are gone, until it is safe to call the server.
    static GRAVES: RefCell<Vec<pg_sys::MemoryContext>> = const { RefCell::new(Vec::new()) };
}

/// A child of `CacheMemoryContext`. Dropping it calls nothing of the server, so it may happen while
/// an error unwinds or in an invalidation callback; the memory is freed by the next `Owned::new`.
pub struct Owned(pg_sys::MemoryContext);

impl Owned {
    /// `name` shows in memory dumps.
    pub fn new(name: &'static CStr) -> Owned {
        let graves = GRAVES.with(|graves| std::mem::take(&mut *graves.borrow_mut()));
        // SAFETY: each grave is a live context that nothing refers to any more. The name is a literal,
        // as PostgreSQL demands, and CacheMemoryContext lives as long as the backend.
        unsafe {
            for grave in graves {
                pg_sys::MemoryContextDelete(grave);
            }
            Owned(pg_sys::AllocSetContextCreateInternal(
                pg_sys::CacheMemoryContext,
                name.as_ptr(),
                pg_sys::ALLOCSET_SMALL_MINSIZE as usize,
                pg_sys::ALLOCSET_SMALL_INITSIZE as usize,
                pg_sys::ALLOCSET_SMALL_MAXSIZE as usize,
            ))
        }
    }

    /// Runs `f` with this as the current memory context. If `f` raises, error recovery sets the context.
    pub fn inside<T>(&self, f: impl FnOnce() -> T) -> T {
        // SAFETY: the context lives as long as self; the former one is put back.
        unsafe {
            let before = pg_sys::MemoryContextSwitchTo(self.0);
            let result = f();
            pg_sys::MemoryContextSwitchTo(before);
            result
        }
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // At process exit the list may be gone already, and the memory goes with the process.
        let _ = GRAVES.try_with(|graves| graves.borrow_mut().push(self.0));
    }
}
