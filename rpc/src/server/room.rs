//! Bytes that all connections together may occupy.
//!
//! Connections are many, and what each may send or leave unread is large. Their product is more than a node has, so large
//! requests share one room and large replies another. Who comes when there is none is told to try again.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The unit of room.
const UNIT_BYTES: usize = 1024;

/// Room for so many bytes.
#[derive(Debug, Clone)]
pub(super) struct Room(Arc<Semaphore>);

/// A part of a room that is taken. It is given back when dropped.
#[derive(Debug, Default)]
pub(super) struct Held(Option<OwnedSemaphorePermit>);

impl Room {
    /// Room for `bytes`, rounded down to KiB.
    pub(super) fn new(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new((bytes / UNIT_BYTES).min(Semaphore::MAX_PERMITS))))
    }

    /// Takes room for `bytes`; none when there is too little now.
    pub(super) fn hold(&self, bytes: usize) -> Option<Held> {
        let mut held = Held::default();
        self.grow(&mut held, bytes).then_some(held)
    }

    /// Takes more until `held` is for `bytes`. False when there is too little now, and `held` is as it was.
    pub(super) fn grow(&self, held: &mut Held, bytes: usize) -> bool {
        let has = held.0.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let Some(more) = bytes.div_ceil(UNIT_BYTES).checked_sub(has).filter(|more| *more > 0) else { return true };
        let Some(permit) = u32::try_from(more).ok().and_then(|more| Arc::clone(&self.0).try_acquire_many_owned(more).ok()) else {
            return false;
        };
        match &mut held.0 {
            Some(all) => all.merge(permit),
            none => *none = Some(permit),
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_taken_grown_and_given_back() {
        let room = Room::new(10 * UNIT_BYTES);
        let mut held = room.hold(4 * UNIT_BYTES).expect("there is room");
        assert!(room.grow(&mut held, UNIT_BYTES), "it holds more than that");
        assert!(room.grow(&mut held, 7 * UNIT_BYTES + 1), "eight of ten");
        assert!(!room.grow(&mut held, 11 * UNIT_BYTES) && room.hold(3 * UNIT_BYTES).is_none(), "two are left");
        let rest = room.hold(2 * UNIT_BYTES).expect("two are left");
        drop(held);
        assert!(room.hold(8 * UNIT_BYTES).is_some() && room.hold(9 * UNIT_BYTES).is_none());
        drop(rest);
        assert!(room.hold(10 * UNIT_BYTES).is_some());
        assert!(room.hold(usize::MAX).is_none());
    }
}
