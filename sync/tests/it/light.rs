//! What is believed of headers: climbing from one that is trusted, and what lies below one. With a chain whose validators change.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::Duration;

use lockstep_sync::light::{Climb, Step, is_below};
use lockstep_types::block::{BlockId, Version, cut};
use lockstep_types::commit::{Commit, CommitSig};
use lockstep_types::crypto::{verify, verify_batch};
use lockstep_types::light::{LightBlock, LightError, Options, Trusted};
use lockstep_types::{
    AppHash, ChainId, Hash, Header, Height, Power, PrivateKey, Round, Signature, Time, ValidatorIndex, ValidatorSet, ValidatorUpdate, Vote,
    VoteType,
};

use crate::h;

/// Blocks of the chain.
pub(crate) const TIP: u64 = 40;

pub(crate) fn key(n: u64) -> PrivateKey {
    PrivateKey::from_seed(&[u8::try_from(n).expect("few keys"); 32])
}

/// The validators of a height: four, of which one is another every three heights.
pub(crate) fn set(height: u64) -> ValidatorSet {
    let first = height / 3;
    let power = Power::new(10).expect("small");
    let members: Vec<ValidatorUpdate> =
        (first + 1..first + 5).map(|n| ValidatorUpdate { public_key: key(n).public_key(), power }).collect();
    ValidatorSet::new(&members).expect("four validators")
}

pub(crate) fn time(height: u64) -> Time {
    Time::new(1_000 + i64::try_from(height).expect("few"), 0).expect("a time")
}

pub(crate) fn body(height: u64) -> Vec<u8> {
    format!("the body of height {height}").into_bytes()
}

pub(crate) fn commit(header: &Header, validators: &ValidatorSet, first: u64) -> Commit {
    let block_id = BlockId { hash: header.hash(), parts: cut(&body(header.height.get())).0 };
    let keys: BTreeMap<_, _> = (first..first + 40).map(|n| (key(n).public_key().address(), key(n))).collect();
    let votes: Vec<Vote> = (0..u32::try_from(validators.len()).expect("few"))
        .map(|place| {
            let validator = ValidatorIndex::new(place).expect("few");
            let mut vote = Vote {
                kind: VoteType::Precommit,
                height: header.height,
                round: Round::ZERO,
                block_id: Some(block_id),
                valid_round: None,
                timestamp: header.time,
                validator,
                signature: Signature([0; 64]),
            };
            let address = validators.get(validator).expect("it is there").address;
            vote.signature = keys[&address].sign(&vote.sign_bytes(&header.chain_id));
            vote
        })
        .collect();
    Commit::from_precommits(header.height, Round::ZERO, block_id, validators, &votes)
}

pub(crate) fn header(height: u64, below: Option<&LightBlock>, validators: &ValidatorSet, next: &ValidatorSet) -> Header {
    Header {
        version: Version { block: 11, app: 1 },
        chain_id: ChainId::new("stated").expect("a name"),
        height: h(height),
        time: time(height),
        last_block_id: below.map(|below| below.commit.block_id),
        last_commit_hash: below.map_or(Hash::EMPTY_LIST, |below| below.commit.hash()),
        data_hash: Hash::EMPTY_LIST,
        validators_hash: validators.hash(),
        next_validators_hash: next.hash(),
        consensus_hash: Hash::EMPTY_LIST,
        app_hash: AppHash::from(Hash::of(height.to_le_bytes())),
        last_results_hash: Hash::EMPTY_LIST,
        evidence_hash: Hash::EMPTY_LIST,
        proposer_address: validators.get(ValidatorIndex::new(0).expect("zero")).expect("it is there").address,
    }
}

/// The chain, from height 1 on. Made once: it takes some hundred signatures.
pub(crate) fn chain() -> Vec<LightBlock> {
    static CHAIN: OnceLock<Vec<LightBlock>> = OnceLock::new();
    CHAIN.get_or_init(made).clone()
}

fn made() -> Vec<LightBlock> {
    let mut blocks: Vec<LightBlock> = Vec::new();
    for height in 1..=TIP {
        let (validators, next_validators) = (set(height), set(height + 1));
        let header = header(height, blocks.last(), &validators, &next_validators);
        let commit = commit(&header, &validators, 1);
        blocks.push(LightBlock { header, commit, validators, next_validators });
    }
    blocks
}

/// A block of that height of a chain that its own validators alone ever signed.
pub(crate) fn forged(height: u64) -> LightBlock {
    let power = Power::new(10).expect("small");
    let members: Vec<ValidatorUpdate> = (200..203).map(|n| ValidatorUpdate { public_key: key(n).public_key(), power }).collect();
    let validators = ValidatorSet::new(&members).expect("three validators");
    let header = header(height, None, &validators, &validators);
    let commit = commit(&header, &validators, 200);
    LightBlock { header, commit, validators: validators.clone(), next_validators: validators }
}

