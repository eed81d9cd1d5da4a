//! libpq, made safe to hold: owned connections and results, slices instead of pointers, sum types instead of codes.

use pq_sys as pq;
use std::ffi::{c_char, c_int, c_void, CStr, CString};
use std::ptr::NonNull;

/// An open libpq connection; closed (with Terminate, without waiting) when dropped.
pub struct PgConn(NonNull<pq::PGconn>);

/// What `PQconnectPoll` wants next.
pub enum Polling {
    Reading,
    Writing,
    Done,
    Failed,
}

/// What is left of the output after a flush.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Flush {
    Sent,
    Pending,
    Failed,
}

/// The transaction on the other side as of its last ReadyForQuery.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RemoteState {
    Idle,
    Active,
    InTransaction,
    Aborted,
    Unknown,
}

/// Parameters laid out as libpq wants them; reused from statement to statement.
#[derive(Default)]
pub struct WireParams {
    bytes: Vec<u8>,
    starts: Vec<Option<usize>>,
    pointers: Vec<*const c_char>,
    lengths: Vec<c_int>,
    formats: Vec<c_int>,
}

impl WireParams {
    /// Copies the parameters: libpq wants text values to end with a NUL.
    pub fn fill(&mut self, params: &super::Params) {
        self.bytes.clear();
        self.starts.clear();
        self.pointers.clear();
        self.lengths.clear();
        self.formats.clear();
        for (i, value) in params.values.iter().enumerate() {
            let binary = params.formats.get(i) == Some(&super::Format::Binary);
            self.formats.push(c_int::from(binary));
            match value {
                Some(value) => {
                    self.starts.push(Some(self.bytes.len()));
                    self.lengths.push(value.len() as c_int);
                    self.bytes.extend_from_slice(value);
                    self.bytes.push(0);
                }
                None => {
                    self.starts.push(None);
                    self.lengths.push(0);
                }
            }
        }
        let base = self.bytes.as_ptr().cast::<c_char>();
        self.pointers
            .extend(self.starts.iter().map(|start| match start {
                // SAFETY: each start lies inside `bytes`, which does not grow any more.
                Some(start) => unsafe { base.add(*start) },
                None => std::ptr::null(),
            }));
    }

    fn count(&self) -> c_int {
        self.pointers.len() as c_int
    }
}

// SAFETY, for all calls below: the pointer is a live PGconn until Drop, used by one thread, and libpq neither keeps
// the arguments after it returns nor raises anything.
impl PgConn {
    /// Begins to connect without blocking (but for name resolution). `None`: out of memory.
    pub fn start(keywords: &[(String, String)]) -> Option<PgConn> {
        let c_strings = |pick: fn(&(String, String)) -> &str| -> Vec<CString> {
            keywords
                .iter()
                .map(|pair| CString::new(pick(pair)).unwrap_or_default())
                .collect()
        };
        let names = c_strings(|pair| &pair.0);
        let values = c_strings(|pair| &pair.1);
        let pointers = |strings: &[CString]| -> Vec<*const c_char> {
            strings
                .iter()
                .map(|s| s.as_ptr())
                .chain(std::iter::once(std::ptr::null()))
                .collect()
        };
        let (names_c, values_c) = (pointers(&names), pointers(&values));
        // SAFETY: two NULL-terminated arrays of equal length, copied by libpq.
        let conn = unsafe { pq::PQconnectStartParams(names_c.as_ptr(), values_c.as_ptr(), 0) };
        NonNull::new(conn).map(PgConn)
    }

    fn raw(&self) -> *mut pq::PGconn {
        self.0.as_ptr()
    }

    pub fn poll(&mut self) -> Polling {
        use pq::PostgresPollingStatusType as P;
        match unsafe { pq::PQconnectPoll(self.raw()) } {
            P::PGRES_POLLING_OK => Polling::Done,
            P::PGRES_POLLING_READING => Polling::Reading,
            P::PGRES_POLLING_WRITING | P::PGRES_POLLING_ACTIVE => Polling::Writing,
            P::PGRES_POLLING_FAILED => Polling::Failed,
        }
    }

    pub fn is_bad(&self) -> bool {
        // The enum of pq-sys may lack states of newer libraries, so the number is compared.
        unsafe { pq::PQstatus(self.raw()) as u32 == pq::ConnStatusType::CONNECTION_BAD as u32 }
    }

