//! What readers see, without asking the replica: the block log, the results beside it, and snapshots of the state. Nothing
//! here is shared with consensus but a lock that is held for a pointer's copy.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, RwLock};

use bytes::Bytes;
use lockstep_app::{Host, State};
use lockstep_genesis::Genesis;
use lockstep_replica::light_store::LightStore;
use lockstep_replica::recovery::{RecoveryError, decided};
use lockstep_replica::results::{KeptBlock, kept_block, kept_tx};
use lockstep_replica::{ChainState, Restored};
use lockstep_storage::log::LogReader;
use lockstep_storage::quarantine::Quarantine;
use lockstep_storage::results::{BlockResults, ResultsReader};
use lockstep_types::light::LightBlock;
use lockstep_types::{Block, BlockId, Commit, Hash, Height, TxResult};

use super::room::Room;
use crate::metrics::Metrics;

/// States of past heights that queries can ask for. Versions share what did not change.
const STATES_KEPT: usize = 16;

/// The last block that is decided, durable and executed, with what follows from it.
#[derive(Debug, Clone)]
pub struct Tip {
    /// The chain after it.
    pub chain: Arc<ChainState>,
    /// Its own commit, as this node saw it; none before the first block.
    pub commit: Option<Arc<Commit>>,
}

/// What readers do about damage that they meet: whoever asked hears of it, the operator too, and the next start looks at
/// everything and heals it (decision record 10). Serving goes on.
pub(crate) struct Damage {
    quarantine: Quarantine,
    metrics: Arc<Metrics>,
    /// Damages that were told.
    told: Mutex<BTreeSet<String>>,
}

/// Damages of which the log speaks, each once. Of further ones only the metric does.
const DAMAGES_TOLD_MAX: usize = 100;

impl Damage {
    pub(crate) fn new(quarantine: Quarantine, metrics: Arc<Metrics>) -> Self {
        Self { quarantine, metrics, told: Mutex::default() }
    }

    /// Passes an error on, and tells of it.
    fn met<E: std::fmt::Display>(&self, error: E) -> E {
        self.metrics.damaged_read();
        let mut told = self.told.lock().expect("no holder panics");
        let what = error.to_string();
        if told.len() < DAMAGES_TOLD_MAX && told.insert(what.clone()) {
            let marked = self.quarantine.suspect();
            tracing::warn!(
                "a file of this node cannot be read back: {what}. Everything else is served; to do: look at this disk, and restart the node, \
                 which then verifies all of its files and heals them"
            );
            if let Err(error) = marked {
                tracing::warn!(%error, "the next start cannot be told to verify everything");
            }
        }
        error
    }
}

/// Everything that readers see.
pub struct Readers {
    genesis_json: Arc<str>,
    genesis_chain: ChainState,
    log: LogReader,
    results: ResultsReader,
    light: LightStore,
    host: Host,
    tip: RwLock<Arc<Tip>>,
    /// The newest executed state, ahead of the tip by what is not durable yet, and those before it.
    states: Mutex<BTreeMap<Height, State>>,
    mempool_txs: AtomicU64,
    mempool_bytes: AtomicU64,
    behind: Behind,
    /// Whether there is room on the disk, once somebody looks.
    room: OnceLock<Room>,
    damage: Damage,
    /// Why the state is not to be answered from.
    doubt: OnceLock<String>,
}

/// Whether readers are behind. The replica is in step when it has decided the last block; readers are when they see it.
#[derive(Default)]
struct Behind {
    is_replica: AtomicBool,
    /// What is decided, at least.
    below: AtomicU64,
}

impl Behind {
    fn set(&self, is_replica: bool, target: Height) {
        self.below.store(target.get(), Ordering::Relaxed);
        self.is_replica.store(is_replica, Ordering::Relaxed);
    }

    /// Readers see this height.
    fn holds(&self, seen: Height) -> bool {
        self.is_replica.load(Ordering::Relaxed) || seen.get() < self.below.load(Ordering::Relaxed)
    }
}

