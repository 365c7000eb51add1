//! Block sync: which blocks to ask of whom, and what to believe of the answers.
//!
//! It runs beside consensus, always: there is no mode to enter or to leave. Peers say what they have; when that is more
//! than we have and consensus does not close the gap by itself, ranges of blocks are asked of several peers at once, and
//! what comes is handed to verification strictly in the order of heights, because the validators of a height are known
//! only when the block before it was executed. The caller verifies, stores and executes, and reports a verdict and a new tip.
//!
//! ```text
//!   PeerStatus ──> Request ──> Response ──> held ──> Verify ──> Verdict ──> Tip
//!                     │            │                               │
//!                  deadline:    mislabelled,                     wrong:
//!                  ask another  too much: blame                  blame, ask another
//! ```
//!
//! # What is believed
//!
//! - A claim only makes us ask. Nothing waits for it, and one that is not kept costs the peer its turn for a while.
//! - A block is believed when its certificate holds, and who gave a wrong one is left for good.
//! - Slowness is no lie. A deadline makes us ask a second peer and prefer others; the late answer is taken if it is still
//!   of use, and clears the name of who gave it.
//! - What was not asked for is dropped unread.
//!
//! Peers that were tried and gave nothing carry a debt, those that gave blocks which proved good pay it off, and only
//! those near the least debt are asked. So among any number of liars one honest peer is soon asked all the time
//! ([`BlockSync`]).
//!
//! The other side of the wire is in [`server`]. Who is so far behind that nobody has the blocks any more, or does not want to
//! execute them all, takes a snapshot instead: [`state`].

mod client;
mod fetch;
mod held;
pub mod light;
mod peers;
mod request;
mod seam;
pub mod server;
pub mod state;

pub use client::{AT_ONCE_GAP, BlockSync, GRACE_MS, HEDGE_MS, HOLD_MS, RANGE_BLOCKS_MAX, REQUESTS_MAX, SPECULATIVE_REQUESTS_MAX};
pub use held::{BUFFER_BYTES_MAX, VERIFY_AHEAD_MAX, WINDOW_BLOCKS};
pub use peers::{
    DEADLINE_MS, DEBT_SLACK, FORGET_AFTER_DEADLINES, PATIENCE_MAX, PEERS_MAX, REQUESTS_PER_PEER_MAX, REST_MS, REST_MS_MAX,
    SHORT_ANSWER_DEBT, TIMEOUT_DEBT,
};
pub use seam::{Answer, BlameReason, Effect, Fetched, Input};
pub use server::{RESPONSE_BYTES_MAX, Server, WHOLE_PARTS_MAX, fetched_bytes, plan_response};
