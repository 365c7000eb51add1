//! Membership through the host, as blocks bring it: who is admitted, when power moves, who must go. The chain around the
//! host is rebuilt here by the rules of `encoding.md` section 10.

use std::collections::BTreeMap;

use lockstep_app::membership::{Approve, Checkpoint, Join, MEMBERSHIP_PATH, NodeTx, Quit, RecentBlock, address_breaks, moniker_breaks};
use lockstep_app::node_tx::{
    NODE_TX_MALFORMED, NODE_TX_NOT_ALLOWED, NODE_TX_PREFIX, NODE_TX_REFUSED, NODE_TX_SIGNATURE, NODE_TX_STALE, NODE_TXS_MAX,
};
use lockstep_app::record::RECORD_KEY;
use lockstep_app::{
    BlockInput, ChainFacts, CheckKind, ExecutedBlock, Host, Kv, Misbehaviour, Participation, ParticipationFlag, Proposal, ProposalInput,
    Query, ReplicaRecord, State,
};
use lockstep_types::quorum::Quorum;
use lockstep_types::{
    Address, Event, Hash, Height, Power, PrivateKey, PublicKey, Round, Signature, Time, Tx, TxResult, ValidatorSet, ValidatorUpdate,
};
use proptest::prelude::*;

use super::common::{Chain, culprit, height, validator};

const NO_SIGNATURE: Signature = Signature([0; 64]);

fn key(seed: u8) -> PrivateKey {
    PrivateKey::from_seed(&[seed; 32])
}

fn address(seed: u8) -> Address {
    key(seed).public_key().address()
}

fn power(value: u64) -> Power {
    Power::new(value).expect("a power")
}

/// A chain of which a test decides each block.
struct Town {
    chain: Chain,
    host: Host,
    state: State,
    /// Of the last height, the next, and the one after it.
    sets: [ValidatorSet; 3],
    last_hash: Hash,
    /// Who does not sign and does not propose.
    absent: Vec<u8>,
    /// Every update list, with the height that it was returned at.
    updates: BTreeMap<u64, Vec<ValidatorUpdate>>,
    /// Powers before each height.
    totals: BTreeMap<u64, u64>,
    /// Who signed the commit in each block.
    signers: BTreeMap<u64, Vec<Address>>,
}

