//! Answers that are proven rather than believed.
//!
//! What a node says about the chain is checked against a [`TrustRoot`]: a validator set that the user knows, from the
//! genesis file or from a height they trust. From there
//!
//! 1. a header is verified by [`lockstep_types::light`]: more than two thirds of the power of its own validators signed it,
//!    and those follow from the root's, directly or through headers in between;
//! 2. a value of the state is verified by its path to the application hash in such a header;
//! 3. a transaction is verified by its path to the data hash, its result by the results hash of the header after it.
//!
//! A node that lies is left for the next endpoint. What no endpoint proves is an error, never an answer.

use std::time::{Duration, SystemTime};

use lockstep_types::light::{self, LightBlock, LightError, Options, Trusted};
use lockstep_types::state_tree::ics23::{CommitmentProof, PROOF_OP_TYPE};
use lockstep_types::validators::VALIDATORS_MAX;
use lockstep_types::vote::Rejected;
use lockstep_types::{Address, ChainId, Hash, Header, Height, Power, Time, TxResult, ValidatorSet, abci, merkle};
use thiserror::Error;
use tokio::time::{Instant, sleep};

use super::{Client, ClientError};
use crate::json::{self, Malformed};

/// How far the chain's clock may be ahead of ours.
pub const CLOCK_DRIFT: Duration = Duration::from_secs(10);

/// How long to wait for the header that proves the latest state. The node makes it at once.
const HEADER_WAIT: Duration = Duration::from_secs(15);

/// Between two looks at a node's height while waiting.
const HEADER_POLL: Duration = Duration::from_millis(20);

/// Most headers fetched to reach one: a node must not lead us along a chain without end. Bisection needs one per change of
/// the set and a logarithm; going back needs one per height.
const HEADERS_MAX: usize = 10_000;

/// Where verification starts.
#[derive(Debug, Clone)]
pub struct TrustRoot {
    /// The trusted height, and the validators of the height after it.
    pub trusted: Trusted,
    /// How far trust reaches.
    pub options: Options,
}

impl TrustRoot {
    /// Trust in the validators of the genesis file: they are those of the first height.
    ///
    /// `trusting_period` is how long keys are taken to be good after the time they are known from. Old keys may be stolen or
    /// sold, and sign another history; a chain that is older than the period needs a later root.
    pub fn genesis(chain_id: ChainId, genesis_time: Time, first: Height, validators: ValidatorSet, trusting_period: Duration) -> Self {
        Self {
            trusted: Trusted { chain_id, height: first.previous(), time: genesis_time, next_validators: validators },
            options: Options { trusting_period, clock_drift: CLOCK_DRIFT, trust_level: (1, 3) },
        }
    }
}

/// Who signed a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signers {
    /// Validators whose signature for the block was checked, in set order.
    pub validators: Vec<Address>,
    /// Their power.
    pub power: Power,
    /// Power of all validators of that height.
    pub total: Power,
}

/// A header that the root leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedHeader {
    /// The header.
    pub header: Header,
    /// Its hash.
    pub hash: Hash,
    /// Who signed it.
    pub signers: Signers,
}

/// A value of the state, or its absence, that is proven as of a height. A node can answer from an old state: whoever needs a
/// fresh one compares the height, for example with that of their own transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedValue {
    /// The key.
    pub key: Vec<u8>,
    /// Its value; none is proven absence.
    pub value: Option<Vec<u8>>,
    /// The state after this block is meant.
    pub height: Height,
    /// The header of the next height, whose application hash proves it.
    pub header: VerifiedHeader,
}

/// A transaction that is proven to be in the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedTx {
    /// Its bytes.
    pub tx: Vec<u8>,
    /// Height of its block.
    pub height: Height,
    /// Its place in the block.
    pub index: u32,
    /// Its result. Code, data and gas are proven by the next header; log, info, events and codespace are the node's word.
    pub result: TxResult,
    /// The header of its block.
    pub header: VerifiedHeader,
}

