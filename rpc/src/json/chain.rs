//! Blocks, commits, validators and parameters (contract section 4).

use lockstep_types::block::PartSetHeader;
use lockstep_types::commit::SlotSignature;
use lockstep_types::merkle;
use lockstep_types::validators::VALIDATORS_MAX;
use lockstep_types::{
    Address, AppHash, ChainId, Hash, Height, Power, PublicKey, Round, Signature, Time, ValidatorIndex, block, commit, params, validators,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::evidence;
use super::{Base64, Dec, Hex, Malformed};

/// A block's name. Nil is the object with empty hashes and total 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockId {
    /// Hash of the header.
    pub hash: Hex,
    /// The parts.
    pub parts: Parts,
}

/// The parts of a block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parts {
    /// How many.
    pub total: u32,
    /// Their root.
    pub hash: Hex,
}

impl BlockId {
    /// No block.
    pub fn nil() -> Self {
        Self { hash: Hex::default(), parts: Parts { total: 0, hash: Hex::default() } }
    }
}

impl From<Option<block::BlockId>> for BlockId {
    fn from(id: Option<block::BlockId>) -> Self {
        id.map_or_else(Self::nil, Self::from)
    }
}

impl From<block::BlockId> for BlockId {
    fn from(id: block::BlockId) -> Self {
        Self { hash: id.hash.into(), parts: Parts { total: id.parts.total, hash: id.parts.hash.into() } }
    }
}

impl TryFrom<&BlockId> for Option<block::BlockId> {
    type Error = Malformed;

    fn try_from(id: &BlockId) -> Result<Self, Malformed> {
        if *id == BlockId::nil() {
            return Ok(None);
        }
        let parts = PartSetHeader { total: id.parts.total, hash: fixed(&id.parts.hash, "parts hash")? };
        Ok(Some(block::BlockId { hash: fixed(&id.hash, "block hash")?, parts }))
    }
}

/// 32 bytes of a hash.
fn fixed(bytes: &Hex, what: &str) -> Result<Hash, Malformed> {
    <[u8; 32]>::try_from(bytes.0.as_slice()).map(Hash).map_err(|_| Malformed::new(format!("{what} has {} bytes, not 32", bytes.0.len())))
}

/// Versions in a header. Both members are always there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Block protocol.
    pub block: Dec<u64>,
    /// Application.
    pub app: Dec<u64>,
}

/// A header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the members are those of the header in `lockstep_types`")]
pub struct Header {
    pub version: Version,
    pub chain_id: ChainId,
    pub height: Height,
    pub time: Time,
    pub last_block_id: BlockId,
    pub last_commit_hash: Hash,
    pub data_hash: Hash,
    pub validators_hash: Hash,
    pub next_validators_hash: Hash,
    pub consensus_hash: Hash,
    pub app_hash: Hex,
    pub last_results_hash: Hash,
    pub evidence_hash: Hash,
    pub proposer_address: Address,
}

impl From<&block::Header> for Header {
    fn from(header: &block::Header) -> Self {
        Self {
            version: Version { block: Dec(header.version.block), app: Dec(header.version.app) },
            chain_id: header.chain_id.clone(),
            height: header.height,
            time: header.time,
            last_block_id: header.last_block_id.into(),
            last_commit_hash: header.last_commit_hash,
            data_hash: header.data_hash,
            validators_hash: header.validators_hash,
            next_validators_hash: header.next_validators_hash,
            consensus_hash: header.consensus_hash,
            app_hash: header.app_hash.as_bytes().into(),
            last_results_hash: header.last_results_hash,
            evidence_hash: header.evidence_hash,
            proposer_address: header.proposer_address,
        }
    }
}

impl TryFrom<&Header> for block::Header {
    type Error = Malformed;

    fn try_from(header: &Header) -> Result<Self, Malformed> {
        Ok(Self {
            version: block::Version { block: header.version.block.0, app: header.version.app.0 },
            chain_id: header.chain_id.clone(),
            height: header.height,
            time: header.time,
            last_block_id: (&header.last_block_id).try_into()?,
            last_commit_hash: header.last_commit_hash,
            data_hash: header.data_hash,
            validators_hash: header.validators_hash,
            next_validators_hash: header.next_validators_hash,
            consensus_hash: header.consensus_hash,
            app_hash: AppHash::from_bytes(&header.app_hash.0).ok_or_else(|| Malformed::new("app_hash is too long"))?,
            last_results_hash: header.last_results_hash,
            evidence_hash: header.evidence_hash,
            proposer_address: header.proposer_address,
        })
    }
}

/// A slot of a commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitSig {
    /// 1 absent, 2 for the block, 3 for nil.
    pub block_id_flag: u8,
    /// Empty when absent.
    pub validator_address: Hex,
    /// The zero time when absent.
    pub timestamp: Time,
    /// Null when absent.
    pub signature: Option<Base64>,
}

