//! Bytes of clients, and of a node that a client does not trust.

use std::fmt::Debug;
use std::sync::{Arc, OnceLock};

use lockstep_app::kv::Kv;
use lockstep_app::token::Token;
use lockstep_app::{CheckKind, Host, State};
use lockstep_genesis::{GenesisDraft, GenesisValidator};
use lockstep_replica::recovery::genesis_state;
use lockstep_rpc::json;
use lockstep_rpc::server::probe;
use lockstep_types::state_tree::Proof;
use lockstep_types::state_tree::ics23::CommitmentProof;
use lockstep_types::{AppHash, ChainId, ConsensusParams, Hash, Power, PrivateKey, Time, block, commit, merkle};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Meter, OVERHEAD, PER_BYTE, bounded, canonical, same_meaning};

/// JSON values of two bytes become pointers of sixteen, in lists that double, and each call of a batch has a reply. Each call
/// reads all its arguments in five ways.
const PER_BYTE_JSON: usize = 512;

/// A reply is JSON on its own, with the id as it came.
fn check_reply(asked: &probe::Asked) {
    let reply: Value = serde_json::from_str(&asked.reply).expect("a reply is JSON");
    let id: Value = serde_json::from_str(&asked.id).expect("an id is JSON");
    assert_eq!(reply["id"], id, "the id goes back");
    assert!(reply.get("result").is_some() != reply.get("error").is_some(), "a reply is a result or an error");
}

/// Bodies of `POST /` and frames of the WebSocket.
pub(super) fn rpc_body(bytes: &[u8], meter: Meter) {
    if let Ok(asked) = bounded(bytes.len(), PER_BYTE_JSON, OVERHEAD, meter, || probe::body(bytes)) {
        // An id may be a number beyond what a float holds; it goes back as text, which is compared then.
        for asked in asked {
            if serde_json::from_str::<Value>(&asked.id).is_ok() {
                check_reply(&asked);
            }
            assert!(asked.reply.contains(&asked.id), "the id goes back as it came");
        }
    }
}

/// A request target, or the head of a connection, in pieces as long as the first byte says.
pub(super) fn rpc_query(bytes: &[u8], meter: Meter) {
    let Some((piece, rest)) = bytes.split_first() else { return };
    let whole = bounded(rest.len(), PER_BYTE, OVERHEAD, meter, || probe::escaped([rest]));
    assert!(probe::escaped(rest.chunks(usize::from(*piece).max(1))) == whole, "how the network cuts it changes nothing");
    let Ok(text) = std::str::from_utf8(rest) else { return };
    let (method, query) = text.split_once('?').unwrap_or((text, ""));
    if let Some(asked) = bounded(rest.len(), PER_BYTE_JSON, OVERHEAD, meter, || probe::query(method, query)) {
        check_reply(&asked);
    }
}

fn answered<T: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8], meter: Meter) -> Option<T> {
    same_meaning(
        bytes,
        PER_BYTE_JSON,
        OVERHEAD,
        meter,
        |bytes| serde_json::from_slice::<T>(bytes),
        |value| serde_json::to_vec(value).expect("what was read is written"),
    )
}

