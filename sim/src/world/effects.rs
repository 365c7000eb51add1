//! What a node does, and what comes back.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use lockstep_app::CheckKind;
use lockstep_replica::seam::{Lane, Mono, Reply, Report, Write};
use lockstep_replica::serving::POINTS_FLOOD;
use lockstep_replica::wire::Message;
use lockstep_replica::{Effect, Input, Now};
use lockstep_storage::guard::GuardRecord;
use lockstep_storage::log::Kind;
use lockstep_types::domain::OWN_PREFIX;
use lockstep_types::{Time, Vote};
use sha2::Digest as _;

use super::audit::misremember;
use super::byzantine::Say;
use super::disks::LOOK_NS;
use super::faults::Cause;
use super::{Outcome, REQUEST_NS, What, World, pair, violation};
use crate::checks::{PRECOMMIT, Signed};
use crate::node::{Running, Unwritten};
use crate::plan::{DISCIPLINE_NS, MS};
use crate::trace::Told;

/// Questions above what may wait that an honest peer may be counted in a run: each is a point, and a hundred end a connection.
const LATE_QUESTIONS_MAX: u32 = 20;
/// Starts that may find something to heal for each time that a disk lost something.
const HEALING_STARTS_MAX: u64 = 2;

impl World {
    /// I13: an honest peer's questions may come all at once, after a link held them back; it is far from being thrown out.
    fn late_questions(&mut self, node: usize, from: usize) -> Outcome {
        let late = self.late_questions.entry((node, from)).or_default();
        *late += 1;
        match *late > LATE_QUESTIONS_MAX {
            true => violation("I13", format!("node {node} refuses {late} questions of honest node {from}")),
            false => Ok(()),
        }
    }

