//! A bundled application, which leaves a liar its power.
//!
//! What is proven of a validator takes its power away, and a liar without power lies no more: after its first lie a run would
//! see little of it. So here the application is told of nobody's misbehaviour. That evidence is carried, once, by whom and
//! against whom, is judged all the same; that it takes power away is judged where membership is on.

use lockstep_app::{
    Application, BlockInput, CheckKind, Executed, GenesisInput, GenesisRefused, Info, Initialized, Proposal, ProposalInput, Query,
    QueryAnswer, Verdict, View,
};
use lockstep_types::Tx;

/// See the [module](self).
pub(crate) struct Forgiving<A>(pub(crate) A);

impl<A: Application> Application for Forgiving<A> {
    fn info(&self, view: &View) -> Info {
        self.0.info(view)
    }

    fn init_chain(&self, genesis: &GenesisInput<'_>) -> Result<Initialized, GenesisRefused> {
        self.0.init_chain(genesis)
    }

    fn check_tx(&self, view: &View, tx: &[u8], kind: CheckKind) -> Verdict {
        self.0.check_tx(view, tx, kind)
    }

    fn prepare_proposal(&self, view: &View, proposal: &ProposalInput<'_>) -> Vec<Tx> {
        self.0.prepare_proposal(view, proposal)
    }

    fn process_proposal(&self, view: &View, block: &BlockInput<'_>) -> Proposal {
        self.0.process_proposal(view, block)
    }

    fn execute(&self, view: &View, block: &BlockInput<'_>) -> Executed {
        self.0.execute(view, &BlockInput { misbehaviour: Vec::new(), ..block.clone() })
    }

    fn query(&self, view: &View, query: &Query<'_>) -> QueryAnswer {
        self.0.query(view, query)
    }
}
