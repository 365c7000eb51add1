//! What the chain says after a block: everything a header of the next height is compared with.

use std::sync::Arc;

use borsh::{BorshDeserialize, BorshSerialize};
use lockstep_app::Standing;
use lockstep_genesis::Genesis;
use lockstep_types::audit::Statement;
use lockstep_types::block::BLOCK_PROTOCOL;
use lockstep_types::codec::{self, DecodeError};
use lockstep_types::{AppHash, BlockId, ChainId, ConsensusParams, Hash, Header, Height, Time, ValidatorSet, Version};
use thiserror::Error;

use crate::seam::Outcome;

/// First byte of an encoded chain state.
const VERSION: u8 = 2;
/// What was written before membership: the same without its last field.
const VERSION_BEFORE_MEMBERSHIP: u8 = 1;
/// First byte of what a statement's digest is made of.
const STATEMENT_VERSION: u8 = 1;
/// Three validator sets of the largest size, parameters and hashes.
const BYTES_MAX: usize = 1 << 20;

/// Why a genesis and an application make no chain together.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StartError {
    /// Genesis says which state the chain begins with, and the application made another.
    #[error(
        "app_hash says that the first state has root {genesis}, and the application made one with root {application}: this is not the \
         application of this chain, or not the version that it began with"
    )]
    Root {
        /// The root in genesis.
        genesis: AppHash,
        /// The application's.
        application: AppHash,
    },
}

/// The chain after `height`. A pure function of the chain: the same on every node.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ChainState {
    /// The chain.
    pub chain_id: ChainId,
    /// Last height executed; one below the initial height for a new chain.
    pub height: Height,
    /// The first height of the chain.
    pub initial_height: Height,
    /// The block of that height; none for a new chain.
    pub last_block_id: Option<BlockId>,
    /// Its time; the genesis time for a new chain.
    pub last_time: Time,
    /// Validators of that height, who signed the last commit.
    pub last_validators: Arc<ValidatorSet>,
    /// Validators of the next height.
    pub validators: Arc<ValidatorSet>,
    /// Validators of the height after that.
    pub next_validators: Arc<ValidatorSet>,
    /// Parameters in force at the next height.
    pub params: Arc<ConsensusParams>,
    /// Root of the state.
    pub app_hash: AppHash,
    /// Root over the results of the last block.
    pub results_hash: Hash,
    /// Version of the application, for headers.
    pub app_version: u64,
    /// Whether the last block changed what the next header must prove: it is then followed at once.
    pub follow_at_once: bool,
    /// What membership knows beside the state; on a chain without, evidence alone.
    pub standing: Arc<Standing>,
}

