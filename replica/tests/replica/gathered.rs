//! The files of `data/light` and `data/sync`, byte by byte as `docs/format-snapshot.md` describes them.

use std::sync::Arc;

use lockstep_app::Tree;
use lockstep_app::snapshot::{Manifest, pack, plan};
use lockstep_replica::light_store::LightStore;
use lockstep_replica::state_sync::{Found, Staging, Task};
use lockstep_storage::disk::{Disk, RealDisk};
use lockstep_sync::state::{Check, Checked};
use lockstep_types::block::part_set_header;
use lockstep_types::light::LightBlock;
use lockstep_types::{Block, BlockId, Hash};

use crate::desk::Made;
use crate::examples::{id, light, light_hex, polka_hex};
use crate::support::*;

/// SHA-256 of what follows, and that.
fn sealed(hex_digits: &str) -> String {
    let bytes = hex::decode(hex_digits).unwrap();
    hex::encode(Hash::of(&bytes).0) + hex_digits
}

fn bytes_of(disk: &Arc<dyn Disk>, path: &str) -> String {
    let file = disk.open(path).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_at(0, &mut bytes).unwrap();
    hex::encode(bytes)
}

fn disk() -> (tempfile::TempDir, Arc<dyn Disk>) {
    let folder = tempfile::tempdir().unwrap();
    let disk = RealDisk::new(folder.path()).unwrap();
    (folder, Arc::new(disk))
}

#[test]
fn the_bytes_of_kept_headers_are_those_of_the_document() {
    let (_folder, disk) = disk();
    let mut store = LightStore::open(disk.clone()).unwrap();
    store.keep(&[light()]).unwrap();
    let name = "00000000000000000005-00000000000000000005";
    assert_eq!(disk.list("light").unwrap(), [name]);
    assert_eq!(bytes_of(&disk, &format!("light/{name}")), sealed(&("01".to_owned() + "01000000" + &light_hex())));
    let mut again = LightStore::open(disk.clone()).unwrap();
    assert_eq!(again.get(height(5)).unwrap(), Some(light()));
    // What does not verify counts as not kept.
    disk.open(&format!("light/{name}")).unwrap().write_at(100, &[0xff]).unwrap();
    assert_eq!(LightStore::open(disk).unwrap().get(height(5)).unwrap(), None);
}

/// What is sealed and packed in a file.
fn unpacked(disk: &Arc<dyn Disk>, path: &str) -> String {
    let bytes = hex::decode(bytes_of(disk, path)).unwrap();
    assert_eq!((&bytes[..32], bytes[32]), (&Hash::of(&bytes[32..]).0[..], 2));
    let raw_bytes = u32::from_le_bytes(*bytes[33..].first_chunk().unwrap());
    let raw = zstd::bulk::decompress(&bytes[37..], 1 << 20).unwrap();
    assert_eq!(raw.len(), raw_bytes as usize);
    hex::encode(raw)
}

#[test]
fn the_bytes_of_what_was_put_aside_are_those_of_the_document() {
    let (_folder, disk) = disk();
    let store = LightStore::open(disk.clone()).unwrap();
    store.put_aside(&[light()], &[polka()]).unwrap();
    let range = "00000000000000000005-00000000000000000005";
    assert_eq!(disk.list("light").unwrap(), [format!("polkas-{range}"), format!("pruned-{range}")]);
    assert_eq!(unpacked(&disk, &format!("light/pruned-{range}")), "01000000".to_owned() + &light_hex());
    assert_eq!(unpacked(&disk, &format!("light/polkas-{range}")), "01000000".to_owned() + &polka_hex());
    let mut again = LightStore::open(disk.clone()).unwrap();
    assert_eq!((again.get(height(5)).unwrap(), again.polkas(height(5)).unwrap()), (Some(light()), vec![polka()]));
    assert_eq!((again.get(height(4)).unwrap(), again.polkas(height(6)).unwrap()), (None, Vec::new()));
    assert_eq!((again.base_below(height(6)), again.base_below(height(7))), (height(5), height(7)), "without a hole");
}

