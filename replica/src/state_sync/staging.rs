//! What state sync has gathered, on the disk: a folder beside the home's own files, which nobody else reads until it is whole.
//!
//! | file | what |
//! |---|---|
//! | `goal` | the manifest, the proven block of its height and the one above |
//! | 64 hex digits | a chunk, packed, by the root of its subtree |
//! | `body` | the body of the snapshot's block |
//! | `light-<height>` | proven headers from that height downwards |
//! | `block-<height>` | a block above the snapshot's, proven: its header with commit and sets, and its body |
//! | `complete` | everything above is there and durable, and a replica stopped for it: the next start installs it (`super::install`) |
//! | `installed` | was `complete`: everything here is of no more use, and a start that finds it removes it, itself last |
//!
//! Nothing is synced before the end. Each file proves itself when it is read again (a chunk by its root, the others by a digest),
//! so a crash costs what the disk had not written yet, and a restart goes on with the rest.

use std::borrow::Cow;
use std::sync::Arc;

use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use lockstep_app::Tree;
use lockstep_app::snapshot::{self, ChunkError, ChunkInfo, Difference, MANIFEST_BYTES_MAX, Manifest, Outline, PACKED_BYTES_MAX};
use lockstep_app::tree::Part;
use lockstep_storage::DiskError;
use lockstep_storage::disk::Disk;
use lockstep_storage::snapshots::{SnapshotError, Snapshots};
use lockstep_storage::spread::{self, Spread};
use lockstep_sync::state::{Check, Checked, ChunkWanted};
use lockstep_types::block::{BODY_BYTES_MAX, part_set_header};
use lockstep_types::codec;
use lockstep_types::light::LightBlock;
use lockstep_types::planted::{self, Bug};
use lockstep_types::{Block, Hash, Height};

use super::files::{Folder, sealed, unsealed};
use crate::light_store;

/// Where it lies in a home.
pub const STAGING_PATH: &str = "sync";

/// First byte of `goal`, behind its digest.
const VERSION: u8 = 1;
const GOAL: &str = "goal";
const BODY: &str = "body";
const COMPLETE: &str = "complete";
const INSTALLED: &str = "installed";
const LIGHT: &str = "light-";
const BLOCK: &str = "block-";
/// A body, and a header with the largest sets.
const BLOCK_BYTES_MAX: usize = BODY_BYTES_MAX + (1 << 20);
/// A manifest and two blocks with the largest sets.
const GOAL_BYTES_MAX: usize = MANIFEST_BYTES_MAX + (1 << 20);
/// A run of headers, as in the light store.
const LIGHT_BYTES_MAX: usize = 32 << 20;

/// What is asked of the staging folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    /// What an earlier run left.
    Look,
    /// Judge, and keep what is good.
    Check(Check),
    /// State sync has ended without a snapshot. What is here stays for the next time, unless the node's own blocks have come as far.
    End {
        /// How far they have come.
        tip: Height,
    },
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// The height of the snapshot that something is here of.
    Looked(Option<Height>),
    /// What was judged.
    Checked(Checked),
    /// Nothing is asked until the next [`Task::Look`].
    Ended,
}

/// What is synced to, with its proof.
#[derive(Debug, Clone, BorshSerialize, BorshDeserialize)]
pub(super) struct Goal {
    #[borsh(deserialize_with = "read_manifest")]
    manifest: Vec<u8>,
    /// The block after the snapshot's.
    pub(super) above: LightBlock,
    /// The snapshot's block.
    pub(super) at: LightBlock,
}

fn read_manifest<R: std::io::Read>(reader: &mut R) -> std::io::Result<Vec<u8>> {
    codec::read_bytes(reader, MANIFEST_BYTES_MAX)
}

/// A block above the snapshot's, proven before it was written.
#[derive(Debug, Clone, BorshSerialize, BorshDeserialize)]
pub(super) struct Above {
    pub(super) block: LightBlock,
    #[borsh(deserialize_with = "read_body")]
    pub(super) body: Vec<u8>,
}

