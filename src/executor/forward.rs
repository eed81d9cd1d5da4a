//! Rows that go to the client as their nodes sent them. Where a scan is all of a query's plan, its rows are asked for in
//! the format that the client wants: the node has run the types' output functions already, and a row of COPY is the
//! body of a DataRow message but for its frame.

use crate::copy::encode;
use crate::error::Result;
use crate::executor::scan::{self, Scan};
use crate::pg::encoding;
use crate::remote::Format;
use pgrx::pg_guard;
use pgrx::pg_sys::{self, DestReceiver};
use std::ffi::{c_char, c_int};

/// Takes the place of the receiver that sends rows to the client.
#[repr(C)]
struct Receiver {
    ours: DestReceiver,
    /// The one it stands for, which starts and ends the result, and sends the rows that come decoded.
    client: *mut DestReceiver,
    scan: *mut Scan,
    /// The body of the last message that had to be put together.
    body: Vec<u8>,
}

/// What the rows of a query are to be given to, if they can be forwarded: its scan then asks for them so. It is freed
/// with the query.
///
/// # Safety
/// The query was started, and runs to its end now.
pub unsafe fn receiver(query: *mut pg_sys::QueryDesc) -> Result<Option<*mut DestReceiver>> {
    unsafe {
        let plan = (*query).planstate;
        if (*query).operation != pg_sys::CmdType::CMD_SELECT
            || plan.is_null()
            || !(*(*query).estate).es_junkFilter.is_null()
        {
            return Ok(None);
        }
        let Some(scan) = scan::of_state(plan) else {
            return Ok(None);
        };
        let Some(format) = format_of_client(query) else {
            return Ok(None);
        };
        if !scan.forward(plan.cast(), (*query).tupDesc, format)? {
            return Ok(None);
        }
        let client = (*query).dest;
        let receiver = Receiver {
            ours: DestReceiver {
                receiveSlot: Some(receive),
                rStartup: Some(start),
                rShutdown: Some(shut_down),
                rDestroy: None, // the client's is destroyed by who made it
                mydest: (*client).mydest,
            },
            client,
            scan,
            body: Vec::new(),
        };
        let receiver = pgrx::PgMemoryContexts::For((*(*query).estate).es_query_cxt)
            .leak_and_drop_on_delete(receiver);
        Ok(Some(receiver.cast()))
    }
}

/// The format of all columns, when the rows of a query go to the client and texts stay as the database has them.
unsafe fn format_of_client(query: *mut pg_sys::QueryDesc) -> Option<Format> {
    unsafe {
        use pg_sys::CommandDest::{DestRemote, DestRemoteExecute};
        let portal = pg_sys::ActivePortal;
        if ![DestRemote, DestRemoteExecute].contains(&(*(*query).dest).mydest)
            || portal.is_null()
            || (*portal).queryDesc != query
            || (*portal).strategy != pg_sys::PortalStrategy::PORTAL_ONE_SELECT
            || !encoding::is_of_client()
        {
            return None;
        }
        let columns = (*(*query).tupDesc).natts as usize;
        if (*portal).formats.is_null() {
            return Some(Format::Text);
        }
        let formats = std::slice::from_raw_parts((*portal).formats, columns);
        match formats.first()? {
            0 if formats.iter().all(|format| *format == 0) => Some(Format::Text),
            1 if formats.iter().all(|format| *format == 1) => Some(Format::Binary),
            _ => None,
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn start(
    receiver: *mut DestReceiver,
    operation: c_int,
    columns: pg_sys::TupleDesc,
) {
    // SAFETY: called by the executor with a receiver of ours.
    unsafe {
        let client = (*receiver.cast::<Receiver>()).client;
        if let Some(start) = (*client).rStartup {
            pg_sys::ffi::pg_guard_ffi_boundary(|| start(client, operation, columns));
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn shut_down(receiver: *mut DestReceiver) {
    // SAFETY: as above.
    unsafe {
        let client = (*receiver.cast::<Receiver>()).client;
        if let Some(shut_down) = (*client).rShutdown {
            pg_sys::ffi::pg_guard_ffi_boundary(|| shut_down(client));
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn receive(
    slot: *mut pg_sys::TupleTableSlot,
    receiver: *mut DestReceiver,
) -> bool {
    // SAFETY: as above; the scan lives as long as its query.
    unsafe {
        let receiver = &mut *receiver.cast::<Receiver>();
        let Some(row) = (*receiver.scan).forwarded() else {
            let client = receiver.client;
            return match (*client).receiveSlot {
                Some(receive) => pg_sys::ffi::pg_guard_ffi_boundary(|| receive(slot, client)),
                None => false,
            };
        };
        let body = row.body().unwrap_or_else(|| {
            receiver.body.clear();
            encode::binary_row(row.len(), &mut receiver.body);
            for column in 0..row.len() {
                encode::binary_field(row.get(column), &mut receiver.body);
            }
            &receiver.body
        });
        let mut message: pg_sys::StringInfoData = std::mem::zeroed();
        message.data = body.as_ptr().cast_mut().cast::<c_char>(); // read only
        message.len = body.len() as c_int;
        message.maxlen = message.len;
        message.cursor = c_int::from(b'D'); // where pq_endmessage finds the type
        pg_sys::pq_endmessage_reuse(&mut message);
        true
    }
}
