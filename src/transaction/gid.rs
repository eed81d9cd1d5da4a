//! The global identifier of a transaction prepared on a node.

use crate::catalog::NodeId;
use pgrx::pg_sys;
use std::fmt;
use std::str::FromStr;

/// Names the coordinator's database, the transaction in it, and the node. A crash may lose a transaction id that nodes
/// have seen already, and the server then gives it to another transaction; the random part tells them apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gid {
    pub system: u64,
    pub database: u32,
    /// The coordinator's full transaction id.
    pub transaction: u64,
    pub node: NodeId,
    pub random: u32,
}

const PREFIX: &str = "shard_ext_";

impl Gid {
    /// For the current transaction, which gets a transaction id if it has none.
    pub fn of_current_transaction(node: NodeId) -> Gid {
        let mut random = [0u8; 4];
        // SAFETY: in a transaction; assigns an id at most. The buffer is as long as said.
        let transaction = unsafe {
            pg_sys::pg_strong_random(random.as_mut_ptr().cast(), random.len());
            pg_sys::GetTopFullTransactionId().value
        };
        let (system, database) = here();
        Gid {
            system,
            database,
            transaction,
            node,
            random: u32::from_ne_bytes(random),
        }
    }

    /// A LIKE pattern for all gids of this database.
    pub fn pattern() -> String {
        let (system, database) = here();
        format!("{PREFIX}{system}_{database}_%").replace('_', "\\_")
    }

    pub fn is_of_this_database(&self) -> bool {
        (self.system, self.database) == here()
    }
}

/// The system identifier and the database's oid.
fn here() -> (u64, u32) {
    // SAFETY: reads shared memory and a variable.
    unsafe { (pg_sys::GetSystemIdentifier(), pg_sys::MyDatabaseId.to_u32()) }
}

impl fmt::Display for Gid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Gid {
            system,
            database,
            transaction,
            node,
            random,
        } = self;
        write!(
            f,
            "{PREFIX}{system}_{database}_{transaction}_{node}_{random}"
        )
    }
}

impl FromStr for Gid {
    type Err = ();

    fn from_str(text: &str) -> Result<Gid, ()> {
        fn number<T: FromStr>(text: Option<&str>) -> Result<T, ()> {
            text.and_then(|t| t.parse().ok()).ok_or(())
        }
        let mut parts = text.strip_prefix(PREFIX).ok_or(())?.split('_');
        let gid = Gid {
            system: number(parts.next())?,
            database: number(parts.next())?,
            transaction: number(parts.next())?,
            node: number(parts.next())?,
            random: number(parts.next())?,
        };
        // only what `Display` writes is ours
        if parts.next().is_none() && gid.to_string() == text {
            Ok(gid)
        } else {
            Err(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Gid;

    #[test]
    fn a_gid_is_read_as_it_is_written() {
        for random in [0, u32::MAX] {
            let gid = Gid {
                system: 7_300_000_000_000_000_001,
                database: 16384,
                transaction: 1 << 33,
                node: 3,
                random,
            };
            assert_eq!(gid.to_string().parse(), Ok(gid));
        }
    }

    #[test]
    fn nothing_else_is_a_gid() {
        for text in [
            "",
            "shard_ext_",
            "shard_ext_1_2_3",
            "shard_ext_1_2_3_4",
            "shard_ext_1_2_3_x_5",
            "shard_ext_1_2_3_4_5_6",
            "shard_ext_01_2_3_4_5",
            "citus_0_1_2_3",
        ] {
            assert_eq!(text.parse::<Gid>(), Err(()), "{text}");
        }
    }
}
