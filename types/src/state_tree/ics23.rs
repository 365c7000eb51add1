//! The same proofs in the words of ICS-23, as `abci_query` hands them out and IBC verifiers read them.
//!
//! ICS-23 proves that a key is absent by its two neighbours in path order, where one of them is missing at either end of
//! the tree. It cannot say that a key is absent from an empty state; our own [`Proof`](super::Proof) can.
//!
//! Protobuf here is written with [`Message`]. It is read back only to verify an answer: [`CommitmentProof::from_bytes`]
//! takes exactly the bytes that [`CommitmentProof::to_bytes`] writes, so there is one byte string for each proof and no
//! second reading of it.

use super::{DEPTH_MAX, EMPTY, INNER_PREFIX, KEY_BYTES_MAX, LEAF_PREFIX, Path, ProofError, VALUE_BYTES_MAX, climb, leaf_hash};
use crate::primitives::Hash;
use crate::proto::Message;

/// The `type` of our entry in `proofOps`. Its `key` is the state key, its `data` a [`CommitmentProof`].
pub const PROOF_OP_TYPE: &str = "ics23:smt";

/// `HashOp::SHA256`.
const SHA256: i64 = 1;

/// Most bytes of one inner step: hash op, prefix or prefix and left sibling, right sibling, and their tags and lengths.
const STEP_BYTES_MAX: usize = 2 + 2 + 33 + 2 + 32 + 4;

/// Most bytes of a proof: two neighbours with key, value and path, and the key between them.
pub const COMMITMENT_BYTES_MAX: usize = 3 * KEY_BYTES_MAX + 2 * VALUE_BYTES_MAX + 2 * DEPTH_MAX * STEP_BYTES_MAX + 256;

/// The ICS-23 `ProofSpec` that describes our tree, as protobuf: what an IBC client of this chain is created with.
///
/// Leaf: SHA-256 over prefix 00, SHA-256 of the key, SHA-256 of the value, no lengths. Inner: SHA-256 over prefix 01 and
/// two children of 32 bytes, left first, an empty child being 32 zero bytes. At most 256 steps. Keys are compared by hash.
pub fn proof_spec() -> Vec<u8> {
    let inner = Message::new()
        .bytes(1, &[0, 1]) // child_order, packed
        .int(2, 32) // child_size
        .int(3, 1) // min_prefix_length
        .int(4, 1) // max_prefix_length
        .bytes(5, &EMPTY.0) // empty_child
        .int(6, SHA256);
    let depth_max = i64::try_from(DEPTH_MAX).expect("256");
    Message::new().msg(1, &leaf_op()).msg(2, &inner).int(3, depth_max).int(5, 1).finish()
}

/// `LeafOp`: hash, prehash_key and prehash_value by SHA-256, no length prefix.
fn leaf_op() -> Message {
    Message::new().int(1, SHA256).int(2, SHA256).int(3, SHA256).bytes(5, &[LEAF_PREFIX])
}

/// An entry of the state and the siblings along its path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Existence {
    /// The key.
    pub key: Vec<u8>,
    /// Its value.
    pub value: Vec<u8>,
    /// The hashes beside the path, from the root's child down.
    pub siblings: Vec<Hash>,
}

impl Existence {
    fn root(&self, path: &Path) -> Hash {
        climb(path, &self.siblings, leaf_hash(path, &Hash::of(&self.value)))
    }

    fn message(&self) -> Message {
        let path = Path::of(&self.key);
        let message = Message::new().bytes(1, &self.key).bytes(2, &self.value).msg(3, &leaf_op());
        // ICS-23 walks from the leaf upwards.
        self.siblings.iter().enumerate().rev().fold(message, |message, (depth, sibling)| {
            let step = Message::new().int(1, SHA256);
            let step = if path.bit(depth) {
                step.bytes(2, &[&[INNER_PREFIX][..], &sibling.0].concat())
            } else {
                step.bytes(2, &[INNER_PREFIX]).bytes(3, &sibling.0)
            };
            message.msg(4, &step)
        })
    }