impl Readers {
    /// What readers see at start.
    #[expect(clippy::too_many_arguments, reason = "each is one thing that readers see, and there is one caller")]
    pub(crate) fn new(
        genesis: &Genesis,
        genesis_chain: ChainState,
        log: LogReader,
        results: ResultsReader,
        light: LightStore,
        host: Host,
        restored: &Restored,
        state: State,
        damage: Damage,
    ) -> Self {
        let tip = Tip { chain: restored.chain.clone(), commit: restored.last_commit.clone().map(Arc::new) };
        Self {
            genesis_json: genesis.to_minified_json().into(),
            genesis_chain,
            log,
            results,
            light,
            host,
            tip: RwLock::new(Arc::new(tip)),
            states: Mutex::new(BTreeMap::from([(state.height(), state)])),
            mempool_txs: AtomicU64::new(0),
            mempool_bytes: AtomicU64::new(0),
            behind: Behind::default(),
            room: OnceLock::new(),
            damage,
            doubt: OnceLock::new(),
        }
    }

    /// From now on nothing is answered from the state.
    pub(crate) fn doubt(&self, why: &str) {
        let _ = self.doubt.set(why.to_owned());
    }

    /// Why nothing is answered from the state, if so.
    pub fn doubted(&self) -> Option<&str> {
        self.doubt.get().map(String::as_str)
    }

    /// The tip.
    pub fn tip(&self) -> Arc<Tip> {
        self.tip.read().expect("no holder panics").clone()
    }

    pub(crate) fn set_tip(&self, tip: Tip) {
        *self.tip.write().expect("no holder panics") = Arc::new(tip);
    }

    pub(crate) fn put_state(&self, state: State) {
        let mut states = self.states.lock().expect("no holder panics");
        states.insert(state.height(), state);
        while states.len() > STATES_KEPT {
            states.pop_first();
        }
    }

    /// The newest executed state.
    pub fn newest_state(&self) -> State {
        let states = self.states.lock().expect("no holder panics");
        states.last_key_value().map(|(_, state)| state.clone()).expect("there is always one")
    }

    /// The lowest height whose state is kept.
    pub fn oldest_state(&self) -> Height {
        let states = self.states.lock().expect("no holder panics");
        states.first_key_value().map(|(height, _)| *height).expect("there is always one")
    }

    /// The state after a height, if it is kept.
    pub fn state_at(&self, height: Height) -> Option<State> {
        self.states.lock().expect("no holder panics").get(&height).cloned()
    }

    /// The application.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The genesis document.
    pub fn genesis_json(&self) -> Arc<str> {
        self.genesis_json.clone()
    }

    /// The chain before its first block.
    pub fn genesis_chain(&self) -> &ChainState {
        &self.genesis_chain
    }

    /// First block kept; zero before the first.
    pub fn base(&self) -> Height {
        let tip = self.tip().chain.height;
        self.log.base().and_then(Height::new).filter(|base| *base <= tip).unwrap_or(Height::ZERO)
    }

    /// A decided block at or below the tip.
    ///
    /// # Errors
    /// When the disk fails or is damaged.
    pub fn block(&self, height: Height) -> Result<Option<(BlockId, Block, Bytes, Commit)>, RecoveryError> {
        if height == Height::ZERO || height > self.tip().chain.height || height < self.base() {
            return Ok(None);
        }
        decided(&self.log, height).map(Some).map_err(|error| self.damage.met(error))
    }

    /// The lowest height of which header, commit and validators are kept, up to the first block. What a disk damaged may be missing in between.
    pub fn headers_base(&self) -> Height {
        match self.base() {
            Height::ZERO => Height::ZERO,
            base => self.light.lowest_below(base),
        }
    }

