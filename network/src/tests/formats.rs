//! The frozen bytes, and what is not one of them.

use bytes::Bytes;

use crate::handshake::{Handshake, Hello, OPENING_VERSION, Opening, Refusal, ValidatorBinding, binding_message};
use crate::identity::{AddressError, NodeId, PeerAddr};
use crate::limits::{FRAME_LENGTH_MAX, FRAME_PAYLOAD_BYTES_MAX, OPENING_BYTES_MAX};
use crate::wire::{Frame, FrameBuffer, FrameError, HEARTBEAT, put_frame};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn hello() -> Hello {
    let handshake = Handshake {
        wire_version: 3,
        chain_id: "ab".to_owned(),
        genesis_hash: [0x11; 32],
        block_protocol: 11,
        node_version: "v".to_owned(),
        moniker: "m".to_owned(),
        rpc_address: "r:1".to_owned(),
        listen_address: String::new(),
        validator: Some(ValidatorBinding { public_key: [0x22; 32], signature: [0x33; 64] }),
    };
    Hello { handshake, instance: 0x0102_0304_0506_0708 }
}

#[test]
fn the_opening_messages_are_these_bytes() {
    let votes = [
        "01",               // layout
        "00",               // votes lane
        "03000000",         // wire version
        "020000006162",     // chain id
        &"11".repeat(32),   // genesis hash
        "0b00000000000000", // block protocol
        "0100000076",       // node version
        "010000006d",       // moniker
        "03000000723a31",   // rpc address
        "00000000",         // listen address
        "01",               // a validator binding follows
        &"22".repeat(32),   // its key
        &"33".repeat(64),   // its signature
        "0807060504030201", // instance
    ];
    assert_eq!(hex(&Opening::Votes(Box::new(hello())).encode()), votes.concat());
    assert_eq!(hex(&Opening::Bulk.encode()), "0101");
}

#[test]
fn the_binding_message_is_these_bytes() {
    let message = binding_message("ab", &[0x11; 32], &[0x44; 32]);
    let tag = hex(b"lockstep/validator-binding/1");
    assert_eq!(hex(&message), ["00", &tag, "020000006162", &"11".repeat(32), &"44".repeat(32)].concat());
}

/// The id of an ed25519 key: of RFC 8032, test 1, computed with another program (`sha256sum`).
#[test]
fn a_node_id_is_the_head_of_the_hash_of_the_key() {
    let key = [
        0xd7, 0x5a, 0x98, 0x01, 0x82, 0xb1, 0x0a, 0xb7, 0xd5, 0x4b, 0xfe, 0xd3, 0xc9, 0x64, 0x07, 0x3a, 0x0e, 0xe1, 0x72, 0xf3, 0xda, 0xa6,
        0x23, 0x25, 0xaf, 0x02, 0x1a, 0x68, 0xf7, 0x07, 0x51, 0x1a,
    ];
    assert_eq!(NodeId::of_public_key(&key).to_string(), "21fe31dfa154a261626bf854046fd2271b7bed4b");
}

