//! The lies of the lanes: what is told to all peers, or to some.

use std::time::Duration;

use lockstep_mempool::TxBytes;
use lockstep_replica::wire::{Bits, Have, Message, Status, TxBatch, VoteBatch};
use lockstep_types::audit::SignedStatement;
use lockstep_types::block::{PARTS_MAX, Part};
use lockstep_types::commit::PolkaSig;
use lockstep_types::vote::vote_sign_bytes;
use lockstep_types::{
    ChainId, Commit, CommitSig, Hash, Height, PartSetHeader, Polka, PrivateKey, Round, Signature, Time, ValidatorIndex, Vote, VoteType,
};

use super::{Mind, Say, What, World, raw};
use crate::liars::{Act, Lie};
use crate::members::Ask;
use crate::plan::MS;
use crate::random::Stream;
use crate::schedule::Fault;

/// From whom, to whom, and at which place of its peers.
type Way = (usize, usize, usize);

impl World {
    /// What becomes of a frame under one lie.
    pub(super) fn twist(&mut self, mind: &mut Mind, act: Act, way: Way, say: Say) -> Vec<Say> {
        // What another lie has made of it may be no message any more.
        let Ok(message) = Message::decode(&say.bytes) else { return vec![say] };
        let (height, round) = place_of(&message);
        if !act.when.fires(height, round, &mut mind.dice) {
            return vec![say];
        }
        match self.say_instead(mind, act.lie, way, message, &say) {
            Some(said) => {
                self.liars.count(act.lie.name());
                said
            }
            None => vec![say],
        }
    }

