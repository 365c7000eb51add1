//! What two nodes tell each other before anything else, and what each checks.
//!
//! The bytes are frozen; `docs/format-network.md` states them for other implementations.

use std::io::{Error, ErrorKind, Read};

use borsh::{BorshDeserialize, BorshSerialize};

use crate::identity::NodeId;
use crate::limits::{ADDRESS_BYTES_MAX, CHAIN_ID_BYTES_MAX, NAME_BYTES_MAX, OPENING_BYTES_MAX};

/// The layout of the opening message. It stands first, so that a node of another layout can still be told why it is refused.
pub const OPENING_VERSION: u8 = 1;

const BINDING_TAG: &[u8] = b"lockstep/validator-binding/1";

/// What a node says about itself. The caller states its own and receives that of each peer, checked.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize)]
pub struct Handshake {
    /// The version of what is inside the frames. Must be equal.
    pub wire_version: u32,
    /// The chain. Must be equal; at most [`CHAIN_ID_BYTES_MAX`] bytes.
    pub chain_id: String,
    /// The hash of the parsed genesis. Must be equal.
    pub genesis_hash: [u8; 32],
    /// The block protocol the node runs. Told, not compared: upgrades are agreed by transaction.
    pub block_protocol: u64,
    /// The software, for people to read; at most [`NAME_BYTES_MAX`] bytes.
    pub node_version: String,
    /// The operator's name for the node; at most [`NAME_BYTES_MAX`] bytes.
    pub moniker: String,
    /// Where the node says that clients reach it, or empty; at most [`ADDRESS_BYTES_MAX`] bytes. A claim, not a fact.
    pub rpc_address: String,
    /// Where the node says that peers reach it, or empty; at most [`ADDRESS_BYTES_MAX`] bytes. A claim, not a fact.
    pub listen_address: String,
    /// The consensus key of the validator that runs this node, if it says so. Verified before anybody sees it.
    pub validator: Option<ValidatorBinding>,
}

/// A validator's word that this node is its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ValidatorBinding {
    /// The consensus key, ed25519.
    pub public_key: [u8; 32],
    /// By that key, over [`binding_message`].
    pub signature: [u8; 64],
}

/// What a validator's consensus key signs to claim a node: byte 00, a tag, the chain id with its length (u32, little-endian), the
/// genesis hash and the node's public key. No canonical message of consensus begins with 00, so the signature is good for nothing else.
pub fn binding_message(chain_id: &str, genesis_hash: &[u8; 32], node_public_key: &[u8; 32]) -> Vec<u8> {
    let length = u32::try_from(chain_id.len()).expect("a chain id is short");
    let mut message = vec![0];
    message.extend_from_slice(BINDING_TAG);
    message.extend_from_slice(&length.to_le_bytes());
    message.extend_from_slice(chain_id.as_bytes());
    message.extend_from_slice(genesis_hash);
    message.extend_from_slice(node_public_key);
    message
}

/// `verify(public key, message, signature)`: the one verdict on signatures, which the node brings along.
pub type VerifyFn = fn(&[u8; 32], &[u8], &[u8; 64]) -> bool;

/// The answer to an opening message that was not accepted: one byte on the wire, so that both logs name the same reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[repr(u8)]
pub enum Refusal {
    /// The opening message does not decode, or a field breaks its bound.
    #[error("malformed opening message")]
    Malformed = 1,
    /// Another layout of the opening message, or other contents of frames.
    #[error("another version of the wire protocol")]
    WireVersion = 2,
    /// Another chain id.
    #[error("another chain id")]
    ChainId = 3,
    /// The same chain id, another genesis.
    #[error("another genesis")]
    Genesis = 4,
    /// The validator binding's signature is not good.
    #[error("a validator binding that its key did not sign")]
    Binding = 5,
    /// Another connection of the two nodes is kept.
    #[error("a connection between the two nodes exists already")]
    Duplicate = 6,
    /// All places are taken.
    #[error("no place for another peer")]
    NoPlace = 7,
    /// The peer misbehaved lately.
    #[error("banned for a while")]
    Banned = 8,
    /// Another process with the peer's node key is connected, and is kept: it was here first, or the key of one of the validators vouches for it alone.
    #[error("another process uses the same node key and is kept: a home runs twice, and the copy must be stopped")]
    KeyInUse = 9,
}

/// The byte that says: accepted.
pub(crate) const ACCEPTED: u8 = 0;

impl Refusal {
    /// Every reason, in the order of their bytes.
    pub const ALL: [Self; 9] = [
        Self::Malformed,
        Self::WireVersion,
        Self::ChainId,
        Self::Genesis,
        Self::Binding,
        Self::Duplicate,
        Self::NoPlace,
        Self::Banned,
        Self::KeyInUse,
    ];

