//! The foreign server of a node: making it, dropping it, reading where it points.

use pgrx::pg_sys;
use serde_json::{Map, Value};
use std::ffi::{CStr, CString};

use super::wrapper::known_options;
use crate::catalog::Node;
use crate::error::{sqlstate, Error, Result};

const WRAPPER: &CStr = c"shard_ext";

/// What `add_node` was given.
pub struct NewServer<'a> {
    pub name: &'a str,
    pub host: Option<&'a str>,
    pub port: Option<i32>,
    pub dbname: Option<&'a str>,
    /// Further connection options; those of a user mapping make one for the session user.
    pub options: &'a Map<String, Value>,
}

impl NewServer<'_> {
    /// Nothing but a name: the server is there already.
    fn is_name_only(&self) -> bool {
        self.host.is_none()
            && self.port.is_none()
            && self.dbname.is_none()
            && self.options.is_empty()
    }

    /// The server of that name: made from the options, or one that an administrator (or a dump) made.
    pub fn find_or_create(&self) -> Result<pg_sys::Oid> {
        check_name(self.name)?;
        let name = c_string(self.name)?;
        // SAFETY: a look-up by a C string; the server is palloc'd.
        let existing = unsafe { pg_sys::GetForeignServerByName(name.as_ptr(), true).as_ref() };
        match existing {
            Some(server) => self.adopt(server),
            None => self.create(&name),
        }
    }

    fn adopt(&self, server: &pg_sys::ForeignServer) -> Result<pg_sys::Oid> {
        // SAFETY: plain look-ups.
        let (wrapper, owned) = unsafe {
            (
                pg_sys::get_foreign_data_wrapper_oid(WRAPPER.as_ptr(), false),
                pg_sys::pg_foreign_server_ownercheck(server.serverid, pg_sys::GetUserId()),
            )
        };
        if server.fdwid != wrapper {
            return Err(Error::new(
                sqlstate::DUPLICATE_OBJECT,
                format!("server \"{}\" already exists", self.name),
            )
            .detail("It is a server of another foreign-data wrapper.")
            .hint("Choose another name for the node."));
        }
        if !owned {
            return Err(Error::new(
                sqlstate::INSUFFICIENT_PRIVILEGE,
                format!("must be owner of foreign server {}", self.name),
            ));
        }
        if !self.is_name_only() {
            return Err(Error::new(
                sqlstate::DUPLICATE_OBJECT,
                format!("server \"{}\" already exists", self.name),
            )
            .hint(format!(
                "Change its options with ALTER SERVER and call shard_ext.add_node({}) without options, \
                 or choose another name.",
                quote_literal(self.name)
            )));
        }
        Ok(server.serverid)
    }

    fn create(&self, name: &CStr) -> Result<pg_sys::Oid> {
        let (server, user) = self.split_options()?;
        // SAFETY: statements as the parser would make them; everything in them is palloc'd. Privileges and
        // options are checked as for CREATE SERVER and CREATE USER MAPPING.
        unsafe {
            let name = pg_sys::pstrdup(name.as_ptr());
            let stmt = pg_sys::palloc0(size_of::<pg_sys::CreateForeignServerStmt>())
                .cast::<pg_sys::CreateForeignServerStmt>();
            (*stmt).type_ = pg_sys::NodeTag::T_CreateForeignServerStmt;
            (*stmt).servername = name;
            (*stmt).fdwname = pg_sys::pstrdup(WRAPPER.as_ptr());
            (*stmt).options = def_list(&server)?;
            let address = pg_sys::CreateForeignServer(stmt);
            pg_sys::CommandCounterIncrement();
            if !user.is_empty() {
                let role =
                    pg_sys::palloc0(size_of::<pg_sys::RoleSpec>()).cast::<pg_sys::RoleSpec>();
                (*role).type_ = pg_sys::NodeTag::T_RoleSpec;
                (*role).roletype = pg_sys::RoleSpecType::ROLESPEC_SESSION_USER;
                (*role).location = -1;
                let stmt = pg_sys::palloc0(size_of::<pg_sys::CreateUserMappingStmt>())
                    .cast::<pg_sys::CreateUserMappingStmt>();
                (*stmt).type_ = pg_sys::NodeTag::T_CreateUserMappingStmt;
                (*stmt).user = role;
                (*stmt).servername = name;
                (*stmt).options = def_list(&user)?;
                pg_sys::CreateUserMapping(stmt);
                pg_sys::CommandCounterIncrement();
            }
            Ok(address.objectId)
        }
    }

    /// The options of the server and those of the user mapping.
    fn split_options(&self) -> Result<(Vec<Pair>, Vec<Pair>)> {
        let known = known_options()?;
        let mut server: Vec<Pair> = Vec::new();
        let mut user: Vec<Pair> = Vec::new();
        if let Some(host) = self.host {
            server.push(("host".into(), host.into()));
        }
        if let Some(port) = self.port {
            server.push(("port".into(), port.to_string()));
        }
        if let Some(dbname) = self.dbname {
            server.push(("dbname".into(), dbname.into()));
        }
        for (name, value) in self.options {
            let value = match value {
                Value::String(text) => text.clone(),
                Value::Number(number) => number.to_string(),
                Value::Bool(truth) => i32::from(*truth).to_string(),
                _ => {
                    return Err(Error::new(
                        sqlstate::INVALID_PARAMETER_VALUE,
                        format!(
                            "option \"{name}\" of node \"{}\" is not text or a number",
                            self.name
                        ),
                    ))
                }
            };
            if server.iter().any(|(taken, _)| taken == name) {
                return Err(Error::new(
                    sqlstate::INVALID_PARAMETER_VALUE,
                    format!("\"{name}\" of node \"{}\" is given twice", self.name),
                )
                .hint("Give it either as an argument or among the options."));
            }
            let of_user = known
                .iter()
                .any(|known| known.keyword == *name && !known.of_server);
            // What is no option at all is told by the validator of the server.
            if of_user { &mut user } else { &mut server }.push((name.clone(), value));
        }
        // libpq would take the user's name.
        if !server
            .iter()
            .any(|(name, _)| name == "dbname" || name == "service")
        {
            server.push(("dbname".into(), current_database()));
        }
        Ok((server, user))
    }
}

