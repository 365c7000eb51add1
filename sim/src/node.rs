//! One simulated node: the replica and everything beneath it, on a simulated disk.

mod snapshots;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use lockstep_app::{Host, State};
use lockstep_consensus::Step;
use lockstep_genesis::Genesis;
use lockstep_replica::audit::Settled;
use lockstep_replica::execution::Executor;
use lockstep_replica::light_store::LightStore;
use lockstep_replica::planted::Planted;
use lockstep_replica::recovery::{self, Healed, Home, Opened, Recovered, Told, decided};
use lockstep_replica::seam::{AskId, JobId, LogRecord, Outcome, Peer, ReadAnswer, ReadQuestion, Ticket, Write};
use lockstep_replica::signing::{Me, guard_owner};
use lockstep_replica::snapshots::{Leases, Stored};
use lockstep_replica::source::BlockSource;
use lockstep_replica::state_sync::{Installed, Policy, Staging};
use lockstep_replica::{ChainState, Config, Effect, Fence, Input, Replica};
use lockstep_storage::guard::{Guard, GuardRecord};
use lockstep_storage::log::{BlockLog, Kind, LogOptions, LogReader};
use lockstep_storage::quarantine::Quarantine;
use lockstep_storage::results::Results;
use lockstep_storage::snapshots::Snapshots;
use lockstep_storage::spread::InTurn;
use lockstep_storage::state::{Change, StateDb, StateError};
use lockstep_types::light::LightBlock;
use lockstep_types::state_tree::Path;
use lockstep_types::{Block, BlockId, Commit, Hash, Height, Polka, PrivateKey, VoteType};

use crate::disk::SimDisk;
use crate::random::Stream;
use crate::room::Room;
use crate::world::{Ailing, Astray};

pub(crate) use snapshots::SnapshotRoots;

/// Where a node keeps its guard.
pub(crate) const GUARD: &str = "guard";
pub(crate) const LOG: &str = "log";
pub(crate) const STATE: &str = "state.redb";
pub(crate) const DAMAGED: &str = "damaged";
pub(crate) const SNAPSHOTS: &str = "snapshots";
/// Small, so that runs of a few dozen blocks have several segments.
const SEGMENT_BYTES: u64 = 16 << 10;

/// Changed keys after which the state is written: never reached, blocks are counted.
const FLUSH_KEYS: u64 = 1_000_000;

/// What survives a crash.
pub(crate) struct Machine {
    pub(crate) disk: SimDisk,
    /// None for one who only follows.
    pub(crate) key: Option<PrivateKey>,
    /// How far its wall clock is from true time, in nanoseconds.
    pub(crate) clock: i64,
    /// Blocks that were dated too far from it.
    pub(crate) untimely: u64,
    /// Of a segment of its log.
    pub(crate) segment_bytes: u64,
    /// How much faster than true time its clocks run, in parts of a million.
    pub(crate) drift_ppm: i64,
    /// Counts its lives: what was meant for an earlier one is dropped.
    pub(crate) life: u64,
    pub(crate) running: Option<Running>,
    /// Its disk is new, whatever it told before.
    pub(crate) is_new: bool,
    /// It last said that it asks others for blocks.
    pub(crate) is_catching_up: bool,
    /// It last said that it gathers a snapshot.
    pub(crate) is_syncing: bool,
    /// Never started again.
    pub(crate) retired: bool,
    pub(crate) effects: u64,
    /// Until when nothing that comes to it is looked at.
    pub(crate) frozen_until: u64,
    /// When the last of what came to it while it was frozen is looked at, and the last of what its disk put off while it stood still is done, though
    /// both ended earlier because the faults did.
    pub(crate) owes_until: u64,
    /// It stops signing when it sees what its key signed elsewhere.
    pub(crate) watches_key: bool,
    /// Whether results are kept beside the log: [`Plan::keeps_results`](crate::plan::Plan::keeps_results).
    pub(crate) keeps_results: bool,
    /// Its operator keeps all blocks.
    pub(crate) keeps_all: bool,
    /// What rot did to it.
    pub(crate) rot: Rot,
    /// What is wrong with its disk.
    pub(crate) ailing: Ailing,
    /// The height whose state it wrote last, as it was told.
    pub(crate) flushed: Height,
    /// Its operator names a newer header when it starts.
    pub(crate) asks_operator: bool,
    /// The header that its operator named, for a home without blocks.
    pub(crate) trusts: Option<(Height, Hash)>,
    /// Its memory failed.
    pub(crate) astray: Option<Astray>,
}

