//! `lockstep localnet`: a whole network on one machine, one process per validator.

mod screen;
mod validators;
mod watch;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use lockstep_app::Application;
use lockstep_genesis::home as files;
use lockstep_types::Address;
use lockstep_types::params::Millis;

use super::{chain_id_of, new_member, now, program, random, rules, runtime, shell_word};
use crate::cli::{LocalnetArgs, Via};
use crate::config::{Config, RPC_PORT, show_duration};
use crate::error::{Exit, NodeError};
use crate::home::{Home, make_folder};
use crate::homes::{self, Place, node_folder};
use crate::http::Endpoint;
use crate::load::{self, Counters, Plan};
use crate::stop::StopSignal;
use screen::{Screen, View};
use validators::{Event, Validators};
use watch::Watch;

/// Validators when nothing is said: the fewest that survive the loss of one.
const VALIDATORS_DEFAULT: u16 = 4;
/// Most validators; ports for peers begin so far above those for clients.
pub(crate) const VALIDATORS_MAX: u16 = 100;
/// How long all validators may take to answer after they were started. Replaying a long log takes a while.
const UP_WAIT: Duration = Duration::from_secs(120);
/// Between two looks at everything.
const TICK: Duration = Duration::from_millis(250);
/// How long the genesis of a new network leads to proofs: ten years. Its keys lie in one folder from the first day on, so that none
/// can be stolen later which was not there to be stolen before.
const TRUSTED_NS: u64 = 10 * 365 * 24 * 3_600 * 1_000_000_000;
/// Bytes of a transaction of `--load`.
const LOAD_TX_BYTES: usize = 256;

/// One validator of the network.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) name: String,
    /// Of its validator's key; whether it validates the chain says.
    pub(super) address: Address,
    pub(super) home: Home,
    pub(super) rpc: SocketAddr,
    pub(super) p2p: SocketAddr,
}

impl Node {
    fn url(&self) -> String {
        format!("http://{}", self.rpc)
    }
}

pub(super) fn run(args: &LocalnetArgs, app: Arc<dyn Application>) -> Result<(), NodeError> {
    let mut stop = StopSignal::on_signals().map_err(|error| NodeError::new(Exit::Failed, format!("signals cannot be handled: {error}")))?;
    if !is_network(&args.home) {
        create(args, app)?;
    } else if let Some(flag) = args.rules.first_given() {
        return Err(NodeError::new(Exit::Refused, format!("{flag} is given, and the network in {} has its genesis", args.home.display()))
            .means("what a chain runs and who may validate stands in its genesis, for as long as it exists")
            .next(format!("leave {flag} out to go on with this network, or give another --home for a new one")));
    }
    let nodes = open(args)?;
    // One localnet per folder. The lock of a home serves for the folder of homes, too.
    let root = Home::new(&args.home);
    if let Some(pid) = root.running() {
        return Err(NodeError::new(
            Exit::InUse,
            format!("the network in {} is run by another lockstep localnet, process {pid}", args.home.display()),
        )
        .means("nothing was started: its validators run already")
        .next(format!("use it as it is, stop it with: kill -INT {pid}, or make another: --home DIR --rpc-port PORT")));
    }
    let _held = root.hold()?;
    check_free(&nodes)?;
    let genesis = nodes[0].home.read_genesis()?;
    let chain = genesis.chain_id.to_string();
    let is_token = rules::runs_token(&genesis);
    if is_token && args.load.is_some() {
        return Err(NodeError::new(Exit::Usage, "--load sends key=value, and this network runs the token")
            .next("leave --load out, or make a network with --app kv"));
    }

    let mut screen = Screen::new();
    screen.line(&format!("chain {chain}: {} in {}", validators::number(nodes.len()), args.home.display()));
    let mut validators = Validators::start(&nodes)?;
    let mut network = Network { args, nodes: &nodes, chain, is_token, screen };
    let ran = runtime()?.block_on(network.run(&mut validators, &mut stop));
    network.screen.clear();
    let unclean = validators.stop(&mut |line| network.screen.line(line));
    let summary = ran?;
    if let Some(summary) = summary {
        network.screen.line(&summary);
    }
    network.screen.line(&format!("go on with it:  {} localnet --home {}", shell_word(program()), shell_word(args.home.display())));
    if unclean == 0 {
        return Ok(());
    }
    Err(NodeError::new(Exit::Failed, format!("{unclean} of {} did not stop cleanly", validators::number(nodes.len())))
        .means("nothing is lost: what was committed is on the disk")
        .next("see DIR/node<i>/node.log"))
}

