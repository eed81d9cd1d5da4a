//! The background worker.

pub fn init() {}

/// Asks for recovery to run soon. Nothing may be raised here.
pub fn wake_up() {}
