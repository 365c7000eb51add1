//! The bytes that the log, the wire and the parts hash stand on, written by hand from `docs/format.md` and pinned.

use lockstep_types::commit::{CommitSig, SlotSignature};
use lockstep_types::evidence::{DuplicateVote, Evidence, LightClientAttack};
use lockstep_types::{
    Block, BlockId, Commit, ConsensusParams, Hash, Header, Part, Polka, Proposal, Round, Time, TxResult, Validator, Vote, VoteType, block,
    codec, domain,
};

use crate::support::*;

/// The layout of `docs/format.md`: integers little-endian, lists and texts behind a count of four bytes, options behind a
/// byte 0 or 1.
#[derive(Default)]
struct Hand(Vec<u8>);

impl Hand {
    fn byte(&mut self, byte: u8) -> &mut Self {
        self.0.push(byte);
        self
    }

    fn u32(&mut self, n: u32) -> &mut Self {
        self.raw(&n.to_le_bytes())
    }

    fn u64(&mut self, n: u64) -> &mut Self {
        self.raw(&n.to_le_bytes())
    }

    fn i64(&mut self, n: i64) -> &mut Self {
        self.raw(&n.to_le_bytes())
    }

    fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend(bytes);
        self
    }

    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.u32(u32::try_from(bytes.len()).unwrap()).raw(bytes)
    }

    fn list<T>(&mut self, elements: &[T], each: impl Fn(&mut Self, &T)) -> &mut Self {
        self.u32(u32::try_from(elements.len()).unwrap());
        elements.iter().for_each(|element| each(self, element));
        self
    }

    fn option<T>(&mut self, value: Option<&T>, each: impl Fn(&mut Self, &T)) -> &mut Self {
        match value {
            None => self.byte(0),
            Some(value) => {
                self.byte(1);
                each(self, value);
                self
            }
        }
    }

    fn time(&mut self, time: Time) -> &mut Self {
        self.i64(time.seconds()).u32(time.nanos())
    }

    fn block_id(&mut self, id: &BlockId) -> &mut Self {
        self.raw(&id.hash.0).u32(id.parts.total).raw(&id.parts.hash.0)
    }

    fn round_option(&mut self, round: Option<Round>) -> &mut Self {
        self.option(round.as_ref(), |hand, round| {
            hand.u32(round.get());
        })
    }

    fn block_option(&mut self, id: Option<&BlockId>) -> &mut Self {
        self.option(id, |hand, id| {
            hand.block_id(id);
        })
    }

    fn vote(&mut self, vote: &Vote) -> &mut Self {
        self.byte(match vote.kind {
            VoteType::Prevote => 1,
            VoteType::Precommit => 2,
        });
        self.u64(vote.height.get()).u32(vote.round.get()).block_option(vote.block_id.as_ref()).round_option(vote.valid_round);
        self.time(vote.timestamp).u32(vote.validator.get()).raw(&vote.signature.0)
    }

    fn proposal(&mut self, proposal: &Proposal) -> &mut Self {
        self.u64(proposal.height.get()).u32(proposal.round.get()).round_option(proposal.pol_round);
        self.block_id(&proposal.block_id).time(proposal.timestamp).raw(&proposal.signature.0)
    }

    fn slot(&mut self, slot: &SlotSignature) {
        self.raw(&slot.address.0).time(slot.timestamp).raw(&slot.signature.0);
    }

    fn commit(&mut self, commit: &Commit) -> &mut Self {
        self.u64(commit.height.get()).u32(commit.round.get()).block_id(&commit.block_id);
        self.list(&commit.signatures, |hand, sig| match sig {
            CommitSig::Absent => {
                hand.byte(1);
            }
            CommitSig::Commit(slot) => hand.byte(2).slot(slot),
            CommitSig::Nil(slot) => hand.byte(3).slot(slot),
        })
    }

    fn polka(&mut self, polka: &Polka) -> &mut Self {
        self.u64(polka.height.get()).u32(polka.round.get()).block_id(&polka.block_id).round_option(polka.valid_round);
        self.list(&polka.signatures, |hand, sig| {
            hand.u32(sig.validator.get()).time(sig.timestamp).raw(&sig.signature.0);
        })
    }

    fn header(&mut self, header: &Header) -> &mut Self {
        self.u64(header.version.block).u64(header.version.app).bytes(header.chain_id.as_str().as_bytes());
        self.u64(header.height.get()).time(header.time).block_option(header.last_block_id.as_ref());
        let hashes =
            [header.last_commit_hash, header.data_hash, header.validators_hash, header.next_validators_hash, header.consensus_hash];
        hashes.iter().for_each(|hash| {
            self.raw(&hash.0);
        });
        self.bytes(header.app_hash.as_bytes()).raw(&header.last_results_hash.0).raw(&header.evidence_hash.0);
        self.raw(&header.proposer_address.0)
    }

    fn validator(&mut self, validator: &Validator) {
        self.raw(&validator.public_key.0).u64(validator.power.get()).i64(validator.priority);
    }

    fn duplicate_vote(&mut self, evidence: &DuplicateVote) {
        self.vote(&evidence.vote_a).vote(&evidence.vote_b).raw(&evidence.address.0);
        self.u64(evidence.total_power.get()).u64(evidence.validator_power.get()).time(evidence.timestamp);
    }

    fn attack(&mut self, evidence: &LightClientAttack) {
        let block = &evidence.conflicting_block;
        let validators: Vec<Validator> = block.validators.iter().cloned().collect();
        self.header(&block.header).commit(&block.commit).list(&validators, Self::validator);
        self.u32(block.validators.proposer(Round::ZERO).get()).u64(evidence.common_height.get());
        self.list(&evidence.byzantine_validators, Self::validator).u64(evidence.total_power.get()).time(evidence.timestamp);
    }

    fn block(&mut self, block: &Block) -> &mut Self {
        self.header(&block.header);
        self.list(&block.txs, |hand, tx| {
            hand.bytes(&tx.0);
        });
        self.list(&block.evidence, |hand, evidence| match evidence {
            Evidence::DuplicateVote(evidence) => hand.byte(1).duplicate_vote(evidence),
            Evidence::LightClientAttack(evidence) => hand.byte(2).attack(evidence),
        });
        self.option(block.last_commit.as_ref(), |hand, commit| {
            hand.commit(commit);
        })
    }

    fn part(&mut self, part: &Part) -> &mut Self {
        self.u32(part.index).bytes(&part.bytes).list(&part.aunts, |hand, aunt| {
            hand.raw(&aunt.0);
        })
    }

    fn params(&mut self, params: &ConsensusParams) -> &mut Self {
        self.i64(params.block.max_bytes).i64(params.block.max_gas);
        self.u64(params.evidence.max_age_num_blocks).u64(params.evidence.max_age_duration_ns).u64(params.evidence.max_bytes);
        self.u64(params.app_version).u64(params.vote_extensions_enable_height);
        let timeouts = &params.timeouts;
        [params.synchrony.precision, params.synchrony.message_delay]
            .into_iter()
            .chain([timeouts.propose, timeouts.propose_delta, timeouts.propose_missed, timeouts.vote, timeouts.vote_delta, timeouts.cap])
            .chain([params.pace.min_block_interval, params.pace.empty_block_interval, params.pace.gather])
            .for_each(|millis| {
                self.u64(millis.0);
            });
        self
    }

    fn result(&mut self, result: &TxResult) -> &mut Self {
        self.u32(result.code).bytes(&result.data).bytes(result.log.as_bytes()).bytes(result.info.as_bytes());
        self.i64(result.gas_wanted).i64(result.gas_used);
        self.list(&result.events, |hand, event| {
            hand.bytes(event.kind.as_bytes()).list(&event.attributes, |hand, attribute| {
                hand.bytes(attribute.key.as_bytes()).bytes(attribute.value.as_bytes()).byte(u8::from(attribute.index));
            });
        });
        self.bytes(result.codespace.as_bytes())
    }
}