    /// As `server_version_num`.
    pub fn server_version(&self) -> i32 {
        // SAFETY: an established connection.
        unsafe { pq::PQserverVersion(self.raw()) }
    }

    pub fn socket(&self) -> c_int {
        unsafe { pq::PQsocket(self.raw()) }
    }

    /// The server process on the other side; 0 when it is not known.
    pub fn backend_pid(&self) -> c_int {
        unsafe { pq::PQbackendPID(self.raw()) }
    }

    /// The text of the last error, trimmed. libpq never puts a password into it.
    pub fn error_message(&self) -> String {
        // SAFETY: never NULL, NUL-terminated, valid until the next call.
        let text = unsafe { CStr::from_ptr(pq::PQerrorMessage(self.raw())) };
        text.to_string_lossy().trim().to_string()
    }

    pub fn state(&self) -> RemoteState {
        use pq::PGTransactionStatusType as S;
        match unsafe { pq::PQtransactionStatus(self.raw()) } {
            S::PQTRANS_IDLE => RemoteState::Idle,
            S::PQTRANS_ACTIVE => RemoteState::Active,
            S::PQTRANS_INTRANS => RemoteState::InTransaction,
            S::PQTRANS_INERROR => RemoteState::Aborted,
            S::PQTRANS_UNKNOWN => RemoteState::Unknown,
        }
    }

    pub fn set_nonblocking(&mut self) -> bool {
        unsafe { pq::PQsetnonblocking(self.raw(), 1) == 0 }
    }

    pub fn enter_pipeline(&mut self) -> bool {
        unsafe { pq::PQenterPipelineMode(self.raw()) == 1 }
    }

    /// False while anything sent is unanswered or any answer is unread.
    pub fn exit_pipeline(&mut self) -> bool {
        unsafe { pq::PQexitPipelineMode(self.raw()) == 1 }
    }

    pub fn is_busy(&mut self) -> bool {
        unsafe { pq::PQisBusy(self.raw()) == 1 }
    }

    pub fn consume_input(&mut self) -> bool {
        unsafe { pq::PQconsumeInput(self.raw()) == 1 }
    }

    pub fn flush(&mut self) -> Flush {
        match unsafe { pq::PQflush(self.raw()) } {
            0 => Flush::Sent,
            1 => Flush::Pending,
            _ => Flush::Failed,
        }
    }

    pub fn result(&mut self) -> Option<PgResult> {
        NonNull::new(unsafe { pq::PQgetResult(self.raw()) }).map(PgResult)
    }

    /// Rows of the query at the head of the pipeline come one by one. No effect once rows have arrived.
    pub fn single_row(&mut self) {
        unsafe { pq::PQsetSingleRowMode(self.raw()) };
    }

    pub fn sync(&mut self) -> bool {
        unsafe { pq::PQpipelineSync(self.raw()) == 1 }
    }

    pub fn request_flush(&mut self) -> bool {
        unsafe { pq::PQsendFlushRequest(self.raw()) == 1 }
    }

    /// One or more statements, simple protocol; not in pipeline mode.
    pub fn send_simple(&mut self, sql: &CStr) -> bool {
        unsafe { pq::PQsendQuery(self.raw(), sql.as_ptr()) == 1 }
    }

    pub fn send_prepare(&mut self, name: &CStr, sql: &CStr, types: &[pq::Oid]) -> bool {
        unsafe {
            pq::PQsendPrepare(
                self.raw(),
                name.as_ptr(),
                sql.as_ptr(),
                types.len() as c_int,
                types.as_ptr(),
            ) == 1
        }
    }

    pub fn send_prepared(&mut self, name: &CStr, params: &WireParams, binary: bool) -> bool {
        unsafe {
            pq::PQsendQueryPrepared(
                self.raw(),
                name.as_ptr(),
                params.count(),
                params.pointers.as_ptr(),
                params.lengths.as_ptr(),
                params.formats.as_ptr(),
                c_int::from(binary),
            ) == 1
        }
    }

