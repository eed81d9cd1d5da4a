//! PostgreSQL's own functions and collations that a node does not have as they are here, because it is of another major
//! version or has other libraries. What is asked for is evaluated here then.

use pgrx::pg_sys::{self, Oid};

use crate::catalog::Lacking;
use crate::error::Result;
use crate::pg::spi;
use crate::remote::{NodeFacts, COLLATIONS_QUERY, FUNCTIONS_QUERY};

/// Functions that major versions have changed behind their definition, by the names of their C functions: other values, or
/// errors where there were values. What newer versions compute where older ones have an error is not here, nor how the parser
/// of documents splits words at invisible characters.
const CHANGED: [(i32, &[&str]); 4] = [
    (
        15,
        &[
            "array_to_tsvector",
            "char_bpchar",
            "char_text",
            "interval_in",
            "make_interval",
            "pg_size_pretty",
            "pg_size_pretty_numeric",
            "poly_distance",
            "text_char",
            "tsvector_delete_arr",
            "tsvector_setweight_by_filter",
            "unicode_is_normalized",
            "unicode_normalize_func",
        ],
    ),
    (
        16,
        &[
            "numeric_power",
            "numeric_to_number",
            "quote_ident",
            "text_format",
            "text_format_nv",
            "ts_headline",
            "ts_headline_byid",
            "ts_headline_byid_opt",
            "ts_headline_json",
            "ts_headline_json_byid",
            "ts_headline_json_byid_opt",
            "ts_headline_json_opt",
            "ts_headline_jsonb",
            "ts_headline_jsonb_byid",
            "ts_headline_jsonb_byid_opt",
            "ts_headline_jsonb_opt",
            "ts_headline_opt",
            "unicode_is_normalized",
            "unicode_normalize_func",
            "width_bucket_float8",
        ],
    ),
    (
        17,
        &[
            "make_interval",
            "quote_ident",
            "text_format",
            "text_format_nv",
        ],
    ),
    (
        18,
        &[
            "extract_interval",
            "interval_part",
            "json_string_to_tsvector",
            "json_string_to_tsvector_byid",
            "json_to_tsvector",
            "json_to_tsvector_byid",
            "jsonb_string_to_tsvector",
            "jsonb_string_to_tsvector_byid",
            "jsonb_to_tsvector",
            "jsonb_to_tsvector_byid",
            "phraseto_tsquery",
            "phraseto_tsquery_byid",
            "plainto_tsquery",
            "plainto_tsquery_byid",
            "to_tsquery",
            "to_tsquery_byid",
            "to_tsvector",
            "to_tsvector_byid",
            "ts_lexize",
            "unicode_is_normalized",
            "unicode_normalize_func",
            "websearch_to_tsquery",
            "websearch_to_tsquery_byid",
        ],
    ),
];

/// What the node lacks.
pub fn lacking(facts: &NodeFacts) -> Result<Lacking> {
    let (here, there) = (
        pg_sys::PG_MAJORVERSION_NUM as i32,
        facts.version_num / 10000,
    );
    let changed = |definition: &str| {
        let symbol = definition.rsplit(' ').next();
        CHANGED.iter().any(|(since, symbols)| {
            (here < *since) != (there < *since)
                && symbol.is_some_and(|symbol| symbols.contains(&symbol))
        })
    };
    Ok(Lacking {
        functions: missing(FUNCTIONS_QUERY, |it| {
            !facts.functions.contains(it) || changed(it)
        })?,
        collations: missing(COLLATIONS_QUERY, |it| !facts.collations.contains(it))?,
    })
}

/// The oids of those here whose definition says so.
fn missing(query: &str, is_missing: impl Fn(&str) -> bool) -> Result<Vec<Oid>> {
    let mut missing = Vec::new();
    for row in spi::query(query, &[])? {
        if let [Some(definition), Some(oid)] = row.as_slice() {
            if is_missing(definition) {
                missing.extend(oid.parse().map(Oid::from_u32));
            }
        }
    }
    Ok(missing)
}
