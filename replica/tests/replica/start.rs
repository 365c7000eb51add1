//! The start of a chain: what genesis says of the first state is compared with what the application made.

use lockstep_genesis::GenesisDraft;
use lockstep_replica::recovery::genesis_state;
use lockstep_types::AppHash;

use crate::support::*;

#[test]
fn the_root_in_genesis_must_be_the_applications() {
    let plain = genesis(1);
    let root = start(&plain).0.app_hash;
    let with = |app_hash: AppHash| GenesisDraft { app_hash, ..(*plain).clone() }.check().unwrap();
    let (chain, _, _) = genesis_state(&host(), &with(root.clone())).unwrap();
    assert_eq!(chain.app_hash, root);
    let other = AppHash::from(lockstep_types::Hash([0xab; 32]));
    let Err(refused) = genesis_state(&host(), &with(other.clone())) else { panic!("another root is taken") };
    let refused = refused.to_string();
    assert!(refused.contains(&root.to_string()) && refused.contains(&other.to_string()), "{refused}");
}
