//! The bundled applications as one: genesis says which of them a chain runs.
//!
//! A group `token` in `app_state` starts the token, anything else the key-value application, which refuses what it does not
//! know. From then on the state says it: the rules of the token stand in it from genesis on. So no setting of a node can
//! contradict its chain.

use std::collections::BTreeMap;

use lockstep_types::Tx;
use serde_json::value::RawValue;

use crate::application::{
    Application, BlockInput, CheckKind, Executed, GenesisInput, GenesisRefused, Info, Initialized, Proposal, ProposalInput, Query,
    QueryAnswer, Verdict,
};
use crate::changes::View;
use crate::kv::Kv;
use crate::token::{CONFIG_KEY, Token};

/// Either bundled application. See the [module](self).
#[derive(Debug, Default)]
pub struct Bundled {
    kv: Kv,
    token: Token,
}

impl Bundled {
    /// The application of the chain that has this state.
    fn of(&self, view: &View) -> &dyn Application {
        if view.get(CONFIG_KEY).is_some() { &self.token } else { &self.kv }
    }
}

impl Application for Bundled {
    fn info(&self, view: &View) -> Info {
        self.of(view).info(view)
    }

    fn init_chain(&self, genesis: &GenesisInput<'_>) -> Result<Initialized, GenesisRefused> {
        let groups: BTreeMap<String, &RawValue> = serde_json::from_str(genesis.app_state).unwrap_or_default();
        if groups.contains_key("token") { self.token.init_chain(genesis) } else { self.kv.init_chain(genesis) }
    }

    fn check_tx(&self, view: &View, tx: &[u8], kind: CheckKind) -> Verdict {
        self.of(view).check_tx(view, tx, kind)
    }

    fn prepare_proposal(&self, view: &View, proposal: &ProposalInput<'_>) -> Vec<Tx> {
        self.of(view).prepare_proposal(view, proposal)
    }

    fn process_proposal(&self, view: &View, block: &BlockInput<'_>) -> Proposal {
        self.of(view).process_proposal(view, block)
    }

    fn execute(&self, view: &View, block: &BlockInput<'_>) -> Executed {
        self.of(view).execute(view, block)
    }

    fn query(&self, view: &View, query: &Query<'_>) -> QueryAnswer {
        self.of(view).query(view, query)
    }
}
