//! Changes of one row of a reference table: the lock of that row keeps them in one order on all copies, so that the
//! table need not be locked.

use crate::pg::{expr, list, node};
use crate::planner::ship;
use pgrx::pg_sys::{self, CmdType, Node, Query, RTEKind};

/// Does an UPDATE or DELETE name a row by its primary key, leave the key as it is, and read nothing else?
///
/// # Safety
/// `query` is a valid UPDATE or DELETE of a table.
pub unsafe fn is_pinned(query: *mut Query) -> bool {
    unsafe {
        let alone = list::len((*query).rtable) == 1
            && (*query).cteList.is_null()
            && !(*query).hasSubLinks
            && (*query).canSetTag;
        if !alone {
            return false;
        }
        let rte = list::nth::<pg_sys::RangeTblEntry>((*query).rtable, 0);
        if (*rte).rtekind != RTEKind::RTE_RELATION {
            return false;
        }
        let Some(key) = primary_key((*rte).relid) else {
            return false;
        };
        let pinned: Vec<i16> = expr::conjuncts((*(*query).jointree).quals)
            .into_iter()
            .filter_map(|qual| named_column(qual))
            .collect();
        let changes_key = (*query).commandType == CmdType::CMD_UPDATE
            && list::iter::<pg_sys::TargetEntry>((*query).targetList)
                .any(|entry| !(*entry).resjunk && key.contains(&(*entry).resno));
        !changes_key && key.iter().all(|column| pinned.contains(column))
    }
}

/// `column = value`, by the equality of the column's own type.
unsafe fn named_column(qual: *mut Node) -> Option<i16> {
    unsafe {
        let test = node::cast::<pg_sys::OpExpr>(qual)?;
        if list::len((*test).args) != 2 {
            return None;
        }
        let left = list::nth::<Node>((*test).args, 0);
        let right = list::nth::<Node>((*test).args, 1);
        let (column, value) = match node::cast::<pg_sys::Var>(left) {
            Some(column) => (column, right),
            None => (node::cast::<pg_sys::Var>(right)?, left),
        };
        let equality =
            (*pg_sys::lookup_type_cache((*column).vartype, pg_sys::TYPECACHE_EQ_OPR as i32)).eq_opr;
        (equality == (*test).opno && (*column).varattno > 0 && !ship::depends_on_rows(value))
            .then_some((*column).varattno)
    }
}

/// The columns of the primary key.
unsafe fn primary_key(relid: pg_sys::Oid) -> Option<Vec<i16>> {
    // SAFETY: the planner holds a lock on the relation; what the relcache answers is copied.
    unsafe {
        let relation = pg_sys::RelationIdGetRelation(relid);
        if relation.is_null() {
            return None;
        }
        let columns = pg_sys::RelationGetIndexAttrBitmap(
            relation,
            pg_sys::IndexAttrBitmapKind::INDEX_ATTR_BITMAP_PRIMARY_KEY,
        );
        let mut found = Vec::new();
        let mut member = pg_sys::bms_next_member(columns, -1);
        while member >= 0 {
            found.push((member + pg_sys::FirstLowInvalidHeapAttributeNumber) as i16);
            member = pg_sys::bms_next_member(columns, member);
        }
        pg_sys::RelationClose(relation);
        (!found.is_empty()).then_some(found)
    }
}
