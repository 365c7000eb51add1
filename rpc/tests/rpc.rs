//! The server over real sockets, the client against it, and the contract's shapes.

#![expect(clippy::cast_possible_truncation, reason = "heights of test chains are small")]

#[path = "rpc/chain.rs"]
mod chain;
#[path = "rpc/client.rs"]
mod client;
#[path = "rpc/errors.rs"]
mod errors;
#[path = "rpc/http.rs"]
mod http;
#[path = "rpc/malformed.rs"]
mod malformed;
#[path = "rpc/node.rs"]
mod node;
#[path = "rpc/oracle.rs"]
mod oracle;
#[path = "rpc/shapes.rs"]
mod shapes;
#[path = "rpc/transport.rs"]
mod transport;
#[path = "rpc/websocket.rs"]
mod websocket;
