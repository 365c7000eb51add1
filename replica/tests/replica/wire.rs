//! The bytes between replicas: pinned, canonical, and harmless whatever a peer makes of them.

use lockstep_replica::wire::{
    ANSWER_BYTES_MAX, Answer, BITS_MAX, Bits, FRAME_BYTES_MAX, GOSSIP_BYTES_MAX, LIGHT_MAX, Message, QUESTION_BYTES_MAX, Question,
    SNAPSHOTS_MAX, TXS_MAX, TxBatch, VOTES_MAX, VoteBatch, WHOLE_PARTS_MAX,
};
use lockstep_types::codec::DecodeError;
use proptest::prelude::*;

use crate::examples::{answers, light, messages, questions};
use crate::support::*;

type Decode = fn(&[u8]) -> Result<Vec<u8>, DecodeError>;

/// Decoders that give back what the value is encoded as again.
fn message(bytes: &[u8]) -> Result<Vec<u8>, DecodeError> {
    Message::decode(bytes).map(|message| message.encode().to_vec())
}

fn gossip(bytes: &[u8]) -> Result<Vec<u8>, DecodeError> {
    Message::decode_gossip(bytes).map(|message| message.encode().to_vec())
}

fn question(bytes: &[u8]) -> Result<Vec<u8>, DecodeError> {
    Question::decode(bytes).map(|question| question.encode().to_vec())
}

fn answer(bytes: &[u8]) -> Result<Vec<u8>, DecodeError> {
    Answer::decode(bytes).map(|answer| answer.encode().to_vec())
}

/// Every example, encoded, with the decoder it is meant for.
fn encoded() -> Vec<(String, Vec<u8>, Decode)> {
    let messages = messages().into_iter().map(|(name, value, _)| (format!("message {name}"), value.encode().to_vec(), message as Decode));
    let questions =
        questions().into_iter().map(|(name, value, _)| (format!("question {name}"), value.encode().to_vec(), question as Decode));
    let answers = answers().into_iter().map(|(name, value, _)| (format!("answer {name}"), value.encode().to_vec(), answer as Decode));
    messages.chain(questions).chain(answers).collect()
}

#[test]
fn the_bytes_are_those_of_the_document() {
    for (name, value, golden) in messages() {
        assert_eq!(hex::encode(value.encode()), format!("01{golden}"), "message {name}");
        assert_eq!(Message::decode(&value.encode()), Ok(value), "message {name}");
    }
    for (name, value, golden) in questions() {
        assert_eq!(hex::encode(value.encode()), format!("01{golden}"), "question {name}");
        assert_eq!(Question::decode(&value.encode()), Ok(value), "question {name}");
    }
    for (name, value, golden) in answers() {
        assert_eq!(hex::encode(value.encode()), format!("01{golden}"), "answer {name}");
        assert_eq!(Answer::decode(&value.encode()), Ok(value), "answer {name}");
    }
}

/// A new kind of message must have an example: this match does not compile without it.
#[test]
fn every_kind_has_an_example() {
    let kind = |message: &Message| match message {
        Message::Status(_) => 1,
        Message::Proposal { .. } => 2,
        Message::Part { .. } => 3,
        Message::Vote(_) => 4,
        Message::Votes(_) => 5,
        Message::Polka(_) => 6,
        Message::Commit(_) => 7,
        Message::Have(_) => 8,
        Message::Txs(_) => 9,
        Message::Evidence(_) => 10,
        Message::HasEvidence(_) => 11,
        Message::Statement(_) => 12,
    };
    let kinds: std::collections::BTreeSet<u8> = messages().iter().map(|(_, message, _)| kind(message)).collect();
    assert_eq!(kinds, (1..=12).collect());
}

#[test]
fn every_changed_byte_is_refused_or_says_what_it_says() {
    for (name, bytes, decode) in encoded() {
        let mut taken = 0;
        for place in 0..bytes.len() {
            for change in 1..=255 {
                let mut changed = bytes.clone();
                changed[place] ^= change;
                if let Ok(again) = decode(&changed) {
                    assert_eq!(again, changed, "{name}: byte {place} changed by {change:02x} has two spellings");
                    taken += 1;
                }
                // The same bytes reach the decoders they are not meant for.
                for other in [message, gossip, question, answer] as [Decode; 4] {
                    if let Ok(again) = other(&changed) {
                        assert_eq!(again, changed, "{name}: byte {place} changed by {change:02x}");
                    }
                }
            }
        }
        // Behind version and tag: a question without fields has nothing else.
        assert!(taken > 0 || bytes.len() == 2, "{name}: some bytes carry any value");
    }
}

#[test]
fn every_cut_and_every_byte_too_many_is_refused() {
    for (name, bytes, decode) in encoded() {
        for len in 0..bytes.len() {
            assert!(decode(&bytes[..len]).is_err(), "{name}: its first {len} bytes");
        }
        for more in 0..=255 {
            let mut longer = bytes.clone();
            longer.push(more);
            assert!(decode(&longer).is_err(), "{name}: and {more:02x}");
        }
    }
}