    /// Whether no entry stands to the right of this one (or to the left) below the node at `depth`.
    fn is_edge(&self, path: &Path, depth: usize, right: bool) -> bool {
        (depth..self.siblings.len()).all(|at| path.bit(at) == right || self.siblings[at] == EMPTY)
    }
}

/// An ICS-23 `CommitmentProof` for one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommitmentProof {
    /// The key is present.
    Exist(Existence),
    /// The key is absent: these two are next to each other, and it would stand between them.
    Nonexist {
        /// The absent key.
        key: Vec<u8>,
        /// The entry with the largest path below the key's, none when the key would be the first.
        left: Option<Existence>,
        /// The entry with the smallest path above the key's, none when the key would be the last.
        right: Option<Existence>,
    },
}

impl CommitmentProof {
    /// The protobuf bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Exist(existence) => Message::new().msg(1, &existence.message()),
            Self::Nonexist { key, left, right } => {
                let mut nonexist = Message::new().bytes(1, key);
                for (field, side) in [(2, left), (3, right)] {
                    if let Some(existence) = side {
                        nonexist = nonexist.msg(field, &existence.message());
                    }
                }
                Message::new().msg(2, &nonexist)
            }
        }
        .finish()
    }

    /// A proof from protobuf bytes.
    ///
    /// # Errors
    /// A word on what is wrong, unless they are exactly the bytes that [`CommitmentProof::to_bytes`] writes for some proof
    /// of ours: ICS-23's batches, compressed proofs and other trees are refused.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, &'static str> {
        if bytes.len() > COMMITMENT_BYTES_MAX {
            return Err("longer than any proof of this tree");
        }
        let proof = match Reader(bytes).field()? {
            Some((1, exist)) => Self::Exist(read_existence(exist)?),
            Some((2, nonexist)) => {
                let (mut key, mut left, mut right) = (&[][..], None, None);
                let mut reader = Reader(nonexist);
                while let Some((field, content)) = reader.field()? {
                    match field {
                        1 => key = content,
                        2 => left = Some(read_existence(content)?),
                        3 => right = Some(read_existence(content)?),
                        _ => return Err("an unknown field in a proof of absence"),
                    }
                }
                Self::Nonexist { key: key.to_vec(), left, right }
            }
            _ => return Err("neither a proof of presence nor one of absence"),
        };
        // What was skipped or assumed while reading (operations, order, sides, what follows) is compared here at once.
        if proof.to_bytes() == bytes { Ok(proof) } else { Err("not the form of this tree's proofs") }
    }

    /// Checks that the state with this root holds `value` under `key`, or nothing when `value` is none.
    ///
    /// # Errors
    /// See [`ProofError`].
    pub fn verify(&self, root: &Hash, key: &[u8], value: Option<&[u8]>) -> Result<(), ProofError> {
        match (self, value) {
            (Self::Exist(existence), Some(value)) => {
                if existence.value != value {
                    return Err(ProofError::Subject("value"));
                }
                verify_existence(existence, root, key)
            }
            (Self::Nonexist { key: of, left, right }, None) => {
                if of != key {
                    return Err(ProofError::Subject("key"));
                }
                verify_neighbours(root, &Path::of(key), left.as_ref(), right.as_ref())
            }
            (proof, _) => Err(ProofError::Opposite { shows_present: matches!(proof, Self::Exist(_)) }),
        }
    }
}

fn verify_existence(existence: &Existence, root: &Hash, key: &[u8]) -> Result<(), ProofError> {
    if existence.key != key {
        return Err(ProofError::Subject("key"));
    }
    if existence.siblings.len() > DEPTH_MAX {
        return Err(ProofError::Depth { depth: existence.siblings.len() });
    }
    if existence.root(&Path::of(key)) == *root { Ok(()) } else { Err(ProofError::Root) }
}

