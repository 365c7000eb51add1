//! What is signed: bytes of our own pinned, and no byte string valid as two things.

use std::collections::BTreeMap;

use lockstep_types::domain::{self, Tag};
use lockstep_types::vote::{vote_extension_sign_bytes, vote_sign_bytes};
use lockstep_types::{BlockId, ChainId, Hash, Proposal, Round, Signature, Time, VoteType};

use crate::support::*;

fn prevote(round_number: u32, block: bool, valid_round: Option<u32>) -> String {
    let block = block.then(|| block_id("block"));
    hex::encode(vote_sign_bytes(
        VoteType::Prevote,
        height(5),
        round(round_number),
        block.as_ref(),
        valid_round.map(round),
        time(),
        &chain_id(),
    ))
}

/// Made by a protobuf writer of its own, from the text of the rules.
#[test]
fn prevotes_with_a_valid_round_are_frozen() {
    let block = "22480a20496aca80e4d8f29fb8e8cd816c3afb48d3f103970b3a2ee1600c08ca67326dee\
        122408021220416e28e4222afe33b9f3b8b584dac4eae860c175040a34450795cd0fd9562b37";
    let tail = "2a0808a5ebdcca061006320a746573742d636861696e";
    let height_and_round_3 = "08011105000000000000001903000000000000 00".replace(' ', "");
    assert_eq!(prevote(3, true, None), format!("74{height_and_round_3}{block}{tail}"));
    assert_eq!(prevote(3, true, Some(0)), format!("76{height_and_round_3}{block}{tail}7801"));
    assert_eq!(prevote(3, true, Some(2)), format!("76{height_and_round_3}{block}{tail}7803"));
    assert_eq!(prevote(300, true, Some(127)), format!("770801110500000000000000192c01000000000000{block}{tail}788001"));
    assert_eq!(prevote(3, false, None), format!("2a{height_and_round_3}{tail}"));
}

#[test]
fn the_start_of_an_own_message_is_frozen() {
    let bytes = domain::begin(Tag::PeerBinding, &chain_id(), &Hash::EMPTY_LIST);
    let expected = format!("00010a{}{}", hex::encode("test-chain"), Hash::EMPTY_LIST.to_string().to_lowercase());
    assert_eq!(hex::encode(bytes), expected);
    let tags = [Tag::PeerBinding, Tag::Wedge, Tag::QuorumAnswer, Tag::Possession, Tag::CaughtUp, Tag::Audit, Tag::AppTransaction];
    assert_eq!(tags.map(|tag| tag as u8), [1, 2, 3, 4, 5, 6, 7]);
}

/// Every kind of canonical message over a grid of its fields, at the edges of each.
fn canonical_messages() -> Vec<(String, Vec<u8>)> {
    let chains =
        ["a", "test-chain", "test-chain-2", "12345678901234567890123456789012345678901234567890"].map(|id| ChainId::new(id).unwrap());
    let heights = [1, 2, 255, i64::MAX as u64].map(height);
    let rounds = [0, 1, 2, i32::MAX as u32].map(round);
    let blocks: [Option<BlockId>; 3] = [None, Some(block_id("a")), Some(block_id("b"))];
    let times = [Time::ZERO, Time::new(0, 0).unwrap(), Time::new(0, 1).unwrap(), Time::MAX];
    let mut messages = Vec::new();
    for chain in &chains {
        for h in heights {
            for r in rounds {
                for (b, block) in blocks.iter().enumerate() {
                    for t in times {
                        for kind in [VoteType::Prevote, VoteType::Precommit] {
                            let bytes = vote_sign_bytes(kind, h, r, block.as_ref(), None, t, chain);
                            messages.push((format!("{kind:?} {chain} {h} {r} {b} {t}"), bytes));
                        }
                        let Some(block) = block else { continue };
                        for valid_round in [0, 1, i32::MAX as u32 - 1].map(round) {
                            let bytes = vote_sign_bytes(VoteType::Prevote, h, r, Some(block), Some(valid_round), t, chain);
                            messages.push((format!("prevote {chain} {h} {r} {b} {t} vr {valid_round}"), bytes));
                        }
                        for pol_round in [None, Some(Round::ZERO), Some(round(1)), Some(Round::MAX)] {
                            let proposal =
                                Proposal { height: h, round: r, pol_round, block_id: *block, timestamp: t, signature: Signature([0; 64]) };
                            messages.push((format!("proposal {chain} {h} {r} {b} {t} {pol_round:?}"), proposal.sign_bytes(chain)));
                        }
                    }
                }
                for extension in [&b""[..], b"x", &[8; 30]] {
                    let bytes = vote_extension_sign_bytes(extension, h, r, chain);
                    messages.push((format!("extension {chain} {h} {r} {extension:?}"), bytes));
                }
            }
        }
    }
    messages
}

