//! Connection options of a node: those of its foreign server and of the session user's mapping.

use crate::catalog::NodeId;
use crate::error::Result;
use pgrx::pg_sys;
use pgrx::pg_sys::Oid;
use std::ffi::{c_char, CStr};
use std::rc::Rc;

/// libpq keywords and values. Never shown to users: a value may be a password.
#[derive(Clone, Default)]
pub struct ConnectOptions {
    pub keywords: Keywords,
}

type Keywords = Vec<(String, String)>;

/// Hash values of the syscache entries that options came from: the foreign server's and the user mapping's (0: none).
pub type Origin = (u32, u32);

/// What the session adds; options of the server or the mapping come later in the list and win.
const RESERVED: [&str; 3] = [
    "client_encoding",
    "fallback_application_name",
    "replication",
];

impl ConnectOptions {
    /// The options to reach a foreign server as the session user: the server's, then those of the user's mapping,
    /// else of PUBLIC's; without a mapping the user is the session user's name.
    pub fn of_server(server: Oid) -> Result<ConnectOptions> {
        Ok(ConnectOptions::of_server_with_origin(server)?.0)
    }

    /// The same as another user of this server.
    pub fn of_server_for(server: Oid, user: Oid) -> Result<ConnectOptions> {
        Ok(ConnectOptions::of_user(server, user)?.0)
    }

    /// The options to log in at a foreign server as the role `login` of that server: those of a mapping that names it,
    /// else those of the local role of that name.
    pub fn of_server_as(server: Oid, login: &str) -> Result<ConnectOptions> {
        for user in mapped_users(server) {
            let (options, _) = ConnectOptions::of_user(server, user)?;
            if options
                .keywords
                .iter()
                .any(|(k, v)| k == "user" && v == login)
            {
                return Ok(options);
            }
        }
        let name = std::ffi::CString::new(login).unwrap_or_default();
        // SAFETY: looks a name up.
        let user = unsafe { pg_sys::get_role_oid(name.as_ptr(), true) };
        Ok(ConnectOptions::of_user(server, user)?.0)
    }

    pub(super) fn of_server_with_origin(server: Oid) -> Result<(ConnectOptions, Origin)> {
        // SAFETY: reads a variable.
        ConnectOptions::of_user(server, unsafe { pg_sys::GetSessionUserId() })
    }

    fn of_user(server: Oid, user: Oid) -> Result<(ConnectOptions, Origin)> {
        let mut keywords = Vec::new();
        // SAFETY: GetForeignServer raises for an unknown oid; its answer is a copy in the current memory context.
        let (server_hash, mapping) = unsafe {
            let foreign = pg_sys::GetForeignServer(server);
            push_options(&mut keywords, (*foreign).options);
            let hash = pg_sys::GetSysCacheHashValue(
                pg_sys::SysCacheIdentifier::FOREIGNSERVEROID as i32,
                server.into(),
                0.into(),
                0.into(),
                0.into(),
            );
            (hash, mapping_of(user, server)?)
        };
        let mapping_hash = match mapping {
            Some((options, hash)) => {
                keywords.extend(options);
                hash
            }
            None => 0,
        };
        if !keywords.iter().any(|(k, _)| k == "user") {
            // SAFETY: the role exists as long as its session; the name is copied.
            let name = unsafe { text(pg_sys::GetUserNameFromId(user, false)) };
            keywords.push(("user".into(), name));
        }
        Ok((ConnectOptions { keywords }, (server_hash, mapping_hash)))
    }

    /// Whether the login at the node has the name of the session user here.
    pub(super) fn is_login_of_session(&self) -> bool {
        // SAFETY: the session's role exists; the name is copied.
        let own = unsafe { text(pg_sys::GetUserNameFromId(pg_sys::GetSessionUserId(), true)) };
        let login = self.keywords.iter().rev().find(|(k, _)| k == "user");
        login.is_some_and(|(_, login)| *login == own)
    }

    /// "host:port/dbname", as far as given, for errors about a node that has no name yet.
    pub(super) fn place(&self) -> String {
        let get = |keyword: &str| {
            let pair = self.keywords.iter().rev().find(|(k, _)| k == keyword);
            pair.map_or("", |(_, value)| value.as_str())
        };
        let host = if get("host").is_empty() {
            get("hostaddr")
        } else {
            get("host")
        };
        let port = if get("port").is_empty() {
            "5432"
        } else {
            get("port")
        };
        format!("{host}:{port}/{}", get("dbname"))
    }

