//! Peers and the roads to them: libp2p over TCP with Noise, hidden behind bytes.
//!
//! - **Lanes** ([`Network::send`]): two persistent streams each way to every peer. Votes never wait behind bodies.
//! - **Gossip** ([`Network::publish`]): batches to everybody, relayed only after the node accepted them.
//! - **Exchange** ([`Network::request`]): what is missing, asked of one peer.
//!
//! ```text
//!   node ── Network (handle, clonable) ──┐ queues, bounded            ┌── Events (votes first) ── node
//!                                        ▼                            │
//!   keep_alive ── manager: the swarm, every dial, every place ── session per connection: 2 lanes out, 2 in
//!                   door (who may in)  gossip  exchange
//! ```
//!
//! This crate knows frames, peers, scores and bounds; never what a frame means. Nothing of libp2p is visible outside.
//! The bytes are in `docs/format-network.md`. Every bound is in [`limits`], with its reason.

mod dialer;
mod door;
mod events;
mod exchange;
mod gossip;
mod handshake;
mod identity;
pub mod limits;
mod manager;
mod meter;
mod network;
pub mod probe;
mod queue;
mod score;
mod session;
mod shared;
mod swarm;
mod wire;

#[cfg(test)]
mod tests;

pub use events::{Direction, Event, Events, GossipId, Lane, PeerInfo, PeerNo, Reason, ReplyTo, RequestError, RequestId, Verdict};
pub use handshake::{Handshake, OPENING_VERSION, Refusal, ValidatorBinding, VerifyFn, binding_message};
pub use identity::{AddressError, NodeId, PeerAddr};
pub use limits::{FRAME_PAYLOAD_BYTES_MAX, GOSSIP_BYTES_MAX, Limits, Pace, REQUEST_BYTES_MAX, REQUESTS_PER_PEER_MAX, RESPONSE_BYTES_MAX};
pub use network::{Config, LaneStatus, Network, PeerStatus, StartError, Totals};
pub use queue::{QueueLevel, SendError};
pub use score::{POINTS_FORGIVEN_PER_S, POINTS_GOSSIP_REJECTED, POINTS_MAX};
pub use wire::FrameError;
