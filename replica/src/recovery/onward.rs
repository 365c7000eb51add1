//! Damage of the block log that what is here does not need: the blocks behind it lead on from the state, or from an own snapshot.
//!
//! A log is cut where it is damaged, and peers are asked for the rest. That is right where they have it. They may have pruned it, all
//! of them, as this node would have; a chain of one validator has no peers; and where the log did not begin with the chain anyhow, what is left
//! before the damage leads nowhere. So where the state is of a block behind the damage, or an own snapshot of one is
//! proven, the log begins behind the damage from then on, as if what came before had been pruned. Headers that can still be read there,
//! and are of use to judges of evidence, go to where those of pruned blocks are. Nothing is deleted.
//!
//! An operator who keeps all blocks wants those before the damage, too: where the chain's beginning is here, and there is
//! anybody to ask, the log is cut, and comes again.
//!
//! **Whose word is it?** Nothing is believed here that opening would not believe: the state is of the block that the log decided at its
//! height, or a snapshot has the root that the decided header above it names. What is given up is the way there from genesis, which a
//! node that pruned, or began with a snapshot, has given up before.

use std::io::ErrorKind;

use lockstep_storage::log::{Behind, KeepError, LogError, LogReader, before, behind, pruned_below};
use lockstep_storage::quarantine::Quarantine;
use lockstep_storage::results::{ResultsError, carry_over, look, set_aside_before};
use lockstep_storage::snapshots::list;
use lockstep_storage::state::{StateDb, StateError};
use lockstep_types::Height;
use lockstep_types::params::EvidenceParams;

use super::{Home, RecoveryError, SNAPSHOTS_PATH, decided, own};
use crate::chain::ChainState;
use crate::light_store::{LightStore, Root};
use crate::retention::{Needs, put_aside};
use crate::source::BlockSource;