impl From<&commit::CommitSig> for CommitSig {
    fn from(sig: &commit::CommitSig) -> Self {
        let slot = sig.slot();
        Self {
            block_id_flag: sig.flag(),
            validator_address: slot.map(|slot| slot.address.into()).unwrap_or_default(),
            timestamp: slot.map_or(Time::ZERO, |slot| slot.timestamp),
            signature: slot.map(|slot| Base64(slot.signature.0.to_vec())),
        }
    }
}

impl TryFrom<&CommitSig> for commit::CommitSig {
    type Error = Malformed;

    fn try_from(sig: &CommitSig) -> Result<Self, Malformed> {
        let slot = || {
            let signature = sig.signature.as_ref().map(|signature| signature.0.as_slice()).unwrap_or_default();
            Ok(SlotSignature {
                address: Address(sig.validator_address.0.as_slice().try_into().map_err(|_| Malformed::new("a signer's address"))?),
                timestamp: sig.timestamp,
                signature: Signature(signature.try_into().map_err(|_| Malformed::new("a signature of other than 64 bytes"))?),
            })
        };
        match sig.block_id_flag {
            1 if *sig == CommitSig::from(&Self::Absent) => Ok(Self::Absent),
            2 => slot().map(Self::Commit),
            3 => slot().map(Self::Nil),
            flag => Err(Malformed::new(format!("a slot of a commit with flag {flag}"))),
        }
    }
}

/// A commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// Height decided; 0 for the commit before the first block.
    pub height: Height,
    /// Round decided in.
    pub round: u32,
    /// The block decided.
    pub block_id: BlockId,
    /// One slot for each validator.
    pub signatures: Vec<CommitSig>,
}

impl From<&commit::Commit> for Commit {
    fn from(commit: &commit::Commit) -> Self {
        Self {
            height: commit.height,
            round: commit.round.get(),
            block_id: commit.block_id.into(),
            signatures: commit.signatures.iter().map(CommitSig::from).collect(),
        }
    }
}

impl From<Option<&commit::Commit>> for Commit {
    fn from(commit: Option<&commit::Commit>) -> Self {
        commit.map_or_else(|| Self { height: Height::ZERO, round: 0, block_id: BlockId::nil(), signatures: Vec::new() }, Self::from)
    }
}

impl TryFrom<&Commit> for commit::Commit {
    type Error = Malformed;

    fn try_from(commit: &Commit) -> Result<Self, Malformed> {
        if commit.signatures.len() > VALIDATORS_MAX {
            return Err(Malformed::new(format!("a commit of {} slots", commit.signatures.len())));
        }
        Ok(Self {
            height: commit.height,
            round: Round::new(commit.round).ok_or_else(|| Malformed::new("a round above 2^31"))?,
            block_id: Option::try_from(&commit.block_id)?.ok_or_else(|| Malformed::new("a commit for no block"))?,
            signatures: commit.signatures.iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
        })
    }
}

/// A block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// The header.
    pub header: Header,
    /// The transactions.
    pub data: Data,
    /// Evidence of misbehaviour.
    pub evidence: EvidenceData,
    /// The commit of the block before.
    pub last_commit: Commit,
}

/// The transactions of a block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Data {
    /// In order; never null.
    pub txs: Vec<Base64>,
}

/// The evidence of a block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvidenceData {
    /// Never null. Kept as JSON: clients pass it through.
    pub evidence: Vec<Value>,
}

impl Block {
    /// A block; the set of the evidence's heights is not needed, evidence carries what it shows.
    pub fn new(block: &block::Block) -> Self {
        Self {
            header: (&block.header).into(),
            data: Data { txs: block.txs.iter().map(|tx| tx.as_ref().into()).collect() },
            evidence: EvidenceData { evidence: block.evidence.iter().map(evidence::evidence).collect() },
            last_commit: block.last_commit.as_ref().into(),
        }
    }
}

/// A key with its type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", content = "value")]
pub enum PubKey {
    /// The one kind of key here.
    #[serde(rename = "tendermint/PubKeyEd25519")]
    Ed25519(Base64),
}

impl From<&PublicKey> for PubKey {
    fn from(key: &PublicKey) -> Self {
        Self::Ed25519(key.as_bytes().into())
    }
}

impl TryFrom<&PubKey> for PublicKey {
    type Error = Malformed;

    fn try_from(key: &PubKey) -> Result<Self, Malformed> {
        let PubKey::Ed25519(bytes) = key;
        bytes.0.as_slice().try_into().map(Self).map_err(|_| Malformed::new("a public key of other than 32 bytes"))
    }
}

/// A validator in a set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Validator {
    /// Its address.
    pub address: Address,
    /// Its key.
    pub pub_key: PubKey,
    /// Its power.
    pub voting_power: Power,
    /// Its priority in the rotation.
    pub proposer_priority: Dec<i64>,
}

