//! Between the network's words and the replica's.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lockstep_genesis::Genesis;
use lockstep_network::{
    Config, Direction, Event, Events, Handshake, Limits, Network, NodeId, Pace, PeerAddr, Reason, Refusal, StartError, ValidatorBinding,
    Verdict,
};
use lockstep_replica::Input;
use lockstep_replica::seam::Peer;
use lockstep_replica::wire::{Message, SENT_BYTES_MAX, WIRE_VERSION};
use lockstep_types::block::BLOCK_PROTOCOL;
use lockstep_types::{PrivateKey, PublicKey, Signature, crypto};

use super::inbox::{Inbox, Mail, Origin};
use crate::metrics::Metrics;

const _: () = assert!(SENT_BYTES_MAX <= lockstep_network::RESPONSE_BYTES_MAX, "the network carries every answer that is sent");

/// Where and as whom to listen.
pub(crate) struct Listen {
    pub(crate) address: SocketAddr,
    pub(crate) external: String,
    pub(crate) moniker: String,
    pub(crate) rpc_address: String,
    pub(crate) persistent_peers: Vec<PeerAddr>,
    pub(crate) limits: Limits,
}

/// Starts the network: says who we are, and binds the validator key to the node key.
pub(crate) async fn start(
    genesis: &Genesis,
    node_key: PrivateKey,
    validator_key: Option<&PrivateKey>,
    listen: Listen,
) -> Result<(Network, Events), StartError> {
    // Asked of the system first: what libp2p says of a port that is taken does not tell why.
    let probe = std::net::TcpListener::bind(listen.address);
    drop(probe.map_err(|source| StartError::Listen { address: listen.address, source })?);
    let genesis_hash = genesis.hash();
    let node_public_key = node_key.public_key().0;
    let validator = validator_key.map(|key| {
        let message = lockstep_network::binding_message(genesis.chain_id.as_str(), &genesis_hash.0, &node_public_key);
        ValidatorBinding { public_key: key.public_key().0, signature: key.sign(&message).0 }
    });
    let listen_address = if listen.external.is_empty() { listen.address.to_string() } else { listen.external };
    let limits = Limits { gossip_bytes_max: lockstep_replica::wire::GOSSIP_BYTES_MAX, ..listen.limits };
    Network::start(Config {
        listen: listen.address,
        identity: *node_key.seed(),
        persistent_peers: listen.persistent_peers,
        handshake: Handshake {
            wire_version: u32::from(WIRE_VERSION),
            chain_id: genesis.chain_id.as_str().to_owned(),
            genesis_hash: genesis_hash.0,
            block_protocol: BLOCK_PROTOCOL,
            node_version: format!("lockstep/{}", env!("CARGO_PKG_VERSION")),
            moniker: listen.moniker,
            rpc_address: listen.rpc_address,
            listen_address,
            validator,
        },
        verify: |key, message, signature| crypto::verify(&PublicKey(*key), message, &Signature(*signature)),
        limits,
        pace: Pace::default(),
    })
    .await
}

/// Hands events to the replica for as long as they come. Strangers' wait for places of their own, and keep nobody else waiting.
pub(crate) async fn receive(events: Events, network: Network, inbox: Inbox, metrics: Arc<Metrics>) {
    let (peers, strangers) = events.split();
    tokio::join!(
        hand_on(peers, Origin::Peer, network.clone(), inbox.clone(), metrics.clone()),
        hand_on(strangers, Origin::Stranger, network, inbox, metrics)
    );
}

