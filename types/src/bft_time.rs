//! BFT time of CometBFT 0.38 (`encoding.md` section 11). Lockstep's chains use proposer-based timestamps; this is for
//! those who verify other chains.

use crate::time::Time;

/// The weighted median of the timestamps of a commit, from (timestamp, power) of the slots that voted; none when no power
/// voted.
pub fn weighted_median(votes: &[(Time, u64)]) -> Option<Time> {
    let mut sorted: Vec<(Time, u64)> = votes.to_vec();
    sorted.sort_by_key(|(time, _)| *time);
    let total: u128 = sorted.iter().map(|(_, power)| u128::from(*power)).sum();
    let mut half = total / 2;
    for (time, power) in sorted {
        let power = u128::from(power);
        if half <= power {
            return Some(time);
        }
        half -= power;
    }
    None
}