fn by_hand(write: impl FnOnce(&mut Hand) -> &mut Hand) -> Vec<u8> {
    let mut hand = Hand(vec![1]);
    write(&mut hand);
    hand.0
}

#[test]
fn layouts_are_as_written_down_and_pinned() {
    let set = set(&[40, 30, 20, 10]);
    let id = block_id("block");
    let prevote = vote(&set, 1, VoteType::Prevote, 5, 3, Some(id), Some(2));
    let nil = vote(&set, 1, VoteType::Precommit, 5, 3, None, None);
    let (proposal, commit, polka) = (proposal(Some(1)), commit(&set, &[0, 2], 5, id), polka(&set, &[0, 2], id, Some(1)));
    let part = block::cut(&vec![3; block::PART_BYTES + 9]).1.remove(1);
    let (params, result, block) = (ConsensusParams::default(), tx_result(), full_block());
    let validators: Vec<Validator> = set.iter().cloned().collect();
    let first = Block { header: Header { last_block_id: None, ..header() }, txs: vec![], evidence: vec![], last_commit: None };
    for (name, encoded, hand, pinned) in [
        ("prevote", codec::encode(1, &prevote), by_hand(|hand| hand.vote(&prevote)), "95D65FD5D3AB220F"),
        ("nil precommit", codec::encode(1, &nil), by_hand(|hand| hand.vote(&nil)), "2744044CFD4926CA"),
        ("proposal", codec::encode(1, &proposal), by_hand(|hand| hand.proposal(&proposal)), "6332DAA4DD033E76"),
        ("commit", codec::encode(1, &commit), by_hand(|hand| hand.commit(&commit)), "FC973FF15F7AE4F8"),
        ("polka", codec::encode(1, &polka), by_hand(|hand| hand.polka(&polka)), "73E93EED743CC01A"),
        ("part", codec::encode(1, &part), by_hand(|hand| hand.part(&part)), "7B8420D9E29F5310"),
        (
            "validator set",
            codec::encode(1, &set),
            by_hand(|hand| hand.list(&validators, Hand::validator).u32(set.proposer(Round::ZERO).get())),
            "68C9183DC0A8EF62",
        ),
        ("parameters", codec::encode(1, &params), by_hand(|hand| hand.params(&params)), "0078873E8AD86571"),
        ("result", codec::encode(1, &result), by_hand(|hand| hand.result(&result)), "DD55E513D74F5373"),
        ("body", block.encode(), by_hand(|hand| hand.block(&block)), "739A20696FE907E6"),
        ("first body", first.encode(), by_hand(|hand| hand.block(&first)), "EC807A00944D064C"),
    ] {
        assert_eq!(hex::encode(&encoded), hex::encode(&hand), "{name}");
        assert_eq!(Hash::of(&encoded).to_string()[..16], *pinned, "{name}");
    }
}

#[test]
fn the_bounds_of_bodies_are_frozen() {
    assert_eq!((block::BODY_VERSION, block::PART_BYTES, block::BODY_BYTES_MAX, block::PARTS_MAX), (1, 65_536, 104_857_600, 1_601));
    assert_eq!(domain::OWN_PREFIX, 0);
}
