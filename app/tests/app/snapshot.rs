//! Snapshots: the chunks of a state are that state, whatever it holds; and nothing else is taken for them.

use std::sync::Arc;

use lockstep_app::snapshot::{
    CHUNK_BYTES_MAX, ChunkError, ChunkInfo, Difference, Manifest, ManifestError, OUTLINE_LEVELS_MAX, Outline, PACKED_BYTES_MAX,
    SPLIT_BYTES, judge, pack, plan,
};
use lockstep_app::tree::{OwnedEntry, Part, Prefix};
use lockstep_app::{Changes, Tree};
use lockstep_types::Hash;
use lockstep_types::state_tree::{EMPTY, KEY_BYTES_MAX, Path, VALUE_BYTES_MAX};
use proptest::prelude::*;

use super::common::{Entries, height, numbered, tree_of};

/// A chunk opened. Who only judges it comes to the same verdict, in every word.
fn open(info: &ChunkInfo, packed: &[u8]) -> Result<Part, ChunkError> {
    let opened = lockstep_app::snapshot::open(info, packed);
    assert_eq!(judge(info, packed), opened.as_ref().map(|_| ()).map_err(Clone::clone));
    opened
}

/// Entries packed as they come, whatever they are.
fn packed_raw(entries: &[OwnedEntry]) -> Vec<u8> {
    let len = |bytes: &[u8]| u32::try_from(bytes.len()).expect("short").to_le_bytes();
    let raw: Vec<u8> = entries.iter().flat_map(|(key, value)| [&len(key)[..], key, &len(value), value].concat()).collect();
    [&[1][..], &len(&raw), &zstd::bulk::compress(&raw, 1).expect("in memory")].concat()
}

/// A snapshot as it would lie in files.
fn taken(tree: &Tree) -> (Manifest, Vec<Vec<u8>>) {
    let (infos, packed): (Vec<ChunkInfo>, Vec<Vec<u8>>) = plan(tree).map(|(info, part)| (info, pack(&part))).unzip();
    (Manifest::new(Hash::of(b"genesis"), height(1000), infos).expect("a cover"), packed)
}

fn restored(manifest: &Manifest, packed: &[Vec<u8>]) -> Result<Tree, ChunkError> {
    let parts = manifest.chunks().iter().zip(packed).map(|(info, packed)| open(info, packed)).collect::<Result<Vec<_>, _>>()?;
    Ok(Tree::join(parts).expect("a cover"))
}

fn entries_of(tree: &Tree) -> Vec<(Vec<u8>, Vec<u8>)> {
    tree.iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect()
}

/// Entries large enough that few of them make several chunks.
fn bulky(count: u32, bytes: usize) -> Entries {
    (0..count).map(|n| (format!("key {n}").into_bytes(), [&n.to_le_bytes()[..], &vec![7; bytes]].concat())).collect()
}

#[test]
fn a_state_is_its_chunks() {
    for entries in [numbered(0), numbered(1), numbered(2), numbered(1000), bulky(40, 200_000), bulky(3, VALUE_BYTES_MAX - 4)] {
        let tree = tree_of(&entries);
        let (manifest, packed) = taken(&tree);
        assert_eq!(manifest.app_hash(), tree.root());
        assert_eq!(manifest.entries(), tree.len());
        let raw: usize = entries.iter().map(|(key, value)| key.len() + value.len() + 8).sum();
        assert_eq!(manifest.bytes(), raw as u64);
        for (info, packed) in manifest.chunks().iter().zip(&packed) {
            assert!(info.bytes as usize <= CHUNK_BYTES_MAX && packed.len() <= PACKED_BYTES_MAX);
            assert!(info.entries <= 1 || u64::from(info.bytes) <= SPLIT_BYTES);
        }
        assert!(raw as u64 <= SPLIT_BYTES || manifest.chunks().len() > 1, "what is large is cut");
        let again = restored(&manifest, &packed).expect("its own chunks");
        assert_eq!((again.root(), again.len()), (tree.root(), tree.len()));
        assert_eq!(entries_of(&again), entries_of(&tree));
        assert_eq!(Manifest::from_bytes(&manifest.to_bytes()), Ok(manifest));
    }
}