/// What does not verify counts as not kept, wherever it is torn and whichever byte is wrong.
#[test]
fn damaged_files_of_the_light_store_count_as_not_kept() {
    let (folder, disk) = disk();
    let mut store = LightStore::open(disk.clone()).unwrap();
    store.put_aside(&[light()], &[polka()]).unwrap();
    let range = "00000000000000000005-00000000000000000005";
    let headers = |disk: &Arc<dyn Disk>| LightStore::open(disk.clone()).unwrap().get(height(5)).unwrap().is_some();
    let polkas = |disk: &Arc<dyn Disk>| !LightStore::open(disk.clone()).unwrap().polkas(height(5)).unwrap().is_empty();
    type IsKept = fn(&Arc<dyn Disk>) -> bool;
    for (prefix, is_kept) in [("pruned-", headers as IsKept), ("polkas-", polkas)] {
        let path = folder.path().join("light").join(format!("{prefix}{range}"));
        let good = std::fs::read(&path).unwrap();
        for at in 0..good.len() {
            std::fs::write(&path, &good[..at]).unwrap();
            assert!(!is_kept(&disk), "{prefix} torn after {at} bytes");
            let mut bad = good.clone();
            bad[at] ^= 1;
            std::fs::write(&path, &bad).unwrap();
            assert!(!is_kept(&disk), "{prefix} byte {at}");
        }
        std::fs::write(&path, [&good[..], &[0]].concat()).unwrap();
        assert!(!is_kept(&disk), "{prefix} with a byte more");
        std::fs::write(&path, &good).unwrap();
        assert!(is_kept(&disk), "{prefix} whole again");
    }
    assert_eq!(store.get(height(5)).unwrap(), Some(light()), "what is open sees it, too");
}

/// Whoever watches hears once of each file, from whichever clone met the damage.
#[test]
fn a_damaged_file_of_the_light_store_is_told_once() {
    let (folder, disk) = disk();
    LightStore::open(disk.clone()).unwrap().put_aside(&[light()], &[polka()]).unwrap();
    let store = LightStore::open(disk).unwrap();
    let range = "00000000000000000005-00000000000000000005";
    for prefix in ["pruned-", "polkas-"] {
        let path = folder.path().join("light").join(format!("{prefix}{range}"));
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[7] ^= 1;
        std::fs::write(&path, bytes).unwrap();
    }
    assert_eq!(store.newly_damaged(), Vec::<String>::new(), "nobody has read them");
    assert_eq!(store.find(height(5)).unwrap(), None);
    assert_eq!(store.newly_damaged(), [format!("light/pruned-{range}")]);
    assert_eq!((store.find(height(5)).unwrap(), store.polkas(height(5)).unwrap()), (None, Vec::new()));
    assert_eq!(store.newly_damaged(), [format!("light/polkas-{range}")]);
}

/// The topmost header that came with a snapshot has some certificate; that of a block which was let go is what the block above carries.
#[test]
fn what_was_put_aside_comes_before_what_came_with_a_snapshot() {
    let (_folder, disk) = disk();
    let mut store = LightStore::open(disk).unwrap();
    store.keep(&[light()]).unwrap();
    assert_eq!(store.get(height(5)).unwrap(), Some(light()));
    let mut carried = light();
    carried.commit.round = round(9);
    store.put_aside(&[carried.clone()], &[]).unwrap();
    assert_eq!(store.get(height(5)).unwrap(), Some(carried.clone()), "also where the other was read last");
    assert_eq!(store.find(height(5)).unwrap(), Some(carried));
}