    pub(super) fn start(&mut self, node: usize) -> Outcome {
        if self.plan.byzantine.secluded.is_some_and(|secluded| secluded.node == node && !self.healed) {
            return Ok(()); // It begins when the chain is long.
        }
        self.acting = Some(node);
        self.begin_start(node);
        self.name_header(node);
        let machine = &self.machines[node];
        let host = self.host.beside(self.watch.over(&self.subject));
        let started = catch_unwind(AssertUnwindSafe(|| machine.start(host, &self.genesis, self.plan.flush_blocks, self.planted)));
        let started = match started {
            Err(panic) => return violation("I18", format!("node {node} panicked while starting: {}", crate::panic_text(&*panic))),
            Ok(Err(reason)) => return self.start_failed(node, &reason),
            Ok(Ok(started)) => started,
        };
        if let Some(installed) = &started.installed {
            self.installed(node, installed, &started)?;
        }
        // A copy that was put back may be of a later state than what this node began with again since it was made.
        let is_put_back = self.machines[node].rot.is_fresh && self.machines[node].ailing.is_restored();
        if let Some(first) = started.replayed.first().filter(|_| is_put_back) {
            self.checks.installed(node, first.outcome.height.get() - 1);
        }
        // What is on the disk may have come of a failed memory.
        let was_astray = self.is_astray(node);
        self.begins_again(node, &started.settled, started.height, started.running.replica.chain())?;
        for block in &started.replayed {
            if block.outcome.height.get() > self.checks.told(node) {
                let committed = match self.is_astray_at(node, block.outcome.height.get()) {
                    true => self.checks.told_astray(node, block.block_id, block.outcome.height.get()),
                    false => self.checks.committed(node, block.block_id, &block.block, &block.commit, &block.outcome),
                };
                committed.or_else(|broken| self.forked(broken, block.outcome.height.get()))?;
                self.powers_change();
                self.votes.decided(node, &block.commit)?;
                self.remember(&block.block);
            }
        }
        // What was executed again is what it was, also below what this node told before.
        // What a failed memory told first, nobody else may have told yet.
        let is_first = |height: u64| was_astray && self.checks.block(height).is_none();
        let trusted = started.replayed.iter().map(|block| (block, block.outcome.height.get()));
        let mut trusted = trusted.filter(|(_, height)| !self.is_astray_at(node, *height) && !is_first(*height)).map(|(block, _)| block);
        trusted.try_for_each(|block| self.checks.replayed(node, &block.outcome))?;
        // What rotted long ago, and no start had need of, may be found by any start.
        let rots_unseen = self.machines[node].rot.until == u64::MAX;
        let has_rotted = self.begin_life(node, !started.healed.is_empty()) || rots_unseen;
        let is_new = std::mem::take(&mut self.machines[node].is_new);
        // A log whose beginning a disk lost leads on from its state alone; where a failed memory takes that, too, it begins anew.
        let has_neither = started.height.get() == 0 && was_astray && self.machines[node].rot.times > 0;
        let has_lost = has_rotted || is_new || has_neither;
        self.checks.restarted(node, started.height, has_lost)?;
        if has_lost {
            self.history.rotted(node);
        }
        let at = started.height;
        // A state that was damaged is made again from the beginning.
        let machine = &mut self.machines[node];
        if started.flushed < machine.flushed && machine.rot.times == 0 && !was_astray {
            return violation(
                "I5",
                format!("node {node} wrote the state of height {} and finds that of {}", machine.flushed, started.flushed),
            );
        }
        machine.flushed = started.flushed;
        for healed in &started.healed {
            self.tell(Some(node), Told::Note, || healed.to_string());
        }
        if !(started.healed.is_empty() || self.machines[node].rot.times > 0 || was_astray) {
            return violation("I18", format!("node {node} heals what never rotted: {}", started.healed[0]));
        }
        self.heals += started.healed.len() as u64;
        // What is healed stays healed: one damage is met by one start, or in two places by two.
        let rot = &mut self.machines[node].rot;
        rot.healing_starts += u64::from(!started.healed.is_empty() && !was_astray);
        if rot.healing_starts > HEALING_STARTS_MAX * rot.times {
            let what = format!("node {node}, damaged {} times, heals at {} starts", rot.times, rot.healing_starts);
            return violation("I18", format!("{what}, now {}", started.healed[0]));
        }
        if has_rotted && (started.running.reader.verify().is_err() || self.machines[node].disk.hides_damage(".seg")) {
            // A block of long ago that this start had no need of, or that it read from the cache: nobody gets it from here.
            self.machines[node].rot.until = u64::MAX;
        }
        self.machines[node].is_catching_up = false;
        self.machines[node].is_syncing = false;
        self.machines[node].life += 1;
        self.machines[node].running = Some(started.running);
        self.tell(Some(node), Told::Start, || format!("starts at height {at}"));
        let now = self.clocks(node);
        let effects = self.machines[node].running.as_mut().expect("just started").replica.start(now);
        self.effects(node, effects)?;
        for other in 0..self.machines.len() {
            if other != node {
                let (a, b) = pair(node, other);
                let delay = self.dial_delay(a, b, 1, 300);
                self.after(delay, What::Connect { a, b });
            }
        }
        Ok(())
    }

    pub(super) fn clocks(&self, node: usize) -> Now {
        let machine = &self.machines[node];
        // Who is in the core has its clock set right again and again; everybody else only every ten minutes.
        let unset = if self.core.contains(&node) { 0 } else { self.now % DISCIPLINE_NS };
        let drift = i128::from(unset) * i128::from(machine.drift_ppm) / 1_000_000;
        // True time starts a day after genesis.
        let wall = i128::from(self.now) + i128::from(machine.clock) + drift + crate::keys::START_UNIX_NS;
        Now { mono: Mono(self.mono(node)), wall: Time::from_unix_nanos(wall) }
    }

    /// What a node's monotonic clock shows. It runs fast or slow, and never jumps.
    fn mono(&self, node: usize) -> u64 {
        scaled(self.now, 1_000_000 + self.machines[node].drift_ppm, 1_000_000)
    }

