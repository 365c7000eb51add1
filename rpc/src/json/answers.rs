//! What each method answers (contract section 6).

use std::collections::BTreeMap;
use std::net::IpAddr;

use lockstep_types::{Address, ChainId, Hash, Height, NodeId, Power, Time, TxResult, abci};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Base64, Block, BlockId, Commit, ConsensusParams, Dec, Header, Hex, PubKey, TxProof, Validator};
use crate::backend;

/// The version that clients decide compatibility by: both accept `0.38.*` only.
pub const COMPATIBLE_VERSION: &str = "0.38.0";

/// Version of CometBFT's peer-to-peer protocol, as its nodes announce it.
const P2P_PROTOCOL: u64 = 8;

/// `health`, and every other answer that says nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

/// Who a node is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// Versions of protocols.
    pub protocol_version: ProtocolVersion,
    /// Its name on the network.
    pub id: NodeId,
    /// Where it listens for peers.
    pub listen_addr: String,
    /// The chain.
    pub network: ChainId,
    /// [`COMPATIBLE_VERSION`].
    pub version: String,
    /// Channels of CometBFT's transport: none here.
    pub channels: Hex,
    /// Its operator's name for it.
    pub moniker: String,
    /// Strings only.
    pub other: BTreeMap<String, String>,
}

/// Versions of protocols.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProtocolVersion {
    /// Peer to peer.
    pub p2p: Dec<u64>,
    /// Blocks.
    pub block: Dec<u64>,
    /// Application.
    pub app: Dec<u64>,
}

impl From<&backend::NodeInfo> for NodeInfo {
    fn from(node: &backend::NodeInfo) -> Self {
        let other = [
            ("tx_index", if node.tx_index { "on" } else { "off" }),
            ("rpc_address", node.rpc_address.as_str()),
            ("software", node.software.as_str()),
        ];
        Self {
            protocol_version: ProtocolVersion {
                p2p: Dec(P2P_PROTOCOL),
                block: Dec(lockstep_types::block::BLOCK_PROTOCOL),
                app: Dec(node.app_version),
            },
            id: node.id,
            listen_addr: node.listen_addr.clone(),
            network: node.chain_id.clone(),
            version: COMPATIBLE_VERSION.to_owned(),
            channels: Hex::default(),
            moniker: node.moniker.clone(),
            other: other.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        }
    }
}

/// `status`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The node.
    pub node_info: NodeInfo,
    /// The chain it has.
    pub sync_info: SyncInfo,
    /// Its vote.
    pub validator_info: ValidatorInfo,
}

/// The two ends of the chain that a node keeps. The application hashes are those in the headers. Before the first block
/// hashes are empty, heights 0, times 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct SyncInfo {
    pub latest_block_hash: Hex,
    pub latest_app_hash: Hex,
    pub latest_block_height: Height,
    pub latest_block_time: Time,
    pub earliest_block_hash: Hex,
    pub earliest_app_hash: Hex,
    pub earliest_block_height: Height,
    pub earliest_block_time: Time,
    pub catching_up: bool,
}

/// The vote of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValidatorInfo {
    /// Address of its key.
    pub address: Address,
    /// Its key.
    pub pub_key: PubKey,
    /// Its power in the set after the tip's; 0 when it is no validator.
    pub voting_power: Power,
}

impl From<&backend::Status> for Status {
    fn from(status: &backend::Status) -> Self {
        let end = |end: &Option<backend::ChainEnd>| {
            let epoch = Time::from_unix_nanos(0);
            end.as_ref().map_or((Hex::default(), Hex::default(), Height::ZERO, epoch), |end| {
                (end.hash.into(), end.app_hash.as_bytes().into(), end.height, end.time)
            })
        };
        let (latest_block_hash, latest_app_hash, latest_block_height, latest_block_time) = end(&status.latest);
        let (earliest_block_hash, earliest_app_hash, earliest_block_height, earliest_block_time) = end(&status.earliest);
        Self {
            node_info: (&status.node).into(),
            sync_info: SyncInfo {
                latest_block_hash,
                latest_app_hash,
                latest_block_height,
                latest_block_time,
                earliest_block_hash,
                earliest_app_hash,
                earliest_block_height,
                earliest_block_time,
                catching_up: status.catching_up,
            },
            validator_info: ValidatorInfo {
                address: status.validator_key.address(),
                pub_key: (&status.validator_key).into(),
                voting_power: status.power,
            },
        }
    }
}

/// `net_info`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetInfo {
    /// Always true while the node runs.
    pub listening: bool,
    /// Where it listens for peers.
    pub listeners: Vec<String>,
    /// Number of peers.
    pub n_peers: Dec<usize>,
    /// The peers.
    pub peers: Vec<Peer>,
}

