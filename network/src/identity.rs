//! Who a node is: an ed25519 key, proved by Noise on every connection, and named by the hash of its public half.

use std::fmt;
use std::str::FromStr;

use libp2p::PeerId;
use libp2p::identity::PublicKey;
use sha2::{Digest, Sha256};

use crate::limits::ADDRESS_BYTES_MAX;

/// The first 20 bytes of SHA-256 over a node's ed25519 public key, shown as 40 lower-case hex digits: the node id of
/// CometBFT, so its address books and `id@host:port` lists carry over.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub [u8; 20]);

impl NodeId {
    /// The id of the node that holds this public key.
    pub fn of_public_key(public_key: &[u8; 32]) -> Self {
        let digest = Sha256::digest(public_key);
        let mut id = [0; 20];
        id.copy_from_slice(&digest[..20]);
        Self(id)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId({self})")
    }
}

/// Why a text is not an address of a peer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not 40 lower-case hex digits.
    #[error("a node id is 40 lower-case hex digits, not {0:?}")]
    NodeId(String),
    /// No `@` between node id and host.
    #[error("a peer is written id@host:port, not {0:?}")]
    Shape(String),
    /// The host is empty or too long, or the port is missing, zero or not a number.
    #[error("host and port of a peer are written host:port with a port of 1 to 65535, not {0:?}")]
    HostPort(String),
}

impl FromStr for NodeId {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let wrong = || AddressError::NodeId(text.to_owned());
        let digits = text.as_bytes();
        if digits.len() != 40 {
            return Err(wrong());
        }
        let nibble = |digit: u8| match digit {
            b'0'..=b'9' => Ok(digit - b'0'),
            b'a'..=b'f' => Ok(digit - b'a' + 10),
            _ => Err(wrong()),
        };
        let mut id = [0; 20];
        for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
        }
        Ok(Self(id))
    }
}

/// Where a peer listens, and who must answer there: `id@host:port`. The host is an address or a name; IPv6 in brackets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PeerAddr {
    /// Whoever answers with another key is not this peer, and is left.
    pub node_id: NodeId,
    /// An IP address or a DNS name.
    pub host: String,
    /// The TCP port, not zero.
    pub port: u16,
}

impl PeerAddr {
    /// The part after the `@`, as the resolver takes it.
    pub fn host_port(&self) -> String {
        if self.host.contains(':') { format!("[{}]:{}", self.host, self.port) } else { format!("{}:{}", self.host, self.port) }
    }
}

impl fmt::Display for PeerAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.node_id, self.host_port())
    }
}

impl FromStr for PeerAddr {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (id, host_port) = text.split_once('@').ok_or_else(|| AddressError::Shape(text.to_owned()))?;
        let wrong = || AddressError::HostPort(host_port.to_owned());
        let (host, port) = host_port.rsplit_once(':').ok_or_else(wrong)?;
        let host = match host.strip_prefix('[') {
            Some(inner) => inner.strip_suffix(']').ok_or_else(wrong)?,
            None if host.contains(':') => return Err(wrong()),
            None => host,
        };
        let port: u16 = port.parse().map_err(|_| wrong())?;
        if host.is_empty() || host.len() > ADDRESS_BYTES_MAX || port == 0 {
            return Err(wrong());
        }
        Ok(Self { node_id: id.parse()?, host: host.to_owned(), port })
    }
}

/// The public key inside a libp2p peer id. `None` for kinds of keys that this network does not speak.
pub(crate) fn public_key_of(peer: &PeerId) -> Option<[u8; 32]> {
    const IDENTITY_HASH: u64 = 0;
    let hash = peer.as_ref();
    if hash.code() != IDENTITY_HASH {
        return None;
    }
    let key = PublicKey::try_decode_protobuf(hash.digest()).ok()?;
    Some(key.try_into_ed25519().ok()?.to_bytes())
}
