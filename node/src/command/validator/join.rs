//! `lockstep validator join` and `rotate`.

use lockstep_app::membership::{
    ADDRESS_BYTES_MAX, ADDRESSES_MAX, Join, MONIKER_BYTES_MAX, NodeTx, RecentBlock, address_breaks, moniker_breaks,
};
use lockstep_genesis::keys::parse_validator_key;
use lockstep_types::{NodeId, Power, PrivateKey, Signature};
use tokio::time::sleep;

use super::members::{Member, Members};
use super::{LOOK, Seat, Told, power_of};
use crate::cli::{JoinArgs, RotateArgs};
use crate::command::{program, say, shell_word};
use crate::error::{Exit, NodeError};
use crate::home::read_key;
use crate::http::{Connection, Endpoint};

/// What is asked for, again and again until it is granted.
struct Request {
    power: Power,
    moniker: String,
    addresses: Vec<String>,
    replaced: Option<PrivateKey>,
}

pub(super) async fn join(args: &JoinArgs) -> Result<(), NodeError> {
    let seat = Seat::open(&args.seat)?;
    if let Some(moniker) = &args.moniker {
        let rule = moniker_breaks(moniker).map(str::to_owned);
        let rule = rule.or_else(|| (moniker.len() > MONIKER_BYTES_MAX).then(|| format!("at most {MONIKER_BYTES_MAX} bytes")));
        if let Some(rule) = rule {
            return Err(NodeError::new(Exit::Usage, format!("--moniker is {:?}: must be {rule}", moniker)));
        }
    }
    check_addresses(&args.address)?;
    let mut told = Told::default();
    seat.catch_up(&mut told).await?;
    let members = seat.members().await?;
    let own = members.get(&seat.key.public_key().address());
    if let Some(validator) = own.filter(|own| own.power > 0 && own.status != "suspended") {
        let leaves = members.waiting.iter().any(|waiting| waiting.power == 0 && waiting.address == validator.address);
        return stays_as_it_is(args, validator, leaves);
    }
    let power = match (args.power, own) {
        (Some(power), _) => power,
        (None, Some(own)) => own.asks_for,
        (None, None) => members.least_power().unwrap_or(1),
    };
    let moniker = args.moniker.clone().unwrap_or_else(|| seat.config.moniker.clone());
    let request = Request { power: power_of(power)?, moniker, addresses: addresses(&seat, &args.address)?, replaced: None };
    ask(&seat, &request, &mut told).await
}

pub(super) async fn rotate(args: &RotateArgs) -> Result<(), NodeError> {
    let seat = Seat::open(&args.seat)?;
    let old = read_key(&args.old_key, parse_validator_key)?;
    if old.public_key() == seat.key.public_key() {
        return Err(NodeError::new(Exit::Usage, "--old-key is the key of the home itself")
            .means("the key that takes over is that of --home, where a second node runs")
            .next("make one: lockstep init --from URL --home NEW, start it, and name it here: --home NEW"));
    }
    let mut told = Told::default();
    seat.catch_up(&mut told).await?;
    let members = seat.members().await?;
    let has_power = |key: &PrivateKey| members.get(&key.public_key().address()).filter(|member| member.power > 0);
    if let (None, Some(own)) = (has_power(&old), has_power(&seat.key)) {
        say(format!("{} validates already, with power {}, and {} has none", own.address, own.power, old.public_key().address()));
        return Ok(());
    }
    let replaced = members.get(&old.public_key().address()).filter(|member| member.power > 0).ok_or_else(|| {
        NodeError::new(Exit::Refused, format!("{} is no validator, so there is nothing to take over", old.public_key().address()))
            .next("ask as a newcomer: lockstep validator join")
    })?;
    let request = Request {
        power: power_of(replaced.power)?,
        moniker: seat.config.moniker.clone(),
        addresses: addresses(&seat, &[])?,
        replaced: Some(old),
    };
    ask(&seat, &request, &mut told).await
}

/// A validator asks for nothing: what it asked for stands, and nothing of it can be changed while it has power.
fn stays_as_it_is(args: &JoinArgs, own: &Member, leaves: bool) -> Result<(), NodeError> {
    let validates = format!("{} validates already, with power {}", own.address, own.power);
    let given = [
        ("--power", args.power.is_some_and(|power| power != own.power)),
        ("--moniker", args.moniker.is_some()),
        ("--address", !args.address.is_empty()),
    ];
    let given: Vec<&str> = given.into_iter().filter_map(|(flag, is_given)| is_given.then_some(flag)).collect();
    if leaves {
        return Err(NodeError::new(Exit::Refused, format!("{validates}, and is leaving: its QUIT waits until power may move"))
            .means("a QUIT that was granted cannot be taken back")
            .next("wait until it has left (lockstep validator list), and call the same command again"));
    }
    if given.is_empty() {
        say(validates);
        return Ok(());
    }
    Err(NodeError::new(Exit::Usage, format!("{validates}: nothing of that is changed by {}", given.join(" and ")))
        .means("power, name and addresses are those of the request that was admitted")
        .next("leave with lockstep validator quit, and ask anew; or leave the option out"))
}

