//! The transactions of the node: bytes, and what is signed.
//!
//! `00 3D 3A`, a [`NodeTxTag`], a version byte, borsh of the body. A body ends with its signatures; what is signed is the
//! domain of the type (`lockstep_types::domain`), the tag, and the body before them. Every one names a recent block: what
//! was signed for one chain, or long ago, means nothing.

use std::io::Read;

use borsh::{BorshDeserialize, BorshSerialize};
use lockstep_types::codec;
use lockstep_types::domain::{self, Tag};
use lockstep_types::planted::{self, Bug};
use lockstep_types::{ChainId, Hash, Height, Power, PrivateKey, PublicKey, Signature};

use super::text::{address_breaks, moniker_breaks};
use crate::node_tx::{NODE_TX_PREFIX, NodeTxTag};

/// Longest name that a member gives itself, bytes of UTF-8.
pub const MONIKER_BYTES_MAX: usize = 70;
/// Most addresses of a member.
pub const ADDRESSES_MAX: usize = 8;
/// Longest address, bytes.
pub const ADDRESS_BYTES_MAX: usize = 128;
/// Longest transaction of the node.
pub const NODE_TX_BYTES_MAX: usize = 2_048;
/// Version byte of all bodies.
const VERSION: u8 = 1;
/// Prefix, tag and version.
const HEAD_BYTES: usize = NODE_TX_PREFIX.len() + 2;

/// A block that the signer knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct RecentBlock {
    /// Its height.
    pub height: Height,
    /// Its header's hash.
    pub hash: Hash,
}

/// Asks that a key be admitted; again, to prove anew that it follows, or to return.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize)]
pub struct Join {
    /// The consensus key.
    pub public_key: PublicKey,
    /// The power it asks for.
    pub power: Power,
    /// A name for people, at most 70 bytes that can be seen ([`moniker_breaks`]).
    pub moniker: String,
    /// Where its node is found, as in `persistent_peers` or without the node's id ([`address_breaks`]); at most 8.
    pub addresses: Vec<String>,
    /// The key whose place it takes; none for a newcomer.
    pub replaces: Option<PublicKey>,
    /// What it has caught up to.
    pub recent: RecentBlock,
    /// By `public_key`.
    pub signature: Signature,
    /// By `replaces`, exactly where there is one.
    pub replaced_signature: Option<Signature>,
}

/// Asks that a validator leave, or takes an own JOIN back.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Quit {
    /// Who leaves.
    pub public_key: PublicKey,
    /// Who says so: itself, or a key of the authority.
    pub signer: PublicKey,
    /// When it was signed.
    pub recent: RecentBlock,
    /// By `signer`.
    pub signature: Signature,
}

/// Approves that a key be admitted.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Approve {
    /// Who is approved.
    pub public_key: PublicKey,
    /// With this power.
    pub power: Power,
    /// By whom: a validator, or a key of the authority.
    pub signer: PublicKey,
    /// When it was signed.
    pub recent: RecentBlock,
    /// By `signer`.
    pub signature: Signature,
}

/// Asks for a checkpoint at the height of the block that carries it.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Checkpoint {
    /// A validator, or a key of the authority.
    pub signer: PublicKey,
    /// When it was signed.
    pub recent: RecentBlock,
    /// By `signer`.
    pub signature: Signature,
}

/// A transaction of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeTx {
    /// See [`Join`].
    Join(Box<Join>),
    /// See [`Quit`].
    Quit(Quit),
    /// See [`Approve`].
    Approve(Approve),
    /// See [`Checkpoint`].
    Checkpoint(Checkpoint),
}

/// Why bytes are no transaction of the node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NodeTxError {
    /// No known kind.
    #[error("transactions that begin with 00 3D 3A are reserved for the node, and this one is of no known kind")]
    Kind,
    /// Not the bytes of that kind.
    #[error("a {kind} transaction that cannot be read: {rule}")]
    Malformed {
        /// Which.
        kind: &'static str,
        /// What is wrong.
        rule: String,
    },
    /// A field breaks a rule.
    #[error("{field} is {value}: {rule}")]
    Field {
        /// Which.
        field: &'static str,
        /// Its value.
        value: String,
        /// The rule.
        rule: String,
    },
    /// A signature is not that of its key.
    #[error("the signature by {0} does not hold: another key signed, or for another chain, or a field was changed afterwards")]
    Signature(PublicKey),
}