fn own_messages() -> Vec<(String, Vec<u8>)> {
    let mut messages = Vec::new();
    for tag in [Tag::PeerBinding, Tag::Wedge, Tag::QuorumAnswer, Tag::Possession, Tag::CaughtUp, Tag::Audit, Tag::AppTransaction] {
        for chain in ["a", "test-chain", "test-chain-2", "12345678901234567890123456789012345678901234567890"] {
            for genesis in [Hash([0; 32]), Hash::EMPTY_LIST] {
                let bytes = domain::begin(tag, &ChainId::new(chain).unwrap(), &genesis);
                messages.push((format!("{tag:?} {chain} {genesis}"), bytes));
            }
        }
    }
    messages
}

#[test]
fn no_two_messages_are_the_same_bytes() {
    let (canonical, own) = (canonical_messages(), own_messages());
    assert!(canonical.len() > 5_000);
    assert!(canonical.iter().all(|(name, bytes)| bytes[0] != domain::OWN_PREFIX && !name.is_empty()));
    assert!(own.iter().all(|(_, bytes)| bytes[0] == domain::OWN_PREFIX));
    let mut seen = BTreeMap::new();
    for (name, bytes) in canonical.into_iter().chain(own) {
        if let Some(other) = seen.insert(bytes, name.clone()) {
            panic!("{name} and {other} are signed with the same bytes");
        }
    }
}

/// What a validator signs of its state, written by hand.
#[test]
fn a_statement_is_signed_behind_its_domain() {
    use lockstep_types::Height;
    use lockstep_types::audit::Statement;
    let statement =
        Statement { height: Height::new(258).unwrap(), root: Hash([0x66; 32]).into(), results: Hash([0x77; 32]), rest: Hash([0x88; 32]) };
    let bytes = statement.sign_bytes(&ChainId::new("test").unwrap(), &Hash([0x99; 32]));
    let domain = "00".to_owned() + "06" + "04" + "74657374" + &"99".repeat(32);
    let fields = "0201000000000000".to_owned() + "20" + &"66".repeat(32) + &"77".repeat(32) + &"88".repeat(32);
    assert_eq!(hex::encode(bytes), domain + &fields);
}

#[test]
fn no_own_message_continues_another() {
    // What follows the start is of fixed length or behind its length, so it is enough that no start begins another.
    let own = own_messages();
    for (name, bytes) in &own {
        for (other, longer) in own.iter().filter(|(other, _)| other != name) {
            assert!(!longer.starts_with(bytes), "{name} begins {other}");
        }
    }
}

#[test]
fn evidence_is_ordered_by_one_byte_string() {
    use lockstep_types::evidence::DuplicateVote;
    let set = set(&[10, 10]);
    let key = |block: Option<BlockId>, vr| DuplicateVote::order_key(&vote(&set, 0, VoteType::Prevote, 5, 300, block, vr));
    let a = block_id("a");
    let parts = format!("{}08021220{}", a.hash, a.parts.hash).to_lowercase();
    assert_eq!(key(None, None), Vec::<u8>::new(), "nil sorts first");
    assert_eq!(hex::encode(key(Some(a), None)), parts);
    assert_eq!(hex::encode(key(Some(a), Some(0))), format!("{parts}7801"));
    assert_eq!(hex::encode(key(Some(a), Some(127))), format!("{parts}788001"));
}
