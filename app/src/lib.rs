//! Applications and the state they are replicated over.
//!
//! An [`Application`] is a set of functions without a state of its own: it reads a [`View`] and returns [`Changes`]. A
//! [`Host`] runs it for the replica as one pure function from a [`State`] and a block to the next [`State`]; what an
//! application may not do (touch the node's keys, return a list of validators that no set takes, panic) has one outcome on
//! every replica, an [`AppError`].
//!
//! | module | holds |
//! |---|---|
//! | [`application`] | the trait, what it is given and what it answers, the contract for authors |
//! | [`changes`] | [`View`], [`Draft`], [`Changes`], the keys that are the node's |
//! | [`tree`] | the authenticated state in memory; its hashing and proofs are `lockstep_types::state_tree` |
//! | [`host`] | runs an application; the `/store` query with its proof |
//! | [`node_tx`] | transactions that are the node's and not the application's |
//! | [`membership`] | JOIN, APPROVE, QUIT and CHECKPOINT: who validates, as rules of the chain |
//! | [`record`] | what a replica must know beside the application's state to go on from a snapshot |
//! | [`snapshot`] | the state in chunks that anyone can verify: what a new replica begins with |
//! | [`kv`] | the bundled key-value application |
//! | [`token`] | the bundled token: accounts, signed transfers, fees |
//! | [`bundled`] | either of these two, as genesis says |
//!
//! `docs/format-state.md` holds every byte of it.

pub mod application;
pub mod bundled;
pub mod changes;
pub mod host;
pub mod kv;
pub mod membership;
pub mod node_tx;
pub mod record;
pub mod snapshot;
pub mod token;
pub mod tree;
mod verdicts;

pub use application::{
    Application, BlockInput, CheckKind, Executed, GenesisInput, GenesisRefused, Info, Initialized, Misbehaviour, MisbehaviourKind,
    Participation, ParticipationFlag, ProofOp, Proposal, ProposalInput, Query, QueryAnswer, Verdict,
};
pub use bundled::Bundled;
pub use changes::{Changes, ChangesError, Draft, View};
pub use host::{AppError, ExecutedBlock, Host, InitializedChain, State};
pub use kv::Kv;
pub use membership::{ChainFacts, EVIDENCE_REMEMBERED_MAX, Standing};
pub use record::ReplicaRecord;
pub use token::Token;
pub use tree::Tree;