/// A connected peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Who it is.
    pub node_info: NodeInfo,
    /// Whether the node dialled it.
    pub is_outbound: bool,
    /// What went over the connection.
    pub connection_status: ConnectionStatus,
    /// Where it is.
    pub remote_ip: IpAddr,
}

/// What went over a connection. The capital letters are the contract's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ConnectionStatus {
    /// Age in nanoseconds.
    pub duration: Dec<u128>,
    /// From the node to the peer.
    pub send_monitor: Monitor,
    /// From the peer to the node.
    pub recv_monitor: Monitor,
    /// Channels of CometBFT's transport: none here.
    pub channels: Vec<Value>,
}

/// One direction of a connection, in bytes, bytes per second and nanoseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[expect(missing_docs, reason = "the names are CometBFT's; what is not measured here is 0")]
pub struct Monitor {
    pub start: Time,
    pub bytes: Dec<u64>,
    pub samples: Dec<u64>,
    pub inst_rate: Dec<u64>,
    pub cur_rate: Dec<u64>,
    pub avg_rate: Dec<u64>,
    pub peak_rate: Dec<u64>,
    pub bytes_rem: Dec<u64>,
    pub duration: Dec<u128>,
    pub idle: Dec<u128>,
    pub time_rem: Dec<u64>,
    pub progress: u32,
    pub active: bool,
}

impl From<&backend::Peer> for Peer {
    fn from(peer: &backend::Peer) -> Self {
        let duration = peer.connected.as_nanos();
        let monitor = |traffic: &backend::Traffic| {
            let average = u128::from(traffic.bytes) * 1_000_000_000 / duration.max(1);
            Monitor {
                start: traffic.start,
                bytes: Dec(traffic.bytes),
                samples: Dec(traffic.messages),
                inst_rate: Dec(traffic.rate),
                cur_rate: Dec(traffic.rate),
                avg_rate: Dec(u64::try_from(average).unwrap_or(u64::MAX)),
                peak_rate: Dec(0),
                bytes_rem: Dec(0),
                duration: Dec(duration),
                idle: Dec(traffic.idle.as_nanos()),
                time_rem: Dec(0),
                progress: 0,
                active: true,
            }
        };
        Self {
            node_info: (&peer.node).into(),
            is_outbound: peer.outbound,
            connection_status: ConnectionStatus {
                duration: Dec(duration),
                send_monitor: monitor(&peer.sent),
                recv_monitor: monitor(&peer.received),
                channels: Vec::new(),
            },
            remote_ip: peer.remote_ip,
        }
    }
}

/// `genesis_chunked`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GenesisChunk {
    /// Which piece.
    pub chunk: Dec<u64>,
    /// Number of pieces.
    pub total: Dec<u64>,
    /// The piece.
    pub data: Base64,
}

/// `block` and `block_by_hash`. Nil and null when there is no such block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockAnswer {
    /// Its name.
    pub block_id: BlockId,
    /// The block.
    pub block: Option<Block>,
}

impl From<Option<&backend::BlockAnswer>> for BlockAnswer {
    fn from(answer: Option<&backend::BlockAnswer>) -> Self {
        Self { block_id: answer.map(|answer| answer.block_id).into(), block: answer.map(|answer| Block::new(&answer.block)) }
    }
}

/// `header` and `header_by_hash`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeaderAnswer {
    /// Null when there is no such header.
    pub header: Option<Header>,
}

/// `commit`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitAnswer {
    /// Header and commit.
    pub signed_header: SignedHeader,
    /// False for the tip.
    pub canonical: bool,
}

/// A header with the commit for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedHeader {
    /// The header.
    pub header: Header,
    /// The commit.
    pub commit: Commit,
}

impl From<&backend::CommitAnswer> for CommitAnswer {
    fn from(answer: &backend::CommitAnswer) -> Self {
        Self {
            signed_header: SignedHeader { header: (&answer.header).into(), commit: (&answer.commit).into() },
            canonical: answer.canonical,
        }
    }
}

/// `blockchain`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blockchain {
    /// The tip.
    pub last_height: Height,
    /// Highest first.
    pub block_metas: Vec<BlockMeta>,
}

/// A block in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockMeta {
    /// Its name.
    pub block_id: BlockId,
    /// Bytes of its body.
    pub block_size: Dec<u64>,
    /// Its header.
    pub header: Header,
    /// Number of its transactions.
    pub num_txs: Dec<u64>,
}

impl From<&backend::BlockMeta> for BlockMeta {
    fn from(meta: &backend::BlockMeta) -> Self {
        Self { block_id: meta.block_id.into(), block_size: Dec(meta.size), header: (&meta.header).into(), num_txs: Dec(meta.num_txs) }
    }
}