    /// What is said instead of a message; none where it is said as it is.
    fn say_instead(&mut self, mind: &mut Mind, lie: Lie, (from, to, place): Way, message: Message, say: &Say) -> Option<Vec<Say>> {
        let half = place % 2 == 1;
        let instead = |bytes| Some(vec![say.with(bytes)]);
        let beside = |bytes| Some(vec![say.clone(), Say::now(bytes)]);
        let held_back = |after: u64| Some(vec![Say { after: say.after + after, ..say.clone() }]);
        match (lie, message) {
            (Lie::Withhold, Message::Vote(_) | Message::Proposal { .. }) if half => Some(Vec::new()),
            (Lie::Equivocate, Message::Vote(vote)) if half => {
                let block_id = if vote.block_id.is_some() { None } else { Some(Self::nowhere(mind)) };
                instead(self.signed_vote(from, Vote { block_id, valid_round: None, ..vote })?)
            }
            (Lie::TwoProposals, Message::Proposal { mut proposal, .. }) if half => {
                proposal.block_id = super::super::invented(u64::from(proposal.round.get()) + proposal.height.get() * 1_000);
                instead(self.signed_proposal(from, proposal, None)?)
            }
            (Lie::TwoBlocks, message @ (Message::Proposal { .. } | Message::Vote(_))) if half => {
                // A block of many parts has no second one.
                self.second_block(mind, from, message).map_or_else(|| Some(Vec::new()), instead)
            }
            (Lie::Echo, Message::Vote(_)) => Some(Vec::new()),
            (Lie::ForgeValidRound, Message::Vote(vote))
                if half && vote.kind == VoteType::Prevote && vote.block_id.is_some() && vote.round > Round::ZERO =>
            {
                let valid_round = if vote.valid_round.is_some() { None } else { Round::new(vote.round.get() - 1) };
                instead(self.signed_vote(from, Vote { valid_round, ..vote })?)
            }
            (Lie::Forget, Message::Vote(vote)) => {
                let (proposal, _) = mind.proposals.get(&(vote.height.get(), vote.round.get()))?;
                let value = (Some(proposal.block_id), None);
                let tells = value != vote.value();
                tells.then_some(())?;
                instead(self.signed_vote(from, Vote { block_id: value.0, valid_round: None, ..vote })?)
            }
            (Lie::ForgeProposalRound, Message::Proposal { mut proposal, first }) if half && proposal.round > Round::ZERO => {
                proposal.pol_round = if proposal.pol_round.is_some() { None } else { Round::new(proposal.round.get() - 1) };
                instead(self.signed_proposal(from, proposal, first)?)
            }
            (Lie::Invent, Message::Vote(vote)) => {
                let block_id = Some(Self::nowhere(mind));
                instead(self.signed_vote(from, Vote { block_id, valid_round: None, ..vote })?)
            }
            (Lie::FarRounds, Message::Vote(vote)) if half => {
                let round = after(vote.round, 1 + u32::try_from(mind.dice.below(4)).expect("small"));
                instead(self.signed_vote(from, Vote { round, block_id: None, valid_round: None, ..vote })?)
            }
            (Lie::HideParts, Message::Proposal { proposal, first: Some(_) }) if half => {
                instead(Message::Proposal { proposal, first: None }.encode())
            }
            (Lie::HideParts, Message::Part { .. }) if half => Some(Vec::new()),
            // The first peer has it in time, and may lock alone.
            (Lie::LateProposal, Message::Proposal { .. } | Message::Part { .. }) if place > 0 => {
                held_back(mind.dice.between(300 * MS, 1_200 * MS))
            }
            (Lie::HidePolka, Message::Polka(_)) => Some(Vec::new()),
            (Lie::HidePolka, Message::Vote(vote)) if vote.kind == VoteType::Prevote && place > 0 => Some(Vec::new()),
            (Lie::HidePolka, Message::Votes(batch)) => {
                let precommits: Vec<Vote> = batch.0.into_iter().filter(|vote| vote.kind == VoteType::Precommit).collect();
                instead(Message::Votes(VoteBatch(precommits)).encode())
            }
            (Lie::BadBlock, Message::Proposal { proposal, first }) => instead(self.bad_block(mind, from, &proposal, first.as_ref())?),
            (Lie::BadBlock | Lie::Timestamps, Message::Vote(vote))
                if vote.block_id.is_some_and(|id| mind.second_blocks.contains_key(&id)) =>
            {
                instead(self.second_block(mind, from, Message::Vote(vote))?)
            }
            (Lie::BadSignature, message) => instead(self.badly_signed(mind, (from, to), message)?.encode()),
            (Lie::Extremes, Message::Vote(vote)) => {
                let vote = extreme(vote, &mut mind.dice);
                beside(self.signed_vote(from, vote)?)
            }
            (Lie::Extremes, Message::Proposal { mut proposal, first }) => {
                proposal.round = *mind.dice.pick(&[Round::ZERO, Round::MAX, after(proposal.round, 1)]);
                proposal.pol_round = *mind.dice.pick(&[None, Some(Round::ZERO), Some(Round::MAX)]);
                proposal.block_id.parts.total = *mind.dice.pick(&[0, 1, PARTS_MAX, PARTS_MAX + 1, u32::MAX]);
                beside(self.signed_proposal(from, proposal, first)?)
            }
            (Lie::Replay, Message::Vote(_) | Message::Have(_) | Message::Proposal { .. }) if !mind.heard.is_empty() => {
                let place = mind.dice.place(mind.heard.len());
                let again = mind.heard[place].clone();
                beside(again)
            }
            (Lie::OutOfTurn, Message::Vote(vote)) => {
                let (proposal, first) = mind.proposals.get(&(vote.height.get(), vote.round.get()))?.clone();
                let round = if mind.dice.chance(500) { proposal.round } else { after(proposal.round, 1) };
                beside(self.signed_proposal(from, lockstep_types::Proposal { round, ..proposal }, first)?)
            }
            (Lie::ForgeParts, Message::Proposal { proposal, first: Some(part) }) => {
                let part = forged_part(part, &mut mind.dice);
                instead(Message::Proposal { proposal, first: Some(part) }.encode())
            }
            (Lie::ForgeParts, Message::Part { height, header, part }) => {
                let part = forged_part(part, &mut mind.dice);
                instead(Message::Part { height, header, part }.encode())
            }
            (Lie::ForgeParts, message @ (Message::Vote(_) | Message::Have(_))) => beside(forged_place(mind, &message)?.encode()),
            (Lie::LastMoment, Message::Vote(_)) => held_back(mind.dice.between(120 * MS, 450 * MS)),
            (Lie::NilOnly, Message::Vote(vote)) if vote.block_id.is_some() => {
                instead(self.signed_vote(from, Vote { block_id: None, valid_round: None, ..vote })?)
            }
            (Lie::Timestamps, Message::Vote(vote)) => {
                let timestamp = odd_time(vote.timestamp, &mut mind.dice);
                instead(self.signed_vote(from, Vote { timestamp, ..vote })?)
            }
            (Lie::Timestamps, Message::Proposal { proposal, first }) => {
                if mind.bad_blocks.contains_key(&proposal.block_id) || mind.dice.chance(500) {
                    return instead(self.untimely_block(mind, from, &proposal, first.as_ref())?);
                }
                let timestamp = odd_time(proposal.timestamp, &mut mind.dice);
                instead(self.signed_proposal(from, lockstep_types::Proposal { timestamp, ..proposal }, first)?)
            }
            (Lie::ForgeCertificates, Message::Vote(_) | Message::Have(_)) => beside(forged_certificate(mind)?.encode()),
            (Lie::PoisonHeights, Message::Have(have)) => {
                let status = poisoned(have.status, &mut mind.dice);
                instead(Message::Have(Have { status, ..have }).encode())
            }
            (Lie::PoisonHeights, Message::Status(status)) => instead(Message::Status(poisoned(status, &mut mind.dice)).encode()),
            (Lie::PoisonHeights, Message::Vote(vote)) => {
                let status = poisoned(Status { base: Height::FIRST, tip: vote.height }, &mut mind.dice);
                beside(Message::Status(status).encode())
            }
            (Lie::Spam, Message::Vote(_) | Message::Have(_)) => {
                let txs = self.spam(mind);
                // By gossip, or to this peer alone.
                let gossip = mind.dice.chance(500);
                Some(vec![say.clone(), Say { gossip, ..Say::now(Message::Txs(TxBatch(txs)).encode()) }])
            }
            (Lie::ForgeEvidence, Message::Vote(_) | Message::Have(_)) => {
                let forged = self.forged_evidence(mind, from);
                Some([say.clone()].into_iter().chain(forged.into_iter().map(Say::now)).collect())
            }
            (Lie::HideEvidence, Message::Evidence(_) | Message::HasEvidence(_)) => Some(Vec::new()),
            (Lie::VoteOutside, Message::Have(have)) if self.place_of(from, have.height.get()).is_none() => {
                let places: Vec<ValidatorIndex> = self.places_at(have.height.get()).into_iter().flatten().collect();
                let validator = *places.get(mind.dice.place(places.len().max(1)))?;
                let kind = if mind.dice.chance(500) { VoteType::Prevote } else { VoteType::Precommit };
                let block_id = mind.proposals.get(&(have.height.get(), have.round.get())).map(|(proposal, _)| proposal.block_id);
                let (height, round, timestamp) = (have.height, have.round, self.clocks(from).wall);
                let signature = Signature([0; 64]);
                let vote = Vote { kind, height, round, block_id, valid_round: None, timestamp, validator, signature };
                beside(self.signed_vote(from, vote)?)
            }
            (Lie::QuitInTurn, Message::Proposal { .. }) if mind.dice.chance(400) => {
                self.quits_soon(from);
                None
            }
            (Lie::QuitInTurn, Message::Vote(vote)) if half && mind.dice.chance(50) => {
                self.quits_soon(from);
                let block_id = if vote.block_id.is_some() { None } else { Some(Self::nowhere(mind)) };
                instead(self.signed_vote(from, Vote { block_id, valid_round: None, ..vote })?)
            }
            // Where there is nothing to hide, it is a liar like any other, now and then.
            (Lie::HideEvidence, Message::Vote(vote)) if half && mind.dice.chance(100) => {
                let block_id = if vote.block_id.is_some() { None } else { Some(Self::nowhere(mind)) };
                instead(self.signed_vote(from, Vote { block_id, valid_round: None, ..vote })?)
            }
            (Lie::FalseStatements, Message::Statement(signed)) => {
                let key = PrivateKey::from_seed(&self.machines[from].key.as_ref()?.seed());
                (signed.validator == key.public_key().address()).then_some(())?;
                // One content for all who are told a lie, or another one for each; of its own state, in its own name.
                let salt = if mind.dice.chance(500) { to as u64 + 1 } else { 0 };
                let mut statement = signed.statement.clone();
                let other = Hash::of([statement.height.get().to_le_bytes(), salt.to_le_bytes()].concat());
                match mind.dice.below(3) {
                    0 => statement.root = other.into(),
                    1 => statement.results = other,
                    _ => statement.rest = other,
                }
                let bytes = statement.sign_bytes(&self.genesis.chain_id, &self.genesis.hash());
                let mut said = SignedStatement { statement, signature: self.crypto.sign(&key, &bytes), ..signed };
                if mind.dice.chance(20) {
                    // In somebody else's name.
                    let other = mind.dice.place(self.plan.powers.len());
                    said.validator = self.machines[other].key.as_ref()?.public_key().address();
                }
                instead(Message::Statement(said).encode())
            }
            (Lie::Mutate, message) => instead(self.mutated(mind, from, message)?),
            (Lie::RawBytes, _) => {
                let bytes = raw::damage(&say.bytes, &mut mind.dice);
                // A transaction with a bit changed is another transaction.
                if let Ok(Message::Txs(batch)) = Message::decode(&bytes).or_else(|_| Message::decode_gossip(&bytes)) {
                    batch.0.iter().for_each(|tx| self.checks.submitted(tx));
                }
                instead(bytes)
            }
            _ => None,
        }
    }

