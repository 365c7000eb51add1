//! Files that a home keeps beside its stores, under digests that hold; and those that a person brings.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use lockstep::exported::{Sections, Taken};
use lockstep::{Bundle, Config};
use lockstep_app::kv::Kv;
use lockstep_app::{Host, Tree};
use lockstep_genesis::{Genesis, GenesisDraft, GenesisValidator};
use lockstep_replica::audit::{self, AUDIT_PATH, Shelf};
use lockstep_replica::light_store::{LIGHT_PATH, LightStore};
use lockstep_replica::recovery::{self, Home};
use lockstep_replica::state_sync::{Installed, STAGING_PATH, Staging, Task, rehearse};
use lockstep_sim::disk::SimDisk;
use lockstep_storage::log::LogOptions;
use lockstep_storage::spread::InTurn;
use lockstep_sync::state::Check;
use lockstep_types::light::LightBlock;
use lockstep_types::{AppHash, ChainId, ConsensusParams, Hash, Height, Power, PrivateKey, Time, codec};
use sha2::{Digest as _, Sha256};

use super::{Meter, OVERHEAD, PER_BYTE, bounded};

/// What a packed list may unpack to, and what is made of that.
const LIST_OVERHEAD: usize = 192 << 20;
/// Images of the simulated disk, a database with its cache, and chunks that unpack to as much as they may.
const HOME_OVERHEAD: usize = 384 << 20;
/// Longer inputs show nothing that shorter ones do not.
const INPUT_BYTES_MAX: usize = 64 << 10;

/// The genesis of the chain whose snapshots are brought: of keys 1 to 4, with a checkpoint at each second height.
pub fn genesis() -> &'static Genesis {
    static GENESIS: LazyLock<Genesis> = LazyLock::new(|| {
        let validator = |seed: u8| GenesisValidator {
            public_key: PrivateKey::from_seed(&[seed; 32]).public_key(),
            power: Power::new(10).expect("small"),
            name: String::new(),
        };
        let draft = GenesisDraft {
            genesis_time: Time::new(1_767_323_045, 0).expect("a time"),
            chain_id: ChainId::new("test-chain").expect("a name"),
            consensus_params: ConsensusParams::default(),
            validators: (1..=4).map(validator).collect(),
            app_hash: AppHash::default(),
            app_state: r#"{"membership":{"admission":"open","checkpoint_interval":2,"checkpoint_spacing":1}}"#.into(),
        };
        draft.check().expect("it follows the rules")
    });
    &GENESIS
}

/// Bytes behind their digest, as every small file of a home has them.
fn sealed(bytes: &[u8]) -> Vec<u8> {
    [&Sha256::digest(bytes)[..], bytes].concat()
}

/// Puts a file onto a disk, durably.
fn put(disk: &SimDisk, folder: &str, name: &str, bytes: &[u8]) {
    let disk = disk.disk();
    disk.create_dir(folder).expect("a folder");
    let path = format!("{folder}/{name}");
    let _ = disk.unlink(&path);
    let file = disk.create(&path).expect("nothing has the name");
    file.write_at(0, bytes).expect("there is room");
    file.sync_data().expect("durable");
    disk.sync_dir(folder).expect("durable");
}

fn height(number: u64) -> Height {
    Height::new(number).expect("small")
}

/// A file of `data/light`; the first byte says which, and whether what follows is a list that is packed here.
pub(super) fn light_file(bytes: &[u8], meter: Meter) {
    const RANGE: &str = "00000000000000000005-00000000000000000006";
    const PACKED: u8 = 2;
    let Some((which, bytes)) = bytes.split_first() else { return };
    let bytes = &bytes[..bytes.len().min(INPUT_BYTES_MAX)];
    let content = if which & 0x80 == 0 {
        bytes.to_vec()
    } else {
        let raw_bytes = u32::try_from(bytes.len()).expect("short").to_le_bytes();
        [&[PACKED][..], &raw_bytes, &zstd::bulk::compress(bytes, 1).expect("in memory")].concat()
    };
    let disk = SimDisk::new();
    let name = match which % 4 {
        0 => RANGE.to_owned(),
        1 => format!("pruned-{RANGE}"),
        2 => {
            // Polkas are found by the headers that lie beside them.
            put(&disk, LIGHT_PATH, &format!("pruned-{RANGE}"), b"");
            format!("polkas-{RANGE}")
        }
        _ => "roots".to_owned(),
    };
    put(&disk, LIGHT_PATH, &name, &sealed(&content));
    let read = || {
        let mut store = LightStore::open(disk.disk()).expect("the disk is sound");
        let blocks: Vec<Option<LightBlock>> = (4..=7).map(|number| store.get(height(number)).expect("the disk is sound")).collect();
        let polkas: Vec<_> = (5..=6).map(|number| store.polkas(height(number)).expect("the disk is sound")).collect();
        let _ = store.oldest().expect("the disk is sound");
        (blocks, polkas, store.roots().expect("the disk is sound"), store.newly_damaged())
    };
    let (blocks, polkas, _, damaged) = bounded(content.len(), PER_BYTE, DISK_OVERHEAD + LIST_OVERHEAD, meter, read);
    assert!(blocks[0].is_none() && blocks[3].is_none(), "nothing is found of heights that no file is of");
    for (number, block) in (4..=7).zip(&blocks) {
        let Some(block) = block else { continue };
        assert_eq!(block.header.height, height(number), "the block of the height that was asked for");
        assert!(damaged.iter().all(|path| path.contains("polkas") || path.contains("pruned")), "what is read is not damaged");
        let kept = SimDisk::new();
        LightStore::open(kept.disk()).and_then(|mut store| store.keep(std::slice::from_ref(block))).expect("there is room");
        let mut again = LightStore::open(kept.disk()).expect("the disk is sound");
        assert_eq!(again.get(block.header.height).expect("the disk is sound").as_ref(), Some(block), "what is kept is found");
    }
    for (number, polkas) in (5..=6).zip(polkas) {
        assert!(polkas.iter().all(|polka| polka.height == height(number)), "polkas of the height that was asked for");
    }
}