    /// When a node's monotonic clock first shows at least this.
    fn when_mono(&self, node: usize, mono: u64) -> u64 {
        let speed = 1_000_000 + self.machines[node].drift_ppm;
        let at = scaled(mono, 1_000_000, speed);
        if scaled(at, speed, 1_000_000) < mono { at + 1 } else { at }
    }

    pub(super) fn input(&mut self, node: usize, life: u64, input: Input) -> Outcome {
        if self.machines[node].life != life {
            return Ok(());
        }
        let now = self.clocks(node);
        self.acting = Some(node);
        let Some(running) = self.machines[node].running.as_mut() else { return Ok(()) };
        if let Some(digest) = &mut self.digest {
            digest.update((node as u64).to_le_bytes());
            digest.update(self.now.to_le_bytes());
            digest.update(format!("{input:?}"));
        }
        if let Input::Durable { ticket } = &input {
            let released = running.fence.durable(*ticket);
            for effect in released {
                self.perform(node, effect)?;
                if self.machines[node].life != life || self.machines[node].running.is_none() {
                    return Ok(());
                }
            }
        }
        let Some(running) = self.machines[node].running.as_mut() else { return Ok(()) };
        running.bodies.told(&input);
        let replica = &mut running.replica;
        match catch_unwind(AssertUnwindSafe(|| replica.step(now, input))) {
            Ok(effects) => {
                running.misses_polka().map_or(Ok(()), |what| violation("L36", format!("node {node}: {what}")))?;
                self.effects(node, effects)
            }
            Err(panic) => violation("I18", format!("node {node} panicked: {}", crate::panic_text(&*panic))),
        }
    }

    pub(super) fn effects(&mut self, node: usize, effects: Vec<Effect>) -> Outcome {
        let life = self.machines[node].life;
        for effect in effects {
            let Some(running) = self.alive(node, life) else { return Ok(()) };
            if let Some(effect) = running.fence.admit(effect) {
                self.perform(node, effect)?;
            }
        }
        Ok(())
    }

    pub(super) fn job_delay(&mut self, node: usize) -> u64 {
        self.jobs.of(node).between(1_000, self.plan.job_delay.max(2_000))
    }

    pub(super) fn answer(&mut self, node: usize, input: Input) {
        let delay = self.job_delay(node);
        let life = self.machines[node].life;
        self.after(delay, What::Input { node, life, input: Box::new(input) });
    }