#[test]
fn the_bytes_of_what_is_gathered_are_those_of_the_document() {
    let (folder, disk) = disk();
    let made = Made::of(3);
    let tree = made.executor.state().tree().clone();
    let infos: Vec<_> = plan(&tree).map(|(info, _)| info).collect();
    let manifest = Manifest::new(made.genesis.hash(), height(5), infos.clone()).unwrap();
    let (mut at, mut above) = (light(), light());
    let body_of =
        |light: &LightBlock| Block { header: light.header.clone(), txs: Vec::new(), evidence: Vec::new(), last_commit: None }.encode();
    let body = body_of(&at);
    at.commit.height = at.header.height;
    at.commit.block_id = BlockId { hash: at.header.hash(), parts: part_set_header(&body) };
    above.header.app_hash = manifest.app_hash().into();
    let mut staging = Staging::open(disk.clone(), made.genesis.hash()).unwrap();
    let mut perform = |check| match staging.perform(Task::Check(check), &Tree::new()).unwrap() {
        Found::Checked(checked) => checked,
        Found::Looked(_) | Found::Ended => panic!("nobody asked"),
    };
    let bytes = manifest.to_bytes();
    let begun = perform(Check::Manifest { bytes: bytes.clone().into(), above: Box::new(above.clone()), at: Box::new(at.clone()) });
    assert!(matches!(begun, Checked::Manifest(_)), "{begun:?}");
    let above_hex = |block: &LightBlock| light_hex().replacen(&"06".repeat(32), &hex::encode(block.header.app_hash.as_bytes()), 1);
    // The last block id in it is that of the commit.
    let (before, after) = light_hex().rsplit_once(&id()).map(|(before, after)| (before.to_owned(), after.to_owned())).unwrap();
    let parts = at.commit.block_id.parts;
    let at_hex =
        before + &hex::encode(at.commit.block_id.hash.0) + &hex::encode(parts.total.to_le_bytes()) + &hex::encode(parts.hash.0) + &after;
    let manifest_hex = hex::encode(u32::try_from(bytes.len()).unwrap().to_le_bytes()) + &hex::encode(&bytes);
    assert_eq!(bytes_of(&disk, "sync/goal"), sealed(&("01".to_owned() + &manifest_hex + &above_hex(&above) + &at_hex)));

    for (index, info) in infos.iter().enumerate().filter(|(_, info)| info.entries > 0) {
        let packed = pack(&tree.part(info.prefix));
        let chunk = Check::Chunk { index: u32::try_from(index).unwrap(), bytes: packed.clone().into(), is_whole: true };
        assert_eq!(perform(chunk), Checked::Good);
        assert_eq!(bytes_of(&disk, &format!("sync/{}", hex::encode(info.root.0))), hex::encode(&packed));
    }
    assert_eq!(perform(Check::Headers(vec![light()])), Checked::Good);
    assert_eq!(bytes_of(&disk, "sync/light-00000000000000000005"), sealed(&("01".to_owned() + "01000000" + &light_hex())));
    assert!(matches!(perform(Check::Complete), Checked::Bad(_)), "the block is missing");
    assert!(disk.open("sync/complete").is_err());
    assert!(matches!(perform(Check::Body(b"another".to_vec().into())), Checked::Bad(_)));
    assert_eq!(perform(Check::Body(body.clone().into())), Checked::Good);
    assert_eq!(bytes_of(&disk, "sync/body"), hex::encode(&body));
    let mut higher = light();
    higher.header.height = height(6);
    higher.commit.height = height(6);
    let body = body_of(&higher);
    higher.commit.block_id = BlockId { hash: higher.header.hash(), parts: part_set_header(&body) };
    let block = |body: Option<&[u8]>| Check::Block { block: Box::new(higher.clone()), body: body.map(Into::into) };
    assert_eq!(perform(block(None)), Checked::Unfit);
    assert_eq!(perform(block(Some(&body[..]))), Checked::Good);
    assert_eq!(perform(block(None)), Checked::Good);
    let above_hex =
        hex::encode(borsh::to_vec(&higher).unwrap()) + &hex::encode(u32::try_from(body.len()).unwrap().to_le_bytes()) + &hex::encode(&body);
    assert_eq!(bytes_of(&disk, "sync/block-00000000000000000006"), sealed(&("01".to_owned() + &above_hex)));
    // What does not verify counts as not here, wherever it is torn and whichever byte is wrong.
    let path = folder.path().join("sync/block-00000000000000000006");
    let good = std::fs::read(&path).unwrap();
    for at in 0..good.len() {
        std::fs::write(&path, &good[..at]).unwrap();
        assert_eq!(perform(block(None)), Checked::Unfit, "torn after {at} bytes");
        let mut bad = good.clone();
        bad[at] ^= 1;
        std::fs::write(&path, &bad).unwrap();
        assert_eq!(perform(block(None)), Checked::Unfit, "byte {at}");
    }
    std::fs::write(&path, &good).unwrap();
    assert_eq!(perform(block(None)), Checked::Good);
    assert_eq!(perform(Check::Complete), Checked::Good);
    assert!(disk.open("sync/complete").is_err(), "whoever goes on with the blocks that are here does not begin with this");
    staging.mark().unwrap();
    assert_eq!(bytes_of(&disk, "sync/complete"), sealed("01"));
    // Whoever ends without it keeps it for as long as it may be of use, and not longer.
    let mut end = |tip| assert_eq!(staging.perform(Task::End { tip: height(tip) }, &Tree::new()).unwrap(), Found::Ended);
    end(at.header.height.get() - 1);
    assert!(disk.open("sync/goal").is_ok());
    end(at.header.height.get());
    assert_eq!(disk.list("sync").unwrap(), Vec::<String>::new());
    end(at.header.height.get());
}
