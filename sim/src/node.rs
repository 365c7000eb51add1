//! One simulated node: the replica and everything beneath it, on a simulated disk.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use lockstep_app::{Host, Kv};
use lockstep_consensus::Step;
use lockstep_genesis::Genesis;
use lockstep_replica::execution::Executor;
use lockstep_replica::planted::Planted;
use lockstep_replica::recovery::{RecoveryError, decided, recover};
use lockstep_replica::seam::{AskId, LogRecord, Outcome, Peer, Ticket, Write};
use lockstep_replica::signing::Me;
use lockstep_replica::{Config, Fence, Input, Replica};
use lockstep_storage::guard::{Guard, GuardRecord};
use lockstep_storage::log::{BlockLog, Kind, LogOptions, LogReader, Record};
use lockstep_storage::state::{Change, StateDb};
use lockstep_types::state_tree::Path;
use lockstep_types::{Block, BlockId, Commit, Hash, Height, PrivateKey, VoteType};

use crate::disk::SimDisk;

/// Where a node keeps its guard.
const GUARD: &str = "guard";
const LOG: &str = "log";
const STATE: &str = "state.redb";
/// Small, so that runs of a few dozen blocks have several segments.
const SEGMENT_BYTES: u64 = 16 << 10;

/// What survives a crash.
pub(crate) struct Machine {
    pub(crate) disk: SimDisk,
    /// None for one who only follows.
    pub(crate) key: Option<PrivateKey>,
    /// How far its wall clock is from true time, in nanoseconds.
    pub(crate) clock: i64,
    /// Counts its lives: what was meant for an earlier one is dropped.
    pub(crate) life: u64,
    pub(crate) running: Option<Running>,
    /// Never started again.
    pub(crate) retired: bool,
    pub(crate) effects: u64,
    /// Until when nothing that comes to it is looked at.
    pub(crate) frozen_until: u64,
}

/// A life.
pub(crate) struct Running {
    pub(crate) replica: Replica,
    pub(crate) fence: Fence,
    pub(crate) log: BlockLog,
    pub(crate) reader: LogReader,
    pub(crate) guard: Option<Guard>,
    pub(crate) db: StateDb,
    pub(crate) executor: Executor,
    /// Appended and not synced.
    pub(crate) unsynced: Vec<Ticket>,
    /// Records of the guard in order.
    pub(crate) guard_queue: VecDeque<(Ticket, Write)>,
    /// Who is behind each connection.
    pub(crate) peers: BTreeMap<Peer, usize>,
    /// Questions that wait for an answer: who asked, and by which job.
    pub(crate) asks: BTreeMap<AskId, (usize, u64, lockstep_replica::seam::JobId)>,
    pub(crate) ask_count: u64,
    pub(crate) bodies: Bodies,
}

/// What the replica was told of bodies.
#[derive(Default)]
pub(crate) struct Bodies {
    writing: BTreeMap<Ticket, Hash>,
    durable: BTreeSet<Hash>,
    valid: BTreeSet<Hash>,
}

impl Bodies {
    /// It asked for these to be durable.
    pub(crate) fn asked(&mut self, ticket: Ticket, records: &[LogRecord]) {
        let body = records.iter().find(|record| record.kind == Kind::Body);
        self.writing.extend(body.map(|record| (ticket, record.block_hash)));
    }