/// Why nothing is proven.
#[derive(Debug, Error)]
pub enum VerifyError {
    /// No node, or no answer.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The answer is no value of the chain.
    #[error("{url} answers with something malformed: {error}")]
    Malformed {
        /// Who.
        url: String,
        /// What is wrong.
        error: Malformed,
    },
    /// A header does not follow from what is trusted.
    #[error("{url} shows a header of height {height} that does not follow from what is trusted: {error}")]
    Header {
        /// Who.
        url: String,
        /// Height of the header.
        height: Height,
        /// What is wrong.
        error: LightError,
    },
    /// The commit for a header is not whole.
    #[error("{url} shows a commit for height {height} that is not valid: {error}")]
    Commit {
        /// Who.
        url: String,
        /// Height of the header.
        height: Height,
        /// What is wrong.
        error: Rejected,
    },
    /// The header holds, the proof towards it does not.
    #[error("{url} proves nothing: {reason}")]
    Proof {
        /// Who.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// The header that would prove the answer does not come.
    #[error("{url} has no header of height {height} yet, which would prove its answer")]
    NotYet {
        /// Who.
        url: String,
        /// The height waited for.
        height: Height,
    },
    /// The height lies before all trust.
    #[error("height {height} is not above the trusted height {trusted}, and no header above it is known yet")]
    BelowRoot {
        /// Height asked for.
        height: Height,
        /// Height of the root.
        trusted: Height,
    },
}

/// A client that verifies. It remembers the latest header it verified, so that each verification starts from there.
#[derive(Debug)]
pub struct LightClient {
    client: Client,
    root: TrustRoot,
    /// The header of the root's height, once one was verified.
    latest: Option<Header>,
}

impl LightClient {
    /// A client that trusts this root and nobody else.
    pub fn new(client: Client, root: TrustRoot) -> Self {
        Self { client, root, latest: None }
    }

    /// The client, for what need not be proven.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// What is trusted now: the root it was made with, or the latest header verified since. Worth keeping for the next time.
    pub fn root(&self) -> &TrustRoot {
        &self.root
    }

    /// The verified header of a height.
    ///
    /// # Errors
    /// See [`VerifyError`].
    pub async fn header(&mut self, height: Height) -> Result<VerifiedHeader, VerifyError> {
        for _ in 1..self.client.endpoints() {
            match self.header_here(height).await {
                Err(error) if is_fault(&error) => self.client.leave_endpoint(),
                answer => return answer,
            }
        }
        self.header_here(height).await
    }

    /// The value of a key of the application's state, or proof that it has none.
    ///
    /// # Errors
    /// See [`VerifyError`].
    pub async fn query(&mut self, key: &[u8]) -> Result<VerifiedValue, VerifyError> {
        for _ in 1..self.client.endpoints() {
            match self.query_here(key).await {
                Err(error) if is_fault(&error) => self.client.leave_endpoint(),
                answer => return answer,
            }
        }
        self.query_here(key).await
    }

    /// A transaction, that it is in the chain, and what it gave.
    ///
    /// # Errors
    /// See [`VerifyError`].
    pub async fn tx(&mut self, hash: &Hash) -> Result<VerifiedTx, VerifyError> {
        for _ in 1..self.client.endpoints() {
            match self.tx_here(hash).await {
                Err(error) if is_fault(&error) => self.client.leave_endpoint(),
                answer => return answer,
            }
        }
        self.tx_here(hash).await
    }

    async fn query_here(&mut self, key: &[u8]) -> Result<VerifiedValue, VerifyError> {
        let answer = self.client.abci_query("/store", key, Height::ZERO, true).await?;
        if answer.code != 0 {
            return Err(self.unproven(format!("the application refuses the question with code {}: {}", answer.code, answer.log)));
        }
        let value = answer.value.map(|value| value.0).filter(|value| !value.is_empty());
        let ops = answer.proof_ops.map(|proof| proof.ops).unwrap_or_default();
        let [op] = ops.as_slice() else {
            return Err(self.unproven(format!("a proof of one step is expected, {} came", ops.len())));
        };
        if op.kind != PROOF_OP_TYPE {
            return Err(self.unproven("the proof is of another kind than this chain's".to_owned()));
        }
        let proof = CommitmentProof::from_bytes(&op.data.0).map_err(|error| self.unproven(format!("the proof is malformed: {error}")))?;
        let holds = |header: &VerifiedHeader| proves(&proof, &header.header, key, value.as_deref());

        // The state after H is proven by the header of H+1. Where block H changed nothing, its own header proves the same
        // state, after H-1, and nobody needs to wait for the next block of an idle chain.
        if answer.height > self.root.trusted.height || self.latest.is_some() {
            let header = self.header_here(answer.height).await?;
            if holds(&header).is_ok() {
                return Ok(VerifiedValue { key: key.to_vec(), value, height: answer.height.previous(), header });
            }
        }
        let header = self.header_when_made(answer.height.plus(1)).await?;
        match holds(&header) {
            Ok(()) => Ok(VerifiedValue { key: key.to_vec(), value, height: answer.height, header }),
            Err(reason) => Err(self.unproven(reason)),
        }
    }

