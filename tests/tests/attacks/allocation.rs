//! What decoding allocates. Every decoder that takes bytes of peers, clients or disks gets its good bytes with each single
//! byte changed, cut at every length, and with every claim written over every four bytes; whatever comes of it, what was
//! allocated in all, freed or not, is at most so many bytes for each byte of input and a constant.
//!
//! The counting allocator counts for the whole process. So each test starts this program again with itself as the only test,
//! and measures there.

use std::process::Command;
use std::sync::Arc;

use borsh::BorshDeserialize;
use lockstep_app::kv::Kv;
use lockstep_genesis::{Genesis, keys};
use lockstep_network::{Handshake, ValidatorBinding};
use lockstep_replica::ChainState;
use lockstep_replica::results::{kept_block, kept_tx};
use lockstep_replica::signing::{OwnMessage, Remembered, guard_record};
use lockstep_replica::wire::{Answer, Message, Question, TXS_MAX, TxBatch};
use lockstep_storage::guard::Guard;
use lockstep_storage::log::{BlockLog, LogOptions, PAYLOAD_BYTES_MAX};
use lockstep_storage::results::Results;
use lockstep_types::block::{Block, Part};
use lockstep_types::state_tree::ics23::CommitmentProof;
use lockstep_types::{Commit, Polka, Proposal, Tx, TxResult, ValidatorSet, Vote, codec};
use stats_alloc::Region;

use crate::ALLOCATOR;
use crate::desk::Made;
use crate::examples;
use crate::files::{
    COPY_BYTES, GENESIS, INDEX, Memory, RESULTS, SALT, SEGMENT, guarded, logged, resulted, seal_copy, seal_record, seal_results,
};
use crate::support::*;

/// Bytes that decoding may allocate in all for each byte of input: lists grow by doubling, and a list of empty transactions takes
/// 24 bytes of memory for four of input, copied as often as it doubles.
const PER_BYTE: usize = 32;
/// And beside that: the first places of nested lists, and the text of an error.
const OVERHEAD: usize = 32 << 10;
/// What borsh reserves for a byte string or a text, whatever its length field says. What strangers send is read without it
/// ([`codec::read_bytes`]); left is what our own disk holds.
const BORSH_BYTES: usize = 1 << 20;
/// What going through a damaged log takes, a piece at a time.
const SCAN_BYTES: usize = 1 << 20;

/// Settings are compared with every key there is, and what is wrong is told with those that are near.
const SETTINGS_OVERHEAD: usize = 1 << 20;

/// Claims that a length field may make: nothing, the bounds of our lists and one above, all that fits.
const CLAIMS: [u32; 22] = [
    0,
    1,
    32,
    33,
    64,
    65,
    128,
    129,
    201,
    202,
    256,
    257,
    512,
    513,
    4_096,
    4_097,
    65_536,
    65_537,
    1 << 20,
    104_857_600,
    i32::MAX as u32,
    u32::MAX,
];
/// Up to this length every byte takes every value; beyond it, those at which formats change their mind.
pub(crate) const EVERY_VALUE_BYTES: usize = 700;
const SOME_VALUES: [u8; 8] = [0, 1, 2, 0x22, 0x7b, 0x7f, 0x80, 0xff];

/// Bytes allocated by this, in all.
fn allocated<T>(run: impl FnOnce() -> T) -> (usize, T) {
    let region = Region::new(ALLOCATOR);
    let done = run();
    let stats = region.change();
    (stats.bytes_allocated + usize::try_from(stats.bytes_reallocated.max(0)).expect("not negative"), done)
}

/// Whether every byte takes every value however long the bytes are: nightly, since it takes an hour.
pub(crate) fn is_thorough() -> bool {
    std::env::var_os("LOCKSTEP_EVERY_BYTE").is_some()
}

