//! What third parties recompute, by hand: the Merkle tree, the messages that enter it, and sign-bytes.

use sha2::{Digest as _, Sha256};

use super::bytes::{BlockId, Commit, Hash, Header, Slot, Time, TwoVotes, Vote};

pub(super) fn sha(parts: &[&[u8]]) -> Hash {
    let mut hasher = Sha256::new();
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finalize().into()
}

/// RFC 6962: a leaf behind 00, two halves behind 01, the first the largest power of two below the whole.
pub(super) fn merkle(leaves: &[Vec<u8>]) -> Hash {
    match leaves {
        [] => sha(&[]),
        [leaf] => sha(&[&[0], leaf]),
        _ => {
            let mut half = 1;
            while half * 2 < leaves.len() {
                half *= 2;
            }
            sha(&[&[1], &merkle(&leaves[..half]), &merkle(&leaves[half..])])
        }
    }
}

/// Bytes of proto3, field by field. Zero and empty fields are left out but in `message`.
#[derive(Default)]
struct Proto(Vec<u8>);

impl Proto {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(u8::try_from(value & 0x7f).expect("seven bits") | 0x80);
            value >>= 7;
        }
        self.0.push(u8::try_from(value).expect("below 0x80"));
    }

    fn int(mut self, field: u64, value: i64) -> Self {
        if value != 0 {
            self.varint(field << 3);
            self.varint(value.cast_unsigned());
        }
        self
    }

    fn fixed(mut self, field: u64, value: u64) -> Self {
        if value != 0 {
            self.varint(field << 3 | 1);
            self.0.extend(value.to_le_bytes());
        }
        self
    }

    fn message(mut self, field: u64, bytes: &[u8]) -> Self {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend(bytes);
        self
    }

    fn bytes(self, field: u64, bytes: &[u8]) -> Self {
        if bytes.is_empty() { self } else { self.message(field, bytes) }
    }
}

fn signed(value: u64) -> i64 {
    value.cast_signed()
}

fn time(time: Time) -> Vec<u8> {
    Proto::default().int(1, time.seconds).int(2, time.nanos.into()).0
}

fn block_id(id: Option<&BlockId>) -> Vec<u8> {
    let Some(id) = id else { return Proto::default().message(2, &[]).0 };
    Proto::default().bytes(1, &id.hash).message(2, &Proto::default().int(1, id.total.into()).bytes(2, &id.parts).0).0
}

/// The block hash.
pub(super) fn header(header: &Header) -> Hash {
    let bytes = |bytes: &[u8]| Proto::default().bytes(1, bytes).0;
    merkle(&[
        Proto::default().int(1, signed(header.block_version)).int(2, signed(header.app_version)).0,
        bytes(header.chain_id.as_bytes()),
        Proto::default().int(1, signed(header.height)).0,
        time(header.time),
        block_id(header.last_block_id.as_ref()),
        bytes(&header.last_commit_hash),
        bytes(&header.data_hash),
        bytes(&header.validators_hash),
        bytes(&header.next_validators_hash),
        bytes(&header.consensus_hash),
        bytes(&header.app_hash),
        bytes(&header.last_results_hash),
        bytes(&header.evidence_hash),
        bytes(&header.proposer),
    ])
}

/// Root over the slots of a commit.
pub(super) fn commit(commit: &Commit) -> Hash {
    let leaf = |slot: &Option<Slot>| match slot {
        None => Proto::default().int(1, 1).message(3, &time(Time { seconds: -62_135_596_800, nanos: 0 })).0,
        Some(slot) => {
            let flag = if slot.for_block { 2 } else { 3 };
            Proto::default().int(1, flag).bytes(2, &slot.address).message(3, &time(slot.time)).bytes(4, &slot.signature).0
        }
    };
    merkle(&commit.slots.iter().map(leaf).collect::<Vec<_>>())
}

/// What the validator of a slot signed: a precommit.
pub(super) fn precommit(commit: &Commit, slot: &Slot, chain_id: &str) -> Vec<u8> {
    let mut message = Proto::default().int(1, 2).fixed(2, commit.height).fixed(3, commit.round.into());
    if slot.for_block {
        message = message.message(4, &block_id(Some(&commit.block_id)));
    }
    let message = message.message(5, &time(slot.time)).bytes(6, chain_id.as_bytes()).0;
    let mut delimited = Proto::default();
    delimited.varint(message.len() as u64);
    delimited.0.extend(message);
    delimited.0
}

/// What a validator signed with a vote; a prevote's valid round last, behind the chain's name.
pub(super) fn vote(vote: &Vote, chain_id: &str) -> Vec<u8> {
    let mut message = Proto::default().int(1, vote.kind.into()).fixed(2, vote.height).fixed(3, vote.round.into());
    if let Some(id) = &vote.block_id {
        message = message.message(4, &block_id(Some(id)));
    }
    let valid_round = vote.valid_round.map_or(0, |round| i64::from(round) + 1);
    let message = message.message(5, &time(vote.time)).bytes(6, chain_id.as_bytes()).int(15, valid_round).0;
    let mut delimited = Proto::default();
    delimited.varint(message.len() as u64);
    delimited.0.extend(message);
    delimited.0
}

