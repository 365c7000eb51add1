//! Join bundles: one file with all that a new node trusts and whom it asks.

use std::path::Path;

use lockstep_genesis::Genesis;
use lockstep_network::PeerAddr;
use lockstep_network::limits::PERSISTENT_PEERS_MAX;
use lockstep_types::{Hash, Height};
use serde::{Deserialize, Serialize};

use super::from::{self, other_genesis};
use super::shell_word;
use crate::cli::BundleArgs;
use crate::config::Config;
use crate::error::{Exit, NodeError};
use crate::exported::is_export;
use crate::home::{read_bounded, write_new};

/// Longer than any bundle: a few peers' addresses and two hashes. It comes from somebody else.
const BUNDLE_BYTES_MAX: usize = 1 << 20;

/// What a bundle says. Whoever gives it is trusted for the height and hash; everything after it is proven.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bundle {
    /// Hash of the genesis, which a bundle does not carry.
    genesis_hash: String,
    /// A height of the chain.
    trust_height: u64,
    /// The hash of its header.
    trust_hash: String,
    /// Peers to ask.
    peers: Vec<String>,
}

impl Bundle {
    /// A bundle from its file.
    pub(crate) fn read(path: &Path) -> Result<Self, NodeError> {
        let refused = |what: String| NodeError::new(Exit::Refused, format!("{}: {what}", path.display()));
        if is_export(path) {
            return Err(refused("no join bundle but an exported snapshot".to_owned()).next(format!(
                "lockstep snapshot restore {} --trust-hash HASH   puts it into a home without blocks",
                shell_word(path.display())
            )));
        }
        Self::parse(path, &read_bounded(path, BUNDLE_BYTES_MAX)?)
    }

    /// The bundle that these bytes are, of a file of this name.
    ///
    /// # Errors
    /// When they are none.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Self, NodeError> {
        serde_json::from_slice(bytes).map_err(|error| {
            NodeError::new(Exit::Refused, format!("{}: no join bundle: {error}", path.display()))
                .next("make one: lockstep snapshot bundle --node http://… --output FILE")
        })
    }

    /// The file that it is written as.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("texts and numbers are JSON") + "\n"
    }

    /// The root of trust, for a node of this genesis, and its peers, which join those of the configuration.
    ///
    /// # Errors
    /// When it is of another chain, or names what is no height, no hash or no peer.
    pub fn apply(&self, path: &Path, genesis: &Genesis, config: &mut Config) -> Result<((Height, Hash), Vec<PeerAddr>), NodeError> {
        let refused = |what: String| NodeError::new(Exit::Refused, format!("{}: {what}", path.display()));
        let hash = |field: &str, text: &str| text.parse::<Hash>().map_err(|error| refused(format!("{field} is no hash: {error}")));
        let genesis_hash = hash("genesis_hash", &self.genesis_hash)?;
        if genesis_hash != genesis.hash() {
            return Err(other_genesis("this home", genesis, genesis_hash));
        }
        let height = Height::new(self.trust_height).filter(|height| *height > Height::ZERO);
        let height = height.ok_or_else(|| refused(format!("trust_height is {}, which is no height", self.trust_height)))?;
        let parse = |text: &String| text.parse().map_err(|error| refused(format!("peer {text}: {error}")));
        let peers: Vec<PeerAddr> = self.peers.iter().map(parse).collect::<Result<_, _>>()?;
        for peer in &peers {
            if !config.p2p.persistent_peers.contains(peer) {
                config.p2p.persistent_peers.push(peer.clone());
            }
        }
        config.p2p.persistent_peers.truncate(PERSISTENT_PEERS_MAX);
        Ok(((height, hash("trust_hash", &self.trust_hash)?), peers))
    }
}

/// `lockstep snapshot bundle`
pub(super) async fn run(args: &BundleArgs) -> Result<(), NodeError> {
    let told = from::ask(&args.node, args.genesis_hash).await?;
    let (height, hash) = from::trusted_header(&args.node).await?;
    let bundle = Bundle {
        genesis_hash: told.genesis.hash().to_string(),
        trust_height: height.get(),
        trust_hash: hash.to_string(),
        peers: told.peers.iter().map(ToString::to_string).collect(),
    };
    let text = bundle.to_json();
    match &args.output {
        None => super::say(text.trim_end()),
        Some(path) => {
            if path.exists() {
                return Err(NodeError::new(Exit::Refused, format!("{} is there already", path.display()))
                    .means("nothing is overwritten: it may be a key")
                    .next("name another file, or move that one away"));
            }
            write_new(path, text.as_bytes(), false)?;
            super::say(format!(
                "{} names height {height} and {} peers. A new node begins with it:\n  lockstep init --genesis genesis.json --home n4\n  lockstep start --home n4 \
                 --bundle {}",
                path.display(),
                bundle.peers.len(),
                path.display()
            ));
        }
    }
    Ok(())
}
