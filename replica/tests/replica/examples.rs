//! One example of every message, question and answer, each with its bytes written by hand.

use bytes::Bytes;
use lockstep_mempool::TxBytes;
use lockstep_replica::wire::{Answer, Bits, Have, Message, Question, Status, TxBatch, VoteBatch};
use lockstep_types::audit::{SignedStatement, Statement};
use lockstep_types::commit::{Commit, CommitSig, SlotSignature};
use lockstep_types::evidence::DuplicateVote;
use lockstep_types::light::LightBlock;
use lockstep_types::{Address, Evidence, Hash, Header, Power, Version};

use crate::support::*;

/// `n` times the byte written as two digits.
fn times(n: usize, byte: &str) -> String {
    byte.repeat(n)
}

/// The block id of every example: hash, number of parts, hash of the parts.
pub(crate) fn id() -> String {
    times(32, "11") + "02000000" + &times(32, "22")
}

/// Second 2, nanosecond 7.
const TIME: &str = "020000000000000007000000";
/// Height 5 and round 3.
const HEIGHT_ROUND: &str = "050000000000000003000000";
/// Keeps 3, decided 9.
const STATUS: &str = "03000000000000000900000000000000";

fn vote_hex() -> String {
    "01".to_owned() + HEIGHT_ROUND + "01" + &id() + "0101000000" + TIME + "01000000" + &times(64, "5a")
}

fn nil_precommit_hex() -> String {
    "02".to_owned() + HEIGHT_ROUND + "00" + "00" + TIME + "01000000" + &times(64, "5a")
}

fn proposal_hex() -> String {
    HEIGHT_ROUND.to_owned() + "0102000000" + &id() + TIME + &times(64, "6b")
}

fn part_hex() -> String {
    "01000000".to_owned() + "03000000eeeeee" + "01000000" + &times(32, "33")
}

pub(crate) fn commit() -> Commit {
    let slot = SlotSignature { address: Address([0x44; 20]), timestamp: at(2, 7), signature: lockstep_types::Signature([0x5a; 64]) };
    Commit {
        height: height(5),
        round: round(3),
        block_id: block_id(),
        signatures: vec![CommitSig::Commit(slot.clone()), CommitSig::Absent, CommitSig::Nil(slot)],
    }
}

pub(crate) fn polka_hex() -> String {
    let signed = |place: &str| place.to_owned() + TIME + &times(64, "5a");
    HEIGHT_ROUND.to_owned() + &id() + "00" + "02000000" + &signed("00000000") + &signed("02000000")
}

pub(crate) fn commit_hex() -> String {
    let slot = times(20, "44") + TIME + &times(64, "5a");
    HEIGHT_ROUND.to_owned() + &id() + "03000000" + "02" + &slot + "01" + "03" + &slot
}

pub(crate) fn status() -> Status {
    Status { base: height(3), tip: height(9) }
}