    /// The byte on the wire, 1 to 9.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The reason with this byte.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|refusal| refusal.code() == code)
    }
}

/// The handshake as a lane carries it.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(crate) struct Hello {
    pub(crate) handshake: Handshake,
    /// Drawn at each start. A peer whose number changed was restarted, and its older connection is a corpse.
    pub(crate) instance: u64,
}

/// The first message on a stream: which lane it is. The votes lane carries the handshake; the bulk lane of the same
/// connection has nothing to add.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(crate) enum Opening {
    Votes(Box<Hello>),
    Bulk,
}

impl Opening {
    /// The message without its length field.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![OPENING_VERSION];
        self.serialize(&mut bytes).expect("a Vec takes any bytes");
        bytes
    }

    /// Borsh has one encoding for a value, and trailing bytes are an error, so equal values mean equal bytes.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Refusal> {
        let (version, body) = bytes.split_first().ok_or(Refusal::Malformed)?;
        if *version != OPENING_VERSION {
            return Err(Refusal::WireVersion);
        }
        if bytes.len() > OPENING_BYTES_MAX {
            return Err(Refusal::Malformed);
        }
        let opening: Self = borsh::from_slice(body).map_err(|_| Refusal::Malformed)?;
        match &opening {
            Self::Votes(hello) if !hello.handshake.is_bounded() => Err(Refusal::Malformed),
            Self::Votes(_) | Self::Bulk => Ok(opening),
        }
    }
}

impl BorshDeserialize for Handshake {
    fn deserialize_reader<R: Read>(reader: &mut R) -> std::io::Result<Self> {
        Ok(Self {
            wire_version: u32::deserialize_reader(reader)?,
            chain_id: read_text(reader, CHAIN_ID_BYTES_MAX)?,
            genesis_hash: <[u8; 32]>::deserialize_reader(reader)?,
            block_protocol: u64::deserialize_reader(reader)?,
            node_version: read_text(reader, NAME_BYTES_MAX)?,
            moniker: read_text(reader, NAME_BYTES_MAX)?,
            rpc_address: read_text(reader, ADDRESS_BYTES_MAX)?,
            listen_address: read_text(reader, ADDRESS_BYTES_MAX)?,
            validator: Option::deserialize_reader(reader)?,
        })
    }
}

/// A text of at most `max` bytes, refused before anything is reserved for it when it claims more: borsh alone would reserve a
/// mebibyte on the word of a stranger.
fn read_text<R: Read>(reader: &mut R, max: usize) -> std::io::Result<String> {
    let len = usize::try_from(u32::deserialize_reader(reader)?).unwrap_or(usize::MAX);
    if len > max {
        return Err(Error::new(ErrorKind::InvalidData, format!("a text of {len} bytes, at most {max} are allowed")));
    }
    let mut bytes = vec![0; len];
    reader.read_exact(&mut bytes)?;
    String::from_utf8(bytes).map_err(|error| Error::new(ErrorKind::InvalidData, error))
}

impl Handshake {
    /// Every text within its bound, and printable ASCII: it ends up in logs and on terminals.
    pub fn is_bounded(&self) -> bool {
        let fits = |text: &str, bytes_max: usize| text.len() <= bytes_max && text.bytes().all(|byte| (0x20..0x7f).contains(&byte));
        !self.chain_id.is_empty()
            && fits(&self.chain_id, CHAIN_ID_BYTES_MAX)
            && fits(&self.node_version, NAME_BYTES_MAX)
            && fits(&self.moniker, NAME_BYTES_MAX)
            && fits(&self.rpc_address, ADDRESS_BYTES_MAX)
            && fits(&self.listen_address, ADDRESS_BYTES_MAX)
    }

    /// Whether we stay connected to the node with `theirs`, whose public key Noise proved.
    pub(crate) fn check(&self, theirs: &Self, their_public_key: &[u8; 32], verify: VerifyFn) -> Result<(), Refusal> {
        if theirs.wire_version != self.wire_version {
            return Err(Refusal::WireVersion);
        }
        if theirs.chain_id != self.chain_id {
            return Err(Refusal::ChainId);
        }
        if theirs.genesis_hash != self.genesis_hash {
            return Err(Refusal::Genesis);
        }
        if let Some(binding) = &theirs.validator {
            let message = binding_message(&theirs.chain_id, &theirs.genesis_hash, their_public_key);
            if !verify(&binding.public_key, &message, &binding.signature) {
                return Err(Refusal::Binding);
            }
        }
        Ok(())
    }
}

/// Which of two connections, dialled by both nodes at once, is kept: the one the lower node id dialled. Both sides compute
/// the same answer without a word.
pub(crate) fn keeps_outbound(local: NodeId, remote: NodeId) -> bool {
    local < remote
}