    async fn tx_here(&mut self, hash: &Hash) -> Result<VerifiedTx, VerifyError> {
        let answer = self.client.tx(hash, true).await?;
        let tx = answer.tx.0;
        let shown = answer.proof.ok_or_else(|| self.unproven("it left the proof out".to_owned()))?;
        let proof = merkle::Proof::try_from(&shown.proof).map_err(|error| self.malformed(error))?;
        if Hash::of(&tx) != *hash || proof.index != u64::from(answer.index) {
            return Err(self.unproven("the transaction or its place is another one than asked for".to_owned()));
        }
        let header = self.header_here(answer.height).await?;
        proof
            .verify(&header.header.data_hash, hash.as_ref())
            .map_err(|error| self.unproven(format!("the transaction is not in the block: {error}")))?;
        let next = self.header_when_made(answer.height.plus(1)).await?;
        let results = self.client.block_results(Some(answer.height)).await?.txs_results.unwrap_or_default();
        let results: Vec<TxResult> = results.iter().map(TxResult::from).collect();
        if abci::results_hash(&results) != next.header.last_results_hash {
            return Err(self.unproven("the results are not those in the next header".to_owned()));
        }
        let place = usize::try_from(proof.index).unwrap_or(usize::MAX);
        let result = results.into_iter().nth(place).ok_or_else(|| self.unproven("there is no result at the place".to_owned()))?;
        Ok(VerifiedTx { tx, height: answer.height, index: answer.index, result, header })
    }

    /// Verifies a header that the node may still have to make.
    async fn header_when_made(&mut self, height: Height) -> Result<VerifiedHeader, VerifyError> {
        let give_up = Instant::now() + HEADER_WAIT;
        while self.client.status().await?.sync_info.latest_block_height < height {
            if Instant::now() >= give_up {
                return Err(VerifyError::NotYet { url: self.url(), height });
            }
            sleep(HEADER_POLL).await;
        }
        self.header_here(height).await
    }

    /// Verifies a header by what the preferred endpoint shows.
    async fn header_here(&mut self, height: Height) -> Result<VerifiedHeader, VerifyError> {
        let target = self.light_block(height).await?;
        if height > self.root.trusted.height {
            self.advance(target.clone()).await?;
        } else {
            self.descend(&target).await?;
        }
        self.signed(target)
    }

    /// Forward: straight, or by bisection where the validators changed too much at once.
    async fn advance(&mut self, target: LightBlock) -> Result<(), VerifyError> {
        let now = now();
        let mut pending = vec![target];
        for _ in 0..HEADERS_MAX {
            let Some(block) = pending.last() else { return Ok(()) };
            let height = block.header.height;
            match light::verify(&self.root.trusted, block, &self.root.options, now) {
                Ok(()) => {
                    self.root.trusted = Trusted::from_block(block);
                    self.latest = pending.pop().map(|block| block.header);
                }
                Err(LightError::NotEnoughTrust { .. }) => {
                    let (low, high) = (self.root.trusted.height.get(), height.get());
                    let middle = Height::new(low + (high - low) / 2).expect("between two heights");
                    let between = self.light_block(middle).await?;
                    pending.push(between);
                }
                Err(error) => return Err(VerifyError::Header { url: self.url(), height, error }),
            }
        }
        Err(self.unproven(format!("more than {HEADERS_MAX} headers lie between it and what is trusted")))
    }

    /// Backwards from the latest verified header: by the hash chain alone.
    async fn descend(&mut self, target: &LightBlock) -> Result<(), VerifyError> {
        let (height, trusted) = (target.header.height, self.root.trusted.height);
        let Some(mut newer) = self.latest.clone() else { return Err(VerifyError::BelowRoot { height, trusted }) };
        for _ in 0..HEADERS_MAX {
            if newer.height == height {
                let same = newer == target.header;
                return if same { Ok(()) } else { Err(self.unproven(format!("the header of height {height} is another one"))) };
            }
            let below = newer.height.previous();
            let older = if below == height { target.header.clone() } else { self.plain_header(below).await? };
            light::verify_backwards(&newer, &older).map_err(|error| VerifyError::Header { url: self.url(), height: below, error })?;
            newer = older;
        }
        Err(self.unproven(format!("more than {HEADERS_MAX} headers lie between it and what is trusted")))
    }

