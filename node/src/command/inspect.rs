//! `lockstep inspect --fork`: who forked a chain, from the homes of two nodes.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use lockstep_genesis::Genesis;
use lockstep_replica::evidence::forensics::{self, Crime};
use lockstep_replica::evidence::kept::Kept;
use lockstep_replica::light_store::LightStore;
use lockstep_replica::recovery::decided;
use lockstep_replica::seam::{ReadAnswer, ReadQuestion};
use lockstep_replica::source::BlockSource;
use lockstep_storage::disk::Disk;
use lockstep_storage::log::{self, Kind, LogReader};
use lockstep_storage::results;
use lockstep_types::crypto::verify_batch;
use lockstep_types::{BlockId, Commit, Header, Height, Polka, ValidatorIndex, ValidatorSet, ValidatorUpdate, Vote, codec};
use serde_json::json;

use super::say;
use crate::cli::InspectArgs;
use crate::error::{Exit, NodeError};
use crate::home::{Held, Home, LOG_PATH};

/// Bound on a record that is read back.
const RECORD_BYTES_MAX: usize = 1 << 20;
/// First byte of decisions and polkas in a log.
const RECORD_VERSION: u8 = 1;

fn failed(error: impl std::fmt::Display) -> NodeError {
    NodeError::new(Exit::Failed, error.to_string())
}

/// One node's data, held while it is read, and left as it is.
struct Side {
    genesis: Genesis,
    log: LogReader,
    source: BlockSource,
    light: LightStore,
    _held: Held,
}

impl Side {
    fn open(path: &Path) -> Result<Self, NodeError> {
        let home = Home::new(path);
        home.check_exists()?;
        let held = home.hold_to_read()?;
        let genesis = home.read_genesis()?;
        let disk: Arc<dyn Disk> = Arc::new(home.data_disk_to_read()?);
        let log = log::look(&disk, LOG_PATH).map_err(failed)?;
        let log = log.ok_or_else(|| {
            NodeError::new(Exit::Refused, format!("{} has no block so far", path.display())).next("start the node, or name another home")
        })?;
        let results = results::look(&*disk, LOG_PATH).map_err(failed)?;
        let light = LightStore::open(disk).map_err(failed)?;
        let source = BlockSource::new(log.clone()).with_light(Some(results), light.clone());
        Ok(Self { genesis, log, source, light, _held: held })
    }

    /// The decided block of a height, and its header. Headers outlive bodies.
    fn block(&self, height: Height) -> Result<(BlockId, Header), NodeError> {
        if self.log.base().is_some_and(|base| height.get() >= base) {
            let (block_id, block, ..) = decided(&self.log, height).map_err(failed)?;
            return Ok((block_id, block.header));
        }
        let light = self.light.find(height).map_err(failed)?;
        let light = light.ok_or_else(|| failed(format!("neither block nor header of height {height} can be read back here")))?;
        Ok((light.commit.block_id, light.header))
    }

    /// The lowest height of which the header is here.
    fn base(&self) -> Height {
        self.log.base().and_then(Height::new).map_or(Height::FIRST, |base| self.light.base_below(base))
    }

    /// Certificates and polkas of a height: the node's own, and the certificate that its next block carries.
    fn kept(&self, height: Height) -> Result<(Vec<Commit>, Vec<Polka>), NodeError> {
        let (mut commits, mut polkas) = (Vec::new(), self.source.kept_polkas(height, usize::MAX).map_err(failed)?);
        for entry in self.log.entries(height.get()) {
            let kind = entry.kind;
            if !matches!(kind, Kind::Decision | Kind::Evidence) {
                continue;
            }
            let stored = self.log.read(&entry).map_err(failed)?;
            match kind {
                // What the node met and was given when two certificates conflicted.
                Kind::Evidence => match Kept::from_payload(&stored.payload).map_err(failed)? {
                    Kept::Certificate(commit) => commits.push(*commit),
                    Kept::Polka(polka) => polkas.push(*polka),
                    Kept::Seen(_) | Kept::Piece(_) => {}
                },
                _ => commits.push(codec::decode(RECORD_VERSION, &stored.payload, RECORD_BYTES_MAX).map_err(failed)?),
            }
        }
        if self.log.base().is_some_and(|base| height.get() < base) {
            commits.extend(self.light.find(height).map_err(failed)?.map(|light| light.commit));
        } else if self.log.tip() > Some(height.get()) {
            commits.extend(decided(&self.log, height.next()).map_err(failed)?.1.last_commit);
        }
        Ok((commits, polkas))
    }

