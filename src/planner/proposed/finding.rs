//! The level that looks for what proposed rows are in conflict with: a custom scan above them.

use crate::error::Result;
use crate::pg::{list, types};
use crate::planner::plan::{FindPlan, Private};
use crate::planner::proposed::lookup;
use crate::planner::proposed::rows::Proposed;
use crate::planner::pull::Target;
use crate::planner::wrapped::{self, Above};
use crate::planner::{leaf, reading, ship};
use pgrx::pg_sys::{self, Query};

/// Rows whose conflicts are looked for: what the custom path becomes.
pub struct Finding {
    plan: FindPlan,
    /// Columns of the rows below that the node fills.
    outputs: Vec<i16>,
}

/// A level that reads proposed rows through the node that looks for conflicts, and the columns that the node fills.
pub struct Found {
    pub level: *mut Query,
    /// The row's number.
    pub ordinal: i16,
    /// What was found: its ctid, and attribute and column numbers.
    pub ctid: i16,
    pub columns: Vec<(i16, i16)>,
}

/// Puts that level above the rows; `strength`: how what is found is locked.
///
/// # Safety
/// `source` gives the proposed rows of the INSERT, which has an ON CONFLICT clause; a `leaf::Session` is open.
pub unsafe fn above(
    query: *mut Query,
    source: *mut Query,
    target: &Target,
    proposed: &Proposed,
    strength: Option<pg_sys::LockClauseStrength::Type>,
) -> Result<Found> {
    unsafe {
        let null = |(type_oid, typmod, collation)| {
            reading::append(
                source,
                pg_sys::makeNullConst(type_oid, typmod, collation).cast(),
            )
        };
        let ordinal = null((pg_sys::INT8OID, -1, pg_sys::InvalidOid));
        let ctid = null((pg_sys::TIDOID, -1, pg_sys::InvalidOid));
        let columns: Vec<i16> = (1..=types::column_count(target.relid))
            .filter(|attno| types::has_column(target.relid, *attno))
            .collect();
        let mut answer = vec![pg_sys::INT8OID.to_u32(), pg_sys::TIDOID.to_u32()];
        let mut found = Vec::new();
        for attno in &columns {
            let signature = types::attribute_signature(target.relid, *attno);
            ship::readable_type(signature.0)?;
            answer.push(signature.0.to_u32());
            found.push((*attno, null(signature)));
        }
        let (lookup, rows) = lookup::statement(query, proposed, &columns, strength)?;
        let key = proposed.attributes.iter().position(|a| *a == target.key);
        let outputs = [ordinal, ctid].into_iter();
        let number = leaf::finding_count();
        leaf::add_finding(Finding {
            plan: FindPlan {
                relid: target.relid.to_u32(),
                colocation: target.colocation,
                key,
                lookup,
                updates: strength.is_some(),
                columns: rows,
                attributes: proposed.attributes.clone(),
                answer,
                outputs: Vec::new(),
                as_others: target.as_others,
            },
            outputs: outputs.chain(found.iter().map(|(_, c)| *c)).collect(),
        });
        let level = reading::level_above(source);
        let rte = wrapped::entry(source, wrapped::Kind::Find, number, "proposed");
        (*level).rtable = list::from([rte]);
        // A level below another is merged with it unless it locks.
        (*level).hasForUpdate = true;
        Ok(Found {
            level,
            ordinal,
            ctid,
            columns: found,
        })
    }
}

/// The custom scan that a path of `wrapped` becomes.
///
/// # Safety
/// `above` is the scan that a path becomes.
pub unsafe fn plan_find(above: &Above) -> Result<()> {
    unsafe {
        (*above.scan).methods = crate::executor::find_methods();
        leaf::with_finding(above.number, |finding| {
            let mut plan = finding.plan.clone();
            for column in &mut plan.columns {
                column.source = above.place(column.source as i16 + 1)?;
            }
            plan.key = plan
                .key
                .map(|key| above.place(key as i16 + 1))
                .transpose()?;
            for attno in &finding.outputs {
                plan.outputs.push(above.place(*attno)?);
            }
            (*above.scan).custom_private = plan.to_private()?;
            Ok(())
        })
    }
}