impl BorshDeserialize for Join {
    fn deserialize_reader<R: Read>(reader: &mut R) -> std::io::Result<Self> {
        let text = |reader: &mut R, max: usize| {
            let bytes = codec::read_bytes(reader, max)?;
            String::from_utf8(bytes).map_err(|error| std::io::Error::new(std::io::ErrorKind::InvalidData, error.to_string()))
        };
        let (public_key, power) = <(PublicKey, Power)>::deserialize_reader(reader)?;
        let moniker = text(reader, MONIKER_BYTES_MAX)?;
        let count = u32::deserialize_reader(reader)? as usize;
        if count > ADDRESSES_MAX {
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, format!("{count} addresses, at most {ADDRESSES_MAX}")));
        }
        let addresses = (0..count).map(|_| text(reader, ADDRESS_BYTES_MAX)).collect::<Result<_, _>>()?;
        let (replaces, recent, signature, replaced_signature) =
            <(Option<PublicKey>, RecentBlock, Signature, Option<Signature>)>::deserialize_reader(reader)?;
        Ok(Self { public_key, power, moniker, addresses, replaces, recent, signature, replaced_signature })
    }
}

impl NodeTx {
    /// Which it is.
    pub const fn tag(&self) -> NodeTxTag {
        match self {
            Self::Join(_) => NodeTxTag::Join,
            Self::Quit(_) => NodeTxTag::Quit,
            Self::Approve(_) => NodeTxTag::Approve,
            Self::Checkpoint(_) => NodeTxTag::Checkpoint,
        }
    }

    /// Who asks: the sender, for the mempool's shares.
    pub const fn signer(&self) -> &PublicKey {
        match self {
            Self::Join(join) => &join.public_key,
            Self::Quit(quit) => &quit.signer,
            Self::Approve(approve) => &approve.signer,
            Self::Checkpoint(checkpoint) => &checkpoint.signer,
        }
    }

    /// The block that it names.
    pub const fn recent(&self) -> RecentBlock {
        match self {
            Self::Join(join) => join.recent,
            Self::Quit(quit) => quit.recent,
            Self::Approve(approve) => approve.recent,
            Self::Checkpoint(checkpoint) => checkpoint.recent,
        }
    }

