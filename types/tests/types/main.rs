//! The crate against what is independent of it: the vectors of other implementations, naive models, and bytes written out
//! by hand.

mod attack;
mod certificates;
mod codec;
mod layout;
mod light;
mod merkle;
mod quorum;
mod rotation;
mod sign_bytes;
mod support;
mod text;
mod updates;
mod vectors;
mod verdict;
