//! PostgreSQL's hooks: each decides whether a statement concerns the extension, delegates, and chains.

mod executor;
mod objects;
mod planner;
mod utility;

pub fn init() {
    planner::init();
    utility::init();
    objects::init();
    executor::init();
}