/// Answers of a node, as the client reads them; the first byte says which. What they convert to is never more than they say.
pub(super) fn rpc_answer(bytes: &[u8], meter: Meter) {
    let Some((which, bytes)) = bytes.split_first() else { return };
    match which % 15 {
        0 => drop(answered::<json::Status>(bytes, meter)),
        1 => drop(answered::<json::NetInfo>(bytes, meter)),
        2 => drop(answered::<json::BlockAnswer>(bytes, meter)),
        3 => {
            if let Some(answer) = answered::<json::HeaderAnswer>(bytes, meter) {
                let _ = answer.header.as_ref().map(|header| block::Header::try_from(header).map(|header| header.hash()));
            }
        }
        4 => {
            if let Some(answer) = answered::<json::CommitAnswer>(bytes, meter) {
                let _ = commit::Commit::try_from(&answer.signed_header.commit);
                let _ = block::Header::try_from(&answer.signed_header.header).map(|header| header.hash());
            }
        }
        5 => drop(answered::<json::Blockchain>(bytes, meter)),
        6 => drop(answered::<json::BlockResults>(bytes, meter)),
        7 => {
            if let Some(answer) = answered::<json::Validators>(bytes, meter) {
                let _ = json::validator_set(&answer.validators).map(|set| set.hash());
            }
        }
        8 => drop(answered::<json::ConsensusParamsAnswer>(bytes, meter)),
        9 => {
            if let Some(answer) = answered::<json::TxAnswer>(bytes, meter)
                && let Some(proof) = &answer.proof
            {
                let _ = merkle::Proof::try_from(&proof.proof).map(|proof| proof.verify(&Hash([7; 32]), b"leaf"));
            }
        }
        10 => drop(answered::<json::Response<json::AbciQuery>>(bytes, meter)),
        11 => drop(answered::<json::Broadcast>(bytes, meter)),
        12 => drop(answered::<json::BroadcastCommit>(bytes, meter)),
        13 => drop(answered::<json::GenesisChunk>(bytes, meter)),
        _ => drop(answered::<json::UnconfirmedTxs>(bytes, meter)),
    }
}

/// Proofs of presence and absence, in ICS-23's form and in ours. A root that nobody knows the inside of has none.
pub(super) fn proof(bytes: &[u8], meter: Meter) {
    let root = Hash([7; 32]);
    if let Some(proof) = canonical(bytes, OVERHEAD, meter, CommitmentProof::from_bytes, CommitmentProof::to_bytes) {
        assert!(proof.verify(&root, b"key", None).is_err() && proof.verify(&root, b"key", Some(b"value")).is_err());
        match &proof {
            CommitmentProof::Exist(existence) => assert!(proof.verify(&root, &existence.key, Some(&existence.value)).is_err()),
            CommitmentProof::Nonexist { key, .. } => assert!(proof.verify(&root, key, None).is_err()),
        }
    }
    if let Some(proof) = canonical(bytes, OVERHEAD, meter, Proof::from_bytes, Proof::to_bytes) {
        assert!(proof.verify(&root, b"key", None).is_err() && proof.verify(&root, b"key", Some(b"value")).is_err());
    }
}

/// Transactions of the bundled applications, and those that are the node's.
pub(super) fn transaction(bytes: &[u8], meter: Meter) {
    static HOSTS: OnceLock<[(Host, State); 2]> = OnceLock::new();
    let hosts = HOSTS.get_or_init(|| {
        let public_key = PrivateKey::from_seed(&[1; 32]).public_key();
        let token = format!(r#"{{"token":{{"accounts":[{{"address":"{}","balance":"1000"}}]}}}}"#, public_key.address());
        let validator = GenesisValidator { public_key, power: Power::new(10).expect("small"), name: String::new() };
        let draft = |app_state: &str| GenesisDraft {
            genesis_time: Time::new(1_767_323_045, 0).expect("a time"),
            chain_id: ChainId::new("test-chain").expect("a name"),
            consensus_params: ConsensusParams::default(),
            validators: vec![validator.clone()],
            app_hash: AppHash::default(),
            app_state: app_state.into(),
        };
        let begun = |host: Host, app_state: &str| {
            let (_, state, _) = genesis_state(&host, &draft(app_state).check().expect("a genesis")).expect("a state");
            (host, state)
        };
        [begun(Host::new(Arc::new(Kv)), r#"{"membership":{"admission":"open"}}"#), begun(Host::new(Arc::new(Token::new())), &token)]
    });
    for (host, state) in hosts {
        let verdicts = [CheckKind::New, CheckKind::Recheck]
            .map(|kind| bounded(bytes.len(), PER_BYTE, OVERHEAD, meter, || host.check_tx(state, bytes, kind)));
        // What was refused is never looked at again, and what was let in need not show its signature twice.
        assert!(verdicts[0].code != 0 || verdicts[1].code == 0, "nothing changed between the two");
    }
}