    /// Does what nothing holds back any more.
    pub(super) fn perform_now(&mut self, node: usize, effect: Effect) -> Outcome {
        let life = self.machines[node].life;
        match effect {
            Effect::Verify { job, checks } => {
                let verdicts = self.crypto.verify(&checks);
                self.answer(node, Input::Verified { job, verdicts });
            }
            Effect::Sign { job, bytes, .. } if bytes.first() == Some(&OWN_PREFIX) => {
                self.check_silent(node)?;
                self.states(node, &bytes)?;
                let signature = self.machines[node].key.as_ref().map(|key| self.crypto.sign(key, &bytes));
                self.answer(node, Input::Signed { job, signature });
            }
            Effect::Sign { job, bytes, .. } => {
                self.check_silent(node)?;
                self.tell(Some(node), Told::Sign, || {
                    format!("signs {}", Signed::read(&bytes).map_or_else(|| "?".into(), |signed| signed.to_string()))
                });
                if self.is_honest(node) {
                    let signed = self.checks.signed(node, &bytes)?;
                    self.votes.signed(node, &signed)?;
                    self.check_vote(node, &signed)?;
                    if !self.plan.clock_steps && !self.healed {
                        self.votes.timed(node, &signed);
                    }
                    self.orders(node, &signed, &bytes)?;
                    self.machines[node].ailing.says(self.now, signed.place());
                } else if self.machines[node].ailing.is_restored() {
                    let is_heard = Signed::read(&bytes).is_none_or(|signed| !self.machines[node].ailing.said_unheard(signed.place()));
                    self.doubts += u64::from(self.checks.signed(node, &bytes).is_err() && is_heard);
                }
                let signature = self.machines[node].key.as_ref().map(|key| self.crypto.sign(key, &bytes));
                if let Some(signature) = &signature {
                    self.attest(node, &bytes, signature);
                }
                self.answer(node, Input::Signed { job, signature });
            }
            Effect::Persist { ticket, write: Write::Log(records), .. } => {
                let running = self.machines[node].running.as_mut().expect("it performs");
                running.bodies.asked(ticket, &records);
                if let Err(reason) = running.append(ticket, records) {
                    return self.disk_failed(node, reason);
                }
                let delay = self.disks.of(node).between(100_000, self.plan.disk_delay);
                self.after(delay, What::LogSync { node, life });
            }
            Effect::Persist { ticket, write, .. } => {
                self.machines[node].running.as_mut().expect("it performs").guard_queue.push_back((ticket, write));
                let delay = self.disks.of(node).between(100_000, self.plan.disk_delay);
                self.after(delay, What::GuardSync { node, life });
            }
            // One thread has the state, and takes what it is asked in that order: nothing is judged over a state that came after it.
            Effect::Build { .. } | Effect::Check { .. } | Effect::Judge { .. } | Effect::Execute { .. } => {
                self.machines[node].running.as_mut().expect("it performs").to_execute.push_back(effect);
                let delay = self.job_delay(node);
                self.after(delay, What::Execute { node, life });
            }
            Effect::CheckTxs { .. } | Effect::Flush { .. } | Effect::Stage { .. } | Effect::Read { .. } => {
                let delay = self.job_delay(node);
                self.after(delay, What::Job { node, life, effect: Box::new(effect) });
            }
            Effect::Send { to, lane, bytes } => {
                if lane == Lane::Votes && self.is_honest(node) {
                    self.tap(node, &bytes)?;
                    self.show(&bytes);
                }
                self.send(node, to, lane, &bytes);
            }
            Effect::Request { job, peer, bytes } => {
                let to = self.machines[node].running.as_ref().and_then(|running| running.peers.get(&peer)).copied();
                match to.and_then(|to| Some((to, *self.connections.get(&pair(node, to))?))) {
                    Some((to, connection)) => {
                        self.after(REQUEST_NS, What::Input { node, life, input: Box::new(Input::Response { job, bytes: None }) });
                        if let Some(delay) = self.hop(node, to, bytes.len(), false) {
                            self.after(delay, What::Ask { from: node, from_life: life, to, job, connection, bytes });
                        }
                    }
                    None => self.answer(node, Input::Response { job, bytes: None }),
                }
            }
            Effect::Respond { ask, bytes } => {
                let asked = self.machines[node].running.as_mut().and_then(|running| running.asks.remove(&ask));
                if let Some(asked) = &asked {
                    self.answers_of_pruned(node, &asked.question, &bytes)?;
                }
                if let Some(crate::node::Asked { node: to, life: to_life, job, .. }) = asked
                    && let Some(Say { after, bytes, .. }) = self.falsify(node, to, bytes)
                    && let Some(delay) = self.hop(node, to, bytes.len(), false)
                {
                    let input = Box::new(Input::Response { job, bytes: Some(bytes) });
                    self.after(after + delay, What::Input { node: to, life: to_life, input });
                }
            }
            Effect::SetTimer { at, timer } => {
                let at = self.when_mono(node, at.0);
                self.at(at.max(self.now), What::Input { node, life, input: Box::new(Input::TimedOut(timer)) });
            }
            Effect::Reply { reply, .. } => {
                self.answered(&reply);
                if let Reply::Committed { hash, height, .. } = reply {
                    self.order_3(node, height.get(), "a client")?;
                    self.checks.acknowledged(hash, height)?;
                    self.history.acknowledged(node, &hash, height.get())?;
                }
            }
            Effect::Disconnect { peer, reason } => {
                let other = self.machines[node].running.as_ref().and_then(|running| running.peers.get(&peer)).copied();
                if let Some(other) = other {
                    self.expels(node, other, &reason)?;
                    self.disconnect(node.min(other), node.max(other))?;
                }
            }
            Effect::Report { report, .. } => self.report(node, &report)?,
            Effect::Heal { finding } => return self.heals(node, &finding),
            Effect::Reopen { height } => return self.reopens(node, height),
            Effect::Halt { reason } => {
                // A cabal may bring two chains upon a node, and it must not go on with either.
                self.liars.tally.halts += u64::from(self.is_over());
                return self.halts(node, &reason);
            }
        }
        self.machines[node].effects += 1;
        self.force_crash(node)
    }

