//! The stores on real files. What a power cut does to them is `sim/tests/storage.rs`.

mod common;
mod files;
mod guard;
mod log;
