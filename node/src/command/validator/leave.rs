//! `lockstep validator quit` and `approve`.

use std::collections::BTreeSet;
use std::time::Instant;

use lockstep_app::membership::{Approve, NodeTx, Quit, RecentBlock};
use lockstep_types::{Address, Signature};
use tokio::time::sleep;

use super::members::find_key;
use super::{LOOK, Seat, Told, power_of};
use crate::cli::{ApproveArgs, QuitArgs};
use crate::command::{SILENCE_MAX, say};
use crate::error::{Exit, NodeError};

const NOTHING: Signature = Signature([0; 64]);

pub(super) async fn quit(args: &QuitArgs) -> Result<(), NodeError> {
    let seat = Seat::open(&args.seat)?;
    let mut told = Told::default();
    seat.catch_up(&mut told).await?;
    let members = seat.members().await?;
    let public_key = match &args.who {
        Some(who) => find_key(&members, who)?,
        None => seat.key.public_key(),
    };
    let address = public_key.address();
    if members.get(&address).is_none() {
        return Err(NodeError::new(
            Exit::Refused,
            format!("{address} is no validator and does not ask to be one: it has left already, or never was one"),
        )
        .means("there is nothing to leave; its node follows the chain")
        .next("lockstep validator list shows who validates"));
    }
    let key = seat.signer(args.signer.as_deref())?;
    // Known before it is waited for those who stay.
    if key.public_key() != public_key && !members.is_authority(&key.public_key()) {
        return Err(NodeError::new(
            Exit::TxRefused,
            format!("{} may not ask {address} to leave: only its own key and the authority's may", key.public_key().address()),
        )
        .next("sign with one of these: --signer FILE; lockstep validator list --json shows the keys of the authority"));
    }
    let make =
        |recent: RecentBlock| seat.sign(NodeTx::Quit(Quit { public_key, signer: key.public_key(), recent, signature: NOTHING }), &key);
    let leaves_already = members.waiting.iter().any(|waiting| waiting.power == 0 && waiting.address == address.to_string());
    if leaves_already {
        say(format!("{address} is leaving already"));
    } else {
        wait_for_those_who_stay(&seat, &address, &mut told).await?;
        let (height, log) = seat.request(&mut told, make).await?;
        told.progress(format!("in block {height}: {log}"));
    }
    // Of several keys of an authority, only the last one effects it: nothing is waited for before.
    if seat.no_wait || !leaves(&seat, &address).await? {
        return Ok(());
    }
    wait_until_gone(&seat, &address, &mut told).await
}

/// Waits until those who stay have decided a block since this command began, so that they can go on alone. The chain refuses a request
/// that leaves it without a live majority, but it counts on everybody who signed one of its last twenty commits: of a validator that has
/// only just stopped it knows nothing yet, and a chain that has nothing to do learns of it minutes later.
async fn wait_for_those_who_stay(seat: &Seat, address: &Address, told: &mut Told) -> Result<(), NodeError> {
    let began = Instant::now();
    let mut since = None;
    loop {
        let members = seat.members().await?;
        if members.get(address).is_none_or(|member| member.power == 0) {
            return Ok(());
        }
        let since = *since.get_or_insert(members.height);
        // Who signed the newest block, the chain says with the next one; this node knows it already.
        let newest = if members.height > since { seat.signers(members.height).await } else { BTreeSet::new() };
        let rest = members.rest(Some(address), |member| member.signed_above(since) || newest.contains(&member.address));
        if rest.total == 0 {
            say(format!("{address} is the last validator: without it nobody would decide the next block"));
            return Ok(());
        }
        if rest.can_decide() {
            return Ok(());
        }
        if began.elapsed() > SILENCE_MAX {
            told.progress(format!(
                "NOT asked yet: of those who stay, {} of power {} signed a block since this command began, and more than two thirds must, or \
                 the chain would stand still without {address}. Waiting for {} (a transaction brings the next block sooner; Ctrl-C breaks off, \
                 and nothing was asked)",
                rest.present,
                rest.total,
                rest.absent.join(", ")
            ));
        }
        sleep(LOOK).await;
    }
}

/// Whether it has lost its power, or stands in the line of those who do.
async fn leaves(seat: &Seat, address: &Address) -> Result<bool, NodeError> {
    let members = seat.members().await?;
    Ok(members.place_in_line(address).is_some() || members.get(address).is_none_or(|member| member.power == 0))
}

async fn wait_until_gone(seat: &Seat, address: &Address, told: &mut Told) -> Result<(), NodeError> {
    loop {
        let members = seat.members().await?;
        let status = seat.status().await?;
        let power = members.get(address).map_or(0, |member| member.power);
        if power == 0 && !seat.decides(address).await {
            say(format!("{address} has no power any more: height {} is decided without it", status.sync_info.latest_block_height.next()));
            // Another node may have been asked, as where the own one halted.
            if status.validator_info.address == *address {
                say("its node follows the chain from now on; stopped, it first hands over the transactions that wait with it");
            }
            return Ok(());
        }
        told.progress(match members.place_in_line(address) {
            Some(place) => format!("it signs until its power may move; place {place} of the line: {}", members.about_moving()),
            None => "granted: it signs two more heights".to_owned(),
        });
        sleep(LOOK).await;
    }
}

pub(super) async fn approve(args: &ApproveArgs) -> Result<(), NodeError> {
    let seat = Seat::open(&args.seat)?;
    let mut told = Told::default();
    seat.catch_up(&mut told).await?;
    let members = seat.members().await?;
    let public_key = find_key(&members, &args.who)?;
    let asked = members.get(&public_key.address());
    let power = match (args.power, asked) {
        (Some(power), _) => power,
        (None, Some(member)) => member.asks_for,
        (None, None) => {
            return Err(NodeError::new(
                Exit::Usage,
                format!("{} has not asked to join, so it is not known which power it wants", public_key.address()),
            )
            .means("an approval names key and power, so that neither can be changed afterwards")
            .next("say how much: --power 10"));
        }
    };
    let power = power_of(power)?;
    let key = seat.signer(args.signer.as_deref())?;
    let make = |recent: RecentBlock| {
        seat.sign(NodeTx::Approve(Approve { public_key, power, signer: key.public_key(), recent, signature: NOTHING }), &key)
    };
    let (height, log) = seat.request(&mut told, make).await?;
    say(format!("in block {height}: {} with power {power}: {log}", public_key.address()));
    Ok(())
}
