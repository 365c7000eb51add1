//! `lockstep init`

use std::path::Path;
use std::sync::Arc;

use lockstep_app::Application;
use lockstep_genesis::home::{self as files, Member};
use lockstep_genesis::keys::{KEY_FILE_BYTES_MAX, SignState, parse_sign_state, parse_validator_key};

use super::{chain_id_of, from, home_of, new_member, now, program, rules, runtime, say, shell_word};
use crate::cli::InitArgs;
use crate::config::Config;
use crate::error::{Exit, NodeError};
use crate::home::{read_bounded, read_genesis, read_key};
use lockstep_types::PrivateKey;
use zeroize::Zeroizing;

pub(super) fn run(args: &InitArgs, app: Arc<dyn Application>) -> Result<(), NodeError> {
    let home = home_of(&args.home)?;
    let mut config = Config::load("init", "", [], &[("--moniker".to_owned(), args.moniker.clone())])?;
    let signed = args.import_state.as_deref().map(read_sign_state).transpose()?;
    let mut member = new_member(&args.moniker)?;
    if let Some(path) = &args.import_key {
        member.validator_key = imported_key(path)?;
    }
    let genesis = match (&args.genesis, &args.from) {
        (Some(path), _) => read_genesis(path)?,
        (None, Some(url)) => runtime()?.block_on(from::ask(url, args.genesis_hash))?.fill(&mut config)?,
        (None, None) => {
            let chain_id = chain_id_of(args.chain_id.as_deref())?;
            let app_state = args.rules.app_state(rules::NETWORK, std::slice::from_ref(&member))?;
            let genesis = files::genesis(chain_id, now()?, super::new_params(), std::slice::from_ref(&member), app_state)
                .map_err(|error| NodeError::new(Exit::Usage, error))?;
            rules::check_start(app, &genesis)?;
            genesis
        }
    };
    if let Some(trusted) = args.genesis_hash.filter(|trusted| *trusted != genesis.hash()) {
        return Err(from::other_genesis("this chain", &genesis, trusted));
    }
    home.create(&config, &genesis, &member, signed.as_ref())?;

    say(format!("Made the home of {:?} in {}", args.moniker, home.root().display()));
    say(format!("  chain      {}", genesis.chain_id));
    say(format!("  genesis    {}", genesis.hash()));
    say(format!("  validator  {}{}", member.address(), role(&genesis, &member)));
    say(format!("  node id    {}", member.node_id()));
    if let Some(state) = signed {
        say(format!("  the key signed up to height {}: its first signature here is for a height above", state.height));
    }
    if args.from.is_some() {
        say(format!("  peers      {}", config.p2p.persistent_peers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")));
        say(format!("  clients    http://{}", config.rpc.laddr));
        if args.genesis_hash.is_none() {
            say("One node was believed: compare the hash of the genesis with another source, if this network is not your own.");
        }
    }
    if args.genesis.is_some() {
        say(format!(
            "It knows no other node yet. Before it starts, name some of the chain's in {}, under [p2p]:",
            home.config_path().display()
        ));
        say("  persistent_peers = [\"NODE_ID@HOST:26656\"]");
        say("NODE_ID is shown by lockstep keys show in their home, and by lockstep status.");
    }
    say(format!("Start it with:  {} start --home {}", shell_word(program()), shell_word(home.root().display())));
    Ok(())
}

fn role(genesis: &lockstep_genesis::Genesis, member: &Member) -> &'static str {
    let key = member.validator_key.public_key();
    if genesis.validators.iter().any(|validator| validator.public_key == key) {
        ""
    } else {
        " (not in the genesis: it follows the chain, and signs once the chain admits it)"
    }
}

/// A validator's key from elsewhere.
pub(super) fn imported_key(path: &Path) -> Result<PrivateKey, NodeError> {
    let is_key = |bytes: &[u8]| parse_validator_key(bytes).is_ok();
    read_key(path, parse_validator_key).map_err(|error| match read_bounded(path, KEY_FILE_BYTES_MAX).map(Zeroizing::new) {
        // Its mode is what is wrong, which says what to do.
        Ok(bytes) if is_key(&bytes) => error,
        Ok(_) => error.next("give the priv_validator_key.json of a validator, of ours or of CometBFT"),
        Err(unreadable) => unreadable,
    })
}

/// What a key signed elsewhere.
pub(super) fn read_sign_state(path: &Path) -> Result<SignState, NodeError> {
    parse_sign_state(&read_bounded(path, KEY_FILE_BYTES_MAX)?).map_err(|error| {
        NodeError::new(Exit::Refused, format!("{}: {error}", path.display()))
            .means("without knowing what the key signed, it could sign the same height twice")
            .next("take the file as the old node left it, in its data folder")
    })
}
