//! Gossipsub, set so that it carries only our topic, unsigned, and passes on nothing the node has not accepted.

use std::collections::HashSet;
use std::time::Duration;

use libp2p::gossipsub::{
    Behaviour, ConfigBuilder, IdentTopic, IdentityTransform, Message, MessageAuthenticity, MessageId, ValidationMode,
    WhitelistSubscriptionFilter,
};
use sha2::{Digest, Sha256};

use crate::handshake::Handshake;
use crate::limits::{GOSSIP_ENVELOPE_BYTES_MAX, Limits};

pub(crate) type Gossip = Behaviour<IdentityTransform, WhitelistSubscriptionFilter>;

/// The whole content and the topic: two batches have one id only if they are the same batch.
pub(crate) fn content_id(topic: &str, data: &[u8]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update(u64::try_from(topic.len()).expect("a length fits a u64").to_le_bytes());
    hasher.update(topic.as_bytes());
    hasher.update(data);
    hasher.finalize().into()
}

/// `/lockstep/<chain id>/<first 8 bytes of the genesis hash>/batches/1`: another chain's batches are not even subscribed to.
pub(crate) fn topic_of(handshake: &Handshake) -> IdentTopic {
    use std::fmt::Write as _;
    let mut topic = format!("/lockstep/{}/", handshake.chain_id);
    for byte in &handshake.genesis_hash[..8] {
        write!(topic, "{byte:02x}").expect("a String takes any text");
    }
    topic.push_str("/batches/1");
    IdentTopic::new(topic)
}

/// A behaviour subscribed to the topic of `handshake`.
pub(crate) fn behaviour(handshake: &Handshake, limits: &Limits) -> Gossip {
    let topic = topic_of(handshake);
    let config = ConfigBuilder::default()
        // Who published is nobody's business, and what is inside is signed already.
        .validation_mode(ValidationMode::Anonymous)
        .validate_messages()
        .message_id_fn(|message: &Message| MessageId::new(&content_id(message.topic.as_str(), &message.data)))
        .max_transmit_size(limits.gossip_bytes_max + GOSSIP_ENVELOPE_BYTES_MAX)
        .flood_publish(true)
        // With one second and more of both, a new mesh carries nothing for its first blocks.
        .heartbeat_initial_delay(Duration::from_millis(100))
        .heartbeat_interval(Duration::from_millis(700))
        .build()
        .expect("the settings are ours and fit each other");
    let filter = WhitelistSubscriptionFilter(HashSet::from([topic.hash()]));
    let mut gossip = Behaviour::new_with_subscription_filter(MessageAuthenticity::Anonymous, config, filter)
        .expect("anonymous authenticity fits anonymous validation");
    gossip.subscribe(&topic).expect("the filter lets our own topic through");
    gossip
}
