//! Block sync from outside: its rules as stories, the server's arithmetic, and a seeded world of liars.

mod light;
mod server;
mod state;
mod stories;
mod world;

use std::sync::Arc;

use lockstep_sync::Fetched;
use lockstep_types::block::{BlockId, PartSetHeader};
use lockstep_types::{Commit, Hash, Height, Round};

fn h(height: u64) -> Height {
    Height::new(height).expect("a height")
}

/// The one body of a height that the world's chain has.
fn body(height: u64) -> Arc<[u8]> {
    format!("the block of height {height}").into_bytes().into()
}

fn commit(height: u64, body: &[u8]) -> Commit {
    let parts = PartSetHeader { total: 1, hash: Hash::of(body) };
    Commit { height: h(height), round: Round::ZERO, block_id: BlockId { hash: Hash::of(body), parts }, signatures: vec![] }
}

/// A block of the chain, with the certificate that names it.
fn good(height: u64) -> Fetched {
    Fetched { body: body(height), commit: commit(height, &body(height)) }
}

/// The test's verification: the body is that of the chain, and the certificate names it. It shares nothing with the crate.
fn holds(height: Height, block: &Fetched) -> bool {
    block.body == body(height.get()) && block.commit.height == height && block.commit.block_id.hash == Hash::of(&block.body)
}