    /// `types` is empty or has one per parameter.
    pub fn send_query(
        &mut self,
        sql: &CStr,
        types: &[pq::Oid],
        params: &WireParams,
        binary: bool,
    ) -> bool {
        let types = if types.is_empty() {
            std::ptr::null()
        } else {
            types.as_ptr()
        };
        unsafe {
            pq::PQsendQueryParams(
                self.raw(),
                sql.as_ptr(),
                params.count(),
                types,
                params.pointers.as_ptr(),
                params.lengths.as_ptr(),
                params.formats.as_ptr(),
                c_int::from(binary),
            ) == 1
        }
    }

    pub fn put_copy(&mut self, bytes: &[u8]) -> Flush {
        match unsafe { pq::PQputCopyData(self.raw(), bytes.as_ptr().cast(), bytes.len() as c_int) }
        {
            1 => Flush::Sent,
            0 => Flush::Pending,
            _ => Flush::Failed,
        }
    }

    /// The next message of COPY TO STDOUT, as far as it has arrived.
    pub fn get_copy(&mut self) -> CopyOut {
        let mut bytes: *mut c_char = std::ptr::null_mut();
        match unsafe { pq::PQgetCopyData(self.raw(), &mut bytes, 1) } {
            0 => CopyOut::NeedsInput,
            length if length > 0 => match NonNull::new(bytes) {
                Some(start) => CopyOut::Data(CopyData(start.cast(), length as usize)),
                None => CopyOut::Ended,
            },
            // -1: the end; -2: an error. The result that follows tells which.
            _ => CopyOut::Ended,
        }
    }

    /// Ends COPY; with a reason, makes the node fail it.
    pub fn put_copy_end(&mut self, failure: Option<&CStr>) -> Flush {
        let reason = failure.map_or(std::ptr::null(), CStr::as_ptr);
        match unsafe { pq::PQputCopyEnd(self.raw(), reason) } {
            1 => Flush::Sent,
            0 => Flush::Pending,
            _ => Flush::Failed,
        }
    }

    /// Notices go to `receiver(arg, notice)`, which must not unwind.
    pub fn set_notice_receiver(
        &mut self,
        receiver: unsafe extern "C" fn(*mut c_void, *const pq::PGresult),
        arg: *mut c_void,
    ) {
        unsafe { pq::PQsetNoticeReceiver(self.raw(), Some(receiver), arg) };
    }

    /// What a cancel request needs; usable from any thread, also after the connection has gone.
    pub fn canceller(&self) -> Option<Canceller> {
        NonNull::new(unsafe { pq::PQgetCancel(self.raw()) }).map(Canceller)
    }
}

impl Drop for PgConn {
    fn drop(&mut self) {
        // SAFETY: nobody else holds the pointer.
        unsafe { pq::PQfinish(self.raw()) }
    }
}

/// A copy of a connection's address and cancel key.
pub struct Canceller(NonNull<pq::PGcancel>);

// SAFETY: PQcancel works on its own copy and is documented as thread-safe.
unsafe impl Send for Canceller {}
// SAFETY: the same; `cancel` only reads.
unsafe impl Sync for Canceller {}

impl Canceller {
    /// Asks the node to cancel what the connection is doing. Blocks for one short connection.
    pub fn cancel(&self) -> bool {
        let mut message = [0 as c_char; 256];
        // SAFETY: the buffer is as long as said.
        unsafe { pq::PQcancel(self.0.as_ptr(), message.as_mut_ptr(), 256) == 1 }
    }
}

impl Drop for Canceller {
    fn drop(&mut self) {
        // SAFETY: owned.
        unsafe { pq::PQfreeCancel(self.0.as_ptr()) }
    }
}

/// An owned result.
pub struct PgResult(NonNull<pq::PGresult>);

/// What `PgConn::get_copy` found.
pub enum CopyOut {
    Data(CopyData),
    NeedsInput,
    Ended,
}

/// One message of COPY TO STDOUT, in libpq's memory.
pub struct CopyData(NonNull<u8>, usize);

impl CopyData {
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: PQgetCopyData allocated that many bytes, which nobody writes to.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr(), self.1) }
    }
}

