//! Tests that no single crate can hold. They stand in `tests/`; there is nothing to call here.
//!
//! - `edges` reads the manifests of the workspace and refuses an edge that the crate graph does not have.