    /// Header, commit and validators of a height whose block was let go.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn header_apart(&self, height: Height) -> Result<Option<LightBlock>, RecoveryError> {
        self.light.find(height).map_err(RecoveryError::from)
    }

    /// The block log, for peers.
    pub(crate) fn log(&self) -> LogReader {
        self.log.clone()
    }

    /// The results, for peers who ask for validators.
    pub(crate) fn results_reader(&self) -> ResultsReader {
        self.results.clone()
    }

    /// The height of a decided block with this hash.
    ///
    /// # Errors
    /// When the disk fails or is damaged.
    pub fn height_of(&self, hash: &Hash) -> Result<Option<Height>, RecoveryError> {
        let Some(stored) = self.log.body(&hash.0).map_err(|error| self.damage.met(RecoveryError::from(error)))? else { return Ok(None) };
        let Ok(block) = Block::decode(&stored.payload) else { return Ok(None) };
        let height = block.header.height;
        let is_decided = self.log.decided_hash(height.get()) == Some(hash.0) && height <= self.tip().chain.height;
        Ok(is_decided.then_some(height))
    }

    /// What executing a block gave.
    ///
    /// # Errors
    /// When the disk fails or is damaged.
    pub fn results(&self, height: Height) -> Result<Option<(KeptBlock, Vec<TxResult>)>, String> {
        let Some(results) = self.raw_results(height)? else { return Ok(None) };
        let kept = kept_block(&results).map_err(|error| error.to_string())?;
        let txs = results.txs.iter().map(|tx| kept_tx(&tx.result)).collect::<Result<_, _>>().map_err(|error| error.to_string())?;
        Ok(Some((kept, txs)))
    }

    fn raw_results(&self, height: Height) -> Result<Option<BlockResults>, String> {
        if height == Height::ZERO || height > self.tip().chain.height {
            return Ok(None);
        }
        self.results.results(height.get()).map_err(|error| self.damage.met(error).to_string())
    }

    /// Where a transaction was executed, and what it gave.
    ///
    /// # Errors
    /// When the disk fails or is damaged.
    pub fn tx(&self, hash: &Hash) -> Result<Option<(Height, u32, TxResult)>, String> {
        let Some(place) = self.results.lookup(&hash.0).map_err(|error| self.damage.met(error).to_string())? else { return Ok(None) };
        let height = Height::new(place.height).ok_or_else(|| "the index names a height that cannot be".to_owned())?;
        let Some(results) = self.raw_results(height)? else { return Ok(None) };
        let Some(tx) = results.txs.get(place.index as usize) else { return Ok(None) };
        Ok(Some((height, place.index, kept_tx(&tx.result).map_err(|error| error.to_string())?)))
    }

    pub(crate) fn set_mempool(&self, txs: usize, bytes: usize) {
        self.mempool_txs.store(txs as u64, Ordering::Relaxed);
        self.mempool_bytes.store(bytes as u64, Ordering::Relaxed);
    }

    /// Transactions waiting, and their bytes.
    pub fn mempool(&self) -> (u64, u64) {
        (self.mempool_txs.load(Ordering::Relaxed), self.mempool_bytes.load(Ordering::Relaxed))
    }

    /// The replica is behind; or no more, having decided the block of this height, which readers may not see yet.
    pub(crate) fn set_behind(&self, behind: bool, target: Height) {
        self.behind.set(behind, target);
    }

    /// Whether blocks are known to be decided that readers of this node do not see.
    pub fn is_behind(&self) -> bool {
        self.behind.holds(self.tip().chain.height) || self.room.get().is_some_and(Room::blocks_wait)
    }

    /// From now on it is known whether blocks wait for room on the disk.
    pub(crate) fn look_at(&self, room: Room) {
        // It is told once.
        let _ = self.room.set(room);
    }

    /// Tells of damage that somebody else met in what these readers read.
    pub(crate) fn met(&self, error: RecoveryError) {
        self.damage.met(error);
    }

    pub(crate) fn segment_of(&self, height: Height) -> Option<u64> {
        self.log.segment_of(height.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_are_behind_until_they_see_what_was_decided() {
        let height = |height: u64| Height::new(height).expect("within bounds");
        let behind = Behind::default();
        assert!(!behind.holds(Height::ZERO), "nothing is known of any chain");
        behind.set(true, height(40));
        assert!(behind.holds(height(3)));
        behind.set(false, height(41));
        assert!(behind.holds(height(3)) && behind.holds(height(40)), "decided, and not to be seen yet");
        assert!(!behind.holds(height(41)) && !behind.holds(height(60)));
    }
}
