//! The keys and the genesis of simulated chains. Real keys: what is signed and verified is what a network signs.

use lockstep_genesis::Genesis;
use lockstep_genesis::home::{Member, genesis as genesis_of};
use lockstep_types::{ChainId, Power, PrivateKey, Time};
use zeroize::Zeroizing;

use crate::plan::Plan;

/// 2026-01-03T00:00:00Z, a day after the genesis time: when simulated clocks start.
pub(crate) const START_UNIX_NS: i128 = 1_767_398_400_000_000_000;
const GENESIS: &str = "2026-01-02T00:00:00Z";

fn member((node, power): (usize, &u64)) -> Member {
    let byte = u8::try_from(node + 1).expect("simulated networks are small");
    Member::new(format!("node{node}"), Power::new(*power).expect("plans have small powers"), &Zeroizing::new([byte; 64]))
}

/// The key of a node that follows, where it may come to validate.
pub(crate) fn candidate(plan: &Plan, node: usize) -> Option<PrivateKey> {
    plan.members.map(|_| member((node, &1)).validator_key)
}

/// The genesis of a plan's chain under this `app_state`, and its validators' keys by node.
pub(crate) fn genesis(plan: &Plan, app_state: &str) -> (Genesis, Vec<PrivateKey>) {
    let members: Vec<Member> = plan.powers.iter().enumerate().map(member).collect();
    let with_rules = plan.members.map(|windows| windows.app_state(app_state));
    let app_state = with_rules.as_deref().unwrap_or(app_state);
    let chain_id = ChainId::new("simulated").expect("it follows the rule");
    let time: Time = GENESIS.parse().expect("it is a time");
    let genesis =
        genesis_of(chain_id, time, plan.params(), &members, app_state).expect("plans follow the rules of genesis, and `app_state` is JSON");
    (genesis, members.into_iter().map(|member| member.validator_key).collect())
}
