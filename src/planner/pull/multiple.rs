//! `(a, b) = (SELECT …)`

use crate::error::Result;
use crate::pg::node::Step;
use crate::pg::{expr, list, node};
use crate::planner::reading;
use pgrx::pg_sys::{self, Node, NodeTag, Query};

/// `(a, b) = (SELECT …)`: the subquery as one value, a row, of which the level above takes the fields.
#[derive(Default)]
pub struct MultipleAssignments {
    /// Number of the subquery, and of the column that has its row.
    rows: Vec<(i32, i16)>,
}

impl MultipleAssignments {
    /// `append` adds such a value to the level below, and answers its number there.
    ///
    /// # Safety
    /// `targets` are those of an UPDATE.
    pub unsafe fn of(
        targets: *mut pg_sys::List,
        append: &mut dyn FnMut(*mut Node) -> Result<i16>,
    ) -> Result<MultipleAssignments> {
        unsafe {
            let mut rows = Vec::new();
            for entry in list::iter::<pg_sys::TargetEntry>(targets) {
                let Some(link) = node::cast::<pg_sys::SubLink>((*entry).expr) else {
                    continue;
                };
                if (*link).subLinkType != pg_sys::SubLinkType::MULTIEXPR_SUBLINK {
                    continue;
                }
                let link = node::copy(link);
                let number = (*link).subLinkId;
                (*link).subLinkType = pg_sys::SubLinkType::EXPR_SUBLINK;
                (*link).subLinkId = 0;
                (*link).testexpr = std::ptr::null_mut();
                (*link).subselect = as_row((*link).subselect.cast()).cast();
                rows.push((number, append(link.cast())?));
            }
            Ok(MultipleAssignments { rows })
        }
    }

    /// The tree with fields in place of its `PARAM_MULTIEXPR` parameters.
    ///
    /// # Safety
    /// `tree` is null or a valid expression of the level above.
    pub unsafe fn resolve(&self, tree: *mut Node) -> *mut Node {
        unsafe {
            if tree.is_null() {
                return tree;
            }
            if let Some(param) = node::cast::<pg_sys::Param>(tree) {
                if (*param).paramkind == pg_sys::ParamKind::PARAM_MULTIEXPR {
                    let number = (*param).paramid >> 16;
                    let field = (*param).paramid & 0xFFFF;
                    let row = self.rows.iter().find(|(n, _)| *n == number);
                    let Some((_, column)) = row else { return tree };
                    let select = pg_sys::palloc0(std::mem::size_of::<pg_sys::FieldSelect>())
                        .cast::<pg_sys::FieldSelect>();
                    (*select).xpr.type_ = NodeTag::T_FieldSelect;
                    let record = (pg_sys::RECORDOID, -1, pg_sys::InvalidOid);
                    (*select).arg = expr::var(1, *column, record).cast();
                    (*select).fieldnum = field as i16;
                    (*select).resulttype = (*param).paramtype;
                    (*select).resulttypmod = (*param).paramtypmod;
                    (*select).resultcollid = (*param).paramcollid;
                    return select.cast();
                }
            }
            node::map_children(tree, |child| self.resolve(child))
        }
    }
}

/// `SELECT ROW(a, b) FROM (SELECT a, b …)`
unsafe fn as_row(below: *mut Query) -> *mut Query {
    unsafe {
        for (index, entry) in list::iter::<pg_sys::TargetEntry>((*below).targetList).enumerate() {
            if (*entry).resname.is_null() {
                (*entry).resname = node::pstrdup(&format!("f{}", index + 1));
            }
        }
        let query = reading::level_above(below);
        let mut fields = Vec::new();
        let mut names = Vec::new();
        for (index, entry) in list::iter::<pg_sys::TargetEntry>((*query).targetList).enumerate() {
            fields.push((*entry).expr.cast::<Node>());
            names.push(pg_sys::makeString(node::pstrdup(&format!(
                "f{}",
                index + 1
            ))));
        }
        let row = node::make::<pg_sys::RowExpr>();
        (*row).args = list::from(fields);
        (*row).colnames = list::from(names);
        (*row).row_typeid = pg_sys::RECORDOID;
        (*row).row_format = pg_sys::CoercionForm::COERCE_EXPLICIT_CALL;
        (*row).location = -1;
        let entry = pg_sys::makeTargetEntry(row.cast(), 1, node::pstrdup("row"), false);
        (*query).targetList = list::from([entry]);
        query
    }
}

/// Does a tree have values of `(a, b) = (SELECT …)`?
///
/// # Safety
/// `tree` is null, a list or an expression.
pub unsafe fn reads_multiple(tree: *mut Node) -> bool {
    unsafe {
        node::walk(
            tree,
            &mut |item, _| match node::cast::<pg_sys::Param>(item) {
                Some(param) if (*param).paramkind == pg_sys::ParamKind::PARAM_MULTIEXPR => {
                    Step::Stop
                }
                _ => Step::Into,
            },
        )
    }
}
