//! Validator sets and who proposes, restated from the specification's arithmetic in numbers that cannot overflow.

use super::bytes::Hash;
use super::hashes::{self, sha};

/// One validator.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) key: [u8; 32],
    pub(super) address: [u8; 20],
    pub(super) power: i128,
    priority: i128,
}

/// A set: power descending, then address ascending.
#[derive(Debug, Clone, Default)]
pub(super) struct Set {
    pub(super) members: Vec<Member>,
    proposer: [u8; 20],
}

fn address(key: &[u8; 32]) -> [u8; 20] {
    sha(&[key])[..20].try_into().expect("20 of 32")
}

impl Set {
    /// The set that genesis or the application names.
    pub(super) fn new(members: &[([u8; 32], u64)]) -> Result<Self, String> {
        let mut set = Self::default();
        set.update(members)?;
        set.increment(1);
        Ok(set)
    }

    pub(super) fn total(&self) -> i128 {
        self.members.iter().map(|member| member.power).sum()
    }

    fn scale_and_centre(&mut self) {
        let window = 2 * self.total();
        let priorities = || self.members.iter().map(|member| member.priority);
        let spread = priorities().max().unwrap_or(0) - priorities().min().unwrap_or(0);
        if spread > window {
            let ratio = (spread + window - 1) / window;
            self.members.iter_mut().for_each(|member| member.priority /= ratio);
        }
        let sum: i128 = self.members.iter().map(|member| member.priority).sum();
        let average = sum.div_euclid(self.members.len() as i128);
        self.members.iter_mut().for_each(|member| member.priority -= average);
    }

    /// One call of the rule, with so many steps.
    pub(super) fn increment(&mut self, steps: u32) {
        self.scale_and_centre();
        let total = self.total();
        for _ in 0..steps {
            self.members.iter_mut().for_each(|member| member.priority += member.power);
            let best = |a: &&mut Member, b: &&mut Member| a.priority.cmp(&b.priority).then(b.address.cmp(&a.address));
            let winner = self.members.iter_mut().max_by(best).expect("a set is never empty");
            winner.priority -= total;
            self.proposer = winner.address;
        }
    }

    /// Who proposes in a round.
    pub(super) fn proposer(&self, round: u32) -> [u8; 20] {
        if round == 0 {
            return self.proposer;
        }
        let mut copy = self.clone();
        copy.increment(round);
        copy.proposer
    }

    pub(super) fn update(&mut self, updates: &[([u8; 32], u64)]) -> Result<(), String> {
        if updates.is_empty() {
            return Ok(());
        }
        for (key, power) in updates {
            let (address, power) = (address(key), i128::from(*power));
            match self.members.iter_mut().find(|member| member.address == address) {
                Some(member) => member.power = if power == 0 { -member.power } else { power },
                None if power == 0 => return Err("somebody unknown is removed".into()),
                // Marked by a priority that no member has, until the total is known.
                None => self.members.push(Member { key: *key, address, power, priority: i128::MIN }),
            }
        }
        // Those who go still count here: they are marked by a negative power.
        let before_removals: i128 = self.members.iter().filter(|member| member.power > 0).map(|member| member.power).sum();
        let going: i128 = self.members.iter().filter(|member| member.power < 0).map(|member| -member.power).sum();
        let newcomers = -(before_removals + going + ((before_removals + going) >> 3));
        self.members.iter_mut().filter(|member| member.priority == i128::MIN).for_each(|member| member.priority = newcomers);
        self.members.retain(|member| member.power > 0);
        if self.members.is_empty() {
            return Err("nobody is left".into());
        }
        self.scale_and_centre();
        self.members.sort_by(|a, b| b.power.cmp(&a.power).then(a.address.cmp(&b.address)));
        Ok(())
    }

    pub(super) fn hash(&self) -> Hash {
        let power = |member: &Member| i64::try_from(member.power).expect("powers fit");
        hashes::validators(self.members.iter().map(|member| (&member.key, power(member))))
    }
}
