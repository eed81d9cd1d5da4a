//! From a Query to SQL text for one shard group: PostgreSQL deparses, the names of our tables become holes.

mod querydef;
mod template;

pub use querydef::{parameter_location, qualified_name_length, template, template_edited};
pub use template::{Hole, Place, SqlTemplate, quote_identifier, quote_literal};
