//! Which processes serve which databases: a table in shared memory for each kind of background worker.

use pgrx::pg_sys;
use pgrx::PGRXSharedMemory;

/// More databases than this have no worker of a kind.
const SLOTS: usize = 64;

/// A database, and the process that serves it: 0 or dead when none does. `state` is what else is known of them.
#[derive(Clone, Copy, Default)]
pub struct Slot<T> {
    database: u32,
    pub pid: i32,
    pub state: T,
}

#[derive(Clone, Copy)]
pub struct Slots<T>([Slot<T>; SLOTS]);

// SAFETY: plain numbers, beside what may be shared.
unsafe impl<T: PGRXSharedMemory> PGRXSharedMemory for Slots<T> {}

impl<T: Copy + Default> Default for Slots<T> {
    fn default() -> Slots<T> {
        Slots([Slot::default(); SLOTS])
    }
}

impl<T: Default> Slot<T> {
    /// For a database that nobody serves yet.
    pub fn of(database: pg_sys::Oid, state: T) -> Slot<T> {
        Slot {
            database: database.to_u32(),
            pid: 0,
            state,
        }
    }

    /// `InvalidOid`: the slot is free.
    pub fn database(&self) -> pg_sys::Oid {
        pg_sys::Oid::from(self.database)
    }

    pub fn is_served(&self) -> bool {
        // SAFETY: signal 0 only asks.
        self.pid != 0 && unsafe { libc::kill(self.pid, 0) } == 0
    }

    /// This process serves the database from now on. False: another one does.
    pub fn claim(&mut self, database: pg_sys::Oid) -> bool {
        if self.is_served() {
            return false;
        }
        *self = Slot::of(database, T::default());
        // SAFETY: reads a variable.
        self.pid = unsafe { pg_sys::MyProcPid };
        true
    }
}

impl<T: Default> Slots<T> {
    pub fn iter(&self) -> impl Iterator<Item = &Slot<T>> {
        self.0.iter()
    }

    pub fn find(&mut self, is: impl Fn(&Slot<T>) -> bool) -> Option<&mut Slot<T>> {
        self.0.iter_mut().find(|slot| is(slot))
    }

    /// The slot of a database.
    pub fn of(&mut self, database: pg_sys::Oid) -> Option<&mut Slot<T>> {
        self.find(|slot| slot.database() == database)
    }

    /// The slot of this process.
    pub fn mine(&mut self) -> Option<&mut Slot<T>> {
        // SAFETY: reads a variable.
        let me = unsafe { pg_sys::MyProcPid };
        self.find(|slot| slot.pid == me)
    }
}