    /// The orders of durability, asked of the disk itself when a message is signed: what it rests on survives a power cut.
    pub(super) fn orders(&self, node: usize, signed: &Signed, bytes: &[u8]) -> Outcome {
        let running = self.machines[node].running.as_ref().expect("it signs");
        let at = signed.place();
        // What is said again after rot rested on what the disk had when it was recorded (decision record 10).
        let is_said_again = at <= self.machines[node].rot.said_before;
        let recorded = |record: &GuardRecord| record.position() > at || record.sign_bytes == bytes;
        if !running.guard.as_ref().is_some_and(|guard| guard.records().into_iter().any(recorded)) {
            return violation("order 0", format!("node {node} signs {at:?}, and no durable record of its guard says so"));
        }
        let reader = &running.reader;
        if reader.tip().unwrap_or(0) + 1 < signed.height && !is_said_again {
            return violation("order 2", format!("node {node} signs for height {}, the decision before it is not durable", signed.height));
        }
        let Some(block) = signed.block.as_ref().filter(|_| signed.kind == PRECOMMIT && !is_said_again) else { return Ok(()) };
        let is_durable = reader
            .entries(signed.height)
            .iter()
            .any(|entry| entry.kind == Kind::Body && entry.block_hash[..] == block[..] && entry.sequence <= reader.durable_sequence());
        if is_durable { Ok(()) } else { violation("order 1", format!("node {node} precommits a block whose body is not durable")) }
    }

    /// What is said to be committed is durable.
    fn order_3(&self, node: usize, height: u64, who: &str) -> Outcome {
        let running = self.machines[node].running.as_ref().expect("it says so");
        if running.reader.tip().unwrap_or(0) >= height {
            return Ok(());
        }
        violation("order 3", format!("node {node} tells {who} of height {height}, whose decision is not durable"))
    }