impl ChainState {
    /// A new chain, with what its application answered to `init_chain`.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn genesis(
        genesis: &Genesis,
        validators: ValidatorSet,
        params: ConsensusParams,
        app_hash: AppHash,
        app_version: u64,
        standing: Arc<Standing>,
    ) -> Result<Self, StartError> {
        if !genesis.app_hash.as_bytes().is_empty() && genesis.app_hash != app_hash {
            return Err(StartError::Root { genesis: genesis.app_hash.clone(), application: app_hash });
        }
        let validators = Arc::new(validators);
        let mut next = (*validators).clone();
        next.increment(1);
        Ok(Self {
            chain_id: genesis.chain_id.clone(),
            height: genesis.initial_height().previous(),
            initial_height: genesis.initial_height(),
            last_block_id: None,
            last_time: genesis.genesis_time,
            last_validators: validators.clone(),
            validators,
            next_validators: Arc::new(next),
            params: Arc::new(params),
            app_hash,
            results_hash: Hash::EMPTY_LIST,
            app_version,
            // The root that the application began with is provable only in the first header.
            follow_at_once: true,
            standing,
        })
    }

    /// The height that comes next.
    pub fn next_height(&self) -> Height {
        self.height.next()
    }

    /// The chain after one more block, with what its execution gave.
    ///
    /// # Panics
    /// When the block is not the next one, or the updates do not apply: the executor checked them on the same sets.
    #[must_use]
    pub fn advance(&self, block_id: BlockId, header: &Header, txs: usize, outcome: &Outcome) -> Self {
        assert_eq!(header.height, self.next_height(), "blocks are executed in order");
        assert_eq!(outcome.height, header.height, "the outcome is this block's");
        let mut after_next = (*self.next_validators).clone();
        if !outcome.validator_updates.is_empty() {
            after_next.update(&outcome.validator_updates).expect("the executor checked the updates against this set");
        }
        after_next.increment(1);
        Self {
            chain_id: self.chain_id.clone(),
            height: header.height,
            initial_height: self.initial_height,
            last_block_id: Some(block_id),
            last_time: header.time,
            last_validators: self.validators.clone(),
            validators: self.next_validators.clone(),
            next_validators: Arc::new(after_next),
            params: outcome.params.clone().map_or_else(|| self.params.clone(), Arc::new),
            app_hash: outcome.app_hash.clone(),
            results_hash: outcome.results_hash,
            app_version: self.app_version,
            follow_at_once: txs > 0
                || header.evidence_hash != Hash::EMPTY_LIST
                || !outcome.validator_updates.is_empty()
                || outcome.params.is_some()
                // The state of a checkpoint is worth a snapshot once the next header proves it.
                || outcome.checkpoint
                // A change of validators shows in the header one height later still.
                || self.next_validators.hash() != self.validators.hash(),
            standing: outcome.standing.clone(),
        }
    }

    /// The header of the next height, but for what its proposer chooses: time, address and the hashes of the body.
    pub fn next_header(&self, time: Time, proposer_address: lockstep_types::Address) -> Header {
        Header {
            version: Version { block: BLOCK_PROTOCOL, app: self.app_version },
            chain_id: self.chain_id.clone(),
            height: self.next_height(),
            time,
            last_block_id: self.last_block_id,
            last_commit_hash: Hash::EMPTY_LIST,
            data_hash: Hash::EMPTY_LIST,
            validators_hash: self.validators.hash(),
            next_validators_hash: self.next_validators.hash(),
            consensus_hash: self.params.hash(),
            app_hash: self.app_hash.clone(),
            last_results_hash: self.results_hash,
            evidence_hash: Hash::EMPTY_LIST,
            proposer_address,
        }
    }

    /// What a validator says of it: root, results, and a digest of everything else that the chain determines and that a replica which
    /// began with a snapshot has, too. Left out are priorities of the last set, which sign nothing any more, the names of the newest
    /// blocks, which the last block's name binds, and whether the next height waits for its pace.
    pub fn statement(&self) -> Statement {
        let standing = &self.standing;
        let sets = (&*self.validators, &*self.next_validators, self.last_validators.hash());
        let known = (&standing.committed_evidence, &standing.attendance, &standing.power_moved, &standing.waiting);
        let rest = (
            self.last_block_id,
            self.last_time,
            sets,
            self.params.hash(),
            self.app_version,
            standing.view,
            known,
            standing.last_checkpoint,
        );
        Statement {
            height: self.height,
            root: self.app_hash.clone(),
            results: self.results_hash,
            rest: Hash::of(codec::encode(STATEMENT_VERSION, &rest)),
        }
    }

    /// The bytes that the state database keeps beside the state of this height.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(VERSION, self)
    }

    /// From those bytes.
    ///
    /// # Errors
    /// When they are not exactly one chain state.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        match bytes.split_first() {
            Some((&VERSION_BEFORE_MEMBERSHIP, body)) => {
                let nothing = codec::encode(VERSION, &Standing::default());
                codec::decode(VERSION, &[&[VERSION], body, &nothing[1..]].concat(), BYTES_MAX)
            }
            _ => codec::decode(VERSION, bytes, BYTES_MAX),
        }
    }
}
