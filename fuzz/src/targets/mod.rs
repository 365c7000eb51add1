//! What every target does with its bytes, and what must hold.
//!
//! A decoder takes any bytes without a panic; what it allocates is bounded by what it was given; and what it accepts it
//! writes again, byte for byte where the format is canonical, to an equal value where it is a text. A store that runs
//! through operations, faults and power cuts answers as a plain model of it does.

mod clients;
mod disks;
mod files;
pub mod homes;
mod wire;

use std::fmt::Debug;

/// Bytes allocated so far by the whole process.
pub type Meter = fn() -> usize;

/// A target: its name, which is its folder of the corpus too, and its body.
pub struct Target {
    /// The name.
    pub name: &'static str,
    /// The body. It panics when something does not hold.
    pub run: fn(&[u8], Meter),
}

macro_rules! targets {
    ($($module:ident: $($name:ident)*;)*) => {
        /// Every target.
        pub const TARGETS: &[Target] = &[$($(Target { name: stringify!($name), run: $module::$name },)*)*];
    };
}

targets! {
    wire: message gossip question answer opening frames body signed snapshot;
    clients: rpc_body rpc_query rpc_answer proof transaction;
    files: genesis settings keys texts guard_record guard_file kept log_file results_file;
    homes: light_file audit_file sync_folder export bundle;
    disks: disk_log disk_guard disk_state disk_results;
}

/// Runs the target of this name.
///
/// # Panics
/// When there is none, and when the input breaks what the target promises.
pub fn run(name: &str, bytes: &[u8], meter: Meter) {
    let target = TARGETS.iter().find(|target| target.name == name).expect("a target has this name");
    (target.run)(bytes, meter);
}

/// Bytes that decoding may allocate in all for each byte of input: lists grow by doubling, and a list of empty transactions
/// takes 24 bytes of memory for four of input, copied as often as it doubles.
const PER_BYTE: usize = 32;
/// And beside that: the first places of nested lists, and the text of an error.
const OVERHEAD: usize = 32 << 10;
/// What borsh reserves for a byte string, whatever its length field says. Only what our own disk holds is read that way.
const BORSH_BYTES: usize = 1 << 20;

/// Runs `work`, which may allocate `per_byte` for each byte of input and `overhead`.
fn bounded<T>(input: usize, per_byte: usize, overhead: usize, meter: Meter, work: impl FnOnce() -> T) -> T {
    let before = meter();
    let done = work();
    let taken = meter() - before;
    let bound = per_byte * input + overhead;
    assert!(taken <= bound, "{taken} bytes are allocated for {input} of input, at most {bound} were expected");
    done
}

/// A format with one spelling for each value: what is accepted is written as it came. Gives the value.
fn canonical<T, E>(
    bytes: &[u8],
    overhead: usize,
    meter: Meter,
    decode: impl Fn(&[u8]) -> Result<T, E>,
    encode: impl Fn(&T) -> Vec<u8>,
) -> Option<T> {
    let value = bounded(bytes.len(), PER_BYTE, overhead, meter, || decode(bytes)).ok()?;
    assert!(encode(&value) == bytes, "what is accepted is not what is written for it");
    Some(value)
}

/// A text with many spellings: what is accepted is written in a spelling that means the same, and that is written the same
/// again. Gives the value.
fn same_meaning<T: PartialEq + Debug, E: Debug>(
    bytes: &[u8],
    per_byte: usize,
    overhead: usize,
    meter: Meter,
    decode: impl Fn(&[u8]) -> Result<T, E>,
    encode: impl Fn(&T) -> Vec<u8>,
) -> Option<T> {
    let value = bounded(bytes.len(), per_byte, overhead, meter, || decode(bytes)).ok()?;
    let written = encode(&value);
    let again = decode(&written).expect("what is written is accepted");
    assert_eq!(again, value, "what is written means something else");
    assert!(encode(&again) == written, "what is written is not written again");
    Some(value)
}

/// Choices, drawn from the input until it is used up.
struct Choices<'a>(&'a [u8]);

impl Choices<'_> {
    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// A small number; zero when the input is used up.
    fn below(&mut self, bound: u8) -> u8 {
        self.next().unwrap_or(0) % bound
    }
}
