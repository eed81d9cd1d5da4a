//! The encoding in which send and receive functions write and read texts: the client's. What goes to nodes and comes from
//! them is in that of the database.

use std::ffi::c_int;

extern "C" {
    // `mb/pg_wchar.h`; none of them raises, so they are called without a guard.
    fn pg_get_client_encoding() -> c_int;
    fn GetDatabaseEncoding() -> c_int;
    // Finds what it needs prepared, since the encodings set are such as were set before.
    fn SetClientEncoding(encoding: c_int) -> c_int;
}

/// Does the client have the database's encoding?
pub fn is_of_client() -> bool {
    // SAFETY: functions over variables of this process.
    unsafe { pg_get_client_encoding() == GetDatabaseEncoding() }
}

/// While it lives, send and receive functions use the database's encoding.
pub struct DatabaseEncoding {
    client: Option<c_int>,
}

impl DatabaseEncoding {
    pub fn enter() -> DatabaseEncoding {
        // SAFETY: functions over variables of this process.
        unsafe {
            let (client, database) = (pg_get_client_encoding(), GetDatabaseEncoding());
            let client = (client != database).then(|| {
                SetClientEncoding(database);
                client
            });
            DatabaseEncoding { client }
        }
    }
}

impl Drop for DatabaseEncoding {
    fn drop(&mut self) {
        if let Some(client) = self.client {
            // SAFETY: as above; reached by unwinding as well.
            unsafe { SetClientEncoding(client) };
        }
    }
}
