//! The program as its users meet it: by its command line, its files and its exit codes.

mod chain;
mod config;
mod fork;
mod history;
mod homes;
mod network;
mod program;