type Pair = (String, String);

/// A list of DefElem.
///
/// # Safety
/// In a memory context that outlives the list's use.
unsafe fn def_list(options: &[Pair]) -> Result<*mut pg_sys::List> {
    let mut list: *mut pg_sys::List = std::ptr::null_mut();
    for (name, value) in options {
        let name = pg_sys::pstrdup(c_string(name)?.as_ptr());
        let value = pg_sys::makeString(pg_sys::pstrdup(c_string(value)?.as_ptr()));
        list = pg_sys::lappend(list, pg_sys::makeDefElem(name, value.cast(), -1).cast());
    }
    Ok(list)
}

fn check_name(name: &str) -> Result<()> {
    let limit = pg_sys::NAMEDATALEN as usize - 1;
    if name.is_empty() {
        return Err(Error::new(
            sqlstate::INVALID_PARAMETER_VALUE,
            "the name of a node must not be empty",
        ));
    }
    if name.len() > limit {
        return Err(Error::new(
            sqlstate::NAME_TOO_LONG,
            format!("the name of a node must not be longer than {limit} bytes"),
        )
        .detail(format!("\"{name}\" has {}.", name.len())));
    }
    Ok(())
}

/// Drops the server with its user mappings.
pub fn drop_server(server: pg_sys::Oid) {
    let address = pg_sys::ObjectAddress {
        classId: pg_sys::ForeignServerRelationId,
        objectId: server,
        objectSubId: 0,
    };
    // SAFETY: the address of an existing object; what depends on it are its user mappings.
    unsafe {
        pg_sys::performDeletion(
            &address,
            pg_sys::DropBehavior::DROP_CASCADE,
            pg_sys::PERFORM_DELETION_QUIETLY as i32,
        );
        pg_sys::CommandCounterIncrement();
    }
}

/// Where a server's options point; none: libpq's default.
#[derive(Default)]
pub struct Endpoint {
    pub host: Option<String>,
    pub port: Option<String>,
    pub dbname: Option<String>,
}

pub fn endpoint(node: &Node) -> Endpoint {
    let mut endpoint = Endpoint::default();
    for (name, value) in options(node.server) {
        match name.as_str() {
            "host" => endpoint.host = Some(value),
            "hostaddr" if endpoint.host.is_none() => endpoint.host = Some(value),
            "port" => endpoint.port = Some(value),
            "dbname" => endpoint.dbname = Some(value),
            _ => {}
        }
    }
    endpoint
}

/// The options of a server, as pairs of name and value.
fn options(server: pg_sys::Oid) -> Vec<Pair> {
    if server == pg_sys::InvalidOid {
        return Vec::new();
    }
    // SAFETY: a syscache look-up; its options are a List of DefElem with String values.
    unsafe {
        let server = pg_sys::GetForeignServer(server);
        let options = (*server).options;
        let length = options.as_ref().map_or(0, |list| list.length);
        (0..length)
            .map(|i| {
                let def = (*(*options).elements.add(i as usize))
                    .ptr_value
                    .cast::<pg_sys::DefElem>();
                (
                    CStr::from_ptr((*def).defname)
                        .to_string_lossy()
                        .into_owned(),
                    CStr::from_ptr(pg_sys::defGetString(def))
                        .to_string_lossy()
                        .into_owned(),
                )
            })
            .collect()
    }
}

pub fn current_database() -> String {
    // SAFETY: the database of the session exists; the name is palloc'd.
    unsafe { CStr::from_ptr(pg_sys::get_database_name(pg_sys::MyDatabaseId)) }
        .to_string_lossy()
        .into_owned()
}

fn c_string(text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| {
        Error::new(
            sqlstate::INVALID_PARAMETER_VALUE,
            "connection options must not contain a NUL character",
        )
    })
}

pub fn quote_literal(text: &str) -> String {
    pgrx::spi::quote_literal(text)
}
