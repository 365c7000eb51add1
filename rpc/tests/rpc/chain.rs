//! A chain that is hashed and signed as the specification says, small enough to know by heart.

use std::collections::BTreeMap;
use std::time::Duration;

use lockstep_rpc::backend::{BlockAnswer, BlockResults};
use lockstep_types::block::{self, BlockId, Version};
use lockstep_types::commit::SlotSignature;
use lockstep_types::evidence::{self, DuplicateVote, Evidence, LightBlock, LightClientAttack};
use lockstep_types::state_tree::ics23::{CommitmentProof, Existence};
use lockstep_types::state_tree::{self, EMPTY, Path};
use lockstep_types::{
    Address, Block, ChainId, Commit, CommitSig, ConsensusParams, Event, EventAttribute, Hash, Header, Height, Power, PrivateKey, Round,
    Signature, Time, Tx, TxResult, ValidatorIndex, ValidatorSet, ValidatorUpdate, Vote, VoteType, abci,
};

pub(crate) type State = BTreeMap<Vec<u8>, Vec<u8>>;

pub(crate) struct Chain {
    pub(crate) id: ChainId,
    pub(crate) params: ConsensusParams,
    keys: BTreeMap<Address, PrivateKey>,
    /// Block h stands at h - 1; so do commits and results.
    pub(crate) blocks: Vec<BlockAnswer>,
    pub(crate) commits: Vec<Commit>,
    pub(crate) results: Vec<BlockResults>,
    /// Set of height h at h - 1; two more than blocks.
    pub(crate) sets: Vec<ValidatorSet>,
    /// State after block h at h.
    pub(crate) states: Vec<State>,
    /// The lowest height that is kept.
    pub(crate) base: u64,
    /// The lowest of which the header is kept, where that is another.
    pub(crate) headers: Option<u64>,
}

/// What is special about a block.
#[derive(Default)]
pub(crate) struct Plan {
    pub(crate) txs: Vec<&'static str>,
    pub(crate) updates: Vec<ValidatorUpdate>,
    pub(crate) evidence: Vec<Evidence>,
    pub(crate) events: Vec<Event>,
    pub(crate) param_updates: Option<ConsensusParams>,
    /// Places in the set that do not precommit, or precommit nil.
    pub(crate) absent: Vec<usize>,
    pub(crate) nil: Vec<usize>,
}

pub(crate) fn height(h: u64) -> Height {
    Height::new(h).unwrap()
}

pub(crate) fn key(seed: u8) -> PrivateKey {
    PrivateKey::from_seed(&[seed; 32])
}

pub(crate) fn member(seed: u8, power: u64) -> ValidatorUpdate {
    ValidatorUpdate { public_key: key(seed).public_key(), power: Power::new(power).unwrap() }
}

pub(crate) fn genesis_time() -> Time {
    "2024-01-02T03:04:05Z".parse().unwrap()
}

impl Chain {
    /// A chain without blocks. Keys grow from seeds 1 to 255.
    pub(crate) fn new(members: &[(u8, u64)]) -> Self {
        let updates: Vec<_> = members.iter().map(|(seed, power)| member(*seed, *power)).collect();
        let first = ValidatorSet::new(&updates).unwrap();
        let mut second = first.clone();
        second.increment(1);
        Self {
            id: ChainId::new("dockerchain").unwrap(),
            params: ConsensusParams::default(),
            keys: (1..=255).map(|seed| (key(seed).public_key().address(), key(seed))).collect(),
            blocks: Vec::new(),
            commits: Vec::new(),
            results: Vec::new(),
            sets: vec![first, second],
            states: vec![State::from([(b"genesis".to_vec(), b"yes".to_vec())])],
            base: 1,
            headers: None,
        }
    }

