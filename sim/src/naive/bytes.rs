//! Reading a body and a commit by hand, from the tables of `docs/format.md`.

/// A hash.
pub type Hash = [u8; 32];

/// Seconds since 1970, and nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    /// Seconds.
    pub seconds: i64,
    /// Below 10^9.
    pub nanos: u32,
}

/// The name of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockId {
    /// Of its header.
    pub hash: Hash,
    /// Parts of its body.
    pub total: u32,
    /// Root over those parts.
    pub parts: Hash,
}

/// A header, each field as its table names it.
#[derive(Debug, Clone)]
pub struct Header {
    pub(super) block_version: u64,
    pub(super) app_version: u64,
    pub(super) chain_id: String,
    /// Its height.
    pub height: u64,
    /// Its time.
    pub time: Time,
    pub(super) last_block_id: Option<BlockId>,
    pub(super) last_commit_hash: Hash,
    pub(super) data_hash: Hash,
    pub(super) validators_hash: Hash,
    pub(super) next_validators_hash: Hash,
    pub(super) consensus_hash: Hash,
    /// The state before this block.
    pub app_hash: Vec<u8>,
    pub(super) last_results_hash: Hash,
    pub(super) evidence_hash: Hash,
    /// Who built it.
    pub proposer: [u8; 20],
}

/// What one validator said in a commit.
#[derive(Debug, Clone)]
pub struct Slot {
    /// For the block; otherwise for nil.
    pub for_block: bool,
    /// The voter.
    pub address: [u8; 20],
    pub(super) time: Time,
    pub(super) signature: [u8; 64],
}

/// A commit. Absent slots are none.
#[derive(Debug, Clone)]
pub struct Commit {
    pub(super) height: u64,
    pub(super) round: u32,
    pub(super) block_id: BlockId,
    /// One for each validator.
    pub slots: Vec<Option<Slot>>,
}

/// A vote in evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vote {
    pub(super) kind: u8,
    pub(super) height: u64,
    pub(super) round: u32,
    pub(super) block_id: Option<BlockId>,
    pub(super) valid_round: Option<u32>,
    pub(super) time: Time,
    pub(super) index: u32,
    pub(super) signature: [u8; 64],
}

/// Two votes of one validator, as a block carries them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TwoVotes {
    pub(super) a: Vote,
    pub(super) b: Vote,
    /// Whom they accuse.
    pub address: [u8; 20],
    /// Power of all at that height.
    pub total: u64,
    /// Its power at that height.
    pub power: u64,
    /// Time of the block of that height.
    pub time: Time,
}

impl TwoVotes {
    /// Hash of the piece.
    pub fn hash(&self) -> Hash {
        super::hashes::sha(&[&super::hashes::two_votes(self)])
    }

    /// The height of the votes.
    pub fn height(&self) -> u64 {
        self.a.height
    }
}

/// A body.
#[derive(Debug, Clone)]
pub struct Body {
    /// Its header.
    pub header: Header,
    /// Its transactions.
    pub txs: Vec<Vec<u8>>,
    /// What it proves.
    pub evidence: Vec<TwoVotes>,
    /// The commit of the block before.
    pub last_commit: Option<Commit>,
}

/// A place in bytes. Whatever is not there is an error that names it.
struct Reader<'a> {
    bytes: &'a [u8],
}

