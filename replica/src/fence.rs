//! Holds effects back until what they wait for is durable. Both shells use this one; the order of effects that safety
//! needs lives here and in the tickets, nowhere in the shells.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_types::planted::{self, Bug};

use crate::seam::{Effect, Ticket};

/// Effects that wait, and what for.
#[derive(Debug, Default)]
pub struct Fence {
    /// Tickets issued and not yet durable.
    open: BTreeSet<Ticket>,
    /// Waiting effects by arrival, with the tickets that each still misses.
    waiting: BTreeMap<u64, (BTreeSet<Ticket>, Effect)>,
    /// Who waits for a ticket.
    waiters: BTreeMap<Ticket, Vec<u64>>,
    arrivals: u64,
}

impl Fence {
    /// An empty fence.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes an effect that the replica emitted; gives it back when nothing it waits for is open. A ticket counts as open
    /// from the effect that carries it until [`Fence::durable`], whether that effect is itself waiting or not.
    pub fn admit(&mut self, effect: Effect) -> Option<Effect> {
        let missing: BTreeSet<Ticket> = effect.after().iter().filter(|ticket| self.open.contains(ticket)).copied().collect();
        if let Effect::Persist { ticket, .. } = &effect
            && (missing.is_empty() || !planted::has(Bug::WaitingWriteIsDurable))
        {
            assert!(self.open.insert(*ticket), "a ticket names one write");
        }
        if missing.is_empty() {
            return Some(effect);
        }
        let arrival = self.arrivals;
        self.arrivals += 1;
        for ticket in &missing {
            self.waiters.entry(*ticket).or_default().push(arrival);
        }
        self.waiting.insert(arrival, (missing, effect));
        None
    }

    /// A write is durable: the effects that waited for it alone, in the order they were emitted.
    pub fn durable(&mut self, ticket: Ticket) -> Vec<Effect> {
        self.open.remove(&ticket);
        let mut released = Vec::new();
        let mut waiters = self.waiters.remove(&ticket).unwrap_or_default();
        waiters.sort_unstable();
        for arrival in waiters {
            if planted::has(Bug::FirstTicketReleases) && !self.waiting.contains_key(&arrival) {
                continue;
            }
            let (missing, _) = self.waiting.get_mut(&arrival).expect("a waiter waits");
            missing.remove(&ticket);
            if missing.is_empty() || planted::has(Bug::FirstTicketReleases) {
                released.extend(self.waiting.remove(&arrival).map(|(_, effect)| effect));
            }
        }
        released
    }

    /// Number of effects held back.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nothing is held back.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

impl Effect {
    /// The tickets that must be durable before this effect starts.
    pub fn after(&self) -> &[Ticket] {
        match self {
            Self::Sign { after, .. }
            | Self::Persist { after, .. }
            | Self::Flush { after, .. }
            | Self::Reply { after, .. }
            | Self::Report { after, .. } => after,
            _ => &[],
        }
    }
}
