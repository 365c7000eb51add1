//! `lockstep keys`

use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lockstep_genesis::keys::{node_key_json, validator_key_json};
use lockstep_replica::signing::guard_owner;
use lockstep_storage::guard::Guard;
use lockstep_types::{Hash, NodeId, PrivateKey};

use super::init::{imported_key, read_sign_state};
use super::{home_of, random, say};
use crate::cli::{GenerateArgs, HomeArg, ImportArgs, KeyKind, KeysCommand};
use crate::error::{Exit, NodeError};
use crate::home::{GUARD_PATH, Home, io_error, write_new};

pub(super) fn run(command: &KeysCommand) -> Result<(), NodeError> {
    match command {
        KeysCommand::Show(home) => show(home),
        KeysCommand::Generate(args) => generate(args),
        KeysCommand::Import(args) => import(args),
    }
}

fn show(arg: &HomeArg) -> Result<(), NodeError> {
    let home = home_of(arg)?;
    home.check_exists()?;
    let (validator, node) = (home.read_validator_key()?, home.read_node_key()?);
    show_validator(&validator);
    say(format!("node id              {}", NodeId::of_key_bytes(&node.public_key().0)));
    Ok(())
}

fn show_validator(key: &PrivateKey) {
    say(format!("validator address    {}", key.public_key().address()));
    say(format!("validator key        {}", STANDARD.encode(key.public_key().0)));
}

fn generate(args: &GenerateArgs) -> Result<(), NodeError> {
    let key = PrivateKey::from_seed(&*random()?);
    let contents = match args.kind {
        KeyKind::Validator => validator_key_json(&key),
        KeyKind::Node => node_key_json(&key),
    };
    write_new(&args.output, contents.as_bytes(), true)?;
    match args.kind {
        KeyKind::Validator => show_validator(&key),
        KeyKind::Node => say(format!("node id              {}", NodeId::of_key_bytes(&key.public_key().0))),
    }
    say(format!("written to           {} (mode 0600: keep it so)", args.output.display()));
    Ok(())
}

/// Replaces a key that never signed. The order of the steps is chosen so that at every moment between two of them, the
/// home either has no key, or one whose guard knows all it signed.
fn import(args: &ImportArgs) -> Result<(), NodeError> {
    let home = home_of(&args.home)?;
    home.check_exists()?;
    let _held = home.hold()?;
    let key = imported_key(&args.key)?;
    let signed = args.state.as_deref().map(read_sign_state).transpose()?;
    let genesis_hash = home.read_genesis()?.hash();

    let replaces_guard = home.guard_file().exists();
    if replaces_guard {
        check_never_signed(&home, &genesis_hash)?;
    }
    let key_path = home.validator_key_path();
    if key_path.exists() {
        let aside = key_path.with_extension("json.replaced");
        if aside.exists() {
            return Err(NodeError::new(Exit::Refused, format!("{} exists", aside.display()))
                .next("move it to a safe place: a key is never deleted for you"));
        }
        fs::rename(&key_path, &aside).map_err(|error| io_error("rename", &key_path, &error))?;
        say(format!("kept the old key as  {}", aside.display()));
    }
    if replaces_guard {
        let guard = home.guard_file();
        fs::remove_file(&guard).map_err(|error| io_error("remove", &guard, &error))?;
    }
    home.create_guard(&guard_owner(&genesis_hash, &key.public_key()), signed.as_ref())?;
    write_new(&key_path, validator_key_json(&key).as_bytes(), true)?;
    show_validator(&key);
    if let Some(state) = signed {
        say(format!("it signed up to      height {}: its first signature here is for a height above", state.height));
    }
    Ok(())
}

/// A guard that remembers a signature is the memory of the key in this home, and is not given to another.
fn check_never_signed(home: &Home, genesis_hash: &Hash) -> Result<(), NodeError> {
    let owner = guard_owner(genesis_hash, &home.read_validator_key()?.public_key());
    let guard = Guard::open(&home.data_disk()?, GUARD_PATH, owner.0).map_err(|error| NodeError::new(Exit::Refused, error))?;
    match guard.last() {
        Some(record) if record.position() == (0, 0, 0) => Ok(()),
        Some(record) => Err(NodeError::new(Exit::Refused, format!("the key of this home has signed, up to height {}", record.height))
            .means("its guard must stay with it, or it could sign the same height twice")
            .next("import into a new home: lockstep init --genesis FILE --import-key FILE --import-state FILE --home DIR")),
        None => Err(NodeError::new(Exit::Refused, "the vote guard of this home cannot be read, so what its key signed is not known")
            .next("import into a new home: lockstep init --genesis FILE --import-key FILE --import-state FILE --home DIR")),
    }
}