type Read<T> = Result<T, String>;

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize, what: &str) -> Read<&'a [u8]> {
        if self.bytes.len() < count {
            return Err(format!("{what}: {count} bytes wanted, {} left", self.bytes.len()));
        }
        let (taken, rest) = self.bytes.split_at(count);
        self.bytes = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &str) -> Read<[u8; N]> {
        Ok(self.take(N, what)?.try_into().expect("as many as were taken"))
    }

    fn u32(&mut self, what: &str) -> Read<u32> {
        self.array(what).map(u32::from_le_bytes)
    }

    fn u64(&mut self, what: &str) -> Read<u64> {
        self.array(what).map(u64::from_le_bytes)
    }

    fn bytes(&mut self, what: &str) -> Read<&'a [u8]> {
        let count = self.u32(what)?;
        self.take(usize::try_from(count).map_err(|_| format!("{what}: {count} bytes"))?, what)
    }

    fn flag(&mut self, what: &str) -> Read<bool> {
        match self.array(what)? {
            [0] => Ok(false),
            [1] => Ok(true),
            [other] => Err(format!("{what}: {other} where 0 or 1 stands")),
        }
    }

    fn time(&mut self, what: &str) -> Read<Time> {
        let seconds = i64::from_le_bytes(self.array(what)?);
        let nanos = self.u32(what)?;
        if nanos >= 1_000_000_000 {
            return Err(format!("{what}: {nanos} nanoseconds"));
        }
        Ok(Time { seconds, nanos })
    }

    fn block_id(&mut self, what: &str) -> Read<BlockId> {
        Ok(BlockId { hash: self.array(what)?, total: self.u32(what)?, parts: self.array(what)? })
    }

    fn header(&mut self) -> Read<Header> {
        Ok(Header {
            block_version: self.u64("block version")?,
            app_version: self.u64("application version")?,
            chain_id: String::from_utf8(self.bytes("chain id")?.to_vec()).map_err(|error| error.to_string())?,
            height: self.u64("height")?,
            time: self.time("time")?,
            last_block_id: if self.flag("last block id")? { Some(self.block_id("last block id")?) } else { None },
            last_commit_hash: self.array("last commit hash")?,
            data_hash: self.array("data hash")?,
            validators_hash: self.array("validators hash")?,
            next_validators_hash: self.array("next validators hash")?,
            consensus_hash: self.array("consensus hash")?,
            app_hash: self.bytes("application hash")?.to_vec(),
            last_results_hash: self.array("last results hash")?,
            evidence_hash: self.array("evidence hash")?,
            proposer: self.array("proposer")?,
        })
    }

    fn commit(&mut self) -> Read<Commit> {
        let (height, round, block_id) = (self.u64("commit height")?, self.u32("commit round")?, self.block_id("commit block id")?);
        let count = self.u32("slots")?;
        let mut slots = Vec::new();
        for _ in 0..count {
            let [flag] = self.array("slot")?;
            slots.push(match flag {
                1 => None,
                2 | 3 => Some(Slot {
                    for_block: flag == 2,
                    address: self.array("slot address")?,
                    time: self.time("slot time")?,
                    signature: self.array("slot signature")?,
                }),
                other => return Err(format!("a slot with flag {other}")),
            });
        }
        Ok(Commit { height, round, block_id, slots })
    }

    fn vote(&mut self) -> Read<Vote> {
        let [kind] = self.array("kind of a vote")?;
        Ok(Vote {
            kind,
            height: self.u64("height of a vote")?,
            round: self.u32("round of a vote")?,
            block_id: if self.flag("block of a vote")? { Some(self.block_id("block of a vote")?) } else { None },
            valid_round: if self.flag("valid round")? { Some(self.u32("valid round")?) } else { None },
            time: self.time("time of a vote")?,
            index: self.u32("place of a voter")?,
            signature: self.array("signature of a vote")?,
        })
    }

    fn two_votes(&mut self) -> Read<TwoVotes> {
        match self.array("kind of evidence")? {
            [1] => Ok(TwoVotes {
                a: self.vote()?,
                b: self.vote()?,
                address: self.array("address of the accused")?,
                total: self.u64("power of all")?,
                power: self.u64("power of the accused")?,
                time: self.time("time of evidence")?,
            }),
            // Nobody shows light clients anything in a run.
            [other] => Err(format!("evidence of kind {other}")),
        }
    }

    fn end(&self) -> Read<()> {
        if self.bytes.is_empty() { Ok(()) } else { Err(format!("{} bytes left over", self.bytes.len())) }
    }

    fn version(&mut self) -> Read<()> {
        match self.array("version")? {
            [1] => Ok(()),
            [other] => Err(format!("version {other}")),
        }
    }
}

/// A body, and nothing behind it.
pub(super) fn body(bytes: &[u8]) -> Read<Body> {
    let mut reader = Reader { bytes };
    reader.version()?;
    let header = reader.header()?;
    let count = reader.u32("transactions")?;
    let mut txs = Vec::new();
    for _ in 0..count {
        txs.push(reader.bytes("transaction")?.to_vec());
    }
    let count = reader.u32("evidence")?;
    let mut evidence = Vec::new();
    for _ in 0..count {
        evidence.push(reader.two_votes()?);
    }
    let last_commit = if reader.flag("last commit")? { Some(reader.commit()?) } else { None };
    reader.end()?;
    Ok(Body { header, txs, evidence, last_commit })
}

/// A commit behind its version byte, as the log keeps it.
pub(super) fn commit(bytes: &[u8]) -> Read<Commit> {
    let mut reader = Reader { bytes };
    reader.version()?;
    let commit = reader.commit()?;
    reader.end()?;
    Ok(commit)
}
