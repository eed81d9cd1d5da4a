//! PostgreSQL's `List`, read and built without a call per element.

use pgrx::pg_sys;

/// The elements of a pointer list; NIL is empty.
///
/// # Safety
/// `list` is NIL or a list of pointers to `T` that is not changed while the iterator lives.
pub unsafe fn iter<T>(
    list: *const pg_sys::List,
) -> impl DoubleEndedIterator<Item = *mut T> + ExactSizeIterator {
    // SAFETY: a List has `length` cells, each holding a pointer here.
    let cells: &[pg_sys::ListCell] = if list.is_null() {
        &[]
    } else {
        unsafe { std::slice::from_raw_parts((*list).elements, (*list).length as usize) }
    };
    cells
        .iter()
        .map(|cell| unsafe { cell.ptr_value.cast::<T>() })
}

/// The elements of an Oid list.
///
/// # Safety
/// As `iter`, for a list made with `lappend_oid`.
pub unsafe fn oids(list: *const pg_sys::List) -> Vec<pg_sys::Oid> {
    unsafe { cells(list).iter().map(|cell| cell.oid_value).collect() }
}

/// The elements of an integer list.
///
/// # Safety
/// As `iter`, for a list made with `lappend_int`.
pub unsafe fn ints(list: *const pg_sys::List) -> Vec<i32> {
    unsafe { cells(list).iter().map(|cell| cell.int_value).collect() }
}

unsafe fn cells<'a>(list: *const pg_sys::List) -> &'a [pg_sys::ListCell] {
    if list.is_null() {
        &[]
    } else {
        unsafe { std::slice::from_raw_parts((*list).elements, (*list).length as usize) }
    }
}

/// Number of elements; 0 for NIL.
///
/// # Safety
/// `list` is NIL or a valid list.
pub unsafe fn len(list: *const pg_sys::List) -> usize {
    if list.is_null() {
        0
    } else {
        unsafe { (*list).length as usize }
    }
}

/// The element at `index` of a pointer list.
///
/// # Safety
/// `list` has more than `index` elements, pointers to `T`.
pub unsafe fn nth<T>(list: *const pg_sys::List, index: usize) -> *mut T {
    unsafe { cells(list)[index].ptr_value.cast() }
}

/// The entry of a range table with this number, which counts from one.
///
/// # Safety
/// The range table has so many entries.
pub unsafe fn rt_fetch(rti: i32, rtable: *const pg_sys::List) -> *mut pg_sys::RangeTblEntry {
    unsafe { nth(rtable, rti as usize - 1) }
}

/// Puts another element at `index` of a pointer list.
///
/// # Safety
/// `list` has more than `index` elements, and is the caller's.
pub unsafe fn set<T>(list: *mut pg_sys::List, index: usize, item: *mut T) {
    unsafe { (*(*list).elements.add(index)).ptr_value = item.cast() }
}

/// A new pointer list, in the current memory context; NIL when there is nothing.
///
/// # Safety
/// The pointers are what the list's readers expect.
pub unsafe fn from<T>(items: impl IntoIterator<Item = *mut T>) -> *mut pg_sys::List {
    let mut list = std::ptr::null_mut();
    for item in items {
        list = unsafe { pg_sys::lappend(list, item.cast()) };
    }
    list
}

/// A new integer list, in the current memory context.
///
/// # Safety
/// Allocates: call it inside the server.
pub unsafe fn from_ints(items: impl IntoIterator<Item = i32>) -> *mut pg_sys::List {
    let mut list = std::ptr::null_mut();
    for item in items {
        list = unsafe { pg_sys::lappend_int(list, item) };
    }
    list
}

/// A new Oid list, in the current memory context.
///
/// # Safety
/// Allocates: call it inside the server.
pub unsafe fn from_oids(items: impl IntoIterator<Item = pg_sys::Oid>) -> *mut pg_sys::List {
    let mut list = std::ptr::null_mut();
    for item in items {
        list = unsafe { pg_sys::lappend_oid(list, item) };
    }
    list
}
