//! The replica is a function: `step(Now, Input) -> Effects`.
//!
//! It has no clock, socket, thread, randomness or log line, and never blocks. Two shells run it: the node with real files,
//! sockets and clocks, and the simulator under a seed; every bug is reproduced from its inputs alone.
//!
//! | module | holds |
//! |---|---|
//! | [`seam`] | inputs, effects, tickets: what a shell must do **\[frozen\]** |
//! | [`wire`] | what peers say to each other **\[frozen\]** |
//! | [`fence`] | holds effects back until what they wait for is durable; used by both shells |
//! | [`replica`] | the replica: composition and dispatch |
//! | `height` | one height, from its beginning over its decision to its execution |
//! | `proposals`, `votes` | what consensus is told in between: made, or taken in and verified |
//! | `jobs` | questions that are out to the shell |
//! | [`light_store`] | headers that outlive their bodies |
//! | `casting`, `own_messages` | what it casts: recorded, signed, sent; and what this node may have forgotten |
//! | [`signing`] | what is signed, what the guard records, when silence is due |
//! | [`bodies`] | block bodies on their way |
//! | [`shares`] | what peers send early, within a bound they share |
//! | [`pool`] | transactions of clients and peers |
//! | [`gossip`] | reconciliation with peers |
//! | [`catch_up`] | block sync beside consensus |
//! | `fetching` | bodies that a quorum named and nobody sent |
//! | [`serving`], [`source`] | answers to peers, each in its turn; what the log holds for them |
//! | [`state_sync`] | a snapshot instead of all blocks: gathered beside consensus, installed at a start |
//! | [`pace`] | when a height begins |
//! | [`chain`] | what the chain says after a block |
//! | [`check`], [`execution`] | the jobs that shells run beside the replica |
//! | [`evidence`] | misbehaviour: what a block may carry, what waits for one, how it travels |
//! | [`results`] | what is kept of a block's execution |
//! | [`audit`] | the replica whose state is not the chain's finds it, stops signing, heals |
//! | [`snapshots`], [`retention`] | snapshots of checkpoints, and what of the log may go once they are there |
//! | [`recovery`] | what a restart finds on disk, and where it goes on |
//!
//! **The three orders** (each a ticket, none a convention): a body is durable before a lock or precommit for it is recorded;
//! the decision of H is durable before a guard record of H + 1 is written; the decision is durable and the block executed
//! before a client hears "committed".

pub mod audit;
pub mod bodies;
mod casting;
pub mod catch_up;
pub mod chain;
pub mod check;
pub mod effects;
pub mod evidence;
pub mod execution;
pub mod fence;
mod fetching;
pub mod gossip;
mod height;
mod jobs;
pub mod light_store;
mod own_messages;
pub mod pace;
pub mod peers;
pub mod planted;
pub mod pool;
mod proposals;
pub mod recovery;
pub mod replica;
pub mod report;
pub mod results;
pub mod retention;
pub mod seam;
pub mod serving;
pub mod shares;
pub mod signing;
pub mod snapshots;
pub mod source;
pub mod state_sync;
mod votes;
pub mod wire;

pub use chain::ChainState;
pub use fence::Fence;
pub use replica::{Config, Replica, Restored};
pub use seam::{Effect, Input, Now};