pub(crate) fn messages() -> Vec<(&'static str, Message, String)> {
    let have = Have {
        status: status(),
        height: height(10),
        round: round(1),
        step: 1,
        proposal: true,
        polka: false,
        parts: Bits::of([0, 9]),
        prevotes: Bits::of([1]),
        precommits: Bits::default(),
        missing_polka: None,
    };
    let have_start = "08".to_owned() + STATUS + "0a00000000000000" + "01000000";
    vec![
        ("status", Message::Status(status()), "01".to_owned() + STATUS),
        (
            "proposal",
            Message::Proposal { proposal: proposal(), first: Some(part()) },
            "02".to_owned() + &proposal_hex() + "01" + &part_hex(),
        ),
        ("bare proposal", Message::Proposal { proposal: proposal(), first: None }, "02".to_owned() + &proposal_hex() + "00"),
        (
            "part",
            Message::Part { height: height(5), header: block_id().parts, part: part() },
            "03".to_owned() + "0500000000000000" + "02000000" + &times(32, "22") + &part_hex(),
        ),
        ("vote", Message::Vote(vote()), "04".to_owned() + &vote_hex()),
        (
            "votes",
            Message::Votes(VoteBatch(vec![vote(), nil_precommit()])),
            "05".to_owned() + "02000000" + &vote_hex() + &nil_precommit_hex(),
        ),
        ("polka", Message::Polka(polka()), "06".to_owned() + &polka_hex()),
        ("commit", Message::Commit(commit()), "07".to_owned() + &commit_hex()),
        ("have", Message::Have(have.clone()), have_start.clone() + "01" + "01" + "00" + "020000000102" + "0100000002" + "00000000" + "00"),
        (
            "have, and lacks a polka",
            Message::Have(Have { missing_polka: Some(round(0)), ..have }),
            have_start + "01" + "01" + "00" + "020000000102" + "0100000002" + "00000000" + "0100000000",
        ),
        (
            "transactions",
            Message::Txs(TxBatch(vec![TxBytes::from(&b"a=1"[..]), TxBytes::from(&b""[..])])),
            "09".to_owned() + "02000000" + "03000000613d31" + "00000000",
        ),
        (
            "evidence",
            Message::Evidence(Box::new(two_votes())),
            "0a".to_owned() + "01" + &nil_precommit_hex() + &vote_hex() + &times(20, "44") + "2800000000000000" + "0a00000000000000" + TIME,
        ),
        ("long evidence", Message::HasEvidence(Hash([0x77; 32])), "0b".to_owned() + &times(32, "77")),
        (
            "statement",
            Message::Statement(SignedStatement {
                statement: Statement {
                    height: height(5),
                    root: Hash([0x66; 32]).into(),
                    results: Hash([0x77; 32]),
                    rest: Hash([0x88; 32]),
                },
                validator: Address([0x44; 20]),
                signature: lockstep_types::Signature([0x5a; 64]),
            }),
            "0c".to_owned()
                + "0500000000000000"
                + "20000000"
                + &times(32, "66")
                + &times(32, "77")
                + &times(32, "88")
                + &times(20, "44")
                + &times(64, "5a"),
        ),
    ]
}

fn two_votes() -> Evidence {
    Evidence::DuplicateVote(Box::new(DuplicateVote {
        vote_a: nil_precommit(),
        vote_b: vote(),
        address: Address([0x44; 20]),
        total_power: Power::new(40).unwrap(),
        validator_power: Power::new(10).unwrap(),
        timestamp: at(2, 7),
    }))
}

pub(crate) fn questions() -> Vec<(&'static str, Question, String)> {
    vec![
        ("blocks", Question::Blocks { from: height(7), count: 64 }, "01".to_owned() + "0700000000000000" + "40000000"),
        ("body", Question::Body { height: height(5), block_id: block_id() }, "02".to_owned() + "0500000000000000" + &id()),
        (
            "signed",
            Question::Signed { address: Address([0x44; 20]), from: height(5) },
            "03".to_owned() + &times(20, "44") + "0500000000000000",
        ),
        (
            "parts",
            Question::Parts { height: height(5), block_id: block_id(), from: 64, count: 64 },
            "04".to_owned() + "0500000000000000" + &id() + "40000000" + "40000000",
        ),
        ("snapshots", Question::Snapshots, "05".to_owned()),
        ("light", Question::Light { from: height(7), count: 64 }, "06".to_owned() + "0700000000000000" + "40000000"),
        ("manifest", Question::Manifest { height: height(5) }, "07".to_owned() + "0500000000000000"),
        (
            "chunk",
            Question::Chunk { height: height(5), root: Hash([0x77; 32]), outline: None },
            "08".to_owned() + "0500000000000000" + &times(32, "77") + "00",
        ),
        (
            "chunk, and what is there of it",
            Question::Chunk {
                height: height(5),
                root: Hash([0x77; 32]),
                outline: Some(borsh::from_slice(&[1, 0xaa, 0xbb, 0xcc, 0xdd, 1, 2, 3, 4]).expect("two subtrees")),
            },
            "08".to_owned() + "0500000000000000" + &times(32, "77") + "01" + "01" + "aabbccdd" + "01020304",
        ),
        ("evidence", Question::Evidence { hash: Hash([0x77; 32]) }, "09".to_owned() + &times(32, "77")),
        ("polkas", Question::Polkas { height: height(5) }, "0a".to_owned() + "0500000000000000"),
    ]
}

