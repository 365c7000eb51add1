//! A replica without a key, between peers that a test plays: what is slow is done at once, in the order asked, and what goes
//! out is kept for the test to read. And the chain that those peers have.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use lockstep_app::CheckKind;
use lockstep_mempool::Limits;
use lockstep_replica::check::{BuildJob, CheckFailure};
use lockstep_replica::evidence::kept::Kept;
use lockstep_replica::execution::{ExecuteJob, Executor};
use lockstep_replica::light_store::Root;
use lockstep_replica::seam::{AskId, JobId, Mono, Peer, ReadAnswer, ReadQuestion, Report, Ticket, Timer, Write};
use lockstep_replica::signing::{GuardView, Me};
use lockstep_replica::wire::{Answer, Message, Question, WHOLE_PARTS_MAX};
use lockstep_replica::{ChainState, Config, Effect, Fence, Input, Now, Replica, Restored};
use lockstep_types::block::cut;
use lockstep_types::crypto::{SignatureCheck, verify_batch};
use lockstep_types::{Block, BlockId, Commit, ConsensusParams, Evidence, Height, Round};

use crate::support::*;

/// A chain that four validators decided, made outside any replica.
pub(crate) struct Made {
    pub(crate) genesis: lockstep_genesis::Genesis,
    pub(crate) executor: Executor,
    pub(crate) chain: Arc<ChainState>,
    /// Name, body and certificate by height, the first at place 0.
    pub(crate) blocks: Vec<(BlockId, Bytes, Commit)>,
}

impl Made {
    pub(crate) fn new(params: ConsensusParams) -> Self {
        let genesis = genesis_with(4, params);
        let (chain, state, changes) = start(&genesis);
        Self { genesis, executor: Executor::at_genesis(host(), state, changes), chain: Arc::new(chain), blocks: Vec::new() }
    }

    /// A chain of so many small blocks.
    pub(crate) fn of(blocks: usize) -> Self {
        let mut made = Self::new(ConsensusParams::default());
        (0..blocks).for_each(|n| made.grow(&[format!("k{n}=v").as_bytes()]));
        made
    }

    /// Decides one more block.
    pub(crate) fn grow(&mut self, txs: &[&[u8]]) {
        self.grow_with(txs, Vec::new());
    }

    /// The job of the next block.
    pub(crate) fn next(&self, txs: &[&[u8]], evidence: Vec<Evidence>) -> BuildJob {
        let chain = self.chain.clone();
        let proposer = chain.validators.get(chain.validators.proposer(Round::ZERO)).unwrap().address;
        BuildJob {
            time: chain.last_time.saturating_add(std::time::Duration::from_secs(1)),
            proposer,
            txs: txs.iter().map(|tx| (*tx).into()).collect(),
            evidence,
            last_commit: self.blocks.last().map(|(_, _, commit)| commit.clone()),
            chain,
        }
    }

    /// Decides one more block, which proves this.
    pub(crate) fn grow_with(&mut self, txs: &[&[u8]], evidence: Vec<Evidence>) {
        let chain = self.chain.clone();
        let job = self.next(txs, evidence);
        let built = self.executor.build(&job, &mut verify_batch);
        let execute = ExecuteJob { block: built.block.clone(), block_id: built.block_id, chain: chain.clone() };
        let outcome = self.executor.execute(&execute).unwrap();
        // Of four the one with key 1 is away: a replica that has it follows, and finds no vote of its key that it did not make.
        let away = chain.validators.index_of(&key(1).public_key().address()).filter(|_| chain.validators.len() == 4);
        let places: Vec<u32> = (0..4).filter(|place| away.map_or(*place < 3, |away| away.index() != *place as usize)).collect();
        let commit = signed_commit(&chain.validators, &places, chain.next_height().get(), built.block_id, job.time);
        self.chain = Arc::new(chain.advance(built.block_id, &built.block.header, built.block.txs.len(), &outcome));
        self.blocks.push((built.block_id, built.body, commit));
    }

    pub(crate) fn block(&self, height: u64) -> &(BlockId, Bytes, Commit) {
        &self.blocks[usize::try_from(height).unwrap() - 1]
    }
}