/// Whether header, commit and body are of one block. What came from peers is; a file that was changed by hand may be anything.
fn is_one_block(light: &LightBlock, body: &[u8]) -> bool {
    let (header, commit) = (&light.header, &light.commit);
    commit.height == header.height
        && commit.block_id.hash == header.hash()
        && commit.block_id.parts == part_set_header(body)
        && Block::decode(body).is_ok_and(|block| block.header == *header)
}

fn read_body<R: std::io::Read>(reader: &mut R) -> std::io::Result<Vec<u8>> {
    codec::read_bytes(reader, BODY_BYTES_MAX)
}

impl Goal {
    /// The manifest, if it leads to the root in the header above.
    fn manifest(&self, genesis_hash: Hash) -> Result<Manifest, String> {
        let manifest = Manifest::from_bytes(&self.manifest).map_err(|error| error.to_string())?;
        if manifest.genesis_hash() != genesis_hash || manifest.height() != self.at.header.height {
            return Err("it is of another chain or height".to_owned());
        }
        if manifest.app_hash().0[..] != *self.above.header.app_hash.as_bytes() {
            return Err("it leads to another root than the one that is certified".to_owned());
        }
        Ok(manifest)
    }
}

/// The staging folder. One thread has it.
pub struct Staging {
    folder: Folder,
    genesis_hash: Hash,
    goal: Option<(Goal, Manifest)>,
}