    /// The bytes of a transaction.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(&NODE_TX_PREFIX);
        bytes.extend_from_slice(&[self.tag() as u8, VERSION]);
        let written = match self {
            Self::Join(join) => join.serialize(&mut bytes),
            Self::Quit(quit) => quit.serialize(&mut bytes),
            Self::Approve(approve) => approve.serialize(&mut bytes),
            Self::Checkpoint(checkpoint) => checkpoint.serialize(&mut bytes),
        };
        written.expect("writing to memory does not fail");
        bytes
    }

    /// From a transaction's bytes: what of it can be judged without the chain, but for signatures.
    ///
    /// # Errors
    /// See [`NodeTxError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, NodeTxError> {
        let tx = Self::parse(bytes)?;
        tx.check_fields()?;
        Ok(tx)
    }

    /// From a transaction's bytes: what of it can be judged without looking at its fields.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, NodeTxError> {
        let tag = bytes.get(NODE_TX_PREFIX.len()).copied().and_then(NodeTxTag::from_byte).ok_or(NodeTxError::Kind)?;
        let malformed = |rule: String| NodeTxError::Malformed { kind: tag.name(), rule };
        if bytes.len() > NODE_TX_BYTES_MAX {
            return Err(malformed(format!("{} bytes, at most {NODE_TX_BYTES_MAX}", bytes.len())));
        }
        match bytes.get(HEAD_BYTES - 1) {
            Some(&VERSION) => {}
            version => return Err(malformed(format!("version {version:?}, this program reads {VERSION}"))),
        }
        let body = &bytes[HEAD_BYTES..];
        let tx = match tag {
            NodeTxTag::Join => Join::try_from_slice(body).map(|join| Self::Join(Box::new(join))),
            NodeTxTag::Quit => Quit::try_from_slice(body).map(Self::Quit),
            NodeTxTag::Approve => Approve::try_from_slice(body).map(Self::Approve),
            NodeTxTag::Checkpoint => Checkpoint::try_from_slice(body).map(Self::Checkpoint),
        };
        tx.map_err(|error| malformed(error.to_string()))
    }

    /// Whether each field is one that may be: the rest of what [`NodeTx::decode`] judges.
    pub(super) fn check_fields(&self) -> Result<(), NodeTxError> {
        let field = |field, value: &dyn ToString, rule: &str| NodeTxError::Field { field, value: value.to_string(), rule: rule.to_owned() };
        let key = |name, key: &PublicKey| key.check().map_err(|error| field(name, key, &error.to_string()));
        let power = |power: &Power| if *power == Power::ZERO { Err(field("power", power, "at least 1")) } else { Ok(()) };
        match self {
            Self::Join(join) => {
                if !planted::has(Bug::WeakKeyJoins) {
                    key("public_key", &join.public_key)?;
                }
                power(&join.power)?;
                if let Some(rule) = moniker_breaks(&join.moniker) {
                    return Err(field("moniker", &join.moniker.escape_debug(), rule));
                }
                for address in &join.addresses {
                    if let Some(rule) = address_breaks(address) {
                        return Err(field("addresses", &address.escape_debug(), rule));
                    }
                }
                if join.replaces == Some(join.public_key) {
                    return Err(field("replaces", &join.public_key, "another key than the one that joins"));
                }
                if join.replaces.is_some() != join.replaced_signature.is_some() {
                    return Err(field("replaced_signature", &join.replaced_signature.is_some(), "there exactly where a key is replaced"));
                }
                Ok(())
            }
            Self::Approve(approve) => {
                if !planted::has(Bug::WeakKeyJoins) {
                    key("public_key", &approve.public_key)?;
                }
                power(&approve.power)
            }
            Self::Quit(_) | Self::Checkpoint(_) => Ok(()),
        }
    }

    /// What its signatures are over.
    pub fn sign_bytes(&self, chain_id: &ChainId, genesis_hash: &Hash) -> Vec<u8> {
        let tag = if matches!(self, Self::Join(_)) { Tag::Possession } else { Tag::NodeTransaction };
        let mut message = domain::begin(tag, chain_id, genesis_hash);
        message.push(self.tag() as u8);
        let written = match self {
            Self::Join(join) => {
                (&join.public_key, &join.power, &join.moniker, &join.addresses, &join.replaces, &join.recent).serialize(&mut message)
            }
            Self::Quit(quit) => (&quit.public_key, &quit.signer, &quit.recent).serialize(&mut message),
            Self::Approve(approve) => (&approve.public_key, &approve.power, &approve.signer, &approve.recent).serialize(&mut message),
            Self::Checkpoint(checkpoint) => (&checkpoint.signer, &checkpoint.recent).serialize(&mut message),
        };
        written.expect("writing to memory does not fail");
        message
    }

    /// Signs as the signer, with its key. Of a rotation this is the new key's; see [`NodeTx::sign_as_replaced`].
    #[must_use]
    pub fn signed(mut self, key: &PrivateKey, chain_id: &ChainId, genesis_hash: &Hash) -> Self {
        let by_signer = key.sign(&self.sign_bytes(chain_id, genesis_hash));
        match &mut self {
            Self::Join(join) => join.signature = by_signer,
            Self::Quit(quit) => quit.signature = by_signer,
            Self::Approve(approve) => approve.signature = by_signer,
            Self::Checkpoint(checkpoint) => checkpoint.signature = by_signer,
        }
        self
    }

    /// Signs a rotation as the key that is replaced. Nothing happens to other transactions.
    #[must_use]
    pub fn sign_as_replaced(mut self, key: &PrivateKey, chain_id: &ChainId, genesis_hash: &Hash) -> Self {
        let signature = key.sign(&self.sign_bytes(chain_id, genesis_hash));
        if let Self::Join(join) = &mut self
            && join.replaces.is_some()
        {
            join.replaced_signature = Some(signature);
        }
        self
    }

    /// Whether all its signatures hold.
    ///
    /// # Errors
    /// Names the key whose signature does not.
    pub fn verify(&self, chain_id: &ChainId, genesis_hash: &Hash) -> Result<(), NodeTxError> {
        let message = self.sign_bytes(chain_id, genesis_hash);
        let holds = |key: &PublicKey, signature: &Signature| {
            if lockstep_types::crypto::verify(key, &message, signature) { Ok(()) } else { Err(NodeTxError::Signature(*key)) }
        };
        match self {
            Self::Join(join) => {
                holds(&join.public_key, &join.signature)?;
                match (&join.replaces, &join.replaced_signature) {
                    (Some(key), Some(signature)) => holds(key, signature),
                    _ => Ok(()),
                }
            }
            Self::Quit(quit) => holds(&quit.signer, &quit.signature),
            Self::Approve(approve) => holds(&approve.signer, &approve.signature),
            Self::Checkpoint(checkpoint) => holds(&checkpoint.signer, &checkpoint.signature),
        }
    }
}