/// The replica and what it asked for that was not done.
pub(crate) struct Desk {
    pub(crate) replica: Replica,
    fence: Fence,
    executor: Executor,
    pub(crate) now: Mono,
    /// Everything for the world outside, in order.
    pub(crate) out: VecDeque<Effect>,
    /// Signature checks that wait for the test, when it wants them to.
    pub(crate) held_checks: Option<Vec<(JobId, Vec<SignatureCheck>)>>,
    /// Everything that was to be made durable, in order.
    pub(crate) written: Vec<Write>,
    /// Writes that wait for the test, when it wants them to.
    pub(crate) held_writes: Option<Vec<Ticket>>,
    /// Bodies that were judged, in order.
    pub(crate) judged: Vec<BlockId>,
    /// How many of the next bodies cannot be judged.
    pub(crate) unknown: usize,
    /// Whether a halt is for the test to look at, and not the end of it.
    pub(crate) may_halt: bool,
    /// Timers that are set.
    timers: Vec<(Mono, Timer)>,
}

impl Desk {
    /// At genesis; with the key of this number, if any.
    pub(crate) fn new(made: &Made, me: Option<u8>) -> Self {
        Self::diverged_before(made, me, [])
    }

    /// The same, in a home that diverged at these heights.
    pub(crate) fn diverged_before(made: &Made, me: Option<u8>, heights: impl IntoIterator<Item = Height>) -> Self {
        let (chain, state, changes) = start(&made.genesis);
        let me = me.map(|n| key(n).public_key()).map(|public_key| Me { public_key, address: public_key.address() });
        let config = Config {
            genesis_hash: made.genesis.hash(),
            me,
            watches_key: true,
            mempool: Limits::default(),
            flush_keys: 1_000,
            flush_blocks: 1_000,
            planted: Default::default(),
        };
        let restored = Restored {
            chain: Arc::new(chain),
            base: Height::FIRST,
            flushed: Height::ZERO,
            last_commit: None,
            last_body: None,
            bodies: Vec::new(),
            guard: GuardView::default(),
            evidence: Vec::new(),
            names: 0,
            diverged: heights.into_iter().collect(),
            doubt: None,
            roots: Vec::new(),
        };
        let mut desk = Self {
            replica: Replica::new(config, restored),
            fence: Fence::new(),
            executor: Executor::at_genesis(host(), state, changes),
            now: Mono(1_000_000_000),
            out: VecDeque::new(),
            held_checks: None,
            judged: Vec::new(),
            unknown: 0,
            written: Vec::new(),
            held_writes: None,
            may_halt: false,
            timers: Vec::new(),
        };
        let effects = desk.replica.start(desk.clocks());
        desk.perform(effects);
        desk
    }

    /// A follower that starts where the chain is, with this evidence on its disk.
    pub(crate) fn with_evidence(made: &Made, evidence: Vec<Kept>) -> Self {
        Self::with(made, evidence, Vec::new())
    }

    /// One that remembers these blocks of a log that it lost.
    pub(crate) fn with_roots(made: &Made, roots: Vec<Root>) -> Self {
        Self::with(made, Vec::new(), roots)
    }

    fn with(made: &Made, evidence: Vec<Kept>, roots: Vec<Root>) -> Self {
        let mut desk = Self::new(made, None);
        let mut chain = start(&made.genesis).0;
        for (block_id, body, _) in &made.blocks {
            let block = Arc::new(Block::decode(body).unwrap());
            let job = ExecuteJob { block: block.clone(), block_id: *block_id, chain: Arc::new(chain) };
            let outcome = desk.executor.execute(&job).unwrap();
            chain = job.chain.advance(*block_id, &block.header, block.txs.len(), &outcome);
        }
        let restored = Restored {
            flushed: chain.height,
            last_commit: made.blocks.last().map(|(_, _, commit)| commit.clone()),
            last_body: made.blocks.last().map(|(block_id, body, _)| (*block_id, body.clone())),
            evidence,
            chain: Arc::new(chain),
            base: Height::FIRST,
            bodies: Vec::new(),
            guard: GuardView::default(),
            names: 0,
            diverged: Default::default(),
            doubt: None,
            roots,
        };
        let config = Config {
            genesis_hash: made.genesis.hash(),
            me: None,
            watches_key: true,
            mempool: Limits::default(),
            flush_keys: 1_000,
            flush_blocks: 1_000,
            planted: Default::default(),
        };
        (desk.replica, desk.fence, desk.timers) = (Replica::new(config, restored), Fence::new(), Vec::new());
        desk.out.clear();
        desk.written.clear();
        let effects = desk.replica.start(desk.clocks());
        desk.perform(effects);
        desk
    }

