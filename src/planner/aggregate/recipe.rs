//! How each aggregate of PostgreSQL splits: what the shards compute over their rows, and what is made of that here.
//! Recipes are SQL text: `$1`, `$2` are the aggregate's arguments on the shards, the shards' columns here.

use crate::error::Result;
use crate::pg::node::Step;
use crate::pg::{expr, list, node, sql, types};
use crate::planner::remote;
use crate::planner::ship;
use pgrx::pg_sys::{self, Aggref, Node, Oid};

/// What the shards compute of an aggregate, and the expression over those columns that takes its place.
pub struct Recipe {
    pub partials: Vec<*mut Node>,
    pub finish: Finish,
}

pub enum Finish {
    /// SQL over the partials' columns, and whatever `arguments` follow them.
    Combine {
        text: String,
        arguments: Vec<*mut Node>,
        /// Partials of parts of a shard group combine as well, and in any number.
        often: bool,
    },
    /// The shards' column is the answer: no group spans shards.
    Column,
}

impl Recipe {
    /// The expression over the partials' columns.
    pub unsafe fn finish(&self, columns: &[*mut Node]) -> Result<*mut Node> {
        match &self.finish {
            Finish::Column => Ok(columns[0]),
            Finish::Combine {
                text, arguments, ..
            } => {
                let all: Vec<*mut Node> = columns.iter().chain(arguments).copied().collect();
                unsafe { sql::expression(text, &all) }
            }
        }
    }

    /// May a group have many partials? Not where arrays are concatenated one by one, and not where each value was
    /// counted once in its shard group.
    pub fn combines_often(&self) -> bool {
        matches!(self.finish, Finish::Combine { often: true, .. })
    }
}

/// The aggregate computed by the shards to the end.
pub unsafe fn complete(aggregate: *mut Aggref) -> Option<Recipe> {
    unsafe {
        let item = aggregate.cast::<Node>();
        let readable = ship::readable_type((*aggregate).aggtype).is_ok();
        ((*aggregate).agglevelsup == 0 && readable && ship::obstacle(item).is_none()).then(|| {
            Recipe {
                partials: vec![item],
                finish: Finish::Column,
            }
        })
    }
}

/// How an aggregate splits, if it does. `disjoint`: no value of its arguments is on two shards.
pub unsafe fn recipe(aggregate: *mut Aggref, disjoint: bool) -> Result<Option<Recipe>> {
    unsafe {
        let a = &*aggregate;
        if !a.aggorder.is_null()
            || a.agglevelsup != 0
            || a.aggkind as u8 != b'n'
            || !types::is_builtin(a.aggfnoid)
            || ship::obstacle(a.args.cast()).is_some()
            || ship::obstacle(a.aggfilter.cast()).is_some()
        {
            return Ok(None);
        }
        let name = std::ffi::CStr::from_ptr(pg_sys::get_func_name(a.aggfnoid))
            .to_string_lossy()
            .into_owned();
        let distinct = !a.aggdistinct.is_null() && !ignores_duplicates(&name);
        if distinct && !(disjoint && matches!(name.as_str(), "count" | "sum")) {
            return Ok(None);
        }
        let arguments: Vec<*mut Node> = list::iter::<pg_sys::TargetEntry>(a.args)
            .map(|entry| (*entry).expr.cast())
            .collect();
        let Some(plan) = plan(&name, aggregate, &arguments)? else {
            return Ok(None);
        };
        let mut partials = Vec::new();
        if plan.shards.is_empty() {
            let copy = node::copy(aggregate);
            if !distinct {
                (*copy).aggdistinct = std::ptr::null_mut();
            }
            partials.push(copy.cast());
        }
        for text in plan.shards {
            let partial = sql::expression(text, &arguments)?;
            set_filter(partial, a.aggfilter.cast());
            partials.push(partial);
        }
        let recipe = Recipe {
            partials,
            finish: Finish::Combine {
                text: plan.here,
                arguments: plan.constants,
                often: plan.often && !distinct,
            },
        };
        let columns: Vec<*mut Node> = recipe
            .partials
            .iter()
            .enumerate()
            .map(|(index, partial)| {
                expr::var(1, index as i16 + 1, expr::signature(*partial)).cast()
            })
            .collect();
        let computable = recipe.partials.iter().all(|partial| {
            ship::readable_type(pg_sys::exprType(*partial)).is_ok()
                && ship::obstacle(*partial).is_none()
        });
        if !computable || pg_sys::exprType(recipe.finish(&columns)?) != a.aggtype {
            return Ok(None);
        }
        Ok(Some(recipe))
    }
}

