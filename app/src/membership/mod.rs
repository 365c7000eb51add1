//! Membership: who validates, as rules that are functions of the chain alone. JOIN, APPROVE, QUIT and CHECKPOINT are
//! transactions of the node (`crate::node_tx`); the [`Host`](crate::Host) runs them beside every application whose genesis
//! asks for it, so an author gets them without a line of code.
//!
//! # What a member goes through
//!
//! ```text
//!             JOIN, signed over a recent block               approved, and proven lately
//!   (nobody) ------------------------------------> observer ------------------------------> waits
//!       ^                                             ^                                       | power may move
//!       | QUIT granted                                | JOIN again                            v
//!     leaves <------------------- waits <--------- suspended <---- absent too long ------ validator
//!                                   ^                                                         | QUIT
//!                                   +---------------------------------------------------------+
//!                              evidence: barred at once, and for ever
//! ```
//!
//! - **JOIN** names a consensus key and is signed by it, over the name of a recent block: the signature proves that the key is
//!   held by whoever joins, and that whoever joins has caught up. So admitting it cannot stall the chain. Until it is admitted
//!   it is an *observer*: it follows, and has no power. A later JOIN of the same key takes the place of an earlier one; one that names an
//!   older block than the last does not, whoever hands it on.
//! - **Who admits** is the policy of genesis ([`Admission`]): more than two thirds of the power approve, m of n authority keys
//!   do, or nobody has to (for experiments). An approval names key and power, so neither can be changed afterwards. It may come
//!   before the JOIN.
//! - **QUIT** is signed by the member that leaves; authority keys can ask for another's removal, and m of n of them effect it.
//! - **Rotation** is a JOIN that replaces a key and is signed by both: the new key gets the old one's power at the height at
//!   which the old one loses it. Where the old key is gone by then, or has another power, nothing of the JOIN is left, nor of
//!   what was approved.
//! - **What is undone stays undone.** Every request stands in the chain for all to read, and is good for [`live_window`](Config::live_window)
//!   heights. So whoever loses its power, or takes its JOIN back, is remembered for as long, with the height: a JOIN, an approval or a QUIT
//!   that speaks of its key and was signed over a block below that height is refused. (What the pool remembers of executed transactions
//!   does not do: a restart forgets it, and a proposer that lies does not ask.)
//! - **CHECKPOINT** asks that every replica snapshot the height of the block it is in; the [`ReplicaRecord`](crate::ReplicaRecord)
//!   is written into the state at that height.
//!
//! # Why the chain goes on
//!
//! What is asked for waits in one line, first come first served, and is granted at the end of a block as far as two rules
//! allow. Both are about the *newest set*, the one that this block's updates change and that acts two heights later.
//!
//! 1. **Power moves slowly.** Over any [`power_window`](Config::power_window) heights the power moved is at most a third of the
//!    total at the window's start, or is that of one validator not above the largest present. (A light client that knows a set
//!    verifies every later one as long as more than a third of the known power is still there; and newcomers that all lie
//!    together stay below the third that consensus bears.) *Moved* at a height is the larger of what was added and what was
//!    taken away: a rotation is counted once.
//! 2. **A live quorum remains.** Whatever is granted leaves more than two thirds of the power with members that are live: that
//!    signed one of the last [`COUNTED_ON_WINDOW`] commits, or came to have power in them, having proved in a JOIN of the last
//!    [`live_window`](Config::live_window) blocks that they follow.
//!    A QUIT that would break this is refused at once; one that comes to break it while it waits is passed over.
//!
//! Evidence is exempt from the first rule, since the power of a proven liar is better gone, and from the second, since a liar
//! is not to be counted on; it counts as moved power, so that others wait; and the last validator of a set is not removed.
//! A validator that is absent for [`absence_window`](Config::absence_window) heights although it had a slot as proposer in
//! them, and missed all of them, is *suspended*: put in the line to lose its power; it returns by a JOIN, without approval.
//!
//! Updates are merged per key, and only what [`ValidatorSet::update`](lockstep_types::ValidatorSet::update) takes is returned: no transaction can make the list
//! invalid.
//!
//! # Views
//!
//! The set in force is a numbered *view*. What is granted at H acts at H + 2. Every replica delivers the blocks of a view in
//! that view, since the set of a height is a function of the blocks below it: block H + 1 still belongs to the old view, and
//! block H + 2 is the first of the new one. Its events begin with `view`, before any event of its transactions: that is the
//! barrier. The event `membership` of block H announces it.
//!
//! # Where it is kept
//!
//! Members stand in the state, under reserved keys (`registry`), so they are provable. What changes with every block
//! (attendance, power moved, the line, recent blocks: [`Standing`]) stands beside it, so that an empty block leaves the root
//! as it is; it enters the root at checkpoints, in the replica record.

mod config;
mod query;
mod registry;
mod requests;
mod signatures;
mod standing;
mod text;
mod turn;
mod tx;

use crate::tree::Tree;
pub(crate) use config::split;
pub use config::{Admission, Authority, COUNTED_ON_WINDOW, Config};
pub use query::MEMBERSHIP_PATH;
pub(crate) use query::answer;
pub use registry::{Member, Status};
pub(crate) use registry::{Registry, genesis_changes};
pub(crate) use requests::{Desk, judge};
pub(crate) use signatures::Signed;
pub use standing::{EVIDENCE_REMEMBERED_MAX, RECENT_MAX, RecentBlocks, Standing};

/// Names of how many blocks the rules of a chain with this state look back to: a JOIN names a block of the last `live_window`. None
/// are needed where there is no membership.
pub fn names_kept(tree: &Tree) -> u64 {
    Registry::config(tree).map_or(0, |config| config.live_window)
}

pub use text::{address_breaks, moniker_breaks};
pub use turn::ChainFacts;
pub(crate) use turn::{Ended, Turn};
pub use tx::{
    ADDRESS_BYTES_MAX, ADDRESSES_MAX, Approve, Checkpoint, Join, MONIKER_BYTES_MAX, NODE_TX_BYTES_MAX, NodeTx, NodeTxError, Quit,
    RecentBlock,
};
