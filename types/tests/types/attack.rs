//! Attacks on light clients (`encoding.md` section 13): each rule, by a block that breaks it alone.

use std::time::Duration;

use lockstep_types::block::{BlockId, Header, PartSetHeader};
use lockstep_types::commit::{Commit, CommitSig};
use lockstep_types::evidence::{AttackFacts, EvidenceError, LightBlock, LightClientAttack};
use lockstep_types::vote::Rejected;
use lockstep_types::{ChainId, Hash, Time, ValidatorSet};

use crate::support::*;

/// The chain up to height 6: one set all along, and our block of height 6 with the commit that block 7 carries.
struct Ours {
    set: ValidatorSet,
    header: Header,
    commit: Commit,
    common_time: Time,
}

impl Ours {
    fn new() -> Self {
        let set = set(&[40, 30, 20, 10]);
        let header = Header { validators_hash: set.hash(), ..header() };
        let commit = commit(&set, &[0, 1, 2], 6, named(&header));
        Self { set, header, commit, common_time: time().saturating_sub(Duration::from_secs(9)) }
    }

    fn facts(&self) -> AttackFacts<'_> {
        AttackFacts { common_validators: &self.set, common_time: self.common_time, header: &self.header, commit: Some(&self.commit) }
    }

    /// Our header of height 6 with one thing changed, signed by these of a set.
    fn shown(&self, set: &ValidatorSet, places: &[u32], change: impl Fn(&mut Header)) -> LightBlock {
        let mut header = self.header.clone();
        change(&mut header);
        let commit = commit(set, places, header.height.get(), named(&header));
        LightBlock { header, commit, validators: set.clone() }
    }

    fn attack(&self, block: LightBlock, common: u64) -> LightClientAttack {
        LightClientAttack::from_block(block, height(common), &self.facts())
    }

    fn verdict(&self, attack: &LightClientAttack) -> Result<(), EvidenceError> {
        attack.verify(&chain_id(), &self.facts())
    }
}

fn named(header: &Header) -> BlockId {
    BlockId { hash: header.hash(), parts: PartSetHeader { total: 1, hash: Hash::of("parts") } }
}

fn powers(attack: &LightClientAttack) -> Vec<u64> {
    attack.byzantine_validators.iter().map(|validator| validator.power.get()).collect()
}

#[test]
fn an_invented_header_names_those_of_the_common_set_who_signed_it() {
    let ours = Ours::new();
    let attack = ours.attack(ours.shown(&ours.set, &[0, 1], |header| header.app_hash = Hash::of("invented").into()), 4);
    assert_eq!(ours.verdict(&attack), Ok(()));
    assert_eq!(powers(&attack), [40, 30]);
    // Another set of the same keys and one more: those whom the common set knows are named, with the powers that it knows.
    let other = set(&[10, 10, 50, 10, 5]);
    let block = ours.shown(&other, &[0, 1, 2], |header| header.validators_hash = other.hash());
    let attack = ours.attack(block, 4);
    assert_eq!(ours.verdict(&attack), Ok(()));
    let signed: Vec<_> = attack.byzantine_validators.iter().map(|validator| ours.set.index_of(&validator.address).unwrap()).collect();
    assert!(signed.is_sorted() && signed.len() == 3, "in set order: {signed:?}");
}

#[test]
fn another_block_of_the_same_round_names_those_who_signed_both() {
    let ours = Ours::new();
    for common in [4, 6] {
        let attack = ours.attack(ours.shown(&ours.set, &[0, 1, 3], |header| header.data_hash = Hash::of("other")), common);
        assert_eq!(ours.verdict(&attack), Ok(()));
        assert_eq!(powers(&attack), [40, 30], "the fourth did not sign ours, the third did not sign theirs");
    }
}

#[test]
fn another_round_names_nobody() {
    let ours = Ours::new();
    let mut block = ours.shown(&ours.set, &[0, 1], |header| header.data_hash = Hash::of("other"));
    block.commit.round = round(2);
    for place in 0..2 {
        let message = block.commit.sign_bytes(place, &chain_id()).unwrap();
        let CommitSig::Commit(slot) = &mut block.commit.signatures[place] else { panic!("it signed") };
        slot.signature = key_at(&ours.set, u32::try_from(place).unwrap()).sign(&message);
    }
    let attack = ours.attack(block, 4);
    assert_eq!(ours.verdict(&attack), Ok(()));
    assert_eq!(powers(&attack), [0_u64; 0]);
}

