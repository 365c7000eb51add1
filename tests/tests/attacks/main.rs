//! The attacks of `docs/security.md`, by number, against the real crates: a network over loopback TCP, the RPC server, the
//! replica between peers that a test plays, files on a disk in memory, and the simulator. An attack that a test of another
//! crate already shows whole is not repeated here: the table names that test, and [`table`] checks that it is there.

#![expect(clippy::cast_possible_truncation, reason = "heights of test chains are small")]

use std::alloc::System;

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

mod allocation;
mod certificates;
mod clients;
mod corpus;
mod evidence;
mod files;
mod peers;
mod replica;
mod room;
mod seeds;
mod slow_disk;
mod table;

// The targets of the fuzzer, which is a workspace of its own.
#[path = "../../../fuzz/src/targets/mod.rs"]
#[allow(unreachable_pub, reason = "public in the fuzzer's library")]
mod targets;

// The desks of the crates' own tests: a replica between peers that a test plays, and a node that serves a small chain. What
// of them is not used here changes with those tests.
#[path = "../../../rpc/tests/rpc/chain.rs"]
#[allow(dead_code, reason = "shared with the tests of the RPC server")]
mod chain;
#[path = "../../../replica/tests/replica/desk.rs"]
#[allow(dead_code, reason = "shared with the tests of the replica")]
mod desk;
#[path = "../../../replica/tests/replica/examples.rs"]
mod examples;
#[path = "../../../rpc/tests/rpc/http.rs"]
#[allow(dead_code, reason = "shared with the tests of the RPC server")]
mod http;
#[path = "../../../rpc/tests/rpc/node.rs"]
#[allow(dead_code, reason = "shared with the tests of the RPC server")]
mod node;
#[path = "../../../replica/tests/replica/support.rs"]
#[allow(dead_code, reason = "shared with the tests of the replica")]
mod support;

/// Counts what [`allocation`] measures, in a process that it starts for that.
#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;
