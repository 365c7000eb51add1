//! The targets of the fuzzer without the fuzzer: the inputs that are kept in `fuzz/corpus`, and the good bytes of every format
//! that fuzzing began with, changed in every way that is near.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lockstep_app::membership::{NodeTx, Quit, RecentBlock};
use lockstep_app::record::{Attendance, CommittedEvidence, PowerMoved, Waiting};
use lockstep_app::snapshot::{ChunkInfo, Difference, Manifest, Outline, pack, plan};
use lockstep_app::token::{Payment, Transfer};
use lockstep_app::tree::Prefix;
use lockstep_app::{ReplicaRecord, Tree};
use lockstep_genesis::keys;
use lockstep_network::{Handshake, ValidatorBinding};
use lockstep_replica::audit::{Finding, Proof};
use lockstep_replica::results::{KeptBlock, kept_tx};
use lockstep_replica::signing::{OwnMessage, guard_owner, guard_record};
use lockstep_sim::disk::Dice;
use lockstep_types::audit::{SignedStatement, Statement};
use lockstep_types::light::LightBlock;
use lockstep_types::{AppHash, Hash, Signature, Time, TxResult, ValidatorUpdate, codec};

use crate::allocation::{EVERY_VALUE_BYTES, alone, changed, is_thorough};
use crate::desk::Made;
use crate::files::{INDEX, Memory, RESULTS, SEGMENT, guarded, logged, resulted};
use crate::support::*;
use crate::{ALLOCATOR, examples, targets};

fn meter() -> usize {
    ALLOCATOR.stats().bytes_allocated
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace is the folder above").join("fuzz/corpus")
}