#[test]
fn every_rule_refuses() {
    let ours = Ours::new();
    let good = ours.attack(ours.shown(&ours.set, &[0, 1], |header| header.app_hash = Hash::of("invented").into()), 4);
    let bad = |change: &dyn Fn(&mut LightClientAttack)| {
        let mut attack = good.clone();
        change(&mut attack);
        ours.verdict(&attack).unwrap_err()
    };
    let of = |block: LightBlock, common| ours.verdict(&ours.attack(block, common)).unwrap_err();
    let lunatic = |header: &mut Header| header.app_hash = Hash::of("invented").into();
    let attack = |what| EvidenceError::Attack(what);

    let other_chain = ours.shown(&ours.set, &[0, 1], |header| header.chain_id = ChainId::new("other-chain").unwrap());
    assert_eq!(of(other_chain, 4), attack("another chain"));
    assert_eq!(bad(&|a| a.common_height = height(7)), attack("below the common height"));
    assert_eq!(bad(&|a| a.conflicting_block.header.data_hash = Hash::of("x")), attack("the commit is for another header"));
    assert_eq!(bad(&|a| a.conflicting_block.commit.height = height(5)), attack("the commit is for another header"));
    assert_eq!(bad(&|a| a.conflicting_block.commit.block_id.parts.total = 0), EvidenceError::Vote(Rejected::Parts { total: 0 }));
    let stranger = set(&[40, 30, 20, 11]);
    assert_eq!(bad(&|a| a.conflicting_block.validators = stranger.clone()), attack("the validators are not those of the header"));
    assert_eq!(of(ours.shown(&ours.set, &[0, 1], lunatic), 6), attack("it contradicts the chain at the very height that both agree on"));
    assert_eq!(of(ours.shown(&ours.set, &[0, 1], |_| {}), 4), attack("it is our own"));
    let beyond = |later: u64| {
        ours.shown(&ours.set, &[0, 1], move |header| {
            lunatic(header);
            header.height = height(9);
            header.time = header.time.saturating_add(Duration::from_nanos(later));
        })
    };
    assert_eq!(of(beyond(1), 4), attack("it is later than our tip, which may yet come to it"));
    assert_eq!(ours.verdict(&ours.attack(beyond(0), 4)), Ok(()), "a height to come at a time that is over");

    // Two thirds of its own set are not more than two thirds.
    let even = set(&[20, 20, 20]);
    let block = ours.shown(&even, &[0, 1], |header| header.validators_hash = even.hash());
    assert_eq!(of(block, 4), EvidenceError::Power { whose: "its own validators", tallied: 40, total: 60 });
    // A third of the common set is not more than a third: of 40, 30, 20, 10 the last two hold 30 of 100, the second 30.
    let mine = ValidatorSet::new(&[lockstep_types::ValidatorUpdate { public_key: public(2), power: power(7) }]).unwrap();
    let block = ours.shown(&mine, &[0], |header| header.validators_hash = mine.hash());
    assert_eq!(of(block, 4), EvidenceError::Power { whose: "the common validators", tallied: 30, total: 100 });

    assert_eq!(bad(&|a| a.conflicting_block.commit.signatures.truncate(3)), EvidenceError::Vote(Rejected::Slots { found: 3, expected: 4 }));
    let swap = |a: &mut LightClientAttack| a.conflicting_block.commit.signatures.swap(0, 1);
    assert_eq!(bad(&swap), attack("a signer is not the validator of its slot"));
    let forge = |a: &mut LightClientAttack| {
        let CommitSig::Commit(slot) = &mut a.conflicting_block.commit.signatures[1] else { panic!("it signed") };
        slot.signature.0[7] ^= 1;
    };
    assert_eq!(bad(&forge), EvidenceError::Vote(Rejected::Signature));
    assert_eq!(bad(&|a| a.total_power = power(99)), EvidenceError::Derived("total power"));
    assert_eq!(bad(&|a| a.timestamp = time()), EvidenceError::Derived("time"));
    let culprits = EvidenceError::Derived("the list of culprits");
    assert_eq!(bad(&|a| a.byzantine_validators.truncate(1)), culprits, "one is spared");
    assert_eq!(bad(&|a| a.byzantine_validators.swap(0, 1)), culprits, "another order");
    assert_eq!(bad(&|a| a.byzantine_validators[0].power = power(41)), culprits, "another power");
    assert_eq!(bad(&|a| a.byzantine_validators.push(ours.set.get(index(2)).unwrap().clone())), culprits, "an honest one among them");
}

/// What a light client does not look at cannot save the liars: a slot for nil with any signature.
#[test]
fn a_slot_for_nil_is_not_looked_at() {
    let ours = Ours::new();
    let mut block = ours.shown(&ours.set, &[0, 1, 2], |header| header.app_hash = Hash::of("invented").into());
    let CommitSig::Commit(slot) = block.commit.signatures[2].clone() else { panic!("it signed") };
    block.commit.signatures[2] = CommitSig::Nil(slot);
    let attack = ours.attack(block, 4);
    assert_eq!(ours.verdict(&attack), Ok(()));
    assert_eq!(powers(&attack), [40, 30]);
}
