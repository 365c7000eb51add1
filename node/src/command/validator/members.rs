//! What a node says of the members: `abci_query` with the path `/membership`.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lockstep_app::membership::{MEMBERSHIP_PATH, RecentBlock};
use lockstep_rpc::Client;
use lockstep_rpc::client::ClientError;
use lockstep_types::text::is_hidden;
use lockstep_types::{Address, Hash, Height, PublicKey};
use serde::Deserialize;

use super::super::from::genesis_names;
use super::super::status::standstill;
use super::super::{client_error, now, say};
use crate::cli::ListArgs;
use crate::error::{Exit, NodeError};

/// The members of a chain and its rules, after a height.
#[derive(Debug, Deserialize)]
pub(super) struct Members {
    pub(super) height: u64,
    pub(super) view: u64,
    pub(super) admission: String,
    pub(super) authority: Authority,
    pub(super) live_window: u64,
    pub(super) power_window: u64,
    pub(super) absence_window: u64,
    pub(super) power_moved_in_window: u64,
    pub(super) members: Vec<Member>,
    pub(super) waiting: Vec<Waiting>,
    recent: Recent,
    pub(super) genesis_hash: String,
}

/// A validator that signed none of so many last commits is absent, as far as one sees from here. The chain itself is more patient.
const PRESENT_WITHIN: u64 = 5;

/// Validators that stay.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Rest {
    /// Their power.
    pub(super) total: u64,
    /// That of those who are there.
    pub(super) present: u64,
    /// The others.
    pub(super) absent: Vec<String>,
}