impl Staging {
    /// The folder of a home.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn open(disk: Arc<dyn Disk>, genesis_hash: Hash) -> Result<Self, DiskError> {
        let folder = Folder::new(disk, STAGING_PATH);
        let goal = folder.read(GOAL, GOAL_BYTES_MAX)?;
        let goal = goal.as_deref().and_then(unsealed).and_then(|bytes| codec::decode::<Goal>(VERSION, bytes, GOAL_BYTES_MAX).ok());
        let goal = goal.and_then(|goal| goal.manifest(genesis_hash).ok().map(|manifest| (goal, manifest)));
        Ok(Self { folder, genesis_hash, goal })
    }

    /// Does what is asked. `own` is a state of ours, of whatever height: what it has in common with the snapshot is not fetched.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn perform(&mut self, task: Task, own: &Tree) -> Result<Found, DiskError> {
        Ok(match task {
            Task::Look => Found::Looked(self.height()),
            Task::Check(check) => Found::Checked(self.check(check, own)?),
            Task::End { tip } => {
                self.forget_passed(tip)?;
                Found::Ended
            }
        })
    }

    /// Removes what is here of a snapshot that this node's own blocks have passed: its state has everything of use in it.
    pub(super) fn forget_passed(&mut self, tip: Height) -> Result<(), DiskError> {
        if self.height().is_some_and(|gathered| gathered <= tip) {
            self.goal = None;
            self.clear()?;
        }
        Ok(())
    }

    fn check(&mut self, check: Check, own: &Tree) -> Result<Checked, DiskError> {
        match check {
            Check::Manifest { bytes, above, at } => self.manifest(&bytes, *above, *at, own),
            Check::Chunk { index, bytes, is_whole } => self.chunk(index, &bytes, is_whole, own),
            Check::Body(bytes) => {
                let Some((goal, _)) = &self.goal else { return Ok(Checked::Bad("nothing is synced".to_owned())) };
                if part_set_header(&bytes) != goal.at.commit.block_id.parts {
                    return Ok(Checked::Bad("it is another".to_owned()));
                }
                self.folder.write(BODY, &bytes)?;
                Ok(Checked::Good)
            }
            Check::Headers(blocks) => {
                if let Some(highest) = blocks.first() {
                    self.folder.write(&format!("{LIGHT}{:020}", highest.header.height.get()), &light_store::encode(&blocks))?;
                }
                Ok(Checked::Good)
            }
            Check::Block { block, body: None } => {
                let here = self.block(block.header.height)?;
                Ok(if here.is_some_and(|here| here.block.header == block.header) { Checked::Good } else { Checked::Unfit })
            }
            Check::Block { block, body: Some(body) } => {
                if part_set_header(&body) != block.commit.block_id.parts {
                    return Ok(Checked::Unfit);
                }
                let name = block_name(block.header.height);
                let kept = Above { block: *block, body: body.to_vec() };
                self.folder.write(&name, &sealed(&codec::encode(VERSION, &kept)))?;
                Ok(Checked::Good)
            }
            Check::Complete => self.complete(),
        }
    }

    fn manifest(&mut self, bytes: &[u8], above: LightBlock, at: LightBlock, own: &Tree) -> Result<Checked, DiskError> {
        let goal = Goal { manifest: bytes.to_vec(), above, at };
        let manifest = match goal.manifest(self.genesis_hash) {
            Ok(manifest) => manifest,
            Err(reason) => return Ok(Checked::Bad(reason)),
        };
        self.folder.remove(COMPLETE)?;
        let names: std::collections::BTreeSet<String> = manifest.chunks().iter().map(|chunk| chunk_name(&chunk.root)).collect();
        let is_above = |name: &str| height_of(name).is_some_and(|height| height > manifest.height().get());
        self.folder.sweep(|name| names.contains(name) || is_above(name))?;
        self.folder.write(GOAL, &sealed(&codec::encode(VERSION, &goal)))?;
        let mut wanted = Vec::with_capacity(manifest.chunks().len());
        for info in manifest.chunks() {
            wanted.push(self.look_for(info, own)?);
        }
        self.goal = Some((goal, manifest));
        Ok(Checked::Manifest(wanted))
    }

    /// Whether a chunk is here already, or in our own state, or how much of it is.
    fn look_for(&self, info: &ChunkInfo, own: &Tree) -> Result<ChunkWanted, DiskError> {
        let here = |have| ChunkWanted { root: info.root, have, known: Arc::from([]) };
        if info.entries == 0 {
            return Ok(here(true));
        }
        let name = chunk_name(&info.root);
        if let Some(packed) = self.folder.read(&name, PACKED_BYTES_MAX)? {
            if snapshot::judge(info, &packed).is_ok() {
                return Ok(here(true));
            }
            self.folder.remove(&name)?;
        }
        let ours = own.part(info.prefix);
        if ours.root() == info.root {
            self.folder.write(&name, &snapshot::pack(&ours))?;
            return Ok(here(true));
        }
        let known = if ours.is_empty() { Vec::new() } else { borsh::to_vec(&Outline::of(&ours, info)).expect("in memory") };
        Ok(ChunkWanted { root: info.root, have: false, known: known.into() })
    }

    fn chunk(&self, index: u32, bytes: &[u8], is_whole: bool, own: &Tree) -> Result<Checked, DiskError> {
        let info = self.goal.as_ref().and_then(|(_, manifest)| manifest.chunks().get(index as usize));
        let Some(info) = info else { return Ok(Checked::Bad("there is no such chunk".to_owned())) };
        if planted::has(Bug::ChunkUnchecked) && is_whole {
            self.folder.write(&chunk_name(&info.root), bytes)?;
            return Ok(Checked::Good);
        }
        let judged = if is_whole {
            snapshot::judge(info, bytes).map(|()| Cow::Borrowed(bytes))
        } else {
            let ours = own.part(info.prefix);
            let levels = Outline::of(&ours, info).levels();
            match Difference::try_from_slice(bytes) {
                Ok(difference) => difference.apply(&ours, levels, info).map(|part| Cow::Owned(snapshot::pack(&part))),
                Err(error) => Err(ChunkError::Malformed(error.to_string())),
            }
        };
        match judged {
            Ok(packed) => {
                self.folder.write(&chunk_name(&info.root), &packed)?;
                Ok(Checked::Good)
            }
            Err(error @ ChunkError::ManifestLies) => Ok(Checked::ManifestLies(error.to_string())),
            // The outline was cut short, or our own state went on since it was made.
            Err(ChunkError::WrongRoot) if !is_whole => Ok(Checked::Unfit),
            Err(error) => Ok(Checked::Bad(error.to_string())),
        }
    }

    /// Everything is here, and is made durable. Whether a start is to begin with it is not for this thread to say: [`Staging::mark`].
    fn complete(&self) -> Result<Checked, DiskError> {
        let Some((_, manifest)) = &self.goal else { return Ok(Checked::Bad("nothing is synced".to_owned())) };
        let names = self.folder.names()?;
        let is_there = |name: &str| names.iter().any(|there| there == name);
        let missing = manifest.chunks().iter().find(|chunk| chunk.entries > 0 && !is_there(&chunk_name(&chunk.root)));
        if let Some(chunk) = missing {
            return Ok(Checked::Bad(format!("chunk {:?} is missing", chunk.root)));
        }
        if !is_there(BODY) {
            return Ok(Checked::Bad("the block is missing".to_owned()));
        }
        if !planted::has(Bug::CompleteUnsynced) {
            for name in &names {
                self.folder.sync(name)?;
            }
            self.folder.sync_names()?;
        }
        Ok(Checked::Good)
    }

    /// What is here is what the next start begins with, in the place of every block of this home, durably.
    ///
    /// Only where nobody goes on with those blocks any more, and they end below: so after a replica has asked to be opened again
    /// ([`crate::Effect::Reopen`]) and has stopped, and in a home without blocks. A replica that still runs may pass the snapshot's height by blocks,
    /// and tell of them, while it is marked; a start long after would throw them all away.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn mark(&self) -> Result<(), DiskError> {
        self.folder.write(COMPLETE, &sealed(&[VERSION]))?;
        self.folder.sync(COMPLETE)?;
        self.folder.sync_names()
    }
}