    /// Four blocks with one of everything: two transactions in block 2, evidence and parameters in 3.
    pub(crate) fn story() -> Self {
        let mut chain = Self::new(&[(1, 10), (2, 5), (3, 4)]);
        chain.push(Plan { absent: vec![2], ..Plan::default() });
        let event = Event { kind: "view".into(), attributes: vec![EventAttribute { key: "n".into(), value: "1".into(), index: true }] };
        chain.push(Plan {
            txs: vec!["a=1", "b=2"],
            updates: vec![member(4, 7)],
            events: vec![event],
            nil: vec![1],
            absent: vec![],
            ..Plan::default()
        });
        let evidence = vec![chain.equivocation()];
        chain.push(Plan { evidence, param_updates: Some(chain.params.clone()), ..Plan::default() });
        chain.push(Plan::default());
        chain
    }

    pub(crate) fn tip(&self) -> u64 {
        self.blocks.len() as u64
    }

    pub(crate) fn block_id(&self, h: u64) -> BlockId {
        self.blocks[h as usize - 1].block_id
    }

    pub(crate) fn header(&self, h: u64) -> &Header {
        &self.blocks[h as usize - 1].block.header
    }

    fn sign(&self, vote: &Vote, address: &Address) -> Signature {
        self.keys[address].sign(&vote.sign_bytes(&self.id))
    }

    /// Two prevotes of validator 1 at height 2: nil, and block 1 with valid round 0.
    fn equivocation(&self) -> Evidence {
        let set = &self.sets[1];
        let index = ValidatorIndex::from_position(1);
        let address = set.get(index).unwrap().address;
        let cast = |block_id, valid_round| {
            let mut vote = Vote {
                kind: VoteType::Prevote,
                height: height(2),
                round: Round::new(1).unwrap(),
                block_id,
                valid_round,
                timestamp: self.header(2).time,
                validator: index,
                signature: Signature([0; 64]),
            };
            vote.signature = self.sign(&vote, &address);
            vote
        };
        let votes = (cast(Some(self.block_id(1)), Some(Round::ZERO)), cast(None, None));
        Evidence::DuplicateVote(Box::new(DuplicateVote::from_votes(votes.0, votes.1, set, self.header(2).time).unwrap()))
    }

    /// What a light client that was shown block `h` as a lie would bring. Only its form is true.
    pub(crate) fn attack(&self, h: u64) -> Evidence {
        let (at, header) = (h as usize - 1, self.header(h).clone());
        Evidence::LightClientAttack(Box::new(LightClientAttack {
            common_height: height(h - 1),
            byzantine_validators: self.sets[at].iter().take(1).cloned().collect(),
            total_power: self.sets[at].total_power(),
            timestamp: self.header(h - 1).time,
            conflicting_block: LightBlock { header, commit: self.commits[at].clone(), validators: self.sets[at].clone() },
        }))
    }

    pub(crate) fn push(&mut self, plan: Plan) {
        let h = self.tip() + 1;
        let at = h as usize - 1;
        let set = self.sets[at].clone();
        let txs: Vec<Tx> = plan.txs.iter().map(|tx| Tx(tx.as_bytes().to_vec())).collect();
        let last_commit = self.commits.last().cloned();
        let header = Header {
            version: Version { block: 11, app: 1 },
            chain_id: self.id.clone(),
            height: height(h),
            time: genesis_time().saturating_add(Duration::from_millis(1_500 * h)),
            last_block_id: self.blocks.last().map(|block| block.block_id),
            last_commit_hash: last_commit.as_ref().map_or(Hash::EMPTY_LIST, Commit::hash),
            data_hash: block::data_hash(&txs),
            validators_hash: set.hash(),
            next_validators_hash: self.sets[at + 1].hash(),
            consensus_hash: self.params.hash(),
            app_hash: root(&self.states[at]).into(),
            last_results_hash: self.results.last().map_or(Hash::EMPTY_LIST, |results| abci::results_hash(&results.tx_results)),
            evidence_hash: evidence::list_hash(&plan.evidence),
            proposer_address: set.get(set.proposer(Round::ZERO)).unwrap().address,
        };
        let block = Block { header, txs, evidence: plan.evidence, last_commit };
        block.check_hashes().unwrap();
        let block_id = BlockId { hash: block.header.hash(), parts: block::part_set_header(&block.encode()) };
        let signatures = self.precommits(h, block_id, &set, &plan.absent, &plan.nil);
        self.commits.push(Commit { height: height(h), round: Round::ZERO, block_id, signatures });

        let mut state = self.states[at].clone();
        for tx in &plan.txs {
            let (key, value) = tx.split_once('=').unwrap();
            state.insert(key.into(), value.into());
        }
        let result = |tx: &&str| TxResult {
            data: tx.as_bytes().to_vec(),
            gas_wanted: 1,
            events: vec![Event {
                kind: "app".into(),
                attributes: vec![EventAttribute { key: "key".into(), value: tx[..1].into(), index: true }],
            }],
            ..TxResult::default()
        };
        self.results.push(BlockResults {
            tx_results: plan.txs.iter().map(result).collect(),
            events: plan.events,
            validator_updates: plan.updates.clone(),
            param_updates: plan.param_updates,
            app_hash: root(&state).into(),
        });
        self.states.push(state);
        self.blocks.push(BlockAnswer { block_id, block });
        let mut next = self.sets[at + 1].clone();
        next.update(&plan.updates).unwrap();
        next.increment(1);
        self.sets.push(next);
    }

