//! The members that the state knows, under keys of the node.
//!
//! | key | value |
//! |---|---|
//! | `00` `member/config` | [`Config`] |
//! | `00` `member/index` | addresses of all records, ascending |
//! | `00` `member/` and an address | [`Member`] |
//! | `00` `member/left` | who left lately, and when: oldest first |
//!
//! A validator of genesis, or one that an application made, has no record until a rule speaks of it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Read;

use borsh::{BorshDeserialize, BorshSerialize};
use lockstep_types::codec;
use lockstep_types::validators::VALIDATORS_MAX;
use lockstep_types::{Address, Height, Power, PublicKey};

use super::config::{AUTHORITY_KEYS_MAX, Config};
use super::tx::{ADDRESS_BYTES_MAX, ADDRESSES_MAX, MONIKER_BYTES_MAX};
use crate::changes::Changes;
use crate::tree::Tree;

const CONFIG_KEY: &[u8] = b"\x00member/config";
const INDEX_KEY: &[u8] = b"\x00member/index";
const MEMBER_PREFIX: &[u8] = b"\x00member/";
const LEFT_KEY: &[u8] = b"\x00member/left";
/// First byte of every value.
const VERSION: u8 = 1;
/// Most records: a full set, as many observers again.
pub(super) const MEMBERS_MAX: usize = 2 * VALIDATORS_MAX;
/// Most who have no power and never had any. Their records cost nothing to ask for, so they are few.
pub(super) const OBSERVERS_MAX: usize = 64;
/// Most who left lately and are remembered. A validator that leaves moves power, which takes its time.
const LEFT_MAX: usize = 2_000;
/// With so many, a JOIN is not taken back: what strangers may do without end has no claim to the room of the others.
pub(super) const TAKEN_BACK_MAX: usize = 1_000;
/// Longest value.
const VALUE_BYTES_MAX: usize = 64 << 10;

/// Where a member stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
#[borsh(use_discriminant = true)]
#[repr(u8)]
pub enum Status {
    /// Approved by somebody, and has not asked yet.
    Invited = 1,
    /// Has asked.
    Observer = 2,
    /// Has power, or had when it was last spoken of.
    Validator = 3,
    /// Lost its power, or is about to, since it was absent.
    Suspended = 4,
    /// Misbehaved, as evidence proved: it never returns.
    Barred = 5,
}

impl Status {
    /// In a word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Invited => "invited",
            Self::Observer => "observer",
            Self::Validator => "validator",
            Self::Suspended => "suspended",
            Self::Barred => "barred",
        }
    }
}

/// What the state says of a member.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize)]
pub struct Member {
    /// Its consensus key.
    pub public_key: PublicKey,
    /// The power it asks for, or has.
    pub power: Power,
    /// Where it stands.
    pub status: Status,
    /// The height at which it came to stand there.
    pub since: Height,
    /// The block that its last JOIN named; zero without one.
    pub proven: Height,
    /// The key whose place it is to take.
    pub replaces: Option<PublicKey>,
    /// The name it gave itself.
    pub moniker: String,
    /// Where it says it is found.
    pub addresses: Vec<String>,
    /// Who approved key and power, in the order they did.
    pub approvals: Vec<PublicKey>,
    /// Keys of the authority that ask for its removal.
    pub removals: Vec<PublicKey>,
}

impl Member {
    pub(super) fn new(public_key: PublicKey, power: Power, status: Status, since: Height) -> Self {
        Self {
            public_key,
            power,
            status,
            since,
            proven: Height::ZERO,
            replaces: None,
            moniker: String::new(),
            addresses: Vec::new(),
            approvals: Vec::new(),
            removals: Vec::new(),
        }
    }

    /// Whether it never had power: its record may be given up for another's.
    pub(super) const fn is_outside(&self) -> bool {
        matches!(self.status, Status::Invited | Status::Observer)
    }
}

impl BorshDeserialize for Member {
    fn deserialize_reader<R: Read>(reader: &mut R) -> std::io::Result<Self> {
        let text = |reader: &mut R, max: usize| {
            let bytes = codec::read_bytes(reader, max)?;
            String::from_utf8(bytes).map_err(|error| std::io::Error::new(std::io::ErrorKind::InvalidData, error.to_string()))
        };
        let (public_key, power, status) = <(PublicKey, Power, Status)>::deserialize_reader(reader)?;
        let (since, proven, replaces) = <(Height, Height, Option<PublicKey>)>::deserialize_reader(reader)?;
        let moniker = text(reader, MONIKER_BYTES_MAX)?;
        let count = u32::deserialize_reader(reader)? as usize;
        if count > ADDRESSES_MAX {
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, format!("{count} addresses, at most {ADDRESSES_MAX}")));
        }
        let addresses = (0..count).map(|_| text(reader, ADDRESS_BYTES_MAX)).collect::<Result<_, _>>()?;
        let approvals = codec::read_list(reader, VALIDATORS_MAX + AUTHORITY_KEYS_MAX)?;
        let removals = codec::read_list(reader, AUTHORITY_KEYS_MAX)?;
        Ok(Self { public_key, power, status, since, proven, replaces, moniker, addresses, approvals, removals })
    }
}