/// What a complete staging folder holds, read back and verified.
pub(super) struct Gathered {
    pub(super) goal: Goal,
    pub(super) tree: Tree,
    pub(super) body: Bytes,
    /// Headers below the snapshot's, by ascending heights.
    pub(super) below: Vec<LightBlock>,
}

impl Staging {
    /// Whether a start is to install what is here.
    pub(super) fn is_complete(&self) -> Result<bool, DiskError> {
        let mark = self.folder.read(COMPLETE, 1 << 10)?;
        Ok(mark.as_deref().and_then(unsealed) == Some(&[VERSION]))
    }

    /// Everything, verified once more: what rotted since is removed, and said.
    pub(super) fn gathered(&self, spread: &dyn Spread) -> Result<Result<Gathered, String>, DiskError> {
        let Some((goal, manifest)) = &self.goal else { return Ok(Err("its goal cannot be read back".to_owned())) };
        let chunks = manifest.chunks();
        let opened = spread::map(spread, chunks.len(), |number| self.opened(&chunks[number]));
        let mut parts = Vec::with_capacity(chunks.len());
        for (info, part) in chunks.iter().zip(opened) {
            match part? {
                Ok(part) => parts.push(part),
                Err(error) => {
                    self.folder.remove(&chunk_name(&info.root))?;
                    return Ok(Err(format!("chunk {:?}: {error}", info.root)));
                }
            }
        }
        let Some(tree) = Tree::join(parts) else { return Ok(Err("its chunks do not fit together".to_owned())) };
        if tree.root().0[..] != *goal.above.header.app_hash.as_bytes() {
            return Ok(Err("its chunks make another root".to_owned()));
        }
        let body = self.folder.read(BODY, BODY_BYTES_MAX)?.map(Bytes::from);
        let Some(body) = body.filter(|body| is_one_block(&goal.at, body)) else {
            self.folder.remove(BODY)?;
            return Ok(Err("its block cannot be read back".to_owned()));
        };
        let mut below = Vec::new();
        let mut next = goal.at.header.height.previous();
        while let Some(run) =
            self.folder.read(&format!("{LIGHT}{:020}", next.get()), LIGHT_BYTES_MAX)?.and_then(|bytes| light_store::decode(&bytes))
        {
            let Some(lowest) = run.last().filter(|lowest| lowest.header.height <= next) else { break };
            next = lowest.header.height.previous();
            below.extend(run);
        }
        below.reverse();
        Ok(Ok(Gathered { goal: goal.clone(), tree, body, below }))
    }

