//! Work in pieces that do not wait for one another.
//!
//! What is read and verified at a start is most of a start. The stores say into which pieces it falls; on how many cores they are
//! done, the program says: nothing below it starts threads, and the simulator does one after the other.

use std::sync::{Mutex, PoisonError};

/// Who does pieces of work.
pub trait Spread: Sync {
    /// Calls `piece` once with each number below `pieces`, in any order and at the same time if it can, and returns when all are done.
    fn each(&self, pieces: usize, piece: &(dyn Fn(usize) + Sync));
}

/// One after the other, in order.
#[derive(Debug, Clone, Copy)]
pub struct InTurn;

impl Spread for InTurn {
    fn each(&self, pieces: usize, piece: &(dyn Fn(usize) + Sync)) {
        for number in 0..pieces {
            piece(number);
        }
    }
}

/// What comes of two pieces of work that have nothing to do with each other.
pub fn both<A: Send, B: Send>(spread: &dyn Spread, one: impl FnOnce() -> A + Send, other: impl FnOnce() -> B + Send) -> (A, B) {
    let (one, other) = (Mutex::new(Some(one)), Mutex::new(Some(other)));
    let (first, second) = (Mutex::new(None), Mutex::new(None));
    fn held<T>(place: &Mutex<Option<T>>) -> std::sync::MutexGuard<'_, Option<T>> {
        place.lock().unwrap_or_else(PoisonError::into_inner)
    }
    spread.each(2, &|number| {
        // Taken out before it is called: it is called once.
        if number == 0 {
            let work = held(&one).take();
            *held(&first) = work.map(|work| work());
        } else {
            let work = held(&other).take();
            *held(&second) = work.map(|work| work());
        }
    });
    let taken = (held(&first).take(), held(&second).take());
    (taken.0.expect("each piece is done"), taken.1.expect("each piece is done"))
}

/// What comes of each piece, in their order.
pub fn map<T: Send>(spread: &dyn Spread, pieces: usize, piece: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let made: Vec<Mutex<Option<T>>> = (0..pieces).map(|_| Mutex::new(None)).collect();
    spread.each(pieces, &|number| {
        let done = piece(number);
        *made[number].lock().unwrap_or_else(PoisonError::into_inner) = Some(done);
    });
    made.into_iter().map(|made| made.into_inner().unwrap_or_else(PoisonError::into_inner).expect("each piece is done")).collect()
}
