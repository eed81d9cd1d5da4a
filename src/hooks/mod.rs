//! PostgreSQL's hooks: each decides whether a statement concerns the extension, delegates, and chains.

mod objects;
mod utility;

pub fn init() {
    utility::init();
    objects::init();
}
