//! What waits while there is no room on a disk, as it waits in the threads of the shell.
//!
//! A record of the log that finds no room waits, and everything behind it; so does everything that names its ticket. What
//! is recorded to be signed is held back, and signed once there is room for everything. Results wait, and readers see their
//! block only after them. The state is not begun to be written meanwhile.

use std::collections::VecDeque;

use lockstep_replica::Effect;
use lockstep_replica::results::keep;
use lockstep_replica::seam::{LogRecord, Report, Ticket};
use lockstep_storage::log::{LogError, Preallocator, Record};

use crate::node::Running;

/// Of one life.
pub(crate) struct Room {
    /// For the log.
    waiting: VecDeque<(Ticket, VecDeque<LogRecord>)>,
    /// Makes the next segment ahead of time.
    preallocator: Preallocator,
    lacks_record: bool,
    lacks_segment: bool,
    /// What is to be signed.
    pub(crate) unsigned: VecDeque<Effect>,
    /// Blocks whose results are not kept so far.
    pub(crate) news: VecDeque<Effect>,
}

impl Room {
    pub(crate) fn new(preallocator: Preallocator) -> Self {
        Self {
            waiting: VecDeque::new(),
            preallocator,
            lacks_record: false,
            lacks_segment: false,
            unsigned: VecDeque::new(),
            news: VecDeque::new(),
        }
    }

    /// Whether there is no room for something.
    pub(crate) fn is_lacking(&self) -> bool {
        self.lacks_record || self.lacks_segment || !self.news.is_empty()
    }

    /// Whether records wait.
    pub(crate) fn lacks_record(&self) -> bool {
        self.lacks_record
    }
}

impl Running {
    /// Appends records, behind those that wait; they are durable at the next sync.
    pub(crate) fn append(&mut self, ticket: Ticket, records: Vec<LogRecord>) -> Result<(), String> {
        self.room.waiting.push_back((ticket, records.into()));
        self.append_waiting()
    }

    /// Appends what waits, as far as there is room.
    pub(crate) fn append_waiting(&mut self) -> Result<(), String> {
        let room = &mut self.room;
        while let Some((ticket, records)) = room.waiting.front_mut() {
            while let Some(next) = records.front() {
                let record = Record {
                    kind: next.kind,
                    height: next.height.get(),
                    round: next.round.get(),
                    block_hash: next.block_hash.0,
                    payload: &next.payload,
                };
                match self.log.append(record) {
                    Ok(_) => drop(records.pop_front()),
                    Err(LogError::NoSpace(_)) => {
                        room.lacks_record = true;
                        return Ok(());
                    }
                    Err(error) => return Err(error.to_string()),
                }
            }
            self.unsynced.push(*ticket);
            room.waiting.pop_front();
        }
        room.lacks_record = false;
        Ok(())
    }

    /// Makes the next segment, if it is not there.
    pub(crate) fn preallocate(&mut self) -> Result<(), String> {
        let made = self.room.preallocator.preallocate_next();
        self.room.lacks_segment = matches!(made, Err(LogError::NoSpace(_)));
        made.or_else(|error| if self.room.lacks_segment { Ok(()) } else { Err(error.to_string()) })
    }

    /// Keeps the results of a block that is told of; false where there is no room for them.
    pub(crate) fn keeps(&mut self, effect: &Effect) -> Result<bool, String> {
        let (Some(results), Effect::Report { report: Report::Committed { block, outcome, chain, .. }, .. }) = (&mut self.results, effect)
        else {
            return Ok(true);
        };
        let segment = self.reader.segment_of(outcome.height.get()).ok_or("the log does not know a height that it made durable")?;
        match results.append(segment, &keep(block, outcome, chain)) {
            Ok(()) => Ok(true),
            Err(error) if error.is_no_space() => Ok(false),
            Err(error) => Err(error.to_string()),
        }
    }
}