    pub(crate) fn clocks(&self) -> Now {
        Now { mono: self.now, wall: at(1_767_409_445, 0).saturating_add(std::time::Duration::from_nanos(self.now.0)) }
    }

    pub(crate) fn step(&mut self, input: Input) {
        let effects = self.replica.step(self.clocks(), input);
        self.perform(effects);
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        let mut queue: VecDeque<Effect> = effects.into();
        while let Some(effect) = queue.pop_front() {
            let Some(effect) = self.fence.admit(effect) else { continue };
            let (host, state) = (self.executor.host(), self.executor.state());
            let answer = match effect {
                Effect::Verify { job, checks } => match &mut self.held_checks {
                    Some(held) => {
                        held.push((job, checks));
                        continue;
                    }
                    None => Input::Verified { job, verdicts: verify_batch(&checks) },
                },
                Effect::Persist { ticket, write, .. } => {
                    self.written.push(write);
                    if let Some(held) = &mut self.held_writes {
                        held.push(ticket);
                        continue;
                    }
                    queue.extend(self.fence.durable(ticket));
                    Input::Durable { ticket }
                }
                Effect::Build { job, build: request } => {
                    Input::Built { job, built: Box::new(self.executor.build(&request, &mut verify_batch)) }
                }
                Effect::Check { job, check: request } => {
                    self.judged.push(request.block_id);
                    let verdict = match self.unknown.checked_sub(1) {
                        Some(left) => {
                            self.unknown = left;
                            Err(CheckFailure::Unknown("a disk that fails".into()))
                        }
                        None => self.executor.check(&request, &mut verify_batch),
                    };
                    Input::Checked { job, verdict }
                }
                Effect::Judge { job, mut evidence, chain, complete } => {
                    let verdict = self.executor.judge(&mut evidence, &chain, complete, &mut verify_batch);
                    Input::Judged { job, evidence, verdict }
                }
                Effect::CheckTxs { job, txs, .. } => {
                    let verdicts = txs.iter().map(|tx| host.check_tx(state, tx, CheckKind::New)).collect();
                    Input::TxsChecked { job, verdicts }
                }
                Effect::Execute { job, execute } => {
                    let outcome = self.executor.execute(&execute).map(Box::new).map_err(|error| error.to_string());
                    Input::Executed { job, outcome }
                }
                Effect::Flush { height, .. } => Input::Flushed { height },
                Effect::SetTimer { at, timer } => {
                    self.timers.push((at, timer));
                    continue;
                }
                Effect::Halt { reason } if !self.may_halt => panic!("{reason}"),
                other => {
                    self.out.push_back(other);
                    continue;
                }
            };
            queue.extend(self.replica.step(self.clocks(), answer));
        }
    }

    /// Lets this long pass; timers run out on the way, in order.
    pub(crate) fn pass(&mut self, duration: std::time::Duration) {
        let end = self.now.after(duration);
        while let Some(next) = (0..self.timers.len()).filter(|n| self.timers[*n].0 <= end).min_by_key(|n| self.timers[*n].0) {
            let (at, timer) = self.timers.remove(next);
            self.now = self.now.max(at);
            self.step(Input::TimedOut(timer));
        }
        self.now = end;
    }

    /// What waited for the disk is durable, and from now on everything at once.
    pub(crate) fn write_all(&mut self) {
        for ticket in self.held_writes.take().unwrap_or_default() {
            let effects = self.fence.durable(ticket);
            self.perform(effects);
            self.step(Input::Durable { ticket });
        }
    }

    pub(crate) fn connect(&mut self, peer: u64, validator: Option<u8>) {
        self.step(Input::PeerUp { peer: Peer(peer), validator: validator.map(|n| key(n).public_key()) });
    }

    pub(crate) fn receive(&mut self, peer: u64, message: &Message) {
        self.step(Input::Received { peer: Peer(peer), bytes: message.encode() });
    }

    pub(crate) fn ask(&mut self, peer: u64, ask: u64, question: &Question) {
        self.step(Input::Asked { peer: Peer(peer), ask: AskId(ask), bytes: question.encode() });
    }

