//! A chain of which a test decides each block, rebuilt around the host by the rules of `encoding.md` section 10.

use std::collections::BTreeMap;

use lockstep_app::membership::{Approve, Checkpoint, Join, MEMBERSHIP_PATH, NodeTx, Quit, RecentBlock};
use lockstep_app::{
    BlockInput, ChainFacts, CheckKind, ExecutedBlock, Host, Kv, Misbehaviour, Participation, ParticipationFlag, Query, State,
};
use lockstep_types::{
    Address, Event, Hash, Height, Power, PrivateKey, PublicKey, Round, Signature, Time, Tx, TxResult, ValidatorSet, ValidatorUpdate,
};

use super::common::{Chain, validator};

pub(crate) const NO_SIGNATURE: Signature = Signature([0; 64]);

pub(crate) fn key(seed: u8) -> PrivateKey {
    PrivateKey::from_seed(&[seed; 32])
}

pub(crate) fn address(seed: u8) -> Address {
    key(seed).public_key().address()
}

pub(crate) fn power(value: u64) -> Power {
    Power::new(value).expect("a power")
}

/// A chain of which a test decides each block.
pub(crate) struct Town {
    pub(crate) chain: Chain,
    pub(crate) host: Host,
    pub(crate) state: State,
    /// Of the last height, the next, and the one after it.
    pub(crate) sets: [ValidatorSet; 3],
    pub(crate) last_hash: Hash,
    /// Who does not sign and does not propose.
    pub(crate) absent: Vec<u8>,
    /// Every update list, with the height that it was returned at.
    pub(crate) updates: BTreeMap<u64, Vec<ValidatorUpdate>>,
    /// Powers before each height.
    pub(crate) totals: BTreeMap<u64, u64>,
    /// Who signed the commit in each block.
    pub(crate) signers: BTreeMap<u64, Vec<Address>>,
}