impl Rest {
    /// Whether those who are there decide without the others.
    pub(super) fn can_decide(&self) -> bool {
        u128::from(self.present) * 3 > u128::from(self.total) * 2
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct Authority {
    pub(super) keys: Vec<String>,
    pub(super) threshold: u32,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Member {
    pub(super) address: String,
    public_key: String,
    /// Of the newest set, which acts two heights after it was made.
    pub(super) power: u64,
    pub(super) asks_for: u64,
    pub(super) status: String,
    pub(super) since: u64,
    pub(super) proven: u64,
    /// Whose power it takes over, where its key takes the place of another: nobody has to approve that.
    replaces: Option<String>,
    pub(super) moniker: String,
    pub(super) approvals: Vec<String>,
    #[serde(default)]
    removals: Vec<String>,
    last_signed: Option<u64>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Waiting {
    pub(super) address: String,
    pub(super) power: u64,
}

#[derive(Debug, Deserialize)]
struct Recent {
    height: u64,
    hash: Option<String>,
}

impl Members {
    /// Asks a node. The inner error is the client's, of which the caller knows what to say.
    pub(super) async fn ask(client: &Client) -> Result<Self, Result<NodeError, ClientError>> {
        let answer = client.abci_query(MEMBERSHIP_PATH, &[], Height::ZERO, false).await.map_err(Err)?;
        if answer.code != 0 {
            return Err(Ok(NodeError::new(Exit::Failed, format!("{}: {}", client.endpoint(), answer.log))
                .means("its validators are those of genesis, or what its application makes of them")
                .next("a new chain has membership: lockstep init, testnet and localnet write it into genesis")));
        }
        let text = answer.value.map(|value| value.0).unwrap_or_default();
        serde_json::from_slice(&text).map_err(|error| {
            Ok(NodeError::new(Exit::Failed, format!("{} answers in another form than this program reads: {error}", client.endpoint()))
                .next("use the program that the node runs"))
        })
    }

    /// The newest block, to be named in a request.
    pub(super) fn recent(&self) -> Option<RecentBlock> {
        Some(RecentBlock { height: Height::new(self.recent.height)?, hash: Hash(bytes(self.recent.hash.as_ref()?)?) })
    }

    /// The one with this address.
    pub(super) fn get(&self, address: &Address) -> Option<&Member> {
        let address = address.to_string();
        self.members.iter().find(|member| member.address == address)
    }

    /// Power of all.
    pub(super) fn total(&self) -> u64 {
        self.members.iter().map(|member| member.power).fold(0, u64::saturating_add)
    }

    /// The least power that a validator has.
    pub(super) fn least_power(&self) -> Option<u64> {
        self.members.iter().map(|member| member.power).filter(|power| *power > 0).min()
    }

    /// Those who have power and stay, all or without one who leaves, and how many of them are there.
    pub(super) fn rest(&self, leaver: Option<&Address>, is_there: impl Fn(&Member) -> bool) -> Rest {
        let leaver = leaver.map(ToString::to_string);
        let leaves = |member: &Member| self.waiting.iter().any(|waiting| waiting.power == 0 && waiting.address == member.address);
        let stays = |member: &&Member| member.power > 0 && leaver.as_ref() != Some(&member.address) && !leaves(member);
        let mut rest = Rest { total: 0, present: 0, absent: Vec::new() };
        for member in self.members.iter().filter(stays) {
            rest.total = rest.total.saturating_add(member.power);
            if is_there(member) {
                rest.present = rest.present.saturating_add(member.power);
            } else {
                rest.absent.push(member.address.clone());
            }
        }
        rest
    }

    /// Whether it signed one of the last commits, or has only just been let in.
    fn is_present(&self, member: &Member) -> bool {
        member.last_signed.is_none_or(|signed| signed.saturating_add(PRESENT_WITHIN) >= self.height)
    }

    /// That the chain may soon stand still, where somebody is absent and nobody else may be.
    fn is_close(&self) -> Option<String> {
        let rest = self.rest(None, |member| self.is_present(member));
        let largest = self.members.iter().filter(|member| self.is_present(member)).map(|member| member.power).max()?;
        let without = Rest { present: rest.present.saturating_sub(largest), ..rest };
        (!without.absent.is_empty() && !without.can_decide()).then(|| {
            format!(
                "CLOSE: {} of {} of the power signed of late, and more than two thirds decide; absent: {}. If another one stops or leaves, the \
                 chain may stand still",
                without.present + largest,
                without.total,
                without.absent.join(", ")
            )
        })
    }

    /// Where an address stands in the line of those who wait for power to move, from one.
    pub(super) fn place_in_line(&self, address: &Address) -> Option<usize> {
        let address = address.to_string();
        self.waiting.iter().position(|waiting| waiting.address == address).map(|place| place + 1)
    }

    /// What lets power move, in words that do not change with every block.
    pub(super) fn about_moving(&self) -> String {
        format!("in any {} heights at most a third of the power moves, or one validator", self.power_window)
    }

    /// What a member lacks to be admitted, in words; none when it lacks no approval.
    pub(super) fn missing(&self, member: &Member) -> Option<String> {
        if member.replaces.is_some() {
            return None;
        }
        match self.admission.as_str() {
            "vote" => {
                let approves = |other: &&Member| member.approvals.contains(&other.address);
                let given = self.members.iter().filter(approves).map(|other| other.power).fold(0, u64::saturating_add);
                let total = self.total();
                (u128::from(given) * 3 <= u128::from(total) * 2)
                    .then(|| format!("{given} of {total} of the power approve, more than two thirds are needed"))
            }
            "authority" => {
                let address = |key: &String| Some(PublicKey(bytes(key)?).address().to_string());
                let keys: Vec<String> = self.authority.keys.iter().filter_map(address).collect();
                let given = member.approvals.iter().filter(|key| keys.contains(key)).count();
                let wanted = self.authority.threshold;
                (given < wanted as usize).then(|| format!("{given} of {wanted} keys of the authority approve"))
            }
            _ => None,
        }
    }
}

impl Members {
    /// Whether this key is one of the authority's.
    pub(super) fn is_authority(&self, key: &PublicKey) -> bool {
        self.authority.keys.iter().any(|other| *other == key.to_string())
    }

    /// How many keys of the authority ask a validator to leave, where they are too few so far.
    fn asked_to_leave(&self, member: &Member) -> Option<String> {
        let (given, wanted) = (member.removals.len(), self.authority.threshold);
        let stands = given > 0 && given < wanted as usize && member.power > 0;
        stands.then(|| format!("{given} of {wanted} keys of the authority ask it to leave: {}", member.removals.join(", ")))
    }
}

impl Member {
    /// Whether it signed a block above this height, as far as the chain says.
    pub(super) fn signed_above(&self, height: u64) -> bool {
        self.last_signed.is_some_and(|signed| signed > height)
    }

    pub(super) fn key(&self) -> Option<PublicKey> {
        bytes(&self.public_key).map(PublicKey)
    }
}

/// Hex digits of a fixed length.
fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    hex::decode(text).ok()?.try_into().ok()
}

/// A key in base64, or the address of somebody whom the chain knows.
pub(super) fn find_key(members: &Members, who: &str) -> Result<PublicKey, NodeError> {
    if let Some(key) = STANDARD.decode(who).ok().and_then(|bytes| bytes.try_into().ok()).map(PublicKey) {
        return Ok(key);
    }
    let unknown = || {
        NodeError::new(
            Exit::Usage,
            format!("{who:?} is neither the address of somebody who is known to the chain nor a public key in base64"),
        )
        .next("lockstep validator list shows who asks, by address; a key is shown by lockstep keys show in its home")
    };
    let address: Address = who.parse().map_err(|_| unknown())?;
    members.get(&address).and_then(Member::key).ok_or_else(unknown)
}

pub(super) async fn list(args: &ListArgs) -> Result<(), NodeError> {
    let client = Client::new(args.nodes.urls.iter().cloned()).map_err(|error| client_error(&error))?;
    if args.json {
        let answer = client.abci_query(MEMBERSHIP_PATH, &[], Height::ZERO, false).await.map_err(|error| client_error(&error))?;
        if answer.code == 0 {
            say(String::from_utf8_lossy(&answer.value.map(|value| value.0).unwrap_or_default()));
            return Ok(());
        }
    }
    let members = Members::ask(&client).await.map_err(|error| error.unwrap_or_else(|error| client_error(&error)))?;
    tell(&members, &genesis_names(client.endpoint()).await);
    // What the chain says is of its last block: where none comes, it knows of nobody who has stopped.
    let sync = client.status().await.map_err(|error| client_error(&error))?.sync_info;
    if let Some(line) = standstill(&client, &sync, None, now()?).await {
        say(format!("WAITS: {line}"));
    }
    Ok(())
}

/// Who never asked to join has the name that genesis gave it.
fn tell(members: &Members, names: &BTreeMap<String, String>) {
    let validators = members.members.iter().filter(|member| member.power > 0).count();
    say(format!("after height {}: view {}, {validators} validators with power {}", members.height, members.view, members.total()));
    say(match members.admission.as_str() {
        "vote" => "admission by vote: validators with more than two thirds of the power approve".to_owned(),
        "authority" => format!("admission by authority: {} of {} keys approve", members.authority.threshold, members.authority.keys.len()),
        _ => "admission is open: nobody has to approve".to_owned(),
    });
    say(format!(
        "live within {} heights, absent after {}; power moves by a third within {} ({} moved lately)",
        members.live_window, members.absence_window, members.power_window, members.power_moved_in_window
    ));
    if let Some(line) = members.is_close() {
        say(line);
    }
    say(format!("{:<40}  {:>8}  {:<10}  {:>9}  {:>11}  NAME", "ADDRESS", "POWER", "STATUS", "SINCE", "LAST SIGNED"));
    for member in &members.members {
        let power = if member.power > 0 { member.power.to_string() } else { format!("({})", member.asks_for) };
        let signed = member.last_signed.map_or_else(|| "-".to_owned(), |height| height.to_string());
        let named = if member.moniker.is_empty() { names.get(&member.address) } else { None };
        let name: String = named.unwrap_or(&member.moniker).chars().filter(|letter| !is_hidden(*letter)).collect();
        say(format!("{:<40}  {power:>8}  {:<10}  {:>9}  {signed:>11}  {name}", member.address, member.status, member.since));
        if let Some(line) = members.asked_to_leave(member) {
            say(format!("    {line}"));
        }
        if member.power == 0 {
            let place = member.replaces.as_ref().map(|old| format!("takes the place of {old}, with its power, when power may move"));
            if let Some(line) = place.or_else(|| members.missing(member)) {
                say(format!("    {line}"));
            }
        }
    }
    for (place, waiting) in members.waiting.iter().enumerate() {
        let what = if waiting.power == 0 { "leaves".to_owned() } else { format!("gets power {}", waiting.power) };
        say(format!("in line {}: {} {what} when power may move", place + 1, waiting.address));
    }
}

#[cfg(test)]
mod tests {
    use lockstep_types::Address;

    use super::{Member, Members, Waiting};

    fn answer(admission: &str, approvals: &str) -> Members {
        let member = |address: &str, power: u64, approvals: &str| {
            format!(
                r#"{{"address":"{address}","public_key":"","power":{power},"asks_for":10,"status":"s","since":1,"proven":1,
                    "replaces":null,"moniker":"","addresses":[],"approvals":[{approvals}],"last_signed":null}}"#
            )
        };
        let members = [member("A", 10, ""), member("B", 10, ""), member("C", 10, ""), member("D", 0, approvals)].join(",");
        serde_json::from_str(&format!(
            r#"{{"height":5,"view":1,"admission":"{admission}","authority":{{"keys":[],"threshold":1}},"live_window":10,"power_window":10,
                "absence_window":0,"checkpoint_interval":0,"checkpoint_spacing":1,"last_checkpoint":0,"power_moved_in_window":0,
                "members":[{members}],"waiting":[],"recent":{{"height":5,"hash":null}},"genesis_hash":"00"}}"#
        ))
        .expect("the form of the answer")
    }

    #[test]
    fn who_would_be_left_and_who_of_them_is_there_is_known_before_somebody_leaves() {
        let address = |n: u8| Address([n; 20]);
        // Equal power; who signed last at which height, of twenty.
        let of = |signed: &[Option<u64>]| {
            let mut members = answer("open", "");
            let member = members.members.pop().expect("an observer");
            members.height = 20;
            members.members = (1..)
                .zip(signed)
                .map(|(n, last_signed)| Member { address: address(n).to_string(), power: 10, last_signed: *last_signed, ..member.clone() })
                .collect();
            members
        };
        let left = |members: &Members| {
            let rest = members.rest(Some(&address(1)), |member| member.signed_above(14));
            (rest.present, rest.total, rest.can_decide())
        };
        let mut four = of(&[Some(20), Some(19), Some(15), Some(20)]);
        assert_eq!(left(&four), (30, 30, true));
        assert_eq!(four.is_close(), None, "all are there");
        four.members[3].last_signed = Some(14);
        assert_eq!(left(&four), (20, 30, false), "two of three are not enough");
        let told = four.is_close().expect("three of four are needed");
        assert!(told.contains("30 of 40") && told.contains(&address(4).to_string()), "{told}");
        four.waiting.push(Waiting { address: address(4).to_string(), power: 0 });
        assert_eq!(left(&four), (20, 20, true), "who leaves already is not counted on");
        assert_eq!(left(&of(&[Some(20)])), (0, 0, false), "the last one");
        let seven = of(&[Some(20), Some(20), Some(20), Some(20), Some(20), Some(20), Some(3)]);
        assert_eq!((left(&seven), seven.is_close()), ((50, 60, true), None));
    }

    #[test]
    fn a_removal_that_lacks_keys_is_told() {
        let mut members = answer("authority", "");
        members.authority.threshold = 2;
        members.members[1].removals = vec!["K".to_owned()];
        assert_eq!(members.asked_to_leave(&members.members[0]), None);
        let told = members.asked_to_leave(&members.members[1]).expect("one of two asks");
        assert_eq!(told, "1 of 2 keys of the authority ask it to leave: K");
        members.members[1].power = 0;
        assert_eq!(members.asked_to_leave(&members.members[1]), None, "it left");
    }

    #[test]
    fn two_thirds_are_not_enough_approval() {
        let missing = |members: &Members| members.missing(&members.members[3]);
        assert!(missing(&answer("vote", r#""A","B""#)).expect("20 of 30").starts_with("20 of 30"));
        assert_eq!(missing(&answer("vote", r#""A","B","C""#)), None);
        assert!(missing(&answer("authority", r#""A""#)).is_some(), "a validator is no authority");
        assert_eq!(missing(&answer("open", "")), None);
    }
}
