//! Proposer-based timestamps: whether a proposal came when its time says.

use lockstep_types::{ConsensusParams, Proposal, Time};

/// `time - PRECISION <= received <= time + DELAY(r) + PRECISION` (`encoding.md` section 11).
///
/// Honest clocks differ by at most half of PRECISION and a proposal of an honest proposer takes at most DELAY, so an honest
/// proposal is timely everywhere. DELAY grows with the round: where it was set too small, a later round still succeeds.
///
/// It decides our own prevote for a new value and nothing else. It is never part of valid(v): a block that more than a third
/// of the correct validators found timely is carried by its polka and its certificate, and clocks have no say in those.
pub fn is_timely(proposal: &Proposal, received: Time, params: &ConsensusParams) -> bool {
    let precision = params.synchrony.precision.duration();
    let delay = params.message_delay_at(proposal.round.get());
    let earliest = proposal.timestamp.saturating_sub(precision);
    let latest = proposal.timestamp.saturating_add(delay).saturating_add(precision);
    (earliest..=latest).contains(&received)
}