/// Every change, cut and claim of good bytes, in turn.
pub(crate) fn changed(good: &[u8], mut with: impl FnMut(&[u8], &str)) {
    let mut bytes = good.to_vec();
    for at in 0..good.len() {
        let all = 0..=u8::MAX;
        let values: Vec<u8> = if good.len() <= EVERY_VALUE_BYTES || is_thorough() { all.collect() } else { SOME_VALUES.to_vec() };
        for value in values {
            bytes[at] = value;
            with(&bytes, "a changed byte");
        }
        bytes[at] = good[at];
    }
    for end in 0..good.len() {
        with(&good[..end], "a cut");
    }
    for at in 0..good.len().saturating_sub(3) {
        for claim in CLAIMS {
            for claim in [claim.to_le_bytes(), claim.to_be_bytes()] {
                bytes[at..at + 4].copy_from_slice(&claim);
                with(&bytes, "a claim");
            }
        }
        bytes[at..at + 4].copy_from_slice(&good[at..at + 4]);
    }
}

/// Attacks a decoder of bytes; it takes the good ones and refuses others.
fn attack<T, E: std::fmt::Debug>(name: &str, good: &[u8], overhead: usize, decode: impl Fn(&[u8]) -> Result<T, E>) {
    if let Err(error) = decode(good) {
        panic!("{name}: the good bytes are refused: {error:?}");
    }
    let mut refused = 0;
    changed(good, |bytes, what| {
        let (taken, answer) = allocated(|| decode(bytes).is_ok());
        let bound = PER_BYTE * bytes.len() + overhead;
        assert!(taken <= bound, "{name}: {what} allocates {taken} bytes for {}, at most {bound} were expected", bytes.len());
        refused += usize::from(!answer);
    });
    assert!(refused > 0, "{name} refuses something");
}

/// Runs a test in a process of its own, where nothing beside it allocates.
pub(crate) fn alone(module: &str, name: &str, run: impl FnOnce()) {
    const ALONE: &str = "LOCKSTEP_ATTACKS_ALONE";
    if std::env::var_os(ALONE).is_some() {
        run();
        return;
    }
    let program = std::env::current_exe().expect("this program");
    let mut again = Command::new(program);
    again.args(["--exact", &format!("{module}::{name}"), "--nocapture", "--test-threads=1"]).env(ALONE, "1");
    let ended = again.output().expect("it starts");
    let (out, err) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert!(ended.status.success() && out.contains("1 passed"), "{out}{err}");
}

#[test]
fn attack_08_bytes_of_peers_allocate_what_they_are() {
    alone("allocation", "attack_08_bytes_of_peers_allocate_what_they_are", || {
        for (name, value, _) in examples::messages() {
            attack(name, &value.encode(), OVERHEAD, Message::decode);
        }
        for (name, value, _) in examples::messages().iter().filter(|(_, value, _)| matches!(value, Message::Txs(_))) {
            attack(name, &value.encode(), OVERHEAD, Message::decode_gossip);
        }
        for (name, value, _) in examples::questions() {
            attack(name, &value.encode(), OVERHEAD, Question::decode);
        }
        for (name, value, _) in examples::answers() {
            attack(name, &value.encode(), OVERHEAD, Answer::decode);
        }
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
        let bytes = borsh::to_vec(&handshake).expect("encodes");
        attack("handshake", &bytes, OVERHEAD, Handshake::try_from_slice);
        // The first message of a stream: layout, lane of votes, handshake, instance. Less than this no peer has to prove.
        let opening = [&[1, 0][..], &bytes, &8u64.to_le_bytes()].concat();
        attack("opening", &opening, 4 << 10, lockstep_network::probe::opening);

        let made = Made::of(2);
        let (_, body, commit) = made.block(2);
        attack("body", body, OVERHEAD, Block::decode);
        let set: ValidatorSet = (*made.chain.validators).clone();
        attack("commit", &codec::encode(1, commit), OVERHEAD, |bytes| codec::decode::<Commit>(1, bytes, 1 << 20));
        attack("vote", &codec::encode(1, &vote()), OVERHEAD, |bytes| codec::decode::<Vote>(1, bytes, 1 << 20));
        attack("proposal", &codec::encode(1, &proposal()), OVERHEAD, |bytes| codec::decode::<Proposal>(1, bytes, 1 << 20));
        attack("polka", &codec::encode(1, &polka()), OVERHEAD, |bytes| codec::decode::<Polka>(1, bytes, 1 << 20));
        attack("part", &codec::encode(1, &part()), OVERHEAD, |bytes| codec::decode::<Part>(1, bytes, 1 << 20));
        attack("validator set", &codec::encode(1, &set), OVERHEAD, |bytes| codec::decode::<ValidatorSet>(1, bytes, 1 << 20));
    });
}

