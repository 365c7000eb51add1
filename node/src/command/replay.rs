//! `lockstep replay`: does the log of a stopped node still give what was certified?

use std::sync::Arc;
use std::time::Duration;

use lockstep_app::{Application, Host};
use lockstep_genesis::Genesis;
use lockstep_replica::recovery::RecoveryError;
use lockstep_replica::recovery::reexecute::{Archive, Begin, Difference, FirstTx};
use lockstep_storage::disk::{Disk, RealDisk};
use lockstep_storage::log::LogError;
use lockstep_storage::quarantine::Quarantine;
use lockstep_storage::results::ResultsError;
use lockstep_types::{Height, TxResult};
use serde_json::{Value, json};

use super::bar::{Bar, rate};
use super::{home_of, say, shell_word};
use crate::cli::ReplayArgs;
use crate::error::{Exit, NodeError};
use crate::home::{DAMAGED_PATH, Home, LOG_PATH};

/// Bytes of a result's data that are shown to people.
const DATA_SHOWN: usize = 64;

/// What kept a command from doing its work.
pub(super) fn failed(error: impl std::fmt::Display) -> NodeError {
    NodeError::new(Exit::Failed, error.to_string())
}

/// What kept a command from reading a home. Where that is damage a mark is left, which has the next start verify every record, and not only those
/// that it needs.
pub(super) fn damaged(disk: &Arc<dyn Disk>, error: &RecoveryError) -> NodeError {
    let is_damage = matches!(
        error,
        RecoveryError::Log(LogError::Rot { .. } | LogError::MissingSegment { .. }) | RecoveryError::Results(ResultsError::Damaged { .. })
    );
    if !is_damage {
        return failed(error);
    }
    let next = match Quarantine::new(disk.clone(), DAMAGED_PATH).suspect() {
        Ok(()) => {
            "start the node: it verifies every record now, says what it does about those that are damaged, and what it needs comes again"
        }
        Err(_) => "look at the disk, and start the node: docs/operating.md says what a start does about damaged files",
    };
    failed(error).next(next)
}

/// The log of a home, on its disk.
///
/// # Errors
/// When it cannot be read, or has no block.
pub(super) fn archive<'a>(home: &Home, disk: RealDisk, genesis: &'a Genesis, app: Arc<dyn Application>) -> Result<Archive<'a>, NodeError> {
    let disk: Arc<dyn Disk> = Arc::new(disk);
    let found = Archive::open(disk.clone(), LOG_PATH, genesis, Host::new(app)).map_err(|error| damaged(&disk, &error))?;
    found.ok_or_else(|| {
        let home = shell_word(home.root().display());
        NodeError::new(Exit::Refused, format!("{home} has no block so far")).next("start the node, or name another --home")
    })
}

/// `lockstep replay`
pub(super) fn run(args: &ReplayArgs, app: Arc<dyn Application>) -> Result<(), NodeError> {
    let home = home_of(&args.home)?;
    home.check_exists()?;
    // A node that runs writes what is read here.
    let _held = home.hold_to_read()?;
    let genesis = home.read_genesis()?;
    let archive = archive(&home, home.data_disk_to_read()?, &genesis, app)?;
    let (base, tip) = (archive.base(), archive.tip());
    let to = args.to.unwrap_or(tip);
    let has_first = base == archive.before_first().next();
    if to > tip || args.from.is_some_and(|from| from > to || (has_first && from < base)) {
        return Err(NodeError::new(Exit::Refused, format!("the log holds blocks {base} to {tip}"))
            .next("name a --from and a --to among them, the first not above the second"));
    }
    let begin = args.from.map_or(Begin::First, Begin::At);
    let read = |begin| archive.start(begin).map_err(|error| damaged(archive.disk(), &error));
    let Some(start) = read(begin)?.filter(|start| start.height < to && args.from.is_none_or(|from| from >= base)) else {
        let next = match read(Begin::First)?.map(|start| start.height).filter(|height| *height < tip) {
            Some(height) => format!("replay blocks from {} on: the first state that is here is that of height {height}", height.next()),
            None => format!("lockstep snapshot list --home {} shows what there is", shell_word(home.root().display())),
        };
        return Err(NodeError::new(Exit::Refused, format!("there is no state to begin with: blocks below {base} were pruned"))
            .means("a replay begins with genesis, or with a snapshot of this home that its log proves")
            .next(next));
    };
    let from = start.height;
    let origin = if start.is_snapshot { format!("the snapshot of height {from}") } else { "genesis".to_owned() };
    let (mut blocks, mut txs) = (0, 0);
    let mut bar = Bar::new(to.get() - from.get(), "blocks");
    let walked = archive.walk(start, to, |block| {
        (blocks, txs) = (blocks + 1, txs + block.txs.len());
        bar.show(blocks);
    });
    let took = bar.end();
    let walked = walked.map_err(|error| {
        damaged(archive.disk(), &error)
            .means(format!("the {blocks} blocks from {origin} on give what was certified; the next cannot be executed"))
    })?;
    let found = Found { origin, from, last: walked.chain.height, tip, blocks, txs, took, root: walked.chain.app_hash.to_string() };
    match (&walked.difference, args.json) {
        (difference, true) => say(found.to_json(difference.as_ref())),
        (None, false) => found.tell(),
        (Some(difference), false) => tell(difference),
    }
    let Some(difference) = walked.difference else { return Ok(()) };
    Err(wrong(&difference))
}

