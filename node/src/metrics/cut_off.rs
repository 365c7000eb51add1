//! Why blocks do not bring a node further, as its metrics say it and its operator reads it.

use lockstep_sync::state::{Needs, Told};

/// What a node needs that begins with a snapshot: a new one, or one whose next block nobody has any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CutOff {
    /// Nothing but time: it gathers a snapshot.
    Time,
    /// Its peers' chain does not reach the header that the operator named.
    Height,
    /// No peer has a snapshot, nor the blocks.
    Peer,
    /// What it trusts is too old, or everybody has forgotten it.
    Trust,
    /// Its peers have another block at the height that the operator named than the one that was named.
    Hash,
}

impl CutOff {
    /// Each of them.
    pub const ALL: [Self; 5] = [Self::Time, Self::Height, Self::Peer, Self::Trust, Self::Hash];
    /// The metric, as a reader finds it, with [`Self::labels`].
    const METRIC: &str = "lockstep_cut_off";

    /// The word in the metric, and in `lockstep status --json`. Part of the interface.
    pub fn label(self) -> &'static str {
        match self {
            Self::Time => "time",
            Self::Height => "height",
            Self::Peer => "peer",
            Self::Trust | Self::Hash => "trust",
        }
    }

    /// The labels of the metric: the word, and which case of it where there is more than one.
    pub(crate) fn labels(self) -> Vec<(&'static str, &'static str)> {
        let needs = ("needs", self.label());
        if self == Self::Hash { vec![needs, ("because", "another_hash")] } else { vec![needs] }
    }

    /// For the operator: what it means.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Time => "it gathers a snapshot, and goes on from that",
            Self::Height => "the header that it is to trust lies above everything that its peers have",
            Self::Peer => "no peer has the blocks that it needs any more, and none offers a snapshot",
            Self::Trust => {
                "no peer has the blocks that it needs any more, and what it trusts is too old to prove a snapshot, or forgotten by \
                 everybody"
            }
            Self::Hash => "the header that it is to trust is not the one that its peers have at that height",
        }
    }

    /// What the operator is to do; nothing where it goes on by itself.
    pub fn remedy(self) -> Option<&'static str> {
        match self {
            Self::Time => None,
            Self::Height => Some("start it with a height and hash of this chain: lockstep snapshot bundle, beside a node that you trust"),
            Self::Peer => Some("connect a peer that keeps snapshots (storage.keep_snapshots), or all blocks"),
            Self::Trust => Some(
                "beside a node that you trust:  lockstep snapshot bundle --output join.json   and start this one with it:  lockstep start \
                 --bundle join.json   (docs/operating.md, \"A new node from a snapshot\")",
            ),
            Self::Hash => Some(
                "compare the hash of that height with somebody you trust (the log has both). If what this node was given is wrong or of \
                 another chain, write a new bundle beside a node that you trust:  lockstep snapshot bundle --output join.json   and start \
                 this one with it:  lockstep start --bundle join.json",
            ),
        }
    }

    /// What a node's metrics say.
    pub(crate) fn read(metrics: &str) -> Option<Self> {
        metrics.lines().filter_map(|line| line.strip_prefix(Self::METRIC)).find_map(Self::needed)
    }

    fn needed(line: &str) -> Option<Self> {
        let (labels, value) = line.strip_prefix('{')?.split_once("} ")?;
        let written = |why: &Self| why.labels().iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect::<Vec<_>>().join(",");
        Self::ALL.into_iter().find(|why| written(why) == labels && value == "1")
    }

    /// What state sync's words mean where this is so by now: none where they leave it as it is.
    pub(crate) fn of(told: &Told, now: Option<Self>) -> Option<Option<Self>> {
        match told {
            // It goes on asking though nothing that it trusts is known to anybody. That is over with the first chunk.
            Told::Chosen { .. } if matches!(now, Some(Self::Trust | Self::Hash)) => None,
            Told::Chosen { .. } | Told::Progress { .. } => Some(Some(Self::Time)),
            Told::GivenUp { .. } => None,
            Told::FallsBack { .. } => Some(None),
            Told::Fails { .. } | Told::Waits { needs: Needs::Root, .. } => Some(Some(Self::Trust)),
            Told::Waits { needs: Needs::Hash, .. } => Some(Some(Self::Hash)),
            Told::Waits { needs: Needs::Height, .. } => Some(Some(Self::Height)),
            Told::Waits { needs: Needs::Peer, .. } => Some(Some(Self::Peer)),
        }
    }
}