    /// It is being told this.
    pub(crate) fn told(&mut self, input: &Input) {
        match input {
            Input::Durable { ticket } => self.durable.extend(self.writing.remove(ticket)),
            Input::Checked { verdict: Ok(block), .. } => drop(self.valid.insert(block.header.hash())),
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
}

impl Machine {
    pub(crate) fn new(key: Option<PrivateKey>, clock: i64, genesis_hash: Hash) -> Self {
        let disk = SimDisk::new();
        if key.is_some() {
            Guard::create(&*disk.disk(), GUARD, GuardRecord::initial(genesis_hash.0)).expect("a new disk takes a guard");
        }
        Self { disk, key, clock, life: 0, running: None, retired: false, effects: 0, frozen_until: 0 }
    }

    /// Opens what is on the disk and goes on from it.
    pub(crate) fn start(&self, genesis: &Genesis, flush_blocks: u64, planted: Planted) -> Result<Started, String> {
        let disk = self.disk.disk();
        let genesis_hash = genesis.hash();
        let options = LogOptions { salt: genesis_hash.0, segment_bytes: SEGMENT_BYTES };
        let (log, _) = BlockLog::open(disk.clone(), LOG, options).map_err(|error| error.to_string())?;
        let reader = log.reader();
        let guard = match &self.key {
            Some(_) => Some(Guard::open(&*disk, GUARD, genesis_hash.0).map_err(|error| error.to_string())?),
            None => None,
        };
        let mut db = StateDb::open(&*disk, STATE).map_err(|error| error.to_string())?;
        let host = Host::new(Arc::new(Kv));
        let mut outcomes = Vec::new();
        let recovered = recover(host, genesis, &reader, &mut db, guard.as_ref(), |_, outcome, _| {
            outcomes.push(outcome.clone());
            Ok(())
        })
        .map_err(|error: RecoveryError| error.to_string())?;
        let mut replayed = Vec::new();
        for outcome in outcomes {
            let (block_id, block, _, commit) = decided(&reader, outcome.height).map_err(|error| error.to_string())?;
            replayed.push(Replayed { block_id, block: Arc::new(block), commit, outcome });
        }
        let height = recovered.restored.chain.height;
        let me = self.key.as_ref().map(|key| Me { public_key: key.public_key(), address: key.public_key().address() });
        let config =
            Config { genesis_hash, me, mempool: lockstep_mempool::Limits::default(), flush_keys: 1_000_000, flush_blocks, planted };
        let running = Running {
            replica: Replica::new(config, recovered.restored),
            fence: Fence::new(),
            log,
            reader,
            guard,
            db,
            executor: recovered.executor,
            unsynced: Vec::new(),
            guard_queue: VecDeque::new(),
            peers: BTreeMap::new(),
            asks: BTreeMap::new(),
            ask_count: 0,
            bodies: Bodies::default(),
        };
        Ok(Started { running, replayed, height })
    }
}

impl Running {
    /// L36 fires on each of its conditions, the last one too: in the prevote step, with a polka of our round for a body that is
    /// valid and durable, nothing is left to wait for. What is wrong, if something is.
    pub(crate) fn misses_polka(&self) -> Option<String> {
        let consensus = self.replica.consensus();
        if consensus.current_step() != Step::Prevote || consensus.certified().is_some() || consensus.height() != self.replica.height() {
            return None;
        }
        let polka = consensus.votes(consensus.round(), VoteType::Prevote)?.quorum_block()?;
        let is_here = self.bodies.valid.contains(&polka.hash) && self.bodies.durable.contains(&polka.hash);
        is_here.then(|| format!("a polka of height {}, round {} is not acted on", consensus.height(), consensus.round()))
    }

    /// Appends records; they are durable at the next sync.
    pub(crate) fn append(&mut self, records: &[lockstep_replica::seam::LogRecord]) -> Result<(), String> {
        for record in records {
            let record = Record {
                kind: record.kind,
                height: record.height.get(),
                round: record.round.get(),
                block_hash: record.block_hash.0,
                payload: &record.payload,
            };
            self.log.append(record).map_err(|error| error.to_string())?;
        }
        Ok(())
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

    /// Writes the state of a height.
    pub(crate) fn flush(&mut self, height: Height, meta: &[u8]) -> Result<(), String> {
        let batch = self.executor.take_flush(height);
        let changes: Vec<_> = batch.changes.iter().map(|(key, value)| (Path::of(key), key, value)).collect();
        let changes = changes.iter().map(|(path, key, value)| Change { path: path.0, key, value: value.map(|value| &value[..]) });
        self.db.flush(height.get(), changes, meta).map_err(|error| error.to_string())
    }
}
