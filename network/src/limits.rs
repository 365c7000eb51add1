//! Every bound of the network, with its reason. What a peer can make us hold is the product of these.

use std::time::Duration;

/// One block part, the largest thing that travels in a frame (design, section 8).
pub const PART_BYTES_MAX: usize = 64 * 1024;
/// What may surround a part: heights, rounds, indices and its Merkle proof.
pub const ENVELOPE_BYTES_MAX: usize = 4 * 1024;
/// The payload of one frame: one part and its envelope. A vote behind it on the same wire waits for no more than this.
pub const FRAME_PAYLOAD_BYTES_MAX: usize = PART_BYTES_MAX + ENVELOPE_BYTES_MAX;
/// What the length field of a frame may say: the kind byte and the payload.
pub(crate) const FRAME_LENGTH_MAX: usize = 1 + FRAME_PAYLOAD_BYTES_MAX;
/// A frame on the wire: its length field and what that announces.
pub(crate) const FRAME_WIRE_BYTES_MAX: usize = 4 + FRAME_LENGTH_MAX;
/// What a lane reads into. Two frames fit, so after a compaction there is always room for the rest of a begun one.
pub(crate) const READ_BUFFER_BYTES: usize = 2 * FRAME_WIRE_BYTES_MAX;
/// Queued frames are put into one write until it holds this much. Larger writes gain nothing: Noise seals 64 KiB at a time.
pub(crate) const WRITE_BATCH_BYTES: usize = 64 * 1024;
const _: () = assert!(READ_BUFFER_BYTES >= 2 * FRAME_WIRE_BYTES_MAX);
const _: () = assert!(FRAME_LENGTH_MAX <= u32::MAX as usize);

/// The opening message of a lane, without its length field: every text of a handshake at its longest, and the fixed fields.
pub const OPENING_BYTES_MAX: usize = 1024;
/// A chain id, as in the Tendermint specification.
pub const CHAIN_ID_BYTES_MAX: usize = 50;
/// Moniker and software version: for people to read.
pub const NAME_BYTES_MAX: usize = 64;
/// `host:port` as announced in a handshake.
pub const ADDRESS_BYTES_MAX: usize = 255;
const _: () = assert!(
    OPENING_BYTES_MAX >= 2 + 4 + (4 + CHAIN_ID_BYTES_MAX) + 32 + 8 + 2 * (4 + NAME_BYTES_MAX) + 2 * (4 + ADDRESS_BYTES_MAX) + 1 + 96 + 8,
    "the largest legal handshake fits"
);

/// By how much the windows of a connection's streams grow together, beyond the 256 KiB that yamux grants each. What is under way
/// on the bulk lane is in front of the next vote, in buffers of the kernel that nobody can reorder: at most 1 MiB, 8 ms at
/// 1 Gbit/s. More would buy throughput of one lane beyond 10 MB/s at a round trip of 100 ms.
pub(crate) const WINDOW_GROWTH_BYTES_MAX: usize = 768 * 1024;

/// Frames waiting for one peer on the votes lane. A peer that is this far behind has its votes re-sent by reconciliation.
pub const VOTES_QUEUE_FRAMES_MAX: usize = 4096;
/// Bytes waiting for one peer on the votes lane.
pub const VOTES_QUEUE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Frames waiting for one peer on the bulk lane.
pub const BULK_QUEUE_FRAMES_MAX: usize = 4096;
/// Bytes waiting for one peer on the bulk lane: a few blocks.
pub const BULK_QUEUE_BYTES_MAX: usize = 16 * 1024 * 1024;
const _: () = assert!(VOTES_QUEUE_BYTES_MAX >= FRAME_PAYLOAD_BYTES_MAX && BULK_QUEUE_BYTES_MAX >= FRAME_PAYLOAD_BYTES_MAX);