impl Town {
    fn new(membership: &str, validators: &[ValidatorUpdate]) -> Self {
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

    fn recent(&self) -> RecentBlock {
        RecentBlock { height: self.state.height(), hash: self.last_hash }
    }

    fn genesis_hash() -> Hash {
        Hash::of(b"genesis")
    }

    fn signed(&self, tx: NodeTx, by: u8) -> Tx {
        Tx(tx.signed(&key(by), &self.chain.id, &Self::genesis_hash()).encode())
    }

    fn join_tx(&self, who: u8, asks: u64) -> NodeTx {
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

    fn join(&self, who: u8, asks: u64) -> Tx {
        self.signed(self.join_tx(who, asks), who)
    }

    fn rotate(&self, old: u8, new: u8, asks: u64) -> Tx {
        let NodeTx::Join(mut join) = self.join_tx(new, asks) else { unreachable!() };
        (join.replaces, join.replaced_signature) = (Some(key(old).public_key()), Some(NO_SIGNATURE));
        let (id, genesis) = (&self.chain.id, &Self::genesis_hash());
        Tx(NodeTx::Join(join).signed(&key(new), id, genesis).sign_as_replaced(&key(old), id, genesis).encode())
    }

    fn approve(&self, who: u8, asks: u64, by: u8) -> Tx {
        let (public_key, signer) = (key(who).public_key(), key(by).public_key());
        self.signed(NodeTx::Approve(Approve { public_key, power: power(asks), signer, recent: self.recent(), signature: NO_SIGNATURE }), by)
    }

    fn quit(&self, who: u8, by: u8) -> Tx {
        let (public_key, signer) = (key(who).public_key(), key(by).public_key());
        self.signed(NodeTx::Quit(Quit { public_key, signer, recent: self.recent(), signature: NO_SIGNATURE }), by)
    }

    fn checkpoint(&self, by: u8) -> Tx {
        let signer = key(by).public_key();
        self.signed(NodeTx::Checkpoint(Checkpoint { signer, recent: self.recent(), signature: NO_SIGNATURE }), by)
    }

    fn is_absent(&self, address: &Address) -> bool {
        self.absent.iter().any(|seed| self::address(*seed) == *address)
    }

    /// One block. Who is there signs the block below and proposes when it is their turn.
    fn block(&mut self, txs: &[Tx], misbehaviour: &[Misbehaviour]) -> ExecutedBlock {
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

    fn blocks(&mut self, count: u64) {
        (0..count).for_each(|_| drop(self.block(&[], &[])));
    }

    /// One block with one transaction: its result.
    fn tx(&mut self, tx: Tx) -> TxResult {
        let judged = self.host.check_tx(&self.state, &tx.0, CheckKind::New);
        let result = self.block(&[tx], &[]).tx_results.remove(0);
        assert_eq!(judged.code, result.code, "the check and the block judge alike: {} / {}", judged.log, result.log);
        result
    }

    fn ok(&mut self, tx: Tx) -> String {
        let result = self.tx(tx);
        assert_eq!(result.code, 0, "{}", result.log);
        result.log
    }

    fn refused(&mut self, tx: Tx, code: u32, words: &str) {
        let result = self.tx(tx);
        assert_eq!(result.code, code, "{}", result.log);
        assert!(result.log.contains(words), "{:?} says nothing of {words:?}", result.log);
    }

    /// Powers of the newest set.
    fn newest(&self) -> BTreeMap<Address, u64> {
        self.sets[2].iter().map(|validator| (validator.address, validator.power.get())).collect()
    }

    fn has(&self, seed: u8) -> Option<u64> {
        self.newest().get(&address(seed)).copied()
    }

    fn members(&self) -> serde_json::Value {
        let query = Query { path: MEMBERSHIP_PATH, data: &[], height: None, prove: false };
        serde_json::from_slice(&self.host.query(&self.state, &query).value.expect("an answer")).expect("JSON")
    }

    fn status(&self, seed: u8) -> Option<String> {
        let wanted = address(seed).to_string();
        let members = self.members();
        let found = members["members"].as_array().expect("a list").iter().find(|member| member["address"] == wanted).cloned();
        found.map(|member| member["status"].as_str().expect("a word").to_owned())
    }
}

fn four() -> Vec<ValidatorUpdate> {
    (1..=4).map(|seed| validator(seed, 10)).collect()
}

fn kinds(events: &[Event]) -> Vec<&str> {
    events.iter().map(|event| event.kind.as_str()).collect()
}

#[test]
fn a_newcomer_is_admitted_when_more_than_two_thirds_of_the_power_approve() {
    let mut town = Town::new(r#"{"admission":"vote"}"#, &four());
    town.blocks(1);
    assert!(town.ok(town.join(5, 10)).contains("0 of 40"));
    assert_eq!(town.status(5).as_deref(), Some("observer"));
    assert!(town.ok(town.approve(5, 10, 1)).contains("10 of 40"));
    assert!(town.ok(town.approve(5, 10, 2)).contains("20 of 40"), "two thirds are not reached by half");
    assert_eq!(town.has(5), None);
    let asked = town.state.height().next();
    assert!(town.ok(town.approve(5, 10, 3)).contains("admitted"));
    assert_eq!(town.has(5), Some(10));
    assert_eq!(town.status(5).as_deref(), Some("validator"));
    // What is granted at H acts at H + 2: that block begins with the view.
    let old = town.block(&[], &[]);
    assert_eq!((old.state.height(), kinds(&old.events)), (asked.next(), vec![]));
    let new = town.block(&[], &[]);
    assert_eq!((new.state.height(), kinds(&new.events)), (asked.next().next(), vec!["view"]));
    let view: Vec<&str> = new.events[0].attributes.iter().map(|attribute| attribute.value.as_str()).collect();
    assert_eq!(view, ["1", &asked.next().next().to_string(), "5", "50"]);
}

#[test]
fn an_approval_may_come_first_and_names_the_power() {
    let mut town = Town::new(r#"{"admission":"vote"}"#, &four());
    town.blocks(1);
    for by in 1..=3 {
        town.ok(town.approve(5, 10, by));
    }
    assert_eq!(town.status(5).as_deref(), Some("invited"));
    town.refused(town.join(5, 11), NODE_TX_REFUSED, "approved with power 10, and asks for 11");
    assert!(town.ok(town.join(5, 10)).contains("admitted"));
    assert_eq!(town.has(5), Some(10));
}

#[test]
fn another_power_loses_the_approvals() {
    let mut town = Town::new(r#"{"admission":"vote"}"#, &four());
    town.blocks(1);
    town.ok(town.join(5, 5));
    town.ok(town.approve(5, 5, 1));
    town.ok(town.approve(5, 5, 2));
    assert!(town.ok(town.join(5, 10)).contains("0 of 40"));
    town.refused(town.approve(5, 5, 3), NODE_TX_REFUSED, "asks for power 10, and this approves 5");
}

#[test]
fn an_authority_admits_and_removes_by_its_threshold() {
    let keys: Vec<String> = (11..=13).map(|seed| base64(&key(seed).public_key())).collect();
    let group = format!(r#"{{"admission":"authority","authority":{{"keys":{keys:?},"threshold":2}},"power_window":1}}"#);
    let mut town = Town::new(&group, &four());
    town.blocks(1);
    town.ok(town.join(5, 10));
    town.refused(town.approve(5, 10, 1), NODE_TX_NOT_ALLOWED, "no key of the authority");
    assert!(town.ok(town.approve(5, 10, 11)).contains("1 of 2"));
    town.refused(town.approve(5, 10, 11), NODE_TX_REFUSED, "already");
    town.ok(town.approve(5, 10, 13));
    assert_eq!(town.has(5), Some(10));
    town.refused(town.quit(2, 1), NODE_TX_NOT_ALLOWED, "only itself and the authority");
    assert!(town.ok(town.quit(2, 12)).contains("1 of 2"));
    town.refused(town.quit(2, 12), NODE_TX_REFUSED, "already");
    assert_eq!(town.has(2), Some(10));
    town.ok(town.quit(2, 11));
    assert_eq!(town.has(2), None);
}

fn base64(key: &PublicKey) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(key.0)
}

#[test]
fn one_grows_to_two_to_four_and_shrinks_to_one() {
    let mut town = Town::new(r#"{"admission":"open","power_window":2}"#, &[validator(1, 10)]);
    town.blocks(1);
    for seed in 2..=4 {
        town.ok(town.join(seed, 10));
        town.blocks(4);
    }
    assert_eq!(town.newest().len(), 4);
    for seed in 2..=4 {
        town.ok(town.quit(seed, seed));
        town.blocks(4);
    }
    assert_eq!(town.newest(), BTreeMap::from([(address(1), 10)]));
    town.refused(town.quit(1, 1), NODE_TX_REFUSED, "there would be power 0");
}

#[test]
fn what_exceeds_a_third_waits_in_line() {
    let mut town = Town::new(r#"{"admission":"open","power_window":10}"#, &four());
    town.blocks(1);
    let joins: Vec<Tx> = (5..=8).map(|seed| town.join(seed, 10)).collect();
    let first = town.state.height().next().get();
    town.block(&joins, &[]);
    // One of 10 is at most a third of 40, two are not.
    assert_eq!((town.has(5), town.has(6)), (Some(10), None));
    town.blocks(40);
    assert_eq!(town.newest().len(), 8);
    let granted: Vec<u64> = town.updates.iter().filter(|(_, list)| !list.is_empty()).map(|(at, _)| *at).collect();
    // A third of 60 is two of them.
    assert_eq!(granted, [first, first + 10, first + 20], "one, one, and two in windows of ten");
}

#[test]
fn a_join_that_waited_too_long_must_prove_itself_again() {
    let mut town = Town::new(r#"{"admission":"vote","live_window":5}"#, &four());
    town.blocks(1);
    town.ok(town.join(5, 10));
    town.blocks(6);
    town.ok(town.approve(5, 10, 1));
    town.ok(town.approve(5, 10, 2));
    assert!(town.ok(town.approve(5, 10, 3)).contains("when it joins again"));
    assert_eq!(town.has(5), None);
    assert!(town.ok(town.join(5, 10)).contains("admitted"), "its approvals are kept");
    assert_eq!(town.has(5), Some(10));
}

#[test]
fn what_a_member_says_of_itself_can_be_read_and_dialled() {
    let id = "8d6f5b0a4c3e2f1d0b9a8c7e6f5d4c3b2a190817";
    for good in [
        "10.0.0.10:26656",
        "a:1",
        "[::1]:65535",
        "node-1.example.org:443",
        "a_b:80",
        &format!("{id}@10.0.0.10:26656"),
        &format!("{id}@[2001:db8::1]:1"),
    ] {
        assert_eq!(address_breaks(good), None, "{good}");
    }
    for bad in [
        "",
        "garbage",
        "10.0.0.10",
        "10.0.0.10:",
        ":26656",
        "10.0.0.10:0",
        "10.0.0.10:65536",
        "10.0.0.10:+1",
        "a b:1",
        "a..b:1",
        ".:1",
        "::1:26656",
        "[::1:26656",
        "[garbage]:1",
        "[]:1",
        "http://a:1",
        "a:1/x",
        "a\u{7}:1",
        "\u{e4}:1",
        "@a:1",
        "short@a:1",
        &format!("{id}@"),
        &format!("{id}@a"),
        &format!("{id}@{id}@a:1"),
    ] {
        assert!(address_breaks(bad).is_some(), "{bad:?}");
    }
    for good in ["", "node 5", "Zürich ⚡ 東京", "a'b\"c<d>"] {
        assert_eq!(moniker_breaks(good), None, "{good}");
    }
    for bad in ["a\u{7}b", "a\nb", "\u{1b}[2J", "a\u{85}", "a\u{202e}b", "a\u{200b}b", "\u{feff}a", "a\u{e0041}"] {
        assert!(moniker_breaks(bad).is_some(), "{bad:?}");
    }
}

#[test]
fn nobody_leaves_who_is_needed() {
    let mut town = Town::new(r#"{"admission":"open","live_window":5}"#, &four());
    town.absent = vec![4];
    town.blocks(10);
    // 30 of 40 are live; without one of them 20 of 30 would be, which is not more than two thirds.
    town.refused(town.quit(1, 1), NODE_TX_REFUSED, "power 30 of which 20 signed");
    town.ok(town.quit(4, 4));
    assert_eq!(town.has(4), None);
}

/// A request is good for a thousand heights; who died is not counted on for nearly so long.
#[test]
fn who_died_is_counted_on_for_twenty_heights_only() {
    let mut town = Town::new(r#"{"admission":"open","live_window":1000,"power_window":1}"#, &four());
    town.blocks(5);
    town.absent = vec![4];
    // Its last signature is that of height 4, in block 5.
    town.blocks(19);
    let check = |town: &Town| town.host.check_tx(&town.state, &town.quit(1, 1).0, CheckKind::New);
    let at = town.state.height().get() + 1;
    assert_eq!((at, check(&town).code), (25, NODE_TX_REFUSED), "{}", check(&town).log);
    assert!(check(&town).log.contains("power 30 of which 20 signed one of the last 20 commits"), "{}", check(&town).log);
    // One that signs again is counted on at once.
    town.absent.clear();
    town.blocks(1);
    town.absent = vec![4];
    town.blocks(18);
    assert_eq!((town.state.height().get() + 1, check(&town).code), (44, 0));
    town.blocks(1);
    assert_eq!(check(&town).code, NODE_TX_REFUSED);
    // Who is gone for good may go, and then all who remain are there.
    town.ok(town.quit(4, 4));
    town.ok(town.quit(1, 1));
    assert_eq!((town.has(1), town.has(4), town.newest().len()), (None, None, 2));
}

#[test]
fn absence_suspends_and_a_join_returns() {
    let mut town = Town::new(r#"{"admission":"vote","live_window":3,"absence_window":8,"power_window":1}"#, &four());
    town.blocks(1);
    town.absent = vec![4];
    town.blocks(7);
    assert_eq!(town.has(4), Some(10));
    town.blocks(6);
    assert_eq!((town.has(4), town.status(4).as_deref()), (None, Some("suspended")));
    town.refused(town.join(4, 9), NODE_TX_REFUSED, "returns with the power it had, 10");
    town.absent.clear();
    town.ok(town.join(4, 10));
    assert_eq!((town.has(4), town.status(4).as_deref()), (Some(10), Some("validator")), "nobody has to approve");
}

#[test]
fn who_signs_again_before_it_is_suspended_stays() {
    let mut town = Town::new(r#"{"admission":"open","live_window":3,"absence_window":8,"power_window":1000}"#, &four());
    town.blocks(1);
    // The window is full: the suspension has to wait.
    town.ok(town.join(5, 10));
    town.absent = vec![4];
    town.blocks(20);
    assert_eq!((town.has(4), town.status(4).as_deref()), (Some(10), Some("suspended")));
    town.absent.clear();
    town.blocks(2);
    assert_eq!((town.has(4), town.status(4).as_deref()), (Some(10), Some("validator")));
    town.blocks(1000);
    assert_eq!(town.has(4), Some(10));
}

#[test]
fn evidence_bars_for_ever_and_never_empties_the_set() {
    let mut town = Town::new(r#"{"admission":"open","power_window":1000}"#, &four());
    town.blocks(1);
    // Two at once: half of the power, which no rule of moving power delays.
    town.block(&[], &[culprit(address(1)), culprit(address(2)), culprit(address(1))]);
    assert_eq!(town.newest().len(), 2);
    assert_eq!(town.status(1).as_deref(), Some("barred"));
    town.refused(town.join(1, 10), NODE_TX_REFUSED, "misbehaved");
    town.refused(town.approve(1, 10, 3), NODE_TX_NOT_ALLOWED, "open");
    // What it moved counts: others wait.
    town.ok(town.join(5, 10));
    assert_eq!(town.has(5), None);
    town.block(&[], &[culprit(address(3)), culprit(address(4))]);
    assert_eq!(town.newest().len(), 1, "the last one stays");
}

#[test]
fn a_rotation_moves_the_power_at_one_height() {
    let mut town = Town::new(r#"{"admission":"vote"}"#, &four());
    town.blocks(1);
    town.refused(town.rotate(9, 5, 10), NODE_TX_NOT_ALLOWED, "is no validator");
    town.refused(town.rotate(1, 5, 9), NODE_TX_REFUSED, "keeps the power");
    let NodeTx::Join(mut join) = town.join_tx(5, 10) else { unreachable!() };
    (join.replaces, join.replaced_signature) = (Some(key(1).public_key()), Some(NO_SIGNATURE));
    town.refused(town.signed(NodeTx::Join(join), 5), NODE_TX_SIGNATURE, &key(1).public_key().to_string());
    town.ok(town.rotate(1, 5, 10));
    assert_eq!((town.has(1), town.has(5), town.newest().len()), (None, Some(10), 4));
    assert_eq!(town.updates[&town.state.height().get()].len(), 2);
    town.refused(town.join(5, 10), NODE_TX_REFUSED, "validator already");
}

#[test]
fn what_was_admitted_and_waits_is_not_exchanged_for_something_else() {
    let mut town = Town::new(r#"{"admission":"vote","power_window":1000}"#, &four());
    town.blocks(1);
    let admit = |town: &mut Town, who: u8| {
        town.ok(town.join(who, 10));
        (1..=4).for_each(|by| drop(town.block(&[town.approve(who, 10, by)], &[])));
    };
    // The window is full with the first; the next wait.
    admit(&mut town, 5);
    admit(&mut town, 7);
    assert_eq!((town.has(5), town.has(7)), (Some(10), None));
    town.refused(town.join(7, 5), NODE_TX_REFUSED, "admitted with power 10 and waits");
    // A rotation is admitted without approval, since the old key goes. It must not become a newcomer.
    town.ok(town.rotate(1, 6, 10));
    assert_eq!(town.has(6), None);
    town.refused(town.join(6, 10), NODE_TX_REFUSED, &format!("in the place of {}", address(1)));
    town.refused(town.rotate(2, 6, 10), NODE_TX_REFUSED, &format!("in the place of {}", address(1)));
    assert!(town.ok(town.rotate(1, 6, 10)).contains("admitted already"), "the same may be asked again");
    town.ok(town.quit(6, 6));
    assert!(town.ok(town.join(6, 10)).contains("0 of 50 of the power approve"), "taken back, it is a newcomer");
    town.blocks(2_000);
    assert_eq!((town.has(1), town.has(6)), (Some(10), None));
}

/// A rotation asks for the place of the old key and for nothing else. In the block that proves the old key a liar there is no
/// such place any more, and what was approved before anybody could know lets nobody in.
#[test]
fn a_rotation_whose_old_key_is_removed_leaves_nothing_to_admit() {
    for approved_before in 0..=2 {
        // A power of 37 of the 49 that remain is more than two thirds: one approval is enough.
        let powers = [(1, 37), (2, 6), (3, 6), (4, 6)].map(|(seed, power)| validator(seed, power));
        let mut town = Town::new(r#"{"admission":"vote","power_window":3}"#, &powers);
        town.blocks(1);
        // In flight since before the evidence.
        let rotation = town.rotate(4, 5, 6);
        let approvals: Vec<Tx> = (1..=3).map(|by| town.approve(5, 6, by)).collect();
        // Those that are not enough, of power 6 each: they come before the JOIN.
        (0..approved_before).for_each(|at| drop(town.ok(approvals[2 - at].clone())));
        let done = town.block(&[rotation], &[culprit(address(4))]);
        assert_eq!((done.tx_results[0].code, town.has(4), town.has(5)), (0, None, None));
        assert_eq!(town.status(5), None, "nothing is left of it");
        assert!(town.ok(approvals[0].clone()).contains("when it joins"));
        town.blocks(10);
        assert_eq!(town.has(5), None, "it never asked to be a newcomer");
        assert_eq!(town.status(5).as_deref(), Some("invited"));
        assert!(town.ok(town.join(5, 6)).contains("admitted"), "with a JOIN that says so it is one");
        assert_eq!((town.has(4), town.has(5), town.newest().len()), (None, Some(6), 4));
    }
}

#[test]
fn a_rotation_whose_old_key_has_another_power_by_then_moves_nothing() {
    let mut town = Town::new(r#"{"admission":"open","power_window":10}"#, &four());
    town.blocks(1);
    let update = |seed: u8, power: u64| Tx(format!("val=ed25519!{}!{power}", base64(&key(seed).public_key())).into_bytes());
    town.block(&[town.join(5, 10), town.rotate(1, 6, 10)], &[]);
    assert_eq!((town.has(5), town.has(6)), (Some(10), None), "it waits");
    town.block(&[update(1, 11)], &[]);
    town.blocks(30);
    assert_eq!((town.has(1), town.has(6), town.status(6)), (Some(11), None, None));
}

/// The power of a rotation is the old key's. Where the application gave the new key power of its own meanwhile, granting it beside the old
/// key's would make power that nobody approved.
#[test]
fn a_rotation_to_a_key_that_the_application_gave_power_moves_nothing() {
    let mut town = Town::new(r#"{"admission":"open","power_window":10}"#, &four());
    town.blocks(1);
    let update = |seed: u8, power: u64| Tx(format!("val=ed25519!{}!{power}", base64(&key(seed).public_key())).into_bytes());
    town.block(&[town.join(5, 10), town.rotate(1, 6, 10)], &[]);
    assert_eq!((town.has(5), town.has(6)), (Some(10), None), "it waits");
    town.block(&[update(6, 7)], &[]);
    town.blocks(30);
    assert_eq!((town.has(1), town.has(6)), (Some(10), Some(7)));
}

/// A rotation that waited until its proof was too old lets go of the place that it asked for.
#[test]
fn a_rotation_that_waited_too_long_leaves_its_place_to_another() {
    let mut town = Town::new(r#"{"admission":"open","live_window":5,"power_window":40}"#, &four());
    town.blocks(1);
    town.block(&[town.join(5, 10), town.rotate(1, 6, 10)], &[]);
    assert_eq!((town.has(5), town.has(6)), (Some(10), None), "it waits");
    town.refused(town.rotate(1, 7, 10), NODE_TX_REFUSED, "");
    town.blocks(60);
    assert_eq!((town.has(1), town.has(6), town.status(6)), (Some(10), None, None), "nothing is left of it");
    town.ok(town.rotate(1, 7, 10));
    assert_eq!((town.has(1), town.has(7)), (None, Some(10)));
}

#[test]
fn a_checkpoint_writes_the_record_of_exactly_that_height() {
    let mut town = Town::new(r#"{"admission":"vote","checkpoint_interval":50,"checkpoint_spacing":10}"#, &four());
    town.blocks(1);
    let before = town.state.root();
    town.blocks(3);
    assert_eq!(town.state.root(), before, "an empty block leaves the root");
    town.refused(town.checkpoint(9), NODE_TX_NOT_ALLOWED, "validators and the authority");
    let result = town.block(&[town.checkpoint(2), town.checkpoint(3)], &[]);
    assert!(result.checkpoint);
    assert_eq!(result.tx_results.iter().map(|result| result.code).collect::<Vec<_>>(), [0, NODE_TX_REFUSED]);
    let record = ReplicaRecord::from_bytes(town.state.tree().get(RECORD_KEY).expect("a record")).expect("readable");
    assert_eq!((record.height, record.view), (town.state.height(), 0));
    assert_eq!([&record.validators, &record.next_validators], [&town.sets[1], &town.sets[2]]);
    assert_eq!(record.last_results_hash, result.last_results_hash);
    assert_eq!(record.attendance.len(), 4);
    town.refused(town.checkpoint(1), NODE_TX_REFUSED, "the next may come at 16");
    town.blocks(50 - town.state.height().get());
    let record = ReplicaRecord::from_bytes(town.state.tree().get(RECORD_KEY).expect("a record")).expect("readable");
    assert_eq!(record.height, height(50), "and by itself at the interval");
}

#[test]
fn the_application_changes_validators_beside_the_rules() {
    let mut town = Town::new(r#"{"admission":"open","power_window":1000}"#, &four());
    town.blocks(1);
    let update = |seed: u8, power: u64| Tx(format!("val=ed25519!{}!{power}", base64(&key(seed).public_key())).into_bytes());
    let executed = town.block(&[update(5, 7), town.join(6, 10), update(1, 0), town.quit(1, 1)], &[]);
    assert_eq!(executed.tx_results.iter().map(|result| result.code).collect::<Vec<_>>(), [0; 4]);
    assert_eq!((town.has(5), town.has(1), town.has(6)), (Some(7), None, None), "what the application moved counts: the JOIN waits");
    town.blocks(1000);
    assert_eq!(town.has(6), None, "and by now it has to prove itself again");
    town.ok(town.join(6, 10));
    assert_eq!(town.has(6), Some(10));
}

/// The application keeps validators of its own, and does not hear what the rules did to them.
#[test]
fn an_application_that_removes_who_has_left_stops_nobody() {
    let mut town = Town::new(r#"{"admission":"open","power_window":1}"#, &four());
    town.blocks(1);
    town.ok(town.quit(1, 1));
    assert_eq!(town.has(1), None);
    let removal = Tx(format!("val=ed25519!{}!0", base64(&key(1).public_key())).into_bytes());
    let executed = town.block(&[removal], &[]);
    assert_eq!((executed.tx_results[0].code, kinds(&executed.events)), (0, vec!["membership"]));
    assert_eq!(town.newest().len(), 3);
}

#[test]
fn what_is_wrong_with_a_transaction_is_said() {
    let mut town = Town::new(r#"{"admission":"vote","live_window":10}"#, &four());
    town.blocks(1);
    let old = town.join(5, 10);
    town.blocks(20);
    town.refused(old, NODE_TX_STALE, "sign it again over a newer block");
    let NodeTx::Join(mut join) = town.join_tx(5, 10) else { unreachable!() };
    join.recent.hash = Hash::of(b"another chain");
    town.refused(town.signed(NodeTx::Join(join), 5), NODE_TX_STALE, "of this chain is");
    let NodeTx::Join(mut join) = town.join_tx(5, 10) else { unreachable!() };
    join.recent.height = height(5_000);
    town.refused(town.signed(NodeTx::Join(join), 5), NODE_TX_STALE, "not one of the remembered blocks");
    town.refused(town.signed(town.join_tx(5, 10), 6), NODE_TX_SIGNATURE, "does not hold");
    town.refused(town.join(5, 14), NODE_TX_REFUSED, "at most 13 is ever moved");
    town.refused(town.join(1, 10), NODE_TX_REFUSED, "validator already");
    town.refused(town.approve(1, 10, 2), NODE_TX_REFUSED, "validator already");
    town.refused(town.approve(5, 10, 9), NODE_TX_NOT_ALLOWED, "is no validator");
    town.refused(town.quit(9, 9), NODE_TX_REFUSED, "no validator and does not ask");
    let NodeTx::Join(mut join) = town.join_tx(5, 10) else { unreachable!() };
    join.moniker = "a\u{7}b".to_owned();
    town.refused(town.signed(NodeTx::Join(join), 5), NODE_TX_MALFORMED, "no control characters");
    let NodeTx::Join(mut join) = town.join_tx(5, 10) else { unreachable!() };
    join.addresses.push("garbage".to_owned());
    town.refused(town.signed(NodeTx::Join(join), 5), NODE_TX_MALFORMED, "addresses is garbage: NODE_ID@HOST:PORT or HOST:PORT");
    town.refused(Tx(b"\x00=:\x09".to_vec()), NODE_TX_MALFORMED, "no known kind");
    town.refused(Tx(b"\x00=:\x01\x02".to_vec()), NODE_TX_MALFORMED, "version");
    town.ok(town.join(5, 10));
    town.ok(town.quit(5, 5));
    assert_eq!(town.status(5), None, "a JOIN can be taken back");
}

#[test]
fn observers_nobody_approved_give_way_only_when_they_are_old() {
    let mut town = Town::new(r#"{"admission":"vote","live_window":30}"#, &four());
    town.blocks(1);
    let joins: Vec<Tx> = (20..84).map(|seed| town.join(seed, 10)).collect();
    town.block(&joins, &[]);
    town.refused(town.join(90, 10), NODE_TX_REFUSED, "at most 64 may");
    town.ok(town.approve(20, 10, 1));
    town.blocks(31);
    town.ok(town.join(90, 10));
    assert_eq!(town.status(20).as_deref(), Some("observer"), "one that is approved keeps its place");
    assert_eq!(town.members()["members"].as_array().expect("a list").len(), 4 + 64);
}

#[test]
fn proposals_carry_what_has_an_effect_and_refuse_what_cannot_be_read() {
    let mut town = Town::new(r#"{"admission":"open"}"#, &four());
    town.blocks(1);
    let kv = Tx(b"a=b".to_vec());
    let candidates = vec![kv.clone(), town.join(5, 10), town.join(5, 10), town.quit(9, 9), town.quit(1, 1)];
    let proposal = ProposalInput {
        chain_id: &town.chain.id,
        height: town.state.height().next(),
        time: Time::ZERO,
        proposer: address(1),
        candidates: &candidates,
        max_bytes: 10_000,
        last_commit: Vec::new(),
        misbehaviour: Vec::new(),
        parameters: &town.chain.parameters,
    };
    let chosen = town.host.prepare_proposal(&town.state, &proposal);
    assert_eq!(chosen, [candidates[1].clone(), candidates[2].clone(), candidates[4].clone(), kv.clone()]);
    let small = ProposalInput { max_bytes: 10, ..proposal };
    assert_eq!(town.host.prepare_proposal(&town.state, &small), std::slice::from_ref(&kv));
    let judge = |txs: &[Tx]| town.host.process_proposal(&town.state, &town.chain.block(2, txs));
    assert_eq!(judge(&chosen), Proposal::Accept);
    let bad = [Tx(b"\x00=:\x01\x01nonsense".to_vec())];
    assert!(matches!(judge(&bad), Proposal::Reject(reason) if reason.contains("JOIN")));
    let many = vec![town.join(5, 10); NODE_TXS_MAX + 1];
    assert!(matches!(judge(&many), Proposal::Reject(reason) if reason.contains("at most 64")));
}

#[test]
fn genesis_rules_are_refused_by_name() {
    let chain = Chain::new();
    for (group, named) in [
        (r#"{}"#, "admission"),
        (r#"{"admission":"king"}"#, "king"),
        (r#"{"admission":"vote","spare":1}"#, "spare"),
        (r#"{"admission":"vote","live_window":0}"#, "live_window is 0"),
        (r#"{"admission":"vote","live_window":1001}"#, "live_window is 1001"),
        (r#"{"admission":"vote","power_window":10001}"#, "power_window is 10001"),
        (r#"{"admission":"vote","absence_window":100}"#, "absence_window is 100"),
        (r#"{"admission":"vote","checkpoint_spacing":0}"#, "checkpoint_spacing is 0"),
        (r#"{"admission":"vote","checkpoint_interval":10000001}"#, "checkpoint_interval is 10000001"),
        (r#"{"admission":"authority"}"#, "authority is absent"),
        (r#"{"admission":"vote","authority":{"keys":[],"threshold":1}}"#, "keys is 0"),
        (r#"{"admission":"vote","authority":{"keys":["AA=="],"threshold":1}}"#, "AA=="),
        (r#"{"admission":"vote","authority":{"keys":["AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="],"threshold":1}}"#, "weak"),
    ] {
        let app_state = format!(r#"{{"membership":{group}}}"#);
        let error = Host::new(std::sync::Arc::new(Kv)).init(&chain.genesis(&app_state, &four())).expect_err(group).to_string();
        assert!(error.contains("app_state.membership") && error.contains(named), "{error}");
    }
    let one = base64(&key(1).public_key());
    for (authority, named) in [
        (format!(r#"{{"keys":["{one}","{one}"],"threshold":1}}"#), "each key once"),
        (format!(r#"{{"keys":["{one}"],"threshold":2}}"#), "threshold is 2"),
        (format!(r#"{{"keys":["{one}"],"threshold":0}}"#), "threshold is 0"),
    ] {
        let app_state = format!(r#"{{"membership":{{"admission":"authority","authority":{authority}}}}}"#);
        let error = Host::new(std::sync::Arc::new(Kv)).init(&chain.genesis(&app_state, &four())).expect_err(&authority).to_string();
        assert!(error.contains(named), "{error}");
    }
}

/// Frozen: what is hashed into blocks and what is signed.
#[test]
fn the_bytes_of_transactions_are_these() {
    let recent = RecentBlock { height: height(7), hash: Hash([0xaa; 32]) };
    let join = NodeTx::Join(Box::new(Join {
        public_key: key(1).public_key(),
        power: power(10),
        moniker: "m".to_owned(),
        addresses: vec!["a:1".to_owned()],
        replaces: None,
        recent,
        signature: Signature([0xbb; 64]),
        replaced_signature: None,
    }));
    let expected = [
        "003d3a01".to_owned() + "01",
        hex::encode(key(1).public_key().0),
        "0a00000000000000".to_owned(),
        "01000000".to_owned() + "6d",
        "01000000".to_owned() + "03000000" + "613a31",
        "00".to_owned(),
        "0700000000000000".to_owned() + &"aa".repeat(32),
        "bb".repeat(64),
        "00".to_owned(),
    ]
    .concat();
    assert_eq!(hex::encode(join.encode()), expected);
    let chain_id = Chain::new().id;
    let signed = [
        "0004".to_owned() + "04" + &hex::encode("test"),
        hex::encode(Hash::of(b"genesis").0),
        "01".to_owned(),
        hex::encode(key(1).public_key().0),
        "0a00000000000000".to_owned() + "010000006d" + "01000000" + "03000000" + "613a31" + "00",
        "0700000000000000".to_owned() + &"aa".repeat(32),
    ]
    .concat();
    assert_eq!(hex::encode(join.sign_bytes(&chain_id, &Hash::of(b"genesis"))), signed);
    let quit =
        NodeTx::Quit(Quit { public_key: key(1).public_key(), signer: key(2).public_key(), recent, signature: Signature([0xbb; 64]) });
    let body = hex::encode(key(1).public_key().0) + &hex::encode(key(2).public_key().0) + "0700000000000000" + &"aa".repeat(32);
    assert_eq!(hex::encode(quit.encode()), "003d3a0201".to_owned() + &body + &"bb".repeat(64));
    assert_eq!(
        hex::encode(quit.sign_bytes(&chain_id, &Hash::of(b"genesis"))),
        "000804".to_owned() + &hex::encode("test") + &hex::encode(Hash::of(b"genesis").0) + "02" + &body
    );
}

#[test]
fn every_byte_of_a_transaction_is_signed() {
    let mut town = Town::new(r#"{"admission":"open"}"#, &four());
    town.blocks(2);
    for tx in [town.join(5, 10), town.rotate(1, 5, 10), town.quit(1, 1), town.checkpoint(2)] {
        assert_eq!(NodeTx::decode(&tx.0).expect("its own bytes").encode(), tx.0);
        // What does not begin with the prefix is the application's.
        for at in NODE_TX_PREFIX.len()..tx.0.len() {
            assert!(NodeTx::decode(&tx.0[..at]).is_err(), "cut at {at}");
            for value in [1, 0x80] {
                let mut other = tx.0.clone();
                other[at] ^= value;
                assert_ne!(town.host.check_tx(&town.state, &other, CheckKind::New).code, 0, "byte {at}");
            }
        }
        let mut longer = tx.0.clone();
        longer.push(0);
        assert!(NodeTx::decode(&longer).is_err());
    }
}

/// What somebody asks in the walk below.
#[derive(Debug, Clone)]
enum Ask {
    Join(u8, u64),
    Quit(u8),
    Rotate(u8, u8),
    Evidence(u8),
    Absent(u8),
    Back(u8),
    Blocks(u8),
}

fn ask() -> impl Strategy<Value = Ask> {
    prop_oneof![
        4 => (1..12u8, 1..20u64).prop_map(|(who, power)| Ask::Join(who, power)),
        3 => (1..12u8).prop_map(Ask::Quit),
        1 => (1..12u8, 12..20u8).prop_map(|(old, new)| Ask::Rotate(old, new)),
        1 => (1..12u8).prop_map(Ask::Evidence),
        1 => (1..12u8).prop_map(Ask::Absent),
        2 => (1..12u8).prop_map(Ask::Back),
        4 => (1..20u8).prop_map(Ask::Blocks),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Whatever is asked: each list is one that the set takes (the harness applies it), no set is empty, over any window at
    /// most a third of the power moves unless it is that of one, or evidence's; each set that is granted has more than two thirds of
    /// its power with those who signed lately; and what a block does is done again alike.
    #[test]
    fn whatever_is_asked_the_rules_hold(asks in prop::collection::vec(ask(), 1..60), (live, absence) in prop_oneof![Just((4, 9)), Just((60, 90))]) {
        const WINDOW: u64 = 12;
        let group = format!(r#"{{"admission":"open","power_window":{WINDOW},"live_window":{live},"absence_window":{absence}}}"#);
        let mut town = Town::new(&group, &four());
        town.blocks(1);
        let mut exempt = Vec::new();
        for ask in asks {
            // More than two thirds are there, or no block would be decided.
            let there = |town: &Town| {
                let set = &town.sets[1];
                let there: u64 = set.iter().filter(|v| !town.is_absent(&v.address)).map(|v| v.power.get()).sum();
                Quorum::Byzantine.is_quorum(power(there), set.total_power())
            };
            let txs = match ask {
                Ask::Join(who, asks) => vec![town.join(who, asks)],
                Ask::Quit(who) => vec![town.quit(who, who)],
                Ask::Rotate(old, new) => vec![town.rotate(old, new, town.has(old).unwrap_or(1))],
                Ask::Evidence(who) => {
                    exempt.push(town.state.height().next().get());
                    drop(town.block(&[], &[culprit(address(who))]));
                    continue;
                }
                Ask::Absent(who) => {
                    town.absent.push(who);
                    if !there(&town) {
                        town.absent.pop();
                    }
                    continue;
                }
                Ask::Back(who) => {
                    town.absent.retain(|absent| *absent != who);
                    continue;
                }
                Ask::Blocks(count) => {
                    for _ in 0..count {
                        while !there(&town) {
                            town.absent.pop();
                        }
                        town.blocks(1);
                    }
                    continue;
                }
            };
            while !there(&town) {
                town.absent.pop();
            }
            drop(town.block(&txs, &[]));
        }
        // A naive model of both rules, over the lists and the commits alone.
        let mut seen: BTreeMap<Address, u64> = (1..=4).map(|seed| (address(seed), 0)).collect();
        let mut set: BTreeMap<Address, u64> = (1..=4).map(|seed| (address(seed), 10)).collect();
        let mut moves: Vec<(u64, u64, u64, u64)> = Vec::new();
        for (at, list) in &town.updates {
            seen.extend(town.signers[at].iter().map(|signer| (*signer, at - 1)));
            let (before, mut gained, mut lost) = (set.values().sum::<u64>(), 0, 0);
            let largest = set.values().copied().max().expect("never empty");
            for update in list {
                let had = set.get(&update.public_key.address()).copied().unwrap_or(0);
                gained += update.power.get().saturating_sub(had);
                lost += had.saturating_sub(update.power.get());
                match update.power.get() {
                    0 => drop(set.remove(&update.public_key.address())),
                    power => drop(set.insert(update.public_key.address(), power)),
                }
                // Who comes is counted on from when its power acts.
                seen.insert(update.public_key.address(), at + 2);
            }
            prop_assert!(!set.is_empty());
            if !list.is_empty() && !exempt.contains(at) {
                let is_live = |address: &Address| seen[address] + u64::min(live, 20) >= *at;
                let there: u64 = set.iter().filter(|(address, _)| is_live(address)).map(|(_, power)| power).sum();
                let all: u64 = set.values().sum();
                prop_assert!(3 * there > 2 * all, "height {at}: {there} of {all} signed lately");
            }
            if !list.is_empty() {
                moves.push((*at, before, gained.max(lost), largest));
            }
        }
        for (last, (at, before, moved, largest)) in moves.iter().enumerate() {
            if exempt.iter().any(|exempt| exempt <= at && exempt + WINDOW > *at) {
                continue;
            }
            let inside: Vec<_> = moves[..last].iter().filter(|(earlier, ..)| earlier + WINDOW > *at).collect();
            let earlier: u64 = inside.iter().map(|(_, _, moved, _)| *moved).sum();
            let start = inside.first().map_or(*before, |(_, total, ..)| *total);
            let alone = inside.is_empty() && moved <= largest;
            prop_assert!(alone || (earlier + moved) * 3 <= start, "height {at}: {moved} after {earlier} of {start}");
        }
    }
}