/// What orders the two votes of a piece of evidence.
pub(super) fn vote_key(vote: &Vote) -> Vec<u8> {
    let mut key = Vec::new();
    if let Some(id) = &vote.block_id {
        key.extend(id.hash);
        key.extend(Proto::default().int(1, id.total.into()).bytes(2, &id.parts).0);
    }
    key.extend(Proto::default().int(15, vote.valid_round.map_or(0, |round| i64::from(round) + 1)).0);
    key
}

/// A piece of evidence as it is hashed.
pub(super) fn two_votes(evidence: &TwoVotes) -> Vec<u8> {
    let said = |vote: &Vote| {
        Proto::default()
            .int(1, vote.kind.into())
            .int(2, signed(vote.height))
            .int(3, vote.round.into())
            .message(4, &block_id(vote.block_id.as_ref()))
            .message(5, &time(vote.time))
            .bytes(6, &evidence.address)
            .int(7, vote.index.into())
            .bytes(8, &vote.signature)
            .int(15, vote.valid_round.map_or(0, |round| i64::from(round) + 1))
            .0
    };
    Proto::default()
        .message(1, &said(&evidence.a))
        .message(2, &said(&evidence.b))
        .int(3, signed(evidence.total))
        .int(4, signed(evidence.power))
        .message(5, &time(evidence.time))
        .0
}

/// Root over the keys and powers of a set, in its order.
pub(super) fn validators<'a>(members: impl Iterator<Item = (&'a [u8; 32], i64)>) -> Hash {
    let leaf = |(key, power): (&[u8; 32], i64)| Proto::default().message(1, &Proto::default().bytes(1, key).0).int(2, power).0;
    merkle(&members.map(leaf).collect::<Vec<_>>())
}

/// Root over the hashes of transactions.
pub(super) fn data(txs: &[Vec<u8>]) -> Hash {
    merkle(&txs.iter().map(|tx| sha(&[tx]).to_vec()).collect::<Vec<_>>())
}

/// Of the two parameters that headers name.
pub(super) fn params(max_bytes: i64, max_gas: i64) -> Hash {
    sha(&[&Proto::default().int(1, max_bytes).int(2, max_gas).0])
}

/// What a transaction gave, as far as headers name it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TxOutcome {
    /// 0 for success.
    pub code: u32,
    /// Output.
    pub data: Vec<u8>,
    /// Gas asked for.
    pub gas_wanted: i64,
    /// Gas used.
    pub gas_used: i64,
}

/// Root over results.
pub(super) fn results(results: &[TxOutcome]) -> Hash {
    let leaf = |result: &TxOutcome| {
        Proto::default().int(1, result.code.into()).bytes(2, &result.data).int(5, result.gas_wanted).int(6, result.gas_used).0
    };
    merkle(&results.iter().map(leaf).collect::<Vec<_>>())
}

/// Root over the parts of a body, and their number.
pub(super) fn parts(body: &[u8]) -> (u32, Hash) {
    let parts: Vec<Vec<u8>> = body.chunks(65_536).map(<[u8]>::to_vec).collect();
    (u32::try_from(parts.len()).expect("bodies are small"), merkle(&parts))
}

/// The root of a state (`docs/format-state.md`), from all its entries.
pub fn state_root<'a>(entries: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Hash {
    let mut leaves: Vec<(Hash, Hash)> = entries.map(|(key, value)| state_leaf(key, value)).collect();
    leaves.sort_unstable();
    subtree(&leaves, 0)
}

/// The path of an entry, and its hash.
pub(super) fn state_leaf(key: &[u8], value: &[u8]) -> (Hash, Hash) {
    let path = sha(&[key]);
    (path, sha(&[&[0], &path, &sha(&[value])]))
}

/// A state is cut into shares by the first bits of its paths.
pub(super) const SHARE_BITS: usize = 8;
/// So many.
pub(super) const SHARES: usize = 1 << SHARE_BITS;

/// The root above shares that lie side by side, each with the number of its leaves and its root.
pub(super) fn above(shares: &[(usize, Hash)]) -> Hash {
    let mut used = shares.iter().filter(|(leaves, _)| *leaves > 0);
    match (used.next(), used.next()) {
        (None, _) => [0; 32],
        (Some((1, leaf)), None) => *leaf,
        _ if shares.len() == 1 => shares[0].1,
        _ => {
            let (left, right) = shares.split_at(shares.len() / 2);
            sha(&[&[1], &above(left), &above(right)])
        }
    }
}

/// The root of what lies at a depth: leaves in the order of their paths.
pub(super) fn subtree(leaves: &[(Hash, Hash)], depth: usize) -> Hash {
    match leaves {
        [] => [0; 32],
        [(_, leaf)] => *leaf,
        _ => {
            let split = leaves.partition_point(|(path, _)| path[depth / 8] >> (7 - depth % 8) & 1 == 0);
            sha(&[&[1], &subtree(&leaves[..split], depth + 1), &subtree(&leaves[split..], depth + 1)])
        }
    }
}