/// Makes what lies behind the damage the log, where it is of more use than what lies before: the paths of what went aside. Nothing, and
/// nothing was done, where the log is to be cut.
///
/// # Errors
/// When the disk fails or is full, or too much was set aside before.
pub(super) fn keep_behind(home: &Home<'_>, damage: &LogError, quarantine: &mut Quarantine) -> Result<Option<Vec<String>>, RecoveryError> {
    let prefix = before(&home.disk, home.log, damage).ok().flatten();
    let state = state_of(home)?;
    if is_cut(home, prefix.as_ref(), state.as_ref())? {
        return Ok(None);
    }
    let mut found = sound_behind(home, damage)?;
    while let Some(rest) = found {
        match is_of_use(home, rest.reader(), state.as_ref()) {
            Ok(false) => return Ok(None),
            Ok(true) => {
                let genesis = &home.genesis.consensus_params.evidence;
                let window = state.as_ref().map_or(genesis, |chain| &chain.params.evidence);
                return keep(home, prefix.as_ref(), (&rest, window), quarantine).map(Some);
            }
            // What opening takes unread was read here.
            Err(RecoveryError::Log(damage @ LogError::Rot { .. })) => found = sound_behind(home, &damage)?,
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Remembers headers of the log, and of what lies behind its damage, before it goes: what this node certified, snapshots can be trusted by
/// ([`Root`]).
///
/// # Errors
/// When the disk fails. What cannot be read is not remembered.
pub(super) fn remember_roots(home: &Home<'_>, damage: Option<&LogError>) -> Result<(), RecoveryError> {
    let log = match damage {
        Some(damage) => sound_behind(home, damage)?.map(|rest| rest.reader().clone()),
        None => lockstep_storage::log::look(&home.disk, home.log).ok().flatten(),
    };
    let Some((log, tip)) = log.and_then(|log| Some((log.clone(), log.tip()?))) else { return Ok(()) };
    let base = log.base().unwrap_or(tip);
    let mut roots = Vec::new();
    let mut back = 0;
    // At distances that double: an old one is below more snapshots, a new one can be trusted for longer.
    while let Some(height) = tip.checked_sub(back).filter(|height| *height >= base).and_then(Height::new) {
        if let Ok((block_id, block, ..)) = decided(&log, height) {
            roots.push(Root { height, hash: block_id.hash, time: block.header.time });
        }
        back = (2 * back).max(1);
    }
    let light = LightStore::open(home.disk.clone())?;
    let is_newer = light.roots()?.iter().map(|root| root.height).max() < roots.iter().map(|root| root.height).max();
    if is_newer {
        light.keep_roots(&roots)?;
    }
    Ok(())
}

/// Whether all blocks are wanted, and there is anybody to ask for them: the operator of a chain of several validators keeps all.
pub(super) fn comes_again(home: &Home<'_>, state: Option<&ChainState>) -> bool {
    let voters = state.map_or(home.genesis.validators.len(), |chain| chain.next_validators.len());
    home.keeps_all_blocks && voters > 1
}

/// Whether what lies before the damage is to be kept, whatever lies behind it.
fn is_cut(home: &Home<'_>, prefix: Option<&LogReader>, state: Option<&ChainState>) -> Result<bool, RecoveryError> {
    let initial = home.genesis.initial_height().get();
    let begins_with_chain = match prefix.and_then(LogReader::base) {
        Some(base) => base <= initial,
        None => pruned_below(&*home.disk, home.log)? <= initial && !LightStore::open(home.disk.clone())?.is_of_snapshot(),
    };
    let comes_again = begins_with_chain && comes_again(home, state);
    // What is damaged came after the state: nothing is lost that blocks do not bring.
    let has_state = state.zip(prefix).is_some_and(|(chain, prefix)| is_of(chain, prefix));
    Ok(comes_again || has_state)
}

/// Whether a state is of the block that the log decided at its height.
pub(super) fn is_of(chain: &ChainState, log: &LogReader) -> bool {
    let decided = log.decided_hash(chain.height.get());
    decided.is_some() && decided == chain.last_block_id.map(|block_id| block_id.hash.0)
}

/// Whether the log begins with the block that follows the state's.
pub(super) fn leads_on(chain: &ChainState, log: &LogReader) -> bool {
    let next = Some(chain.height.next()).filter(|next| log.base() == Some(next.get()));
    let first = next.and_then(|next| decided(log, next).ok());
    first.is_some_and(|(_, block, ..)| block.header.last_block_id.is_some() && block.header.last_block_id == chain.last_block_id)
}

/// The chain of the state database, if there is one that can be read. Whether its entries are sound is not asked.
fn state_of(home: &Home<'_>) -> Result<Option<ChainState>, RecoveryError> {
    match home.disk.open(home.state) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        _ => {}
    }
    match StateDb::open(&*home.disk, home.state) {
        Ok(db) => Ok(db.flushed().and_then(|flushed| ChainState::decode(&flushed.meta).ok())),
        Err(error @ StateError::Disk(_)) => Err(error.into()),
        Err(_) => Ok(None),
    }
}

/// What is sound behind damage. Where that cannot be told, the log is cut.
fn sound_behind(home: &Home<'_>, damage: &LogError) -> Result<Option<Behind>, RecoveryError> {
    match behind(&home.disk, home.log, damage) {
        Err(error @ (LogError::Disk(_) | LogError::NoSpace(_))) => Err(error.into()),
        found => Ok(found.ok().flatten()),
    }
}

/// Whether this log goes on from what is here.
fn is_of_use(home: &Home<'_>, log: &LogReader, state: Option<&ChainState>) -> Result<bool, RecoveryError> {
    let Some(base) = log.base() else { return Ok(false) };
    if let Some(chain) = state.filter(|chain| chain.height.get() >= base && is_of(chain, log)) {
        decided(log, chain.height)?;
        return Ok(true);
    }
    if state.is_some_and(|chain| leads_on(chain, log)) {
        return Ok(true);
    }
    if !home.keep_results {
        return Ok(false);
    }
    let results = look(&*home.disk, home.log).ok();
    let mut source = BlockSource::new(log.clone()).with_light(results, LightStore::open(home.disk.clone())?);
    for listed in list(&*home.disk, SNAPSHOTS_PATH).unwrap_or_default().into_iter().rev() {
        match own::proven(&home.disk, home.genesis, &mut source, &listed.manifest) {
            Ok(Some((chain, _))) if chain.height.get() >= base => return Ok(true),
            // What would prove this one is damaged, too; an older one may not need that.
            Ok(_) | Err(RecoveryError::Results(ResultsError::Damaged { .. })) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

/// Makes it the log. Whenever the power fails, the next start meets the damage again, or what is sound.
fn keep(
    home: &Home<'_>,
    prefix: Option<&LogReader>,
    (rest, window): (&Behind, &EvidenceParams),
    quarantine: &mut Quarantine,
) -> Result<Vec<String>, RecoveryError> {
    if let Some(prefix) = prefix {
        match keep_headers(home, prefix, rest.reader(), window) {
            // Damage there, too: what is above it was kept.
            Ok(()) | Err(RecoveryError::Log(LogError::Rot { .. }) | RecoveryError::Results(_)) => {}
            Err(error) => return Err(error),
        }
    }
    let (from, to) = rest.segments();
    if let Some(base) = rest.reader().base().filter(|_| from != to) {
        carry_over(&home.disk, home.log, from, to, base)?;
    }
    let mut gone = rest.keep(&home.disk, home.log, quarantine).map_err(|error| match error {
        KeepError::Log(error) => RecoveryError::from(error),
        KeepError::Quarantine(error) => error.into(),
    })?;
    gone.extend(set_aside_before(&home.disk, home.log, to, quarantine)?);
    Ok(gone)
}

/// Puts those headers aside that evidence may still be about, with their polkas. The last before the damage goes where a snapshot's is: the commit that
/// its successor carries was in what is damaged, and with another one it must not stand in the way of a header that is whole.
fn keep_headers(home: &Home<'_>, prefix: &LogReader, rest: &LogReader, window: &EvidenceParams) -> Result<(), RecoveryError> {
    let heights = |log: &LogReader| Some((log.base().and_then(Height::new)?, log.tip().and_then(Height::new)?));
    let (Some((base, top)), Some((_, tip))) = (heights(prefix), heights(rest)) else { return Ok(()) };
    let (_, newest, ..) = decided(rest, tip)?;
    let needs = Needs { tip, tip_time: newest.header.time, flushed: tip, oldest_snapshot: None, names: 0, evidence: window.clone() };
    let mut light = LightStore::open(home.disk.clone())?;
    let mut source = BlockSource::new(prefix.clone()).with_light(look(&*home.disk, home.log).ok(), light.clone());
    light.keep(&source.headers(top, 1, u64::MAX, top)?)?;
    put_aside(&mut source, &light, base..=top.previous(), |height, time| !needs.has_expired(height, time))?;
    Ok(())
}