/// What was joined from parts is a state like any other: it changes as one that was built.
#[test]
fn a_restored_state_goes_on() {
    let mut entries = bulky(30, 100_000);
    let (manifest, packed) = taken(&tree_of(&entries));
    let again = restored(&manifest, &packed).expect("its own chunks");
    let mut changes = Changes::new();
    for n in 0..20 {
        changes.delete(format!("key {n}").as_bytes());
        entries.remove(format!("key {n}").as_bytes());
    }
    changes.set(b"new".as_slice(), b"value".as_slice());
    entries.insert(b"new".to_vec(), b"value".to_vec());
    let after = again.apply(&changes);
    assert_eq!((after.root(), after.len()), (tree_of(&entries).root(), 11));
}

/// The largest entry that there may be is a chunk of its own, and fits.
#[test]
fn the_largest_entries_fit() {
    let noise = |seed: u32, bytes: usize| -> Vec<u8> {
        (0..bytes.div_ceil(32))
            .flat_map(|at| Hash::of([seed, u32::try_from(at).expect("few")].map(u32::to_le_bytes).concat()).0)
            .take(bytes)
            .collect()
    };
    let entries: Entries = (0..3).map(|n| (noise(n, KEY_BYTES_MAX), noise(100 + n, VALUE_BYTES_MAX))).collect();
    let (manifest, packed) = taken(&tree_of(&entries));
    assert_eq!(manifest.chunks().iter().map(|info| info.bytes as usize).max(), Some(CHUNK_BYTES_MAX));
    assert!(packed.iter().all(|packed| packed.len() <= PACKED_BYTES_MAX), "what does not compress fits too");
    assert!(restored(&manifest, &packed).is_ok());
}

/// Paths of which an attacker made many begin alike are cut where they part.
#[test]
fn a_crowd_below_one_prefix_is_cut_further() {
    let crowd = (0u32..).map(|n| n.to_le_bytes().to_vec()).filter(|key| Path::of(key).0[0] == 0).take(24);
    let entries: Entries = crowd.map(|key| (key, vec![1; 300_000])).collect();
    let (manifest, packed) = taken(&tree_of(&entries));
    assert!(manifest.chunks().iter().all(|info| u64::from(info.bytes) <= SPLIT_BYTES));
    assert_eq!(manifest.chunks().iter().filter(|info| info.root == EMPTY).count(), 8, "one beside each of the eight bits");
    assert!(restored(&manifest, &packed).is_ok());
}

/// Frozen. The chunk's zstd bytes are not: what is in them is.
#[test]
fn golden_bytes() {
    let tree = tree_of(&numbered(2));
    let (manifest, packed) = taken(&tree);
    let expected = [
        &[1][..],
        &Hash::of(b"genesis").0,
        &1000u64.to_le_bytes(),
        &1u32.to_le_bytes(),
        &0u16.to_le_bytes(),
        &tree.root().0,
        &2u32.to_le_bytes(),
        &(2 * (8 + 5 + 7u32)).to_le_bytes(),
    ];
    assert_eq!(manifest.to_bytes(), expected.concat());
    assert_eq!(tree.root().to_string(), "978E1405E68C6035B3D130831DDE63AE9C8225E591448286D456124DBB41A025");
    assert_eq!(packed[0][..5], [1, 40, 0, 0, 0]);
    let raw = zstd::bulk::decompress(&packed[0][5..], 40).expect("a frame");
    let entry = |key: &str, value: &str| [&5u32.to_le_bytes(), key.as_bytes(), &7u32.to_le_bytes(), value.as_bytes()].concat();
    let mut both = [entry("key 0", "value 0"), entry("key 1", "value 1")];
    both.sort_by_key(|entry| Path::of(&entry[4..9]));
    assert_eq!(raw, both.concat());

    // Three chunks: the left half, which stays whole, and the quarters of the right one.
    let entries = bulky(24, 100_000);
    let manifest = taken(&tree_of(&entries)).0;
    let depths: Vec<u16> = manifest.chunks().iter().map(|info| info.prefix.depth()).collect();
    let bytes = manifest.to_bytes();
    let written: Vec<u16> = (0..depths.len()).map(|at| u16::from_le_bytes([bytes[45 + 42 * at], bytes[46 + 42 * at]])).collect();
    assert_eq!(written, depths);
    assert_eq!(bytes.len(), 45 + 42 * depths.len());

    // Paths of keys 0 and 1 differ in the first bit or later; two levels down there are four subtrees.
    let own = tree.part(Prefix::WHOLE);
    let outline = Outline::of(&own, &ChunkInfo { prefix: Prefix::WHOLE, root: EMPTY, entries: 8, bytes: 80 });
    let mut quarters = vec![2];
    for n in [0b00u8, 0b01, 0b10, 0b11] {
        let here: Entries = numbered(2).into_iter().filter(|(key, _)| Path::of(key).0[0] >> 6 == n).collect();
        quarters.extend(&tree_of(&here).root().0[..4]);
    }
    assert_eq!(borsh::to_vec(&outline).expect("bytes"), quarters);
}