/// What rot did to a machine.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Rot {
    /// How often.
    pub(crate) times: u64,
    /// Starts that healed something.
    pub(crate) healing_starts: u64,
    /// Where its guard was then: what it said up to there rests on a disk that has lost something since.
    pub(crate) said_before: (u64, u32, u8),
    /// It counts among the faulty until it has told its readers of this height: what it had told before, and the height that
    /// its guard was at, where it may be locked on a body that it lost.
    pub(crate) until: u64,
    /// It rotted since it last started. One copy of its guard may be lost, and a second one must not be before that is mended.
    pub(crate) is_fresh: bool,
}

/// A life.
pub(crate) struct Running {
    pub(crate) replica: Replica,
    pub(crate) fence: Fence,
    pub(crate) log: BlockLog,
    pub(crate) reader: LogReader,
    pub(crate) guard: Option<Guard>,
    pub(crate) db: StateDb,
    pub(crate) results: Option<Results>,
    pub(crate) light: LightStore,
    /// Snapshots that peers gather.
    pub(crate) leases: Arc<Leases>,
    pub(crate) executor: Executor,
    /// Of a chain that makes checkpoints.
    pub(crate) snapshots: Option<Snapshots>,
    /// What state sync gathers, once it began in this life, and the state of its own that is of use for it.
    pub(crate) staging: Option<(Staging, State)>,
    /// Appended and not synced.
    pub(crate) unsynced: Vec<Ticket>,
    /// Records of the guard in order.
    pub(crate) guard_queue: VecDeque<(Ticket, Write)>,
    /// What the thread that has the state was asked.
    pub(crate) to_execute: VecDeque<Effect>,
    /// Who is behind each connection.
    pub(crate) peers: BTreeMap<Peer, usize>,
    /// Questions that wait for an answer.
    pub(crate) asks: BTreeMap<AskId, Asked>,
    pub(crate) ask_count: u64,
    pub(crate) bodies: Bodies,
    /// What waits for room on the disk.
    pub(crate) room: Room,
    /// Transactions that blocks of this life executed with success, by height.
    pub(crate) included: BTreeMap<Hash, Height>,
    /// The chain after the last block that was told to readers.
    pub(crate) told: Arc<ChainState>,
    /// What clients read: the state after the last block that was told to them.
    pub(crate) readable: State,
    /// Executed, and not told of yet.
    pub(crate) executed: VecDeque<State>,
    /// What was read of polkas in this life, by the height that they account for: they are written once.
    pub(crate) polkas_read: BTreeMap<Height, Vec<Polka>>,
}

/// A question that waits for its answer.
pub(crate) struct Asked {
    /// Who asked, in which of its lives, and by which job.
    pub(crate) node: usize,
    pub(crate) life: u64,
    pub(crate) job: JobId,
    /// What.
    pub(crate) question: Bytes,
}

/// What the replica was told of bodies.
#[derive(Default)]
pub(crate) struct Bodies {
    writing: BTreeMap<Ticket, Hash>,
    checking: BTreeMap<JobId, Hash>,
    durable: BTreeSet<Hash>,
    valid: BTreeSet<Hash>,
}

impl Bodies {
    /// It asked for these to be durable.
    pub(crate) fn asked(&mut self, ticket: Ticket, records: &[LogRecord]) {
        let body = records.iter().find(|record| record.kind == Kind::Body);
        self.writing.extend(body.map(|record| (ticket, record.block_hash)));
    }

    /// This one is being judged.
    pub(crate) fn judged(&mut self, job: JobId, block_id: &BlockId) {
        self.checking.insert(job, block_id.hash);
    }