/// The result of a transaction; also `check_tx`. All eight members are always there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the members are those of the result in `lockstep_types`")]
pub struct ExecTxResult {
    pub code: u32,
    pub data: Option<Base64>,
    pub log: String,
    pub info: String,
    pub gas_wanted: Dec<i64>,
    pub gas_used: Dec<i64>,
    pub events: Vec<Event>,
    pub codespace: String,
}

impl From<&TxResult> for ExecTxResult {
    fn from(result: &TxResult) -> Self {
        Self {
            code: result.code,
            data: Base64::or_nil(&result.data),
            log: result.log.clone(),
            info: result.info.clone(),
            gas_wanted: Dec(result.gas_wanted),
            gas_used: Dec(result.gas_used),
            events: result.events.iter().map(Event::from).collect(),
            codespace: result.codespace.clone(),
        }
    }
}

impl From<&ExecTxResult> for TxResult {
    fn from(result: &ExecTxResult) -> Self {
        Self {
            code: result.code,
            data: result.data.clone().unwrap_or_default().0,
            log: result.log.clone(),
            info: result.info.clone(),
            gas_wanted: result.gas_wanted.0,
            gas_used: result.gas_used.0,
            events: result.events.iter().map(abci::Event::from).collect(),
            codespace: result.codespace.clone(),
        }
    }
}

/// An event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Its kind.
    #[serde(rename = "type")]
    pub kind: String,
    /// In the application's order.
    pub attributes: Vec<EventAttribute>,
}

/// A key and a value of an event. All three members are always there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventAttribute {
    /// Not empty.
    pub key: String,
    /// As text.
    pub value: String,
    /// Whether searches find it.
    pub index: bool,
}

impl From<&abci::Event> for Event {
    fn from(event: &abci::Event) -> Self {
        let attribute =
            |from: &abci::EventAttribute| EventAttribute { key: from.key.clone(), value: from.value.clone(), index: from.index };
        Self { kind: event.kind.clone(), attributes: event.attributes.iter().map(attribute).collect() }
    }
}

impl From<&Event> for abci::Event {
    fn from(event: &Event) -> Self {
        let attribute =
            |from: &EventAttribute| abci::EventAttribute { key: from.key.clone(), value: from.value.clone(), index: from.index };
        Self { kind: event.kind.clone(), attributes: event.attributes.iter().map(attribute).collect() }
    }
}

/// `block_results`. Empty lists are null.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockResults {
    /// Of which block.
    pub height: Height,
    /// One for each transaction.
    pub txs_results: Option<Vec<ExecTxResult>>,
    /// Events of the block itself.
    pub finalize_block_events: Option<Vec<Event>>,
    /// Changes of the set.
    pub validator_updates: Option<Vec<ValidatorUpdate>>,
    /// All parameters, when some changed.
    pub consensus_param_updates: Option<ConsensusParams>,
    /// Root of the state after the block.
    pub app_hash: Option<Base64>,
}

impl BlockResults {
    /// The results of a height.
    pub fn new(height: Height, results: &backend::BlockResults) -> Self {
        Self {
            height,
            txs_results: or_null(&results.tx_results),
            finalize_block_events: or_null(&results.events),
            validator_updates: or_null(&results.validator_updates),
            consensus_param_updates: results.param_updates.as_ref().map(ConsensusParams::from),
            app_hash: Base64::or_nil(results.app_hash.as_bytes()),
        }
    }
}

/// A list where an empty one is null.
fn or_null<'a, T, J: From<&'a T>>(list: &'a [T]) -> Option<Vec<J>> {
    (!list.is_empty()).then(|| list.iter().map(J::from).collect())
}

/// A change of the validator set. The nesting is that of protobuf's oneof.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValidatorUpdate {
    /// The key.
    pub pub_key: SumKey,
    /// The new power; 0 removes.
    pub power: Power,
}

/// The wrapper around [`SumOf`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SumKey {
    /// The key with its type.
    #[serde(rename = "Sum")]
    pub sum: SumOf,
}

/// A key with its type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", content = "value")]
pub enum SumOf {
    /// The one kind of key here.
    #[serde(rename = "tendermint.crypto.PublicKey_Ed25519")]
    Ed25519 {
        /// 32 bytes.
        ed25519: Base64,
    },
}

impl From<&abci::ValidatorUpdate> for ValidatorUpdate {
    fn from(update: &abci::ValidatorUpdate) -> Self {
        Self { pub_key: SumKey { sum: SumOf::Ed25519 { ed25519: update.public_key.as_bytes().into() } }, power: update.power }
    }
}

/// `validators`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Validators {
    /// Of which height.
    pub block_height: Height,
    /// One page, in set order.
    pub validators: Vec<Validator>,
    /// Validators on this page.
    pub count: Dec<usize>,
    /// Validators in all.
    pub total: Dec<usize>,
}

/// `consensus_params`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsensusParamsAnswer {
    /// Of which height.
    pub block_height: Height,
    /// The parameters.
    pub consensus_params: ConsensusParams,
}