async fn hand_on(mut events: Events, from: Origin, network: Network, inbox: Inbox, metrics: Arc<Metrics>) {
    let mut unreached = Unreached::default();
    let mut doubles = Doubles::default();
    let mut kept_out = BTreeSet::new();
    while let Some(event) = events.recv().await {
        match event {
            Event::Connected { peer, info } => {
                unreached.reached(info.node_id);
                metrics.peer_up();
                if kept_out.remove(&info.node_id) {
                    metrics.kept_out(kept_out.len());
                }
                tracing::info!(peer = peer.0, node = %info.node_id, remote = %info.remote, moniker = info.handshake.moniker, "peer connected");
                let validator = info.handshake.validator.as_ref().map(|binding| PublicKey(binding.public_key));
                inbox.external(from, Mail::External(Input::PeerUp { peer: Peer(peer.0), validator })).await;
            }
            Event::Disconnected { peer, node_id, reason } => {
                metrics.peer_down();
                metrics.swarm_restarts(network.totals().swarm_restarts);
                tracing::info!(peer = peer.0, node = %node_id, %reason, "peer disconnected");
                inbox.external(from, Mail::External(Input::PeerDown { peer: Peer(peer.0) })).await;
            }
            Event::Refused { node_id, remote, direction, reason } => {
                metrics.refused_connection(direction, &reason);
                metrics.refused_untold(network.totals().notes_dropped);
                // Of the settings' peers alone: anybody who comes could say so.
                if direction == Direction::Outbound
                    && let (Some(id), Reason::RefusedByPeer(Refusal::KeyInUse)) = (node_id, &reason)
                    && kept_out.insert(id)
                {
                    metrics.kept_out(kept_out.len());
                }
                let is_worth_telling = direction == Direction::Outbound && node_id.is_some_and(|id| unreached.is_due(id, Instant::now()));
                let node = node_id.map(|id| id.to_string()).unwrap_or_default();
                let remote = remote.map(|remote| remote.to_string()).unwrap_or_default();
                if is_worth_telling {
                    tracing::warn!(node, remote, %reason, "a peer of p2p.persistent_peers cannot be reached; it is dialled on and on");
                } else if reason == Reason::Refused(Refusal::KeyInUse) && doubles.is_due(Instant::now()) {
                    tracing::warn!(node, remote, %reason, "a peer runs twice");
                } else {
                    tracing::debug!(node, remote, %reason, "no connection");
                }
            }
            Event::Received { peer, bytes, .. } => {
                inbox.external(from, Mail::External(Input::Received { peer: Peer(peer.0), bytes })).await
            }
            Event::Gossip { peer, id, bytes } => {
                // What is no batch of transactions ends here and costs its sender; what is one is passed on.
                let is_batch = Message::decode_gossip(&bytes).is_ok();
                let _ = network.report(id, if is_batch { Verdict::Accept } else { Verdict::Reject });
                if is_batch {
                    inbox.external(from, Mail::External(Input::Gossiped { peer: Peer(peer.0), bytes })).await;
                }
            }
            Event::Request { peer, reply_to, bytes } => inbox.external(from, Mail::Asked { peer: Peer(peer.0), reply_to, bytes }).await,
            Event::Response { id, result, .. } => inbox.put(Mail::Response { id, bytes: result.ok() }),
        }
    }
}

/// Peers that are dialled in vain. Only those of the settings are dialled, so they are few.
#[derive(Debug, Default)]
struct Unreached(BTreeMap<NodeId, Vain>);

/// When peers that run twice were last told of.
#[derive(Debug, Default)]
struct Doubles(Option<Instant>);

impl Doubles {
    /// The second process dials on and on; once in a minute is enough of it.
    fn is_due(&mut self, now: Instant) -> bool {
        let is_due = self.0.is_none_or(|told| now.duration_since(told) >= Unreached::TOLD_AGAIN);
        if is_due {
            self.0 = Some(now);
        }
        is_due
    }
}

#[derive(Debug)]
struct Vain {
    since: Instant,
    told: Option<Instant>,
}

impl Unreached {
    /// A network that starts dials peers that do not listen yet.
    const PATIENCE: Duration = Duration::from_secs(5);
    const TOLD_AGAIN: Duration = Duration::from_secs(60);

    fn reached(&mut self, id: NodeId) {
        self.0.remove(&id);
    }

    /// A dial failed: whether that is to be told now.
    fn is_due(&mut self, id: NodeId, now: Instant) -> bool {
        let vain = self.0.entry(id).or_insert(Vain { since: now, told: None });
        let waited = match vain.told {
            Some(told) => now.duration_since(told) >= Self::TOLD_AGAIN,
            None => now.duration_since(vain.since) >= Self::PATIENCE,
        };
        if waited {
            vain.told = Some(now);
        }
        waited
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_is_dialled_in_vain_is_told_of_after_a_while_and_then_each_minute() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let (one, other) = (NodeId([1; 20]), NodeId([2; 20]));
        let mut unreached = Unreached::default();
        assert!(!unreached.is_due(one, at(0)) && !unreached.is_due(one, at(4)));
        assert!(unreached.is_due(one, at(5)));
        assert!(!unreached.is_due(one, at(64)) && !unreached.is_due(other, at(64)));
        assert!(unreached.is_due(one, at(65)));
        unreached.reached(one);
        assert!(!unreached.is_due(one, at(200)), "it was there meanwhile");
    }
}
