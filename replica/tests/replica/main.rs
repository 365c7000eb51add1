//! The replica: bytes on the wire, the fence, what is signed, bodies, blocks built and judged, the pool, and a replica
//! driven by hand.

mod bodies;
mod examples;
mod fence;
mod signing;
mod support;
mod wire;