pub(crate) fn at(blocks: &[LightBlock], height: Height) -> LightBlock {
    blocks[usize::try_from(height.get()).expect("few") - 1].clone()
}

pub(crate) fn options() -> Options {
    Options { trusting_period: Duration::from_secs(3_600), clock_drift: Duration::from_secs(10), trust_level: (1, 3) }
}

pub(crate) fn now() -> Time {
    time(TIP + 5)
}

/// Climbs with blocks of this giver; whoever is refused is noted, and the heights that were asked for.
fn climb(blocks: &[LightBlock], mut give: impl FnMut(Height, usize) -> (u64, LightBlock)) -> (Climb, Vec<u64>, Vec<u64>) {
    let mut climb = Climb::new(Trusted::from_block(&blocks[0]), options(), h(TIP));
    let (mut refused, mut asked) = (Vec::new(), Vec::new());
    while let Some(wanted) = climb.wanted() {
        asked.push(wanted.get());
        assert!(asked.len() < 200, "a climb ends");
        let (source, block) = give(wanted, asked.len());
        let mut step = climb.on_block(source, block, now());
        while let Step::Check(checks) = step {
            let verdicts: Vec<bool> = checks.iter().map(|check| verify(&check.public_key, &check.message, &check.signature)).collect();
            step = climb.on_verdicts(&verdicts, now());
        }
        if let Step::Refused { source, .. } = step {
            refused.push(source);
        }
    }
    (climb, refused, asked)
}

#[test]
fn a_climb_crosses_changes_of_all_validators_by_halves() {
    let blocks = chain();
    let (climb, refused, asked) = climb(&blocks, |height, _| (1, at(&blocks, height)));
    assert_eq!(climb.reached().map(|(block, _)| block), Some(&at(&blocks, h(TIP))));
    assert!(refused.is_empty());
    // Every set signed nothing above its own third: straight to the top is not possible, and every height is not needed.
    assert!(asked[0] == TIP && asked.len() > 2 && asked.len() < usize::try_from(TIP).expect("few"), "{asked:?}");
}

#[test]
fn who_gives_a_header_that_others_signed_is_named_and_nobody_else() {
    let blocks = chain();
    // The liar gives the target first; what lies between comes of the honest.
    let (climb, refused, _) = climb(&blocks, |height, count| if count == 1 { (7, forged(TIP)) } else { (1, at(&blocks, height)) });
    assert_eq!(climb.reached().map(|(block, _)| block), Some(&at(&blocks, h(TIP))));
    assert_eq!(refused, [7]);
}

#[test]
fn a_signature_that_does_not_hold_refuses_its_block() {
    let blocks = chain();
    let (_, refused, _) = climb(&blocks, |height, count| {
        let mut block = at(&blocks, height);
        if count == 1 {
            for sig in &mut block.commit.signatures {
                if let CommitSig::Commit(slot) = sig {
                    slot.signature.0[0] ^= 1;
                }
            }
            return (7, block);
        }
        (1, block)
    });
    // Too few of those who are trusted are in the target's set, so its signatures are read when it is next above.
    assert_eq!(refused, [7]);
}

#[test]
fn what_lies_below_a_header_is_its_parent_in_every_part() {
    let blocks = chain();
    let (newer, older) = (&blocks[20].header, &blocks[19]);
    // What no hash covers is left to one signature, which is of the commit's round.
    assert!(verify_batch(&[is_below(newer, older).expect("it is below")])[0]);
    let mut other = older.clone();
    other.commit.round = other.commit.round.next();
    assert!(!verify_batch(&[is_below(newer, &other).expect("by its hashes")])[0]);
    let changed = |change: fn(&mut LightBlock)| {
        let mut block = older.clone();
        change(&mut block);
        is_below(newer, &block)
    };
    assert!(matches!(changed(|block| block.commit.signatures[0] = CommitSig::Absent), Err(LightError::OtherCommit)));
    let changes: [fn(&mut LightBlock); 5] = [
        |block| block.header.app_hash = AppHash::from(Hash::EMPTY_LIST),
        |block| block.commit.block_id.parts.total += 1,
        |block| block.commit.height = block.commit.height.next(),
        |block| block.validators = set(1),
        |block| block.next_validators = set(1),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        assert!(matches!(changed(change), Err(LightError::Mismatch(_))), "change {number}");
    }
    assert!(is_below(&blocks[21].header, older).is_err(), "the parent's parent is not the parent");
}
