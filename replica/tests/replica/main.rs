//! The replica: bytes on the wire, the fence, what is signed, bodies, blocks built and judged, the pool, and a replica
//! driven by hand.

mod bodies;
mod check;
mod desk;
mod driven;
mod examples;
mod fence;
mod pool;
mod serving;
mod shares;
mod signing;
mod support;
mod wire;