/// Whether a folder holds a network that `create` made.
fn is_network(root: &Path) -> bool {
    node_folder(root, 0).join(crate::home::CONFIG_PATH).is_file()
}

fn create(args: &LocalnetArgs, app: Arc<dyn Application>) -> Result<(), NodeError> {
    let count = args.validators.unwrap_or(VALIDATORS_DEFAULT);
    let rpc_port = args.rpc_port.unwrap_or(RPC_PORT);
    let p2p_port = args.p2p_port.map_or_else(|| rpc_port.checked_add(VALIDATORS_MAX), Some);
    let last = |first: u16| first.checked_add(count - 1);
    let (Some(p2p_port), Some(rpc_last)) = (p2p_port, last(rpc_port)) else {
        return Err(NodeError::new(
            Exit::Usage,
            format!("--rpc-port is {rpc_port}: must leave room for {count} ports below 65536, and as many for peers"),
        ));
    };
    let Some(p2p_last) = last(p2p_port) else {
        return Err(NodeError::new(Exit::Usage, format!("--p2p-port is {p2p_port}: must leave room for {count} ports below 65536")));
    };
    if rpc_port <= p2p_last && p2p_port <= rpc_last {
        let rule = format!("--p2p-port is {p2p_port}: must keep {count} ports apart from those for clients, {rpc_port} to {rpc_last}");
        return Err(NodeError::new(Exit::Usage, rule));
    }
    let local = |port: u16| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
    let place =
        |step| Place { rpc: local(rpc_port + step), p2p: local(p2p_port + step), dial: (Ipv4Addr::LOCALHOST.to_string(), p2p_port + step) };
    let places: Vec<Place> = (0..count).map(place).collect();
    for place in &places {
        check_port(place.rpc)?;
        check_port(place.p2p)?;
    }
    let members = (0..places.len()).map(|index| new_member(&format!("node{index}"))).collect::<Result<Vec<_>, _>>()?;
    let mut params = super::new_params();
    params.pace.min_block_interval = Millis(0);
    params.evidence.max_age_duration_ns = TRUSTED_NS;
    let app_state = args.rules.app_state(rules::LOCALNET, &members)?;
    let genesis = files::genesis(chain_id_of(args.chain_id.as_deref())?, now()?, params, &members, app_state)
        .map_err(|error| NodeError::new(Exit::Usage, error))?;
    rules::check_start(app, &genesis)?;
    if let Some(parent) = args.home.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        make_folder(parent)?;
    }
    // The folder holds keys, and is often made inside a work tree.
    homes::create(&args.home, &genesis, &members, &places, &[(".gitignore", "*\n")])
}