/// A header with its commit and both sets: three parts whose own bytes are pinned where their types are.
pub(crate) fn light() -> LightBlock {
    let validators = start(&genesis(1)).0.validators;
    let header = Header {
        version: Version { block: 11, app: 1 },
        chain_id: chain_id(),
        height: height(5),
        time: at(2, 7),
        last_block_id: Some(block_id()),
        last_commit_hash: Hash([1; 32]),
        data_hash: Hash([2; 32]),
        validators_hash: Hash([3; 32]),
        next_validators_hash: Hash([4; 32]),
        consensus_hash: Hash([5; 32]),
        app_hash: Hash([6; 32]).into(),
        last_results_hash: Hash([7; 32]),
        evidence_hash: Hash([8; 32]),
        proposer_address: Address([9; 20]),
    };
    LightBlock { header, commit: commit(), validators: (*validators).clone(), next_validators: (*validators).clone() }
}

/// Its bytes.
pub(crate) fn light_hex() -> String {
    let hashes = |from: u8, to: u8| (from..=to).map(|n| format!("{n:02x}").repeat(32)).collect::<String>();
    let header = "0b00000000000000".to_owned()
        + "0100000000000000"
        + "0a000000746573742d636861696e"
        + "0500000000000000"
        + TIME
        + "01"
        + &id()
        + &hashes(1, 5)
        + "20000000"
        + &hashes(6, 6)
        + &hashes(7, 8)
        + &times(20, "09");
    // One validator: its key, power 10, priority 0; it proposes.
    let set = "01000000".to_owned() + &hex::encode(key(1).public_key().0) + "0a00000000000000" + "0000000000000000" + "00000000";
    header + &commit_hex() + &set + &set
}

pub(crate) fn answers() -> Vec<(&'static str, Answer, String)> {
    let body = || Bytes::from_static(b"body");
    vec![
        ("blocks", Answer::Blocks(vec![(body(), commit())]), "01".to_owned() + "01000000" + "04000000626f6479" + &commit_hex()),
        ("unavailable", Answer::Unavailable(status()), "02".to_owned() + STATUS),
        ("body", Answer::Body(body()), "03".to_owned() + "04000000626f6479"),
        (
            "signed",
            Answer::Signed(vec![vote()], vec![proposal()]),
            "04".to_owned() + "01000000" + &vote_hex() + "01000000" + &proposal_hex(),
        ),
        ("parts", Answer::Parts(vec![part()]), "05".to_owned() + "01000000" + &part_hex()),
        ("certificate", Answer::Certificate(commit()), "06".to_owned() + &commit_hex()),
        ("snapshots", Answer::Snapshots(vec![height(5)]), "07".to_owned() + "01000000" + "0500000000000000"),
        ("light", Answer::Light(vec![light()]), "08".to_owned() + "01000000" + &light_hex()),
        ("manifest", Answer::Manifest(body()), "09".to_owned() + "04000000626f6479"),
        ("chunk", Answer::Chunk(body()), "0a".to_owned() + "04000000626f6479"),
        (
            "difference",
            Answer::Difference(borsh::from_slice(&[1, 0, 0, 0, 0x80, 2, 0, 0, 0, 5, 6]).expect("one subtree")),
            "0b".to_owned() + "0100000080" + "020000000506",
        ),
        (
            "evidence",
            Answer::Evidence(Box::new(two_votes())),
            "0c".to_owned() + "01" + &nil_precommit_hex() + &vote_hex() + &times(20, "44") + "2800000000000000" + "0a00000000000000" + TIME,
        ),
        ("polkas", Answer::Polkas(vec![polka()]), "0d".to_owned() + "01000000" + &polka_hex()),
    ]
}
