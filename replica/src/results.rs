//! What is kept of a block's execution, beside the log: the answers of RPC.

use borsh::{BorshDeserialize, BorshSerialize};
use lockstep_storage::results::{BlockResults, TxResult as StoredTx};
use lockstep_types::codec::{self, DecodeError};
use lockstep_types::{AppHash, Block, ConsensusParams, Event, TxResult, ValidatorSet, ValidatorUpdate};

use crate::chain::ChainState;
use crate::seam::Outcome;

/// First byte of what is kept.
const VERSION: u8 = 1;
/// What is read back was written here; the storage's own bound is tighter.
const BYTES_MAX: usize = lockstep_storage::results::RESULTS_BYTES_MAX as usize;

/// What is kept of the block as a whole.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct KeptBlock {
    /// Root of the state after it.
    pub app_hash: AppHash,
    /// Events of the block itself.
    pub events: Vec<Event>,
    /// Changes of the validator set.
    pub validator_updates: Vec<ValidatorUpdate>,
    /// All parameters, when the block changed some.
    pub param_updates: Option<ConsensusParams>,
    /// Validators of the next height, with their priorities.
    pub validators: ValidatorSet,
    /// Parameters in force at the next height.
    pub params: ConsensusParams,
}

/// The record of a block's execution; `chain` is the chain after it.
pub fn keep(block: &Block, outcome: &Outcome, chain: &ChainState) -> BlockResults {
    let kept = KeptBlock {
        app_hash: outcome.app_hash.clone(),
        events: outcome.events.clone(),
        validator_updates: outcome.validator_updates.clone(),
        param_updates: outcome.params.clone(),
        validators: (*chain.validators).clone(),
        params: (*chain.params).clone(),
    };
    let txs = block.txs.iter().zip(outcome.results.iter());
    BlockResults {
        height: outcome.height.get(),
        block: codec::encode(VERSION, &kept),
        txs: txs.map(|(tx, result)| StoredTx { hash: tx.hash().0, result: codec::encode(VERSION, result) }).collect(),
    }
}

/// What was kept of a block.
///
/// # Errors
/// When another version wrote it.
pub fn kept_block(results: &BlockResults) -> Result<KeptBlock, DecodeError> {
    codec::decode(VERSION, &results.block, BYTES_MAX)
}

/// What was kept of a transaction.
///
/// # Errors
/// When another version wrote it.
pub fn kept_tx(bytes: &[u8]) -> Result<TxResult, DecodeError> {
    codec::decode(VERSION, bytes, BYTES_MAX)
}