    /// A liar asks to leave, at once.
    fn quits_soon(&mut self, node: usize) {
        // What was asked in the first run is in the list that a replay follows.
        if !self.follows && !self.healed && self.plan.members.is_some() {
            let ask = Fault::Ask { node, ask: Ask::Quit };
            self.first_at(self.now + 1, What::Strike(Box::new(ask)));
        }
    }

    /// A message whose signature is another's, or for something else.
    fn badly_signed(&mut self, mind: &mut Mind, (from, to): (usize, usize), message: Message) -> Option<Message> {
        let other_chain = ChainId::new("another").expect("it follows the rule");
        let stranger = PrivateKey::from_seed(&Hash::of(mind.dice.bits().to_le_bytes()).0);
        match message {
            Message::Vote(mut vote) => {
                match mind.dice.below(6) {
                    0 => vote.signature.0[mind.dice.place(64)] ^= 1 << mind.dice.below(8),
                    1 => vote.signature = self.forge(from, &vote.sign_bytes(&other_chain))?,
                    2 => {
                        let kind = if vote.kind == VoteType::Prevote { VoteType::Precommit } else { VoteType::Prevote };
                        let chain_id = &self.genesis.chain_id;
                        let bytes = vote_sign_bytes(kind, vote.height, vote.round, vote.block_id.as_ref(), None, vote.timestamp, chain_id);
                        vote.signature = self.forge(from, &bytes)?;
                    }
                    3 => vote.signature = stranger.sign(&vote.sign_bytes(&self.genesis.chain_id)),
                    // In the name of somebody, or of the very one who reads it.
                    4 => vote.validator = (*mind.dice.pick(&self.places_at(vote.height.get())))?,
                    _ => vote.validator = self.place_of(to, vote.height.get())?,
                }
                (Some(vote.validator) != self.place_of(from, vote.height.get()) || vote.signature.0 != self.true_signature(from, &vote)?.0)
                    .then_some(Message::Vote(vote))
            }
            Message::Proposal { mut proposal, first } => {
                match mind.dice.below(3) {
                    0 => proposal.signature.0[mind.dice.place(64)] ^= 1 << mind.dice.below(8),
                    1 => proposal.signature = self.forge(from, &proposal.sign_bytes(&other_chain))?,
                    _ => proposal.signature = stranger.sign(&proposal.sign_bytes(&self.genesis.chain_id)),
                }
                Some(Message::Proposal { proposal, first })
            }
            _ => None,
        }
    }

