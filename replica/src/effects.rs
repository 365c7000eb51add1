//! Collects what one step asks for, and numbers it.

use bytes::Bytes;

use crate::seam::{Effect, JobId, Lane, Peer, Report, Target, Ticket, Write};
use crate::wire::Message;

/// The effects of one step, in the order they must happen. Only functions that take `&mut Effects` can ask for anything.
#[derive(Debug, Default)]
pub struct Effects {
    list: Vec<Effect>,
    jobs: u64,
    tickets: u64,
}

impl Effects {
    /// What was asked for since the last call.
    pub fn take(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.list)
    }

    /// Asks.
    pub fn push(&mut self, effect: Effect) {
        self.list.push(effect);
    }

    /// A number for a new job.
    pub fn job(&mut self) -> JobId {
        self.jobs += 1;
        JobId(self.jobs)
    }

    /// Asks to make something durable, after other things are.
    pub fn persist(&mut self, after: Vec<Ticket>, write: Write) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.push(Effect::Persist { ticket, after, write });
        ticket
    }

    /// Sends to one peer.
    pub fn send(&mut self, peer: Peer, lane: Lane, message: &Message) {
        self.push(Effect::Send { to: Target::One(peer), lane, bytes: message.encode() });
    }

    /// Sends to all peers.
    pub fn broadcast(&mut self, lane: Lane, message: &Message) {
        self.broadcast_bytes(lane, message.encode());
    }

    /// Sends an encoded message to all peers.
    pub fn broadcast_bytes(&mut self, lane: Lane, bytes: Bytes) {
        self.push(Effect::Send { to: Target::All, lane, bytes });
    }

    /// Reports, waiting for nothing.
    pub fn report(&mut self, report: Report) {
        self.push(Effect::Report { after: Vec::new(), report });
    }
}