    /// The validators of a height, where this home has them.
    fn validators(&mut self, height: Height) -> Option<ValidatorSet> {
        match self.source.read(&ReadQuestion::Light { from: height, count: 1, bytes_max: 0, tip: Height::ZERO }) {
            Ok(ReadAnswer::Light(blocks)) => blocks.into_iter().find(|block| block.header.height == height).map(|block| block.validators),
            _ => None,
        }
    }

    /// The lowest height at which this node met a certificate that contradicts its own, and the block of that.
    fn met_fork(&self) -> Result<Option<(Height, BlockId)>, NodeError> {
        let mut found: Option<(Height, BlockId)> = None;
        for entry in self.log.evidence() {
            let stored = self.log.read(&entry).map_err(failed)?;
            if let Kept::Certificate(commit) = Kept::from_payload(&stored.payload).map_err(failed)?
                && found.is_none_or(|(height, _)| commit.height < height)
                && self.block(commit.height).is_ok_and(|(ours, _)| ours != commit.block_id)
            {
                found = Some((commit.height, commit.block_id));
            }
        }
        Ok(found)
    }

    /// Those of genesis.
    fn first_validators(&self) -> Option<ValidatorSet> {
        let first = self.genesis.validators.iter();
        let first: Vec<_> = first.map(|one| ValidatorUpdate { public_key: one.public_key, power: one.power }).collect();
        ValidatorSet::new(&first).ok()
    }
}

/// The set that the header of a height names. It follows from the blocks below, which are the same on both sides; one that changes
/// nothing stands at the heights beside it, too.
fn validators_of(sides: &mut [Side], height: Height) -> Result<ValidatorSet, NodeError> {
    let wanted = sides[0].block(height)?.1.validators_hash;
    let of_side = |side: &mut Side| {
        [side.validators(height), side.first_validators(), side.validators(height.next()), side.validators(height.previous())]
    };
    let candidates: Vec<_> = sides.iter_mut().flat_map(of_side).collect();
    candidates.into_iter().flatten().find(|set| set.hash() == wanted).ok_or_else(|| {
        NodeError::new(Exit::Refused, format!("the validators of height {height} are not kept here"))
            .next("start one of the nodes once, so that it makes its results again, and stop it")
    })
}

/// The first height at which two chains differ, of those that both keep. Behind a fork every block differs, since each names its
/// parent, so it is found by halving.
fn first_difference(a: &Side, b: &Side) -> Result<Result<Height, Height>, NodeError> {
    let base = a.base().max(b.base());
    let tip = a.log.tip().min(b.log.tip()).and_then(Height::new).unwrap_or(Height::ZERO);
    if tip < base {
        return Err(NodeError::new(Exit::Refused, "the two homes keep no height in common"));
    }
    let differs = |height: Height| Ok::<bool, NodeError>(a.block(height)?.0 != b.block(height)?.0);
    if !differs(tip)? {
        return Ok(Err(tip));
    }
    if differs(base)? {
        if base > a.genesis.initial_height() {
            let what =
                format!("the two differ at height {base} already, the first of which both keep the header: where they parted is pruned");
            return Err(NodeError::new(Exit::Refused, what));
        }
        return Ok(Ok(base));
    }
    let (mut same, mut other) = (base, tip);
    while same.next() < other {
        let middle = same.plus((other.get() - same.get()) / 2);
        if differs(middle)? { other = middle } else { same = middle }
    }
    Ok(Ok(other))
}