    /// It is being told this.
    pub(crate) fn told(&mut self, input: &Input) {
        match input {
            Input::Durable { ticket } => self.durable.extend(self.writing.remove(ticket)),
            Input::Checked { job, verdict } => self.valid.extend(self.checking.remove(job).filter(|_| verdict.is_ok())),
            Input::Built { built, .. } => drop(self.valid.insert(built.block_id.hash)),
            _ => {}
        }
    }
}

/// A block that a restart executed again.
pub(crate) struct Replayed {
    pub(crate) block_id: BlockId,
    pub(crate) block: Arc<Block>,
    pub(crate) commit: Commit,
    pub(crate) outcome: Outcome,
}

/// What starting gave.
pub(crate) struct Started {
    pub(crate) running: Running,
    pub(crate) replayed: Vec<Replayed>,
    pub(crate) height: Height,
    /// The height whose state was on the disk.
    pub(crate) flushed: Height,
    pub(crate) healed: Vec<Healed>,
    /// What came of a snapshot that was gathered before.
    pub(crate) installed: Option<Installed>,
    /// Heights at which its state was wrong, and is right now.
    pub(crate) settled: Vec<Settled>,
}

impl Machine {
    pub(crate) fn new(key: Option<PrivateKey>, clock: i64, genesis_hash: Hash, keeps_results: bool) -> Self {
        let disk = SimDisk::new();
        if let Some(key) = &key {
            let owner = guard_owner(&genesis_hash, &key.public_key());
            Guard::create(&*disk.disk(), GUARD, GuardRecord::initial(owner.0)).expect("a new disk takes a guard");
        }
        Self {
            disk,
            key,
            clock,
            untimely: 0,
            drift_ppm: 0,
            segment_bytes: SEGMENT_BYTES,
            life: 0,
            running: None,
            is_new: false,
            is_catching_up: false,
            is_syncing: false,
            retired: false,
            effects: 0,
            frozen_until: 0,
            owes_until: 0,
            keeps_results,
            keeps_all: true,
            rot: Rot::default(),
            ailing: Ailing::default(),
            flushed: Height::ZERO,
            asks_operator: false,
            trusts: None,
            watches_key: true,
            astray: None,
        }
    }

    /// A follower's disk is replaced by an empty one.
    pub(crate) fn begin_anew(&mut self) {
        self.disk = SimDisk::new();
        self.rot = Rot::default();
        self.flushed = Height::ZERO;
        self.is_new = true;
    }

    /// Another machine in its place, with the same key and guard and nothing else.
    pub(crate) fn empty(&mut self) {
        self.disk.kill();
        for path in self.disk.paths().into_iter().filter(|path| path != GUARD) {
            self.disk.lose(&path);
        }
        self.flushed = Height::ZERO;
    }

    /// The same machine with another disk.
    #[cfg(test)]
    pub(crate) fn with_disk(&self, disk: SimDisk) -> Self {
        let key = self.key.as_ref().map(|key| PrivateKey::from_seed(&key.seed()));
        Self { disk, key, running: None, keeps_all: self.keeps_all, ..Self::new(None, self.clock, Hash::EMPTY_LIST, self.keeps_results) }
    }

