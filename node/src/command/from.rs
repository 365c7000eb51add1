//! What a node of a chain tells somebody who makes another one: the genesis, and where its peers are.
//!
//! It is believed, and may lie. What it says is compared with a genesis hash that the user trusts, or shown to be compared; from a right
//! genesis on, everything else is proven.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

use lockstep_genesis::Genesis;
use lockstep_network::PeerAddr;
use lockstep_network::limits::PERSISTENT_PEERS_MAX;
use lockstep_rpc::json::{NetInfo, NodeInfo, Status};
use lockstep_types::{Hash, Height};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::config::{Config, P2P_PORT};
use crate::error::{Exit, NodeError};
use crate::http::{Connection, Endpoint};

/// Ports that are tried for a node beside another one on the same machine.
const PORTS_TRIED: u16 = 100;

/// What a node told.
pub(super) struct Told {
    pub(super) genesis: Genesis,
    pub(super) peers: Vec<PeerAddr>,
    /// Where it serves clients and peers itself, if it runs on this machine.
    beside: Option<(u16, u16)>,
}

#[derive(Deserialize)]
struct Reply<'a> {
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct GenesisAnswer<'a> {
    #[serde(borrow)]
    genesis: &'a RawValue,
}

/// Asks the node at this RPC address.
pub(super) async fn ask(url: &str, trusted: Option<Hash>) -> Result<Told, NodeError> {
    let endpoint = Endpoint::parse(url).map_err(|rule| NodeError::new(Exit::Usage, format!("--from is {rule}")))?;
    let silent = |error: &dyn std::fmt::Display| {
        NodeError::new(Exit::Unreachable, format!("{url}: {error}"))
            .next("name the RPC address of a node of the chain that runs, as in http://10.0.0.10:26657")
    };
    let mut connection = Connection::open(&endpoint).await.map_err(|error| silent(&error))?;
    // Numbers and order of `app_state` enter the genesis hash, so its text is taken as it is.
    let text = call(&mut connection, "genesis").await.map_err(|error| silent(&error))?;
    let answer: GenesisAnswer<'_> = serde_json::from_str(&text).map_err(|error| silent(&error))?;
    let genesis = Genesis::parse(answer.genesis.get().as_bytes())
        .map_err(|error| NodeError::new(Exit::Refused, format!("{url} tells a genesis that is none: {error}")).next("ask another node"))?;
    if let Some(trusted) = trusted.filter(|trusted| *trusted != genesis.hash()) {
        return Err(other_genesis(url, &genesis, trusted));
    }
    let text = call(&mut connection, "status").await.map_err(|error| silent(&error))?;
    let status: Status = serde_json::from_str(&text).map_err(|error| silent(&error))?;
    let text = call(&mut connection, "net_info").await.map_err(|error| silent(&error))?;
    let others: NetInfo = serde_json::from_str(&text).map_err(|error| silent(&error))?;

    let host = host_of(&endpoint);
    let is_here = host.parse::<IpAddr>().map_or(host == "localhost", |ip| ip.is_loopback());
    let mut peers: Vec<PeerAddr> = peer(&status.node_info, &host).into_iter().collect();
    for other in &others.peers {
        // What is loopback for a node elsewhere is not for us.
        let found = peer(&other.node_info, &other.remote_ip.to_string());
        peers.extend(found.filter(|peer| is_here || !peer.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())));
    }
    peers.truncate(PERSISTENT_PEERS_MAX);
    if peers.is_empty() {
        return Err(NodeError::new(Exit::Refused, format!("{url} does not say where it is reached by peers"))
            .next("copy its config/genesis.json, and name peers yourself: lockstep init --genesis FILE"));
    }
    let port = |address: &str| address.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    let beside = is_here.then(|| Some((port(&endpoint.url())?, port(&status.node_info.listen_addr).unwrap_or(P2P_PORT)))).flatten();
    Ok(Told { genesis, peers, beside })
}

/// A header that every node that runs has, and the commit for it: the one before the newest.
pub(super) async fn trusted_header(url: &str) -> Result<(Height, Hash), NodeError> {
    let endpoint = Endpoint::parse(url).map_err(|rule| NodeError::new(Exit::Usage, format!("--node is {rule}")))?;
    let silent = |error: &dyn std::fmt::Display| NodeError::new(Exit::Unreachable, format!("{url}: {error}"));
    let mut connection = Connection::open(&endpoint).await.map_err(|error| silent(&error))?;
    let text = call(&mut connection, "header").await.map_err(|error| silent(&error))?;
    let answer: lockstep_rpc::json::HeaderAnswer = serde_json::from_str(&text).map_err(|error| silent(&error))?;
    let newest: Option<lockstep_types::Header> =
        answer.header.as_ref().map(TryInto::try_into).transpose().map_err(|error: lockstep_rpc::json::Malformed| silent(&error))?;
    let below = newest.and_then(|newest| Some((newest.height.previous(), newest.last_block_id?.hash)));
    below.ok_or_else(|| NodeError::new(Exit::Failed, format!("the chain of {url} has less than two blocks")).next("wait for them"))
}