    fn true_signature(&mut self, from: usize, vote: &Vote) -> Option<Signature> {
        self.forge(from, &vote.sign_bytes(&self.genesis.chain_id))
    }

    /// Transactions that nobody asked for: many, large, the same again, of no form, and such as would change the validators.
    fn spam(&mut self, mind: &mut Mind) -> Vec<TxBytes> {
        const LARGE: usize = 70_000;
        let mut txs: Vec<Vec<u8>> = Vec::new();
        let valid = |mind: &mut Mind, value: String| {
            mind.txs += 1;
            format!("spam{}={value}", mind.txs).into_bytes()
        };
        match mind.dice.below(6) {
            0 => (0..mind.dice.between(1, 60)).for_each(|_| txs.push(valid(mind, "x".into()))),
            1 if mind.txs < 200 => txs.push(valid(mind, "x".repeat(LARGE))),
            2 => txs.extend((0..20).map(|_| b"spam0=again".to_vec())),
            3 => txs.extend([Vec::new(), b"=".to_vec(), b"no separator".to_vec(), vec![0xff; 300], b"a=b=c".to_vec()]),
            4 => txs.push(b"val=ed25519!AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=!1000000".to_vec()),
            _ => (0..mind.dice.between(1, 5)).for_each(|_| txs.push(vec![u8::try_from(mind.dice.below(256)).expect("a byte"); 40])),
        }
        // What has the form may come into a block; that it does not where it must not, the model says.
        txs.iter().filter(|tx| tx.starts_with(b"spam")).for_each(|tx| self.checks.submitted(tx));
        txs.into_iter().map(TxBytes::from).collect()
    }
}