/// A lane has one buffer of two frames for its life. Whatever a stream claims, it gets no more than that and what it really sent.
#[test]
fn attack_07_a_stream_of_frames_allocates_one_buffer_and_what_it_sends() {
    const BUFFER_BYTES: usize = 2 * (5 + lockstep_network::FRAME_PAYLOAD_BYTES_MAX);
    alone("allocation", "attack_07_a_stream_of_frames_allocates_one_buffer_and_what_it_sends", || {
        let read = |bytes: &[u8]| lockstep_network::probe::Stream::default().take(bytes, drop);
        for (_, value, _) in examples::messages() {
            let bytes = value.encode();
            let length = u32::try_from(bytes.len() + 1).expect("short").to_le_bytes();
            let stream = [&length[..], &[1], &bytes, &[1, 0, 0, 0, 0], &length, &[1], &bytes].concat();
            attack("frames", &stream, BUFFER_BYTES + 1024, read);
        }
        let largest = lockstep_network::FRAME_PAYLOAD_BYTES_MAX + 1;
        for claim in [0, largest - 1, largest, largest + 1, i32::MAX as usize, u32::MAX as usize] {
            let claim = u32::try_from(claim).expect("a length field").to_le_bytes();
            let (taken, answer) = allocated(|| read(&[&claim[..], &[1; 100]].concat()).is_ok());
            assert!(taken <= BUFFER_BYTES + 1024, "{claim:?}: {taken} bytes");
            assert_eq!(
                answer,
                (1..=largest).contains(&(u32::from_le_bytes(claim) as usize)),
                "{claim:?} is refused exactly when it is too long"
            );
        }
    });
}

/// The densest inputs there are: empty transactions, four bytes each, as many as fit.
#[test]
fn attack_08_the_densest_inputs_allocate_what_they_are() {
    alone("allocation", "attack_08_the_densest_inputs_allocate_what_they_are", || {
        let made = Made::of(1);
        let mut block = Block::decode(&made.block(1).1).expect("a block");
        block.txs = vec![Tx(Vec::new()); lockstep_types::block::TXS_MAX];
        let body = block.encode();
        let frame = Message::Txs(TxBatch(vec![[].into(); TXS_MAX])).encode();
        for (name, len, (taken, is_good)) in [
            ("body", body.len(), allocated(|| Block::decode(&body).is_ok())),
            ("frame", frame.len(), allocated(|| Message::decode(&frame).is_ok())),
        ] {
            assert!(is_good && taken <= PER_BYTE * len + OVERHEAD, "{name}: {taken} bytes for {len}");
        }
    });
}

#[test]
fn attack_08_files_of_the_operator_allocate_what_they_are() {
    alone("allocation", "attack_08_files_of_the_operator_allocate_what_they_are", || {
        let good = genesis(4).to_json();
        attack("genesis", good.as_bytes(), OVERHEAD, Genesis::parse);
        attack("validator key", keys::validator_key_json(&key(1)).as_bytes(), OVERHEAD, keys::parse_validator_key);
        attack("node key", keys::node_key_json(&key(1)).as_bytes(), OVERHEAD, keys::parse_node_key);
        let state = br#"{"height":"0","round":0,"step":0}"#;
        attack("signing state", state, OVERHEAD, keys::parse_sign_state);
        let settings = lockstep::Config::default().to_toml();
        let load = |bytes: &[u8]| {
            let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
            lockstep::Config::load("config.toml", text, [], &[]).map_err(|error| error.to_string())
        };
        attack("settings", settings.as_bytes(), SETTINGS_OVERHEAD, load);
    });
}

