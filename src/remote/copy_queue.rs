//! stub
use crate::catalog::{NodeId, ShardGroupId};
use crate::error::Error;
use std::rc::Rc;
pub struct FailedBatch<T> {
    pub error: Error,
    pub batch: Option<T>,
}
pub struct CopyQueue<T>(Vec<T>);
type Outcome<T> = std::result::Result<(), FailedBatch<T>>;
impl<T> CopyQueue<T> {
    pub fn new() -> Self {
        CopyQueue(Vec::new())
    }
    pub fn push(
        &mut self,
        _node: NodeId,
        _groups: Rc<[ShardGroupId]>,
        _sql: Rc<str>,
        _data: Vec<u8>,
        note: T,
    ) -> Outcome<T> {
        Err(FailedBatch {
            error: Error::internal("remote requests are not there yet"),
            batch: Some(note),
        })
    }
    pub fn advance(&mut self) -> Outcome<T> {
        Ok(())
    }
    pub fn wait_below(&mut self, _bytes: usize) -> Outcome<T> {
        Ok(())
    }
    pub fn finish(&mut self) -> Outcome<T> {
        Ok(())
    }
}
