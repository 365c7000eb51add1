//! JSON-RPC for clients, in the shapes that clients of CometBFT 0.38 expect: the server, the client, and the
//! verification of what a server says.
//!
//! - [`backend`]: what the server asks of a node, in types.
//! - [`json`]: the same answers in JSON, written by the server and read by the client.
//! - [`server`]: one port with JSON-RPC by POST, URI calls by GET, and a WebSocket.
//! - [`client`]: typed methods over several endpoints with failover, and [`client::verify`], which believes a server
//!   nothing that signatures and Merkle proofs do not show.
//!
//! Nothing here can change consensus: transactions go in, answers come out.

pub mod backend;
pub mod client;
pub mod json;
pub mod server;

pub use backend::Backend;
pub use client::Client;
pub use server::{Limits, Options, Server, serve};