    /// Checks every signature of the commit, for whoever wants to know who signed.
    fn signed(&self, block: LightBlock) -> Result<VerifiedHeader, VerifyError> {
        let height = block.header.height;
        let refused = |error| VerifyError::Commit { url: self.url(), height, error };
        let commit = block.commit.claim(&block.header.chain_id, &block.validators).and_then(|claim| claim.verify()).map_err(refused)?;
        let hash = block.header.hash();
        if commit.block_id.hash != hash || commit.height != height || block.validators.hash() != block.header.validators_hash {
            return Err(self.unproven("the commit is for another block, or by other validators".to_owned()));
        }
        let signed = block.validators.iter().zip(&commit.signatures).filter(|(_, sig)| sig.is_for_block()).map(|(validator, _)| validator);
        let power = Power::new(signed.clone().map(|validator| validator.power.get()).sum()).expect("a part of the total");
        let validators = signed.map(|validator| validator.address).collect();
        let signers = Signers { validators, power, total: block.validators.total_power() };
        Ok(VerifiedHeader { header: block.header, hash, signers })
    }

    /// A header with its commit and both sets, as the node shows them.
    async fn light_block(&self, height: Height) -> Result<LightBlock, VerifyError> {
        let answer = self.client.commit(Some(height)).await?;
        let signed = answer.ok_or_else(|| self.unproven("it has no block yet".to_owned()))?.signed_header;
        let header = Header::try_from(&signed.header).map_err(|error| self.malformed(error))?;
        let commit = (&signed.commit).try_into().map_err(|error| self.malformed(error))?;
        if header.height != height {
            return Err(self.unproven(format!("it shows height {} where {height} was asked for", header.height)));
        }
        let validators = self.validators(height).await?;
        let next_validators = self.validators(height.plus(1)).await?;
        Ok(LightBlock { header, commit, validators, next_validators })
    }

    async fn plain_header(&self, height: Height) -> Result<Header, VerifyError> {
        let shown = self.client.header(Some(height)).await?.header;
        let header = shown.ok_or_else(|| self.unproven(format!("it has no header of height {height}")))?;
        (&header).try_into().map_err(|error| self.malformed(error))
    }

    /// All pages of a set.
    async fn validators(&self, height: Height) -> Result<ValidatorSet, VerifyError> {
        let mut members: Vec<json::Validator> = Vec::new();
        for page in 1.. {
            let answer = self.client.validators(Some(height), page).await?;
            let more = !answer.validators.is_empty();
            members.extend(answer.validators);
            if members.len() >= answer.total.0 || members.len() > VALIDATORS_MAX || !more {
                break;
            }
        }
        json::validator_set(&members).map_err(|error| self.malformed(error))
    }

    fn url(&self) -> String {
        self.client.endpoint().to_owned()
    }

    fn malformed(&self, error: Malformed) -> VerifyError {
        VerifyError::Malformed { url: self.url(), error }
    }

    fn unproven(&self, reason: String) -> VerifyError {
        VerifyError::Proof { url: self.url(), reason }
    }
}

/// Whether the endpoint is at fault, so that another one may do better.
fn is_fault(error: &VerifyError) -> bool {
    match error {
        VerifyError::Header { error, .. } => *error != LightError::Expired,
        VerifyError::Malformed { .. } | VerifyError::Commit { .. } | VerifyError::Proof { .. } | VerifyError::NotYet { .. } => true,
        VerifyError::Client(_) | VerifyError::BelowRoot { .. } => false,
    }
}

/// Whether the proof leads from key and value to the application hash of a header.
fn proves(proof: &CommitmentProof, header: &Header, key: &[u8], value: Option<&[u8]>) -> Result<(), String> {
    let root = <[u8; 32]>::try_from(header.app_hash.as_bytes()).map(Hash).map_err(|_| "the application hash is no root".to_owned())?;
    proof.verify(&root, key, value).map_err(|error| format!("the state of height {} does not hold it: {error}", header.height.previous()))
}

/// The wall clock.
fn now() -> Time {
    match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => Time::from_unix_nanos(0).saturating_add(since),
        Err(before) => Time::from_unix_nanos(0).saturating_sub(before.duration()),
    }
}
