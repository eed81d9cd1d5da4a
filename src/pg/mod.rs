//! Safe-to-read views of PostgreSQL's structures: lists, nodes, types. Knows nothing of shards.

pub mod copyfrom;
pub mod encoding;
pub mod expr;
pub mod latch;
pub mod levels;
pub mod list;
pub mod memory;
pub mod node;
pub mod privileges;
pub mod spi;
pub mod sql;
pub mod types;