/// Images of the simulated disk.
const DISK_OVERHEAD: usize = 8 << 20;

/// A finding of `data/audit`.
pub(super) fn audit_file(bytes: &[u8], meter: Meter) {
    const FOUND: &str = "00000000000000000005.found";
    let bytes = &bytes[..bytes.len().min(INPUT_BYTES_MAX)];
    let disk = SimDisk::new();
    put(&disk, AUDIT_PATH, FOUND, &sealed(bytes));
    let opened = bounded(bytes.len(), PER_BYTE, DISK_OVERHEAD, meter, || Shelf::open(disk.disk()));
    let mut shelf = opened.expect("the disk is sound");
    let Some(finding) = shelf.at(height(5)).cloned() else {
        assert!(shelf.heights().is_empty(), "what is not read was not found");
        return;
    };
    assert!(!finding.what().is_empty());
    let other = SimDisk::new();
    audit::keep(other.disk(), &finding, None).expect("there is room");
    assert_eq!(Shelf::open(other.disk()).expect("the disk is sound").at(height(5)), Some(&finding), "what is kept is found");
    let settled = bounded(bytes.len(), PER_BYTE, DISK_OVERHEAD, meter, || shelf.settle(&[]).expect("there is room"));
    assert_eq!(settled.len(), 1);
    let after = Shelf::open(disk.disk()).expect("the disk is sound");
    assert!(after.to_heal().next().is_none() && after.heights() == [height(5)], "it has healed, and is remembered");
}

/// A home on this disk.
fn open(disk: &SimDisk) -> recovery::Opened {
    let home = Home {
        disk: disk.disk(),
        log: "log",
        state: "state.redb",
        damaged: "damaged",
        log_options: LogOptions { salt: [1; 32], segment_bytes: 1 << 20 },
        keep_results: true,
        keeps_all_blocks: false,
        flush_keys: 1_000,
        genesis: genesis(),
        host: Host::new(Arc::new(Kv)),
        spread: &InTurn,
    };
    recovery::open(&home, None, |_| {}).expect("whatever was gathered, a home opens")
}

/// A home opens with what was gathered, or without it; and then again, at the same height.
fn opens(disk: &SimDisk, restored: Option<Height>) {
    let opened = open(disk);
    if let Some(Installed::Restored(height)) = opened.installed {
        assert_eq!(restored, Some(height), "what is restored was to be");
        assert!(opened.recovered.restored.chain.height >= height, "the chain goes on from there");
    } else {
        assert_eq!(restored, None, "what was to be restored is");
        assert_eq!(opened.recovered.restored.chain.height, Height::ZERO, "it begins with genesis");
    }
    let at = opened.recovered.restored.chain.height;
    drop(opened);
    let again = open(disk);
    assert_eq!((again.recovered.restored.chain.height, again.installed.is_some()), (at, false), "it goes on where it was");
}

/// A disk with a folder `data/sync`, a file after the other: what it is (0 goal, 1 chunk, 2 body, 3 headers, 4 block, 5 mark), the number
/// of its bytes (two, little-endian), and these. What has a height or a root in its name has that first.
fn gathered(bytes: &[u8]) -> SimDisk {
    let mut rest = &bytes[..bytes.len().min(INPUT_BYTES_MAX)];
    let disk = SimDisk::new();
    while let Some(([kind, low, high], after)) = rest.split_first_chunk() {
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(after.len());
        let (file, next) = after.split_at(length);
        rest = next;
        let numbered = |prefix: &str| {
            let (number, content) = file.split_first_chunk().unwrap_or((&[0; 8], &[]));
            put(&disk, STAGING_PATH, &format!("{prefix}{:020}", u64::from_le_bytes(*number)), &sealed(content));
        };
        match kind % 6 {
            0 => put(&disk, STAGING_PATH, "goal", &sealed(file)),
            1 => {
                let (root, content) = file.split_first_chunk().unwrap_or((&[0; 32], &[]));
                put(&disk, STAGING_PATH, &root.map(|byte| format!("{byte:02x}")).concat(), content);
            }
            2 => put(&disk, STAGING_PATH, "body", file),
            3 => numbered("light-"),
            4 => numbered("block-"),
            _ => put(&disk, STAGING_PATH, "complete", &sealed(file)),
        }
    }
    disk
}

