//! Reference tables on nodes that come and go.

use crate::catalog::{self, NodeId};
use crate::error::{Error, Result};

/// Copies every reference table, with its rows and what it depends on, to a node that was just added.
pub fn replicate_reference_tables_to(_node: NodeId) -> Result<()> {
    if catalog::reference_tables()?.is_empty() {
        return Ok(());
    }
    Err(Error::refused(
        "reference tables cannot be copied to a new node yet",
        "Add the nodes before you create reference tables.",
    ))
}

/// Drops the copies of reference tables from a node that is being removed.
pub fn drop_reference_tables_from(_node: NodeId) -> Result<()> {
    if catalog::reference_tables()?.is_empty() {
        return Ok(());
    }
    Err(Error::refused(
        "copies of reference tables cannot be dropped from a node yet",
        "Undistribute the reference tables first.",
    ))
}