    /// With what every connection of a session needs: the encoding here, and a name to recognise it by.
    pub(super) fn for_session(&self) -> Result<Vec<(String, String)>> {
        // SAFETY: a static string, and variables of this process.
        let (encoding, pid) =
            unsafe { (text(pg_sys::GetDatabaseEncodingName()), pg_sys::MyProcPid) };
        let mut keywords = vec![(
            "fallback_application_name".to_string(),
            format!("shard_ext coordinator backend {pid}"),
        )];
        keywords.extend(
            self.keywords
                .iter()
                .filter(|(k, _)| !RESERVED.contains(&k.as_str()))
                .cloned(),
        );
        keywords.push(("client_encoding".into(), encoding));
        Ok(keywords)
    }
}

/// # Safety
/// NULL or a NUL-terminated string.
unsafe fn text(pointer: *const c_char) -> String {
    if pointer.is_null() {
        String::new()
    } else {
        CStr::from_ptr(pointer).to_string_lossy().into_owned()
    }
}

/// # Safety
/// NIL or a list of DefElem.
unsafe fn push_options(keywords: &mut Vec<(String, String)>, options: *mut pg_sys::List) {
    if options.is_null() {
        return;
    }
    let cells = std::slice::from_raw_parts((*options).elements, (*options).length as usize);
    for cell in cells {
        let element = cell.ptr_value.cast::<pg_sys::DefElem>();
        let value = text(pg_sys::defGetString(element));
        keywords.push((text((*element).defname), value));
    }
}

/// Options of the user's mapping, else of PUBLIC's, with the hash value of its syscache entry.
///
/// # Safety
/// Only that a transaction is open.
unsafe fn mapping_of(user: Oid, server: Oid) -> Result<Option<(Keywords, u32)>> {
    let cache = pg_sys::SysCacheIdentifier::USERMAPPINGUSERSERVER as i32;
    let none = pg_sys::Datum::from(0);
    for user in [user, Oid::INVALID] {
        let tuple = pg_sys::SearchSysCache(cache, user.into(), server.into(), none, none);
        if tuple.is_null() {
            continue;
        }
        let form = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_user_mapping>();
        let id = (*form).oid;
        let mut is_null = false;
        let datum = pg_sys::SysCacheGetAttr(
            cache,
            tuple,
            pg_sys::Anum_pg_user_mapping_umoptions as i16,
            &mut is_null,
        );
        let mut keywords = Vec::new();
        if !is_null {
            push_options(&mut keywords, pg_sys::untransformRelOptions(datum));
        }
        pg_sys::ReleaseSysCache(tuple);
        let hash = pg_sys::GetSysCacheHashValue(
            pg_sys::SysCacheIdentifier::USERMAPPINGOID as i32,
            id.into(),
            none,
            none,
            none,
        );
        return Ok(Some((keywords, hash)));
    }
    Ok(None)
}

/// The users that have a mapping for a server; invalid for PUBLIC.
fn mapped_users(server: Oid) -> Vec<Oid> {
    let mut users = Vec::new();
    let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
    // SAFETY: a scan of a catalog, as genam.c documents it.
    unsafe {
        let relation = pg_sys::table_open(pg_sys::UserMappingRelationId, lock);
        let none = std::ptr::null_mut();
        let scan = pg_sys::systable_beginscan(
            relation,
            Oid::INVALID,
            false,
            none,
            0,
            std::ptr::null_mut(),
        );
        loop {
            let tuple = pg_sys::systable_getnext(scan);
            if tuple.is_null() {
                break;
            }
            let row = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_user_mapping>();
            if (*row).umserver == server {
                users.push((*row).umuser);
            }
        }
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(relation, lock);
    }
    users
}

/// The foreign server of a node, and the node's name.
pub(super) fn server_of(node: NodeId) -> Result<(Oid, Rc<str>)> {
    let node = crate::catalog::node(node)?;
    Ok((node.server, node.name.as_str().into()))
}