fn check_addresses(given: &[String]) -> Result<(), NodeError> {
    if given.len() > ADDRESSES_MAX {
        return Err(NodeError::new(Exit::Usage, format!("--address is given {} times: must be at most {ADDRESSES_MAX}", given.len())));
    }
    let too_long = |address: &String| (address.len() > ADDRESS_BYTES_MAX).then(|| format!("at most {ADDRESS_BYTES_MAX} bytes"));
    let breaks = |address: &String| too_long(address).or_else(|| address_breaks(address).map(str::to_owned));
    match given.iter().find_map(|address| Some((address, breaks(address)?))) {
        Some((address, rule)) => Err(NodeError::new(Exit::Usage, format!("--address is {address:?}: must be {rule}"))),
        None => Ok(()),
    }
}

/// Where the node is found, as it says of itself: what only this machine reaches is not told.
fn addresses(seat: &Seat, given: &[String]) -> Result<Vec<String>, NodeError> {
    if !given.is_empty() {
        return Ok(given.to_vec());
    }
    let p2p = &seat.config.p2p;
    let reached = match &p2p.external_address.0 {
        Some(address) => Some(address.clone()),
        None => (!p2p.laddr.ip().is_unspecified() && !p2p.laddr.ip().is_loopback()).then(|| p2p.laddr.to_string()),
    };
    let id = NodeId::of_key_bytes(&seat.home.read_node_key()?.public_key().0);
    Ok(reached
        .map(|address| format!("{id}@{address}"))
        .into_iter()
        .filter(|address| address.len() <= ADDRESS_BYTES_MAX && address_breaks(address).is_none())
        .collect())
}

/// As much of the beginning as has at most so many bytes.
fn cut(text: &str, bytes_max: usize) -> &str {
    let end = (0..=text.len().min(bytes_max)).rev().find(|at| text.is_char_boundary(*at)).expect("zero is one");
    &text[..end]
}

impl Request {
    fn over(&self, seat: &Seat, recent: RecentBlock) -> NodeTx {
        // That of the configuration may be longer than what is kept here.
        let nothing = Signature([0; 64]);
        let tx = NodeTx::Join(Box::new(Join {
            public_key: seat.key.public_key(),
            power: self.power,
            moniker: cut(&self.moniker, MONIKER_BYTES_MAX).to_owned(),
            addresses: self.addresses.clone(),
            replaces: self.replaced.as_ref().map(PrivateKey::public_key),
            recent,
            signature: nothing,
            replaced_signature: self.replaced.as_ref().map(|_| nothing),
        }));
        let tx = match &self.replaced {
            Some(old) => tx.sign_as_replaced(old, &seat.genesis.chain_id, &seat.genesis.hash()),
            None => tx,
        };
        seat.sign(tx, &seat.key)
    }
}

/// Asks, and asks anew while what was signed grows old, until the node has power.
async fn ask(seat: &Seat, request: &Request, told: &mut Told) -> Result<(), NodeError> {
    let address = seat.key.public_key().address();
    say(format!("{address} asks for power {} on chain {}", request.power, seat.genesis.chain_id));
    let (height, log) = seat.request(told, |recent| request.over(seat, recent)).await?;
    told.progress(format!("in block {height}: {log}"));
    if seat.no_wait {
        return Ok(());
    }
    say("waiting until it validates; Ctrl-C ends the waiting, and the request stands for a while");
    loop {
        let members = seat.members().await?;
        let Some(own) = members.get(&address) else {
            return Err(NodeError::new(Exit::Failed, "the request is gone: it was taken back, or had to make room for others")
                .next("call the same command again"));
        };
        if own.power > 0 && own.status != "suspended" {
            let status = seat.status().await?;
            if status.validator_info.voting_power != Power::ZERO {
                // The view may be another one by now.
                let members = seat.members().await?;
                if let Some(own) = members.get(&address) {
                    validates(seat, request, &members, own).await;
                    return Ok(());
                }
            }
            told.progress(format!("admitted at height {}: its power acts two heights later", own.since));
        } else {
            told.progress(stands(seat, &members, own));
            // Half of the window is left for the way into a block.
            if own.proven.saturating_add(members.live_window / 2) <= members.height
                && let Err(refused) = seat.request(told, |recent| request.over(seat, recent)).await
                && seat.members().await?.get(&address).is_none_or(|own| own.power == 0)
            {
                // Else power was granted on the way, and who has some does not ask for it.
                return Err(refused);
            }
        }
        sleep(LOOK).await;
    }
}

/// Where a request stands, in words that change only when it moves.
fn stands(seat: &Seat, members: &Members, own: &Member) -> String {
    if let Some(place) = members.place_in_line(&seat.key.public_key().address()) {
        return format!("admitted, at place {place} of the line: {}", members.about_moving());
    }
    match members.missing(own).filter(|_| own.status != "suspended") {
        Some(missing) if members.admission == "vote" => {
            format!("observer: {missing}. Each approves with:  {} validator approve {} --home HOME", shell_word(program()), own.address)
        }
        Some(missing) => format!("observer: {missing}"),
        None => format!("{}: its request is renewed", own.status),
    }
}

async fn validates(seat: &Seat, request: &Request, members: &Members, own: &Member) {
    say(format!("{} validates: power {} of {}, view {}", own.address, own.power, members.total(), members.view));
    if let Some(old) = &request.replaced {
        say(format!("{} has no power any more: stop its node", old.public_key().address()));
    }
    // What the node says of its votes is worth a line only where it holds them back.
    let Ok(endpoint) = Endpoint::parse(seat.client.endpoint()) else { return };
    let Ok(mut connection) = Connection::open(&endpoint).await else { return };
    if let Some(Some(why)) = connection.held_back().await {
        say(format!("it does NOT sign: {}", why.meaning()));
    }
}