#[test]
fn no_other_bytes_are_a_manifest_of_the_same_root() {
    let (manifest, _) = taken(&tree_of(&bulky(24, 100_000)));
    let bytes = manifest.to_bytes();
    for len in 0..bytes.len() {
        assert!(Manifest::from_bytes(&bytes[..len]).is_err());
    }
    assert!(Manifest::from_bytes(&[&bytes[..], &[0]].concat()).is_err());
    for at in 0..bytes.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff, bytes[at] ^ 1, !bytes[at]] {
            let mut changed = bytes.clone();
            changed[at] = value;
            let Ok(other) = Manifest::from_bytes(&changed) else { continue };
            assert_eq!(other.to_bytes(), changed, "one manifest has one byte string");
            if changed == bytes {
                continue;
            }
            // What still folds to the root differs in what the root does not speak of: chain, height, and counts.
            let roots = |manifest: &Manifest| manifest.chunks().iter().map(|info| (info.prefix, info.root)).collect::<Vec<_>>();
            assert!(other.app_hash() != manifest.app_hash() || roots(&other) == roots(&manifest));
        }
    }
}

#[test]
fn covers_with_gaps_and_impossible_counts_are_refused() {
    let (manifest, _) = taken(&tree_of(&bulky(24, 100_000)));
    let good = manifest.chunks().to_vec();
    let make = |chunks: Vec<ChunkInfo>| Manifest::new(Hash::of(b"genesis"), height(1000), chunks);
    assert!(make(good.clone()).is_ok());
    assert!(make(Vec::new()).is_err(), "no chunk is no cover; an empty state has one");
    let refused = |what: &str, change: &dyn Fn(&mut Vec<ChunkInfo>)| {
        let mut chunks = good.clone();
        change(&mut chunks);
        assert!(matches!(make(chunks), Err(ManifestError::Chunk { .. })), "{what}");
    };
    refused("the last is missing", &|chunks| chunks.truncate(chunks.len() - 1));
    refused("the first is missing", &|chunks| _ = chunks.remove(0));
    refused("two change places", &|chunks| chunks.swap(0, 1));
    refused("one comes twice", &|chunks| chunks.push(chunks[0]));
    refused("entries without bytes", &|chunks| chunks[0].bytes = 0);
    refused("less than the least entry", &|chunks| chunks[0].bytes = chunks[0].entries * 10 - 1);
    refused("more than a chunk", &|chunks| chunks[0].bytes = u32::try_from(CHUNK_BYTES_MAX + 1).expect("small"));
    refused("nothing with a root", &|chunks| (chunks[0].entries, chunks[0].bytes) = (0, 0));
    refused("something with the root of nothing", &|chunks| chunks[0].root = EMPTY);
    let at = |right| Prefix::WHOLE.half(right).expect("a half");
    let nothing = |prefix| ChunkInfo { prefix, root: EMPTY, entries: 0, bytes: 0 };
    assert!(make(vec![nothing(Prefix::WHOLE)]).is_ok());
    assert!(make(vec![nothing(at(false)), nothing(at(true))]).is_err(), "nothing is not cut");
    let one = ChunkInfo { prefix: at(false), root: Hash::of(b"leaf"), entries: 1, bytes: 10 };
    assert!(make(vec![one, nothing(at(true))]).is_err(), "one entry is not cut: its leaf would rise");
}