    /// Opens what is on the disk and goes on from it.
    pub(crate) fn start(&self, host: Host, genesis: &Genesis, flush_blocks: u64, planted: Planted) -> Result<Started, String> {
        let disk = self.disk.disk();
        let genesis_hash = genesis.hash();
        let guard = match &self.key {
            Some(key) => {
                let owner = guard_owner(&genesis_hash, &key.public_key());
                Some(Guard::open(&*disk, GUARD, owner.0).map_err(|error| error.to_string())?)
            }
            None => None,
        };
        let home = Home {
            disk,
            log: LOG,
            state: STATE,
            damaged: DAMAGED,
            log_options: LogOptions { salt: genesis_hash.0, segment_bytes: self.segment_bytes },
            keep_results: self.keeps_results,
            keeps_all_blocks: self.keeps_all,
            flush_keys: FLUSH_KEYS,
            genesis,
            host,
            spread: &InTurn,
        };
        let mut outcomes = BTreeMap::new();
        let opened = recovery::open(&home, guard.as_ref(), |told| {
            if let Told::Executed { outcome, .. } = told {
                outcomes.insert(outcome.height, outcome.clone());
            }
        });
        let Opened { log, db, results, light, recovered: Recovered { restored, executor }, healed, installed, settled, .. } =
            opened.map_err(|error| error.to_string())?;
        let (reader, preallocator) = (log.reader(), log.preallocator());
        // A chain without checkpoints never touches the folder.
        let snapshots = match makes_checkpoints(genesis) {
            true => {
                let (store, _) = Snapshots::open(self.disk.disk(), SNAPSHOTS).map_err(|error| error.to_string())?;
                let mut source = BlockSource::new(reader.clone()).with_light(results.as_ref().map(Results::reader), light.clone());
                recovery::give_up_contradicted(&store, &mut source, &restored).map_err(|error| error.to_string())?;
                Some(store)
            }
            false => None,
        };
        let (height, flushed) = (restored.chain.height, restored.flushed);
        let mut replayed = Vec::new();
        // What a pass executed that met damage behind it may have been set aside with it since.
        let is_here = |at: Height| at >= restored.base && at <= height;
        for outcome in outcomes.values().filter(|outcome| is_here(outcome.height)) {
            let (block_id, block, _, commit) = decided(&reader, outcome.height).map_err(|error| error.to_string())?;
            replayed.push(Replayed { block_id, block: Arc::new(block), commit, outcome: outcome.clone() });
        }
        let me = self.key.as_ref().map(|key| Me { public_key: key.public_key(), address: key.public_key().address() });
        let config = Config {
            genesis_hash,
            me,
            watches_key: self.watches_key,
            mempool: lockstep_mempool::Limits::default(),
            flush_keys: FLUSH_KEYS,
            flush_blocks,
            planted,
        };
        let readable = executor.state().clone();
        let told = restored.chain.clone();
        let mut replica = Replica::new(config, restored);
        replica.set_state_sync(Policy { root: self.trusts });
        let running = Running {
            replica,
            fence: Fence::new(),
            log,
            reader,
            guard,
            db,
            results,
            light,
            leases: Arc::default(),
            executor,
            snapshots,
            staging: None,
            unsynced: Vec::new(),
            guard_queue: VecDeque::new(),
            to_execute: VecDeque::new(),
            peers: BTreeMap::new(),
            asks: BTreeMap::new(),
            ask_count: 0,
            bodies: Bodies::default(),
            room: Room::new(preallocator),
            told,
            readable,
            executed: VecDeque::new(),
            polkas_read: BTreeMap::new(),
            included: BTreeMap::new(),
        };
        Ok(Started { running, replayed, height, flushed, healed, installed, settled })
    }
}

impl Machine {
    /// Where its guard is; none for a follower.
    pub(crate) fn guard_position(&self, genesis_hash: Hash) -> Option<(u64, u32, u8)> {
        self.guard_position_on(&self.disk, genesis_hash)
    }

    /// Where its guard is on a copy of its disk.
    pub(crate) fn guard_position_on(&self, disk: &SimDisk, genesis_hash: Hash) -> Option<(u64, u32, u8)> {
        let owner = guard_owner(&genesis_hash, &self.key.as_ref()?.public_key());
        let guard = Guard::open(&disk.fork(), GUARD, owner.0).ok()?;
        guard.last().map(GuardRecord::position)
    }

    /// Damages one file at rest: a bit, the end, or the whole of it. Never more of the guard than one of its four copies. What
    /// was done.
    pub(crate) fn damage(&self, dice: &mut Stream) -> Option<String> {
        let files: Vec<String> = self.disk.paths().into_iter().filter(|path| !path.starts_with(DAMAGED)).collect();
        if files.is_empty() {
            return None;
        }
        let path = dice.pick(&files).clone();
        let (len, used) = self.disk.extent(&path)?;
        if path == GUARD {
            let copy = dice.below(4) * (4 << 20);
            // The head of a copy and some of its record.
            let offset = copy + dice.below(700);
            if offset >= len {
                return None;
            }
            self.disk.rot(&path, offset, 1 << dice.below(8));
            return Some(format!("byte {offset} of {path}"));
        }
        // What was made ahead of time and is not used has nothing to lose.
        if used == 0 {
            return None;
        }
        let at = dice.below(used);
        Some(match dice.below(8) {
            0 => {
                self.disk.lose(&path);
                format!("all of {path}")
            }
            1 => {
                self.disk.cut(&path, at);
                format!("{path} from byte {at} on")
            }
            _ => {
                self.disk.rot(&path, at, 1 << dice.below(8));
                format!("byte {at} of {path}")
            }
        })
    }
}