#[test]
fn attack_08_records_of_the_disk_allocate_what_they_are() {
    alone("allocation", "attack_08_records_of_the_disk_allocate_what_they_are", || {
        let disk = OVERHEAD + BORSH_BYTES;
        let mine = OwnMessage::Vote(vote());
        let record = guard_record(&mine, &[], Some(&polka()), Some(&polka()), &chain_id(), &lockstep_types::Hash([7; 32]));
        let as_recorded = |message: &[u8], lock: &[u8]| {
            let changed = lockstep_storage::guard::GuardRecord { message: message.to_vec(), lock: Some(lock.to_vec()), ..record.clone() };
            Remembered::from_record(&changed, &chain_id())
        };
        let lock = record.lock.clone().expect("a lock");
        attack("guarded message", &record.message, disk, |bytes| as_recorded(bytes, &lock));
        attack("guarded lock", &lock, disk, |bytes| as_recorded(&record.message, bytes));
        let bytes = borsh::to_vec(&record).expect("encodes");
        // Five byte strings, each of which may claim.
        attack("guard record", &bytes, OVERHEAD + 5 * BORSH_BYTES, lockstep_storage::guard::GuardRecord::try_from_slice);

        let made = Made::of(1);
        attack("chain state", &made.chain.encode(), disk, ChainState::decode);
        let result = TxResult { log: "done".into(), data: vec![1, 2], ..TxResult::default() };
        attack("result", &codec::encode(1, &result), OVERHEAD + 8 * BORSH_BYTES, kept_tx);
        let kept = lockstep_replica::results::KeptBlock {
            app_hash: made.chain.app_hash.clone(),
            events: Vec::new(),
            validator_updates: Vec::new(),
            param_updates: None,
            validators: (*made.chain.validators).clone(),
            params: (*made.chain.params).clone(),
        };
        let block = lockstep_storage::results::BlockResults { height: 1, block: codec::encode(1, &kept), txs: Vec::new() };
        let of = |bytes: &[u8]| kept_block(&lockstep_storage::results::BlockResults { block: bytes.to_vec(), ..block.clone() });
        attack("kept block", &block.block, OVERHEAD + 8 * BORSH_BYTES, of);
    });
}

