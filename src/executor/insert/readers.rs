//! What still reads rows from nodes while the first are inserted must not see these.

use super::Insert;
use crate::error::Result;
use crate::executor::kept::Kept;
use crate::executor::{scan, state};
use crate::pg::list;
use crate::remote;
use pgrx::pg_sys;

impl Insert {
    /// What is still to be read must not see the rows that are sent from now on: it comes over connections of its own,
    /// or is read before.
    pub(super) unsafe fn part_from_readers(
        &mut self,
        node: *mut pg_sys::CustomScanState,
    ) -> Result<()> {
        unsafe {
            // the parts of a statement have read what they must
            if self.lists.is_some() || self.plan.part.is_some() {
                return Ok(());
            }
            let readers = Readers::of(node);
            if readers.scans.is_empty() && readers.only_scans {
                return Ok(());
            }
            if readers.only_scans && remote::set_readers_aside()? {
                for state in readers.scans {
                    if let Some(scan) = scan::of_state(state) {
                        scan.beside = true;
                    }
                }
                return Ok(());
            }
            self.rest = Some(Kept::of(list::nth((*node).custom_ps, 0)));
            Ok(())
        }
    }
}

/// What reads from the nodes below an insert, in all parts of its plan.
struct Readers {
    scans: Vec<*mut pg_sys::PlanState>,
    /// Nothing else does: no locks, no tables of moved rows.
    only_scans: bool,
}

impl Readers {
    unsafe fn of(node: *mut pg_sys::CustomScanState) -> Readers {
        let mut readers = Readers {
            scans: Vec::new(),
            only_scans: true,
        };
        unsafe {
            let mut visit = |state: *mut pg_sys::PlanState| {
                if (*state).type_ != pg_sys::NodeTag::T_CustomScanState {
                    return;
                }
                match scan::of_state(state) {
                    Some(scan) if !scan.plan.plan.writes => readers.scans.push(state),
                    _ => readers.only_scans = false,
                }
            };
            let estate = (*node).ss.ps.state;
            let children = list::iter::<pg_sys::PlanState>((*node).custom_ps);
            let others = list::iter::<pg_sys::PlanState>((*estate).es_subplanstates);
            for root in children.chain(others).filter(|root| !root.is_null()) {
                state::walk_below(root, &mut visit);
            }
        }
        readers
    }
}