/// A genesis that is not the one that is trusted.
pub(super) fn other_genesis(of: &str, genesis: &Genesis, trusted: Hash) -> NodeError {
    NodeError::new(Exit::Refused, format!("the genesis of {of} has the hash {}, and {trusted} is trusted", genesis.hash()))
        .means("it is another chain, or another start of one of the same name")
        .next("compare the hash with your source")
}

/// Names that the genesis of a node's chain gives to its validators, by address; none where it does not tell.
pub(super) async fn genesis_names(url: &str) -> BTreeMap<String, String> {
    let ask = async {
        let mut connection = Connection::open(&Endpoint::parse(url).ok()?).await.ok()?;
        let text = call(&mut connection, "genesis").await.ok()?;
        let answer: GenesisAnswer<'_> = serde_json::from_str(&text).ok()?;
        let genesis = Genesis::parse(answer.genesis.get().as_bytes()).ok()?;
        Some(genesis.validators.iter().map(|one| (one.public_key.address().to_string(), one.name.clone())).collect())
    };
    ask.await.unwrap_or_default()
}

async fn call(connection: &mut Connection, method: &str) -> Result<String, String> {
    let question = format!(r#"{{"jsonrpc":"2.0","id":0,"method":"{method}","params":{{}}}}"#);
    let answer = connection.post(question.as_bytes()).await.map_err(|error| error.to_string())?;
    let reply: Reply<'_> = serde_json::from_slice(answer).map_err(|error| format!("what answers there does not take JSON-RPC: {error}"))?;
    match (reply.result, reply.error) {
        (Some(result), _) => Ok(result.get().to_owned()),
        (None, Some(error)) => Err(format!("it answers to {method}: {}", error.get())),
        (None, None) => Err(format!("it does not answer to {method}")),
    }
}

/// Host of an endpoint, without the brackets of IPv6.
fn host_of(endpoint: &Endpoint) -> String {
    let url = endpoint.url();
    let rest = url.trim_start_matches("http://");
    rest.rsplit_once(':').map_or(rest, |(host, _)| host).trim_matches(['[', ']']).to_owned()
}

/// Where a node is reached: where it listens, or where it was seen, if it listens everywhere. None for what is no address.
fn peer(node: &NodeInfo, seen_at: &str) -> Option<PeerAddr> {
    let told = node.listen_addr.rsplit_once("://").map_or(node.listen_addr.as_str(), |(_, rest)| rest);
    let (host, port) = told.rsplit_once(':')?;
    let host = host.trim_matches(['[', ']']);
    let is_everywhere = host.is_empty() || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified());
    let host = if is_everywhere { seen_at } else { host };
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    format!("{}@{host}:{port}", node.id).parse().ok()
}

impl Told {
    /// Gives the peers to a configuration, and, beside the node on the same machine, ports that are free there.
    pub(super) fn fill(self, config: &mut Config) -> Result<Genesis, NodeError> {
        config.p2p.persistent_peers = self.peers;
        let Some((rpc, p2p)) = self.beside else { return Ok(self.genesis) };
        let local = |port: u16, step: u16| port.checked_add(step).map(|port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
        let is_free = |address: &SocketAddr| TcpListener::bind(address).is_ok();
        let places = (1..=PORTS_TRIED).filter_map(|step| Some((local(rpc, step)?, local(p2p, step)?)));
        let (rpc, p2p) = places.into_iter().find(|(rpc, p2p)| is_free(rpc) && is_free(p2p)).ok_or_else(|| {
            NodeError::new(Exit::InUse, format!("the {PORTS_TRIED} ports above {rpc} and {p2p} are taken"))
                .next("copy the genesis of the node and choose ports yourself: lockstep init --genesis FILE")
        })?;
        (config.rpc.laddr, config.p2p.laddr) = (rpc, p2p);
        Ok(self.genesis)
    }
}

#[cfg(test)]
mod tests {
    use super::{Endpoint, host_of};

    #[test]
    fn the_host_of_an_endpoint_is_found() {
        for (url, host) in [("http://10.0.0.1:26657", "10.0.0.1"), ("http://[::1]:80", "::1"), ("localhost:1", "localhost")] {
            assert_eq!(host_of(&Endpoint::parse(url).expect("an endpoint")), host);
        }
    }
}