/// A log, a guard and results, each with every byte of their headers and records changed, and with lengths that claim up to
/// all that fits under checksums that hold.
#[test]
fn attack_08_opening_damaged_files_allocates_what_they_are() {
    alone("allocation", "attack_08_opening_damaged_files_allocates_what_they_are", || {
        let options = LogOptions { salt: SALT, segment_bytes: 1 << 20 };
        let memory = Memory::shared();
        logged(&memory);
        let sound = memory.bytes(SEGMENT);
        let used = sound.iter().rposition(|byte| *byte != 0).expect("not empty") + 1;
        // The reader of a whole log: opens, and reads everything that it lists.
        let read_log = || {
            let (log, _) = BlockLog::open(memory.clone(), "log", options).ok()?;
            log.reader().verify().ok()
        };
        let bound = |name: &str, what: &str, taken: usize, bytes: usize, overhead: usize| {
            let bound = PER_BYTE * bytes + overhead;
            assert!(taken <= bound, "{name}, {what}: {taken} bytes for {bytes}, at most {bound} were expected");
        };
        memory.put(SEGMENT, &sound[..used]);
        assert!(read_log().is_some(), "a sound log opens");
        let mut refused = 0;
        for at in 0..used {
            for mask in [0x01, 0x80, 0xff] {
                let mut bytes = sound[..used].to_vec();
                bytes[at] ^= mask;
                memory.put(SEGMENT, &bytes);
                let (taken, answer) = allocated(read_log);
                bound("log", "a changed byte", taken, used, OVERHEAD + 4 * SCAN_BYTES);
                refused += usize::from(answer.is_none());
            }
            memory.put(SEGMENT, &sound[..at]);
            bound("log", "a cut", allocated(read_log).0, used, OVERHEAD + 4 * SCAN_BYTES);
        }
        assert!(refused > 0, "damage is refused");
        const PAYLOAD_LENGTH: usize = 80 + 36;
        for claim in CLAIMS.into_iter().chain([PAYLOAD_BYTES_MAX - 1, PAYLOAD_BYTES_MAX, PAYLOAD_BYTES_MAX + 1]) {
            let mut bytes = sound[..used].to_vec();
            bytes[PAYLOAD_LENGTH..PAYLOAD_LENGTH + 4].copy_from_slice(&claim.to_le_bytes());
            seal_record(&mut bytes, 80, b"the body".len());
            memory.put(SEGMENT, &bytes);
            bound("log", "a claim", allocated(read_log).0, used, OVERHEAD + 4 * SCAN_BYTES);
        }

        let memory = Memory::shared();
        guarded(&memory);
        let sound = memory.bytes("guard");
        let heads: Vec<Vec<u8>> = (0..4).map(|copy| sound[copy * COPY_BYTES..copy * COPY_BYTES + 4_096].to_vec()).collect();
        let restore = || heads.iter().enumerate().for_each(|(copy, head)| memory.overwrite("guard", copy * COPY_BYTES, head));
        let read_guard = || Guard::open(&*memory, "guard", GENESIS).ok().map(|guard| guard.records().len());
        assert_eq!(read_guard(), Some(2));
        let guard_overhead = OVERHEAD + 2 * COPY_BYTES + 5 * BORSH_BYTES;
        let used = heads[0].iter().rposition(|byte| *byte != 0).expect("not empty") + 1;
        for (at, byte) in heads[0][..used].iter().enumerate() {
            for mask in [0x01, 0x80, 0xff] {
                memory.overwrite("guard", at, &[byte ^ mask]);
                let (taken, answer) = allocated(read_guard);
                bound("guard", "a changed byte", taken, 4 * 4_096, guard_overhead);
                assert_eq!(answer, Some(2), "one copy of four is never missed");
                restore();
            }
        }
        // Lengths of the record, and claims anywhere in it, under a digest that holds.
        let length = u32::from_le_bytes(heads[0][16..20].try_into().expect("four bytes")) as usize;
        for claim in CLAIMS.into_iter().chain([(COPY_BYTES - 52) as u32, (COPY_BYTES - 51) as u32]) {
            memory.overwrite("guard", 16, &claim.to_le_bytes());
            bound("guard", "a length", allocated(read_guard).0, 4 * 4_096, guard_overhead);
            restore();
            for at in 52..52 + length - 3 {
                let mut copy = heads[0].clone();
                copy[at..at + 4].copy_from_slice(&claim.to_le_bytes());
                seal_copy(&mut copy, 0);
                memory.overwrite("guard", 0, &copy);
                bound("guard", "a claim", allocated(read_guard).0, 4 * 4_096, guard_overhead);
                restore();
            }
        }

        let memory = Memory::shared();
        resulted(&memory);
        let read_results = || {
            let results = Results::open(memory.clone(), "log", &[1, 100], Some(2)).ok()?;
            let reader = results.reader();
            let _ = reader.lookup(&[1; 32]);
            reader.results(1).ok().flatten()
        };
        assert!(read_results().is_some(), "sound results are read");
        for path in [RESULTS, INDEX] {
            let sound = memory.bytes(path);
            let used = sound.iter().rposition(|byte| *byte != 0).expect("not empty") + 1;
            let overhead = OVERHEAD + 4 * SCAN_BYTES + 8 * BORSH_BYTES;
            for at in 0..used {
                for mask in [0x01, 0x80, 0xff] {
                    let mut bytes = sound.clone();
                    bytes[at] ^= mask;
                    memory.put(path, &bytes);
                    bound(path, "a changed byte", allocated(read_results).0, sound.len(), overhead);
                }
            }
            memory.put(path, &sound);
        }
        let sound = memory.bytes(RESULTS);
        for claim in CLAIMS {
            for at in (24..28).step_by(4).chain(64..sound.len() - 3) {
                let mut bytes = sound.clone();
                bytes[at..at + 4].copy_from_slice(&claim.to_le_bytes());
                seal_results(&mut bytes, sound.len());
                memory.put(RESULTS, &bytes);
                let overhead = OVERHEAD + 4 * SCAN_BYTES + 8 * BORSH_BYTES;
                bound(RESULTS, "a claim", allocated(read_results).0, sound.len(), overhead);
            }
        }
    });
}