#[test]
fn refusals_have_their_bytes() {
    let codes: Vec<_> = Refusal::ALL.into_iter().map(Refusal::code).collect();
    assert_eq!(codes, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    for code in 0..=u8::MAX {
        assert_eq!(Refusal::from_code(code).map(Refusal::code), (1..=9).contains(&code).then_some(code));
    }
}

/// Whatever decodes is the one encoding of what it decodes to: no two byte strings mean the same.
fn check_canonical(bytes: &[u8]) {
    match Opening::decode(bytes) {
        Ok(opening) => assert_eq!(opening.encode(), bytes),
        Err(refusal) => assert!(matches!(refusal, Refusal::Malformed | Refusal::WireVersion)),
    }
}

#[test]
fn a_damaged_opening_is_refused_or_is_another_canonical_one() {
    for good in [Opening::Votes(Box::new(hello())), Opening::Bulk] {
        let bytes = good.encode();
        assert_eq!(Opening::decode(&bytes), Ok(good.clone()));
        for cut in 0..bytes.len() {
            assert_eq!(Opening::decode(&bytes[..cut]), Err(Refusal::Malformed), "cut at {cut}");
        }
        for at in 0..bytes.len() {
            for value in 0..=u8::MAX {
                let mut damaged = bytes.clone();
                damaged[at] = value;
                check_canonical(&damaged);
                let same = value == bytes[at];
                assert_eq!(Opening::decode(&damaged) == Ok(good.clone()), same, "byte {at} = {value} passes for the original");
                if at == 0 && !same {
                    assert_eq!(Opening::decode(&damaged), Err(Refusal::WireVersion));
                }
            }
        }
        for extra in [0, 1, 255] {
            let longer: Vec<_> = bytes.iter().copied().chain([extra]).collect();
            assert_eq!(Opening::decode(&longer), Err(Refusal::Malformed));
        }
    }
}

#[test]
fn texts_of_a_handshake_are_bounded_and_printable() {
    let spoil: [fn(&mut Handshake); 8] = [
        |h| h.chain_id = String::new(),
        |h| h.chain_id = "c".repeat(51),
        |h| h.moniker = "m".repeat(65),
        |h| h.node_version = "v".repeat(65),
        |h| h.rpc_address = "r".repeat(256),
        |h| h.listen_address = "l".repeat(256),
        |h| h.moniker = "two\nlines".to_owned(),
        |h| h.moniker = "\u{1b}[31m".to_owned(),
    ];
    for spoil in spoil {
        let mut hello = hello();
        spoil(&mut hello.handshake);
        assert_eq!(Opening::decode(&Opening::Votes(Box::new(hello)).encode()), Err(Refusal::Malformed));
    }
    let mut longest = hello();
    longest.handshake.chain_id = "c".repeat(50);
    longest.handshake.moniker = "m".repeat(64);
    longest.handshake.node_version = "v".repeat(64);
    longest.handshake.rpc_address = "r".repeat(255);
    longest.handshake.listen_address = "l".repeat(255);
    let longest = Opening::Votes(Box::new(longest));
    assert!(longest.encode().len() <= OPENING_BYTES_MAX);
    assert_eq!(Opening::decode(&longest.encode()), Ok(longest));
}

/// Feeds `wire` in pieces of `step` bytes, and returns every frame, up to the first error.
fn frames_of(wire: &[u8], step: usize) -> (Vec<Frame>, Option<FrameError>) {
    let mut buffer = FrameBuffer::new();
    let mut frames = Vec::new();
    let mut rest = wire;
    while !rest.is_empty() {
        let space = buffer.space();
        assert!(!space.is_empty(), "a buffer without room would look like the end of the stream");
        let count = rest.len().min(step).min(space.len());
        space[..count].copy_from_slice(&rest[..count]);
        buffer.filled(count);
        rest = &rest[count..];
        loop {
            match buffer.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
    }
    (frames, None)
}

#[test]
fn frames_come_out_as_they_went_in_however_they_are_cut() {
    let payloads: Vec<Vec<u8>> = [1, 2, 250, FRAME_PAYLOAD_BYTES_MAX, 1, FRAME_PAYLOAD_BYTES_MAX - 1, FRAME_PAYLOAD_BYTES_MAX, 77]
        .iter()
        .map(|len| vec![u8::try_from(len % 251).expect("small"); *len])
        .collect();
    let mut wire = HEARTBEAT.to_vec();
    payloads.iter().for_each(|payload| put_frame(payload, &mut wire));
    let expected: Vec<_> =
        std::iter::once(Frame::Heartbeat).chain(payloads.into_iter().map(|payload| Frame::Payload(Bytes::from(payload)))).collect();
    for step in [1, 3, 4096, 65_536, usize::MAX] {
        assert_eq!(frames_of(&wire, step), (expected.clone(), None), "in steps of {step}");
    }
}

#[test]
fn a_frame_is_these_bytes() {
    let mut wire = Vec::new();
    put_frame(b"vote", &mut wire);
    assert_eq!(hex(&wire), "0500000001766f7465");
    assert_eq!(hex(&HEARTBEAT), "0100000000");
}

#[test]
fn what_is_no_frame_is_refused_by_its_head() {
    let too_long = u32::try_from(FRAME_LENGTH_MAX + 1).expect("fits");
    let cases = [
        (0_u32.to_le_bytes().to_vec(), FrameError::Zero),
        (too_long.to_le_bytes().to_vec(), FrameError::TooLong(too_long)),
        (u32::MAX.to_le_bytes().to_vec(), FrameError::TooLong(u32::MAX)),
        (vec![1, 0, 0, 0, 2], FrameError::Kind(2)),
        (vec![2, 0, 0, 0, 255, 0], FrameError::Kind(255)),
        (vec![2, 0, 0, 0, 0, 9], FrameError::Body),
        (vec![1, 0, 0, 0, 1], FrameError::Body),
    ];
    for (wire, error) in cases {
        let mut after_a_good_one = HEARTBEAT.to_vec();
        after_a_good_one.extend_from_slice(&wire);
        assert_eq!(frames_of(&after_a_good_one, 1), (vec![Frame::Heartbeat], Some(error)));
    }
}

#[test]
fn addresses_of_peers_are_read_as_they_are_written() {
    let id = "21fe31dfa154a261626bf854046fd2271b7bed4b";
    for host_port in ["127.0.0.1:26656", "node0.example:1", "[::1]:65535"] {
        let text = format!("{id}@{host_port}");
        let address: PeerAddr = text.parse().expect("an address");
        assert_eq!(address.to_string(), text);
        assert_eq!(address.host_port(), host_port);
    }
    let upper = id.to_uppercase();
    assert_eq!(upper.parse::<NodeId>(), Err(AddressError::NodeId(upper.clone())));
    assert!(id[1..].parse::<NodeId>().is_err());
    assert!(format!("{id}0").parse::<NodeId>().is_err());
    for wrong in [
        "",
        "@",
        "127.0.0.1:1",
        &format!("{id}@"),
        &format!("{id}@host"),
        &format!("{id}@host:0"),
        &format!("{id}@host:65536"),
        &format!("{id}@:1"),
        &format!("{id}@::1:1"),
        &format!("{id}@[::1:1"),
        &format!("{upper}@host:1"),
    ] {
        assert!(wrong.parse::<PeerAddr>().is_err(), "{wrong:?} is no address");
    }
    assert_eq!(OPENING_VERSION, 1);
}
