//! What tests of whole networks share: the program as processes ([`program`]), networks of it ([`net`]) and a liar between them ([`proxy`]), a client that
//! shares no code with it ([`rpc`]), and load ([`load`]). Tests of the workspace itself are in `tests/`.
//!
//! Nothing here waits for a time to pass: it waits for an event, by looking again and again until [`program::PATIENCE`] is
//! over. Figures are printed in lines that begin with `measured:` and never decide whether a test passes.

pub mod load;
pub mod net;
pub mod program;
pub mod proxy;
pub mod rpc;