/// A target and good bytes for it, from the golden vectors and from what this program writes.
fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let behind = |which: u8, bytes: &[u8]| [&[which], bytes].concat();
    let mut seeds: Vec<(&str, Vec<u8>)> = Vec::new();
    for (_, value, _) in examples::messages() {
        let bytes = value.encode().to_vec();
        let framed = [&u32::try_from(bytes.len() + 1).expect("short").to_le_bytes()[..], &[1], &bytes, &[1, 0, 0, 0, 0]].concat();
        seeds.push(("frames", behind(7, &framed)));
        if matches!(value, lockstep_replica::wire::Message::Txs(_)) {
            seeds.push(("gossip", bytes.clone()));
        }
        seeds.push(("message", bytes));
    }
    seeds.extend(examples::questions().into_iter().map(|(_, value, _)| ("question", value.encode().to_vec())));
    seeds.extend(examples::answers().into_iter().map(|(_, value, _)| ("answer", value.encode().to_vec())));
    let handshake = Handshake {
        wire_version: 1,
        chain_id: "test-chain".into(),
        genesis_hash: [7; 32],
        block_protocol: 11,
        node_version: "v".into(),
        moniker: "m".into(),
        rpc_address: "r:1".into(),
        listen_address: "l:1".into(),
        validator: Some(ValidatorBinding { public_key: [1; 32], signature: [2; 64] }),
    };
    // Layout, lane of votes, handshake, instance; and the lane of bodies.
    seeds.push(("opening", [&[1, 0][..], &borsh::to_vec(&handshake).expect("written"), &8u64.to_le_bytes()].concat()));
    seeds.push(("opening", vec![1, 1]));

    let made = Made::of(2);
    let (_, body, commit) = made.block(2);
    seeds.push(("body", body.to_vec()));
    for (_, value, _) in examples::messages() {
        if let lockstep_replica::wire::Message::Evidence(evidence) = value {
            seeds.push(("signed", behind(7, &codec::encode(1, &*evidence))));
        }
    }
    seeds.push(("signed", behind(10, &record(&made).to_bytes())));
    for (which, bytes) in [
        (0, codec::encode(1, &vote())),
        (1, codec::encode(1, &proposal())),
        (2, codec::encode(1, &polka())),
        (3, codec::encode(1, commit)),
        (4, codec::encode(1, &part())),
        (5, codec::encode(1, &*made.chain.validators)),
        (6, codec::encode(1, &lockstep_types::Block::decode(body).expect("a block").header)),
        (8, codec::encode(1, &TxResult { log: "done".into(), ..TxResult::default() })),
        (9, codec::encode(1, &lockstep_types::merkle::proofs(&[b"a", b"b", b"c"]).1[1])),
    ] {
        seeds.push(("signed", behind(which, &bytes)));
    }

    let tree = Tree::from_entries((0u8..40).map(|n| (Arc::from([n]), Arc::from(vec![n; 60_000]))));
    let infos: Vec<_> = plan(&tree).map(|(info, _)| info).collect();
    let manifest = Manifest::new(lockstep_types::Hash([7; 32]), lockstep_types::Height::FIRST, infos.clone()).expect("a cover");
    seeds.push(("snapshot", behind(0, &manifest.to_bytes())));
    let few = Tree::from_entries((0u8..6).map(|n| (Arc::from([n]), Arc::from([n, n]))));
    let part = few.part(Prefix::WHOLE);
    seeds.push(("snapshot", behind(1, &pack(&part))));
    let outline = Outline::of(&part, &ChunkInfo { prefix: Prefix::WHOLE, root: part.root(), entries: 16, bytes: 160 });
    seeds.push(("snapshot", behind(2, &borsh::to_vec(&outline).expect("written"))));
    let nothing = Tree::new().part(Prefix::WHOLE);
    let empty = Outline::of(&nothing, &ChunkInfo { prefix: Prefix::WHOLE, root: part.root(), entries: 16, bytes: 160 });
    let difference = Difference::between(&part, &empty).expect("not too deep");
    seeds.push(("snapshot", behind(3, &borsh::to_vec(&difference).expect("written"))));

    for text in [
        r#"{"jsonrpc":"2.0","id":1,"method":"block","params":{"height":"3"}}"#,
        r#"[{"id":"a","method":"abci_query","params":["/store","6b",0,true]},{"id":-1,"method":"tx","params":{"hash":"AAAA","prove":true}}]"#,
        r#"{"id":1,"method":"validators","params":{"height":null,"page":"1","per_page":100}}"#,
        r#"{"id":1,"method":"broadcast_tx_sync","params":{"tx":"YT1i"}}"#,
        "null",
    ] {
        seeds.push(("rpc_body", text.as_bytes().to_vec()));
    }
    for text in [
        "block?height=3",
        "abci_query?path=\"/store\"&data=0x6b&prove=true",
        "tx?hash=0xAB&prove=1",
        "blockchain?minHeight=1&maxHeight=\"2\"",
        "GET /tx?tx=\"a=b\" HTTP/1.1\r\ncontent-length: 3\r\n\r\nabc",
    ] {
        seeds.push(("rpc_query", behind(5, text.as_bytes())));
    }
    seeds.extend(rpc_answers());

    let state = crate::chain::State::from([(b"a".to_vec(), b"1".to_vec()), (b"b".to_vec(), b"2".to_vec()), (b"c".to_vec(), b"3".to_vec())]);
    for key in [b"a".as_slice(), b"nothing"] {
        seeds.push(("proof", crate::chain::prove(&state, key).to_bytes()));
    }
    for text in ["key=value", "a:b", "\0=:\u{1}join", "=", ""] {
        seeds.push(("transaction", text.as_bytes().to_vec()));
    }

    let recent = RecentBlock { height: made.chain.height, hash: Hash([7; 32]) };
    let quit = Quit { public_key: key(1).public_key(), signer: key(1).public_key(), recent, signature: Signature([7; 64]) };
    seeds.push(("transaction", NodeTx::Quit(quit).encode()));
    let transfer = Transfer {
        public_key: key(1).public_key(),
        nonce: 0,
        fee: 1,
        payments: vec![Payment { to: key(2).public_key().address(), amount: 5 }],
        memo: b"m".to_vec(),
        signature: Signature([7; 64]),
    };
    seeds.push(("transaction", transfer.encode()));

    seeds.push(("genesis", genesis(4).to_json().into_bytes()));
    seeds.push(("genesis", genesis(1).to_minified_json().into_bytes()));
    seeds.push(("settings", lockstep::Config::default().to_toml().into_bytes()));
    seeds.push(("settings", b"moniker = \"a\"\n[rpc]\nladdr = \"127.0.0.1:1\"\n".to_vec()));
    seeds.push(("keys", behind(0, keys::validator_key_json(&key(1)).as_bytes())));
    seeds.push(("keys", behind(1, keys::node_key_json(&key(1)).as_bytes())));
    seeds.push(("keys", behind(2, br#"{"height":"7","round":0,"step":3,"signature":"AAAA","signbytes":"00"}"#)));
    let id = "ab".repeat(20);
    for (which, text) in [
        (0, "2026-01-02T03:04:05.000000006Z"),
        (1, &*format!("{id}@10.0.0.1:26656")),
        (1, &*format!("{id}@[::1]:1")),
        (2, &*id),
        (3, &*"0F".repeat(32)),
        (4, &*"0F".repeat(20)),
        (5, "test-chain"),
    ] {
        seeds.push(("texts", behind(which, text.as_bytes())));
    }
    let owner = guard_owner(&lockstep_types::Hash([7; 32]), &key(1).public_key());
    for mine in [OwnMessage::Vote(vote()), OwnMessage::Proposal(proposal())] {
        let record = guard_record(&mine, &[], Some(&polka()), Some(&polka()), &chain_id(), &owner);
        seeds.push(("guard_record", borsh::to_vec(&record).expect("written")));
    }
    let memory = Memory::shared();
    guarded(&memory);
    seeds.push(("guard_file", behind(0, &memory.bytes("guard")[..512])));
    logged(&memory);
    let segment = memory.bytes(SEGMENT);
    let used = segment.iter().rposition(|byte| *byte != 0).expect("not empty") + 1;
    seeds.push(("log_file", segment[80..used].to_vec()));
    let memory = Memory::shared();
    resulted(&memory);
    seeds.push(("results_file", behind(0, &memory.bytes(RESULTS))));
    seeds.push(("results_file", behind(1, &memory.bytes(INDEX))));
    seeds.push(("kept", behind(0, &made.chain.encode())));
    let result = codec::encode(1, &TxResult { log: "done".into(), data: vec![1, 2], ..TxResult::default() });
    assert!(kept_tx(&result).is_ok());
    seeds.push(("kept", behind(1, &result)));
    let kept = KeptBlock {
        app_hash: made.chain.app_hash.clone(),
        events: Vec::new(),
        validator_updates: Vec::new(),
        param_updates: None,
        validators: (*made.chain.validators).clone(),
        params: (*made.chain.params).clone(),
    };
    seeds.push(("kept", behind(2, &codec::encode(1, &kept))));

    homes(&mut seeds);

    // A life without faults, one with power cuts, one with faults that strike.
    for life in [&[0, 9, 5, 3, 4, 0, 40, 2, 7, 5, 3, 30, 12, 0, 0, 50][..], &[0, 3, 10, 2, 7, 0, 9, 3, 3, 10, 4, 1, 0, 200, 5, 10, 3, 9]] {
        for store in ["disk_log", "disk_guard", "disk_state", "disk_results"] {
            seeds.push((store, life.to_vec()));
            seeds.push((store, life.iter().rev().flat_map(|byte| [9, *byte, 4, byte.wrapping_mul(37)]).collect()));
        }
    }
    seeds
}

/// What lies beside a home's stores, and what a person brings.
fn homes(seeds: &mut Vec<(&'static str, Vec<u8>)>) {
    /// The height of the snapshot: one with a block below it and two above.
    const HEIGHT: u64 = 2;
    let behind = |which: u8, bytes: &[u8]| [&[which], bytes].concat();
    let genesis = targets::homes::genesis();
    let (chain, state, changes) = start(genesis);
    let executor = lockstep_replica::execution::Executor::at_genesis(host(), state, changes);
    let mut made = Made { genesis: genesis.clone(), executor, chain: Arc::new(chain), blocks: Vec::new() };
    let set = (*made.chain.validators).clone();
    (0..HEIGHT).for_each(|n| made.grow(&[format!("k{n}=v").as_bytes()]));
    let tree = made.executor.state().tree().clone();
    (0..2).for_each(|_| made.grow(&[]));
    let light = |number: u64| {
        let (_, body, commit) = made.block(number);
        let header = lockstep_types::Block::decode(body).expect("a block").header;
        LightBlock { header, commit: commit.clone(), validators: set.clone(), next_validators: set.clone() }
    };
    let (above, at, below) = (light(HEIGHT + 1), light(HEIGHT), vec![light(HEIGHT - 1)]);
    assert_eq!(above.header.validators_hash, set.hash(), "nobody joined");
    let infos: Vec<_> = plan(&tree).map(|(info, _)| info).collect();
    let chunks: Vec<Vec<u8>> = infos.iter().filter(|info| info.entries > 0).map(|info| pack(&tree.part(info.prefix))).collect();
    let manifest = Manifest::new(genesis.hash(), height(HEIGHT), infos.clone()).expect("a cover").to_bytes();
    let body = made.block(HEIGHT).1.to_vec();

    let section = |bytes: &[u8]| [&u32::try_from(bytes.len()).expect("short").to_le_bytes()[..], bytes].concat();
    let mut export: Vec<u8> =
        [&manifest[..], &codec::encode(1, &above), &codec::encode(1, &at), &body, &codec::encode(1, &below), &[]].map(section).concat();
    chunks.iter().for_each(|chunk| export.extend(section(chunk)));
    assert_eq!(targets::homes::taken(&export, &above.header.hash()), Some(height(HEIGHT)), "it is whole");
    seeds.push(("export", export));

    let file = |kind: u8, bytes: &[u8]| [&[kind][..], &u16::try_from(bytes.len()).expect("short").to_le_bytes(), bytes].concat();
    let numbered = |number: u64, bytes: &[u8]| [&number.to_le_bytes()[..], bytes].concat();
    let goal = [&[1][..], &section(&manifest), &borsh::to_vec(&above).expect("written"), &borsh::to_vec(&at).expect("written")].concat();
    let next = [&[1][..], &borsh::to_vec(&above).expect("written"), &section(&made.block(HEIGHT + 1).1)].concat();
    let mut folder = file(0, &goal);
    for (info, chunk) in infos.iter().filter(|info| info.entries > 0).zip(&chunks) {
        folder.extend(file(1, &[&info.root.0[..], chunk].concat()));
    }
    folder.extend(file(2, &body));
    folder.extend(file(3, &numbered(HEIGHT - 1, &codec::encode(1, &below))));
    folder.extend(file(4, &numbered(HEIGHT + 1, &next)));
    seeds.push(("sync_folder", folder.clone()));
    folder.extend(file(5, &[1]));
    assert_eq!(targets::homes::restored(&folder), Some(height(HEIGHT)), "it is whole");
    seeds.push(("sync_folder", folder));

    let mut higher = light(1);
    higher.header.height = height(5);
    seeds.push(("light_file", behind(0, &codec::encode(1, &vec![higher.clone()]))));
    seeds.push(("light_file", behind(0x81, &borsh::to_vec(&vec![higher]).expect("written"))));
    seeds.push(("light_file", behind(0x82, &borsh::to_vec(&vec![polka()]).expect("written"))));
    let root = lockstep_replica::light_store::Root { height: height(5), hash: Hash([7; 32]), time: at.header.time };
    seeds.push(("light_file", behind(3, &borsh::to_vec(&vec![root]).expect("written"))));

    let mut header = light(1).header;
    header.height = height(6);
    let ours = Statement { height: height(5), root: AppHash::default(), results: Hash([1; 32]), rest: Hash([2; 32]) };
    let said = SignedStatement { statement: ours.clone(), validator: key(1).public_key().address(), signature: Signature([7; 64]) };
    for proof in [Proof::Header { header, commit: light(1).commit }, Proof::Statements(vec![said])] {
        // A finding, and no trace of the block's execution.
        seeds.push(("audit_file", [&codec::encode(1, &Finding { ours: ours.clone(), proof })[..], &[0]].concat()));
    }

    let bundle = serde_json::json!({
        "genesis_hash": genesis.hash().to_string(), "trust_height": 2, "trust_hash": at.header.hash().to_string(),
        "peers": [format!("{}@10.0.0.1:26656", "ab".repeat(20))],
    });
    seeds.push(("bundle", bundle.to_string().into_bytes()));
}

/// A replica record in which every list has something.
fn record(made: &Made) -> ReplicaRecord {
    let (chain, height) = (&made.chain, made.chain.height);
    let validators = (*chain.validators).clone();
    let first = validators.iter().next().expect("a validator");
    let (address, power) = (first.address, first.power);
    let update = ValidatorUpdate { public_key: first.public_key, power };
    ReplicaRecord {
        height,
        next_validators: validators.clone(),
        parameters: (*chain.params).clone(),
        view: 3,
        committed_evidence: vec![CommittedEvidence { hash: Hash([0xee; 32]), height, time: Time::new(1_767_323_045, 0).expect("a time") }],
        attendance: vec![Attendance { address, last_signed: height, slots: 5, missed_slots: 2 }],
        power_moved: vec![PowerMoved { height, total_before: power, moved: power }],
        waiting: vec![Waiting { since: height, update }],
        last_results_hash: Hash([0x11; 32]),
        validators,
    }
}

/// Answers of the node that serves a small chain.
fn rpc_answers() -> Vec<(&'static str, Vec<u8>)> {
    let questions = [
        (0, r#"{"id":1,"method":"status"}"#),
        (1, r#"{"id":1,"method":"net_info"}"#),
        (2, r#"{"id":1,"method":"block","params":{"height":"2"}}"#),
        (3, r#"{"id":1,"method":"header","params":{"height":"2"}}"#),
        (4, r#"{"id":1,"method":"commit","params":{"height":"2"}}"#),
        (5, r#"{"id":1,"method":"blockchain","params":{"minHeight":"1","maxHeight":"2"}}"#),
        (6, r#"{"id":1,"method":"block_results","params":{"height":"2"}}"#),
        (7, r#"{"id":1,"method":"validators","params":{"height":"2"}}"#),
        (8, r#"{"id":1,"method":"consensus_params","params":{"height":"2"}}"#),
        (10, r#"{"id":1,"method":"abci_query","params":{"path":"/store","data":"61","prove":true}}"#),
        (13, r#"{"id":1,"method":"genesis_chunked","params":{"chunk":"0"}}"#),
        (14, r#"{"id":1,"method":"unconfirmed_txs"}"#),
        (11, r#"{"id":1,"method":"broadcast_tx_sync","params":{"tx":"dD0w"}}"#),
        (12, r#"{"id":1,"method":"broadcast_tx_commit","params":{"tx":"dD0x"}}"#),
    ];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let (_node, _server, addr) = crate::node::Node::new(crate::chain::Chain::story()).serve().await;
        let mut http = crate::http::Http::connect(addr).await;
        let mut seeds = Vec::new();
        for (which, question) in questions {
            let reply = http.post(question.as_bytes()).await;
            let reply: serde_json::Value = serde_json::from_str(&reply.body).expect("JSON");
            let result = reply.get("result").unwrap_or_else(|| panic!("{question} is answered by {reply}"));
            seeds.push(("rpc_answer", [&[which][..], result.to_string().as_bytes()].concat()));
        }
        seeds
    })
}

/// Targets of which one run takes long: files and whole stores on a simulated disk.
const SLOW: [&str; 12] = [
    "guard_file",
    "log_file",
    "results_file",
    "settings",
    "light_file",
    "audit_file",
    "sync_folder",
    "export",
    "disk_log",
    "disk_guard",
    "disk_state",
    "disk_results",
];

/// Every byte with every value, every cut, every claim of a length; longer and slower ones at some of their places, unless
/// `LOCKSTEP_EVERY_BYTE` is set. With `LOCKSTEP_WRITE_SEEDS` set the good bytes are written beside the corpus, for the fuzzer
/// to begin with.
#[test]
fn attack_76_every_bad_byte_is_refused_or_means_what_it_says() {
    alone("corpus", "attack_76_every_bad_byte_is_refused_or_means_what_it_says", || {
        /// Longer or slower ones are changed at so many places.
        const PLACES: usize = 24;
        let seeds = seeds();
        for target in targets::TARGETS {
            assert!(seeds.iter().any(|(name, _)| *name == target.name), "{} has good bytes", target.name);
        }
        for (at, (name, good)) in seeds.iter().enumerate() {
            if std::env::var_os("LOCKSTEP_WRITE_SEEDS").is_some() {
                let folder = folder().join(name);
                fs::create_dir_all(&folder).expect("a folder");
                fs::write(folder.join(format!("seed-{at}")), good).expect("written");
            }
            targets::run(name, good, meter);
            if is_thorough() || (good.len() <= EVERY_VALUE_BYTES && !SLOW.contains(name)) {
                changed(good, |bytes, _| targets::run(name, bytes, meter));
                continue;
            }
            let mut bytes = good.clone();
            for place in (0..good.len()).step_by(good.len().div_ceil(PLACES).max(1)) {
                for value in [0, !good[place], good[place] ^ 1] {
                    bytes[place] = value;
                    targets::run(name, &bytes, meter);
                }
                bytes[place] = good[place];
                targets::run(name, &good[..place], meter);
            }
        }
    });
}

#[test]
fn the_kept_corpus_keeps_the_promises_of_every_target() {
    alone("corpus", "the_kept_corpus_keeps_the_promises_of_every_target", || {
        for target in targets::TARGETS {
            for path in kept(target.name) {
                println!("{}", path.display());
                (target.run)(&fs::read(&path).expect("it is read"), meter);
            }
        }
    });
}

/// Several changes at once, drawn: what a fuzzer does, without its sight. `LOCKSTEP_DRAWN` says how many inputs for each target.
#[test]
fn drawn_changes_keep_the_promises_of_every_target() {
    const DRAWN: u64 = 3_000;
    const SLOW_DRAWN: u64 = 60;
    const INPUT_BYTES_MAX: usize = 8 << 10;
    alone("corpus", "drawn_changes_keep_the_promises_of_every_target", || {
        let asked: Option<u64> = std::env::var("LOCKSTEP_DRAWN").ok().map(|count| count.parse().expect("a count"));
        let seeds = seeds();
        for target in targets::TARGETS {
            let mut pool: Vec<Vec<u8>> = seeds.iter().filter(|(name, _)| *name == target.name).map(|(_, good)| good.clone()).collect();
            pool.extend(kept(target.name).into_iter().map(|path| fs::read(path).expect("it is read")));
            let count = asked.unwrap_or(if SLOW.contains(&target.name) { SLOW_DRAWN } else { DRAWN });
            let mut dice = Dice::new(u64::from_le_bytes(*b"a corpus"));
            for _ in 0..count {
                let mut bytes = pick(&mut dice, &pool).clone();
                for _ in 0..=dice.below(4) {
                    change(&mut dice, &mut bytes, &pool);
                }
                bytes.truncate(INPUT_BYTES_MAX);
                let done = std::panic::catch_unwind(|| (target.run)(&bytes, meter));
                assert!(done.is_ok(), "{} does not keep its promise for {}", target.name, hex::encode(&bytes));
            }
        }
    });
}

fn pick<'a, T>(dice: &mut Dice, of: &'a [T]) -> &'a T {
    &of[usize::try_from(dice.below(of.len() as u64)).expect("a place")]
}

/// One change of the kinds that fuzzers make.
fn change(dice: &mut Dice, bytes: &mut Vec<u8>, pool: &[Vec<u8>]) {
    let below = |dice: &mut Dice, bound: usize| usize::try_from(dice.below(bound.max(1) as u64)).expect("a place");
    let at = below(dice, bytes.len());
    let end = (at + 1 + below(dice, 16)).min(bytes.len());
    match dice.below(8) {
        0 if at < bytes.len() => bytes[at] ^= 1 << dice.below(8),
        1 if at < bytes.len() => bytes[at] = *pick(dice, &[0, 1, 2, 0x22, 0x2d, 0x39, 0x5c, 0x7b, 0x7f, 0x80, 0xff]),
        2 => drop(bytes.drain(at.min(end)..end)),
        3 => {
            let again = bytes[at.min(end)..end].to_vec();
            bytes.splice(at..at, again);
        }
        4 => {
            let new: Vec<u8> = (0..=below(dice, 8)).map(|_| dice.roll().to_le_bytes()[0]).collect();
            bytes.splice(at..at, new);
        }
        5 => {
            let claim = *pick(dice, &[0u32, 1, 64, 65, 256, 4_096, 65_536, 1 << 20, i32::MAX as u32, u32::MAX]);
            let end = (at + 4).min(bytes.len());
            bytes[at..end].copy_from_slice(&claim.to_le_bytes()[..end - at]);
        }
        6 => {
            let other = pick(dice, pool);
            let from = below(dice, other.len());
            bytes.truncate(at);
            bytes.extend_from_slice(&other[from..]);
        }
        _ => bytes.truncate(at),
    }
}

/// The inputs of a target that are kept: none where fuzzing found nothing that the good bytes do not reach.
fn kept(target: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder().join(target)) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths
}