    /// A block above the snapshot's. What rotted, or was torn, counts as not here: peers have it.
    pub(super) fn block(&self, height: Height) -> Result<Option<Above>, DiskError> {
        let bytes = self.folder.read(&block_name(height), BLOCK_BYTES_MAX)?;
        let above = bytes.as_deref().and_then(unsealed).and_then(|bytes| codec::decode::<Above>(VERSION, bytes, BLOCK_BYTES_MAX).ok());
        Ok(above.filter(|above| above.block.header.height == height && is_one_block(&above.block, &above.body)))
    }

    /// One chunk as it lies here, judged again; else what is wrong with it.
    fn opened(&self, info: &ChunkInfo) -> Result<Result<Part, String>, DiskError> {
        if info.entries == 0 {
            return Ok(Ok(Tree::new().part(info.prefix)));
        }
        Ok(match self.folder.read(&chunk_name(&info.root), PACKED_BYTES_MAX)? {
            Some(packed) => snapshot::open(info, &packed).map_err(|error| error.to_string()),
            None => Err("it is missing".to_owned()),
        })
    }

    /// Takes the mark away: what is here is not to be installed.
    pub(super) fn unmark(&self) -> Result<(), DiskError> {
        self.folder.remove(COMPLETE)?;
        self.folder.sync_names()
    }

    /// Removes everything. The mark becomes another first, which goes last: whatever stops this, nothing is installed twice and nothing
    /// is left for good.
    pub(super) fn clear(&self) -> Result<(), DiskError> {
        self.folder.rename(COMPLETE, INSTALLED)?;
        self.folder.sync_names()?;
        self.empty()
    }

    /// Goes on with a clearing that was stopped.
    pub(super) fn finish_clearing(&self) -> Result<(), DiskError> {
        if self.folder.names()?.iter().any(|name| name == INSTALLED) { self.empty() } else { Ok(()) }
    }

    /// The goal goes after what it leads to: a start that finds it after a clearing without a mark was stopped goes on from there.
    fn empty(&self) -> Result<(), DiskError> {
        self.folder.sweep(|name| name == INSTALLED || name == GOAL)?;
        self.folder.sync_names()?;
        self.folder.remove(GOAL)?;
        self.folder.sync_names()?;
        self.folder.remove(INSTALLED)?;
        self.folder.sync_names()
    }

    /// The height of what is gathered, or being gathered.
    pub(super) fn height(&self) -> Option<Height> {
        self.goal.as_ref().map(|(goal, _)| goal.at.header.height)
    }

    /// Puts what is gathered into the snapshots of this node, begun and with all its chunks.
    ///
    /// # Errors
    /// When the disk fails or is full, or a chunk cannot be read back any more.
    pub(super) fn put_into(&self, store: &Snapshots) -> Result<(), SnapshotError> {
        let Some((goal, manifest)) = &self.goal else { return Ok(()) };
        let chunks = || manifest.chunks().iter().filter(|info| info.entries > 0);
        let names: Vec<[u8; 32]> = chunks().map(|info| info.root.0).collect();
        store.begin(manifest.height().get(), &names, &goal.manifest)?;
        // None is shared unread with a snapshot that was here before: it may have rotted there.
        for info in chunks().filter(|info| !store.is_sound(&info.root.0)) {
            let name = chunk_name(&info.root);
            let packed = self.folder.read(&name, PACKED_BYTES_MAX)?.ok_or(SnapshotError::Missing { name })?;
            store.mend(&info.root.0, &packed)?;
        }
        Ok(())
    }
}

fn block_name(height: Height) -> String {
    format!("{BLOCK}{:020}", height.get())
}

/// The height of a block above a snapshot's, by its file's name.
fn height_of(name: &str) -> Option<u64> {
    name.strip_prefix(BLOCK)?.parse().ok()
}

fn chunk_name(root: &Hash) -> String {
    root.0.iter().map(|byte| format!("{byte:02x}")).collect()
}