/// Proofs that a client reads from a node it does not trust.
#[test]
fn attack_08_proofs_allocate_what_they_are() {
    alone("allocation", "attack_08_proofs_allocate_what_they_are", || {
        let state =
            crate::chain::State::from([(b"a".to_vec(), b"1".to_vec()), (b"b".to_vec(), b"2".to_vec()), (b"c".to_vec(), b"3".to_vec())]);
        for key in [b"a".as_slice(), b"nothing"] {
            let bytes = crate::chain::prove(&state, key).to_bytes();
            attack("proof", &bytes, OVERHEAD, CommitmentProof::from_bytes);
        }
    });
}

/// Bodies of clients, through the server as it stands, of every kind that is dense: the server's buffers and both ends of the
/// socket are counted too.
#[test]
fn attack_45_requests_allocate_what_they_are() {
    /// Beside the body itself: JSON values of four bytes become pointers of sixteen, in lists that double, and each request of a
    /// batch has an answer.
    const PER_BYTE: usize = 96;
    /// Both ends of the connection, header and answer.
    const OVERHEAD: usize = 1 << 20;
    alone("allocation", "attack_45_requests_allocate_what_they_are", || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let (_node, _server, addr) = crate::node::Node::new(crate::chain::Chain::story()).serve().await;
            let mut http = crate::http::Http::connect(addr).await;
            let bytes_max = lockstep_rpc::Limits::default().body_bytes;
            let fill = |head: &str, unit: &str, tail: &str| {
                let count = (bytes_max - head.len() - tail.len()) / unit.len();
                format!("{head}{}{tail}", unit.repeat(count))
            };
            let bodies = [
                fill("[1", ",1", "]"),
                fill("[{}", ",{}", "]"),
                fill("[null", ",null", "]"),
                fill(r#"[{"id":1,"method":"health"}"#, r#",{"id":1,"method":"health"}"#, "]"),
                fill(r#"{"id":1,"method":"health","params":[1"#, ",1", "]}"),
                fill(r#"{"id":1,"method":"health","params":{"a":1"#, r#","a":1"#, "}}"),
                fill(r#"{"id":1,"method":"health","params":{"x":""#, "\\u0041", r#""}}"#),
                fill(r#"{"id":1,"method":""#, "\\n", r#""}"#),
                fill(r#"{"id":""#, "x", r#"","method":"health"}"#),
                fill(r#"{"id":1,"method":"check_tx","params":{"tx":""#, "QUFB", r#""}}"#),
                fill("", "[", ""),
                fill("", " ", ""),
            ];
            for body in bodies {
                let region = Region::new(ALLOCATOR);
                let reply = http.post(body.as_bytes()).await;
                let stats = region.change();
                let taken = stats.bytes_allocated + usize::try_from(stats.bytes_reallocated.max(0)).expect("not negative");
                let bound = PER_BYTE * body.len() + OVERHEAD;
                assert!(taken <= bound, "{}...: {taken} bytes for {}, {} back", &body[..body.len().min(30)], body.len(), reply.body.len());
            }
        });
    });
}

/// The text of a transaction of the bundled application.
#[test]
fn attack_08_transactions_allocate_what_they_are() {
    alone("allocation", "attack_08_transactions_allocate_what_they_are", || {
        let host = lockstep_app::Host::new(Arc::new(Kv));
        let (_, state, _) = start(&genesis(4));
        for good in ["key=value", "a:b"] {
            attack("transaction", good.as_bytes(), OVERHEAD, |bytes| {
                let verdict = host.check_tx(&state, bytes, lockstep_app::CheckKind::New);
                if verdict.code == 0 { Ok(()) } else { Err(verdict.log) }
            });
        }
    });
}
