//! The bundled key-value application, which leaves a liar its power.
//!
//! What is proven of a validator takes its power away, and a liar without power lies no more: after its first lie a run would
//! see little of it. So here the application is told of nobody's misbehaviour. That evidence is carried, once, by whom and
//! against whom, is judged all the same; that it takes power away is judged where membership is on.

use lockstep_app::{
    Application, BlockInput, CheckKind, Executed, GenesisInput, GenesisRefused, Info, Initialized, Kv, Proposal, ProposalInput, Query,
    QueryAnswer, Verdict, View,
};
use lockstep_types::Tx;

/// See the [module](self).
pub(crate) struct Forgiving;

impl Application for Forgiving {
    fn info(&self, view: &View) -> Info {
        Kv.info(view)
    }

    fn init_chain(&self, genesis: &GenesisInput<'_>) -> Result<Initialized, GenesisRefused> {
        Kv.init_chain(genesis)
    }

    fn check_tx(&self, view: &View, tx: &[u8], kind: CheckKind) -> Verdict {
        Kv.check_tx(view, tx, kind)
    }

    fn prepare_proposal(&self, view: &View, proposal: &ProposalInput<'_>) -> Vec<Tx> {
        Kv.prepare_proposal(view, proposal)
    }

    fn process_proposal(&self, view: &View, block: &BlockInput<'_>) -> Proposal {
        Kv.process_proposal(view, block)
    }

    fn execute(&self, view: &View, block: &BlockInput<'_>) -> Executed {
        Kv.execute(view, &BlockInput { misbehaviour: Vec::new(), ..block.clone() })
    }

    fn query(&self, view: &View, query: &Query<'_>) -> QueryAnswer {
        Kv.query(view, query)
    }
}