/// The height and the round that a message belongs to.
fn place_of(message: &Message) -> (u64, Option<u32>) {
    let round = match message {
        Message::Vote(vote) => Some(vote.round),
        Message::Votes(batch) => batch.0.first().map(|vote| vote.round),
        Message::Proposal { proposal, .. } => Some(proposal.round),
        Message::Polka(polka) => Some(polka.round),
        Message::Commit(commit) => Some(commit.round),
        Message::Have(have) => Some(have.round),
        Message::Part { .. }
        | Message::Status(_)
        | Message::Txs(_)
        | Message::Evidence(_)
        | Message::HasEvidence(_)
        | Message::Statement(_) => None,
    };
    (message.height().get(), round.map(Round::get))
}

/// So many rounds later, if there are so many.
fn after(round: Round, by: u32) -> Round {
    round.get().checked_add(by).and_then(Round::new).unwrap_or(Round::MAX)
}

/// A vote at the end of a range.
fn extreme(mut vote: Vote, dice: &mut Stream) -> Vote {
    let height = vote.height;
    if dice.chance(600) {
        vote.height = *dice.pick(&[Height::ZERO, height.plus(1), height.plus(2), height.plus(1_000), Height::MAX.previous(), Height::MAX]);
    }
    if vote.height == height || dice.chance(300) {
        vote.round = *dice.pick(&[Round::ZERO, after(vote.round, 3), after(vote.round, 1_000), Round::MAX]);
    }
    if dice.chance(200) {
        vote.valid_round = Some(*dice.pick(&[Round::ZERO, Round::MAX]));
    }
    if dice.chance(200) {
        vote.validator = ValidatorIndex::from_position(*dice.pick(&[7, 200, 65_535]));
    }
    vote
}

/// A part that is not one of its body.
fn forged_part(mut part: Part, dice: &mut Stream) -> Part {
    match dice.below(4) {
        0 => part.index = *dice.pick(&[1, 2, PARTS_MAX, u32::MAX]),
        1 => part.aunts.push(Hash::of(dice.bits().to_le_bytes())),
        2 => part.bytes.truncate(dice.place(part.bytes.len().max(1))),
        _ => {
            let at = dice.place(part.bytes.len().max(1));
            if let Some(byte) = part.bytes.get_mut(at) {
                *byte ^= 1;
            }
        }
    }
    part
}