/// `lockstep inspect --fork`
pub(super) fn run(args: &InspectArgs) -> Result<(), NodeError> {
    if let [a, b] = &args.fork[..] {
        // One folder may have several names: links, or a mount of it elsewhere.
        let folder = |path: &Path| path.metadata().ok().map(|found| (found.dev(), found.ino()));
        if folder(a).is_some_and(|a| Some(a) == folder(b)) {
            return Err(NodeError::new(Exit::Refused, format!("{} and {} are the same home", a.display(), b.display()))
                .next("name the homes of two nodes, or one alone to see what it met"));
        }
        let genesis = |path: &Path| {
            let home = Home::new(path);
            home.check_exists()?;
            home.read_genesis()
        };
        if genesis(a)?.hash() != genesis(b)?.hash() {
            return Err(NodeError::new(Exit::Refused, "the two homes have different genesis files: they are of two chains"));
        }
    }
    let mut sides = args.fork.iter().map(|home| Side::open(home)).collect::<Result<Vec<_>, _>>()?;
    let parted = match &sides[..] {
        [one] => match one.met_fork()? {
            Some((height, theirs)) => Ok((height, [one.block(height)?.0, theirs])),
            None => Err(one.log.tip().and_then(Height::new).unwrap_or(Height::ZERO)),
        },
        [a, b] => match first_difference(a, b)? {
            Ok(height) => Ok((height, [a.block(height)?.0, b.block(height)?.0])),
            Err(tip) => Err(tip),
        },
        _ => return Err(NodeError::new(Exit::Refused, "--fork takes one home or two")),
    };
    let (height, blocks) = match parted {
        Ok(parted) => parted,
        Err(tip) => {
            say(if args.json { json!({ "forked": false, "height": tip }).to_string() } else { format!("one chain, up to height {tip}") });
            return Ok(());
        }
    };
    let validators = validators_of(&mut sides, height)?;
    let (mut commits, mut polkas) = (Vec::new(), Vec::new());
    for side in &sides {
        let kept = side.kept(height)?;
        commits.extend(kept.0);
        polkas.extend(kept.1);
    }
    let votes = forensics::votes(&commits, &polkas);
    let named = forensics::culprits(&votes, &validators, &sides[0].genesis.chain_id, &mut verify_batch);
    let found = Found { height, blocks, validators: &validators, named: named.into_iter().collect() };
    if args.json {
        say(found.to_json())
    } else {
        found.tell()
    }
    let (power, total) = found.power();
    let what = format!("there is one chain up to height {}, and there are two from height {height} on", height.previous());
    Err(NodeError::new(Exit::Failed, what).means(format!("validators with power {power} of {total} broke the rules, as shown above")))
}

struct Found<'a> {
    height: Height,
    blocks: [BlockId; 2],
    validators: &'a ValidatorSet,
    named: Vec<(ValidatorIndex, Crime)>,
}

impl Found<'_> {
    fn power(&self) -> (u64, u64) {
        let of = |index: &ValidatorIndex| self.validators.get(*index).map_or(0, |validator| validator.power.get());
        (self.named.iter().map(|(index, _)| of(index)).sum(), self.validators.total_power().get())
    }

    fn tell(&self) {
        say(format!("height {}: {} on one side, {} on the other", self.height, self.blocks[0], self.blocks[1]));
        for (index, crime) in &self.named {
            if let Some(validator) = self.validators.get(*index) {
                say(format!("{}  power {:>6}  {crime}", validator.address, validator.power));
            }
        }
    }

    fn to_json(&self) -> serde_json::Value {
        let signed = |vote: &Vote| {
            json!({
                "round": vote.round.get(), "block": vote.block_id.map(|id| id.hash.to_string()),
                "valid_round": vote.valid_round.map(lockstep_types::Round::get), "timestamp": vote.timestamp,
                "signature": vote.signature.0.iter().map(|byte| format!("{byte:02X}")).collect::<String>(),
            })
        };
        let culprit = |(index, crime): &(ValidatorIndex, Crime)| {
            let (kind, pair) = match crime {
                Crime::TwoVotes(pair) => ("two votes", pair),
                Crime::Amnesia(pair) => ("amnesia", pair),
            };
            let validator = self.validators.get(*index);
            json!({
                "address": validator.map(|validator| validator.address.to_string()),
                "power": validator.map(|validator| validator.power.get()),
                "crime": kind, "words": crime.to_string(), "votes": [signed(&pair.0), signed(&pair.1)],
            })
        };
        let (power, total) = self.power();
        json!({
            "forked": true, "height": self.height, "blocks": [self.blocks[0].to_string(), self.blocks[1].to_string()],
            "culprits": self.named.iter().map(culprit).collect::<Vec<_>>(), "power": power, "total_power": total,
        })
    }
}
