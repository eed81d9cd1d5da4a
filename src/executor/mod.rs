//! Runs remote plans: custom scans that ask nodes and decode rows. Comes in: a plan's private data and expressions.
//! Goes out: tuples in slots. Connections belong to `remote`; what is here dies with the executor state.

mod answers;
mod changes;
mod checks;
mod copies;
mod cursor;
mod decode;
mod encode;
mod explain;
mod find;
pub mod forward;
mod insert;
mod kept;
mod lock;
mod merge;
mod modify;
mod moved;
mod movement;
mod places;
mod raw;
mod scan;
mod shard_copy;
mod state;
mod task;
mod value_rows;
mod variance;
mod wire;

use pgrx::{extension_sql_file, pg_sys};

pub use changes::changes_methods;
pub use copies::copies_methods;
pub use cursor::cursor_methods;
pub use decode::Decoder;
pub use find::find_methods;
pub use insert::insert_methods;
pub use lock::lock_methods;
pub use modify::modify_methods;
pub use movement::move_methods;
pub use scan::scan_methods;

extension_sql_file!(
    "../../sql/aggregates.sql",
    name = "aggregates",
    requires = ["catalog"]
);

/// Registers the custom scans, so that plans can be copied and read back.
pub fn init() {
    // SAFETY: the methods are statics; called once at load.
    unsafe {
        pg_sys::RegisterCustomScanMethods(scan_methods());
        pg_sys::RegisterCustomScanMethods(insert_methods());
        pg_sys::RegisterCustomScanMethods(copies_methods());
        pg_sys::RegisterCustomScanMethods(lock_methods());
        pg_sys::RegisterCustomScanMethods(changes_methods());
        pg_sys::RegisterCustomScanMethods(modify_methods());
        pg_sys::RegisterCustomScanMethods(move_methods());
        pg_sys::RegisterCustomScanMethods(cursor_methods());
        pg_sys::RegisterCustomScanMethods(find_methods());
    }
}