impl Drop for CopyData {
    fn drop(&mut self) {
        // SAFETY: nobody else holds the pointer.
        unsafe { pq::PQfreemem(self.0.as_ptr().cast()) }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ResultStatus {
    /// A command without rows is done, or the last message of a single-row result without rows.
    Done,
    /// The end of a result, with the rows that were not handed out before.
    Rows,
    SingleRow,
    CopyIn,
    CopyOut,
    /// Replication, which nothing here starts.
    CopyOther,
    Synced,
    Skipped,
    Error,
}

/// Fields of an error or notice message, by their codes in the protocol.
pub mod field {
    pub const SEVERITY: u8 = b'V';
    pub const SQLSTATE: u8 = b'C';
    pub const MESSAGE: u8 = b'M';
    pub const DETAIL: u8 = b'D';
    pub const HINT: u8 = b'H';
    pub const CONTEXT: u8 = b'W';
    pub const SCHEMA: u8 = b's';
    pub const TABLE: u8 = b't';
    pub const COLUMN: u8 = b'c';
    pub const DATATYPE: u8 = b'd';
    pub const CONSTRAINT: u8 = b'n';
    pub const ROUTINE: u8 = b'R';
}

/// A text field of a result that libpq owns, for instance of a notice.
///
/// # Safety
/// `result` is a valid PGresult.
pub unsafe fn error_field(result: *const pq::PGresult, code: u8) -> Option<String> {
    let text = pq::PQresultErrorField(result, c_int::from(code));
    (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned())
}

// SAFETY, for all calls below: the pointer is a live PGresult until Drop.
impl PgResult {
    fn raw(&self) -> *mut pq::PGresult {
        self.0.as_ptr()
    }

    pub fn status(&self) -> ResultStatus {
        use pq::ExecStatusType as S;
        match unsafe { pq::PQresultStatus(self.raw()) } {
            S::PGRES_EMPTY_QUERY | S::PGRES_COMMAND_OK => ResultStatus::Done,
            S::PGRES_TUPLES_OK => ResultStatus::Rows,
            S::PGRES_SINGLE_TUPLE | S::PGRES_TUPLES_CHUNK => ResultStatus::SingleRow,
            S::PGRES_COPY_IN => ResultStatus::CopyIn,
            S::PGRES_COPY_OUT => ResultStatus::CopyOut,
            S::PGRES_COPY_BOTH => ResultStatus::CopyOther,
            S::PGRES_PIPELINE_SYNC => ResultStatus::Synced,
            S::PGRES_PIPELINE_ABORTED => ResultStatus::Skipped,
            S::PGRES_BAD_RESPONSE | S::PGRES_NONFATAL_ERROR | S::PGRES_FATAL_ERROR => {
                ResultStatus::Error
            }
        }
    }

    pub fn error_field(&self, code: u8) -> Option<String> {
        // SAFETY: a live result.
        unsafe { error_field(self.raw(), code) }
    }

    pub fn error_message(&self) -> String {
        // SAFETY: never NULL, lives as long as the result.
        let text = unsafe { CStr::from_ptr(pq::PQresultErrorMessage(self.raw())) };
        text.to_string_lossy().trim().to_string()
    }

    /// The number in the command tag, 0 without one.
    pub fn affected(&self) -> u64 {
        // SAFETY: never NULL, lives as long as the result.
        let text = unsafe { CStr::from_ptr(pq::PQcmdTuples(self.raw())) };
        text.to_str().ok().and_then(|t| t.parse().ok()).unwrap_or(0)
    }

    pub fn rows(&self) -> usize {
        unsafe { pq::PQntuples(self.raw()) as usize }
    }

    pub fn columns(&self) -> usize {
        unsafe { pq::PQnfields(self.raw()) as usize }
    }

    /// A value; `None` for NULL. `row` and `column` must exist.
    pub fn value(&self, row: usize, column: usize) -> Option<&[u8]> {
        let (row, column) = (row as c_int, column as c_int);
        // SAFETY: libpq's rows are never written after they were received; they live as long as the result.
        unsafe {
            let length = pq::PQgetlength(self.raw(), row, column);
            if length == 0 && pq::PQgetisnull(self.raw(), row, column) == 1 {
                return None;
            }
            let start = pq::PQgetvalue(self.raw(), row, column).cast::<u8>();
            Some(std::slice::from_raw_parts(start, length as usize))
        }
    }
}

impl Drop for PgResult {
    fn drop(&mut self) {
        // SAFETY: nobody else holds the pointer.
        unsafe { pq::PQclear(self.raw()) }
    }
}