impl Running {
    /// L36 fires on each of its conditions, the last one too: past the propose step, with a polka of our round for a body that is
    /// valid and durable, nothing is left to wait for. In the prevote step it is locked and precommitted (L38-L41), in every
    /// step it is remembered as valid (L42). What is wrong, if something is.
    pub(crate) fn misses_polka(&self) -> Option<String> {
        let consensus = self.replica.consensus();
        if consensus.current_step() == Step::Propose || consensus.certified().is_some() || consensus.height() != self.replica.height() {
            return None;
        }
        let polka = consensus.votes(consensus.round(), VoteType::Prevote)?.quorum_block()?;
        let is_here = self.bodies.valid.contains(&polka.hash) && self.bodies.durable.contains(&polka.hash);
        let is_remembered = consensus.valid().is_some_and(|valid| valid.round == consensus.round() && valid.block_id == polka);
        (is_here && (consensus.current_step() == Step::Prevote || !is_remembered))
            .then(|| format!("a polka of height {}, round {} is not acted on", consensus.height(), consensus.round()))
    }

    /// A block was executed.
    pub(crate) fn included(&mut self, block: &Block, outcome: &Outcome) {
        let done = block.txs.iter().zip(outcome.results.iter()).filter(|(_, result)| result.code == 0);
        self.included.extend(done.map(|(tx, _)| (tx.hash(), outcome.height)));
    }

    /// What was executed since this node started, it does not propose again: the pool remembers far more than a run executes.
    /// What is wrong, if something is, with a block built after `chain`.
    pub(crate) fn repeats(&self, block: &Block, chain: &ChainState) -> Option<String> {
        let before = |tx: &lockstep_types::Tx| self.included.get(&tx.hash()).copied().filter(|height| *height <= chain.height);
        let (tx, height) = block.txs.iter().find_map(|tx| Some((tx, before(tx)?)))?;
        Some(format!("a block of height {} with {tx:?}, which height {height} executed", block.header.height))
    }

    /// Readers hear of the block after which the chain is this.
    pub(crate) fn tell_readers(&mut self, chain: &Arc<ChainState>) {
        self.told = chain.clone();
        let height = chain.height;
        while self.executed.front().is_some_and(|state| state.height() <= height) {
            self.readable = self.executed.pop_front().expect("just seen");
        }
    }

    fn source(&self) -> BlockSource {
        BlockSource::new(self.reader.clone()).with_light(self.results.as_ref().map(Results::reader), self.light.clone())
    }

    /// What is kept of a height to account for own votes. None where the disk fails.
    pub(crate) fn polkas(&self, height: Height) -> Option<Vec<Polka>> {
        self.source().kept_polkas(height, usize::MAX).ok()
    }

    /// The same of heights that are behind it, each read once in a life and no more when its block is gone; of those that can be read.
    pub(crate) fn polkas_of(&mut self, heights: impl Iterator<Item = Height>) -> &BTreeMap<Height, Vec<Polka>> {
        let base = Height::new(self.reader.base().unwrap_or(1)).expect("a height of a log");
        self.polkas_read = self.polkas_read.split_off(&base);
        for height in heights {
            if !self.polkas_read.contains_key(&height)
                && let Some(polkas) = self.polkas(height)
            {
                self.polkas_read.insert(height, polkas);
            }
        }
        &self.polkas_read
    }

    /// Whether it gives the block of a height to whoever asks today: it may have one that nobody can read any more.
    pub(crate) fn gives_block(&self, height: u64) -> bool {
        let Some(from) = Height::new(height) else { return false };
        match self.source().read(&ReadQuestion::Blocks { from, count: 1, bytes_max: 0 }) {
            Ok(ReadAnswer::Blocks(found)) => !found.is_empty(),
            found => matches!(found, Ok(ReadAnswer::Certificate(_))),
        }
    }

