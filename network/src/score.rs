//! Points for misbehaviour. They fade; too many at once cost the connection and a while outside.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::identity::NodeId;
use crate::limits::SCORES_MAX;

/// At this many points a peer is disconnected and banned for [`crate::Pace::ban`].
pub const POINTS_MAX: u32 = 100;
/// Points forgiven per second. An honest peer whose messages cross a reorganisation of heights stays far below.
pub const POINTS_FORGIVEN_PER_S: u32 = 1;
/// For gossip that the node rejected.
pub const POINTS_GOSSIP_REJECTED: u32 = 20;
/// For bytes that are no frame or no request: no correct node sends them.
pub(crate) const POINTS_BAD_FRAME: u32 = 50;

struct Score {
    points: u32,
    as_of: Instant,
    banned_until: Option<Instant>,
}

impl Score {
    fn fade(&mut self, now: Instant) {
        let seconds = now.saturating_duration_since(self.as_of).as_secs();
        let forgiven = u32::try_from(seconds).unwrap_or(u32::MAX).saturating_mul(POINTS_FORGIVEN_PER_S);
        self.points = self.points.saturating_sub(forgiven);
        self.as_of += Duration::from_secs(seconds);
        if self.banned_until.is_some_and(|until| until <= now) {
            self.banned_until = None;
        }
    }

    fn is_clean(&self) -> bool {
        self.points == 0 && self.banned_until.is_none()
    }
}

/// The points of every identity that has any, whether connected or not: leaving does not wipe the slate.
pub(crate) struct Scores {
    ban: Duration,
    by_node: BTreeMap<NodeId, Score>,
}

impl Scores {
    pub(crate) fn new(ban: Duration) -> Self {
        Self { ban, by_node: BTreeMap::new() }
    }

    /// Adds points; true when they are too many now and the peer is banned.
    pub(crate) fn penalise(&mut self, node: NodeId, points: u32, now: Instant) -> bool {
        if !self.by_node.contains_key(&node) && self.by_node.len() >= SCORES_MAX {
            self.make_room(now);
        }
        let score = self.by_node.entry(node).or_insert(Score { points: 0, as_of: now, banned_until: None });
        score.fade(now);
        score.points = score.points.saturating_add(points);
        let banned = score.points >= POINTS_MAX;
        if banned {
            score.points = 0;
            score.banned_until = Some(now + self.ban);
        }
        banned
    }

    pub(crate) fn is_banned(&self, node: NodeId, now: Instant) -> bool {
        self.by_node.get(&node).and_then(|score| score.banned_until).is_some_and(|until| until > now)
    }

    pub(crate) fn points(&mut self, node: NodeId, now: Instant) -> u32 {
        self.by_node.get_mut(&node).map_or(0, |score| {
            score.fade(now);
            score.points
        })
    }

    /// Forgets the clean; if all are dirty, the one with the fewest points that is not banned, else the ban that ends first.
    fn make_room(&mut self, now: Instant) {
        self.by_node.retain(|_, score| {
            score.fade(now);
            !score.is_clean()
        });
        if self.by_node.len() >= SCORES_MAX {
            let mildest = self.by_node.iter().min_by_key(|(_, score)| (score.banned_until, score.points)).map(|(node, _)| *node);
            mildest.and_then(|node| self.by_node.remove(&node));
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.by_node.len()
    }
}