/// `unconfirmed_txs` and `num_unconfirmed_txs`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnconfirmedTxs {
    /// Transactions listed; all of them where none is listed.
    pub n_txs: Dec<u64>,
    /// Transactions in the mempool.
    pub total: Dec<u64>,
    /// Their bytes.
    pub total_bytes: Dec<u64>,
    /// Null for `num_unconfirmed_txs`.
    pub txs: Option<Vec<Base64>>,
}

/// `broadcast_evidence`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BroadcastEvidence {
    /// The name of the piece.
    pub hash: Base64,
}

/// `broadcast_tx_async` and `broadcast_tx_sync`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Broadcast {
    /// 0 when the check passed.
    pub code: u32,
    /// What the check returned. Existing clients disagree whether this is hex: only empty data suits all.
    pub data: Hex,
    /// For people.
    pub log: String,
    /// Namespace of `code`.
    pub codespace: String,
    /// Hash of the transaction.
    pub hash: Hash,
}

impl Broadcast {
    /// The answer for a transaction that was checked.
    pub fn new(hash: Hash, check: &TxResult) -> Self {
        Self { code: check.code, data: (&check.data).into(), log: check.log.clone(), codespace: check.codespace.clone(), hash }
    }
}

/// `broadcast_tx_commit`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BroadcastCommit {
    /// The check's result.
    pub check_tx: ExecTxResult,
    /// The result; all zero when the check failed.
    pub tx_result: ExecTxResult,
    /// Hash of the transaction.
    pub hash: Hash,
    /// Height of its block; 0 when the check failed.
    pub height: Height,
}

impl BroadcastCommit {
    /// The answer for a transaction that was waited for.
    pub fn new(hash: Hash, answer: &backend::BroadcastAnswer) -> Self {
        let (height, result) = match &answer.committed {
            Some(committed) => (committed.height, (&committed.result).into()),
            None => (Height::ZERO, (&TxResult::default()).into()),
        };
        Self { check_tx: (&answer.check).into(), tx_result: result, hash, height }
    }
}

/// `tx`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TxAnswer {
    /// Hash of the transaction.
    pub hash: Hash,
    /// Height of its block.
    pub height: Height,
    /// Its place in the block.
    pub index: u32,
    /// What it gave.
    pub tx_result: ExecTxResult,
    /// Its bytes.
    pub tx: Base64,
    /// Only when asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<TxProof>,
}

/// What `abci_info` and `abci_query` wrap their answers in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Response<T> {
    /// The answer.
    pub response: T,
}

/// `abci_info`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AbciInfo {
    /// Free text.
    pub data: String,
    /// Version of the program.
    pub version: String,
    /// Version of the rules.
    pub app_version: Dec<u64>,
    /// Last height executed.
    pub last_block_height: Height,
    /// Root of the state then; never null.
    pub last_block_app_hash: Base64,
}

impl From<&backend::AppInfo> for AbciInfo {
    fn from(info: &backend::AppInfo) -> Self {
        Self {
            data: info.data.clone(),
            version: info.version.clone(),
            app_version: Dec(info.app_version),
            last_block_height: info.last_block_height,
            last_block_app_hash: info.last_block_app_hash.as_bytes().into(),
        }
    }
}

/// `abci_query`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AbciQuery {
    /// 0 for success.
    pub code: u32,
    /// For people.
    pub log: String,
    /// For people.
    pub info: String,
    /// Position, where the application has one.
    pub index: Dec<i64>,
    /// Null for none.
    pub key: Option<Base64>,
    /// Null for none.
    pub value: Option<Base64>,
    /// Null without a proof.
    #[serde(rename = "proofOps")]
    pub proof_ops: Option<ProofOps>,
    /// The state after this block.
    pub height: Height,
    /// Namespace of `code`.
    pub codespace: String,
}

/// A proof, step by step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProofOps {
    /// The steps.
    pub ops: Vec<ProofOp>,
}

/// One step of a proof.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProofOp {
    /// Kind, as in `ics23:smt`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The key that is proven.
    pub key: Base64,
    /// The proof.
    pub data: Base64,
}

impl From<&backend::AppAnswer> for AbciQuery {
    fn from(answer: &backend::AppAnswer) -> Self {
        let op = |op: &backend::ProofOp| ProofOp { kind: op.kind.clone(), key: (&op.key).into(), data: (&op.data).into() };
        Self {
            code: answer.code,
            log: answer.log.clone(),
            info: answer.info.clone(),
            index: Dec(answer.index),
            key: Base64::or_nil(&answer.key),
            value: Base64::or_nil(&answer.value),
            proof_ops: answer.proof_ops.as_ref().map(|ops| ProofOps { ops: ops.iter().map(op).collect() }),
            height: answer.height,
            codespace: answer.codespace.clone(),
        }
    }
}