#[test]
fn another_version_is_named() {
    for (name, mut bytes, decode) in encoded() {
        bytes[0] = 2;
        assert_eq!(decode(&bytes), Err(DecodeError::Version { found: Some(2), expected: 1 }), "{name}");
    }
}

#[test]
fn lists_are_bounded() {
    let votes = |n: usize| Message::Votes(VoteBatch(vec![vote(); n])).encode();
    assert!(votes(VOTES_MAX).len() <= FRAME_BYTES_MAX, "a full batch fits a frame");
    assert!(Message::decode(&votes(VOTES_MAX)).is_ok());
    assert!(Message::decode(&votes(VOTES_MAX + 1)).is_err());
    let empty_txs = |n: usize| Message::Txs(TxBatch(vec![[].into(); n])).encode();
    assert!(Message::decode(&empty_txs(TXS_MAX)).is_ok());
    assert!(Message::decode(&empty_txs(TXS_MAX + 1)).is_err());
    let signed = |n: usize| Answer::Signed(vec![vote(); n], vec![proposal(); n]).encode();
    assert!(Answer::decode(&signed(VOTES_MAX)).is_ok());
    assert!(Answer::decode(&signed(VOTES_MAX + 1)).is_err());
    let parts = |n: u32| Answer::Parts(vec![part(); n as usize]).encode();
    assert!(Answer::decode(&parts(WHOLE_PARTS_MAX)).is_ok());
    assert!(Answer::decode(&parts(WHOLE_PARTS_MAX + 1)).is_err());
    assert_eq!(WHOLE_PARTS_MAX, 64, "the document's figure");
    let offers = |n: usize| Answer::Snapshots(vec![height(5); n]).encode();
    assert!(Answer::decode(&offers(SNAPSHOTS_MAX)).is_ok());
    assert!(Answer::decode(&offers(SNAPSHOTS_MAX + 1)).is_err());
    let light = |n: usize| Answer::Light(vec![light(); n]).encode();
    assert!(Answer::decode(&light(LIGHT_MAX)).is_ok());
    assert!(Answer::decode(&light(LIGHT_MAX + 1)).is_err());
    assert_eq!((SNAPSHOTS_MAX, LIGHT_MAX), (16, 64), "the document's figures");
}

#[test]
fn a_frame_a_batch_a_question_and_an_answer_have_a_length() {
    let too_long = |len: usize, max: usize| Err(DecodeError::TooLong { len, max });
    assert_eq!(message(&vec![1; FRAME_BYTES_MAX + 1]), too_long(FRAME_BYTES_MAX + 1, FRAME_BYTES_MAX));
    assert_eq!(gossip(&vec![1; GOSSIP_BYTES_MAX + 1]), too_long(GOSSIP_BYTES_MAX + 1, GOSSIP_BYTES_MAX));
    assert_eq!(question(&vec![1; QUESTION_BYTES_MAX + 1]), too_long(QUESTION_BYTES_MAX + 1, QUESTION_BYTES_MAX));
    assert_eq!(answer(&vec![1; ANSWER_BYTES_MAX + 1]), too_long(ANSWER_BYTES_MAX + 1, ANSWER_BYTES_MAX));
    // The document's figures.
    assert_eq!((FRAME_BYTES_MAX, GOSSIP_BYTES_MAX, QUESTION_BYTES_MAX, ANSWER_BYTES_MAX), (69_632, 1_048_576, 20_480, 105_906_176));
}

#[test]
fn by_gossip_only_transactions_travel() {
    for (name, value, _) in messages() {
        let is_txs = matches!(value, Message::Txs(_));
        assert_eq!(Message::decode_gossip(&value.encode()).is_ok(), is_txs, "{name}");
    }
    let large = Message::Txs(TxBatch(vec![vec![7; GOSSIP_BYTES_MAX - 32].into()]));
    assert_eq!(Message::decode_gossip(&large.encode()), Ok(large));
}

proptest! {
    /// The set that was put in is the set that comes out, and one set has one spelling.
    #[test]
    fn bits_are_a_set(numbers in prop::collection::btree_set(0usize..BITS_MAX + 40, 0..40)) {
        let bits = Bits::of(numbers.iter().copied());
        for number in 0..BITS_MAX + 64 {
            prop_assert_eq!(bits.contains(number), number < BITS_MAX && numbers.contains(&number));
        }
        let bytes = borsh::to_vec(&bits).unwrap();
        prop_assert_eq!(&borsh::from_slice::<Bits>(&bytes).unwrap(), &bits);
        let mut padded = bytes.clone();
        padded.push(0);
        let len = u32::try_from(padded.len() - 4).unwrap();
        padded[..4].copy_from_slice(&len.to_le_bytes());
        prop_assert!(borsh::from_slice::<Bits>(&padded).is_err(), "trailing zero bytes are another spelling");
    }

    /// Whatever arrives, nothing panics.
    #[test]
    fn any_bytes_are_survived(tag in 0u8..12, rest in prop::collection::vec(any::<u8>(), 0..300)) {
        let bytes: Vec<u8> = [1, tag].into_iter().chain(rest).collect();
        for decode in [message, gossip, question, answer] as [Decode; 4] {
            if let Ok(again) = decode(&bytes) {
                prop_assert_eq!(&again, &bytes);
            }
        }
    }
}