    /// Answers a question of the replica.
    pub(crate) fn reply(&mut self, job: JobId, answer: Option<&Answer>) {
        self.step(Input::Response { job, bytes: answer.map(Answer::encode) });
    }

    /// The next question of the replica to a peer.
    pub(crate) fn question(&mut self) -> Option<(JobId, u64, Question)> {
        let place = self.out.iter().position(|effect| matches!(effect, Effect::Request { .. }))?;
        match self.out.remove(place) {
            Some(Effect::Request { job, peer, bytes }) => Some((job, peer.0, Question::decode(&bytes).unwrap())),
            _ => unreachable!("just met"),
        }
    }

    /// The reads that the replica asked for.
    pub(crate) fn reads(&mut self) -> Vec<(JobId, ReadQuestion)> {
        let mut reads = Vec::new();
        self.out.retain(|effect| match effect {
            Effect::Read { job, what } => {
                reads.push((*job, what.clone()));
                false
            }
            _ => true,
        });
        reads
    }

    pub(crate) fn read_done(&mut self, job: JobId, answer: ReadAnswer) {
        self.step(Input::ReadDone { job, answer });
    }

    /// The answers to peers' questions.
    pub(crate) fn answers(&mut self) -> Vec<(u64, Answer)> {
        let mut answers = Vec::new();
        self.out.retain(|effect| match effect {
            Effect::Respond { ask, bytes } => {
                answers.push((ask.0, Answer::decode(bytes).unwrap()));
                false
            }
            _ => true,
        });
        answers
    }

    /// Points that a peer got, and what for.
    pub(crate) fn refused(&self, who: u64) -> Vec<(u32, String)> {
        let refused = |effect: &Effect| match effect {
            Effect::Report { report: Report::Refused { peer, points, reason }, .. } if peer.0 == who => Some((*points, reason.clone())),
            _ => None,
        };
        self.out.iter().filter_map(refused).collect()
    }
}

impl Desk {
    /// Has this peer give everything that the replica asks for, until it has the chain.
    pub(crate) fn follow(&mut self, made: &Made, peer: u64) {
        let tip = made.chain.height;
        self.receive(peer, &Message::Status(lockstep_replica::wire::Status { base: Height::FIRST, tip }));
        for _ in 0..10_000 {
            if self.replica.chain().height == tip {
                return;
            }
            match self.question() {
                Some((job, _, question)) => {
                    let answer = made.answer(&question);
                    self.reply(job, Some(&answer));
                }
                None => self.pass(std::time::Duration::from_millis(50)),
            }
        }
        panic!("stuck at height {}", self.replica.chain().height);
    }
}

impl Made {
    /// What an honest peer answers.
    pub(crate) fn answer(&self, question: &Question) -> Answer {
        let status = lockstep_replica::wire::Status { base: Height::FIRST, tip: self.chain.height };
        match question {
            Question::Blocks { from, count } => {
                let from = usize::try_from(from.get()).unwrap() - 1;
                let travels = |(id, ..): &&(BlockId, Bytes, Commit)| id.parts.total <= WHOLE_PARTS_MAX;
                match self.blocks.get(from) {
                    None => Answer::Unavailable(status),
                    Some((id, _, commit)) if id.parts.total > WHOLE_PARTS_MAX => Answer::Certificate(commit.clone()),
                    Some(_) => {
                        let blocks = self.blocks.iter().skip(from).take(*count as usize).take_while(travels);
                        Answer::Blocks(blocks.map(|(_, body, commit)| (body.clone(), commit.clone())).collect())
                    }
                }
            }
            Question::Body { block_id, .. } => match self.blocks.iter().find(|(id, _, _)| id == block_id) {
                Some((_, body, _)) => Answer::Body(body.clone()),
                None => Answer::Unavailable(status),
            },
            Question::Parts { block_id, from, count, .. } => match self.blocks.iter().find(|(id, _, _)| id == block_id) {
                Some((_, body, _)) => Answer::Parts(cut(body).1.into_iter().skip(*from as usize).take(*count as usize).collect()),
                None => Answer::Unavailable(status),
            },
            Question::Signed { .. } => Answer::Signed(Vec::new(), Vec::new()),
            Question::Snapshots
            | Question::Evidence { .. }
            | Question::Polkas { .. }
            | Question::Light { .. }
            | Question::Manifest { .. }
            | Question::Chunk { .. } => Answer::Unavailable(status),
        }
    }
}
