//! When the next height begins.
//!
//! Blocks follow each other as fast as they are decided while there is something to put in them, no faster than the
//! minimum interval, and at the empty-block interval otherwise. A block whose effects show only in the next header is
//! followed at once, so that what it did can be proven. Nothing of this is a safety rule: it only decides when we propose
//! and when our propose timer starts.

use lockstep_types::params::PaceParams;

use crate::seam::Mono;

/// What the pace of a height depends on.
#[derive(Debug, Clone, Copy)]
pub struct Facts {
    /// Own decision of the height before, or the start of the process.
    pub decided_at: Mono,
    /// A certificate proves that the chain is further: there is nothing to propose here.
    pub behind: bool,
    /// The last block's effects show only in the next header.
    pub follow_at_once: bool,
    /// Transactions or evidence are waiting.
    pub has_txs: bool,
    /// Votes of this height came from more than a third of the power: somebody correct has begun.
    pub others_began: bool,
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// Begin.
    Now,
    /// Ask again at this moment, or when a fact changes.
    At(Mono),
    /// Ask again when a fact changes.
    Wait,
}

/// Whether round 0 may begin.
pub fn pace(params: &PaceParams, facts: &Facts, now: Mono) -> Pace {
    if facts.behind {
        return Pace::Wait;
    }
    let earliest = facts.decided_at.after(params.min_block_interval.duration());
    let wanted = facts.follow_at_once || facts.has_txs || facts.others_began;
    let at = if wanted { earliest } else { facts.decided_at.after(params.empty_block_interval.duration()).max(earliest) };
    if now >= at { Pace::Now } else { Pace::At(at) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use lockstep_types::params::Millis;

    use super::*;

    const PARAMS: PaceParams = PaceParams { min_block_interval: Millis(20), empty_block_interval: Millis(1_000), gather: Millis(0) };
    const IDLE: Facts = Facts { decided_at: Mono(0), behind: false, follow_at_once: false, has_txs: false, others_began: false };

    fn ms(n: u64) -> Mono {
        Mono(0).after(Duration::from_millis(n))
    }

    #[test]
    fn an_idle_chain_waits_for_the_empty_interval() {
        assert_eq!(pace(&PARAMS, &IDLE, ms(999)), Pace::At(ms(1_000)));
        assert_eq!(pace(&PARAMS, &IDLE, ms(1_000)), Pace::Now);
    }

    #[test]
    fn every_reason_shortens_the_wait_to_the_minimum() {
        for facts in [Facts { follow_at_once: true, ..IDLE }, Facts { has_txs: true, ..IDLE }, Facts { others_began: true, ..IDLE }] {
            assert_eq!(pace(&PARAMS, &facts, ms(19)), Pace::At(ms(20)));
            assert_eq!(pace(&PARAMS, &facts, ms(20)), Pace::Now);
        }
    }

    #[test]
    fn a_node_that_is_behind_never_begins() {
        let facts = Facts { behind: true, has_txs: true, follow_at_once: true, others_began: true, ..IDLE };
        assert_eq!(pace(&PARAMS, &facts, ms(100_000)), Pace::Wait);
    }
}
