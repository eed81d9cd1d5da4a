//! One row of a result, as slices of the message it came in.

/// A row; `get` is `None` for NULL and for a column that the result does not have.
pub struct Row {}

impl Row {
    pub fn len(&self) -> usize {
        0
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn get(&self, _column: usize) -> Option<&[u8]> {
        None
    }
}
