//! Between the network's words and the replica's.

use std::net::SocketAddr;
use std::sync::Arc;

use lockstep_genesis::Genesis;
use lockstep_network::{Config, Event, Events, Handshake, Limits, Network, Pace, PeerAddr, StartError, ValidatorBinding, Verdict};
use lockstep_replica::Input;
use lockstep_replica::seam::Peer;
use lockstep_replica::wire::{Message, SENT_BYTES_MAX, WIRE_VERSION};
use lockstep_types::block::BLOCK_PROTOCOL;
use lockstep_types::{PrivateKey, PublicKey, Signature, crypto};

use super::inbox::{Inbox, Mail};
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

/// Hands events to the replica for as long as they come.
pub(crate) async fn receive(mut events: Events, network: Network, inbox: Inbox, metrics: Arc<Metrics>) {
    while let Some(event) = events.recv().await {
        match event {
            Event::Connected { peer, info } => {
                metrics.peer_up();
                tracing::info!(peer = peer.0, node = %info.node_id, remote = %info.remote, moniker = info.handshake.moniker, "peer connected");
                let validator = info.handshake.validator.as_ref().map(|binding| PublicKey(binding.public_key));
                inbox.external(Mail::External(Input::PeerUp { peer: Peer(peer.0), validator })).await;
            }
            Event::Disconnected { peer, node_id, reason } => {
                metrics.peer_down();
                tracing::info!(peer = peer.0, node = %node_id, %reason, "peer disconnected");
                inbox.external(Mail::External(Input::PeerDown { peer: Peer(peer.0) })).await;
            }
            Event::Refused { node_id, remote, reason, .. } => {
                tracing::debug!(node = ?node_id.map(|id| id.to_string()), ?remote, %reason, "no connection");
            }
            Event::Received { peer, bytes, .. } => inbox.external(Mail::External(Input::Received { peer: Peer(peer.0), bytes })).await,
            Event::Gossip { peer, id, bytes } => {
                // What is no batch of transactions ends here and costs its sender; what is one is passed on.
                let is_batch = Message::decode_gossip(&bytes).is_ok();
                let _ = network.report(id, if is_batch { Verdict::Accept } else { Verdict::Reject });
                if is_batch {
                    inbox.external(Mail::External(Input::Gossiped { peer: Peer(peer.0), bytes })).await;
                }
            }
            Event::Request { peer, reply_to, bytes } => inbox.external(Mail::Asked { peer: Peer(peer.0), reply_to, bytes }).await,
            Event::Response { id, result, .. } => inbox.put(Mail::Response { id, bytes: result.ok() }),
        }
    }
}