#[test]
fn a_changed_chunk_is_refused_and_the_right_one_convicts_a_lying_manifest() {
    let (manifest, packed) = taken(&tree_of(&numbered(40)));
    let (info, packed) = (manifest.chunks()[0], &packed[0]);
    assert!(open(&info, packed).is_ok());
    for len in 0..packed.len() {
        assert!(open(&info, &packed[..len]).is_err());
    }
    for at in 0..packed.len() {
        for bit in 0..8 {
            let mut changed = packed.clone();
            changed[at] ^= 1 << bit;
            // A bit of zstd's own that means nothing may change; entries may not.
            if let Ok(part) = open(&info, &changed) {
                assert_eq!(part.root(), info.root);
            }
        }
    }
    for lie in [ChunkInfo { entries: 39, ..info }, ChunkInfo { bytes: info.bytes + 1, ..info }] {
        assert_eq!(open(&lie, packed).map(drop), Err(ChunkError::ManifestLies));
    }
    let elsewhere = ChunkInfo { prefix: Prefix::WHOLE.half(false).expect("a half"), ..info };
    assert!(matches!(open(&elsewhere, packed), Err(ChunkError::Malformed(_))));
    let other = taken(&tree_of(&numbered(41))).1.remove(0);
    assert_eq!(open(&info, &other).map(drop), Err(ChunkError::WrongRoot));
}

/// A frame that would give much more than it says, and one that says much more than there may be.
#[test]
fn a_bomb_is_not_unpacked() {
    let (manifest, _) = taken(&tree_of(&numbered(40)));
    let bomb = zstd::bulk::compress(&vec![0; 256 << 20], 1).expect("compressed");
    assert!(bomb.len() < PACKED_BYTES_MAX, "it would fit");
    for claimed in [1, 1000, CHUNK_BYTES_MAX, CHUNK_BYTES_MAX + 1, 256 << 20, u32::MAX as usize] {
        let packed = [&[1][..], &u32::try_from(claimed).expect("small").to_le_bytes(), &bomb].concat();
        assert!(matches!(open(&manifest.chunks()[0], &packed), Err(ChunkError::Malformed(_))));
    }
}

#[test]
fn entries_out_of_order_doubled_or_too_large_are_no_part() {
    let entry = |key: &[u8], value: &[u8]| (Arc::<[u8]>::from(key), Arc::<[u8]>::from(value));
    let mut sorted: Vec<_> = (0u8..6).map(|n| entry(&[n], b"v")).collect();
    sorted.sort_by_key(|(key, _)| Path::of(key));
    let good = Part::build(Prefix::WHOLE, sorted.clone()).expect("a part");
    let info = ChunkInfo { prefix: Prefix::WHOLE, root: good.root(), entries: 6, bytes: 6 * 10 };
    assert!(open(&info, &packed_raw(&sorted)).is_ok());
    let refused = |entries: Vec<OwnedEntry>| {
        assert!(matches!(open(&info, &packed_raw(&entries)), Err(ChunkError::Malformed(_))));
        assert!(Part::build(Prefix::WHOLE, entries).is_err());
    };
    let mut swapped = sorted.clone();
    swapped.swap(2, 3);
    refused(swapped);
    let mut doubled = sorted.clone();
    doubled.insert(1, sorted[1].clone());
    refused(doubled);
    for bad in [entry(b"", b"v"), entry(b"k", b""), entry(&vec![0; KEY_BYTES_MAX + 1], b"v"), entry(b"k", &vec![0; VALUE_BYTES_MAX + 1])] {
        refused(vec![bad]);
    }
}

/// What is put together of an old state and a difference is the new chunk, and next to nothing moves.
#[test]
fn a_hundredth_changed_moves_a_few_hundredths() {
    let value = |n: u32, version: u8| Hash::of([&n.to_le_bytes()[..], &[version]].concat()).0.repeat(3);
    let old: Entries = (0..20_000u32).map(|n| (Hash::of(n.to_le_bytes()).0.to_vec(), value(n, 0))).collect();
    let mut new = old.clone();
    for n in (0..20_000u32).step_by(100) {
        new.insert(Hash::of(n.to_le_bytes()).0.to_vec(), value(n, 1));
    }
    let (old, new) = (tree_of(&old), tree_of(&new));
    let (manifest, packed) = taken(&new);
    let (mut moved, mut whole) = (0, 0);
    let mut parts = Vec::new();
    for (info, packed) in manifest.chunks().iter().zip(&packed) {
        let own = old.part(info.prefix);
        let outline = Outline::of(&own, info);
        let theirs = open(info, packed).expect("a chunk");
        let difference = Difference::between(&theirs, &outline).expect("not too deep");
        moved += borsh::to_vec(&outline).expect("bytes").len() + borsh::to_vec(&difference).expect("bytes").len();
        whole += packed.len();
        parts.push(difference.apply(&own, outline.levels(), info).expect("the chunk"));
    }
    assert_eq!(Tree::join(parts).expect("a cover").root(), new.root());
    assert!(moved * 100 <= whole * 8, "{moved} bytes of {whole}");
}

