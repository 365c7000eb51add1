//! The files of a new network belong together.

use lockstep_types::{ConsensusParams, Power};
use zeroize::Zeroizing;

use lockstep_genesis::home::{self, Member};
use lockstep_genesis::{Genesis, keys};

fn members() -> Vec<Member> {
    let random = |n: u8| {
        let mut bytes = Zeroizing::new([n; 64]);
        bytes[32..].fill(n + 100);
        bytes
    };
    (0..4).map(|n| Member::new(format!("node{n}"), Power::new(10).unwrap(), &random(n))).collect()
}

#[test]
fn every_home_holds_the_genesis_and_its_own_keys() {
    let members = members();
    let chain_id = home::random_chain_id(&[0; 8]);
    let time = "2026-01-02T03:04:05Z".parse().unwrap();
    let genesis = home::genesis(chain_id, time, ConsensusParams::default(), &members, "{}").unwrap();
    for (place, member) in members.iter().enumerate() {
        let [shared, validator, node] = home::files(&genesis, member);
        assert_eq!((shared.path, shared.secret), ("config/genesis.json", false));
        assert_eq!((validator.path, validator.secret), ("config/priv_validator_key.json", true));
        assert_eq!((node.path, node.secret), ("config/node_key.json", true));
        let read = Genesis::parse(shared.contents.as_bytes()).unwrap();
        assert_eq!(read.hash(), genesis.hash());
        let key = keys::parse_validator_key(validator.contents.as_bytes()).unwrap();
        assert_eq!(read.validators[place].public_key, key.public_key());
        assert_eq!(read.validators[place].name, format!("node{place}"));
        assert!(read.validator_set().index_of(&member.address()).is_some());
        let node = keys::parse_node_key(node.contents.as_bytes()).unwrap();
        assert_ne!(node.public_key(), key.public_key(), "the two keys grow from different bytes");
        assert_eq!(lockstep_types::NodeId::of_key_bytes(&node.public_key().0), member.node_id());
    }
}

#[test]
fn the_rules_hold_for_what_is_made_here_too() {
    let time = "2026-01-02T03:04:05Z".parse().unwrap();
    let error = home::genesis(home::random_chain_id(&[0; 8]), time, ConsensusParams::default(), &[], "{}").unwrap_err();
    crate::refused::expect(error, "validators", "a list of 0", "1 to 512");
}

#[test]
fn a_random_chain_id_uses_every_bit_of_its_letters() {
    assert_eq!(home::random_chain_id(&[0, 1, 2, 3, 24, 30, 31, 32]).as_str(), "lockstep-abcd289a");
    let mut seen: Vec<String> = (0..32).map(|n| home::random_chain_id(&[n; 8]).to_string()).collect();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 32);
    assert!(seen.iter().all(|id| id.len() == 17 && id[9..].bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())));
}