    /// Whether it answers for the header of a height to whoever asks today.
    pub(crate) fn shows_header(&self, height: u64) -> bool {
        let Some(from) = Height::new(height) else { return false };
        let question = ReadQuestion::Light { from, count: 1, bytes_max: 0, tip: self.told.height };
        matches!(self.source().read(&question), Ok(ReadAnswer::Light(found)) if !found.is_empty())
    }

    /// What it answers for of a header. None where the disk fails.
    pub(crate) fn header(&self, height: Height) -> Option<Option<LightBlock>> {
        match self.source().read(&ReadQuestion::Light { from: height, count: 1, bytes_max: 0, tip: Height::ZERO }).ok()? {
            ReadAnswer::Light(found) => Some(found.into_iter().next()),
            _ => Some(None),
        }
    }

    /// What a peer asked for. Of blocks, those before the first that cannot be read back: others have that one. What is
    /// damaged has the next start look at everything, as in the shell.
    pub(crate) fn read(&self, disk: &SimDisk, now_ms: u64, mut what: ReadQuestion) -> ReadAnswer {
        let mut source = self.source();
        if let Some(snapshots) = &self.snapshots {
            source = source.with_snapshots(Box::new(Stored::new(snapshots.clone(), self.leases.clone(), move || now_ms)));
        }
        loop {
            match (source.read(&what), &mut what) {
                (Ok(answer), _) => return answer,
                (Err(_), what) => {
                    // On a disk that fails there may be no mark.
                    let _ = Quarantine::new(disk.disk(), DAMAGED).suspect();
                    match what {
                        ReadQuestion::Blocks { count, .. } if *count > 1 => *count /= 2,
                        _ => return ReadAnswer::Blocks(Vec::new()),
                    }
                }
            }
        }
    }

    /// Syncs the log: the tickets of all that was appended before.
    pub(crate) fn sync(&mut self) -> Result<Vec<Ticket>, String> {
        self.log.sync().map_err(|error| error.to_string())?;
        Ok(std::mem::take(&mut self.unsynced))
    }

    /// Writes the guard's next record.
    pub(crate) fn write_guard(&mut self) -> Result<Option<Ticket>, String> {
        let Some((ticket, write)) = self.guard_queue.pop_front() else { return Ok(None) };
        let guard = self.guard.as_mut().ok_or("a node without a key writes no guard")?;
        let written = match write {
            Write::Guard(record) => guard.write(&record),
            Write::GuardFloor(height) => guard.resume_above(height.get()),
            Write::Log(_) => return Err("records of the log are not the guard's".into()),
        };
        written.map(|()| Some(ticket)).map_err(|error| error.to_string())
    }

    /// Writes the state of a height, and before it the results up to there.
    pub(crate) fn flush(&mut self, height: Height, meta: &[u8]) -> Result<(), Unwritten> {
        if let Some(results) = &mut self.results {
            results.sync().map_err(|error| Unwritten::Disk(error.to_string()))?;
        }
        let batch = self.executor.take_flush(height);
        let changes: Vec<_> = batch.changes.iter().map(|(key, value)| (Path::of(key), key, value)).collect();
        let changes = changes.iter().map(|(path, key, value)| Change { path: path.0, key, value: value.map(|value| &value[..]) });
        self.db.flush(height.get(), changes, meta).map_err(|error| match error {
            StateError::Damaged { .. } => Unwritten::Damaged(error.to_string()),
            error => Unwritten::Disk(error.to_string()),
        })
    }
}

/// Why a state is not written.
#[derive(Debug)]
pub(crate) enum Unwritten {
    /// An error of the disk.
    Disk(String),
    /// The database is not what was written.
    Damaged(String),
}

/// Whether the rules of a chain have an interval of checkpoints.
fn makes_checkpoints(genesis: &Genesis) -> bool {
    let groups: Option<serde_json::Value> = serde_json::from_str(&genesis.app_state).ok();
    let interval = groups.as_ref().and_then(|groups| groups.get("membership")?.get("checkpoint_interval")?.as_u64());
    interval.is_some_and(|interval| interval > 0)
}