#[test]
fn a_difference_that_is_changed_or_of_another_outline_is_refused() {
    let (old, new) = (tree_of(&numbered(60)), tree_of(&numbered(64)));
    let (manifest, packed) = taken(&new);
    let info = manifest.chunks()[0];
    let own = old.part(Prefix::WHOLE);
    let outline = Outline::of(&own, &info);
    let difference = Difference::between(&open(&info, &packed[0]).expect("a chunk"), &outline).expect("not too deep");
    assert!(difference.apply(&own, outline.levels(), &info).is_ok());
    for levels in [0, outline.levels() - 1, outline.levels() + 1, OUTLINE_LEVELS_MAX] {
        assert!(difference.apply(&own, levels, &info).is_err());
    }
    let bytes = borsh::to_vec(&difference).expect("bytes");
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << bit;
            if let Ok(other) = borsh::from_slice::<Difference>(&changed)
                && let Ok(part) = other.apply(&own, outline.levels(), &info)
            {
                assert_eq!(part.root(), info.root);
            }
        }
    }
    assert!(borsh::from_slice::<Outline>(&[OUTLINE_LEVELS_MAX + 1]).is_err());
    assert!(borsh::from_slice::<Outline>(&[3, 0, 0, 0, 0]).is_err(), "it says more subtrees than come");
}

/// At the deepest places paths end: an outline from there has no room for levels, and one that claims some is refused.
#[test]
fn below_the_deepest_place_there_is_nothing() {
    let mut deepest = Prefix::WHOLE;
    let path = Path::of(b"key 0");
    for at in 0..256 {
        assert!(deepest.contains(&path));
        deepest = deepest.half(path.bit(at)).expect("not the deepest yet");
    }
    assert_eq!(deepest.half(false), None);
    let part = tree_of(&numbered(3)).part(deepest);
    assert_eq!(part.len(), 1);
    let info = ChunkInfo { prefix: deepest, root: part.root(), entries: 1, bytes: 20 };
    assert_eq!(Outline::of(&part, &info).levels(), 0);
    let outline: Outline = borsh::from_slice(&[&[1][..], &[0; 8]].concat()).expect("an outline");
    assert_eq!(Difference::between(&part, &outline), None);
}

proptest! {
    /// Of any old and new state, whatever was added, changed and removed.
    #[test]
    fn any_difference_leads_to_the_new_state(
        old in prop::collection::btree_map(0u16..400, 0u8..3, 0..300),
        new in prop::collection::btree_map(0u16..400, 0u8..3, 0..300),
    ) {
        let tree = |entries: &std::collections::BTreeMap<u16, u8>| {
            tree_of(&entries.iter().map(|(key, value)| (key.to_le_bytes().to_vec(), vec![*value; 6_000])).collect())
        };
        let (old, new) = (tree(&old), tree(&new));
        let (manifest, packed) = taken(&new);
        prop_assert_eq!(manifest.app_hash(), new.root());
        let mut parts = Vec::new();
        for (info, packed) in manifest.chunks().iter().zip(&packed) {
            let own = old.part(info.prefix);
            prop_assert_eq!(own.root() == info.root, entries_below(&old, info.prefix) == entries_below(&new, info.prefix));
            let outline = Outline::of(&own, info);
            let theirs = open(info, packed).expect("a chunk");
            let difference = Difference::between(&theirs, &outline).expect("not too deep");
            parts.push(difference.apply(&own, outline.levels(), info).expect("the chunk"));
        }
        let joined = Tree::join(parts).expect("a cover");
        prop_assert_eq!(entries_of(&joined), entries_of(&new));
        prop_assert_eq!(joined.root(), new.root());
    }
}

fn entries_below(tree: &Tree, prefix: Prefix) -> Vec<(Vec<u8>, Vec<u8>)> {
    entries_of(tree).into_iter().filter(|(key, _)| prefix.contains(&Path::of(key))).collect()
}
