//! Randomness from one seed: a stream of its own for each cause, so that a new draw in one does not move the others and old
//! seeds keep their meaning.

use lockstep_types::Hash;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

/// One stream.
#[derive(Debug, Clone)]
pub(crate) struct Stream(ChaCha8Rng);

impl Stream {
    /// The stream of a cause under a seed: keyed by SHA-256 of both.
    pub(crate) fn new(seed: u64, cause: &str) -> Self {
        Self(ChaCha8Rng::from_seed(Hash::of_parts(&[&seed.to_le_bytes(), cause.as_bytes()]).0))
    }

    /// 64 bits.
    pub(crate) fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `bound`; zero for a bound of zero.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        // The bias of a remainder is far below what a schedule can show.
        if bound == 0 { 0 } else { self.bits() % bound }
    }

    /// A number from `low` to `high`, both included.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// As far from zero as `most`, at most, on either side.
    pub(crate) fn around_zero(&mut self, most: u64) -> i64 {
        let most = i64::try_from(most).expect("offsets are small");
        i64::try_from(self.below(2 * most.unsigned_abs() + 1)).expect("offsets are small") - most
    }

    /// True so many times in a thousand.
    pub(crate) fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1_000) < per_mille
    }

    /// One of these.
    pub(crate) fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        let place = usize::try_from(self.below(list.len() as u64)).expect("below a length");
        &list[place]
    }

    /// A position in a list of this length.
    pub(crate) fn place(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).expect("below a length")
    }
}

/// Streams of one kind of cause, each made when it is first drawn from: the links of a network, the disks of its nodes.
#[derive(Debug)]
pub(crate) struct Streams {
    seed: u64,
    cause: &'static str,
    streams: Vec<Option<Box<Stream>>>,
}

impl Streams {
    /// No stream yet. `cause` is what they have in common.
    pub(crate) fn new(seed: u64, cause: &'static str) -> Self {
        Self { seed, cause, streams: Vec::new() }
    }

    /// The stream of this number.
    pub(crate) fn of(&mut self, number: usize) -> &mut Stream {
        if number >= self.streams.len() {
            self.streams.resize_with(number + 1, || None);
        }
        self.streams[number].get_or_insert_with(|| Box::new(Stream::new(self.seed, &format!("{} {number}", self.cause))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_do_not_move_each_other() {
        let mut links = Streams::new(7, "link");
        let alone: Vec<u64> = (0..100).map(|_| links.of(3).bits()).collect();
        let mut links = Streams::new(7, "link");
        let beside: Vec<u64> = (0..100usize)
            .map(|round| {
                (0..round).filter(|other| *other != 3).for_each(|other| assert_ne!(links.of(other).bits(), 0));
                links.of(3).bits()
            })
            .collect();
        assert_eq!(alone, beside);
        assert_eq!(alone[0], Stream::new(7, "link 3").bits());
        assert_ne!(alone[0], Stream::new(8, "link 3").bits());
        assert_ne!(alone[0], Stream::new(7, "disk 3").bits());
    }
}