/// Events of one class that wait for the node to take them. When full, the peers' streams are not read: they feel it.
pub(crate) const EVENT_QUEUE_LEN: usize = 4096;
/// Bytes of received votes that wait for the node, over all peers.
pub(crate) const VOTES_EVENT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes of received bulk frames that wait for the node, over all peers.
pub(crate) const BULK_EVENT_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Bytes of received gossip that wait for the node. Beyond it gossip is dropped: it is lossy by nature.
pub(crate) const GOSSIP_EVENT_BYTES_MAX: usize = 32 * 1024 * 1024;
const _: () = assert!(GOSSIP_EVENT_BYTES_MAX >= GOSSIP_BYTES_MAX);
/// Refusals and failed dials that wait to be read. They inform people, so the excess is counted and dropped.
pub(crate) const NOTE_QUEUE_LEN: usize = 256;

/// What a stranger may send at once before his rate counts (`Limits::stranger_bytes_per_s`): handshakes and a large transaction.
pub(crate) const STRANGER_BURST_BYTES: usize = 2 * 1024 * 1024;
/// What a stranger's frame counts for at least, and what is added for a question of his or a stream that he opens: what they
/// cost the replica, the disk and the swarm, in bytes that Noise could have opened meanwhile.
pub(crate) const FRAME_COST_BYTES: usize = 1024;
pub(crate) const STREAM_COST_BYTES: usize = 4 * 1024;
pub(crate) const REQUEST_COST_BYTES: usize = 16 * 1024;
const _: () = assert!(STRANGER_BURST_BYTES >= 64 * (FRAME_COST_BYTES + STREAM_COST_BYTES + REQUEST_COST_BYTES));
/// Inbound connections that are begun in a second, and at once: each costs a Noise handshake. Beyond it the socket is closed before one
/// byte is read. The largest network's validators all come at once.
pub(crate) const INBOUND_PER_S: u64 = 32;
pub(crate) const INBOUND_AT_ONCE: u64 = 256;

/// Events of strangers of one class that wait for the node: a few of each, as many strangers as there may be.
pub(crate) const STRANGER_EVENT_QUEUE_LEN: usize = 1024;
/// Bytes of strangers' votes that wait for the node.
pub(crate) const STRANGER_VOTES_EVENT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes of strangers' bulk frames that wait for the node.
pub(crate) const STRANGER_BULK_EVENT_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Bytes of strangers' gossip that wait for the node.
pub(crate) const STRANGER_GOSSIP_EVENT_BYTES_MAX: usize = 16 * 1024 * 1024;
const _: () = assert!(STRANGER_GOSSIP_EVENT_BYTES_MAX >= GOSSIP_BYTES_MAX);

/// One published batch. Gossipsub buffers it several times over.
pub const GOSSIP_BYTES_MAX: usize = 1024 * 1024;
/// Batches waiting for the swarm to publish them.
pub(crate) const PUBLISH_QUEUE_LEN: usize = 1024;
/// Bytes of batches waiting for the swarm to publish them.
pub(crate) const PUBLISH_QUEUE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// What gossipsub's protobuf adds around one batch: topic, lengths.
pub(crate) const GOSSIP_ENVELOPE_BYTES_MAX: usize = 4 * 1024;

/// One request: what is wanted, never data.
pub const REQUEST_BYTES_MAX: usize = 64 * 1024;
/// One response: a run of blocks or a snapshot chunk.
pub const RESPONSE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Requests of ours in flight to one peer, and of one peer to us. At 512 streams yamux closes the whole connection, and
/// request-response opens one per request; below 100 it never comes near.
pub const REQUESTS_PER_PEER_MAX: usize = 64;
const _: () = assert!(REQUESTS_PER_PEER_MAX < 100);
/// Requests of ours in flight over all peers, so that every answer has its place in the event queue from the start.
pub const REQUESTS_MAX: usize = 1024;
/// Bytes of responses handed over and not yet written, over all peers.
pub(crate) const RESPONSES_OUT_BYTES_MAX: usize = 64 * 1024 * 1024;
const _: () = assert!(RESPONSES_OUT_BYTES_MAX >= RESPONSE_BYTES_MAX);
/// Gossip and requests of a connection that finishes its handshakes a moment later than its peer does.
pub(crate) const EARLY_MAX: usize = 64;