fn member_key(address: &Address) -> Vec<u8> {
    [MEMBER_PREFIX, address.as_ref()].concat()
}

/// A value that this program wrote, read under a root that it computed.
fn decode<T: BorshDeserialize>(bytes: &[u8]) -> T {
    codec::decode(VERSION, bytes, VALUE_BYTES_MAX).expect("written by these rules, and read under a certified root")
}

/// The first entries of a chain with membership.
pub(crate) fn genesis_changes(config: &Config) -> Changes {
    let mut changes = Changes::new();
    changes.set(CONFIG_KEY, codec::encode(VERSION, config));
    changes
}

/// The records, with changes on top.
#[derive(Debug, Clone)]
pub(crate) struct Registry<'a> {
    tree: &'a Tree,
    index: Vec<Address>,
    index_changed: bool,
    changed: BTreeMap<Address, Option<Member>>,
    /// By height; `None` as the state has it.
    left: Option<Vec<(Height, Address)>>,
}

impl<'a> Registry<'a> {
    /// The rules of this chain; none for one without membership.
    pub(crate) fn config(tree: &Tree) -> Option<Config> {
        tree.get(CONFIG_KEY).map(|bytes| decode(bytes))
    }

    pub(crate) fn open(tree: &'a Tree) -> Self {
        let index = tree.get(INDEX_KEY).map_or_else(Vec::new, |bytes| decode(bytes));
        Self { tree, index, index_changed: false, changed: BTreeMap::new(), left: None }
    }

    /// The record of an address.
    pub(crate) fn get(&self, address: &Address) -> Option<Member> {
        match self.changed.get(address) {
            Some(member) => member.clone(),
            None => self.tree.get(&member_key(address)).map(|bytes| decode(bytes)),
        }
    }

    /// All records, in address order.
    pub(crate) fn members(&self) -> impl Iterator<Item = Member> {
        self.index.iter().filter_map(|address| self.get(address))
    }

    /// Number of records.
    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    pub(crate) fn put(&mut self, member: Member) {
        let address = member.public_key.address();
        if let Err(place) = self.index.binary_search(&address) {
            self.index.insert(place, address);
            self.index_changed = true;
        }
        self.changed.insert(address, Some(member));
    }

    pub(crate) fn remove(&mut self, address: &Address) {
        if let Ok(place) = self.index.binary_search(address) {
            self.index.remove(place);
            self.index_changed = true;
            self.changed.insert(*address, None);
        }
    }

    fn left(&self) -> Cow<'_, [(Height, Address)]> {
        match &self.left {
            Some(left) => Cow::Borrowed(left),
            None => self.tree.get(LEFT_KEY).map_or_else(Cow::default, |bytes| Cow::Owned(decode(bytes))),
        }
    }

    /// How many are remembered to have left.
    pub(super) fn left_count(&self) -> usize {
        self.left().len()
    }

    /// The height at which a key left last, if that is remembered.
    pub(super) fn left_at(&self, address: &Address) -> Option<Height> {
        self.left().iter().rev().find(|(_, other)| other == address).map(|(height, _)| *height)
    }

    /// A key leaves at this height. Who left before `oldest` is forgotten.
    pub(super) fn leave(&mut self, address: Address, height: Height, oldest: Height) {
        let mut left = self.left().into_owned();
        left.retain(|(at, other)| *at >= oldest && *other != address);
        left.push((height, address));
        left.drain(..left.len().saturating_sub(LEFT_MAX));
        self.left = Some(left);
    }

    /// What the state has to take over.
    pub(crate) fn into_changes(self) -> Changes {
        let mut changes = Changes::new();
        for (address, member) in &self.changed {
            let (key, before) = (member_key(address), self.tree.get(&member_key(address)));
            match member {
                Some(member) => {
                    let bytes = codec::encode(VERSION, member);
                    // A record that says what it said leaves the root as it is.
                    if before.is_none_or(|before| before[..] != bytes[..]) {
                        changes.set(key, bytes);
                    }
                }
                None if before.is_some() => changes.delete(key),
                None => {}
            }
        }
        if let Some(left) = &self.left {
            changes.set(LEFT_KEY, codec::encode(VERSION, left));
        }
        if self.index_changed {
            let bytes = codec::encode(VERSION, &self.index);
            if self.tree.get(INDEX_KEY).is_none_or(|before| before[..] != bytes[..]) {
                changes.set(INDEX_KEY, bytes);
            }
        }
        changes
    }
}
