//! `lockstep testnet`

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use lockstep_app::Application;
use lockstep_genesis::home as files;

use super::{chain_id_of, new_member, now, program, rules, say, shell_word};
use crate::cli::TestnetArgs;
use crate::config::{P2P_PORT, RPC_PORT};
use crate::error::{Exit, NodeError};
use crate::homes::{self, Place, node_folder};

pub(super) fn run(args: &TestnetArgs, app: Arc<dyn Application>) -> Result<(), NodeError> {
    let places: Vec<Place> = hosts(args)?.into_iter().map(place).collect();
    let members = (0..places.len()).map(|index| new_member(&format!("node{index}"))).collect::<Result<Vec<_>, _>>()?;
    let chain_id = chain_id_of(args.chain_id.as_deref())?;
    let app_state = args.rules.app_state(rules::NETWORK, &members)?;
    let genesis =
        files::genesis(chain_id, now()?, super::new_params(), &members, app_state).map_err(|error| NodeError::new(Exit::Usage, error))?;
    rules::check_start(app, &genesis)?;
    homes::create(&args.output, &genesis, &members, &places, &[])?;

    say(format!("Made the homes of chain {} in {}", genesis.chain_id, args.output.display()));
    for (index, (member, place)) in members.iter().zip(&places).enumerate() {
        let (host, port) = &place.dial;
        say(format!("  {}  {}@{host}:{port}", node_folder(&args.output, index).display(), member.node_id()));
    }
    say("They hold secret keys. Carry each to its machine over a channel that nobody reads, delete what stays behind, then there:");
    say(format!("  {} start --home node0", shell_word(program())));
    Ok(())
}

/// Peers come to every address of the machine; clients from the machine itself.
fn place(dial: (String, u16)) -> Place {
    Place { rpc: (Ipv4Addr::LOCALHOST, RPC_PORT).into(), p2p: (Ipv4Addr::UNSPECIFIED, dial.1).into(), dial }
}

/// Host and port for each validator.
fn hosts(args: &TestnetArgs) -> Result<Vec<(String, u16)>, NodeError> {
    let count = usize::from(args.validators);
    let Some(first) = args.starting_ip else {
        if args.hosts.len() != count {
            let rule = format!("--hosts names {} hosts for {count} validators: must name one for each", args.hosts.len());
            return Err(NodeError::new(Exit::Usage, rule));
        }
        let hosts: Vec<(String, u16)> = args.hosts.iter().map(|text| host_and_port(text)).collect::<Result<_, _>>()?;
        if let Some((host, port)) = hosts.iter().enumerate().find_map(|(index, host)| hosts[..index].contains(host).then_some(host)) {
            return Err(NodeError::new(Exit::Usage, format!("--hosts names {host}:{port} twice: must name a place of its own for each")));
        }
        return Ok(hosts);
    };
    (0..args.validators)
        .map(|step| {
            let ip = match first {
                IpAddr::V4(ip) => u32::from(ip).checked_add(step.into()).map(|bits| IpAddr::V4(bits.into())),
                IpAddr::V6(ip) => u128::from(ip).checked_add(step.into()).map(|bits| IpAddr::V6(bits.into())),
            };
            let ip = ip.ok_or_else(|| {
                NodeError::new(Exit::Usage, format!("--starting-ip is {first}: there are no {count} addresses from it on"))
                    .next("give a lower one, or name each validator's place: --hosts HOST,HOST,...")
            })?;
            Ok((ip.to_string(), P2P_PORT))
        })
        .collect()
}

fn host_and_port(text: &str) -> Result<(String, u16), NodeError> {
    let wrong = || NodeError::new(Exit::Usage, format!("--hosts has {text:?}: must be HOST, HOST:PORT, or [IPV6]:PORT"));
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.starts_with('[') => {
            (host, port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?)
        }
        _ => (text, P2P_PORT),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b".-:".contains(&byte);
    if host.is_empty() || !host.bytes().all(known) { Err(wrong()) } else { Ok((host.to_owned(), port)) }
}
