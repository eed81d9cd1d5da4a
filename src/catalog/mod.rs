pub fn init() {}

pub type NodeId = i32;
pub type ShardGroupId = i64;
pub type ColocationId = i32;
