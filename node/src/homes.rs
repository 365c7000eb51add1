//! The homes of a new network: one folder for each validator, all or none of them.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use lockstep_genesis::Genesis;
use lockstep_genesis::home::Member;
use lockstep_network::PeerAddr;

use crate::command::shell_word;
use crate::config::{Config, ExternalAddress};
use crate::error::{Exit, NodeError};
use crate::home::{Home, io_error, make_folder, write_new};

/// Where a validator of a new network is reached.
pub(crate) struct Place {
    pub(crate) rpc: SocketAddr,
    pub(crate) p2p: SocketAddr,
    /// Host and port that the others dial.
    pub(crate) dial: (String, u16),
}

/// The folder of validator `index`.
pub(crate) fn node_folder(root: &Path, index: usize) -> PathBuf {
    root.join(format!("node{index}"))
}

/// Makes the homes of these members, each at its place, in `root`, which must be missing or empty. They appear there at once
/// when all are whole: what is cut short leaves `root` as it was. `beside` are further files, by name and contents.
pub(crate) fn create(
    root: &Path,
    genesis: &Genesis,
    members: &[Member],
    places: &[Place],
    beside: &[(&str, &str)],
) -> Result<(), NodeError> {
    let root = std::path::absolute(root).map_err(|error| io_error("find", root, &error))?;
    check_vacant(&root)?;
    let (Some(parent), Some(name)) = (root.parent(), root.file_name()) else {
        return Err(NodeError::new(Exit::Usage, format!("{} has no name to put homes in", root.display())).next("give another folder"));
    };
    let staging = parent.join(format!(".{}.making", name.to_string_lossy()));
    if staging.exists() {
        return Err(NodeError::new(Exit::Refused, format!("{} exists", staging.display()))
            .means("the same homes are being made right now, or making them was cut short")
            .next(format!("in the second case: rm -r {}", shell_word(staging.display()))));
    }

    let peers: Vec<PeerAddr> = members.iter().zip(places).map(|(member, place)| peer_address(member, place)).collect::<Result<_, _>>()?;
    make_folder(&staging)?;
    for (index, (member, place)) in members.iter().zip(places).enumerate() {
        let mut config = Config { moniker: member.name.clone(), ..Config::default() };
        config.rpc.laddr = place.rpc;
        config.p2p.laddr = place.p2p;
        if place.p2p.ip().is_unspecified() {
            config.p2p.external_address = ExternalAddress(Some(peers[index].host_port()));
        }
        config.p2p.persistent_peers = [&peers[..index], &peers[index + 1..]].concat();
        Home::new(node_folder(&staging, index)).create(&config, genesis, member, None)?;
    }
    for (name, contents) in beside {
        write_new(&staging.join(name), contents.as_bytes(), false)?;
    }
    // An empty folder of the name is replaced; one that is no longer empty is an error of the system.
    fs::rename(&staging, &root).map_err(|error| io_error("rename to", &root, &error))?;
    fs::File::open(parent).and_then(|folder| folder.sync_all()).map_err(|error| io_error("sync", parent, &error))
}

fn check_vacant(root: &Path) -> Result<(), NodeError> {
    match fs::read_dir(root).map(|mut entries| entries.next().is_none()) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io_error("read", root, &error)),
        Ok(true) => Ok(()),
        Ok(false) => Err(NodeError::new(Exit::Refused, format!("{} is not empty, and has no network of ours", root.display()))
            .means("nothing is ever overwritten: there may be keys in it")
            .next("give another folder")),
    }
}

fn peer_address(member: &Member, place: &Place) -> Result<PeerAddr, NodeError> {
    let (host, port) = &place.dial;
    let host_port = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let text = format!("{}@{host_port}", member.node_id());
    text.parse().map_err(|error| NodeError::new(Exit::Usage, format!("{host_port:?} is not the address of a peer: {error}")))
}
