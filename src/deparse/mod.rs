//! From a Query to SQL text for one shard group: PostgreSQL deparses, the names of our tables become holes.

mod querydef;
mod template;

pub use querydef::{qualified_name_length, template};
pub use template::{Hole, Place, SqlTemplate, quote_identifier, quote_literal};