    pub(super) fn report(&mut self, node: usize, report: &Report) -> Outcome {
        match report {
            Report::Stepped { height, round, step } => {
                self.tell(Some(node), Told::Step, || format!("enters {height}/{round} {step:?}"));
                if round.get() > 0 && self.is_honest(node) {
                    self.liars.tally.rounds.insert((height.get(), round.get()));
                }
                Ok(())
            }
            Report::Committed { block_id, block, commit, outcome, chain } => {
                self.machines[node].running.as_mut().expect("it reports").tell_readers(chain);
                self.tell(Some(node), Told::Commit, || format!("commits {} {block_id}", block.header.height));
                self.audit(node, block, &outcome.app_hash, chain)?;
                let committed = match self.is_astray_at(node, block.header.height.get()) {
                    true => self.checks.told_astray(node, *block_id, block.header.height.get()),
                    false => self.checks.committed(node, *block_id, block, commit.get(), outcome),
                };
                committed.or_else(|broken| self.forked(broken, block.header.height.get()))?;
                self.powers_change();
                self.votes.decided(node, commit.get())?;
                self.accuses(block)?;
                if self.is_honest(node) {
                    self.holds_lies(node, block.header.height.get())?;
                }
                self.remember(block);
                self.order_3(node, block.header.height.get(), "readers")?;
                let precision = i128::try_from(self.plan.params().synchrony.precision.duration().as_nanos()).expect("milliseconds");
                let time = block.header.time.unix_nanos();
                self.votes.check_timely(block.header.height.get(), &block_id.hash.0, time, precision)?;
                if self.checks.height() > self.plan.chaos_blocks && !self.heal_is_due {
                    self.first_at(self.now + 1, What::Wake(Cause::Heal));
                }
                Ok(())
            }
            Report::Untimely { .. } => {
                self.machines[node].untimely += 1;
                Ok(())
            }
            Report::Equivocation { first, .. } => {
                // Set order is by power and address; the accused is found by its key.
                let accused = self.node_at(first.validator, first.height.get());
                match accused {
                    Some(accused) if self.is_honest(accused) => {
                        violation("I9", format!("node {accused} is honest and accused by node {node}"))
                    }
                    Some(accused) => {
                        self.checks.accused.insert(accused);
                        self.liars.tally.accused += 1;
                        if self.is_honest(node) {
                            self.sees_lie(node, accused, first.height.get());
                        }
                        Ok(())
                    }
                    None => violation("I9", "somebody unknown is accused".into()),
                }
            }
            Report::StateSync(told) => self.told_of_sync(node, told),
            Report::CatchingUp { behind, .. } => {
                self.machines[node].is_catching_up = *behind;
                Ok(())
            }
            // Only a liar is ever refused, but for questions that a link held back and brought at once.
            Report::Refused { peer, points, reason } => {
                let from = self.machines[node].running.as_ref().and_then(|running| running.peers.get(peer)).copied();
                match from {
                    Some(from) if self.is_honest(from) && self.is_honest(node) && *points == POINTS_FLOOD => {
                        self.late_questions(node, from)
                    }
                    // A cabal had them decide two blocks: what is true on one side may contradict the other.
                    Some(from) if self.is_honest(from) && self.is_honest(node) && self.have_parted(node, from) => Ok(()),
                    Some(from) if self.is_honest(from) && self.is_honest(node) => {
                        violation("I13", format!("node {node} refuses honest node {from}: {reason}"))
                    }
                    Some(from) if self.is_honest(node) => self.refused(node, from, *points),
                    _ => Ok(()),
                }
            }
            Report::SignedElsewhere(reason) if self.is_honest(node) || self.machines[node].ailing.is_restored() => {
                self.stops_signing(node, reason)
            }
            _ => Ok(()),
        }
    }

    /// What an honest node says on the lane of votes is one message of the frozen wire, and every vote in it was cast.
    pub(super) fn tap(&self, node: usize, bytes: &Bytes) -> Outcome {
        let Ok(message) = Message::decode(bytes) else {
            return violation("I13", format!("node {node} sends a frame that is no message"));
        };
        let Some(running) = self.machines[node].running.as_ref() else { return Ok(()) };
        let chain = running.replica.chain();
        // A set of long ago is not kept here: votes of one are judged where they are cast.
        let set = |height: u64| match height.checked_sub(chain.height.get()) {
            Some(0) => Some(&chain.last_validators),
            Some(1) => Some(&chain.validators),
            Some(2) => Some(&chain.next_validators),
            _ if self.plan.members.is_none() => Some(&chain.validators),
            _ => None,
        };
        let address = |vote: &Vote| set(vote.height.get())?.get(vote.validator).map(|validator| validator.address);
        self.votes.sent(node, &message, address)
    }

    pub(super) fn guard_sync(&mut self, node: usize, life: u64) -> Outcome {
        let Some(running) = self.alive(node, life) else { return Ok(()) };
        if let Some((_, Write::Guard(record))) = running.guard_queue.front()
            && running.reader.tip().unwrap_or(0) + 1 < record.height
        {
            return violation("order 2", format!("node {node} records height {}, the decision before it is not durable", record.height));
        }
        self.keeps_polka(node)?;
        let Some(running) = self.alive(node, life) else { return Ok(()) };
        match running.write_guard() {
            Ok(Some(ticket)) => self.input(node, life, Input::Durable { ticket }),
            Ok(None) => Ok(()),
            Err(reason) => self.disk_failed(node, reason),
        }
    }