/// The height that a start is to begin with which finds this disk: that of what is gathered, if it is whole and marked.
fn to_begin_with(disk: &SimDisk) -> Option<Height> {
    let is_marked = disk.bytes(&format!("{STAGING_PATH}/complete")).is_some_and(|mark| mark == sealed(&[1]));
    let disk = disk.fork();
    let mut staging = Staging::open(disk.disk(), genesis().hash()).expect("the disk is sound");
    staging.perform(Task::Look, &Tree::new()).expect("the disk is sound");
    let rehearsed = rehearse(&staging, genesis(), &InTurn).expect("the disk is sound");
    staging.perform(Task::Check(Check::Complete), &Tree::new()).expect("the disk is sound");
    rehearsed.ok().filter(|_| is_marked).map(|chain| chain.height)
}

/// The height that a home begins with whose folder `data/sync` this is; none where that is genesis.
pub fn restored(folder: &[u8]) -> Option<Height> {
    match open(&gathered(folder)).installed {
        Some(Installed::Restored(height)) => Some(height),
        _ => None,
    }
}

/// The folder `data/sync`.
pub(super) fn sync_folder(bytes: &[u8], meter: Meter) {
    bounded(bytes.len(), PER_BYTE, HOME_OVERHEAD, meter, || {
        let disk = gathered(bytes);
        opens(&disk, to_begin_with(&disk));
    });
}

/// Takes an exported snapshot in that has these bytes behind its first eight.
fn take_in(bytes: &[u8], trusted: &Hash, disk: &SimDisk) -> Option<Taken> {
    let file = [&b"LSEXP\0\0\x01"[..], bytes].concat();
    let sections = Sections::open(&file[..], Path::new("a.snapshot")).expect("it begins as one");
    sections.take_in(trusted, genesis(), disk.disk(), &InTurn, |_| {}).ok()
}

/// The height of an exported snapshot that has these bytes behind its first eight, if all in it follows from the header that is trusted.
pub fn taken(bytes: &[u8], trusted: &Hash) -> Option<Height> {
    take_in(bytes, trusted, &SimDisk::new()).map(|taken| taken.height)
}

/// The bytes of an exported snapshot behind its first eight. What its second section says is trusted.
pub(super) fn export(bytes: &[u8], meter: Meter) {
    const LIGHT_BYTES_MAX: usize = 1 << 20;
    fn section(from: &[u8]) -> Option<(&[u8], &[u8])> {
        let (length, rest) = from.split_first_chunk::<4>()?;
        rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)
    }
    let bytes = &bytes[..bytes.len().min(INPUT_BYTES_MAX)];
    let above = section(bytes).and_then(|(_, rest)| section(rest));
    let above = above.and_then(|(above, _)| codec::decode::<LightBlock>(1, above, LIGHT_BYTES_MAX).ok());
    let trusted = above.map_or(Hash([7; 32]), |above| above.header.hash());
    bounded(bytes.len(), PER_BYTE, HOME_OVERHEAD, meter, || {
        let disk = SimDisk::new();
        let taken = take_in(bytes, &trusted, &disk);
        assert!(taken.as_ref().is_none_or(|taken| taken.lowest <= taken.height), "headers lie below");
        opens(&disk, taken.map(|taken| taken.height));
    });
}

/// A join bundle.
pub(super) fn bundle(bytes: &[u8], meter: Meter) {
    /// JSON of one byte may be an address, which is kept as text and as what it says.
    const PER_BYTE_TEXT: usize = 256;
    let path = Path::new("join.json");
    let Ok(bundle) = bounded(bytes.len(), PER_BYTE_TEXT, OVERHEAD, meter, || Bundle::parse(path, bytes)) else { return };
    assert_eq!(Bundle::parse(path, bundle.to_json().as_bytes()).expect("what is written is accepted"), bundle);
    let mut config = Config::default();
    let applied = bounded(bytes.len(), PER_BYTE_TEXT, OVERHEAD, meter, || bundle.apply(path, genesis(), &mut config));
    if let Ok(((height, _), peers)) = applied {
        assert!(height > Height::ZERO, "a height of the chain");
        assert!(config.p2p.persistent_peers.iter().all(|peer| peers.contains(peer)), "nobody else is asked");
    }
}