/// Numbers that mean nothing: sets beyond every list, indices that no validator has, parts of bodies that nobody named.
fn forged_place(mind: &mut Mind, message: &Message) -> Option<Message> {
    let dice = &mut mind.dice;
    let mut bits = || Bits::of((0..dice.between(1, 40)).map(|_| dice.place(1_601)).collect::<Vec<_>>());
    let (all, some) = (bits(), bits());
    match message {
        Message::Vote(vote) if dice.chance(400) => {
            let validator = ValidatorIndex::from_position(*dice.pick(&[7, 63, 9_999, 65_535]));
            Some(Message::Vote(Vote { validator, ..vote.clone() }))
        }
        Message::Vote(vote) if dice.chance(500) => {
            let header = PartSetHeader { total: *dice.pick(&[0, 1, 2, PARTS_MAX, u32::MAX]), hash: Hash::of(dice.bits().to_le_bytes()) };
            let part = Part { index: *dice.pick(&[0, 1, u32::MAX]), bytes: vec![7; dice.place(100)], aunts: Vec::new() };
            Some(Message::Part { height: vote.height, header, part })
        }
        Message::Vote(vote) => {
            let status = Status { base: Height::FIRST, tip: vote.height.previous() };
            let (height, round) = (vote.height, vote.round);
            let step = u8::try_from(dice.below(256)).expect("a byte");
            let missing_polka = Some(*dice.pick(&[Round::ZERO, Round::MAX]));
            let (proposal, polka) = (dice.chance(500), dice.chance(500));
            Some(Message::Have(Have {
                status,
                height,
                round,
                step,
                proposal,
                polka,
                parts: all.clone(),
                prevotes: all,
                precommits: some,
                missing_polka,
            }))
        }
        Message::Have(have) => Some(Message::Have(Have { parts: all.clone(), prevotes: all, precommits: some, ..have.clone() })),
        _ => None,
    }
}

/// A certificate made of votes that were heard, with something wrong in it.
fn forged_certificate(mind: &mut Mind) -> Option<Message> {
    let (_, votes) = mind.votes.iter().next_back()?;
    let dice = &mut mind.dice;
    let named: Vec<Vote> = votes.iter().filter(|vote| vote.block_id.is_some()).cloned().collect();
    let vote = named.get(dice.place(named.len().max(1)))?.clone();
    let block_id = vote.block_id?;
    let sig = |vote: &Vote| PolkaSig { validator: vote.validator, timestamp: vote.timestamp, signature: vote.signature };
    let index = |place: usize| ValidatorIndex::from_position(place);
    if dice.chance(500) {
        let of_kind = named.iter().filter(|other| other.round == vote.round && other.block_id == vote.block_id);
        let mut signatures: Vec<PolkaSig> = match dice.below(4) {
            // Too few: less than a quorum of what was heard.
            0 => vec![sig(&vote)],
            // One vote in the name of everybody.
            1 => (0..7).map(|place| PolkaSig { validator: index(place), ..sig(&vote) }).collect(),
            // One vote again and again.
            2 => (0..7).map(|_| sig(&vote)).collect(),
            // Prevotes and precommits, as they come.
            _ => of_kind.map(sig).collect(),
        };
        if dice.chance(200) {
            signatures.reverse();
        }
        let valid_round = *dice.pick(&[vote.valid_round, None, Some(Round::ZERO)]);
        return Some(Message::Polka(Polka { height: vote.height, round: vote.round, block_id, valid_round, signatures }));
    }
    let validators = dice.between(1, 8);
    let slot = |of: &Vote| lockstep_types::commit::SlotSignature {
        address: lockstep_types::Address::of_key_bytes(&[of.validator.index().to_le_bytes()[0]; 32]),
        timestamp: of.timestamp,
        signature: of.signature,
    };
    let signatures = (0..validators).map(|_| if dice.chance(700) { CommitSig::Commit(slot(&vote)) } else { CommitSig::Absent }).collect();
    let height = if dice.chance(800) { vote.height } else { vote.height.plus(1) };
    Some(Message::Commit(Commit { height, round: vote.round, block_id, signatures }))
}

/// A claim that is not true.
pub(super) fn poisoned(status: Status, dice: &mut Stream) -> Status {
    let Status { base, tip } = status;
    match dice.below(6) {
        0 => Status { base, tip: tip.plus(dice.between(1, 1_000)) },
        1 => Status { base, tip: Height::MAX },
        2 => Status { base: tip.plus(1), tip },
        3 => Status { base: Height::MAX, tip: Height::ZERO },
        4 => Status { base, tip: Height::ZERO },
        _ => Status { base: tip, tip: tip.plus(5) },
    }
}

/// A time that no clock shows.
fn odd_time(time: Time, dice: &mut Stream) -> Time {
    let by = Duration::from_secs(*dice.pick(&[1, 3_600, 86_400 * 1_000]));
    match dice.below(5) {
        0 => Time::ZERO,
        1 => Time::MAX,
        2 => time.saturating_add(by),
        3 => time.saturating_sub(by),
        _ => Time::from_unix_nanos(0),
    }
}