/// A recipe's text; no text for the shards: the aggregate itself.
struct Plan {
    shards: Vec<&'static str>,
    here: String,
    /// Arguments of `here` behind the partials.
    constants: Vec<*mut Node>,
    often: bool,
}

impl Plan {
    fn new(shards: &[&'static str], here: impl Into<String>) -> Option<Plan> {
        Some(Plan {
            shards: shards.to_vec(),
            here: here.into(),
            constants: Vec::new(),
            often: true,
        })
    }

    fn same(name: &str) -> Option<Plan> {
        Plan::new(&[], format!("{name}($1)"))
    }

    fn seldom(self) -> Option<Plan> {
        Some(Plan {
            often: false,
            ..self
        })
    }
}

unsafe fn plan(
    name: &str,
    aggregate: *mut Aggref,
    arguments: &[*mut Node],
) -> Result<Option<Plan>> {
    unsafe {
        let argument = list::oids((*aggregate).aggargtypes)
            .first()
            .copied()
            .unwrap_or(pg_sys::InvalidOid);
        let is_float = matches!(argument, pg_sys::FLOAT4OID | pg_sys::FLOAT8OID);
        Ok(match name {
            "count" | "regr_count" => Plan::new(&[], "shard_ext.combine_count($1)"),
            "sum" => match argument {
                pg_sys::INT2OID | pg_sys::INT4OID => Plan::new(&[], "shard_ext.combine_sum($1)"),
                _ => Plan::same("sum"),
            },
            "avg" => match argument {
                pg_sys::FLOAT4OID | pg_sys::FLOAT8OID => Plan::new(
                    &["sum($1::float8)", "count($1)"],
                    "sum($1) / nullif(shard_ext.combine_count($2), 0)::float8",
                ),
                pg_sys::INTERVALOID => Plan::new(
                    &["sum($1)", "count($1)"],
                    "sum($1) / nullif(shard_ext.combine_count($2), 0)::float8",
                ),
                pg_sys::INT2OID | pg_sys::INT4OID => Plan::new(
                    &["sum($1)", "count($1)"],
                    "shard_ext.combine_sum($1)::numeric / nullif(shard_ext.combine_count($2), 0)",
                ),
                _ => Plan::new(
                    &["sum($1)", "count($1)"],
                    "sum($1) / nullif(shard_ext.combine_count($2), 0)",
                ),
            },
            "min" | "max" => {
                let collation = (*aggregate).inputcollid;
                if remote::sorts_alike(element_or_self(argument, arguments), collation)? {
                    Plan::same(name)
                } else {
                    None
                }
            }
            "bool_and" | "bool_or" | "every" | "bit_and" | "bit_or" | "bit_xor"
            | "range_intersect_agg" | "range_agg" => Plan::same(name),
            "var_pop" | "var_samp" | "variance" | "stddev_pop" | "stddev_samp" | "stddev" => {
                let which = match name {
                    "variance" => "var_samp",
                    "stddev" => "stddev_samp",
                    other => other,
                };
                if is_float {
                    Plan::new(&[FLOAT_STATE], format!("shard_ext.combine_{which}($1)"))
                } else {
                    numeric_variance(which, argument)
                }
            }
            "regr_sxx" | "regr_syy" | "regr_sxy" | "regr_avgx" | "regr_avgy" | "regr_r2"
            | "regr_slope" | "regr_intercept" | "covar_pop" | "covar_samp" | "corr" => {
                Plan::new(&[REGRESSION_STATE], format!("shard_ext.combine_{name}($1)"))
            }
            "string_agg" if !ship::depends_on_rows(arguments[1]) => {
                Plan::new(&[], "string_agg($1, $2)").map(|plan| Plan {
                    constants: vec![arguments[1]],
                    ..plan
                })
            }
            "array_agg" if pg_sys::get_element_type(argument) == pg_sys::InvalidOid => {
                Plan::new(&[], "shard_ext.combine_array_agg($1)").and_then(Plan::seldom)
            }
            "jsonb_agg" | "jsonb_object_agg" => {
                Plan::new(&[], "shard_ext.combine_jsonb($1)").and_then(Plan::seldom)
            }
            "json_agg" => Plan::new(&[], json_array(pg_sys::exprType(arguments[0]))),
            "json_object_agg" => Plan::new(
                &[],
                "('{ ' || string_agg(substr($1::text, 3, length($1::text) - 4), ', ') || ' }')::json",
            ),
            "xmlagg" => Plan::same(name),
            _ => None,
        })
    }
}

/// {N, Sx, Sxx}: avg and var_pop share one transition.
const FLOAT_STATE: &str =
    "CASE WHEN count($1) > 0 THEN ARRAY[count($1), avg($1) * count($1), var_pop($1) * count($1)] END";

/// {N, Sx, Sxx, Sy, Syy, Sxy}, of one transition.
const REGRESSION_STATE: &str = "CASE WHEN regr_count($1, $2) > 0 THEN ARRAY[regr_count($1, $2),
    regr_avgx($1, $2) * regr_count($1, $2), regr_sxx($1, $2),
    regr_avgy($1, $2) * regr_count($1, $2), regr_syy($1, $2), regr_sxy($1, $2)] END";