impl Town {
    pub(crate) fn new(membership: &str, validators: &[ValidatorUpdate]) -> Self {
        let chain = Chain::new();
        let app_state = format!(r#"{{"kv":{{"open_validators":true}},"membership":{membership}}}"#);
        let (host, initialized) = chain.init(Kv, &app_state, validators);
        let first = initialized.validators.clone();
        let mut second = first.clone();
        second.increment(1);
        Self {
            chain,
            host,
            state: initialized.state,
            sets: [first.clone(), first, second],
            last_hash: Hash::EMPTY_LIST,
            absent: Vec::new(),
            updates: BTreeMap::new(),
            totals: BTreeMap::new(),
            signers: BTreeMap::new(),
        }
    }

    pub(crate) fn recent(&self) -> RecentBlock {
        RecentBlock { height: self.state.height(), hash: self.last_hash }
    }

    pub(crate) fn genesis_hash() -> Hash {
        Hash::of(b"genesis")
    }

    pub(crate) fn signed(&self, tx: NodeTx, by: u8) -> Tx {
        Tx(tx.signed(&key(by), &self.chain.id, &Self::genesis_hash()).encode())
    }

    pub(crate) fn join_tx(&self, who: u8, asks: u64) -> NodeTx {
        NodeTx::Join(Box::new(Join {
            public_key: key(who).public_key(),
            power: power(asks),
            moniker: format!("node {who}"),
            addresses: vec![format!("10.0.0.{who}:26656")],
            replaces: None,
            recent: self.recent(),
            signature: NO_SIGNATURE,
            replaced_signature: None,
        }))
    }

    pub(crate) fn join(&self, who: u8, asks: u64) -> Tx {
        self.signed(self.join_tx(who, asks), who)
    }

    pub(crate) fn rotate(&self, old: u8, new: u8, asks: u64) -> Tx {
        let NodeTx::Join(mut join) = self.join_tx(new, asks) else { unreachable!() };
        (join.replaces, join.replaced_signature) = (Some(key(old).public_key()), Some(NO_SIGNATURE));
        let (id, genesis) = (&self.chain.id, &Self::genesis_hash());
        Tx(NodeTx::Join(join).signed(&key(new), id, genesis).sign_as_replaced(&key(old), id, genesis).encode())
    }

    pub(crate) fn approve(&self, who: u8, asks: u64, by: u8) -> Tx {
        let (public_key, signer) = (key(who).public_key(), key(by).public_key());
        self.signed(NodeTx::Approve(Approve { public_key, power: power(asks), signer, recent: self.recent(), signature: NO_SIGNATURE }), by)
    }

    pub(crate) fn quit(&self, who: u8, by: u8) -> Tx {
        let (public_key, signer) = (key(who).public_key(), key(by).public_key());
        self.signed(NodeTx::Quit(Quit { public_key, signer, recent: self.recent(), signature: NO_SIGNATURE }), by)
    }

    pub(crate) fn checkpoint(&self, by: u8) -> Tx {
        let signer = key(by).public_key();
        self.signed(NodeTx::Checkpoint(Checkpoint { signer, recent: self.recent(), signature: NO_SIGNATURE }), by)
    }

    pub(crate) fn is_absent(&self, address: &Address) -> bool {
        self.absent.iter().any(|seed| self::address(*seed) == *address)
    }

    /// One block. Who is there signs the block below and proposes when it is their turn.
    pub(crate) fn block(&mut self, txs: &[Tx], misbehaviour: &[Misbehaviour]) -> ExecutedBlock {
        let at = self.state.height().next();
        let [last, now, next] = &self.sets;
        let flag = |address| if self.is_absent(&address) { ParticipationFlag::Absent } else { ParticipationFlag::Signed };
        let last_commit = last
            .iter()
            .map(|validator| Participation { address: validator.address, power: validator.power, flag: flag(validator.address) })
            .collect();
        let proposer = (0..20)
            .map(|round| now.get(now.proposer(Round::new(round).expect("a round"))).expect("a proposer").address)
            .find(|address| !self.is_absent(address))
            .expect("somebody is there");
        let hash = Hash::of(at.get().to_le_bytes());
        let block = BlockInput {
            chain_id: &self.chain.id,
            height: at,
            time: Time::ZERO,
            block_hash: hash,
            proposer,
            txs,
            last_commit: if at == Height::FIRST { Vec::new() } else { last_commit },
            misbehaviour: misbehaviour.to_vec(),
            parameters: &self.chain.parameters,
        };
        let facts = ChainFacts { last_validators: last, validators: now, next_validators: next, evidence: &[] };
        let executed = self.host.execute(self.state.clone(), &block, facts).expect("executes");
        let mut after = next.clone();
        self.totals.insert(at.get(), next.total_power().get());
        let signed = block.last_commit.iter().filter(|part| part.flag == ParticipationFlag::Signed).map(|part| part.address);
        self.signers.insert(at.get(), signed.collect());
        after.update(&executed.validator_updates).expect("a list that the set takes");
        after.increment(1);
        self.updates.insert(at.get(), executed.validator_updates.clone());
        self.sets = [now.clone(), next.clone(), after];
        (self.state, self.last_hash) = (executed.state.clone(), hash);
        executed
    }

    pub(crate) fn blocks(&mut self, count: u64) {
        (0..count).for_each(|_| drop(self.block(&[], &[])));
    }

    /// One block with one transaction: its result.
    pub(crate) fn tx(&mut self, tx: Tx) -> TxResult {
        let judged = self.host.check_tx(&self.state, &tx.0, CheckKind::New);
        let result = self.block(&[tx], &[]).tx_results.remove(0);
        assert_eq!(judged.code, result.code, "the check and the block judge alike: {} / {}", judged.log, result.log);
        result
    }

    pub(crate) fn ok(&mut self, tx: Tx) -> String {
        let result = self.tx(tx);
        assert_eq!(result.code, 0, "{}", result.log);
        result.log
    }

    pub(crate) fn refused(&mut self, tx: Tx, code: u32, words: &str) {
        let result = self.tx(tx);
        assert_eq!(result.code, code, "{}", result.log);
        assert!(result.log.contains(words), "{:?} says nothing of {words:?}", result.log);
    }

    /// Powers of the newest set.
    pub(crate) fn newest(&self) -> BTreeMap<Address, u64> {
        self.sets[2].iter().map(|validator| (validator.address, validator.power.get())).collect()
    }

    pub(crate) fn has(&self, seed: u8) -> Option<u64> {
        self.newest().get(&address(seed)).copied()
    }

    pub(crate) fn members(&self) -> serde_json::Value {
        let query = Query { path: MEMBERSHIP_PATH, data: &[], height: None, prove: false };
        serde_json::from_slice(&self.host.query(&self.state, &query).value.expect("an answer")).expect("JSON")
    }

    pub(crate) fn status(&self, seed: u8) -> Option<String> {
        let wanted = address(seed).to_string();
        let members = self.members();
        let found = members["members"].as_array().expect("a list").iter().find(|member| member["address"] == wanted).cloned();
        found.map(|member| member["status"].as_str().expect("a word").to_owned())
    }
}

pub(crate) fn four() -> Vec<ValidatorUpdate> {
    (1..=4).map(|seed| validator(seed, 10)).collect()
}

pub(crate) fn kinds(events: &[Event]) -> Vec<&str> {
    events.iter().map(|event| event.kind.as_str()).collect()
}

pub(crate) fn base64(key: &PublicKey) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(key.0)
}
