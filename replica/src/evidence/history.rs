//! The blocks of the past, as far as evidence is compared with them: header, validators, and the commit that the next block
//! carries.
//!
//! Evidence is nearly always of the last few heights, which the executor remembers. What is older is read from the block log
//! and from the results beside it; of blocks that were let go, from where their headers are kept. A validator set that is found there is
//! believed when it is the one that the header names.

use std::collections::VecDeque;
use std::sync::Arc;

use lockstep_storage::log::LogReader;
use lockstep_storage::results::ResultsReader;
use lockstep_types::{Block, Commit, Header, Height, ValidatorSet};

use crate::chain::ChainState;
use crate::light_store::LightStore;
use crate::recovery::decided;
use crate::results::kept_block;

/// Heights that the executor remembers. The log and the results are behind it by what their threads still have to write,
/// which is a few blocks; a set of the largest size makes this a few MiB.
const RECENT_MAX: usize = 64;

/// A block of the past.
#[derive(Debug, Clone)]
pub struct Past {
    /// Its header.
    pub header: Header,
    /// Its validators. Their priorities mean nothing.
    pub validators: Arc<ValidatorSet>,
    /// The commit for it that the next block carries; none where there is no next block yet.
    pub commit: Option<Commit>,
}

/// Where blocks of the past are found.
pub trait History {
    /// The block of a height of the chain that `chain` is the newest of; none when it is not known here.
    fn past(&self, height: Height, chain: &ChainState) -> Option<Past>;
}

/// Nothing is known of the past.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoHistory;

impl History for NoHistory {
    fn past(&self, _: Height, _: &ChainState) -> Option<Past> {
        None
    }
}

/// The newest blocks in memory, those before them on the disk.
#[derive(Default)]
pub struct BlockHistory {
    recent: VecDeque<Past>,
    log: Option<LogReader>,
    results: Option<ResultsReader>,
    /// What is kept apart from bodies.
    light: Option<LightStore>,
}

impl BlockHistory {
    /// From now on, what is older than what is remembered is read from here.
    pub fn read_from(&mut self, log: LogReader, results: Option<ResultsReader>) {
        (self.log, self.results) = (Some(log), results);
    }

    /// And what the log does not have, from here.
    pub fn read_headers_from(&mut self, light: LightStore) {
        self.light = Some(light);
    }

    /// A block was executed; `validators` are those of its height.
    pub fn push(&mut self, block: &Block, validators: Arc<ValidatorSet>) {
        if let Some(last) = self.recent.back_mut() {
            if last.header.height.next() == block.header.height {
                last.commit.clone_from(&block.last_commit);
            } else {
                self.recent.clear();
            }
        }
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(Past { header: block.header.clone(), validators, commit: None });
    }

    fn stored(&self, height: Height, chain: &ChainState) -> Option<Past> {
        let log = self.log.as_ref()?;
        let (_, block, ..) = decided(log, height).ok()?;
        // The block above may be executed and not written down yet, just after a start: who needs its commit waits for that.
        let above = if height < chain.height { decided(log, height.next()).ok() } else { None };
        let commit = above.and_then(|(_, above, ..)| above.last_commit);
        let validators = self.validators(height, &block.header, chain)?;
        Some(Past { header: block.header, validators, commit })
    }

    /// A header that is kept apart from its body: it came with a snapshot, proven when it came, or its block was let go. A commit from a
    /// snapshot is some certificate, and need not be the one that the next block carries.
    fn apart(&self, height: Height) -> Option<Past> {
        // The one above is nearly always in the same file, which is unpacked once.
        let mut light = self.light.clone()?;
        let block = light.get(height).ok()??;
        let above = match light.get(height.next()).ok()? {
            Some(above) => Some(above.header),
            None => self.log.as_ref().and_then(|log| decided(log, height.next()).ok()).map(|(_, above, ..)| above.header),
        };
        let is_carried = above.is_some_and(|above| above.last_commit_hash == block.commit.hash());
        let commit = is_carried.then_some(block.commit);
        Some(Past { header: block.header, validators: Arc::new(block.validators), commit })
    }

    /// The set that a header names: one of the newest, or the one that was kept with the results of the block before. No
    /// block changes the set of the second height, so the first two have one composition.
    fn validators(&self, height: Height, header: &Header, chain: &ChainState) -> Option<Arc<ValidatorSet>> {
        let is_it = |set: &Arc<ValidatorSet>| set.hash() == header.validators_hash;
        let newest = [&chain.last_validators, &chain.validators, &chain.next_validators].into_iter().cloned();
        let known = newest.chain(self.recent.front().map(|past| past.validators.clone())).find(is_it);
        known.or_else(|| {
            let before = height.previous().max(chain.initial_height);
            let kept = self.results.as_ref()?.results(before.get()).ok()?;
            let set = match kept {
                Some(kept) => kept_block(&kept).ok()?.validators,
                // Let go with its block.
                None => self.light.as_ref()?.find(before).ok()??.next_validators,
            };
            Some(Arc::new(set)).filter(is_it)
        })
    }
}

impl History for BlockHistory {
    fn past(&self, height: Height, chain: &ChainState) -> Option<Past> {
        let newest = self.recent.back().map(|past| past.header.height);
        let back = newest.and_then(|newest| newest.get().checked_sub(height.get()));
        let place = back.and_then(|back| (self.recent.len() as u64).checked_sub(back.checked_add(1)?));
        match place.and_then(|place| self.recent.get(usize::try_from(place).ok()?)) {
            Some(past) => Some(past.clone()),
            None => self.stored(height, chain).or_else(|| self.apart(height)),
        }
    }
}