    pub(super) fn alive(&mut self, node: usize, life: u64) -> Option<&mut Running> {
        let machine = &mut self.machines[node];
        if machine.life == life { machine.running.as_mut() } else { None }
    }

    /// Does what a thread beside the replica does, and hands the answer over.
    pub(super) fn job(&mut self, node: usize, life: u64, effect: Effect) -> Outcome {
        let machine = &mut self.machines[node];
        let disk = machine.disk.clone();
        let now_ms = self.now / MS;
        let Some(running) = machine.running.as_mut().filter(|_| machine.life == life) else { return Ok(()) };
        let executor = &mut running.executor;
        let input = match effect {
            Effect::Build { job, build: request } => {
                let built = executor.build(&request, &mut |checks| self.crypto.verify(checks));
                if let Some(what) = running.repeats(&built.block, &request.chain) {
                    return violation("I3", format!("node {node} builds {what}"));
                }
                Input::Built { job, built: Box::new(built) }
            }
            Effect::Check { job, check } => {
                running.bodies.judged(job, &check.block_id);
                let verdict = executor.check(&check, &mut |checks| self.crypto.verify(checks));
                Input::Checked { job, verdict }
            }
            Effect::Judge { job, mut evidence, chain, complete } => {
                let verdict = executor.judge(&mut evidence, &chain, complete, &mut |checks| self.crypto.verify(checks));
                Input::Judged { job, evidence, verdict }
            }
            Effect::Execute { job, execute } => {
                let mut outcome = executor.execute(&execute);
                if let Ok(outcome) = &mut outcome {
                    misremember(&mut machine.astray, outcome);
                }
                if let Ok(outcome) = &outcome {
                    running.included(&execute.block, outcome);
                    running.executed.push_back(running.executor.state().clone());
                }
                if outcome.as_ref().is_ok_and(|outcome| outcome.checkpoint) && running.snapshots.is_some() {
                    let state = running.executor.state().clone();
                    self.reaches_checkpoint(node, life, state);
                }
                Input::Executed { job, outcome: outcome.map(Box::new).map_err(|error| error.to_string()) }
            }
            Effect::CheckTxs { job, txs, recheck } => {
                let kind = if recheck { CheckKind::Recheck } else { CheckKind::New };
                let verdicts = txs.iter().map(|tx| executor.host().check_tx(executor.state(), tx, kind)).collect();
                Input::TxsChecked { job, verdicts }
            }
            // A commit that fails for want of space may have happened, and ends the node: better not to begin it.
            effect @ Effect::Flush { .. } if running.room.is_lacking() => {
                self.after(LOOK_NS, What::Job { node, life, effect: Box::new(effect) });
                return Ok(());
            }
            Effect::Flush { height, chain, .. } => match running.flush(height, &chain.encode()) {
                Ok(()) => {
                    self.machines[node].flushed = height;
                    Input::Flushed { height }
                }
                Err(Unwritten::Disk(reason)) => return self.disk_failed(node, reason),
                Err(Unwritten::Damaged(what)) => return self.mends(node, &what),
            },
            Effect::Stage { job, task } => return self.stage(node, life, job, task),
            Effect::Read { job, what } => Input::ReadDone { job, answer: running.read(&disk, now_ms, what) },
            _ => return Ok(()),
        };
        self.input(node, life, input)
    }
}

/// A time at another speed, rounded down.
fn scaled(time: u64, numerator: i64, denominator: i64) -> u64 {
    u64::try_from(i128::from(time) * i128::from(numerator) / i128::from(denominator)).expect("speeds are near one, and runs short")
}