    fn precommits(&self, h: u64, block_id: BlockId, set: &ValidatorSet, absent: &[usize], nil: &[usize]) -> Vec<CommitSig> {
        let slot = |(place, validator): (usize, &lockstep_types::Validator)| {
            if absent.contains(&place) {
                return CommitSig::Absent;
            }
            let mut vote = Vote {
                kind: VoteType::Precommit,
                height: height(h),
                round: Round::ZERO,
                block_id: (!nil.contains(&place)).then_some(block_id),
                valid_round: None,
                timestamp: genesis_time().saturating_add(Duration::from_millis(1_500 * h + 10)),
                validator: ValidatorIndex::from_position(place),
                signature: Signature([0; 64]),
            };
            vote.signature = self.sign(&vote, &validator.address);
            let slot = SlotSignature { address: validator.address, timestamp: vote.timestamp, signature: vote.signature };
            if vote.block_id.is_some() { CommitSig::Commit(slot) } else { CommitSig::Nil(slot) }
        };
        set.iter().enumerate().map(slot).collect()
    }
}

/// Entries in path order.
fn entries(state: &State) -> Vec<(Path, &Vec<u8>, &Vec<u8>)> {
    let mut entries: Vec<_> = state.iter().map(|(key, value)| (Path::of(key), key, value)).collect();
    entries.sort();
    entries
}

/// The root by its definition, without any tree.
fn subroot(entries: &[(Path, &Vec<u8>, &Vec<u8>)], depth: usize) -> Hash {
    match entries {
        [] => EMPTY,
        [(path, _, value)] => state_tree::leaf_hash(path, &Hash::of(value)),
        many => {
            let (left, right) = many.split_at(many.partition_point(|(path, ..)| !path.bit(depth)));
            state_tree::inner_hash(&subroot(left, depth + 1), &subroot(right, depth + 1))
        }
    }
}

pub(crate) fn root(state: &State) -> Hash {
    subroot(&entries(state), 0)
}

fn existence(state: &State, key: &[u8]) -> Existence {
    let all = entries(state);
    let path = Path::of(key);
    let (mut here, mut siblings) = (all.as_slice(), Vec::new());
    while here.len() > 1 {
        let depth = siblings.len();
        let (left, right) = here.split_at(here.partition_point(|(path, ..)| !path.bit(depth)));
        let (ours, other) = if path.bit(depth) { (right, left) } else { (left, right) };
        siblings.push(subroot(other, depth + 1));
        here = ours;
    }
    Existence { key: key.to_vec(), value: state[key].clone(), siblings }
}

/// Proof that a key is there, or not.
pub(crate) fn prove(state: &State, key: &[u8]) -> CommitmentProof {
    if state.contains_key(key) {
        return CommitmentProof::Exist(existence(state, key));
    }
    let all = entries(state);
    let place = all.partition_point(|(path, ..)| *path < Path::of(key));
    let neighbour = |place: Option<usize>| place.and_then(|place| all.get(place)).map(|(_, key, _)| existence(state, key));
    CommitmentProof::Nonexist { key: key.to_vec(), left: neighbour(place.checked_sub(1)), right: neighbour(Some(place)) }
}
