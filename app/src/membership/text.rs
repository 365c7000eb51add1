//! What a member may say of itself: names and addresses that people read and programs dial. They are told to everybody by a chain for
//! ever, so what would garble a terminal, or name no place, is refused.

use std::net::Ipv6Addr;

use lockstep_types::NodeId;
use lockstep_types::text::is_hidden;

/// What is wrong with the name that a member gives itself, as a rule that it breaks. Its length is judged where its bytes are read.
pub fn moniker_breaks(moniker: &str) -> Option<&'static str> {
    moniker.chars().any(is_hidden).then_some("no control characters, and none that cannot be seen")
}

/// What is wrong with an address of a member, as a rule that it breaks: `HOST:PORT` or `NODE_ID@HOST:PORT`, as in `persistent_peers`.
pub fn address_breaks(address: &str) -> Option<&'static str> {
    const RULE: &str =
        "NODE_ID@HOST:PORT or HOST:PORT: 40 hexadecimal digits, a name, an IPv4 or a bracketed IPv6 address, and a port from 1 to 65535";
    let host_port = match address.split_once('@') {
        Some((id, _)) if id.parse::<NodeId>().is_err() => return Some(RULE),
        Some((_, host_port)) => host_port,
        None => address,
    };
    let Some((host, port)) = host_port.rsplit_once(':') else { return Some(RULE) };
    let is_port = port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port != 0);
    let is_host = match host.strip_prefix('[') {
        Some(inner) => inner.strip_suffix(']').is_some_and(|inner| inner.parse::<Ipv6Addr>().is_ok()),
        None => is_name(host),
    };
    (!is_port || !is_host).then_some(RULE)
}

/// A host's name, or an IPv4 address, which looks like one. Underscores are in use though no standard has them.
fn is_name(host: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    host.split('.').all(is_label)
}