fn numeric_variance(which: &str, argument: Oid) -> Option<Plan> {
    let squares = match argument {
        pg_sys::INT2OID | pg_sys::INT4OID => "sum($1::bigint * $1::bigint)",
        pg_sys::INT8OID => "sum($1::numeric * $1::numeric)",
        pg_sys::NUMERICOID => "sum($1 * $1)",
        _ => return None,
    };
    let sample = which.ends_with("_samp");
    let deviation = which.starts_with("stddev");
    Plan::new(
        &["count($1)", "sum($1)", squares],
        format!("shard_ext.numeric_variance(shard_ext.combine_count($1), sum($2), sum($3), {sample}, {deviation})"),
    )
}

/// The text of `json_agg` over the partials: brackets off, joined as `json_agg_transfn` joins, brackets on.
unsafe fn json_array(element: Oid) -> String {
    unsafe {
        let base = types::base_type(element);
        let structured = pg_sys::get_element_type(base) != pg_sys::InvalidOid
            || base == pg_sys::RECORDARRAYOID
            || pg_sys::type_is_rowtype(base);
        let separator = if structured {
            "CASE WHEN $1::text LIKE '[null%' THEN ', ' ELSE ', ' || chr(10) || ' ' END"
        } else {
            "', '"
        };
        format!(
            "('[' || string_agg(substr($1::text, 2, length($1::text) - 2), {separator}) || ']')::json"
        )
    }
}

/// DISTINCT changes nothing for these.
fn ignores_duplicates(name: &str) -> bool {
    matches!(
        name,
        "min" | "max" | "bool_and" | "bool_or" | "every" | "bit_and" | "bit_or"
    )
}

/// What min and max compare: the elements of arrays.
unsafe fn element_or_self(declared: Oid, arguments: &[*mut Node]) -> Oid {
    unsafe {
        let actual = arguments.first().map_or(declared, |a| pg_sys::exprType(*a));
        let element = pg_sys::get_base_element_type(actual);
        if element == pg_sys::InvalidOid {
            actual
        } else {
            element
        }
    }
}

/// Gives all aggregates of an expression a FILTER.
pub unsafe fn set_filter(tree: *mut Node, filter: *mut Node) {
    unsafe {
        if filter.is_null() {
            return;
        }
        node::walk(tree, &mut |item, _| match node::cast::<Aggref>(item) {
            Some(aggregate) => {
                (*aggregate).aggfilter =
                    expr::and((*aggregate).aggfilter.cast(), node::copy(filter)).cast();
                Step::Over
            }
            None => Step::Into,
        });
    }
}
