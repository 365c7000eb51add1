//! The replica: bytes on the wire, the fence, what is signed, bodies, blocks built and judged, the pool, and a replica
//! driven by hand.

mod audit;
mod bodies;
mod catching_up;
mod check;
mod cut_off;
mod desk;
mod driven;
mod evidence;
mod examples;
mod fence;
mod gathered;
mod helping;
mod kept;
mod leases;
mod misdeeds;
mod own_wait;
mod pool;
mod reexecute;
mod retention;
mod serving;
mod shares;
mod signing;
mod source;
mod start;
mod support;
mod wire;
