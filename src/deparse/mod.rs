//! From a Query to SQL text for one shard group: PostgreSQL deparses, the names of our tables become holes.

mod joins;
pub mod moved;
mod querydef;
mod template;

pub use querydef::{name_of, parameter_location, template, template_edited};
pub use template::{quote_identifier, Hole, Place, SqlTemplate};