/// Both stand in the tree, and no entry between them: below the node where their paths part, the left one is the last of
/// its half and the right one the first of its. With one of them missing, the other is the last, or first, of all.
fn verify_neighbours(root: &Hash, path: &Path, left: Option<&Existence>, right: Option<&Existence>) -> Result<(), ProofError> {
    for neighbour in [left, right].into_iter().flatten() {
        verify_existence(neighbour, root, &neighbour.key)?;
    }
    let paths = (left.map(|left| Path::of(&left.key)), right.map(|right| Path::of(&right.key)));
    if paths.0.is_some_and(|left| left >= *path) || paths.1.is_some_and(|right| right <= *path) {
        return Err(ProofError::Neighbours("key does not lie between the two entries"));
    }
    let below = match paths {
        // Both walks lead to this root, so they share the node at the depth of their common bits, and part there.
        (Some(left), Some(right)) => left.common_bits(&right) + 1,
        (None, None) => return Err(ProofError::Neighbours("proof has no neighbour")),
        _ => 0,
    };
    let next = |side: Option<&Existence>, at: Option<Path>, right: bool| match (side, at) {
        (Some(existence), Some(at)) => existence.is_edge(&at, below, right),
        _ => true,
    };
    if next(left, paths.0, true) && next(right, paths.1, false) {
        Ok(())
    } else {
        Err(ProofError::Neighbours("two entries are not next to each other"))
    }
}

/// The entry and siblings of an `ExistenceProof`. Operations are not looked at: the whole is written again and compared.
fn read_existence(bytes: &[u8]) -> Result<Existence, &'static str> {
    let (mut key, mut value, mut siblings) = (&[][..], &[][..], Vec::new());
    let mut reader = Reader(bytes);
    while let Some((field, content)) = reader.field()? {
        match field {
            1 => key = content,
            2 => value = content,
            3 => {}
            4 if siblings.len() == DEPTH_MAX => return Err("more steps than the tree has levels"),
            4 => siblings.push(read_sibling(content)?),
            _ => return Err("an unknown field in a proof of presence"),
        }
    }
    if key.is_empty() || value.is_empty() {
        return Err("an entry without key or value");
    }
    siblings.reverse();
    Ok(Existence { key: key.to_vec(), value: value.to_vec(), siblings })
}

/// The one child that an `InnerOp` carries: behind the prefix byte, or as the suffix.
fn read_sibling(bytes: &[u8]) -> Result<Hash, &'static str> {
    let (mut prefix, mut suffix) = (&[][..], &[][..]);
    let mut reader = Reader(bytes);
    while let Some((field, content)) = reader.field()? {
        match field {
            1 => {}
            2 => prefix = content,
            3 => suffix = content,
            _ => return Err("an unknown field in a step"),
        }
    }
    let sibling = if suffix.is_empty() { prefix.get(1..).unwrap_or_default() } else { suffix };
    sibling.try_into().map(Hash).map_err(|_| "a step without a sibling of 32 bytes")
}

/// The fields of a protobuf message, one after the other. Numbers come as empty contents: none is looked at.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn field(&mut self) -> Result<Option<(u64, &'a [u8])>, &'static str> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.uvarint()?;
        let content = match tag & 7 {
            0 => {
                self.uvarint()?;
                &[][..]
            }
            2 => {
                let len = usize::try_from(self.uvarint()?).map_err(|_| "a length beyond memory")?;
                let (content, rest) = self.0.split_at_checked(len).ok_or("a field ends early")?;
                self.0 = rest;
                content
            }
            _ => return Err("an unknown kind of field"),
        };
        Ok(Some((tag >> 3, content)))
    }

    fn uvarint(&mut self) -> Result<u64, &'static str> {
        let mut n = 0;
        for shift in (0..63).step_by(7) {
            let (byte, rest) = self.0.split_first().ok_or("a number ends early")?;
            self.0 = rest;
            n |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(n);
            }
        }
        Err("a number beyond 63 bits")
    }
}