/// Commands waiting for the swarm: verdicts on gossip, requests, responses.
pub(crate) const COMMAND_QUEUE_LEN: usize = 4096;
/// Reports of connections waiting for the swarm.
pub(crate) const REPORT_QUEUE_LEN: usize = 256;
/// Connections past Noise and not yet past the handshakes.
pub(crate) const HANDSHAKING_MAX: usize = 64;
/// Connections of one identity at once: a stale one, two of a simultaneous dial, and one to spare.
pub(crate) const CONNECTIONS_PER_PEER_MAX: usize = 4;
/// Persistent peers, configured or added while running.
pub const PERSISTENT_PEERS_MAX: usize = 256;
/// Identities whose points are remembered.
pub(crate) const SCORES_MAX: usize = 4096;
/// Connection tasks that may panic before the whole swarm is rebuilt: each can leave an entry behind inside libp2p.
pub(crate) const CONNECTION_PANICS_MAX: u32 = 32;

/// How many peers, and from where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connected peers that are neither persistent nor validators.
    pub peers_max: usize,
    /// Further places that only validators (see `Network::set_validators`) may take. Persistent peers always have a place.
    pub validators_max: usize,
    /// Connections from one address that have not finished Noise.
    pub pending_per_ip_max: usize,
    /// Connections from all addresses that have not finished Noise.
    pub pending_max: usize,
    /// Connections from one address, inbound.
    pub per_ip_max: usize,
    /// Do not count per address on the loopback interface: a whole network lives there while one is developing.
    pub loopback_exempt: bool,
    /// One published batch, in bytes; at most [`GOSSIP_BYTES_MAX`].
    pub gossip_bytes_max: usize,
    /// Bytes a second that are read of a stranger: a peer that came to us, whom the operator did not name and no validator's
    /// key vouches for.
    pub stranger_bytes_per_s: u64,
    /// Bytes a second that are read of all strangers together, in equal shares.
    pub strangers_bytes_per_s: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            peers_max: 50,
            validators_max: 150,
            pending_per_ip_max: 16,
            pending_max: 128,
            per_ip_max: 8,
            loopback_exempt: true,
            gossip_bytes_max: 256 * 1024,
            // Ten thousand transactions of 256 bytes a second, and as much again.
            stranger_bytes_per_s: 5_000_000,
            // A tenth of what a core opens and hands on.
            strangers_bytes_per_s: 16_000_000,
        }
    }
}

/// How long things may take. The defaults are for production; tests shorten some.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pace {
    /// An idle votes lane carries a heartbeat this often.
    pub heartbeat: Duration,
    /// A peer of which nothing was heard for so long is gone, though its socket says nothing (a cut cable).
    pub silent_after: Duration,
    /// A peer that takes not one byte for so long, while bytes wait for it, is dropped.
    pub stalled_after: Duration,
    /// From connected to all four streams confirmed.
    pub handshake_within: Duration,
    /// From dialling to Noise finished.
    pub dial_within: Duration,
    /// The first redial after a loss; doubled with every failure.
    pub redial_first: Duration,
    /// The longest pause between two dials of a persistent peer. They never end.
    pub redial_max: Duration,
    /// A request is answered within this, or fails.
    pub request_within: Duration,
    /// A peer that lost all its points may come back after this.
    pub ban: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(1000),
            silent_after: Duration::from_millis(4000),
            stalled_after: Duration::from_secs(10),
            handshake_within: Duration::from_secs(5),
            dial_within: Duration::from_secs(5),
            redial_first: Duration::from_millis(50),
            redial_max: Duration::from_secs(2),
            request_within: Duration::from_secs(10),
            ban: Duration::from_secs(60),
        }
    }
}
