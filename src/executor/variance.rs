//! Variances of integers and numerics from what the shards sent: how many, their sum, the sum of their squares. The
//! same steps as `numeric_stddev_internal`, so that the digits are PostgreSQL's.

use pgrx::pg_sys::{self, Datum};
use pgrx::AnyNumeric;
use pgrx::IntoDatum;

#[pgrx::pg_schema]
mod shard_ext {
    use super::*;
    use pgrx::pg_extern;

    #[pg_extern(
        sql = "CREATE FUNCTION shard_ext.numeric_variance(count numeric, sum numeric, squares numeric, sample boolean, deviation boolean)
                   RETURNS numeric LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
               COMMENT ON FUNCTION shard_ext.numeric_variance(numeric, numeric, numeric, boolean, boolean) IS
                   'variance (or standard deviation) of a sample or a population, from the count, sum and sum of squares of its values';"
    )]
    fn numeric_variance(
        count: AnyNumeric,
        sum: AnyNumeric,
        squares: AnyNumeric,
        sample: bool,
        deviation: bool,
    ) -> Option<AnyNumeric> {
        variance(count, sum, squares, sample, deviation)
    }
}

fn variance(
    count: AnyNumeric,
    sum: AnyNumeric,
    squares: AnyNumeric,
    sample: bool,
    deviation: bool,
) -> Option<AnyNumeric> {
    let one = AnyNumeric::from(1);
    if count < one || sample && count == one {
        return None;
    }
    // Infinity minus infinity.
    if sum.is_nan() || is_infinite(&sum) {
        return AnyNumeric::try_from("NaN").ok();
    }
    let above = call2(
        pg_sys::numeric_sub,
        &call2(pg_sys::numeric_mul, &count, &squares)?,
        &call2(pg_sys::numeric_mul, &sum, &sum)?,
    )?;
    if above <= AnyNumeric::from(0) {
        return Some(AnyNumeric::from(0));
    }
    let less = if sample {
        call2(pg_sys::numeric_sub, &count, &one)?
    } else {
        count.clone()
    };
    let below = call2(pg_sys::numeric_mul, &count, &less)?;
    let variance = call2(pg_sys::numeric_div, &above, &below)?;
    if deviation {
        square_root(&variance)
    } else {
        Some(variance)
    }
}

/// The root with as many decimals as `value` has: more are computed, then it is rounded once.
fn square_root(value: &AnyNumeric) -> Option<AnyNumeric> {
    let scale = scale(value)?;
    let wide = to_scale(pg_sys::numeric_round, value, scale + 12)?;
    let argument = [wide.into_datum()?];
    // SAFETY: a function of numerics, called with one.
    let root: AnyNumeric = unsafe { direct(pg_sys::numeric_sqrt, &argument) }?;
    let root = to_scale(pg_sys::numeric_trunc, &root, scale + 4)?;
    to_scale(pg_sys::numeric_round, &root, scale)
}

fn is_infinite(value: &AnyNumeric) -> bool {
    scale(value).is_none() && !value.is_nan()
}

/// Decimals of a finite value.
fn scale(value: &AnyNumeric) -> Option<i32> {
    let text = value.to_string();
    if text.ends_with("Infinity") || text == "NaN" {
        return None;
    }
    Some(
        text.split_once('.')
            .map_or(0, |(_, decimals)| decimals.len() as i32),
    )
}

type Function = unsafe fn(pg_sys::FunctionCallInfo) -> Datum;

fn call2(function: Function, a: &AnyNumeric, b: &AnyNumeric) -> Option<AnyNumeric> {
    let arguments = [a.clone().into_datum()?, b.clone().into_datum()?];
    // SAFETY: a function of two numerics, called with two.
    unsafe { direct(function, &arguments) }
}

fn to_scale(function: Function, value: &AnyNumeric, scale: i32) -> Option<AnyNumeric> {
    let arguments = [value.clone().into_datum()?, Datum::from(scale)];
    // SAFETY: numeric_round and numeric_trunc take a numeric and an integer.
    unsafe { direct(function, &arguments) }
}

unsafe fn direct(function: Function, arguments: &[Datum]) -> Option<AnyNumeric> {
    let arguments: Vec<Option<Datum>> = arguments.iter().map(|a| Some(*a)).collect();
    unsafe { pgrx::direct_function_call(function, &arguments) }
}