impl From<&validators::Validator> for Validator {
    fn from(validator: &validators::Validator) -> Self {
        Self {
            address: validator.address,
            pub_key: (&validator.public_key).into(),
            voting_power: validator.power,
            proposer_priority: Dec(validator.priority),
        }
    }
}

impl TryFrom<&Validator> for validators::Validator {
    type Error = Malformed;

    fn try_from(validator: &Validator) -> Result<Self, Malformed> {
        let public_key = PublicKey::try_from(&validator.pub_key)?;
        let found = Self { priority: validator.proposer_priority.0, ..Self::new(public_key, validator.voting_power) };
        if found.address != validator.address || found.power == Power::ZERO {
            return Err(Malformed::new(format!("validator {} does not fit its key, or has no power", validator.address)));
        }
        Ok(found)
    }
}

/// A set from what an answer lists. Who proposes is not in the answer: place 0 stands there, and nothing verified reads it.
///
/// # Errors
/// When the list is not a set.
pub fn validator_set(list: &[Validator]) -> Result<validators::ValidatorSet, Malformed> {
    let members = list.iter().map(TryInto::try_into).collect::<Result<Vec<_>, _>>()?;
    validators::ValidatorSet::from_validators(members, ValidatorIndex::ZERO).map_err(|error| Malformed(error.to_string()))
}

/// Parameters. Always whole: a partial object is not parsed by clients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsensusParams {
    /// Bounds of a block.
    pub block: BlockParams,
    /// Evidence.
    pub evidence: EvidenceParams,
    /// Validators.
    pub validator: ValidatorParams,
    /// Versions.
    pub version: VersionParams,
    /// The application's interface.
    pub abci: AbciParams,
}

/// Bounds of a block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockParams {
    /// Most bytes.
    pub max_bytes: Dec<i64>,
    /// Most gas, -1 for no bound.
    pub max_gas: Dec<i64>,
}

/// Evidence window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvidenceParams {
    /// In blocks.
    pub max_age_num_blocks: Dec<u64>,
    /// In nanoseconds.
    pub max_age_duration: Dec<u64>,
    /// Most bytes in a block.
    pub max_bytes: Dec<u64>,
}

/// Keys that validators may have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValidatorParams {
    /// Kinds of key.
    pub pub_key_types: Vec<String>,
}

/// Version of the application, as a parameter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionParams {
    /// The number.
    pub app: Dec<u64>,
}

/// Vote extensions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AbciParams {
    /// First height with them; 0 for never.
    pub vote_extensions_enable_height: Dec<u64>,
}

impl From<&params::ConsensusParams> for ConsensusParams {
    fn from(params: &params::ConsensusParams) -> Self {
        Self {
            block: BlockParams { max_bytes: Dec(params.block.max_bytes), max_gas: Dec(params.block.max_gas) },
            evidence: EvidenceParams {
                max_age_num_blocks: Dec(params.evidence.max_age_num_blocks),
                max_age_duration: Dec(params.evidence.max_age_duration_ns),
                max_bytes: Dec(params.evidence.max_bytes),
            },
            validator: ValidatorParams { pub_key_types: vec!["ed25519".to_owned()] },
            version: VersionParams { app: Dec(params.app_version) },
            abci: AbciParams { vote_extensions_enable_height: Dec(params.vote_extensions_enable_height) },
        }
    }
}

/// Proof that a transaction is in a block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TxProof {
    /// The header's `data_hash`.
    pub root_hash: Hash,
    /// The transaction.
    pub data: Base64,
    /// The path.
    pub proof: MerkleProof,
}

/// A path in a Merkle tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MerkleProof {
    /// Number of leaves.
    pub total: Dec<u64>,
    /// Position of the leaf.
    pub index: Dec<u64>,
    /// Hash of the leaf.
    pub leaf_hash: Base64,
    /// From the sibling of the leaf upwards; never missing.
    pub aunts: Vec<Base64>,
}

impl From<&merkle::Proof> for MerkleProof {
    fn from(proof: &merkle::Proof) -> Self {
        Self {
            total: Dec(proof.total),
            index: Dec(proof.index),
            leaf_hash: proof.leaf_hash.into(),
            aunts: proof.aunts.iter().map(Base64::from).collect(),
        }
    }
}

impl TryFrom<&MerkleProof> for merkle::Proof {
    type Error = Malformed;

    fn try_from(proof: &MerkleProof) -> Result<Self, Malformed> {
        let hash = |bytes: &Base64| {
            <[u8; 32]>::try_from(bytes.0.as_slice()).map(Hash).map_err(|_| Malformed::new("a hash of other than 32 bytes in a proof"))
        };
        Ok(Self {
            total: proof.total.0,
            index: proof.index.0,
            leaf_hash: hash(&proof.leaf_hash)?,
            aunts: proof.aunts.iter().map(hash).collect::<Result<_, _>>()?,
        })
    }
}
