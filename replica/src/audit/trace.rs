//! What this node made of a block, in short: kept when it turns out to be wrong, and compared with what the block comes to when it is
//! executed again, so that an operator reads which transaction was the first to differ.

use std::collections::BTreeMap;
use std::io::Read;

use borsh::{BorshDeserialize, BorshSerialize};
use lockstep_app::Changes;
use lockstep_types::{Hash, Height, TxResult, codec};

/// Bytes of a value that are kept as they are: enough for a person to know it again.
const HEAD_BYTES_MAX: usize = 256;
/// Longest key that is kept.
const KEY_KEPT_MAX: usize = 1024;
/// Most keys that are kept; what a block changes beyond that is not compared.
const KEYS_MAX: usize = 1 << 16;
/// Most results: a body holds no more transactions.
const RESULTS_MAX: usize = 1 << 20;
/// Differing keys that a report shows.
const SHOWN_MAX: usize = 8;
/// Longest trace that is read back.
pub(crate) const TRACE_BYTES_MAX: usize = 128 << 20;
const _: () = assert!(KEYS_MAX * (KEY_KEPT_MAX + HEAD_BYTES_MAX + 64) + RESULTS_MAX * 32 < TRACE_BYTES_MAX);

/// A value, shortened.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize)]
struct Short {
    len: u64,
    hash: Hash,
    head: Vec<u8>,
}

impl BorshDeserialize for Short {
    fn deserialize_reader<R: Read>(reader: &mut R) -> std::io::Result<Self> {
        let (len, hash) = (u64::deserialize_reader(reader)?, Hash::deserialize_reader(reader)?);
        Ok(Self { len, hash, head: codec::read_bytes(reader, HEAD_BYTES_MAX)? })
    }
}

impl Short {
    fn of(value: &[u8]) -> Self {
        Self { len: value.len() as u64, hash: Hash::of(value), head: value[..value.len().min(HEAD_BYTES_MAX)].to_vec() }
    }
}

impl std::fmt::Display for Short {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "\"{}\"", self.head.escape_ascii())?;
        if self.len > self.head.len() as u64 { write!(f, "... ({} bytes, {})", self.len, self.hash) } else { Ok(()) }
    }
}

/// A key that a block changed.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize)]
struct Changed {
    key: Vec<u8>,
    /// None where the block deleted it.
    value: Option<Short>,
}

impl BorshDeserialize for Changed {
    fn deserialize_reader<R: Read>(reader: &mut R) -> std::io::Result<Self> {
        let key = codec::read_bytes(reader, KEY_KEPT_MAX)?;
        Ok(Self { key, value: Option::deserialize_reader(reader)? })
    }
}

/// What a node made of one block.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize)]
pub struct Trace {
    height: Height,
    /// Of each result.
    results: Vec<Hash>,
    /// By key.
    changed: Vec<Changed>,
}

impl BorshDeserialize for Trace {
    fn deserialize_reader<R: Read>(reader: &mut R) -> std::io::Result<Self> {
        Ok(Self {
            height: Height::deserialize_reader(reader)?,
            results: codec::read_list(reader, RESULTS_MAX)?,
            changed: codec::read_list(reader, KEYS_MAX)?,
        })
    }
}

impl Trace {
    /// Of a block of this height.
    pub fn new(height: Height, results: &[TxResult], changes: &Changes) -> Self {
        let results = results.iter().take(RESULTS_MAX).map(|result| Hash::of(codec::encode(0, result))).collect();
        let short = changes.iter().filter(|(key, _)| key.len() <= KEY_KEPT_MAX).take(KEYS_MAX);
        let changed = short.map(|(key, value)| Changed { key: key.to_vec(), value: value.map(|value| Short::of(value)) });
        Self { height, results, changed: changed.collect() }
    }

    /// The height of the block.
    pub const fn height(&self) -> Height {
        self.height
    }

    /// How what was wrong differs from what is right. `touches` says of a number of the block's first transactions whether those alone
    /// change one of these keys: it is asked for a few numbers.
    pub fn compare(&self, right: &Self, touches: impl Fn(usize, &[&[u8]]) -> bool) -> Difference {
        let count = right.results.len().max(self.results.len());
        let result = (0..count).find(|at| self.results.get(*at) != right.results.get(*at));
        let (wrong, good) = (self.by_key(), right.by_key());
        let differs = |key: &&&[u8]| wrong.get(**key) != good.get(**key);
        let keys: std::collections::BTreeSet<&[u8]> = wrong.keys().chain(good.keys()).filter(differs).copied().collect();
        let all: Vec<&[u8]> = keys.iter().copied().collect();
        // The smallest number of transactions that touch such a key: once they do, more of them do, too.
        let (mut low, mut high) = (0, right.results.len());
        let is_touched = !all.is_empty() && touches(high, &all);
        while is_touched && low < high {
            let middle = low + (high - low) / 2;
            if touches(middle, &all) { high = middle } else { low = middle + 1 }
        }
        let writer = is_touched.then(|| low.checked_sub(1)).flatten();
        let show = |of: Option<&Option<&Short>>| match of {
            None => "not changed".to_owned(),
            Some(None) => "deleted".to_owned(),
            Some(Some(value)) => value.to_string(),
        };
        let shown = all
            .iter()
            .take(SHOWN_MAX)
            .map(|key| format!("key \"{}\": {} here, {} by the chain", key.escape_ascii(), show(wrong.get(key)), show(good.get(key))));
        Difference { first_tx: result.into_iter().chain(writer).min(), result, shown: shown.collect(), keys: all.len() }
    }

    fn by_key(&self) -> BTreeMap<&[u8], Option<&Short>> {
        self.changed.iter().map(|changed| (&changed.key[..], changed.value.as_ref())).collect()
    }
}

/// How two executions of one block differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The first transaction with another result, or that writes a key which then has another value; none where there is none.
    pub first_tx: Option<usize>,
    /// The first with another result.
    result: Option<usize>,
    /// Some of the keys.
    shown: Vec<String>,
    /// How many.
    keys: usize,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.first_tx {
            Some(at) => writeln!(f, "first transaction that differs: number {at} of the block, from 0")?,
            None if self.keys > 0 => writeln!(f, "no transaction of the block wrote what differs")?,
            None => writeln!(
                f,
                "the block's results and changes are the same when it is executed again: what differs was damaged outside of it, in memory or \
                 on the disk"
            )?,
        }
        if let Some(at) = self.result {
            writeln!(f, "transaction {at} had another result")?;
        }
        if self.keys > 0 {
            writeln!(f, "{} keys got another value", self.keys)?;
        }
        self.shown.iter().try_for_each(|line| writeln!(f, "  {line}"))
    }
}