/// The validators of a network that exists, when the flags do not ask for another.
fn open(args: &LocalnetArgs) -> Result<Vec<Node>, NodeError> {
    let mut nodes = Vec::new();
    for index in 0..usize::from(VALIDATORS_MAX) {
        let home = Home::new(node_folder(&args.home, index));
        if !home.config_path().is_file() {
            break;
        }
        // The environment and flags of this process are not the validators' own.
        let config = Config::load(&home.config_path().display().to_string(), &home.read_config()?, [], &[])?;
        let address = home.read_validator_key()?.public_key().address();
        nodes.push(Node { name: format!("node{index}"), address, home, rpc: config.rpc.laddr, p2p: config.p2p.laddr });
    }
    let differs = |flag: &str, asked: String, has: String| {
        Err(NodeError::new(Exit::Refused, format!("{flag} is {asked}, and the network in {} has {has}", args.home.display()))
            .next(format!("leave {flag} out to go on with this network, or give another --home for a new one")))
    };
    if let Some(asked) = args.validators.filter(|asked| usize::from(*asked) != nodes.len()) {
        return differs("--validators", asked.to_string(), nodes.len().to_string());
    }
    if let Some(asked) = args.rpc_port.filter(|asked| *asked != nodes[0].rpc.port()) {
        return differs("--rpc-port", asked.to_string(), nodes[0].rpc.port().to_string());
    }
    if let Some(asked) = args.p2p_port.filter(|asked| *asked != nodes[0].p2p.port()) {
        return differs("--p2p-port", asked.to_string(), nodes[0].p2p.port().to_string());
    }
    if let Some(asked) = &args.chain_id {
        let has = nodes[0].home.read_genesis()?.chain_id.clone();
        if asked != has.as_str() {
            return differs("--chain-id", asked.clone(), has.to_string());
        }
    }
    Ok(nodes)
}

/// Refuses before anything is started what would fail afterwards.
fn check_free(nodes: &[Node]) -> Result<(), NodeError> {
    for node in nodes {
        if let Some(pid) = node.home.running() {
            return Err(NodeError::new(Exit::InUse, format!("{} runs already, as process {pid}", node.name))
                .next(format!("stop it: kill {pid}   (it ends cleanly)")));
        }
    }
    for node in nodes {
        check_port(node.rpc)?;
        check_port(node.p2p)?;
    }
    Ok(())
}

fn check_port(address: SocketAddr) -> Result<(), NodeError> {
    TcpListener::bind(address).map(drop).map_err(|error| {
        NodeError::new(Exit::InUse, format!("cannot listen on {address}: {error}"))
            .means("nothing was started")
            .next("stop what listens there, or make a network on other ports: --rpc-port PORT --home DIR")
    })
}

/// A network that runs.
struct Network<'a> {
    args: &'a LocalnetArgs,
    nodes: &'a [Node],
    chain: String,
    /// Its transactions are signed transfers: lines with `key=value` would be refused.
    is_token: bool,
    screen: Screen,
}