struct Found {
    origin: String,
    from: Height,
    last: Height,
    tip: Height,
    blocks: u64,
    txs: usize,
    took: Duration,
    root: String,
}

impl Found {
    fn tell(&self) {
        let Self { origin, from, last, blocks, txs, took, root, .. } = self;
        let seconds = took.as_secs_f64();
        let rate = rate(*blocks, *took);
        say(format!(
            "blocks {} to {last}, from {origin}: {blocks} blocks with {txs} transactions in {seconds:.1} s, {rate:.0} blocks/s",
            from.next()
        ));
        say(if *last == self.tip {
            format!("each gives what the next header certifies; the newest has root {root}, which no header says so far")
        } else {
            format!("each gives what the next header certifies; the last of them has root {root}")
        });
    }

    fn to_json(&self, difference: Option<&Difference>) -> Value {
        json!({
            "from": self.from.next().get(), "to": self.last.get(), "snapshot": self.origin != "genesis", "blocks": self.blocks, "txs": self.txs,
            "seconds": self.took.as_secs_f64(), "blocks_per_second": rate(self.blocks, self.took), "app_hash": self.root,
            "difference": difference.map(in_json),
        })
    }
}

fn in_json(difference: &Difference) -> Value {
    let result = |result: &TxResult| {
        json!({
            "code": result.code, "data": hex::encode(&result.data), "log": result.log, "gas_wanted": result.gas_wanted,
            "gas_used": result.gas_used,
        })
    };
    let tx = match &difference.tx {
        FirstTx::Found(tx) => {
            json!({ "index": tx.index, "hash": tx.hash.to_string(), "expected": result(&tx.expected), "found": result(&tx.found) })
        }
        FirstTx::SameResults | FirstTx::NotKept => Value::Null,
    };
    let fields = difference.fields.iter().map(|field| (field.name.to_owned(), json!({ "expected": field.expected, "found": field.found })));
    json!({
        "height": difference.height.get(), "certified": difference.is_certified, "fields": fields.collect::<serde_json::Map<_, _>>(),
        "tx": tx, "same_results": difference.tx == FirstTx::SameResults, "deterministic": !difference.is_unsteady,
    })
}

/// Says what differs, for people.
pub(super) fn tell(difference: &Difference) {
    let (height, by) = (difference.height, if difference.is_certified { "certified" } else { "kept" });
    say(format!("block {height} gives something else than was {by}:"));
    for field in &difference.fields {
        say(format!("  {:<20} {by} {}", field.name, field.expected));
        say(format!("  {:<20} {:>w$} {}", "", "now", field.found, w = by.len()));
    }
    let shown = |result: &TxResult| {
        let TxResult { code, gas_wanted, gas_used, .. } = result;
        let data = hex::encode(&result.data[..result.data.len().min(DATA_SHOWN)]);
        let cut = if result.data.len() > DATA_SHOWN { "…" } else { "" };
        format!("code {code}, gas {gas_used} of {gas_wanted}, data {}{cut}", if data.is_empty() { "none".to_owned() } else { data })
    };
    match &difference.tx {
        FirstTx::Found(tx) => {
            say(format!("first transaction that differs: number {} of the block, {}", tx.index, tx.hash));
            say(format!("  {by:<9}  {}", shown(&tx.expected)));
            say(format!("  now        {}", shown(&tx.found)));
        }
        FirstTx::SameResults => say("all its transactions have the results they should: what differs is what was written to the state"),
        FirstTx::NotKept => say("the results that were expected are not kept in this home, so no transaction can be named"),
    }
    if difference.is_unsteady {
        say("executed twice on the same state it gives two different things: the application is not deterministic");
    }
}

/// The end of a command that met a difference.
pub(super) fn wrong(difference: &Difference) -> NodeError {
    let height = difference.height;
    let error = NodeError::new(Exit::Failed, format!("block {height} does not give what it should, as shown above"));
    if difference.is_certified {
        error
            .means("more than two thirds of the power certified the other: this program, or its application, computes something else")
            .next("run the version that the other nodes run, or mend the application; lockstep rollback then has the blocks executed again")
    } else {
        error
            .means("this node computed something else when it ran; no header has certified either so far")
            .next("compare app_hash with the other nodes; if this one was wrong: lockstep rollback, and start it again")
    }
}