impl Network<'_> {
    /// Until the time is over or a signal comes; a line that sums it up.
    async fn run(&mut self, validators: &mut Validators, stop: &mut StopSignal) -> Result<Option<String>, NodeError> {
        let mut watch = Watch::start(self.nodes);
        if !self.come_up(validators, &watch, stop).await? {
            return Ok(None);
        }
        self.introduce();
        let start = Instant::now();
        let end = self.args.duration.map(|duration| start + duration);
        let (first_height, first_txs) = watch.chain();
        let counters = Arc::new(Counters::default());
        let load = self.args.load.map(|rate| self.load(rate, &counters, stop)).transpose()?;

        while !stop.is_stopped() && end.is_none_or(|end| Instant::now() < end) {
            let wait = end.map_or(TICK, |end| end.saturating_duration_since(Instant::now()).min(TICK));
            tokio::select! {
                () = stop.stopped() => {}
                () = tokio::time::sleep(wait) => {}
            }
            for event in validators.look() {
                self.report(&event);
            }
            self.screen.draw(&View {
                chain: &self.chain,
                nodes: self.nodes,
                states: validators.states(),
                snapshots: watch.snapshots(),
                validators: watch.validators(),
                rates: watch.rates(),
                running: start.elapsed(),
                load: self.args.load.map(|rate| (rate, counters.accepted.load(Ordering::Relaxed), counters.failed.load(Ordering::Relaxed))),
            });
        }
        if let Some(load) = load {
            load.abort();
        }
        watch.finish().await;
        let (height, txs) = watch.chain();
        let seconds = start.elapsed().as_secs_f64();
        let blocks = height.saturating_sub(first_height);
        let per_second = f64::from(u32::try_from(blocks).unwrap_or(u32::MAX)) / seconds;
        let mut summary = format!(
            "ran {seconds:.1} s: height {first_height} to {height}, {per_second:.1} blocks/s, transactions committed: {}",
            txs.saturating_sub(first_txs)
        );
        if self.args.load.is_some() {
            let (accepted, failed) = (counters.accepted.load(Ordering::Relaxed), counters.failed.load(Ordering::Relaxed));
            summary += &format!("; of the load {accepted} accepted, {failed} not");
        }
        Ok(Some(summary))
    }

    /// Waits until every validator has answered once. False when it is to stop before that.
    async fn come_up(&mut self, validators: &mut Validators, watch: &Watch, stop: &mut StopSignal) -> Result<bool, NodeError> {
        let give_up = Instant::now() + UP_WAIT;
        loop {
            if stop.is_stopped() {
                return Ok(false);
            }
            if let Some(event) = validators.look().into_iter().next() {
                return Err(NodeError::new(Exit::Failed, format!("{} before it answered", event.what))
                    .means(validators.last_words(event.index))
                    .next(format!("see {}", validators.log_path(event.index).display())));
            }
            let silent = watch.never_up();
            if silent.is_empty() {
                return Ok(true);
            }
            if Instant::now() >= give_up {
                let names: Vec<&str> = silent.iter().map(|index| self.nodes[*index].name.as_str()).collect();
                return Err(NodeError::new(Exit::Failed, format!("{} did not answer within {}", names.join(", "), show_duration(UP_WAIT)))
                    .means(validators.last_words(silent[0]))
                    .next(format!("see {}", validators.log_path(silent[0]).display())));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Lines to paste.
    fn introduce(&mut self) {
        let program = shell_word(program());
        let (writer, reader) = (&self.nodes[0], &self.nodes[1 % self.nodes.len()]);
        self.screen.line(&format!("all up; clients are served at {} and following", writer.url()));
        if !self.is_token {
            self.screen.line(&format!("send a transaction:       {program} tx hello=world --node {}", writer.url()));
            let home = shell_word(reader.home.root().display());
            self.screen.line(&format!("read it, proof verified:  {program} query hello --node {} --home {home}", reader.url()));
        }
        let next = shell_word(node_folder(&self.args.home, self.nodes.len()).display());
        self.screen.line(&format!(
            "one more node:            {program} init --from {} --home {next} && {program} start --home {next}",
            writer.url()
        ));
        self.screen.line(&format!("let it validate:          {program} validator join --home {next}"));
    }

    fn report(&mut self, event: &Event) {
        let line = match event.is_down {
            false => event.what.clone(),
            true => {
                let home = shell_word(self.nodes[event.index].home.root().display());
                format!("{}; bring it back:  {} start --home {home}", event.what, shell_word(program()))
            }
        };
        self.screen.line(&line);
    }

    fn load(&self, rate: u32, counters: &Arc<Counters>, stop: &StopSignal) -> Result<tokio::task::JoinHandle<load::Outcome>, NodeError> {
        let endpoints = self.nodes.iter().map(|node| Endpoint::parse(&node.url())).collect::<Result<Vec<_>, _>>();
        let plan = Plan {
            endpoints: endpoints.map_err(|error| NodeError::new(Exit::Failed, error))?,
            rate,
            size: LOAD_TX_BYTES,
            connections: self.nodes.len() * 4,
            batch: rate.div_ceil(1_000),
            via: Via::Sync,
            total: u64::MAX / 2,
            run: u32::from_le_bytes(*random()?),
            measured: 0..0,
        };
        Ok(tokio::spawn(load::run(Arc::new(plan), Instant::now(), Arc::clone(counters), stop.clone())))
    }
}

/// A folder of a validator's log.
pub(super) fn log_path(node: &Node) -> PathBuf {
    node.home.root().join("node.log")
}
